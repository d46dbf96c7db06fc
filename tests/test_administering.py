"""Flushing and deleting, as a client sees it, beyond the recorded conversations of tests/wire."""

from collections.abc import Callable
from typing import Any

import pytest

from darner_core import administering as administering_module
from darner_core.administering import Administering
from darner_core.protocol import Request
from darner_core.session import Session
from darner_core.stats import Stats
from darner_core.storage import Storage
from tests.bench import Bench
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


class Asking:
    """A client of `stats`, and what happens in the turns between."""

    def __init__(self, between: Callable[[], None]) -> None:
        self.turns = 0
        self.sent = b""
        self._between = between

    def wait_turn(self) -> None:
        self.turns += 1
        self._between()

    def wait_sent(self, data: bytes) -> None:
        self.sent += data

    def may_see(self, queue: bytes) -> bool:
        return True


def test_the_sums_of_stats_are_taken_in_slices_and_a_queue_that_goes_meanwhile_counts_once(
    open_storage: Callable[[], Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(administering_module, "SUMMED_A_TURN", 4)
    bench = Bench(open_storage)
    for number in range(12):
        bench.put(b"q%02d" % number, b"xy", b"xy")
    bench.registry.delete(b"q11")
    bench.end_turn()

    def between() -> None:
        if client.turns == 1:  # one that has been counted, and one that has not
            bench.registry.delete(b"q00")
            bench.registry.delete(b"q10")
            bench.end_turn()

    client: Any = Asking(between)
    stats = Administering(bench.registry, bench.delivery, Stats(), bench.sweeper).stats(
        Request(print), None, Session(bench.journal)
    )
    assert callable(stats)
    stats(client)
    assert client.turns >= 2
    lines = client.sent.split(b"\r\n")
    assert b"STAT total_items 24" in lines
    assert b"STAT curr_items 20" in lines  # as it was: the first deleted was there when it was counted
    assert b"STAT bytes 40" in lines
