"""What each verb does. The only place that knows the verbs; the server knows none by name.

A command is a method  (request, body, session) -> reply.  The reply is bytes, b"" for none, or, when the command has to
wait for something, a function of the Client that the server runs in the client's own greenlet, blocking-style, and
that returns the bytes. Commands raise RequestError for what the client did wrong and StorageError for the disk.

The commands themselves never switch greenlets; the functions they return do, through the Client's wait_... calls.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NoReturn, Protocol

from darner_core import VERSION, heap, protocol, replies
from darner_core.config import Config
from darner_core.errors import DamagedError, ServerError, StorageError
from darner_core.journal import Journal
from darner_core.message_queue import DamagedQueue, Large, MessageQueue, OpenRead
from darner_core.protocol import Command, Request
from darner_core.records import Blob, Item
from darner_core.registry import Registry
from darner_core.replies import AFTER_BODY, DELETED, END, NONE, STORED
from darner_core.rights import ADMIN, ADMIN_ALL, FREE, GET, PUT
from darner_core.session import Session
from darner_core.shared_memory import BodyMemory, PipelineMemory
from darner_core.stats import Stats
from darner_core.traced_queue import Traces
from darner_core.waiters import Waiter
from darner_core.watching import Watching

# How many queues one turn goes through in `stats` and `flush_all`: 100 are 1 to 2 ms.
QUEUES_A_TURN = 100

# What is sent of a large item at a time while pipeline_memory_bytes are exceeded.
SCARCE_SEND_BYTES = 16 << 10

# An expiry below it is in seconds from now, else in seconds since 1970. Source: Kestrel's guide, "set".
MAX_RELATIVE_EXPIRY_S = 1_000_000


def slices(names: Iterable[bytes]) -> Iterator[list[bytes]]:
    """`names` as they are now, so many at a time as one turn can deal with."""
    fixed = list(names)
    for start in range(0, len(fixed), QUEUES_A_TURN):
        yield fixed[start : start + QUEUES_A_TURN]


class HangUp(Exception):
    """Disconnect the client: it asked for that, or what it was being sent is gone."""


class Client(Protocol):
    """The connection, as the functions that wait see it. Every call may switch greenlets."""

    session: Session

    def wait_for(self, waiter: Waiter, wait_ms: int) -> object:
        """Wait in line, watching for a hang-up. What was handed over, or None."""

    def wait_sent(self, data: bytes = b"") -> None:
        """Send `data` behind all replies so far, and wait until the client has taken it."""

    def wait_body(self, most_bytes: int) -> bytes:
        """The next bytes of the large item that is being received; at least one, at most so many."""

    def wait_turn(self) -> None:
        """Let the others have their turn."""

    def may_see(self, queue: bytes) -> bool:
        """Whether `stats` tells this client of `queue`. Does not switch."""


Reply = bytes | Callable[[Client], bytes]


class Commands:
    """The commands, bound to what they work on. `table` maps verbs to how they are read and done."""

    def __init__(self, registry: Registry, journal: Journal, stats: Stats, config: Config) -> None:
        self._registry = registry
        self._queues = registry.queues
        self._journal = journal
        self._stats = stats
        self._max_item_bytes = config.max_item_bytes
        self._chunk_bytes = config.chunk_bytes
        self._min_free_bytes = config.min_free_bytes
        self.body_memory = BodyMemory(config.body_memory_bytes, heap.trim)
        self.pipeline_memory = PipelineMemory(config.pipeline_memory_bytes)
        self._key_as_asked = config.reply_key == "request"
        # (queue's number, large item) -> its chunk that could not be read when it was last sent.
        self._unreadable: dict[tuple[int, int], int] = {}
        self.refuse_sets = ""  # why sets are refused at present
        self.stopping = False  # no one waits any longer
        self.traces = Traces(registry, journal, lambda queue: False)
        watching = Watching(self.traces, lambda: self.stopping)
        self.table = {
            b"set": Command(protocol.parse_storing, self.set, PUT),
            b"get": Command(protocol.parse_reading, self.get, GET),
            b"gets": Command(protocol.parse_reading, self.get, GET),
            b"delete": Command(protocol.parse_naming, self.delete, ADMIN),
            b"flush": Command(protocol.parse_naming, self.flush, ADMIN),
            b"flush_all": Command(protocol.parse_flush_all, self.flush_all, ADMIN_ALL),
            b"stats": Command(protocol.parse_bare, self.stats, FREE),
            b"version": Command(protocol.parse_bare, self.version, FREE),
            b"watch": Command(protocol.parse_naming, watching.watch, ADMIN),
            b"quit": Command(protocol.parse_bare, self.quit, FREE),
        }

    # -- set

    def set(self, request: Request, body: bytes, session: Session) -> bytes:
        self._stats.cmd_set += 1
        if self.refuse_sets or request.body_bytes > self._max_item_bytes:
            self._refuse(request)
        queue = self._queues.get(request.queue)
        if queue is None:
            queue = self._registry.create(request.queue)
        queue.put(body, request.flags, self._expires_at_ms(request) if request.expiry else 0)
        if request.sync:
            session.needs_sync = True
        return NONE if request.noreply else STORED

    def _refuse(self, request: Request) -> NoReturn:
        if request.body_bytes > self._max_item_bytes:
            raise ServerError("object too large for cache")
        raise ServerError(self.refuse_sets)

    def _expires_at_ms(self, request: Request) -> int:
        self._journal.begin()
        seconds = request.expiry
        if seconds < MAX_RELATIVE_EXPIRY_S:
            return max(1, self._journal.now_ms + seconds * 1000)
        return min(seconds * 1000, 2**63)

    def receive_large(self, request: Request, client: Client) -> bytes:
        """A set whose body is larger than a chunk, or has to be kept out of memory, and is still on its way: store it
        piece by piece."""
        self._stats.cmd_set += 1
        size = request.body_bytes
        try:
            if self.refuse_sets or request.body_bytes > self._max_item_bytes:
                self._refuse(request)
            self._require_room(size)
            queue = self._queues.get(request.queue) or self._registry.create(request.queue)
            upload = queue.large_items.receive(self._chunk_bytes, self.body_memory)
        except (ServerError, StorageError):
            self._skip_body(client, size)
            raise
        terminated = False
        try:
            if size <= self._chunk_bytes:  # memory is short, so that what has come of it must not wait there
                upload.add(client.wait_body(size))
                upload.store()
            while missing := size - upload.received_bytes:
                if self.refuse_sets:  # others have filled the disk meanwhile
                    raise ServerError(self.refuse_sets)
                # No name for what has come: it would be kept while the next is waited for.
                upload.add(client.wait_body(min(missing, upload.room_bytes)))
            self._expect_terminator(request, client)
            terminated = True
            if queue.deleted:
                raise ServerError("the queue was deleted while its item was being received")
            upload.finish()
        except BaseException as error:  # the client may also have hung up
            upload.drop()
            if isinstance(error, (ServerError, StorageError)) and not terminated:
                self._skip_body(client, size - upload.received_bytes)
            raise
        expires_at_ms = self._expires_at_ms(request) if request.expiry else 0
        queue.put(Blob(upload.blob, request.body_bytes), request.flags, expires_at_ms)
        if request.sync:
            client.session.needs_sync = True
        return NONE if request.noreply else STORED

    def _require_room(self, size: int) -> None:
        """Raises ServerError if so many bytes more would leave less than min_free_bytes."""
        free = self._journal.storage.free_bytes()
        if free - size < self._min_free_bytes:
            raise ServerError(
                f"out of disk space: {free} bytes free, an item of {size} bytes has to leave {self._min_free_bytes}"
            )

    def _expect_terminator(self, request: Request, client: Client) -> None:
        end = client.wait_body(2)
        if len(end) < 2:
            end += client.wait_body(1)
        if end != replies.CRLF:
            raise protocol.bad_terminator(request)

    def _skip_body(self, client: Client, size: int) -> None:
        """Read and drop the rest of an item that is refused, and its CR LF, as memcached does."""
        size += 2
        while size:
            size -= len(client.wait_body(min(size, self._chunk_bytes)))

    # -- get

    def get(self, request: Request, body: None, session: Session) -> Reply:
        if not request.plain or session.open_read is not None:
            return self._get_with_options(request, session)
        # A plain get. Everything below stands in `_get_with_options` too; here it is the hot path.
        queue = self._queues.get(request.queue)
        if queue is None or (item := queue.take()) is None:
            self._stats.get_misses += 1
            return END
        if item.__class__ is Large:
            return partial(self._send_large, request, queue, None)
        self._stats.get_hits += 1
        return self._value(request, item, 0)  # type: ignore[arg-type]

    def _get_with_options(self, request: Request, session: Session) -> Reply:
        if request.closes:
            session.close_read()
            if not request.opens:
                return END
        elif request.aborts:
            session.abort_read()
            return END
        elif session.open_read is not None:
            session.require_none_open()
        queue = self._queues.get(request.queue)
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
        if request.wait_ms and not self.stopping:
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
        peeks = request.peeks
        until = time.monotonic() + request.wait_ms / 1000
        while True:
            handed = self._wait_in_line(request, client, peeks, max(0, int((until - time.monotonic()) * 1000)))
            if handed is None:
                return self._miss(request)
            if peeks or handed.queue.holds(handed):
                break
            # Handed over, and deleted before we came to run, or its turn could not be written: wait on.
        if peeks:
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

    def _wait_in_line(self, request: Request, client: Client, peeks: bool, wait_ms: int) -> Any:
        queue = self._registry.wait_at(request.queue)
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
            self._send_chunks(request, queue, item, read.id, client)
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
            self._send_chunks(request, queue, item, head_id, client)
        except StorageError:
            if queue.head_id != head_id:
                raise HangUp from None
            raise
        return AFTER_BODY

    def _send_chunks(self, request: Request, queue: MessageQueue, item: Item, item_id: int, client: Client) -> None:
        blob, flags, _, _ = item
        assert isinstance(blob, Blob)
        key = queue.log.record.number, blob.blob
        bad = self._unreadable.get(key)
        body = queue.large_items.send(blob)
        head = self._head(request, flags, len(blob), item_id)
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
        return SCARCE_SEND_BYTES if self.pipeline_memory.scarce else self._max_item_bytes

    # -- the rest

    def delete(self, request: Request, body: None, session: Session) -> bytes:
        self._registry.delete(request.queue)
        return NONE if request.noreply else DELETED

    def flush(self, request: Request, body: None, session: Session) -> bytes:
        self._registry.flush(request.queue)
        return NONE if request.noreply else END

    def flush_all(self, request: Request, body: None, session: Session) -> Reply:
        return partial(self._flush_all, request)

    def _flush_all(self, request: Request, client: Client) -> bytes:
        damaged = {name: queue for name, queue in self._queues.items() if isinstance(queue, DamagedQueue)}
        for names in slices(self._queues):
            for name in names:
                if name not in damaged:
                    self._registry.flush(name)
            client.wait_turn()
        if damaged:
            raise DamagedError(f"all queues were flushed but one: {damaged[min(damaged)].damage}")
        return NONE if request.noreply else replies.FLUSHED_ALL

    def stats(self, request: Request, body: None, session: Session) -> Reply:
        return self._stats_lines

    def _stats_lines(self, client: Client) -> bytes:
        client.wait_sent(b"".join(self._stats.server_lines(self._registry)))
        for names in slices(self._queues):
            seen = [name for name in names if name in self._queues and client.may_see(name)]
            lines = [self._stats.queue_lines(self._queues[name]) for name in seen]
            client.wait_sent(b"".join(lines))
            client.wait_turn()
        return END

    def version(self, request: Request, body: None, session: Session) -> bytes:
        return replies.version(VERSION)

    def quit(self, request: Request, body: None, session: Session) -> NoReturn:
        raise HangUp
