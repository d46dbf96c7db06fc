"""What is counted of leases: by owner, and by the queue or cursor that they are on."""

from typing import Any
from unittest.mock import Mock

from darner_core.engines.local.aside import Aside
from darner_core.engines.local.cursor import Cursor
from darner_core.engines.local.lease_counts import LeaseCounts
from darner_core.engines.local.message_queue import MessageQueue


def place(kind: type, parent: Any = None) -> Any:
    made = Mock(spec=kind)
    made.name, made.parent = b"q", parent
    return made


def lease(on: Any, owner: object = None) -> Any:
    return Mock(owner=owner, read=Mock(queue=on))


def test_a_lease_counts_at_its_queue_and_its_cursor_and_never_at_an_aside() -> None:
    queue = place(MessageQueue)
    cursor, aside = place(Cursor, queue), place(Aside, queue)
    counts = LeaseCounts()
    leases = [lease(queue), lease(cursor), lease(aside)]
    for one in leases:
        counts.add(one)
    assert (counts.at(queue), counts.at(cursor), counts.at(aside)) == (3, 1, 0)
    for one in leases:
        counts.remove(one)
    assert counts.places() == []


def test_an_owner_has_leases_of_each_queue() -> None:
    alice, bob = object(), object()
    queue = place(MessageQueue)
    counts = LeaseCounts()
    for owner in (alice, alice, bob, None):
        counts.add(lease(queue, owner))
    counts.remove(lease(queue, bob))
    assert [counts.of_owner(owner, b"q") for owner in (alice, bob, None)] == [2, 0, 0]
    assert counts.of_owner(alice, b"other") == 0
    assert counts.at(queue) == 3
