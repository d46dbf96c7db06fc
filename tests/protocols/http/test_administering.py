"""Kick, pause and flush."""

from tests.support.http import Http


def test_buried_items_are_kicked(http: Http, queue: str) -> None:
    for _ in range(3):
        item = http.put(queue, b"x")
        http.take(queue)
        http.post(f"queues/{queue}/items/{item}/bury")
    assert http.post(f"queues/{queue}/kick").json == {"kicked": 1}
    assert http.post(f"queues/{queue}/kick?n=10").json == {"kicked": 2}
    assert http.post(f"queues/{queue}/kick").json == {"kicked": 0}


def test_a_paused_queue_does_nothing(http: Http, queue: str) -> None:
    http.put(queue, b"x")
    assert http.post(f"queues/{queue}/pause", {"state": "out"}).json == {"state": "out", "left_ms": None}
    assert http.take(queue).status == 204
    said = http.post(f"queues/{queue}/pause", {"state": "all", "seconds": 60}).json
    assert said["state"] == "all"
    assert 0 < said["left_ms"] <= 60_000
    refused = http.post(f"queues/{queue}/items", b"y")
    assert (refused.status, refused.detail) == (409, "the queue is paused: it takes no items")
    assert http.get(f"queues/{queue}").json["paused"] == "all"
    http.post(f"queues/{queue}/pause", {"state": "none"})
    assert http.take(queue).body == b"x"


def test_a_pause_that_is_none(http: Http, queue: str) -> None:
    assert http.post(f"queues/{queue}/pause", {"state": "in"}).status == 404
    http.ask("PUT", f"queues/{queue}")
    for body in ({}, {"state": "off"}, {"state": 1}, {"state": "in", "seconds": -1}, {"state": "in", "seconds": True}):
        assert http.post(f"queues/{queue}/pause", body).status == 400


def test_a_queue_is_emptied(http: Http, queue: str) -> None:
    for query in ("", "", "?delay=60000"):
        http.put(queue, b"x", query)
    http.take(queue)
    assert http.post(f"queues/{queue}/flush").json == {"removed": 2}
    found = http.get(f"queues/{queue}").json
    assert (found["items"], found["open"]) == (1, 1)
