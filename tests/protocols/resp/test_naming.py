"""Names and numbers among the words of a command, and where a job is."""

from typing import Any

import pytest

from darner_core.errors import ClientError
from darner_core.protocols.resp.ids import JobIds
from darner_core.protocols.resp.naming import integer_of, locate, queue_of
from darner_core.protocols.resp.replies import NotAllowed, RespError
from darner_core.protocols.resp.session import RespSession

IDS = JobIds(b"n" * 20, b"s" * 16)


class _Items:
    def queue_numbered(self, number: int) -> bytes | None:
        return b"q" if number == 7 else None


class _Turn:
    undo: list[Any] = []  # noqa: RUF012


def session(*allowed: tuple[str, bytes]) -> RespSession:
    def require(right: str, queue: bytes) -> None:
        if (right, queue) not in allowed:
            raise ClientError("no")

    turn: Any = _Turn()
    nothing: Any = None
    return RespSession(turn, nothing, require)


def test_a_queue_is_named_and_its_rights_are_asked_for() -> None:
    assert queue_of(b"a/b", session(("get", b"a%2Fb")), "get") == b"a%2Fb"
    with pytest.raises(NotAllowed):
        queue_of(b"a/b", session(("get", b"a%2Fb")), "get", "put")
    for name in (b"", b"x" * 251, b"/" * 84):
        with pytest.raises(RespError):
            queue_of(name, session())


@pytest.mark.parametrize("word", [b"", b"x", b"1.5", b"+1", b" 1", b"1_0", b"9223372036854775808", "٣".encode()])
def test_numbers_are_whole(word: bytes) -> None:
    with pytest.raises(RespError, match=r"^no number$"):
        integer_of(word, "no number")
    assert integer_of(b"-9223372036854775807") == 1 - 2**63


def test_an_id_says_where_its_job_is() -> None:
    items: Any = _Items()
    job = IDS.make(7, 5, 60, again=True)
    assert locate(job, IDS, items, session(("get", b"q")), "get") == (job, b"q", 7, 5)
    with pytest.raises(NotAllowed):
        locate(job, IDS, items, session(), "get")
    gone = IDS.make(8, 5, 60, again=True)
    assert locate(gone, IDS, items, session(), "get") == (gone, b"", 8, 5)
    with pytest.raises(RespError):
        locate(b"D-x", IDS, items, session(), "get")
