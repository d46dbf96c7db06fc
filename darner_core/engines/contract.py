"""What every queue engine promises to the operations, protocols and server above it: Registry, Queue, Read.

An engine owns queues and their items. It knows nothing of clients, sessions, protocols or rights. Code above names
these types only; the engine of this process is `engines.local`.

Three rules hold for all engines.

*Turns.* Calls are made within a turn of the event loop. What they change is applied in memory at once, and is durable
before the turn's replies leave. If that fails, the engine takes back everything that the turn has changed, and the
replies of the turn become errors.

*Waiting.* No call switches greenlets, except those that say so. An engine across a network often cannot answer at
once: `take`, `peek` and `open` then return None with `half_swept` set, which means "later". The caller goes on in a
greenlet of its own, where it calls `drop_expired` until that returns True, and asks again. A local queue uses the same
answer when more items at its head have expired than one turn can remove, so code above has one way for both.

*Declining.* A promise marked "may decline" is one that an engine may not be able to keep. It then raises ServerError,
with words for the client, and has changed nothing. Every other promise must be kept. An engine whose puts need more
than `Queue.put` does sets `governed` on all of its queues.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol

from darner_core.config.queues import QueueOptions
from darner_core.waiters import Waiter


class LargeBody(Protocol):
    """Stands in an item for a body that is not in memory. `len` is the body's size in bytes."""

    blob: int  # which large item of the queue it is

    def __len__(self) -> int: ...


# (body, the client's flags, when it expires in ms since 1970 or 0: never, when it was put in ms since 1970)
Item = tuple[bytes | LargeBody, int, int, int]


class Large:
    """What `take` answers when the head is a large item: it has to be opened, and closed when it has been sent."""


LARGE: Final = Large()


class Turn(Protocol):
    """The turn of the event loop, as the engine sees it."""

    # (function, its arguments): called in reverse order if the turn cannot be written.
    undo: list[tuple[Any, ...]]
    # What is too much for one turn: each goes on once a turn.
    slices: deque[Iterator[None]]

    def time_ms(self) -> int:
        """Milliseconds since 1970, the same throughout a turn."""


# -- large items: an engine that takes whole bodies only declines `receive`


class Download(Protocol):
    """A large item that is being read, piece by piece."""

    missing_bytes: int  # how much of it has still to be read
    index: int  # of the chunk that comes next

    def next(self, most_bytes: int) -> bytes:
        """At least a byte, at most the rest of a chunk. Raises StorageError."""


class Upload(Protocol):
    """A large item that is being received. It is nowhere before it is put."""

    received_bytes: int

    @property
    def room_bytes(self) -> int:
        """The most that `add` takes."""

    def add(self, data: bytes) -> None:
        """The next bytes have come. Raises StorageError."""

    def store(self) -> None:
        """Keep nothing of it in memory. Raises StorageError."""

    def drop(self) -> None:
        """It will not be received. Nothing happens if it has been put."""


class LargeItems(Protocol):
    """The large items of one queue."""

    @property
    def number(self) -> int:
        """Of the queue, unique within its engine."""

    def receive(self, chunk_bytes: int, memory: Any) -> Upload:
        """Begin to receive an item. May decline. Raises StorageError."""

    def send(self, blob: Any) -> Download:
        """Begin to read an item."""


# -- reads


class Read(Protocol):
    """An item that has been handed to somebody who has not confirmed it. A new object each time it is handed out."""

    id: int  # unique within its queue, in order of arrival
    body_bytes: int
    blob: int  # which large item it is; 0: it is not large
    returned: bool  # it has been given back, and waits again
    counted: bool  # among its queue's `transactions`

    @property
    def queue(self) -> "Source": ...

    def count(self) -> None:
        """A client holds it from now on: it is one of the source's `transactions`."""

    def uncount(self) -> None:
        """Undo `count`."""


class Holder(Protocol):
    """Whoever holds an open read and closes it."""

    def unclose(self, read: Any) -> None:
        """The turn in which it closed this Read could not be written: it is open again."""


# -- queues


class Source(Protocol):
    """What items are taken from: a queue, or a durable cursor on one.

    One reader at a time holds an item; an item that is given back comes first again. Where a call takes a read, it is
    one that this source has handed out.
    """

    name: bytes
    options: QueueOptions
    deleted: bool
    damage: str  # why the head cannot be read; "" if it can
    transactions: int  # reads that clients have opened

    @property
    def half_swept(self) -> bool:
        """Whether the last None meant "later", not "empty"."""

    @property
    def unreadable(self) -> bool:
        """Whether nothing but deleting it can be done: all other calls raise DamagedError."""

    @property
    def outstanding(self) -> Collection[int]:
        """The ids of items that are open, or were given back and wait."""

    @property
    def large_items(self) -> LargeItems:
        """Raises StorageError."""

    # -- must be kept

    def open(self) -> Read | None:
        """Hand out the head until it is closed or given back; None: empty, or later. Raises StorageError."""

    def take(self) -> Item | Large | None:
        """Remove the head and return it; LARGE, with nothing removed, if it is large; None: empty, or later. Raises
        StorageError."""

    def item_of(self, read: Any) -> Item:
        """The item of an open read, once. Raises StorageError."""

    def holds(self, read: Any) -> bool:
        """Whether the read is still open: its queue may have been deleted, or its turn taken back."""

    def close(self, read: Any, holder: Holder | None = None) -> None:
        """The item is done with, and gone. Nothing happens if it is not open. If the turn fails, `holder` has the read
        again, or else the item waits again. Raises StorageError, with nothing changed."""

    def give_back(self, read: Any, wake: bool = True) -> None:
        """The item waits again, ahead of all that was never handed out. Nothing happens if it is not open."""

    def drop_expired(self) -> bool:
        """Go on with what "later" means; False: call again in another turn. Raises StorageError. An engine across a
        network may wait here, so only code in a client's own greenlet calls it."""

    def cannot_be_read(self, error: Any) -> Exception:
        """What to raise for a StorageError that was met while an item was sent. The log is told once."""

    # -- may decline

    def peek(self) -> Item | None:
        """The head, which stays; None: empty, or later. Raises StorageError."""

    @property
    def head_id(self) -> int:
        """The id of what `peek` shows."""

    def take_back(self, read: Any) -> None:
        """Undo `give_back` in a turn that failed: the read is open again. An engine whose items go elsewhere at once
        leaves it given back; closing it later does nothing."""

    def flush(self) -> None:
        """Remove all that waits; open items stay open. A cursor goes back to the head of its queue. Raises
        StorageError, with nothing changed."""

    # -- figures: 0 where the engine does not know

    @property
    def waiting_items(self) -> int: ...

    @property
    def open_reads(self) -> int: ...


class Queue(Source, Protocol):
    """A FIFO of items."""

    @property
    def governed(self) -> bool:
        """Whether a put has to go through `Routing`."""

    @property
    def is_child(self) -> bool:
        """Whether it is a fanout child: it gets a copy of all that is put into its parent."""

    @property
    def cursors(self) -> Mapping[bytes, Source] | None: ...

    def put(self, body: bytes, flags: int, expires_at_ms: int) -> None:
        """Append an item, expires_at_ms being 0, to a queue that is not `governed`. Whoever has waited longest gets
        it."""

    @property
    def waiting_bytes(self) -> int: ...

    @property
    def total_items(self) -> int:
        """Items put since the server started."""


class Cursors(Protocol):
    """The durable cursors of all queues. An engine may decline them all."""

    def of(self, queue: Any, name: bytes, peeks: bool = False) -> Source:
        """The cursor on this Queue, made if there is none, except to peek: then it is the queue. Raises ServerError."""

    def delete(self, queue_name: bytes, name: bytes) -> None:
        """Nothing happens if there is none."""

    def flush(self, queue_name: bytes, name: bytes) -> None:
        """Put it back to the head of its queue. Nothing happens if there is none. Raises StorageError."""


class Routing(Protocol):
    """Where an item goes: into its queue and that one's fanout children, or an alias's queues, as limits allow."""

    def put(
        self, names: tuple[bytes, ...], body: bytes, flags: int, expires_at_ms: int, as_child: bool = False
    ) -> Collection[Queue] | None:
        """Put an item everywhere or nowhere, making queues that do not exist; the queues that have it now, None: there
        was no room. Raises ServerError or StorageError, with nothing changed."""

    def put_large(
        self, names: tuple[bytes, ...], uploads: Any, size: int, flags: int, expires_at_ms: int, as_child: bool = False
    ) -> Collection[Queue] | None:
        """As `put`, for an item of which all has come. What is not put is dropped, whatever is raised."""

    def targets(self, names: tuple[bytes, ...], size: int, as_child: bool = False) -> Any:
        """The queues to receive a large item for, None: there is no room. Call `abandon` if it is not put."""

    def abandon(self, targets: Iterable[Any]) -> None: ...


class Registry(Protocol):
    """The queues by name. A queue that does not exist is made by the first put; asking for one makes nothing."""

    @property
    def queues(self) -> Mapping[bytes, Queue]:
        """Those that can be reached. The hot path looks names up here; an engine that does not know which queues there
        are has a mapping that answers every name."""

    @property
    def aliases(self) -> Collection[bytes]:
        """Names that stand for other queues: puts go there, and there is nothing to take."""

    @property
    def cursors(self) -> Cursors: ...

    def options(self, name: bytes, is_child: bool = False) -> QueueOptions:
        """Of the queue with this name, which need not exist."""

    # -- must be kept

    def join_line(self, name: bytes, cursor: bytes, peeks: bool, waiter: Waiter | None = None) -> Waiter:
        """Stand in line for an item of queue `name`, or of a cursor on it if `cursor` is not b"", whether these exist
        or not: a new waiter, or `waiter`, who stands in other lines as well and is handed one item in all. It is handed
        a Read, or if it peeks a Source to look at. Raises ServerError if no more may wait. See `leave_line`."""

    def leave_line(self, name: bytes, cursor: bytes) -> None:
        """Must be called, with the same name and cursor, once the waiter has been decided."""

    def waiters(self, name: bytes) -> int:
        """How many clients wait for an item of the queue `name`, which need not exist."""

    def flush(self, name: bytes) -> None:
        """As Queue.flush. Nothing happens if the queue does not exist."""

    # -- may decline

    def delete(self, name: bytes) -> None:
        """Remove the queue with all of its items. Nothing happens if it does not exist. Clients that wait go on waiting
        for the next queue of this name."""

    def child(self, name: bytes) -> Queue | None:
        """The fanout child `name`, made if there is none; None: it is an alias. Raises ServerError."""
