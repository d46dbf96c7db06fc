"""How many leases there are: by owner and queue, and by what they are on, as limits ask for it.

No call here switches greenlets.
"""

from typing import Any, TypeAlias

from darner_core.engines.local.aside import Aside
from darner_core.engines.local.cursor import Cursor
from darner_core.engines.local.leased import Lease
from darner_core.engines.local.message_queue import MessageQueue

Place: TypeAlias = MessageQueue | Cursor


class LeaseCounts:
    """A lease counts at its queue, whose max_leases it counts for, also if its item lies aside or is a cursor's; and at
    its cursor if it has one."""

    def __init__(self) -> None:
        self._by_owner: dict[tuple[object, bytes], int] = {}
        self._by_place: dict[Place, int] = {}

    def of_owner(self, owner: object, queue: bytes) -> int:
        """On items of this queue."""
        return self._by_owner.get((owner, queue), 0)

    def at(self, place: Place) -> int:
        return self._by_place.get(place, 0)

    def places(self) -> list[Place]:
        """Where there are any."""
        return list(self._by_place)

    def add(self, lease: Lease) -> None:
        self._count(lease, 1)

    def remove(self, lease: Lease) -> None:
        self._count(lease, -1)

    def _count(self, lease: Lease, more: int) -> None:
        place, by_place = lease.read.queue, self._by_place
        if isinstance(place, Cursor):
            _add(by_place, place, more)
            place = place.parent
        elif isinstance(place, Aside):
            place = place.parent
        _add(by_place, place, more)
        if lease.owner is not None:
            _add(self._by_owner, (lease.owner, lease.read.queue.name), more)


def _add(counts: dict[Any, int], key: object, more: int) -> None:
    count = counts.get(key, 0) + more
    if count:
        counts[key] = count
    else:
        del counts[key]
