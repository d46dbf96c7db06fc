"""Dead letters of a queue: listed, put back, removed. Endpoints may switch."""

from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from typing import Final

from darner_core.access.rights import GET, PUT
from darner_core.operations.dead_letters import Place, history_of
from darner_core.operations.operations import Operations
from darner_core.protocols.http import parameters, schemas
from darner_core.protocols.http.admission import Admission
from darner_core.protocols.http.contract import WRITES, Answer, Asked, Endpoint, Problem, done
from darner_core.protocols.http.looking import AFTER, LIMIT, Looking, written
from darner_core.protocols.http.names import number_of, path_of
from darner_core.protocols.http.schemas import as_json

MAX_PUT_BACK: Final = 1_000_000

# How far one list looks for those of its queue among those of others.
MOST_LOOKED_AT: Final = 10_000

_FULL: Final = "the queue is full: one of its limits allows no more"

_DEAD: Final = "/api/v1/queues/{queue}/dead"


class Dead:
    def __init__(self, operations: Operations, admission: Admission, looking: Looking) -> None:
        self._items = operations.items
        self._dead = operations.dead_letters
        self._admission = admission
        self._looking = looking

    def endpoints(self) -> Sequence[Endpoint]:
        answers = {204: "It is done.", 404: "There is no such dead letter.", 507: "The queue is full."}
        return (
            Endpoint("GET", _DEAD, self.list, "The dead letters of a queue, with their histories.", GET,
                parameters={"limit": LIMIT, "after": AFTER}, answers={200: "Dead letters, and where the next begin."},
                shapes={200: as_json(schemas.DEAD)}),
            Endpoint("POST", f"{_DEAD}/{{id}}/put-back", self.put_back, "Put a dead letter back into its queue.", PUT,
                WRITES, answers=answers, changes=True),
            Endpoint("DELETE", f"{_DEAD}/{{id}}", self.drop, "Remove a dead letter.", GET, answers=answers,
                changes=True),
            Endpoint("POST", f"{_DEAD}/put-back", self.put_all_back, "Put dead letters back, the oldest first.", PUT,
                WRITES, {"n": parameters.number("Up to so many; all without it.", 1, MAX_PUT_BACK)},
                answers={200: "How many are back."},
                shapes={200: as_json(schemas.object_of(done=schemas.NUMBER))}, changes=True),
        )  # fmt: skip

    def _place(self, asked: Asked) -> Place:
        """Raises Problem if whoever asks may not get from there."""
        place = self._dead.place(asked.queue)
        if place.queue != asked.queue:
            self._admission.require(asked.client, GET, place.queue)
        return place

    def list(self, asked: Asked) -> Answer:
        place, limit = self._place(asked), asked.told.get("limit", 20)
        seen, behind = self._dead.wait_page(asked.client, place, asked.told.get("after"), limit, MOST_LOOKED_AT)
        path = path_of(place.queue)
        found = [
            {**self._looking.told(place.queue, one), "path": path, "history": history_of(one.note)} for one in seen
        ]
        return Answer({"items": found, "next": written(behind), "path": path})

    # -- one

    def _located(self, asked: Asked, place: Place) -> int:
        """The id of a dead letter. Raises Problem."""
        number = number_of(asked.id)
        found = self._items.numbered(number) if number else None
        if found is None or found[0] != place.queue or not self._dead.is_there(place, found[1]):
            raise Problem(
                HTTPStatus.NOT_FOUND, f"the queue has no dead letter {asked.id[:20]}, or somebody has it open"
            )
        return found[1]

    def put_back(self, asked: Asked) -> Answer:
        place = self._place(asked)
        if self._dead.wait_put_back(asked.client, asked.queue, place, self._located(asked, place)).is_full:
            raise Problem(HTTPStatus.INSUFFICIENT_STORAGE, _FULL)
        return done()

    def drop(self, asked: Asked) -> Answer:
        place = self._place(asked)
        self._dead.drop(place, self._located(asked, place))
        return done()

    # -- many

    def put_all_back(self, asked: Asked) -> Answer:
        """Those that are dead letters now. What fails again meanwhile stays a dead letter."""
        place, require = self._place(asked), partial(self._admission.require, asked.client, PUT, asked.queue)
        most = asked.told.get("n", MAX_PUT_BACK)
        put_back = self._dead.wait_put_several_back(asked.client, asked.queue, place, most, require)
        if put_back.is_full:
            raise Problem(HTTPStatus.INSUFFICIENT_STORAGE, f"{put_back.done} are back; then {_FULL}")
        return Answer({"done": put_back.done})
