"""Looking at items where they lie: some of a state, one by its id, and what became of a dead letter. Nothing is taken.

Endpoints may switch.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Any, Final

from darner_core.access.rights import GET
from darner_core.engines.items import Seen, State
from darner_core.operations.dead_letters import history_of
from darner_core.operations.operations import Operations
from darner_core.operations.taking import Shown
from darner_core.protocols.http import parameters, schemas
from darner_core.protocols.http.contract import BYTES, READS, Answer, Asked, Endpoint, Parameter, Problem
from darner_core.protocols.http.names import number_of, path_of
from darner_core.protocols.http.schemas import as_json

PREVIEW_BYTES: Final = 256
MAX_LIMIT: Final = 500
LOOKED_AT_ONCE: Final = 50  # in one turn: 1 ms

_PLACE: Final = re.compile(r"(\d{1,19}),(\d{1,19}),(\d{1,19})")
_ITEM: Final = "/api/v1/queues/{queue}/items/{id}"

STATES: Final = {state.value: state for state in State}


def _read_place(text: str) -> tuple[int, ...]:
    found = _PLACE.fullmatch(text)
    if found is None or any(int(number) >= 2**63 for number in found.groups()):
        raise ValueError("what next was in the answer before")
    return tuple(map(int, found.groups()))


AFTER: Final = Parameter(_read_place, "Go on behind these: what `next` was.", {"type": "string"})
LIMIT: Final = parameters.number("How many to tell.", 1, MAX_LIMIT)


def next_of(seen: Sequence[Seen], most: int) -> str | None:
    """What is to be given as `after` for those behind these."""
    return written(seen[-1].position) if len(seen) == most else None


def written(position: Iterable[int] | None) -> str | None:
    """A position as `after` says it."""
    return None if position is None else ",".join(map(str, position))


class Looking:
    def __init__(self, operations: Operations) -> None:
        self._queues = operations.queues
        self._items = operations.items
        self._taking = operations.taking
        self._stats = operations.stats

    def endpoints(self) -> Sequence[Endpoint]:
        known = {"state": parameters.word("Ready without it.", *STATES), "limit": LIMIT, "after": AFTER}
        none = {404: "There is no such item."}
        return (
            Endpoint("GET", "/api/v1/queues/{queue}/items", self.some, "Items of a state.", GET, READS,
                parameters=known, answers={200: "The items, and where the next begin."},
                shapes={200: as_json(schemas.LOOKED_AT)}),
            Endpoint("GET", _ITEM, self.one, "An item as it is, which stays.", GET, READS,
                answers={200: "The item.", **none}, shapes={200: schemas.AS_BYTES}),
            Endpoint("GET", f"{_ITEM}/history", self.history, "What became of a dead letter.", GET, READS,
                answers={200: "Where it was put, how often it failed, why and with whom last.", **none},
                shapes={200: as_json(schemas.HISTORY)}),
        )  # fmt: skip

    def some(self, asked: Asked) -> Answer:
        told = asked.told
        state, limit = STATES[told.get("state", "ready")], told.get("limit", 20)
        self._stats.cmd_peek += 1
        after, found = told.get("after"), []
        left = limit
        last: list[Seen] = []
        while left:
            last = self._items.look(asked.queue, state, after, min(left, LOOKED_AT_ONCE))
            found += [self.told(asked.queue, seen) for seen in last]
            left -= len(last)
            if len(last) < min(left + len(last), LOOKED_AT_ONCE):
                break
            after = last[-1].position
            if left:
                asked.client.wait_turn()
        return Answer({"items": found, "next": next_of(last, len(last)) if last and not left else None})

    def told(self, queue: bytes, seen: Seen) -> dict[str, Any]:
        """An item as a list of items has it."""
        return {
            "id": str(self._items.number(queue, seen.id)),
            "state": seen.state.value,
            "size": seen.body_bytes,
            "pri": seen.pri,
            "due_at_ms": seen.due_ms or None,
            "expires_at_ms": seen.expires_at_ms or None,
            "failures": seen.nacks + seen.timeouts + seen.losses,
            "put_at_ms": seen.added_at_ms,
            "preview_base64": b64encode(self._preview(queue, seen.id)).decode(),
        }

    def _preview(self, queue: bytes, item_id: int) -> bytes:
        item = self._items.item(queue, item_id)
        if item is None:
            return b""
        body: Any = item[0]
        if body.__class__ is bytes:
            return bytes(body[:PREVIEW_BYTES])
        return self._queues[queue].large_items.send(body).next(PREVIEW_BYTES)

    # -- one

    def _seen(self, asked: Asked) -> Seen:
        number = number_of(asked.id)
        place = self._items.numbered(number) if number else None
        seen = self._items.find(*place) if place is not None and place[0] == asked.queue else None
        if seen is None:
            raise Problem(
                HTTPStatus.NOT_FOUND, f"the queue has no item {asked.id[:20]}: it is gone, or was never there"
            )
        return seen

    def one(self, asked: Asked) -> Answer:
        seen = self._seen(asked)
        item = self._items.item(asked.queue, seen.id)
        assert item is not None
        self._stats.cmd_peek += 1
        headers = {
            "X-Darner-Id": asked.id,
            "X-Darner-Queue": path_of(asked.queue),
            "X-Darner-State": seen.state.value,
            "X-Darner-Failures": str(seen.nacks + seen.timeouts + seen.losses),
            "X-Darner-Priority": str(seen.pri),
            "X-Darner-Put-At": str(seen.added_at_ms),
        }
        if isinstance(item[0], bytes):
            return Answer(item[0], kind=BYTES, headers=headers)
        pieces = self._taking.pieces_shown(Shown(self._queues[asked.queue], item, seen.id))
        return Answer(kind=BYTES, headers=headers, pieces=_behind(next(pieces), pieces), length=len(item[0]))

    def history(self, asked: Asked) -> Answer:
        found = history_of(self._seen(asked).note)
        if found is None:
            raise Problem(HTTPStatus.NOT_FOUND, "the item is no dead letter")
        return Answer(found)


def _behind(first: bytes, rest: Any) -> Iterator[bytes]:
    """`first`, and what follows."""
    try:
        yield first
        yield from rest
    finally:
        rest.close()
