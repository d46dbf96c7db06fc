"""Group commit: what one turn of the event loop changes is written once, all of it or nothing.

The promise: no reply leaves the server before the change it tells of is in the write-ahead log. The server calls
`commit` before the loop sleeps, and sends the turn's replies only then. If the write fails, `commit` undoes the turn in
memory, so that memory and disk agree, and raises; the server answers every request of the turn with an error.

A queue's part of the turn is its QueueLog. To put is to append to a list, and to take is to raise a number. What that
means on disk is worked out once a turn, here:

- An item that was put and taken within the turn is not written at all. The `first` of the state record says that it is
  gone.
- Taking in order writes only the state record, however many items were taken, and deletes no key.
- Taking out of order, while earlier items are open, deletes one key an item.
- Dead ranges are range-deleted once they are large; see RECLAIM_ITEMS.

No call here switches greenlets.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from darner_core import NAME
from darner_core.engines.local.dead_ranges import DeadRanges
from darner_core.engines.local.queue_log import NOTHING, MemoryLog, QueueLog
from darner_core.errors import StorageError
from darner_core.repeated import BY_FORM
from darner_core.storage import records
from darner_core.storage.records import Blob, Expiry, Item, item_header, item_key
from darner_core.storage.storage import Batch, Storage

if TYPE_CHECKING:
    from darner_core.engines.local.cursor import Cursor
    from darner_core.engines.local.message_queue import MessageQueue

logger = logging.getLogger(NAME)  # a `log` is a queue's

# A state record is written at least once in this many puts. A start reads the items behind the last one, 0.5 us each:
# 10,000 queues take 0.6 s in the worst case. One record more in 128 makes a put 1 % slower.
STATE_EVERY = 128

# Dead items are range-deleted when this many have gathered. Not fewer, because every iterator looks at every range
# deletion in the write buffer; not more, because what is range-deleted before the buffer is flushed never reaches a
# table.
RECLAIM_ITEMS = 16384
RECLAIM_BYTES = 4 << 20


class Journal:
    """The turn: which queues it touches, what else it writes, and how to undo it."""

    def __init__(self, storage: Storage, clock: Callable[[], float] = time.time) -> None:
        self.storage = storage
        self._clock = clock
        self.touched: list[QueueLog] = []
        self.in_memory: list[MemoryLog] = []  # the same for queues of which nothing is written
        self.expiring: list[tuple[QueueLog, int, int]] = []  # items put that will expire: (log, expires at, id)
        self.hints = 0  # expiries written since the sweeper last asked
        self.swept_ms = 0  # the sweeper has looked at all that is on disk up to this time
        self.again: deque[Expiry] = deque()  # what it has to look at again: items that were open, failed turns
        # Where clients wait until the sweeper has removed what has expired at the head.
        self.half_served: dict[MessageQueue | Cursor, None] = {}
        self.slices: deque[Iterator[None]] = deque()  # work too much for one turn: each advances once a turn
        self.dropped = 0  # items removed in this turn that were not handed out
        # Rare changes. Each function adds to the batch, in order, behind the queues' own changes.
        self.also: list[Callable[[Batch], None]] = []
        # (function, its arguments), called in reverse order if the turn cannot be written, before the queues' own
        # `undo_turn`. A tuple costs a quarter of what a partial does, and a confirmed get makes three.
        self.undo: list[tuple[Any, ...]] = []
        # (function, its arguments), called in order when the turn has been written, and not at all if it cannot be.
        self.after: list[tuple[Any, ...]] = []
        # (queue's number, large item) whose chunks are not needed any more because a turn could not be written.
        self.orphans: list[tuple[int, int]] = []
        self.dead = DeadRanges()
        self.now_ms = 0
        self._plain_header = b""  # of an item without flags or expiry that was put at `_plain_ms`
        self._plain_ms = -1
        self.unsynced = False  # something was written since the last `sync`
        self._has_time = False

    def begin(self) -> None:
        """Start a turn: the next `time_ms` reads the clock."""
        self._has_time = False

    def time_ms(self) -> int:
        """Milliseconds since 1970. The clock is read once a turn, so that an item that is judged and then taken is
        judged by the same time. `now_ms` is the same number once a log has entered the turn."""
        if not self._has_time:
            self.now_ms = int(self._clock() * 1000)
            self._has_time = True
        return self.now_ms

    def count(self, owner: object, figure: str, more: int = 1) -> None:
        """In this turn, the attribute `figure` of `owner` rises by `more`."""
        before = getattr(owner, figure)
        self.undo.append((setattr, owner, figure, before))
        setattr(owner, figure, before + more)

    def commit(self) -> bool:
        """Write the turn and start the next; False: it changed nothing on disk. Raises StorageError, with everything
        undone.

        After any other exception, nobody knows what memory holds. Such an exception comes only from undoing a turn, or
        from what follows its write.
        """
        self._has_time = False
        writes = bool(self.touched or self.also or self.expiring)  # what expires may be in a queue in memory
        if writes:
            try:
                self._write()
            except StorageError:
                self._undo()
                raise
            except Exception as error:  # nothing has been written: to write is the last that `_write` does
                logger.exception("a turn could not be put together", extra=BY_FORM)
                self._undo()
                raise StorageError("an internal error; see the server's log") from error
            self.unsynced = True
        elif not self.in_memory:
            if self.undo:
                self.undo.clear()
            return False
        if self.in_memory:
            for memory_log in self.in_memory:
                memory_log.keep()
            self.touched += self.in_memory  # from here on all are alike
            self.in_memory.clear()
        for log in self.touched:
            log.written += len(log.appended)
            log.appended = NOTHING
            if log.removed:
                log.removed = []
            log.touched = log.state_changed = log.reclaim_now = False
            log.owner.turn_written()
        self.touched.clear()
        self.dropped = 0
        if self.also:
            self.also.clear()
        if self.expiring:
            self.expiring.clear()
        if self.undo:
            self.undo.clear()
        if self.after:
            after, self.after = self.after, []
            for step, *arguments in after:
                step(*arguments)
        return writes

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
                continue  # items were only opened or given back, which goes on while the database is closed
            number, family, _, _ = log.record
            handle = storage.handles[family]
            for item in appended:
                put(item_key(number, item_id), self._pack(item), handle)
                item_id += 1
            for removed in log.removed:
                batch.delete(item_key(number, removed), handle)
            if log.state_changed or item_id - log.recorded >= STATE_EVERY:
                first = log.owner.first_id()
                if self._should_reclaim(log, first):
                    self._reclaim(batch, log, first)
                put(item_key(number, records.STATE_ID), self._state(log, first), handle)
        for add in self.also:
            add(batch)
        for log, expires_at_ms, item_id in self.expiring:
            if item_id >= log.owner.next_id or item_id in log.owner.outstanding:  # else it has been taken
                storage.add_expiry(batch, Expiry(self._look_at_ms(expires_at_ms), log.record.number, item_id))
                self.hints += 1
        if len(batch):
            storage.write(batch)

    def _look_at_ms(self, expires_at_ms: int) -> int:
        """When the sweeper is to look at an item: later than the time that it has reached."""
        if expires_at_ms > self.swept_ms:
            return expires_at_ms
        self.swept_ms = min(self.swept_ms, self.time_ms())  # the clock may have been set back
        return max(expires_at_ms, self.swept_ms + 1)

    def _write_single(self, log: QueueLog) -> bool:
        """Write a turn that is one record, without a batch, which saves 2 us. False: it is more than one record."""
        if log.hook is not None:
            return False
        number, family, _, _ = log.record
        appended = log.appended
        if log.state_changed:
            first = log.owner.first_id()
            if log.removed or (appended and first < log.written + len(appended)) or self._should_reclaim(log, first):
                return False
            self.storage.put(family, item_key(number, records.STATE_ID), self._state(log, first))
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

    def _state(self, log: QueueLog, first: int) -> bytes:
        owner = log.owner
        tail = log.recorded = log.written + len(log.appended)
        return records.pack_state(first, owner.next_id, tail, owner.stored_bytes(), log.reclaimed, owner.missing)

    def _should_reclaim(self, log: QueueLog, first: int) -> bool:
        if log.reclaim_now or first - log.reclaimed >= RECLAIM_ITEMS:
            return True
        return log.owner.removed_bytes() - log.reclaimed_bytes >= RECLAIM_BYTES

    def _reclaim(self, batch: Batch, log: QueueLog, first: int) -> None:
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
            log.appended = NOTHING
            log.removed = []
            log.touched = log.state_changed = False
            log.recorded = 0  # what the disk says is not known: the next turn writes the state
            log.owner.undo_turn()
        self.after = []  # including what undoing has added
