"""One HTTP client, as the turn sees it: answers wait for the write, and what a client does not get goes to others."""

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.server.test_server import FailingServer
from tests.support.harness import RunningServer, wait_until
from tests.support.http import HTTP, Connect, http_port, plainly


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingServer]:
    monkeypatch.setenv("DARNER_TICK_S", "0.1")
    server = FailingServer(tmp_path, *HTTP)
    yield server
    server.end()


def test_clients_are_counted(start_server: Callable[..., RunningServer], connect_http: Connect) -> None:
    server = start_server(*HTTP)
    connect_http(server).get("session")
    stats = server.client().stats()
    assert (stats["curr_connections"], stats["total_connections"]) == ("2", "2")
    assert int(stats["bytes_read"]) > 0
    assert int(stats["bytes_written"]) > 0


# -- the write


def test_a_put_that_cannot_be_written_has_not_happened(failing: FailingServer, connect_http: Connect) -> None:
    http = connect_http(failing)
    http.put("q", b"before")
    failing.fails = True
    said = http.post("queues/q/items", b"never")
    assert (said.status, said.detail) == (503, "no space left on device")
    failing.fails = False
    wait_until(lambda: "the disk takes writes again" in failing.printed())
    assert [one["body"] for one in http.take("q", "?n=10").json["items"]] == ["before"]


def test_an_acknowledgement_that_cannot_be_written_has_not_happened(
    failing: FailingServer, connect_http: Connect
) -> None:
    http = connect_http(failing)
    item = http.put("q", b"x")
    http.take("q")
    failing.fails = True
    assert http.delete(f"queues/q/items/{item}").status == 503
    assert http.post("queues/new/items", b"x").status == 503
    failing.fails = False
    wait_until(lambda: "the disk takes writes again" in failing.printed())
    assert http.delete(f"queues/q/items/{item}?if=open").status == 204
    assert http.get("queues/new").status == 404


def test_who_was_handed_what_could_not_be_written_does_not_get_it(
    failing: FailingServer, connect_http: Connect
) -> None:
    waiting, http, other = connect_http(failing), connect_http(failing), failing.client()
    waiting.connection.request("POST", "/api/v1/queues/q/take?wait=10000")
    wait_until(lambda: other.stats()["queues_awaited"] == "1")
    failing.fails = True
    assert http.post("queues/q/items", b"never").status == 503
    failing.fails = False
    wait_until(lambda: "the disk takes writes again" in failing.printed())
    assert waiting.answer().status == 503
    http.put("q", b"now")
    assert waiting.take("q").body == b"now"


def test_a_large_item_that_cannot_be_written_has_not_happened(failing: FailingServer, connect_http: Connect) -> None:
    http = connect_http(failing)
    http.ask("PUT", "queues/q")
    failing.fails = True
    assert http.post("queues/q/items", bytes(1 << 20)).status == 503
    failing.fails = False
    wait_until(lambda: http.post("queues/q/items", b"x").status == 201)
    assert http.get("queues/q").json["items"] == 1


def test_an_answer_waits_for_the_fsync_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connect_http: Connect
) -> None:
    server = FailingServer(tmp_path, *HTTP, "--sync", "always")
    try:
        http = connect_http(server)
        for count in range(1, 4):
            http.put("q", b"x")
            assert server.printed().count("synced") >= count
    finally:
        server.end()


# -- hanging up


def test_what_a_client_does_not_get_goes_to_others_at_once(
    start_server: Callable[..., RunningServer], connect_http: Connect
) -> None:
    """It hangs up in the middle of a large item, which is not held for a minute then."""
    server = start_server(*HTTP)
    http = connect_http(server)
    http.put("q", bytes(20 << 20))
    with socket.create_connection(("127.0.0.1", http_port(server))) as client:
        client.sendall(b"POST /api/v1/queues/q/take HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(1000)
        assert http.get("queues/q").json["open"] == 1
    wait_until(lambda: http.get("queues/q").json["waiting"] == 1)
    assert http.take("q").headers["x-darner-failures"] == "0"


def test_a_client_that_hangs_up_in_a_body_puts_nothing(
    start_server: Callable[..., RunningServer], connect_http: Connect
) -> None:
    server = start_server(*HTTP)
    http = connect_http(server)
    for size in (1000, 10 << 20):
        with socket.create_connection(("127.0.0.1", http_port(server))) as client:
            head = b"POST /api/v1/queues/q/items HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size
            client.sendall(head + bytes(size // 2))
    http.put("q", b"x")
    assert http.get("queues/q").json["items"] == 1


def test_memory_for_bodies_in_part_is_bounded(
    start_server: Callable[..., RunningServer], connect_http: Connect
) -> None:
    """Those that have sent nothing for longest are refused, and others are served."""
    server = start_server(*HTTP)
    clients = []
    head = b"POST /api/v1/queues/q/items HTTP/1.1\r\nHost: localhost\r\nContent-Length: 131072\r\n\r\n"
    for _ in range(600):
        clients.append(socket.create_connection(("127.0.0.1", http_port(server)), 10))
        clients[-1].sendall(head + bytes(1000))
    assert clients[0].recv(1000).startswith(b"HTTP/1.1 503 ")
    assert connect_http(server).post("queues/q/items", bytes(131072)).status == 201
    for client in clients:
        client.close()


def test_a_client_that_does_not_read_holds_nobody_up(
    start_server: Callable[..., RunningServer], connect_http: Connect
) -> None:
    server = start_server(*HTTP)
    http = connect_http(server)
    http.put("q", bytes(20 << 20))
    with socket.create_connection(("127.0.0.1", http_port(server))) as slow:
        slow.sendall(b"POST /api/v1/queues/q/take HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for _ in range(10):
            http.put("other", b"x")
        size = 0
        while size < 20 << 20:
            size += len(slow.recv(1 << 20))
    wait_until(lambda: http.get("queues/q").json["open"] == 1)


def test_a_head_that_trickles_is_waited_for_but_not_for_ever(start_server: Callable[..., RunningServer]) -> None:
    server = start_server(*HTTP, "--body-timeout-s", "1")
    with socket.create_connection(("127.0.0.1", http_port(server)), 10) as client:
        for byte in b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n":
            client.sendall(bytes([byte]))
            time.sleep(0.01)
        assert client.makefile("rb").read().endswith(b'{"status": "live"}')
    answer = plainly(http_port(server), b"GET /health/live HTTP/1.1\r\nHost:")
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_the_other_poller_does_as_well(start_server: Callable[..., RunningServer], connect_http: Connect) -> None:
    server = start_server(*HTTP, "--poller", "gevent")
    http = connect_http(server)
    for _ in range(3):
        item = http.put("q", b"x")
        assert http.take("q").body == b"x"
        assert http.delete(f"queues/q/items/{item}").status == 204


def test_lines_that_were_written_are_told_when_others_cannot_be(failing: FailingServer, connect_http: Connect) -> None:
    http = connect_http(failing)
    port = http_port(failing)
    head = b"POST /api/v1/queues/q/items HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(head + b"Content-Length: 36\r\n\r\n" + b'{"body": "a"}\n')
        wait_until(lambda: http.get("queues/q").status == 200)
        failing.fails = True
        client.sendall(b'{"body": "b"}\n')
        wait_until(lambda: "cannot write" in failing.printed())
        failing.fails = False
        client.sendall(b"        ")
        answer = client.recv(10000)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b'"put": 1, "ids": ["1"]' in answer
    wait_until(lambda: "the disk takes writes again" in failing.printed())
    assert [one["body"] for one in http.take("q", "?n=10").json["items"]] == ["a"]
