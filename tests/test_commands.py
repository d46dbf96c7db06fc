"""Which verbs there are, as a client sees it, beyond the recorded conversations of tests/wire."""

from collections.abc import Callable

import pytest

from tests.harness import Client

Connect = Callable[[], Client]


def test_memcached_clients_extra_words_are_accepted(connect: Connect) -> None:
    client = connect()
    client.set("q", b"x")
    client.ask(b"delete q 0\r\n", b"DELETED\r\n")
    client.ask(b"delete q noreply\r\nflush q noreply\r\nflush_all noreply\r\nflush_all 0 noreply\r\n", b"")
    client.ask(b"flush_all 0\r\n", b"Flushed all queues.\r\n")
    client.send(b"stats \r\nversion \r\n")
    while (line := client.line()) != b"END\r\n":
        assert line.startswith(b"STAT ")
    assert client.line().startswith(b"VERSION ")


@pytest.mark.parametrize(
    "request_line", [b"get a b", b"add q 0 0 1", b"cas q 0 0 1 1", b"set q/open 0 0 1", b"set q a 0 1"]
)
def test_what_this_server_does_not_have_is_an_error_that_says_what_it_has(
    connect: Connect, request_line: bytes
) -> None:
    client = connect()
    client.send(request_line + b"\r\n")
    line = client.line()
    assert line.startswith(b"ERROR ")
    assert b": " in line or b"a get is" in line
    client.expect_hang_up()
