"""What a client has sent and what is not served yet: pieces of a line, requests sent ahead of a wait."""

import time
from collections.abc import Callable

from tests.support.harness import Client, RunningServer

Connect = Callable[[], Client]


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
