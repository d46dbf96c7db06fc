"""Redis's lists as queues: pushes, pops, and moves from one list to another.

A list here is a queue: it is pushed at one end and popped at the other. Which end is which, the first push into an
empty list says; the server knows it until it ends. A push at the end where others pop puts the value before all others,
as whoever gives unfinished work back expects. A pop at the end where others push would make the list a stack, and is
refused.

What was popped is gone, as in Redis. Only a client that vanishes while it waits for a value loses none.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from darner_core.access.rights import GET, PUT
from darner_core.config.options import Config
from darner_core.engines.contract import Read
from darner_core.engines.jobs import NEUTRAL, JobOptions, Outcome
from darner_core.errors import ServerError
from darner_core.operations.client import LATER, Client
from darner_core.operations.operations import Operations
from darner_core.protocols.contract import READS, WRITES, Reply
from darner_core.protocols.escaping import name_elsewhere
from darner_core.protocols.grammar import MAX_WAIT_MS, excerpt
from darner_core.protocols.resp import replies
from darner_core.protocols.resp.entries import Entry
from darner_core.protocols.resp.naming import integer_of, queue_of
from darner_core.protocols.resp.reader import RespRequest
from darner_core.protocols.resp.replies import RespError
from darner_core.protocols.resp.session import RespSession
from darner_core.protocols.resp.storing import wait_store

LEFT, RIGHT = "left", "right"
_OTHER: Final = {LEFT: RIGHT, RIGHT: LEFT}
_ENDS: Final = {b"left": LEFT, b"right": RIGHT}

# What one command pushes or pops in a turn at most: 5 ms.
AT_ONCE: Final = 1000
MAX_REPLY_BYTES: Final = 1 << 20


class Ends:
    """At which end each list is pushed."""

    def __init__(self, operations: Operations) -> None:
        self._queues = operations.queues
        self._pushed: dict[bytes, str] = {}

    def pushed(self, queue: bytes) -> str:
        """LEFT or RIGHT; "": nobody knows."""
        return self._pushed.get(queue, "")

    def length(self, queue: bytes) -> int:
        """How many values the list has; 0: there is no such list."""
        found = self._queues.get(queue)
        return found.waiting_items if found is not None and not found.unreadable else 0

    def push(self, queue: bytes, end: str) -> bool:
        """Something is pushed at this end. False: it is where others pop."""
        pushed = self._pushed.get(queue)
        if pushed == end:
            return True
        if pushed is None or not self.length(queue):
            self._pushed[queue] = end
            if len(self._pushed) > 2 * len(self._queues) + 1000:
                self._pushed = {name: one for name, one in self._pushed.items() if name in self._queues}
            return True
        return False

    def require_pop(self, queue: bytes, end: str) -> None:
        """Raises RespError if this end is where others push."""
        if self._pushed.get(queue) == end and self.length(queue):
            raise RespError(
                f"queue {_shown(queue)} is a FIFO: it is pushed at the {end} and popped at the {_OTHER[end]}"
            )


class Lists:
    """The commands, bound to the queues."""

    def __init__(self, operations: Operations, config: Config, ends: Ends) -> None:
        self._stats = operations.stats
        self._queues = operations.queues
        self._putting = operations.putting
        self._taking = operations.taking
        self._jobs = operations.jobs
        self._items = operations.items
        self._chunk_bytes = config.chunk_bytes
        self._ends = ends

    def entries(self) -> dict[bytes, Entry]:
        return {
            b"lpush": Entry(partial(self.push, LEFT, False), 2, None, WRITES),
            b"rpush": Entry(partial(self.push, RIGHT, False), 2, None, WRITES),
            b"lpushx": Entry(partial(self.push, LEFT, True), 2, None, WRITES),
            b"rpushx": Entry(partial(self.push, RIGHT, True), 2, None, WRITES),
            b"lpop": Entry(partial(self.pop, LEFT), 1, 2, READS),
            b"rpop": Entry(partial(self.pop, RIGHT), 1, 2, READS),
            b"lmpop": Entry(self.pop_of_several, 3, None, READS),
            b"blpop": Entry(partial(self.wait_pop, LEFT), 2, None, READS),
            b"brpop": Entry(partial(self.wait_pop, RIGHT), 2, None, READS),
            b"blmpop": Entry(self.wait_pop_of_several, 4, None, READS),
            b"rpoplpush": Entry(self.pop_and_push, 2, 2, WRITES),
            b"brpoplpush": Entry(self.wait_pop_and_push, 3, 3, WRITES),
            b"lmove": Entry(self.move, 4, 4, WRITES),
            b"blmove": Entry(self.wait_move, 5, 5, WRITES),
            b"llen": Entry(self.length, 1, 1),
        }

    def length(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        return replies.integer(self._ends.length(queue_of(request.arguments[0], session, GET)))

    # -- pushing

    def push(self, end: str, if_there: bool, request: RespRequest, body: None, session: RespSession) -> Reply:
        name, *values = request.arguments
        queue = queue_of(name, session, PUT)
        if if_there and not self._ends.length(queue):
            return replies.integer(0)
        if len(values) > AT_ONCE or any(len(value) > self._chunk_bytes for value in values):
            if session.executes:
                raise RespError(
                    f"a push of more than {AT_ONCE} values, or of one over {self._chunk_bytes} bytes, cannot be in a"
                    " transaction"
                )
            return partial(self._wait_push, queue, end, values)
        self._push(session, queue, end, values)
        return replies.integer(self._ends.length(queue))

    def _push(self, session: RespSession, queue: bytes, end: str, values: Sequence[bytes]) -> None:
        at_the_pushed_end = self._ends.push(queue, end)
        for value in values:
            self._put(session, queue, value, at_the_pushed_end)

    def _put(self, session: RespSession, queue: bytes, value: bytes, last: bool = True) -> None:
        """`last`: behind all others, or before them. Raises RespError if there is no room."""
        self._stats.cmd_set += 1
        try:
            self._putting.require_taken(len(value))
        except ServerError as error:
            raise RespError(str(error), "OOM") from None
        found = self._queues.get(queue)
        if last and found is not None and not found.governed:
            found.put(value, 0, 0)
        elif last:
            if not self._putting.put(session, (queue,), value):
                raise _full(queue)
        else:
            placed = self._jobs.put(session, (queue,), value, 0, 0, self._before_all(queue))
            if placed.outcome is Outcome.FULL:
                raise _full(queue)

    def _before_all(self, queue: bytes) -> JobOptions:
        """What makes an item the first of its queue. Raises RespError if nothing can be before its head."""
        rank = self._items.rank(queue)
        pri = rank[0] if rank is not None else NEUTRAL
        if not pri:
            raise RespError(f"nothing goes before the head of queue {_shown(queue)}, which has priority 0")
        return JobOptions(pri=pri - 1)

    def _wait_push(self, queue: bytes, end: str, values: Sequence[bytes], client: Client) -> bytes:
        session: Any = client.session
        for number, value in enumerate(values):
            if number and not number % AT_ONCE:
                client.wait_turn()
                session.require(PUT, queue)
            if len(value) <= self._chunk_bytes:
                self._push(session, queue, end, (value,))
                continue
            last = self._ends.push(queue, end)
            with self._putting.large((queue,), len(value), as_child=False) as item:
                if not item.wait_begin(client):
                    raise _full(queue)
                wait_store(item, value, client)
                options = JobOptions() if last else self._before_all(queue)
                if self._jobs.put_large(session, (queue,), item, 0, 0, options).outcome is Outcome.FULL:
                    raise _full(queue)
        return replies.integer(self._ends.length(queue))

    # -- popping

    def pop(self, end: str, request: RespRequest, body: None, session: RespSession) -> Reply:
        queue = queue_of(request.arguments[0], session, GET)
        self._ends.require_pop(queue, end)
        if len(request.arguments) == 2:
            most = integer_of(request.arguments[1], "value is out of range, must be positive")
            if most < 0:
                raise RespError("value is out of range, must be positive")
            return self._pop_several(session, queue, most, lambda values: replies.bulks(values))
        found = self._queues.get(queue)
        item: Any = found.take() if found is not None else None
        if item is None:
            if found is not None and found.half_swept and not session.executes:
                return partial(self._wait_taken, (queue,), 0.0, _value)
            self._stats.get_misses += 1
            return session.nil
        if item.__class__ is not tuple:  # it is large
            return self._open(session, (queue,), _value)
        self._stats.get_hits += 1
        return replies.bulk(item[0])

    def _pop_several(
        self, session: RespSession, queue: bytes, most: int, answer: Callable[[list[bytes]], bytes]
    ) -> bytes:
        """Up to `most` values, as many as one turn can take; none is an answer of its own."""
        found = self._queues.get(queue)
        values: list[bytes] = []
        size = 0
        while found is not None and len(values) < min(most, AT_ONCE) and size < MAX_REPLY_BYTES:
            item: Any = found.take()
            if item.__class__ is not tuple:  # nothing, or a large one, which goes alone
                if item is not None and not values:
                    raise RespError("the next value is large: pop it without a count")
                break
            values.append(item[0])
            size += len(item[0])
        self._stats.get_hits += len(values)
        return answer(values) if values or (not most and self._ends.length(queue)) else session.nil_array

    def pop_of_several(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        """`LMPOP <how many keys> <key>... LEFT|RIGHT [COUNT n]`"""
        queues, end, most = self._several(request.arguments, session)
        return self._first_of(session, queues, end, most) or session.nil_array

    def _first_of(self, session: RespSession, queues: Sequence[bytes], end: str, most: int) -> bytes:
        """The values of the first list that has any; b"": none has."""
        for queue in queues:
            if self._ends.length(queue):
                self._ends.require_pop(queue, end)
                name = replies.bulk(name_elsewhere(queue))
                return self._pop_several(
                    session,
                    queue,
                    most,
                    lambda values, name=name: replies.array((name, replies.bulks(values))),  # type: ignore[misc]
                )
        return b""

    @staticmethod
    def _several(words: Sequence[bytes], session: RespSession) -> tuple[tuple[bytes, ...], str, int]:
        """(queues, end, how many). Raises RespError."""
        count = integer_of(words[0], "numkeys should be greater than 0")
        if count < 1:
            raise RespError("numkeys should be greater than 0")
        keys, rest = words[1 : 1 + count], words[1 + count :]
        if len(keys) < count or not rest or rest[0].lower() not in _ENDS or len(rest) not in (1, 3):
            raise RespError("syntax error")
        most = 1
        if len(rest) == 3:
            if rest[1].lower() != b"count":
                raise RespError("syntax error")
            most = integer_of(rest[2], "count should be greater than 0")
            if most < 1:
                raise RespError("count should be greater than 0")
        return tuple(queue_of(key, session, GET) for key in keys), _ENDS[rest[0].lower()], most

    # -- waiting for a value

    def wait_pop(self, end: str, request: RespRequest, body: None, session: RespSession) -> Reply:
        *keys, timeout = request.arguments
        wait_s = _timeout(timeout)
        queues = tuple(queue_of(key, session, GET) for key in keys)
        for queue in queues:
            self._ends.require_pop(queue, end)
        return self._open(session, queues, _key_and_value, wait_s)

    def wait_pop_of_several(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        wait_s = _timeout(request.arguments[0])
        queues, end, most = self._several(request.arguments[1:], session)
        found = self._first_of(session, queues, end, most)
        if found or session.executes:
            return found or session.nil_array
        return partial(self._wait_taken, queues, wait_s, _key_and_values)

    def _open(self, session: RespSession, queues: tuple[bytes, ...], answer: "_Answer", wait_s: float = -1.0) -> Reply:
        """The value at the head of the first of these that has one, which is gone then. `wait_s`: how long to wait for
        one; below 0: not at all."""
        read = self._taking.open(queues)
        if read is LATER or (read is None and wait_s >= 0):
            if session.executes:
                return session.nil_array
            return partial(self._wait_taken, queues, max(0.0, wait_s), answer)
        if read is None:
            self._stats.get_misses += 1
            return session.nil
        return self._taken(session, read, answer)

    def _wait_taken(self, queues: tuple[bytes, ...], wait_s: float, answer: "_Answer", client: Client) -> bytes:
        session: Any = client.session
        read = self._taking.wait_open(client, queues, time.monotonic() + wait_s)
        if read is None:
            self._stats.get_misses += 1
            nil: bytes = session.nil if answer is _value else session.nil_array
            return nil
        reply = self._taken(session, read, answer)
        return reply if isinstance(reply, bytes) else reply(client)

    def _taken(self, session: RespSession, read: Read, answer: "_Answer") -> Reply:
        """The reply with what is open, which is gone then."""
        try:
            session.require(GET, read.queue.name)
            if read.blob and session.executes:
                raise RespError("a large value cannot be popped in a transaction")
        except BaseException:
            read.queue.give_back(read)
            raise
        if read.blob:
            return partial(self._wait_send, read, answer)
        value: Any = self._taking.accept(read, _close)[0]
        head, tail = answer(read.queue.name)
        return b"%b%b%b" % (head, replies.bulk(value), tail)

    def _wait_send(self, read: Read, answer: "_Answer", client: Client) -> bytes:
        head, tail = answer(read.queue.name)
        self._taking.wait_send(client, read, lambda item: b"%b$%d\r\n" % (head, len(item[0])), _close)
        return b"\r\n" + tail

    # -- moving a value

    def pop_and_push(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        source, target = request.arguments
        return self._move(session, source, target, RIGHT, LEFT)

    def wait_pop_and_push(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        source, target, timeout = request.arguments
        return self._move(session, source, target, RIGHT, LEFT, _timeout(timeout))

    def move(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        source, target, *ends = request.arguments
        return self._move(session, source, target, *_ends(ends))

    def wait_move(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        source, target, *ends, timeout = request.arguments
        return self._move(session, source, target, *_ends(ends), _timeout(timeout))

    def _move(
        self, session: RespSession, source: bytes, target: bytes, popped: str, pushed: str, wait_s: float = -1.0
    ) -> Reply:
        """Pop at one list and push at another, in one turn. The reply is the value."""
        queue, onto = queue_of(source, session, GET), queue_of(target, session, PUT)
        self._ends.require_pop(queue, popped)
        read = self._taking.open((queue,))
        if (read is LATER or (read is None and wait_s >= 0)) and not session.executes:
            return partial(self._wait_moved, queue, onto, pushed, max(0.0, wait_s))
        if read is None or read is LATER:
            self._stats.get_misses += 1
            return session.nil if wait_s < 0 else session.nil_array
        return self._moved(session, read, onto, pushed)

    def _wait_moved(self, queue: bytes, onto: bytes, pushed: str, wait_s: float, client: Client) -> bytes:
        session: Any = client.session
        read = self._taking.wait_open(client, (queue,), time.monotonic() + wait_s)
        if read is None:
            self._stats.get_misses += 1
            nil: bytes = session.nil_array
            return nil
        return self._moved(session, read, onto, pushed)

    def _moved(self, session: RespSession, read: Read, onto: bytes, pushed: str) -> bytes:
        try:
            session.require(GET, read.queue.name)
            session.require(PUT, onto)
            if read.blob:
                raise RespError(f"a value of {read.body_bytes} bytes is too large to be moved: pop it, and push it")
            value: Any = read.queue.item_of(read)[0]
            self._push(session, onto, pushed, (value,))
        except BaseException:
            read.queue.give_back(read)
            raise
        read.queue.close(read)
        self._stats.get_hits += 1
        return replies.bulk(value)


# (the queue) -> what stands before the value, and behind it.
_Answer = Callable[[bytes], tuple[bytes, bytes]]


def _value(queue: bytes) -> tuple[bytes, bytes]:
    return b"", b""


def _key_and_value(queue: bytes) -> tuple[bytes, bytes]:
    return b"*2\r\n" + replies.bulk(name_elsewhere(queue)), b""


def _key_and_values(queue: bytes) -> tuple[bytes, bytes]:
    return b"*2\r\n" + replies.bulk(name_elsewhere(queue)) + b"*1\r\n", b""


def _shown(queue: bytes) -> str:
    return excerpt(name_elsewhere(queue))


def _close(read: Read) -> None:
    read.queue.close(read)


def _full(queue: bytes) -> RespError:
    return RespError(f"queue {_shown(queue)} is full, or takes nothing at present", "OOM")


def _timeout(word: bytes) -> float:
    """In seconds; for ever is as long as a client can wait. Raises RespError."""
    try:
        seconds = float(word)
    except ValueError:
        seconds = float("nan")
    if seconds != seconds or seconds == float("inf") or b"_" in word:
        raise RespError("timeout is not a float or out of range")
    if seconds < 0:
        raise RespError("timeout is negative")
    return min(seconds or MAX_WAIT_MS / 1000, MAX_WAIT_MS / 1000)


def _ends(words: Sequence[bytes]) -> tuple[str, str]:
    try:
        popped, pushed = (_ENDS[word.lower()] for word in words)
    except KeyError:
        raise RespError("syntax error") from None
    return popped, pushed
