"""The bodies of requests: read whole, by lines, or piece by piece. What is read waits for the client, and switches.

A body that is small enough to be an item in one piece may be read whole. A larger one has to say its size, because room
for it is looked for first.
"""

import json
from base64 import b64decode
from binascii import Error as BadBase64
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

from darner_core.protocols.http.contract import Problem

# Bodies that are not items: lists of ids, options.
MAX_JSON_BYTES: Final = 1 << 20

# How much of a body is asked for at a time.
PIECE_BYTES: Final = 64 << 10


def size_of(env: Mapping[str, Any]) -> int | None:
    """How many bytes the body has; None: that is not said before."""
    length = env.get("CONTENT_LENGTH")
    if length is not None:
        return int(length)
    return None if "HTTP_TRANSFER_ENCODING" in env else 0


def wait_some(env: Mapping[str, Any], most_bytes: int) -> bytes:
    """The next bytes of the body, `most_bytes` unless it ends before. Raises Problem if the rest does not come."""
    try:
        data: bytes = env["wsgi.input"].read(most_bytes)
    except OSError as error:
        raise Problem(HTTPStatus.REQUEST_TIMEOUT, f"the body has not come whole: {error}") from None
    return data


def wait_whole(env: Mapping[str, Any], most_bytes: int, what: str = "a body") -> bytes:
    """All of the body. Raises Problem if it has more than `most_bytes`, which `what` may have."""
    size = size_of(env)
    if size is not None and size > most_bytes:
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{what} of {size} bytes: at most {most_bytes}")
    data = wait_some(env, most_bytes + 1 if size is None else size)
    if len(data) > most_bytes:
        raise Problem(HTTPStatus.LENGTH_REQUIRED, f"{what} of more than {most_bytes} bytes needs Content-Length")
    return data


def wait_json(env: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object. Raises Problem."""
    data = wait_whole(env, MAX_JSON_BYTES, "a JSON body")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Problem(HTTPStatus.BAD_REQUEST, f"the body must be JSON: {error}") from None
    if not isinstance(found, dict):
        raise Problem(HTTPStatus.BAD_REQUEST, 'the body must be a JSON object, as in {"ids": ["1", "2"]}')
    return found


def require_keys(found: Mapping[str, Any], *allowed: str) -> None:
    """Raises Problem if there are others."""
    unknown = [key for key in found if key not in allowed]
    if unknown:
        raise Problem(HTTPStatus.BAD_REQUEST, f"unknown key {unknown[0][:60]!r}: allowed are {', '.join(allowed)}")


def wait_lines(env: Mapping[str, Any], most_bytes: int) -> Iterator[bytes]:
    """The lines of the body, each of at most `most_bytes`; empty ones are left out. Raises Problem."""
    reader = env["wsgi.input"]
    while True:
        try:
            line: bytes = reader.readline(most_bytes + 1)
        except OSError as error:
            raise Problem(HTTPStatus.REQUEST_TIMEOUT, f"the body has not come whole: {error}") from None
        if not line:
            return
        if len(line) > most_bytes:
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a line of more than {most_bytes} bytes")
        if line.strip():
            yield line


def item_in_json(found: Mapping[str, Any]) -> bytes:
    """The item of `body` or `body_base64`. Raises ValueError saying what is allowed."""
    body, coded = found.get("body"), found.get("body_base64")
    if (body is None) == (coded is None):
        raise ValueError('one of "body" and "body_base64" must be there')
    if not isinstance(body if coded is None else coded, str):
        raise ValueError('"body" and "body_base64" must be strings')
    if coded is None:
        try:
            return str(body).encode()
        except UnicodeEncodeError:
            raise ValueError('"body" must be Unicode text without surrogates; "body_base64" takes any bytes') from None
    try:
        return b64decode(coded, validate=True)
    except (BadBase64, ValueError):
        raise ValueError('"body_base64" must be base64') from None
