"""When something in an aside has to be moved because of the time: delayed items become due, keys become free.

There is one timer, for the earliest of all asides. When it fires, at most DUE_A_TURN are moved in a turn of the loop,
and the others have theirs in between: a million that come due at once hold up nobody.

Due times are times of day, as expiries are: if the clock is set forward they come early, if it is set back they come
late. The timer is looked at every LONGEST_S at least, so that a clock that was set is noticed.

No call here switches greenlets. What is moved belongs to the turn of the loop in which that is done.
"""

import heapq
import logging
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from darner_core import NAME
from darner_core.engines.local import aside_moves
from darner_core.engines.local.aside import Aside
from darner_core.engines.local.aside_moves import NEVER_MS
from darner_core.engines.local.journal import Journal
from darner_core.errors import StorageError
from darner_core.repeated import BY_TEXT
from darner_core.showing import show

log = logging.getLogger(NAME)

DUE_A_TURN = 200  # 2 to 4 ms

# A look at an aside takes 0.1 ms even if nothing is moved there, so it counts as at least this many moved items.
LOOK_WEIGHT = 10

# The timer is not asked to be more exact, nor to wait longer.
SHORTEST_S, LONGEST_S = 0.001, 10.0

# Until an aside that cannot be read, or written, is tried again.
RETRY_MS = 1000


class Timer(Protocol):
    def close(self) -> None: ...


class DueTimes:
    """Of all asides."""

    def __init__(
        self,
        journal: Journal,
        run_after: Callable[[float, Callable[[], None]], Timer],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`run_after(seconds, call)` calls once, in the loop. `clock` tells the time of day."""
        self._journal = journal
        self._run_after = run_after
        self._clock = clock
        self._earliest: dict[Aside, int] = {}  # when each has to be looked at; those that have nothing are not in it
        # A heap of when, a number that no other entry has, and which. What is not `_earliest` any more is passed over.
        self._heap: list[tuple[int, int, Aside]] = []
        self._entries = 0
        self._timer: Timer | None = None
        self._timer_ms = NEVER_MS
        self._moving = False

    def note(self, aside: Aside, due_ms: int) -> None:
        """Something there is due then."""
        if due_ms >= self._earliest.get(aside, NEVER_MS):
            return
        self._earliest[aside] = due_ms
        self._entries += 1
        heapq.heappush(self._heap, (due_ms, self._entries, aside))
        if len(self._heap) > 2 * len(self._earliest) + 1000:  # most have been passed over
            self._heap = [entry for entry in self._heap if self._earliest.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)
        if due_ms < self._timer_ms:
            self._set_timer()

    def forget(self, aside: Aside) -> None:
        """It has been deleted."""
        self._earliest.pop(aside, None)

    def _first(self) -> tuple[int, Aside] | None:
        heap = self._heap
        while heap:
            due_ms, _, aside = heap[0]
            if self._earliest.get(aside) == due_ms:
                return due_ms, aside
            heapq.heappop(heap)
        return None

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer, self._timer_ms = None, NEVER_MS
        first = self._first()
        if first is None or self._moving:  # else it is set when all has been moved
            return
        self._timer_ms = first[0]
        in_s = (first[0] - self._clock() * 1000) / 1000
        self._timer = self._run_after(min(max(SHORTEST_S, in_s), LONGEST_S), self._on_timer)

    def _on_timer(self) -> None:
        """Called in the hub."""
        first = self._first()
        if first is not None and first[0] <= self._clock() * 1000 and not self._moving:
            self._moving = True
            self._journal.slices.append(self._move())
        self._set_timer()

    def _move(self) -> Iterator[None]:
        """All that is due, a part of it each turn."""
        try:
            moved = 0
            while (first := self._first()) is not None and first[0] <= self._journal.time_ms():
                moved += max(LOOK_WEIGHT, self._move_some(first[1], DUE_A_TURN - moved))
                if moved >= DUE_A_TURN:
                    moved = 0
                    yield
        finally:
            self._moving = False
            self._set_timer()

    def _move_some(self, aside: Aside, most: int) -> int:
        """Of one aside; and see when it has to be looked at again."""
        del self._earliest[aside]
        if aside.deleted:
            return 0
        try:
            moved = aside_moves.move_due(aside, most)
            again_ms = aside_moves.due_ms(aside)
        except StorageError as error:
            log.error("queue %s: what is due there waits: %s", show(aside.name), error, extra=BY_TEXT)
            moved, again_ms = most, int(self._clock() * 1000) + RETRY_MS
        if again_ms < NEVER_MS:
            self.note(aside, again_ms)
        return moved
