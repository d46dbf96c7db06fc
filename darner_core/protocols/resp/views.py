"""What a list holds, without taking it: LRANGE, LINDEX and LPOS; and what takes from the middle: LREM and LTRIM.

The values of a queue have places only by counting. So these commands look at some thousand values from either end, and
no further.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from darner_core.access.rights import ADMIN, GET
from darner_core.engines.contract import Item
from darner_core.engines.items import Seen
from darner_core.errors import StorageError
from darner_core.operations.client import Client
from darner_core.operations.operations import Operations
from darner_core.operations.taking import Shown, wait_body
from darner_core.protocols.contract import READS, WRITES, Reply
from darner_core.protocols.guard import require_admin
from darner_core.protocols.resp import replies
from darner_core.protocols.resp.ends import Ends
from darner_core.protocols.resp.naming import integer_of, queue_of
from darner_core.protocols.resp.reader import Entry, RespRequest
from darner_core.protocols.resp.replies import OK, RespError
from darner_core.protocols.resp.room import ReplyRoom
from darner_core.protocols.resp.session import RespSession

MOST_VALUES: Final = 10_000
MOST_BYTES: Final = 8 << 20
LOOKED_AT_ONCE: Final = 200  # in one turn: 2 ms

_Value = tuple[int, bytes]  # the item's id, and its body


class Views:
    """The commands, bound to the queues."""

    def __init__(self, operations: Operations, ends: Ends) -> None:
        self._room = ReplyRoom(operations.pipeline_memory)
        self._stats = operations.stats
        self._items = operations.items
        self._queues = operations.queues
        self._administering = operations.administering
        self._ends = ends

    def entries(self) -> dict[bytes, Entry]:
        return {
            b"lrange": Entry(self.range, 3, 3, READS, True),
            b"lindex": Entry(self.index, 2, 2, READS, True),
            b"lpos": Entry(self.position, 2, None, READS),
            b"lrem": Entry(self.remove, 3, 3, WRITES),
            b"ltrim": Entry(self.trim, 3, 3, WRITES),
        }

    # -- looking

    def _wait_values(
        self, queue: bytes, from_left: bool, most: int, client: Client, size: int | None = None
    ) -> Iterator[_Value]:
        """Up to `most` values from one end on. `size`: of large ones, only those of so many bytes are read. Raises
        RespError if they are too many bytes."""
        backwards = from_left is not self._ends.begins_at_head(queue)
        session: Any = client.session
        after, sum_bytes, left = None, 0, most
        try:
            while left > 0:
                session.look()
                some = self._items.look(queue, after=after, most=min(left, LOOKED_AT_ONCE), backwards=backwards)
                session.look(len(some))
                for seen in some:
                    item = self._items.item(queue, seen.id)
                    if item is None:
                        continue
                    self._require_room(sum_bytes + seen.body_bytes)
                    sum_bytes += seen.body_bytes
                    self._room.memory.used_bytes += seen.body_bytes
                    body = self._wait_body(queue, item, seen, client) if size in (None, seen.body_bytes) else item[0]
                    if body is not None:
                        yield seen.id, body if isinstance(body, bytes) else b""
                left -= len(some)
                if len(some) < LOOKED_AT_ONCE:
                    return
                after = some[-1].position
                client.wait_turn()
        finally:
            self._room.memory.used_bytes -= sum_bytes

    def _require_room(self, body_bytes: int) -> None:
        """Raises RespError if values may not have so many bytes together."""
        most_bytes = self._room.most(MOST_BYTES)
        if body_bytes > most_bytes:
            raise RespError(f"these values have more than {most_bytes} bytes together: ask for fewer")

    def _wait_body(self, queue: bytes, item: Item, seen: Seen, client: Client) -> Any:
        """None: it has been taken meanwhile."""
        if isinstance(item[0], bytes):
            return item[0]
        try:
            return wait_body(client, Shown(self._queues[queue], item, seen.id))
        except StorageError:
            if self._items.find(queue, seen.id) is None:
                return None
            raise

    def range(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        queue = queue_of(request.arguments[0], session, GET)
        start, stop = (integer_of(word) for word in request.arguments[1:])
        self._stats.cmd_peek += 1
        return _in_turns(session, partial(self._wait_range, queue, start, stop))

    def _wait_range(self, queue: bytes, start: int, stop: int, client: Client) -> bytes:
        length = self._ends.length(queue)
        begin, end = max(0, start + length if start < 0 else start), stop + length if stop < 0 else stop
        end = min(end, length - 1)
        if begin > end:
            return replies.EMPTY
        from_left = end < MOST_VALUES
        if not from_left:  # counted from the right end
            begin, end = length - 1 - end, length - 1 - begin
        if end >= MOST_VALUES:
            raise RespError(f"the range is more than {MOST_VALUES} values away from both ends of the list")
        values = [value for _, value in self._wait_values(queue, from_left, end + 1, client)][begin:]
        return replies.bulks(values if from_left else reversed(values))

    def index(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        queue, index = queue_of(request.arguments[0], session, GET), integer_of(request.arguments[1])
        self._stats.cmd_peek += 1
        return _in_turns(session, partial(self._wait_index, queue, index))

    def _wait_index(self, queue: bytes, index: int, client: Client) -> bytes:
        session: Any = client.session
        length = self._ends.length(queue)
        from_left, away = index >= 0, index if index >= 0 else -index - 1
        if away >= length:
            nil: bytes = session.nil
            return nil
        if away >= MOST_VALUES and length - 1 - away < MOST_VALUES:
            from_left, away = not from_left, length - 1 - away
        if away >= MOST_VALUES:
            raise RespError(f"the value is more than {MOST_VALUES} values away from both ends of the list")
        values = [value for _, value in self._wait_values(queue, from_left, away + 1, client)]
        return replies.bulk(values[away]) if away < len(values) else session.nil

    def position(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        """`LPOS <key> <value> [RANK n] [COUNT n] [MAXLEN n]`"""
        key, value, *words = request.arguments
        queue = queue_of(key, session, GET)
        asked = {b"RANK": 1, b"COUNT": -1, b"MAXLEN": 0}
        if len(words) % 2:
            raise RespError("syntax error")
        for name, number in zip(words[::2], words[1::2], strict=True):
            if name.upper() not in asked:
                raise RespError("syntax error")
            asked[name.upper()] = integer_of(number)
        if not asked[b"RANK"]:
            raise RespError(
                "RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to"
                " start from the end of the list"
            )
        if asked[b"COUNT"] < -1 or (asked[b"COUNT"] == -1 and b"COUNT" in map(bytes.upper, words[::2])):
            raise RespError("COUNT can't be negative")
        if asked[b"MAXLEN"] < 0:
            raise RespError("MAXLEN can't be negative")
        self._stats.cmd_peek += 1
        wait = partial(
            self._wait_position, queue, value, asked[b"RANK"], asked[b"COUNT"], asked[b"MAXLEN"] or MOST_VALUES
        )
        return _in_turns(session, wait)

    def _wait_position(self, queue: bytes, value: bytes, rank: int, count: int, most: int, client: Client) -> bytes:
        session: Any = client.session
        length = self._ends.length(queue)
        passed_over, found = abs(rank) - 1, []
        values = self._wait_values(queue, rank > 0, min(most, MOST_VALUES), client, len(value))
        for place, (_, one) in enumerate(values):
            if one != value:
                continue
            if passed_over:
                passed_over -= 1
                continue
            found.append(place if rank > 0 else length - 1 - place)
            if 0 < abs(count) <= len(found):
                break
        if count >= 0:
            return replies.array(map(replies.integer, found))
        return replies.integer(found[0]) if found else session.nil

    # -- changing

    def remove(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        key, count, value = request.arguments
        queue = queue_of(key, session, GET)
        return _in_turns(session, partial(self._wait_remove, queue, integer_of(count), value))

    def _wait_remove(self, queue: bytes, count: int, value: bytes, client: Client) -> bytes:
        """Each value is removed in the turn in which it is found."""
        session: Any = client.session
        values = self._wait_values(queue, count >= 0, MOST_VALUES, client, len(value))
        removed = 0
        for item_id, one in list(values) if session.executes else values:  # else an error might come half-way
            if one == value and self._items.remove(queue, item_id):
                removed += 1
                if removed == abs(count):
                    break
        return replies.integer(removed)

    def trim(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        """Only to nothing, which empties the list, or to all of it."""
        queue = queue_of(request.arguments[0], session, ADMIN)
        start, stop = (integer_of(word) for word in request.arguments[1:])
        length = self._ends.length(queue)
        begin, end = max(0, start + length if start < 0 else start), stop + length if stop < 0 else stop
        if begin > end or begin >= length:
            request.key = request.arguments[0]
            require_admin(request, session)
            self._administering.flush(queue)
        elif begin or end < length - 1:
            raise RespError("LTRIM empties a list (LTRIM key 1 0) or keeps all of it: max_items bounds a queue")
        return OK


def _in_turns(session: RespSession, wait: Callable[[Any], bytes]) -> Reply:
    """`wait` may take several turns. In a transaction it gets one."""
    return wait(_OneTurn(session)) if session.executes else wait


class _OneTurn:
    """The client, to what may not wait."""

    def __init__(self, session: RespSession) -> None:
        self.session = session

    def wait_turn(self) -> None:
        """The turn goes on: `RespSession.look` sees to it that it does not take too long."""
