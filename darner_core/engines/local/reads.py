"""Open reads: items that were handed out and are not confirmed, and those of them that were given back.

The functions are about the reads of one queue or cursor, which keeps them in three slots:

    `outstanding`  by id, in order: what is open, and what was given back and waits again;
    `returned`     a heap of the ids that were given back. Its first always waits;
    `stale`        how many of the other ids in `returned` wait no more: to take them out of the middle would cost much.

Some of the functions are methods of both classes. No call here switches greenlets.
"""

from heapq import heapify, heappop
from typing import TYPE_CHECKING, TypeAlias

from darner_core.engines.contract import Holder
from darner_core.engines.local.damaged_queue import reading
from darner_core.storage.records import Blob, Item

if TYPE_CHECKING:
    from darner_core.engines.local.cursor import Cursor
    from darner_core.engines.local.message_queue import MessageQueue

Lender: TypeAlias = "MessageQueue | Cursor"

# More reads than this are many: see `thinned` and `drop_stale`.
MANY = 1000


class OpenRead:
    """An item that was handed out and is not confirmed. There is a new object each time an item is handed out."""

    __slots__ = ("queue", "id", "body_bytes", "blob", "returned", "item", "expires_at_ms", "counted")

    def __init__(
        self, queue: Lender, item_id: int, item: Item | None, body_bytes: int, blob: int, expires_at_ms: int
    ) -> None:
        self.queue = queue
        self.id = item_id
        self.item = item  # until it has been sent; see `item_of`
        self.body_bytes = body_bytes
        self.blob = blob  # number of the large item; 0: it is not large
        self.expires_at_ms = expires_at_ms  # 0: never. An open item does not expire; one that was given back may
        self.returned = False  # it was given back, and waits ahead of all that was never handed out
        self.counted = False  # among its queue's `transactions`

    def count(self) -> None:
        """A client holds it from now on. What is open only while it is being handed over is not counted."""
        self.counted = True
        self.queue.transactions += 1

    def uncount(self) -> None:
        """Undo `count`."""
        if self.counted:
            self.counted = False
            self.queue.transactions -= 1


# -- handing out


def hand_out(lender: Lender, item_id: int, item: Item, expires_at_ms: int) -> OpenRead:
    """A read of an item that was never handed out."""
    body = item[0]
    read = OpenRead(lender, item_id, item, len(body), body.blob if isinstance(body, Blob) else 0, expires_at_ms)
    lender.outstanding[item_id] = read
    return read


def hand_out_again(lender: Lender, item_id: int) -> OpenRead:
    """A read of an item that was given back."""
    before = lender.outstanding[item_id]  # whose place the new read takes
    read = OpenRead(lender, item_id, None, before.body_bytes, before.blob, before.expires_at_ms)
    lender.outstanding[item_id] = read
    leave_returned(lender, item_id)
    return read


def wait_again(lender: Lender, item_id: int, item: Item, expires_at_ms: int) -> None:
    """When the server starts: an item that had been handed out waits as if it had been given back. To be called in the
    order of the ids."""
    read = hand_out(lender, item_id, item, expires_at_ms)
    read.item = None
    read.returned = True
    lender.returned.append(item_id)


# -- methods of both classes


def holds(lender: Lender, read: OpenRead) -> bool:
    """Whether `read` is still open: its queue may have been deleted, or its turn undone."""
    return not read.returned and lender.outstanding.get(read.id) is read and not lender.deleted


def item_of(lender: Lender, read: OpenRead) -> Item:
    """The item of an open read. It can be asked for once, so that what was sent is not kept in memory. Raises
    StorageError."""
    item, read.item = read.item, None
    return item if item is not None else reading(lender, lender.log.read_one, read.id)


def unclose(lender: Lender, read: OpenRead, holder: Holder | None) -> None:
    """Undo `close`, or the removal of what had been given back."""
    lender.outstanding[read.id] = read
    if holder is None:
        lender.give_back(read, wake=False)
    else:
        holder.unclose(read)


def open_reads(lender: Lender) -> int:
    return len(lender.outstanding) - len(lender.returned) + lender.stale


def stored_items(queue: "MessageQueue") -> int:
    """The items that wait in the queue's line, and those that are open there."""
    return queue.tail - queue.next_id - queue.missing + len(queue.outstanding)


def blobs(queue: "MessageQueue") -> set[int]:
    """The large items that are open or were given back."""
    return {read.blob for read in queue.outstanding.values() if read.blob}


# -- what was given back


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
    """Build `returned` anew from `outstanding`."""
    lender.returned = given_back(lender)
    heapify(lender.returned)
    lender.stale = 0


def leave_returned(lender: Lender, item_id: int) -> None:
    """An item that was given back waits no more. `outstanding` says so already."""
    if lender.returned[0] == item_id:
        heappop(lender.returned)
    else:
        lender.stale += 1
    if lender.stale:
        drop_stale(lender)


def drop_stale(lender: Lender) -> None:
    """Make the first of `returned` one that waits."""
    returned, outstanding = lender.returned, lender.outstanding
    while returned:
        read = outstanding.get(returned[0])
        if read is not None and read.returned:
            break
        heappop(returned)
        lender.stale -= 1
    if lender.stale > MANY + len(returned) // 2:
        find_returned(lender)


def reopen(lender: Lender, read: OpenRead) -> bool:
    """Undo that `read` was given back; False: its item is not there, or is open with another client."""
    known = lender.outstanding.get(read.id)
    if known is None or not known.returned:
        return False
    read.returned = False
    lender.outstanding[read.id] = read
    lender.canceled_transactions -= read.counted
    # If the item was handed out again in the turn that is being undone, its id is not in `returned`. `undo_turn` puts
    # that right.
    lender.stale += 1
    drop_stale(lender)
    return True


def thinned(queue: "MessageQueue") -> dict[int, OpenRead]:
    """`outstanding`, whose first entry is about to be removed; a copy if many entries have been removed at its
    beginning. Python shrinks a dictionary only when something is put in, and steps over all removed entries to find
    the first one: to remove 100,000 in order would take seconds."""
    queue.dead_first += 1
    if queue.dead_first > len(queue.outstanding):
        queue.dead_first = 0
        queue.outstanding = dict(queue.outstanding)
    return queue.outstanding
