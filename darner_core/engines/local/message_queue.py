"""One queue: the rules of FIFO, and open reads.

Ids are given in order of arrival and never reused. At any time

    ids [next_id, tail) wait and were never handed out, except `missing` of them, which have expired and are gone;
    `outstanding` holds, in order, the ids below next_id that are still stored: open, or given back and waiting again.

So the head of the queue is the lowest id given back, else next_id. Everything around these rules is in functions over
a queue, some of which are also its methods: `reads` for what is outstanding, `window` for what is in memory, `expiry`
for what leaves without being handed out, `recovery` for what is on disk. A queue knows neither clients nor other
queues.

No call here switches greenlets (a client that is handed an item runs later), so no call needs a lock.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from heapq import heappush
from typing import TYPE_CHECKING, ClassVar

from darner_core.config.queues import QueueOptions
from darner_core.engines.contract import Holder
from darner_core.engines.large_items import LARGE, Large
from darner_core.engines.local import damaged_queue, expiry, lines, reads, recovery, window
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.large_items import LargeItems, blobs_of_cursors
from darner_core.engines.local.queue_log import MemoryLog, QueueLog
from darner_core.engines.local.reads import OpenRead
from darner_core.engines.local.window import NO_WINDOW, WindowBudget
from darner_core.storage import records
from darner_core.storage.records import Blob, Expiry, Item, QueueRecord, State
from darner_core.waiters import WaitingLine

if TYPE_CHECKING:
    from darner_core.engines.local.cursor import Cursor


class MessageQueue:
    """A named FIFO of items, on disk or in memory only. `contract.Queue` says what its methods promise."""

    __slots__ = (
        "name", "log", "budget", "options", "next_id", "tail", "missing", "gap", "outstanding", "returned", "stale",
        "dead_first", "window", "window_bytes", "whole", "bytes_in", "bytes_out", "open_bytes", "max_age_ms", "deleted",
        "damage", "first_tail", "cursors", "line", "governed", "polled", "half_swept", "expire_to", "move_large",
        "expired_items", "lost_expired", "discarded", "total_flushes", "transactions", "canceled_transactions",
        "late_closes", "before", "end_gap", "_large_items",
    )  # fmt: skip

    unreadable: ClassVar = False  # see `DamagedQueue`
    traced: ClassVar = False  # True in a subclass that tells what happens
    # What a JobQueue has: failures that count, items aside of the line, a pause.
    counts_failures: ClassVar = False
    aside_items: ClassVar = 0
    delayed_items: ClassVar = 0
    takes_nothing: ClassVar = False

    def __init__(
        self,
        name: bytes,
        budget: WindowBudget,
        options: QueueOptions,
        journal: Journal,
        record: QueueRecord,
        state: State | None,
    ) -> None:
        """`state` is what the disk says of the queue; None: it is in memory only. Raises StorageError."""
        self.name = name
        self.budget = budget
        self.options = options
        self.next_id = self.tail = records.FIRST_ID
        self.missing = 0
        self.gap = (0, 0)  # [begin, end) of a run of missing ids, not always the longest
        self.end_gap = (0, 0)  # of the run at the end of the line when the last item was looked for
        self.outstanding: dict[int, OpenRead] = {}
        self.returned: list[int] = []  # with `stale`: see `reads`
        self.stale = 0
        self.dead_first = 0  # entries that have left `outstanding` at its beginning, and still take room there
        self.window = NO_WINDOW  # the items next_id, next_id + 1, ... that are in memory
        self.window_bytes = 0  # as the budget knows it
        self.whole = True  # the window reaches to the tail
        self.bytes_in = 0  # body bytes put since the start, and those stored before
        self.bytes_out = 0  # body bytes handed out; the difference waits
        self.open_bytes = 0
        self.max_age_ms = options.max_age_s * 1000  # of every item; 0: no limit
        self.deleted = False
        self.damage = ""  # why the head cannot be read; "" if it can
        self.first_tail = self.tail  # the tail when the server started
        self.cursors: dict[bytes, Cursor] | None = None  # by their names; None: it has none
        self.line: WaitingLine | None = None  # of the clients that wait; None while nobody waits here or at a cursor
        self.governed = False  # every put has to go through `routing`
        self.polled = False  # an item has been asked for in vain since the sweeper last looked
        self.half_swept = False  # there may be more expired items at the head
        # Called with an item that expires, and with a large one, which takes several turns.
        self.expire_to: Callable[[MessageQueue, Item], None] | None = None
        self.move_large: Callable[[OpenRead], None] | None = None
        self.expired_items = 0
        self.lost_expired = 0  # expired items that could not go where they had to
        self.discarded = 0
        self.total_flushes = 0
        self.transactions = 0  # reads that clients have opened
        self.canceled_transactions = 0  # those of them that were given back
        self.late_closes = 0  # closes of items that had been given back, since the log last mentioned them
        self.before = (0, 0, 0, 0, 0)  # the numbers at the beginning of the turn: see `enter_turn`
        self._large_items: LargeItems | None = None  # made when the queue first meets one
        if state is None:
            self.log: QueueLog = MemoryLog(journal, self, record)
        else:
            self.log = QueueLog(journal, self, record, state)
            recovery.read_back(self, state)

    @property
    def is_child(self) -> bool:
        return bool(self.log.record.kind & records.CHILD)

    # -- putting

    def put(self, body: bytes | Blob, flags: int, expires_at_ms: int) -> None:
        log = self.log
        if not log.touched:
            self.enter_turn()
        item = (body, flags, expires_at_ms, log.journal.now_ms)
        log.appended.append(item)
        if self.whole:
            self.window.append(item)
        self.tail += 1
        self.bytes_in += len(body)
        if self.line is not None:
            lines.serve(self)

    def put_until(self, body: bytes | Blob, flags: int, expires_at_ms: int) -> None:
        """As `put`, for an item that may expire (0: it does not) or a queue whose items have a maximum age."""
        log = self.log
        if not log.touched:
            self.enter_turn()
        item = (body, flags, expires_at_ms, log.journal.now_ms)
        log.appended.append(item)
        if self.whole:
            self.window.append(self.aged(item))
        if expires_at_ms:
            log.journal.expiring.append((log, expires_at_ms, self.tail))
        self.tail += 1
        self.bytes_in += len(body)
        if self.line is not None:
            lines.serve(self)

    def aged(self, item: Item) -> Item:
        """`item`, with the time at which it will be too old as its expiry, unless it expires before."""
        if not self.max_age_ms:
            return item
        body, flags, expires_at_ms, added_at_ms = item
        until_ms = added_at_ms + self.max_age_ms
        if 0 < expires_at_ms <= until_ms:
            return item
        return body, flags, until_ms, added_at_ms

    # -- taking

    def take(self) -> Item | Large | None:
        waiting = self.window  # not `window`, a module's name: CPython 3.11 makes calls on such names slower
        if self.returned or not waiting:
            return self._take_slowly()
        body, _, expires_at_ms, _ = waiting[0]
        log = self.log
        if (expires_at_ms and expires_at_ms < log.journal.time_ms()) or body.__class__ is Blob:
            return self._take_slowly()
        if not log.touched:
            self.enter_turn()
        item_id = self.next_id
        self.next_id = item_id + 1
        if self.outstanding:
            log.removed.append(item_id)
        log.state_changed = True
        self.bytes_out += len(body)
        return waiting.popleft()

    def _take_slowly(self) -> Item | Large | None:
        """The plain form of `take`, which has the most frequent case written out."""
        return self._take_head() if self.has_head() else None

    def _take_head(self) -> Item | Large:
        item = self._head()
        if isinstance(item[0], Blob):
            return LARGE
        expiry.remove_first(self)
        return item

    def peek(self) -> Item | None:
        return self._head() if self.has_head() else None

    def _head(self) -> Item:
        return damaged_queue.reading(self, self.log.read_one, self.returned[0]) if self.returned else self.window[0]

    def has_head(self) -> bool:
        """Whether an item can be handed out. It is in the window if it was not given back. Raises StorageError."""
        if not self.returned and self.next_id == self.tail:
            self.whole = self.polled = True
            self.half_swept = False
            return False
        if not expiry.drop_expired(self):
            return False
        if self.returned or self.window:
            return True
        self.polled = True
        return False

    # -- open reads

    def open(self) -> OpenRead | None:
        """Writes nothing: after a crash the item is simply still there."""
        waiting = self.window  # not `window`, a module's name: CPython 3.11 makes calls on such names slower
        if self.returned or not waiting:
            return self._open_slowly()
        log = self.log
        item = waiting[0]
        body, _, expires_at_ms, _ = item
        if expires_at_ms and expires_at_ms < log.journal.time_ms():
            return self._open_slowly()
        if not log.touched:
            self.enter_turn()
        item_id = self.next_id
        self.next_id = item_id + 1
        waiting.popleft()
        body_bytes = len(body)
        read = OpenRead(self, item_id, item, body_bytes, body.blob if body.__class__ is Blob else 0, expires_at_ms)
        self.outstanding[item_id] = read
        self.bytes_out += body_bytes
        self.open_bytes += body_bytes
        log.journal.undo.append((_take_back_open, self, read, False))
        return read

    def _open_slowly(self) -> OpenRead | None:
        """The plain form of `open`, which has the most frequent case written out."""
        return self.hand_out(self.returned[0] if self.returned else 0) if self.has_head() else None

    def hand_out(self, returned_id: int = 0) -> OpenRead:
        """Open the item with this id, which was given back, or for 0 the first of the window. It may have expired."""
        if not self.log.touched:
            self.enter_turn()
        if returned_id:
            read = reads.hand_out_again(self, returned_id)
        else:
            item = self.window.popleft()
            read = reads.hand_out(self, self.next_id, item, item[2])
            self.next_id += 1
        self.bytes_out += read.body_bytes
        self.open_bytes += read.body_bytes
        self.log.journal.undo.append((_take_back_open, self, read, False))
        return read

    holds = reads.holds
    item_of = reads.item_of

    def close(self, read: OpenRead, holder: Holder | None = None) -> None:
        log, outstanding = self.log, self.outstanding
        item_id = read.id
        if read.returned or outstanding.get(item_id) is not read or self.deleted:  # as in `holds`
            if read.returned and not self.deleted:
                self.late_closes += 1
            if holder is not None:
                log.journal.undo.append((holder.unclose, read))  # if the turn is undone, so is the delete
            return
        large_items = self.large_items if read.blob else None  # may raise: before anything is changed
        if not log.touched:
            self.enter_turn()
        for first_id in outstanding:
            if first_id != item_id:
                log.removed.append(item_id)
            elif len(outstanding) > reads.MANY:
                outstanding = reads.thinned(self)
            break
        del outstanding[item_id]
        log.state_changed = True
        self.open_bytes -= read.body_bytes
        if large_items is not None:
            large_items.remove(read.blob, read.blob + 1, read.body_bytes)
        log.journal.undo.append((self.unclose, read, holder))

    unclose = reads.unclose

    def give_back(self, read: OpenRead, wake: bool = True) -> None:
        if read.returned or self.outstanding.get(read.id) is not read:
            return
        # An item of a deleted queue is given back all the same, because the delete may be undone. But the log of a
        # deleted queue must not write any more.
        if not self.log.touched and not self.deleted:
            self.enter_turn()
        read.returned = True
        read.item = None
        self.canceled_transactions += read.counted
        heappush(self.returned, read.id)
        self.bytes_out -= read.body_bytes
        self.open_bytes -= read.body_bytes
        if read.expires_at_ms and read.expires_at_ms <= self.log.journal.swept_ms:
            self.log.journal.again.append(Expiry(read.expires_at_ms, self.log.record.number, read.id))
        if wake and self.line is not None:
            lines.serve(self)

    def take_back(self, read: OpenRead) -> None:
        if reads.reopen(self, read):
            self.bytes_out += read.body_bytes
            self.open_bytes += read.body_bytes

    # -- leaving without being handed out

    drop_expired = expiry.drop_expired
    move_expired = expiry.move_expired
    discard_oldest = expiry.discard_oldest
    flush = expiry.flush

    # -- the turn

    def enter_turn(self) -> None:
        """To be called before the first change of a turn."""
        self.log.enter_turn()
        bytes_in = self.bytes_in
        self.before = (self.next_id, self.tail, bytes_in, bytes_in - self.bytes_out + self.open_bytes, self.missing)
        if self.window is NO_WINDOW:
            self.window = deque()

    turn_written = window.look_again
    undo_turn = recovery.undo_turn

    def drop_window(self) -> None:
        """Keep nothing in memory. What the window held is on disk or in this turn's log."""
        self.window = deque() if self.log.touched else NO_WINDOW
        self.window_bytes = 0
        self.whole = self.next_id == self.tail

    # -- the disk

    cannot_be_read = damaged_queue.cannot_be_read

    @property
    def large_items(self) -> LargeItems:
        if self._large_items is None:
            self._large_items = LargeItems(
                self.log.journal, self.log.record.number, self.log.durable, partial(blobs_of_cursors, self)
            )
        return self._large_items

    @property
    def is_receiving(self) -> bool:
        """Whether a large item is on its way into the queue."""
        return self._large_items is not None and self._large_items.is_receiving

    # -- figures

    @property
    def created_at_ms(self) -> int:
        return self.log.record.created_at_ms

    @property
    def durable(self) -> bool:
        return self.log.durable

    @property
    def opener(self) -> "MessageQueue":
        return self

    @property
    def line_head_id(self) -> int:
        return self.returned[0] if self.returned else self.next_id

    @property
    def head_id(self) -> int:
        """As `line_head_id`, unless something that lies aside of the line comes first."""
        return self.returned[0] if self.returned else self.next_id

    @property
    def next_put_id(self) -> int:
        """What `put` will give its item."""
        return self.tail

    def first_id(self) -> int:
        """Every id below it is gone."""
        for item_id in self.outstanding:
            return item_id
        return self.next_id

    @property
    def waiting_items(self) -> int:
        return self.tail - self.next_id - self.missing + len(self.returned) - self.stale

    @property
    def waiting_bytes(self) -> int:
        return self.bytes_in - self.bytes_out

    open_reads = property(reads.open_reads)

    stored_items = property(reads.stored_items)

    outstanding_blobs = reads.blobs

    def kept(self) -> tuple[int, int]:
        """(items, bytes of their bodies): what would stay if all that waits were discarded."""
        return reads.open_reads(self), self.open_bytes

    def all_bytes(self) -> int:
        """Body bytes of all items, also of those that do not stand in the line."""
        return self.bytes_in - self.bytes_out + self.open_bytes

    def keeps_aside(self, item_id: int) -> bool:
        """Whether the item lies aside of the line."""
        return False

    @property
    def total_items(self) -> int:
        return self.tail - self.first_tail

    def stored_bytes(self) -> int:
        """Body bytes of all items that wait or are open."""
        return self.bytes_in - self.bytes_out + self.open_bytes

    def removed_bytes(self) -> int:
        """Body bytes of all items that are gone, since the server started."""
        return self.bytes_out - self.open_bytes

    @property
    def log_bytes(self) -> int:
        """Bytes of this queue's records. Those of removed items count until they have been range-deleted."""
        record_bytes = records.ITEM_HEADER_BYTES + records.ITEM_KEY_BYTES
        return (self.tail - self.log.reclaimed) * record_bytes + self.bytes_in - self.log.reclaimed_bytes

    def head_added_at_ms(self) -> int:
        """When the head was put, in ms since 1970; 0 if nothing waits. Raises StorageError."""
        if not self.waiting_items:
            return 0
        if self.returned:
            return self.log.read_one(self.returned[0])[3]
        if self.window:
            return self.window[0][3]
        return self.log.read(self.next_id, 1, 1, self.missing)[1][0][3]


# What undoes `open`. It is bound to no class, because the queue's class may change before the turn ends; see `tracing`.
_take_back_open = MessageQueue.give_back
