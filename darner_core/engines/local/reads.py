"""Open reads: items that somebody has been handed and has not confirmed, and those that were given back.

The functions are about the reads of one queue or cursor, which keeps them in three slots:

    `outstanding`  by id, in order: what is open, and what was given back and waits again;
    `returned`     a heap of the ids that were given back. Its first always waits;
    `stale`        how many of the other ids in `returned` wait no more: to take them out of the middle would cost much.

No call here switches greenlets.
"""

from heapq import heapify, heappop
from typing import TYPE_CHECKING, Protocol

from darner_core.storage.records import Item

if TYPE_CHECKING:
    from darner_core.engines.local.cursor import Cursor
    from darner_core.engines.local.message_queue import MessageQueue

# More reads than this are many: see `thinned` and `drop_stale`.
MANY = 1000


class OpenRead:
    """An item that somebody has been handed and has not confirmed. One object for each time it is handed out."""

    __slots__ = ("queue", "id", "body_bytes", "blob", "returned", "item", "expires_at_ms", "counted")

    def __init__(
        self,
        queue: "MessageQueue | Cursor",
        item_id: int,
        item: Item | None,
        body_bytes: int,
        blob: int,
        expires_at_ms: int,
    ) -> None:
        self.queue = queue
        self.id = item_id
        self.item = item  # until it has been sent; see `MessageQueue.item_of`
        self.body_bytes = body_bytes
        self.blob = blob  # number of the large item; 0: it is not large
        self.expires_at_ms = expires_at_ms  # 0: never. An open item does not expire; one that was given back may
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


class Lender(Protocol):
    """A queue or cursor that hands items out."""

    outstanding: dict[int, OpenRead]
    returned: list[int]
    stale: int


def given_back(lender: Lender) -> list[int]:
    """The ids of what was given back and waits."""
    return [item_id for item_id, read in lender.outstanding.items() if read.returned]


def next_returned(queue: "MessageQueue", item_id: int) -> int:
    """The first id behind this one that was given back and waits, else `next_id`."""
    outstanding = queue.outstanding
    end = min(item_id + 1 + len(queue.returned), queue.next_id)
    for near in range(item_id + 1, end):
        read = outstanding.get(near)
        if read is not None and read.returned:
            return near
    if end == queue.next_id:
        return end
    return min((waits for waits in given_back(queue) if waits >= end), default=queue.next_id)


def find_returned(lender: Lender) -> None:
    """Make `returned` anew, from what `outstanding` says."""
    lender.returned = given_back(lender)
    heapify(lender.returned)
    lender.stale = 0


def leave_returned(lender: Lender, item_id: int) -> None:
    """An item that was given back waits no more, which `outstanding` says already."""
    if lender.returned[0] == item_id:
        heappop(lender.returned)
    else:
        lender.stale += 1
    if lender.stale:
        drop_stale(lender)


def drop_stale(lender: Lender) -> None:
    """Let the first of `returned` be one that waits."""
    returned, outstanding = lender.returned, lender.outstanding
    while returned:
        read = outstanding.get(returned[0])
        if read is not None and read.returned:
            break
        heappop(returned)
        lender.stale -= 1
    if lender.stale > MANY + len(returned) // 2:
        find_returned(lender)


def thinned(queue: "MessageQueue") -> dict[int, OpenRead]:
    """`outstanding`, whose first is about to leave. A dictionary is only made smaller when it is filled, and to find
    its first passes over all that were before: 100,000 that leave in order would take seconds."""
    queue.dead_first += 1
    if queue.dead_first > len(queue.outstanding):
        queue.dead_first = 0
        queue.outstanding = dict(queue.outstanding)
    return queue.outstanding


def reopen(lender: Lender, read: OpenRead) -> bool:
    """Undo that `read` was given back; False: its item is not there, or is with somebody else."""
    known = lender.outstanding.get(read.id)
    if known is None or not known.returned:
        return False
    read.returned = False
    lender.outstanding[read.id] = read
    # Its id is not in `returned` if it has left since, in the turn that is being undone: `undo_turn` makes it anew.
    lender.stale += 1
    drop_stale(lender)
    return True
