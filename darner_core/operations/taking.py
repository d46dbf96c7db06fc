"""Taking items: the commands that read, wait in line, and send large items. See `client` for what a command is.

No call here switches greenlets, except through the Client's wait_... calls.
"""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from darner_core.config.options import Config
from darner_core.engines.contract import Download, Item, Large, Read, Source
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.reads import OpenRead
from darner_core.engines.local.registry import Registry
from darner_core.errors import StorageError
from darner_core.operations.client import Client, HangUp, Reply
from darner_core.operations.session import ManyReads, Session
from darner_core.operations.stats import Stats
from darner_core.protocols.memcache import replies
from darner_core.protocols.memcache.reader import Request
from darner_core.protocols.memcache.replies import AFTER_BODY, DELETED, END, NONE, NOT_FOUND
from darner_core.shared_memory import PipelineMemory
from darner_core.storage.records import Blob

# What is sent of a large item at a time while pipeline_memory_bytes are exceeded.
SCARCE_SEND_BYTES = 16 << 10


class Reading:
    """The commands that take items, bound to what they work on."""

    def __init__(
        self, registry: Registry, journal: Journal, stats: Stats, config: Config, pipeline_memory: PipelineMemory
    ) -> None:
        self._registry = registry
        self._queues = registry.queues
        self._journal = journal
        self._stats = stats
        self._max_item_bytes = config.max_item_bytes
        self._pipeline_memory = pipeline_memory
        # (queue's number, large item) -> its chunk that could not be read when it was last sent.
        self._unreadable: dict[tuple[int, int], int] = {}
        self.sending: dict[Read, Download] = {}  # the large items that are being sent
        self.stopping = False  # no one waits any longer
        self.blocked = False  # the same for as long as the status forbids to read

    @property
    def waits_end(self) -> bool:
        return self.stopping or self.blocked

    def get(self, request: Request, body: None, session: Session) -> Reply:
        if not request.plain or session.open_read is not None:
            return self._get_with_options(request, session)
        # A plain get. Everything below stands in `_get_with_options` too; here it is the hot path.
        queue = self._queues.get(request.queue)
        if queue is None or (item := queue.take()) is None:
            if queue is not None and queue.half_swept:
                return partial(self._sweep_and_get, request)
            self._stats.get_misses += 1
            return END
        if item.__class__ is Large:
            return partial(self._send_large, request, queue, None)
        self._stats.get_hits += 1
        return self._value(request, item, 0)  # type: ignore[arg-type]

    def get_placed(self, request: Request, body: None, session: Session) -> Reply:
        """The same for a fanout child, which is made by its first use, a peek aside, or for a cursor."""
        if request.cursor:
            return self._get_at_cursor(request, session)
        if request.opens or not (request.closes or request.aborts or request.peeks):
            self._registry.child(request.queue)
        return self.get(request, body, session)

    def _get_at_cursor(self, request: Request, session: Session) -> Reply:
        queue = self._queues.get(request.queue)
        if not request.plain or session.open_read is not None or queue is None:
            return self._get_with_options(request, session)
        cursor = (queue.cursors or {}).get(request.cursor) or self._registry.cursors.of(queue, request.cursor)
        item = cursor.take()
        if item is None:
            if cursor.half_swept:
                return partial(self._sweep_and_get, request)
            self._stats.get_misses += 1
            return END
        if item.__class__ is Large:
            return partial(self._send_large, request, cursor, None)
        self._stats.get_hits += 1
        return self._value(request, item, 0)  # type: ignore[arg-type]

    def _find(self, request: Request) -> Source | None:
        """The queue or cursor that is asked; a cursor is made. Raises ServerError if there may be no more of them."""
        queue = self._queues.get(request.queue)
        if request.cursor and queue is not None:
            return self._registry.cursors.of(queue, request.cursor, request.peeks)
        return queue

    def _get_with_options(self, request: Request, session: Session) -> Reply:
        if request.closes:
            session.close_read(request.queue)
            if not request.opens:
                return END
        elif request.aborts:
            session.abort_read(request.queue)
            return END
        elif session.open_read is not None:
            session.require_none_open()
        return self._look(request, session)

    def _sweep_and_get(self, request: Request, client: Client) -> bytes:
        """So many items at the head have expired that they cannot be removed in one turn."""
        if request.cursor:
            _wait_swept(self._find(request), client)
        else:
            for name in request.targets or (request.queue,):
                self.wait_swept(name, client)
        again = self._look_at_several if request.several else self._look
        reply = again(request, client.session)
        return reply if isinstance(reply, bytes) else reply(client)

    def wait_swept(self, name: bytes, client: Client) -> None:
        """Until what stands at the head of this queue has not expired."""
        _wait_swept(self._queues.get(name), client)

    def _look(self, request: Request, session: Session) -> Reply:
        """What is there now, or wait for it."""
        queue = self._find(request) if request.cursor else self._queues.get(request.queue)
        if session.several_reads and request.opens and queue is not None:
            session.require_room(request.queue, queue.options.max_open_reads)
        if request.peeks:
            self._stats.cmd_peek += 1
            item = queue.peek() if queue is not None else None
            if item is not None:
                assert queue is not None
                if isinstance(item[0], Blob):
                    return partial(self._send_large_peek, request, queue, item)
                return self._value(request, item, queue.head_id)
        elif queue is not None:
            read = queue.open()
            if read is not None:
                return self.answer_with(request, session, read)
        if queue is not None and queue.half_swept:
            return partial(self._sweep_and_get, request)
        if request.wait_ms and not self.waits_end and request.queue not in self._registry.aliases:
            return partial(self._wait_and_peek if request.peeks else self._wait_and_get, request)
        return self._miss(request)

    def get_first(self, request: Request, body: None, session: Session) -> Reply:
        """A get of several queues: opens an item of the first that has one, or waits at all of them."""
        return self._look_at_several(request, session)

    def _look_at_several(self, request: Request, session: Session) -> Reply:
        found = [(one, queue) for one in request.several if (queue := self._queues.get(one.queue)) is not None]
        for one, queue in found:
            session.require_room(one.queue, queue.options.max_open_reads)
        for one, queue in found:
            read = queue.open()
            if read is not None:
                return self.answer_with(one, session, read)
            if queue.half_swept:
                return partial(self._sweep_and_get, request)
        wait_ms = request.several[0].wait_ms
        if wait_ms and not self.waits_end:
            return partial(self._wait_and_get_first, request)
        return self._miss(request)

    def acknowledge(self, request: Request, body: None, session: ManyReads) -> bytes:
        """The client has dealt with the oldest item of this queue that it has open."""
        reply = DELETED if session.close_oldest(request.queue) else NOT_FOUND
        return NONE if request.noreply else reply

    def _miss(self, request: Request) -> bytes:
        if not request.peeks:
            self._stats.get_misses += 1
        return END

    def answer_with(self, request: Request, session: Session, read: Read) -> Reply:
        """The reply with an item that has just been opened, which a get without /open closes at once."""
        queue = read.queue
        try:
            if read.blob:
                return partial(self._send_large, request, queue, read)
            item = queue.item_of(read)
        except BaseException:
            queue.give_back(read)
            raise
        self._stats.get_hits += 1
        if request.opens:
            session.hold(read)
        else:
            queue.close(read)
        return self._value(request, item, read.id)

    # -- waiting

    def _wait_and_get(self, request: Request, client: Client) -> bytes:
        read = self.wait_for_read((request.queue,), client, request.wait_ms, request.cursor)
        return self._wait_answered(request, read, client)

    def _wait_and_get_first(self, request: Request, client: Client) -> bytes:
        by_name = {one.queue: one for one in request.several}
        names = [name for name in request.targets if name not in self._registry.aliases]
        read = self.wait_for_read(names, client, request.several[0].wait_ms) if names else None
        return self._wait_answered(request if read is None else by_name[read.queue.name], read, client)

    def _wait_answered(self, request: Request, read: Read | None, client: Client) -> bytes:
        if read is None:
            return self._miss(request)
        reply = self.answer_with(request, client.session, read)
        return reply if isinstance(reply, bytes) else reply(client)

    def wait_for_read(self, names: Sequence[bytes], client: Client, wait_ms: int, cursor: bytes = b"") -> Read | None:
        """Wait in line at these queues, or at a cursor of one, for an item of any of them. It is handed over open, so
        that it goes to the next if the client has gone; None: none has come."""
        until = time.monotonic() + wait_ms / 1000
        while True:
            read = self._wait_in_lines(names, client, False, max(0, int((until - time.monotonic()) * 1000)), cursor)
            if read is None:
                return None
            assert isinstance(read, OpenRead)
            if read.queue.holds(read):
                return read
            # Handed over, and deleted before we came to run, or its turn could not be written: wait on.
            if not cursor and read.queue.deleted and (found := self._queues.get(read.queue.name)) is not None:
                read = found.open()  # what was put into the next of its name found nobody in line
                if read is not None:
                    return read
            if self.waits_end:
                return None

    def wait_peeked(self, name: bytes, client: Client, until: float, cursor: bytes = b"") -> bool:
        """Wait in line at queue `name`, or at a cursor of it, until there is something to look at, or perhaps was: it
        may be gone when this returns. False: it is `until` by time.monotonic(), or nobody waits any longer."""
        rest_ms = int((until - time.monotonic()) * 1000)
        if rest_ms <= 0 or self.waits_end:
            return False
        return self._wait_in_lines((name,), client, True, rest_ms, cursor) is not None

    def _wait_and_peek(self, request: Request, client: Client) -> bytes:
        until = time.monotonic() + request.wait_ms / 1000
        while self.wait_peeked(request.queue, client, until, request.cursor):
            _wait_swept(self._find(request), client)
            found = self._find(request)
            item = found.peek() if found is not None else None
            if item is not None:
                assert found is not None
                if isinstance(item[0], Blob):
                    return self._send_large_peek(request, found, item, client)
                return self._value(request, item, found.head_id)
        return END

    def _wait_in_lines(
        self, names: Sequence[bytes], client: Client, peeks: bool, wait_ms: int, cursor: bytes = b""
    ) -> Any:
        registry = self._registry
        waiter = None
        try:
            for name in names:
                waiter = registry.join_line(name, cursor, peeks, waiter)
            assert waiter is not None
            return client.wait_for(waiter, wait_ms)
        except BaseException:
            if waiter is not None and isinstance(waiter.got, OpenRead):
                waiter.got.queue.give_back(waiter.got)
            raise
        finally:
            if waiter is not None:
                waiter.cancel()
            for name in names:
                registry.leave_line(name, cursor)

    # -- replies

    def _value(self, request: Request, item: Item, item_id: int) -> bytes:
        """The reply with `item`, which is not large. `gets` tells its id."""
        body, flags, _, _ = item
        if flags or request.with_cas:
            return self._head(request, flags, len(body), item_id) + body + AFTER_BODY  # type: ignore[operator]
        if len(body) != request.head_bytes:  # else the last reply to this line began with the same head
            request.head_bytes = len(body)
            request.head = self._head(request, 0, len(body), item_id)
        return request.head + body + AFTER_BODY  # type: ignore[operator]

    def _head(self, request: Request, flags: int, body_bytes: int, item_id: int) -> bytes:
        key = request.key if request.repeats_key else request.queue
        if request.with_cas:
            return replies.value_head_with_cas(key, flags, body_bytes, item_id)
        return replies.value_head(key, flags, body_bytes)

    def _send_large(self, request: Request, queue: Source, read: Read | None, client: Client) -> bytes:
        """Send a large item chunk by chunk. It is open while it is sent, so it goes to the next if the client goes."""
        if read is None:
            read = queue.open()
            assert read is not None
        try:
            item = queue.item_of(read)
            self.send_chunks(self._large_head(request, item, read.id), queue, item, read.id, client, read)
            if not request.opens:
                queue.close(read)
        except BaseException:
            queue.give_back(read)
            raise
        self._stats.get_hits += 1
        if request.opens:
            client.session.hold(read)
        return AFTER_BODY

    def _send_large_peek(self, request: Request, queue: Source, item: Item, client: Client) -> bytes:
        """The same for a peek, which holds nobody up: if another client takes the item, this one is cut off."""
        head_id = queue.head_id
        try:
            self.send_chunks(self._large_head(request, item, head_id), queue, item, head_id, client)
        except StorageError:
            if queue.head_id != head_id:
                raise HangUp from None
            raise
        return AFTER_BODY

    def _large_head(self, request: Request, item: Item, item_id: int) -> bytes:
        return self._head(request, item[1], len(item[0]), item_id)

    def send_chunks(
        self,
        head: bytes,
        queue: Source,
        item: Item,
        item_id: int,
        client: Client,
        read: Read | None = None,
    ) -> None:
        """Send `head` and the body of `item`, which is large, and which `read` has open if it is not only shown. For
        all protocols. Raises StorageError if nothing has been sent yet, else HangUp."""
        blob = item[0]
        assert isinstance(blob, Blob)
        key = queue.large_items.number, blob.blob
        bad = self._unreadable.get(key)
        body = queue.large_items.send(blob)
        if read is not None:
            self.sending[read] = body
        begun = False
        try:
            if bad is not None:
                self._journal.storage.chunk(*key, bad)
                del self._unreadable[key]
            # The head goes with the first piece: before the reply has begun, the client can be told of an error, later
            # it can only be cut off. No name for what is sent: it would be kept while the client takes it.
            client.wait_sent(head + body.next(self._most_sent_bytes))
            begun = True
            while body.missing_bytes:
                if queue.deleted or (read is not None and read.returned):  # the client stood still for too long
                    raise HangUp
                client.wait_sent(body.next(self._most_sent_bytes))
            if read is not None and read.returned:
                raise HangUp
        except StorageError as error:
            if item_id not in queue.outstanding:  # only shown, and perhaps taken by another client meanwhile
                if begun:
                    raise HangUp from error
                raise
            if bad is None:
                self._unreadable[key] = body.index
            damage = queue.cannot_be_read(error)
            if begun:
                raise HangUp from damage
            raise damage from error
        finally:
            if read is not None:
                self.sending.pop(read, None)

    @property
    def _most_sent_bytes(self) -> int:
        """Of a large item at a time; never more than a chunk."""
        return SCARCE_SEND_BYTES if self._pipeline_memory.scarce else self._max_item_bytes


def _wait_swept(queue: Source | None, client: Client) -> None:
    while queue is not None and queue.half_swept and not queue.deleted:
        queue.drop_expired()
        client.wait_turn()
