"""An item that somebody has been handed and has not confirmed."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from darner_core.storage.records import Item

if TYPE_CHECKING:
    from darner_core.engines.local.message_queue import MessageQueue


class OpenRead:
    """An item that somebody has been handed and has not confirmed. One object for each time it is handed out."""

    __slots__ = ("queue", "id", "body_bytes", "blob", "returned", "item", "expires_at_ms", "counted")

    def __init__(
        self, queue: "MessageQueue", item_id: int, item: Item | None, body_bytes: int, blob: int, expires_at_ms: int
    ) -> None:
        self.queue = queue
        self.id = item_id
        self.item = item  # until it has been sent; see `MessageQueue.item_of`
        self.body_bytes = body_bytes
        self.blob = blob  # number of the large item; 0: it is not large
        self.expires_at_ms = expires_at_ms  # 0: never. What is open does not expire; what is given back may
        self.returned = False  # given back: it waits again, ahead of all that was never handed out
        self.counted = False  # among its queue's `transactions`

    def count(self) -> None:
        """A client has it until it confirms. What is open only while it is being handed over is not counted."""
        self.counted = True
        self.queue.transactions += 1

    def uncount(self) -> None:
        """Undo `count`."""
        if self.counted:
            self.counted = False
            self.queue.transactions -= 1


class Holder(Protocol):
    """The session that holds an open read."""

    def unclose(self, read: OpenRead) -> None:
        """The turn in which it closed the read could not be written: it is open again."""


# (queue, item): the item has expired, and is about to be removed.
Bury = Callable[["MessageQueue", Item], None]
