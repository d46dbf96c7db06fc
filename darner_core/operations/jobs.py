"""Jobs: items with a delay, a priority, a unique key, a deadline, or failures that count, for all protocols.

`engines.jobs` says what these words mean. What lets go of a read acts on one that a session has found, see `Session`.
Calls whose names begin with wait_ switch greenlets, nothing else here does.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from darner_core.access.origins import Origin
from darner_core.config.values import SYNC_ALWAYS
from darner_core.engines.contract import Engine, Read
from darner_core.engines.jobs import Failure, JobOptions, Outcome, Pause, Placed
from darner_core.errors import ServerError
from darner_core.operations.availability import Availability
from darner_core.operations.client import Client
from darner_core.operations.putting import LargePut
from darner_core.operations.session import Session
from darner_core.showing import show

# How many items are kicked in one turn: 2 ms.
KICKED_AT_ONCE = 200


class Comebacks:
    """How reads come back that count as failures: `session.Failures`. When the server stops, none counts."""

    def __init__(self, engine: Engine, availability: Availability) -> None:
        self._jobs = engine.jobs
        self._leases = engine.leases
        self._journal = engine.journal
        self._items = engine.items
        self._availability = availability

    def abort(
        self, read: Read, origin: Origin, delay_ms: int | None = None, pri: int | None = None, counted: bool = False
    ) -> None:
        with self._ended(read) as ended:
            self._jobs.fail(ended, Failure.ABORTED, origin.name, delay_ms, pri, counted)

    def fail(self, read: Read, why: Failure, origin: Origin, delay_ms: int | None) -> None:
        with self._ended(read) as ended:
            self._jobs.fail(ended, why, origin.name, delay_ms, counted=True)

    def bury(self, read: Read, pri: int | None) -> None:
        with self._ended(read) as ended:
            self._items.bury(ended, pri)

    def reject(self, read: Read, origin: Origin) -> None:
        with self._ended(read) as ended:
            self._jobs.reject(ended, origin.name)

    def let_go(self, read: Read) -> None:
        """It waits again as if nobody had had it. Raises StorageError, with nothing changed."""
        with self._ended(read) as ended:
            ended.queue.give_back(ended)

    @contextmanager
    def _ended(self, read: Read) -> Iterator[Read]:
        """The read without its deadline, which it gets back if it cannot be given back."""
        undo = self._journal.undo
        start = len(undo)
        ended = self._leases.end(read)
        steps = undo[start:]
        try:
            yield ended
        except BaseException:
            for call, *about in steps:
                call(*about)
            raise

    def lose(self, read: Read, origin: Origin) -> None:
        if self._availability.stopping:
            read.queue.give_back(read)
        else:
            self._leases.fail(read, Failure.LOST, origin.name)


class JobOperations:
    def __init__(self, engine: Engine, comebacks: Comebacks) -> None:
        self._jobs = engine.jobs
        self._leases = engine.leases
        self._registry = engine.registry
        self._routing = engine.routing
        self._items = engine.items
        self._comebacks = comebacks

    # -- putting

    def put(
        self,
        session: Session,
        names: tuple[bytes, ...],
        body: bytes,
        flags: int,
        expires_at_ms: int,
        options: JobOptions,
        as_child: bool = False,
    ) -> Placed:
        """Put an item that is not large into these queues, all of them or none. `as_child`: the one name is a fanout
        child's. Raises ServerError or StorageError, with nothing changed."""
        placed = self._jobs.put(names, body, flags, expires_at_ms, options, as_child)
        return self._noted(session, names, placed)

    def answer_of_key(
        self, session: Session, names: tuple[bytes, ...], key: bytes, as_child: bool = False
    ) -> Placed | None:
        """To be asked before a large item with this key is received: what its put comes to, whether there is room for
        it or not; None: that is not known yet. Raises ServerError or StorageError."""
        placed = self._jobs.answer_of_key(names, key, as_child)
        return self._noted(session, names, placed) if placed is not None else None

    def put_large(
        self,
        session: Session,
        names: tuple[bytes, ...],
        item: LargePut,
        flags: int,
        expires_at_ms: int,
        options: JobOptions,
    ) -> Placed:
        """As `put`, for a large item of which all has come and is stored."""
        return self._noted(session, names, self._jobs.put_large(item.transfer, flags, expires_at_ms, options))

    def _noted(self, session: Session, names: tuple[bytes, ...], placed: Placed) -> Placed:
        """`placed`. If one of the queues says so, the reply waits for the disk, also for an item that was there."""
        if placed.outcome is not Outcome.FULL and not session.needs_sync:
            queue = self._registry.queues.get(names[0])
            if (len(names) > 1 or queue is None or queue.governed) and any(
                map(self._syncs, names)
            ):  # else none says so
                session.require_sync()
        return placed

    def _syncs(self, name: bytes) -> bool:
        queues = self._registry.queues
        targets = self._routing.aliases.get(name, (name,))
        everyone = (one for target in targets for one in (target, *self._registry.children_of(target)))
        return any(one in queues and queues[one].options.sync == SYNC_ALWAYS for one in everyone)

    # -- deadlines

    def require_room(self, name: bytes) -> int:
        """How many items more of this queue may be open with a deadline. Raises ServerError if that is none."""
        room = self.room(name)
        if not room:
            raise ServerError(
                f"too many items with a deadline are open: max_leases allows no more, of queue {show(name)} or in all"
            )
        return room

    def room(self, name: bytes) -> int:
        """How many items more of this queue may be open with a deadline."""
        return self._leases.room(name)

    def hold(self, session: Session, ttr_ms: int, read: Read, counted: bool = False) -> None:
        """Let the session hold this read for up to `ttr_ms`; 0: for as long as its item and queue say. `counted`: that
        its time is over is counted in any case."""
        lasts_ms = ttr_ms or self._jobs.ttr_ms(read)
        if lasts_ms:
            read = self._leases.bind(read, lasts_ms, self._jobs.most_hold_ms(read), session.origin.name, counted)
        session.hold(read)

    def lasts_ms(self, read: Read) -> int:
        """How long its item and queue let a reader keep it who asks for a deadline; 0: as long as it likes."""
        return self._jobs.ttr_ms(read)

    def hold_freely(self, session: Session, read: Read, lasts_ms: int) -> None:
        """Let whoever knows the item's id hold this read for up to `lasts_ms`; that its time is over is counted. The
        session is told as the client that has it; it may end."""
        self._items.hold(read, lasts_ms, session.origin.name, self._jobs.most_hold_ms(read), counted=True)

    def prolong(self, held: Any, lasts_ms: int) -> bool:
        """From now on the deadline of what is held freely is in `lasts_ms`. False: it is open no more."""
        return self._leases.touch(held, lasts_ms)

    def fail_held(self, session: Session, held: Any, why: Failure, delay_ms: int | None) -> None:
        """What is held freely comes back, which counts. See `Jobs.fail`. Raises ServerError or StorageError, with
        nothing changed."""
        self._comebacks.fail(held, why, session.origin, delay_ms)

    def reject_held(self, session: Session, held: Any) -> None:
        """What is held freely is a dead letter. Raises ServerError or StorageError, with nothing changed."""
        self._comebacks.reject(held, session.origin)

    def touch(self, session: Session, queue: bytes, item_id: int, seconds: int) -> bool:
        """The client needs this many seconds more for what it has open of this queue, the oldest or the item with this
        id; 0: as long as at first. False: that is not open any more."""
        read = session.find(queue, item_id)
        return read is not None and self._leases.touch(read, seconds * 1000)

    # -- dead letters

    def history(self, session: Session, queue: bytes, item_id: int) -> bytes:
        """What became of an item before it came to this queue as a dead letter: that which the session has open, the
        oldest or the item with this id; without an id, and if none is open, that at the head. b"": it is no dead
        letter, or there is no such item. Raises StorageError."""
        read = session.find(queue, item_id)
        if read is not None and read.queue.name == queue:
            return self._jobs.history(read)
        found = self._registry.queues.get(queue)
        if item_id or found is None or not found.counts_failures:  # it has no dead letters
            return b""
        head = found.open()
        if head is None:
            return b""
        try:
            return self._jobs.history(head)
        finally:
            head.queue.give_back(head, wake=False)

    # -- giving back

    def abort(self, session: Session, read: Read, delay_ms: int | None, pri: int | None, counted: bool = False) -> None:
        """Give back what the session has found, which counts as a failure. See `Jobs.fail`. Raises ServerError or
        StorageError, with nothing changed."""
        session.hand_back(read, partial(self._abort, session.origin, delay_ms, pri, counted))

    def _abort(self, origin: Origin, delay_ms: int | None, pri: int | None, counted: bool, read: Read) -> None:
        self._comebacks.abort(read, origin, delay_ms, pri, counted)

    def bury(self, session: Session, read: Read, pri: int | None) -> None:
        """What the session has found is buried. Raises ServerError or StorageError, with nothing changed."""
        session.hand_back(read, partial(self._bury, pri))

    def _bury(self, pri: int | None, read: Read) -> None:
        self._comebacks.bury(read, pri)

    def reject(self, session: Session, read: Read) -> None:
        """What the session has found is a dead letter. Raises ServerError or StorageError, with nothing changed."""
        session.hand_back(read, partial(self._reject, session.origin))

    def _reject(self, origin: Origin, read: Read) -> None:
        self._comebacks.reject(read, origin)

    # -- for operators

    def wait_kick(self, client: Client, name: bytes, most: int) -> int:
        """Make up to `most` buried items ready, or delayed ones if none is buried; how many those are. Raises
        ServerError or StorageError."""
        buried = dict(self._jobs.figures(name)).get(b"buried", 0)
        left = min(most, buried) if buried else most  # so that delayed ones do not follow buried ones
        kicked = 0
        while left > 0:
            asked = min(left, KICKED_AT_ONCE)
            some = self._jobs.kick(name, asked)
            kicked, left = kicked + some, left - some
            if some < asked:
                break
            if left > 0:
                client.wait_turn()
        return kicked

    def pause(self, name: bytes, pause: Pause, seconds: int, make: bool = False) -> None:
        """See `Jobs.pause`. Raises ServerError or StorageError."""
        self._jobs.pause(name, pause, seconds, make)

    def paused(self, name: bytes) -> tuple[Pause, int]:
        """What the queue does not do at present, and for how many ms from now; 0: until somebody ends it."""
        return self._jobs.paused(name), self._jobs.pause_left_ms(name)

    def figures(self, name: bytes) -> dict[bytes, int]:
        """See `Jobs.figures`."""
        return dict(self._jobs.figures(name))
