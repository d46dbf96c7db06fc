"""Putting items: the commands that store, whole and piece by piece. See `client` for what a command is.

No call here switches greenlets, except through the Client's wait_... calls.
"""

from contextlib import suppress
from functools import partial
from typing import NoReturn

from darner_core.config.options import Config
from darner_core.config.values import SYNC_ALWAYS
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.large_items import Upload, in_turns, wait_not_behind
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.routing import Delivery, Target
from darner_core.errors import ServerError, StorageError
from darner_core.operations.client import Client
from darner_core.operations.session import Session
from darner_core.operations.stats import Stats
from darner_core.protocols.memcache import reader as protocol
from darner_core.protocols.memcache import replies
from darner_core.protocols.memcache.reader import Request
from darner_core.protocols.memcache.replies import NONE, NOT_STORED, STORED
from darner_core.shared_memory import BodyMemory
from darner_core.waiters import wait_round


class Storing:
    """The commands that put items, bound to what they work on."""

    def __init__(
        self,
        registry: Registry,
        delivery: Delivery,
        journal: Journal,
        stats: Stats,
        config: Config,
        body_memory: BodyMemory,
    ) -> None:
        self._registry = registry
        self._delivery = delivery
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
        if queue is None or queue.governed or request.expiry:
            return self._set_with_care(request, body, session, (request.queue,))
        queue.put(body, request.flags, 0)
        if request.sync:
            session.needs_sync = True
        return NONE if request.noreply else STORED

    def set_placed(self, request: Request, body: bytes, session: Session) -> bytes:
        """The same for a fanout child, or for several queues."""
        self._stats.cmd_set += 1
        if self.refuse_sets or request.body_bytes > self._max_item_bytes:
            self._refuse(request)
        return self._set_with_care(request, body, session, request.targets or (request.queue,))

    def _set_with_care(self, request: Request, body: bytes, session: Session, names: tuple[bytes, ...]) -> bytes:
        expires_at_ms = self._expires_at_ms(request) if request.expiry else 0
        stored = self._delivery.put(names, body, request.flags, expires_at_ms, request.parent != b"")
        if request.sync or (stored and any(queue.options.sync == SYNC_ALWAYS for queue in stored)):
            session.needs_sync = True
        return self._reply(request, stored is not None)

    @staticmethod
    def _reply(request: Request, is_stored: bool) -> bytes:
        if request.noreply:
            return NONE
        return STORED if is_stored else NOT_STORED

    def _refuse(self, request: Request) -> NoReturn:
        if request.body_bytes > self._max_item_bytes:
            raise ServerError("object too large for cache")
        raise ServerError(self.refuse_sets)

    def _expires_at_ms(self, request: Request) -> int:
        return request.expires_at_ms(request.expiry, self._journal.time_ms())

    def receive_large(self, request: Request, client: Client) -> bytes:
        """A set whose body is larger than a chunk, or has to be kept out of memory, and is still on its way: store it
        piece by piece."""
        self._stats.cmd_set += 1
        size = request.body_bytes
        names = request.targets or (request.queue,)
        targets: list[Target] | None = None
        uploads: list[tuple[Target, Upload]] = []
        try:
            if self.refuse_sets or request.body_bytes > self._max_item_bytes:
                self._refuse(request)
            targets = self._delivery.targets(names, size, request.parent != b"")
            if targets:
                self.require_room(size * len(targets))
                self.wait_start_uploads(targets, uploads, client)
        except BaseException as error:  # the client may also have hung up
            self._delivery.abandon(targets or ())
            if isinstance(error, (ServerError, StorageError)):
                self._skip_body(client, size)
            raise
        if not uploads:
            self._skip_body(client, size)
            return self._reply(request, targets is not None)
        return self._reply(request, self._receive(request, client, names, uploads))

    def wait_start_uploads(self, targets: list[Target], uploads: list[tuple[Target, Upload]], client: Client) -> None:
        """Begin to receive a large item for each of `targets`, all or none. Raises StorageError."""
        try:
            for target in in_turns(targets, 0, client.wait_turn):
                upload = target.queue.large_items.receive(self._chunk_bytes, self._body_memory)
                uploads.append((target, upload))
        except BaseException:  # the client may also have hung up
            for _, upload in uploads:
                upload.drop()
            raise

    def _receive(
        self, request: Request, client: Client, names: tuple[bytes, ...], uploads: list[tuple[Target, Upload]]
    ) -> bool:
        """Store the item piece by piece, once for each queue it goes into, and put it; False: there was no room."""
        size = request.body_bytes
        first = uploads[0][1]
        end = b""
        try:
            if size <= self._chunk_bytes:  # memory is short, so that what has come of it must not wait there
                self._add(uploads, client, size)
                self.wait_stored(uploads, client)
            while missing := size - first.received_bytes:
                if self.refuse_sets:  # others have filled the disk meanwhile
                    raise ServerError(self.refuse_sets)
                self._add(uploads, client, min(missing, *(upload.room_bytes for _, upload in uploads)))
            while len(end) < len(replies.CRLF):
                end += client.wait_body(len(replies.CRLF) - len(end))
            if end != replies.CRLF:
                raise protocol.bad_terminator(request)
            self.wait_stored(uploads, client)
            if any(target.queue.deleted for target, _ in uploads if target.decides):
                raise ServerError("the queue was deleted while its item was being received")
        except BaseException as error:  # the client may also have hung up
            for _, upload in uploads:
                upload.drop()
            self._delivery.abandon(target for target, _ in uploads)
            if isinstance(error, (ServerError, StorageError)):
                self._skip_body(client, size - first.received_bytes, len(replies.CRLF) - len(end))
            raise
        session = client.session
        session.needs_sync = session.needs_sync or request.sync
        expires_at_ms = self._expires_at_ms(request) if request.expiry else 0
        as_child = request.parent != b""
        return self.put_large(names, uploads, size, request.flags, expires_at_ms, session, as_child)

    def _add(self, uploads: list[tuple[Target, Upload]], client: Client, most_bytes: int) -> None:
        # What has come is nobody's when the next is waited for: else it would be kept meanwhile.
        self.wait_added(uploads, client.wait_body(most_bytes), client)

    def wait_added(self, uploads: list[tuple[Target, Upload]], data: bytes, client: Client) -> None:
        """The next bytes of the item have come. Raises StorageError."""
        fills = bool(uploads) and len(data) >= uploads[0][1].room_bytes  # then each writes a chunk
        for _, upload in in_turns(uploads, self._chunk_bytes if fills else len(data), partial(self._wait_turn, client)):
            upload.add(data)

    def wait_stored(self, uploads: list[tuple[Target, Upload]], client: Client) -> None:
        """All that has come of the item is written. Raises StorageError."""
        for _, upload in in_turns(uploads, self._chunk_bytes, partial(self._wait_turn, client)):
            upload.store()

    def _wait_turn(self, client: Client) -> None:
        wait_not_behind(self._journal.storage, wait_round)
        client.wait_turn()

    def put_large(
        self,
        names: tuple[bytes, ...],
        uploads: list[tuple[Target, Upload]],
        size: int,
        flags: int,
        expires_at_ms: int,
        session: Session,
        as_child: bool = False,
    ) -> bool:
        """All of a large item has come and is stored: put it everywhere, in this turn. False: there was no room, and it
        is nowhere. Raises StorageError."""
        stored = self._delivery.put_large(names, uploads, size, flags, expires_at_ms, as_child)
        if stored and any(queue.options.sync == SYNC_ALWAYS for queue in stored):
            session.needs_sync = True
        return stored is not None

    def require_room(self, size: int) -> None:
        """Raises ServerError if so many bytes more would leave less than min_free_bytes."""
        free = self._journal.storage.free_bytes()
        if free - size < self._min_free_bytes:
            raise ServerError(
                f"out of disk space: {free} bytes free, an item of {size} bytes has to leave {self._min_free_bytes}"
            )

    def _skip_body(self, client: Client, size: int, end_bytes: int = len(replies.CRLF)) -> None:
        """Read and drop the rest of an item that is refused, and of its CR LF, as memcached does."""
        size += end_bytes
        while size:
            # A turn that fails meanwhile is told here, before anything is taken. An error is answered anyhow, but
            # what is left of the item must not be read as commands.
            with suppress(ServerError):
                size -= len(client.wait_body(min(size, self._chunk_bytes)))
