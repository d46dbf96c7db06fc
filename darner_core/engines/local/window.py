"""Reading ahead: the items at the heads of queues that are in memory, and the memory that all queues share for them.

A queue's `window` holds the items `next_id`, `next_id` + 1, ... that are in memory, none of them missing. If it is
`whole` it reaches to the tail, else the rest is on disk only. Any call to `account` may tell another queue to give up
its window.

No call here switches greenlets.
"""

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from darner_core.engines.local.damaged_queue import reading
from darner_core.errors import StorageError
from darner_core.storage.records import Item

if TYPE_CHECKING:
    from darner_core.engines.local.message_queue import MessageQueue

# One read-ahead: enough that the cost of positioning an iterator (4 us) vanishes, little enough to take < 1 ms.
FILL_ITEMS = 512
FILL_BYTES = 256 << 10

# What an item in memory takes beside its body: the tuple, the head of the bytes object, the time, the place in the
# window (measured).
ITEM_OVERHEAD_BYTES = 160

# Smaller changes are not told to the budget.
ACCOUNT_STEP_BYTES = 4096

# The window of all queues that hold nothing in memory, because an empty deque takes 760 bytes. Never filled.
NO_WINDOW: Final[deque[Item]] = deque()


class Holder(Protocol):
    """Holds items in memory. `window_bytes` is what the budget was told last."""

    window_bytes: int

    @property
    def budget(self) -> "WindowBudget": ...

    def drop_window(self) -> None:
        """Keep nothing in memory, and set `window_bytes` to 0: the budget knows."""


class WindowBudget:
    """How many bytes the windows of all queues may take. Those filled longest ago are given up first."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.used_bytes = 0
        self._held: dict[Holder, int] = {}  # bytes by holder, longest unfilled first

    def account(self, holder: Holder, held_bytes: int) -> None:
        """`holder` now holds `held_bytes`. If that is too much in all, others give theirs up."""
        before = self._held.pop(holder, 0)
        if held_bytes:
            self._held[holder] = held_bytes
        self.used_bytes += held_bytes - before
        while self.used_bytes > self.budget_bytes and len(self._held) > 1:
            oldest = next(iter(self._held))
            self.used_bytes -= self._held.pop(oldest)
            oldest.drop_window()


def account(holder: Holder, held_bytes: int) -> None:
    """Tell the budget that `holder` has `held_bytes` in memory, if that is new."""
    if held_bytes != holder.window_bytes:
        holder.window_bytes = held_bytes
        holder.budget.account(holder, held_bytes)


def release(holder: Holder) -> None:
    """Give the window up, and tell the budget."""
    holder.drop_window()
    holder.budget.account(holder, 0)


def release_if_empty(queue: "MessageQueue") -> None:
    """Give up the memory that an empty window takes."""
    if not queue.window and not queue.log.touched:
        queue.window = NO_WINDOW


def bytes_of(items: list[Item]) -> int:
    """What these take in memory."""
    return sum(len(item[0]) for item in items) + len(items) * ITEM_OVERHEAD_BYTES


def fill(queue: "MessageQueue") -> None:
    """Read ahead into the empty window: at least one item, if one waits. Raises StorageError."""
    missing = queue.missing
    if missing and queue.gap[0] <= queue.next_id < queue.gap[1]:  # a search takes 20 ms for a million
        queue.missing = missing = missing - (queue.gap[1] - queue.next_id)
        queue.next_id = queue.gap[1]
    try:
        first, items = queue.log.read(queue.next_id, FILL_ITEMS, FILL_BYTES, missing)
    except StorageError:  # what lies before the damage is served
        first, items = reading(queue, queue.log.read, queue.next_id, 1, FILL_BYTES, missing)
    if missing:
        queue.missing -= first - queue.next_id
        queue.next_id = first
    queue.window = deque(map(queue.aged, items) if queue.max_age_ms else items)
    queue.whole = queue.next_id + len(items) == queue.tail
    account(queue, bytes_of(items))
    end_if_large(queue)


def look_again(queue: "MessageQueue") -> None:
    """At the end of a turn: tell the budget if the window has grown or shrunk by much."""
    if not queue.window:
        if queue.window_bytes:
            account(queue, 0)
    elif queue.whole:  # else it is no larger than when it was filled, or when it stopped reaching to the tail
        held_bytes = len(queue.window) * ITEM_OVERHEAD_BYTES + queue.bytes_in - queue.bytes_out
        if abs(held_bytes - queue.window_bytes) >= ACCOUNT_STEP_BYTES:
            account(queue, held_bytes)
            end_if_large(queue)


def end_if_large(queue: "MessageQueue") -> None:
    """If the queue takes more than a quarter of the budget, items that are put from now on stay out of its window, and
    are read from disk when their turn comes."""
    if queue.window_bytes > queue.budget.budget_bytes // 4:
        queue.whole = False
