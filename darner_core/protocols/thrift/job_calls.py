"""What the calls of kestrel.thrift do that are about jobs. See `calls` for what a call is."""

from typing import Any

from darner_core.engines.contract import Read
from darner_core.engines.jobs import MAX_DELAY_MS, MAX_KEY_BYTES, MAX_PRI, JobOptions, Pause
from darner_core.errors import MalformedRequest
from darner_core.operations.job_put import JobPut
from darner_core.operations.operations import Operations
from darner_core.operations.session import Session
from darner_core.protocols.grammar import excerpt
from darner_core.protocols.thrift.calls import Calls
from darner_core.protocols.thrift.messages import Idl, ThriftRequest

# How long a client that does not say may keep an item, if neither the item nor its queue says anything. Other clients
# lose what they have open with their connection; here nothing but time gives it back.
DEFAULT_TTR_MS = 60_000

# The longest that anybody may keep an item here without touching it, whatever the item says: 24 days, what
# auto_abort_msec can say. A client that never comes back must not keep it for ever.
MAX_LENT_MS = 2**31 - 1

MAX_ITEMS = 2**31 - 1

# The IDL's pauses by ours.
_PAUSES = {Pause.NONE: "NOTHING", Pause.IN: "PUTS", Pause.OUT: "GETS", Pause.ALL: "BOTH"}


class JobCalls:
    """The calls, bound to the operations. `calls`: those that are not about jobs."""

    def __init__(self, operations: Operations, idl: Idl, calls: Calls) -> None:
        self._queues = operations.queues
        self._jobs = operations.jobs
        self._lending = operations.lending
        self._calls = calls
        self._structs = idl.module

    # -- putting

    def put_jobs(self, request: ThriftRequest, session: Session) -> Any:
        return self._calls.put_all(request, session, request.arguments.items, self._job_put(request))

    def put_unique(self, request: ThriftRequest, session: Session) -> Any:
        key = request.arguments.key
        if not 1 <= len(key) <= MAX_KEY_BYTES:
            raise MalformedRequest(f'put_unique: key "{excerpt(key)}" of {len(key)} bytes: 1 to {MAX_KEY_BYTES}')
        put_one, results = self._job_put(request, key), self._structs.PutResult

        def result(stored: int) -> Any:
            return results.KEY_TAKEN if put_one.key_taken else results.DONE if stored else results.REFUSED

        stored = self._calls.put_all(request, session, [request.arguments.item], put_one)
        return (lambda client: result(stored(client))) if callable(stored) else result(stored)

    def _job_put(self, request: ThriftRequest, key: bytes = b"") -> JobPut:
        delay_ms, ttr_ms = (_number(request, name, MAX_DELAY_MS) for name in ("delay_msec", "ttr_msec"))
        options = JobOptions(delay_ms, _number(request, "priority", MAX_PRI), ttr_ms, key)
        return JobPut(self._jobs, request.queue, options, request.parent != b"")

    # -- what is open

    def get_jobs(self, request: ThriftRequest, session: Session) -> Any:
        given_ms = _number(request, "ttr_msec", MAX_LENT_MS)

        def lasts_ms(read: Read) -> int:
            return given_ms or min(self._lending.lasts_ms(read, otherwise_ms=DEFAULT_TTR_MS), MAX_LENT_MS)

        return self._calls.take(request, session, lasts_ms)

    def touch(self, request: ThriftRequest, session: Session) -> Any:
        ttr_ms = _number(request, "ttr_msec", MAX_LENT_MS)
        return self._lending.touch(request.queue, request.arguments.ids, ttr_ms)

    def abort_later(self, request: ThriftRequest, session: Session) -> Any:
        delay_ms = _number(request, "delay_msec", MAX_DELAY_MS, "-1: as the options of the queue say")
        pri = _number(request, "priority", MAX_PRI, "-1: the one that it has")
        return self._lending.abort_later(
            request.queue, request.arguments.ids, None if delay_ms < 0 else delay_ms, None if pri < 0 else pri
        )

    def reject(self, request: ThriftRequest, session: Session) -> Any:
        return self._lending.reject(request.queue, request.arguments.ids)

    # -- queues

    def kick(self, request: ThriftRequest, session: Session) -> Any:
        most = _number(request, "max_items", MAX_ITEMS)
        return lambda client: self._jobs.wait_kick(client, request.queue, most)

    def pause(self, request: ThriftRequest, session: Session) -> None:
        what = next((ours for ours, name in _PAUSES.items() if self._shown(name) == request.arguments.what), None)
        if what is None:
            raise MalformedRequest(f"pause: what {request.arguments.what}: it can be {', '.join(_PAUSES.values())}")
        duration_ms = _number(request, "duration_msec", MAX_DELAY_MS)
        if what is Pause.NONE and duration_ms:
            raise MalformedRequest("pause: NOTHING with a duration_msec: it ends the pause at once")
        self._jobs.pause(request.queue, what, -(-duration_ms // 1000))

    def peek_jobs(self, request: ThriftRequest, session: Session) -> Any:
        figures, queue = self._jobs.figures(request.queue), self._queues.get(request.queue)
        if not figures and queue is not None:  # it uses nothing of jobs
            figures = {b"ready": queue.waiting_items, b"reserved": queue.open_reads}
        names = [name for _, name, *_ in self._structs.JobsInfo.thrift_spec.values()]
        return self._structs.JobsInfo(**{name: figures.get(name.encode(), 0) for name in names})

    def _shown(self, name: str) -> int:
        return int(getattr(self._structs.Pause, name))


def _number(request: ThriftRequest, name: str, highest: int, or_else: str = "") -> int:
    """The argument of this name, from 0 to `highest`; with `or_else`, which says what it means, -1 too."""
    found: int = getattr(request.arguments, name)
    if (-1 if or_else else 0) <= found <= highest:
        return found
    allowed = f"a number from 0 to {highest}{or_else and ', or '}{or_else}"
    raise MalformedRequest(f"{request.verb.decode()}: {name} {found}: {allowed}")
