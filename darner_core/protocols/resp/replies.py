"""What a client of RESP is answered, as bytes, and the errors that have a word of their own. Pure.

Version 3 of the protocol differs in what stands for nothing, and in maps. Which version a client has chosen, its
session knows.

Source: the specification of RESP, versions 2 and 3, on redis.io.
"""

from collections.abc import Iterable
from typing import Final

from darner_core.errors import ClientError, Incomplete, RequestError, ServerError, Unavailable

OK: Final = b"+OK\r\n"
QUEUED: Final = b"+QUEUED\r\n"
EMPTY: Final = b"*0\r\n"
NIL: Final = b"$-1\r\n"
NIL_ARRAY: Final = b"*-1\r\n"
NIL_3: Final = b"_\r\n"


class RespError(ServerError):
    """An error with a word of its own; the connection goes on."""

    def __init__(self, message: str, word: str = "ERR") -> None:
        super().__init__(message)
        self.word = word


class ProtocolError(RespError):
    """What follows cannot be understood."""

    hangs_up = True

    def __init__(self, message: str) -> None:
        super().__init__(f"Protocol error: {message}")


class NotAllowed(RespError):
    """This client has no right to do it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "NOPERM")


# What Redis says where the server says this.
_IN_OTHER_WORDS: Final = {
    "too many connections": b"-ERR max number of clients reached\r\n",
    "authentication failure": b"-WRONGPASS invalid username-password pair or user is disabled.\r\n",
    "unauthenticated": b"-NOAUTH Authentication required.\r\n",
}


def error_reply(error: RequestError) -> bytes:
    if str(error) in _IN_OTHER_WORDS:
        return _IN_OTHER_WORDS[str(error)]
    if isinstance(error, RespError):
        word = error.word
    elif isinstance(error, Unavailable):
        word = "READONLY"
    elif isinstance(error, ClientError) and not isinstance(error, Incomplete):
        word = "NOPERM"
    elif not isinstance(error, ServerError):  # half a request, or bytes of another protocol
        word = "ERR"
    elif str(error).startswith(("too many ", "too much ")):
        word = "OOM"
    else:  # the disk: what Redis says when it can no longer save
        word = "MISCONF"
    return f"-{word} {error}\r\n".encode("utf-8", "backslashreplace")


def simple(text: bytes) -> bytes:
    return b"+%b\r\n" % text


def integer(number: int) -> bytes:
    return b":%d\r\n" % number


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


def array(parts: Iterable[bytes]) -> bytes:
    """Of parts that are replies themselves."""
    parts = list(parts)
    return b"*%d\r\n%b" % (len(parts), b"".join(parts))


def bulks(values: Iterable[bytes]) -> bytes:
    return array(map(bulk, values))


def pairs(named: Iterable[tuple[bytes, bytes]], version: int) -> bytes:
    """Of (name, reply): a map in version 3, in version 2 an array of twice as many."""
    parts = [(bulk(name), reply) for name, reply in named]
    told = b"".join(name + reply for name, reply in parts)
    return b"%%%d\r\n%b" % (len(parts), told) if version == 3 else b"*%d\r\n%b" % (2 * len(parts), told)
