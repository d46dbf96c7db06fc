"""Items put several at a time, and taken whole: what Kestrel's text protocol and its thrift service have in common.

No call here switches greenlets, except through the Client's wait_... calls.
"""

from collections.abc import Iterable, Sequence

from darner_core.client import Client
from darner_core.commands import Commands
from darner_core.config import Config
from darner_core.errors import ServerError
from darner_core.journal import Journal
from darner_core.large_items import Upload
from darner_core.message_queue import MessageQueue, OpenRead
from darner_core.records import Blob, Item
from darner_core.registry import Registry
from darner_core.stats import Stats

# Of a large item in one turn.
PIECE_BYTES = 256 << 10


class Batches:
    def __init__(self, registry: Registry, commands: Commands, journal: Journal, stats: Stats, config: Config) -> None:
        self._registry = registry
        self._storing = commands.storing
        self._body_memory = commands.body_memory
        self._journal = journal
        self._stats = stats
        self._max_item_bytes = config.max_item_bytes
        self._chunk_bytes = config.chunk_bytes

    def put(self, name: bytes, items: Sequence[bytes | Blob], expiry_ms: int | None) -> int:
        """Put items into queue `name`, in this turn, up to the first that is refused; how many that are. They expire
        so many ms from now; None: never. Raises ServerError if nothing is put at present."""
        storing = self._storing
        if storing.refuse_sets:
            raise ServerError(storing.refuse_sets)
        expires_at_ms = 0
        if expiry_ms is not None:
            self._journal.begin()
            expires_at_ms = max(1, self._journal.now_ms + expiry_ms)
        stored = 0
        for item in items:
            self._stats.cmd_set += 1
            if len(item) > self._max_item_bytes or not storing.deliver(name, item, 0, expires_at_ms):
                break
            stored += 1
        return stored

    def has_large(self, items: Iterable[bytes]) -> bool:
        """Whether one of them has to be stored in chunks: then it is `wait_put` that puts them."""
        return any(len(item) > self._chunk_bytes for item in items)

    def wait_put(self, name: bytes, items: Sequence[bytes], expiry_ms: int | None, client: Client) -> int:
        """The same for items among which are large ones. Their chunks are written over several turns; nothing is in the
        queue before all of them have been, and then all items are put in one turn."""
        queue: MessageQueue | None = None
        uploads: list[Upload] = []
        whole: list[bytes | Blob] = []
        try:
            for item in items:
                if len(item) <= self._chunk_bytes or len(item) > self._max_item_bytes:
                    whole.append(item)
                    continue
                if self._storing.refuse_sets:
                    raise ServerError(self._storing.refuse_sets)
                self._storing.require_room(len(item))
                if queue is None:
                    queue = self._registry.queues.get(name) or self._registry.create(name)
                upload = queue.large_items.receive(self._chunk_bytes, self._body_memory)
                uploads.append(upload)
                for at in range(0, len(item), self._chunk_bytes):
                    upload.add(item[at : at + self._chunk_bytes])
                    client.wait_turn()
                upload.store()
                whole.append(Blob(upload.blob, len(item)))
            if queue is not None and queue.deleted:
                raise ServerError("the queue was deleted while its items were being stored")
            stored = self.put(name, whole, expiry_ms)
        except BaseException:
            for upload in uploads:
                upload.drop()
            raise
        blobs = {item.blob for item in whole[:stored] if isinstance(item, Blob)}
        for upload in uploads:
            if upload.blob in blobs:
                upload.finish()
            else:
                upload.drop()
        return stored


def wait_body(item: Item, queue: MessageQueue, client: Client) -> bytes:
    """The whole body of `item`, read in as many turns as it takes if it is large. Raises StorageError, also if it has
    been taken meanwhile."""
    body = item[0]
    if not isinstance(body, Blob):
        return body
    pieces = []
    download = queue.large_items.send(body)
    while download.missing_bytes:
        pieces.append(download.next(PIECE_BYTES))
        client.wait_turn()
    return b"".join(pieces)


def give_back(reads: Sequence[OpenRead]) -> None:
    """They wait again, in their order: whoever waits for them is handed the oldest first."""
    for read in sorted(reads, key=lambda read: read.id):
        read.queue.give_back(read)
