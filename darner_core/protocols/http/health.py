"""Whether the server runs, and whether it is ready: for what watches over it. Everybody may ask."""

from collections.abc import Sequence
from http import HTTPStatus

from darner_core.operations.operations import Operations
from darner_core.protocols.http.contract import Answer, Asked, Endpoint, Problem
from darner_core.protocols.http.schemas import TEXT, as_json, object_of


class Health:
    def __init__(self, operations: Operations) -> None:
        self._availability = operations.availability

    def endpoints(self) -> Sequence[Endpoint]:
        answers = {200: "It does.", 503: "It does not; the detail says why."}
        shapes = {200: as_json(object_of(status=TEXT))}
        about = "Whether it takes items, and gives them."
        return (
            Endpoint(
                "GET",
                "/health/live",
                self.live,
                "Whether it runs.",
                answers={200: "It does."},
                shapes=shapes,
                looks=True,
            ),
            Endpoint("GET", "/health/ready", self.ready, about, answers=answers, shapes=shapes, looks=True),
        )

    @staticmethod
    def live(asked: Asked) -> Answer:
        return Answer({"status": "live"})

    def ready(self, asked: Asked) -> Answer:
        available = self._availability
        why = "the server is stopping" if available.stopping else ""
        why = why or available.no_reads or available.no_writes or available.no_room
        if why:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, why)
        return Answer({"status": "ready"})
