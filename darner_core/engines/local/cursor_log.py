"""What cursors keep on disk: a cursor's own records, and copies of items that its queue removes while it needs them.

No call here switches greenlets.
"""

import logging
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from darner_core import NAME
from darner_core.engines.local import reads, window
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.queue_log import QueueLog
from darner_core.errors import StorageError
from darner_core.showing import show
from darner_core.storage import records
from darner_core.storage.records import Item, QueueRecord, State, item_key
from darner_core.storage.storage import Batch

if TYPE_CHECKING:
    from darner_core.engines.local.cursor import Cursor
    from darner_core.engines.local.message_queue import MessageQueue

log = logging.getLogger(NAME)

# Up to this many items before the tail are read one by one: to position an iterator costs as much.
NEAR_ITEMS = 4


class CursorLog(QueueLog):
    """A cursor's records. An item is read from the cursor's own copy if there is one, else from the parent."""

    __slots__ = ("_cursor",)

    def __init__(self, journal: Journal, cursor: "Cursor", record: QueueRecord) -> None:
        # The hook writes everything, so the journal never asks for a queue's numbers.
        super().__init__(journal, cursor, record, State(tail=records.MAX_ID))  # type: ignore[arg-type]
        self._cursor = cursor
        self.recorded = 1
        self.hook = self._write

    def read_one(self, item_id: int) -> Item:
        cursor = self._cursor
        return super().read_one(item_id) if item_id in cursor.copied else cursor.parent.log.read_one(item_id)

    def read_back(self, state: State) -> None:
        """Give a new cursor what the disk says of it. Raises StorageError."""
        cursor, storage = self._cursor, self.journal.storage
        cursor.next_id = cursor.place = cursor.recorded_place = state.next
        parent = cursor.parent
        for item_id, copy in list(storage.cursor_items(self.record)):
            item = copy
            if item is None and stores(parent, item_id):
                item = storage.item(parent.log.record, item_id)
            if item is None:
                continue  # damage has removed it from the parent
            reads.wait_again(cursor, item_id, item, parent.aged(item)[2])
            cursor.marked.add(item_id)
            if copy is not None:
                cursor.copied.add(item_id)

    def _write(self, batch: Batch) -> bool:
        """The hook: write all that the cursor changes in a turn."""
        cursor = self._cursor
        number, family, _, _ = self.record
        handle = self.journal.storage.handles[family]
        for item_id in cursor.closed:
            if item_id not in cursor.marked:  # else it was handed out again, and has a new record
                batch.delete(item_key(number, item_id), handle)
        if self.state_changed or not self.recorded:
            marks = list(self._to_mark())
            for item_id in marks:
                batch.put(item_key(number, item_id), records.HELD, handle)
            cursor.marked.update(marks)
            self.journal.undo.append((cursor.marked.difference_update, marks))
            place = cursor.recorded_place = cursor.place
            batch.put(item_key(number, records.STATE_ID), records.pack_state(place, place, 0, 0, 0), handle)
            self.recorded = 1
        return True

    def _to_mark(self) -> Iterator[int]:
        """The outstanding ids that need a record, because the place that is written in this turn is behind them."""
        cursor = self._cursor
        outstanding, marked = cursor.outstanding, cursor.marked
        if cursor.mark_all:
            return (item_id for item_id in outstanding if item_id not in marked)
        passed = range(cursor.recorded_place, cursor.place)
        if len(passed) < len(outstanding):
            return (item_id for item_id in passed if item_id in outstanding and item_id not in marked)
        return (item_id for item_id in outstanding if item_id < cursor.place and item_id not in marked)

    def keep(self, batch: Batch, item_id: int) -> None:
        """Copy an item that is outstanding here and that the parent removes in this turn."""
        cursor, journal = self._cursor, self.journal
        number, family, _, _ = self.record
        try:
            item = cursor.parent.log.read_one(item_id)
        except StorageError as error:  # it is lost: a client that asks for it is told, one that has it open has it
            log.error("cursor %s: item %d: %s", show(cursor.name), item_id, error)
        else:
            batch.put(item_key(number, item_id), records.pack_item(item), journal.storage.handles[family])
        if item_id not in cursor.marked:
            cursor.marked.add(item_id)
            journal.undo.append((cursor.marked.discard, item_id))
        cursor.copied.add(item_id)
        journal.undo.append((cursor.copied.discard, item_id))

    def recheck(self, batch: Batch) -> None:
        """After a failed write, of which a part may be on disk: let the cursor's records say what memory says."""
        cursor, storage = self._cursor, self.journal.storage
        number, family, _, _ = self.record
        handle = storage.handles[family]
        copies = [(item_id, storage.item(self.record, item_id)) for item_id in cursor.copied]
        batch.delete_range(item_key(number, records.FIRST_ID), item_key(number + 1, records.STATE_ID), handle)
        for item_id in cursor.marked - cursor.copied:
            batch.put(item_key(number, item_id), records.HELD, handle)
        for item_id, item in copies:
            if item is not None:
                batch.put(item_key(number, item_id), records.pack_item(item), handle)
        self.write_state()


def stores(queue: "MessageQueue", item_id: int) -> bool:
    """Whether the item is still in the queue, waiting or open, at this point of the turn."""
    if item_id < queue.next_id:
        return item_id in queue.outstanding
    return item_id < queue.tail and item_id not in queue.log.removed


def read_ahead(parent: QueueLog, item_id: int) -> list[tuple[int, Item]]:
    """(id, item) of what is stored in a queue from this id on: one read-ahead. Raises StorageError."""
    written, storage = parent.written, parent.journal.storage
    items: list[tuple[int, Item]] = []
    if written - NEAR_ITEMS <= item_id < written:
        for near in range(item_id, written):
            if (item := storage.item(parent.record, near)) is not None:
                items.append((near, item))
    elif item_id < written:
        size = 0
        for entry in storage.items(parent.record, item_id, written):
            items.append(entry)
            size += len(entry[1][0])
            if len(items) >= window.FILL_ITEMS or size >= window.FILL_BYTES:
                return items
    start = max(0, item_id - written)
    behind = parent.appended[start : start + window.FILL_ITEMS - len(items)]
    return items + list(enumerate(behind, written + start))


class Keeper:
    """Sees at the end of each turn what a queue removes, and copies the items that its cursors still need."""

    __slots__ = ("_queue", "_seen")

    def __init__(self, queue: "MessageQueue") -> None:
        self._queue = queue
        self._seen = queue.first_id(), queue.next_id  # at the end of the last turn

    def write(self, batch: Batch) -> bool:
        """The hook of the queue's log."""
        queue = self._queue
        queue.log.journal.undo.append((setattr, self, "_seen", self._seen))
        before_first, before_next = self._seen
        first, next_id = self._seen = queue.first_id(), queue.next_id
        removed = queue.log.removed
        # Gone are: all ids below the first; those in `removed`; those that were handed out and are not outstanding.
        spans = range(before_first, first), range(max(before_next, first), next_id)
        seen = len(spans[0]) + len(spans[1]) + len(removed)
        if not seen:
            return False
        named = set(removed)
        stale = any(item_id >= next_id for item_id in removed)
        for cursor in (queue.cursors or {}).values():
            if cursor.unreadable:
                continue
            if stale:
                window.release(cursor)  # it may hold what was removed
            outstanding = cursor.outstanding
            for item_id in chain(*spans, removed) if seen < len(outstanding) else list(outstanding):
                if item_id in outstanding and item_id not in cursor.copied:
                    if item_id in named or (item_id < next_id and item_id not in queue.outstanding):
                        cursor.log.keep(batch, item_id)
        return False
