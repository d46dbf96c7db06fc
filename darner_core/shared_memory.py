"""The memory that all clients share for what has come of their items, and for replies that they do not take.

One client can cost little, and ten thousand can cost ten thousand times that: these are the bounds on the sum. They
know who holds how much and who has to give it up first; what that means, the holders know. No call here switches
greenlets.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

# Memory that is freed before its time goes back to the operating system when it has come to this, which takes 0.2 to
# 5 ms: else what a thousand clients gave up leaves 60 MB of holes between what lives.
TRIM_BYTES = 4 << 20

# What has come in part of requests that must be in memory whole, of thrift and of Kestrel's text protocol: four of the
# largest frames, or more of smaller ones.
WHOLE_BYTES = 64 << 20


class Holder(Protocol):
    def spill(self) -> None:
        """Keep nothing of the item in memory: write what has come of it to disk, now or soon; or, if it must be in
        memory, refuse it."""


class BodyMemory:
    """A bound on the bytes of items that have come in part. Over it, the client from which nothing has come for longest
    gives up first: one that stalls, not one that sends."""

    def __init__(self, budget_bytes: int, trim: Callable[[], None]) -> None:
        """`trim` gives what has been freed back to the operating system."""
        self.budget_bytes = budget_bytes
        self.used_bytes = 0
        self._trim = trim
        self._freed_bytes = 0  # since `trim` was called
        self._held: dict[Holder, int] = {}  # bytes by holder; the one that has received nothing for longest comes first

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
        """`freed_bytes` were written to disk before their time, or dropped: their client was refused or has gone."""
        self._freed_bytes += freed_bytes
        if self._freed_bytes >= TRIM_BYTES:
            self._freed_bytes = 0
            self._trim()


class PipelineMemory:
    """A bound on the bytes that clients send ahead while they wait, and on replies that they do not take; also on large
    replies that are being put together.

    It takes nothing away from anybody: while `scarce`, no client is given more than it needs to go on.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.used_bytes = 0
        self.turn_bytes = 0  # replies of this turn: it is not known yet whether they are taken

    @property
    def scarce(self) -> bool:
        return self.used_bytes + self.turn_bytes > self.budget_bytes

    def has_room(self, more_bytes: int) -> bool:
        return self.used_bytes + self.turn_bytes + more_bytes <= self.budget_bytes

    @contextmanager
    def reserved(self, reply_bytes: int) -> Iterator[None]:
        """A reply of `reply_bytes` is being put together. When it has been, it is for its client to take."""
        self.used_bytes += reply_bytes
        try:
            yield
        finally:
            self.used_bytes -= reply_bytes
