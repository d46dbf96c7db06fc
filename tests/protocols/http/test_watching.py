"""What happens to queues, as a stream."""

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.harness import REPLY_S, RunningServer, wait_until
from tests.support.http import HTTP, Http, http_port

Open = Callable[[str], Iterator[tuple[str, Any]]]


def events(response: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
    """Each with its name and data; comments are ("", text)."""
    name = ""
    while line := response.readline():
        word, _, text = line.decode().strip().partition(": ")
        if word == "event":
            name = text
        elif word == "data":
            yield name, json.loads(text)
        elif line.startswith(b":"):
            yield "", line.decode()


@pytest.fixture
def watch(http_server: RunningServer) -> Iterator[Open]:
    """Opens a stream. It is closed when the test ends."""
    opened: list[http.client.HTTPConnection] = []

    def open_stream(path: str) -> Iterator[tuple[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", http_port(http_server), timeout=REPLY_S)
        opened.append(connection)
        connection.request("GET", f"/api/v1/{path}")
        response = connection.getresponse()
        assert (response.status, response.headers["content-type"]) == (200, "text/event-stream")
        found = events(response)
        assert next(found)[0] == ""  # from here on everything is told
        return found

    yield open_stream
    for connection in opened:
        connection.close()


def test_what_happens_to_a_queue_is_told(http: Http, watch: Open, queue: str) -> None:
    found = watch(f"queues/{queue}/watch")
    http.put(queue, b"body")
    assert next(found)[0] == "create"
    name, told = next(found)
    assert (name, told["queue"], told["size"], told["begins"]) == ("put", queue, 4, {"body": "body"})
    http.take(queue)
    assert next(found)[0] == "open"


def test_several_queues_are_watched(http: Http, watch: Open, queue: str) -> None:
    found = watch(f"watch?q={queue}1&q={queue}2")
    http.put(f"{queue}2", b"x")
    assert next(found)[1]["queue"] == f"{queue}2"
    assert http.get("watch").status == 400


def test_a_client_that_hangs_up_watches_no_more(start_server: Callable[..., RunningServer], queue: str) -> None:
    server = start_server(*HTTP)
    other = server.client()
    with socket.create_connection(("127.0.0.1", http_port(server))) as client:
        client.sendall(b"GET /api/v1/queues/q/watch HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(10000)
        assert other.stats()["curr_connections"] == "2"
    wait_until(lambda: other.stats()["curr_connections"] == "1")


def test_a_stream_ends_when_the_server_stops(start_server: Callable[..., RunningServer]) -> None:
    server = start_server(*HTTP)
    with socket.create_connection(("127.0.0.1", http_port(server)), REPLY_S) as client:
        client.sendall(b"GET /api/v1/queues/q/watch HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"what happens" in client.recv(10000)
        assert server.stop() == 0
        rest = b""
        while data := client.recv(10000):
            rest += data
        assert rest.endswith(b"0\r\n\r\n")
