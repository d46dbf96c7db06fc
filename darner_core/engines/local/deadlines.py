"""Which deadline comes first, of many that come, go and change.

A heap has an entry for each, and some for what has gone or has changed, which are passed over when they come first.
When there are more of these than of the others, the heap is made anew, a few entries with each change: at once it would
take 30 ms for 100,000. No call here switches greenlets.
"""

from collections.abc import Callable
from heapq import heappop, heappush

# More entries than twice what there is and this many, and the heap is made anew.
MOST_STALE = 1000

# How many entries are looked at with each change while that goes on.
MOVED_AT_ONCE = 4

_Entry = tuple[float, int]  # when, and whose


class Deadlines:
    """`valid(entry)`: where an entry belongs now, None: nowhere, because it is of no use any more."""

    def __init__(self, valid: Callable[[_Entry], float | None]) -> None:
        self._valid = valid
        self._heap: list[_Entry] = []
        self._before: list[_Entry] = []  # of these the rest of the heap is made; a heap, too

    def __len__(self) -> int:
        return len(self._heap) + len(self._before)

    def add(self, due: float, of: int, live: int) -> None:
        """`live`: how many there are."""
        heappush(self._heap, (due, of))
        if not self._before and len(self._heap) > 2 * live + MOST_STALE:
            self._heap, self._before = [], self._heap
        if self._before:
            self._move_some()

    def _move_some(self) -> None:
        for _ in range(min(MOVED_AT_ONCE, len(self._before))):
            entry = self._before.pop()  # the last: what is left is a heap still
            due_now = self._valid(entry)
            if due_now is not None:
                heappush(self._heap, (due_now, entry[1]))

    def first(self) -> _Entry | None:
        """Perhaps of no use any more."""
        heap = self._first_heap() if self._before else self._heap
        return heap[0] if heap else None

    def pop(self) -> _Entry:
        return heappop(self._first_heap())

    def _first_heap(self) -> list[_Entry]:
        if self._before and (not self._heap or self._before[0] < self._heap[0]):
            return self._before
        return self._heap
