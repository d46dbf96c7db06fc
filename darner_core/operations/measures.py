"""How long things take, counted in histograms: only a server that somebody can ask for its metrics has them.

What belongs to the hot path is sampled, and each value that is observed stands for `weight` of its kind. So the counts
and sums are estimates of all that has happened, and no more likely too high than too low. Nothing here switches.
"""

from bisect import bisect_left
from collections.abc import Sequence
from threading import Lock
from typing import Final

# Upper bounds in seconds. A request takes tens of microseconds, an fsync milliseconds, an item may wait for days.
SHORT: Final = (
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
)  # fmt: skip
LONG: Final = (
    0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0, 604_800.0,
)  # fmt: skip

# More verbs than all protocols have. What clients make up beyond these is one kind.
MOST_VERBS: Final = 300
LONGEST_VERB: Final = 60
OTHER: Final = "other"


class Histogram:
    """How many values were up to each bound, and above all of them."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float, weight: int = 1) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += weight
        self.sum += seconds * weight

    @property
    def count(self) -> int:
        return sum(self.counts)


class Measures:
    """The histograms of a server."""

    def __init__(self) -> None:
        self.queued = Histogram(LONG)  # from an item's put to the first time that it is handed out
        self.held = Histogram(LONG)  # from then until it is acknowledged
        self.commit = Histogram(SHORT)  # writing what a turn has changed
        self.fsync = Histogram(SHORT)
        self.lag = Histogram(SHORT)  # how much later than it should the loop does what is due
        self.requests: dict[tuple[str, str], Histogram] = {}  # by dialect and verb: from receipt to reply
        self._lock = Lock()  # fsyncs run in threads

    def request(self, dialect: str, verb: str, seconds: float, weight: int = 1) -> None:
        key = dialect, verb
        found = self.requests.get(key)
        if found is None:
            if len(self.requests) >= MOST_VERBS or len(verb) > LONGEST_VERB:
                key = dialect, OTHER
            found = self.requests.setdefault(key, Histogram(SHORT))
        found.observe(seconds, weight)

    def synced(self, seconds: float) -> None:
        """Called in the thread of the fsync."""
        with self._lock:
            self.fsync.observe(seconds)
