"""The turn of a server that measures: every so often a round of the loop is picked, and what happens in it is timed.

In a busy server one round in SAMPLED_ONE_IN is picked, by chance, and its turns stand for those of that many. While
little happens every round is picked: then there is time for it, and a few items an hour are seen. What measures stands
in the places of attributes that Turn looks at in any case, and only in a round that is picked. So all that the others
cost is to count them.

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
from darner_core.showing import show
from darner_core.waiters import wait_round

SAMPLED_ONE_IN = 400

# Little happens if a second has had no more rounds than this in which something could be read, and clients have sent
# no more.
FEW_ROUNDS = 50
FEW_BYTES = 16 << 10

LAG_S = 0.25


class MeasuredTurn(Turn):
    """Nothing is measured before `measure` is called."""

    sample: "_Requests | None" = None  # of the turn, if its round is picked
    _left = -1  # how many rounds of the loop come before the one that is picked; below 0: none is
    _one_in = SAMPLED_ONE_IN
    _before = (0, 0)  # what `look` has last seen
    _in_round = False  # the one that is picked

    def measure(
        self,
        measures: Measures,
        sampling: Sampling,
        sync_group: SyncGroup,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.measures = measures
        self.sampling = sampling
        self.sync_group = sync_group
        self.clock = clock
        self._plain_journal = self._journal
        self._rounds = 0  # up to the one that is picked next
        self._watched_class = type("WatchedConnection", (WatchedConnection,), {"__slots__": (), "measured": self})
        self._choose()

    def look(self) -> None:
        """To be called once a second: decide how many rounds are picked."""
        now = self._rounds - self._left, self._stats.bytes_read
        rounds, received = now[0] - self._before[0], now[1] - self._before[1]
        self._before = now
        one_in = 1 if rounds <= FEW_ROUNDS and received <= FEW_BYTES else SAMPLED_ONE_IN
        if one_in != self._one_in:
            self._one_in = one_in
            self._rounds -= self._left
            self._choose()

    def _choose(self) -> None:
        self._left = random.randrange(2 * self._one_in - 1)
        self._rounds += self._left

    def _on_ready(self) -> None:
        if self._left:
            self._left -= 1
            Turn._on_ready(self)
        elif self.sample is not None:  # what the round before has left for the end of this one
            Turn._on_ready(self)
        else:
            self._weight = self._one_in
            self._in_round = True
            self._poll = self._poll_picked
            self._begin()
            try:
                Turn._on_ready(self)
            finally:
                self._in_round = False
                self._poll = self._poller.poll
                self._pick_next()

    def _pick_next(self) -> None:
        self._rounds += 1
        if self._rounds - self._before[0] > FEW_ROUNDS:
            self._one_in = SAMPLED_ONE_IN  # what begins to be busy need not wait for the second to end
        self._choose()

    def _begin(self) -> None:
        """A turn of the round that is picked begins."""
        self.sample = _Requests(self, self._plain_journal, self._weight)
        self._journal = self.sample

    def _poll_picked(self, wait_s: int, most: int) -> Any:
        """In the place of the poller's `poll` in the round that is picked."""
        ready = self._poller.poll(wait_s, most)
        sample = self.sample
        if sample is not None:
            sample.began = sample.began or self.clock()
            for fd, _ in ready:
                sample.watch(self._clients.get(fd), self._watched_class)
        return ready

    def written(self) -> None:
        """The turn has been written, or could not be."""
        self.sample = None
        self._journal = self._plain_journal
        if self._in_round:
            self._begin()


class _Requests:
    """The requests of a turn that is measured, by dialect and verb. For the turn it is the journal until it has been
    written, and then one of its clients, which is told when the replies have been sent."""

    special = True

    def __init__(self, turn: MeasuredTurn, journal: Any, weight: int) -> None:
        self.slices = journal.slices
        self.began = 0.0  # when the poller told of the requests
        self.verbs: dict[tuple[str, bytes], int] = {}
        self._turn = turn
        self._journal = journal
        self._weight = weight
        self._kept: dict[Any, Any] = {}  # how the clients that are watched find lines otherwise
        turn.sampling.begin()

    # -- as the journal

    def commit(self) -> bool:
        turn = self._turn
        self._leave_all()
        turn.sampling.end(self._weight)
        before = turn.clock()
        try:
            wrote: bool = self._journal.commit()
        finally:
            turn.written()
        if wrote:
            turn.measures.commit.observe(turn.clock() - before, self._weight)
        if self.verbs:
            turn.special.append(self)  # type: ignore[arg-type]  # of which only `end_turn` and `fail_turn` are called
        return wrote

    # -- as a client

    def end_turn(self, sync: bool) -> None:
        if sync:
            self._turn.sync_group.join(self)
        else:
            self.synced(None)

    def fail_turn(self, error: StorageError) -> None:
        """What has failed is not timed."""

    def synced(self, error: StorageError | None) -> None:
        """What could not be synced is timed as well."""
        seconds = self._turn.clock() - self.began
        for (dialect, verb), count in self.verbs.items():
            shown = show(verb).lower() or OTHER
            self._turn.measures.request(dialect, shown, seconds, count * self._weight)

    # -- its requests

    def watch(self, client: Any, watched: "type[WatchedConnection]") -> None:
        """Let the client serve what it has sent by the general way, in which each request is seen."""
        if client.__class__ is Connection:
            self._kept[client] = client.kept_line
            client.kept_line = _no_line
            client.__class__ = watched

    def _leave_all(self) -> None:
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
