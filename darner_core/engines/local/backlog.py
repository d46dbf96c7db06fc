"""What a queue holds: its ids, its log, and the window of items that are in memory.

Ids are given in order of arrival and never reused. At any time

    ids [next_id, tail) wait and were never handed out, but for `missing` of them, which have expired and are gone;
    `outstanding` holds, in order, the ids below next_id that are still stored: open, or given back and waiting again.

So the head of the queue is the lowest id given back, else next_id. `window` holds the items next_id, next_id + 1, ...
that are in memory, none of them missing; if it is `whole` it reaches to the tail, else the rest is on disk only.

No call here switches greenlets.
"""

import logging
from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop
from typing import TYPE_CHECKING, TypeVar

from darner_core import NAME
from darner_core.config.queues import BUILT_IN, QueueOptions
from darner_core.config.values import show_bytes
from darner_core.engines.local.journal import Journal, MemoryLog, QueueLog
from darner_core.engines.local.large_items import LargeItems
from darner_core.engines.local.reads import OpenRead
from darner_core.engines.local.window import ITEM_OVERHEAD_BYTES, WindowBudget
from darner_core.errors import DamagedError, StorageError
from darner_core.storage import records
from darner_core.storage.records import ITEM_KEY_BYTES, Item, QueueRecord
from darner_core.storage.storage import Batch

if TYPE_CHECKING:
    from darner_core.engines.local.message_queue import MessageQueue

log = logging.getLogger(NAME)

# One read-ahead: enough that the cost of positioning an iterator (4 us) vanishes, little enough to take < 1 ms.
FILL_ITEMS = 512
FILL_BYTES = 256 << 10

# More outstanding items than this are many: see `_thinned`, and `_drop_stale`.
MANY = 1000

# The window's budget is told of changes of this size and more.
ACCOUNT_STEP_BYTES = 4096

_Read = TypeVar("_Read", Item, tuple[int, list[Item]])

_NO_WINDOW: deque[Item] = deque()  # of queues that hold nothing in memory: an empty deque is 760 bytes. Never filled.


class Backlog:
    """The items of a queue. It has a log if it is `durable`, or in memory only; else it holds nothing."""

    __slots__ = (
        "name", "log", "budget", "options", "next_id", "tail", "missing", "outstanding", "returned", "window", "whole",
        "stale", "dead_first", "bytes_in", "bytes_out", "open_bytes", "window_bytes", "max_age_ms", "deleted", "damage",
        "first_tail", "cursors", "gap", "_large_items", "_before",
    )  # fmt: skip

    def __init__(self, name: bytes, budget: WindowBudget, options: QueueOptions = BUILT_IN) -> None:
        self.name = name
        self.budget = budget
        self.options = options
        self.log: QueueLog = None  # type: ignore[assignment]  # checked by `durable`, not by every put
        self.next_id = self.tail = records.FIRST_ID
        self.missing = 0
        self.gap = (0, 0)  # [begin, end) of ids that are all among the missing; perhaps the longest such
        self.outstanding: dict[int, OpenRead] = {}
        # A heap of the outstanding ids that were given back. Its first is always one; `stale` of the others are ids
        # that have left from the middle.
        self.returned: list[int] = []
        self.stale = 0
        self.dead_first = 0  # entries that have left `outstanding` at its beginning, and still take room there
        self.window = _NO_WINDOW
        self.window_bytes = 0  # as the budget knows it
        self.whole = True
        self.bytes_in = 0  # body bytes put, and what was stored at the start
        self.bytes_out = 0  # body bytes handed out; their difference waits
        self.open_bytes = 0
        self.max_age_ms = 0  # of every item; 0: for ever
        self.deleted = False
        self.damage = ""  # why its head cannot be read, if it cannot
        self.first_tail = self.tail  # tail when the server started
        self.cursors: dict[bytes, MessageQueue] | None = None  # by their names; None: it has none
        self._large_items: LargeItems | None = None  # made when the queue first meets one
        self._before = (0, 0, 0, 0, 0)

    # -- the log

    @property
    def durable(self) -> bool:
        return self.log is not None

    @property
    def is_child(self) -> bool:
        """Whether it is a fanout child: it gets a copy of all that is put into its parent."""
        return self.log is not None and self.log.record.kind == records.CHILD

    def attach_memory(self, journal: Journal, record: QueueRecord) -> None:
        """Give the queue a log of which nothing is written."""
        self.log = MemoryLog(journal, self, record)

    def touch(self) -> None:
        """Enter the turn: before every change."""
        self.log.touch()
        bytes_in = self.bytes_in
        self._before = (self.next_id, self.tail, bytes_in, bytes_in - self.bytes_out + self.open_bytes, self.missing)
        if self.window is _NO_WINDOW:
            self.window = deque()

    def first_id(self) -> int:
        for item_id in self.outstanding:
            return item_id
        return self.next_id

    def _thinned(self) -> dict[int, OpenRead]:
        """`outstanding`, whose first leaves it. A dictionary is only made smaller when it is filled, and to find its
        first passes over all that were before: 100,000 that leave in order would take seconds."""
        self.dead_first += 1
        if self.dead_first > len(self.outstanding):
            self.dead_first = 0
            self.outstanding = dict(self.outstanding)
        return self.outstanding

    # -- what was given back

    def set_returned(self) -> None:
        """Find anew what was given back."""
        self.returned = self.given_back()
        heapify(self.returned)
        self.stale = 0

    def given_back(self) -> list[int]:
        """The ids of what was given back and waits."""
        return [item_id for item_id, read in self.outstanding.items() if read.returned]

    def leave_returned(self, item_id: int) -> None:
        """An item that was given back waits no more, which `outstanding` says already."""
        if self.returned[0] == item_id:
            heappop(self.returned)
        else:
            self.stale += 1
        if self.stale:
            self._drop_stale()

    def _drop_stale(self) -> None:
        returned, outstanding = self.returned, self.outstanding
        while returned:
            read = outstanding.get(returned[0])
            if read is not None and read.returned:
                break
            heappop(returned)
            self.stale -= 1
        if self.stale > MANY + len(returned) // 2:
            self.set_returned()

    def next_returned(self, item_id: int) -> int:
        """The first id behind this one that was given back and waits, else `next_id`."""
        outstanding = self.outstanding
        end = min(item_id + 1 + len(self.returned), self.next_id)
        for near in range(item_id + 1, end):
            read = outstanding.get(near)
            if read is not None and read.returned:
                return near
        if end == self.next_id:
            return end
        return min((waits for waits in self.given_back() if waits >= end), default=self.next_id)

    def stored_bytes(self) -> int:
        return self.bytes_in - self.bytes_out + self.open_bytes

    def removed_bytes(self) -> int:
        return self.bytes_out - self.open_bytes

    def turn_written(self) -> None:
        held_bytes = 0
        if self.window:
            if not self.whole:
                return  # no more than when it was filled, or when it stopped reaching to the tail
            held_bytes = len(self.window) * ITEM_OVERHEAD_BYTES + self.bytes_in - self.bytes_out
        if abs(held_bytes - self.window_bytes) >= ACCOUNT_STEP_BYTES or not held_bytes:
            self._account(held_bytes)

    def _account(self, held_bytes: int) -> None:
        if held_bytes == self.window_bytes:
            return
        self.window_bytes = held_bytes
        self.budget.account(self, held_bytes)
        if held_bytes > self.budget.budget_bytes // 4:
            self.whole = False  # enough: what is put from here on is read from disk when its turn comes

    def undo_turn(self) -> None:
        next_id, self.tail, self.bytes_in, stored_bytes, self.missing = self._before
        self.gap = (0, 0)
        self.next_id = next_id
        self.outstanding = {i: read for i, read in sorted(self.outstanding.items()) if i < next_id}
        self.set_returned()
        self.open_bytes = sum(read.body_bytes for read in self.outstanding.values() if not read.returned)
        self.bytes_out = self.bytes_in + self.open_bytes - stored_bytes
        self.release_window()

    def recheck(self, batch: Batch) -> None:
        """After a failed write: nothing may be on disk behind what was written before, and the next turn writes the
        state as memory has it."""
        log = self.log
        number, family, _, _ = log.record
        begin, end = records.item_key(number, log.written), records.item_key(number + 1, records.STATE_ID)
        batch.delete_range(begin, end, log.journal.storage.handles[family])
        if not log.touched:
            self.touch()
        log.state_changed = True

    # -- what is in memory

    def _read(self, read: Callable[..., _Read], *arguments: int) -> _Read:
        """What `read` returns; the queue keeps in mind whether its head can be read, and says it in the log once."""
        try:
            found = read(*arguments)
        except StorageError as error:
            raise self.cannot_be_read(error) from error
        if self.damage:
            self.damage = ""
        return found

    def cannot_be_read(self, error: StorageError) -> StorageError:
        """What to answer whoever wants the head, which cannot be read because of `error`. The log says it once."""
        if not self.log.journal.storage.is_open:
            return error  # for a while nothing can be read, of whichever queue
        known, self.damage = self.damage, why_damaged(self.name, error)
        if self.damage != known:
            log.error("%s", self.damage)
        return DamagedError(self.damage)

    @property
    def head_id(self) -> int:
        return self.returned[0] if self.returned else self.next_id

    def _fill(self) -> None:
        """Read ahead, so that the window holds at least one item, if one waits. Not if one is in it already."""
        missing = self.missing
        if missing and self.gap[0] <= self.next_id < self.gap[1]:  # to look for the end of it takes 20 ms for a million
            self.missing = missing = missing - (self.gap[1] - self.next_id)
            self.next_id = self.gap[1]
        try:
            first, items = self.log.read(self.next_id, FILL_ITEMS, FILL_BYTES, missing)
        except StorageError:  # what lies before the damage is served
            first, items = self._read(self.log.read, self.next_id, 1, FILL_BYTES, missing)
        if missing:
            self.missing -= first - self.next_id
            self.next_id = first
        self.window = deque(map(self.aged, items) if self.max_age_ms else items)
        self.whole = self.next_id + len(items) == self.tail
        self._account(sum(len(item[0]) for item in items) + len(items) * ITEM_OVERHEAD_BYTES)

    def aged(self, item: Item) -> Item:
        """`item`, expiring when it is too old, if not before."""
        body, flags, expires_at_ms, added_at_ms = item
        until_ms = added_at_ms + self.max_age_ms if self.max_age_ms else 0
        if not until_ms or 0 < expires_at_ms <= until_ms:
            return item
        return body, flags, until_ms, added_at_ms

    def release_window(self) -> None:
        """Drop the window, and tell the budget."""
        self.drop_window()
        self.budget.account(self, 0)

    def release_if_empty(self) -> None:
        """Give up the memory of an empty window."""
        if not self.window and not self.log.touched:
            self.window = _NO_WINDOW

    def drop_window(self) -> None:
        """Keep nothing in memory. What the window held is on disk or in this turn's log."""
        self.window = _NO_WINDOW if not (self.log and self.log.touched) else deque()
        self.window_bytes = 0
        self.whole = self.next_id == self.tail

    @property
    def large_items(self) -> LargeItems:
        if self._large_items is None:
            is_durable = not isinstance(self.log, MemoryLog)
            self._large_items = LargeItems(self.log.journal, self.log.record.number, is_durable, self._blobs_of_cursors)
        return self._large_items

    @property
    def may_have_chunks(self) -> bool:
        """Whether chunks of large items may be on disk; False is certain."""
        try:
            return self.large_items.had_any
        except StorageError:
            return True

    @property
    def is_receiving(self) -> bool:
        """Whether a large item is on its way into the queue."""
        return self._large_items is not None and self._large_items.is_receiving

    def _blobs_of_cursors(self) -> set[int]:
        """The large items that are open or were given back at its cursors."""
        cursors = self.cursors.values() if self.cursors is not None else ()
        return {read.blob for cursor in cursors for read in cursor.outstanding.values() if read.blob}

    # -- figures

    @property
    def waiting_items(self) -> int:
        return self.tail - self.next_id - self.missing + len(self.returned) - self.stale

    def head_added_at_ms(self) -> int:
        """When the head was put, in ms since 1970; 0 if nothing waits. Raises StorageError."""
        if not self.waiting_items:
            return 0
        if self.returned:
            return self.log.read_one(self.returned[0])[3]
        if self.window:
            return self.window[0][3]
        return self.log.read(self.next_id, 1, 1, self.missing)[1][0][3]

    @property
    def waiting_bytes(self) -> int:
        return self.bytes_in - self.bytes_out

    @property
    def open_reads(self) -> int:
        return len(self.outstanding) - len(self.returned) + self.stale

    @property
    def total_items(self) -> int:
        """Items put since the server started."""
        return self.tail - self.first_tail

    @property
    def log_bytes(self) -> int:
        """Bytes of this queue's records, those of removed items included until they have been range-deleted."""
        record_bytes = records.ITEM_HEADER_BYTES + ITEM_KEY_BYTES
        count = self.tail - self.log.reclaimed
        return count * record_bytes + self.bytes_in - self.log.reclaimed_bytes


def why_damaged(name: bytes, why: object) -> str:
    return f"queue {show_bytes(name)} cannot be read: {why}; {records.REPAIR_ADVICE}"
