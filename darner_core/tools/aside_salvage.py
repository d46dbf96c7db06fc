"""Reads what is set aside from queues' lines, without stopping at what cannot be read.

`check`, `repair` and `dump` see asides through this module. It gives every item that can be read, with its job if that
can be read, and knows the ids of items from three tables: `asides`, `jobs` and `order`. Memory grows only with what is
damaged.
"""

from collections.abc import Callable, Container, Iterator
from contextlib import suppress
from struct import error as struct_error
from typing import NamedTuple

from darner_core.showing import show
from darner_core.storage import job_records, opening, records
from darner_core.storage.job_records import (
    BURIED,
    DELAYED,
    DYING,
    FIRST_ASIDE_ID,
    KINDS,
    LOWEST,
    READY,
    WINDOW,
    AsideRecord,
    AsideState,
    Flush,
    Job,
    Place,
    Taken,
)
from darner_core.storage.records import Item
from darner_core.tools.aside_owner import find_owners
from darner_core.tools.salvage import Broken, Gap, IdGap, ListedQueue, Salvaged

Say = Callable[[str], None]
Tell = Callable[[str, str], None]  # where, and what was found there

NO_SENSE = "it makes no sense"
JOB_NO_SENSE = "its job makes no sense"


class Aside(NamedTuple):
    """An aside as it was found. `lost`: its record is lost and the queue's name is made up, because only items are
    left."""

    queue: bytes  # its name
    record: AsideRecord
    lost: bool = False

    @property
    def shown(self) -> str:
        return f"queue {show(self.queue)}: set aside"


class Entry(NamedTuple):
    """What is there of one item. At least one of the two can be read, or there is damage in its place."""

    id: int
    item: Item | Broken | None
    job: Job | Broken | None


def aside_names(directory: Salvaged) -> set[bytes]:
    """The names of queues of which something is set aside, as far as they can be read."""
    if not directory.aside_tables:
        return set()
    size = len(job_records.ASIDE_PREFIX)
    entries = directory.scan(directory.default, job_records.ASIDE_PREFIX, b"k")
    return {entry[0][size:] for entry in entries if not isinstance(entry, Gap)}


def aside_of(directory: Salvaged, queue: bytes, tell: Say) -> AsideRecord | None:
    """What is listed as the aside of this queue."""
    try:
        value = directory.default.get(job_records.aside_key(queue))
        return None if value is None else job_records.unpack_aside(value)
    except Exception as error:
        tell(f"the record of what is set aside cannot be read: {opening.file_named(error)}")
        return None


def find_asides(directory: Salvaged, queues: list[ListedQueue], tell: Say) -> list[Aside]:
    """Every aside that is listed, and those of which only items are left: if there is but one queue to which such a one
    can belong, it does, or if one has the chunks of its large items; else it gets a name that no other has."""
    if not directory.aside_tables:
        return []
    found, damaged = [], []
    for entry in directory.scan(directory.default, job_records.ASIDE_PREFIX, b"k"):
        if isinstance(entry, Gap):
            tell(f"list of asides: {entry.why}")
            continue
        name = entry[0][len(job_records.ASIDE_PREFIX) :]
        try:
            found.append(Aside(name, job_records.unpack_aside(entry[1])))
        except (ValueError, struct_error):
            damaged.append(name)
            tell(f"queue {show(name)}: the record of what is set aside makes no sense")
    listed = {aside.record.number for aside in found}
    numbers = [n for n in directory.numbers(directory.aside_tables[opening.ASIDES]) if n not in listed]
    names = {aside.queue for aside in found}
    may_be = damaged or [queue.name for queue in queues if queue.name not in names]
    owners = find_owners(directory, numbers, [queue for queue in queues if queue.name in may_be])
    for number in numbers:
        if len(numbers) == len(may_be) == 1:
            name, lost = may_be[0], False
            tell(f"aside number {number}: its record is lost; --repair gives it to queue {show(name)}")
        elif number in owners:
            name, lost = owners[number], False
            whose = f"the chunks of its large items are those of queue {show(name)}"
            tell(f"aside number {number}: its record is lost; {whose}, so --repair gives it to that")
        else:
            name, lost = unused_name(number, names | {queue.name for queue in queues}), True
            tell(f"aside number {number}: the name of its queue is lost; --repair calls it {show(name)}")
        found.append(Aside(name, AsideRecord(number, 0), lost))
    return found


def unused_name(number: int, names: Container[bytes]) -> bytes:
    """A name for what has this number and has lost its own."""
    name = b"recovered-%d" % number
    while name in names:
        name += b"-"
    return name


class AsideReader:
    """One aside. `tell` hears of what cannot be read, more than once if it is met more than once."""

    def __init__(self, directory: Salvaged, number: int, tell: Tell) -> None:
        self._directory = directory
        self._tables = directory.aside_tables
        self._number = number
        self._tell = tell
        self.is_damaged = False  # something could not be read
        self._order_gaps: list[Gap] = []  # as the order was read last

    def _found(self, where: str, what: str) -> None:
        self.is_damaged = True
        self._tell(where, what)

    def _get(self, family: str, key: bytes) -> bytes | None:
        try:
            value: bytes | None = self._tables[family].get(key)
        except Exception as error:
            self._found(family, opening.file_named(error))
            return None
        return value

    def _all(
        self, family: str, begin: bytes, end: bytes, gaps: list[Gap] | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """What can be read. Other stretches are told, and added to `gaps`."""
        for entry in self._directory.scan(self._tables[family], begin, end):
            if isinstance(entry, Gap):
                if gaps is not None:
                    gaps.append(entry)
                self._found(family, entry.why)
            else:
                yield entry

    def state(self) -> AsideState | None:
        """None: it cannot be read."""
        damaged, self.is_damaged = self.is_damaged, False
        value = self._get(opening.STATES, job_records.number_key(self._number))
        unreadable, self.is_damaged = self.is_damaged, damaged or self.is_damaged
        try:
            if value is None:
                return None if unreadable else AsideState()
            return job_records.unpack_aside_state(value)
        except struct_error:
            self._found("state", NO_SENSE)
            return None

    def flush(self) -> Flush | None:
        """What has been flushed, and is not removed yet. If not all of its record can be read, nothing is taken to be
        gone: the record tells what stays, too."""
        gaps: list[Gap] = []
        try:
            flush = job_records.unpack_flush(self._all(opening.STATES, *job_records.flush_bounds(self._number), gaps))
        except (ValueError, struct_error):
            self._found("flush", f"{NO_SENSE}: what was flushed may come again")
            return None
        return flush if not gaps else None

    # -- items and their jobs

    def entries(self) -> Iterator[Entry]:
        """All items of which something is left, in order of their ids; behind them those that only `order` tells of."""
        gaps: list[IdGap] = []
        items, jobs = self._items(gaps), self._jobs()
        item, job = next(items, None), next(jobs, None)
        while item is not None or job is not None:
            if job is None or (item is not None and item[0] < job[0]):
                assert item is not None
                yield Entry(*item, self.job(item[0]))
                item = next(items, None)
            elif item is None or job[0] < item[0]:
                yield Entry(job[0], self.item(job[0]), job[1])
                job = next(jobs, None)
            else:
                yield Entry(*item, job[1])
                item, job = next(items, None), next(jobs, None)
        if gaps:
            yield from self._known_by_order(gaps)

    def _items(self, gaps: list[IdGap]) -> Iterator[tuple[int, Item | Broken]]:
        # An aside's own ids are far behind those of items that come from the line.
        for ids in (range(FIRST_ASIDE_ID), range(FIRST_ASIDE_ID, records.MAX_ID)):
            for entry in self._directory.aside_items(self._number, ids):
                if isinstance(entry, IdGap):
                    gaps.append(entry)
                    self._found(opening.ASIDES, entry.why)
                elif isinstance(entry, Broken):
                    self.is_damaged = True
                    yield entry.id, entry
                else:
                    yield entry

    def _known_by_order(self, gaps: list[IdGap]) -> Iterator[Entry]:
        """Items in gaps whose jobs cannot be read either."""
        seen = set()
        for kind, place in self.order():
            item_id = place[2]
            if kind == WINDOW or item_id in seen or not any(gap.from_id <= item_id < gap.to_id for gap in gaps):
                continue
            if self.job(item_id) is None and (item := self.item(item_id)) is not None:
                seen.add(item_id)
                yield Entry(item_id, item, None)

    def item(self, item_id: int) -> Item | Broken | None:
        value = self._get(opening.ASIDES, records.item_key(self._number, item_id))
        try:
            return None if value is None else records.unpack_item(value)
        except (ValueError, struct_error) as error:
            return Broken(item_id, str(error))

    def _jobs(self) -> Iterator[tuple[int, Job | Broken]]:
        number = self._number
        for key, value in self._all(opening.JOBS, job_records.job_key(number, 0), job_records.job_key(number + 1, 0)):
            item_id = job_records.unpack_job_key(key)[1]
            yield item_id, self._unpacked_job(item_id, value)

    def job(self, item_id: int) -> Job | Broken | None:
        """None: it is not there, or cannot be read."""
        value = self._get(opening.JOBS, job_records.job_key(self._number, item_id))
        return None if value is None else self._unpacked_job(item_id, value)

    def _unpacked_job(self, item_id: int, value: bytes) -> Job | Broken:
        try:
            return job_records.unpack_job(value)
        except (ValueError, struct_error) as error:
            self.is_damaged = True
            return Broken(item_id, str(error))

    # -- order and keys

    def in_order(self) -> Iterator[tuple[Entry, int]]:
        """(entry, kind) of each item, in the order in which they go out; behind them those that the order lacks, though
        it should tell of them. What has been flushed is left out."""
        state, shown = self.state(), 0
        flush, jobless = self.flush(), set()
        for kind, place in self.order():
            if kind != WINDOW:
                shown += 1
                if flush is not None and kind != BURIED and flush.takes(place):
                    continue
                entry = Entry(place[2], self.item(place[2]), self.job(place[2]))
                if not isinstance(entry.job, Job):
                    jobless.add(entry.id)
                yield entry, kind
        if state is not None and not self.is_damaged and shown == sum(front.entries for front in state.fronts[:WINDOW]):
            return
        for entry in self.entries():
            if not isinstance(entry.job, Job):
                if entry.id not in jobless:
                    yield entry, READY
                continue
            kind, place = place_of(entry.id, entry.job)
            if self.has_become_due(entry.id, entry.job):
                kind, place = READY, (entry.job.pri, entry.job.place, entry.id)
            if not self._was_passed(kind, place) and not (flush is not None and flush.takes_job(entry.id, entry.job)):
                yield entry, kind

    def _was_passed(self, kind: int, place: Place) -> bool:
        """Whether this is in the order, and not in a gap of it."""
        key = job_records.order_key(self._number, kind, *place)
        in_gap = any(gap.after < key and (gap.resumes is None or key < gap.resumes) for gap in self._order_gaps)
        return not in_gap and self.is_at(kind, place)

    def is_at(self, kind: int, place: Place) -> bool:
        return self._get(opening.ORDER, job_records.order_key(self._number, kind, *place)) is not None

    def has_become_due(self, item_id: int, job: Job) -> bool:
        """Whether it was delayed, and lies among the ready now."""
        return job.state == DELAYED and self.is_at(READY, (job.pri, job.place, item_id))

    def order(self) -> Iterator[tuple[int, Place]]:
        """(kind, place) of each entry that can be read, in order; those of no known kind are told."""
        for kind, place, _ in self.order_entries():
            yield kind, place

    def windows(self) -> Iterator[tuple[Place, bytes]]:
        """(place, key) of each key whose item is gone."""
        for kind, place, key in self.order_entries(WINDOW):
            if kind == WINDOW:
                yield place, key
        if not self._order_gaps:
            return
        for _, value in self._all(opening.KEYS, *job_records.key_bounds(self._number)):
            with suppress(struct_error):
                taken = job_records.unpack_taken(value)
                place = taken.until_ms, 0, taken.id
                if taken.until_ms and not self._was_passed(WINDOW, place):
                    found = self._get(opening.ORDER, job_records.order_key(self._number, WINDOW, *place))
                    if found is not None:
                        yield place, found

    def order_entries(self, from_kind: int = READY) -> Iterator[tuple[int, Place, bytes]]:
        """As `order`, with the values: a window's is its key."""
        begin = job_records.order_key(self._number, from_kind, *LOWEST)
        end = job_records.order_key(self._number + 1, READY, *LOWEST)
        self._order_gaps.clear()
        for key, value in self._all(opening.ORDER, begin, end, self._order_gaps):
            _, kind, place = job_records.unpack_order_key(key)
            if kind in KINDS:
                yield kind, place, value
            else:
                self._found("order", "an entry of unknown kind")

    def taken(self, key: bytes) -> Taken | None:
        """By whom this key is taken, if that can be read."""
        value = self._get(opening.KEYS, job_records.key_key(self._number, key))
        try:
            return None if value is None else job_records.unpack_taken(value)
        except struct_error:
            return None

    def count_keys(self) -> int:
        return sum(1 for _ in self._all(opening.KEYS, *job_records.key_bounds(self._number)))


def place_of(item_id: int, job: Job) -> tuple[int, Place]:
    """(kind, place) of an item whose job record says this, unless it has become due since."""
    if job.state in (READY, DYING):
        return READY, (job.pri, job.place, item_id)
    return job.state, (job.at, job.place if job.state == DELAYED else 0, item_id)


class LineJobs:
    """Jobs of items that are in the line of queue `number`: those that have failed."""

    def __init__(self, directory: Salvaged, number: int) -> None:
        self._all = _line_jobs(directory, number)
        self._next = next(self._all, None)
        self.has_any = self._next is not None

    def of(self, item_id: int) -> Job | None:
        """To be called for items in order of their ids."""
        while self._next is not None and self._next[0] < item_id:
            self._next = next(self._all, None)
        return self._next[1] if self._next is not None and self._next[0] == item_id else None


def _line_jobs(directory: Salvaged, number: int) -> Iterator[tuple[int, Job]]:
    """Those that can be read and make sense, in order."""
    if opening.JOBS not in directory.aside_tables:
        return
    begin, end = job_records.job_key(number, 0), job_records.job_key(number + 1, 0)
    for entry in directory.scan(directory.aside_tables[opening.JOBS], begin, end):
        if not isinstance(entry, Gap):
            with suppress(ValueError, struct_error):
                yield job_records.unpack_job_key(entry[0])[1], job_records.unpack_job(entry[1])
