"""The head of an HTTP request: its first line and its header lines, read into what WSGI calls an environment.

pywsgi would read header lines with the parser that Python has for mail: a quarter of a request's time. What is read
here is stricter, too: nothing that two readers could understand differently is let through (RFC 9112, sections 3, 5
and 6).

Pure, but for the lines, which are asked for one by one.
"""

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

# All header lines of a request together. Browsers send 2 KiB; 32 KiB is what many servers take.
MAX_HEAD_BYTES: Final = 32 << 10
MAX_LINES: Final = 100

_FIRST: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,40}) ([\x21-\x7e]+) HTTP/(\d)\.(\d)\r?\n")
_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*\r?\n")

# What the names of headers become, for those that have been seen. Others can be made up without end.
MOST_KEPT: Final = 200
_keys: dict[bytes, str] = {}


class BadHead(ValueError):
    """What came is no request. str() says why."""

    def __init__(self, said: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(said)
        self.status = status


class Head:
    """A head, as far as the connection looks at it."""

    __slots__ = ("method", "target", "version", "content_length", "chunked", "closes")

    def __init__(self, method: str, target: str, version: str) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.content_length: int | None = None
        self.chunked = False
        self.closes = False  # the connection ends behind this request


def read_first(line: bytes) -> Head:
    """Raises BadHead."""
    found = _FIRST.fullmatch(line)
    if found is None:
        raise BadHead("the first line must be: METHOD /path HTTP/1.1")
    method, target, major, minor = found.groups()
    if major != b"1":
        raise BadHead("HTTP/1.1 and HTTP/1.0 are spoken here", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    return Head(method.decode(), target.decode(), "HTTP/1.0" if minor == b"0" else "HTTP/1.1")


def read_lines(head: Head, readline: Callable[[int], bytes], env: dict[str, Any]) -> None:
    """Read the header lines into `env` and `head`. Raises BadHead, and EOFError if they end too early."""
    left, lines, hosts = MAX_HEAD_BYTES, 0, 0
    while True:
        line = readline(left + 1)
        if line in (b"\r\n", b"\n"):
            break
        left -= len(line)
        lines += 1
        if left < 0 or lines > MAX_LINES:
            raise BadHead(
                f"more than {MAX_LINES} header lines, or {MAX_HEAD_BYTES} bytes in all",
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            )
        found = _LINE.fullmatch(line)
        if found is None:
            if not line.endswith(b"\n"):
                raise EOFError
            raise BadHead("a header line must be: name: value, without space before the colon, on one line")
        name, value = found.groups()
        key = _keys.get(name) or _key_of(name)
        text = value.decode("latin-1")
        if not key:
            continue
        if key not in env:
            env[key] = text
        elif key == "CONTENT_LENGTH" or key == "HTTP_TRANSFER_ENCODING":
            if env[key] != text:
                raise BadHead(f"two different headers {name.decode()}")
        else:
            env[key] += ("; " if key == "HTTP_COOKIE" else ",") + text
        hosts += key == "HTTP_HOST"
    _look_at(head, env, hosts)


def _look_at(head: Head, env: dict[str, Any], hosts: int) -> None:
    if hosts != 1 and (hosts or head.version == "HTTP/1.1"):
        raise BadHead("one header Host must be there")
    length, coding = env.get("CONTENT_LENGTH"), env.get("HTTP_TRANSFER_ENCODING")
    if coding is not None:
        if coding.lower() != "chunked":
            raise BadHead(f"Transfer-Encoding: {coding}: only chunked is allowed", HTTPStatus.NOT_IMPLEMENTED)
        if length is not None or head.version == "HTTP/1.0":
            raise BadHead("Transfer-Encoding beside Content-Length, or in HTTP/1.0")
        head.chunked = True
    elif length is not None:
        if not (length.isascii() and length.isdigit() and len(length) <= 18):
            raise BadHead(f"Content-Length: {length[:40]}: a whole number is allowed")
        head.content_length = int(length)
    words = env.get("HTTP_CONNECTION", "").lower()
    if head.version == "HTTP/1.0":
        head.closes = "keep-alive" not in words
    else:
        head.closes = "close" in words


def _key_of(name: bytes) -> str:
    """The name in an environment; "": it is left out, because with `_` it could be taken for another."""
    if b"_" in name:
        return ""
    key = name.decode().upper().replace("-", "_")
    if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        key = f"HTTP_{key}"
    if len(_keys) < MOST_KEPT:
        _keys[name] = key
    return key
