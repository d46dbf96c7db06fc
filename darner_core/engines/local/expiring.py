"""How items leave a queue without being handed to anybody: they expire, or the oldest make room.

What is open does not expire. The head is looked at whenever somebody wants it, so that nothing that has expired is
handed out; what expires behind it a sweep finds (`sweeper`).

No call here switches greenlets.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from darner_core.config.queues import BUILT_IN, QueueOptions
from darner_core.engines.local.backlog import FILL_ITEMS, MANY, Backlog
from darner_core.engines.local.reads import Bury, OpenRead
from darner_core.engines.local.window import WindowBudget
from darner_core.errors import StorageError
from darner_core.storage.records import Blob, Item

# So many expired items are removed in one turn, in about 2 ms; whoever asks meanwhile finds nothing.
EXPIRED_AT_ONCE = 1000

# The same for the bytes of their bodies: they may have to be read, and written where they go.
EXPIRED_BYTES_AT_ONCE = 1 << 20

# The same of those that go to another queue: each is a put, and one more for each of that queue's children.
MOVED_AT_ONCE = 100

# What is removed behind the head is removed one by one, and once more as a range whenever so many have gone that follow
# one another: what reads on behind them passes over a range at once, but every range costs every reader a little.
GAP_IDS = 16384


class Expiring(Backlog):
    """A backlog that things leave."""

    __slots__ = ("expired_items", "lost_expired", "discarded", "expire_to", "move_large", "half_swept")

    def __init__(self, name: bytes, budget: WindowBudget, options: QueueOptions = BUILT_IN) -> None:
        super().__init__(name, budget, options)
        self.expired_items = 0
        self.lost_expired = 0  # of them, those that could not go where they had to
        self.discarded = 0
        self.expire_to: Bury | None = None  # where expired items go
        self.move_large: Callable[[OpenRead], None] | None = None  # and large ones, which take several turns
        self.half_swept = False  # there may be more expired items at the head

    if TYPE_CHECKING:  # what MessageQueue does: for the types alone, so that there is nothing to fall back to

        def _hand_out_head(self) -> OpenRead:
            """The first of the window, open, whether it has expired or not."""

        def _hand_out_returned(self, item_id: int) -> OpenRead:
            """The same for an item that was given back."""

        def _bury(self, item_id: int, item: Item) -> None:
            """An item expires: count it, and let it go where it has to go."""

        def _unbury(self, count: int = 1) -> None:
            """Undo the count."""

    # -- expiring

    def set_max_age(self, max_age_ms: int) -> None:
        """No item gets older than that, those that are there included; 0: each lives as long as its own expiry says."""
        if max_age_ms != self.max_age_ms:
            self.max_age_ms = max_age_ms
            self.release_window()  # what is read again has the new age
            for read in self.outstanding.values():
                with suppress(StorageError):  # who wants the item is told
                    read.expires_at_ms = self.aged(self.log.read_one(read.id))[2]
            for cursor in (self.cursors or {}).values():
                cursor.set_max_age(max_age_ms)

    def drop_expired(self, most: int = EXPIRED_AT_ONCE, least: int = 0) -> bool:
        """Remove the expired items at the head, up to so many; False: there are more. Raises StorageError.

        In one turn EXPIRED_AT_ONCE of all queues are removed, of those that go to another queue each counting as ten.
        When these have been, a call removes no more than `least`.
        """
        journal = self.log.journal
        weight = 1 if self.expire_to is None else EXPIRED_AT_ONCE // MOVED_AT_ONCE
        before = self.expired_items
        until = before + min(most, max(least, (EXPIRED_AT_ONCE - journal.dropped) // weight))
        self.half_swept = False
        try:
            self.half_swept = self._drop_head(journal.time_ms(), until, self.bytes_out + EXPIRED_BYTES_AT_ONCE)
        finally:
            journal.dropped += (self.expired_items - before) * weight
        return not self.half_swept

    def _drop_head(self, now_ms: int, until: int, until_bytes: int) -> bool:
        """Until so many items, or bytes, have gone; whether there are more."""
        while True:
            if self.returned:
                read = self.outstanding[self.returned[0]]
                if not 0 < read.expires_at_ms < now_ms:
                    return False
                if self.expired_items >= until or self.bytes_out >= until_bytes:
                    return True
                self._expire_returned(read)
                continue
            if not self.window:
                if self.next_id < self.tail:
                    self._fill()
                if not self.window:
                    return False
            item = self.window[0]
            if not 0 < item[2] < now_ms:
                return False
            if self.expired_items >= until or self.bytes_out >= until_bytes:
                return True
            if self.move_large is not None and isinstance(item[0], Blob):
                self.move_large(self._hand_out_head())  # open while it is copied to where it goes
            elif self.expire_to is not None or self.outstanding or isinstance(item[0], Blob):
                self._bury(self.next_id, item)
                self._remove_head(item)
            else:
                self._drop_run(now_ms, until - self.expired_items)

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

    def _expire_returned(self, read: OpenRead) -> None:
        if self.move_large is not None and read.blob:
            self.move_large(self._hand_out_returned(read.id))
            return
        self._bury(read.id, self._read(self.log.read_one, read.id))
        self._remove_returned(read)

    # -- removing what nobody is handed

    def _remove_unopened(self, item_id: int, item: Item) -> None:
        if item_id == self.next_id:
            self._remove_head(item)
        else:
            self._remove_waiting(item_id, item)

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
        begin, end = self.gap
        if item_id == end:
            self.gap = begin, end + 1
            if (end + 1 - begin) % GAP_IDS == 0:
                self.log.remove_range(end + 1 - GAP_IDS, end + 1)
        elif end <= self.next_id or end - begin < FILL_ITEMS:
            self.gap = item_id, item_id + 1
        in_memory = item_id - self.next_id
        if in_memory < len(self.window):
            while len(self.window) > in_memory:
                self.window.pop()
        self.whole = False

    def _enter_to_remove(self, body: bytes | Blob) -> None:
        log = self.log
        large_items = self.large_items if isinstance(body, Blob) else None  # may raise: before anything is changed
        if not log.touched:
            self.touch()
        log.state_changed = True
        self.bytes_out += len(body)
        if large_items is not None and isinstance(body, Blob):
            large_items.remove(body.blob, body.blob + 1, len(body))

    def _remove_returned(self, read: OpenRead) -> None:
        log = self.log
        large_items = self.large_items if read.blob else None
        if not log.touched:
            self.touch()
        if read.id != self.first_id():
            log.removed.append(read.id)
        elif len(self.outstanding) > MANY:
            self._thinned()
        log.state_changed = True
        del self.outstanding[read.id]
        self.leave_returned(read.id)
        self.bytes_out += read.body_bytes
        if large_items is not None:
            large_items.remove(read.blob, read.blob + 1, read.body_bytes)
        log.journal.undo.append((self._restore_returned, read))

    def _restore_returned(self, read: OpenRead) -> None:
        self.outstanding[read.id] = read

    def find_oldest(self) -> bool:
        """Whether an item waits that can be discarded. Raises StorageError if that cannot be done."""
        if self.returned:
            is_large = bool(self.outstanding[self.returned[0]].blob)
        else:
            if not self.window and self.next_id < self.tail:
                self._fill()
            if not self.window:
                return False
            is_large = isinstance(self.window[0][0], Blob)
        if is_large:
            _ = self.large_items  # may raise
        return True

    def discard_oldest(self) -> bool:
        """Remove the item that has waited longest; False: none waits. Raises StorageError, with nothing changed."""
        if not self.find_oldest():
            return False
        if self.returned:
            self._remove_returned(self.outstanding[self.returned[0]])
        else:
            self._remove_head(self.window[0])
        self.discarded += 1
        self.log.journal.undo.append((self._undiscard,))
        return True

    def _undiscard(self) -> None:
        self.discarded -= 1
