"""What every engine promises about large items: bodies that are never whole in memory.

An item is large if its size is at least the server's large_item_bytes. Such a body is put by a Transfer and read by a
Download, a piece at a time. An engine that takes only whole bodies declines `contract.Routing.transfer`.
"""

from collections.abc import Callable, Collection
from typing import Any, Final, Protocol, Self


class LargeBody(Protocol):
    """Stands in an item for a body that is not in memory. `len` is the body's size in bytes."""

    blob: int  # the number of this large item in its queue

    def __len__(self) -> int: ...


class Large:
    """What `take` answers when the head is a large item: it has to be opened, and closed when it has been sent."""


LARGE: Final = Large()


class Download(Protocol):
    """A large item that is being read, piece by piece."""

    missing_bytes: int  # how much of it has still to be read
    index: int  # of the chunk that comes next

    def require(self, index: int) -> None:
        """Raises StorageError if this chunk cannot be read."""

    def next(self, most_bytes: int) -> bytes:
        """At least a byte, at most the rest of a chunk. Raises StorageError."""


class LargeItems(Protocol):
    """The large items of one queue."""

    @property
    def number(self) -> int:
        """Of the queue, unique within its engine."""

    def send(self, blob: Any) -> Download:
        """Begin to read an item. `blob` is its LargeBody."""


class Transfer(Protocol):
    """A large item on its way into one or several queues. In none of them does it exist before `put`. A context: what
    has not been put when the context ends leaves nothing.

    Calls whose names begin with wait_ may switch greenlets. They call `wait_turn` to give other clients a turn.
    """

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    @property
    def room_bytes(self) -> int:
        """The most that `wait_add` takes."""

    def find_queues(self) -> int | None:
        """How many queues the item goes into; None: one of them has no room for it. Queues that do not exist are made.
        Raises ServerError or StorageError, with nothing changed."""

    def wait_begin(self, wait_turn: Callable[[], object]) -> None:
        """Begin to store the item. Raises StorageError."""

    def wait_add(self, data: bytes, wait_turn: Callable[[], object]) -> None:
        """The next bytes of the item have come. Raises StorageError."""

    def wait_store(self, wait_turn: Callable[[], object]) -> None:
        """Keep nothing of the item in memory. Raises StorageError."""

    def require_queues(self) -> None:
        """Raises ServerError if a queue that decides whether the item is stored was deleted meanwhile."""

    def put(self, flags: int, expires_at_ms: int) -> "Collection[Any] | None":
        """All of the item has come: put it everywhere, in this turn; the queues that have it now. None: there was no
        room. Raises StorageError."""
