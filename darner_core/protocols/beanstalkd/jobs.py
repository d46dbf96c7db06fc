"""The commands about jobs: put, reserve, and what is done to a job by its number. A command is what `contract` says.

A job is reserved by a connection, for the time that its put has given it. When that is over, or the connection ends,
the job is ready again.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from darner_core.access.rights import GET, PUT
from darner_core.config.options import Config
from darner_core.engines.contract import Read
from darner_core.engines.items import Seen, State
from darner_core.engines.jobs import Outcome, Placed
from darner_core.errors import ServerError, StorageError
from darner_core.operations.client import LATER, Client
from darner_core.operations.operations import Operations
from darner_core.operations.taking import Shown
from darner_core.protocols.arriving import ArrivingBody
from darner_core.protocols.beanstalkd import replies
from darner_core.protocols.beanstalkd.reader import TubeRequest
from darner_core.protocols.beanstalkd.replies import (
    BURIED,
    CRLF,
    DEADLINE_SOON,
    DELETED,
    EXPECTED_CRLF,
    JOB_TOO_BIG,
    KICKED,
    NOT_FOUND,
    RELEASED,
    TIMED_OUT,
    TOUCHED,
    NoRoom,
)
from darner_core.protocols.beanstalkd.tubes import SOON_S, Tubes, TubeSession
from darner_core.protocols.contract import Reply

# How long a `reserve` waits: 24 days, and then again.
FOR_EVER_S = 2**21 - 1

# A job whose delay ends at the moment when a wait does is still handed out, though timers are late by 1 or 2 ms.
LONGER_S = 0.005

RESERVED, FOUND = b"RESERVED", b"FOUND"


class Jobs:
    """The commands, bound to the queues."""

    def __init__(self, operations: Operations, config: Config, tubes: Tubes) -> None:
        self._queues = operations.queues
        self._stats = operations.stats
        self._availability = operations.availability
        self._putting = operations.putting
        self._taking = operations.taking
        self._jobs = operations.jobs
        self._items = operations.items
        self._tubes = tubes
        self._chunk_bytes = config.chunk_bytes

    # -- putting

    def put(self, request: TubeRequest, body: bytes, session: TubeSession) -> bytes:
        self._begin_put(request, session)
        placed = self._jobs.put(session, (session.used,), body, 0, 0, request.options)
        return self._inserted(placed)

    def _begin_put(self, request: TubeRequest, session: TubeSession) -> None:
        session.require(PUT, session.used)
        session.note_put()
        self._stats.cmd_set += 1
        try:
            self._putting.require_taken(request.body_bytes)
        except ServerError as error:
            raise NoRoom(str(error)) from None

    def _inserted(self, placed: Placed) -> bytes:
        if placed.outcome is Outcome.FULL:
            return replies.OUT_OF_MEMORY
        return replies.inserted(self._items.number(placed.queue, placed.id) if placed.id else 0)

    def receive_large(self, request: TubeRequest, client: Client) -> bytes:
        """A put whose body is larger than a chunk, or is too large, and is still on its way."""
        session: Any = client.session
        body = ArrivingBody(request.body_bytes, client, self._chunk_bytes)
        try:
            if request.refused:
                refusal: bytes = request.run(request, None, session)
                return refusal
            if request.too_big:
                return JOB_TOO_BIG
            self._begin_put(request, session)
            names = (session.used,)
            with self._putting.large(names, request.body_bytes, as_child=False) as item:
                if not item.wait_begin(client):
                    return replies.OUT_OF_MEMORY
                if item.wanted_bytes and not body.wait_store(item):
                    return EXPECTED_CRLF
                return self._inserted(self._jobs.put_large(session, names, item, 0, 0, request.options))
        finally:
            body.wait_skip()

    # -- reserving

    def reserve(self, request: TubeRequest, body: None, session: TubeSession) -> Reply:
        return self._reserve(session, FOR_EVER_S)

    def reserve_with_timeout(self, request: TubeRequest, body: None, session: TubeSession) -> Reply:
        return self._reserve(session, min(request.seconds, FOR_EVER_S - 1))

    def _reserve(self, session: TubeSession, wait_s: int) -> Reply:
        for queue in session.watched:
            session.require(GET, queue)
        session.note_reserve()
        found = self._taking.open(self._best_first(session))
        if found is LATER:
            return partial(self._wait_reserve, wait_s)
        if found is not None:
            return self._reserved(session, found)
        if self._is_soon(session):
            return DEADLINE_SOON
        return partial(self._wait_reserve, wait_s) if wait_s else self._missed()

    def _missed(self) -> bytes:
        self._stats.get_misses += 1
        return TIMED_OUT

    def _best_first(self, session: TubeSession) -> tuple[bytes, ...]:
        """The queues of the tubes that are watched: the one that has the most urgent job first, and of equally urgent
        ones that with the oldest."""
        watched = tuple(session.watched)
        if len(watched) == 1:
            return watched
        ranks: dict[bytes, tuple[int, int]] = {}
        for queue in watched:
            try:
                rank = self._items.rank(queue)
            except StorageError:  # told to the client if no other tube has a job
                continue
            if rank is not None:
                ranks[queue] = rank
        return (*sorted(ranks, key=ranks.__getitem__), *(queue for queue in watched if queue not in ranks))

    @staticmethod
    def _is_soon(session: TubeSession) -> bool:
        soonest_s = session.soonest_s()
        return soonest_s is not None and soonest_s < SOON_S

    def _wait_reserve(self, wait_s: int, client: Client) -> bytes:
        """Wait for a job, up to the second before the first of the client's own reservations ends."""
        session: Any = client.session
        until = time.monotonic() + wait_s + (LONGER_S if wait_s else 0)
        waited = [tube for queue in session.watched if (tube := self._tubes.find(queue)) is not None]
        self._tubes.count_waiting(waited)
        try:
            while True:
                soonest_s = session.soonest_s()
                now = time.monotonic()
                stop = until if soonest_s is None else min(until, now + max(0.0, soonest_s - SOON_S))
                read = self._taking.wait_open(client, self._best_first(session), stop)
                if read is not None:
                    break
                if self._is_soon(session):
                    return DEADLINE_SOON
                now = time.monotonic()
                if now >= until - 0.001 and wait_s == FOR_EVER_S:
                    until = now + wait_s
                elif now < stop - 0.001 or self._availability.waits_end:
                    return self._missed()
                elif now >= until - 0.001:
                    client.wait_turn()  # in which what is due by now becomes ready, also if the loop was busy
                    found = self._taking.open(self._best_first(session))
                    if found is None or found is LATER:
                        return self._missed()
                    read = found
                    break
        finally:
            self._tubes.count_waiting(waited, -1)
        reply = self._reserved(session, read)
        return reply if isinstance(reply, bytes) else reply(client)

    def _reserved(self, session: TubeSession, read: Read) -> Reply:
        """The reply with an item that has been opened."""
        queue = read.queue.name
        try:
            session.require(GET, queue)
            self._require_lease(queue)
            number = self._items.number(queue, read.id)
        except BaseException:
            read.queue.give_back(read)
            raise
        settle = partial(self._jobs.hold, session, 0, counted=True)
        if read.blob:
            return partial(self._wait_send, read, number, settle)
        body: Any = self._taking.accept(read, settle)[0]
        return b"RESERVED %d %d\r\n%b\r\n" % (number, len(body), body)

    def _require_lease(self, queue: bytes) -> None:
        if not self._jobs.room(queue):
            raise NoRoom("max_leases allows no more jobs to be reserved")

    def _wait_send(self, read: Read, number: int, settle: Callable[[Read], None], client: Client) -> bytes:
        self._taking.wait_send(client, read, lambda item: replies.job_head(RESERVED, number, len(item[0])), settle)
        return CRLF

    def reserve_job(self, request: TubeRequest, body: None, session: TubeSession) -> Reply:
        queue, item_id = self._locate(request, session)
        read = self._items.open(queue, item_id) if item_id else None
        if read is None:
            return NOT_FOUND
        session.note_reserve()
        return self._reserved(session, read)

    # -- jobs by their numbers

    def _locate(self, request: TubeRequest, session: TubeSession) -> tuple[bytes, int]:
        """(queue, id) of the job that is meant; the id is 0 if there never was one. Raises ClientError if the client
        has no right to its queue."""
        located = self._items.numbered(request.job)
        if located is None:
            return b"", 0
        session.require(GET, located[0])
        return located

    def delete(self, request: TubeRequest, body: None, session: TubeSession) -> bytes:
        queue, item_id = self._locate(request, session)
        read = session.find(queue, item_id)
        if read is not None:
            session.close_found(read)
        else:
            seen = self._items.find(queue, item_id) if item_id else None
            if seen is None or seen.state is State.OPEN or not self._items.remove(queue, item_id):
                return NOT_FOUND
        tube = self._tubes.find(queue)
        if tube is not None:
            tube.deletes += 1
        return DELETED

    def release(self, request: TubeRequest, body: None, session: TubeSession) -> bytes:
        read = session.find(*self._locate(request, session))
        if read is None:
            return NOT_FOUND
        self._jobs.abort(session, read, request.seconds * 1000, request.pri, counted=True)
        return RELEASED

    def bury(self, request: TubeRequest, body: None, session: TubeSession) -> bytes:
        read = session.find(*self._locate(request, session))
        if read is None:
            return NOT_FOUND
        self._jobs.bury(session, read, request.pri)
        return BURIED

    def touch(self, request: TubeRequest, body: None, session: TubeSession) -> bytes:
        queue, item_id = self._locate(request, session)
        return TOUCHED if item_id and self._jobs.touch(session, queue, item_id, 0) else NOT_FOUND

    def kick_job(self, request: TubeRequest, body: None, session: TubeSession) -> bytes:
        queue, item_id = self._locate(request, session)
        if item_id:
            session.require_admin(request, queue)
        return KICKED if item_id and self._items.kick(queue, item_id) else NOT_FOUND

    def kick(self, request: TubeRequest, body: None, session: TubeSession) -> Reply:
        session.require_admin(request, session.used)
        return partial(self._wait_kick, session.used, request.most)

    def _wait_kick(self, queue: bytes, most: int, client: Client) -> bytes:
        return b"KICKED %d\r\n" % self._jobs.wait_kick(client, queue, most)

    # -- looking

    def peek(self, request: TubeRequest, body: None, session: TubeSession) -> Reply:
        queue, item_id = self._locate(request, session)
        self._stats.cmd_peek += 1
        return self._shown(queue, item_id) if item_id else NOT_FOUND

    def peek_ready(self, request: TubeRequest, body: None, session: TubeSession) -> Reply:
        return self._peek_first(session, State.READY)

    def peek_delayed(self, request: TubeRequest, body: None, session: TubeSession) -> Reply:
        return self._peek_first(session, State.DELAYED)

    def peek_buried(self, request: TubeRequest, body: None, session: TubeSession) -> Reply:
        return self._peek_first(session, State.BURIED)

    def _peek_first(self, session: TubeSession, state: State) -> Reply:
        session.require(GET, session.used)
        self._stats.cmd_peek += 1
        found: list[Seen] = self._items.look(session.used, state, most=1)
        return self._shown(session.used, found[0].id) if found else NOT_FOUND

    def _shown(self, queue: bytes, item_id: int) -> Reply:
        item = self._items.item(queue, item_id)
        if item is None:
            return NOT_FOUND
        body: Any = item[0]
        head = replies.job_head(FOUND, self._items.number(queue, item_id), len(body))
        if body.__class__ is bytes:
            return b"%b%b\r\n" % (head, body)
        return partial(self._wait_show, Shown(self._queues[queue], item, item_id), head)

    def _wait_show(self, shown: Shown, head: bytes, client: Client) -> bytes:
        name = shown.queue.name
        self._taking.wait_show(client, shown, head, lambda: self._items.find(name, shown.id) is not None)
        return CRLF
