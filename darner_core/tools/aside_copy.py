"""What is set aside from one queue's line, on its way into a repaired directory.

An item keeps its id, and its place in the order of arrival, because the line keeps its ids, too. The order, the keys
and the state are made anew from the jobs. Of an item whose job is lost the order may still tell the state and the
place; else it is ready, and of neutral priority.
"""

from collections import Counter
from collections.abc import Callable

from darner_core.storage import job_records, records
from darner_core.storage.job_records import (
    BURIED,
    DELAYED,
    FIRST_ASIDE_ID,
    FIRST_FRONT_PLACE,
    HIGHEST,
    KINDS,
    NEUTRAL_PRI,
    READY,
    WINDOW,
    AsideState,
    Front,
    Job,
    Place,
    Taken,
)
from darner_core.storage.records import Blob, Item
from darner_core.storage.rocks import (
    ASIDE_FAMILY,
    DEFAULT_FAMILY,
    JOB_FAMILY,
    KEY_FAMILY,
    ORDER_FAMILY,
    STATE_FAMILY,
)
from darner_core.tools.aside_salvage import Aside, AsideReader, Entry, place_of
from darner_core.tools.check import Counts, Say
from darner_core.tools.check_asides import lost_items
from darner_core.tools.salvage import Broken, Salvaged

Put = Callable[[int, bytes, bytes], None]  # family, key, value
CopyBlob = Callable[[Blob], Blob]

_Key = tuple[int, bytes]


class CopiedAside:
    """`line_tail`: no item of the line that is put from now on may have a lower id, or it would go out too early."""

    def __init__(
        self, source: Salvaged, aside: Aside, number: int, shown: str, put: Put, copy_blob: CopyBlob, say: Say
    ) -> None:
        """`number`: the aside's new one. `copy_blob` copies a large item, all or nothing, and raises ValueError if it
        cannot be read."""
        self.counts = Counts()
        self.line_tail = records.FIRST_ID
        self._reader = AsideReader(source, aside.record.number, lambda where, what: None)  # `examine` has told it
        self._number = number
        self._shown = shown
        self._put_record = put
        self._copy_blob = copy_blob
        self._say = say
        self._urgent = 0
        self._fronts = [Front(0, HIGHEST) for _ in KINDS]
        self._new_id = FIRST_ASIDE_ID
        self._next_burying = 1
        self._last_place = 0  # of the items that were put aside, whose ids follow the order of their arrival
        self._flush = self._reader.flush()  # what it takes goes no further
        self._flushed = self._jobs_alone = self._unreadable_large = 0
        self._jobless: dict[int, int] = {}  # by id where the item may stand in the order of arrival
        self._said: Counter[str] = Counter()

    def run(self) -> None:
        state = self._reader.state()
        if state is not None:
            self._new_id, self._next_burying = state.next_id, state.next_burying
        self._windows(state)  # first, because an item that has the key all the same goes before
        for entry in self._reader.entries():
            self._entry(entry)
        if self._jobless:
            self._add_jobless()
        counts = self.counts
        saved = counts.items + self._flushed
        counts.lost = lost_items(state, saved, self._jobs_alone + self._unreadable_large)
        counts.missing = 0 if self._reader.is_damaged else counts.lost - self._unreadable_large
        counts.stateless = int(state is None or bool(self._said))
        fronts = tuple(front if front.entries else Front() for front in self._fronts)
        new_state = AsideState(self._new_id, self._next_burying, counts.bytes, fronts, self._urgent)
        self._put_record(STATE_FAMILY, job_records.number_key(self._number), job_records.pack_aside_state(new_state))
        for what, count in self._said.items():
            self._say(f"queue {self._shown}: set aside: {count} {what}")
        if counts.lost or self._said:
            self._say(f"queue {self._shown}: set aside: {counts.items} items saved, {counts.lost} dropped")

    def _entry(self, entry: Entry) -> None:
        item_id, item, job = entry
        known = isinstance(job, Job)
        if isinstance(job, Job):
            self._heed(item_id, job)
        if item is None or isinstance(item, Broken):
            self._jobs_alone += known
        elif isinstance(job, Job) and self._flush is not None and self._flush.takes_job(item_id, job):
            self._flushed += 1
        elif isinstance(job, Job):
            self._add(item_id, item, job)
        else:
            self._jobless[item_id] = 2 * item_id + 1 if item_id < FIRST_ASIDE_ID else self._last_place

    def _add_jobless(self) -> None:
        """Items whose jobs are lost."""
        for kind, place in self._reader.order():
            first, second, item_id = place
            if kind == WINDOW or item_id not in self._jobless:
                continue
            arrival = self._jobless.pop(item_id)
            if self._flush is not None and kind != BURIED and self._flush.takes(place):
                self._flushed += 1
                continue
            if kind == READY:
                job = Job(READY, first, second)
            else:
                job = Job(kind, NEUTRAL_PRI, second if kind == DELAYED else arrival, first)
            self._add_jobless_one(item_id, job, "items have lost their jobs, but not their places in the order")
        for item_id, arrival in self._jobless.items():
            job = Job(READY, NEUTRAL_PRI, arrival)
            self._add_jobless_one(item_id, job, "items have lost their jobs, and are ready, with priority 1024")

    def _add_jobless_one(self, item_id: int, job: Job, what: str) -> None:
        item = self._reader.item(item_id)
        if item is not None and not isinstance(item, Broken):
            self._said[what] += 1
            self._heed(item_id, job)
            self._add(item_id, item, job)

    def _heed(self, item_id: int, job: Job) -> None:
        """Nothing that is put later may be taken for this item, or come before it."""
        self._new_id = max(self._new_id, item_id + 1)
        moved = item_id + 1 if item_id < FIRST_ASIDE_ID else 0
        self.line_tail = max(self.line_tail, moved)
        if job.place < FIRST_FRONT_PLACE:
            self.line_tail = max(self.line_tail, (job.place + 1) // 2)
        if job.state == BURIED:
            self._next_burying = max(self._next_burying, job.at + 1)
        if item_id >= FIRST_ASIDE_ID and job.place < FIRST_FRONT_PLACE:
            self._last_place = job.place

    def _owns(self, item_id: int, key: bytes) -> bool:
        """Whether it has this key: nothing says that another item has it."""
        taken = self._reader.taken(key)
        if taken is None or taken.id == item_id or taken.until_ms:
            return True
        other = self._reader.job(taken.id)
        return not isinstance(other, Job) or other.key != key

    def _add(self, item_id: int, item: Item, job: Job) -> None:
        number, body = self._number, item[0]
        if isinstance(body, Blob):
            try:
                item = (self._copy_blob(body), *item[1:])
            except ValueError:
                self._unreadable_large += 1
                return
        if job.key and not self._owns(item_id, job.key):
            self._said["items have lost their keys, which others have"] += 1
            job = job._replace(key=b"")
        self._put_record(ASIDE_FAMILY, records.item_key(number, item_id), records.pack_item(item))
        self._put_record(JOB_FAMILY, job_records.job_key(number, item_id), job_records.pack_job(job))
        kind, place = place_of(item_id, job)
        if kind == DELAYED and self._reader.has_become_due(item_id, job):
            kind, place = READY, (job.pri, job.place, item_id)
        self._order(kind, place)
        if job.key:
            self._take(job.key, Taken(item_id))
        if item[2]:
            self._put_record(DEFAULT_FAMILY, records.expiry_key(item[2], number, item_id), b"")
        self.counts.items += 1
        self.counts.bytes += len(item[0])

    def _order(self, kind: int, place: Place, value: bytes = b"") -> None:
        self._put_record(ORDER_FAMILY, job_records.order_key(self._number, kind, *place), value)
        entries, lowest = self._fronts[kind]
        self._fronts[kind] = Front(entries + 1, min(lowest, place))
        self._urgent += kind == READY and place[0] < NEUTRAL_PRI

    def _take(self, key: bytes, taken: Taken) -> None:
        self._put_record(KEY_FAMILY, job_records.key_key(self._number, key), job_records.pack_taken(taken))

    def _windows(self, state: AsideState | None) -> None:
        """Keys that stay taken though their items are gone."""
        for place, key in self._reader.windows():
            taken = self._reader.taken(key)
            if taken is None or taken == Taken(place[2], place[0]):  # else it is another item's meanwhile
                self._order(WINDOW, place, key)
                self._take(key, Taken(place[2], place[0]))
        if state is not None and (lost := state.fronts[WINDOW].entries - self._fronts[WINDOW].entries) > 0:
            self._said["keys whose items are gone are free earlier"] += lost
