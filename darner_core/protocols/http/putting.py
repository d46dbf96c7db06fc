"""Putting items: one as it is, or many as lines of JSON. Names that begin with wait_, and endpoints, may switch."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from darner_core.access.rights import PUT
from darner_core.config.options import Config
from darner_core.engines.jobs import JobOptions, Outcome, Pause, Placed
from darner_core.errors import RequestError, StorageError
from darner_core.operations.client import RIGHTS_GONE
from darner_core.operations.operations import Operations
from darner_core.operations.putting import JOBS_A_TURN
from darner_core.protocols.http import bodies, parameters, schemas
from darner_core.protocols.http.contract import (
    BYTES,
    CREATED,
    NDJSON,
    WRITES,
    Answer,
    Asked,
    Endpoint,
    Parameter,
    Problem,
)
from darner_core.protocols.http.problems import problem_of
from darner_core.protocols.http.schemas import as_json

_PARAMETERS: Final[Mapping[str, Parameter]] = {
    "delay": parameters.DELAY,
    "pri": parameters.PRI,
    "ttr": parameters.TTR,
    "ttl": parameters.TTL,
    "key": parameters.KEY,
    "if": parameters.word("absent: 409 if the queue has an item with this key.", "absent"),
}

# A line of NDJSON has an item in base64 at most, and some options.
_LINE_OVERHEAD_BYTES: Final = 4096


class Putting:
    def __init__(self, operations: Operations, config: Config) -> None:
        self._putting = operations.putting
        self._jobs = operations.jobs
        self._items = operations.items
        self._stats = operations.stats
        self._time_ms = operations.time_ms
        self._availability = operations.availability
        self._chunk_bytes = config.chunk_bytes
        self._max_item_bytes = config.max_item_bytes

    def endpoints(self) -> Sequence[Endpoint]:
        return (
            Endpoint(
                "POST", "/api/v1/queues/{queue}/items", self.put,
                "Put an item, or many as NDJSON: a line each with body or body_base64, and delay, pri, ttr, ttl, key.",
                PUT, WRITES, _PARAMETERS,
                {BYTES: {"type": "string", "format": "binary"}, NDJSON: {"type": "string"}},
                {201: "It is put.", 200: "An item with this key is there; nothing was put.",
                 409: "Its key is taken, or the queue is paused.",
                 411: "A large body must say its size.", 413: "The item is too large.",
                 507: "There is no room."},
                changes=True,
                shapes={
                    200: as_json(schemas.PUT_ONE),
                    201: as_json({"anyOf": [schemas.PUT_ONE, schemas.PUT_MANY]}),
                },
            ),
        )  # fmt: skip

    def put(self, asked: Asked) -> Answer:
        kind = asked.env.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
        if kind == NDJSON:
            return self._wait_put_lines(asked)
        told = asked.told
        size = bodies.size_of(asked.env)
        if size is not None and size > self._max_item_bytes:
            raise self._too_large(size)
        self._require_taken(asked)
        options = _options(told)
        if size is not None and size > self._chunk_bytes:
            placed = self._wait_put_large(asked, size, options, told.get("ttl"))
        else:
            body = bodies.wait_whole(asked.env, min(self._chunk_bytes, self._max_item_bytes), "an item")
            asked.client.go_on()  # a turn that failed meanwhile is told before anything is put, not after it
            self._require_taken(asked)
            placed = self._put(asked, body, options, told.get("ttl"))
        return self._told(asked, placed)

    def _put(self, asked: Asked, body: bytes, options: JobOptions, ttl_ms: int | None) -> Placed:
        self._stats.cmd_set += 1
        return self._jobs.put(asked.session, (asked.queue,), body, 0, self._expires_at_ms(ttl_ms), options)

    def _wait_put_large(self, asked: Asked, size: int, options: JobOptions, ttl_ms: int | None) -> Placed:
        """Piece by piece as it comes: it is never whole in memory."""
        client, queues = asked.client, (asked.queue,)
        self._stats.cmd_set += 1
        if options.key:
            placed = self._jobs.answer_of_key(asked.session, queues, options.key)
            if placed is not None:
                return placed
        with self._putting.large(queues, size, as_child=False) as item:
            if not item.wait_begin(client):
                return Placed(Outcome.FULL, asked.queue)
            missing = size
            while missing and (wanted := item.wanted_bytes):
                data = bodies.wait_some(asked.env, min(wanted, missing, bodies.PIECE_BYTES))
                client.go_on()  # the body may have been waited for
                missing -= len(data)
                item.wait_add(client, data)
            item.wait_store(client)
            item.require_queues()
            return self._jobs.put_large(asked.session, queues, item, 0, self._expires_at_ms(ttl_ms), options)

    # -- many

    def _wait_put_lines(self, asked: Asked) -> Answer:
        """Each line is put as it comes. If one is wrong, those before it stay: the problem says how many."""
        if asked.told:
            said = f"parameter {next(iter(asked.told))}: with {NDJSON} each line says its own"
            raise Problem(HTTPStatus.BAD_REQUEST, said)
        client = asked.client
        ids: list[str] = []
        written = 0  # how many lines have been dealt with, and written
        turns = client.turns
        lines = bodies.wait_lines(asked.env, 2 * self._chunk_bytes + _LINE_OVERHEAD_BYTES)
        stored: list[bool] = []
        try:
            for line in lines:
                client.go_on()
                if client.turns != turns:
                    turns, written = client.turns, len(ids)
                self._require_taken(asked)
                placed = self._put_line(asked, line)
                if placed.outcome is Outcome.FULL:
                    raise self._full(asked.queue)
                stored.append(placed.outcome is Outcome.STORED)
                ids.append(self._id(placed))
                if len(ids) % JOBS_A_TURN == 0:
                    client.wait_turn()
            client.wait_written()
        except (Problem, RequestError, StorageError) as error:
            problem = problem_of(error)
            if isinstance(error, Problem):  # else the turn of the last lines could not be written
                client.wait_written()
                written = len(ids)
            raise Problem(
                problem.status, f"line {written + 1}: {problem.detail}", problem.headers,
                put=sum(stored[:written]), ids=ids[:written],
            ) from None  # fmt: skip
        return Answer({"put": sum(stored), "ids": ids}, CREATED)

    def _put_line(self, asked: Asked, line: bytes) -> Placed:
        try:
            found = json.loads(line)
            if not isinstance(found, dict):
                raise ValueError('a line must be an object, as in {"body": "text"}')
            bodies.require_keys(found, "body", "body_base64", "delay", "pri", "ttr", "ttl", "key")
            body = bodies.item_in_json(found)
            told = {name: _of_line(name, found[name]) for name in found if name not in ("body", "body_base64")}
        except (ValueError, RecursionError) as error:
            raise Problem(HTTPStatus.BAD_REQUEST, str(error)) from None
        if len(body) > min(self._chunk_bytes, self._max_item_bytes):
            said = f"an item of {len(body)} bytes: at most {min(self._chunk_bytes, self._max_item_bytes)} in a line"
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{said}; a larger one is put alone")
        return self._put(asked, body, _options(told), told.get("ttl"))

    # -- what it has come to

    def _told(self, asked: Asked, placed: Placed) -> Answer:
        if placed.outcome is Outcome.FULL:
            raise self._full(asked.queue)
        found = {"id": self._id(placed)}
        if placed.outcome is Outcome.KEY_TAKEN:
            if "if" in asked.told:
                raise Problem(HTTPStatus.CONFLICT, "the queue has an item with this key", id=found["id"])
            return Answer({**found, "put": 0})
        return Answer(found, CREATED)

    def _id(self, placed: Placed) -> str:
        return str(self._items.number(placed.queue, placed.id)) if placed.id else ""

    def _require_taken(self, asked: Asked) -> None:
        """To be asked again when a body has come: the status, rights and the disk may have changed meanwhile."""
        why = self._availability.no_writes or asked.client.no_writes
        if why:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, why, {"Retry-After": "1"})
        if not asked.client.may(PUT, asked.queue):
            raise Problem(HTTPStatus.FORBIDDEN, RIGHTS_GONE)
        no_room = self._availability.no_room
        if no_room:
            is_failing = no_room.startswith("cannot write")
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE if is_failing else HTTPStatus.INSUFFICIENT_STORAGE, no_room)

    def _full(self, queue: bytes) -> Problem:
        if self._jobs.paused(queue)[0] in (Pause.IN, Pause.ALL):
            return Problem(HTTPStatus.CONFLICT, "the queue is paused: it takes no items")
        return Problem(HTTPStatus.INSUFFICIENT_STORAGE, "the queue is full: one of its limits allows no more")

    def _too_large(self, size: int) -> Problem:
        said = f"an item of {size} bytes: max_item_bytes allows {self._max_item_bytes}"
        return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, said)

    def _expires_at_ms(self, ttl_ms: int | None) -> int:
        return self._time_ms() + ttl_ms if ttl_ms else 0


_OF_OPTIONS: Final = {"delay": "delay_ms", "pri": "pri", "ttr": "ttr_ms", "key": "key"}
_PLAIN: Final = JobOptions()


def _options(told: Mapping[str, Any]) -> JobOptions:
    if not told:
        return _PLAIN
    return JobOptions(**{_OF_OPTIONS[name]: value for name, value in told.items() if name in _OF_OPTIONS})


def _of_line(name: str, value: Any) -> Any:
    """An option in a line, read as the parameter of that name. Raises ValueError."""
    as_text = partial(_PARAMETERS[name].read)
    try:
        if name == "key":
            if not isinstance(value, str):
                raise ValueError("a string")
            return as_text(value.encode("utf-8", "surrogatepass").decode("latin-1"))
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError("a whole number")
        return as_text(str(value))
    except ValueError as error:
        raise ValueError(f"{name}: must be {error}") from None
