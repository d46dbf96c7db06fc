"""Group commit: what one turn of the event loop changes is written once, all of it or nothing.

The promise: no reply leaves the server before the change it tells of is in the write-ahead log. The server calls
`commit` before the loop sleeps, and sends the turn's replies only then. If the write fails, `commit` undoes the
turn in memory, so that memory and disk agree, and raises; the server answers every request of the turn with an error.

A queue's part of the turn is its QueueLog. Putting appends to a list; popping moves a number. What that means on
disk is worked out once a turn, here:

- An item that was put and popped within the turn is not written at all: `first` says that it is gone.
- Popping in order writes only the state record, however many items were popped. No tombstones.
- A pop out of order (earlier items are still open) deletes its one key.
- Dead ranges are range-deleted once they are large; see RECLAIM_ITEMS.

No call here switches greenlets.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Any, Protocol

from darner_core import NAME
from darner_core.errors import StorageError
from darner_core.repeated import BY_FORM
from darner_core.storage import records
from darner_core.storage.records import Blob, Expiry, Item, QueueRecord, chunk_key, item_header, item_key
from darner_core.storage.storage import CHUNK_FAMILY, Batch, Storage

logger = logging.getLogger(NAME)  # a `log` is a queue's

# A state record is written at least every so many puts. Recovery reads the items behind the last one, 0.5 us each:
# 10,000 queues are 0.6 s in the worst case. One record more in 128 costs a put 1 %.
STATE_EVERY = 128

# Dead items are range-deleted when so many have gathered. Every iterator has to look at every range deletion still
# in the write buffer, so not too few; what is range-deleted before the buffer is flushed never reaches a table.
RECLAIM_ITEMS = 16384
RECLAIM_BYTES = 4 << 20


class LogOwner(Protocol):
    """What the journal asks of a queue."""

    def touch(self) -> None:
        """Enter the turn."""

    next_id: int  # every id from it on was never handed out
    missing: int  # so many of the ids from next_id on have expired and are gone

    @property
    def outstanding(self) -> Collection[int]:
        """The ids below `next_id` that are not gone."""

    def first_id(self) -> int:
        """Every id below it is gone."""

    def stored_bytes(self) -> int:
        """Body bytes of all items that are waiting or open."""

    def removed_bytes(self) -> int:
        """Body bytes of all items that are gone, since the server started."""

    def undo_turn(self) -> None:
        """Go back to the numbers of the first `touch` of this turn."""

    def turn_written(self) -> None:
        """The turn is on disk."""


class LineOwner(Protocol):
    """A queue that somebody waits at."""

    deleted: bool
    half_swept: bool

    def drop_expired(self) -> bool:
        """Remove some of what has expired at the head."""

    def serve_line(self) -> None:
        """Hand out what waits."""


_NOTHING: list[Item] = []  # stands in for the lists of the queues that this turn does not touch


class QueueLog:
    """One queue's records, and what the current turn changes of them.

    The queue appends items to `appended` (their ids follow `written`), adds ids popped out of order to
    `removed`, and sets `state_changed` when an id is gone.
    """

    __slots__ = (
        "journal", "owner", "record", "written", "appended", "removed",
        "touched", "state_changed", "recorded", "reclaimed", "reclaimed_bytes", "reclaim_now", "hook",
        "seen",
    )  # fmt: skip

    def __init__(self, journal: "Journal", owner: LogOwner, record: QueueRecord, state: records.State) -> None:
        self.journal = journal
        self.owner = owner
        self.record = record
        self.written = state.tail  # ids below are on disk, or gone
        self.appended = _NOTHING
        self.removed: list[int] = []
        self.touched = False
        self.state_changed = False
        self.recorded = state.tail  # the tail in the state record on disk
        self.reclaimed = state.reclaimed  # ids below are range-deleted
        self.reclaimed_bytes = 0  # the owner's removed_bytes() at that time
        self.reclaim_now = False
        self.seen = 0  # where `upkeep` has last seen the queue
        # Of a queue with cursors, or a cursor: adds to the batch of each turn that touches the log. True: that was all.
        self.hook: Callable[[Batch], bool] | None = None

    def reclaim(self) -> None:
        """Range-delete what is dead in this turn, however little it is."""
        if not self.touched:
            self.owner.touch()
        self.state_changed = self.reclaim_now = True

    def touch(self) -> None:
        """Enter the turn. Before the first change of a turn."""
        journal = self.journal
        if not journal.touched:
            journal.time_ms()
        self.touched = True
        self.appended = []
        self.enter()

    def set_reclaimed(self, first: int, removed_bytes: int) -> None:
        self.reclaimed = first
        self.reclaimed_bytes = removed_bytes

    def enter(self) -> None:
        """Be told by the journal of the end of the turn."""
        self.journal.touched.append(self)

    def pending(self) -> tuple[int, list[Item]]:
        """(id of the first, items) of what was put in this turn and is still there."""
        first = self.owner.first_id() if self.state_changed else 0
        if first > self.written:
            return first, self.appended[first - self.written :]
        return self.written, self.appended

    def read(self, from_id: int, most_items: int, most_bytes: int, missing: int = 0) -> tuple[int, list[Item]]:
        """(id of the first, items): up to so many that follow one another, the first of them at `from_id`, or behind it
        if up to `missing` ids may be gone; at least one, if any is there. Raises StorageError if others are gone."""
        items: list[Item] = []
        first, size = from_id, 0
        if from_id < self.written:
            gone = set(self.removed) if missing and self.removed else ()
            for item_id, item in self.stored(from_id, self.written):
                if item_id != first + len(items):
                    if items and missing:
                        return first, items
                    if items or item_id - first > missing:
                        raise self._is_missing(first + len(items))
                    first = item_id
                if item_id in gone:  # in this turn
                    if items:
                        return first, items
                    first += 1
                    continue
                items.append(item)
                size += len(item[0])
                if len(items) >= most_items or size >= most_bytes:
                    return first, items
            behind = first + len(items)
            if behind != self.written:
                if items and missing:
                    return first, items
                if items or self.written - from_id > missing:
                    raise self._is_missing(behind)
                first = self.written
        start = first + len(items) - self.written
        return first, items + self.appended[start : start + most_items - len(items)]

    def read_one(self, item_id: int) -> Item:
        if item_id >= self.written:
            return self.appended[item_id - self.written]
        item = self.stored_one(item_id)
        if item is None:
            raise self._is_missing(item_id)
        return item

    def remove_range(self, from_id: int, to_id: int) -> None:
        """In this turn, remove all that is stored in [from_id, to_id), where nothing is to stay."""
        begin, end = item_key(self.record.number, from_id), item_key(self.record.number, to_id)
        storage, family = self.journal.storage, self.record.family
        self.journal.also.append(lambda batch: batch.delete_range(begin, end, storage.handles[family]))

    def find(self, item_id: int) -> Item | None:
        """The item, if it is there; also if it is removed in this turn. Raises StorageError."""
        if item_id >= self.written:
            return self.appended[item_id - self.written]
        return self.stored_one(item_id)

    def _is_missing(self, item_id: int) -> StorageError:
        return StorageError(f"queue number {self.record.number}: item {item_id} is missing")

    # -- what has been written

    def stored(self, from_id: int, to_id: int) -> Iterator[tuple[int, Item]]:
        """(id, item) of what is stored in [from_id, to_id), in order. Raises StorageError."""
        return self.journal.storage.items(self.record, from_id, to_id)

    def stored_one(self, item_id: int) -> Item | None:
        """Raises StorageError."""
        return self.journal.storage.item(self.record, item_id)


class MemoryLog(QueueLog):
    """The log of a queue that is in memory only: nothing of it is written, and it ends with the server.

    Its items are kept as a disk would keep them, so that the queue does not have to know the difference.
    """

    __slots__ = ("_items",)

    def __init__(self, journal: "Journal", owner: LogOwner, record: QueueRecord) -> None:
        super().__init__(journal, owner, record, records.State())
        self._items: dict[int, Item] = {}  # by id, in order

    def enter(self) -> None:
        self.journal.in_memory.append(self)

    def keep(self) -> None:
        """The turn has happened: keep what it has put, forget what it has removed."""
        item_id, appended = self.pending()
        for item in appended:
            self._items[item_id] = item
            item_id += 1
        for removed in self.removed:
            self._items.pop(removed, None)
        first = self.owner.first_id()
        for old in takewhile(lambda item_id: item_id < first, list(islice(self._items, first - self.reclaimed))):
            del self._items[old]
        self.set_reclaimed(first, self.owner.removed_bytes())

    def remove_range(self, from_id: int, to_id: int) -> None:
        """Its items go one by one."""

    def stored(self, from_id: int, to_id: int) -> Iterator[tuple[int, Item]]:
        items = self._items
        return ((item_id, items[item_id]) for item_id in range(from_id, to_id) if item_id in items)

    def stored_one(self, item_id: int) -> Item | None:
        return self._items.get(item_id)


@dataclass(slots=True)
class DeadRange:
    family: int
    begin: bytes
    end: bytes
    dead_bytes: int


# Column family, and queue number for large items, else 0.
RangeKey = tuple[int, int]

# Ranges of chunks that are known at a time. Too little is dead in most of them to be worth a compaction.
MOST_CHUNK_RANGES = 64


class DeadRanges:
    """What has been removed and still takes space on disk: one range for each column family of items, and one for
    each queue's large items. If these get too many, neighbours become one."""

    def __init__(self) -> None:
        self.ranges: dict[RangeKey, DeadRange] = {}
        self._chunk_ranges = 0  # at least so many of them are of chunks; counted anew when they seem too many

    def add_items(self, record: QueueRecord, from_id: int, to_id: int, dead_bytes: int) -> None:
        begin, end = item_key(record.number, from_id), item_key(record.number, to_id)
        self.add(DeadRange(record.family, begin, end, dead_bytes))

    def add_chunks(self, number: int, from_blob: int, to_blob: int, dead_bytes: int) -> None:
        begin, end = chunk_key(number, from_blob, 0), chunk_key(number, to_blob, 0)
        self.add(DeadRange(CHUNK_FAMILY, begin, end, dead_bytes), number)

    def add_queue(self, record: QueueRecord, dead_bytes: int, has_chunks: bool) -> None:
        """All of a queue: how much of it was in chunks is not known."""
        self.add_items(record, records.STATE_ID, records.MAX_ID, dead_bytes)
        if has_chunks:
            self.add_chunks(record.number, 0, records.MAX_ID, dead_bytes)

    def add(self, more: DeadRange, number: int = 0) -> None:
        known = self.ranges.setdefault((more.family, number), more)
        if known is not more:
            _widen(known, more)
        elif more.family == CHUNK_FAMILY:
            self._bound()

    def _bound(self) -> None:
        """Another range of chunks has come: if there are too many, merge each with the next."""
        self._chunk_ranges += 1
        if self._chunk_ranges <= MOST_CHUNK_RANGES:
            return
        keys = sorted(key for key in self.ranges if key[0] == CHUNK_FAMILY)
        if len(keys) > MOST_CHUNK_RANGES:
            for key, following in zip(keys[::2], keys[1::2], strict=False):
                _widen(self.ranges[key], self.ranges.pop(following))
        self._chunk_ranges = sum(key[0] == CHUNK_FAMILY for key in self.ranges)


def _widen(known: DeadRange, more: DeadRange) -> None:
    known.begin, known.end = min(known.begin, more.begin), max(known.end, more.end)
    known.dead_bytes += more.dead_bytes


class Journal:
    """The turn: which queues it touches, what else it writes, and how to undo it."""

    def __init__(self, storage: Storage, clock: Callable[[], float] = time.time) -> None:
        self.storage = storage
        self._clock = clock
        self.touched: list[QueueLog] = []
        self.in_memory: list[MemoryLog] = []  # the same for queues of which nothing is written
        self.expiring: list[tuple[QueueLog, int, int]] = []  # what was put that will expire: when, and its id
        self.hints = 0  # so many expiries have been written since `sweeper` has last asked
        self.swept_ms = 0  # it has looked at all that is on disk up to this time
        self.again: deque[Expiry] = deque()  # what it has to look at besides: it was open then, or its turn failed
        self.half_served: dict[LineOwner, None] = {}  # who waits there waits for it to remove what has expired
        self.slices: deque[Iterator[None]] = deque()  # what is too much for one turn: each goes on once a turn
        self.dropped = 0  # items that nobody was handed, removed in this turn
        # Rare changes, each a function that adds to the batch, in order, behind the queues' own.
        self.also: list[Callable[[Batch], None]] = []
        # (function, its arguments), called in reverse order if the turn cannot be written, before the queues' own
        # `undo_turn`. A tuple costs a quarter of a partial, and a confirmed get makes three.
        self.undo: list[tuple[Any, ...]] = []
        # The same for what is to be called when the turn has been written, in order; forgotten if it cannot be.
        self.after: list[tuple[Any, ...]] = []
        # (queue's number, large item) of those whose chunks nobody needs since a turn could not be written.
        self.orphans: list[tuple[int, int]] = []
        self.dead = DeadRanges()
        self.now_ms = 0
        self._plain_header = b""  # of an item without flags or expiry that was put at `_plain_ms`
        self._plain_ms = -1
        self.unsynced = False  # something was written since the last `sync`
        self._has_time = False

    def begin(self) -> None:
        """Start a turn: the clock is read when somebody asks for the time."""
        self._has_time = False

    def time_ms(self) -> int:
        """Milliseconds since 1970. The clock is read once a turn: whatever looks at it twice, to judge an item and then
        to take it, sees the same. `now_ms` is the same number in a turn that has touched a log."""
        if not self._has_time:
            self.now_ms = int(self._clock() * 1000)
            self._has_time = True
        return self.now_ms

    def commit(self) -> bool:
        """Write the turn and start the next; False: it changed nothing. Raises StorageError, with everything undone.

        Any other exception leaves in memory what nobody knows: only undoing, or what follows a write, raises one.
        """
        self._has_time = False
        if not self.touched and not self.also and not self.expiring:  # what a queue in memory holds may expire, too
            if not self.in_memory:
                if self.undo:
                    self.undo.clear()
                return False
            if not self.expiring:  # else these are written, so that the items are found when their time has come
                self._close_memory()
                self.undo.clear()
                self._call_after()
                return False
        try:
            self._write()
        except StorageError:
            self._undo()
            raise
        except Exception as error:  # nothing has been written: that is the last that `_write` does
            logger.exception("a turn could not be put together", extra=BY_FORM)
            self._undo()
            raise StorageError("an internal error, which the server's log tells") from error
        for log in self.touched:
            log.written += len(log.appended)
            log.appended = _NOTHING
            if log.removed:
                log.removed = []
            log.touched = log.state_changed = log.reclaim_now = False
            log.owner.turn_written()
        self.touched.clear()
        self.dropped = 0
        if self.in_memory:
            self._close_memory()
        if self.also:
            self.also.clear()
        if self.expiring:
            self.expiring.clear()
        if self.undo:
            self.undo.clear()
        self.unsynced = True
        if self.after:
            self._call_after()
        return True

    def _call_after(self) -> None:
        after, self.after = self.after, []
        for step, *arguments in after:
            step(*arguments)

    def _close_memory(self) -> None:
        for log in self.in_memory:
            log.keep()
            log.written += len(log.appended)
            log.appended = _NOTHING
            log.removed = []
            log.touched = log.state_changed = log.reclaim_now = False
            log.owner.turn_written()
        self.in_memory.clear()
        self.dropped = 0

    def _write(self) -> None:
        if len(self.touched) == 1 and not self.also and not self.expiring and self._write_single(self.touched[0]):
            return
        storage = self.storage
        batch = storage.batch()
        put = batch.put
        for log in self.touched:
            if log.hook is not None and log.hook(batch):
                continue
            item_id, appended = log.pending()
            if not (appended or log.state_changed or log.removed):
                continue  # items were opened or given back: that goes on while the database is closed
            number, family, _, _ = log.record
            handle = storage.handles[family]
            for item in appended:
                put(item_key(number, item_id), self._pack(item), handle)
                item_id += 1
            for removed in log.removed:
                batch.delete(item_key(number, removed), handle)
            if log.state_changed or item_id - log.recorded >= STATE_EVERY:
                if self._should_reclaim(log):
                    self._reclaim(batch, log)
                put(item_key(number, records.STATE_ID), self._state(log), handle)
        for add in self.also:
            add(batch)
        for log, expires_at_ms, item_id in self.expiring:
            if item_id >= log.owner.next_id or item_id in log.owner.outstanding:  # else it has been taken already
                storage.add_expiry(batch, Expiry(self._look_at_ms(expires_at_ms), log.record.number, item_id))
                self.hints += 1
        if len(batch):
            storage.write(batch)

    def _look_at_ms(self, expires_at_ms: int) -> int:
        """When the sweeper is to look at an item: not at a time that it has passed."""
        if expires_at_ms > self.swept_ms:
            return expires_at_ms
        self.swept_ms = min(self.swept_ms, self.time_ms())  # the clock may have been set back
        return max(expires_at_ms, self.swept_ms + 1)

    def _write_single(self, log: QueueLog) -> bool:
        """Write a turn that is one record, without a batch: 2 us cheaper. False: it is more than one record."""
        if log.hook is not None:
            return False
        number, family, _, _ = log.record
        appended = log.appended
        if log.state_changed:
            if log.removed or (appended and log.pending()[1]) or self._should_reclaim(log):
                return False
            self.storage.put(family, item_key(number, records.STATE_ID), self._state(log))
            return True
        if len(appended) == 1 and log.written + 1 - log.recorded < STATE_EVERY:
            self.storage.put(family, item_key(number, log.written), self._pack(appended[0]))
            return True
        return not appended

    def _pack(self, item: Item) -> bytes:
        body, flags, expires_at_ms, added_at_ms = item
        if flags or expires_at_ms or body.__class__ is Blob:
            return records.pack_item(item)
        if added_at_ms != self._plain_ms:
            self._plain_ms = added_at_ms
            self._plain_header = item_header(records.WHOLE, 0, 0, added_at_ms)
        return self._plain_header + body  # type: ignore[operator]

    def _state(self, log: QueueLog) -> bytes:
        owner = log.owner
        tail = log.recorded = log.written + len(log.appended)
        return records.pack_state(
            owner.first_id(), owner.next_id, tail, owner.stored_bytes(), log.reclaimed, owner.missing
        )

    def _should_reclaim(self, log: QueueLog) -> bool:
        if log.reclaim_now or log.owner.first_id() - log.reclaimed >= RECLAIM_ITEMS:
            return True
        return log.owner.removed_bytes() - log.reclaimed_bytes >= RECLAIM_BYTES

    def _reclaim(self, batch: Batch, log: QueueLog) -> None:
        first = log.owner.first_id()
        if first > log.reclaimed:
            self.storage.remove_items(batch, log.record, log.reclaimed, first)
        self.undo.append((log.set_reclaimed, log.reclaimed, log.reclaimed_bytes))
        record_bytes = (first - log.reclaimed) * (records.ITEM_KEY_BYTES + records.ITEM_HEADER_BYTES)
        removed_bytes = log.owner.removed_bytes()
        # What lies between open items was deleted one by one.
        end = log.owner.next_id
        self.dead.add_items(log.record, log.reclaimed, end, record_bytes + removed_bytes - log.reclaimed_bytes)
        log.set_reclaimed(first, removed_bytes)

    def _undo(self) -> None:
        touched, undo = self.touched + self.in_memory, self.undo
        self.dropped = 0
        self.touched, self.in_memory, self.also, self.expiring, self.undo = [], [], [], [], []
        for step, *arguments in reversed(undo):
            step(*arguments)
        for log in touched:
            log.appended = _NOTHING
            log.removed = []
            log.touched = log.state_changed = False
            log.recorded = 0  # perhaps not what the disk says: the next turn writes the state
            log.owner.undo_turn()
        self.after = []  # what undoing has added, too
