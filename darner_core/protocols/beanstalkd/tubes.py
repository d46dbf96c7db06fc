"""What a connection has beside its requests: the tube that it uses, those that it watches, and the jobs that it has
reserved; and which tubes exist because of that.

No call here switches greenlets.
"""

import heapq
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from darner_core.access.rights import ADMIN
from darner_core.engines.contract import Read, Turn
from darner_core.errors import ClientError
from darner_core.operations.session import Failures, SeveralReads, by_id
from darner_core.protocols.beanstalkd.replies import NoRoom, NotAllowed
from darner_core.protocols.contract import Request, Require, everything_allowed
from darner_core.protocols.guard import require_admin

DEFAULT: Final = b"default"

# A reservation that ends sooner than this is worth a warning.
SOON_S: Final = 1.0

# How many ends may stand beside those of the reservations that there are, of which each may have two.
SPARE_ENDS: Final = 64

# How many tubes one connection watches: a reserve asks each of them, 10 ms.
MAX_WATCHED: Final = 1000

# How many ends of reservations that are gone leave the heap with each further one that goes.
DROPPED_AT_ONCE: Final = 4

# Of so many reservations, the last ones, nobody has asked yet when they end.
MOST_FRESH: Final = 8


class Tube:
    """A tube that somebody uses or watches, or that was asked something."""

    __slots__ = ("name", "using", "watching", "waiting", "deletes", "pauses")

    def __init__(self, name: bytes) -> None:
        self.name = name  # as clients call it
        self.using = 0
        self.watching = 0
        self.waiting = 0
        self.deletes = 0
        self.pauses = 0

    @property
    def is_held(self) -> bool:
        return bool(self.using or self.watching)


class Tubes:
    """The tubes by the names of their queues, in the order in which they were first named."""

    def __init__(self) -> None:
        self._tubes: dict[bytes, Tube] = {}
        self.producers = 0  # connections that have put a job
        self.workers = 0  # connections that have reserved one
        self.connections = 0
        self.waiting = 0

    def of(self, queue: bytes, name: bytes) -> Tube:
        """Made if there is none."""
        tube = self._tubes.get(queue)
        if tube is None:
            tube = self._tubes[queue] = Tube(name)
        return tube

    def find(self, queue: bytes) -> Tube | None:
        return self._tubes.get(queue)

    def held(self) -> Iterator[bytes]:
        """The queues of the tubes that somebody uses or watches."""
        return (queue for queue, tube in self._tubes.items() if tube.is_held)

    def count_waiting(self, tubes: Iterable[Tube], more: int = 1) -> None:
        """So many clients more wait at these tubes."""
        self.waiting += more
        for tube in tubes:
            tube.waiting += more

    def drop(self, queue: bytes) -> None:
        """Forget what was counted of a tube, if nobody uses or watches it: its queue is gone."""
        tube = self._tubes.get(queue)
        if tube is not None and not tube.is_held:
            del self._tubes[queue]


class TubeSession(SeveralReads):
    """Holds any number of jobs, each known by its queue and its id there."""

    __slots__ = (
        "tubes",
        "used",
        "watched",
        "puts",
        "reserves",
        "_require",
        "_ends",
        "_fresh",
        "_left_ms",
        "_exists",
    )

    _reads: dict[tuple[bytes, int], Read]

    def __init__(
        self,
        journal: Turn,
        failures: Failures,
        require: Require,
        tubes: Tubes,
        left_ms: Callable[[bytes, int], int],
        exists: Callable[[bytes], bool],
    ) -> None:
        """`left_ms` tells how long an item may stay open; `exists`, whether there is such a queue."""
        super().__init__(journal, failures)
        self.tubes = tubes
        self._require = require
        self._left_ms = left_ms
        self._exists = exists
        # A heap of (when a reservation ends at the earliest, by the monotonic clock, its key). What was touched, or is
        # held no longer, is noticed when it comes first.
        self._ends: list[tuple[float, tuple[bytes, int]]] = []
        self._fresh: dict[tuple[bytes, int], None] = {}  # the keys of the last few, which are not in the heap yet
        self.puts = False
        self.reserves = False
        self.used = DEFAULT  # a queue's name
        self.watched: dict[bytes, None] = {DEFAULT: None}
        tubes.connections += 1
        default = tubes.of(DEFAULT, DEFAULT)
        default.using += 1
        default.watching += 1

    def require(self, right: str, queue: bytes) -> None:
        """Raises NotAllowed if the client does not have this right to the queue."""
        if self._require is everything_allowed:
            return
        try:
            self._require(right, queue)
        except ClientError as error:
            raise NotAllowed(str(error)) from None

    def require_admin(self, request: Request, queue: bytes) -> None:
        """Raises NotAllowed if the client may not administer this queue, or not from where it is."""
        self.require(ADMIN, queue)
        try:
            require_admin(request, self)
        except ClientError as error:
            raise NotAllowed(str(error)) from None

    # -- tubes

    def use(self, queue: bytes, name: bytes) -> None:
        before, self.used = self.used, queue
        self.tubes.of(queue, name).using += 1
        self._let_go_of(before, "using")

    def watch(self, queue: bytes, name: bytes) -> int:
        """How many tubes are watched now. Raises NoRoom."""
        if queue not in self.watched:
            if len(self.watched) >= MAX_WATCHED:
                raise NoRoom(f"a connection can watch {MAX_WATCHED} tubes")
            self.watched[queue] = None
            self.tubes.of(queue, name).watching += 1
        return len(self.watched)

    def ignore(self, queue: bytes) -> int:
        """How many tubes are watched now; 0: this is the only one, and stays."""
        if queue in self.watched:
            if len(self.watched) == 1:
                return 0
            del self.watched[queue]
            self._let_go_of(queue, "watching")
        return len(self.watched)

    def _let_go_of(self, queue: bytes, what: str) -> None:
        tube = self.tubes.find(queue)
        assert tube is not None
        setattr(tube, what, getattr(tube, what) - 1)
        if not tube.is_held and not self._exists(queue):
            self.tubes.drop(queue)

    def note_put(self) -> None:
        if not self.puts:
            self.puts = True
            self.tubes.producers += 1

    def note_reserve(self) -> None:
        if not self.reserves:
            self.reserves = True
            self.tubes.workers += 1

    # -- reserved jobs

    def find(self, queue: bytes, item_id: int = 0) -> Read | None:
        """The reservation of this item, if it has not ended."""
        read = self._reads.get((queue, item_id))
        if read is not None and not read.queue.holds(read):
            del self._reads[queue, item_id]  # its time was over
            return None
        return read

    def hold(self, read: Read) -> None:
        key = read.queue.name, read.id
        self._reads[key] = read
        read.count()
        self._journal.undo.append((self._let_go, read))
        self._note_end(key)

    def _note_end(self, key: tuple[bytes, int]) -> None:
        """This reservation ends some time. Most are deleted before anybody asks when."""
        fresh = self._fresh
        fresh[key] = None
        if len(fresh) > MOST_FRESH:
            oldest = next(iter(fresh))
            del fresh[oldest]
            self._enter_end(oldest)

    def _enter_end(self, key: tuple[bytes, int]) -> None:
        left_ms = self._left_ms(*key)
        if left_ms >= 0:
            if len(self._ends) > 2 * len(self._reads) + SPARE_ENDS:  # one job stays, and others come and go behind it
                latest = {one: ends for ends, one in sorted(self._ends) if one in self._reads}
                self._ends = [(ends, one) for one, ends in latest.items()]
                heapq.heapify(self._ends)
            heapq.heappush(self._ends, (time.monotonic() + left_ms / 1000, key))

    def _forget(self, read: Read) -> bool:
        key = read.queue.name, read.id
        if self._reads.get(key) is not read:
            return False
        del self._reads[key]
        if key in self._fresh:
            del self._fresh[key]
            return True
        for _ in range(DROPPED_AT_ONCE):  # so those who delete in order leave nothing behind
            if not self._ends or self._ends[0][1] in self._reads:
                break
            heapq.heappop(self._ends)
        return True

    def _hold_first(self, read: Read) -> None:
        key = read.queue.name, read.id
        self._reads[key] = read
        self._note_end(key)

    def _held(self) -> list[Read]:
        return sorted(self._reads.values(), key=by_id)

    def soonest_s(self) -> float | None:
        """How long until the first of the reservations ends; None: none does."""
        fresh, self._fresh = self._fresh, {}
        for key in fresh:
            self._enter_end(key)
        now = time.monotonic()
        while self._ends:
            ends, key = self._ends[0]
            left_ms = self._left_ms(*key) if self.find(*key) is not None else -1
            if left_ms < 0:
                heapq.heappop(self._ends)
            elif now + left_ms / 1000 > ends + 0.001:  # it was touched
                heapq.heapreplace(self._ends, (now + left_ms / 1000, key))
            else:
                return max(0.0, ends - now)
        return None

    # -- the end

    def end(self) -> None:
        if self.ended:
            return
        tubes = self.tubes
        tubes.connections -= 1
        tubes.producers -= self.puts
        tubes.workers -= self.reserves
        self._let_go_of(self.used, "using")
        for queue in self.watched:
            self._let_go_of(queue, "watching")
        self._ends, self._fresh = [], {}
        super().end()
