"""A server of ours as the place that items go to."""

from collections.abc import Callable

import pytest

from darner_core.ctl.errors import CtlError
from darner_core.ctl.moving.places import Item
from darner_core.ctl.moving.server import Server
from tests.support.harness import RunningServer
from tests.support.moving import drained, wire_to


def test_all_that_is_known_of_an_item_is_put(shared_server: Callable[..., RunningServer]) -> None:
    server = shared_server()
    target = Server(wire_to(server.port), syncs=True)
    target.put(b"known", Item(1, b"a", flags=7, pri=20))
    target.put(b"known", Item(1, b"b", pri=10, ttr_ms=5000, key=b"k"))
    target.put(b"known", Item(1, b"c", delay_ms=600_000))
    target.put(b"known", Item(1, b"d", expires_at=1_000_000))
    target.put(b"known", Item(3 << 20, iter([bytes(1 << 20)] * 3)))
    assert target.settle() == []
    target.close()
    assert server.client().stats()["queue_known_delayed"] == "1"
    assert drained(server, "known") == [b"b", b"a", bytes(3 << 20)]


def test_each_refusal_says_which_item_it_was(shared_server: Callable[..., RunningServer]) -> None:
    server = shared_server("--max-item-bytes", "10")
    target = Server(wire_to(server.port))
    for body in (b"a", b"x" * 11, b"b"):
        target.put(b"q", Item(len(body), body))
    (refusal,) = target.settle()
    assert refusal.place == 1
    assert "too large" in refusal.why
    target.put(b"q", Item(1, b"c"))
    assert target.settle() == []
    target.close()
    assert drained(server, "q") == [b"a", b"b", b"c"]


def test_what_the_server_does_not_understand_ends_it(shared_server: Callable[..., RunningServer]) -> None:
    target = Server(wire_to(shared_server().port))
    target.put(b"a b", Item(1, b"x"))
    with pytest.raises(CtlError, match="refuses"):
        target.settle()
    target.close()
