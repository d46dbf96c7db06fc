"""One queue's records, and what the current turn changes of them; those of a queue in memory are kept here.

A queue tells its log what it changes. What that means on disk is worked out once a turn, by the journal.

No call here switches greenlets.
"""

from collections.abc import Callable, Collection, Iterator
from itertools import islice, takewhile
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from darner_core.errors import StorageError
from darner_core.storage import records
from darner_core.storage.records import Item, QueueRecord, item_key
from darner_core.storage.storage import Batch

if TYPE_CHECKING:
    from darner_core.engines.local.journal import Journal


class LogOwner(Protocol):
    """What the journal asks of a queue."""

    def enter_turn(self) -> None:
        """Before the first change of a turn."""

    next_id: int  # every id from it on was never handed out
    missing: int  # how many of the ids from next_id on have expired and are gone

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
        """Go back to the numbers of the first `enter_turn` of this turn."""

    def turn_written(self) -> None:
        """The turn is on disk."""


NOTHING: Final[list[Item]] = []  # stands in for the lists of the queues that this turn does not touch


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

    durable: ClassVar = True

    def __init__(self, journal: "Journal", owner: LogOwner, record: QueueRecord, state: records.State) -> None:
        self.journal = journal
        self.owner = owner
        self.record = record
        self.written = state.tail  # ids below are on disk, or gone
        self.appended = NOTHING
        self.removed: list[int] = []
        self.touched = False
        self.state_changed = False
        self.recorded = state.tail  # the tail in the state record on disk
        self.reclaimed = state.reclaimed  # ids below are range-deleted
        self.reclaimed_bytes = 0  # the owner's removed_bytes() at that time
        self.reclaim_now = False
        self.seen = 0  # where `compaction` has last seen the queue
        # Of a queue with cursors, or a cursor: adds to the batch of each turn that touches the log. True: that was all.
        self.hook: Callable[[Batch], bool] | None = None

    def reclaim(self) -> None:
        """Range-delete what is dead in this turn, however little it is."""
        if not self.touched:
            self.owner.enter_turn()
        self.state_changed = self.reclaim_now = True

    def enter_turn(self) -> None:
        """Before the first change of a turn."""
        journal = self.journal
        if not journal.touched:
            journal.time_ms()
        self.touched = True
        self.appended = []
        journal.touched.append(self)

    def set_reclaimed(self, first: int, removed_bytes: int) -> None:
        self.reclaimed = first
        self.reclaimed_bytes = removed_bytes

    def pending(self) -> tuple[int, list[Item]]:
        """(id of the first, items) of what was put in this turn and is still there."""
        first = self.owner.first_id() if self.state_changed else 0
        if first > self.written:
            return first, self.appended[first - self.written :]
        return self.written, self.appended

    def read(self, from_id: int, most_items: int, most_bytes: int, missing: int = 0) -> tuple[int, list[Item]]:
        """(id of the first, items): up to `most_items` that follow one another, the first of them at `from_id`, or
        behind it if up to `missing` ids may be gone; at least one, if any is there. Raises StorageError if others are
        gone."""
        items: list[Item] = []
        first, size = from_id, 0
        if from_id < self.written:
            gone = set(self.removed) if missing and self.removed else ()
            for item_id, item in self.stored(from_id, self.written):
                if item_id != first + len(items):
                    if items and missing:
                        return first, items
                    if items or item_id - first > missing:
                        raise self.is_missing(first + len(items))
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
                    raise self.is_missing(behind)
                first = self.written
        start = first + len(items) - self.written
        return first, items + self.appended[start : start + most_items - len(items)]

    def read_one(self, item_id: int) -> Item:
        if item_id >= self.written:
            return self.appended[item_id - self.written]
        item = self.stored_one(item_id)
        if item is None:
            raise self.is_missing(item_id)
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

    def is_missing(self, item_id: int) -> StorageError:
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

    durable: ClassVar = False

    def __init__(self, journal: "Journal", owner: LogOwner, record: QueueRecord) -> None:
        super().__init__(journal, owner, record, records.State())
        self._items: dict[int, Item] = {}  # by id, in order

    def enter_turn(self) -> None:
        journal = self.journal
        if not journal.touched:
            journal.time_ms()
        self.touched = True
        self.appended = []
        journal.in_memory.append(self)

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
