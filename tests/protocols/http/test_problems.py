"""Errors as HTTP says them."""

import json

import pytest

from darner_core.errors import ClientError, DamagedError, MalformedRequest, ServerError, StorageError, Unavailable
from darner_core.protocols.http import problems
from darner_core.protocols.http.contract import Problem


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Problem(418, "x"), 418),
        (StorageError("x"), 503),
        (DamagedError("x"), 500),
        (Unavailable("x"), 503),
        (ServerError("x"), 503),
        (ServerError("too many queues: at most 1"), 507),
        (ServerError("out of disk space: 0 bytes free"), 507),
        (ServerError("object too large for cache"), 413),
        (ClientError("x"), 400),
        (MalformedRequest("x"), 400),
    ],
)
def test_each_error_has_its_status(error: Exception, status: int) -> None:
    assert problems.problem_of(error).status == status


def test_all_have_one_shape() -> None:
    assert json.loads(problems.written(409, "taken", "/x", id="7")) == {
        "type": "about:blank", "title": "Conflict", "status": 409, "detail": "taken", "instance": "/x", "id": "7",
    }  # fmt: skip
