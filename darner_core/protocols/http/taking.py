"""Taking items: one as it is, or several as JSON. What is taken is held by whoever knows its id, for a time.

If it is not acknowledged in that time, the item comes back, and that counts as a failure. A client that hangs up before
it has its answer gives the item back at once. Endpoints switch while they wait.
"""

import time
from base64 import b64encode
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from darner_core.access.rights import FREE, GET
from darner_core.engines.contract import Item, Read
from darner_core.errors import StorageError
from darner_core.operations.client import LATER
from darner_core.operations.operations import Operations
from darner_core.operations.taking import give_back
from darner_core.protocols.http import parameters, schemas
from darner_core.protocols.http.admission import Admission
from darner_core.protocols.http.contract import BYTES, NO_CONTENT, READS, Answer, Asked, Endpoint, Problem
from darner_core.protocols.http.names import path_of, shown
from darner_core.protocols.http.schemas import as_json

# How long a client may keep what it has taken, if neither it, nor the item, nor the queue says so.
DEFAULT_TTR_MS: Final = 60_000

# What one answer has at most: the rest is there for the next.
MAX_ITEMS: Final = 1000
MAX_ANSWER_BYTES: Final = 1 << 20

_PARAMETERS: Final = {
    "n": parameters.number("Up to so many items; with more than 1 the answer is JSON.", 1, MAX_ITEMS),
    "wait": parameters.WAIT,
    "ttr": parameters.TTR,
}


class Taking:
    def __init__(self, operations: Operations, admission: Admission) -> None:
        self._taking = operations.taking
        self._jobs = operations.jobs
        self._items = operations.items
        self._comebacks = operations.comebacks
        self._stats = operations.stats
        self._time_ms = operations.time_ms
        self._admission = admission

    def endpoints(self) -> Sequence[Endpoint]:
        answers = {
            200: "The item as it is, with its id in X-Darner-Id; with Accept: application/json or n > 1 as JSON.",
            204: "There is none.",
            429: "Too many items are open.",
        }
        shapes = {200: {**schemas.AS_BYTES, **as_json(schemas.TAKEN)}}
        return (
            Endpoint(
                "POST", "/api/v1/queues/{queue}/take", self.take, "Take items from this queue.", GET, READS,
                _PARAMETERS, answers=answers, changes=True, shapes=shapes,
            ),
            Endpoint(
                "POST", "/api/v1/take", self.take_of_several, "Take items from the first queue that has some.",
                FREE, READS, {"q": parameters.QUEUES, **_PARAMETERS}, answers=answers, changes=True, shapes=shapes,
            ),
        )  # fmt: skip

    def take(self, asked: Asked) -> Answer:
        return self._wait_take(asked, (asked.queue,))

    def take_of_several(self, asked: Asked) -> Answer:
        queues = asked.told.get("q", ())
        if not queues:
            raise Problem(HTTPStatus.BAD_REQUEST, "parameter q is missing: the names of the queues, as in ?q=a&q=b")
        for queue in queues:
            self._admission.require(asked.client, GET, queue)
        return self._wait_take(asked, queues)

    def _wait_take(self, asked: Asked, queues: tuple[bytes, ...]) -> Answer:
        told, client = asked.told, asked.client
        for queue in queues:
            self._require_room(queue)
        most = told.get("n", 1)
        wait_ms = told.get("wait", 0)
        read = self._taking.open(queues, wait_ms)
        if read is LATER:
            client.waits_for = queues
            try:
                read = self._taking.wait_open(client, queues, time.monotonic() + wait_ms / 1000)
            finally:
                client.waits_for = ()
        if read is None:
            self._stats.get_misses += 1
            return Answer(status=NO_CONTENT)
        try:
            self._admission.require(client, GET, read.queue.name)  # it may have waited for long
            self._require_room(read.queue.name)
        except BaseException:
            read.queue.give_back(read)
            raise
        if most > 1:
            return self._several(asked, self._open_more(read, most))
        if asked.accepts_json and not read.blob:
            return self._several(asked, [read])
        return self._one(asked, read)

    def _require_room(self, queue: bytes) -> None:
        if not self._jobs.room(queue):
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                "max_leases allows no more items to be open, of this queue or in all: acknowledge or release some",
            )

    # -- one

    def _one(self, asked: Asked, read: Read) -> Answer:
        queue = read.queue.name
        if read.blob:
            return self._large(asked, read)
        item = self._item_of(read)
        headers = self._headers(read, item)
        self._hold(asked, read)
        self._stats.get_hits += 1
        self._note_undelivered(asked, [(queue, read.id)])
        return Answer(item[0], kind=BYTES, headers=headers)

    def _large(self, asked: Asked, read: Read) -> Answer:
        """Piece by piece. It is open while it is sent, and then for as long as it may be kept."""
        try:
            headers = self._headers(read, None)
            pieces = self._taking.pieces(read, partial(self._hold, asked))
            first = next(pieces)
        except BaseException:
            read.queue.give_back(read)
            raise

        def all_pieces() -> Any:
            try:
                yield first
                yield from pieces
                asked.client.wait_written()
            finally:
                pieces.close()

        return Answer(kind=BYTES, headers=headers, pieces=all_pieces(), length=read.body_bytes)

    def _headers(self, read: Read, item: Item | None) -> dict[str, str]:
        queue = read.queue.name
        seen = self._items.find(queue, read.id)
        headers = {"X-Darner-Id": str(self._items.number(queue, read.id)), "X-Darner-Queue": path_of(queue)}
        if seen is not None:
            headers["X-Darner-Failures"] = str(seen.nacks + seen.timeouts + seen.losses)
            headers["X-Darner-Priority"] = str(seen.pri)
            headers["X-Darner-Put-At"] = str(seen.added_at_ms)
        return headers

    def _lasts_ms(self, asked: Asked, read: Read) -> int:
        return asked.told.get("ttr") or self._jobs.lasts_ms(read) or DEFAULT_TTR_MS

    def _hold(self, asked: Asked, read: Read) -> None:
        self._jobs.hold_freely(asked.session, read, self._lasts_ms(asked, read))

    @staticmethod
    def _item_of(read: Read) -> Any:
        try:
            return read.queue.item_of(read)
        except BaseException:
            read.queue.give_back(read)
            raise

    # -- several

    def _open_more(self, first: Read, most: int) -> list[Read]:
        """What the queue of `first` has, too, for one answer. A large item comes alone."""
        queue, opened, size = first.queue.opener, [first], first.body_bytes
        most = min(most, self._jobs.room(queue.name))
        if first.blob:
            return opened
        try:
            while len(opened) < most and not queue.deleted and (read := queue.open()) is not None:
                if read.blob or size + read.body_bytes > MAX_ANSWER_BYTES:
                    read.queue.give_back(read)
                    break
                opened.append(read)
                size += read.body_bytes
        except StorageError:
            pass  # what lies before the damage is handed out
        except BaseException:
            give_back(opened)
            raise
        return opened

    def _several(self, asked: Asked, reads: list[Read]) -> Answer:
        if reads[0].blob:
            return self._one(asked, reads[0])
        left = list(reversed(reads))
        told: list[dict[str, Any]] = []
        held: list[tuple[bytes, int]] = []
        now_ms = self._time_ms()
        try:
            while left:
                read = left[-1]
                told.append(self._told(asked, read, now_ms))
                left.pop()
                self._hold(asked, read)
                held.append((read.queue.name, read.id))
        except StorageError:
            if not told:
                raise
        finally:
            give_back(left)
        self._stats.get_hits += len(told)
        self._note_undelivered(asked, held)
        return Answer({"items": told})

    def _told(self, asked: Asked, read: Read, now_ms: int) -> dict[str, Any]:
        queue = read.queue.name
        item: Any = read.queue.item_of(read)
        seen = self._items.find(queue, read.id)
        return {
            "id": str(self._items.number(queue, read.id)),
            "queue": shown(queue),
            "path": path_of(queue),
            **in_json(item[0]),
            "failures": seen.nacks + seen.timeouts + seen.losses if seen is not None else 0,
            "pri": seen.pri if seen is not None else None,
            "put_at_ms": item[3],
            "held_until_ms": now_ms + self._lasts_ms(asked, read),
        }

    # -- a client that has gone

    def _note_undelivered(self, asked: Asked, held: list[tuple[bytes, int]]) -> None:
        asked.client.undelivered = partial(self._give_back, held)

    def _give_back(self, held: list[tuple[bytes, int]]) -> None:
        """The client has not had its answer. That is no failure."""
        for queue, item_id in sorted(held):
            read = self._items.held(queue, item_id)
            if read is not None:
                self._comebacks.let_go(read)


def in_json(body: bytes) -> dict[str, str]:
    """A body as JSON has it."""
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": b64encode(body).decode()}
