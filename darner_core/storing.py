"""Putting items: the commands that store, whole and piece by piece. See `client` for what a command is.

No call here switches greenlets, except through the Client's wait_... calls.
"""

from typing import NoReturn

from darner_core import protocol, replies
from darner_core.client import Client
from darner_core.config import Config
from darner_core.errors import ServerError, StorageError
from darner_core.journal import Journal
from darner_core.protocol import Request
from darner_core.records import Blob
from darner_core.registry import Registry
from darner_core.replies import NONE, STORED
from darner_core.session import Session
from darner_core.shared_memory import BodyMemory
from darner_core.stats import Stats

# An expiry below it is in seconds from now, else in seconds since 1970. Source: Kestrel's guide, "set".
MAX_RELATIVE_EXPIRY_S = 1_000_000


class Storing:
    """The commands that put items, bound to what they work on."""

    def __init__(
        self, registry: Registry, journal: Journal, stats: Stats, config: Config, body_memory: BodyMemory
    ) -> None:
        self._registry = registry
        self._queues = registry.queues
        self._journal = journal
        self._stats = stats
        self._max_item_bytes = config.max_item_bytes
        self._chunk_bytes = config.chunk_bytes
        self._min_free_bytes = config.min_free_bytes
        self._body_memory = body_memory
        self.refuse_sets = ""  # why sets are refused at present

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

    def deliver(self, name: bytes, body: bytes | Blob, flags: int, expires_at_ms: int) -> bool:
        """Put an item where a set of `name` puts it, in this turn; False: there is no room. For all protocols."""
        queue = self._queues.get(name) or self._registry.create(name)
        queue.put(body, flags, expires_at_ms)
        return True

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
            self.require_room(size)
            queue = self._queues.get(request.queue) or self._registry.create(request.queue)
            upload = queue.large_items.receive(self._chunk_bytes, self._body_memory)
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

    def require_room(self, size: int) -> None:
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
