"""Items put several at a time, and taken whole: what Kestrel's text protocol and its thrift service have in common.

No call here switches greenlets, except through the Client's wait_... calls.
"""

from collections.abc import Iterable, Sequence

from darner_core.config.options import Config
from darner_core.config.queues import parent_of
from darner_core.config.values import SYNC_ALWAYS
from darner_core.engines.contract import Item, Read
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.large_items import Upload
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.routing import Target
from darner_core.errors import ServerError, StorageError
from darner_core.operations.client import Client
from darner_core.operations.session import Session
from darner_core.operations.stats import Stats
from darner_core.protocols.memcache.commands import Commands
from darner_core.storage.records import Blob

# Of a large item in one turn.
PIECE_BYTES = 256 << 10

# How many items are put in one turn: two milliseconds with their write.
ITEMS_A_TURN = 2048

# A large item that is to be put, once for each queue that it goes into; None: it is not large.
Stored = list[tuple[Target, Upload]] | None


class Batches:
    def __init__(self, registry: Registry, commands: Commands, journal: Journal, stats: Stats, config: Config) -> None:
        self._registry = registry
        self._queues = registry.queues
        self._storing = commands.storing
        self._delivery = commands.delivery
        self._journal = journal
        self._stats = stats
        self._max_item_bytes = config.max_item_bytes
        self._chunk_bytes = config.chunk_bytes
        self._syncs = config.sync == SYNC_ALWAYS

    def queue(self, name: bytes) -> MessageQueue | None:
        """The queue to take from. To name a fanout child here makes it. Raises ServerError."""
        return self._registry.child(name) if parent_of(name) else self._queues.get(name)

    def most_open(self, name: bytes) -> int:
        """How many items of this queue a connection may have open."""
        queue = self._queues.get(name)
        return (queue.options if queue is not None else self._registry.options(name)).max_open_reads

    def may_wait(self, name: bytes) -> bool:
        """Whether there can ever be something to wait for: an alias has no items."""
        return name not in self._registry.aliases

    # -- putting

    def put(self, session: Session, name: bytes, items: Sequence[bytes], expiry_ms: int | None) -> int:
        """Put items where a set of `name` puts them, in this turn, up to the first that is refused; how many that are.
        They expire so many ms from now; None: never. Raises ServerError if nothing is put at present."""
        return self._put(session, name, items, [None] * len(items), expiry_ms)

    def _put(
        self, session: Session, name: bytes, items: Sequence[bytes], large: list[Stored], expiry_ms: int | None
    ) -> int:
        self._require_ready()
        queue = self._queues.get(name)
        as_child = parent_of(name) != b""
        expires_at_ms = 0
        if expiry_ms is not None:
            expires_at_ms = max(1, self._journal.time_ms() + expiry_ms)
        is_plain = queue is not None and not queue.governed and not expires_at_ms and (queue.is_child or not as_child)
        stored = 0
        for item, uploads in zip(items, large, strict=False):
            self._stats.cmd_set += 1
            if len(item) > self._max_item_bytes:
                break
            try:
                if uploads is not None:
                    is_stored = self._storing.put_large(
                        (name,), uploads, len(item), 0, expires_at_ms, session, as_child
                    )
                elif is_plain:
                    assert queue is not None
                    queue.put(item, 0, 0)
                    is_stored = True
                else:
                    is_stored = self._deliver(session, name, item, expires_at_ms, as_child)
            except (ServerError, StorageError):
                if not stored:
                    raise
                break  # those before it have been put, and that has to be told
            if not is_stored:
                break
            stored += 1
        return stored

    def _require_ready(self) -> None:
        if self._storing.refuse_sets:
            raise ServerError(self._storing.refuse_sets)

    def _deliver(self, session: Session, name: bytes, item: bytes, expires_at_ms: int, as_child: bool) -> bool:
        queues = self._delivery.put((name,), item, 0, expires_at_ms, as_child)
        if queues and any(queue.options.sync == SYNC_ALWAYS for queue in queues):
            session.needs_sync = True
        return queues is not None

    def wait_put_many(self, name: bytes, items: Sequence[bytes], expiry_ms: int | None, client: Client) -> int:
        """Like `put`, over several turns; other clients' items may come between. If a turn fails, what was stored in
        earlier ones is counted. Raises ServerError instead if replies wait for an fsync: the items of an earlier turn
        may be those that are not safe."""
        stored, syncs = 0, self._syncs
        for at in range(0, len(items), ITEMS_A_TURN):
            some = items[at : at + ITEMS_A_TURN]
            try:
                put = self.put(client.session, name, some, expiry_ms)
                syncs = syncs or client.session.needs_sync
                client.wait_turn()
            except (ServerError, StorageError):
                if not stored or syncs:
                    raise
                break
            stored += put
            if put < len(some):
                break
        return stored

    def has_large(self, items: Iterable[bytes]) -> bool:
        """Whether one of them has to be stored in chunks: then it is `wait_put` that puts them."""
        return any(len(item) > self._chunk_bytes for item in items)

    def wait_put(self, name: bytes, items: Sequence[bytes], expiry_ms: int | None, client: Client) -> int:
        """The same for items among which are large ones. Their chunks are written over several turns; nothing is in a
        queue before all of them have been, and then all items are put in one turn."""
        large: list[Stored] = []
        targets: list[Target] = []
        try:
            for item in items:
                if len(item) <= self._chunk_bytes or len(item) > self._max_item_bytes:
                    large.append(None)
                    continue
                self._require_ready()
                found = self._delivery.targets((name,), len(item), parent_of(name) != b"")
                if found is None:
                    break  # there is no room for it: it is the first that is refused
                targets += found
                self._storing.require_room(len(item) * len(found))
                uploads: list[tuple[Target, Upload]] = []
                large.append(uploads)
                self._storing.wait_start_uploads(found, uploads, client)
                self._wait_store(item, uploads, client)
            return self._put(client.session, name, items, large, expiry_ms)
        finally:  # what was put is not dropped
            for stored in large:
                for _, upload in stored or ():
                    upload.drop()
            self._delivery.abandon(targets)

    def _wait_store(self, item: bytes, uploads: list[tuple[Target, Upload]], client: Client) -> None:
        for at in range(0, len(item), self._chunk_bytes):
            self._storing.wait_added(uploads, item[at : at + self._chunk_bytes], client)
            client.wait_turn()
        self._storing.wait_stored(uploads, client)


# -- taking


def wait_swept(queue: MessageQueue | None, client: Client) -> None:
    """So many items at the head have expired that they cannot be removed in one turn. Raises StorageError."""
    while queue is not None and queue.half_swept and not queue.deleted:
        queue.drop_expired()
        client.wait_turn()


def wait_body(item: Item, queue: MessageQueue, client: Client) -> bytes:
    """The whole body of `item`, read in as many turns as it takes if it is large. Raises StorageError, also if it has
    been taken meanwhile."""
    body = item[0]
    if isinstance(body, bytes):
        return body
    assert isinstance(body, Blob)
    pieces = []
    download = queue.large_items.send(body)
    while download.missing_bytes:
        pieces.append(download.next(PIECE_BYTES))
        client.wait_turn()
    return b"".join(pieces)


def give_back(reads: Iterable[Read]) -> None:
    """They wait again, in their order: whoever waits for them is handed the oldest first."""
    for read in sorted(reads, key=lambda read: read.id):
        read.queue.give_back(read)
