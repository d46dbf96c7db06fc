"""Queues that tell what happens to them: to who watches them, and to the log if their option `trace` says so.

A queue that nobody watches must cost nothing, not even the question whether somebody does: `put` and `take` are the
hot path. So telling is a subclass of MessageQueue without slots of its own, and a queue that comes to be watched is
made one by assigning its `__class__`, and made a plain one again when the last watcher has gone. The plain form, a
check in each of its methods, would be paid by every request.

An event is told when the turn in which it happened has been written. What a turn that fails had in store is never
told, because it has not happened.

No call here switches greenlets.
"""

import logging
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol

from darner_core import NAME
from darner_core.config.values import show_bytes
from darner_core.engines.contract import Holder, Large
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.reads import OpenRead
from darner_core.engines.local.registry import Registry
from darner_core.errors import StorageError
from darner_core.storage.records import Blob, Item

log = logging.getLogger(NAME)

START_BYTES = 40  # how much of a body is told

# What can happen. A plain get is a GET; one that waited, or of a large item, is an OPEN and a CLOSE.
PUT, GET, OPEN, CLOSE, ABORT, EXPIRE, DISCARD, FLUSH, CREATE, DELETE = (
    b"put", b"get", b"open", b"close", b"abort", b"expire", b"discard", b"flush", b"create", b"delete"
)  # fmt: skip


class Event(NamedTuple):
    """Something that has happened to a queue."""

    queue: bytes
    what: bytes
    time_ms: int
    id: int = 0  # of the item; 0: it is about more than one, or the queue
    body_bytes: int = 0
    flags: int = -1  # -1: not known here
    start: bytes | None = None  # how the body begins
    items: int = -1  # how many at once; -1: it is about one


class Observer(Protocol):
    def tell(self, event: Event) -> None:
        """This has happened, and has been written. Must not change a queue."""


class LogObserver:
    """Writes events to the server's log."""

    def tell(self, event: Event) -> None:
        about = f" {event.id}, {event.body_bytes} bytes" if event.id else ""
        if event.items >= 0:
            about = f" of {event.items} items"
        name = show_bytes(event.queue)
        log.info("trace %s: %s%s", name, event.what.decode(), about)


class Traces:
    """Which queues are watched, and by whom. Knows them by name: one may be watched before it exists, and when it has
    been deleted and made again."""

    def __init__(self, registry: Registry, journal: Journal, has_option: Callable[[MessageQueue], bool]) -> None:
        """`has_option`: whether a queue's option `trace` is on."""
        self.has_option = has_option
        self._registry = registry
        self._journal = journal
        self._watchers: dict[bytes, list[Observer]] = {}
        self._log = LogObserver()
        # Of this server: its queues find their way back here without a slot for it.
        self._traced: type[MessageQueue] = type("TracedQueue", (TracedQueue,), {"__slots__": (), "traces": self})
        registry.traces = self
        self.look_again()

    def look_again(self) -> None:
        """The options may be others now."""
        for queue in self._registry:
            self._switch(queue)

    # -- who watches

    def watch(self, name: bytes, observer: Observer) -> bool:
        """Tell `observer` from now on what happens to queue `name`; False: it does not exist yet."""
        self._watchers.setdefault(name, []).append(observer)
        queue = self._registry.queues.get(name)
        if queue is not None:
            self._switch(queue)
        return queue is not None

    def unwatch(self, name: bytes, observer: Observer) -> None:
        watchers = self._watchers[name]
        watchers.remove(observer)
        if not watchers:
            del self._watchers[name]
        queue = self._registry.queues.get(name)
        if queue is not None:
            self._switch(queue)

    def _switch(self, queue: MessageQueue) -> None:
        if not queue.unreadable:
            wanted = queue.name in self._watchers or self.has_option(queue)
            queue.__class__ = self._traced if wanted else MessageQueue

    # -- what happens

    def created(self, queue: MessageQueue) -> None:
        """In this turn. From the registry."""
        self._switch(queue)
        if isinstance(queue, TracedQueue):
            self.note(queue, CREATE)

    def changed(self, queue: MessageQueue) -> None:
        """Its options may be others now. From the registry."""
        self._switch(queue)

    def deleted(self, queue: MessageQueue) -> None:
        """In this turn. From the registry. A delete that is undone leaves the queue as it was."""
        if isinstance(queue, TracedQueue) or queue.name in self._watchers:
            self.note(queue, DELETE)

    def note(self, queue: MessageQueue, what: bytes, *about: Any) -> None:
        """This has happened in this turn. `about` as in Event, from `id` on."""
        journal = self._journal
        journal.after.append((self._tell, Event(queue.name, what, journal.time_ms(), *about), queue))

    def _tell(self, event: Event, queue: MessageQueue) -> None:
        try:
            for observer in self._watchers.get(event.queue, ()):
                observer.tell(event)
            if self.has_option(queue):
                self._log.tell(event)
        except Exception:  # nobody who watches may disturb the end of the turn
            log.exception("an event could not be told")


class TracedQueue(MessageQueue):
    """A queue that is watched. It does what MessageQueue does: each event is told by the one call that makes it, and
    `take` and `open` are the plain forms, which call these.

    An event is noted before others that it leads to: what is put may be handed to a client that waits.
    """

    __slots__ = ()

    traced: ClassVar = True
    traces: ClassVar[Traces]

    def put(self, body: bytes | Blob, flags: int, expires_at_ms: int) -> None:
        self._note_item(PUT, self.tail, (body, flags, expires_at_ms, 0))
        super().put(body, flags, expires_at_ms)

    def put_until(self, body: bytes | Blob, flags: int, expires_at_ms: int) -> None:
        self._note_item(PUT, self.tail, (body, flags, expires_at_ms, 0))
        super().put_until(body, flags, expires_at_ms)

    def take(self) -> Item | Large | None:
        item_id = self.head_id if self.has_head() else 0  # has_head drops what has expired, so that this is the one
        item = self._take_slowly()
        if isinstance(item, tuple):
            self._note_item(GET, item_id, item)
        return item

    def open(self) -> OpenRead | None:
        read = self._open_slowly()
        if read is None:
            return None
        try:
            item = self.log.read_one(read.id) if read.item is None else read.item
        except StorageError:  # whoever opens it will be told
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
        self._note_item(EXPIRE, item_id, item)

    def discard_oldest(self) -> bool:
        item_id, before = self.head_id, self.bytes_out
        discarded = super().discard_oldest()
        if discarded:
            self.traces.note(self, DISCARD, item_id, self.bytes_out - before)
        return discarded

    def flush(self) -> None:
        items = self.waiting_items
        super().flush()
        self.traces.note(self, FLUSH, 0, 0, -1, None, items)

    def _note_item(self, what: bytes, item_id: int, item: Item) -> None:
        body, flags, _, _ = item
        self.traces.note(self, what, item_id, len(body), flags, self._start(body))

    def _start(self, body: bytes | Blob) -> bytes | None:
        if not isinstance(body, Blob):
            return body[:START_BYTES]
        try:
            return self.log.journal.storage.chunk(self.log.record.number, body.blob, 0)[:START_BYTES]
        except StorageError:
            return None
