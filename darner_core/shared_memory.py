"""Bounds on the memory of all clients together: for items that have come in part, and for replies that wait.

Each client may need only a little, but there may be ten thousand of them. The bounds know how much each holder has and
which has to give it up first, but not how. No call here switches greenlets.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

# When clients have given up this much, free memory is returned to the operating system, which takes 0.2 to 5 ms.
# Otherwise a thousand clients that give up leave 60 MB of holes.
TRIM_BYTES = 4 << 20

# For requests of thrift and of Kestrel's text protocol that have come in part, and must be in memory as a whole: four
# of the largest frames, or more of smaller ones.
WHOLE_BYTES = 64 << 20


class Holder(Protocol):
    def spill(self) -> None:
        """Free the memory of the item: write what has come of it to disk, now or soon, or refuse an item that must be
        in memory as a whole."""


class BodyMemory:
    """A bound on the bytes of items that have come in part. Above it, the client that has sent nothing for longest
    gives up first: one that stalls, not one that sends."""

    def __init__(self, budget_bytes: int, trim: Callable[[], None]) -> None:
        """`trim` returns free memory to the operating system."""
        self.budget_bytes = budget_bytes
        self.used_bytes = 0
        self._trim = trim
        self._freed_bytes = 0  # since `trim` was called
        self._held: dict[Holder, int] = {}  # bytes by holder, first the one that has received nothing for longest

    def account(self, holder: Holder, held_bytes: int) -> None:
        """`holder` has received something, or needs nothing any more, and holds `held_bytes` now."""
        self.used_bytes += held_bytes - self._held.pop(holder, 0)
        if held_bytes:
            self._held[holder] = held_bytes
        while self.used_bytes > self.budget_bytes:
            oldest = next(iter(self._held))
            self.used_bytes -= self._held.pop(oldest)
            oldest.spill()

    def freed(self, freed_bytes: int) -> None:
        """`freed_bytes` were written to disk early, or dropped because their client was refused or has gone."""
        self._freed_bytes += freed_bytes
        if self._freed_bytes >= TRIM_BYTES:
            self._freed_bytes = 0
            self._trim()


class PipelineMemory:
    """A bound on the bytes that clients send ahead while they wait, on replies that they do not take, and on large
    replies that are being put together.

    Nobody has to give anything up: while memory is `scarce`, no client is given more than it needs to go on.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.used_bytes = 0
        self.turn_bytes = 0  # replies of this turn, which their clients may take at once

    @property
    def scarce(self) -> bool:
        return self.used_bytes + self.turn_bytes > self.budget_bytes

    def has_room(self, more_bytes: int) -> bool:
        return self.used_bytes + self.turn_bytes + more_bytes <= self.budget_bytes

    @contextmanager
    def reserved(self, reply_bytes: int) -> Iterator[None]:
        """For the time in which a reply of `reply_bytes` is put together."""
        self.used_bytes += reply_bytes
        try:
            yield
        finally:
            self.used_bytes -= reply_bytes
