"""Dead letters: told, put back, dropped."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.harness import RunningServer
from tests.support.http import HTTP, Connect, Http


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, shared_server: Callable[..., RunningServer]) -> RunningServer:
    conf: Path = tmp_path_factory.mktemp("dead") / "conf.toml"
    conf.write_text(
        '[default]\ndead_letter_queue = "dead"\nmax_deliveries = 1\n[queues."own*"]\ndead_letter_queue = ""\n'
    )
    return shared_server(*HTTP, "-c", str(conf))


@pytest.fixture
def http(server: RunningServer, connect_http: Connect) -> Iterator[Http]:
    http = connect_http(server)
    yield http
    http.post("queues/dead/flush")


def fail(http: Http, queue: str, body: bytes) -> str:
    """Put an item, and fail with it; the id that it had."""
    item = http.put(queue, body)
    assert http.take(queue).body == body
    assert http.post(f"queues/{queue}/items/{item}/release").status == 204
    return item


def test_a_dead_letter_tells_what_became_of_it(http: Http, queue: str) -> None:
    fail(http, queue, b"x")
    (found,) = http.get(f"queues/{queue}/dead").json["items"]
    history = found["history"]
    assert (history["from"], history["failures"], history["reason"]) == (queue, 1, "nack")
    assert history["client"].startswith("127.0.0.1:")
    assert found["path"] == "dead"
    assert http.get(f"queues/dead/items/{found['id']}/history").json == history


def test_only_those_of_the_queue_are_told(http: Http, queue: str) -> None:
    fail(http, queue, b"x")
    fail(http, f"{queue}2", b"y")
    assert len(http.get(f"queues/{queue}/dead").json["items"]) == 1
    assert http.get("queues/dead").json["items"] == 2


def test_a_dead_letter_is_put_back(http: Http, queue: str) -> None:
    fail(http, queue, b"x")
    (found,) = http.get(f"queues/{queue}/dead").json["items"]
    assert http.post(f"queues/{queue}/dead/{found['id']}/put-back").status == 204
    assert http.take(queue).body == b"x"
    assert http.get(f"queues/{queue}/dead").json["items"] == []
    assert http.post(f"queues/{queue}/dead/{found['id']}/put-back").status == 404


def test_a_large_dead_letter_is_put_back(http: Http, queue: str) -> None:
    body = bytes(300_000)
    fail(http, queue, body)
    while not (found := http.get(f"queues/{queue}/dead").json["items"]):
        pass  # it moves in the background
    assert http.post(f"queues/{queue}/dead/{found[0]['id']}/put-back").status == 204
    assert http.take(queue).body == body
    assert http.get("queues/dead").json["items"] == 0


def test_a_dead_letter_is_dropped(http: Http, queue: str) -> None:
    fail(http, queue, b"x")
    (found,) = http.get(f"queues/{queue}/dead").json["items"]
    assert http.delete(f"queues/{queue}2/dead/{found['id']}").status == 404
    assert http.delete(f"queues/{queue}/dead/{found['id']}").status == 204
    assert http.get("queues/dead").json["items"] == 0


def test_all_are_put_back_in_their_order(http: Http, queue: str) -> None:
    bodies = [b"%d" % number for number in range(250)]
    other = fail(http, f"{queue}2", b"other")
    for body in bodies:
        fail(http, queue, body)
    assert http.post(f"queues/{queue}/dead/put-back?n=10").json == {"done": 10}
    assert http.post(f"queues/{queue}/dead/put-back").json == {"done": 240}
    assert [one["body"].encode() for one in http.take(queue, "?n=1000").json["items"]] == bodies
    assert http.get("queues/dead").json["items"] == 1, other


def test_without_a_dead_letter_queue_they_are_the_buried_ones(http: Http, queue: str) -> None:
    queue = f"own{queue}"
    item = fail(http, queue, b"x")
    fail(http, queue, b"y")
    found = http.get(f"queues/{queue}/dead").json["items"]
    assert [(one["id"] == item, one["state"]) for one in found] == [(True, "buried"), (False, "buried")]
    assert http.post(f"queues/{queue}/dead/{item}/put-back").status == 204
    assert http.take(queue).body == b"x"
    assert http.post(f"queues/{queue}/dead/put-back").json == {"done": 1}


def test_a_list_goes_on_where_it_ended(http: Http, queue: str) -> None:
    for number in range(3):
        fail(http, queue, b"%d" % number)
    first = http.get(f"queues/{queue}/dead?limit=2").json
    rest = http.get(f"queues/{queue}/dead?limit=2&after={first['next']}").json
    assert (len(first["items"]), len(rest["items"]), rest["next"]) == (2, 1, None)
