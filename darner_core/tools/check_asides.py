"""What is wrong with what is set aside from queues' lines: each item has its job, its place in the order and its key,
and the state tells of as many as there are."""

from collections import Counter
from collections.abc import Callable

from darner_core.storage.job_records import (
    BURIED,
    DELAYED,
    KINDS,
    NEUTRAL_PRI,
    READY,
    WINDOW,
    AsideState,
    Job,
    Place,
    Taken,
)
from darner_core.storage.records import Blob
from darner_core.tools.aside_salvage import JOB_NO_SENSE, NO_SENSE, Aside, AsideReader, Entry, place_of
from darner_core.tools.salvage import Broken, Salvaged

Say = Callable[[str], None]
ReadBlob = Callable[[Blob], None]

# Findings of one kind that are told one by one; of the others only how many there are.
MOST_TOLD = 10


class Checked:
    """What has been found of one aside: items and bytes that can be read, and items that are known to be lost."""

    def __init__(self) -> None:
        self.items = 0
        self.bytes = 0
        self.lost = 0


def check_aside(directory: Salvaged, aside: Aside, read_blob: ReadBlob, tell: Say) -> Checked:
    """Tell all that is wrong with it. `read_blob` is called with each large item, and raises ValueError if not all of
    it can be read."""
    return _Check(directory, aside, read_blob, tell).run()


def lost_items(state: AsideState | None, saved: int, jobs_alone: int) -> int:
    """How many items are known to be lost, if so many are saved, and so many have nothing but a job."""
    known = sum(state.fronts[kind].entries for kind in (READY, DELAYED, BURIED)) if state is not None else 0
    return max(jobs_alone, known - saved)


class _Check:
    def __init__(self, directory: Salvaged, aside: Aside, read_blob: ReadBlob, tell: Say) -> None:
        self._reader = AsideReader(directory, aside.record.number, self._found)
        self._shown = aside.shown
        self._read_blob = read_blob
        self._tell = tell
        self._told: Counter[str] = Counter()  # how often each kind of finding was met
        self._checked = Checked()
        self._stored_bytes = 0
        self._jobs_alone = 0
        self._flushed = 0  # items that are gone, and not removed yet
        self._entries = dict.fromkeys(KINDS, 0)
        self._urgent = 0
        self._keys = 0
        self._flush = self._reader.flush()

    def run(self) -> Checked:
        state = self._reader.state()
        for entry in self._reader.entries():
            self._check_entry(entry)
        lowest = self._check_order()
        self._check_keys()
        if state is not None:
            self._compare(state, lowest)
        self._checked.lost = lost_items(state, self._checked.items + self._flushed, self._jobs_alone)
        for what, count in self._told.items():
            if count > MOST_TOLD:
                self._tell(f"{self._shown}: {count - MOST_TOLD} more: {what}")
        return self._checked

    def _found(self, where: str, what: str) -> None:
        self._told[what] += 1
        if self._told[what] <= MOST_TOLD:
            self._tell(f"{self._shown}: {where}: {what}")

    def _check_entry(self, entry: Entry) -> None:
        where = f"item {entry.id}"
        if isinstance(entry.item, Broken):
            self._found(where, NO_SENSE)
        elif entry.item is None:
            self._found(where, "its job is there, and not the item")
        else:
            self._count(where, entry.item[0], self._is_flushed(entry))
        if isinstance(entry.job, Job):
            self._jobs_alone += isinstance(entry.item, Broken) or entry.item is None
            self._check_job(entry.id, entry.job)
        else:
            self._found(where, "its job is missing" if entry.job is None else JOB_NO_SENSE)

    def _is_flushed(self, entry: Entry) -> bool:
        return self._flush is not None and isinstance(entry.job, Job) and self._flush.takes_job(entry.id, entry.job)

    def _count(self, where: str, body: bytes | Blob, is_flushed: bool) -> None:
        self._stored_bytes += len(body)
        try:
            if isinstance(body, Blob):
                self._read_blob(body)
        except ValueError as error:
            self._found(where, f"large item: {error}")
            return
        if is_flushed:
            self._flushed += 1
            return
        self._checked.items += 1
        self._checked.bytes += len(body)

    def _check_job(self, item_id: int, job: Job) -> None:
        where = f"item {item_id}"
        if not any(self._reader.is_at(kind, place) for kind, place in _places(item_id, job)):
            self._found(where, "it is nowhere in the order")
        if job.key:
            self._keys += 1
            taken = self._reader.taken(job.key)
            if taken is None or taken.id != item_id:
                self._found(where, "its key is not taken by it")

    def _check_order(self) -> dict[int, Place]:
        """The lowest place of each kind that has any."""
        lowest: dict[int, Place] = {}
        for kind, place, key in self._reader.order_entries():
            self._entries[kind] += 1
            self._urgent += kind == READY and place[0] < NEUTRAL_PRI
            lowest.setdefault(kind, place)
            if kind == WINDOW:
                if self._reader.taken(key) != Taken(place[2], place[0]):
                    what = "it is gone, and its key is not taken for as long as the order tells"
                    self._found(f"item {place[2]}", what)
                continue
            job = self._reader.job(place[2])
            if not isinstance(job, Broken) and (job is None or (kind, place) not in _places(place[2], job)):
                self._found(f"item {place[2]}", "it is at a place in the order that is not its own")
        return lowest

    def _check_keys(self) -> None:
        found = self._reader.count_keys()
        if found != self._keys + self._entries[WINDOW]:
            self._found("keys", f"{found} are taken, {self._keys + self._entries[WINDOW]} should be")

    def _compare(self, state: AsideState, lowest: dict[int, Place]) -> None:
        for kind, front in enumerate(state.fronts):
            if front.entries != self._entries[kind]:
                what = f"it tells of {front.entries} entries of kind {kind}, {self._entries[kind]} are there"
                self._found("state", what)
            elif kind in lowest and lowest[kind] < front.lowest:
                self._found("state", f"it tells of a lowest place of kind {kind} that others are before")
        if state.urgent != self._urgent:
            self._found("state", f"it tells of {state.urgent} urgent items, {self._urgent} are there")
        if state.bytes != self._stored_bytes:
            self._found("state", f"it tells of {state.bytes} bytes in items, {self._stored_bytes} are there")


def _places(item_id: int, job: Job) -> list[tuple[int, Place]]:
    """Where an item may be whose job says this."""
    places = [place_of(item_id, job)]
    if job.state == DELAYED:
        places.append((READY, (job.pri, job.place, item_id)))  # it may have become due
    return places
