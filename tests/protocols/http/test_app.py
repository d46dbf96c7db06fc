"""What is the same for all endpoints."""

from collections.abc import Callable

from tests.support.harness import RunningServer, run_darner
from tests.support.http import HTTP, Connect, Http


def test_what_is_not_there_is_a_problem(http: Http) -> None:
    said = http.get("nothing")
    assert (said.status, said.json["title"], said.json["instance"]) == (404, "Not Found", "/api/v1/nothing")
    assert said.detail == "there is nothing at /api/v1/nothing; /api/v1/openapi.json tells what there is"


def test_a_method_that_is_not_there_says_which_are(http: Http) -> None:
    said = http.ask("PATCH", "queues")
    assert (said.status, said.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert said.detail == "PATCH is not allowed here: GET, HEAD, OPTIONS"


def test_head_is_a_get_without_its_body(http: Http, queue: str) -> None:
    http.put(queue, b"x")
    said = http.ask("HEAD", f"queues/{queue}")
    assert (said.status, said.body) == (200, b"")
    assert http.ask("HEAD", f"queues/{queue}x").status == 404


def test_nothing_is_kept_or_guessed_at_by_a_browser(http: Http) -> None:
    for path in ("queues", "nothing"):
        headers = http.get(path).headers
        assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")


def test_a_parameter_where_none_is_allowed(http: Http, queue: str) -> None:
    said = http.ask("PUT", f"queues/{queue}?x=1")
    assert (said.status, said.detail) == (400, 'unknown parameter "x": allowed: none')


def test_one_connection_serves_many_requests(http: Http, http_server: RunningServer, queue: str) -> None:
    before = int(http_server.client().stats()["total_connections"])
    for _ in range(10):
        http.put(queue, b"x")
    assert int(http_server.client().stats()["total_connections"]) == before + 2  # the one of http, and this


def test_a_status_refuses_puts_and_then_gets(start_server: Callable[..., RunningServer], connect_http: Connect) -> None:
    server = start_server(*HTTP)
    http, operator = connect_http(server), server.client()
    http.put("q", b"x")
    operator.ask(b"status readonly\r\n", b"END\r\n")
    said = http.post("queues/q/items", b"y")
    assert (said.status, said.detail, said.headers["retry-after"]) == (503, "the server is READONLY", "1")
    assert http.ask("PUT", "queues/new").status == 503
    assert http.post("queues/q/flush").status == 503
    assert http.delete("queues/q").status == 503
    assert http.get("/health/ready").status == 503
    assert http.take("q").status == 200
    operator.ask(b"status quiescent\r\n", b"END\r\n")
    assert http.take("q").detail == "the server is QUIESCENT"
    assert http.get("queues/q/items").status == 503
    assert http.get("queues/q").status == 200
    assert http.get("session").json["status"] == "QUIESCENT"
    assert http.get("/health/live").status == 200


def test_an_address_that_is_none_is_named_at_the_start(tmp_path: object) -> None:
    said = run_darner("--port", "0", "--data", f"{tmp_path}/data", "--http", "not-a-port")
    assert said.returncode == 1
    assert "--http not-a-port: must be a port from 0 to 65535" in said.stderr
