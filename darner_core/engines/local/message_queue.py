"""One queue: the rules of FIFO, open reads, and who waits for items. What it holds, and in what terms, see `backlog`.

No call here switches greenlets (handing an item to a waiter lets its greenlet run later), so no call needs a lock.
"""

import logging
from heapq import heappush
from typing import Any, Final, NoReturn

from darner_core import NAME
from darner_core.config.queues import BUILT_IN, QueueOptions
from darner_core.engines.local.backlog import MANY, why_damaged
from darner_core.engines.local.expiring import Expiring
from darner_core.engines.local.journal import Journal, MemoryLog, QueueLog
from darner_core.engines.local.large_items import LargeItems
from darner_core.engines.local.reads import Holder, OpenRead
from darner_core.engines.local.window import WindowBudget
from darner_core.errors import DamagedError, StorageError
from darner_core.storage import records
from darner_core.storage.records import Blob, Expiry, Item, QueueRecord, State
from darner_core.waiters import Waiter, WaitingLine

log = logging.getLogger(NAME)


class Large:
    """What `take` answers when the head is a large item: it has to be opened, and closed when it has been sent."""


LARGE: Final = Large()


class MessageQueue(Expiring):
    """A named FIFO of items.

    One without a log exists because somebody waits for it: it holds nothing, and gets a log by the first put.
    """

    __slots__ = ("line", "governed", "polled", "total_flushes", "transactions", "canceled_transactions", "late_closes")

    is_damaged = False  # nothing is known of it but its name

    def __init__(self, name: bytes, budget: WindowBudget, options: QueueOptions = BUILT_IN) -> None:
        super().__init__(name, budget, options)
        self.line: WaitingLine | None = None  # None while nobody waits
        self.governed = False  # a put has to be looked at more closely: see `delivery`
        self.polled = False  # somebody has asked, and there was nothing: since the sweeper last looked
        self.total_flushes = 0
        self.transactions = 0  # reads that clients have opened
        self.canceled_transactions = 0  # of these, given back
        self.late_closes = 0  # of what had been given back, and the log has not told of yet: see `read_timeouts`

    @property
    def in_memory(self) -> bool:
        """Nothing of it is on disk, but chunks of large items."""
        return isinstance(self.log, MemoryLog)

    # -- the log

    def attach(self, journal: Journal, record: QueueRecord, state: State) -> None:
        """Give the queue its log, and read back what the disk says of it. Raises StorageError."""
        self.log = log = QueueLog(journal, self, record, state)
        self.next_id, self.tail, self.missing = state.next, state.tail, state.missing
        stored_bytes = state.bytes
        now_ms = journal.time_ms()
        if state.first < state.next:
            for item_id, item in journal.storage.items(record, state.first, state.next):
                body, _, expires_at_ms, _ = self.aged(item) if self.max_age_ms else item
                blob = body.blob if isinstance(body, Blob) else 0
                read = OpenRead(self, item_id, None, len(body), blob, expires_at_ms)
                read.returned = True
                self.outstanding[item_id] = read
                self.returned.append(item_id)
                if 0 < expires_at_ms < now_ms:  # it may have been looked at while it was open
                    journal.again.append(Expiry(expires_at_ms, record.number, item_id))
        for item_id, item in journal.storage.items(record, state.tail, records.MAX_ID):
            stored_bytes += len(item[0])
            self.tail = item_id + 1
        log.written = self.first_tail = self.tail
        self.bytes_in = stored_bytes
        self.whole = self.next_id == self.tail

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
            log.journal.expiring.append((log, expires_at_ms, self.tail))
        self.tail += 1
        self.bytes_in += len(body)
        if self.line is not None:
            self.serve_line()

    # -- expiring

    def expire(self, expiry: Expiry) -> bool:
        """An item's time has come: remove it, wherever it waits. False: it is on its way elsewhere, so it is to be
        looked at again. What is open is looked at when it is given back. Raises StorageError."""
        item_id = expiry.id
        if item_id < self.next_id:
            read = self.outstanding.get(item_id)
            if read is None or not 0 < read.expires_at_ms <= expiry.expires_at_ms:
                return True  # it has been closed; or another queue has had the number
            if read.returned:
                self._expire_returned(read)
                return True
            # Its expiry goes from the disk: by its state the next start knows that it was handed out, and looks at it.
            if not self.log.touched:
                self.touch()
            self.log.state_changed = True
            return True
        if item_id >= self.tail:
            return True
        item = self.log.find(item_id)
        if item is None or not 0 < item[2] <= expiry.expires_at_ms:
            return True  # another queue has had the number, or an earlier sweep the item
        if self.move_large is not None and isinstance(item[0], Blob):
            # It waits while it is copied to where it goes: only the head can be opened.
            self.move_large(OpenRead(self, item_id, None, len(item[0]), item[0].blob, item[2]))
            return False
        self._bury(item_id, item)
        self._remove_unopened(item_id, item)
        return True

    def _bury(self, item_id: int, item: Item) -> None:
        """An item expires: let it go where it has to go, and count it. Raises StorageError, with nothing changed."""
        if isinstance(item[0], Blob):
            _ = self.large_items  # may raise when it is removed
        if self.expire_to is not None:
            self.expire_to(self, item)
        self.expired_items += 1
        self.log.journal.undo.append((self._unbury,))

    def _unbury(self, count: int = 1) -> None:
        self.expired_items -= count

    def is_moving(self, read: OpenRead) -> bool:
        """Whether what `move_large` was given is there still: open for it, or waiting as it did then. Else it has gone
        another way: the queue was deleted or flushed, the read given back, or the item opened by who came first. Raises
        StorageError."""
        if read.id < self.next_id or self.deleted:
            return self.holds(read)
        if read.id >= self.tail or read.id in self.log.removed:
            return False
        item = self.log.find(read.id)
        return item is not None and isinstance(item[0], Blob) and item[0].blob == read.blob

    def finish_expired(self, read: OpenRead, item: Item) -> None:
        """`item`, which `move_large` was given with `read`, and which is there still, is where it goes, or lost. Raises
        StorageError if no large item of the queue has been met before, with nothing changed."""
        if self.holds(read):
            self.close(read)
        else:
            self._remove_unopened(read.id, item)
        self.expired_items += 1
        self.log.journal.undo.append((self._unbury,))

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
                self.whole = self.polled = True
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
        if not self.window:
            self.polled = True
            return None
        return self.window[0]

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
                self.polled = True
                return None
            self._fill()
            return self.open()
        if self.outstanding[self.returned[0]].expires_at_ms:
            if not self.drop_expired():
                return None
            if not self.returned:
                return self.open()
        return self._hand_out_returned(self.returned[0])

    def _hand_out_returned(self, item_id: int) -> OpenRead:
        if not self.log.touched:
            self.touch()
        before = self.outstanding[item_id]  # whose place the new read takes
        read = OpenRead(self, item_id, None, before.body_bytes, before.blob, before.expires_at_ms)
        self.outstanding[item_id] = read
        self.leave_returned(item_id)
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
                self.late_closes += 1
            if holder is not None:
                log.journal.undo.append((holder.unclose, read))  # the turn that undoes this undoes a delete, too
            return
        large_items = self.large_items if read.blob else None  # may raise: before anything is changed
        if not log.touched:
            self.touch()
        for first_id in outstanding:
            if first_id != item_id:
                log.removed.append(item_id)
            elif len(outstanding) > MANY:
                outstanding = self._thinned()
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
        if read.expires_at_ms and read.expires_at_ms <= self.log.journal.swept_ms:
            self.log.journal.again.append(Expiry(read.expires_at_ms, self.log.record.number, read.id))
        if wake and self.line is not None:
            self.serve_line()

    def take_back(self, read: OpenRead) -> None:
        """Undo `give_back`: `read` is open again."""
        if read.id in self.outstanding and self.outstanding[read.id].returned:
            read.returned = False
            self.outstanding[read.id] = read
            self.canceled_transactions -= read.counted
            # It is not among them if it has gone since, in the turn that is being undone: `undo_turn` finds them anew.
            self.stale += 1
            self._drop_stale()
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
                if self.half_swept:
                    self.log.journal.half_served[self] = None
                break
            waiter.hand(handed)
        self.tidy_line()

    # -- flushing

    def flush(self) -> None:
        """Remove all that waits. Open items stay open. Raises StorageError, and has changed nothing then."""
        large_items = self.large_items
        log = self.log
        if not log.touched:
            self.touch()
        journal = log.journal
        given_back = self.given_back()
        journal.undo.append((self._unflush, [self.outstanding[item_id] for item_id in given_back]))
        number, family, _, _ = log.record
        if len(given_back) < len(self.outstanding) and self.next_id < self.tail:
            # They would be found between the open ones after a restart.
            begin, end = records.item_key(number, self.next_id), records.item_key(number, self.tail)
            journal.also.append(lambda batch: batch.delete_range(begin, end, journal.storage.handles[family]))
        is_open = {item_id: read for item_id, read in self.outstanding.items() if not read.returned}
        if is_open:  # else all below `next_id` is gone
            log.removed += given_back
        self.outstanding = is_open
        self.set_returned()
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
        self.set_returned()
        self.total_flushes -= 1


class DamagedQueue(MessageQueue):
    """A queue whose records could not be read when the server started: all that can be done is to delete it.

    It stands where the queue would, so that nobody else has to ask whether a queue is damaged.
    """

    __slots__ = ()

    is_damaged = True

    def __init__(self, name: bytes, budget: WindowBudget, journal: Journal, record: QueueRecord, why: object) -> None:
        super().__init__(name, budget)
        self.log = QueueLog(journal, self, record, State())
        self.damage = why_damaged(name, why)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise DamagedError(self.damage)

    put = take = peek = open = flush = join_line = _refuse

    @property
    def large_items(self) -> LargeItems:
        self._refuse()
