"""Values that are pushed onto Redis's lists, at either end: see `ends`."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from darner_core.access.rights import PUT
from darner_core.config.options import Config
from darner_core.engines.jobs import JobOptions, Outcome
from darner_core.errors import ServerError, StorageError
from darner_core.operations.client import Client
from darner_core.operations.operations import Operations
from darner_core.protocols.contract import WRITES, Reply
from darner_core.protocols.resp import replies
from darner_core.protocols.resp.adding import wait_store
from darner_core.protocols.resp.ends import LEFT, RIGHT, Ends, Side, shown
from darner_core.protocols.resp.naming import queue_of
from darner_core.protocols.resp.reader import Entry, RespRequest
from darner_core.protocols.resp.replies import RespError
from darner_core.protocols.resp.session import RespSession

# What one command pushes in a turn at most: 5 ms.
AT_ONCE: Final = 1000

_FIRST: Final = JobOptions(first=True)


class Pushes:
    """The commands, bound to the queues."""

    def __init__(self, operations: Operations, config: Config, ends: Ends) -> None:
        self._stats = operations.stats
        self._queues = operations.queues
        self._putting = operations.putting
        self._jobs = operations.jobs
        self._chunk_bytes = config.chunk_bytes
        self._ends = ends

    def entries(self) -> dict[bytes, Entry]:
        return {
            b"lpush": Entry(partial(self.push, LEFT, False), 2, None, WRITES),
            b"rpush": Entry(partial(self.push, RIGHT, False), 2, None, WRITES),
            b"lpushx": Entry(partial(self.push, LEFT, True), 2, None, WRITES),
            b"rpushx": Entry(partial(self.push, RIGHT, True), 2, None, WRITES),
        }

    def push(self, end: str, if_there: bool, request: RespRequest, body: None, session: RespSession) -> Reply:
        _, name, *values = request.words
        queue = queue_of(name, session, PUT)
        before = self._ends.length(queue)
        if if_there and not before:
            return replies.integer(0)
        if len(values) == 1 and len(values[0]) <= self._chunk_bytes:
            # What follows comes to the same, and takes twice as long.
            self.push_one(session, queue, end, values[0])
            return b":%d\r\n" % (before + 1)
        is_long = len(values) > AT_ONCE or any(len(value) > self._chunk_bytes for value in values)
        if is_long and session.executes:
            raise RespError(
                f"a push of more than {AT_ONCE} values, or of one over {self._chunk_bytes} bytes, cannot be in a"
                " transaction"
            )
        self._require_room(queue, values)
        if is_long:
            return partial(self._wait_push, queue, end, values)
        values = list(self._ends.in_order(queue, end, values))
        for number, value in enumerate(values):
            try:
                self.push_one(session, queue, end, value)
            except (ServerError, StorageError) as error:
                raise _after(error, number, len(values)) from error
        return replies.integer(before + len(values))  # also if clients that wait have some of them by now

    def _require_room(self, queue: bytes, values: Sequence[bytes]) -> None:
        """Raises RespError if there is no room for all of them, so that nothing is pushed."""
        try:
            has_room = self._putting.has_room(queue, [len(value) for value in values])
        except ServerError as error:
            raise RespError(str(error), "OOM") from None
        if not has_room:
            raise full(queue)

    def push_one(self, session: RespSession, queue: bytes, end: str, value: bytes) -> None:
        """Raises RespError if there is no room."""
        side = self._ends.push(queue, end)
        self._stats.cmd_set += 1
        try:
            self._putting.require_taken(len(value))
        except ServerError as error:
            raise RespError(str(error), "OOM") from None
        found = self._queues.get(queue)
        if side is Side.HEAD:
            try:
                placed = self._jobs.put(session, (queue,), value, 0, 0, _FIRST)
            except ServerError as error:
                raise RespError(str(error)) from None
            if placed.outcome is Outcome.FULL:
                raise full(queue)
        elif found is not None and not found.governed:
            found.put(value, 0, 0)
        elif not self._putting.put(session, (queue,), value):
            raise full(queue)
        if side is Side.NEW:
            self._ends.pushed(queue, end)

    def _wait_push(self, queue: bytes, end: str, values: Sequence[bytes], client: Client) -> bytes:
        """Many values, or large ones: others may fill the queue meanwhile, and the reply says how many were pushed."""
        session: Any = client.session
        before = self._ends.length(queue)
        for number, value in enumerate(values):
            if number and not number % AT_ONCE:
                try:
                    client.wait_turn()
                except (ServerError, StorageError) as error:  # the turn before was undone
                    raise _after(error, number - AT_ONCE, len(values)) from error
            try:
                session.require(PUT, queue)
                if len(value) <= self._chunk_bytes:
                    self.push_one(session, queue, end, value)
                else:
                    self._wait_push_large(queue, end, value, client)
            except (ServerError, StorageError) as error:
                raise _after(error, number, len(values)) from error
        return replies.integer(before + len(values))

    def _wait_push_large(self, queue: bytes, end: str, value: bytes, client: Client) -> None:
        session: Any = client.session
        with self._putting.large((queue,), len(value), as_child=False) as item:
            if not item.wait_begin(client):
                raise full(queue)
            wait_store(item, value, client)
            side = self._ends.push(queue, end)
            options = _FIRST if side is Side.HEAD else JobOptions()
            if self._jobs.put_large(session, (queue,), item, 0, 0, options).outcome is Outcome.FULL:
                raise full(queue)
            if side is Side.NEW:
                self._ends.pushed(queue, end)


def _after(error: ServerError | StorageError, pushed: int, values: int) -> ServerError | StorageError:
    """`error`, which says how many values were pushed before it, if any."""
    if not pushed:
        return error
    word = error.word if isinstance(error, RespError) else "MISCONF"
    return RespError(f"only the first {pushed} of {values} values are pushed: {error}", word)


def full(queue: bytes) -> RespError:
    return RespError(f"queue {shown(queue)} is full, or takes nothing at present", "OOM")
