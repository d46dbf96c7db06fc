"""One queue: the rules of FIFO, open reads, and the window of items that are in memory.

Ids are given in order of arrival and never reused. At any time

    ids [next_id, tail) wait and were never handed out, but for `missing` of them, which have expired and are gone;
    `outstanding` holds, in order, the ids below next_id that are still stored: open, or given back and waiting again.

So the head of the queue is the lowest id given back, else next_id. `window` holds the items next_id, next_id + 1, ...
that are in memory, none of them missing; if it is `whole` it reaches to the tail, else the rest is on disk only.

No call here switches greenlets (handing an item to a waiter lets its greenlet run later), so no call needs a lock.
"""

import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from heapq import heapify, heappop, heappush
from typing import Any, Final, NoReturn, Protocol, TypeVar

from darner_core import NAME, records
from darner_core.errors import DamagedError, StorageError
from darner_core.journal import Journal, MemoryLog, QueueLog
from darner_core.large_items import LargeItems
from darner_core.queue_options import BUILT_IN, QueueOptions
from darner_core.records import ITEM_KEY_BYTES, Blob, Expiry, Item, QueueRecord, State
from darner_core.storage import Batch
from darner_core.waiters import Waiter, WaitingLine
from darner_core.window import ITEM_OVERHEAD_BYTES, WindowBudget

log = logging.getLogger(NAME)

# One read-ahead: enough that the cost of positioning an iterator (4 us) vanishes, little enough to take < 1 ms.
FILL_ITEMS = 512
FILL_BYTES = 256 << 10

# So many expired items are removed in one go, in about 2 ms; whoever asks meanwhile finds nothing.
EXPIRED_AT_ONCE = 1000

# The window's budget is told of changes of this size and more.
ACCOUNT_STEP_BYTES = 4096

_Read = TypeVar("_Read", Item, tuple[int, list[Item]])

_NO_WINDOW: deque[Item] = deque()  # of queues that hold nothing in memory: an empty deque is 760 bytes. Never filled.


class OpenRead:
    """An item that somebody has been handed and has not confirmed. One object for each time it is handed out."""

    __slots__ = ("queue", "id", "body_bytes", "blob", "returned", "item", "expires_at_ms", "counted")

    def __init__(
        self, queue: "MessageQueue", item_id: int, item: Item | None, body_bytes: int, blob: int, expires_at_ms: int
    ) -> None:
        self.queue = queue
        self.id = item_id
        self.item = item  # until it has been sent; see `MessageQueue.item_of`
        self.body_bytes = body_bytes
        self.blob = blob  # number of the large item; 0: it is not large
        self.expires_at_ms = expires_at_ms  # 0: never. What is open does not expire; what is given back may
        self.returned = False  # given back: it waits again, ahead of all that was never handed out
        self.counted = False  # among its queue's `transactions`

    def count(self) -> None:
        """A client has it until it confirms. What is open only while it is being handed over is not counted."""
        self.counted = True
        self.queue.transactions += 1

    def uncount(self) -> None:
        """Undo `count`."""
        if self.counted:
            self.counted = False
            self.queue.transactions -= 1


# (queue, item): the item has expired, and is about to be removed.
Bury = Callable[["MessageQueue", Item], None]


class Holder(Protocol):
    """The session that holds an open read."""

    def unclose(self, read: OpenRead) -> None:
        """The turn in which it closed the read could not be written: it is open again."""


class Large:
    """What `take` answers when the head is a large item: it has to be opened, and closed when it has been sent."""


LARGE: Final = Large()


class MessageQueue:
    """A named FIFO of items.

    `durable` queues have a log. One without exists because somebody waits for it: it holds nothing, and becomes
    durable by the first put.
    """

    __slots__ = (
        "name", "log", "line", "budget", "next_id", "tail", "outstanding", "returned", "window", "whole",
        "bytes_in", "bytes_out", "open_bytes", "window_bytes", "_large_items", "deleted", "missing", "cursors",
        "first_tail", "total_flushes", "transactions", "canceled_transactions", "_before", "damage", "options",
        "governed", "max_age_ms", "expired_items", "lost_expired", "discarded", "expire_to", "move_large",
        "half_swept",
    )  # fmt: skip

    def __init__(self, name: bytes, budget: WindowBudget, options: QueueOptions = BUILT_IN) -> None:
        self.name = name
        self.budget = budget
        self.options = options
        self.log: QueueLog = None  # type: ignore[assignment]  # checked by `durable`, not by every put
        self.line: WaitingLine | None = None  # None while nobody waits
        self.next_id = self.tail = records.FIRST_ID
        self.outstanding: dict[int, OpenRead] = {}
        self.returned: list[int] = []  # a heap of the outstanding ids that were given back
        self.window = _NO_WINDOW
        self.window_bytes = 0  # as the budget knows it
        self.whole = True
        self.bytes_in = 0  # body bytes put, and what was stored at the start
        self.bytes_out = 0  # body bytes handed out; their difference waits
        self.open_bytes = 0
        self._large_items: LargeItems | None = None  # made when the queue first meets one
        self.deleted = False
        self.first_tail = self.tail  # tail when the server started
        self.total_flushes = 0
        self.transactions = 0  # reads that clients have opened
        self.canceled_transactions = 0  # of these, given back
        self._before = (0, 0, 0, 0, 0)
        self.damage = ""  # why its head cannot be read, if it cannot
        self.cursors: dict[bytes, MessageQueue] | None = None  # by their names; None: it has none
        self.missing = 0
        self.max_age_ms = 0  # of every item; 0: for ever. See `set_max_age`
        self.expired_items = 0
        self.lost_expired = 0  # of them, those that could not go where they had to
        self.discarded = 0
        self.governed = False  # a put has to be looked at more closely: see `delivery`
        self.expire_to: Bury | None = None  # where expired items go
        self.move_large: Callable[[OpenRead], None] | None = None  # and large ones, which take several turns
        self.half_swept = False  # there may be more expired items at the head

    # -- the log

    @property
    def durable(self) -> bool:
        return self.log is not None

    @property
    def is_child(self) -> bool:
        """Whether it is a fanout child: it gets a copy of all that is put into its parent."""
        return self.log is not None and self.log.record.kind == records.CHILD

    def attach(self, journal: Journal, record: QueueRecord, state: State) -> None:
        """Give the queue its log, and read back what the disk says of it. Raises StorageError."""
        self.log = log = QueueLog(journal, self, record, state)
        self.next_id, self.tail, self.missing = state.next, state.tail, state.missing
        stored_bytes = state.bytes
        if state.first < state.next:
            for item_id, item in journal.storage.items(record, state.first, state.next):
                body, _, expires_at_ms, _ = self.aged(item) if self.max_age_ms else item
                blob = body.blob if isinstance(body, Blob) else 0
                read = OpenRead(self, item_id, None, len(body), blob, expires_at_ms)
                read.returned = True
                self.outstanding[item_id] = read
                self.returned.append(item_id)
        for item_id, item in journal.storage.items(record, state.tail, records.MAX_ID):
            stored_bytes += len(item[0])
            self.tail = item_id + 1
        log.written = self.first_tail = self.tail
        self.bytes_in = stored_bytes
        self.whole = self.next_id == self.tail

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
        self.next_id = next_id
        self.outstanding = {i: read for i, read in sorted(self.outstanding.items()) if i < next_id}
        self.returned = [i for i, read in self.outstanding.items() if read.returned]
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

    # -- putting

    def put(self, body: bytes | Blob, flags: int, expires_at_ms: int) -> None:
        """Append an item, and hand it on if somebody waits."""
        log = self.log
        if not log.touched:
            self.touch()
        item = (body, flags, expires_at_ms, log.journal.now_ms)
        log.appended.append(item)
        if self.whole:
            self.window.append(item)
        self.tail += 1
        self.bytes_in += len(body)
        if self.line is not None:
            self.serve_line()

    def put_until(self, body: bytes | Blob, flags: int, expires_at_ms: int) -> None:
        """The same for an item that expires then, 0: never, or for a queue whose items have a maximum age."""
        log = self.log
        if not log.touched:
            self.touch()
        item = (body, flags, expires_at_ms, log.journal.now_ms)
        log.appended.append(item)
        if self.whole:
            self.window.append(self.aged(item) if self.max_age_ms else item)
        if expires_at_ms:
            log.journal.expiring.append(Expiry(expires_at_ms, log.record.number, self.tail))
        self.tail += 1
        self.bytes_in += len(body)
        if self.line is not None:
            self.serve_line()

    # -- expiring

    def set_max_age(self, max_age_ms: int) -> None:
        """No item gets older than that, those that are there included; 0: each lives as long as its own expiry says."""
        if max_age_ms != self.max_age_ms:
            self.max_age_ms = max_age_ms
            self.release_window()  # what is read again has the new age
            for place in (self, *(self.cursors or {}).values()):
                for read in place.outstanding.values():
                    with suppress(StorageError):  # who wants the item is told
                        read.expires_at_ms = self.aged(place.log.read_one(read.id))[2]

    def aged(self, item: Item) -> Item:
        """`item`, expiring when it is too old, if not before."""
        body, flags, expires_at_ms, added_at_ms = item
        until_ms = added_at_ms + self.max_age_ms if self.max_age_ms else 0
        if not until_ms or 0 < expires_at_ms <= until_ms:
            return item
        return body, flags, until_ms, added_at_ms

    def drop_expired(self, most: int = EXPIRED_AT_ONCE) -> bool:
        """Remove the expired items at the head, up to so many; False: there may be more. Raises StorageError."""
        now_ms = self.log.journal.time_ms()
        self.half_swept = False
        until = self.expired_items + most
        while self.expired_items < until:
            if self.returned:
                read = self.outstanding[self.returned[0]]
                if not 0 < read.expires_at_ms < now_ms:
                    return True
                self._expire_returned(read)
                continue
            if not self.window:
                if self.next_id < self.tail:
                    self._fill()
                if not self.window:
                    return True
            item = self.window[0]
            if not 0 < item[2] < now_ms:
                return True
            if self.move_large is not None and isinstance(item[0], Blob):
                self._open_to_move()
            elif self.expire_to is not None or self.outstanding or isinstance(item[0], Blob):
                self._bury(self.next_id, item)
                self._remove_head(item)
            else:
                self._drop_run(now_ms, until - self.expired_items)
        self.half_swept = True
        return False

    def _drop_run(self, now_ms: int, most: int) -> None:
        """The same for those at the head of the window that need nothing else: a fifth of the time."""
        if not self.log.touched:
            self.touch()
        window = self.window
        dropped = dropped_bytes = 0
        while window and dropped < most:
            body, _, expires_at_ms, _ = window[0]
            if not 0 < expires_at_ms < now_ms or isinstance(body, Blob):
                break
            window.popleft()
            dropped += 1
            dropped_bytes += len(body)
        self.next_id += dropped
        self.bytes_out += dropped_bytes
        self.log.state_changed = True
        self.expired_items += dropped
        self.log.journal.undo.append((self._unbury, dropped))

    def expire(self, expiry: Expiry) -> bool:
        """An item's time has come: remove it, wherever it waits. False: it is open, so it is to be looked at again.
        Raises StorageError."""
        item_id = expiry.id
        if item_id < self.next_id:
            read = self.outstanding.get(item_id)
            if read is None or not 0 < read.expires_at_ms <= expiry.expires_at_ms:
                return True  # it is gone, or another queue has had the number
            if read.returned:
                if self.move_large is not None and read.blob:
                    return self._expire_head()
                self._expire_returned(read)
            return read.returned
        if item_id >= self.tail:
            return True
        item = self.log.find(item_id)
        if item is None or item[2] != expiry.expires_at_ms:
            return True  # another queue has had the number, or an earlier sweep the item
        if self.move_large is not None and isinstance(item[0], Blob):
            return self._expire_head()
        self._bury(item_id, item)
        if item_id == self.next_id:
            self._remove_head(item)
        else:
            self._remove_waiting(item_id, item)
        return True

    def _expire_head(self) -> bool:
        """What is to expire is large and has to be moved, which it is when it is the head. False: look at it again."""
        self.drop_expired(1)
        return False

    def _bury(self, item_id: int, item: Item) -> None:
        """An item expires: count it, and let it go where it has to go."""
        self.expired_items += 1
        self.log.journal.undo.append((self._unbury,))
        if self.expire_to is not None:
            self.expire_to(self, item)

    def _unbury(self, count: int = 1) -> None:
        self.expired_items -= count

    def _open_to_move(self) -> None:
        """The head has expired, and is large: it is open while it is copied to where it goes."""
        read = self._hand_out()
        if self.move_large is not None:
            self.move_large(read)

    def finish_expired(self, read: OpenRead) -> None:
        """What `move_large` was given is where it goes, or lost. Raises StorageError."""
        if self.holds(read):
            self.close(read)
            self.expired_items += 1
            self.log.journal.undo.append((self._unbury,))

    def _expire_returned(self, read: OpenRead) -> None:
        if self.move_large is not None and read.blob:
            self._open_to_move()
            return
        self._bury(read.id, self._read(self.log.read_one, read.id))
        self._remove_returned(read)

    def _remove_head(self, item: Item) -> None:
        """Remove the item `next_id`, which is not handed to anybody."""
        self._enter_to_remove(item[0])
        if self.outstanding:
            self.log.removed.append(self.next_id)
        self.next_id += 1
        if self.window:
            self.window.popleft()

    def _remove_waiting(self, item_id: int, item: Item) -> None:
        """Remove an item behind `next_id`."""
        self._enter_to_remove(item[0])
        self.log.removed.append(item_id)
        self.missing += 1
        in_memory = item_id - self.next_id
        if in_memory < len(self.window):
            while len(self.window) > in_memory:
                self.window.pop()
        self.whole = False

    def _enter_to_remove(self, body: bytes | Blob) -> None:
        log = self.log
        if not log.touched:
            self.touch()
        log.state_changed = True
        self.bytes_out += len(body)
        if isinstance(body, Blob):
            self.large_items.remove(body.blob, body.blob + 1, len(body))

    def _remove_returned(self, read: OpenRead) -> None:
        log = self.log
        large_items = self.large_items if read.blob else None
        if not log.touched:
            self.touch()
        if read.id != self.first_id():
            log.removed.append(read.id)
        log.state_changed = True
        self.returned.remove(read.id)
        heapify(self.returned)
        del self.outstanding[read.id]
        self.bytes_out += read.body_bytes
        if large_items is not None:
            large_items.remove(read.blob, read.blob + 1, read.body_bytes)
        log.journal.undo.append((self._restore_returned, read))

    def _restore_returned(self, read: OpenRead) -> None:
        self.outstanding[read.id] = read

    def discard_oldest(self) -> bool:
        """Remove the item that has waited longest; False: none waits. Raises StorageError."""
        if self.returned:
            self._remove_returned(self.outstanding[self.returned[0]])
        else:
            if not self.window and self.next_id < self.tail:
                self._fill()
            if not self.window:
                return False
            self._remove_head(self.window[0])
        self.discarded += 1
        self.log.journal.undo.append((self._undiscard,))
        return True

    def _undiscard(self) -> None:
        self.discarded -= 1

    # -- taking

    def take(self) -> Item | Large | None:
        """Remove the head and return it; LARGE, and nothing is removed, if it is a large item; None: empty.

        Raises StorageError if the head cannot be read.
        """
        window = self.window
        if self.returned or not window:
            return self._take_slowly()
        body, _, expires_at_ms, _ = window[0]
        log = self.log
        if expires_at_ms or body.__class__ is Blob:
            if 0 < expires_at_ms < log.journal.time_ms():
                return self.take() if self.drop_expired() else None
            if body.__class__ is Blob:
                return LARGE
        if not log.touched:
            self.touch()
        item_id = self.next_id
        self.next_id = item_id + 1
        if self.outstanding:
            log.removed.append(item_id)
        log.state_changed = True
        self.bytes_out += len(body)
        return window.popleft()

    def _take_slowly(self) -> Item | Large | None:
        if not self.returned:
            if self.next_id == self.tail:
                self.whole = True
                return None
            self._fill()
            return self.take()
        if self.outstanding[self.returned[0]].expires_at_ms and not self.drop_expired():
            return None
        if not self.returned:
            return self.take()
        item = self._read(self.log.read_one, self.returned[0])
        if isinstance(item[0], Blob):
            return LARGE
        read = self.open()
        assert read is not None
        self.close(read)
        return item

    def peek(self) -> Item | None:
        """The head, which stays. Raises StorageError."""
        if self.log is None or not self.drop_expired():
            return None
        if self.returned:
            return self._read(self.log.read_one, self.returned[0])
        return self.window[0] if self.window else None

    def _read(self, read: Callable[..., _Read], *arguments: int) -> _Read:
        """What `read` returns; the queue keeps in mind whether its head can be read, and says it in the log once."""
        try:
            found = read(*arguments)
        except StorageError as error:
            raise self.cannot_be_read(error) from error
        if self.damage:
            self.damage = ""
        return found

    def cannot_be_read(self, error: StorageError) -> DamagedError:
        """What to answer whoever wants the head, which cannot be read because of `error`. The log says it once."""
        known, self.damage = self.damage, _why_damaged(self.name, error)
        if self.damage != known:
            log.error("%s", self.damage)
        return DamagedError(self.damage)

    @property
    def head_id(self) -> int:
        return self.returned[0] if self.returned else self.next_id

    def _fill(self) -> None:
        """Read ahead, so that the window holds at least one item, if one waits. Not if one is in it already."""
        missing = self.missing
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

    # -- open reads

    def open(self) -> OpenRead | None:
        """Hand out the head until it is closed or given back; None: empty. Raises StorageError.

        Writes nothing: after a crash the item is simply still there.
        """
        window = self.window
        if self.returned or not window:
            return self._open_slowly()
        log = self.log
        item = window[0]
        body, _, expires_at_ms, _ = item
        if expires_at_ms and expires_at_ms < log.journal.time_ms():
            return self.open() if self.drop_expired() else None
        # From here on as `_hand_out_head`, which would cost the hot path a call.
        if not log.touched:
            self.touch()
        item_id = self.next_id
        self.next_id = item_id + 1
        window.popleft()
        body_bytes = len(body)
        read = OpenRead(self, item_id, item, body_bytes, body.blob if body.__class__ is Blob else 0, expires_at_ms)
        self.outstanding[item_id] = read
        self.bytes_out += body_bytes
        self.open_bytes += body_bytes
        log.journal.undo.append((self.give_back, read, False))
        return read

    def _hand_out_head(self) -> OpenRead:
        if not self.log.touched:
            self.touch()
        item = self.window.popleft()
        body, _, expires_at_ms, _ = item
        blob = body.blob if isinstance(body, Blob) else 0
        read = OpenRead(self, self.next_id, item, len(body), blob, expires_at_ms)
        self.outstanding[self.next_id] = read
        self.next_id += 1
        self.bytes_out += read.body_bytes
        self.open_bytes += read.body_bytes
        self.log.journal.undo.append((self.give_back, read, False))
        return read

    def _open_slowly(self) -> OpenRead | None:
        if not self.returned:
            if self.next_id == self.tail:
                return None
            self._fill()
            return self.open()
        if self.outstanding[self.returned[0]].expires_at_ms:
            if not self.drop_expired():
                return None
            if not self.returned:
                return self.open()
        return self._hand_out_returned()

    def _hand_out(self) -> OpenRead:
        """The head, whether it has expired or not."""
        if self.returned:
            return self._hand_out_returned()
        return self._hand_out_head()

    def _hand_out_returned(self) -> OpenRead:
        if not self.log.touched:
            self.touch()
        item_id = heappop(self.returned)
        before = self.outstanding[item_id]  # whose place the new read takes
        read = OpenRead(self, item_id, None, before.body_bytes, before.blob, before.expires_at_ms)
        self.outstanding[item_id] = read
        self.bytes_out += read.body_bytes
        self.open_bytes += read.body_bytes
        self.log.journal.undo.append((self.give_back, read, False))
        return read

    def holds(self, read: OpenRead) -> bool:
        """Whether `read` is open still: its queue may have been deleted, or the turn undone."""
        return not read.returned and self.outstanding.get(read.id) is read and not self.deleted

    def item_of(self, read: OpenRead) -> Item:
        """The item of an open read; once, so that what was sent is not kept in memory. Raises StorageError."""
        item, read.item = read.item, None
        return item if item is not None else self._read(self.log.read_one, read.id)

    def close(self, read: OpenRead, holder: Holder | None = None) -> None:
        """The item has been dealt with: it is gone. Nothing happens if it is not open.

        If the turn cannot be written, `holder` has the read again; without one, the item waits again.
        Raises StorageError, and has changed nothing then.
        """
        log, outstanding = self.log, self.outstanding
        item_id = read.id
        if read.returned or outstanding.get(item_id) is not read or self.deleted:  # as in `holds`
            if read.returned and not self.deleted:
                _tell_too_late(read)
            if holder is not None:
                log.journal.undo.append((holder.unclose, read))  # the turn that undoes this undoes a delete, too
            return
        large_items = self.large_items if read.blob else None  # may raise: before anything is changed
        if not log.touched:
            self.touch()
        for first_id in outstanding:
            if first_id != item_id:
                log.removed.append(item_id)
            break
        del outstanding[item_id]
        log.state_changed = True
        self.open_bytes -= read.body_bytes
        if large_items is not None:
            large_items.remove(read.blob, read.blob + 1, read.body_bytes)
        log.journal.undo.append((self._unclose, read, holder))

    def _unclose(self, read: OpenRead, holder: Holder | None) -> None:
        self.outstanding[read.id] = read
        if holder is None:
            self.give_back(read, wake=False)
        else:
            holder.unclose(read)

    def give_back(self, read: OpenRead, wake: bool = True) -> None:
        """The item waits again, at the head. Nothing happens if it is not open."""
        if read.returned or self.outstanding.get(read.id) is not read:
            return
        # What is open in a deleted queue is given back all the same, because the delete may be undone; but its log
        # must not write any more.
        if not self.log.touched and not self.deleted:
            self.touch()
        read.returned = True
        read.item = None
        self.canceled_transactions += read.counted
        heappush(self.returned, read.id)
        self.bytes_out -= read.body_bytes
        self.open_bytes -= read.body_bytes
        if wake and self.line is not None:
            self.serve_line()

    def take_back(self, read: OpenRead) -> None:
        """Undo `give_back`: `read` is open again."""
        if read.id in self.outstanding and self.outstanding[read.id].returned:
            read.returned = False
            self.outstanding[read.id] = read
            self.canceled_transactions -= read.counted
            # It is not among them if it has gone since, in the turn that is being undone: `undo_turn` finds them anew.
            self.returned = [item_id for item_id in self.returned if item_id != read.id]
            heapify(self.returned)
            self.bytes_out += read.body_bytes
            self.open_bytes += read.body_bytes

    # -- waiting

    def join_line(self, peeks: bool, waiter: Waiter | None = None) -> Waiter:
        """A new waiter, or `waiter`, who waits at other queues, too."""
        if self.line is None:
            self.line = WaitingLine()
        return self.line.join(peeks, waiter)

    def tidy_line(self) -> None:
        """After a wait: keep no empty line, so that a put has nothing to look at. A line stands while cursors' do."""
        if self.line is not None and not self.line:
            if self.cursors is None or all(cursor.line is None for cursor in self.cursors.values()):
                self.line = None

    def serve_line(self) -> None:
        """Hand what waits to who waits, in order; at the cursors first, because what is open here they do not see."""
        if self.cursors is not None:
            for cursor in self.cursors.values():
                if cursor.line is not None:
                    cursor.serve_line()
        while self.line and (self.returned or self.next_id < self.tail):
            waiter = self.line.next()
            handed: MessageQueue | OpenRead | None
            try:
                handed = (self.peek() and self) if waiter.peeks else self.open()
            except StorageError:
                handed = None  # the head cannot be read: who asks now is told so, who waits waits on
            if handed is None:  # or all has expired
                self.line.rejoin(waiter)
                break
            waiter.hand(handed)
        self.tidy_line()

    @property
    def large_items(self) -> LargeItems:
        if self._large_items is None:
            is_durable = not isinstance(self.log, MemoryLog)
            self._large_items = LargeItems(self.log.journal, self.log.record.number, is_durable, self._blobs_of_cursors)
        return self._large_items

    def _blobs_of_cursors(self) -> set[int]:
        """The large items that are open or were given back at its cursors."""
        cursors = self.cursors.values() if self.cursors is not None else ()
        return {read.blob for cursor in cursors for read in cursor.outstanding.values() if read.blob}

    # -- flushing

    def flush(self) -> None:
        """Remove all that waits. Open items stay open. Raises StorageError, and has changed nothing then."""
        large_items = self.large_items
        log = self.log
        if not log.touched:
            self.touch()
        journal = log.journal
        journal.undo.append((self._unflush, [self.outstanding[item_id] for item_id in self.returned]))
        number, family, _, _ = log.record
        if any(not read.returned for read in self.outstanding.values()) and self.next_id < self.tail:
            # They would be found between the open ones after a restart.
            begin, end = records.item_key(number, self.next_id), records.item_key(number, self.tail)
            journal.also.append(lambda batch: batch.delete_range(begin, end, journal.storage.handles[family]))
        for item_id in self.returned:
            del self.outstanding[item_id]
            log.removed.append(item_id)
        self.returned = []
        large_items.remove_all_but({r.blob for r in self.outstanding.values() if r.blob}, self.waiting_bytes)
        self.next_id = self.tail
        self.missing = 0
        self.bytes_out = self.bytes_in
        self.release_window()
        log.state_changed = True
        self.total_flushes += 1

    def _unflush(self, removed: list[OpenRead]) -> None:
        for read in removed:
            self.outstanding[read.id] = read
        self.returned = [item_id for item_id, read in self.outstanding.items() if read.returned]
        heapify(self.returned)
        self.total_flushes -= 1

    # -- figures

    @property
    def waiting_items(self) -> int:
        return self.tail - self.next_id - self.missing + len(self.returned)

    def head_added_at_ms(self) -> int:
        """When the head was put, in ms since 1970; 0 if nothing waits. Raises StorageError."""
        if self.window and not self.returned:
            return self.window[0][3]
        return self.log.read_one(self.head_id)[3] if self.waiting_items else 0

    @property
    def waiting_bytes(self) -> int:
        return self.bytes_in - self.bytes_out

    @property
    def open_reads(self) -> int:
        return len(self.outstanding) - len(self.returned)

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


def _tell_too_late(read: OpenRead) -> None:
    log.info(
        "queue %s: item %d was closed too late: it had been given back",
        read.queue.name.decode("utf-8", "backslashreplace"),
        read.id,
    )


def _why_damaged(name: bytes, why: object) -> str:
    return f"queue {name.decode('utf-8', 'backslashreplace')} cannot be read: {why}; {records.REPAIR_ADVICE}"


class DamagedQueue(MessageQueue):
    """A queue whose records could not be read when the server started: all that can be done is to delete it.

    It stands where the queue would, so that nobody else has to ask whether a queue is damaged.
    """

    __slots__ = ()

    def __init__(self, name: bytes, budget: WindowBudget, journal: Journal, record: QueueRecord, why: object) -> None:
        super().__init__(name, budget)
        self.log = QueueLog(journal, self, record, State())
        self.damage = _why_damaged(name, why)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise DamagedError(self.damage)

    put = take = peek = open = flush = join_line = _refuse

    @property
    def large_items(self) -> LargeItems:
        self._refuse()
