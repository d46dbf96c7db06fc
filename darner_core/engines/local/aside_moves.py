"""What moves in an aside though nobody takes it: items become due, are kicked, or leave by their ids or by a flush.

All functions are about one aside, and raise StorageError. No call here switches greenlets.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from darner_core.engines.local import aside_keys
from darner_core.storage.job_records import MAX_COUNT, READY, Job, Place

if TYPE_CHECKING:
    from darner_core.engines.local.aside import Aside
    from darner_core.engines.local.order import Order

# Items that a slice of a flush removes: 2 to 4 ms.
FLUSHED_AT_ONCE = 200

NEVER_MS: Final = 2**64


# -- time


def due_ms(aside: "Aside") -> int:
    """When `move_due` has something to do next."""
    firsts = aside.reading(aside.delayed.first), aside.reading(aside.key_windows.first)
    aside.account()
    return min((place[0] for place in firsts if place is not None), default=NEVER_MS)


def move_due(aside: "Aside", most: int) -> int:
    """Let up to `most` delayed items be ready whose time has come, and free keys; how many these were."""
    now_ms, moved = aside.log.journal.time_ms(), 0
    try:
        while moved < most and (place := aside.reading(aside.delayed.first)) is not None and place[0] <= now_ms:
            _make_ready(aside, aside.delayed, place, aside.job(place[2]))
            moved += 1
    finally:
        if moved:
            aside.serve()
    while moved < most and (place := aside.reading(aside.key_windows.first)) is not None and place[0] <= now_ms:
        aside_keys.end_window(aside, place)
        moved += 1
    return moved


def _make_ready(aside: "Aside", order: "Order", place: Place, job: Job) -> None:
    if not aside.log.touched:
        aside.enter_turn()
    order.remove(place, aside.log.is_new(place[2]))
    aside.ready.add((job.pri, job.place, place[2]))
    aside.log.state_changed = True


# -- kicking


def kick(aside: "Aside", most: int) -> int:
    """Let up to `most` buried items be ready, those buried longest first; if none is buried, delayed ones, those that
    are due soonest first. How many these were."""
    order = aside.buried if aside.buried.waiting else aside.delayed
    kicked = 0
    while kicked < most and (place := aside.reading(order.first)) is not None:
        _kick(aside, order, place, aside.job(place[2]))
        kicked += 1
    if kicked:
        aside.serve()
    return kicked


def kick_id(aside: "Aside", item_id: int) -> bool:
    """Let this item be ready; False: it is open, or neither buried nor delayed."""
    found = aside.find(item_id)
    if found is None or found[0] == READY or item_id in aside.outstanding:
        return False
    kind, place, job = found
    _kick(aside, aside.orders[kind], place, job)
    aside.serve()
    return True


def _kick(aside: "Aside", order: "Order", place: Place, job: Job) -> None:
    _make_ready(aside, order, place, job)
    kicked = job._replace(state=READY, at=0, kicks=min(job.kicks + 1, MAX_COUNT))
    aside.log.change_job(place[2], kicked, job)


# -- leaving


def remove_id(aside: "Aside", item_id: int) -> bool:
    """Remove an item that nobody has open; False: it is not there, or open."""
    found = aside.find(item_id)
    if found is None or item_id in aside.outstanding:
        return False
    aside.remove(*found, aside.reading(aside.log.item, item_id))
    return True


def expire_id(aside: "Aside", item_id: int) -> bool:
    """Remove this item if it has expired and nobody has it open; whether it was removed."""
    found = aside.find(item_id)
    if found is None or item_id in aside.outstanding:
        return False
    item, _ = aside.read(item_id)
    if not aside.has_expired(item):
        return False
    aside.expire(*found, item)
    return True


def flush(aside: "Aside") -> Iterator[None]:
    """Remove what is ready or delayed now, and nobody has open; what is buried stays. To be gone on with after a turn
    of the loop each time."""
    end_id, removed = aside.new_id, 0
    for order in (aside.ready, aside.delayed):
        place = aside.reading(order.first)
        while place is not None:
            if place[2] < end_id and remove_id(aside, place[2]):
                removed += 1
                if removed % FLUSHED_AT_ONCE == 0:
                    yield
            place = aside.reading(order.next_behind, place)
