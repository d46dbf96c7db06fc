"""The commands that put and take items, and how their replies are written: set, get, monitor, confirm.

`set` and `get` are the hot path. They find the queue themselves and do what a plain request needs right here; all else
goes through the operations. A command is what `contract` says.
"""

import time
from functools import partial
from typing import Any

from darner_core.config.options import Config
from darner_core.engines.contract import Item, Read
from darner_core.engines.jobs import Outcome
from darner_core.errors import ServerError, StorageError
from darner_core.operations.client import LATER, Client
from darner_core.operations.operations import Operations
from darner_core.operations.putting import LargePut
from darner_core.operations.session import ManyReads, Session
from darner_core.operations.taking import Settle, Shown
from darner_core.protocols.arriving import ArrivingBody
from darner_core.protocols.contract import Reply
from darner_core.protocols.memcache import replies
from darner_core.protocols.memcache.reader import LineRequest, bad_terminator
from darner_core.protocols.memcache.replies import (
    AFTER_BODY,
    DELETED,
    END,
    NONE,
    NOT_FOUND,
    NOT_STORED,
    NOT_THAT_MANY_OPEN,
    STORED,
)
from darner_core.protocols.options import MAX_READS


class Items:
    """The commands, bound to the queues."""

    def __init__(self, operations: Operations, config: Config) -> None:
        self._queues = operations.queues
        self._cursors = operations.cursors
        self._stats = operations.stats
        self._availability = operations.availability
        self._putting = operations.putting
        self._taking = operations.taking
        self._monitoring = operations.monitoring
        self._jobs = operations.jobs
        self._time_ms = operations.time_ms
        self._max_item_bytes = config.max_item_bytes
        self._chunk_bytes = config.chunk_bytes

    # -- putting

    def set(self, request: LineRequest, body: bytes, session: Session) -> bytes:
        self._stats.cmd_set += 1
        if self._availability.no_room or request.body_bytes > self._max_item_bytes:
            self._putting.require_taken(request.body_bytes)
        queue = self._queues.get(request.queue)
        if queue is None or queue.governed or request.expiry:
            return self._set_with_care(request, body, session, (request.queue,))
        queue.put(body, request.flags, 0)
        if request.sync:
            session.require_sync()
        return NONE if request.noreply else STORED

    def set_placed(self, request: LineRequest, body: bytes, session: Session) -> bytes:
        """A set of a fanout child, or of several queues."""
        self._stats.cmd_set += 1
        self._putting.require_taken(request.body_bytes)
        return self._set_with_care(request, body, session, request.targets or (request.queue,))

    def _set_with_care(self, request: LineRequest, body: bytes, session: Session, names: tuple[bytes, ...]) -> bytes:
        expires_at_ms = self.expires_at_ms(request)
        stored = self._putting.put(session, names, body, request.flags, expires_at_ms, request.parent != b"")
        return self.stored(request, session, stored)

    def expires_at_ms(self, request: LineRequest) -> int:
        return request.expires_at_ms(request.expiry, self._time_ms()) if request.expiry else 0

    @staticmethod
    def stored(request: LineRequest, session: Session, is_stored: bool) -> bytes:
        if request.sync:
            session.require_sync()
        if request.noreply:
            return NONE
        return STORED if is_stored else NOT_STORED

    def receive_large(self, request: LineRequest, client: Client) -> bytes:
        """A set whose body is larger than a chunk, or has to be kept out of memory, and is still on its way: store it
        piece by piece."""
        self._stats.cmd_set += 1
        body = ArrivingBody(request.body_bytes, client, self._chunk_bytes)
        try:
            is_stored = self._wait_put_large(request, client, body)
        except (ServerError, StorageError):
            body.wait_skip()
            raise
        body.wait_skip()  # the item has been refused, or there is no queue for it
        return self.stored(request, client.session, is_stored)

    def _wait_put_large(self, request: LineRequest, client: Client, body: ArrivingBody) -> bool:
        names, as_child = request.targets or (request.queue,), request.parent != b""
        self._putting.require_taken(request.body_bytes)
        if request.job is not None:  # a key counts before the question whether there is room
            placed = self._jobs.answer_of_key(client.session, names, request.job.key, as_child)
            if placed is not None:
                return is_satisfied(request, placed.outcome)
        with self._putting.large(names, request.body_bytes, as_child) as item:
            if not item.wait_begin(client):
                return False
            if item.wanted_bytes and not body.wait_store(item):
                raise bad_terminator(request)
            return self._put_large(request, client.session, names, item)

    def _put_large(self, request: LineRequest, session: Session, names: tuple[bytes, ...], item: LargePut) -> bool:
        flags, expires_at_ms = request.flags, self.expires_at_ms(request)
        if request.job is None:
            return item.put(session, flags, expires_at_ms)
        placed = self._jobs.put_large(session, names, item, flags, expires_at_ms, request.job)
        return is_satisfied(request, placed.outcome)

    # -- taking

    def get(self, request: LineRequest, body: None, session: Session) -> Reply:
        if not request.plain or session.open_read is not None:
            return self._get_with_options(request, session)
        # A plain get. `_open` could do all of this; it is written out because this is the hot path.
        queue = self._queues.get(request.queue)
        if queue is None or (item := queue.take()) is None:
            if queue is not None and queue.half_swept:
                return partial(self._wait_open, request)
            self._stats.get_misses += 1
            return END
        if item.__class__ is not tuple:  # it is large
            return self._open(request, session)
        self._stats.get_hits += 1
        return self.value(request, item, 0)

    def get_placed(self, request: LineRequest, body: None, session: Session) -> Reply:
        """A get at a cursor, or of a fanout child, which is made by its first use unless that is a peek."""
        if request.cursor:
            return self._get_at_cursor(request, session)
        if request.opens or not (request.closes or request.aborts or request.peeks):
            self._taking.make_child(request.queue)
        return self.get(request, body, session)

    def _get_at_cursor(self, request: LineRequest, session: Session) -> Reply:
        queue = self._queues.get(request.queue)
        if not request.plain or session.open_read is not None or queue is None:
            return self._get_with_options(request, session)
        cursor = (queue.cursors or {}).get(request.cursor) or self._cursors.of(queue, request.cursor)
        item = cursor.take()
        if item is None:
            if cursor.half_swept:
                return partial(self._wait_open, request)
            self._stats.get_misses += 1
            return END
        if item.__class__ is not tuple:
            return self._open(request, session)
        self._stats.get_hits += 1
        return self.value(request, item, 0)

    def _get_with_options(self, request: LineRequest, session: Session) -> Reply:
        if request.closes:
            session.close_read(request.queue)
            if not request.opens:
                return END
        elif request.aborts:
            session.abort_read(request.queue)
            return END
        elif session.open_read is not None:
            session.require_none_open()
        return self._peek(request) if request.peeks else self._open(request, session)

    def _open(self, request: LineRequest, session: Session) -> Reply:
        if not request.cursor and (queue := self._queues.get(request.queue)) is not None:
            # What follows could be done by `Taking.open`; reliable readers ask for this with each item.
            if session.several_reads and request.opens:
                session.require_room(request.queue, queue.options.max_open_reads)
            read = queue.open()
            if read is not None:
                return self._answer(request, session, read)
        names = (request.queue,)
        if session.several_reads and request.opens:
            self._taking.require_room(session, names)
        found = self._taking.open(names, request.wait_ms, request.cursor)
        return partial(self._wait_open, request) if found is LATER else self._opened(request, session, found)

    def _wait_open(self, request: LineRequest, client: Client) -> bytes:
        until = time.monotonic() + request.wait_ms / 1000
        read = self._taking.wait_open(client, (request.queue,), until, request.cursor)
        reply = self._opened(request, client.session, read)
        return reply if isinstance(reply, bytes) else reply(client)

    def _opened(self, request: LineRequest, session: Session, read: Read | None) -> Reply:
        if read is None:
            self._stats.get_misses += 1
            return END
        return self._answer(request, session, read)

    def _answer(self, request: LineRequest, session: Session, read: Read) -> Reply:
        """The reply with an item that has been opened, which a get without /open closes at once."""
        queue = read.queue
        if read.blob:
            settle = session.hold if request.opens else close
            return partial(self.wait_send, request, read, settle)
        # What `Taking.accept` does, without the call.
        try:
            item = queue.item_of(read)
        except BaseException:
            queue.give_back(read)
            raise
        self._stats.get_hits += 1
        if request.opens:
            session.hold(read)
        else:
            queue.close(read)
        return self.value(request, item, read.id)

    def wait_send(self, request: LineRequest, read: Read, settle: Settle, client: Client) -> bytes:
        self._taking.wait_send(client, read, lambda item: self._head_of(request, item, read.id), settle)
        return AFTER_BODY

    def acknowledge(self, request: LineRequest, body: None, session: ManyReads) -> bytes:
        """The client has dealt with the oldest item of this queue that it has open."""
        reply = DELETED if session.close_oldest(request.queue) else NOT_FOUND
        return NONE if request.noreply else reply

    # -- peeking

    def _peek(self, request: LineRequest) -> Any:
        shown = partial(self._shown, request)
        return self._taking.peek_then(request.queue, request.wait_ms, shown, request.cursor)

    def _shown(self, request: LineRequest, shown: Shown | None) -> Reply:
        if shown is None:
            return END
        if shown.is_large:
            return partial(self._wait_show, request, shown)
        return self.value(request, shown.item, shown.id)

    def _wait_show(self, request: LineRequest, shown: Shown, client: Client) -> bytes:
        self._taking.wait_show(client, shown, self._head_of(request, shown.item, shown.id))
        return AFTER_BODY

    # -- monitoring a queue

    def monitor(self, request: LineRequest, body: None, session: ManyReads) -> Reply:
        return partial(self._wait_monitor, request) if request.wait_ms else END

    def monitor_placed(self, request: LineRequest, body: None, session: ManyReads) -> Reply:
        """A monitor of a fanout child."""
        self._taking.make_child(request.queue)
        return self.monitor(request, body, session)

    def _wait_monitor(self, request: LineRequest, client: Client) -> bytes:
        answer: Any = partial(self._answer, request, client.session)
        self._monitoring.wait_monitor(client, request.queue, request.wait_ms, request.most or MAX_READS, answer)
        return END

    def confirm(self, request: LineRequest, body: None, session: ManyReads) -> Any:
        return self._monitoring.confirm_then(
            session, request.queue, request.most, lambda done: END if done else NOT_THAT_MANY_OPEN
        )

    # -- replies

    def value(self, request: LineRequest, item: Item, item_id: int) -> bytes:
        """The reply with `item`, which is not large. `gets` tells its id."""
        body, flags, _, _ = item
        if flags or request.with_cas:
            return self._head(request, flags, len(body), item_id) + body + AFTER_BODY  # type: ignore[operator]
        if len(body) != request.head_bytes:  # else the last reply to this line began with the same head
            request.head_bytes = len(body)
            request.head = self._head(request, 0, len(body), item_id)
        return request.head + body + AFTER_BODY  # type: ignore[operator]

    def block(self, request: LineRequest, item: Item, item_id: int) -> bytes:
        """What a reply has for one of several items."""
        body: Any = item[0]
        return b"%b%b\r\n" % (self._head_of(request, item, item_id), body)

    def _head_of(self, request: LineRequest, item: Item, item_id: int) -> bytes:
        return self._head(request, item[1], len(item[0]), item_id)

    def _head(self, request: LineRequest, flags: int, body_bytes: int, item_id: int) -> bytes:
        key = request.key if request.repeats_key else request.queue
        if request.with_cas:
            return replies.value_head_with_cas(key, flags, body_bytes, item_id)
        return replies.value_head(key, flags, body_bytes)


def is_satisfied(request: LineRequest, outcome: Outcome) -> bool:
    """Whether the client is told STORED: a set is satisfied, too, if an item has its key already."""
    return outcome is Outcome.STORED or (outcome is Outcome.KEY_TAKEN and request.verb == b"set")


def close(read: Read) -> None:
    """Looks the method up when it is called: the class of a queue changes with its watchers."""
    read.queue.close(read)
