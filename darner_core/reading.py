"""Taking items: the commands that read, wait in line, and send large items. See `client` for what a command is.

No call here switches greenlets, except through the Client's wait_... calls.
"""

import time
from functools import partial
from typing import Any

from darner_core import replies
from darner_core.client import Client, HangUp, Reply
from darner_core.config import Config
from darner_core.errors import StorageError
from darner_core.journal import Journal
from darner_core.message_queue import Large, MessageQueue, OpenRead
from darner_core.protocol import Request
from darner_core.records import Blob, Item
from darner_core.registry import Registry
from darner_core.replies import AFTER_BODY, END
from darner_core.session import Session
from darner_core.shared_memory import PipelineMemory
from darner_core.stats import Stats

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
        self._key_as_asked = config.reply_key == "request"
        # (queue's number, large item) -> its chunk that could not be read when it was last sent.
        self._unreadable: dict[tuple[int, int], int] = {}
        self.stopping = False  # no one waits any longer

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

    def get_placed(self, request: Request, body: None, session: Session) -> Reply:
        """The same of a fanout child."""
        if not (request.closes or request.aborts) or request.opens:
            self._registry.child(request.queue)
        return self.get(request, body, session)

    def _sweep_and_get(self, request: Request, client: Client) -> bytes:
        """So many items at the head have expired that they cannot be removed in one turn."""
        queue = self._queues.get(request.queue)
        while queue is not None and queue.half_swept and not queue.deleted:
            queue.drop_expired()
            client.wait_turn()
        reply = self._look(request, client.session)
        return reply if isinstance(reply, bytes) else reply(client)

    def _look(self, request: Request, session: Session) -> Reply:
        """What is there now, or wait for it."""
        queue = self._queues.get(request.queue)
        if request.opens and queue is not None:
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
                return self._answer_with(request, session, read)
        if queue is not None and queue.half_swept:
            return partial(self._sweep_and_get, request)
        if request.wait_ms and not self.stopping and request.queue not in self._registry.aliases:
            return partial(self._wait_and_get, request)
        return self._miss(request)

    def _miss(self, request: Request) -> bytes:
        if not request.peeks:
            self._stats.get_misses += 1
        return END

    def _answer_with(self, request: Request, session: Session, read: OpenRead) -> Reply:
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

    def _wait_and_get(self, request: Request, client: Client) -> bytes:
        """Wait in line for an item. It is handed over open, so that it goes to the next if the client has gone."""
        handed = self.wait_handed(request.queue, client, request.peeks, request.wait_ms)
        if handed is None:
            return self._miss(request)
        if request.peeks:
            # It may be gone again: then this is the same as having come too early.
            found = self._queues.get(request.queue)
            item = found.peek() if found is not None else None
            if item is None:
                return END
            assert found is not None
            if isinstance(item[0], Blob):
                return self._send_large_peek(request, found, item, client)
            return self._value(request, item, found.head_id)
        reply = self._answer_with(request, client.session, handed)
        return reply if isinstance(reply, bytes) else reply(client)

    def wait_handed(self, name: bytes, client: Client, peeks: bool, wait_ms: int) -> Any:
        """Wait in line at queue `name`: an open read; for who peeks, the queue; None: nothing came in time. For all
        protocols."""
        until = time.monotonic() + wait_ms / 1000
        while True:
            handed = self._wait_in_line(name, client, peeks, max(0, int((until - time.monotonic()) * 1000)))
            if handed is None or peeks or handed.queue.holds(handed):
                return handed
            # Handed over, and deleted before we came to run, or its turn could not be written: wait on.

    def _wait_in_line(self, name: bytes, client: Client, peeks: bool, wait_ms: int) -> Any:
        queue = self._registry.wait_at(name)
        waiter = queue.join_line(peeks)
        try:
            return client.wait_for(waiter, wait_ms)
        except BaseException:
            if isinstance(waiter.got, OpenRead):
                waiter.got.queue.give_back(waiter.got)
            raise
        finally:
            waiter.cancel()
            self._registry.done_waiting(queue)

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
        key = request.key if self._key_as_asked else request.queue
        if request.with_cas:
            return replies.value_head_with_cas(key, flags, body_bytes, item_id)
        return replies.value_head(key, flags, body_bytes)

    def _send_large(self, request: Request, queue: MessageQueue, read: OpenRead | None, client: Client) -> bytes:
        """Send a large item chunk by chunk. It is open while it is sent, so it goes to the next if the client goes."""
        if read is None:
            read = queue.open()
            assert read is not None
        try:
            item = queue.item_of(read)
            self.send_chunks(self._large_head(request, item, read.id), queue, item, read.id, client)
            if not request.opens:
                queue.close(read)
        except BaseException:
            queue.give_back(read)
            raise
        self._stats.get_hits += 1
        if request.opens:
            client.session.hold(read)
        return AFTER_BODY

    def _send_large_peek(self, request: Request, queue: MessageQueue, item: Item, client: Client) -> bytes:
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

    def send_chunks(self, head: bytes, queue: MessageQueue, item: Item, item_id: int, client: Client) -> None:
        """Send `head` and the body of `item`, which is large. For all protocols. Raises StorageError or HangUp."""
        blob = item[0]
        assert isinstance(blob, Blob)
        key = queue.log.record.number, blob.blob
        bad = self._unreadable.get(key)
        body = queue.large_items.send(blob)
        try:
            if bad is not None:
                self._journal.storage.chunk(*key, bad)
                del self._unreadable[key]
            # The head goes with the first piece: before the reply has begun, the client can be told of an error, later
            # it can only be cut off. No name for what is sent: it would be kept while the client takes it.
            client.wait_sent(head + body.next(self._most_sent_bytes))
            while body.missing_bytes:
                if queue.deleted:
                    raise HangUp
                client.wait_sent(body.next(self._most_sent_bytes))
        except StorageError as error:
            if item_id not in queue.outstanding:
                raise  # only shown, and perhaps taken by another client meanwhile
            if bad is None:
                self._unreadable[key] = body.index
            raise queue.cannot_be_read(error) from error

    @property
    def _most_sent_bytes(self) -> int:
        """Of a large item at a time; never more than a chunk."""
        return SCARCE_SEND_BYTES if self._pipeline_memory.scarce else self._max_item_bytes
