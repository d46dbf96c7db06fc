"""Putting items over HTTP."""

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.harness import REPLY_S, RunningServer, wait_until
from tests.support.http import HTTP, Connect, Http, http_port, plainly


def test_an_item_is_put_and_taken_as_it_is(http: Http, queue: str) -> None:
    body = bytes(range(256))
    item = http.put(queue, body)
    said = http.take(queue)
    assert (said.status, said.body, said.headers["x-darner-id"]) == (200, body, item)


def test_what_was_put_over_http_is_got_over_memcache(http: Http, http_server: RunningServer, queue: str) -> None:
    http.put(queue, b"hello")
    assert http_server.client().get(queue) == b"hello"


def test_a_name_may_hold_any_bytes(http: Http, queue: str) -> None:
    path = f"{queue}%2F%20%FF%25"
    http.put(path, b"x")
    said = http.take(path)
    assert (said.body, said.headers["x-darner-queue"]) == (b"x", path)


def test_a_delayed_item_is_not_there_yet(http: Http, queue: str) -> None:
    http.put(queue, b"later", "?delay=60000")
    assert http.take(queue).status == 204
    assert http.get(f"queues/{queue}").json["delayed"] == 1


def test_the_urgent_item_comes_first(http: Http, queue: str) -> None:
    http.put(queue, b"plain")
    http.put(queue, b"urgent", "?pri=0")
    assert [http.take(queue).body, http.take(queue).body] == [b"urgent", b"plain"]


def test_an_item_expires_after_its_ttl(http: Http, queue: str) -> None:
    http.put(queue, b"short", "?ttl=1")
    http.put(queue, b"long", "?ttl=60000")
    time.sleep(0.01)
    assert http.take(queue).body == b"long"


def test_a_key_is_put_once(http: Http, queue: str) -> None:
    first = http.put(queue, b"one", "?key=k")
    again = http.post(f"queues/{queue}/items?key=k", b"two")
    assert (again.status, again.json) == (200, {"id": first, "put": 0})
    refused = http.post(f"queues/{queue}/items?key=k&if=absent", b"two")
    assert (refused.status, refused.json["id"]) == (409, first)
    assert http.get(f"queues/{queue}").json["items"] == 1


def test_many_items_come_as_lines(http: Http, queue: str) -> None:
    lines = [{"body": "eins"}, {"body_base64": "/w=="}, {"body": "erste", "pri": 0}]
    body = b"\n".join(json.dumps(line).encode() for line in lines)
    said = http.post(f"queues/{queue}/items", body, Content_Type="application/x-ndjson")
    assert (said.status, said.json["put"], len(said.json["ids"])) == (201, 3, 3)
    assert [http.take(queue).body for _ in lines] == [b"erste", b"eins", b"\xff"]


def test_a_wrong_line_is_told_and_those_before_it_are_put(http: Http, queue: str) -> None:
    said = http.post(f"queues/{queue}/items", b'{"body": "x"}\n{"bdy": 1}\n', Content_Type="application/x-ndjson")
    assert (said.status, said.json["put"]) == (400, 1)
    assert said.detail.startswith("line 2: ")
    assert http.get(f"queues/{queue}").json["items"] == 1


def test_lines_that_are_wrong_in_other_ways(http: Http, queue: str) -> None:
    for line, why in (
        (b"no json", "line 1: Expecting value"),
        (b"[1]", "line 1: a line must be an object"),
        (b'{"body": "x", "delay": "1"}', "line 1: delay: must be a whole number"),
        (b'{"body": "x", "body_base64": "eA=="}', "line 1: one of"),
        (b'{"body": 1}', "line 1: "),
        (b'{"body_base64": "?"}', "line 1: "),
        (b'{"body": "x", "key": ""}', "line 1: key: must be 1 to 200 bytes"),
        (b'{"body": "\\ud800"}', "line 1: "),
    ):
        said = http.post(f"queues/{queue}/items", line, Content_Type="application/x-ndjson")
        assert said.status == 400, line
        assert said.detail.startswith(why)


def test_a_wrong_parameter_says_what_is_allowed(http: Http, queue: str) -> None:
    said = http.post(f"queues/{queue}/items?dely=1", b"x")
    assert (said.status, said.detail) == (400, 'unknown parameter "dely": did you mean "delay"?')
    said = http.post(f"queues/{queue}/items?delay=-1", b"x")
    assert said.detail == 'parameter delay = "-1": must be a whole number of ms from 0 to 281474976710656'
    said = http.post(f"queues/{queue}/items?pri=1&pri=2", b"x")
    assert said.detail == "parameter pri stands there twice: once is allowed"


def test_a_large_item_is_put_and_taken_in_pieces(http: Http, queue: str) -> None:
    body = bytes(range(256)) * 8192  # 2 MiB
    http.put(queue, body)
    said = http.take(queue)
    assert said.body == body
    assert http.delete(f"queues/{queue}/items/{said.headers['x-darner-id']}").status == 204


def test_memory_stays_flat_while_a_large_item_passes(
    start_server: Callable[..., RunningServer], connect_http: Connect
) -> None:
    server = start_server(*HTTP)
    http = connect_http(server)
    http.put("warm", bytes(4 << 20))
    http.take("warm")
    before = server.resident_bytes()
    http.put("large", bytes(96 << 20))
    assert server.resident_bytes() - before < 64 << 20
    http.connection.request("POST", "/api/v1/queues/large/take")
    response = http.connection.getresponse()
    size = 0
    while data := response.read(1 << 20):
        size += len(data)
    assert size == 96 << 20
    assert server.resident_bytes() - before < 64 << 20


def test_a_status_that_takes_no_items_holds_for_bodies_that_are_half_come(
    start_server: Callable[..., RunningServer],
) -> None:
    server = start_server(*HTTP)
    head = b"POST /api/v1/queues/%b/items HTTP/1.1\r\nHost: localhost\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
    line = b'{"body": "a"}\n'
    with (
        socket.create_connection(("127.0.0.1", http_port(server)), REPLY_S) as one,
        socket.create_connection(("127.0.0.1", http_port(server)), REPLY_S) as several,
    ):
        one.sendall(head % (b"one", b"text/plain", 2) + b"x")
        several.sendall(head % (b"several", b"application/x-ndjson", 2 * len(line)) + line)
        client = server.client()
        wait_until(lambda: client.stats().get("queue_several_items") == "1")
        client.ask(b"status readonly\r\n", b"END\r\n")
        one.sendall(b"y")
        several.sendall(line)
        assert one.recv(100).startswith(b"HTTP/1.1 503 ")
        assert several.recv(100).startswith(b"HTTP/1.1 503 ")
        stats = client.stats()
        assert (stats.get("queue_one_items", "0"), stats["queue_several_items"]) == ("0", "1")


def test_an_item_that_is_too_large_is_refused_before_it_is_sent(start_server: Callable[..., RunningServer]) -> None:
    server = start_server(*HTTP, "--max-item-bytes", "1000")
    port = http_port(server)
    head = b"POST /api/v1/queues/q/items HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n"
    answer = plainly(port, head)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"max_item_bytes allows 1000" in answer


def test_a_body_in_chunks_may_be_an_item(http: Http, queue: str) -> None:
    http.connection.request("POST", f"/api/v1/queues/{queue}/items", iter([b"a" * 10, b"b" * 10]))
    assert http.answer().status == 201
    assert http.take(queue).body == b"a" * 10 + b"b" * 10


def test_a_large_body_in_chunks_must_say_its_size(http: Http, queue: str) -> None:
    http.connection.request("POST", f"/api/v1/queues/{queue}/items", iter([bytes(100_000)] * 2))
    said = http.answer()
    assert (said.status, said.detail) == (411, "an item of more than 131072 bytes needs Content-Length")


def test_a_full_queue_refuses(
    start_server: Callable[..., RunningServer], connect_http: Connect, tmp_path: Path
) -> None:
    conf = tmp_path / "conf.toml"
    conf.write_text("[queues.small]\nmax_items = 1\n")
    http = connect_http(start_server(*HTTP, "-c", str(conf)))
    http.put("small", b"x")
    said = http.post("queues/small/items", b"y")
    assert (said.status, said.detail) == (507, "the queue is full: one of its limits allows no more")
