"""The commands of Redis about keys: a key is a list, and a list is a queue that holds something."""

import fnmatch
import re
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final

from darner_core.access.rights import ADMIN, ADMIN_ALL, GET
from darner_core.operations.client import Client
from darner_core.operations.operations import Operations
from darner_core.protocols.contract import WRITES, Reply
from darner_core.protocols.escaping import name_elsewhere
from darner_core.protocols.guard import require_admin
from darner_core.protocols.resp import replies
from darner_core.protocols.resp.ends import Ends
from darner_core.protocols.resp.naming import integer_of, queue_of
from darner_core.protocols.resp.reader import Entry, RespRequest
from darner_core.protocols.resp.replies import OK, RespError
from darner_core.protocols.resp.scans import NONE, Cursors, Names
from darner_core.protocols.resp.session import RespSession
from darner_core.slicing import slices

LOOKED_AT_ONCE: Final = 1000
DELETED_AT_ONCE: Final = 100
MOST_KEYS: Final = 10_000  # of one SCAN


class Keys:
    """The commands, bound to the queues."""

    def __init__(self, operations: Operations, ends: Ends) -> None:
        self._queues = operations.queues
        self._administering = operations.administering
        self._ends = ends
        self._cursors = Cursors()
        self._names = Names(operations.statistics)

    def entries(self) -> dict[bytes, Entry]:
        return {
            b"del": Entry(self.delete, 1, None, WRITES),
            b"unlink": Entry(self.delete, 1, None, WRITES),
            b"exists": Entry(self.exists, 1),
            b"type": Entry(self.type, 1, 1),
            b"keys": Entry(self.keys, 1, 1),
            b"scan": Entry(self.scan, 1),
            b"dbsize": Entry(self.size, 0, 0),
            b"expire": Entry(self.expire, 2),
            b"pexpire": Entry(self.expire, 2),
            b"persist": Entry(self.expire, 1, 1),
            b"ttl": Entry(self.ttl, 1, 1),
            b"pttl": Entry(self.ttl, 1, 1),
            b"flushdb": Entry(self.flush_all, 0, 1, WRITES),
            b"flushall": Entry(self.flush_all, 0, 1, WRITES),
        }

    def delete(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        queues = list(dict.fromkeys(queue_of(key, session, ADMIN) for key in request.arguments))
        request.key = b" ".join(request.arguments)
        require_admin(request, session)
        if len(queues) <= DELETED_AT_ONCE:
            return replies.integer(self._delete(queues))
        _require_apart(session, "a DEL of so many keys")
        return partial(self._wait_delete, queues)

    def _delete(self, queues: Sequence[bytes]) -> int:
        """How many of them had values."""
        there = 0
        for queue in queues:
            there += self._ends.length(queue) > 0
            self._administering.delete(queue)
        return there

    def _wait_delete(self, queues: Sequence[bytes], client: Client) -> bytes:
        there = 0
        for start in range(0, len(queues), DELETED_AT_ONCE):
            if start:
                client.wait_turn()
            there += self._delete(queues[start : start + DELETED_AT_ONCE])
        return replies.integer(there)

    def exists(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        return replies.integer(sum(bool(self._ends.length(queue_of(key, session, GET))) for key in request.arguments))

    def type(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        there = self._ends.length(queue_of(request.arguments[0], session, GET))
        return replies.simple(b"list" if there else b"none")

    def expire(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        """Lists do not expire here; items do."""
        queue_of(request.arguments[0], session, GET)
        return replies.integer(0)

    def ttl(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        return replies.integer(-1 if self._ends.length(queue_of(request.arguments[0], session, GET)) else -2)

    # -- all keys

    def _wait_names(self, client: Client) -> Iterator[bytes]:
        """The names of all lists that the client may see."""
        for number, some in enumerate(slices(self._queues, LOOKED_AT_ONCE)):
            if number:
                client.wait_turn()
            yield from (name for name in some if self._ends.length(name) and client.may_see(name))

    def keys(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        pattern = _pattern(request.arguments[0])
        _require_apart(session, "KEYS")
        return partial(self._wait_keys, pattern)

    def _wait_keys(self, pattern: "re.Pattern[bytes]", client: Client) -> bytes:
        names = map(name_elsewhere, self._wait_names(client))
        return replies.bulks([name for name in names if pattern.fullmatch(name)])

    def size(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        _require_apart(session, "DBSIZE")
        return lambda client: replies.integer(sum(1 for _ in self._wait_names(client)))

    def scan(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        """`SCAN <cursor> [MATCH pattern] [COUNT n] [TYPE list]`"""
        cursor, *words = request.arguments
        asked = _scan_options(words)
        begin = self._cursors.find(cursor)
        _require_apart(session, "SCAN")
        return partial(self._wait_scan, begin, *asked)

    def _wait_scan(self, place: Any, pattern: "re.Pattern[bytes]", most: int, of_type: bytes, client: Client) -> bytes:
        """One step of a scan, which does not wait, but has to know what the client may see."""
        begin = self._names.begin(place)
        some = list(islice(self._queues, begin, begin + min(most, MOST_KEYS)))
        names = [name for name in some if self._ends.length(name) and client.may_see(name)]
        if of_type not in (b"", b"list"):
            names = []
        at = begin + len(some)
        next_one = self._cursors.give(self._names.place(at)) if some and at < len(self._queues) else NONE
        shown = filter(pattern.fullmatch, map(name_elsewhere, names))
        return replies.array((replies.bulk(next_one), replies.bulks(shown)))

    def flush_all(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        session.require(ADMIN_ALL, b"")
        require_admin(request, session)
        _require_apart(session, "FLUSHALL")
        return self._wait_flush_all

    def _wait_flush_all(self, client: Client) -> bytes:
        self._administering.wait_flush_all(client)
        return OK


def _require_apart(session: RespSession, verb: str) -> None:
    if session.executes:
        raise RespError(f"{verb} cannot be in a transaction")


def _scan_options(words: Sequence[bytes]) -> "tuple[re.Pattern[bytes], int, bytes]":
    pattern, most, of_type = _pattern(b"*"), 10, b""
    if len(words) % 2:
        raise RespError("syntax error")
    for name, value in zip(words[::2], words[1::2], strict=True):
        if name.upper() == b"MATCH":
            pattern = _pattern(value)
        elif name.upper() == b"COUNT":
            most = integer_of(value)
            if most < 1:
                raise RespError("syntax error")
        elif name.upper() == b"TYPE":
            of_type = value.lower()
        else:
            raise RespError("syntax error")
    return pattern, most, of_type


def _pattern(glob: bytes) -> "re.Pattern[bytes]":
    """A pattern of Redis's: `*`, `?`, `[a-z]`, `[^a]`, and a backslash before what stands for itself."""
    # In the words of fnmatch, whose expressions take no longer, whatever the pattern. As latin-1 each byte is a letter.
    text = _SPECIAL.sub(_in_words_of_fnmatch, glob.decode("latin-1"))
    return re.compile(fnmatch.translate(text).encode("latin-1"))


_SPECIAL: Final = re.compile(r"\\(.)|\[\^", re.DOTALL)


def _in_words_of_fnmatch(found: "re.Match[str]") -> str:
    return "[!" if found[1] is None else f"[{found[1]}]" if found[1] in "*?[" else found[1]
