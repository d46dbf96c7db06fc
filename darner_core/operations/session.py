"""The open reads that one connection holds. They are given back when the session ends.

A read that has been open for too long is given back without asking its session (see `leases`). The session keeps it,
because its client believes that it is open: to close or abort it does nothing to the item any more.

Where failures count, a read that is aborted, or whose connection is lost, goes back by `Failures`.

No call here switches greenlets.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from operator import attrgetter
from typing import Any, Protocol

from darner_core.access.origins import INSIDE, Origin
from darner_core.engines.contract import Read, Turn
from darner_core.errors import ClientError, StorageError
from darner_core.operations.held import HeldById
from darner_core.showing import show

# How many reads are given back or closed in one turn: 2 ms.
READS_AT_ONCE = 1000

# The same for reads that go back as failures, of which each is written: 2 ms.
FAILURES_AT_ONCE = 100


class Failures(Protocol):
    """What takes reads back that count as failures."""

    def abort(self, read: Read, origin: Origin) -> None:
        """The client gives it back. Raises ServerError or StorageError, with nothing changed."""

    def lose(self, read: Read, origin: Origin) -> None:
        """The client has gone."""


class Replier(Protocol):
    """Whoever sends the replies to the session's client."""

    def be_special(self) -> None:
        """There is more to do at the end of this turn than to send them."""


class Session:
    """Holds one read at a time, of any queue. `needs_sync`: a reply has to wait for an fsync. `origin`: where the
    client comes from."""

    __slots__ = ("_journal", "_failures", "open_read", "needs_sync", "ended", "origin", "replier")

    several_reads = False

    def __init__(self, journal: Turn, failures: Failures | None = None) -> None:
        self._journal = journal
        self._failures = failures
        self.open_read: Read | None = None
        self.needs_sync = False
        self.ended = False
        self.origin: Origin = INSIDE
        self.replier: Replier | None = None

    def require_sync(self) -> None:
        """What this turn is going to reply has to wait for an fsync."""
        self.needs_sync = True
        if self.replier is not None:
            self.replier.be_special()

    @property
    def holds_nothing(self) -> bool:
        return self.open_read is None

    @property
    def open_count(self) -> int:
        """How many reads it holds."""
        return int(self.open_read is not None)

    def require_room(self, queue: bytes, max_open_reads: int) -> None:
        """Raises ClientError if no more reads of `queue` may be opened."""

    def require_none_open(self) -> None:
        """Raises ClientError while a read is open."""
        if self.open_read is not None:
            name = show(self.open_read.queue.name)
            raise ClientError(f"close current read first: an item of queue {name} is open on this connection")

    def hold(self, read: Read) -> None:
        self.open_read = read
        read.counted = True  # as `count` does, which would cost a call
        read.queue.transactions += 1
        self._journal.undo.append((self._let_go, read))

    def _let_go(self, read: Read) -> None:
        if self.open_read is read:
            self.open_read = None
            read.uncount()
            read.queue.give_back(read, wake=False)  # it may have been handed over in an earlier turn

    def find(self, queue: bytes, item_id: int = 0) -> Read | None:
        """The open read, whichever queue is named; with an id, only if that is its item's."""
        read = self.open_read
        return read if read is not None and item_id in (0, read.id) else None

    def close_read(self, queue: bytes = b"") -> None:
        """Confirm the open read, whichever queue is named: its item is removed. Nothing happens if none is open."""
        read = self.open_read
        if read is not None:
            read.queue.close(read, self)
            self.open_read = None

    def unclose(self, read: Read) -> None:
        """Undo `close_read`: the session holds the read again."""
        if self.ended:  # hung up in the same turn
            read.queue.give_back(read, wake=False)
        else:
            self.open_read = read

    def close_found(self, read: Read) -> None:
        """Confirm this read, which `find` has found. Raises StorageError, with nothing changed."""
        read.queue.close(read, self)
        self.open_read = None

    def abort_read(self, queue: bytes = b"") -> None:
        """Give the open read back, whichever queue is named. Nothing happens if none is open. Raises ServerError or
        StorageError, with nothing changed."""
        read = self.find(queue)
        if read is not None:
            self.hand_back(read, self._abort)

    def abort_found(self, read: Read) -> None:
        """As `abort_read`, for one that `find` has found."""
        self.hand_back(read, self._abort)

    def hand_back(self, read: Read, give_back: Callable[[Read], object]) -> None:
        """Hold this read no longer, which `find` has found: `give_back` takes it. Raises what that raises, and holds
        the read then."""
        undo = self._journal.undo
        step = len(undo)
        undo.append((self._unabort, read, read.returned))
        try:
            give_back(read)
        except BaseException:
            undo[step] = (_do_nothing,)
            raise
        self._forget(read)

    def _forget(self, read: Read) -> bool:
        self.open_read = None
        return True

    def _abort(self, read: Read) -> None:
        if read.queue.counts_failures and self._failures is not None:
            self._failures.abort(read, self.origin)
        else:
            read.queue.give_back(read)

    def _lose(self, read: Read) -> None:
        if read.queue.counts_failures and self._failures is not None:
            self._failures.lose(read, self.origin)
        else:
            read.queue.give_back(read)

    def _unabort(self, read: Read, too_late: bool) -> None:
        if not self.ended:
            self.open_read = read
            if not too_late:
                read.queue.take_back(read)

    def end(self) -> None:
        """The connection is gone: what it held is given back."""
        self.ended = True
        read, self.open_read = self.open_read, None
        if read is not None:
            self._lose(read)


class SeveralReads(Session, ABC):
    """Several reads can be open at a time. In which order, and how they are found, is its subclasses' matter."""

    __slots__ = ("_reads",)

    _reads: dict[Any, Any]

    several_reads = True

    def __init__(self, journal: Turn, failures: Failures | None = None) -> None:
        super().__init__(journal, failures)
        self._reads = {}

    @abstractmethod
    def _hold_first(self, read: Read) -> None:
        """Hold it again, as the oldest of its queue."""

    @abstractmethod
    def _forget(self, read: Read) -> bool:
        """Hold `read` no longer. False: it was not held."""

    @abstractmethod
    def _held(self) -> list[Read]:
        """All of them, in the order in which they go to others when the session ends."""

    @property
    def holds_nothing(self) -> bool:
        return not self._reads

    @property
    def open_count(self) -> int:
        return len(self._held())

    def require_none_open(self) -> None:
        pass

    def _let_go(self, read: Read) -> None:
        if self._forget(read):
            read.uncount()
            read.queue.give_back(read, wake=False)

    def close_found(self, read: Read) -> None:
        read.queue.close(read, self)
        self._forget(read)

    def unclose(self, read: Read) -> None:
        if self.ended:
            read.queue.give_back(read, wake=False)
        else:
            self._hold_first(read)

    def _unabort(self, read: Read, too_late: bool) -> None:
        if not self.ended:
            self._hold_first(read)
            if not too_late:
                read.queue.take_back(read)

    def end(self) -> None:
        self.ended = True
        held = self._held()
        self._reads = {}
        given_back = self._lose_all(held)
        for _ in given_back:
            self._journal.slices.append(given_back)
            break

    def _lose_all(self, reads: list[Read]) -> Iterator[None]:
        left = READS_AT_ONCE
        for read in reads:
            left -= READS_AT_ONCE // FAILURES_AT_ONCE if read.queue.counts_failures else 1
            self._lose(read)
            if left <= 0:
                left = READS_AT_ONCE
                yield


class ManyReads(SeveralReads):
    """Each read is known by its queue's name; the oldest comes first."""

    __slots__ = ()

    _reads: dict[bytes, deque[Read]]

    def open_reads(self, queue: bytes) -> int:
        return len(self._reads.get(queue, ()))

    def all_open(self, queue: bytes) -> list[Read]:
        """Of this queue, the oldest first."""
        return list(self._reads.get(queue, ()))

    def has_room(self, queue: bytes, max_open_reads: int) -> bool:
        return len(self._reads.get(queue, ())) < max_open_reads

    def require_room(self, queue: bytes, max_open_reads: int) -> None:
        if not self.has_room(queue, max_open_reads):
            raise ClientError(
                f"close a read first: {max_open_reads} items of queue {show(queue)} are open on this connection,"
                " and max_open_reads allows no more"
            )

    def find(self, queue: bytes, item_id: int = 0) -> Read | None:
        """The oldest open read of `queue`; with an id, that of this item."""
        if item_id:
            by_id: Any = {name: HeldById(reads) for name, reads in self._reads.items()}
            self._reads = by_id
            self.__class__ = ManyReadsById
            return self.find(queue, item_id)
        return next(iter(self._reads.get(queue, ())), None)

    def hold(self, read: Read) -> None:
        self._reads.setdefault(read.queue.name, deque()).append(read)
        read.count()
        self._journal.undo.append((self._let_go, read))

    def _forget(self, read: Read) -> bool:
        reads = self._reads.get(read.queue.name)
        if not reads:
            return False
        if reads[0] is read:
            reads.popleft()
        elif reads[-1] is read:  # a turn is undone backwards, so its last read comes first
            reads.pop()
        elif read in reads:
            reads.remove(read)
        else:
            return False
        if not reads:
            del self._reads[read.queue.name]
        return True

    def close_read(self, queue: bytes = b"") -> None:
        self.close_oldest(queue)

    def close_oldest(self, queue: bytes, count: int = 1) -> bool:
        """Confirm the `count` oldest open reads of `queue`; False: fewer are open, and nothing is changed. Raises
        StorageError, with nothing changed."""
        oldest = list(islice(self._reads.get(queue, ()), count))
        if len(oldest) < count:
            return False
        for read in oldest:
            if read.blob:
                _ = read.queue.large_items  # this may raise: before any read is closed
        for read in oldest:
            read.queue.close(read, self)
            self._forget(read)
        return True

    def close_in_slices(self, queue: bytes, count: int) -> Iterator[None]:
        """Confirm the `count` oldest reads, which must be open, up to READS_AT_ONCE in each turn. Raises StorageError
        if a part of them could not be closed."""
        left = self.open_reads(queue) - count
        for start in range(0, count, READS_AT_ONCE):
            if start:
                yield
            if self.open_reads(queue) != left + count - start:  # the turn before was undone
                raise StorageError("only some of the items are confirmed: a part could not be written")
            self.close_oldest(queue, min(READS_AT_ONCE, count - start))

    def _hold_first(self, read: Read) -> None:
        self._reads.setdefault(read.queue.name, deque()).appendleft(read)

    def _held(self) -> list[Read]:
        """The oldest item of a queue goes to the client that has waited longest."""
        return [read for reads in self._reads.values() for read in sorted(reads, key=by_id)]


class ManyReadsById(ManyReads):
    """A session becomes this when its client first names an item by its id. Others do not pay for that."""

    __slots__ = ()

    _reads: dict[bytes, HeldById]  # type: ignore[assignment]

    def find(self, queue: bytes, item_id: int = 0) -> Read | None:
        reads = self._reads.get(queue)
        if reads is None:
            return None
        return reads.find(item_id) if item_id else next(iter(reads))

    def hold(self, read: Read) -> None:
        self._reads.setdefault(read.queue.name, HeldById()).append(read)
        read.count()
        self._journal.undo.append((self._let_go, read))

    def _hold_first(self, read: Read) -> None:
        self._reads.setdefault(read.queue.name, HeldById()).appendleft(read)

    def _forget(self, read: Read) -> bool:
        name = read.queue.name
        reads = self._reads.get(name)
        if reads is None or not reads.discard(read):
            return False
        if not reads:
            del self._reads[name]
        return True


by_id = attrgetter("id")


def _do_nothing() -> None:
    pass
