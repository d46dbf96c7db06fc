"""GETJOB: how jobs of Disque are handed out.

A worker may keep a job for its time to run (RETRY), counted from here; then it is queued again. With BOUND, which
Disque does not have, a job belongs to the connection: it has no deadline, and is queued again when the connection ends.
"""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from darner_core.access.rights import GET
from darner_core.engines.contract import Item, Read
from darner_core.errors import StorageError
from darner_core.operations.client import LATER, Client
from darner_core.operations.operations import Operations
from darner_core.operations.taking import give_back
from darner_core.protocols.contract import READS, Reply
from darner_core.protocols.escaping import name_elsewhere
from darner_core.protocols.grammar import MAX_WAIT_MS
from darner_core.protocols.resp import replies
from darner_core.protocols.resp.adding import DEFAULT_RETRY_S, DEFAULT_TTL_S, NEVER_AGAIN_MS, ttl_of
from darner_core.protocols.resp.ids import JobIds
from darner_core.protocols.resp.naming import integer_of, queue_of, unknown_option
from darner_core.protocols.resp.reader import Entry, RespRequest
from darner_core.protocols.resp.replies import RespError
from darner_core.protocols.resp.room import ReplyRoom
from darner_core.protocols.resp.session import RespSession
from darner_core.protocols.resp.taken import TakenJobs

# What one reply has at most: the rest is there for the next GETJOB.
MAX_JOBS: Final = 1000
MAX_REPLY_BYTES: Final = 1 << 20

_OPTIONS: Final = "NOHANG, TIMEOUT, COUNT, WITHCOUNTERS, BOUND and FROM"


class Wanted(NamedTuple):
    """What GETJOB is told."""

    queues: tuple[bytes, ...]
    waits: bool = True
    wait_ms: int = MAX_WAIT_MS
    most: int = 1
    with_counters: bool = False
    bound: bool = False


def read_wanted(words: Sequence[bytes], session: RespSession) -> Wanted:
    """Raises RespError."""
    wanted = Wanted(())
    rest = list(words)
    while rest:
        option = rest.pop(0)
        name = option.upper()
        if name == b"NOHANG":
            wanted = wanted._replace(waits=False)
        elif name == b"WITHCOUNTERS":
            wanted = wanted._replace(with_counters=True)
        elif name == b"BOUND":
            wanted = wanted._replace(bound=True)
        elif name == b"TIMEOUT" and rest:
            timeout = integer_of(rest.pop(0), "timeout is not an integer or out of range")
            if timeout < 0:
                raise RespError("timeout is negative")
            wanted = wanted._replace(wait_ms=min(timeout or MAX_WAIT_MS, MAX_WAIT_MS))
        elif name == b"COUNT" and rest:
            count = integer_of(rest.pop(0), "COUNT must be a number greater than zero")
            if count < 1:
                raise RespError("COUNT must be a number greater than zero")
            wanted = wanted._replace(most=min(count, MAX_JOBS))
        elif name == b"FROM" and rest:
            return wanted._replace(queues=tuple(queue_of(one, session, GET) for one in rest))
        else:
            raise unknown_option(option, _OPTIONS)
    raise RespError("syntax error")


class Getting:
    """The command, bound to the queues."""

    def __init__(self, operations: Operations, ids: JobIds, taken: TakenJobs) -> None:
        self._room = ReplyRoom(operations.pipeline_memory)
        self._stats = operations.stats
        self._taking = operations.taking
        self._jobs = operations.jobs
        self._items = operations.items
        self._time_ms = operations.time_ms
        self._ids = ids
        self._taken = taken
        self._availability = operations.availability

    def entries(self) -> dict[bytes, Entry]:
        return {b"getjob": Entry(self.get_job, 2, None, READS, True)}

    def get_job(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        wanted = read_wanted(request.arguments, session)
        for queue in wanted.queues:
            self._require_room(queue, session, wanted)
        opened = self._open(wanted)
        if opened:
            return self._answer(session, wanted, opened)
        if session.executes or not wanted.waits:
            return self._nothing(session)
        self._require_stays()
        return partial(self._wait_get, wanted)

    def _require_room(self, queue: bytes, session: RespSession, wanted: Wanted) -> None:
        if not self._has_room(queue, session, wanted):
            option = "max_open_reads" if wanted.bound else "max_leases"
            raise RespError(f"{option} allows no more jobs to be active", "OOM")

    def _has_room(self, queue: bytes, session: RespSession, wanted: Wanted) -> bool:
        if wanted.bound:
            return session.bound_room(queue, self._taking.most_open(queue)) > 0
        return self._jobs.room(queue) > 0

    def _require_stays(self) -> None:
        """Raises RespError if clients are to look for another node, and not to wait here."""
        if self._availability.no_writes or self._availability.stopping:
            said = "This node is leaving the cluster, please connect to a different one"
            raise RespError(said, "LEAVING")

    def _open(self, wanted: Wanted) -> list[Read]:
        """One job of each queue in turn, until there are as many as are wanted, or no more."""
        opened: list[Read] = []
        size = 0
        queues = list(wanted.queues)
        try:
            while queues and len(opened) < wanted.most:
                for queue in list(queues):
                    read = self._taking.open((queue,))
                    if read is None or read is LATER:
                        queues.remove(queue)
                        continue
                    if opened and (read.blob or size + read.body_bytes > self._room.most(MAX_REPLY_BYTES)):
                        read.queue.give_back(read)
                        return opened
                    opened.append(read)
                    size += read.body_bytes
                    if read.blob or len(opened) == wanted.most:
                        return opened
        except StorageError:
            if not opened:
                raise  # else what lies before the damage is served
        except BaseException:
            give_back(opened)
            raise
        return opened

    def _nothing(self, session: RespSession) -> bytes:
        self._stats.get_misses += 1
        return session.nil_array

    def _wait_get(self, wanted: Wanted, client: Client) -> bytes:
        session: Any = client.session
        until = time.monotonic() + wanted.wait_ms / 1000
        read = self._taking.wait_open(client, wanted.queues, until)
        if read is None:
            self._require_stays()
            return self._nothing(session)
        reply = self._answer(session, wanted, [read])
        return reply if isinstance(reply, bytes) else reply(client)

    # -- answering with jobs that are open

    def _answer(self, session: RespSession, wanted: Wanted, opened: list[Read]) -> Reply:
        """The reply with them. Those that it has no room for are given back."""
        left = list(reversed(opened))
        told: list[bytes] = []
        try:
            while left:
                read = left[-1]
                queue = read.queue.name
                session.require(GET, queue)
                lasts_ms = self._jobs.lasts_ms(read)
                if wanted.bound or lasts_ms < NEVER_AGAIN_MS:
                    if told and not self._has_room(queue, session, wanted):
                        break
                    self._require_room(queue, session, wanted)
                if read.blob:
                    if session.executes:
                        raise RespError("a large job cannot be got in a transaction")
                    left.pop()
                    return partial(self._wait_send, wanted, read)
                told.append(self._tell(session, wanted, read))
                left.pop()
        except (StorageError, RespError):
            if not told:
                raise
        finally:
            give_back(left)
        self._stats.get_hits += len(told)
        return replies.array(told)

    def _tell(self, session: RespSession, wanted: Wanted, read: Read) -> bytes:
        """A job in a reply, which the client has from here on. Raises StorageError, with the read still open."""
        item = read.queue.item_of(read)
        head, tail = self._around(wanted, read)
        body: Any = item[0]
        self._settle(session, wanted, read, item)
        return b"%b%b%b" % (head, replies.bulk(body), tail)

    def _around(self, wanted: Wanted, read: Read) -> tuple[bytes, bytes]:
        """What stands before a job's body in a reply, and behind it."""
        queue = read.queue.name
        seen = self._items.find(queue, read.id)
        again = self._jobs.lasts_ms(read) < NEVER_AGAIN_MS
        ttl_s = ttl_of(seen) if seen is not None else DEFAULT_TTL_S
        job_id = self._ids.make(self._items.queue_number(queue), read.id, ttl_s, again)
        head = replies.bulk(name_elsewhere(queue)) + replies.bulk(job_id)
        if not wanted.with_counters:
            return b"*3\r\n" + head, b""
        nacks = seen.nacks if seen is not None else 0
        again_times = seen.timeouts + seen.losses if seen is not None else 0
        counters = b"".join((
            replies.bulk(b"nacks"), replies.integer(nacks),
            replies.bulk(b"additional-deliveries"), replies.integer(again_times),
        ))  # fmt: skip
        return b"*7\r\n" + head, counters

    def _settle(self, session: RespSession, wanted: Wanted, read: Read, item: Item) -> None:
        """The client has the job from here on."""
        lasts_ms = self._jobs.lasts_ms(read)
        if wanted.bound:
            session.hold(read)
        elif lasts_ms >= NEVER_AGAIN_MS:
            self._taken.take(session, self._items.queue_number(read.queue.name), read, item)
        else:
            self._jobs.hold_freely(session, read, lasts_ms or DEFAULT_RETRY_S * 1000)

    def _wait_send(self, wanted: Wanted, read: Read, client: Client) -> bytes:
        """A large job, chunk by chunk. Raises StorageError, and then the job is given back."""
        session: Any = client.session
        try:
            head, tail = self._around(wanted, read)
        except BaseException:
            read.queue.give_back(read)
            raise
        kept: list[Item] = []

        def begin(item: Item) -> bytes:
            kept.append(item)
            return b"*1\r\n%b$%d\r\n" % (head, len(item[0]))

        def settle(one: Read) -> None:
            self._settle(session, wanted, one, kept[0])

        self._taking.wait_send(client, read, begin, settle)
        return b"\r\n" + tail
