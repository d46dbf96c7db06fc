"""The memory that all queues share for the items at their heads.

It knows who holds how much and who gives up; what is held, and what giving it up means, the holders know.
"""

from typing import Protocol

# What an item in memory takes beside its body: the tuple, the bytes object's head, its time, its place (measured).
ITEM_OVERHEAD_BYTES = 160


class Holder(Protocol):
    def drop_window(self) -> None:
        """Keep nothing in memory."""


class WindowBudget:
    """So many bytes for the windows of all queues. Those filled longest ago are given up first."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.used_bytes = 0
        self._held: dict[Holder, int] = {}  # bytes by holder, longest unfilled first

    def account(self, holder: Holder, held_bytes: int) -> None:
        """`holder` now holds so many bytes; others give theirs up if that is too much in all."""
        before = self._held.pop(holder, 0)
        if held_bytes:
            self._held[holder] = held_bytes
        self.used_bytes += held_bytes - before
        while self.used_bytes > self.budget_bytes and len(self._held) > 1:
            oldest = next(iter(self._held))
            self.used_bytes -= self._held.pop(oldest)
            oldest.drop_window()
