"""What a client is owed: answers to long pipelines, and what happens when it does not take them."""

import socket
import time
from collections.abc import Callable

from tests.support.harness import Client, RunningServer, wait_until

Connect = Callable[[], Client]


def test_a_long_pipeline_is_answered_in_order(connect: Connect) -> None:
    client = connect()
    client.send(b"".join(b"set q 0 0 %d\r\n%d\r\n" % (len(str(n)), n) for n in range(5000)))
    client.expect(b"STORED\r\n" * 5000)
    client.send(b"get q\r\n" * 5000)
    assert [client.item() for _ in range(5000)] == [b"%d" % n for n in range(5000)]


def test_a_client_that_does_not_read_costs_no_more_than_a_portion(server: RunningServer, connect: Connect) -> None:
    greedy, other = connect(), connect()
    greedy.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 << 10)
    body = bytes(60_000)
    for _ in range(500):
        other.set("q", body)
    before = server.resident_bytes()
    greedy.send(b"get q\r\n" * 500)
    time.sleep(0.5)
    for _ in range(20):
        other.set("other", b"x")
        assert other.get("other") == b"x"
    assert server.resident_bytes() - before < 8 << 20
    for _ in range(500):
        assert greedy.item() == body


def test_a_client_that_never_reads_and_hangs_up_loses_only_what_it_was_sent(connect: Connect) -> None:
    greedy, other = connect(), connect()
    greedy.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 << 10)
    for number in range(500):
        other.set("q", b"%060000d" % number)
    greedy.send(b"get q\r\n" * 500)
    time.sleep(0.5)
    greedy.reset()
    wait_until(lambda: other.stats()["curr_connections"] == "1")
    left = other.get("q")
    assert left is not None
    first = int(left[-9:])
    assert 0 < first < 250
    for number in range(first + 1, 500):
        assert other.get("q") == b"%060000d" % number
