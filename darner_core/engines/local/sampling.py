"""How long items wait and how long clients have them open, in turns that are picked as samples.

The hot path knows nothing of this. For a turn that is picked, the journal's lists of what the turn touches and what
undoes it are replaced by lists that look at what is added; in all other turns they are plain lists. What is opened in
such a turn becomes a SampledRead, by assigning its `__class__`. Python tells it when nobody has it any longer, so the
close of other reads costs nothing either.

Waiting is measured for items that are handed out from the line, which go out in the order of their ids. What lies aside
of it, because it was delayed, has a priority, or has failed, is not measured. No call here switches greenlets.
"""

import time
from collections.abc import Callable
from typing import Any, ClassVar

from darner_core.engines.local.aside import Aside
from darner_core.engines.local.cursor import Cursor
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.reads import OpenRead
from darner_core.storage.records import Item

# (seconds, how many it stands for)
Observe = Callable[[float, int], None]

# How many sampled reads may be open. While there are as many, no more are sampled.
MOST_OPEN = 10_000

# The steps that undo the opening of an item, without the object that they are bound to.
_OPENINGS = {MessageQueue.give_back, Cursor.give_back, Cursor._unopen, Aside._let_wait}


class Sampling:
    """The samples of one engine. `begin` and `end` are called in the turn that is picked: what it does in between is
    seen."""

    def __init__(
        self, journal: Journal, queued: Observe, held: Observe, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """`queued` is told how long an item had waited when it was handed out first, `held` how long a client had it
        open until it was acknowledged."""
        self._journal = journal
        self._queued = queued
        self._held = held
        self._clock = clock
        self._starts: list[_Start] = []
        self._opened: dict[OpenRead, None] = {}
        self._since: dict[int, tuple[float, int]] = {}  # by the id() of a SampledRead: when it was opened, its weight
        self._class: type[SampledRead] = type("SampledRead", (SampledRead,), {"__slots__": (), "sampling": self})

    def begin(self) -> None:
        """From here on this turn is a sample."""
        self._starts, self._opened = [], {}
        journal = self._journal
        journal.touched = _Touched(self._starts, journal.touched)
        journal.in_memory = _Touched(self._starts, journal.in_memory)
        journal.undo = _Undo(self._opened, journal.undo)

    def end(self, weight: int) -> None:
        """The turn is about to be written. It stands for `weight` turns."""
        journal = self._journal
        journal.touched, journal.in_memory = list(journal.touched), list(journal.in_memory)
        journal.undo = list(journal.undo)
        if self._starts:
            now_ms = journal.time_ms()
            for start in self._starts:
                for item in start.handed_out():
                    self._queued(max(0, now_ms - item[3]) / 1000, weight)
        now = self._clock() if self._opened else 0.0
        for read in self._opened:
            if read.returned or read.__class__ is not OpenRead:
                continue
            if read.queue.holds(read):
                if len(self._since) < MOST_OPEN:
                    self._since[id(read)] = now, weight
                    read.__class__ = self._class
            elif read.counted and not read.queue.deleted:
                self._held(0.0, weight)
        self._starts, self._opened = [], {}

    def forgotten(self, read: OpenRead) -> None:
        """Nobody has this SampledRead any longer."""
        since, weight = self._since.pop(id(read), (0.0, 0))
        if weight and read.counted and not read.returned and not read.queue.deleted:
            self._held(self._clock() - since, weight)


class SampledRead(OpenRead):
    """A read that is a sample. It does what any does."""

    __slots__ = ()

    sampling: ClassVar[Sampling]

    def __del__(self) -> None:
        self.sampling.forgotten(self)


class _Start:
    """A queue, and what waits in it, before its first change in the turn."""

    __slots__ = ("_queue", "_next_id", "_waiting", "_whole", "_others")

    def __init__(self, queue: MessageQueue) -> None:
        self._queue = queue
        self._next_id = queue.next_id
        self._waiting = list(queue.window)  # pointers alone: 512 items are copied in 2 us
        self._whole = queue.whole
        self._others = self._gone_otherwise()

    def _gone_otherwise(self) -> tuple[int, ...]:
        queue = self._queue
        return queue.expired_items, queue.discarded, queue.total_flushes, queue.missing

    def handed_out(self) -> list[Item]:
        """The items that the turn has handed out for the first time, as far as that is known."""
        queue = self._queue
        items = queue.next_id - self._next_id
        if items <= 0 or queue.deleted or queue.missing or self._gone_otherwise() != self._others:
            return []
        known = self._waiting[:items]
        if self._whole and items > len(known):
            known += queue.log.appended[: items - len(known)]  # put in this turn
        return known


class _Touched(list[Any]):
    """The logs that the turn changes. Each is added before its first change."""

    def __init__(self, starts: list[_Start], before: list[Any]) -> None:
        super().__init__(before)
        self._starts = starts

    def append(self, log: Any) -> None:
        if isinstance(log.owner, MessageQueue) and not log.owner.unreadable:
            self._starts.append(_Start(log.owner))
        super().append(log)


class _Undo(list[Any]):
    """What undoes the turn."""

    def __init__(self, opened: dict[OpenRead, None], before: list[Any]) -> None:
        super().__init__(before)
        self._opened = opened

    def append(self, step: tuple[Any, ...]) -> None:
        if getattr(step[0], "__func__", step[0]) in _OPENINGS:
            for about in step[1:]:
                if isinstance(about, OpenRead):
                    self._opened[about] = None
        super().append(step)
