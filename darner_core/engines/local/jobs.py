"""The jobs of all queues: `engines.jobs` says what is promised.

A put with options goes into the line if its priority and deadline are those that all items of the line have, the
queue's terms; else aside. A put without options has the built-in ones. If the line has no item at all, the terms become
those of the put. Once aside, an item stays there until it is gone. An item of the line goes aside when it has failed
and that counts, or comes back later or with another priority: it keeps its id, and its place in the order of arrival.

No call here switches greenlets.
"""

import logging
from collections.abc import Iterable, Iterator
from typing import Any, Final

from darner_core import NAME
from darner_core.config.queues import QueueOptions
from darner_core.engines.contract import Read
from darner_core.engines.jobs import MAX_DELAY_MS, NEUTRAL, Failure, JobOptions, Outcome, Pause, Placed
from darner_core.engines.local import aside_failures, aside_flushing, aside_moves, lines
from darner_core.engines.local.aside import Aside
from darner_core.engines.local.job_rules import LOSS, NACK, TIMEOUT
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.leased import Leased
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.reads import OpenRead, stored_items
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.routing import Routing
from darner_core.engines.local.tracing import PUT, TracedQueue
from darner_core.errors import ServerError, StorageError
from darner_core.repeated import BY_TEXT
from darner_core.showing import show
from darner_core.storage.job_records import NO_GETS, NO_PUTS, READY, Job
from darner_core.storage.records import Blob, Item

log = logging.getLogger(NAME)

HOW: Final = {Failure.ABORTED: NACK, Failure.TIMED_OUT: TIMEOUT, Failure.LOST: LOSS}
BITS: Final = {Pause.NONE: 0, Pause.IN: NO_PUTS, Pause.OUT: NO_GETS, Pause.ALL: NO_PUTS | NO_GETS}
PAUSES: Final = {bits: pause for pause, bits in BITS.items()}

# How many items one kick makes ready: 10 ms.
KICKED_AT_ONCE = 1000


class LocalJobs:
    def __init__(self, registry: Registry, routing: Routing, journal: Journal) -> None:
        self._registry = registry
        self._routing = routing
        self._journal = journal
        self._asides = registry.asides
        self._asides.dead_letter = self._send_dead_letter

    # -- putting

    def put(
        self,
        names: tuple[bytes, ...],
        body: bytes,
        flags: int,
        expires_at_ms: int,
        options: JobOptions,
        as_child: bool = False,
    ) -> Placed:
        item = body, flags, expires_at_ms, self._journal.time_ms()
        if len(names) == 1:
            queue = self._registry.queues.get(names[0])
            if queue is not None and not queue.governed and (queue.is_child or not as_child):
                # The general way, which follows, does the same, but takes 17 µs of a whole put. This one takes 10.
                if options.key and (taken := self._taken(queue.name, options.key)) is not None:
                    return taken
                return Placed(Outcome.STORED, queue.name, self._put_into(queue, item, options))
        answer = self.answer_of_key(names, options.key, as_child)
        if answer is not None:
            return answer
        first = self._routing.first_of(names)
        if options != JobOptions():
            self._require_asides(self._routing.existing(names, as_child), options.first)
        takers = self._routing.find_takers(names, len(body), as_child)
        if takers is None:
            return Placed(Outcome.FULL, first)
        put_id = 0
        for queue in takers:
            if queue.name == first:
                put_id = self._put_into(queue, item, options)
            else:
                self._put_into(queue, item, options._replace(key=b""))
        return Placed(Outcome.STORED, first, put_id)

    def _put_into(self, queue: MessageQueue, item: Item, options: JobOptions, note: bytes = b"") -> int:
        """The id that the item has there."""
        delay_ms, pri, ttr_ms, key, first = options
        body, flags, expires_at_ms, _ = item
        if first:
            return self._put_first(queue, item)
        put_id = queue.tail
        if not delay_ms and not key and not note:
            record = self._asides.record_of(queue)
            same = (record.pri, record.ttr_ms) == (pri, ttr_ms)
            if not same and not stored_items(queue):
                self._asides.change_terms(queue, pri, ttr_ms)
                same = True
            if same:
                if isinstance(queue, TracedQueue):
                    queue.note_item(PUT, queue.tail, item)
                MessageQueue.put_until(queue, body, flags, expires_at_ms)
                return put_id
        aside = self._asides.enter(queue)
        if isinstance(queue, TracedQueue):
            queue.note_item(PUT, aside.new_id, item)
        delay_ms = min(delay_ms, MAX_DELAY_MS)
        return self._asides.put(queue, body, flags, expires_at_ms, pri, delay_ms, ttr_ms, key, note)

    def put_again(self, queue: MessageQueue, body: bytes, options: JobOptions) -> None:
        """Put what comes from this queue, which has room for it: its limits are not asked, and its children get
        nothing."""
        self._put_into(queue, (body, 0, 0, self._journal.time_ms()), options)

    def _put_first(self, queue: MessageQueue, item: Item) -> int:
        """As `_put_into`, before all others."""
        pri, place = self._asides.before_all(queue)
        aside = self._asides.enter(queue)
        if isinstance(queue, TracedQueue):
            queue.note_item(PUT, aside.new_id, item)
        return self._asides.put(queue, *item[:3], pri, place=place)

    def put_large(self, transfer: Any, flags: int, expires_at_ms: int, options: JobOptions) -> Placed:
        answer = self.answer_of_key(transfer.names, options.key, transfer.as_child)
        if answer is not None:
            return answer
        first = self._routing.first_of(transfer.names)
        put_ids: list[int] = []
        if options != JobOptions():
            self._require_asides((target.queue for target, _ in transfer.uploads), options.first)

        def put_one(queue: MessageQueue, blob: Blob) -> None:
            item = blob, flags, expires_at_ms, self._journal.time_ms()
            if queue.name == first:
                put_ids.append(self._put_into(queue, item, options))
            else:
                self._put_into(queue, item, options._replace(key=b""))

        stored = transfer.put(flags, expires_at_ms, put_one) is not None
        return Placed(Outcome.STORED if stored else Outcome.FULL, first, *put_ids)

    def answer_of_key(self, names: tuple[bytes, ...], key: bytes, as_child: bool = False) -> Placed | None:
        if not key:
            return None
        first = self._routing.first_of(names)
        if not self._routing.keeps(first, as_child and names[0] == first):
            raise ServerError(
                f"queue {show(first)} is fanout_only and has no items, so none can have a key: put without one, or "
                "into a child"
            )
        taken = self._taken(first, key)
        if taken is not None and self._registry.queues[first].takes_nothing:
            return Placed(Outcome.FULL, first)
        return taken

    def _require_asides(self, queues: Iterable[MessageQueue], first: bool) -> None:
        """Raises StorageError if something cannot be set aside in one of these, or ServerError if it cannot be the
        `first` there: before anything is put into others."""
        for queue in queues:
            self._asides.require(queue)
            if first:
                self._asides.before_all(queue)

    def _taken(self, name: bytes, key: bytes) -> Placed | None:
        """By which item of this queue, which need not exist, the key is taken; None: it is free."""
        queue = self._registry.queues.get(name) if key else None
        aside = self._asides.by_queue.get(queue) if queue is not None else None
        item_id = aside_flushing.owner_of_key(aside, key) if aside is not None else 0
        if aside is None or not item_id:
            return None
        return Placed(Outcome.KEY_TAKEN, name, item_id if aside.find(item_id) is not None else 0)

    # -- deadlines

    def ttr_ms(self, read: Read) -> int:
        place = read.queue
        ttr_ms = 0
        if isinstance(place, Aside):
            ttr_ms = place.outstanding[read.id].job.ttr_ms if read.id in place.outstanding else 0
        elif isinstance(place, MessageQueue):
            ttr_ms = self._asides.record_of(place).ttr_ms  # they do not change while the line has an item
        return ttr_ms or place.options.default_ttr_s * 1000

    def most_hold_ms(self, read: Read) -> int:
        return read.queue.options.max_hold_s * 1000

    # -- failures

    def fail(
        self,
        read: Read,
        why: Failure,
        client: bytes = b"",
        delay_ms: int | None = None,
        pri: int | None = None,
        counted: bool = False,
    ) -> None:
        place = read.queue
        if isinstance(place, MessageQueue):
            comes_back = not delay_ms and (pri is None or pri == self._asides.record_of(place).pri)
            if comes_back and not counted and not counts(place.options):
                place.give_back(read)  # type: ignore[arg-type]
                return
        delay = -1 if delay_ms is None else min(delay_ms, MAX_DELAY_MS)
        try:
            held = self.aside_read(read)
        except StorageError:  # while nothing can be read: it comes back, and that is not counted
            place.give_back(read)
            return
        if held is not None:
            aside_failures.fail(held.queue, held, HOW[why], show(client), delay, -1 if pri is None else pri)  # type: ignore[arg-type]

    def reject(self, read: Read, client: bytes = b"") -> None:
        held = self.aside_read(read)
        if held is not None:
            aside_failures.reject(held.queue, held, show(client))  # type: ignore[arg-type]

    def history(self, read: Read | Leased) -> bytes:
        held = read.read if isinstance(read, Leased) else read  # as a session holds it
        place = held.queue
        return place.job_of(held).note if isinstance(place, Aside) and place.holds(held) else b""

    def aside_read(self, read: Read) -> OpenRead | None:
        """This read as one of an aside: an item of a line goes there, and is open there. None: it was not open, or is
        a cursor's, and is given back. Raises StorageError, with nothing changed."""
        place = read.queue
        if isinstance(place, Aside) and place.holds(read):
            return read
        if not isinstance(place, MessageQueue) or not place.holds(read):  # type: ignore[arg-type]
            place.give_back(read)
            return None
        return self._move_aside(place, read)  # type: ignore[arg-type]

    def _move_aside(self, queue: MessageQueue, read: OpenRead) -> OpenRead:
        item = queue.log.read_one(read.id)
        record = self._asides.record_of(queue)
        aside = self._asides.enter(queue)
        blob, read.blob = read.blob, 0  # its chunks stay
        MessageQueue.close(queue, read)
        read.blob = blob
        self._journal.undo.append((_was_open, queue, read))
        read.returned = True
        queue.canceled_transactions += read.counted
        job = Job(READY, record.pri, 2 * read.id + 1, ttr_ms=record.ttr_ms)
        moved = OpenRead(aside, read.id, item, read.body_bytes, blob, read.expires_at_ms)  # type: ignore[arg-type]
        return aside.adopt_open(moved, item, job)

    def put_dead_letter(self, queue: MessageQueue, body: bytes | Blob, item: Item, note: bytes) -> None:
        """Put a copy of `item`, whose body it is, into one of the queues to which dead letters go. Where nothing can be
        set aside, it goes into the line, without its history."""
        if queue.name in self._asides.damaged:
            note = b""
        self._put_into(queue, (body, item[1], 0, item[3]), JobOptions(), note)

    def _send_dead_letter(self, aside: Aside, item: Item, job: Job) -> bool:
        """Put it where the options say, in this turn. False: there is no such queue, or it did not take it."""
        name = aside.options.dead_letter_queue
        if not name:
            return False
        body = item[0]
        assert not isinstance(body, Blob)
        why = "it has no room"
        try:
            takers = self._routing.find_takers((name,), len(body))
            for queue in takers or ():
                self.put_dead_letter(queue, body, item, job.note)
            if takers:
                return True
        except (ServerError, StorageError) as error:
            why = str(error)
        said = "a dead letter of queue %s is buried: queue %s did not take it: %s"
        self._journal.after.append((_warn, said, show(aside.name), show(name), why))
        return False

    # -- buried items, pauses, figures

    def kick(self, name: bytes, most: int) -> int:
        queue = self._registry.queues.get(name)
        aside = self._asides.by_queue.get(queue) if queue is not None else None
        return aside_moves.kick(aside, min(most, KICKED_AT_ONCE)) if aside is not None else 0

    def pause(self, name: bytes, pause: Pause, seconds: int = 0, make: bool = False) -> None:
        queue = self._registry.queues.get(name)
        if queue is None and make and name not in self._registry.aliases:
            queue = self._registry.create(name)
        if queue is None:
            raise ServerError(f"queue {show(name)} does not exist")
        if queue.unreadable:
            queue.flush()  # raises
        aside = self._asides.by_queue.get(queue)
        if aside is None and pause is Pause.NONE:
            return
        aside = self._asides.of(queue)
        until_ms = self._journal.time_ms() + seconds * 1000 if seconds and pause is not Pause.NONE else 0
        self._asides.change(queue, aside.record._replace(pause=BITS[pause], pause_until_ms=until_ms))
        if until_ms:
            aside.watcher.note(aside, until_ms)
        if queue.line is not None:
            lines.serve(queue)

    def paused(self, name: bytes) -> Pause:
        queue = self._registry.queues.get(name)
        aside = self._asides.by_queue.get(queue) if queue is not None else None
        return PAUSES[aside.paused] if aside is not None else Pause.NONE

    def pause_left_ms(self, name: bytes) -> int:
        queue = self._registry.queues.get(name)
        aside = self._asides.by_queue.get(queue) if queue is not None else None
        return max(0, aside.record.pause_until_ms - self._journal.time_ms()) if aside is not None else 0

    def figures(self, name: bytes) -> Iterator[tuple[bytes, int]]:
        queue = self._registry.queues.get(name)
        aside = self._asides.by_queue.get(queue) if queue is not None else None
        if queue is None or (aside is None and not queue.counts_failures):
            return
        yield b"ready", queue.waiting_items
        yield b"urgent", self._urgent(queue, aside)
        yield b"delayed", aside.delayed.waiting if aside is not None else 0
        yield b"buried", aside.buried.waiting if aside is not None else 0
        yield b"reserved", queue.open_reads
        yield b"failures", aside.failures if aside is not None else 0
        yield b"dead_lettered", aside.dead_lettered if aside is not None else 0
        yield b"set_aside", aside.items if aside is not None else 0
        yield b"paused", aside.paused if aside is not None else 0

    def _urgent(self, queue: MessageQueue, aside: Aside | None) -> int:
        if aside is None:
            return 0
        in_line = queue.waiting_items - aside.waiting_items if aside.record.pri < NEUTRAL else 0
        return in_line + aside.ready.urgent - aside.ready.urgent_hidden


def counts(options: QueueOptions) -> bool:
    """Whether a failure in the line has to be remembered."""
    return bool(options.max_deliveries or options.dead_letter_queue or options.retry_delay_s)


def _was_open(queue: MessageQueue, read: OpenRead) -> None:
    """Undo that an open item has left the line. What is undone next puts it back there."""
    read.returned = False
    queue.canceled_transactions -= read.counted


def _warn(said: str, *about: object) -> None:
    log.warning(said, *about, extra=BY_TEXT)
