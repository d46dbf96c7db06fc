"""What is done to items by their ids."""

import pytest

from tests.support.harness import RunningServer
from tests.support.http import Http


def taken(http: Http, queue: str, body: bytes = b"x", query: str = "") -> str:
    """The path of an item that was put and taken."""
    item = http.put(queue, body)
    assert http.take(queue, query).status == 200
    return f"queues/{queue}/items/{item}"


def test_an_item_is_acknowledged_once(http: Http, queue: str) -> None:
    item = taken(http, queue)
    assert http.delete(item).status == 204
    assert http.delete(item).status == 404
    assert http.get(f"queues/{queue}").json["items"] == 0


def test_an_item_that_waits_is_removed(http: Http, queue: str) -> None:
    http.put(queue, b"a")
    middle = http.put(queue, b"b")
    http.put(queue, b"c")
    assert http.delete(f"queues/{queue}/items/{middle}?if=open").status == 409
    assert http.delete(f"queues/{queue}/items/{middle}").status == 204
    assert [http.take(queue).body, http.take(queue).body] == [b"a", b"c"]


def test_another_connection_may_acknowledge(http: Http, http_server: RunningServer, queue: str) -> None:
    item = taken(http, queue)
    http.close()  # and comes back: what is taken belongs to no connection
    assert http.delete(f"{item}?if=open").status == 204


def test_a_released_item_comes_back_and_that_counts(http: Http, queue: str) -> None:
    item = taken(http, queue)
    assert http.post(f"{item}/release").status == 204
    assert http.take(queue).headers["x-darner-failures"] == "1"
    assert http.post(f"{item}/release?delay=60000").status == 204
    assert http.take(queue).status == 204
    assert http.get(f"queues/{queue}").json["delayed"] == 1


def test_a_touched_item_is_kept_for_longer(http: Http, queue: str) -> None:
    item = taken(http, queue, query="?ttr=1000")
    assert http.post(f"{item}/touch?ttr=60000").status == 204
    assert http.take(queue, "?wait=1500").status == 204
    assert http.delete(f"{item}?if=open").status == 204


def test_a_rejected_item_is_a_dead_letter(http: Http, queue: str) -> None:
    item = taken(http, queue)
    assert http.post(f"{item}/reject").status == 204
    found = http.get(f"queues/{queue}").json
    assert (found["buried"], found["dead_lettered"]) == (1, 0)


def test_a_buried_item_is_kicked(http: Http, queue: str) -> None:
    item = taken(http, queue)
    assert http.post(f"{item}/bury").status == 204
    assert http.take(queue).status == 204
    assert http.post(f"{item}/kick").status == 204
    assert http.take(queue).body == b"x"
    assert http.post(f"{item}/kick").detail == "the item is open: buried and delayed ones can be kicked"


@pytest.mark.parametrize("word", ["release", "touch", "reject", "bury"])
def test_only_what_is_open_can_be_let_go(http: Http, queue: str, word: str) -> None:
    item = http.put(queue, b"x")
    said = http.post(f"queues/{queue}/items/{item}/{word}")
    assert (said.status, said.detail) == (409, "the item is ready, and not open: its time was over")
    assert http.post(f"queues/{queue}/items/0/{word}").status == 404
    assert http.post(f"queues/{queue}/items/x/{word}").status == 404


def test_what_a_memcache_client_has_open_is_its_own(http: Http, http_server: RunningServer, queue: str) -> None:
    item = http.put(queue, b"x")
    other = http_server.client()
    assert other.get(f"{queue}/open") == b"x"
    said = http.post(f"queues/{queue}/items/{item}/release")
    assert (said.status, said.detail) == (409, "the item is open on a connection of another protocol")


def test_an_item_of_another_queue_is_not_there(http: Http, queue: str) -> None:
    item = http.put(queue, b"x")
    http.put(f"{queue}2", b"y")
    assert http.delete(f"queues/{queue}2/items/{item}").status == 404


def test_many_are_acknowledged_at_once(http: Http, queue: str) -> None:
    ids = [http.put(queue, b"x") for _ in range(5)]
    http.take(queue, "?n=5")
    said = http.post(f"queues/{queue}/acknowledge", {"ids": [*ids, ids[0], "999999999", "x"]})
    assert said.json == {"done": 5, "missing": ["999999999", "x"]}
    assert http.get(f"queues/{queue}").json["items"] == 0


def test_a_list_of_ids_that_is_none(http: Http, queue: str) -> None:
    for body in ({"ids": "1"}, {"ids": [1]}, {}, {"ids": [], "more": 1}, [1]):
        assert http.post(f"queues/{queue}/acknowledge", body).status == 400
    assert http.post(f"queues/{queue}/acknowledge", b"{").detail.startswith("the body must be JSON: ")
    assert http.post(f"queues/{queue}/acknowledge", bytes(2 << 20)).status == 413
