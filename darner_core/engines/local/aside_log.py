"""What the current turn changes of an aside, and what can be read of it: the turn's changes first, then the disk.

The journal writes all of it at the end of the turn, in the turn's one batch. Of an item that is put and gone within the
turn nothing is written. If the batch cannot be written, the changes are forgotten, and the aside reads again what the
disk says. Whether the disk has them all the same is not known until the database has been opened again: then what they
replaced is written once more.

No call here switches greenlets. Reading raises StorageError.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, TypeVar

from darner_core.engines.local.dead_ranges import DeadRange
from darner_core.engines.local.journal import RECLAIM_ITEMS, Journal
from darner_core.engines.local.queue_log import QueueLog
from darner_core.engines.local.sorted_places import SortedPlaces
from darner_core.errors import StorageError
from darner_core.storage import job_records, records
from darner_core.storage.job_records import KINDS, AsideRecord, Flush, Job, Place, Taken
from darner_core.storage.records import Blob, Item, QueueRecord, State
from darner_core.storage.rocks import ASIDE_FAMILY, JOB_FAMILY, ORDER_FAMILY
from darner_core.storage.storage import Batch

if TYPE_CHECKING:
    from darner_core.engines.local.aside import Aside

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Changes:
    """Of records, by their keys. None: there is none."""

    __slots__ = ("items", "jobs", "order", "keys")

    def __init__(self) -> None:
        self.items: dict[int, Item | None] = {}
        self.jobs: dict[int, Job | None] = {}
        self.order: tuple[dict[Place, bytes | None], ...] = tuple({} for _ in KINDS)
        self.keys: dict[bytes, Taken | None] = {}

    def __bool__(self) -> bool:
        return bool(self.items or self.jobs or self.keys or any(self.order))

    def forget(self, written: "AsideLog") -> None:
        """What a turn has written since is known."""
        _drop(self.items, written.items)
        _drop(self.jobs, written.jobs)
        _drop(self.keys, written.keys)
        for mine, theirs in zip(self.order, written.order, strict=True):
            _drop(mine, theirs)


class AsideLog(QueueLog):
    """The records of an aside. Its hook writes all, so that the numbers of a queue's log are never asked for."""

    __slots__ = ("number", "items", "jobs", "order", "keys", "_aside", "_replaced", "_doubtful", "_gone_bytes")

    def __init__(self, journal: Journal, aside: "Aside", record: AsideRecord) -> None:
        place = QueueRecord(record.number, ASIDE_FAMILY, record.created_at_ms)
        super().__init__(journal, aside, place, State(tail=records.MAX_ID))  # type: ignore[arg-type]
        self.recorded = 1
        self.hook = self._write
        self.number = record.number
        self._aside = aside
        self._doubtful = Changes()  # what to write after a failed turn
        self._gone_bytes = 0  # of items that have been removed since the last range was
        self._begin()

    def _begin(self) -> None:
        changes = Changes()
        self.items, self.jobs, self.order, self.keys = changes.items, changes.jobs, changes.order, changes.keys
        self._replaced = Changes()  # what this turn has changed, but for items, as it was

    # -- reading

    def item(self, item_id: int) -> Item:
        item = self.items[item_id] if item_id in self.items else self._stored_item(item_id)
        if item is None:
            raise StorageError(f"aside number {self.number}: item {item_id} is missing")
        return item

    def find(self, item_id: int) -> Item | None:
        return self.items[item_id] if item_id in self.items else self._stored_item(item_id)

    def stored_blobs(self, most_items: int, most_bytes: int) -> Iterator[set[int]]:
        """The numbers of the large items that have been written, a part with each step, which reads up to `most_items`
        items, and stops when it has read `most_bytes` of bodies."""
        from_id: int | None = 0
        while from_id is not None:
            found, size, start, from_id = set[int](), 0, from_id, None
            for items, (item_id, (body, *_)) in enumerate(self.journal.storage.jobs.items(self.number, start)):
                if items >= most_items or size >= most_bytes:
                    from_id = item_id
                    break
                if isinstance(body, Blob):
                    found.add(body.blob)
                else:
                    size += len(body)
            yield found

    def read_one(self, item_id: int) -> Item:
        return self.item(item_id)

    def job(self, item_id: int) -> Job | None:
        return self.jobs[item_id] if item_id in self.jobs else self._stored_job(item_id)

    def has_any(self, begin: int, end: int) -> bool:
        """Whether any item with an id in [begin, end) is there."""
        changed = self.jobs
        return any(changed.get(item_id, True) is not None for item_id in self._stored_ids(begin, end)) or any(
            begin <= item_id < end and job is not None for item_id, job in changed.items()
        )

    def taken(self, key: bytes) -> Taken | None:
        return self.keys[key] if key in self.keys else self._stored_taken(key)

    def at_place(self, kind: int, place: Place) -> bytes | None:
        changed = self.order[kind]
        return changed[place] if place in changed else self._stored_at_place(kind, place)

    # -- changing

    def put_item(self, item_id: int, item: Item, job: Job) -> None:
        self._replaced.jobs[item_id] = None
        self.items[item_id] = item
        self.jobs[item_id] = job
        self.state_changed = True

    def change_job(self, item_id: int, job: Job, before: Job) -> None:
        self._replaced.jobs.setdefault(item_id, before)
        self.jobs[item_id] = job
        self.state_changed = True

    def remove_item(self, item_id: int, job: Job, body_bytes: int) -> None:
        self.state_changed = True
        if self.is_new(item_id):
            del self.items[item_id], self.jobs[item_id]
            return
        self._replaced.jobs.setdefault(item_id, job)
        self.items[item_id] = self.jobs[item_id] = None
        self._gone_bytes += body_bytes

    def is_new(self, item_id: int) -> bool:
        """Whether it was put in this turn, so that nothing of it is on disk."""
        return self.items.get(item_id) is not None

    def add_place(self, kind: int, place: Place, value: bytes) -> None:
        self._replaced.order[kind].setdefault(place, None)
        self.order[kind][place] = value

    def remove_place(self, kind: int, place: Place, value: bytes) -> None:
        self._replaced.order[kind].setdefault(place, value)
        self.order[kind][place] = None

    def set_taken(self, key: bytes, taken: Taken | None, before: Taken | None) -> None:
        self._replaced.keys.setdefault(key, before)
        self.keys[key] = taken
        self.state_changed = True

    def write_flush(self, flush: Flush | None) -> None:
        """In this turn: this flush is being carried out; None: none is."""
        tables, number = self.journal.storage.jobs, self.number
        if flush is None:
            self.journal.also.append(lambda batch: tables.end_flush(batch, number))
        else:
            self.journal.also.append(lambda batch: tables.put_flush(batch, number, flush))

    def write_spared(self, part: int, item_id: int) -> None:
        """In this turn: the flush leaves this item."""
        tables, number = self.journal.storage.jobs, self.number
        self.journal.also.append(lambda batch: tables.spare(batch, number, part, (item_id,)))

    @property
    def replaced_order(self) -> tuple[dict[Place, bytes | None], ...]:
        """By kind, the entries that this turn has changed, as they were; None: there was none."""
        return self._replaced.order

    # -- the end of the turn

    def _write(self, batch: Batch) -> bool:
        """The hook: all that the aside writes in a turn."""
        if self.state_changed or not self.recorded:
            tables, number = self.journal.storage.jobs, self.number
            for order in self._aside.orders:
                tables.put_order(batch, number, order.kind, self.order[order.kind])
                if order.gone >= RECLAIM_ITEMS or (self.reclaim_now and order.gone):
                    with suppress(StorageError):
                        order.first()  # much may have gone from behind the window: the lowest is to be known exactly
                    self._reclaim(batch, order.kind, order.lowest(), order.gone)
                    order.gone = 0
            self._write_records(batch, self.items, self.jobs, self.keys)
            tables.put_state(batch, number, self._aside.state())
            self.recorded = 1
        return True

    def _write_records(
        self, batch: Batch, items: dict[int, Item | None], jobs: dict[int, Job | None], keys: dict[bytes, Taken | None]
    ) -> None:
        tables = self.journal.storage.jobs
        tables.put_items(batch, self.number, items)
        tables.put_jobs(batch, self.number, jobs)
        if keys:
            tables.put_keys(batch, self.number, keys)

    def _reclaim(self, batch: Batch, kind: int, lowest: Place, gone: int) -> None:
        """Much has gone: what is dead at the front goes as a range, and the space is given back."""
        number, dead = self.number, self.journal.dead
        self.journal.storage.jobs.remove_front(batch, number, kind, lowest)
        first, end = (job_records.order_key(number, of, *job_records.LOWEST) for of in (kind, kind + 1))
        dead.add(DeadRange(ORDER_FAMILY, first, end, gone * job_records.ORDER_KEY_BYTES))
        first, end = job_records.number_key(number), job_records.number_key(number + 1)
        record_bytes = records.ITEM_KEY_BYTES + records.ITEM_HEADER_BYTES
        dead.add(DeadRange(ASIDE_FAMILY, first, end, gone * record_bytes + self._gone_bytes))
        dead.add(DeadRange(JOB_FAMILY, first, end, gone * (job_records.JOB_KEY_BYTES + job_records.JOB_BYTES)))
        self._gone_bytes = 0

    def turn_written(self) -> None:
        if self.items or self.jobs or self.keys or any(self.order):
            if self._doubtful:
                self._doubtful.forget(self)
            self._begin()

    def undo_turn(self) -> None:
        """Forget the changes, and keep in mind what the disk has to say instead."""
        doubtful = self._doubtful
        for item_id, item in self.items.items():
            old = None
            if item is None:
                with suppress(StorageError):
                    old = self._stored_item(item_id)
                if old is None:
                    continue  # it cannot be read now: it is there if the turn is not
            doubtful.items.setdefault(item_id, old)
        for item_id in self.jobs:
            doubtful.jobs.setdefault(item_id, self._replaced.jobs.get(item_id))
        for kind, entries in enumerate(self.order):
            for place in entries:
                doubtful.order[kind].setdefault(place, self._replaced.order[kind].get(place))
        for key in self.keys:
            doubtful.keys.setdefault(key, self._replaced.keys.get(key))
        self._begin()

    def recheck(self, batch: Batch) -> None:
        """The database was opened again after a failed write: whatever was left of it, the records are to be what
        memory has. `rechecked` follows when that is written."""
        doubtful = self._doubtful
        tables, flushing = self.journal.storage.jobs, self._aside.flushing
        if flushing is None:
            tables.end_flush(batch, self.number)
        else:
            tables.put_flush(batch, self.number, flushing.flush)
        for kind, entries in enumerate(doubtful.order):
            tables.put_order(batch, self.number, kind, entries)
        self._write_records(batch, doubtful.items, doubtful.jobs, doubtful.keys)
        if not self.touched:
            self._aside.enter_turn()
        self.state_changed = True

    @property
    def is_doubtful(self) -> bool:
        """Whether a failed turn may have left something on disk."""
        return not self.recorded or bool(self._doubtful)

    def rechecked(self) -> None:
        self._doubtful = Changes()

    # -- what has been written

    def places(self, kind: int, begin: Place, most: int) -> list[Place]:
        """Up to `most` places of what is stored, in order, from `begin` on."""
        return self.journal.storage.jobs.places(self.number, kind, begin, most)

    def places_back(self, kind: int, begin: Place, end: Place, most: int) -> list[Place]:
        """Up to `most` places of what is stored in [begin, end), the last one first."""
        return self.journal.storage.jobs.places_back(self.number, kind, begin, end, most)

    def _stored_item(self, item_id: int) -> Item | None:
        return self.journal.storage.jobs.item(self.number, item_id)

    def _stored_job(self, item_id: int) -> Job | None:
        return self.journal.storage.jobs.job(self.number, item_id)

    def _stored_ids(self, begin: int, end: int) -> Iterable[int]:
        return self.journal.storage.jobs.job_ids(self.number, begin, end)

    def _stored_taken(self, key: bytes) -> Taken | None:
        return self.journal.storage.jobs.taken(self.number, key)

    def _stored_at_place(self, kind: int, place: Place) -> bytes | None:
        return self.journal.storage.jobs.at_place(self.number, kind, place)


class MemoryAsideLog(AsideLog):
    """The log of an aside of a queue that is in memory only: its records are kept as a disk would keep them."""

    __slots__ = ("_items", "_jobs", "_places", "_values", "_keys")

    durable: ClassVar = False

    def __init__(self, journal: Journal, aside: "Aside", record: AsideRecord) -> None:
        super().__init__(journal, aside, record)
        self._items: dict[int, Item] = {}
        self._jobs: dict[int, Job] = {}
        self._places = tuple(SortedPlaces() for _ in KINDS)
        self._values: tuple[dict[Place, bytes], ...] = tuple({} for _ in KINDS)
        self._keys: dict[bytes, Taken] = {}

    def enter_turn(self) -> None:
        journal = self.journal
        if not journal.touched:
            journal.time_ms()
        self.touched = True
        self.appended = []
        journal.in_memory.append(self)  # type: ignore[arg-type]  # of which nothing is asked that it has not

    def write_flush(self, flush: Flush | None) -> None:
        """A crash leaves nothing to be gone on with."""

    def write_spared(self, part: int, item_id: int) -> None: ...

    def stored_blobs(self, most_items: int, most_bytes: int) -> Iterator[set[int]]:
        ids = list(self._items)
        for start in range(0, len(ids), most_items):
            items = (self._items.get(item_id) for item_id in ids[start : start + most_items])
            yield {item[0].blob for item in items if item is not None and isinstance(item[0], Blob)}

    def keep(self) -> None:
        """The turn has happened."""
        _apply(self._items, self.items)
        _apply(self._jobs, self.jobs)
        _apply(self._keys, self.keys)
        for places, values, changed in zip(self._places, self._values, self.order, strict=True):
            for place, value in changed.items():
                if value is None:
                    if values.pop(place, None) is not None:
                        places.remove(place)
                else:
                    if place not in values:
                        places.add(place)
                    values[place] = value

    def undo_turn(self) -> None:
        """Nothing is on disk, whatever has been tried."""
        self._begin()

    def recheck(self, batch: Batch) -> None: ...

    def places(self, kind: int, begin: Place, most: int) -> list[Place]:
        return self._places[kind].some_from(begin, most)

    def places_back(self, kind: int, begin: Place, end: Place, most: int) -> list[Place]:
        return [place for place in self._places[kind].some_before(end, most) if place >= begin]

    def _stored_item(self, item_id: int) -> Item | None:
        return self._items.get(item_id)

    def _stored_job(self, item_id: int) -> Job | None:
        return self._jobs.get(item_id)

    def _stored_ids(self, begin: int, end: int) -> Iterable[int]:
        return (item_id for item_id in range(begin, end) if item_id in self._jobs)

    def _stored_taken(self, key: bytes) -> Taken | None:
        return self._keys.get(key)

    def _stored_at_place(self, kind: int, place: Place) -> bytes | None:
        return self._values[kind].get(place)


def _drop(known: dict[_Key, _Value], keys: Iterable[_Key]) -> None:
    for key in keys:
        known.pop(key, None)


def _apply(stored: dict[_Key, _Value], changed: dict[_Key, _Value | None]) -> None:
    for key, value in changed.items():
        if value is None:
            stored.pop(key, None)
        else:
            stored[key] = value
