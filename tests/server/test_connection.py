"""What a client and its connection go through: waits, hang-ups, large items, errors."""

import os
import signal
import socket
import time
from collections.abc import Callable
from itertools import pairwise

import gevent
import pytest

from darner_core.config.options import Config
from darner_core.server.connection import LOOK_EVERY
from darner_core.server.server import Server
from darner_core.server.turn import SHARE_S
from darner_core.storage.storage import Storage
from tests.harness import Client, RunningServer, wait_until

Connect = Callable[[], Client]
LARGE = bytes(range(256)) * 4 * 600  # 600 KiB: five chunks


def waiters(client: Client, queue: str) -> int:
    return int(client.stats().get(f"queue_{queue}_waiters", 0))


# -- a line that comes in pieces


def test_a_line_means_nothing_before_its_end(connect: Connect) -> None:
    """Also if what has come of it is itself a line that the server has seen before."""
    client = connect()
    client.ask(b"get wo\n", b"END\r\n")
    client.ask(b"get none\r\n", b"END\r\n")
    client.set("wo", b"x")
    client.set("work", b"y")
    for begin, end, item in ((b"get wo", b"rk\r\n", b"y"), (b"get none\r", b"\n", None), (b"get wo\r", b"\n", b"x")):
        client.send(begin)
        client.expect_nothing()
        client.send(end)
        assert client.item() == item


# -- waiting


def test_a_waiting_client_gets_what_is_put(connect: Connect) -> None:
    consumer, producer = connect(), connect()
    consumer.send(b"get q/t=5000\r\n")
    consumer.expect_nothing()
    producer.set("q", b"x")
    assert consumer.item() == b"x"
    assert producer.get("q") is None


def test_waiting_clients_are_served_in_order_of_arrival(connect: Connect) -> None:
    producer = connect()
    producer.set("q", b"")
    assert producer.get("q") == b""
    consumers = [connect() for _ in range(5)]
    for number, consumer in enumerate(consumers, 1):
        consumer.send(b"get q/t=9000\r\n")
        wait_until(lambda expected=number: waiters(producer, "q") == expected)  # type: ignore[misc]
    for number in range(5):
        producer.set("q", b"%d" % number)
    assert [consumer.item() for consumer in consumers] == [b"0", b"1", b"2", b"3", b"4"]


def test_a_client_that_hangs_up_leaves_the_line(connect: Connect) -> None:
    producer = connect()
    producer.set("q", b"")
    producer.get("q")
    for hang_up in (Client.close, Client.reset):
        gone, patient = connect(), connect()
        gone.send(b"get q/t=9000\r\n")
        wait_until(lambda: waiters(producer, "q") == 1)
        patient.send(b"get q/t=9000\r\n")
        wait_until(lambda: waiters(producer, "q") == 2)
        hang_up(gone)
        wait_until(lambda: waiters(producer, "q") == 1)
        producer.set("q", b"x")
        assert patient.item() == b"x"


def test_waits_end_with_nothing_and_leave_nothing_behind(connect: Connect) -> None:
    client = connect()
    assert client.get("nobody/t=50") is None
    assert client.get("nobody/t=50/open") is None
    assert client.get("nobody/t=50/peek") is None
    assert not [name for name in client.stats() if name.startswith("queue_nobody")]


def test_a_wait_holds_back_what_is_pipelined_behind_it(connect: Connect) -> None:
    consumer, producer = connect(), connect()
    consumer.send(b"get q/t=9000\r\nversion\r\nset q 0 0 1\r\ny\r\nget q\r\n")
    consumer.expect_nothing()
    producer.set("q", b"x")
    assert consumer.item() == b"x"
    assert consumer.line().startswith(b"VERSION ")
    consumer.expect(b"STORED\r\n")
    assert consumer.item() == b"y"


def test_what_is_sent_while_waiting_is_answered_afterwards(connect: Connect) -> None:
    consumer, producer = connect(), connect()
    consumer.send(b"get q/t=9000\r\n")
    consumer.expect_nothing()
    consumer.send(b"set other 0 0 2\r\nhe")
    consumer.expect_nothing()
    producer.set("q", b"x")
    assert consumer.item() == b"x"
    consumer.send(b"\r\nget other\r\n")
    consumer.expect(b"STORED\r\n")
    assert consumer.item() == b"he"


def test_an_aborted_and_a_lost_item_wake_a_waiter(connect: Connect) -> None:
    holder, consumer, producer = connect(), connect(), connect()
    producer.set("q", b"x")
    assert holder.get("q/open") == b"x"
    consumer.send(b"get q/t=9000/open\r\n")
    consumer.expect_nothing()
    assert holder.get("q/abort") is None
    assert consumer.item() == b"x"
    holder.send(b"get q/t=9000\r\n")
    holder.expect_nothing()
    consumer.reset()
    assert holder.item() == b"x"


def test_a_waiting_peek_leaves_the_item_to_the_next_in_line(connect: Connect) -> None:
    peeker, consumer, producer = connect(), connect(), connect()
    producer.set("q", b"")
    producer.get("q")
    peeker.send(b"get q/peek/t=9000\r\n")
    wait_until(lambda: waiters(producer, "q") == 1)
    consumer.send(b"get q/t=9000\r\n")
    wait_until(lambda: waiters(producer, "q") == 2)
    producer.ask(b"set q 0 0 1 noreply\r\nx\r\nset q 0 0 1\r\ny\r\n", b"STORED\r\n")
    assert consumer.item() == b"x"
    assert peeker.item() in (b"x", b"y")
    assert producer.get("q") == b"y"


def test_a_deleted_queue_keeps_its_waiters(connect: Connect) -> None:
    consumer, producer = connect(), connect()
    producer.set("q", b"")
    producer.get("q")
    consumer.send(b"get q/t=9000\r\n")
    wait_until(lambda: waiters(producer, "q") == 1)
    producer.ask(b"delete q\r\n", b"DELETED\r\n")
    consumer.expect_nothing()
    producer.set("q", b"x")
    assert consumer.item() == b"x"


def test_a_large_item_reaches_a_waiter(connect: Connect) -> None:
    consumer, producer = connect(), connect()
    consumer.send(b"get q/t=9000\r\n")
    consumer.expect_nothing()
    producer.set("q", LARGE)
    assert consumer.item() == LARGE
    assert producer.get("q") is None


# -- large items


def test_large_items_come_back_whole_in_every_way_of_reading(connect: Connect) -> None:
    client, other = connect(), connect()
    for number in range(3):
        client.set("q", LARGE + b"%d" % number, flags=9)
    assert client.get("q/peek") == LARGE + b"0"
    assert client.get("q/open") == LARGE + b"0"
    assert other.get("q/open") == LARGE + b"1"
    assert client.get("q/abort") is None
    assert client.get("q/close/open") == LARGE + b"0"
    other.close()
    wait_until(lambda: client.stats()["curr_connections"] == "1")
    assert client.get("q/close/open") == LARGE + b"1"
    assert client.get("q/close") is None
    client.send(b"get q\r\n")
    assert client.line() == b"VALUE q 9 %d\r\n" % (len(LARGE) + 1)
    assert client.read(len(LARGE) + 1) == LARGE + b"2"
    client.expect(b"\r\nEND\r\n")
    assert client.get("q") is None


def test_a_client_that_hangs_up_in_the_middle_of_putting_stores_nothing(connect: Connect) -> None:
    client, other = connect(), connect()
    client.send(b"set q 0 0 %d\r\n" % len(LARGE) + LARGE[:200_000])
    time.sleep(0.1)
    client.reset()
    assert other.get("q") is None
    other.set("q", LARGE)
    assert other.get("q") == LARGE


def test_a_client_that_hangs_up_in_the_middle_of_getting_leaves_the_item_to_the_next(connect: Connect) -> None:
    body = bytes(8 << 20)
    client, other = connect(), connect()
    client.set("q", body)
    for key in (b"q", b"q/open"):
        getter = connect()
        getter.send(b"get %b\r\n" % key)
        getter.read(1000)
        getter.reset()
    assert other.get("q/t=5000") == body
    assert other.get("q") is None


def test_a_large_item_without_its_end_is_refused(connect: Connect) -> None:
    client, other = connect(), connect()
    client.send(b"set q 0 0 %d\r\n" % len(LARGE) + LARGE + b"xx" + b"more" * 100_000)
    assert client.line().startswith(b"CLIENT_ERROR bad data chunk")
    client.expect_hang_up()
    assert other.get("q") is None


def test_a_large_item_of_a_queue_deleted_meanwhile_is_refused(connect: Connect) -> None:
    client, other = connect(), connect()
    other.set("q", b"x")
    client.send(b"set q 0 0 %d\r\n" % len(LARGE) + LARGE[:100_000])
    client.expect_nothing()
    other.ask(b"delete q\r\n", b"DELETED\r\n")
    client.send(LARGE[100_000:] + b"\r\n")
    assert client.line().startswith(b"SERVER_ERROR the queue was deleted")
    client.set("q", LARGE)
    assert other.get("q") == LARGE


def test_an_item_over_the_limit_is_refused_and_the_connection_goes_on(
    start_server: Callable[..., RunningServer],
) -> None:
    client = start_server("--max-item-bytes", "100 KiB").client()
    for size in (100 * 1024 + 1, 5_000_000):
        client.send(b"set q 0 0 %d\r\n" % size + bytes(size) + b"\r\n")
        client.expect(b"SERVER_ERROR object too large for cache\r\n")
    client.set("q", bytes(100 * 1024))
    assert client.get("q") == bytes(100 * 1024)
    small = start_server("--max-item-bytes", "10").client()
    small.ask(b"set q 0 0 11\r\nhello world\r\n", b"SERVER_ERROR object too large for cache\r\n")
    small.ask(b"set q 0 0 11 noreply\r\nhello world\r\nget q\r\n", b"END\r\n")


def test_what_looks_like_commands_inside_a_large_item_is_only_bytes(connect: Connect) -> None:
    """The item comes while its client still waits for the request before it."""
    client, other = connect(), connect()
    other.set("precious", b"x")
    body = b"flush precious\r\nset evil 0 0 1\r\nx\r\n" * 3000
    client.send(b"get nothing/t=300\r\nset q 0 0 %d\r\n" % len(body))
    client.expect_nothing()
    client.send(body + b"\r\nversion\r\n")
    client.expect(b"END\r\nSTORED\r\n")
    assert client.line().startswith(b"VERSION ")
    assert other.get("q") == body
    assert other.get("precious") == b"x"
    assert other.get("evil") is None


def test_nothing_behind_an_error_is_done_even_if_it_came_during_a_wait(connect: Connect) -> None:
    client, other = connect(), connect()
    client.send(b"get nothing/t=300\r\nbogus\r\n")
    client.expect_nothing()
    client.send(b"set q 0 0 1\r\nx\r\n")
    client.expect(b"END\r\n")
    assert client.line().startswith(b"ERROR unknown command")
    client.expect_hang_up()
    assert other.get("q") is None


def test_a_large_item_behind_a_sync_is_received(connect: Connect) -> None:
    client = connect()
    for _ in range(5):
        client.send(b"set a/sync 0 0 1\r\nx\r\nset q 0 0 %d\r\n" % len(LARGE) + LARGE[:1000])
        client.expect(b"STORED\r\n")
        client.send(LARGE[1000:] + b"\r\nversion\r\n")
        client.expect(b"STORED\r\n")
        assert client.line().startswith(b"VERSION ")
        assert client.get("q") == LARGE


def test_a_hang_up_is_seen_in_a_wait_behind_a_sync(connect: Connect) -> None:
    client, other = connect(), connect()
    client.send(b"set a/sync 0 0 1\r\nx\r\nget q/t=60000\r\n")
    client.expect(b"STORED\r\n")
    wait_until(lambda: other.stats()["total_connections"] == "2")
    client.close()
    wait_until(lambda: other.stats()["curr_connections"] == "1")
    other.set("q", b"y")
    assert other.get("q") == b"y"


def test_a_client_that_dies_in_a_large_set_with_replies_outstanding_is_gone(connect: Connect) -> None:
    other = connect()
    for _ in range(30):
        other.set("big", bytes(60_000))
    for _ in range(10):
        client = connect()
        client.send(b"get big\r\n" * 3 + b"set q 0 0 100000\r\n0123456789")
        client.reset()
    wait_until(lambda: other.stats()["curr_connections"] == "1")


def test_a_client_that_pipelines_waits_costs_no_memory(server: RunningServer, connect: Connect) -> None:
    client, other = connect(), connect()
    other.set("q", b"x")
    before = server.resident_bytes()
    client.socket.settimeout(0.5)
    requests = b"get nothing/t=1\r\n" * 20_000
    sent = 0
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        try:
            sent += client.socket.send(requests)
        except TimeoutError:
            pass
    assert other.get("q") == b"x"
    assert server.resident_bytes() - before < 6 << 20


def test_an_item_handed_over_and_deleted_at_once_was_never_there(connect: Connect) -> None:
    waiting, client = connect(), connect()
    waiting.send(b"get q/t=9000\r\n")
    waiting.expect_nothing()
    client.send(b"set q 0 0 1\r\nx\r\ndelete q\r\n")
    client.expect(b"STORED\r\nDELETED\r\n")
    waiting.expect_nothing()
    client.set("q", b"y")
    assert waiting.item() == b"y"


# -- errors


def test_an_error_is_read_even_if_the_client_is_still_sending(connect: Connect) -> None:
    client = connect()
    client.send(b"set q 0 0 1\r\nx\r\nnonsense\r\n" + b"set q 0 0 1\r\nx\r\n" * 20_000)
    client.expect(b"STORED\r\n")
    assert client.line().startswith(b'ERROR unknown command "nonsense"')
    client.expect_hang_up()


def test_an_error_gives_back_what_the_client_held(connect: Connect) -> None:
    client, other = connect(), connect()
    other.set("q", b"x")
    assert client.get("q/open") == b"x"
    client.send(b"nonsense\r\n")
    assert client.line().startswith(b"ERROR")
    assert other.get("q/t=5000") == b"x"


def test_one_clients_error_does_not_touch_another(connect: Connect) -> None:
    good = connect()
    good.send(b"set q 0 0 10\r\nhalf ")
    for garbage in (b"\x00" * 100, b"\r\n", b"get\r\n", b"set q 0 0 99999999999999999999999\r\n", b"x" * 9000):
        bad = connect()
        bad.send(garbage + b"\r\n")
        assert bad.line().startswith((b"ERROR", b"CLIENT_ERROR"))
        bad.expect_hang_up()
    good.ask(b"done.\r\n", b"STORED\r\n")
    assert good.get("q") == b"half done."


def test_quit_hangs_up_after_the_replies_before_it(connect: Connect) -> None:
    client = connect()
    client.send(b"set q 0 0 1\r\nx\r\nquit\r\nget q\r\n")
    client.expect(b"STORED\r\n")
    client.expect_hang_up()
    assert connect().get("q") == b"x"


def test_who_has_said_all_it_will_is_answered_whatever_its_last_words_were(server: RunningServer) -> None:
    """Its hang-up comes with its requests, and is noticed when it has been answered."""
    others = [server.client() for _ in range(3)]
    for last in (b"", b"get", b"get none/t=300\r\n", b"set p 0 0 300000\r\nabc"):
        others[0].set("q", b"x")
        client = server.client()
        os.kill(server.process.pid, signal.SIGSTOP)  # so that all is there when it looks
        for other in others:
            other.send(b"version\r\n")
        client.send(b"get q\r\n" + last)
        client.socket.shutdown(socket.SHUT_WR)
        os.kill(server.process.pid, signal.SIGCONT)
        assert client.item() == b"x"
        for other in others:
            assert other.line().startswith(b"VERSION")


# -- clients that are gone, in each state

AHEAD = (
    b"version\r\n" * 15_500
)  # more than is read with a request and ahead of a wait, and not more than the kernel takes
GONE = [Client.close, Client.reset]


@pytest.fixture
def kestrel(shared_server: Callable[..., RunningServer]) -> RunningServer:
    """There a client can wait while it has items open."""
    return shared_server("--dialect", "kestrel")


def holder(server: RunningServer, other: Client, held: str) -> tuple[Client, str]:
    """A client that has an item open, and how many clients there were before it."""
    before = other.stats()["curr_connections"]
    other.set(held, b"x")
    client = Client(server.port)
    assert client.get(f"{held}/open") == b"x"
    return client, before


@pytest.mark.parametrize("hang_up", GONE)
@pytest.mark.parametrize("request_", [b"get wanted/t=60000", b"monitor wanted 60", b"watch wanted"])
@pytest.mark.parametrize("ahead", [b"", AHEAD])
def test_who_waits_or_watches_and_is_gone_holds_nothing(
    kestrel: RunningServer, queue: str, request_: bytes, ahead: bytes, hang_up: Callable[[Client], None]
) -> None:
    other = kestrel.client()
    gone, before = holder(kestrel, other, queue)
    gone.send(request_ + b"\r\n" + ahead)
    if request_.startswith(b"watch"):
        gone.line()
    else:
        gone.expect_nothing()
    hang_up(gone)
    assert other.get(f"{queue}/t=9000") == b"x"
    wait_until(lambda: other.stats()["curr_connections"] == before)
    other.close()


@pytest.mark.parametrize("hang_up", GONE)
@pytest.mark.parametrize("state", ["sends a large item", "does not read", "was told of an error"])
def test_who_is_gone_in_the_middle_of_something_holds_nothing(
    kestrel: RunningServer, queue: str, state: str, hang_up: Callable[[Client], None]
) -> None:
    other = kestrel.client()
    gone, before = holder(kestrel, other, queue)
    if state == "sends a large item":
        gone.send(b"set q 0 0 %d\r\n" % len(LARGE) + LARGE[:200_000])
    elif state == "does not read":
        other.set(f"big-{queue}", bytes(8 << 20))
        gone.send(b"get big-%b\r\n" % queue.encode())
        gone.read(1000)
    else:
        gone.send(b"nonsense\r\n")
    hang_up(gone)
    assert other.get(f"{queue}/t=9000") == b"x"
    wait_until(lambda: other.stats()["curr_connections"] == before)
    other.close()


def test_who_is_gone_while_its_replies_wait_for_an_fsync_holds_nothing(connect: Connect) -> None:
    other = connect()
    for hang_up in GONE:
        other.set("held", b"x")
        gone = connect()
        assert gone.get("held/open") == b"x"
        gone.send(b"set q/sync 0 0 1\r\nx\r\n" * 50)
        hang_up(gone)
        assert other.get("held/t=9000") == b"x"
    wait_until(lambda: other.stats()["curr_connections"] == "1")


# -- shares


def test_floods_are_answered_whole_and_in_order_also_of_clients_that_have_said_all_they_will(connect: Connect) -> None:
    """More than one share each, so that all of them wait for theirs again and again."""
    clients = [connect() for _ in range(4)]
    requests = b"".join(b"set q%d 0 0 4\r\n%04d\r\nget q%d\r\n" % (n % 7, n, n % 7) for n in range(4_000))
    for number, client in enumerate(clients):
        client.send(requests.replace(b" q", b" c%d-q" % number))
        client.socket.shutdown(socket.SHUT_WR)
    for number, client in enumerate(clients):
        client.expect(
            b"".join(b"STORED\r\nVALUE c%d-q%d 0 4\r\n%04d\r\nEND\r\n" % (number, n % 7, n) for n in range(4_000))
        )
        client.expect_hang_up()


def test_who_floods_and_is_gone_gives_back_what_it_held(connect: Connect) -> None:
    other = connect()
    other.set("held", b"x")
    gone, alive = connect(), connect()
    assert gone.get("held/open") == b"x"
    for client in (gone, alive):
        client.send(b"get none\r\n" * 20_000)
    gone.reset()
    assert other.get("held/t=9000") == b"x"
    alive.expect(b"END\r\n" * 20_000)
    wait_until(lambda: other.stats()["curr_connections"] == "2")


def test_the_server_stops_beside_floods_and_answers_what_has_come(server: RunningServer) -> None:
    clients = [server.client() for _ in range(3)]
    for client in clients:
        client.send(b"get none\r\n" * 10_000)
    assert clients[0].read(5) == b"END\r\n"
    assert server.stop() == 0
    for client in clients:
        replies = client.read(60_000)
        assert replies
        assert replies == (b"END\r\n" * 10_000)[: len(replies)]


def test_so_many_requests_are_served_between_two_looks_at_the_clock(open_storage: Callable[[], Storage]) -> None:
    """Each look is the end of a share here: the others come then."""
    server = Server(Config(port=0), open_storage())
    served = [0]

    def clock() -> float:
        served.append(server.stats.get_misses)
        return len(served) * SHARE_S

    server.turn.clock = clock
    server.start()
    flooders = [socket.create_connection(("127.0.0.1", server.reception.listeners[0].port)) for _ in range(5)]
    for flooder in flooders:
        flooder.sendall(b"get none\r\n" * 1_000)
    deadline = time.monotonic() + 10
    while server.stats.get_misses < 5_000 and time.monotonic() < deadline:
        gevent.sleep(0.001)
    for flooder in flooders:
        flooder.close()
    server.request_stop()
    server.wait_stopped()
    assert server.stats.get_misses == 5_000
    assert max(after - before for before, after in pairwise(served)) == LOOK_EVERY
