"""Looking at items that stay where they are."""

from base64 import b64decode

from tests.support.http import Http


def test_items_are_looked_at_and_stay(http: Http, queue: str) -> None:
    ids = [http.put(queue, b"%d" % number + bytes(1000)) for number in range(3)]
    found = http.get(f"queues/{queue}/items?limit=2").json
    assert [(one["id"], one["state"], one["size"], one["pri"]) for one in found["items"]] == [
        (ids[0], "ready", 1001, 1024),
        (ids[1], "ready", 1001, 1024),
    ]
    assert b64decode(found["items"][0]["preview_base64"]) == b"0" + bytes(255)
    rest = http.get(f"queues/{queue}/items?after={found['next']}").json
    assert ([one["id"] for one in rest["items"]], rest["next"]) == ([ids[2]], None)
    assert http.get(f"queues/{queue}").json["waiting"] == 3


def test_each_state_has_its_items(http: Http, queue: str) -> None:
    opened = http.put(queue, b"opened")
    http.take(queue)
    buried = http.put(queue, b"buried")
    http.take(queue)
    http.post(f"queues/{queue}/items/{buried}/bury")
    delayed = http.put(queue, b"delayed", "?delay=60000")
    ready = http.put(queue, b"ready")
    for state, item in (("open", opened), ("buried", buried), ("delayed", delayed), ("ready", ready)):
        (found,) = http.get(f"queues/{queue}/items?state={state}").json["items"]
        assert (found["id"], found["state"]) == (item, state)
        assert (found["due_at_ms"] is not None) == (state == "delayed")


def test_many_items_are_looked_at_in_several_turns(http: Http, queue: str) -> None:
    ids = [http.put(queue, b"x") for _ in range(120)]
    found = http.get(f"queues/{queue}/items?limit=110").json
    assert [one["id"] for one in found["items"]] == ids[:110]
    rest = http.get(f"queues/{queue}/items?limit=110&after={found['next']}").json
    assert [one["id"] for one in rest["items"]] == ids[110:]


def test_one_item_is_looked_at(http: Http, queue: str) -> None:
    item = http.put(queue, b"\x00body")
    said = http.get(f"queues/{queue}/items/{item}")
    assert (said.body, said.headers["x-darner-state"]) == (b"\x00body", "ready")
    assert http.get(f"queues/{queue}/items/999999999").status == 404
    assert http.get(f"queues/{queue}/items/{item}/history").detail == "the item is no dead letter"


def test_a_large_item_is_looked_at(http: Http, queue: str) -> None:
    body = bytes(range(256)) * 4096
    item = http.put(queue, body)
    assert http.get(f"queues/{queue}/items/{item}").body == body
    (found,) = http.get(f"queues/{queue}/items").json["items"]
    assert b64decode(found["preview_base64"]) == body[:256]


def test_a_place_that_is_none(http: Http, queue: str) -> None:
    for after in ("x", "1,2", "1,2,3,4", "9999999999999999999,1,1"):
        said = http.get(f"queues/{queue}/items?after={after}")
        assert (said.status, said.detail.endswith("must be what next was in the answer before")) == (400, True)


def test_a_queue_that_is_not_there_has_no_items(http: Http, queue: str) -> None:
    assert http.get(f"queues/{queue}/items").json == {"items": [], "next": None}
