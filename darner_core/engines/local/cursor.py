"""One durable cursor: a place in a queue that reading moves on, and what is open or was given back there.

A cursor is a queue without items of its own. It hands out those of its queue, its parent, and deletes none; the ids are
the parent's. It sees what a get of the parent would: what waits there, given back or never handed out, from its place
on. What is gone or open there when it comes by is passed over. So a cursor behind the head goes on at the head.

    every id from `next_id` on was never handed out, but those that were when the cursor was put back to the head;
    `outstanding` holds what is open or was given back.

An item that the parent removes while it is outstanding here is copied to the cursor's own records in the same turn
(`Keeper`), and the chunks of a large one stay until the last cursor has closed it.

What is on disk: the place behind all that was closed; a record for each outstanding id below it, of which there are
some only if items were closed out of order; and the copies. So one reader at a time writes a state record a turn, as
with a queue, and opening and giving back write nothing: what was open above the place is read again after a crash.

No call here switches greenlets.
"""

import logging
from collections import deque
from collections.abc import Iterator
from itertools import chain

from darner_core import NAME
from darner_core.config.values import show_bytes
from darner_core.engines.local.backlog import FILL_BYTES, FILL_ITEMS
from darner_core.engines.local.expiring import EXPIRED_AT_ONCE
from darner_core.engines.local.journal import Journal, QueueLog
from darner_core.engines.local.large_items import LargeItems
from darner_core.engines.local.message_queue import LARGE, Large, MessageQueue
from darner_core.engines.local.reads import Holder, OpenRead
from darner_core.engines.local.window import ITEM_OVERHEAD_BYTES, WindowBudget
from darner_core.errors import StorageError
from darner_core.storage import records
from darner_core.storage.records import Blob, Item, QueueRecord, State, item_key
from darner_core.storage.storage import Batch
from darner_core.waiters import Waiter, WaitingLine

log = logging.getLogger(NAME)

# So many items before the tail are read one by one: to position an iterator costs as much as this many reads.
NEAR_ITEMS = 4

_NOTHING_AHEAD: deque[tuple[int, Item]] = deque()  # an empty deque is 760 bytes. Never filled.


class CursorLog(QueueLog):
    """A cursor's records. Its items are its own copies, else its parent's."""

    __slots__ = ("_cursor",)

    def __init__(self, journal: Journal, cursor: "Cursor", record: QueueRecord) -> None:
        super().__init__(journal, cursor, record, State(tail=records.MAX_ID))
        self._cursor = cursor
        self.recorded = 1

    def read_one(self, item_id: int) -> Item:
        cursor = self._cursor
        return super().read_one(item_id) if item_id in cursor.copied else cursor.parent.log.read_one(item_id)


class Cursor(MessageQueue):
    """A durable cursor on a queue.

    It is used as a queue is, but nothing is put. `name` is that of the queue, a dot, and its `short` name.
    """

    __slots__ = ("parent", "short", "place", "marked", "copied", "ahead", "_recorded_place", "_place_before",
        "_closed", "_mark_all")  # fmt: skip

    log: CursorLog

    def __init__(self, parent: MessageQueue, short: bytes, budget: WindowBudget) -> None:
        super().__init__(b"%b.%b" % (parent.name, short), budget, parent.options)
        self.parent = parent
        self.max_age_ms = parent.max_age_ms
        self.short = short
        self.ahead = _NOTHING_AHEAD  # what is stored in the parent from some id on, (id, item): the window
        self.place = self.next_id  # behind all that was closed: `next_id` as it is after a crash
        self.marked: set[int] = set()  # the outstanding ids that have a record
        self.copied: set[int] = set()  # those of them whose record is the item, because the parent's is gone
        self._recorded_place = self.place
        self._place_before = (0, 0, 0)
        self._closed: list[int] = []  # ids with a record, which goes in this turn
        self._mark_all = False  # in this turn, every outstanding id gets a record

    # -- the log

    def attach(self, journal: Journal, record: QueueRecord, state: State) -> None:
        """Give the cursor its log, and read back what the disk says of it. Raises StorageError."""
        self.log = CursorLog(journal, self, record)
        self.log.hook = self._write
        self.next_id = self.place = self._recorded_place = state.next
        parent, storage = self.parent, journal.storage
        for item_id, copy in list(storage.cursor_items(record)):
            item = copy
            if item is None and stores(parent, item_id):
                item = storage.item(parent.log.record, item_id)
            if item is None:
                continue  # damage has taken it from the parent
            body = item[0]
            blob = body.blob if isinstance(body, Blob) else 0
            read = OpenRead(self, item_id, None, len(body), blob, self._expires_at_ms(item))
            read.returned = True
            self.outstanding[item_id] = read
            self.returned.append(item_id)
            self.marked.add(item_id)
            if copy is not None:
                self.copied.add(item_id)

    def touch(self) -> None:
        """Enter the turn: before every change."""
        self.log.touch()
        self._place_before = (self.next_id, self.place, self._recorded_place)

    def _write(self, batch: Batch) -> bool:
        log = self.log
        number, family, _, _ = log.record
        handle = log.journal.storage.handles[family]
        for item_id in self._closed:
            if item_id not in self.marked:  # else it was handed out again, and has a new one
                batch.delete(item_key(number, item_id), handle)
        if log.state_changed or not log.recorded:
            marks = list(self._to_mark())
            for item_id in marks:
                batch.put(item_key(number, item_id), records.HELD, handle)
            self.marked.update(marks)
            log.journal.undo.append((self.marked.difference_update, marks))
            batch.put(item_key(number, records.STATE_ID), records.pack_state(self.place, self.place, 0, 0, 0), handle)
            self._recorded_place = self.place
            log.recorded = 1
        return True

    def _to_mark(self) -> Iterator[int]:
        """The outstanding ids that need a record, because the place that is written now is behind them."""
        outstanding, marked = self.outstanding, self.marked
        if self._mark_all:
            return (item_id for item_id in outstanding if item_id not in marked)
        passed = range(self._recorded_place, self.place)
        if len(passed) < len(outstanding):
            return (item_id for item_id in passed if item_id in outstanding and item_id not in marked)
        return (item_id for item_id in outstanding if item_id < self.place and item_id not in marked)

    def keep(self, batch: Batch, item_id: int) -> None:
        """The parent removes this item in this turn, and it is outstanding: copy it."""
        number, family, _, _ = self.log.record
        journal = self.log.journal
        try:
            item = self.parent.log.read_one(item_id)
        except StorageError as error:  # it is lost; who has it open has been sent it, who asks for it is told
            log.error("cursor %s: item %d: %s", show_bytes(self.name), item_id, error)
        else:
            batch.put(item_key(number, item_id), records.pack_item(item), journal.storage.handles[family])
        if item_id not in self.marked:
            self.marked.add(item_id)
            journal.undo.append((self.marked.discard, item_id))
        self.copied.add(item_id)
        journal.undo.append((self.copied.discard, item_id))

    def turn_written(self) -> None:
        self._closed = []
        self._mark_all = False
        if not self.ahead:
            self._account(0)

    def drop_window(self) -> None:
        self.ahead = _NOTHING_AHEAD
        self.window_bytes = 0

    def undo_turn(self) -> None:
        self.next_id, self.place, self._recorded_place = self._place_before
        self._closed = []
        self._mark_all = False
        self.set_returned()
        self.release_window()

    def recheck(self, batch: Batch) -> None:
        """After a failed write: its records are to be what memory has, whatever was left of it."""
        number, family, _, _ = self.log.record
        storage = self.log.journal.storage
        handle = storage.handles[family]
        copies = [(item_id, storage.item(self.log.record, item_id)) for item_id in self.copied]
        batch.delete_range(item_key(number, records.FIRST_ID), item_key(number + 1, records.STATE_ID), handle)
        for item_id in self.marked - self.copied:
            batch.put(item_key(number, item_id), records.HELD, handle)
        for item_id, item in copies:
            if item is not None:
                batch.put(item_key(number, item_id), records.pack_item(item), handle)
        if not self.log.touched:
            self.touch()
        self.log.state_changed = True

    # -- what comes next

    @property
    def head_id(self) -> int:
        """Of what a read would hand out next; 0 if that is nothing."""
        return self.returned[0] if self._goes_back() else self._next_seen(self.next_id)

    def _goes_back(self) -> bool:
        """Whether what comes next was given back: the lowest id does. It is a new one only after the cursor was put
        back to the head, or after a crash."""
        if self.returned and self.outstanding[self.returned[0]].expires_at_ms:
            self._drop_expired()
        if not self.returned or self.returned[0] < self.next_id:
            return bool(self.returned)
        item_id = self._next_seen(self.next_id)
        return not item_id or self.returned[0] < item_id

    def _next_seen(self, item_id: int) -> int:
        """The first id from this one on that waits in the parent and is not outstanding here; 0: there is none."""
        parent, outstanding = self.parent, self.outstanding
        while True:
            if item_id < parent.next_id:
                read = parent.outstanding.get(item_id)
                if read is None or not read.returned:
                    item_id = parent.next_returned(item_id)
            if item_id >= parent.tail:
                return 0
            if item_id not in outstanding:
                return item_id
            item_id += 1  # open since before the cursor was put back to the head

    def _next(self) -> tuple[int, Item] | None:
        """(id, item) of what was never handed out and comes next; it is then the first of `ahead`."""
        item_id, ahead = self.next_id, self.ahead
        parent = self.parent
        if ahead and ahead[0][0] == item_id and item_id >= parent.next_id and item_id not in self.outstanding:
            if not ahead[0][1][2] and not parent.max_age_ms:
                return ahead[0]  # the usual case, which what follows would find, too
        item_id = self._next_seen(item_id)
        passed, now_ms = 0, self.log.journal.time_ms()
        self.half_swept = False
        while item_id:
            ahead = self.ahead
            while ahead and ahead[0][0] < item_id:
                ahead.popleft()
            if not ahead or ahead[0][0] != item_id:
                self._fill_from(item_id)
                ahead = self.ahead
            if not ahead:
                return None
            if ahead[0][0] == item_id:
                if not 0 < self._expires_at_ms(ahead[0][1]) < now_ms:
                    return ahead[0]
                passed += 1  # it has expired
                if passed == EXPIRED_AT_ONCE:
                    self._pass_over(item_id)
                    return None
                item_id = self._next_seen(item_id + 1)
            else:
                item_id = self._next_seen(ahead[0][0])  # what was there is gone from the middle of the parent
        return None

    def _pass_over(self, item_id: int) -> None:
        """All that is new up to this id has expired, and perhaps more: whoever asks finds nothing for now."""
        if not self.log.touched:
            self.touch()
        self.next_id = item_id + 1
        self.half_swept = True

    def drop_expired(self, most: int = EXPIRED_AT_ONCE, least: int = 0) -> bool:
        """Pass over what has expired, a part of it; False: there may be more. Raises StorageError."""
        self.half_swept = False
        if not self._goes_back():
            self._next()
        return not self.half_swept

    def _expires_at_ms(self, item: Item) -> int:
        return self.parent.aged(item)[2] if self.parent.max_age_ms else item[2]

    def _drop_expired(self) -> None:
        """Of what was given back."""
        now_ms = self.log.journal.time_ms()
        while self.returned and 0 < self.outstanding[self.returned[0]].expires_at_ms < now_ms:
            read = self.outstanding[self.returned[0]]
            large_items = self.large_items if read.blob else None  # may raise: before anything is changed
            if not self.log.touched:
                self.touch()
            del self.outstanding[read.id]
            self.leave_returned(read.id)
            self.log.journal.undo.append((self._undrop, read))
            self._forget(read, large_items)
            self.log.state_changed = True

    def _undrop(self, read: OpenRead) -> None:
        self.outstanding[read.id] = read

    def _fill_from(self, item_id: int) -> None:
        """Read ahead: what is stored from this id on. Raises StorageError."""
        try:
            items = self._read_ahead(item_id)
        except StorageError:
            items = [(item_id, self._read(self.parent.log.read_one, item_id))]  # what lies before the damage is served
        if (not items or items[0][0] != item_id) and not self.parent.missing:
            raise self.cannot_be_read(
                StorageError(f"queue number {self.parent.log.record.number}: item {item_id} is missing")
            )
        self.ahead = deque(items)
        self._account(sum(len(item[0]) for _, item in items) + len(items) * ITEM_OVERHEAD_BYTES)

    def _read_ahead(self, item_id: int) -> list[tuple[int, Item]]:
        parent = self.parent.log
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
                if len(items) >= FILL_ITEMS or size >= FILL_BYTES:
                    return items
        start = max(0, item_id - written)
        behind = parent.appended[start : start + FILL_ITEMS - len(items)]
        return items + list(enumerate(behind, written + start))

    # -- taking

    def take(self) -> Item | Large | None:
        ahead = self.ahead
        if ahead and not self.outstanding:
            item_id, item = ahead[0]
            if item_id == self.next_id and item_id >= self.parent.next_id:  # else it has to be looked for
                if item[0].__class__ is Blob or item[2] or self.parent.max_age_ms:
                    return self._take_slowly()
                if not self.log.touched:
                    self.touch()
                self.next_id = self.place = item_id + 1
                self.log.state_changed = True
                ahead.popleft()
                return item
        return self._take_slowly()

    def _take_slowly(self) -> Item | Large | None:
        item = self.peek()
        if item is None:
            return None
        if isinstance(item[0], Blob):
            return LARGE
        read = self.open()
        assert read is not None
        self.close(read)
        return item

    def peek(self) -> Item | None:
        if self._goes_back():
            return self._read(self.log.read_one, self.returned[0])
        found = self._next()
        if found is None:
            self.parent.polled = True
            return None
        return found[1]

    def open(self) -> OpenRead | None:
        if self._goes_back():
            return self._open_again()
        found = self._next()
        if found is None:
            self.parent.polled = True
            return None
        if not self.log.touched:
            self.touch()
        item_id, item = found
        self.ahead.popleft()
        self.next_id = item_id + 1
        body = item[0]
        blob = body.blob if isinstance(body, Blob) else 0
        read = OpenRead(self, item_id, item, len(body), blob, self._expires_at_ms(item))
        self.outstanding[item_id] = read
        self.log.journal.undo.append((self._unopen, read))
        return read

    def _open_again(self) -> OpenRead:
        if not self.log.touched:
            self.touch()
        item_id = self.returned[0]
        self.next_id = max(self.next_id, item_id + 1)
        before = self.outstanding[item_id]  # whose place the new read takes
        self.outstanding[item_id] = read = OpenRead(
            self, item_id, None, before.body_bytes, before.blob, before.expires_at_ms
        )
        self.leave_returned(item_id)
        self.log.journal.undo.append((self.give_back, read, False))
        return read

    def _unopen(self, read: OpenRead) -> None:
        self.outstanding.pop(read.id, None)
        read.returned = True

    def close(self, read: OpenRead, holder: Holder | None = None) -> None:
        """The item has been dealt with here. As a queue's, but that it stays in the parent."""
        journal = self.log.journal
        if not self.holds(read):
            if holder is not None:
                journal.undo.append((holder.unclose, read))
            return
        large_items = self.large_items if read.blob else None  # may raise: before anything is changed
        if not self.log.touched:
            self.touch()
        item_id = read.id
        del self.outstanding[item_id]
        journal.undo.append((self._unclose, read, holder))
        self._forget(read, large_items)
        if item_id < self.next_id:
            self.place = max(self.place, item_id + 1)
        self.log.state_changed = True

    def _forget(self, read: OpenRead, large_items: LargeItems | None) -> None:
        """It is not outstanding any more: its record goes, and the chunks of what only this cursor had."""
        item_id = read.id
        if large_items is not None and (item_id in self.copied or not stores(self.parent, item_id)):
            large_items.remove(read.blob, read.blob + 1, read.body_bytes)
        if item_id in self.marked:
            self._closed.append(item_id)
            self.log.journal.undo.append((self._unforget, item_id, item_id in self.copied))
            self.marked.discard(item_id)
            self.copied.discard(item_id)

    def _unforget(self, item_id: int, copied: bool) -> None:
        self.marked.add(item_id)
        if copied:
            self.copied.add(item_id)

    # -- waiting

    def take_line(self, line: WaitingLine | None) -> None:
        """Who has waited elsewhere waits here."""
        self.line = line
        if self.parent.line is None:
            self.parent.line = WaitingLine()  # without one a put does not look whether anybody waits

    def join_line(self, peeks: bool, waiter: Waiter | None = None) -> Waiter:
        if self.line is None:
            self.take_line(WaitingLine())
        return super().join_line(peeks, waiter)

    def tidy_line(self) -> None:
        super().tidy_line()
        self.parent.tidy_line()

    def serve_line(self) -> None:
        while self.line:
            try:
                if self.peek() is None:
                    break
                waiter = self.line.next()
                handed = self if waiter.peeks else self.open()
            except StorageError:
                break  # what comes next cannot be read: who asks now is told so, who waits waits on
            if handed is None:  # it has expired since
                self.line.rejoin(waiter)
                break
            waiter.hand(handed)
        super().tidy_line()

    @property
    def large_items(self) -> LargeItems:
        return self.parent.large_items

    # -- going back, and going

    def flush(self) -> None:
        """Go back to the head of the parent. What was given back is dropped. What is open stays open, and while it is,
        the cursor passes it over. Raises StorageError, and has changed nothing then."""
        large_items = self.large_items
        if not self.log.touched:
            self.touch()
        self.log.journal.undo.append((self._unrewind, dict(self.outstanding)))
        for item_id in self.given_back():
            self._forget(self.outstanding.pop(item_id), large_items)
        self.set_returned()
        self.next_id = self.place = self.parent.head_id
        self._mark_all = self.log.state_changed = True
        self.release_window()
        self.total_flushes += 1
        self.serve_line()

    def _unrewind(self, outstanding: dict[int, OpenRead]) -> None:
        self.outstanding = outstanding
        self.total_flushes -= 1

    def remove_chunks(self) -> None:
        """It has been deleted: remove those that only it has kept. Raises StorageError."""
        for read in self.outstanding.values():
            if read.blob and (read.id in self.copied or not stores(self.parent, read.id)):
                self.large_items.remove(read.blob, read.blob + 1, read.body_bytes)

    # -- figures

    @property
    def waiting_items(self) -> int:
        """What there is still to read: at most so many, if others take from the parent as well."""
        parent, outstanding = self.parent, self.outstanding
        first_new = max(self.next_id, parent.next_id)
        # Which ids are missing nobody knows without reading: as many as can be may lie before what is new here.
        missing = max(0, parent.missing - (first_new - parent.next_id))
        known = sum(i >= first_new and i not in self.copied and stores(parent, i) for i in outstanding)
        new = parent.tail - first_new - missing - known
        again = sum(item_id >= self.next_id and item_id not in outstanding for item_id in parent.given_back())
        return max(0, new) + again + len(self.returned) - self.stale

    def head_added_at_ms(self) -> int:
        item = self.peek()
        return 0 if item is None else item[3]


def stores(queue: MessageQueue, item_id: int) -> bool:
    """Whether the item is in the queue still, waiting or open, at this point of the turn."""
    if item_id < queue.next_id:
        return item_id in queue.outstanding
    return item_id < queue.tail and item_id not in queue.log.removed


class Keeper:
    """Sees at the end of each turn what a queue with cursors removes, and lets them keep what they need of it."""

    __slots__ = ("_queue", "_first", "_next")

    def __init__(self, queue: MessageQueue) -> None:
        self._queue = queue
        self._first = queue.first_id()
        self._next = queue.next_id

    def write(self, batch: Batch) -> bool:
        """The hook of the queue's log."""
        queue = self._queue
        before = self._first, self._next
        self._first, self._next = queue.first_id(), queue.next_id
        queue.log.journal.undo.append((self._undo, *before))
        removed = queue.log.removed
        # Gone are: all below the first, what was removed by name, and of what was handed out what is not outstanding.
        spans = range(before[0], self._first), range(max(before[1], self._first), self._next)
        seen = len(spans[0]) + len(spans[1]) + len(removed)
        if not seen:
            return False
        named = set(removed)
        stale = any(item_id >= self._next for item_id in removed)
        for cursor in (queue.cursors or {}).values():
            if not isinstance(cursor, Cursor):
                continue
            if stale:
                cursor.release_window()  # which may hold what was removed
            outstanding = cursor.outstanding
            for item_id in chain(*spans, removed) if seen < len(outstanding) else list(outstanding):
                if item_id in outstanding and item_id not in cursor.copied:
                    if item_id in named or (item_id < self._next and item_id not in queue.outstanding):
                        cursor.keep(batch, item_id)
        return False

    def _undo(self, first: int, next_id: int) -> None:
        self._first, self._next = first, next_id
