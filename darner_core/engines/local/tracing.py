"""Queues that tell their watchers what happens to them, and with the option `trace` the log as well.

A queue that nobody watches must cost nothing, not even the question whether somebody does: `put` and `take` are the
hot path. So a queue that is watched is given another class, by assigning its `__class__`: a subclass of MessageQueue
without slots of its own. It gets the plain one again when the last watcher has gone. The plain form, a check in each
method, would cost every request something.

An event is told when the turn in which it happened has been written. If the turn fails, its events are never told,
because they have not happened.

No call here switches greenlets.
"""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from darner_core import NAME
from darner_core.engines.contract import Event, Holder, Observer
from darner_core.engines.large_items import Large
from darner_core.engines.local.job_queue import JobQueue
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.reads import OpenRead
from darner_core.errors import StorageError
from darner_core.showing import show
from darner_core.storage.records import Blob, Item

if TYPE_CHECKING:
    from darner_core.engines.local.asides import Asides

log = logging.getLogger(NAME)

START_BYTES = 40  # how much of a body an event has

# What can happen. A plain get is a GET. If it waited, or its item is large, it is an OPEN and a CLOSE. Jobs also have
# `bury`, `kick`, and `dead`, when an item has left as a dead letter.
PUT, GET, OPEN, CLOSE, ABORT, EXPIRE, DISCARD, FLUSH, CREATE, DELETE = (
    b"put", b"get", b"open", b"close", b"abort", b"expire", b"discard", b"flush", b"create", b"delete"
)  # fmt: skip


def _log_event(event: Event) -> None:
    about = f" {event.id}" if event.id else ""
    if event.body_bytes >= 0:
        about += f", {event.body_bytes} bytes"
    if event.items >= 0:
        about = f" of {event.items} items"
    log.info("trace %s: %s%s", show(event.queue), event.what.decode(), about)


class Traces:
    """Which queues are watched, by name: a queue may be watched before it exists, and is still watched when it has been
    deleted and made again."""

    def __init__(self, queues: Mapping[bytes, MessageQueue], journal: Journal, asides: "Asides") -> None:
        """`queues`: those that can be reached, at all times. `asides` know which of them are JobQueues."""
        self._queues = queues
        self._journal = journal
        self._watchers: dict[bytes, list[Observer]] = {}
        self._asides = asides
        # Classes of this server's own: their queues find their way back here without a slot for it.
        about = {"__slots__": (), "traces": self, "asides": asides}
        self._traced: type[MessageQueue] = type("TracedQueue", (TracedQueue,), about)
        self._with_jobs: type[MessageQueue] = type("JobQueue", (JobQueue,), about)
        self._traced_with_jobs: type[MessageQueue] = type("TracedJobQueue", (TracedQueue, JobQueue), about)

    # -- watching

    def watch(self, name: bytes, observer: Observer) -> bool:
        """From now on, tell `observer` what happens to queue `name`; False: the queue does not exist yet."""
        self._watchers.setdefault(name, []).append(observer)
        return self._change(name)

    def unwatch(self, name: bytes, observer: Observer) -> None:
        watchers = self._watchers[name]
        watchers.remove(observer)
        if not watchers:
            del self._watchers[name]
        self._change(name)

    def _change(self, name: bytes) -> bool:
        queue = self._queues.get(name)
        if queue is not None:
            self.changed(queue)
        return queue is not None

    # -- what happens; the first three are called by the registry, in the turn in which it does

    def created(self, queue: MessageQueue) -> None:
        self.changed(queue)
        if isinstance(queue, TracedQueue):
            self.note(queue, CREATE)

    def changed(self, queue: MessageQueue) -> None:
        """The queue's options or its watchers may have changed, or whether it has jobs."""
        if queue.unreadable:
            return
        wanted = queue.name in self._watchers or queue.options.trace
        if self._asides.has_jobs(queue):
            queue.__class__ = self._traced_with_jobs if wanted else self._with_jobs
        else:
            queue.__class__ = self._traced if wanted else MessageQueue

    def deleted(self, queue: MessageQueue) -> None:
        """Called by the registry in the turn in which it deletes a queue. A delete that is undone leaves the queue as
        it was."""
        if isinstance(queue, TracedQueue) or queue.name in self._watchers:
            self.note(queue, DELETE)

    def note(self, queue: MessageQueue, what: bytes, *about: Any) -> None:
        """`what` has happened in this turn. `about` are the fields of Event from `id` on."""
        journal = self._journal
        journal.after.append((self._tell, Event(queue.name, what, journal.time_ms(), *about), queue))

    def _tell(self, event: Event, queue: MessageQueue) -> None:
        try:
            for observer in self._watchers.get(event.queue, ()):
                observer.tell(event)
            if queue.options.trace:
                _log_event(event)
        except Exception:  # what goes wrong here must not disturb the end of the turn
            log.exception("an event could not be told")


class TracedQueue(MessageQueue):
    """A queue that is watched. It does what MessageQueue does. Each event is noted in the one call that makes it, and
    `take` and `open` are the plain forms.

    An event is noted before those that it leads to: what is put may be handed to a client that waits.
    """

    __slots__ = ()

    traced: ClassVar = True
    traces: ClassVar[Traces]

    def put(self, body: bytes | Blob, flags: int, expires_at_ms: int) -> None:
        self.note_item(PUT, self.next_put_id, (body, flags, expires_at_ms, 0))
        super().put(body, flags, expires_at_ms)

    def put_until(self, body: bytes | Blob, flags: int, expires_at_ms: int) -> None:
        self.note_item(PUT, self.next_put_id, (body, flags, expires_at_ms, 0))
        super().put_until(body, flags, expires_at_ms)

    def take(self) -> Item | Large | None:
        item_id = self.head_id if self.has_head() else 0  # `has_head` drops what has expired, so the id is right
        item = self._take_slowly()
        if isinstance(item, tuple):
            self.note_item(GET, item_id, item)
        return item

    def open(self) -> OpenRead | None:
        read = self._open_slowly()
        if read is None:
            return None
        try:
            item = self.log.read_one(read.id) if read.item is None else read.item
        except StorageError:  # the client that has opened it will be told
            item = b"", -1, 0, 0
        self.traces.note(self, OPEN, read.id, read.body_bytes, item[1], self._start(item[0]))
        return read

    def close(self, read: OpenRead, holder: Holder | None = None) -> None:
        held = self.holds(read)
        super().close(read, holder)
        if held:
            self.traces.note(self, CLOSE, read.id, read.body_bytes)

    def give_back(self, read: OpenRead, wake: bool = True) -> None:
        if self.holds(read):
            self.traces.note(self, ABORT, read.id, read.body_bytes)
        super().give_back(read, wake)

    def move_expired(self, item_id: int, item: Item) -> None:
        super().move_expired(item_id, item)
        self.note_item(EXPIRE, item_id, item)

    def discard_oldest(self) -> bool:
        item_id, before = self.returned[0] if self.returned else self.next_id, self.bytes_out
        discarded = super().discard_oldest()
        if discarded:
            self.traces.note(self, DISCARD, item_id, self.bytes_out - before)
        return discarded

    def flush(self) -> None:
        items = self.waiting_items + self.delayed_items
        super().flush()
        self.traces.note(self, FLUSH, 0, -1, -1, None, items)

    def note_item(self, what: bytes, item_id: int, item: Item) -> None:
        body, flags, _, _ = item
        self.traces.note(self, what, item_id, len(body), flags, self._start(body))

    def _start(self, body: bytes | Blob) -> bytes | None:
        if not isinstance(body, Blob):
            return body[:START_BYTES]
        try:
            return self.log.journal.storage.chunk(self.log.record.number, body.blob, 0)[:START_BYTES]
        except StorageError:
            return None
