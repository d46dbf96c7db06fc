"""The asides by queue: which there are, making and removing them, and reading them back.

An aside is made in the turn in which its queue first needs it, and goes with its queue.

No call here switches greenlets.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from darner_core import NAME
from darner_core.engines.local import aside_flushing, job_rules, lines, reads, window
from darner_core.engines.local.aside import Aside
from darner_core.engines.local.aside_parts import Watcher
from darner_core.engines.local.damaged_queue import why_damaged
from darner_core.engines.local.dead_ranges import DeadRange
from darner_core.engines.local.job_queue import PLAIN
from darner_core.engines.local.job_rules import JobRules
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.reads import OpenRead
from darner_core.errors import ServerError, StorageError
from darner_core.showing import show
from darner_core.storage import job_records, records
from darner_core.storage.job_records import (
    FIRST_FRONT_PLACE,
    LAST_FRONT_PLACE,
    NEUTRAL_PRI,
    AsideRecord,
    AsideState,
    Job,
)
from darner_core.storage.records import Blob, Item
from darner_core.storage.rocks import ASIDE_FAMILY, JOB_FAMILY, ORDER_FAMILY
from darner_core.storage.storage import Batch

log = logging.getLogger(NAME)

DEAD_BYTES = 1 << 20  # less is not looked for at the start
FIRST_KEY, LAST_KEY = b"", b"\xff" * 40


class Asides:
    """Those of all queues, by their queues and, as hints of expiry name them, by their numbers."""

    def __init__(
        self,
        journal: Journal,
        new_number: Callable[[], int],
        watcher: Watcher,
        rules: Callable[[MessageQueue], JobRules] = job_rules.of_options,
        dead_letter: Callable[[Aside, Item, Job], bool] | None = None,
        expire_to: Callable[[Aside, Item], None] | None = None,
        settle: Callable[[MessageQueue], None] = lambda queue: None,
    ) -> None:
        """`rules` tells what a queue's options say of jobs. `settle` is called with a queue that may have to work
        another way, because `has_jobs` may answer otherwise than before. For the others see `Aside`."""
        self.by_queue: dict[MessageQueue, Aside] = {}
        self.by_number: dict[int, Aside] = {}
        # By the names of queues: asides that cannot be read, or whose queues cannot.
        self.damaged: dict[bytes, tuple[AsideRecord, StorageError]] = {}
        self._unmade: dict[int, bytes] = {}  # what failed turns may have left: asides' numbers and queues' names
        self.large_dead: list[OpenRead] = []  # large dead letters on their way, see `moving`
        self._journal = journal
        self._new_number = new_number
        self._watcher = watcher
        self._rules = rules
        self.dead_letter = dead_letter
        self._expire_to = expire_to
        self._settle = settle

    def read_back(self, queues: Mapping[bytes, MessageQueue]) -> set[int]:
        """Read every aside back; their numbers. Raises StorageError if it cannot be read which there are."""
        numbers = set()
        storage = self._journal.storage
        for name, record in storage.jobs.asides():
            numbers.add(record.number)
            queue = queues.get(name)
            if queue is None or queue.unreadable:  # damage has taken its queue, or may be repaired together with it
                self.damaged[name] = record, StorageError(f"what is set aside of queue {show(name)} waits for a repair")
                continue
            try:
                state, flush = storage.jobs.state(record.number), storage.jobs.flush(record.number)
                if flush is not None:
                    _ = queue.large_items  # may raise: before the aside is added
                aside_flushing.read_back(self._add(queue, record, state), flush)
                self._settle(queue)
            except StorageError as error:
                self.damaged[name] = record, error
                self._settle(queue)  # it tells of the damage
                log.error("queue %s: what is set aside cannot be read: %s", show(name), error)
        return numbers

    def of(self, queue: MessageQueue) -> Aside:
        """That of this queue, made in this turn if there is none. Raises StorageError if it is damaged."""
        aside = self.by_queue.get(queue)
        if aside is not None:
            return aside
        self.require(queue)
        record = AsideRecord(self._new_number(), self._journal.time_ms())
        aside = self._add(queue, record, AsideState() if queue.log.durable else None)
        self._write_record(aside)
        self._journal.undo.append((self._unmake, aside, queue))
        return aside

    def record_of(self, queue: MessageQueue) -> AsideRecord:
        """With the terms of the queue's line."""
        aside = self.by_queue.get(queue)
        return aside.record if aside is not None else PLAIN

    def require(self, queue: MessageQueue) -> None:
        """Raises StorageError if what lies aside of this queue cannot be read."""
        if queue.name in self.damaged:
            raise self.damaged[queue.name][1]

    def damage_of(self, queue: MessageQueue) -> str:
        """Why what lies aside of this queue cannot be read, or not all of it; "": it can."""
        aside, damaged = self.by_queue.get(queue), self.damaged.get(queue.name)
        return aside.damage if aside is not None else why_damaged(queue.name, damaged[1]) if damaged is not None else ""

    def has_jobs(self, queue: MessageQueue) -> bool:
        """Whether this has to be a JobQueue."""
        options, aside = queue.options, self.by_queue.get(queue)
        if options.max_deliveries or options.dead_letter_queue or options.retry_delay_s or queue.name in self.damaged:
            return True
        if aside is None:
            return False
        record = aside.record
        return bool(aside.items or aside.awaits_items or aside.paused or record.pri != NEUTRAL_PRI or record.ttr_ms)

    def enter(self, queue: MessageQueue) -> Aside:
        """The aside of this queue, into which something is about to be put: who waits there is to be served of it."""
        aside = self.of(queue)
        aside.awaits_items = True
        if not queue.counts_failures:
            self._settle(queue)
        return aside

    def put(
        self,
        queue: MessageQueue,
        body: bytes | Blob,
        flags: int,
        expires_at_ms: int,
        pri: int = NEUTRAL_PRI,
        delay_ms: int = 0,
        ttr_ms: int = 0,
        key: bytes = b"",
        note: bytes = b"",
        place: int = -1,
    ) -> int:
        """Put an item into the aside of this queue, which has been entered; its id. `place`: in the order of arrival,
        if not behind all others."""
        self._journal.count(queue, "first_tail", -1)  # `total_items` counts from there
        if place < 0:
            place = 2 * queue.tail
        return self.by_queue[queue].put(body, flags, expires_at_ms, pri, place, delay_ms, ttr_ms, key, note)

    def before_all(self, queue: MessageQueue) -> tuple[int, int]:
        """(priority, place) before all that the queue holds, but for what is delayed or buried: what is open may come
        back. The first such item gets the priority before that of the head, the next ones the places before it. Raises
        StorageError, or ServerError if the head has priority 0."""
        aside, record = self.by_queue.get(queue), self.record_of(queue)
        lowest = []
        if reads.stored_items(queue):
            lowest.append((record.pri, 2 * queue.first_id() + 1))
        if aside is not None and aside.ready.entries:
            aside.reading(aside.ready.first)  # so that the lowest is known
            lowest.append(aside.ready.lowest()[:2])
        pri, place = min(lowest, default=(record.pri, 0))
        if place > FIRST_FRONT_PLACE:
            return pri, place - 1
        if not pri:
            raise ServerError(f"nothing can be put before the head of queue {show(queue.name)}: its priority is 0")
        return pri - 1, LAST_FRONT_PLACE

    def change_terms(self, queue: MessageQueue, pri: int = NEUTRAL_PRI, ttr_ms: int = 0) -> None:
        """From now on all items of the line, which has none, have this priority and deadline."""
        self.change(queue, self.of(queue).record._replace(pri=pri, ttr_ms=ttr_ms))

    def _add(self, queue: MessageQueue, record: AsideRecord, state: AsideState | None) -> Aside:
        aside = self.by_queue[queue] = self.by_number[record.number] = Aside(
            queue, record, state, self._journal, self._watcher, self._rules(queue), partial(lines.serve, queue),
            self._send_dead_letter, self._expire_to, partial(self._settle, queue),
        )  # fmt: skip
        aside.move_dead = self.large_dead.append
        return aside

    def _send_dead_letter(self, aside: Aside, item: Item, job: Job) -> bool:
        return self.dead_letter is not None and self.dead_letter(aside, item, job)

    def _unmake(self, aside: Aside, queue: MessageQueue) -> None:
        if aside.log.durable:
            self._unmade[aside.record.number] = aside.name
        self._watcher.forget(aside)
        self._take_out(aside, queue)

    def _take_out(self, aside: Aside, queue: MessageQueue) -> None:
        aside.deleted = True
        del self.by_queue[queue], self.by_number[aside.record.number]
        self._settle(queue)

    def _put_back(self, aside: Aside, queue: MessageQueue) -> None:
        aside.deleted = False
        self.by_queue[queue] = self.by_number[aside.record.number] = aside
        self._watcher.note(aside, 1)  # it is looked when something there is due
        aside_flushing.go_on(aside)
        self._settle(queue)

    def change(self, queue: MessageQueue, record: AsideRecord) -> None:
        """From now on the record of its aside is another: the pause, or the terms of the line."""
        aside = self.by_queue[queue]
        if not aside.log.touched:
            aside.enter_turn()  # so that the record is put right if the turn fails and lands all the same
        self._journal.undo.append((self._settle, queue))
        self._journal.undo.append((setattr, aside, "record", aside.record))
        aside.record = record
        self._write_record(aside)
        self._settle(queue)

    def _write_record(self, aside: Aside) -> None:
        if aside.log.durable:
            storage, name, record = self._journal.storage, aside.name, aside.record
            self._journal.also.append(lambda batch: storage.jobs.add_aside(batch, name, record))

    def set_rules(self, queue: MessageQueue) -> None:
        """The queue's options are others."""
        aside = self.by_queue.get(queue)
        if aside is not None:
            aside.rules = self._rules(queue)

    def delete(self, queue: MessageQueue) -> None:
        """The queue is deleted in this turn. Nothing happens if it has no aside."""
        aside = self.by_queue.get(queue)
        if aside is None:
            if self.damaged:
                self._delete_damaged(queue.name)
            return
        self._watcher.forget(aside)
        self._take_out(aside, queue)
        window.release(aside)
        self._journal.undo.append((self._put_back, aside, queue))
        if aside.log.durable:
            storage, name, number = self._journal.storage, aside.name, aside.record.number
            # Of what this turn has put nothing may stay, though the aside writes it: this comes behind.
            is_empty = aside.is_empty and not aside.log.touched and aside.flushing is None
            self._journal.also.append(lambda batch: storage.jobs.remove_aside(batch, name, number, is_empty))

    def _delete_damaged(self, name: bytes) -> None:
        damaged = self.damaged.pop(name, None)
        if damaged is not None:
            storage, number = self._journal.storage, damaged[0].number
            self._journal.undo.append((self.damaged.setdefault, name, damaged))
            self._journal.also.append(lambda batch: storage.jobs.remove_aside(batch, name, number, False))

    def recheck(self, batch: Batch) -> None:
        """The storage was opened again after a failed write: what asides have on disk is to be what memory has."""
        storage = self._journal.storage
        for number, name in self._unmade.items():
            storage.jobs.remove_aside(batch, name, number, False)
        unmade = set(self._unmade.values())
        for aside in self.by_queue.values():
            if aside.log.durable and (aside.log.is_doubtful or aside.name in unmade):
                aside.log.recheck(batch)
                storage.jobs.add_aside(batch, aside.name, aside.record)

    def rechecked(self) -> None:
        """What `recheck` has added to its batch is written."""
        self._unmade.clear()
        for aside in self.by_queue.values():
            aside.log.rechecked()


def find_dead(journal: Journal, asides: Iterable[Aside]) -> None:
    """Note what was dead when the server last ended: where the tables are larger than what lives in them."""
    items = stored_bytes = entries = 0
    for aside in asides:
        items += aside.items
        stored_bytes += aside.stored_bytes
        entries += sum(order.entries for order in aside.orders)
    storage = journal.storage
    for family, live_bytes in (
        (ASIDE_FAMILY, items * (records.ITEM_KEY_BYTES + records.ITEM_HEADER_BYTES) + stored_bytes),
        (JOB_FAMILY, items * (job_records.JOB_KEY_BYTES + job_records.JOB_BYTES)),
        (ORDER_FAMILY, entries * job_records.ORDER_KEY_BYTES),
    ):
        if family in storage.damaged_families:
            continue  # it would not be compacted
        dead_bytes = storage.table_bytes(family) - live_bytes
        if dead_bytes >= max(live_bytes, DEAD_BYTES):
            journal.dead.add(DeadRange(family, FIRST_KEY, LAST_KEY, dead_bytes))
