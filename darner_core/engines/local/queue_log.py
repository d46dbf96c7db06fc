"""One queue's records, and what the current turn changes of them. Those of a queue in memory are kept here.

A queue tells its log what it changes. What that means on disk, the journal works out once a turn.

No call here switches greenlets.
"""

from collections.abc import Callable, Iterator
from itertools import islice, takewhile
from typing import TYPE_CHECKING, ClassVar, Final

from darner_core.errors import StorageError
from darner_core.storage import records
from darner_core.storage.records import Item, QueueRecord, item_key
from darner_core.storage.storage import Batch

if TYPE_CHECKING:
    from darner_core.engines.local.journal import Journal
    from darner_core.engines.local.message_queue import MessageQueue


NOTHING: Final[list[Item]] = []  # `appended` of all queues that this turn does not touch. Never filled.


class QueueLog:
    """The queue appends items to `appended` (their ids begin at `written`), adds ids that go out of order to `removed`,
    and sets `state_changed` when an id is gone."""

    __slots__ = (
        "journal", "owner", "record", "written", "appended", "removed",
        "touched", "state_changed", "recorded", "reclaimed", "reclaimed_bytes", "reclaim_now", "hook",
        "seen",
    )  # fmt: skip

    durable: ClassVar = True

    def __init__(self, journal: "Journal", owner: "MessageQueue", record: QueueRecord, state: records.State) -> None:
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
        # Adds to the batch of each turn that touches the log; True: the journal adds nothing. For cursors, and queues
        # that have some.
        self.hook: Callable[[Batch], bool] | None = None

    def write_state(self) -> None:
        """In this turn, write the state record."""
        if not self.touched:
            self.owner.enter_turn()
        self.state_changed = True

    def reclaim(self) -> None:
        """In this turn, range-delete what is dead, however little it is."""
        self.write_state()
        self.reclaim_now = True

    def enter_turn(self) -> None:
        """To be called before the first change of a turn."""
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
        """(id of the first, items): what was put in this turn and is still there."""
        first = self.owner.first_id() if self.state_changed else 0
        if first > self.written:
            return first, self.appended[first - self.written :]
        return self.written, self.appended

    def read(self, from_id: int, most_items: int, most_bytes: int, missing: int = 0) -> tuple[int, list[Item]]:
        """(id of the first, items): up to `most_items` that follow one another, at least one if any is there. The first
        is at `from_id`, or behind it where ids are gone. Raises StorageError if more than `missing` ids are."""
        items: list[Item] = []
        first, size = from_id, 0
        gone = set(self.removed) if missing and self.removed else ()
        if from_id < self.written:
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
        if not gone:
            return first, items + self.appended[start : start + most_items - len(items)]
        for item_id, item in enumerate(self.appended[start:], self.written + start):
            if item_id in gone:
                if items:
                    break
                first = item_id + 1
            elif len(items) < most_items:
                items.append(item)
        return first, items

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
        """The item, or None. What is removed in this turn is still found. Raises StorageError."""
        if item_id >= self.written:
            return self.appended[item_id - self.written]
        return self.stored_one(item_id)

    def is_missing(self, item_id: int) -> StorageError:
        return StorageError(f"queue number {self.record.number}: item {item_id} is missing")

    # -- what has been written

    def stored(self, from_id: int, to_id: int) -> Iterator[tuple[int, Item]]:
        """(id, item) of what is stored in [from_id, to_id), in order. Raises StorageError."""
        return self.journal.storage.items(self.record, from_id, to_id)

    def stored_back(self, from_id: int, to_id: int) -> Iterator[tuple[int, Item]]:
        """As `stored`, the last one first."""
        return self.journal.storage.items_back(self.record, from_id, to_id)

    def stored_one(self, item_id: int) -> Item | None:
        """Raises StorageError."""
        return self.journal.storage.item(self.record, item_id)


class MemoryLog(QueueLog):
    """The log of a queue that is in memory only. Its items are kept as a disk would keep them, so that the queue does
    not have to know the difference."""

    __slots__ = ("_items",)

    durable: ClassVar = False

    def __init__(self, journal: "Journal", owner: "MessageQueue", record: QueueRecord) -> None:
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
        """The turn is over: keep what it has put, forget what it has removed."""
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
        """Nothing has to be done: items go one by one."""

    def stored(self, from_id: int, to_id: int) -> Iterator[tuple[int, Item]]:
        items = self._items
        return ((item_id, items[item_id]) for item_id in range(from_id, to_id) if item_id in items)

    def stored_back(self, from_id: int, to_id: int) -> Iterator[tuple[int, Item]]:
        items = self._items
        return ((item_id, items[item_id]) for item_id in range(to_id - 1, from_id - 1, -1) if item_id in items)

    def stored_one(self, item_id: int) -> Item | None:
        return self._items.get(item_id)
