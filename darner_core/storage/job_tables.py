"""What a data directory keeps of what is set aside from queues' lines, by table; the bytes are `job_records`'.

It knows no rules of queues: what is written when, and what follows from it, is the engine's matter. No call switches
greenlets. Reading raises StorageError.
"""

import struct
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice

from darner_core.errors import StorageError
from darner_core.storage import job_records, records
from darner_core.storage.job_records import AsideRecord, AsideState, Flush, Job, Place, Taken, job_key, order_key
from darner_core.storage.records import Item, item_key
from darner_core.storage.rocks import (
    ASIDE_FAMILY,
    DEFAULT_FAMILY,
    JOB_FAMILY,
    KEY_FAMILY,
    ORDER_FAMILY,
    STATE_FAMILY,
    Batch,
    Rocks,
)


class JobTables:
    """The tables of all asides; `number` is an aside's."""

    def __init__(self, rocks: Rocks) -> None:
        self._rocks = rocks

    # -- which asides there are

    def asides(self) -> list[tuple[bytes, AsideRecord]]:
        """(queue's name, record) of every aside."""
        prefix = job_records.ASIDE_PREFIX
        end = bytes((prefix[0] + 1,))
        with _understood("the list of asides"):
            found = self._rocks.scan(DEFAULT_FAMILY, prefix, end)
            return [(key[len(prefix) :], job_records.unpack_aside(value)) for key, value in found]

    def add_aside(self, batch: Batch, queue: bytes, record: AsideRecord) -> None:
        """Also in the place of an earlier record."""
        value = job_records.pack_aside(record)
        batch.put(job_records.aside_key(queue), value, self._rocks.handles[DEFAULT_FAMILY])

    def remove_aside(self, batch: Batch, queue: bytes, number: int, is_empty: bool) -> None:
        """Remove it and all that is in it. Range deletions cost all who read after them, so there are none if the
        caller knows that it is empty."""
        handles = self._rocks.handles
        batch.delete(job_records.aside_key(queue), handles[DEFAULT_FAMILY])
        batch.delete(job_records.number_key(number), handles[STATE_FAMILY])
        if not is_empty:
            for family, begin, end in (
                (ASIDE_FAMILY, item_key(number, 0), item_key(number + 1, 0)),
                (JOB_FAMILY, job_key(number, 0), job_key(number + 1, 0)),
                (KEY_FAMILY, *job_records.key_bounds(number)),
                (ORDER_FAMILY, order_key(number, 0, 0, 0, 0), order_key(number + 1, 0, 0, 0, 0)),
                (STATE_FAMILY, *job_records.flush_bounds(number)),
            ):
                batch.delete_range(begin, end, handles[family])

    # -- reading: `_understood` takes a fifth of the time of a take, so `item` and `job` go without

    def state(self, number: int) -> AsideState:
        value = self._rocks.get(STATE_FAMILY, job_records.number_key(number))
        with _understood(f"aside number {number}: state"):
            return AsideState() if value is None else job_records.unpack_aside_state(value)

    def item(self, number: int, item_id: int) -> Item | None:
        value = self._rocks.get(ASIDE_FAMILY, item_key(number, item_id))
        try:
            return None if value is None else records.unpack_item(value)
        except _MEANS_NOTHING as error:
            raise StorageError(f"aside number {number}: item {item_id}: {error}") from error

    def flush(self, number: int) -> Flush | None:
        """The flush that is being carried out."""
        with _understood(f"aside number {number}: flush"):
            return job_records.unpack_flush(self._rocks.scan(STATE_FAMILY, *job_records.flush_bounds(number)))

    def items(self, number: int, from_id: int = 0) -> Iterator[tuple[int, Item]]:
        """(id, item) of all that an aside has, in order, from this id on."""
        with _understood(f"aside number {number}: items"):
            for key, value in self._rocks.scan(ASIDE_FAMILY, item_key(number, from_id), item_key(number + 1, 0)):
                yield records.unpack_item_key(key)[1], records.unpack_item(value)

    def job(self, number: int, item_id: int) -> Job | None:
        value = self._rocks.get(JOB_FAMILY, job_key(number, item_id))
        try:
            return None if value is None else job_records.unpack_job(value)
        except _MEANS_NOTHING as error:
            raise StorageError(f"aside number {number}: job {item_id}: {error}") from error

    def job_ids(self, number: int, begin: int, end: int) -> Iterator[int]:
        """The ids in [begin, end) of all that an aside has, in order."""
        for key, _ in self._rocks.scan(JOB_FAMILY, job_key(number, begin), job_key(number, end)):
            yield job_records.unpack_job_key(key)[1]

    def taken(self, number: int, key: bytes) -> Taken | None:
        value = self._rocks.get(KEY_FAMILY, job_records.key_key(number, key))
        with _understood(f"aside number {number}: key {key!r}"):
            return None if value is None else job_records.unpack_taken(value)

    def places(self, number: int, kind: int, begin: Place, most: int) -> list[Place]:
        """Up to `most` places of this kind, in order, from `begin` on."""
        first, end = order_key(number, kind, *begin), order_key(number, kind + 1, 0, 0, 0)
        place_of = job_records.place_of
        with _understood(f"aside number {number}: order"):
            return [place_of(key) for key, _ in islice(self._rocks.scan(ORDER_FAMILY, first, end), most)]

    def places_back(self, number: int, kind: int, begin: Place, end: Place, most: int) -> list[Place]:
        """Up to `most` places of this kind that are in [begin, end), the last one first."""
        first, last = order_key(number, kind, *begin), order_key(number, kind, *end)
        place_of = job_records.place_of
        with _understood(f"aside number {number}: order"):
            entries = self._rocks.scan_back(ORDER_FAMILY, first, last)
            return [place_of(key) for key, _ in islice((entry for entry in entries if entry[0] != last), most)]

    def at_place(self, number: int, kind: int, place: Place) -> bytes | None:
        """The value there; None: there is nothing."""
        return self._rocks.get(ORDER_FAMILY, order_key(number, kind, *place))

    # -- writing: None in the place of a value removes what is there

    def put_state(self, batch: Batch, number: int, state: AsideState) -> None:
        value = job_records.pack_aside_state(state)
        batch.put(job_records.number_key(number), value, self._rocks.handles[STATE_FAMILY])

    def put_flush(self, batch: Batch, number: int, flush: Flush) -> None:
        """In the place of an earlier one."""
        self.end_flush(batch, number)
        batch.put(job_records.flush_key(number, 0), job_records.pack_flush(flush), self._rocks.handles[STATE_FAMILY])
        if flush.spared:
            self.spare(batch, number, 1, flush.spared)

    def spare(self, batch: Batch, number: int, part: int, ids: Collection[int]) -> None:
        """The flush leaves these, too. `part`: a number that no other has; with `put_flush` goes 1."""
        value = job_records.pack_numbers(ids)
        batch.put(job_records.flush_key(number, part), value, self._rocks.handles[STATE_FAMILY])

    def end_flush(self, batch: Batch, number: int) -> None:
        """All has been removed."""
        batch.delete_range(*job_records.flush_bounds(number), self._rocks.handles[STATE_FAMILY])

    def put_items(self, batch: Batch, number: int, items: Mapping[int, Item | None]) -> None:
        handle, pack = self._rocks.handles[ASIDE_FAMILY], records.pack_item
        for item_id, item in items.items():
            if item is None:
                batch.delete(item_key(number, item_id), handle)
            else:
                batch.put(item_key(number, item_id), pack(item), handle)

    def put_jobs(self, batch: Batch, number: int, jobs: Mapping[int, Job | None]) -> None:
        handle, pack = self._rocks.handles[JOB_FAMILY], job_records.pack_job
        for item_id, job in jobs.items():
            if job is None:
                batch.delete(job_key(number, item_id), handle)
            else:
                batch.put(job_key(number, item_id), pack(job), handle)

    def put_order(self, batch: Batch, number: int, kind: int, entries: Mapping[Place, bytes | None]) -> None:
        handle = self._rocks.handles[ORDER_FAMILY]
        for place, value in entries.items():
            if value is None:
                batch.delete(order_key(number, kind, *place), handle)
            else:
                batch.put(order_key(number, kind, *place), value, handle)

    def put_keys(self, batch: Batch, number: int, keys: Mapping[bytes, Taken | None]) -> None:
        handle = self._rocks.handles[KEY_FAMILY]
        for key, taken in keys.items():
            if taken is None:
                batch.delete(job_records.key_key(number, key), handle)
            else:
                batch.put(job_records.key_key(number, key), job_records.pack_taken(taken), handle)

    def remove_front(self, batch: Batch, number: int, kind: int, before: Place) -> None:
        """Remove all places of this kind that are before that one, as a range: nothing is to stay there."""
        begin, end = order_key(number, kind, 0, 0, 0), order_key(number, kind, *before)
        if begin < end:
            batch.delete_range(begin, end, self._rocks.handles[ORDER_FAMILY])


# What bytes raise that mean nothing.
_MEANS_NOTHING = (ValueError, struct.error)


@contextmanager
def _understood(what: str) -> Iterator[None]:
    """Bytes that mean nothing are damage of that."""
    try:
        yield
    except _MEANS_NOTHING as error:
        raise StorageError(f"{what}: {error}") from error
