"""Single items, whatever their state: `engines.items` says what is promised.

An item is either in its queue's line or aside of it, and keeps its id when it moves. `line_items` and `aside` know how
each is reached; here the two are one.

No call here switches greenlets. A queue may change its class in any call, so none of its methods is kept.
"""

from typing import Any

from darner_core.engines.contract import Item
from darner_core.engines.items import Seen, State
from darner_core.engines.jobs import MAX_DELAY_MS, JobOptions
from darner_core.engines.local import aside_failures, aside_leaving, aside_moves, item_pages, line_items
from darner_core.engines.local.aside import Aside
from darner_core.engines.local.identity import Identity
from darner_core.engines.local.job_queue import PLAIN, JobQueue
from darner_core.engines.local.jobs import LocalJobs
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.leased import Leased
from darner_core.engines.local.leases import Leases
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.reads import OpenRead
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.tracing import CLOSE, OPEN, TracedQueue
from darner_core.errors import ServerError, StorageError
from darner_core.showing import show
from darner_core.storage.records import HEAD_LEFT, HEAD_RIGHT

_ENDS = HEAD_LEFT | HEAD_RIGHT
_HEADS = {0: None, HEAD_LEFT: True, HEAD_RIGHT: False}


class LocalItems:
    def __init__(self, registry: Registry, journal: Journal, jobs: LocalJobs, leases: Leases) -> None:
        self._registry = registry
        self._journal = journal
        self._jobs = jobs
        self._leases = leases
        self._asides = registry.asides
        self._identity = Identity(journal)

    def _queue(self, name: bytes) -> MessageQueue | None:
        """Raises StorageError if it cannot be read."""
        queue = self._registry.queues.get(name)
        if queue is not None and queue.unreadable:
            queue.flush()  # raises
        return queue

    def _aside(self, queue: MessageQueue) -> Aside | None:
        """Raises StorageError if it cannot be read."""
        aside = self._asides.by_queue.get(queue)
        if aside is None and queue.name in self._asides.damaged:
            raise self._asides.damaged[queue.name][1]
        return aside

    # -- looking

    def look(
        self, name: bytes, state: State = State.READY, after: Any = None, most: int = 100, backwards: bool = False
    ) -> list[Seen]:
        queue = self._queue(name)
        return item_pages.look(queue, self._aside(queue), state, after, most, backwards) if queue is not None else []

    def find(self, name: bytes, item_id: int) -> Seen | None:
        queue = self._queue(name)
        if queue is None:
            return None
        found = line_items.find(queue, item_id)
        if found is not None:
            aside = self._asides.by_queue.get(queue)
            if line_items.is_open(queue, item_id):
                return item_pages.of_line(aside, (0, 0, item_id), found, State.OPEN)
            pri = self._asides.record_of(queue).pri
            return item_pages.of_line(aside, (pri, 2 * item_id + 1, item_id), found)
        aside = self._aside(queue)
        lies = _find_aside(aside, item_id)
        if aside is None or lies is None:
            return None
        kind, place, job, item, is_open = lies
        if is_open:
            return item_pages.of_aside(State.OPEN, (0, 0, item_id), item, job)
        return item_pages.of_aside(item_pages.STATES[kind], place, item, job)

    def item(self, name: bytes, item_id: int) -> Item | None:
        queue = self._queue(name)
        if queue is None:
            return None
        found = line_items.find(queue, item_id)
        if found is None:
            lies = _find_aside(self._aside(queue), item_id)
            found = lies[3] if lies is not None else None
        return found

    def rank(self, name: bytes) -> tuple[int, int] | None:
        queue = self._queue(name)
        if queue is None:
            return None
        if isinstance(queue, JobQueue):
            return queue.rank()
        item = queue.peek()
        return (PLAIN.pri, item[3]) if item is not None else None

    # -- changing

    def open(self, name: bytes, item_id: int) -> OpenRead | None:
        queue = self._queue(name)
        if queue is None:
            return None
        item = line_items.find(queue, item_id)
        if item is not None:
            if line_items.is_open(queue, item_id):
                return None
            read = line_items.open_one(queue, self._asides, item_id, item)
        else:
            aside = self._aside(queue)
            lies = _find_aside(aside, item_id)
            if aside is None or lies is None or lies[4]:
                return None
            kind, place, job, item, _ = lies
            read = aside.hold(kind, place, job, item)
        if isinstance(queue, TracedQueue):
            queue.note_item(OPEN, item_id, item)
        return read

    def remove(self, name: bytes, item_id: int) -> bool:
        queue = self._queue(name)
        if queue is None:
            return False
        item = line_items.find(queue, item_id)
        if item is not None:
            if line_items.is_open(queue, item_id):
                self._remove_open(queue.outstanding[item_id])
                return True
            line_items.remove(queue, item_id, item)
        else:
            aside = self._aside(queue)
            lies = _find_aside(aside, item_id)
            if aside is None or lies is None:
                return False
            kind, place, job, item, is_open = lies
            if is_open:
                self._remove_open(aside.outstanding[item_id].read)
                return True
            aside_leaving.remove(aside, kind, place, job, item)
        if isinstance(queue, TracedQueue):
            queue.traces.note(queue, CLOSE, item_id, len(item[0]))
        return True

    def _remove_open(self, read: OpenRead) -> None:
        read.queue.close(read, _StaysOpen())
        self._leases.end_of(read)

    def kick(self, name: bytes, item_id: int) -> bool:
        queue = self._queue(name)
        aside = self._aside(queue) if queue is not None else None
        lies = _find_aside(aside, item_id)
        if aside is None or lies is None or lies[4]:
            return False
        return aside_moves.kick_id(aside, item_id)

    def bury(self, read: Any, pri: int | None = None) -> None:
        held = self._held_aside(read)
        if held is not None:
            aside_failures.bury(held.queue, held, -1 if pri is None else pri)  # type: ignore[arg-type]

    def postpone(self, read: Any, due_ms: int) -> None:
        delay_ms = min(due_ms - self._journal.time_ms(), MAX_DELAY_MS)
        if delay_ms <= 0 and not isinstance(_read_of(read).queue, Aside):
            let_go = _read_of(read)
            if let_go.queue.holds(let_go):
                self._journal.undo.append((_take_back, let_go))
            self._leases.end_of(let_go)
            let_go.queue.give_back(let_go)
            return
        held = self._held_aside(read)
        if held is not None:
            aside_failures.release(held.queue, held, delay_ms)  # type: ignore[arg-type]

    def requeue(self, read: Any, body: bytes, first: bool) -> None:
        let_go = _read_of(read)
        queue = self._queue(let_go.queue.name)
        if queue is not None and let_go.queue.holds(let_go):
            self._jobs.put_again(queue, body, JobOptions(first=first))
            self._leases.end_of(let_go)
            let_go.queue.close(let_go)

    # -- queues as lists

    def head_at_left(self, name: bytes) -> bool | None:
        queue = self._registry.queues.get(name)
        return _HEADS[queue.log.record.kind & _ENDS] if queue is not None else None

    def set_head_at_left(self, name: bytes, at_left: bool) -> None:
        queue = self._registry.queues.get(name)
        if queue is None or queue.unreadable:
            return
        log = queue.log
        if not log.touched:
            queue.enter_turn()  # so that the record is put right if the turn fails and lands all the same
        self._journal.undo.append((setattr, log, "record", log.record))
        kind = log.record.kind & ~_ENDS | (HEAD_LEFT if at_left else HEAD_RIGHT)
        record = log.record = log.record._replace(kind=kind)
        if log.durable:
            storage = self._journal.storage
            self._journal.also.append(lambda batch: storage.add_queue(batch, name, record))

    # -- letting go

    def _held_aside(self, read: Any) -> OpenRead | None:
        """This read, which somebody lets go, as one of an aside, without a lease; None: it is not open, or a cursor's.
        If the turn fails, it is open again. Raises StorageError, with nothing changed."""
        let_go = _read_of(read)
        undo, is_open = self._journal.undo, let_go.queue.holds(let_go)
        if is_open:
            undo.append((_take_back, let_go))  # before what `aside_read` adds, so that it is called after that
        step = len(undo) - 1
        try:
            held = self._jobs.aside_read(let_go)
        except StorageError:
            if is_open:
                del undo[step]
            raise
        self._leases.end_of(let_go)
        return held

    # -- what clients hold without a connection

    def hold(self, read: Any, lasts_ms: int, client: bytes = b"", most_ms: int = 0, counted: bool = False) -> None:
        self._leases.hold_open(read, lasts_ms, most_ms, client, counted)

    def held(self, name: bytes, item_id: int) -> Leased | None:
        read = self._open_read(name, item_id)
        return self._leases.held(read) if read is not None else None

    def left_ms(self, name: bytes, item_id: int) -> int:
        read = self._open_read(name, item_id)
        return self._leases.left_ms(read) if read is not None else -1

    def _open_read(self, name: bytes, item_id: int) -> OpenRead | None:
        queue = self._queue(name)
        if queue is None:
            return None
        if line_items.is_open(queue, item_id):
            return queue.outstanding[item_id]
        aside = self._asides.by_queue.get(queue)
        found = aside.outstanding.get(item_id) if aside is not None else None
        return found.read if found is not None else None

    # -- numbers

    def number(self, name: bytes, item_id: int) -> int:
        queue = self._queue(name)
        if queue is None:
            raise ServerError(f"queue {show(name)} does not exist")
        return self._registry.numbers.of(queue, item_id)

    def numbered(self, number: int) -> tuple[bytes, int] | None:
        found = self._registry.numbers.find(number)
        return (found[0].name, found[1]) if found is not None else None

    def queue_number(self, name: bytes) -> int:
        queue = self._registry.queues.get(name)
        return queue.log.record.number if queue is not None else 0

    def queue_numbered(self, number: int) -> bytes | None:
        queue = self._registry.by_number.get(number)
        return queue.name if queue is not None and self._registry.queues.get(queue.name) is queue else None

    @property
    def identity(self) -> tuple[bytes, bytes]:
        return self._identity.of_directory()


class _StaysOpen:
    """Whoever holds a read that somebody else has closed: if that is undone, it is open as before."""

    def unclose(self, read: Any) -> None: ...


def _read_of(read: Any) -> Any:
    """What a session or nobody holds, without its lease."""
    return read.read if isinstance(read, Leased) else read


def _take_back(read: Any) -> None:
    read.queue.take_back(read)


def _find_aside(aside: Aside | None, item_id: int) -> Any:
    """(kind, place, job, item, whether it is open) of what lies aside; None: it is not there."""
    found = aside.find(item_id) if aside is not None else None
    if aside is None or found is None:
        return None
    kind, place, job = found
    item = aside.parent.aged(aside.reading(aside.log.item, item_id))
    if item_id in aside.outstanding:
        return kind, place, job, item, True
    if item_pages.is_flushed(aside, kind, place) or aside_leaving.has_expired(aside, item):
        return None
    return kind, place, job, item, False
