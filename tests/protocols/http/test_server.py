"""The server over HTTP."""

import time
from collections.abc import Callable
from pathlib import Path

from darner_core import VERSION
from tests.support.harness import RunningServer, wait_until
from tests.support.http import HTTP, Connect, Http


def test_a_session_tells_a_page_what_it_needs(http: Http) -> None:
    found = http.get("session").json
    token, now_ms = found.pop("token"), found.pop("now_ms")
    assert found == {"user": None, "version": VERSION, "may_admin": True, "readonly": False, "status": "UP"}
    assert len(token) == 64
    assert abs(now_ms - time.time() * 1000) < 60_000


def test_the_server_tells_its_figures(http: Http, http_server: RunningServer, queue: str) -> None:
    http.put(queue, b"x")
    found = http.get("server").json
    assert (found["status"], found["version"], found["pid"]) == ("UP", VERSION, http_server.process.pid)
    assert found["figures"]["curr_items"] >= 1
    assert {one["dialect"] for one in found["listeners"]} == {"darner", "http"}


def test_options_say_where_they_were_set(http: Http) -> None:
    found = {one["name"]: one for one in http.get("server/options").json}
    assert found["port"] == {
        "name": "port", "value": 0, "source": "command line", "changed_takes_effect": "restart",
    }  # fmt: skip
    assert (found["debug"]["source"], found["debug"]["changed_takes_effect"]) == ("default", "reload")
    assert found["host"]["value"] == ["127.0.0.1"]


def test_the_log_is_shown(http: Http, queue: str) -> None:
    http.delete(f"queues/{queue}")
    (last,) = http.get("server/log?lines=1").json
    assert (last["level"], last["text"].endswith(f"delete {queue}")) == ("INFO", True)
    assert len(http.get("server/log").json) > 1


def test_the_status_is_changed(start_server: Callable[..., RunningServer], connect_http: Connect) -> None:
    http = connect_http(start_server(*HTTP))
    assert http.post("server/status", {"status": "readonly"}).json == {"status": "READONLY"}
    assert http.post("queues/q/items", b"x").status == 503
    assert http.post("server/status", {"status": "up"}).json == {"status": "UP"}
    assert http.post("queues/q/items", b"x").status == 201
    assert "one of up, writeavoid" in http.post("server/status", {"status": "down"}).detail
    assert http.post("server/status", {"status": 1}).status == 400


def test_the_files_are_read_again(
    start_server: Callable[..., RunningServer], connect_http: Connect, tmp_path: Path
) -> None:
    conf = tmp_path / "conf.toml"
    conf.write_text("")
    http = connect_http(start_server(*HTTP, "-c", str(conf)))
    conf.write_text("[queues.new]\nmax_items = 7\n")
    assert http.post("server/reload").status == 204
    options = {one["name"]: one["value"] for one in http.get("queues/new").json["options"]}
    assert options["max_items"] == 7
    conf.write_text("nonsense = 1\n")
    said = http.post("server/reload")
    assert (said.status, "unknown option nonsense" in said.detail) == (409, True)


def test_clients_are_shown(start_server: Callable[..., RunningServer], connect_http: Connect) -> None:
    server = start_server(*HTTP)
    http, waiting, other = connect_http(server), connect_http(server), server.client()
    other.set("held", b"x")
    assert other.get("held/open") == b"x"
    waiting.connection.request("POST", "/api/v1/queues/q/take?wait=10000")
    wait_until(lambda: http.get("server").json["figures"]["queues_awaited"] == 1)
    found = http.get("connections").json["connections"]
    assert sorted((one["dialect"], one["state"], one["open_reads"], one["waiting_for"]) for one in found) == [
        ("darner", "idle", 1, []), ("http", "busy", 0, []), ("http", "waits", 0, ["q"]),
    ]  # fmt: skip
    assert all(one["address"].startswith("127.0.0.1:") and one["connected_at_ms"] > 0 for one in found)
    first = http.get("connections?limit=1").json
    assert len(http.get(f"connections?after={first['next']}").json["connections"]) == 2
    http.ask("PUT", "queues/q")
    assert http.get("queues/q").json["waiting_clients"][0]["address"].startswith("127.0.0.1:")
