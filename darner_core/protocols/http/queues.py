"""Queues: which there are, what each holds, and making and deleting one. Endpoints may switch."""

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, Final

from darner_core.access.rights import ADMIN, GET, PUT
from darner_core.operations.operations import Operations
from darner_core.protocols.http import parameters, schemas
from darner_core.protocols.http.admission import Admission
from darner_core.protocols.http.contract import CREATED, WRITES, Answer, Asked, Endpoint, Parameter, Problem, done
from darner_core.protocols.http.figures import FIELDS, QueueFigures
from darner_core.protocols.http.names import path_of, shown
from darner_core.protocols.http.schemas import as_json
from darner_core.protocols.http.server import plain
from darner_core.slicing import slices

# How many queues are looked at in one turn: 1 to 2 ms.
LOOKED_AT_ONCE: Final = 500
AGES_AT_ONCE: Final = 50

MAX_LIMIT: Final = 1000
MAX_OFFSET: Final = 10_000
MAX_MINUTES: Final = 60

# How many of those that wait for an item are told.
MAX_WAITING: Final = 100

_SORTS: Final = {
    "name": "name", "items": "items", "bytes": "bytes", "waiting": "waiting", "open": "open", "delayed": "delayed",
    "buried": "buried", "failures": "failures", "age": "age_ms", "waiters": "waiters", "put_total": "put_total",
    "dead_lettered": "dead_lettered", "rate_in": "rate_in", "rate_out": "rate_out",
}  # fmt: skip

_ONE: Final = "/api/v1/queues/{queue}"


def _text(about: str) -> Any:
    return parameters.text(about)


def _fields(text: str) -> tuple[str, ...]:
    found = tuple(text.split(","))
    unknown = [one for one in found if one not in FIELDS]
    if unknown:
        raise ValueError(f"some of {','.join(FIELDS)}, with commas between them")
    return found


class Queues:
    def __init__(self, operations: Operations, admission: Admission, overview: Callable[[], Any]) -> None:
        """`overview`: what tells which clients wait."""
        self._operations = operations
        self._queues = operations.queues
        self._figures = QueueFigures(operations)
        self._admission = admission
        self._overview = overview

    def endpoints(self) -> Sequence[Endpoint]:
        page = {
            "prefix": _text("Only queues whose names begin so."),
            "contains": _text("Only queues whose names have this in them."),
            "sort": parameters.word("What to sort by.", *_SORTS),
            "order": parameters.word("From the least, or from the most.", "asc", "desc"),
            "limit": parameters.number("How many to tell.", 0, MAX_LIMIT),
            "offset": parameters.number("How many to leave out.", 0, MAX_OFFSET),
            "fields": Parameter(_fields, "Only these figures, with commas.", {"type": "string"}),
        }
        return (
            Endpoint("GET", "/api/v1/queues", self.list, "The queues, with their figures.", parameters=page,
                answers={200: "The queues, and how many match in all."}, shapes={200: as_json(schemas.QUEUES)}),
            Endpoint("GET", _ONE, self.show, "A queue: its figures, options and relations.",
                answers={200: "The queue.", 404: "There is no such queue."}, shapes={200: as_json(schemas.QUEUE)}),
            Endpoint("GET", f"{_ONE}/history", self.history, "How a queue was over the last minutes.",
                parameters={"minutes": parameters.number("How many; 60 without it.", 1, MAX_MINUTES)},
                answers={200: "A number for each step; null where it is not known.", 404: "There is no such queue."},
                shapes={200: as_json(schemas.ANY)}),
            Endpoint("PUT", _ONE, self.make, "Make a queue.", PUT, WRITES,
                answers={201: "It is made.", 204: "It was there.", 507: "There may be no more queues."}, changes=True),
            Endpoint("DELETE", _ONE, self.delete, "Delete a queue with all that is in it.", ADMIN, WRITES,
                answers={204: "It is gone."}, changes=True),
        )  # fmt: skip

    # -- all

    def list(self, asked: Asked) -> Answer:
        told, client = asked.told, asked.client
        prefix, contains = told.get("prefix", b""), told.get("contains", b"")
        sort = _SORTS[told.get("sort", "name")]
        limit, offset = told.get("limit", 100), told.get("offset", 0)
        most, is_down = offset + limit, told.get("order", "asc") == "desc"
        best: list[tuple[Any, bytes]] = []
        total = 0
        at_once = AGES_AT_ONCE if sort == "age_ms" else LOOKED_AT_ONCE
        for number, names in enumerate(slices(self._queues, at_once)):
            if number:
                client.wait_turn()
            if prefix:
                names = [name for name in names if name.startswith(prefix)]
            if contains:
                names = [name for name in names if contains in name]
            if client.asks_as is not None:
                names = [name for name in names if client.may_see(name)]
            total += len(names)
            if sort == "name":
                best += [(name, name) for name in names]
            else:
                best += [(self._figures.value(name, sort), name) for name in names]
            best.sort(reverse=is_down)
            del best[most:]
        queues = []
        for at, (_, name) in enumerate(best[offset:]):
            if at and at % AGES_AT_ONCE == 0:
                client.wait_turn()
            found = self._figures.of(name)
            if found is not None:
                queues.append(found)
        fields = told.get("fields")
        if fields:
            queues = [{field: one[field] for field in fields} for one in queues]
        return Answer({"queues": queues, "total": total})

    # -- one

    def show(self, asked: Asked) -> Answer:
        queue = asked.queue
        self._require_seen(asked)
        found = self._figures.of(queue)
        if found is None:
            raise Problem(HTTPStatus.NOT_FOUND, f"there is no queue {shown(queue)}")
        options = [
            {"name": name, "value": plain(value),
             "source": source}
            for name, value, source in self._operations.in_effect.of_queue(queue)
        ]  # fmt: skip
        may_see = asked.client.may_see
        children = sorted(filter(may_see, self._operations.children_of(queue)))
        there: Any = self._queues[queue]
        dead = next((one["value"] for one in options if one["name"] == "dead_letter_queue"), "")
        more = {
            "may": [right for right in (PUT, GET, ADMIN) if self._admission.may(asked.client, right, queue)],
            "options": options,
            "children": [_named(one) for one in children],
            "cursors": [shown(name) for name in there.cursors or ()],
            "dead_letter_queue": dead or None,
            "waiting_clients": list(self._overview().waiting(there.line or (), MAX_WAITING)),
        }
        return Answer({**found, **more})

    def _require_seen(self, asked: Asked) -> None:
        client = asked.client
        if client.asks_as is not None and not client.may_see(asked.queue):
            raise Problem(HTTPStatus.FORBIDDEN, f"user {client.asks_as} has no right to queue {shown(asked.queue)}")

    def history(self, asked: Asked) -> Answer:
        self._require_seen(asked)
        if asked.queue not in self._queues:
            raise Problem(HTTPStatus.NOT_FOUND, f"there is no queue {shown(asked.queue)}")
        history: Any = getattr(self._operations, "history", None)
        found = history.history(asked.queue, asked.told.get("minutes", 60)) if history is not None else None
        return Answer(found if found is not None else b"null")

    def make(self, asked: Asked) -> Answer:
        return Answer(status=CREATED) if self._operations.administering.make(asked.queue) else done()

    def delete(self, asked: Asked) -> Answer:
        self._admission.require_admin(asked.client, "delete", asked.queue)
        self._operations.administering.delete(asked.queue)
        return done()


def _named(queue: bytes) -> dict[str, str]:
    return {"name": shown(queue), "path": path_of(queue)}
