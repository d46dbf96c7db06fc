"""Leases: how long an item may stay open, whoever holds it. Every deadline of an open read is kept here.

A read has one of two deadlines, or none:

* Its own. The read then has a lease, and its client knows the lease's id. Any connection may confirm or abort by that
  id, also after the one that opened the item has ended. One timer waits for the earliest deadline. Ids are unknown
  after a restart, when all open items wait again, and they are not used again, because a client may still hold some.
* Its queue's, open_transaction_timeout_s. Such a read keeps no time, so opening and closing cost nothing for it.
  A look every expiration_timer_s sees what is open. The time of a read begins with the first look that finds it, and
  the read is given back up to two looks late. A large item that is being sent is not given back while the client takes
  a chunk of it in that time; else the client is cut off in the middle of it. Once sent, its time begins anew.

When its time is over, an item goes to the next client, as if it had been aborted. A session that holds the read is not
asked and not told: to close or abort what has been given back does nothing to the item, which may be with another
client by then. The reply is as always, and each look tells in the log how many closes came too late.

Which client holds a read without a deadline of its own is known to its session alone. Times are of the monotonic clock,
which nobody can set. No call here switches greenlets. What is given back belongs to the turn in which that is done.
"""

import heapq
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

from darner_core import NAME
from darner_core.engines.contract import Read
from darner_core.engines.jobs import Failure
from darner_core.engines.large_items import Download
from darner_core.engines.local.aside import Aside
from darner_core.engines.local.cursor import Cursor
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.reads import OpenRead
from darner_core.engines.local.registry import Registry
from darner_core.errors import StorageError
from darner_core.showing import show
from darner_core.waiters import Timer

log = logging.getLogger(NAME)

# Ids begin at a random number of this many bits: whatever the clock says, and whichever directory was restored, a
# server does not give out ids of its predecessor. (If each gives out a thousand million ids, about one start in two
# million does.) Ids fit 53 bits, which is what a double holds exactly.
FIRST_ID_BITS = 52

# How many leases are decided in one turn: 3 ms.
DECIDED_AT_ONCE = 1000

# The timer need not be more exact.
SHORTEST_S = 0.001

# What one turn looks at: 2000 queues without the option are 0.1 ms, 2000 open reads 1 ms.
LOOKS_A_TURN = 2000

NOT_BEING_SENT = -1

Place: TypeAlias = MessageQueue | Cursor | Aside


class Lease:
    """A read with a deadline of its own. As a Holder it is told when a close has to be undone."""

    __slots__ = ("id", "read", "owner", "due", "_leases")

    def __init__(self, leases: "Leases", lease_id: int, read: Read, owner: object, due: float) -> None:
        self.id = lease_id
        self.read = read
        self.owner = owner
        self.due = due  # when the item goes back, by the clock
        self._leases = leases

    def unclose(self, read: Read) -> None:
        self._leases.keep(self)


class Leases:
    """`len` is the number of leases; reads with their queue's deadline alone are not among them."""

    at_once = DECIDED_AT_ONCE

    def __init__(
        self,
        registry: Registry,
        journal: Journal,
        run_after: Callable[[float, Callable[[], None]], Timer],
        clock: Callable[[], float] = time.monotonic,
        fail: Callable[[Read, Failure], None] | None = None,
    ) -> None:
        """`run_after(seconds, call)` calls once, in the loop. `fail` gives back a read of a queue that counts
        failures."""
        self._count_failure = fail
        self._registry = registry
        self._journal = journal
        self._run_after = run_after
        self._clock = clock
        self._next_id = 1 + secrets.randbits(FIRST_ID_BITS)
        self._leases: dict[int, Lease] = {}
        self._counts: dict[tuple[object, bytes], int] = {}  # by owner and queue
        # A heap of deadlines and ids. A lease that is decided stays in it until its time comes; one that a failed turn
        # has left undecided is in it twice.
        self._due: list[tuple[float, int]] = []
        self._timer: Timer | None = None
        self._timer_due = 0.0
        self.sending: dict[Read, Download] = {}  # the large items that are on their way to clients
        self._seen: dict[Read, tuple[int, float]] = {}  # by the last look: how far it was sent, and since when

    def __len__(self) -> int:
        return len(self._leases)

    # -- leases

    def opened_by(self, owner: object, queue: bytes) -> int:
        """How many leases on items of `queue` the owner has."""
        return self._counts.get((owner, queue), 0)

    def next_ids(self, count: int) -> range:
        """`count` new ids, for `hold`."""
        self._next_id += count
        return range(self._next_id - count, self._next_id)

    def hold(self, lease_id: int, read: Read, owner: object, lasts_ms: int) -> None:
        """`read`, which is open, has been handed to a client that knows it by `lease_id`."""
        lease = Lease(self, lease_id, read, owner, self._clock() + lasts_ms / 1000)
        self.keep(lease)
        read.count()
        self._journal.undo.append((self._let_go, lease))

    def keep(self, lease: Lease) -> None:
        self._leases[lease.id] = lease
        if len(self._due) > 2 * len(self._leases) + 1000:  # most of them have been decided
            self._due = [(one.due, one.id) for one in self._leases.values()]
            heapq.heapify(self._due)
        else:
            heapq.heappush(self._due, (lease.due, lease.id))
        self._set_timer()
        key = lease.owner, lease.read.queue.name
        self._counts[key] = self._counts.get(key, 0) + 1

    def _forget(self, lease: Lease) -> None:
        del self._leases[lease.id]
        key = lease.owner, lease.read.queue.name
        self._counts[key] -= 1
        if not self._counts[key]:
            del self._counts[key]

    def _let_go(self, lease: Lease) -> None:
        if lease.id in self._leases:
            self._forget(lease)
            lease.read.uncount()
            lease.read.queue.give_back(lease.read, wake=False)  # it may have been opened in an earlier turn

    def confirm(self, queue: bytes, ids: Iterable[int]) -> int:
        """Remove the items of these leases; how many items that were. Raises StorageError, with nothing changed."""
        confirmed = 0
        known = self._known(queue, ids)
        for lease in known:
            if lease.read.blob:
                _ = lease.read.queue.large_items  # this may raise: before any item is closed
        for lease in known:
            is_open = lease.read.queue.holds(lease.read)
            if is_open:
                lease.read.queue.close(lease.read, lease)
            else:  # its queue may have been deleted in this turn, and be there again if that is undone
                self._journal.undo.append((lease.unclose, lease.read))
            self._forget(lease)
            confirmed += is_open
        return confirmed

    def abort(self, queue: bytes, ids: Iterable[int]) -> int:
        """Let the items of these leases wait again, in their order; how many items that were."""
        known = self._known(queue, ids)
        aborted = sum(lease.read.queue.holds(lease.read) for lease in known)
        self._give_back(known, Failure.ABORTED)
        return aborted

    def require_decided(self, queue: bytes, ids: Iterable[int]) -> None:
        """Raises StorageError if one of these is open, although an earlier turn decided on it: that turn was undone."""
        if self._known(queue, ids):
            raise StorageError("only some of the items are decided on: a part could not be written")

    def _known(self, queue: bytes, ids: Iterable[int]) -> list[Lease]:
        found = (self._leases.get(lease_id) for lease_id in dict.fromkeys(ids))
        return [lease for lease in found if lease is not None and lease.read.queue.name == queue]

    def _give_back(self, leases: Iterable[Lease], why: Failure) -> None:
        for lease in sorted(leases, key=lambda lease: lease.read.id):
            self._forget(lease)
            self._journal.undo.append((self._unabort, lease))
            self._fail(lease.read, why)

    def _fail(self, read: Read, why: Failure) -> None:
        if self._count_failure is not None and read.queue.counts_failures:
            self._count_failure(read, why)
        else:
            read.queue.give_back(read)

    def _unabort(self, lease: Lease) -> None:
        self.keep(lease)
        lease.read.queue.take_back(lease.read)

    # -- their timer

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
        overdue: dict[int, Lease] = {}
        while self._due and self._due[0][0] <= now and len(overdue) < DECIDED_AT_ONCE:
            lease_id = heapq.heappop(self._due)[1]
            if lease_id in self._leases:
                overdue[lease_id] = self._leases[lease_id]
        for lease in sorted(overdue.values(), key=lambda lease: lease.read.id):
            try:
                self._give_back([lease], Failure.TIMED_OUT)
            except Exception:  # the loop would print it, and the others would stay open
                log.exception("an item whose time is over could not be given back")
        self._set_timer()

    # -- the deadlines of queues

    def look(self) -> Iterator[None]:
        """Give back what has been open for longer than its queue allows, in slices of a turn each."""
        now = self._clock()
        before, self._seen = self._seen, {}
        looked_at = 0
        for queue in self._places(list(self._registry.queues.values())):
            looked_at += 1
            if queue.late_closes:
                _tell_late_closes(queue)
            timeout_s = queue.options.open_transaction_timeout_s
            if timeout_s and queue.outstanding:
                reads = _open_reads(queue)
                for start in range(0, len(reads), LOOKS_A_TURN):
                    some = reads[start : start + LOOKS_A_TURN]
                    self._give_back_overdue(
                        queue, [read for read in some if self._is_overdue(read, now, timeout_s, before)]
                    )
                    looked_at += len(some)
                    if looked_at >= LOOKS_A_TURN:
                        looked_at = 0
                        yield
            if looked_at >= LOOKS_A_TURN:
                looked_at = 0
                yield

    def _is_overdue(self, read: Read, now: float, timeout_s: int, before: Mapping[Read, tuple[int, float]]) -> bool:
        sending = self.sending.get(read)
        progress = NOT_BEING_SENT if sending is None else sending.missing_bytes
        known, since = before.get(read, (progress, now))
        if known != progress:
            since = now
        if now - since >= timeout_s:
            return True
        self._seen[read] = progress, since
        return False

    def _give_back_overdue(self, queue: Place, overdue: Iterable[OpenRead]) -> None:
        still = [read for read in overdue if queue.holds(read)]  # the others were closed in a turn since the look
        if still:
            name, timeout_s = show(queue.name), queue.options.open_transaction_timeout_s
            log.info("queue %s: %d items were open for %d s and are given back", name, len(still), timeout_s)
        for read in still:
            self._fail(read, Failure.TIMED_OUT)

    def _places(self, queues: list[MessageQueue]) -> Iterator[Place]:
        """Whatever has open items."""
        for queue in queues:
            yield queue
            if queue.cursors is not None:
                yield from list(queue.cursors.values())
            aside = self._registry.asides.by_queue.get(queue) if queue.counts_failures else None
            if aside is not None:
                yield aside


def _tell_late_closes(queue: Place) -> None:
    name, count, queue.late_closes = show(queue.name), queue.late_closes, 0
    what = "1 item was closed too late: it" if count == 1 else f"{count} items were closed too late: they"
    log.info("queue %s: %s had been given back", name, what)


def _open_reads(place: Place) -> list[OpenRead]:
    if isinstance(place, Aside):
        return [held.read for held in place.outstanding.values()]
    return [read for read in place.outstanding.values() if not read.returned]
