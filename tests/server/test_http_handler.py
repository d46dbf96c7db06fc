"""Requests that are none, or have too much of something."""

import socket

import pytest

from tests.support.harness import RunningServer
from tests.support.http import HTTP, http_port, plainly

GET = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def port(shared_server: object) -> int:
    server: RunningServer = shared_server(*HTTP)  # type: ignore[operator]
    return http_port(server)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"505"),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n", b"501"),
        (GET + b"A: " + b"x" * 40_000 + b"\r\n\r\n", b"431"),
        (GET + b"A: x\r\n" * 8000 + b"\r\n", b"431"),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", b"414"),
    ],
)
def test_what_is_no_request_is_a_problem(port: int, request_: bytes, status: bytes) -> None:
    assert plainly(port, request_).startswith(b"HTTP/1.1 " + status)


def test_several_requests_may_come_at_once(port: int) -> None:
    answer = plainly(port, (GET + b"\r\n") * 2 + GET + b"Connection: close\r\n\r\n")
    assert answer.count(b'{"status": "live"}') == 3


def test_an_old_client_is_answered_and_hung_up_on(port: int) -> None:
    answer = plainly(port, b"GET /health/live HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b'{"status": "live"}')


def test_a_client_may_ask_before_it_sends_its_body(port: int) -> None:
    head = b"POST /api/v1/queues/expects/items HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    answer = plainly(port, head + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi")
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 ")


def test_a_body_that_nobody_wants_is_not_asked_for(port: int) -> None:
    head = b"POST /health/live HTTP/1.1\r\nHost: localhost\r\n"
    answer = plainly(port, head + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 405 ")


def test_the_rest_of_a_refused_body_is_dropped_and_the_client_goes_on(port: int) -> None:
    refused = b"POST /health/live HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n12345"
    answer = plainly(port, refused + GET + b"Connection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert answer.endswith(b'{"status": "live"}')


def test_chunks_that_are_none(port: int) -> None:
    head = b"POST /api/v1/queues/q/items HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert plainly(port, head + b"zz\r\n").startswith(b"HTTP/1.1 4")


def test_one_who_sends_thousands_of_requests_ahead_holds_nobody_up(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 10) as greedy:
        greedy.sendall((GET + b"\r\n") * 3000)
        begun = greedy.recv(1000)
        assert plainly(port, GET + b"Connection: close\r\n\r\n").endswith(b'{"status": "live"}')
        received = len(begun)
        while received < 3000 * 100:
            received += len(greedy.recv(1 << 20))


def test_a_whole_url_is_answered_like_its_path(port: int) -> None:
    answer = plainly(port, b"GET http://localhost/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer.endswith(b'{"status": "live"}')
