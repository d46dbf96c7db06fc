"""The head of a request, from bytes."""

import io
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darner_core.server.http_head import BadHead, Head, read_first, read_lines

HOST = b"Host: localhost\r\n"


def read(lines: bytes, first: bytes = b"POST /a?b=c HTTP/1.1\r\n") -> tuple[Head, dict[str, Any]]:
    head, env = read_first(first), {}  # type: tuple[Head, dict[str, Any]]
    read_lines(head, io.BytesIO(lines + b"\r\n").readline, env)
    return head, env


def test_a_head_becomes_an_environment() -> None:
    head, env = read(
        HOST + b"Content-Length: 7\r\nContent-Type:text/plain \r\nX-A: 1\r\nx-a: 2\r\nCookie: a\r\nCookie: b\r\n"
    )
    assert (head.method, head.target, head.version) == ("POST", "/a?b=c", "HTTP/1.1")
    assert (head.content_length, head.chunked, head.closes) == (7, False, False)
    assert env == {
        "HTTP_HOST": "localhost", "CONTENT_LENGTH": "7", "CONTENT_TYPE": "text/plain", "HTTP_X_A": "1,2",
        "HTTP_COOKIE": "a; b",
    }  # fmt: skip


def test_how_long_the_connection_lasts() -> None:
    assert read(HOST + b"Connection: Close\r\n")[0].closes
    assert not read(HOST)[0].closes
    assert read(b"", b"GET / HTTP/1.0\r\n")[0].closes
    assert not read(b"Connection: keep-alive\r\n", b"GET / HTTP/1.0\r\n")[0].closes


def test_a_name_that_could_be_taken_for_another_is_left_out() -> None:
    assert "HTTP_X_DARNER_TOKEN" not in read(HOST + b"X_Darner_Token: x\r\n")[1]


@pytest.mark.parametrize(
    "first", [b"", b"\r\n", b"GET /\r\n", b"GET / HTTP/1.1 \r\n", b"G(T / HTTP/1.1\r\n", b"GET /\xff HTTP/1.1\r\n"]
)
def test_first_lines_that_are_none(first: bytes) -> None:
    with pytest.raises(BadHead, match="METHOD"):
        read_first(first)


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"", 400),
        (HOST + HOST, 400),
        (HOST + b"A : b\r\n", 400),
        (HOST + b" folded\r\n", 400),
        (HOST + b"A: \x00\r\n", 400),
        (HOST + b"A: b\rC: d\r\n", 400),
        (HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n", 400),
        (HOST + b"Content-Length: +1\r\n", 400),
        (HOST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
        (HOST + b"Transfer-Encoding: gzip, chunked\r\n", 501),
        (HOST + b"A: b\r\n" * 100, 431),
        (HOST + b"A: " + b"x" * 40_000 + b"\r\n", 431),
    ],
)
def test_lines_that_are_refused(lines: bytes, status: int) -> None:
    with pytest.raises(BadHead) as raised:
        read(lines)
    assert raised.value.status == status


def test_the_same_length_twice_is_one() -> None:
    assert read(HOST + b"Content-Length: 1\r\nContent-Length: 1\r\n")[0].content_length == 1


def test_lines_that_end_too_early() -> None:
    with pytest.raises(EOFError):
        read_lines(read_first(b"GET / HTTP/1.1\r\n"), io.BytesIO(HOST + b"A: b").readline, {})
    with pytest.raises(EOFError):
        read_lines(read_first(b"GET / HTTP/1.1\r\n"), io.BytesIO(HOST).readline, {})


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused(lines: bytes) -> None:
    try:
        head, _ = read(HOST + lines)
    except BadHead as bad:
        assert HTTPStatus(bad.status) >= 400  # noqa: PT017
    except EOFError:
        pass
    else:
        assert head.version == "HTTP/1.1"
