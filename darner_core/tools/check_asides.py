"""What is wrong with what is set aside from queues' lines: each item has its job, its place in the order and its key,
and the state tells of as many as there are."""

from collections import Counter
from collections.abc import Callable, Iterator
from struct import error as struct_error
from typing import NamedTuple

from darner_core.showing import show
from darner_core.storage import job_records, opening, records
from darner_core.storage.job_records import DELAYED, KINDS, LOWEST, READY, WINDOW, AsideRecord, AsideState, Job, Place
from darner_core.storage.records import Blob
from darner_core.tools.salvage import Gap, Salvaged

Say = Callable[[str], None]

# Findings of one kind that are told one by one; of the others only how many there are.
MOST_TOLD = 10


class Aside(NamedTuple):
    queue: bytes
    record: AsideRecord


class Checked:
    """What has been found of one aside: items and bytes that can be read, and the large items."""

    def __init__(self) -> None:
        self.items = 0
        self.bytes = 0
        self.blobs: set[int] = set()


def find_asides(directory: Salvaged, tell: Say) -> Iterator[Aside]:
    """Every aside that is listed."""
    for entry in directory.scan(directory.default, job_records.ASIDE_PREFIX, b"k"):
        if isinstance(entry, Gap):
            tell(f"list of asides: {entry.why}")
            continue
        name = entry[0][len(job_records.ASIDE_PREFIX) :]
        try:
            yield Aside(name, job_records.unpack_aside(entry[1]))
        except struct_error:
            tell(f"queue {show(name)}: the record of what is set aside makes no sense")


def check_aside(directory: Salvaged, aside: Aside, tell: Say) -> Checked:
    """Tell all that is wrong with it."""
    return _Check(directory, aside, tell).run()


class _Check:
    def __init__(self, directory: Salvaged, aside: Aside, tell: Say) -> None:
        self._tables = directory.aside_tables
        self._scan = directory.scan
        self._number = aside.record.number
        self._queue = show(aside.queue)
        self._tell = tell
        self._told: Counter[str] = Counter()  # how often each kind of finding was met
        self._checked = Checked()
        self._entries = dict.fromkeys(KINDS, 0)
        self._keys = 0

    def run(self) -> Checked:
        state = self._state()
        for item_id, job in self._jobs():
            self._check_job(item_id, job)
        self._check_items()
        lowest = self._check_order()
        self._check_keys()
        if state is not None:
            self._compare(state, lowest)
        for what, count in self._told.items():
            if count > MOST_TOLD:
                self._tell(f"queue {self._queue}: set aside: {count - MOST_TOLD} more: {what}")
        return self._checked

    def _found(self, where: str, what: str) -> None:
        self._told[what] += 1
        if self._told[what] <= MOST_TOLD:
            self._tell(f"queue {self._queue}: set aside: {where}: {what}")

    def _get(self, family: str, key: bytes) -> bytes | None:
        try:
            value: bytes | None = self._tables[family].get(key)
        except Exception as error:
            self._found(family, opening.file_named(error))
            return None
        return value

    def _all(self, family: str, begin: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """What can be read."""
        for entry in self._scan(self._tables[family], begin, end):
            if isinstance(entry, Gap):
                self._found(family, entry.why)
            else:
                yield entry

    def _state(self) -> AsideState | None:
        value = self._get(opening.STATES, job_records.number_key(self._number))
        try:
            return AsideState() if value is None else job_records.unpack_aside_state(value)
        except struct_error:
            self._found("state", "it makes no sense")
            return None

    def _jobs(self) -> Iterator[tuple[int, Job]]:
        number = self._number
        for key, value in self._all(opening.JOBS, job_records.job_key(number, 0), job_records.job_key(number + 1, 0)):
            item_id = job_records.unpack_job_key(key)[1]
            try:
                yield item_id, job_records.unpack_job(value)
            except (ValueError, struct_error):
                self._found(f"item {item_id}", "its job makes no sense")

    def _check_job(self, item_id: int, job: Job) -> None:
        where = f"item {item_id}"
        value = self._get(opening.ASIDES, records.item_key(self._number, item_id))
        try:
            body = records.unpack_item(value)[0] if value is not None else None
        except (ValueError, struct_error):
            self._found(where, "it makes no sense")
        else:
            if body is None:
                self._found(where, "its job is there, and not the item")
            else:
                self._checked.items += 1
                self._checked.bytes += len(body)
                if isinstance(body, Blob):
                    self._checked.blobs.add(body.blob)
        if not any(self._is_at(kind, place) for kind, place in _places(item_id, job)):
            self._found(where, "it is nowhere in the order")
        if job.key:
            self._keys += 1
            taken = self._get(opening.KEYS, job_records.key_key(self._number, job.key))
            if taken is None or taken[:8] != item_id.to_bytes(8):
                self._found(where, "its key is not taken by it")

    def _is_at(self, kind: int, place: Place) -> bool:
        return self._get(opening.ORDER, job_records.order_key(self._number, kind, *place)) is not None

    def _check_items(self) -> None:
        number = self._number
        for key, _ in self._all(opening.ASIDES, records.item_key(number, 0), records.item_key(number + 1, 0)):
            item_id = records.unpack_item_key(key)[1]
            if self._get(opening.JOBS, job_records.job_key(number, item_id)) is None:
                self._found(f"item {item_id}", "its job is missing")

    def _check_order(self) -> dict[int, Place]:
        """The lowest place of each kind that has any."""
        lowest: dict[int, Place] = {}
        first, end = (job_records.order_key(self._number + more, 0, *LOWEST) for more in (0, 1))
        for key, _ in self._all(opening.ORDER, first, end):
            _, kind, place = job_records.unpack_order_key(key)
            if kind not in KINDS:
                self._found("order", "an entry of unknown kind")
                continue
            self._entries[kind] += 1
            lowest.setdefault(kind, place)
            if kind == WINDOW:
                continue
            value = self._get(opening.JOBS, job_records.job_key(self._number, place[2]))
            try:
                if value is None or (kind, place) not in _places(place[2], job_records.unpack_job(value)):
                    self._found(f"item {place[2]}", "it is at a place in the order that is not its own")
            except (ValueError, struct_error):
                pass  # which has been told
        return lowest

    def _check_keys(self) -> None:
        found = sum(1 for _ in self._all(opening.KEYS, *job_records.key_bounds(self._number)))
        if found != self._keys + self._entries[WINDOW]:
            self._found("keys", f"{found} are taken, {self._keys + self._entries[WINDOW]} should be")

    def _compare(self, state: AsideState, lowest: dict[int, Place]) -> None:
        for kind, front in enumerate(state.fronts):
            if front.entries != self._entries[kind]:
                what = f"it tells of {front.entries} entries of kind {kind}, {self._entries[kind]} are there"
                self._found("state", what)
            elif kind in lowest and lowest[kind] < front.lowest:
                self._found("state", f"it tells of a lowest place of kind {kind} that others are before")
        if state.bytes != self._checked.bytes:
            self._found("state", f"it tells of {state.bytes} bytes in items, {self._checked.bytes} are there")


def _places(item_id: int, job: Job) -> list[tuple[int, Place]]:
    """Where an item may be whose job says this."""
    ready = READY, (job.pri, job.place, item_id)
    if job.state == READY:
        return [ready]
    if job.state == DELAYED:
        return [(DELAYED, (job.at, job.place, item_id)), ready]  # it may have become due
    return [(job.state, (job.at, 0, item_id))]
