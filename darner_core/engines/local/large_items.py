"""The large items of one queue: bodies that are received, stored and sent in chunks, never whole in memory.

The chunks of a large item lie under a number of their own, its blob, and are written as they come. The queue puts an
item that points to them only when the last chunk has come. A note on disk says which blobs are being received, so that
the next start removes what a crash has cut off. A chunk may have any size up to the limit: if the items of all clients
together take too much memory, what has come is written before a chunk is full.

No call here switches greenlets, except through a `wait` that is passed in.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from darner_core.engines.local.journal import Journal
from darner_core.errors import StorageError
from darner_core.shared_memory import BodyMemory
from darner_core.storage.records import Blob
from darner_core.storage.storage import Storage

if TYPE_CHECKING:
    from darner_core.engines.local.damaged_queue import DamagedQueue
    from darner_core.engines.local.message_queue import MessageQueue

# If a large item goes into many queues, one turn writes up to this many bytes, for up to this many queues: 1 ms.
COPIED_BYTES = 1 << 20
COPIES_A_TURN = 100

_Each = TypeVar("_Each")


class LargeItems:
    __slots__ = ("_journal", "_next", "_receiving", "_kept", "_durable", "_number")

    def __init__(self, journal: Journal, number: int, durable: bool = True, kept: Callable[[], set[int]] = set) -> None:
        """For the queue with this number. Raises StorageError.

        The items of a queue in memory, which is not `durable`, are noted as being received as long as they exist, so
        that the next start removes them. `kept` tells which blobs cursors still need; these go when the cursors let go.
        """
        self._durable = durable
        self._journal = journal
        self._number = number
        self._kept = kept
        self._next = journal.storage.next_blob(number)
        self._receiving: set[int] = set()

    @property
    def number(self) -> int:
        """The number of the queue, under which the chunks lie."""
        return self._number

    @property
    def had_any(self) -> bool:
        """Whether there may ever have been a large item; False is certain."""
        return self._next > 1

    @property
    def is_receiving(self) -> bool:
        return bool(self._receiving)

    @property
    def coming(self) -> frozenset[int]:
        """Those that are being received."""
        return frozenset(self._receiving)

    @property
    def next_blob(self) -> int:
        return self._next

    def pass_over(self, end_blob: int) -> None:
        """No item gets a number below this any more."""
        self._next = max(self._next, end_blob)

    def receive(self, chunk_bytes: int, memory: BodyMemory) -> "Upload":
        """Begin to receive an item. Raises StorageError."""
        return Upload(self, self._journal, self._number, self.start(), chunk_bytes, memory)

    def start(self) -> int:
        """The blob for an item that is about to be received. Raises StorageError."""
        blob = self._next
        self._journal.storage.start_upload(self._number, blob)
        self._next += 1
        self._receiving.add(blob)
        return blob

    def send(self, blob: Blob) -> "Download":
        """Begin to read an item."""
        return Download(self._journal, self._number, blob)

    def finish(self, blob: int) -> None:
        """The item has been received: remove the note that says it is being received, in this turn. If the turn fails,
        its chunks belong to no item, and are removed later."""
        self._receiving.discard(blob)
        self._journal.undo.append((self._journal.orphans.append, (self._number, blob)))
        if not self._durable:
            return
        storage, number = self._journal.storage, self._number
        self._journal.also.append(lambda batch: storage.end_upload(batch, number, blob))

    def drop(self, blob: int, received_bytes: int) -> None:
        """The item will not be received: remove what has come, in this turn. Nothing happens if it is not being
        received."""
        if blob not in self._receiving:
            return
        self.finish(blob)
        self.remove(blob, blob + 1, received_bytes)

    def remove(self, from_blob: int, to_blob: int, dead_bytes: int) -> None:
        """Remove the chunks of the blobs in [from_blob, to_blob), about `dead_bytes` bytes, in this turn. Those that
        are kept stay, until this is called again for each of them."""
        for kept in sorted(self._kept()):
            if from_blob <= kept < to_blob:
                self._remove(from_blob, kept, dead_bytes)
                from_blob = kept + 1
        self._remove(from_blob, to_blob, dead_bytes)

    def _remove(self, from_blob: int, to_blob: int, dead_bytes: int) -> None:
        if from_blob == to_blob:
            return
        storage, number = self._journal.storage, self._number
        self._journal.also.append(lambda batch: storage.remove_blobs(batch, number, from_blob, to_blob))
        if not self._durable:
            self._journal.also.append(lambda batch: storage.end_uploads(batch, number, from_blob, to_blob))
        self._journal.dead.add_chunks(number, from_blob, to_blob, dead_bytes)

    def remove_all_but(self, keep: set[int], dead_bytes: int) -> None:
        """Remove all blobs but these and those that are being received, in this turn."""
        begin = 1
        for kept in [*sorted(keep | self._receiving), self._next]:
            if begin < kept:
                self.remove(begin, kept, dead_bytes)
            begin = kept + 1


def blobs_of_cursors(queue: "MessageQueue") -> set[int]:
    """The large items that are open, or have been given back, at the cursors of a queue."""
    cursors = queue.cursors.values() if queue.cursors is not None else ()
    return {read.blob for cursor in cursors for read in cursor.outstanding.values() if read.blob}


def may_have_chunks(queue: "MessageQueue | DamagedQueue") -> bool:
    """Whether chunks of large items may be on disk; False is certain."""
    try:
        return queue.large_items.had_any
    except StorageError:
        return True


class Upload:
    """One item that is being received: what has come of it is in chunks on disk, the last of it in memory."""

    __slots__ = ("blob", "received_bytes", "_items", "_journal", "_number", "_chunk_bytes", "_memory", "_parts",
        "_held", "_index", "_error")  # fmt: skip

    def __init__(
        self, items: LargeItems, journal: Journal, number: int, blob: int, chunk_bytes: int, memory: BodyMemory
    ) -> None:
        self.blob = blob
        self.received_bytes = 0
        self._items = items
        self._journal = journal
        self._number = number
        self._chunk_bytes = chunk_bytes
        self._memory = memory
        self._parts: list[bytes] = []
        self._held = 0
        self._index = 0  # of the next chunk
        self._error: StorageError | None = None  # met by `spill`, in another client's turn

    @property
    def room_bytes(self) -> int:
        """The most that `add` takes."""
        return self._chunk_bytes - self._held

    def add(self, data: bytes) -> None:
        """The next bytes of the item have come. Raises StorageError."""
        self.received_bytes += len(data)
        self._parts.append(data)
        self._held += len(data)
        if self._held >= self._chunk_bytes:
            self._store()
        self._memory.account(self, self._held)
        self._raise()

    def store(self) -> None:
        """Write what is still in memory. Raises StorageError."""
        held, self._held = self._held, 0
        self._store()
        self._memory.freed(held)
        self._memory.account(self, 0)
        self._raise()

    def finish(self) -> None:
        """All of the item has come: nothing of it is dropped any more. Raises StorageError."""
        self.store()
        self._items.finish(self.blob)

    def drop(self) -> None:
        """The item will not be received: remove what has come, in this turn. Nothing happens after `finish`."""
        self._parts = []
        self._held = 0
        self._memory.account(self, 0)
        self._items.drop(self.blob, self.received_bytes)

    def spill(self) -> None:
        """Write what is in memory, because memory is short. If the disk refuses, the next `add` or `store` raises."""
        held, self._held = self._held, 0
        try:
            self._store()
            self._memory.freed(held)
        except StorageError as error:
            self._error = error

    def _store(self) -> None:
        if self._parts:
            chunk = b"".join(self._parts)
            self._parts = []
            self._held = 0
            self._journal.storage.put_chunk(self._number, self.blob, self._index, chunk)
            self._index += 1

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error


class Download:
    """One item that is being read, in pieces."""

    __slots__ = ("missing_bytes", "index", "_journal", "_number", "_blob", "_offset")

    def __init__(self, journal: Journal, number: int, blob: Blob) -> None:
        self.missing_bytes = len(blob)
        self.index = 0  # of the chunk that comes next
        self._journal = journal
        self._number = number
        self._blob = blob.blob
        self._offset = 0  # how much of this chunk has been read

    def require(self, index: int) -> None:
        """Raises StorageError if this chunk cannot be read."""
        self._journal.storage.chunk(self._number, self._blob, index)

    def next(self, most_bytes: int) -> bytes:
        """The next bytes of the item: at least one, at most the rest of a chunk. Raises StorageError."""
        chunk = self._journal.storage.chunk(self._number, self._blob, self.index)
        if len(chunk) - self._offset > self.missing_bytes:
            raise StorageError(f"chunk {self.index} of large item {self._blob} is too long")
        piece = chunk[self._offset : self._offset + most_bytes]
        self._offset += len(piece)
        if self._offset == len(chunk):
            self.index += 1
            self._offset = 0
        self.missing_bytes -= len(piece)
        return piece


# How long to wait between two looks whether the disk has caught up, and after how many looks to write all the same.
BEHIND_S, LOOKS_BEHIND = 0.005, 400


def wait_not_behind(storage: Storage, wait: Callable[[float], object]) -> None:
    """Let the disk catch up before more is written, for 2 s at most. Switches greenlets, through `wait`."""
    for _ in range(LOOKS_BEHIND):
        if not storage.is_behind():
            return
        wait(BEHIND_S)


def in_turns(copies: Sequence[_Each], copy_bytes: int, wait: Callable[[], object]) -> Iterator[_Each]:
    """Each of `copies`, for which the caller writes `copy_bytes` bytes. Calls `wait`, which lets others have a turn,
    whenever enough has been written for one; not after the last."""
    at_once = min(COPIES_A_TURN, max(1, COPIED_BYTES // max(1, copy_bytes)))
    for number, copy in enumerate(copies):
        if number and number % at_once == 0:
            wait()
        yield copy
