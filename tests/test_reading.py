"""Taking items, as a client sees it, beyond the recorded conversations of tests/wire."""

from collections.abc import Callable

import pytest

from tests.harness import Client, RunningServer

Connect = Callable[[], Client]


def test_gets_answers_with_the_items_id_as_its_cas_unique(connect: Connect) -> None:
    client = connect()
    client.set("q", b"a", flags=5)
    client.set("q", b"b")
    client.ask(b"gets q\r\n", b"VALUE q 5 1 1\r\na\r\nEND\r\n")
    client.ask(b"gets q/peek\r\n", b"VALUE q 0 1 2\r\nb\r\nEND\r\n")
    client.ask(b"gets q/open\r\n", b"VALUE q 0 1 2\r\nb\r\nEND\r\n")
    client.ask(b"gets q/close/open\r\n", b"END\r\n")


def test_options_come_in_any_order_and_any_case(connect: Connect) -> None:
    client = connect()
    for body in (b"a", b"b", b"c", b"d"):
        client.set("q", body)
    assert client.get("q/t=10/open") == b"a"
    assert client.get("q/open/t=10/close") == b"b"
    assert client.get("q/OPEN/Close/T=10") == b"c"
    assert client.get("q/close/t=10") is None
    assert client.get("q/peek/t=10") == b"d"
    assert client.get("q/t=10/peek/close") is None
    assert client.get("q") == b"d"


@pytest.mark.parametrize("options", ["open/peek", "abort/open", "abort/close", "abort/close/open", "peek/open/t=5"])
def test_options_that_exclude_each_other_are_refused(connect: Connect, options: str) -> None:
    client = connect()
    client.send(b"get q/%b\r\n" % options.encode())
    assert client.line().startswith(b"CLIENT_ERROR cannot ")
    client.expect_hang_up()


def test_close_and_abort_act_on_the_open_read_whichever_queue_is_named(connect: Connect) -> None:
    client = connect()
    client.set("q", b"a")
    assert client.get("q/open") == b"a"
    assert client.get("other/abort") is None
    assert client.get("q/open") == b"a"
    assert client.get("other/close") is None
    assert client.get("q") is None


def test_every_kind_of_get_is_refused_while_a_read_is_open(connect: Connect) -> None:
    for request in (b"get q", b"gets q", b"get q/open", b"get q/peek", b"get q/t=100", b"get other"):
        client = connect()
        client.set("q", b"a")
        assert client.get("q/open") == b"a"
        client.send(request + b"\r\n")
        assert client.line().startswith(b"CLIENT_ERROR close current read first")
        client.expect_hang_up()
        assert connect().get("q/t=1000") == b"a"


def test_replies_can_name_the_key_that_was_asked_for(start_server: Callable[..., RunningServer]) -> None:
    client = start_server("--reply-key", "request").client()
    client.set("q", b"a")
    client.set("q", bytes(100_000))
    client.ask(b"get q/t=10/open\r\n", b"VALUE q/t=10/open 0 1\r\na\r\nEND\r\n")
    client.ask(
        b"get q/abort\r\nget q/peek\r\nget q\r\n", b"END\r\nVALUE q/peek 0 1\r\na\r\nEND\r\nVALUE q 0 1\r\na\r\nEND\r\n"
    )
    client.send(b"get q/open\r\n")
    assert client.line() == b"VALUE q/open 0 100000\r\n"
