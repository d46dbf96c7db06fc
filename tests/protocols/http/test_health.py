"""Health, for what watches over the server."""

from darner_core.operations.availability import Availability
from darner_core.protocols.http.contract import Asked, Problem
from darner_core.protocols.http.health import Health
from tests.support.http import Http


class Operations:
    def __init__(self) -> None:
        self.availability = Availability()


def readiness(**changes: object) -> str:
    operations = Operations()
    for name, value in changes.items():
        setattr(operations.availability, name, value)
    try:
        Health(operations).ready(Asked(None, {}))  # type: ignore[arg-type]
    except Problem as problem:
        return problem.detail
    return "ready"


def test_a_server_lives_and_is_ready(http: Http) -> None:
    assert http.get("/health/live").json == {"status": "live"}
    assert http.get("/health/ready").json == {"status": "ready"}


def test_it_is_not_ready_while_it_refuses_something() -> None:
    assert readiness() == "ready"
    assert readiness(no_room="out of disk space") == "out of disk space"
    assert readiness(no_writes="the server is READONLY") == "the server is READONLY"
    assert readiness(stopping=True) == "the server is stopping"
