"""One large item on its way into one or several queues: into all of them at once, or into none.

Its chunks are written as they come, once for each queue, over as many turns as that takes. Nothing is in a queue before
`put`. Calls whose names begin with wait_ give other clients a turn, through the `wait_turn` that is passed in.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from darner_core.engines.local.large_items import Upload, in_turns, wait_not_behind
from darner_core.errors import ServerError
from darner_core.waiters import wait_round

if TYPE_CHECKING:
    from darner_core.engines.local.message_queue import MessageQueue
    from darner_core.engines.local.routing import Routing, Target
    from darner_core.shared_memory import BodyMemory
    from darner_core.storage.records import Blob
    from darner_core.storage.storage import Storage


class Transfer:
    """A context: unless the item has been put when the context ends, its chunks are dropped, and the queues that were
    made for it are removed. `contract.Transfer` says what the methods promise."""

    def __init__(
        self,
        routing: "Routing",
        storage: "Storage",
        memory: "BodyMemory",
        chunk_bytes: int,
        names: tuple[bytes, ...],
        size: int,
        as_child: bool,
    ) -> None:
        """`memory` is shared by all items that are being received."""
        self._routing = routing
        self._storage = storage
        self._memory = memory
        self._chunk_bytes = chunk_bytes
        self._names = names
        self._size = size
        self.as_child = as_child
        self._targets: list[Target] = []
        self.uploads: list[tuple[Target, Upload]] = []  # one for each queue

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for _, upload in self.uploads:
            upload.drop()  # does nothing to what has been put
        self._routing.abandon(self._targets)  # nor does this to queues that have been used

    def find_queues(self) -> int | None:
        targets = self._routing.targets(self._names, self._size, self.as_child)
        if targets is None:
            return None
        self._targets = targets
        return len(targets)

    def wait_begin(self, wait_turn: Callable[[], object]) -> None:
        for target in in_turns(self._targets, 0, wait_turn):
            upload = target.queue.large_items.receive(self._chunk_bytes, self._memory)
            self.uploads.append((target, upload))

    @property
    def room_bytes(self) -> int:
        return min(upload.room_bytes for _, upload in self.uploads)

    def wait_add(self, data: bytes, wait_turn: Callable[[], object]) -> None:
        uploads = self.uploads
        fills = bool(uploads) and len(data) >= uploads[0][1].room_bytes  # then each writes a chunk
        for _, upload in in_turns(uploads, self._chunk_bytes if fills else len(data), self._waits(wait_turn)):
            upload.add(data)

    def wait_store(self, wait_turn: Callable[[], object]) -> None:
        for _, upload in in_turns(self.uploads, self._chunk_bytes, self._waits(wait_turn)):
            upload.store()

    def _waits(self, wait_turn: Callable[[], object]) -> Callable[[], None]:
        def wait() -> None:
            wait_not_behind(self._storage, wait_round)
            wait_turn()

        return wait

    def require_queues(self) -> None:
        if any(target.queue.deleted for target, _ in self.uploads if target.decides):
            raise ServerError("the queue was deleted while its item was being received")

    def put(
        self, flags: int, expires_at_ms: int, put_one: "Callable[[MessageQueue, Blob], None] | None" = None
    ) -> "list[MessageQueue] | None":
        return self._routing.put_large(
            self._names, self.uploads, self._size, flags, expires_at_ms, self.as_child, put_one
        )

    @property
    def names(self) -> tuple[bytes, ...]:
        return self._names
