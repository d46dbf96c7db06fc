"""What is done to items by their ids: acknowledged, removed, released, touched, rejected, buried, kicked.

Whoever has the right to take items of a queue may do all of it; no connection owns what was taken. Endpoints may
switch.
"""

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, Final

from darner_core.access.rights import GET
from darner_core.engines.items import State
from darner_core.operations.operations import Operations
from darner_core.protocols.http import bodies, parameters
from darner_core.protocols.http.admission import Admission
from darner_core.protocols.http.contract import JSON, Answer, Asked, Endpoint, Problem, done
from darner_core.protocols.http.names import number_of
from darner_core.protocols.http.schemas import NUMBER, TEXT, as_json, list_of, object_of

# How many items are dealt with in one turn: 2 ms.
ACTED_AT_ONCE: Final = 200
MAX_IDS: Final = 10_000

_ITEM: Final = "/api/v1/queues/{queue}/items/{id}"


class Acting:
    def __init__(self, operations: Operations, admission: Admission) -> None:
        self._jobs = operations.jobs
        self._items = operations.items
        self._comebacks = operations.comebacks
        self._admission = admission

    def endpoints(self) -> Sequence[Endpoint]:
        delay_pri = {"delay": parameters.DELAY, "pri": parameters.PRI}
        answers = {204: "It is done.", 404: "There is no such item.", 409: "It is not in the state for this."}

        def act(word: str, run: Callable[[Asked], Answer], about: str, **known: Any) -> Endpoint:
            return Endpoint(
                "POST", f"{_ITEM}/{word}", run, about, GET, parameters=known, answers=answers, changes=True
            )  # fmt: skip

        return (
            Endpoint(
                "DELETE", _ITEM, self.remove, "Acknowledge an item that was taken, or remove another.", GET,
                parameters={"if": parameters.word("open: only if it was taken and is open still.", "open")},
                answers=answers, changes=True,
            ),
            act("release", self.release, "Give it back, which counts as a failure.", **delay_pri),
            act("touch", self.touch, "It may be kept from now on for as long as at first, or for ttr ms.",
                ttr=parameters.TTR),
            act("reject", self.reject, "It is a dead letter, at once."),
            act("bury", self.bury, "Nobody gets it until it is kicked.", pri=parameters.PRI),
            act("kick", self.kick, "Make a buried or delayed item ready."),
            Endpoint(
                "POST", "/api/v1/queues/{queue}/acknowledge", self.acknowledge, "Acknowledge many items.", GET,
                takes={JSON: {"type": "object", "required": ["ids"], "additionalProperties": False, "properties": {
                    "ids": {"type": "array", "maxItems": MAX_IDS, "items": {"type": "string"}}}}},
                answers={200: "How many were acknowledged, and which are not there."},
                shapes={200: as_json(object_of(done=NUMBER, missing=list_of(TEXT)))}, changes=True,
            ),
        )  # fmt: skip

    # -- one

    def remove(self, asked: Asked) -> Answer:
        item_id = self._located(asked)
        if "if" in asked.told:
            self._require_open(asked, item_id)
        if not self._items.remove(asked.queue, item_id):
            raise _missing(asked)
        return done()

    def release(self, asked: Asked) -> Answer:
        delay_ms, pri = asked.told.get("delay"), asked.told.get("pri")
        self._comebacks.abort(self._held(asked), asked.session.origin, delay_ms, pri, counted=True)
        return done()

    def touch(self, asked: Asked) -> Answer:
        if not self._jobs.prolong(self._held(asked), asked.told.get("ttr", 0)):
            raise _missing(asked)
        return done()

    def reject(self, asked: Asked) -> Answer:
        self._jobs.reject_held(asked.session, self._held(asked))
        return done()

    def bury(self, asked: Asked) -> Answer:
        self._comebacks.bury(self._held(asked), asked.told.get("pri"))
        return done()

    def kick(self, asked: Asked) -> Answer:
        item_id = self._located(asked)
        if not self._items.kick(asked.queue, item_id):
            seen = self._items.find(asked.queue, item_id)
            if seen is None:
                raise _missing(asked)
            raise Problem(HTTPStatus.CONFLICT, f"the item is {seen.state.value}: buried and delayed ones can be kicked")
        return done()

    def _located(self, asked: Asked) -> int:
        """The item's id in its queue. Raises Problem if the queue has none with this number."""
        number = number_of(asked.id)
        found = self._items.numbered(number) if number else None
        if found is None or found[0] != asked.queue:
            raise _missing(asked)
        return found[1]

    def _held(self, asked: Asked) -> Any:
        item_id = self._located(asked)
        held = self._items.held(asked.queue, item_id)
        if held is None:
            self._require_open(asked, item_id)
            raise Problem(HTTPStatus.CONFLICT, "the item is open on a connection of another protocol")
        return held

    def _require_open(self, asked: Asked, item_id: int) -> None:
        seen = self._items.find(asked.queue, item_id)
        if seen is None:
            raise _missing(asked)
        if seen.state is not State.OPEN:
            raise Problem(HTTPStatus.CONFLICT, f"the item is {seen.state.value}, and not open: its time was over")

    # -- many

    def acknowledge(self, asked: Asked) -> Answer:
        found = bodies.wait_json(asked.env)
        bodies.require_keys(found, "ids")
        ids = found.get("ids")
        if not isinstance(ids, list) or len(ids) > MAX_IDS or not all(isinstance(one, str) for one in ids):
            raise Problem(HTTPStatus.BAD_REQUEST, f"ids must be a list of at most {MAX_IDS} strings")
        asked.client.go_on()
        acknowledged, missing = 0, []
        for at, word in enumerate(dict.fromkeys(ids)):
            if at and at % ACTED_AT_ONCE == 0:
                asked.client.wait_turn()
                self._admission.require(asked.client, GET, asked.queue)
            number = number_of(word)
            place = self._items.numbered(number) if number else None
            if place is not None and place[0] == asked.queue and self._items.remove(*place):
                acknowledged += 1
            else:
                missing.append(word)
        return Answer({"done": acknowledged, "missing": missing})


def _missing(asked: Asked) -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, f"the queue has no item {asked.id[:20]}: it is gone, or was never there")
