"""What queues have been like over the last hour: a sample every 15 seconds, for pages and rates.

At most MOST_QUEUES queues have a history: those in which something has happened last. A queue in which nothing happens
and nothing waits needs none. Each takes 10 KiB. Only a server that somebody can look at takes samples. No call here
switches greenlets; samples are taken in slices.
"""

import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from darner_core.engines.contract import Queue
from darner_core.operations.jobs import JobOperations
from darner_core.operations.stats import Statistics
from darner_core.slicing import slices

STEP_S: Final = 15
SAMPLES: Final = 241  # an hour, and the sample that it begins with
MOST_QUEUES: Final = 1000
SPARK_POINTS: Final = 30  # of two minutes each

# How many queues one turn looks at: 1 ms.
LOOKED_AT: Final = 500
SAMPLED_AT: Final = 50

_NO_TIME: Final = -1
_FIGURES: Final = ("items", "put", "gone", "age_ms", "open", "failures")


class Rates(NamedTuple):
    """Items a second, between the last two samples. None: there are no two."""

    put: float | None
    gone: float | None


class _Series:
    """The samples of one queue, in rings. A place that was not sampled has the time _NO_TIME."""

    __slots__ = ("numbers", "values", "gone_before", "seen")

    def __init__(self, gone_before: int, seen: tuple[int, ...]) -> None:
        self.numbers = array("q", [_NO_TIME]) * SAMPLES  # which sample since the start stands in each place
        self.values = [array("q", [0]) * SAMPLES for _ in _FIGURES]
        self.gone_before = gone_before  # what has to be added to the difference of puts and items
        self.seen = seen  # by which it is told whether something has happened


_NOTHING: Final = _Series(0, ())  # of a queue without a history. Never filled.


class History:
    def __init__(
        self,
        queues: Mapping[bytes, Queue],
        statistics: Statistics,
        jobs: JobOperations,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queues = queues
        self._statistics = statistics
        self._jobs = jobs
        self._clock = clock
        self._started_ms = int(clock() * 1000)
        self._number = -1  # of the last sample
        self._sampled_ms = 0  # when it began
        self._series: OrderedDict[bytes, _Series] = OrderedDict()  # what has changed last comes last
        self.left_out = 0  # queues that have something in them, or changed, and have no history

    # -- taking samples

    def sample(self) -> Iterator[None]:
        """Take a sample of all queues, a slice at a time."""
        self._number += 1
        self._sampled_ms = int(self._clock() * 1000)
        left_out = 0
        for number, names in enumerate(slices(self._queues, LOOKED_AT)):
            if number:
                yield
            for name in names:
                left_out += not self._look(name)
        self.left_out = left_out
        for number, names in enumerate(slices(self._series, SAMPLED_AT)):
            if number:
                yield
            for name in names:
                self._take(name)

    def _look(self, name: bytes) -> bool:
        """Let the queue have a history, if there is something to tell and room; False: there is no room."""
        queue: Any = self._queues.get(name)
        if queue is None or queue.unreadable:
            return True
        series = self._series.get(name)
        seen = queue.created_at_ms, queue.total_items, queue.transactions, queue.waiting_items
        if series is not None:
            if seen[0] != series.seen[0]:  # another queue of that name
                del self._series[name]
            elif seen != series.seen:
                series.seen = seen
                self._series.move_to_end(name)
                return True
            else:
                return True
        elif seen[1:] == (0, 0, 0):
            return True
        if len(self._series) >= MOST_QUEUES and not self._forget_still(seen):
            return False
        gone = queue.total_items - self._items(name, queue)
        is_new = queue.created_at_ms >= self._started_ms
        self._series[name] = _Series(0 if is_new else max(0, -gone), seen)
        return True

    def _forget_still(self, seen: tuple[int, ...]) -> bool:
        """Make room: the queue in which nothing has happened for longest loses its history, if that is more than a few
        minutes."""
        name, series = next(iter(self._series.items()))
        queue = self._queues.get(name)
        if queue is not None:
            place = (self._number - SPARK_POINTS) % SAMPLES
            changed = series.numbers[place] != self._number - SPARK_POINTS
            changed = changed or series.values[1][place] != queue.total_items
            if changed:
                return False
        del self._series[name]
        return True

    def _items(self, name: bytes, queue: Any) -> int:
        jobs = self._jobs.figures(name)
        return int(queue.waiting_items + queue.open_reads + jobs.get(b"delayed", 0) + jobs.get(b"buried", 0))

    def _take(self, name: bytes) -> None:
        series, queue = self._series.get(name), self._queues.get(name)
        if series is None:
            return
        if queue is None or queue.unreadable:
            del self._series[name]
            return
        place = self._number % SAMPLES
        series.numbers[place] = self._number
        items, put = self._items(name, queue), queue.total_items
        failures = self._jobs.figures(name).get(b"failures", 0)
        age_ms = self._statistics.age_ms(queue)
        figures = items, put, self._gone(series, put, items), age_ms, queue.open_reads, failures
        for values, value in zip(series.values, figures, strict=True):
            values[place] = value

    @staticmethod
    def _gone(series: _Series, put: int, items: int) -> int:
        return max(0, put - items + series.gone_before)

    # -- what is told

    def gone(self, name: bytes) -> int | None:
        """How many items have left the queue since the start, whatever became of them; None: it is not known. Items
        that left before the first sample of a queue that is older than the server are not among them."""
        series, queue = self._series.get(name), self._queues.get(name)
        if series is None or queue is None or queue.unreadable or queue.created_at_ms != series.seen[0]:
            return None
        return self._gone(series, queue.total_items, self._items(name, queue))

    def rates(self, name: bytes) -> Rates:
        series = self._series.get(name)
        if series is None or not self._has(series, self._last(series)) or not self._has(series, self._last(series) - 1):
            return Rates(None, None)
        now, before = self._last(series) % SAMPLES, (self._last(series) - 1) % SAMPLES
        put, gone = (max(0, values[now] - values[before]) / STEP_S for values in series.values[1:3])
        return Rates(put, gone)

    def spark(self, name: bytes) -> list[int | None] | None:
        """The number of items over the last hour, in SPARK_POINTS points, the last one now. None: it has no history."""
        series = self._series.get(name)
        if series is None:
            return None
        every = (SAMPLES - 1) // SPARK_POINTS
        last = self._last(series)
        return [self._at(series, 0, last - every * back) for back in reversed(range(SPARK_POINTS))]

    def figures(self, name: bytes) -> dict[str, Any]:
        """As a queue's JSON has them."""
        rates = self.rates(name)
        return {"rate_in": rates.put, "rate_out": rates.gone, "spark": self.spark(name)}

    def history(self, name: bytes, minutes: int = 60) -> dict[str, Any]:
        """A value for each step, the oldest first, with None where it is not known; `in` and `out` are what has come
        and gone in the step."""
        series = self._series.get(name, _NOTHING)
        steps = min(SAMPLES - 1, max(1, minutes * 60 // STEP_S))
        last = self._last(series) if series is not _NOTHING else self._number
        numbers = range(last - steps + 1, last + 1)
        told: dict[str, Any] = {
            "step_s": STEP_S,
            "from_ms": self._sampled_ms - ((self._number - numbers[0]) * STEP_S * 1000),
        }
        for figure, place in (("items", 0), ("age_ms", 3), ("open", 4), ("failures", 5)):
            told[figure] = [self._at(series, place, number) for number in numbers]
        for figure, place in (("in", 1), ("out", 2)):
            told[figure] = [self._step(series, place, number) for number in numbers]
        return told

    def _last(self, series: _Series) -> int:
        """The number of the queue's last sample: a sample that goes on may not have reached it."""
        return self._number if self._has(series, self._number) else self._number - 1

    def _has(self, series: _Series, number: int) -> bool:
        return number >= 0 and series.numbers[number % SAMPLES] == number

    def _at(self, series: _Series, place: int, number: int) -> int | None:
        return series.values[place][number % SAMPLES] if self._has(series, number) else None

    def _step(self, series: _Series, place: int, number: int) -> int | None:
        now, before = self._at(series, place, number), self._at(series, place, number - 1)
        return max(0, now - before) if now is not None and before is not None else None
