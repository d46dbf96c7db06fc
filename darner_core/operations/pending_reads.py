"""The items that thrift clients have open, each known by an id of its own, whichever connection opened it.

Any connection may confirm or abort one; none has to live on for it. One that nobody has decided on in the time that its
reader set goes back to its queue: there is one timer, for the earliest. All is in memory: after a restart the items
wait again, as all open ones do, and the ids are no longer known. They are not used again either, because a client
may still hold some.

No call here switches greenlets.
"""

import heapq
import logging
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from darner_core import NAME
from darner_core.engines.contract import Read, Turn
from darner_core.errors import StorageError

log = logging.getLogger(NAME)

# Ids begin at a random number of this many bits: whatever the clock says, and whichever directory was restored, a
# server does not give out ids of its predecessor (if both give out a thousand million, one in two million starts does).
# They fit 53 bits, which is what a double holds exactly.
FIRST_ID_BITS = 52

# Items that are decided on in one turn: 3 ms.
DECIDED_AT_ONCE = 1000

# The timer is not asked to be more exact.
SHORTEST_S = 0.001


class Timer(Protocol):
    def close(self) -> None: ...


class Pending:
    """One open item. As a Holder it is told when a close has to be undone."""

    __slots__ = ("id", "read", "owner", "due", "_reads")

    def __init__(self, reads: "PendingReads", item_id: int, read: Read, owner: object, due: float) -> None:
        self.id = item_id
        self.read = read
        self.owner = owner
        self.due = due  # when it goes back, by the clock
        self._reads = reads

    def unclose(self, read: Read) -> None:
        self._reads.keep(self)


class PendingReads:
    """All of them. `len` is their number."""

    at_once = DECIDED_AT_ONCE

    def __init__(
        self,
        journal: Turn,
        run_after: Callable[[float, Callable[[], None]], Timer],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`run_after(seconds, call)` calls once, in the loop."""
        self._journal = journal
        self._run_after = run_after
        self._clock = clock
        self._next_id = 1 + secrets.randbits(FIRST_ID_BITS)
        self._pending: dict[int, Pending] = {}
        self._counts: dict[tuple[object, bytes], int] = {}  # by owner and queue
        # A heap of when and which. Those that are decided stay until then; what a failed turn has left undecided is in
        # it twice.
        self._due: list[tuple[float, int]] = []
        self._timer: Timer | None = None
        self._timer_due = 0.0

    def __len__(self) -> int:
        return len(self._pending)

    def opened_by(self, owner: object, queue: bytes) -> int:
        """How many items of `queue` are open that `owner` opened."""
        return self._counts.get((owner, queue), 0)

    def next_ids(self, count: int) -> range:
        """`count` new ids, for `hold`."""
        self._next_id += count
        return range(self._next_id - count, self._next_id)

    def hold(self, item_id: int, read: Read, owner: object, auto_abort_ms: int) -> None:
        """`read`, which is open, has been handed to a client that knows it by `item_id`."""
        pending = Pending(self, item_id, read, owner, self._clock() + auto_abort_ms / 1000)
        self.keep(pending)
        read.count()
        self._journal.undo.append((self._let_go, pending))

    def keep(self, pending: Pending) -> None:
        self._pending[pending.id] = pending
        if len(self._due) > 2 * len(self._pending) + 1000:  # most of them have been decided
            self._due = [(one.due, one.id) for one in self._pending.values()]
            heapq.heapify(self._due)
        else:
            heapq.heappush(self._due, (pending.due, pending.id))
        self._set_timer()
        key = pending.owner, pending.read.queue.name
        self._counts[key] = self._counts.get(key, 0) + 1

    def _forget(self, pending: Pending) -> None:
        del self._pending[pending.id]
        key = pending.owner, pending.read.queue.name
        self._counts[key] -= 1
        if not self._counts[key]:
            del self._counts[key]

    def _let_go(self, pending: Pending) -> None:
        if pending.id in self._pending:
            self._forget(pending)
            pending.read.uncount()
            pending.read.queue.give_back(pending.read, wake=False)  # it may have been opened in an earlier turn

    def confirm(self, queue: bytes, ids: Iterable[int]) -> int:
        """Their items are gone; how many these were. Raises StorageError, with nothing changed."""
        confirmed = 0
        known = self._known(queue, ids)
        for pending in known:
            if pending.read.blob:
                _ = pending.read.queue.large_items  # what may raise, for all of them before any is closed
        for pending in known:
            is_open = pending.read.queue.holds(pending.read)
            if is_open:
                pending.read.queue.close(pending.read, pending)
            else:  # its queue may have been deleted in this turn, and be there again if that is undone
                self._journal.undo.append((pending.unclose, pending.read))
            self._forget(pending)
            confirmed += is_open
        return confirmed

    def abort(self, queue: bytes, ids: Iterable[int]) -> int:
        """Their items wait again, in the order they had; how many these were."""
        known = self._known(queue, ids)
        aborted = sum(pending.read.queue.holds(pending.read) for pending in known)
        self._give_back(known)
        return aborted

    def require_decided(self, queue: bytes, ids: Iterable[int]) -> None:
        """Raises StorageError if one of these, which an earlier turn decided on, is open: that turn was undone."""
        if self._known(queue, ids):
            raise StorageError("only some of the items are decided on: a part could not be written")

    def _known(self, queue: bytes, ids: Iterable[int]) -> list[Pending]:
        found = (self._pending.get(item_id) for item_id in dict.fromkeys(ids))
        return [pending for pending in found if pending is not None and pending.read.queue.name == queue]

    def _give_back(self, known: list[Pending]) -> None:
        for pending in sorted(known, key=lambda pending: pending.read.id):
            self._forget(pending)
            self._journal.undo.append((self._unabort, pending))
            pending.read.queue.give_back(pending.read)

    def _unabort(self, pending: Pending) -> None:
        self.keep(pending)
        pending.read.queue.take_back(pending.read)

    # -- those that nobody decides on

    def _set_timer(self) -> None:
        if not self._due:
            return
        due = self._due[0][0]
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.close()
        self._timer_due = due
        self._timer = self._run_after(max(SHORTEST_S, due - self._clock()), self._on_due)

    def _on_due(self) -> None:
        """Called in the hub."""
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        now = self._clock()
        overdue: dict[int, Pending] = {}
        while self._due and self._due[0][0] <= now and len(overdue) < DECIDED_AT_ONCE:
            item_id = heapq.heappop(self._due)[1]
            if item_id in self._pending:
                overdue[item_id] = self._pending[item_id]
        for pending in sorted(overdue.values(), key=lambda pending: pending.read.id):
            try:
                self._give_back([pending])
            except Exception:  # the loop would print it, and the others would stay open
                log.exception("an item whose time is over could not be given back")
        self._set_timer()
