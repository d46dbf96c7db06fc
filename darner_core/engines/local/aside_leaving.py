"""How items leave an aside without being closed: they are taken at once, expire, are removed by their ids, or flushed.

All functions are about one aside, and raise StorageError before they have changed anything. No call here switches
greenlets.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from darner_core.engines.local import aside_keys
from darner_core.storage.job_records import FIRST_ASIDE_ID, Job, Place
from darner_core.storage.records import Blob, Item

if TYPE_CHECKING:
    from darner_core.engines.local.aside import Aside

# Items that a slice of a flush removes: 2 to 4 ms.
FLUSHED_AT_ONCE = 200


def remove(aside: "Aside", kind: int, place: Place, job: Job, item: Item) -> None:
    """Remove one that nobody has open."""
    body = item[0]
    large_items = aside.large_items if isinstance(body, Blob) else None
    if not aside.log.touched:
        aside.enter_turn()
    forget(aside, kind, place, job, len(body))
    if large_items is not None and isinstance(body, Blob):
        large_items.remove(body.blob, body.blob + 1, len(body))


def forget(aside: "Aside", kind: int, place: Place, job: Job, body_bytes: int) -> None:
    """An item is gone, but for its chunks if it is large."""
    item_id = place[2]
    aside.orders[kind].remove(place, aside.log.is_new(item_id))
    aside.log.remove_item(item_id, job, body_bytes)
    if job.key:
        aside_keys.release(aside, job.key, item_id)
    aside.stored_bytes -= body_bytes


def has_expired(aside: "Aside", item: Item) -> bool:
    return 0 < item[2] < aside.log.journal.time_ms()


def expire(aside: "Aside", kind: int, place: Place, job: Job, item: Item) -> None:
    """Remove one that has expired, and let it go where it has to."""
    if isinstance(item[0], Blob):
        _ = aside.large_items  # may raise when it is removed
    if aside.expire_to is not None:
        aside.expire_to(aside, item)
    remove(aside, kind, place, job, item)
    aside.log.journal.count(aside, "expired_items")
    aside.tell(b"expire", place[2], len(item[0]), item[1])


def remove_id(aside: "Aside", item_id: int) -> bool:
    """Remove an item that nobody has open; False: it is not there, or open."""
    found = aside.find(item_id)
    if found is None or item_id in aside.outstanding:
        return False
    remove(aside, *found, aside.reading(aside.log.item, item_id))
    return True


def expire_id(aside: "Aside", item_id: int) -> bool:
    """Remove this item if it has expired and nobody has it open; whether it was removed."""
    found = aside.find(item_id)
    if found is None or item_id in aside.outstanding:
        return False
    item, _ = aside.read(item_id)
    if not has_expired(aside, item):
        return False
    if aside.parent.move_large is not None and isinstance(item[0], Blob):
        aside.parent.move_large(aside.hold(*found, item))  # open while it is copied to where it goes
        return False
    expire(aside, *found, item)
    return True


class Flushing:
    """What was ready or delayed when the queue was flushed. It is gone for whoever asks, though it takes several turns
    to remove it. Items that were open stay, and so does what has been kicked since."""

    __slots__ = ("before", "end_id", "spared")

    def __init__(self, before: int, end_id: int, spared: set[int]) -> None:
        """`before`: twice the tail of the line. `end_id`: the next id of the aside."""
        self.before = before
        self.end_id = end_id
        self.spared = spared

    def takes(self, place: Place) -> bool:
        """Whether what lies here arrived before."""
        _, arrival, item_id = place
        if arrival > self.before or item_id in self.spared:
            return False
        return arrival < self.before or FIRST_ASIDE_ID <= item_id < self.end_id


def flush(aside: "Aside", before: int, open_ids: Iterable[int] = ()) -> Iterator[None]:
    """Remove what is ready or delayed now, and nobody has open; what is buried stays. `before`: twice the tail of the
    line; `open_ids`: what is open there. To be gone on with after a turn of the loop each time."""
    flushing = aside.flushing = Flushing(before, aside.new_id, {*aside.outstanding, *open_ids})
    journal = aside.log.journal
    journal.undo.append((_end_flush, aside, flushing))
    steps, removes = 0, True
    while removes:  # once more: a turn may have failed meanwhile, and what it removed is there again
        removes = False
        for order in (aside.ready, aside.delayed):
            place = aside.reading(order.first)
            while place is not None:
                removes |= flushing.takes(place) and remove_id(aside, place[2])
                steps += 1
                if steps % FLUSHED_AT_ONCE == 0:
                    yield
                    if aside.flushing is not flushing or aside.deleted:
                        return
                place = aside.reading(order.next_behind, place)
    _end_flush(aside, flushing)
    journal.undo.append((setattr, aside, "flushing", flushing))


def _end_flush(aside: "Aside", flushing: Flushing) -> None:
    if aside.flushing is flushing:
        aside.flushing = None
