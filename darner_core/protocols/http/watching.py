"""What happens to queues, as server-sent events, for as long as the client listens. Switches greenlets."""

import json
import time
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any, Final

from darner_core.access.rights import ADMIN, FREE
from darner_core.engines.contract import Event
from darner_core.operations.operations import Operations
from darner_core.protocols.http import parameters
from darner_core.protocols.http.admission import Admission
from darner_core.protocols.http.contract import EVENTS, Answer, Asked, Endpoint, Problem
from darner_core.protocols.http.names import path_of, shown
from darner_core.protocols.http.schemas import AS_EVENTS
from darner_core.protocols.http.taking import in_json

# A comment goes out when nothing has happened for so long, so that nobody between takes the connection for dead.
HEARTBEAT_S: Final = 15.0

MAX_QUEUES: Final = 100


class Watching:
    def __init__(self, operations: Operations, admission: Admission) -> None:
        self._watching = operations.watching
        self._admission = admission

    def endpoints(self) -> Sequence[Endpoint]:
        answers = {200: "Events without end: put, get, open, close, abort, expire, bury, dead, ..., each with JSON."}
        shapes = {200: AS_EVENTS}
        return (
            Endpoint("GET", "/api/v1/queues/{queue}/watch", self.one, "What happens to a queue.", ADMIN,
                answers=answers, shapes=shapes),
            Endpoint("GET", "/api/v1/watch", self.several, "What happens to several queues.", FREE,
                parameters={"q": parameters.QUEUES}, answers=answers, shapes=shapes),
        )  # fmt: skip

    def one(self, asked: Asked) -> Answer:
        return self._watch(asked, (asked.queue,))

    def several(self, asked: Asked) -> Answer:
        queues = tuple(dict.fromkeys(asked.told.get("q", ())))
        if not 1 <= len(queues) <= MAX_QUEUES:
            raise Problem(HTTPStatus.BAD_REQUEST, f"parameter q: 1 to {MAX_QUEUES} names of queues, as in ?q=a&q=b")
        for queue in queues:
            self._admission.require(asked.client, ADMIN, queue)
        return self._watch(asked, queues)

    def _watch(self, asked: Asked, queues: tuple[bytes, ...]) -> Answer:
        self._admission.require_admin(asked.client, "watch", looks=True)
        return Answer(kind=EVENTS, pieces=self._wait_events(asked, queues))

    def _wait_events(self, asked: Asked, queues: tuple[bytes, ...]) -> Iterator[bytes]:
        yield b": what happens from now on\n\n"
        spoken = time.monotonic()
        for told in self._watching.wait_told(asked.client, queues):
            pieces = [_written(event, told.with_bodies) for event in told.events]
            if told.missed:
                pieces.append(_event("missed", {"events": told.missed}))
            now = time.monotonic()
            if not pieces and now - spoken >= HEARTBEAT_S:
                pieces = [b": nothing has happened\n\n"]
            if pieces:
                spoken = now
                yield b"".join(pieces)


def _written(event: Event, with_body: bool) -> bytes:
    told: dict[str, Any] = {"queue": shown(event.queue), "path": path_of(event.queue), "time_ms": event.time_ms}
    if event.id:
        told["item"] = event.id  # within its queue
    if event.body_bytes >= 0:
        told["size"] = event.body_bytes
    if event.items >= 0:
        told["items"] = event.items
    if with_body and event.start is not None:
        told["begins"] = in_json(event.start)
    return _event(event.what.decode("ascii"), told)


def _event(name: str, told: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(told)}\n\n".encode()
