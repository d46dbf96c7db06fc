"""Jobs that were delivered once at most."""

from collections.abc import Callable
from typing import Any

from darner_core.protocols.resp.session import RespSession
from darner_core.protocols.resp.taken import MOST_TAKEN, TakenJob, TakenJobs


class _Turn:
    def __init__(self) -> None:
        self.undo: list[tuple[Callable[..., Any], Any]] = []

    def fail(self) -> None:
        while self.undo:
            step, argument = self.undo.pop()
            step(argument)


def session(turn: Any) -> RespSession:
    nothing: Any = None
    return RespSession(turn, nothing, nothing)


def job(item_id: int, body: bytes = b"body", expires_at_ms: int = 0) -> TakenJob:
    return TakenJob(1, b"q", item_id, body, len(body), 0, expires_at_ms)


def test_they_are_known_until_they_are_acknowledged() -> None:
    taken, turn = TakenJobs(1000), _Turn()
    taken.add(job(5))
    assert taken.find(1, 5, 0) == job(5)
    assert taken.find(2, 5, 0) is taken.find(1, 6, 0) is None
    assert taken.acknowledge(session(turn), 1, 5)
    assert not taken.acknowledge(session(turn), 1, 5)
    turn.fail()
    assert taken.find(1, 5, 0) == job(5)


def test_or_until_they_would_have_expired() -> None:
    taken = TakenJobs(1000)
    taken.add(job(5, expires_at_ms=100))
    assert taken.find(1, 5, 99) is not None
    assert taken.find(1, 5, 100) is None
    assert len(taken) == 0


def test_the_newest_are_kept_within_the_bounds() -> None:
    taken = TakenJobs(100)
    for number in range(10):
        taken.add(job(number, b"x" * 30))
    assert [one.item_id for one in taken.some(5)] == [9, 8, 7]
    for number in range(MOST_TAKEN + 10):
        taken.add(job(number, b""))
    assert len(taken) == MOST_TAKEN
