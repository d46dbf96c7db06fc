"""What a client of Disque does to jobs by their ids: acknowledge them, give them back, keep them for longer, look.

Several ids are all read before anything is done. Many are dealt with in several turns.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from darner_core.access.rights import ADMIN, GET
from darner_core.engines.items import Seen, State
from darner_core.engines.jobs import Failure
from darner_core.operations.client import Client
from darner_core.operations.operations import Operations
from darner_core.protocols.contract import WRITES, Reply
from darner_core.protocols.escaping import name_elsewhere
from darner_core.protocols.guard import require_admin
from darner_core.protocols.resp import replies
from darner_core.protocols.resp.adding import DEFAULT_RETRY_S, DEFAULT_TTL_S, MAX_S, NEVER_AGAIN_MS
from darner_core.protocols.resp.ids import JobIds
from darner_core.protocols.resp.naming import Located, integer_of, locate, queue_of
from darner_core.protocols.resp.reader import Entry, RespRequest
from darner_core.protocols.resp.replies import RespError
from darner_core.protocols.resp.session import RespSession
from darner_core.protocols.resp.taken import TakenJob, TakenJobs

# How many jobs are dealt with in one turn: 2 ms.
ACTED_AT_ONCE: Final = 100

# Disque's words for the states of a job.
_STATES: Final = {State.READY: b"queued", State.DELAYED: b"active", State.OPEN: b"active", State.BURIED: b"buried"}

_Act = Callable[[RespSession, Located], bool]


class Acting:
    """The commands, bound to the queues."""

    def __init__(self, operations: Operations, ids: JobIds, taken: TakenJobs) -> None:
        self._jobs = operations.jobs
        self._stats = operations.stats
        self._items = operations.items
        self._time_ms = operations.time_ms
        self._ids = ids
        self._taken = taken

    def entries(self) -> dict[bytes, Entry]:
        entries = {
            verb: Entry(partial(self._act, act), 1, None)
            for verb, act in (
                (b"ackjob", self._acknowledge),
                (b"fastack", self._acknowledge),
                (b"deljob", self._acknowledge),
                (b"enqueue", self._enqueue),
                (b"dequeue", self._dequeue),
                (b"reject", self._reject),
            )
        }
        return {
            **entries,
            b"nack": Entry(self.nack, 1),
            b"working": Entry(self.working, 1, 1),
            b"show": Entry(self.show, 1, 1, returns_items=True),
            b"kick": Entry(self.kick, 2, 2, WRITES),
        }

    # -- several jobs

    def _act(self, act: _Act, request: RespRequest, body: None, session: RespSession) -> Reply:
        return self._act_on(act, request.arguments, session)

    def _act_on(self, act: _Act, jobs: Iterable[bytes], session: RespSession) -> Reply:
        located = [locate(job, self._ids, self._items, session, GET) for job in jobs]
        # Another form of the same id, with another ttl, is the same job.
        located = list({(one.queue_number, one.item_id): one for one in located}.values())
        if len(located) <= ACTED_AT_ONCE:
            return replies.integer(sum(act(session, one) for one in located))
        if session.executes:
            raise RespError(f"more than {ACTED_AT_ONCE} jobs cannot be dealt with by one command of a transaction")
        return partial(self._wait_act, act, located, session)

    def _wait_act(self, act: _Act, located: list[Located], session: RespSession, client: Client) -> bytes:
        """If the disk refuses half-way, what was done before stays done."""
        done = 0
        for start in range(0, len(located), ACTED_AT_ONCE):
            if start:
                client.wait_turn()
            for one in located[start : start + ACTED_AT_ONCE]:
                if one.queue:
                    session.require(GET, one.queue)
                done += act(session, one)
        return replies.integer(done)

    def _acknowledge(self, session: RespSession, job: Located) -> bool:
        """The job has been dealt with: it is gone, whatever its state."""
        if self._taken.acknowledge(session, job.queue_number, job.item_id):
            return True
        read = session.bound(job.queue, job.item_id)
        if read is not None:
            session.close_found(read)
            return True
        return bool(job.queue) and self._items.remove(job.queue, job.item_id)

    def nack(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        """`NACK <id>... [DELAY <seconds>]`: the worker could not deal with it."""
        jobs, delay_ms = request.arguments, None
        if len(jobs) > 2 and jobs[-2].upper() == b"DELAY":
            error = f"DELAY must be a number of seconds from 0 to {MAX_S}"
            delay_s = integer_of(jobs[-1], error)
            if not 0 <= delay_s <= MAX_S:
                raise RespError(error)
            jobs, delay_ms = jobs[:-2], delay_s * 1000
        return self._act_on(partial(self._give_back, Failure.ABORTED, delay_ms), jobs, session)

    def _enqueue(self, session: RespSession, job: Located) -> bool:
        return self._give_back(Failure.TIMED_OUT, 0, session, job)

    def _give_back(self, why: Failure, delay_ms: int | None, session: RespSession, job: Located) -> bool:
        """Queue the job, if it is active."""
        if not job.queue:
            return False
        read = session.bound(job.queue, job.item_id)
        if read is not None:
            self._jobs.abort(session, read, delay_ms, None, counted=True)
            return True
        held = self._items.held(job.queue, job.item_id)
        if held is not None:
            self._jobs.fail_held(session, held, why, delay_ms)
            return True
        return self._items.kick(job.queue, job.item_id)

    def _dequeue(self, session: RespSession, job: Located) -> bool:
        """Take the job out of its queue until its time to run is over. One that is delivered once at most is out of it
        for good, as in Disque."""
        seen = self._items.find(job.queue, job.item_id) if job.queue else None
        if seen is None or seen.state is not State.READY:
            return False
        if _lasts_ms(seen) < NEVER_AGAIN_MS:
            return self._keep(session, job) > 0
        read = self._items.open(job.queue, job.item_id)
        if read is None:
            return False
        try:
            self._taken.take(session, job.queue_number, read, read.queue.item_of(read))
        except BaseException:
            read.queue.give_back(read)
            raise
        return True

    def _keep(self, session: RespSession, job: Located) -> int:
        """A job that is queued is active from now on; for how many seconds. 0: it is not queued."""
        if not self._jobs.room(job.queue):
            raise RespError("max_leases allows no more jobs to be active", "OOM")
        read = self._items.open(job.queue, job.item_id)
        if read is None:
            return 0
        lasts_ms = self._jobs.lasts_ms(read) or DEFAULT_RETRY_S * 1000
        self._jobs.hold_freely(session, read, lasts_ms)
        return _seconds(lasts_ms)

    def _reject(self, session: RespSession, job: Located) -> bool:
        """The job is a dead letter, or buried."""
        if not job.queue:
            return False
        read = session.bound(job.queue, job.item_id)
        if read is not None:
            self._jobs.reject(session, read)
            return True
        held = self._items.held(job.queue, job.item_id)
        if held is None:
            return False
        self._jobs.reject_held(session, held)
        return True

    # -- one job

    def working(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        """A worker says that it goes on with the job; the reply is for how many seconds it may."""
        job = locate(request.arguments[0], self._ids, self._items, session, GET)
        if self._taken.find(job.queue_number, job.item_id, self._time_ms()) is not None:
            return replies.integer(0)
        seen = self._items.find(job.queue, job.item_id) if job.queue else None
        if seen is None:
            raise RespError("Job not known in the context of this node.", "NOJOB")
        self._require_early(seen)
        lasts_ms = _lasts_ms(seen)
        if lasts_ms >= NEVER_AGAIN_MS:
            return replies.integer(0)
        if seen.state is State.READY:
            return replies.integer(self._keep(session, job))
        if session.bound(job.queue, job.item_id) is not None:  # for as long as it likes
            return replies.integer(_seconds(lasts_ms))
        held = self._items.held(job.queue, job.item_id)
        if held is None or not self._jobs.prolong(held, lasts_ms):
            return replies.integer(0)
        return replies.integer(_seconds(lasts_ms))

    def _require_early(self, seen: Seen) -> None:
        """Raises RespError in the second half of the job's life."""
        if seen.expires_at_ms and 2 * self._time_ms() > seen.added_at_ms + seen.expires_at_ms:
            said = "Half of job TTL already elapsed, you are no longer allowed to postpone the next delivery."
            raise RespError(said, "TOOLATE")

    def show(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        job = locate(request.arguments[0], self._ids, self._items, session, GET)
        self._stats.cmd_peek += 1
        taken = self._taken.find(job.queue_number, job.item_id, self._time_ms())
        if taken is not None:
            session.require(GET, taken.queue)
            return self.shown_taken(taken, session)
        return (self.shown(job.queue, job.item_id, job.id, session) if job.queue else b"") or session.nil

    def shown(self, queue: bytes, item_id: int, job_id: bytes, session: RespSession) -> bytes:
        """What SHOW tells of a job; b"": there is none."""
        seen = self._items.find(queue, item_id)
        item = self._items.item(queue, item_id) if seen is not None else None
        if seen is None or item is None:
            return b""
        data = item[0] if isinstance(item[0], bytes) else b""  # a large one is read by GETJOB
        return self._told(queue, job_id, seen, data, session)

    def shown_taken(self, job: TakenJob, session: RespSession) -> bytes:
        """What SHOW tells of a job that is delivered once at most, and has been."""
        seen = Seen(
            job.item_id, State.OPEN, 0, NEVER_AGAIN_MS, 0, job.body_bytes, 0, job.added_at_ms, job.expires_at_ms
        )
        return self._told(job.queue, self.id_of_taken(job), seen, job.body, session)

    def id_of_taken(self, job: TakenJob) -> bytes:
        ttl_s = (job.expires_at_ms - job.added_at_ms) // 1000 if job.expires_at_ms else DEFAULT_TTL_S
        return self._ids.make(job.queue_number, job.item_id, ttl_s, again=False)

    def _told(self, queue: bytes, job_id: bytes, seen: Seen, data: bytes, session: RespSession) -> bytes:
        now_ms = self._time_ms()
        lasts_ms = _lasts_ms(seen)
        retry_s = 0 if lasts_ms >= NEVER_AGAIN_MS else _seconds(lasts_ms)
        life_s = (seen.expires_at_ms - now_ms) // 1000 if seen.expires_at_ms else DEFAULT_TTL_S
        requeue, awake = session.nil, session.nil
        if seen.state is State.OPEN and retry_s:
            requeue = replies.integer(max(0, self._items.left_ms(queue, seen.id)))
        elif seen.state is State.READY and retry_s:
            requeue = replies.integer(lasts_ms - (now_ms - seen.added_at_ms) % lasts_ms)
        elif seen.state is State.DELAYED:
            requeue = awake = replies.integer(max(0, seen.due_ms - now_ms))
        delay_s = max(0, seen.due_ms - seen.added_at_ms) // 1000 if seen.due_ms else 0
        made_ns = seen.added_at_ms * 1_000_000 + seen.id % 1_000_000
        told = (
            (b"id", replies.bulk(job_id)),
            (b"queue", replies.bulk(name_elsewhere(queue))),
            (b"state", replies.bulk(_STATES[seen.state])),
            (b"repl", replies.integer(1)),
            (b"ttl", replies.integer(max(0, life_s))),
            (b"ctime", replies.integer(made_ns)),
            (b"delay", replies.integer(delay_s)),
            (b"retry", replies.integer(retry_s)),
            (b"nacks", replies.integer(seen.nacks)),
            (b"additional-deliveries", replies.integer(seen.timeouts + seen.losses)),
            (b"nodes-delivered", replies.bulks((self._ids.node,))),
            (b"nodes-confirmed", replies.EMPTY),
            (b"next-requeue-within", requeue),
            (b"next-awake-within", awake if seen.state is State.DELAYED else requeue),
            (b"body", replies.bulk(data)),
        )
        return b"*%d\r\n%b" % (2 * len(told), b"".join(replies.bulk(name) + value for name, value in told))

    # -- a queue's buried jobs

    def kick(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        """`KICK <queue> <count>`: queue buried jobs, or if there are none delayed ones; how many."""
        queue = queue_of(request.arguments[0], session, ADMIN)
        most = integer_of(request.arguments[1])
        require_admin(request, session)
        if session.executes:
            raise RespError("KICK cannot be in a transaction")
        return partial(self._wait_kick, queue, most)

    def _wait_kick(self, queue: bytes, most: int, client: Client) -> bytes:
        return replies.integer(self._jobs.wait_kick(client, queue, most))


def _lasts_ms(seen: Seen) -> int:
    """How long a worker may keep the job."""
    return seen.ttr_ms or DEFAULT_RETRY_S * 1000


def _seconds(lasts_ms: int) -> int:
    return max(1, lasts_ms // 1000)
