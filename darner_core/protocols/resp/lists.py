"""Values that are popped from Redis's lists, at either end, and moved from one list to another: see `ends`.

What was popped is gone, as in Redis. Only a client that vanishes while it waits for a value loses none.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Literal

from darner_core.access.rights import GET, PUT
from darner_core.engines.contract import Read
from darner_core.errors import StorageError
from darner_core.operations.client import LATER, Client, Later
from darner_core.operations.operations import Operations
from darner_core.protocols.contract import READS, WRITES, Reply
from darner_core.protocols.escaping import name_elsewhere
from darner_core.protocols.grammar import MAX_WAIT_MS
from darner_core.protocols.resp import replies
from darner_core.protocols.resp.ends import LEFT, RIGHT, Ends, Side
from darner_core.protocols.resp.naming import integer_of, queue_of
from darner_core.protocols.resp.pushes import AT_ONCE
from darner_core.protocols.resp.reader import Entry, RespRequest
from darner_core.protocols.resp.replies import RespError
from darner_core.protocols.resp.room import ReplyRoom
from darner_core.protocols.resp.session import RespSession

MAX_REPLY_BYTES: Final = 1 << 20


_ENDS: Final = {b"left": LEFT, b"right": RIGHT}


class Lists:
    """The commands, bound to the queues."""

    def __init__(self, operations: Operations, ends: Ends, push_one: Callable[..., None]) -> None:
        """`push_one` is that of `pushes`."""
        self._room = ReplyRoom(operations.pipeline_memory)
        self._stats = operations.stats
        self._taking = operations.taking
        self._items = operations.items
        self._ends = ends
        self._push_one = push_one

    def entries(self) -> dict[bytes, Entry]:
        return {
            b"lpop": Entry(partial(self.pop, LEFT), 1, 2, READS, True),
            b"rpop": Entry(partial(self.pop, RIGHT), 1, 2, READS, True),
            b"lmpop": Entry(self.pop_of_several, 3, None, READS, True),
            b"blpop": Entry(partial(self.wait_pop, LEFT), 2, None, READS, True),
            b"brpop": Entry(partial(self.wait_pop, RIGHT), 2, None, READS, True),
            b"blmpop": Entry(self.wait_pop_of_several, 4, None, READS, True),
            b"rpoplpush": Entry(self.pop_and_push, 2, 2, WRITES, True),
            b"brpoplpush": Entry(self.wait_pop_and_push, 3, 3, WRITES, True),
            b"lmove": Entry(self.move, 4, 4, WRITES, True),
            b"blmove": Entry(self.wait_move, 5, 5, WRITES, True),
            b"llen": Entry(self.length, 1, 1),
        }

    def length(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        return replies.integer(self._ends.length(queue_of(request.arguments[0], session, GET)))

    # -- popping

    def pop(self, end: str, request: RespRequest, body: None, session: RespSession) -> Reply:
        words = request.words
        queue = queue_of(words[1], session, GET)
        if len(words) == 3:
            return self._pop_counted(session, queue, end, words[2])
        source = self._ends.source(queue, end)
        item: Any = source.take() if source is not None else None
        if item is None:
            if source is not None and source.half_swept and not session.executes:
                return partial(self._wait_taken, (queue,), end, -1.0, _value)
            self._stats.get_misses += 1
            return session.nil
        if item.__class__ is not tuple:  # it is large
            return self._open(session, (queue,), end, _value)
        self._stats.get_hits += 1
        value = item[0]
        return b"$%d\r\n%b\r\n" % (len(value), value)

    def _pop_counted(self, session: RespSession, queue: bytes, end: str, count: bytes) -> Reply:
        most = integer_of(count, "value is out of range, must be positive")
        if most < 0:
            raise RespError("value is out of range, must be positive")
        if not most:
            return replies.EMPTY if self._ends.length(queue) else session.nil_array
        return self._pop_several(session, queue, end, most, _values)

    def _pop_several(self, session: RespSession, queue: bytes, end: str, most: int, answer: "_Answer") -> Reply:
        """Up to `most` values, as many as one turn can take. A large one goes alone."""
        source = self._ends.source(queue, end)
        values: list[bytes] = []
        size = 0
        while source is not None and len(values) < min(most, AT_ONCE) and size < self._room.most(MAX_REPLY_BYTES):
            try:
                item: Any = source.take()
            except StorageError:
                if not values:
                    raise
                break  # what lies before the damage is served
            if item.__class__ is not tuple:
                if values or (item is None and (not source.half_swept or session.executes)):
                    break
                if session.executes:
                    raise RespError("a large value cannot be popped in a transaction")
                return partial(self._wait_taken, (queue,), end, -1.0, answer)
            values.append(item[0])
            size += len(item[0])
        if not values:
            self._stats.get_misses += 1
            return session.nil_array
        self._stats.get_hits += len(values)
        return answer(queue, values)

    def pop_of_several(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        """`LMPOP <how many keys> <key>... LEFT|RIGHT [COUNT n]`"""
        queues, end, most = self._several(request.arguments, session)
        found = self._first_of(session, queues, end, most)
        if found is None:
            self._stats.get_misses += 1
            return session.nil_array
        return found

    def _first_of(self, session: RespSession, queues: Sequence[bytes], end: str, most: int) -> Reply | None:
        """The values of the first list that has any; None: none has."""
        for queue in queues:
            if self._ends.length(queue):
                return self._pop_several(session, queue, end, most, _key_and_values)
        return None

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
        return self._open(session, queues, end, _key_and_value, wait_s)

    def wait_pop_of_several(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        wait_s = _timeout(request.arguments[0])
        queues, end, most = self._several(request.arguments[1:], session)
        found = self._first_of(session, queues, end, most)
        if found is not None:
            return found
        if session.executes:
            return session.nil_array
        return partial(self._wait_taken, queues, end, wait_s, _key_and_values)

    def _open(
        self, session: RespSession, queues: tuple[bytes, ...], end: str, answer: "_Answer", wait_s: float = -1.0
    ) -> Reply:
        """The value at this end of the first of these that has one, which is gone then. `wait_s`: how long to wait for
        one; below 0: not at all."""
        read = self._open_now(queues, end)
        if read is LATER or (read is None and wait_s >= 0):
            if session.executes:
                return session.nil_array
            return partial(self._wait_taken, queues, end, max(0.0, wait_s), answer)
        if read is None:
            self._stats.get_misses += 1
            return session.nil
        return self._taken(session, read, answer)

    def _open_now(self, queues: Sequence[bytes], end: str) -> Read | Literal[Later.LATER] | None:
        """As `Taking.open`, at this end."""
        for queue in queues:
            source = self._ends.source(queue, end)
            read: Read | None = source.open() if source is not None else None
            if read is not None:
                return read
            if source is not None and source.half_swept:
                return LATER
        return None

    def _wait_open(self, queues: tuple[bytes, ...], end: str, wait_s: float, client: Client) -> Read | None:
        """As `Taking.wait_open`, at this end. What comes to an empty list is at both ends of it. What a list has while
        it is paused is not: who waits there is handed the head when the pause ends, and it may be the tail's turn."""
        until = time.monotonic() + wait_s
        read = self._open_now(queues, end)
        while read is None or read is LATER:
            paused = [queue for queue in queues if self._ends.length(queue)]
            with self._ends.waiting(queues, end):
                handed = self._taking.wait_open(client, queues, until)
            if handed is None or handed.queue.name not in paused:
                return handed
            handed.queue.give_back(handed, wake=False)
            read = self._open_now((handed.queue.name,), end)  # None: it is paused again
        return read

    def _wait_taken(
        self, queues: tuple[bytes, ...], end: str, wait_s: float, answer: "_Answer", client: Client
    ) -> bytes:
        session: Any = client.session
        read = self._wait_open(queues, end, wait_s, client)
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
        return answer(read.queue.name, [value])

    def _wait_send(self, read: Read, answer: "_Answer", client: Client) -> bytes:
        before, behind = answer(read.queue.name, [_GAP]).rsplit(replies.bulk(_GAP), 1)
        self._taking.wait_send(client, read, lambda item: b"%b$%d\r\n" % (before, len(item[0])), _close)
        return b"\r\n" + behind

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
        read = self._open_now((queue,), popped)
        if (read is LATER or (read is None and wait_s >= 0)) and not session.executes:
            return partial(self._wait_moved, queue, popped, onto, pushed, max(0.0, wait_s))
        if read is None or read is LATER:
            self._stats.get_misses += 1
            return session.nil if wait_s < 0 else session.nil_array
        return self._moved(session, read, popped, onto, pushed)

    def _wait_moved(self, queue: bytes, popped: str, onto: bytes, pushed: str, wait_s: float, client: Client) -> bytes:
        session: Any = client.session
        read = self._wait_open((queue,), popped, wait_s, client)
        if read is None:
            self._stats.get_misses += 1
            nil: bytes = session.nil_array
            return nil
        return self._moved(session, read, popped, onto, pushed)

    def _moved(self, session: RespSession, read: Read, popped: str, onto: bytes, pushed: str) -> bytes:
        try:
            session.require(GET, read.queue.name)
            session.require(PUT, onto)
            if read.blob:
                raise RespError(f"a value of {read.body_bytes} bytes is too large to be moved: pop it, and push it")
            value: Any = read.queue.item_of(read)[0]
            if read.queue.name != onto:
                self._push_one(session, onto, pushed, value)
                read.queue.close(read)
            elif popped == pushed:
                read.queue.give_back(read)
            else:  # no limit refuses it, because the list does not grow
                self._items.requeue(read, value, self._ends.push(onto, pushed) is Side.HEAD)
        except BaseException:
            read.queue.give_back(read)
            raise
        self._stats.get_hits += 1
        return replies.bulk(value)


# (the queue, values of it) -> the reply with them.
_Answer = Callable[[bytes, list[bytes]], bytes]

# Stands for a large value, which is sent piece by piece. It comes last, so a name in front of it may be the same.
_GAP: Final = b"\0\r\n"


def _value(queue: bytes, values: list[bytes]) -> bytes:
    return replies.bulk(values[0])


def _values(queue: bytes, values: list[bytes]) -> bytes:
    return replies.bulks(values)


def _key_and_value(queue: bytes, values: list[bytes]) -> bytes:
    return replies.bulks((name_elsewhere(queue), values[0]))


def _key_and_values(queue: bytes, values: list[bytes]) -> bytes:
    return replies.array((replies.bulk(name_elsewhere(queue)), replies.bulks(values)))


def _close(read: Read) -> None:
    read.queue.close(read)


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
