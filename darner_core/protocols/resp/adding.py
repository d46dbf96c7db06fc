"""ADDJOB: how a job of Disque is put.

There is one node, so that a job cannot be replicated. How long a job lives is when its item expires; how long a worker
may keep it is the item's time to run.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from darner_core.access.rights import PUT
from darner_core.config.options import Config
from darner_core.engines.items import Seen
from darner_core.engines.jobs import MAX_DELAY_MS, MAX_KEY_BYTES, MAX_PRI, NEUTRAL, JobOptions, Outcome, Pause, Placed
from darner_core.errors import ServerError
from darner_core.operations.client import Client
from darner_core.operations.operations import Operations
from darner_core.operations.putting import LargePut
from darner_core.protocols.contract import WRITES, Reply
from darner_core.protocols.grammar import excerpt
from darner_core.protocols.resp import replies
from darner_core.protocols.resp.ids import JobIds
from darner_core.protocols.resp.naming import integer_of, queue_of, unknown_option
from darner_core.protocols.resp.reader import Entry, RespRequest
from darner_core.protocols.resp.replies import RespError
from darner_core.protocols.resp.session import RespSession

DEFAULT_TTL_S: Final = 86_400
DEFAULT_RETRY_S: Final = 300
MAX_S: Final = MAX_DELAY_MS // 1000

# The time to run of a job that is delivered once at most: no reader's time is ever over.
NEVER_AGAIN_MS: Final = 2**62


def ttl_of(seen: Seen) -> int:
    """How long the job was to live when it was put, in seconds."""
    return (seen.expires_at_ms - seen.added_at_ms) // 1000 if seen.expires_at_ms else DEFAULT_TTL_S


_OPTIONS: Final = "REPLICATE, DELAY, RETRY, TTL, MAXLEN, ASYNC, PRI and KEY"


class JobWords(NamedTuple):
    """What ADDJOB is told behind the queue, the body and the timeout."""

    replicate: int = 1
    delay_s: int = 0
    retry_s: int | None = None
    ttl_s: int = DEFAULT_TTL_S
    max_len: int = 0
    pri: int = NEUTRAL
    key: bytes = b""

    @property
    def retry(self) -> int:
        """How long a worker may keep the job; 0: it is delivered once at most."""
        return max(1, min(DEFAULT_RETRY_S, self.ttl_s // 10)) if self.retry_s is None else self.retry_s


def read_job_words(words: Sequence[bytes]) -> JobWords:
    """Raises RespError."""
    found = JobWords()
    rest = list(words)
    while rest:
        option = rest.pop(0)
        name = option.upper()
        if name == b"ASYNC":
            continue
        if name not in _READERS and name != b"KEY":
            raise unknown_option(option, _OPTIONS)
        if not rest:
            raise RespError("syntax error")
        value = rest.pop(0)
        if name == b"KEY":
            if not 0 < len(value) <= MAX_KEY_BYTES:
                raise RespError(f"KEY of {len(value)} bytes: 1 to {MAX_KEY_BYTES}")
            found = found._replace(key=value)
            continue
        field, least, most, error = _READERS[name]
        number = integer_of(value, error)
        if not least <= number <= most:
            raise RespError(error)
        changed: Any = {field: number}
        found = found._replace(**changed)
    return found


_READERS: Final[dict[bytes, tuple[str, int, int, str]]] = {
    b"REPLICATE": ("replicate", 1, 65_535, "REPLICATE must be between 1 and 65535"),
    b"DELAY": ("delay_s", 0, MAX_S, "DELAY time must be a non negative number"),
    b"RETRY": ("retry_s", 0, MAX_S, "RETRY time must be a non negative number"),
    b"TTL": ("ttl_s", 1, MAX_S, "TTL must be a number > 0"),
    b"MAXLEN": ("max_len", 1, 2**63 - 1, "MAXLEN must be a positive number"),
    b"PRI": ("pri", 0, MAX_PRI, f"PRI must be a number from 0 to {MAX_PRI}, 0 goes first"),
}


class Adding:
    """The command, bound to the queues."""

    def __init__(self, operations: Operations, config: Config, ids: JobIds) -> None:
        self._stats = operations.stats
        self._queues = operations.queues
        self._putting = operations.putting
        self._jobs = operations.jobs
        self._items = operations.items
        self._time_ms = operations.time_ms
        self._chunk_bytes = config.chunk_bytes
        self._ids = ids

    def entries(self) -> dict[bytes, Entry]:
        return {b"addjob": Entry(self.add_job, 3, None, WRITES)}

    def add_job(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        name, data, timeout, *words = request.arguments
        asked = self._asked(words, timeout)
        queue = queue_of(name, session, PUT)
        self._stats.cmd_set += 1
        self._require_taken(queue, name, len(data), asked)
        if len(data) <= self._chunk_bytes:
            placed = self._jobs.put(session, (queue,), data, 0, self._expires_at_ms(asked), _options(asked))
            return self._added(placed, name, asked)
        if session.executes:
            raise RespError(f"a job of more than {self._chunk_bytes} bytes cannot be added in a transaction")
        return partial(self._wait_add, queue, name, data, asked)

    @staticmethod
    def _asked(words: Sequence[bytes], timeout: bytes) -> JobWords:
        asked = read_job_words(words)
        if integer_of(timeout, "timeout is not an integer or out of range") < 0:
            raise RespError("timeout is negative")
        if asked.retry == 0 and asked.replicate > 1:
            raise RespError("With RETRY set to 0 please explicitly set  REPLICATE to 1 (at-most-once delivery)")
        if asked.delay_s > asked.ttl_s:
            raise RespError("The specified DELAY is greater than TTL. Job refused since would never be delivered")
        if asked.replicate > 1:
            raise RespError("Not enough reachable nodes for the requested replication level", "NOREPL")
        return asked

    def _require_taken(self, queue: bytes, name: bytes, size: int, asked: JobWords) -> None:
        """Raises RespError if the job cannot be taken now."""
        try:
            self._putting.require_taken(size)
        except ServerError as error:
            raise RespError(str(error), "OOM") from None
        found = self._queues.get(queue)
        if asked.max_len and found is not None and found.waiting_items >= asked.max_len:
            raise RespError("Queue is already longer than the specified MAXLEN count", "MAXLEN")
        if self._jobs.paused(queue)[0] in (Pause.IN, Pause.ALL):
            raise RespError("Queue paused in input, try later", "PAUSED")

    def _wait_add(self, queue: bytes, name: bytes, data: bytes, asked: JobWords, client: Client) -> bytes:
        """A job that is stored in chunks."""
        session: Any = client.session
        with self._putting.large((queue,), len(data), as_child=False) as item:
            if not item.wait_begin(client):
                raise _full(name)
            wait_store(item, data, client)
            expires_at_ms = self._expires_at_ms(asked)
            return self._added(
                self._jobs.put_large(session, (queue,), item, 0, expires_at_ms, _options(asked)), name, asked
            )

    def _added(self, placed: Placed, name: bytes, asked: JobWords) -> bytes:
        if placed.outcome is Outcome.FULL:
            raise _full(name)
        number = self._items.queue_number(placed.queue)
        return replies.simple(self._ids.make(number, placed.id, asked.ttl_s, asked.retry > 0))

    def _expires_at_ms(self, asked: JobWords) -> int:
        return self._time_ms() + asked.ttl_s * 1000


def _full(name: bytes) -> RespError:
    return RespError(f"queue {excerpt(name)} is full: one of its limits allows no more", "MAXLEN")


def _options(asked: JobWords) -> JobOptions:
    return JobOptions(asked.delay_s * 1000, asked.pri, asked.retry * 1000 or NEVER_AGAIN_MS, asked.key)


def wait_store(item: LargePut, data: bytes, client: Client) -> None:
    """Store a value that is in memory whole, but is large, piece by piece. Raises ServerError or StorageError. Switches
    greenlets."""
    at = 0
    while wanted_bytes := item.wanted_bytes:
        item.wait_add(client, data[at : at + wanted_bytes])
        at += wanted_bytes
        client.wait_turn()
    item.wait_store(client)
    item.require_queues()
