"""Unique keys of an aside's items: one key, one item.

A key is taken while its item exists, open or not, and for `unique_ms` longer if the queue's options say so: that time
is the key's window, and an entry in the aside's `key_windows` tells when it ends. All functions are about one aside.

No call here switches greenlets.
"""

from typing import TYPE_CHECKING

from darner_core.storage.job_records import WINDOW, Place, Taken

if TYPE_CHECKING:
    from darner_core.engines.local.aside import Aside


def owner(aside: "Aside", key: bytes) -> int:
    """The id of the item that has this key, or had it not long ago; 0: it is free. See also `aside_flushing`. Raises
    StorageError."""
    taken = aside.reading(aside.log.taken, key)
    if taken is None or 0 < taken.until_ms <= aside.log.journal.time_ms():
        return 0
    return taken.id


def take(aside: "Aside", key: bytes, item_id: int) -> None:
    """An item is put that has this key, which is free. Raises StorageError, with nothing changed."""
    before = aside.reading(aside.log.taken, key)
    if before is not None:  # its window is over, and nobody has looked yet
        aside.key_windows.remove((before.until_ms, 0, before.id), value=key)
    aside.log.set_taken(key, Taken(item_id), before)


def release(aside: "Aside", key: bytes, item_id: int) -> None:
    """The item that has this key is gone."""
    if not aside.rules.unique_ms:
        aside.log.set_taken(key, None, Taken(item_id))
        return
    until_ms = aside.log.journal.time_ms() + aside.rules.unique_ms
    aside.log.set_taken(key, Taken(item_id, until_ms), Taken(item_id))
    aside.key_windows.add((until_ms, 0, item_id), key)
    aside.watcher.note(aside, until_ms)


def end_window(aside: "Aside", place: Place) -> None:
    """The time of this entry of `key_windows` has come: its key is free. Raises StorageError, with nothing changed."""
    key = aside.reading(aside.log.at_place, WINDOW, place)
    taken = aside.reading(aside.log.taken, key) if key is not None else None
    if not aside.log.touched:
        aside.enter_turn()
    aside.key_windows.remove(place, value=key or b"")
    if key is not None and taken is not None:
        aside.log.set_taken(key, None, taken)
    aside.log.state_changed = True
