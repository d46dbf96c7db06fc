"""How items leave an aside without being closed: they are taken at once, expire, or are removed by their ids.

All functions are about one aside, and raise StorageError before they have changed anything. No call here switches
greenlets.
"""

from typing import TYPE_CHECKING

from darner_core.engines.local import aside_keys
from darner_core.storage.job_records import DYING, Job, Place
from darner_core.storage.records import Blob, Item

if TYPE_CHECKING:
    from darner_core.engines.local.aside import Aside


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
    if found is None or item_id in aside.outstanding or found[2].state == DYING:
        return False
    item, _ = aside.read(item_id)
    if not has_expired(aside, item):
        return False
    if aside.parent.move_large is not None and isinstance(item[0], Blob):
        aside.parent.move_large(aside.hold(*found, item))  # open while it is copied to where it goes
        return False
    expire(aside, *found, item)
    return True
