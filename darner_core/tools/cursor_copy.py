"""The cursors of one queue, on their way into a repaired directory, where the queue's items may have other ids.

A cursor keeps its place, which is the first saved item that it had not passed. It also keeps the items that were open
or given back there, if they can be read. Copies of items that only the cursor still has get ids below the queue's, or
keep their own if the queue's items do.
"""

from typing import NamedTuple

from darner_core.storage import records
from darner_core.storage.records import Item, QueueRecord
from darner_core.tools.check import Say
from darner_core.tools.salvage import Broken, IdGap, ListedCursor, Salvaged


class Copied(NamedTuple):
    """A cursor as it was found."""

    name: bytes
    record: QueueRecord
    place: int
    copies: list[tuple[int, Item]]  # with the ids that they had
    marks: set[int]  # ids of items that are open or given back here, and that the queue has


class CopiedCursors:
    """`first_id` is the lowest id that the queue's own items may have."""

    def __init__(self, source: Salvaged, cursors: list[ListedCursor], say: Say) -> None:
        self.found = [_read(source, cursor, say) for cursor in cursors]
        self.places: dict[int, int] = {}  # old place -> new
        self.marks: dict[int, int] = {}  # old id -> new
        # Old places that no item saved so far has reached, the lowest first.
        self._pending = sorted({cursor.place for cursor in self.found})
        self._wanted = {item_id for cursor in self.found for item_id in cursor.marks}
        self.first_id = records.FIRST_ID + sum(len(cursor.copies) for cursor in self.found)

    def saved(self, old_id: int, new_id: int) -> None:
        """An item of the queue has been saved. Called in order of the ids."""
        while self._pending and self._pending[0] <= old_id:
            self.places[self._pending.pop(0)] = new_id
        if old_id in self._wanted:
            self.marks[old_id] = new_id

    def end(self, tail: int) -> None:
        """All items have been saved; the next one would have the id `tail`."""
        for place in self._pending:
            self.places[place] = tail


def _read(source: Salvaged, cursor: ListedCursor, say: Say) -> Copied:
    state = source.state(cursor.record)
    copies: list[tuple[int, Item]] = []
    marks: set[int] = set()
    if isinstance(state, Broken):
        say(f"{cursor.shown}: it begins again at the head of its queue")
        return Copied(cursor.name, cursor.record, records.FIRST_ID, copies, marks)
    for entry in source.cursor_items(cursor.record):
        if isinstance(entry, (IdGap, Broken)):
            say(f"{cursor.shown}: an item that was open there may be dropped: {entry.why}")
        elif entry[1] is None:
            marks.add(entry[0])
        else:
            copies.append((entry[0], entry[1]))
    return Copied(cursor.name, cursor.record, state.next, copies, marks)
