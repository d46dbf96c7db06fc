"""Dead letters of a queue: what its dead letter queue has of it, or what is buried in it if it has none.

To put one back is one write: it is in one of the two queues, whatever happens. Endpoints may switch.
"""

from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from darner_core.access.rights import GET, PUT
from darner_core.engines.items import Seen, State
from darner_core.engines.jobs import JobOptions, Outcome
from darner_core.operations.operations import Operations
from darner_core.protocols.http import parameters, schemas
from darner_core.protocols.http.admission import Admission
from darner_core.protocols.http.contract import WRITES, Answer, Asked, Endpoint, Problem, done
from darner_core.protocols.http.looking import AFTER, LIMIT, Looking, history_of, next_of
from darner_core.protocols.http.names import number_of, path_of
from darner_core.protocols.http.schemas import as_json
from darner_core.showing import show

LOOKED_AT_ONCE: Final = 100  # in one turn: 2 ms
MAX_PUT_BACK: Final = 1_000_000

# How far one list looks for those of its queue among those of others.
MOST_PASSED_OVER: Final = 10_000

_DEAD: Final = "/api/v1/queues/{queue}/dead"


class _Place(NamedTuple):
    """Where the dead letters of a queue lie."""

    queue: bytes
    state: State
    begins: bytes  # of their notes; b"": all are of this queue


class Dead:
    def __init__(self, operations: Operations, admission: Admission, looking: Looking) -> None:
        self._queues = operations.queues
        self._items = operations.items
        self._jobs = operations.jobs
        self._putting = operations.putting
        self._taking = operations.taking
        self._in_effect = operations.in_effect
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

    def _place(self, asked: Asked) -> _Place:
        """Raises Problem if whoever asks may not get from there."""
        options = {name: value for name, value, _ in self._in_effect.of_queue(asked.queue)}
        dead = options["dead_letter_queue"]
        if not dead:
            return _Place(asked.queue, State.BURIED, b"")
        self._admission.require(asked.client, GET, dead)
        return _Place(dead, State.READY, b"from=%b id=" % show(asked.queue).encode("utf-8", "backslashreplace"))

    def _wait_each(
        self, asked: Asked, place: _Place, after: Any, most_passed_over: int | None = MOST_PASSED_OVER
    ) -> Iterator[Seen]:
        """Those behind `after`, one by one. Switches greenlets now and then."""
        passed_over = 0
        while some := self._items.look(place.queue, place.state, after, LOOKED_AT_ONCE):
            for seen in some:
                if seen.note.startswith(place.begins):
                    yield seen
                else:
                    passed_over += 1
            if most_passed_over is not None and passed_over >= most_passed_over:
                return
            after = some[-1].position
            asked.client.wait_turn()

    def list(self, asked: Asked) -> Answer:
        place, limit = self._place(asked), asked.told.get("limit", 20)
        found: list[dict[str, Any]] = []
        several: list[Seen] = []
        for seen in self._wait_each(asked, place, asked.told.get("after")):
            several.append(seen)
            found.append({**self._looking.told(place.queue, seen), "path": path_of(place.queue),
                "history": history_of(seen.note)})  # fmt: skip
            if len(found) == limit:
                break
        return Answer({"items": found, "next": next_of(several, limit), "path": path_of(place.queue)})

    # -- one

    def _located(self, asked: Asked, place: _Place) -> int:
        """The id of a dead letter. Raises Problem."""
        number = number_of(asked.id)
        found = self._items.numbered(number) if number else None
        seen = self._items.find(*found) if found is not None and found[0] == place.queue else None
        if seen is None or seen.state is not place.state or not seen.note.startswith(place.begins):
            raise Problem(
                HTTPStatus.NOT_FOUND, f"the queue has no dead letter {asked.id[:20]}, or somebody has it open"
            )
        return seen.id

    def put_back(self, asked: Asked) -> Answer:
        place = self._place(asked)
        self._wait_put_back(asked, place, self._located(asked, place))
        return done()

    def drop(self, asked: Asked) -> Answer:
        place = self._place(asked)
        self._items.remove(place.queue, self._located(asked, place))
        return done()

    def _wait_put_back(self, asked: Asked, place: _Place, item_id: int) -> bool:
        """False: it is not there any more. Raises Problem, ServerError or StorageError; then it is where it was."""
        if place.state is State.BURIED:
            return self._items.kick(place.queue, item_id)
        read = self._items.open(place.queue, item_id)
        if read is None:
            return False
        try:
            item: Any = read.queue.item_of(read)
            body, flags = item[0], item[1]
            if body.__class__ is bytes:
                outcome = self._jobs.put(asked.session, (asked.queue,), body, flags, 0, JobOptions()).outcome
            else:
                outcome = self._wait_copy(asked, read, body, flags)
            if outcome is Outcome.FULL:
                raise Problem(HTTPStatus.INSUFFICIENT_STORAGE, "the queue is full: one of its limits allows no more")
            if not read.queue.holds(read):  # flushed or deleted while it was copied
                return True
            read.queue.close(read)
        except BaseException:
            read.queue.give_back(read)
            raise
        return True

    def _wait_copy(self, asked: Asked, read: Any, body: Any, flags: int) -> Outcome:
        """A large one, piece by piece. It is open meanwhile."""
        client = asked.client
        download = read.queue.large_items.send(body)
        with self._putting.large((asked.queue,), len(body), as_child=False) as item:
            if not item.wait_begin(client):
                return Outcome.FULL
            while item.wanted_bytes:
                item.wait_add(client, download.next(item.wanted_bytes))
                client.wait_turn()
            item.wait_store(client)
            item.require_queues()
            return self._jobs.put_large(asked.session, (asked.queue,), item, flags, 0, JobOptions()).outcome

    # -- many

    def put_all_back(self, asked: Asked) -> Answer:
        """Those that are dead letters now. What fails again meanwhile stays a dead letter."""
        place = self._place(asked)
        most = min(asked.told.get("n", MAX_PUT_BACK), self._count(place))
        put_back = 0
        for seen in self._wait_each(asked, place, None, None) if most else ():
            self._admission.require(asked.client, PUT, asked.queue)
            put_back += self._wait_put_back(asked, place, seen.id)
            if put_back == most:
                break
        return Answer({"done": put_back})

    def _count(self, place: _Place) -> int:
        queue = self._queues.get(place.queue)
        if queue is None:
            return 0
        return queue.waiting_items if place.begins else self._jobs.figures(place.queue).get(b"buried", 0)
