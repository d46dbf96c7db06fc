"""HELLO as Redis knows it: a client chooses the version of the protocol, says who it is, and what it is called.

Without a version HELLO is Disque's, which tells of the nodes.
"""

from collections.abc import Sequence
from typing import NamedTuple

from darner_core import VERSION
from darner_core.protocols.grammar import excerpt
from darner_core.protocols.resp import replies
from darner_core.protocols.resp.clients import checked_name
from darner_core.protocols.resp.replies import RespError
from darner_core.protocols.resp.session import RespSession

# What a client may make its decisions by: the commands are those of this version, as far as there are any.
REDIS_VERSION = b"6.2.0"


class Hello(NamedTuple):
    version: int
    user: bytes | None = None
    password: bytes = b""
    name: bytes | None = None


def read_hello(words: Sequence[bytes]) -> Hello:
    """`<version> [AUTH <user> <password>] [SETNAME <name>]`. Raises RespError."""
    if not words[0].isdigit() or len(words[0]) > 9:
        raise RespError("Protocol version is not an integer or out of range")
    asked = Hello(int(words[0]))
    if asked.version not in (2, 3):
        raise RespError("unsupported protocol version", "NOPROTO")
    rest = list(words[1:])
    while rest:
        option = rest.pop(0).lower()
        if option == b"auth" and len(rest) >= 2:
            asked = asked._replace(user=rest.pop(0), password=rest.pop(0))
        elif option == b"setname" and rest:
            asked = asked._replace(name=rest.pop(0))
        else:
            raise RespError(f"Syntax error in HELLO option '{excerpt(option)}'")
    return asked


def hello_reply(asked: Hello, session: RespSession) -> bytes:
    """What the server tells of itself, in the version that the client has chosen from now on."""
    if asked.name is not None:
        session.name = checked_name(asked.name)
    session.version = asked.version
    pairs = (
        (b"server", replies.bulk(b"redis")),
        (b"version", replies.bulk(REDIS_VERSION)),
        (b"proto", replies.integer(asked.version)),
        (b"id", replies.integer(session.number)),
        (b"mode", replies.bulk(b"standalone")),
        (b"role", replies.bulk(b"master")),
        (b"modules", replies.EMPTY),
        (b"darner_version", replies.bulk(VERSION.encode())),
    )
    return replies.pairs(pairs, asked.version)
