"""One kind of what lies aside, in order: a part of it in memory, the rest on disk.

The entries are places (first, second, id). What stands in memory of them is the `window`, sorted. At any time

    every entry that is not hidden is in the window, or at `scan_from` or behind it, and then it is found by a scan;
    all that is in the window is before `scan_from`; if the window is `whole`, nothing is to be found by a scan.

An entry is hidden while its item is open. It stays on disk, so opening and giving back write nothing. A scan begins
where the last one ended, and after a restart at the lowest place that may be there, because to pass over half a million
deleted keys takes a third of a second.

No call here switches greenlets.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from darner_core.storage.job_records import HIGHEST, NEUTRAL_PRI, READY, Front, Place

if TYPE_CHECKING:
    from darner_core.engines.local.aside_log import AsideLog

# One read-ahead, and the most that is kept: 0.3 ms.
FILL_ENTRIES = 512
MOST_ENTRIES = 2 * FILL_ENTRIES

# What an entry takes in memory: the tuple, its numbers, its place in the list (measured).
ENTRY_BYTES = 170

# The heap of hidden places is made anew when it has more stale ones than this.
MOST_STALE = 1000


class Order:
    """The entries of one kind. `entries` is their number, hidden ones included. `urgent` are those of ready items with
    a priority below the neutral one, and `urgent_hidden` the hidden ones of these."""

    __slots__ = ("log", "kind", "entries", "hidden", "window", "scan_from", "whole", "gone", "urgent", "urgent_hidden",
        "_urgent_below", "_hidden_heap")  # fmt: skip

    def __init__(self, log: "AsideLog", kind: int, front: Front) -> None:
        self.log = log
        self.kind = kind
        self.entries, self.scan_from = front
        self.hidden: set[Place] = set()
        self.window: list[Place] = []
        self.whole = not self.entries
        self.gone = 0  # entries removed since the front was last removed as a range
        self.urgent = self.urgent_hidden = 0
        self._urgent_below = NEUTRAL_PRI if kind == READY else 0
        self._hidden_heap: list[Place] = []  # all that are hidden, and some that were: the lowest one is looked for

    @property
    def waiting(self) -> int:
        return self.entries - len(self.hidden)

    def first(self) -> Place | None:
        """The lowest that is not hidden. Raises StorageError."""
        if not self.window:
            if self.whole:
                return None
            self._fill()
            if not self.window:
                return None
        return self.window[0]

    def next_behind(self, place: Place) -> Place | None:
        """The lowest behind this one that is not hidden. Raises StorageError."""
        first = self.first()
        if first is None or first > place:
            return first
        at = bisect_right(self.window, place)
        if at < len(self.window):
            return self.window[at]
        if self.whole:
            return None
        changed, hidden = self.log.order[self.kind], self.hidden
        new = [new for new, value in changed.items() if value is not None and new > place and new not in hidden]
        begin = _behind(place)
        while places := self.log.places(self.kind, begin, FILL_ENTRIES):
            for stored in places:
                if stored not in hidden and changed.get(stored, b"") is not None:
                    return min([stored, *new])
            begin = _behind(places[-1])
        return min(new, default=None)

    def add(self, place: Place, value: bytes = b"") -> None:
        self.log.add_place(self.kind, place, value)
        self.entries += 1
        self.urgent += place[0] < self._urgent_below
        self._show(place)

    def remove(self, place: Place, is_new: bool = False, value: bytes = b"") -> None:
        """`is_new`: nothing of its item is on disk, because it was put in this turn. `value`: what was there."""
        if is_new:
            self.log.order[self.kind].pop(place, None)
        else:
            self.log.remove_place(self.kind, place, value)
        self.entries -= 1
        self.gone += 1
        self.urgent -= place[0] < self._urgent_below
        if place in self.hidden:
            self.hidden.discard(place)
            self.urgent_hidden -= place[0] < self._urgent_below
        else:
            self._take_out(place)
        if self.entries == len(self.hidden):
            self.whole = True  # whatever deleted keys a scan would pass

    def hide(self, place: Place) -> None:
        """Its item is open."""
        self.hide_again(place)
        if self.entries == len(self.hidden):
            self.whole = True

    def hide_again(self, place: Place) -> None:
        """While a turn is undone: `entries` may not be what it was before yet."""
        self._take_out(place)
        if place not in self.hidden:
            self.hidden.add(place)
            self.urgent_hidden += place[0] < self._urgent_below
        heap = self._hidden_heap
        heappush(heap, place)
        if len(heap) > 2 * len(self.hidden) + MOST_STALE:
            self._hidden_heap = list(self.hidden)
            heapify(self._hidden_heap)

    def unhide(self, place: Place) -> None:
        if place in self.hidden:
            self.hidden.discard(place)
            self.urgent_hidden -= place[0] < self._urgent_below
            self._show(place)

    def lowest(self) -> Place:
        """No entry is before it."""
        if self.window:
            lowest = self.window[0]
        else:
            lowest = HIGHEST if self.whole else self.scan_from
        heap, hidden = self._hidden_heap, self.hidden
        while heap and heap[0] not in hidden:
            heappop(heap)
        return min(lowest, heap[0]) if heap else lowest

    def front(self) -> Front:
        return Front(self.entries, self.lowest())

    def undo(self, entries: int, before: Mapping[Place, bytes | None]) -> None:
        """The turn could not be written. `before`: what it has changed, as it was; None: there was nothing. The window
        is kept, because a scan might have to pass over very many that are open."""
        self.entries = entries
        for place, value in before.items():
            self._take_out(place)
            if value is not None and place not in self.hidden:
                self._show(place)
        if not self.waiting:
            self.whole = True

    def drop_window(self) -> None:
        if self.window:
            self.scan_from, self.window, self.whole = self.window[0], [], False

    def _show(self, place: Place) -> None:
        if self.whole or place < self.scan_from:
            window = self.window
            if window and place < window[-1]:
                insort(window, place)
            else:
                window.append(place)
            if len(window) > MOST_ENTRIES:
                self._trim()

    def _trim(self) -> None:
        self.scan_from, self.whole = self.window[FILL_ENTRIES], False
        del self.window[FILL_ENTRIES:]

    def _take_out(self, place: Place) -> None:
        window = self.window
        at = bisect_left(window, place)
        if at < len(window) and window[at] == place:
            del window[at]

    def _fill(self) -> None:
        """Read ahead, until something is found or nothing is left. Raises StorageError."""
        changed, hidden = self.log.order[self.kind], self.hidden
        begin, found, places = self.scan_from, set[Place](), list[Place]()
        while not found:
            places = self.log.places(self.kind, begin, FILL_ENTRIES)
            found.update(place for place in places if place not in hidden and changed.get(place, b"") is not None)
            if len(places) < FILL_ENTRIES:
                break
            begin = _behind(places[-1])
        whole = len(places) < FILL_ENTRIES
        end = HIGHEST if whole else begin
        start = self.scan_from
        for place, value in changed.items():  # what this turn has added is not on disk yet
            if value is not None and start <= place < end and place not in hidden:
                found.add(place)
        self.window, self.whole, self.scan_from = sorted(found), whole, end
        if len(self.window) > MOST_ENTRIES:
            self._trim()


def _behind(place: Place) -> Place:
    """The place that follows."""
    return place[0], place[1], place[2] + 1
