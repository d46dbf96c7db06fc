"""GETJOB: how jobs of Disque are handed out.

A worker may keep a job for its time to run (RETRY), counted from here; then it is queued again. With BOUND, which
Disque does not have, a job belongs to the connection: it has no deadline, and is queued again when the connection ends.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from darner_core.access.rights import GET
from darner_core.engines.contract import Item, Read
from darner_core.engines.items import Seen
from darner_core.operations.client import LATER, Client
from darner_core.operations.operations import Operations
from darner_core.operations.taking import give_back
from darner_core.protocols.contract import READS, Reply
from darner_core.protocols.escaping import name_elsewhere
from darner_core.protocols.grammar import MAX_WAIT_MS
from darner_core.protocols.resp import replies
from darner_core.protocols.resp.adding import DEFAULT_RETRY_S, DEFAULT_TTL_S, NEVER_AGAIN_MS
from darner_core.protocols.resp.entries import Entry
from darner_core.protocols.resp.ids import JobIds
from darner_core.protocols.resp.naming import integer_of, queue_of, unknown_option
from darner_core.protocols.resp.reader import RespRequest
from darner_core.protocols.resp.replies import RespError
from darner_core.protocols.resp.session import RespSession
from darner_core.protocols.resp.taken import TakenJob, TakenJobs

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
        self._stats = operations.stats
        self._taking = operations.taking
        self._jobs = operations.jobs
        self._items = operations.items
        self._time_ms = operations.time_ms
        self._ids = ids
        self._taken = taken

    def entries(self) -> dict[bytes, Entry]:
        return {b"getjob": Entry(self.get_job, 2, None, READS)}

    def get_job(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        wanted = read_wanted(request.arguments, session)
        for queue in wanted.queues:
            self._require_room(queue, session, wanted)
        opened = self._open(wanted)
        if opened:
            return self._answer(session, wanted, opened)
        if session.executes or not wanted.waits:
            return self._nothing(session)
        return partial(self._wait_get, wanted)

    def _require_room(self, queue: bytes, session: RespSession, wanted: Wanted) -> None:
        if wanted.bound:
            session.require_room(queue, self._taking.most_open(queue))
        elif not self._jobs.room(queue):
            raise RespError("max_leases allows no more jobs to be active", "OOM")

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
                    if opened and (read.blob or size + read.body_bytes > MAX_REPLY_BYTES):
                        read.queue.give_back(read)
                        return opened
                    opened.append(read)
                    size += read.body_bytes
                    if read.blob or len(opened) == wanted.most:
                        return opened
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
            return self._nothing(session)
        reply = self._answer(session, wanted, [read])
        return reply if isinstance(reply, bytes) else reply(client)

    def _answer(self, session: RespSession, wanted: Wanted, opened: list[Read]) -> Reply:
        """The reply with jobs that are open."""
        try:
            for read in opened:
                session.require(GET, read.queue.name)
            first = opened[0]
            if first.blob:
                if session.executes:
                    raise RespError("a large job cannot be got in a transaction")
                return partial(self._wait_send, wanted, first)
            told = [self._tell(session, wanted, read) for read in opened]
        except BaseException:
            give_back(read for read in opened if read.queue.holds(read))
            raise
        self._stats.get_hits += len(told)
        return replies.array(told)

    def _tell(self, session: RespSession, wanted: Wanted, read: Read) -> bytes:
        queue = read.queue.name
        item = read.queue.item_of(read)
        seen = self._items.find(queue, read.id)
        head, tail = self._around(wanted, queue, read, seen)
        body: Any = item[0]
        self._settle(session, wanted, read, item, body)
        return b"%b%b%b" % (head, replies.bulk(body), tail)

    def _around(self, wanted: Wanted, queue: bytes, read: Read, seen: Seen | None) -> tuple[bytes, bytes]:
        """What stands before a job's body in a reply, and behind it."""
        expires_at_ms = seen.expires_at_ms if seen is not None else 0
        ttl_s = (expires_at_ms - seen.added_at_ms) // 1000 if seen is not None and expires_at_ms else DEFAULT_TTL_S
        again = self._jobs.lasts_ms(read) < NEVER_AGAIN_MS
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

    def _settle(self, session: RespSession, wanted: Wanted, read: Read, item: Item, body: bytes) -> None:
        """The client has the job from here on."""
        if wanted.bound:
            session.hold(read)
            return
        lasts_ms = self._jobs.lasts_ms(read)
        if lasts_ms >= NEVER_AGAIN_MS:
            queue, item_id = read.queue.name, read.id
            job_id = self._ids.make(self._items.queue_number(queue), item_id, DEFAULT_TTL_S, again=False)
            read.queue.close(read)
            self._taken.add(job_id[:-4], TakenJob(queue, item_id, body, read.body_bytes, item[3], item[2]))
            return
        self._jobs.hold_freely(session, read, lasts_ms or DEFAULT_RETRY_S * 1000)

    def _wait_send(self, wanted: Wanted, read: Read, client: Client) -> bytes:
        """A large job, chunk by chunk."""
        session: Any = client.session
        queue = read.queue.name
        head, tail = self._around(wanted, queue, read, self._items.find(queue, read.id))
        kept: list[Item] = []

        def begin(item: Item) -> bytes:
            kept.append(item)
            return b"*1\r\n%b$%d\r\n" % (head, len(item[0]))

        settle: Callable[[Read], None] = lambda one: self._settle(session, wanted, one, kept[0], b"")  # noqa: E731
        self._taking.wait_send(client, read, begin, settle)
        return b"\r\n" + tail
