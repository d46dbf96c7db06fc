"""What the server bears: too many queues, clients that stall, trickle, flood or never read, and a clock that steps.

In each the others go on being served, and memory and file descriptors stay within their bounds.
"""

import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise

import pytest

from tests.server.test_acceptor import warmed
from tests.server.test_connection import LARGE
from tests.support.harness import Client, RunningServer, wait_until

Start = Callable[..., RunningServer]

MANY = 1000
MOST_GROWTH_BYTES = 64_000_000
GIB = 1 << 30


@pytest.fixture
def descriptors() -> None:
    """This process can have `MANY` connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < MANY + 200:
        if hard != resource.RLIM_INFINITY and hard < MANY + 200:
            pytest.skip(f"needs {MANY + 200} file descriptors, the hard limit is {hard}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (MANY + 200, hard))


class Growth:
    """How much the server's resident memory has grown at most, looked at all the time."""

    def __init__(self, server: RunningServer) -> None:
        self._server = server
        self._before = server.resident_bytes()
        self._ended = threading.Event()
        self.most_bytes = 0

    def __enter__(self) -> "Growth":
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            self.most_bytes = max(self.most_bytes, self._server.resident_bytes() - self._before)

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


# -- queues


def test_a_set_that_would_make_one_queue_too_many_is_refused(start_server: Start) -> None:
    server = start_server("--max-queues", "2")
    client, consumer = server.client(), server.client()
    client.set("a", b"x")
    client.set("b", b"x")
    error = b"SERVER_ERROR too many queues: at most 2\r\n"
    client.ask(b"set c 0 0 1\r\nx\r\n", error)
    client.ask(b"set c 0 0 %d\r\n" % len(LARGE) + LARGE + b"\r\n", error)
    client.ask(
        b"set c 0 0 1 noreply\r\nx\r\nset c 0 0 %d noreply\r\n" % len(LARGE) + LARGE + b"\r\nget c\r\n", b"END\r\n"
    )
    client.set("a", b"y")
    assert [client.get("a"), client.get("a"), client.get("b")] == [b"x", b"y", b"x"]
    consumer.send(b"get c/t=20000\r\n")  # costs no queue
    client.ask(b"delete b\r\n", b"DELETED\r\n")
    client.set("c", b"z")
    assert consumer.item() == b"z"
    server.kill()
    server.options = ("--max-queues", "1")
    server.start()
    client = server.client()
    client.set("a", b"more than it may have made are kept")
    client.ask(b"set b 0 0 1\r\nx\r\n", b"SERVER_ERROR too many queues: at most 1\r\n")


def test_waiting_for_queues_that_do_not_exist_leaves_nothing_behind(server: RunningServer) -> None:
    client = warmed(server)
    with Growth(server) as growth:
        for start in range(0, 20_000, 500):
            client.send(b"".join(b"get nobody%d/t=1\r\n" % number for number in range(start, start + 100)))
            client.expect(b"END\r\n" * 100)
    assert growth.most_bytes < 8_000_000


# -- memory


def stall(server: RunningServer, announced: int, sent: int, queues: int = 10) -> Iterator[Client]:
    for number in range(MANY):
        client = Client(server.port)
        client.send(b"set q%d 0 0 %d\r\n" % (number % queues, announced) + bytes(sent))
        yield client


@pytest.mark.usefixtures("descriptors")
@pytest.mark.parametrize(
    ("announced", "sent", "most_bytes"),
    [
        (GIB, 0, MOST_GROWTH_BYTES),
        (GIB, 1, MOST_GROWTH_BYTES),
        (GIB, 100_000, MOST_GROWTH_BYTES),
        (120_000, 100_000, 90_000_000),  # with holes in the heap; kept in memory they would be 107 MB
    ],
)
def test_a_thousand_clients_that_announce_items_and_stall_cost_little(
    server: RunningServer, announced: int, sent: int, most_bytes: int
) -> None:
    client = warmed(server)
    with Growth(server) as growth:
        clients = list(stall(server, announced, sent))
        wait_until(lambda: int(client.stats()["bytes_read"]) >= MANY * sent)
        client.set("other", b"x")
        time.sleep(0.1)
    assert growth.most_bytes <= most_bytes
    for stalled in clients:
        stalled.close()
    wait_until(lambda: client.stats()["curr_connections"] == "1")
    stats = client.stats()
    assert {stats.get(f"queue_q{number}_items", "0") for number in range(10)} == {"0"}
    assert client.get("other") == b"x"


@pytest.mark.parametrize("size", [700, 70_000, 131_072, 300_000])
def test_what_was_written_early_for_want_of_memory_comes_back_whole(start_server: Start, size: int) -> None:
    server = start_server("--body-memory-bytes", "1MiB")
    count = 2500 if size < 1000 else 60
    client, other = server.client(), server.client()
    clients = [server.client() for _ in range(min(count, 300))]
    bodies = [os.urandom(size) for _ in clients]
    cuts = [0, size // 3, size // 2, size - 1, size + 1, size + 2]
    for begin, end in pairwise(cuts):
        for number, (client, body) in enumerate(zip(clients, bodies, strict=True)):
            head = b"set q%d 7 0 %d\r\n" % (number, size) if begin == 0 else b""
            client.send(head + (body + b"\r\n")[begin:end])
        other.set("other", b"x")
        other.stats()  # all have been read
    for number, (client, body) in enumerate(zip(clients, bodies, strict=True)):
        client.expect(b"STORED\r\n")
        client.send(b"get q%d\r\n" % number)
        client.expect(b"VALUE q%d 7 %d\r\n" % (number, size) + body + b"\r\nEND\r\n")
        client.ask(b"get q%d\r\n" % number, b"END\r\n")


def test_an_item_written_early_whose_end_is_wrong_or_missing_leaves_nothing(start_server: Start) -> None:
    server = start_server("--body-memory-bytes", "1MiB", "--body-timeout-s", "2")
    other = server.client()
    clients = [server.client() for _ in range(40)]
    for client in clients:
        client.send(b"set q 0 0 100000\r\n" + bytes(90_000))
    wait_until(lambda: int(other.stats()["bytes_read"]) >= 40 * 90_000)
    for client in clients[:15]:
        client.send(bytes(10_000) + b"xx")
        assert client.line().startswith(b"CLIENT_ERROR bad data chunk")
    for client in clients[15:30]:
        client.reset()
    for client in clients[30:]:
        assert client.line().startswith(b"CLIENT_ERROR the rest of the item did not come")
    assert other.get("q") is None
    other.set("q", LARGE)
    assert other.get("q") == LARGE


def send_until_full(client: Client, data: bytes) -> None:
    client.socket.setblocking(False)
    with suppress(BlockingIOError):
        for _ in range(6):
            client.socket.send(data)
            time.sleep(0.001)


@pytest.mark.parametrize(("item_bytes", "clients"), [(100_000, 120), (20 << 20, 120)])
def test_clients_that_never_read_cost_little_in_sum(start_server: Start, item_bytes: int, clients: int) -> None:
    server = start_server("--max-reply-bytes", "1MiB", "--chunk-bytes", "1MiB", "--pipeline-memory-bytes", "4MiB")
    client = warmed(server)
    client.set("p", bytes(item_bytes))
    deaf = []
    with Growth(server) as growth:
        for _ in range(clients):
            deaf.append(server.client())
            deaf[-1].socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            send_until_full(deaf[-1], b"get p/peek\r\n" * 3000)
        client.set("other", b"x")
    assert growth.most_bytes <= 30_000_000  # without a bound on the sum: 41 MB
    assert client.get("other") == b"x"
    client.ask(b"get p/peek\r\n", b"VALUE p 0 %d\r\n" % item_bytes)


@pytest.mark.usefixtures("descriptors")
def test_what_is_sent_ahead_behind_a_wait_costs_little_in_sum(start_server: Start) -> None:
    server = start_server("--pipeline-memory-bytes", "1MiB")
    client = warmed(server)
    waiting = []
    with Growth(server) as growth:
        for _ in range(250):
            waiting.append(server.client())
            waiting[-1].send(b"get q/t=60000\r\n")
        for waiter in waiting:
            send_until_full(waiter, b"set a 0 0 2\r\nab\r\n" * 4000)
        client.set("other", b"x")
    assert growth.most_bytes <= 10_000_000  # without a bound on the sum: 15 MB
    assert client.get("other") == b"x"
    client.set("q", b"x")
    waiting[0].expect(b"VALUE q 0 1\r\nx\r\nEND\r\n" + b"STORED\r\n" * 20_000)
    server.kill()


def open_sockets(server: RunningServer) -> int:
    """Without the database's files, which come and go."""
    opened = f"/proc/{server.process.pid}/fd"
    count = 0
    for descriptor in os.listdir(opened):
        with suppress(FileNotFoundError):
            count += os.readlink(f"{opened}/{descriptor}").startswith("socket:")
    return count


@pytest.mark.long
@pytest.mark.usefixtures("descriptors")
def test_ten_thousand_connections_come_and_go(server: RunningServer) -> None:
    client = warmed(server)
    before = open_sockets(server)
    for _ in range(200):
        Client(server.port).close()
    wait_until(lambda: client.stats()["curr_connections"] == "1")
    with Growth(server) as growth:
        for batch in range(20):
            clients = [Client(server.port) for _ in range(500)]
            for number, one in enumerate(clients):
                one.send(
                    (b"", b"set q 0 0 1\r\nx\r\n", b"get q", b"get q/t=9000\r\n", b"set q 0 0 900000\r\nxx")[number % 5]
                )
            client.set("other", b"%d" % batch)
            assert client.get("other") == b"%d" % batch
            for number, one in enumerate(clients):
                (Client.close, Client.reset)[number % 2](one)
        wait_until(lambda: client.stats()["curr_connections"] == "1")
    wait_until(lambda: open_sockets(server) == before)
    assert growth.most_bytes < 24_000_000
    assert int(client.stats()["total_connections"]) >= 10_200


def test_clients_that_never_read_or_send_a_byte_at_a_time_hold_up_nobody(server: RunningServer) -> None:
    other = warmed(server)
    other.set("p", bytes(8 << 20))
    deaf, slow = [server.client() for _ in range(5)], [server.client() for _ in range(5)]
    for client in deaf:
        client.send(b"get p/peek\r\n" * 100)
    request = b"set slow 0 0 20\r\n" + b"x" * 20 + b"\r\n"
    for position in range(len(request)):
        for client in slow:
            client.send(request[position : position + 1])
        other.set("q", b"x")
        assert other.get("q") == b"x"
    for client in slow:
        client.expect(b"STORED\r\n")
        assert other.get("slow") == b"x" * 20


# -- the clock


class SteppingClock(RunningServer):
    """Its wall clock is off by `off_s` seconds, from when that is set."""

    program = "tests/servers/stepping_clock.py"

    def step(self, off_s: int) -> None:
        (self.data.parent / f"{self.data.name}.clock").write_text(str(off_s))


@pytest.mark.long
def test_a_clock_that_steps_disturbs_nothing(start_server: Callable[..., SteppingClock]) -> None:
    server = start_server("--body-timeout-s", "30", "--idle-timeout-s", "30", kind=SteppingClock)
    client, waiter, late, half = (server.client() for _ in range(4))
    client.set("q", b"before")
    waiter.send(b"get w/t=60000\r\n")
    half.send(b"set q 0 0 5\r\nhe")
    for off_s in (36_000, -36_000, 3_600_000, -100_000_000):
        server.step(off_s)
        late.ask(b"get nothing/t=100\r\n", b"END\r\n")  # ends, and not at once or never
        client.ask(b"set q 0 0 1\r\nx\r\n", b"STORED\r\n")
        stats = client.stats()
        assert 0 <= int(stats["uptime"]) < 60
        assert int(stats["queue_q_age"]) >= 0
        time.sleep(1.1 if off_s in (3_600_000, -100_000_000) else 0)  # over a look at the timeouts
        waiter.expect_nothing()
        half.expect_nothing()
    half.ask(b"llo\r\n", b"STORED\r\n")
    client.set("w", b"y")
    assert waiter.item() == b"y"
    server.kill()
    server.start()
    client = server.client()
    assert [client.get("q") for _ in range(7)] == [b"before", *[b"x"] * 4, b"hello", None]
