"""What operators do to a queue: kick, pause, flush. Endpoints may switch."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from darner_core.access.rights import ADMIN
from darner_core.engines.jobs import Pause
from darner_core.operations.operations import Operations
from darner_core.protocols.http import bodies, parameters
from darner_core.protocols.http.admission import Admission
from darner_core.protocols.http.contract import JSON, WRITES, Answer, Asked, Endpoint, Problem
from darner_core.protocols.http.names import shown
from darner_core.protocols.http.schemas import NUMBER, TEXT, as_json, maybe, object_of

_ONE: Final = "/api/v1/queues/{queue}"
MAX_KICKED: Final = 1_000_000
MAX_PAUSE_S: Final = 2**32 - 1

_PAUSES: Final = [pause.value for pause in Pause]


class Administering:
    def __init__(self, operations: Operations, admission: Admission) -> None:
        self._queues = operations.queues
        self._jobs = operations.jobs
        self._administering = operations.administering
        self._admission = admission

    def endpoints(self) -> Sequence[Endpoint]:
        pause: dict[str, Any] = {
            "type": "object",
            "required": ["state"],
            "additionalProperties": False,
            "properties": {
                "state": {"type": "string", "enum": _PAUSES},
                "seconds": {"type": "integer", "minimum": 0, "maximum": MAX_PAUSE_S},
            },
        }
        return (
            Endpoint("POST", f"{_ONE}/kick", self.kick, "Make buried items ready, or else delayed ones.", ADMIN, WRITES,
                parameters={"n": parameters.number("Up to so many; 1 without it.", 1, MAX_KICKED)},
                answers={200: "How many are ready now."},
                shapes={200: as_json(object_of(kicked=NUMBER))}, changes=True),
            Endpoint("POST", f"{_ONE}/pause", self.pause, "Take no puts, hand nothing out, or both.", ADMIN,
                takes={JSON: pause}, answers={200: "The state.", 404: "There is no such queue."},
                shapes={200: as_json(object_of(state=TEXT, left_ms=maybe(NUMBER)))}, changes=True),
            Endpoint("POST", f"{_ONE}/flush", self.flush, "Remove all that waits or is delayed.", ADMIN, WRITES,
                answers={200: "About how many items that were."},
                shapes={200: as_json(object_of(removed=NUMBER))}, changes=True),
        )  # fmt: skip

    def kick(self, asked: Asked) -> Answer:
        most = asked.told.get("n", 1)
        self._admission.require_admin(asked.client, "kick", asked.queue, str(most))
        return Answer({"kicked": self._jobs.wait_kick(asked.client, asked.queue, most)})

    def pause(self, asked: Asked) -> Answer:
        found = bodies.wait_json(asked.env)
        asked.client.go_on()
        bodies.require_keys(found, "state", "seconds")
        state, seconds = found.get("state"), found.get("seconds", 0)
        if state not in _PAUSES:
            raise Problem(HTTPStatus.BAD_REQUEST, f"state must be one of {', '.join(_PAUSES)}")
        if isinstance(seconds, bool) or not isinstance(seconds, int) or not 0 <= seconds <= MAX_PAUSE_S:
            raise Problem(
                HTTPStatus.BAD_REQUEST, f"seconds must be a whole number from 0 to {MAX_PAUSE_S}; 0 is no end"
            )
        if asked.queue not in self._queues:
            raise Problem(HTTPStatus.NOT_FOUND, f"there is no queue {shown(asked.queue)}")
        self._admission.require_admin(asked.client, "pause", asked.queue, f"{state} {seconds}")
        self._jobs.pause(asked.queue, Pause(state), seconds)
        paused, left_ms = self._jobs.paused(asked.queue)
        return Answer({"state": paused.value, "left_ms": left_ms or None})

    def flush(self, asked: Asked) -> Answer:
        self._admission.require_admin(asked.client, "flush", asked.queue)
        before = self._count(asked.queue)
        self._administering.flush(asked.queue)
        return Answer({"removed": max(0, before - self._count(asked.queue))})

    def _count(self, name: bytes) -> int:
        queue = self._queues.get(name)
        if queue is None or queue.unreadable:
            return 0
        return queue.waiting_items + self._jobs.figures(name).get(b"delayed", 0)
