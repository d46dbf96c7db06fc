"""CLIENT: what the server knows of the connections of RESP, and what a client says of itself.

A user sees the others only if it may administer every queue. What would need a hand in another connection (KILL,
PAUSE, UNBLOCK), or would leave a client without replies (REPLY OFF), is refused.
"""

import time

from darner_core.access.rights import ADMIN_ALL
from darner_core.operations.client import Client
from darner_core.protocols.contract import Reply
from darner_core.protocols.grammar import excerpt
from darner_core.protocols.resp import replies
from darner_core.protocols.resp.reader import Entry, RespRequest
from darner_core.protocols.resp.replies import OK, NotAllowed, RespError
from darner_core.protocols.resp.session import RespSession
from darner_core.showing import show
from darner_core.slicing import slices

TOLD_AT_ONCE = 500  # connections, in one turn
MAX_NAME_BYTES = 200

_REFUSED = {
    b"kill": "a client cannot be disconnected by another: close it where it runs, or take its user's rights",
    b"pause": "clients cannot be paused: use PAUSE for a queue, or CLUSTER LEAVING",
    b"unpause": "clients are not paused",
    b"unblock": "clients that wait cannot be woken by another",
    b"tracking": "there is nothing to track: nobody caches queues",
    b"caching": "there is nothing to track: nobody caches queues",
}


class Clients:
    """The connections of one protocol, and the command."""

    def __init__(self) -> None:
        self._sessions: dict[int, RespSession] = {}
        self._last = 0

    def entries(self) -> dict[bytes, Entry]:
        return {b"client": Entry(self.client, 1)}

    @property
    def next_number(self) -> int:
        self._last += 1
        return self._last

    def joined(self, session: RespSession) -> None:
        self._sessions[session.number] = session

    def left(self, session: RespSession) -> None:
        self._sessions.pop(session.number, None)

    def __len__(self) -> int:
        return len(self._sessions)

    def client(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        word, *words = request.arguments
        verb = word.lower()
        if verb == b"list":
            return self._list(session)
        if verb == b"id" and not words:
            return replies.integer(session.number)
        if verb == b"info" and not words:
            return replies.bulk(_line(session))
        if verb == b"getname" and not words:
            return replies.bulk(session.name) if session.name else session.nil
        if verb == b"setname" and len(words) == 1:
            session.name = checked_name(words[0])
            return OK
        if verb == b"setinfo" and len(words) == 2:
            return self._set_info(session, *words)
        if verb == b"reply" and [one.lower() for one in words] == [b"on"]:
            return OK
        if verb in (b"no-evict", b"no-touch") and len(words) == 1 and words[0].lower() in (b"on", b"off"):
            return OK
        raise _refusal(verb, word)

    def _list(self, session: RespSession) -> Reply:
        try:
            session.require(ADMIN_ALL, b"")
        except NotAllowed:
            return replies.bulk(_line(session))
        if session.executes:
            raise RespError("CLIENT LIST cannot be in a transaction")
        return self._wait_list

    def _wait_list(self, client: Client) -> bytes:
        lines: list[bytes] = []
        for number, some in enumerate(slices(self._sessions.values(), TOLD_AT_ONCE)):
            if number:
                client.wait_turn()
            lines += [_line(one) for one in some if not one.ended]
        return replies.bulk(b"".join(lines))

    @staticmethod
    def _set_info(session: RespSession, attribute: bytes, value: bytes) -> bytes:
        name = attribute.lower()
        if name not in session.library:
            raise RespError(f"Unrecognized option '{excerpt(attribute)}'")
        session.library[name] = checked_name(value)
        return OK


def _refusal(verb: bytes, word: bytes) -> RespError:
    if verb in _REFUSED:
        return RespError(_REFUSED[verb])
    if verb == b"reply":
        return RespError("CLIENT REPLY OFF and SKIP are not supported: a client that reads no replies loses items")
    known = "LIST | GETNAME | SETNAME connection-name | ID | INFO | SETINFO LIB-NAME|LIB-VER value"
    return RespError(f"Syntax error in CLIENT {excerpt(word)}, try CLIENT ({known})")


def checked_name(name: bytes) -> bytes:
    """What a client wants to be called. Raises RespError."""
    if len(name) > MAX_NAME_BYTES or any(not 0x21 <= byte <= 0x7E for byte in name):
        raise RespError("Client names cannot contain spaces, newlines or special characters.")
    return name


def _line(session: RespSession) -> bytes:
    origin = session.origin
    seconds = int(time.monotonic() - session.since)
    told = (
        (b"id", b"%d" % session.number),
        (b"addr", origin.address.encode("utf-8", "surrogateescape")),
        (b"name", session.name),
        (b"age", b"%d" % seconds),
        (b"db", b"0"),
        (b"multi", b"%d" % (len(session.transaction.commands) if session.transaction is not None else -1)),
        (b"user", show(origin.user or "default").encode()),
        (b"resp", b"%d" % session.version),
        (b"lib-name", session.library[b"lib-name"]),
        (b"lib-ver", session.library[b"lib-ver"]),
    )
    return b" ".join(b"%b=%b" % pair for pair in told) + b"\n"
