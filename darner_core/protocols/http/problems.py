"""Errors as HTTP says them: one shape, RFC 9457, whatever has gone wrong. Pure."""

import json
from http import HTTPStatus
from typing import Any

from darner_core.errors import (
    ClientError,
    DamagedError,
    MalformedRequest,
    RequestError,
    ServerError,
    StorageError,
    Unavailable,
)
from darner_core.protocols.http.contract import Problem


def problem_of(error: Exception) -> Problem:
    """What a client is told of an error of the operations."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, DamagedError):
        return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
    if isinstance(error, (StorageError, Unavailable)):
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), {"Retry-After": "1"})
    if isinstance(error, ServerError):
        return Problem(_status_of(str(error)), str(error))
    if isinstance(error, (ClientError, MalformedRequest, RequestError)):
        return Problem(HTTPStatus.BAD_REQUEST, str(error))
    raise AssertionError(f"no error of the operations: {error!r}")


def _status_of(said: str) -> HTTPStatus:
    if "too large" in said:
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    if said.startswith(("out of disk space", "too many queues")):
        return HTTPStatus.INSUFFICIENT_STORAGE
    if said.startswith("too many items with a deadline"):
        return HTTPStatus.TOO_MANY_REQUESTS
    return HTTPStatus.SERVICE_UNAVAILABLE


def written(status: int, detail: str, instance: str = "", **more: Any) -> bytes:
    """A problem in JSON."""
    title = HTTPStatus(status).phrase
    told = {"type": "about:blank", "title": title, "status": int(status), "detail": detail}
    if instance:
        told["instance"] = instance
    return json.dumps({**told, **more}).encode()
