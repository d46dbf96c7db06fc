"""Bodies of requests, read from a file in memory."""

import io
from typing import Any

import pytest

from darner_core.protocols.http import bodies
from darner_core.protocols.http.contract import Problem


def env(body: bytes, length: int | None = None, **more: Any) -> dict[str, Any]:
    return {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body) if length is None else length), **more}


class Broken(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError("gone")

    readline = read


def test_the_size_may_be_unknown() -> None:
    assert bodies.size_of({"CONTENT_LENGTH": "7"}) == 7
    assert bodies.size_of({"HTTP_TRANSFER_ENCODING": "chunked"}) is None
    assert bodies.size_of({}) == 0


def test_a_body_is_read_whole_or_refused() -> None:
    assert bodies.wait_whole(env(b"abc"), 3) == b"abc"
    with pytest.raises(Problem, match="a body of 4 bytes: at most 3"):
        bodies.wait_whole(env(b"abcd"), 3)
    with pytest.raises(Problem, match="more than 3 bytes needs Content-Length"):
        bodies.wait_whole({"wsgi.input": io.BytesIO(b"abcd"), "HTTP_TRANSFER_ENCODING": "chunked"}, 3)


def test_a_body_that_does_not_come() -> None:
    broken = {"wsgi.input": Broken(), "CONTENT_LENGTH": "7"}
    with pytest.raises(Problem, match="has not come whole: gone"):
        bodies.wait_whole(broken, 10)
    with pytest.raises(Problem, match="has not come whole: gone"):
        list(bodies.wait_lines(broken, 10))


def test_lines_may_be_empty_but_not_too_long() -> None:
    assert list(bodies.wait_lines(env(b"ab\n\n \ncd"), 3)) == [b"ab\n", b"cd"]
    with pytest.raises(Problem, match="a line of more than 3 bytes"):
        list(bodies.wait_lines(env(b"abcd"), 3))


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b"{", b"[" * 100_000, b"\xff"])
def test_a_json_body_is_an_object(body: bytes) -> None:
    with pytest.raises(Problem, match="must be"):
        bodies.wait_json(env(body))


def test_an_item_in_json() -> None:
    assert bodies.item_in_json({"body": "ä"}) == "ä".encode()
    assert bodies.item_in_json({"body_base64": "/w=="}) == b"\xff"
    for wrong in ({}, {"body": "", "body_base64": ""}, {"body": 1}, {"body_base64": "?"}, {"body": "\ud800"}):
        with pytest.raises(ValueError, match=r"must be|takes any"):
            bodies.item_in_json(wrong)
