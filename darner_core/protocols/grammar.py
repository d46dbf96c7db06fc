"""What all protocols with names and lines have in common: which names a queue can have, what a line can begin with, and
how an error message shows a bad word. Pure: bytes in, an error or nothing out.
"""

import re

from darner_core.config.values import MAX_NAME_BYTES, QUEUE_NAME
from darner_core.errors import ClientError, MalformedRequest, RequestError
from darner_core.protocols.contract import Request

MAX_WAIT_MS = 2**31 - 1  # 24 days; fits the signed 32 bits that clients hold it in
SHOWN_BYTES = 60  # how much of a bad word an error message repeats

# What a line can begin with: a verb, or what may stand before one.
_BEGINNINGS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz? \t\r\n")
_TLS_HANDSHAKE = 0x16
_BINARY_MEMCACHE = 0x80

_HTTP = re.compile(rb" HTTP/\d\.\d\r?$")


def excerpt(word: bytes) -> str:
    """`word` as an error message repeats it: short, on one line, printable."""
    text = word[:SHOWN_BYTES].decode("latin-1").encode("unicode_escape").decode()
    return f"{text}..." if len(word) > SHOWN_BYTES else text


def wrong_beginning(first: int) -> RequestError | None:
    """What is wrong if this byte is the first of a line; None: nothing. Whatever follows is not waited for: a client
    of another protocol may never send an end of line."""
    if first in _BEGINNINGS:
        return None
    if first == _TLS_HANDSHAKE:
        return MalformedRequest("this is the beginning of a TLS handshake, but there is no TLS at this port")
    if first == _BINARY_MEMCACHE:
        return MalformedRequest("this is memcache's binary protocol: set the client to the text protocol")
    return MalformedRequest(f'a request begins with a command, not with "{excerpt(bytes([first]))}"')


def require_no_http(line: bytes) -> None:
    """Raises MalformedRequest for the first line of HTTP. A web page can make a browser send one, with any lines
    behind it, so nothing may be read behind it."""
    if _HTTP.search(line):
        raise MalformedRequest("this is an HTTP request, but no web server")


def require_name(name: bytes) -> None:
    """Raises RequestError if no queue can be called that."""
    if not QUEUE_NAME.fullmatch(name):
        if len(name) > MAX_NAME_BYTES:
            raise ClientError(f"queue name of {len(name)} bytes: at most {MAX_NAME_BYTES}")
        raise MalformedRequest(
            f'bad queue name "{excerpt(name)}": 1 to {MAX_NAME_BYTES} bytes other than control characters, space and /'
        )


def read_child(request: Request) -> None:
    """The name `a+b+c` is that of b+c, a fanout child of a."""
    parent, plus, child = request.queue.partition(b"+")
    if plus and parent and child:
        request.parent = parent
