"""One durable cursor: a place in a queue that reading moves on, and what is open or was given back there.

A cursor hands out the items of its queue, the parent, under the parent's ids, and removes none. It sees what a get of
the parent would: what waits there from its place on, given back or never handed out. What is gone or open there when it
comes by is passed over. So a cursor whose place is before the parent's head goes on at the head.

    no id from `next_id` on has been handed out here since the cursor was last put back to the head;
    `outstanding` holds what is open here or was given back.

If the parent removes an item that is outstanding here, the item is copied to the cursor's own records in the same turn
(`Keeper`), and the chunks of a large one stay until the last cursor has closed it.

On disk are: the place behind all that was closed; a record for each outstanding id below it, which there are only if
items were closed out of order; and the copies. So a single reader costs one state record a turn, as at a queue. Opening
and giving back write nothing: what was open above the place is read again after a crash.

No call here switches greenlets.
"""

from collections import deque
from heapq import heappush
from typing import ClassVar

from darner_core.engines.contract import Holder
from darner_core.engines.large_items import LARGE, Large
from darner_core.engines.local import damaged_queue, expiry, lines, reads, window
from darner_core.engines.local.cursor_log import CursorLog, read_ahead, stores
from darner_core.engines.local.large_items import LargeItems
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.reads import OpenRead
from darner_core.engines.local.window import WindowBudget
from darner_core.errors import StorageError
from darner_core.storage import records
from darner_core.storage.records import Blob, Item, QueueRecord, State
from darner_core.waiters import WaitingLine

_NOTHING_AHEAD: deque[tuple[int, Item]] = deque()  # an empty deque is 760 bytes. Never filled.


class Cursor:
    """A durable cursor on a queue. `name` is the queue's name, a dot, and the cursor's `short` name. `contract.Source`
    says what its methods promise."""

    __slots__ = (
        "name", "parent", "short", "budget", "options", "log", "next_id", "outstanding", "returned", "stale", "ahead",
        "window_bytes", "place", "recorded_place", "marked", "copied", "closed", "mark_all", "damage", "deleted",
        "line", "half_swept", "total_flushes", "transactions", "canceled_transactions", "late_closes", "_place_before",
    )  # fmt: skip

    unreadable: ClassVar = False
    cursors: ClassVar = None  # there are none on a cursor
    counts_failures: ClassVar = False
    aside_items: ClassVar = 0

    def __init__(
        self, parent: MessageQueue, short: bytes, budget: WindowBudget, record: QueueRecord, state: State
    ) -> None:
        """`state` is what the disk says of it. Raises StorageError."""
        self.name = b"%b.%b" % (parent.name, short)
        self.parent = parent
        self.short = short
        self.budget = budget
        self.options = parent.options
        self.next_id = records.FIRST_ID
        self.outstanding: dict[int, OpenRead] = {}  # with `returned` and `stale`: see `reads`
        self.returned: list[int] = []
        self.stale = 0
        self.ahead = _NOTHING_AHEAD  # (id, item) of those of the parent's items that are in memory
        self.window_bytes = 0  # of `ahead`, as the budget knows it
        self.place = self.next_id  # behind all that was closed: `next_id` as it is after a crash
        self.recorded_place = self.place
        self.marked: set[int] = set()  # the outstanding ids that have a record
        self.copied: set[int] = set()  # those of them whose record is the item, because it is gone from the parent
        self.closed: list[int] = []  # ids whose record is removed in this turn
        self.mark_all = False  # in this turn, every outstanding id gets a record
        self.damage = ""  # why the head cannot be read; "" if it can
        self.deleted = False
        self.line: WaitingLine | None = None  # of the clients that wait here; None while there are none
        self.half_swept = False  # all that was looked at has expired, and there may be more
        self.total_flushes = 0
        self.transactions = 0  # reads that clients have opened
        self.canceled_transactions = 0  # those of them that were given back
        self.late_closes = 0  # closes of items that had been given back, since the log last mentioned them
        self._place_before = (0, 0, 0)  # at the beginning of the turn: see `enter_turn`
        self.log = CursorLog(parent.log.journal, self, record)
        self.log.read_back(state)

    # -- the turn

    def enter_turn(self) -> None:
        """To be called before the first change of a turn."""
        self.log.enter_turn()
        self._place_before = (self.next_id, self.place, self.recorded_place)

    def turn_written(self) -> None:
        self.closed = []
        self.mark_all = False
        if not self.ahead:
            window.account(self, 0)

    def drop_window(self) -> None:
        self.ahead = _NOTHING_AHEAD
        self.window_bytes = 0

    def undo_turn(self) -> None:
        self.next_id, self.place, self.recorded_place = self._place_before
        self.closed = []
        self.mark_all = False
        reads.find_returned(self)
        window.release(self)

    @property
    def created_at_ms(self) -> int:
        return self.log.record.created_at_ms

    # -- what comes next

    @property
    def tail(self) -> int:
        return self.parent.tail

    @property
    def opener(self) -> "Cursor":
        return self

    @property
    def head_id(self) -> int:
        """The id of what `open` would hand out; 0: nothing."""
        return self.returned[0] if self._goes_back() else self._next_seen(self.next_id)

    def _goes_back(self) -> bool:
        """Whether the next item is one that was given back. The lowest id comes first; that may be a new one after a
        crash, or when the cursor was put back to the head."""
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
                    item_id = reads.next_returned(parent, item_id)
            if item_id >= parent.tail:
                return 0
            if item_id not in outstanding:
                return item_id
            item_id += 1  # open since before the cursor was put back to the head

    def _next(self) -> tuple[int, Item] | None:
        """(id, item) of the next item that was never handed out, which is now the first of `ahead`."""
        item_id, ahead = self.next_id, self.ahead
        parent = self.parent
        if ahead and ahead[0][0] == item_id and item_id >= parent.next_id and item_id not in self.outstanding:
            if not ahead[0][1][2] and not parent.max_age_ms:
                return ahead[0]  # the most frequent case, which the code below would find, too
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
                if not 0 < self.parent.aged(ahead[0][1])[2] < now_ms:
                    return ahead[0]
                passed += 1  # it has expired
                if passed == expiry.EXPIRED_AT_ONCE:  # perhaps more has: there is nothing to hand out for now
                    if not self.log.touched:
                        self.enter_turn()
                    self.next_id = item_id + 1
                    self.half_swept = True
                    return None
                item_id = self._next_seen(item_id + 1)
            else:
                item_id = self._next_seen(ahead[0][0])  # what was there is gone from the middle of the parent
        return None

    def drop_expired(self) -> bool:
        """Pass over a part of what has expired; False: there may be more. Raises StorageError."""
        self.half_swept = False
        if not self._goes_back():
            self._next()
        return not self.half_swept

    def aged(self, item: Item) -> Item:
        return self.parent.aged(item)

    def _drop_expired(self) -> None:
        """Drop what was given back and has expired."""
        now_ms = self.log.journal.time_ms()
        while self.returned and 0 < self.outstanding[self.returned[0]].expires_at_ms < now_ms:
            read = self.outstanding[self.returned[0]]
            if read.blob:
                _ = self.large_items  # may raise: before anything is changed
            self.log.write_state()
            del self.outstanding[read.id]
            reads.leave_returned(self, read.id)
            self.log.journal.undo.append((self.unclose, read, None))
            self._forget(read)

    def _fill_from(self, item_id: int) -> None:
        """Read ahead what is stored from this id on. Raises StorageError."""
        try:
            items = read_ahead(self.parent.log, item_id)
        except StorageError:  # what lies before the damage is served
            items = [(item_id, damaged_queue.reading(self, self.parent.log.read_one, item_id))]
        if (not items or items[0][0] != item_id) and not self.parent.missing:
            raise self.cannot_be_read(self.parent.log.is_missing(item_id))
        self.ahead = deque(items)
        window.account(self, window.bytes_of([item for _, item in items]))

    # -- taking

    def take(self) -> Item | Large | None:
        ahead = self.ahead
        if ahead and not self.outstanding:
            item_id, item = ahead[0]
            if item_id == self.next_id and item_id >= self.parent.next_id:  # else it has to be looked for
                if item[0].__class__ is Blob or item[2] or self.parent.max_age_ms:
                    return self._take_slowly()
                if not self.log.touched:
                    self.enter_turn()
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
            return damaged_queue.reading(self, self.log.read_one, self.returned[0])
        found = self._next()
        if found is None:
            self.parent.polled = True
            return None
        return found[1]

    def open(self) -> OpenRead | None:
        if self._goes_back():
            item_id = self.returned[0]
            if not self.log.touched:
                self.enter_turn()
            self.next_id = max(self.next_id, item_id + 1)
            read = reads.hand_out_again(self, item_id)
            self.log.journal.undo.append((self.give_back, read, False))
            return read
        found = self._next()
        if found is None:
            self.parent.polled = True
            return None
        if not self.log.touched:
            self.enter_turn()
        item_id, item = found
        self.ahead.popleft()
        self.next_id = item_id + 1
        read = reads.hand_out(self, item_id, item, self.aged(item)[2])
        self.log.journal.undo.append((self._unopen, read))
        return read

    def _unopen(self, read: OpenRead) -> None:
        self.outstanding.pop(read.id, None)
        read.returned = True

    def close(self, read: OpenRead, holder: Holder | None = None) -> None:
        """The item is done with here, and stays in the parent."""
        journal = self.log.journal
        if not self.holds(read):
            if holder is not None:
                journal.undo.append((holder.unclose, read))
            return
        if read.blob:
            _ = self.large_items  # may raise: before anything is changed
        if not self.log.touched:
            self.enter_turn()
        item_id = read.id
        del self.outstanding[item_id]
        journal.undo.append((self.unclose, read, holder))
        self._forget(read)
        if item_id < self.next_id:
            self.place = max(self.place, item_id + 1)
        self.log.state_changed = True

    holds = reads.holds
    item_of = reads.item_of
    unclose = reads.unclose
    cannot_be_read = damaged_queue.cannot_be_read
    open_reads = property(reads.open_reads)

    def give_back(self, read: OpenRead, wake: bool = True) -> None:
        if read.returned or self.outstanding.get(read.id) is not read:
            return
        if not self.log.touched and not self.deleted:  # as in MessageQueue
            self.enter_turn()
        read.returned = True
        read.item = None
        self.canceled_transactions += read.counted
        heappush(self.returned, read.id)
        if wake and self.line is not None:
            lines.serve(self)

    def take_back(self, read: OpenRead) -> None:
        reads.reopen(self, read)

    def _forget(self, read: OpenRead) -> None:
        """The item is not outstanding any more: remove its record, and the chunks if only this cursor had them."""
        self._remove_chunks(read)
        item_id, undo = read.id, self.log.journal.undo
        if item_id in self.marked:
            self.closed.append(item_id)
            self.marked.discard(item_id)
            undo.append((self.marked.add, item_id))
            if item_id in self.copied:
                self.copied.discard(item_id)
                undo.append((self.copied.add, item_id))

    def _remove_chunks(self, read: OpenRead) -> None:
        gone = read.blob and (read.id in self.copied or not stores(self.parent, read.id))
        if gone and not self.parent.keeps_aside(read.id):
            self.large_items.remove(read.blob, read.blob + 1, read.body_bytes)

    @property
    def large_items(self) -> LargeItems:
        return self.parent.large_items

    # -- going back, and going

    def flush(self) -> None:
        """Go back to the head of the parent. What was given back is dropped. What is open stays open, and the cursor
        passes it over while it is. Raises StorageError, with nothing changed."""
        _ = self.large_items  # may raise: before anything is changed
        self.log.write_state()
        journal = self.log.journal
        journal.undo.append((setattr, self, "outstanding", self.outstanding))
        dropped = [read for read in self.outstanding.values() if read.returned]
        self.outstanding = {item_id: read for item_id, read in self.outstanding.items() if not read.returned}
        for read in dropped:
            self._forget(read)
        reads.find_returned(self)
        self.next_id = self.place = self.parent.line_head_id
        self.mark_all = True
        window.release(self)
        journal.count(self, "total_flushes")
        lines.serve(self)

    def remove_chunks(self) -> None:
        """It has been deleted: remove the chunks that only it has kept. Raises StorageError."""
        for read in self.outstanding.values():
            self._remove_chunks(read)

    # -- figures

    @property
    def waiting_items(self) -> int:
        """How much there is to read: an upper bound if items are taken from the parent as well."""
        parent, outstanding = self.parent, self.outstanding
        first_new = max(self.next_id, parent.next_id)
        # Which of the parent's ids are missing is not known without reading. This counts as many of them as possible
        # before what is new here.
        missing = max(0, parent.missing - (first_new - parent.next_id))
        known = sum(i >= first_new and i not in self.copied and stores(parent, i) for i in outstanding)
        new = parent.tail - first_new - missing - known
        again = sum(item_id >= self.next_id and item_id not in outstanding for item_id in reads.given_back(parent))
        return max(0, new) + again + len(self.returned) - self.stale
