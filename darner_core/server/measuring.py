"""The turn of a server that measures: every so often a turn is picked, and what happens in it is timed.

Measuring costs a picked turn about half as much again, and the others two comparisons, so in a busy server one turn
in SAMPLED_ONE_IN is picked, by chance. Each stands for that many. While little happens every turn is picked: then there
is time for it, and a few items an hour are seen.

A request is timed from when the poller told of it until the replies of its turn were sent, or until they were synced if
they wait for that. A request that waits for something else, such as an item or the rest of a large body, is not timed.

No call here switches greenlets, except those of Turn that do.
"""

import random
import time
from collections.abc import Callable
from typing import Any, ClassVar

from darner_core.engines.local.sampling import Sampling
from darner_core.errors import StorageError
from darner_core.operations.measures import OTHER, Measures
from darner_core.protocols.contract import Request
from darner_core.server.background import SyncGroup
from darner_core.server.connection import Connection
from darner_core.server.serving import SHARES, Backlog, Task, wait_taken
from darner_core.server.turn import Turn
from darner_core.waiters import wait_round

SAMPLED_ONE_IN = 100

# Little happens if a second has had no more turns than this, and clients have sent no more.
FEW_TURNS = 50
FEW_BYTES = 16 << 10

LAG_S = 0.25


class MeasuredTurn(Turn):
    """Nothing is measured before `measure` is called."""

    _left = 0  # how many turns come before the next that is picked
    _one_in = SAMPLED_ONE_IN
    _ended = 0  # turns, since `look` was last called
    _bytes_before = 0
    _picked = False
    sample: "_Requests | None" = None  # of the turn that is picked, if it has any

    def measure(
        self,
        measures: Measures,
        sampling: Sampling,
        sync_group: SyncGroup,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._measures = measures
        self._sampling = sampling
        self._sync_group = sync_group
        self._clock = clock
        self._timed = _TimedJournal(self._journal, clock)
        self._watched_class = type("WatchedConnection", (WatchedConnection,), {"__slots__": (), "measured": self})
        self._left = 1

    def look(self) -> None:
        """To be called once a second: decide how many turns are picked."""
        received = self._stats.bytes_read - self._bytes_before
        self._bytes_before += received
        quiet = self._ended <= FEW_TURNS and received <= FEW_BYTES
        self._ended = 0
        one_in = 1 if quiet else SAMPLED_ONE_IN
        if one_in != self._one_in:
            self._one_in = one_in
            if not self._picked:
                self._left = random.randrange(2 * one_in - 1)

    def _pick_next(self) -> None:
        self._picked = True
        self._weight = self._one_in
        self._sampling.begin()
        self._journal = self._timed

    def _serve(self, ready: list[tuple[int, int]]) -> None:
        if not self._picked:
            return Turn._serve(self, ready)
        sample = self.sample = self.sample or _Requests(self._clock())
        for fd, _ in ready:
            sample.watch(self._clients.get(fd), self._watched_class)
        try:
            return Turn._serve(self, ready)
        finally:
            sample.leave_all()

    def end(self) -> None:
        self._ended += 1
        if self._picked:
            self._end_picked()
        elif self._left:
            self._left -= 1
            Turn.end(self)
        else:
            Turn.end(self)
            self._left = random.randrange(2 * self._one_in - 1)
            self._pick_next()

    def _end_picked(self) -> None:
        self._picked = False
        weight, sample, timed = self._weight, self.sample, self._timed
        if self._ended > FEW_TURNS:
            self._one_in = SAMPLED_ONE_IN  # what begins to be busy need not wait for the second to end
        self.sample = None
        self._sampling.end(weight)
        timed.seconds = 0.0
        Turn.end(self)
        self._journal = timed.journal
        if timed.wrote:
            self._measures.commit.observe(timed.seconds, weight)
        if sample is not None and sample.verbs:
            told = _Told(sample, self._measures, self._clock, weight)
            if timed.wrote and self._syncs:
                self._sync_group.join(told)
            else:
                told.synced(None)
        if self._left:
            self._left -= 1
        else:
            self._left = random.randrange(2 * self._one_in - 1)
            self._pick_next()


class _TimedJournal:
    """The journal, of which a picked turn knows how long its write took."""

    def __init__(self, journal: Any, clock: Callable[[], float]) -> None:
        self.journal = journal
        self.slices = journal.slices
        self.wrote = False
        self.seconds = 0.0
        self._clock = clock

    def commit(self) -> bool:
        self.wrote = False
        before = self._clock()
        self.wrote = self.journal.commit()
        self.seconds = self._clock() - before
        return self.wrote


class _Requests:
    """The requests of a picked turn, by dialect and verb."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.verbs: dict[tuple[str, bytes], int] = {}
        self._kept: dict[Any, Any] = {}  # how the clients that are watched find lines otherwise

    def watch(self, client: Any, watched: "type[WatchedConnection]") -> None:
        """Let the client serve what it has sent by the general way, in which each request is seen."""
        if client.__class__ is Connection:
            self._kept[client] = client.kept_line
            client.kept_line = _no_line
            client.__class__ = watched

    def leave_all(self) -> None:
        for client, kept_line in self._kept.items():
            client.__class__ = Connection
            client.kept_line = kept_line
        self._kept.clear()

    def add(self, dialect: str, verbs: list[bytes]) -> None:
        for verb in verbs:
            key = dialect, verb
            self.verbs[key] = self.verbs.get(key, 0) + 1


class WatchedConnection(Connection):
    """A client whose requests are seen. It does what any does."""

    __slots__ = ()

    measured: ClassVar[MeasuredTurn]

    def serve(self, data: bytes) -> None:
        self.share_ends = 0.0
        self.serve_several(data)

    def serve_requests(self, backlog: Backlog) -> Task | None:
        noting = _Noting()
        task = Connection.serve_requests(self, noting.of(backlog))
        noting.goes_on = False
        sample = self.measured.sample
        if sample is not None:
            waits = task is not None and task is not wait_taken and task not in SHARES
            sample.add(self.outbox.dialect.name, noting.verbs[:-1] if waits else noting.verbs)
        return task


class _Noting:
    """Notes the verbs of requests that are gone through, for as long as `goes_on`."""

    def __init__(self) -> None:
        self.goes_on = True
        self.verbs: list[bytes] = []

    def of(self, backlog: Backlog) -> Backlog:
        for request in backlog:
            if self.goes_on:
                self.verbs.append(request[0].verb)
            yield request


class _Told:
    """What is told when the replies of a picked turn have gone, or have been synced."""

    def __init__(self, sample: _Requests, measures: Measures, clock: Callable[[], float], weight: int) -> None:
        self._sample = sample
        self._measures = measures
        self._clock = clock
        self._weight = weight

    def synced(self, error: StorageError | None) -> None:
        """Those that fail are timed as well."""
        seconds = self._clock() - self._sample.began
        for (dialect, verb), count in self._sample.verbs.items():
            shown = verb.decode("ascii", "replace").lower() or OTHER
            self._measures.request(dialect, shown, seconds, count * self._weight)


def _no_line(line: bytes) -> Request | None:
    return None


def timed(
    sync: Callable[[], None], measures: Measures, clock: Callable[[], float] = time.perf_counter
) -> Callable[[], None]:
    """`sync`, whose time is told. One that fails is not."""

    def sync_timed() -> None:
        before = clock()
        sync()
        measures.synced(clock() - before)

    return sync_timed


def wait_lag(measures: Measures, clock: Callable[[], float] = time.perf_counter) -> None:
    """Wait a moment, and tell how much longer that was. Switches greenlets."""
    before = clock()
    wait_round(LAG_S)
    measures.lag.observe(max(0.0, clock() - before - LAG_S))
