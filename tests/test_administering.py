"""Flushing and deleting, as a client sees it, beyond the recorded conversations of tests/wire."""

from collections.abc import Callable

from tests.harness import Client

Connect = Callable[[], Client]


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
