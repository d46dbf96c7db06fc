"""What a client of Disque asks about queues, and does to them: QLEN, QSTAT, QPEEK, QSCAN, JSCAN and PAUSE."""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple

from darner_core.access.rights import ADMIN, GET
from darner_core.engines.items import Seen, State
from darner_core.engines.jobs import Pause
from darner_core.operations.client import Client
from darner_core.operations.operations import Operations
from darner_core.protocols.contract import READS, Reply
from darner_core.protocols.escaping import name_elsewhere
from darner_core.protocols.guard import require_admin
from darner_core.protocols.resp import replies
from darner_core.protocols.resp.acting import Acting
from darner_core.protocols.resp.adding import NEVER_AGAIN_MS, ttl_of
from darner_core.protocols.resp.ids import JobIds
from darner_core.protocols.resp.naming import integer_of, queue_of
from darner_core.protocols.resp.reader import Entry, RespRequest
from darner_core.protocols.resp.replies import RespError
from darner_core.protocols.resp.room import ReplyRoom
from darner_core.protocols.resp.scans import NONE, Cursors, Names
from darner_core.protocols.resp.session import RespSession
from darner_core.protocols.resp.taken import TakenJob, TakenJobs

MOST_PEEKED: Final = 1000
PEEKED_BYTES: Final = 1 << 20
SCANNED_AT_ONCE: Final = 1000  # queues, or jobs, that one turn looks at
MOST_SCANNED: Final = 10_000  # in one reply
DEFAULT_SCANNED: Final = 100
LOOKS_AT_ONCE: Final = 50  # for jobs in a turn: 3 ms, if each finds some
JOBS_AT_ONCE: Final = 100
WHOLE_AT_ONCE: Final = 10  # with their bodies

_STATES: Final = {
    b"wait-repl": (), b"active": (State.OPEN, State.DELAYED), b"queued": (State.READY,), b"acked": (),
    b"buried": (State.BURIED,),
}  # fmt: skip
_ALL: Final = (State.READY, State.DELAYED, State.BURIED, State.OPEN)

_PAUSES: Final = {b"in": Pause.IN, b"out": Pause.OUT, b"all": Pause.ALL, b"none": Pause.NONE}


class ScannedQueues(NamedTuple):
    most: int = DEFAULT_SCANNED
    busy: bool = False
    min_len: int = 0
    max_len: int = 2**63
    import_rate: int = 0


class Queues:
    """The commands, bound to the queues."""

    def __init__(self, operations: Operations, ids: JobIds, acting: Acting, taken: TakenJobs) -> None:
        self._room = ReplyRoom(operations.pipeline_memory)
        self._queues = operations.queues
        self._statistics = operations.statistics
        self._jobs = operations.jobs
        self._stats = operations.stats
        self._items = operations.items
        self._time_ms = operations.time_ms
        self._ids = ids
        self._acting = acting
        self._taken = taken
        self._cursors = Cursors()
        self._names = Names(operations.statistics)

    def entries(self) -> dict[bytes, Entry]:
        return {
            b"qlen": Entry(self.length, 1, 1),
            b"qstat": Entry(self.stat, 1, 1),
            b"qpeek": Entry(self.peek, 2, 2, READS, True),
            b"qscan": Entry(self.scan),
            b"jscan": Entry(self.scan_jobs),
            b"pause": Entry(self.pause, 2),
        }

    def length(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        queue = self._queues.get(queue_of(request.arguments[0], session, GET))
        return replies.integer(queue.waiting_items if queue is not None else 0)

    def stat(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        name = request.arguments[0]
        queue_name = queue_of(name, session, GET)
        queue = self._queues.get(queue_name)
        waiters = self._statistics.waiters(queue_name)
        if queue is None and not waiters:
            return session.nil_array
        age_s = idle_s = length = total = gone = 0
        if queue is not None:
            length, total = queue.waiting_items, queue.total_items
            age_s = max(0, self._time_ms() - queue.created_at_ms) // 1000
            idle_s = self._statistics.age_ms(queue) // 1000
            figures = self._jobs.figures(queue_name)
            gone = max(0, total - length - queue.open_reads - figures.get(b"delayed", 0) - figures.get(b"buried", 0))
        told = (
            (b"name", replies.bulk(name)),
            (b"len", replies.integer(length)),
            (b"age", replies.integer(age_s)),
            (b"idle", replies.integer(idle_s)),
            (b"blocked", replies.integer(waiters)),
            (b"import-from", replies.EMPTY),
            (b"import-rate", replies.integer(0)),
            (b"jobs-in", replies.integer(total)),
            (b"jobs-out", replies.integer(gone)),
            (b"pause", replies.bulk(self._jobs.paused(queue_name)[0].value.encode())),
        )
        return b"*%d\r\n%b" % (2 * len(told), b"".join(replies.bulk(key) + value for key, value in told))

    def peek(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        """`QPEEK <queue> <count>`: the jobs that come first; with a count below zero those that come last, the last
        one first."""
        name = request.arguments[0]
        queue, count = queue_of(name, session, GET), integer_of(request.arguments[1])
        found: list[bytes] = []
        size = 0
        self._stats.cmd_peek += 1
        session.look()
        looked_at = self._items.look(queue, most=min(abs(count), MOST_PEEKED), backwards=count < 0)
        session.look(len(looked_at))
        for seen in looked_at:
            item = self._items.item(queue, seen.id)
            if item is None or not isinstance(item[0], bytes):  # a large one is read by GETJOB
                continue
            size += seen.body_bytes
            if found and size > self._room.most(PEEKED_BYTES):
                break
            parts = (replies.bulk(name), replies.bulk(self.id_of(queue, seen)), replies.bulk(item[0]))
            found.append(replies.array(parts))
        return replies.array(found)

    def id_of(self, queue: bytes, seen: Seen) -> bytes:
        """The id by which clients know this job."""
        return self._ids.make(self._items.queue_number(queue), seen.id, ttl_of(seen), seen.ttr_ms < NEVER_AGAIN_MS)

    def pause(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        """`PAUSE <queue> in|out|all|none|state|bcast ...`; the reply is the state then."""
        name, *words = request.arguments
        queue = queue_of(name, session)
        pause, _ = self._jobs.paused(queue)
        asked = pause
        for word in map(bytes.lower, words):
            if word in (b"state", b"bcast"):
                continue
            if word not in _PAUSES:
                raise RespError("syntax error")
            asked = _together(asked, _PAUSES[word])
        if asked is not pause or any(word.lower() in _PAUSES for word in words):
            session.require(ADMIN, queue)
            request.key = name
            require_admin(request, session)
            if queue not in self._queues:
                return replies.simple(b"none")
            self._jobs.pause(queue, asked, 0)
        return replies.simple(asked.value.encode())

    # -- scans

    def scan(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        """`QSCAN [<cursor>] [COUNT n] [BUSYLOOP] [MINLEN n] [MAXLEN n] [IMPORTRATE n]`: the names of queues."""
        cursor, words = _cursor_first(request.arguments)
        asked = _read_queue_scan(words)
        begin = self._cursors.find(cursor, "invalid cursor or option name")
        if session.executes:
            raise RespError("QSCAN cannot be in a transaction")
        return partial(self._wait_scan, asked, begin)

    def _wait_scan(self, asked: ScannedQueues, place: Any, client: Client) -> bytes:
        """Names in the order in which queues were made."""
        names: list[bytes] = []
        at = self._names.begin(place)
        most = MOST_SCANNED if asked.busy else min(asked.most, MOST_SCANNED)
        while True:
            some = list(islice(self._queues, at, at + min(SCANNED_AT_ONCE, most)))
            at += len(some)
            names += [name for name in some if self._fits(asked, name) and client.may_see(name)]
            if not some or at >= len(self._queues) or not asked.busy or len(names) >= most:
                break
            place = self._names.place(at)
            client.wait_turn()
            at = self._names.begin(place)
        next_one = self._cursors.give(self._names.place(at)) if at < len(self._queues) else NONE
        return replies.array((replies.bulk(next_one), replies.bulks(map(name_elsewhere, names))))

    def _fits(self, asked: ScannedQueues, name: bytes) -> bool:
        queue = self._queues.get(name)
        return (
            queue is not None
            and not queue.unreadable
            and not asked.import_rate
            and asked.min_len <= queue.waiting_items <= asked.max_len
        )

    def scan_jobs(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        """`JSCAN [<cursor>] [COUNT n] [BUSYLOOP] [QUEUE q] [STATE s]... [REPLY all|id]`"""
        cursor, words = _cursor_first(request.arguments)
        asked = _read_job_scan(words, session)
        place = self._cursors.find(cursor, "invalid cursor or option name")
        if session.executes:
            raise RespError("JSCAN cannot be in a transaction")
        return partial(self._wait_scan_jobs, asked, place)

    def _wait_scan_jobs(self, asked: "ScannedJobs", place: Any, client: Client) -> bytes:
        """Jobs by their queues, states and places; `place`: where in the names of queues it goes on, how many states
        are done there, and behind which position. Jobs that were delivered and will not be again come first."""
        session: Any = client.session
        most = MOST_SCANNED if asked.busy else min(asked.most, MOST_SCANNED)
        found, number, state, after = self._begin_scan(asked, most, place, client)
        size = sum(map(len, found))
        _, deletes = self._names.place(0)  # until now: what is deleted later is among the names all the same
        names = [asked.queue] if asked.queue else list(self._queues)  # pointers alone: 100,000 in 1 ms
        looks = 0
        while len(found) < most and size < self._room.most(PEEKED_BYTES) and number < len(names):
            name = names[number]
            if state >= len(asked.states) or not client.may(GET, name):
                number, state, after = number + 1, 0, None
                looks += 1
            else:
                at_once = WHOLE_AT_ONCE if asked.whole else JOBS_AT_ONCE
                seen = self._items.look(name, asked.states[state], after, min(at_once, most - len(found)))
                some = [one for one in (self._scanned(asked, name, each, session) for each in seen) if one]
                found += some
                size += sum(map(len, some))
                after = seen[-1].position if seen else None
                state += not seen
                looks += 10 if seen else 1
            if looks >= LOOKS_AT_ONCE:
                looks = 0
                client.wait_turn()
        goes_on = number < len(names)
        next_one = self._cursors.give(((number, deletes), state, after)) if goes_on else NONE
        return replies.array((replies.bulk(next_one), replies.array(found)))

    def _begin_scan(
        self, asked: "ScannedJobs", most: int, place: Any, client: Client
    ) -> tuple[list[bytes], int, int, Any]:
        if place is None:
            return self._taken_jobs(asked, most, client), 0, 0, None
        names, state, after = place
        number = self._names.begin(names)
        return ([], number, state, after) if number == names[0] else ([], number, 0, None)

    def _taken_jobs(self, asked: "ScannedJobs", most: int, client: Client) -> list[bytes]:
        session: Any = client.session
        if State.OPEN not in asked.states:
            return []
        jobs = (job for job in self._taken.some(most) if asked.queue in (b"", job.queue) and client.may(GET, job.queue))
        tell = partial(self._acting.shown_taken, session=session) if asked.whole else self._id_of_taken
        return [tell(job) for job in jobs]

    def _id_of_taken(self, job: TakenJob) -> bytes:
        return replies.simple(self._acting.id_of_taken(job))

    def _scanned(self, asked: "ScannedJobs", name: bytes, seen: Seen, session: RespSession) -> bytes:
        job_id = self.id_of(name, seen)
        return self._acting.shown(name, seen.id, job_id, session) if asked.whole else replies.simple(job_id)


class ScannedJobs(NamedTuple):
    most: int = DEFAULT_SCANNED
    busy: bool = False
    queue: bytes = b""  # b"": all of them
    states: tuple[State, ...] = _ALL
    whole: bool = False


def _cursor_first(words: Sequence[bytes]) -> tuple[bytes, list[bytes]]:
    if words and re.fullmatch(rb"\d+", words[0]):
        return words[0], list(words[1:])
    return NONE, list(words)


def _options(words: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """(name, value) of each; the value of BUSYLOOP is b"". Raises RespError."""
    while words:
        name = words.pop(0).upper()
        if name == b"BUSYLOOP":
            yield name, b""
        elif not words:
            raise RespError("invalid cursor or option name" if not name.isdigit() else "syntax error")
        else:
            yield name, words.pop(0)


def _count(value: bytes) -> int:
    number = integer_of(value)
    if number < 1:
        raise RespError("COUNT must be a number greater than zero")
    return number


def _read_queue_scan(words: list[bytes]) -> ScannedQueues:
    asked = ScannedQueues()
    for name, value in _options(words):
        if name == b"BUSYLOOP":
            asked = asked._replace(busy=True)
        elif name == b"COUNT":
            asked = asked._replace(most=_count(value))
        elif name == b"MINLEN":
            asked = asked._replace(min_len=integer_of(value))
        elif name == b"MAXLEN":
            asked = asked._replace(max_len=integer_of(value))
        elif name == b"IMPORTRATE":
            asked = asked._replace(import_rate=integer_of(value))
        else:
            raise RespError("invalid cursor or option name")
    return asked


def _read_job_scan(words: list[bytes], session: RespSession) -> ScannedJobs:
    asked = ScannedJobs()
    states: tuple[State, ...] = ()
    has_states = False
    for name, value in _options(words):
        if name == b"BUSYLOOP":
            asked = asked._replace(busy=True)
        elif name == b"COUNT":
            asked = asked._replace(most=_count(value))
        elif name == b"QUEUE":
            asked = asked._replace(queue=queue_of(value, session, GET))
        elif name == b"STATE":
            if value.lower() not in _STATES:
                raise RespError("Invalid job state name")
            has_states, states = True, (*states, *_STATES[value.lower()])
        elif name == b"REPLY":
            if value.lower() not in (b"all", b"id"):
                raise RespError("Invalid REPLY type, try ID or ALL")
            asked = asked._replace(whole=value.lower() == b"all")
        else:
            raise RespError("invalid cursor or option name")
    return asked._replace(states=states) if has_states else asked


def _together(now: Pause, word: Pause) -> Pause:
    """`in` and `out` one after the other are `all`, as in Disque."""
    if word is Pause.NONE or now is Pause.NONE or word is Pause.ALL:
        return word
    return now if now is word else Pause.ALL
