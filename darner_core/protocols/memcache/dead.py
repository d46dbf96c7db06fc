"""The commands about the dead letters of a queue, and how their replies are written: dead, put_back and drop. A command
is what `contract` says.
"""

import json
from base64 import b64encode
from functools import partial
from typing import Final

from darner_core.access.rights import ADMIN, GET
from darner_core.engines.items import Seen
from darner_core.errors import ClientError, ServerError
from darner_core.operations.client import RIGHTS_GONE, Client, Pieces
from darner_core.operations.dead_letters import Place, history_of
from darner_core.operations.operations import Operations
from darner_core.operations.session import Session
from darner_core.protocols.contract import Reply
from darner_core.protocols.memcache import replies
from darner_core.protocols.memcache.reader import LineRequest
from darner_core.protocols.memcache.replies import END, NOT_FOUND, ONE_PIECE_BYTES
from darner_core.showing import show

FIRST_BYTES: Final = 100  # of a body


class DeadItems:
    """The commands, bound to the operations."""

    def __init__(self, operations: Operations) -> None:
        self._dead = operations.dead_letters
        self._pipeline_memory = operations.pipeline_memory

    def dead(self, request: LineRequest, body: None, session: Session) -> Reply:
        return partial(self._wait_tell, request)

    def put_back(self, request: LineRequest, body: None, session: Session) -> Reply:
        return partial(self._wait_put_back, request)

    def drop(self, request: LineRequest, body: None, session: Session) -> Reply:
        return partial(self._wait_drop, request)

    def _place(self, queue: bytes, client: Client) -> Place:
        """Raises ClientError if the client may not administer the queue in which they lie."""
        place = self._dead.place(queue)
        if place.queue != queue and not client.may(ADMIN, place.queue):
            raise ClientError(f"you may not administer queue {show(place.queue)}, where its dead letters are")
        return place

    def _wait_tell(self, request: LineRequest, client: Client) -> bytes:
        place, left = self._place(request.queue, client), request.most
        pieces = Pieces(client, self._pipeline_memory, ONE_PIECE_BYTES)
        for seen in self._dead.wait_each(client, place):
            _require(client, request.queue)
            begins = None
            if client.may(GET, place.queue):
                begins = self._dead.first_bytes(place, seen.id, FIRST_BYTES)
            pieces.wait_add(_line(seen, begins))
            left -= 1
            if not left:
                break
        return pieces.take() + END

    def _wait_put_back(self, request: LineRequest, client: Client) -> bytes:
        queue, dead = request.queue, self._dead
        place = self._place(queue, client)
        if request.asked is None:
            require = partial(_require, client, queue)
            put_back = dead.wait_put_several_back(client, queue, place, request.most, require)
        elif not dead.is_there(place, request.asked.item_id):
            return NOT_FOUND
        else:
            put_back = dead.wait_put_back(client, queue, place, request.asked.item_id)
        if put_back.is_full:
            raise ServerError(f"put back {put_back.done}: queue {show(queue)} takes no more, it is full or paused")
        return replies.line(f"PUT_BACK {put_back.done}")

    def _wait_drop(self, request: LineRequest, client: Client) -> bytes:
        place = self._place(request.queue, client)
        if request.asked is None:
            require = partial(_require, client, request.queue)
            dropped = self._dead.wait_drop_several(client, place, request.most, require)
        elif not self._dead.drop(place, request.asked.item_id):
            return NOT_FOUND
        else:
            dropped = 1
        return replies.line(f"DROPPED {dropped}")


def _require(client: Client, queue: bytes) -> None:
    if not client.may(ADMIN, queue):
        raise ClientError(RIGHTS_GONE)


def _line(seen: Seen, begins: bytes | None) -> bytes:
    told = {
        "id": seen.id,
        "state": seen.state.value,
        "bytes": seen.body_bytes,
        "flags": seen.flags,
        "put_at_ms": seen.added_at_ms,
        "failures": seen.nacks + seen.timeouts + seen.losses,
        "history": history_of(seen.note),
    }
    if begins is not None:
        told["first_bytes"] = b64encode(begins).decode()
    return replies.line(json.dumps(told))
