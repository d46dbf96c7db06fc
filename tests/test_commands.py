"""Each verb as a client sees it, beyond the recorded conversations of tests/wire."""

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


def test_flags_come_back_whatever_they_are(connect: Connect) -> None:
    client = connect()
    for flags in (0, 1, 65535, 2**32 - 1, 0):
        client.set("q", b"x", flags)
        client.ask(b"get q\r\n", b"VALUE q %d 1\r\nx\r\nEND\r\n" % flags)


def test_an_expiry_is_taken_in_every_form_memcached_has(connect: Connect) -> None:
    client = connect()
    for expiry in (b"0", b"60", b"-1", b"1893456000", b"99999999999"):
        client.ask(b"set q 0 " + expiry + b" 1\r\nx\r\n", b"STORED\r\n")
        assert client.get("q") == b"x"


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


def test_flush_drops_what_waits_and_leaves_what_is_open(connect: Connect) -> None:
    holder, client = connect(), connect()
    for body in (b"a", b"b", b"c"):
        client.set("q", body)
    assert holder.get("q/open") == b"a"
    client.ask(b"flush q\r\n", b"END\r\n")
    assert client.get("q") is None
    client.set("q", b"d")
    assert holder.get("q/abort") is None
    assert [client.get("q"), client.get("q"), client.get("q")] == [b"a", b"d", None]


def test_flush_drops_what_was_given_back(connect: Connect) -> None:
    client = connect()
    client.set("q", b"a")
    assert client.get("q/open") == b"a"
    assert client.get("q/abort") is None
    client.ask(b"flush q\r\n", b"END\r\n")
    assert client.get("q") is None


def test_a_deleted_queue_starts_anew(connect: Connect) -> None:
    holder, client = connect(), connect()
    client.set("q", b"a")
    client.set("q", b"b")
    assert holder.get("q/open") == b"a"
    client.ask(b"delete q\r\n", b"DELETED\r\n")
    client.set("q", b"c")
    assert holder.get("q/close/open") == b"c"
    assert holder.get("q/abort") is None
    assert [client.get("q"), client.get("q")] == [b"c", None]


def test_asking_creates_nothing(connect: Connect) -> None:
    client = connect()
    for request in ("q", "q/open", "q/peek", "q/close", "q/abort", "q/t=10", "q/close/open/t=10"):
        assert client.get(request) is None
    client.ask(b"flush q\r\ndelete q\r\n", b"END\r\nDELETED\r\n")
    stats = client.stats()
    assert stats["queue_creates"] == stats["queue_deletes"] == "0"
    assert not [name for name in stats if name.startswith("queue_q_")]


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


@pytest.mark.parametrize(
    "request_line", [b"get a b", b"add q 0 0 1", b"incr q 1", b"cas q 0 0 1 1", b"set q/open 0 0 1", b"set q a 0 1"]
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
