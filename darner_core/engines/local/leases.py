"""Leases: how long an item may stay open, whoever holds it. Every deadline of an open read is kept here.

A read has one of two deadlines, or none:

* Its own. The read then has a lease, in one of two forms. Either its client knows the lease's id: any connection may
  confirm or abort by that id, also after the one that opened the item has ended. Or a session holds the read, in the
  form of a `Leased`, and the lease ends with what the session does to that. One timer waits for the earliest deadline.
  Ids are unknown after a restart, when all open items wait again, and they are not used again, because a client may
  still hold some.
* Its queue's, open_transaction_timeout_s. Such a read keeps no time, so opening and closing cost nothing for it.
  A look every expiration_timer_s sees what is open. The time of a read begins with the first look that finds it, and
  the read is given back up to two looks late. A large item that is being sent is not given back while the client takes
  a chunk of it in that time; else the client is cut off in the middle of it. Once sent, its time begins anew.

When its time is over, an item goes to the next client; where failures count, this is one. A session that holds the
read is not asked and not told: to close or abort what has been given back does nothing to the item, which may be with
another client by then. The reply is as always, and each look tells in the log how many closes came too late.

Which client holds a read without a deadline of its own is known to its session alone. Times are of the monotonic clock,
which nobody can set. No call here switches greenlets. What is given back belongs to the turn in which that is done.
"""

import logging
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import inf
from typing import TypeAlias

from darner_core import NAME
from darner_core.engines.contract import Read
from darner_core.engines.jobs import Failure, Jobs
from darner_core.engines.large_items import Download
from darner_core.engines.local.aside import Aside
from darner_core.engines.local.asides import Asides
from darner_core.engines.local.cursor import Cursor
from darner_core.engines.local.deadlines import Deadlines
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.lease_counts import LeaseCounts
from darner_core.engines.local.leased import Lease, Leased
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.reads import OpenRead
from darner_core.engines.local.registry import Registry
from darner_core.errors import ServerError, StorageError
from darner_core.repeated import BY_TEXT
from darner_core.showing import show
from darner_core.waiters import Timer

log = logging.getLogger(NAME)

# Ids begin at a random number of this many bits: whatever the clock says, and whichever directory was restored, a
# server does not give out ids of its predecessor. (If each gives out a thousand million ids, about one start in two
# million does.) Ids fit 53 bits, which is what a double holds exactly.
FIRST_ID_BITS = 52

# How many leases are decided in one turn: 3 ms.
DECIDED_AT_ONCE = 1000

# As how many a lease counts that ends where failures count: each of these is written, which takes 0.15 ms.
FAILURE_WEIGHT = 10

# How many entries of leases that are gone leave the heap with each further one that goes.
DROPPED_AT_ONCE = 4

# The timer need not be more exact, and looks again after a day: a deadline may be thousands of years away.
SHORTEST_S = 0.001
LONGEST_S = 86_400.0

# What one turn looks at: 2000 queues without the option are 0.1 ms, 2000 open reads 1 ms.
LOOKS_A_TURN = 2000

# As how many looks a read counts that goes back where failures count.
LOOKS_A_FAILURE = 20

NOT_BEING_SENT = -1

Lender: TypeAlias = MessageQueue | Cursor | Aside


class Leases:
    """`len` is the number of leases; reads with their queue's deadline alone are not among them."""

    at_once = DECIDED_AT_ONCE
    aborted_at_once = DECIDED_AT_ONCE // FAILURE_WEIGHT

    def __init__(
        self,
        registry: Registry,
        journal: Journal,
        run_after: Callable[[float, Callable[[], None]], Timer],
        clock: Callable[[], float] = time.monotonic,
        jobs: Jobs | None = None,
        max_leases: int = sys.maxsize,
    ) -> None:
        """`run_after(seconds, call)` calls once, in the loop. `jobs`: what failures are told to."""
        self._registry = registry
        self._journal = journal
        self._run_after = run_after
        self._clock = clock
        self._jobs = jobs
        self._max_leases = max_leases
        self._next_id = 1 + secrets.randbits(FIRST_ID_BITS)
        self._leases: dict[int, Lease] = {}
        self._by_read: dict[Read, Lease] = {}
        self._counts = LeaseCounts()
        self._given_back = False  # items with a lease went back because of their queue's deadline
        # By deadlines and ids. What is decided stays there until its entry comes first. What is due earlier than before
        # gets another entry; what is due later goes to its new place when its entry comes first.
        self._due = Deadlines(self._valid)
        self._timer: Timer | None = None
        self._timer_due = 0.0
        self.sending: dict[Read, Download] = {}  # the large items that are on their way to clients
        self._seen: dict[Read, tuple[int, float]] = {}  # by the last look: how far it was sent, and since when

    def __len__(self) -> int:
        return len(self._leases)

    # -- leases

    def opened_by(self, owner: object, queue: bytes) -> int:
        """How many leases on items of `queue` the owner has."""
        return self._counts.of_owner(owner, queue)

    def next_ids(self, count: int) -> range:
        """`count` new ids, for `hold`."""
        self._next_id += count
        return range(self._next_id - count, self._next_id)

    def hold(
        self, lease_id: int, read: Read, owner: object, lasts_ms: int, client: bytes = b"", most_ms: int = 0
    ) -> None:
        """`read`, which is open, has been handed to a client that knows it by `lease_id`. `most_ms`: the longest that
        `touch_known` may keep it; 0: for ever."""
        since = self._clock()
        latest = since + most_ms / 1000 if most_ms else inf
        due = min(since + lasts_ms / 1000, latest)
        lease = Lease(self, lease_id, read, owner, due, client, lasts_ms, latest)
        self.keep(lease)
        read.count()
        self._journal.undo.append((self._let_go, lease))

    def room(self, queue: bytes) -> int:
        """How many leases more there may be on items of `queue`."""
        found = self._registry.queues.get(queue)
        room = self._max_leases - len(self._leases)
        most = found.options.max_leases if found is not None else 0
        if not most or found is None:
            return max(0, room)
        return max(0, min(room, most - self._counts.at(found)))

    def keep(self, lease: Lease) -> None:
        if lease.id in self._leases:
            return
        self._leases[lease.id] = self._by_read[lease.read] = lease
        self._enter(lease)
        self._counts.add(lease)

    def _enter(self, lease: Lease) -> None:
        """It has a deadline, or an earlier one than before."""
        lease.entered = lease.due
        self._due.add(lease.due, lease.id, len(self._leases))
        if self._timer is None or lease.due < self._timer_due:
            self._set_timer()

    def _valid(self, entry: tuple[float, int]) -> float | None:
        lease = self._leases.get(entry[1])
        if lease is None or lease.entered != entry[0]:
            return None
        lease.entered = lease.due
        return lease.due

    def forget(self, lease: Lease) -> None:
        """There is no such lease any more; nothing else changes."""
        if self._leases.pop(lease.id, None) is None:
            return
        self._by_read.pop(lease.read, None)
        for _ in range(DROPPED_AT_ONCE):  # so those who close in order leave nothing behind
            first = self._due.first()
            if first is None or first[1] in self._leases:
                break
            self._due.pop()
        self._counts.remove(lease)

    def _let_go(self, lease: Lease) -> None:
        if lease.id in self._leases:
            self.forget(lease)
            lease.read.uncount()
            lease.read.queue.give_back(lease.read, wake=False)  # it may have been opened in an earlier turn

    # -- those of sessions

    def bind(self, read: Read, lasts_ms: int, most_ms: int = 0, client: bytes = b"", counted: bool = False) -> Leased:
        """What a session is to hold in the place of `read`, which is open and then goes back after `lasts_ms`.
        `most_ms`: the longest that `touch` may keep it; 0: for ever. `counted`: that is a failure in any queue."""
        since = self._clock()
        lasts_s = (min(lasts_ms, most_ms) if most_ms else lasts_ms) / 1000
        self._next_id += 1
        lease = Lease(self, self._next_id - 1, read, None, since + lasts_s, client)
        lease.counted = counted
        self.keep(lease)
        return Leased(self, lease, since, lasts_ms, most_ms)

    def touch(self, read: Read | Leased, lasts_ms: int = 0) -> bool:
        """From now on the deadline of what a session holds is in `lasts_ms`; 0: in as long a time as it first had.
        False: it is open no more. What has no deadline gets none."""
        if not isinstance(read, Leased):
            return read.queue.holds(read)
        lease = read.lease
        if lease.id not in self._leases or not read.holds(read):
            return False
        due = self._clock() + (lasts_ms or read.lasts_ms) / 1000
        self._move(lease, min(due, read.since + read.most_ms / 1000) if read.most_ms else due)
        return True

    def _move(self, lease: Lease, due: float) -> None:
        lease.due = due
        if due < lease.entered:
            self._enter(lease)

    def end(self, read: Read | Leased) -> Read:
        """The read that the session holds in this form. If it has a lease, that ends in this turn."""
        if not isinstance(read, Leased):
            return read
        lease = read.lease
        if lease.id in self._leases:
            self.forget(lease)
            undo = (self._unabort, lease, lease.read.returned) if lease.held is not None else (self._unend, lease)
            self._journal.undo.append(undo)
        return read.read

    def _unend(self, lease: Lease) -> None:
        """Whoever held the read may be gone, so that nobody has it open again. A session that takes it back later in
        this undo keeps the lease itself (`Leased.take_back`)."""
        if lease.read.queue.holds(lease.read):
            self.keep(lease)

    # -- those that nobody's session holds: the read of an item tells which

    def hold_open(
        self, read: Read, lasts_ms: int, most_ms: int = 0, client: bytes = b"", counted: bool = False
    ) -> None:
        """As `bind`, for what is open and is held by whoever finds it there: see `held`."""
        held = self.bind(read, lasts_ms, most_ms, client, counted)
        held.lease.held = held
        read.count()
        self._journal.undo.append((self._let_go, held.lease))

    def held(self, read: Read) -> Leased | None:
        """What `hold_open` has made of this read; None: it has not, or that has ended."""
        lease = self._by_read.get(read)
        return lease.held if lease is not None else None

    def left_ms(self, read: Read) -> int:
        """How long until the lease on this read ends; -1: it has none."""
        lease = self._by_read.get(read)
        return max(0, round((lease.due - self._clock()) * 1000)) if lease is not None else -1

    def end_of(self, read: Read) -> None:
        """The lease on this read, if it has one, ends in this turn."""
        lease = self._by_read.get(read)
        if lease is not None:
            self.forget(lease)
            self._journal.undo.append((self.keep, lease))

    # -- those that are known by their ids

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
            self.forget(lease)
            confirmed += is_open
        return confirmed

    def abort(self, queue: bytes, ids: Iterable[int]) -> int:
        """Let the items of these leases wait again, in their order; how many items that were."""
        known = self._known(queue, ids)
        aborted = sum(lease.read.queue.holds(lease.read) for lease in known)
        self._give_back(known, Failure.ABORTED)
        return aborted

    def hand_back(self, queue: bytes, ids: Iterable[int], give_back: Callable[[Read, bytes], object]) -> int:
        """Let `give_back(read, client)` take what is open of these, in the order of the items; how many items that
        were. Raises StorageError or ServerError, with nothing changed; if that is met behind the first, it is the end,
        and those before it are counted."""
        handed, undo = 0, self._journal.undo
        for lease in sorted(self._known(queue, ids), key=lambda lease: lease.read.id):
            is_open = lease.read.queue.holds(lease.read)
            undo.append((self._unabort, lease, lease.read.returned))
            step = len(undo) - 1
            try:
                give_back(lease.read, lease.client)
            except (ServerError, StorageError):
                undo[step] = (self.keep, lease)  # which it is: the read is what it was
                if not handed:
                    raise
                break
            self.forget(lease)
            handed += is_open
        return handed

    def touch_known(self, queue: bytes, ids: Iterable[int], lasts_ms: int = 0) -> int:
        """From now on the deadline of these leases is in `lasts_ms`; 0: in as long a time as it first was. How many of
        them are open."""
        now, touched = self._clock(), 0
        for lease in self._known(queue, ids):
            if lease.read.queue.holds(lease.read):
                self._move(lease, min(now + (lasts_ms or lease.lasts_ms) / 1000, lease.latest))
                touched += 1
        return touched

    def require_decided(self, queue: bytes, ids: Iterable[int]) -> None:
        """Raises StorageError if one of these is open, although an earlier turn decided on it: that turn was undone."""
        if self._known(queue, ids):
            raise StorageError("only some of the items are decided on: a part could not be written")

    def _known(self, queue: bytes, ids: Iterable[int]) -> list[Lease]:
        found = (self._leases.get(lease_id) for lease_id in dict.fromkeys(ids))
        return [lease for lease in found if lease is not None and lease.read.queue.name == queue]

    def _give_back(self, leases: Iterable[Lease], why: Failure) -> None:
        for lease in sorted(leases, key=lambda lease: lease.read.id):
            self.forget(lease)
            self._journal.undo.append((self._unabort, lease, lease.read.returned))
            self.fail(lease.read, why, lease.client, lease.counted)

    def _unabort(self, lease: Lease, too_late: bool = False) -> None:
        """`too_late`: its queue had taken the item back before."""
        self.keep(lease)
        if not too_late:
            lease.read.queue.take_back(lease.read)

    def fail(self, read: Read | Leased, why: Failure, client: bytes, counted: bool = False) -> None:
        """`read`, perhaps in the form that `bind` has given it, goes back. Where failures count, or this one is
        `counted`, it is one, unless that cannot be written."""
        if isinstance(read, Leased):
            counted = counted or read.lease.counted
            read = self.end(read)
        if (counted or read.queue.counts_failures) and self._jobs is not None:
            try:
                self._jobs.fail(read, why, client, counted=counted)
                return
            except (ServerError, StorageError) as error:
                name = show(read.queue.name)
                log.error("queue %s: a failure (%s) could not be counted: %s", name, why.value, error, extra=BY_TEXT)
        read.queue.give_back(read)

    # -- their timer

    def _set_timer(self) -> None:
        first = self._due.first()
        if first is None:
            return
        due = first[0]
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.close()
        self._timer_due = due
        after_s = min(LONGEST_S, max(SHORTEST_S, due - self._clock()))
        self._timer = self._run_after(after_s, self._on_due)

    def _on_due(self) -> None:
        """Called in the hub."""
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        now = self._clock()
        overdue: dict[int, Lease] = {}
        weight = 0
        for _ in range(LOOKS_A_TURN):
            first = self._due.first()
            if first is None or first[0] > now or weight >= DECIDED_AT_ONCE:
                break
            entry = self._due.pop()
            due, lease = self._valid(entry), self._leases.get(entry[1])
            if due is None or lease is None:
                continue
            if due <= now:
                overdue[lease.id] = lease
                weight += FAILURE_WEIGHT if lease.read.queue.counts_failures else 1
            else:  # it was touched
                self._due.add(due, lease.id, len(self._leases))
        for lease in sorted(overdue.values(), key=lambda lease: lease.read.id):
            try:
                self._give_back([lease], Failure.TIMED_OUT)
            except Exception:  # the loop would print it, and the others would stay open
                log.exception("an item whose time is over could not be given back")
        self._set_timer()

    # -- the deadlines of queues

    def look(self) -> Iterator[None]:
        """Give back what has been open for longer than its queue allows, in slices of a turn each. Leases on what is
        open no more because of that, or because its queue or cursor has been deleted, end here."""
        yield from self._forget_ended()
        now = self._clock()
        before, self._seen = self._seen, {}
        looked_at = 0
        for queue in _all_of(list(self._registry.queues.values()), self._registry.asides):
            looked_at += 1
            if queue.late_closes:
                _tell_late_closes(queue)
            timeout_s = queue.options.open_transaction_timeout_s
            if timeout_s and queue.outstanding:
                reads = _open_in(queue)
                looks = LOOKS_A_FAILURE if queue.counts_failures else 1
                step = max(1, LOOKS_A_TURN // looks)
                for start in range(0, len(reads), step):
                    some = reads[start : start + step]
                    overdue = [read for read in some if self._is_overdue(read, now, timeout_s, before)]
                    self._give_back_overdue(queue, overdue)
                    looked_at += len(some) + (looks - 1) * len(overdue)
                    if looked_at >= LOOKS_A_TURN:
                        looked_at = 0
                        yield
            if looked_at >= LOOKS_A_TURN:
                looked_at = 0
                yield

    def _forget_ended(self) -> Iterator[None]:
        """The deadlines of these may be years away, and until then they would count for the limits."""
        ended, self._given_back = self._given_back, False
        places = self._counts.places()
        for start in range(0, len(places), LOOKS_A_TURN):
            if ended or any(place.deleted for place in places[start : start + LOOKS_A_TURN]):
                break
            yield
        else:
            return
        leases = list(self._leases.values())
        for start in range(0, len(leases), LOOKS_A_TURN):
            for lease in leases[start : start + LOOKS_A_TURN]:
                if lease.id in self._leases and not lease.read.queue.holds(lease.read):
                    self.forget(lease)
                    self._journal.undo.append((self.keep, lease))  # the delete may be one of this turn
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

    def _give_back_overdue(self, queue: Lender, overdue: Iterable[OpenRead]) -> None:
        still = [read for read in overdue if queue.holds(read)]  # the others were closed in a turn since the look
        if still:
            name, timeout_s = show(queue.name), queue.options.open_transaction_timeout_s
            log.info("queue %s: %d items were open for %d s and are given back", name, len(still), timeout_s)
            self._given_back = True
        for read in still:
            self.end_of(read)
            self.fail(read, Failure.TIMED_OUT, b"")


def _tell_late_closes(queue: Lender) -> None:
    name, count, queue.late_closes = show(queue.name), queue.late_closes, 0
    what = "1 item was closed too late: it" if count == 1 else f"{count} items were closed too late: they"
    log.info("queue %s: %s had been given back", name, what)


def _all_of(queues: list[MessageQueue], asides: Asides) -> Iterator[Lender]:
    for queue in queues:
        yield queue
        if queue.cursors is not None:
            yield from list(queue.cursors.values())
        if (aside := asides.by_queue.get(queue)) is not None:
            yield aside


def _open_in(queue: Lender) -> list[OpenRead]:
    if isinstance(queue, Aside):
        return [held.read for held in queue.outstanding.values()]
    return [read for read in queue.outstanding.values() if not read.returned]
