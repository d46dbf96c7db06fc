"""What a client's greenlet does: waits for items, and receives and sends large ones."""

import time
from collections.abc import Callable

from tests.server.test_connection import LARGE, waiters
from tests.support.harness import Client, RunningServer, wait_until

Connect = Callable[[], Client]


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


def test_an_item_handed_over_and_deleted_at_once_was_never_there(connect: Connect) -> None:
    waiting, client = connect(), connect()
    waiting.send(b"get q/t=9000\r\n")
    waiting.expect_nothing()
    client.send(b"set q 0 0 1\r\nx\r\ndelete q\r\n")
    client.expect(b"STORED\r\nDELETED\r\n")
    waiting.expect_nothing()
    client.set("q", b"y")
    assert waiting.item() == b"y"
