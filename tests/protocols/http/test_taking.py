"""Taking items over HTTP."""

import time

from tests.support.harness import RunningServer, wait_until
from tests.support.http import Connect, Http

JSON = {"Accept": "application/json"}


def test_nothing_is_there(http: Http, queue: str) -> None:
    said = http.take(queue)
    assert (said.status, said.body) == (204, b"")


def test_what_was_taken_is_held_until_its_time_is_over(http: Http, queue: str) -> None:
    http.put(queue, b"x")
    assert http.take(queue, "?ttr=1").headers["x-darner-failures"] == "0"
    again = http.take(queue, "?wait=5000")
    assert (again.body, again.headers["x-darner-failures"]) == (b"x", "1")


def test_it_says_what_it_knows_of_the_item(http: Http, queue: str) -> None:
    before = int(time.time() * 1000)
    item = http.put(queue, b"x", "?pri=7")
    headers = http.take(queue).headers
    assert (headers["x-darner-id"], headers["x-darner-queue"], headers["x-darner-priority"]) == (item, queue, "7")
    assert before <= int(headers["x-darner-put-at"]) <= int(time.time() * 1000)


def test_several_come_as_json(http: Http, queue: str) -> None:
    ids = [http.put(queue, body) for body in (b"eins", b"\xff", b"drei")]
    items = http.take(queue, "?n=2&ttr=60000").json["items"]
    assert [(one["id"], one.get("body"), one.get("body_base64")) for one in items] == [
        (ids[0], "eins", None),
        (ids[1], None, "/w=="),
    ]
    assert items[0]["held_until_ms"] - items[0]["put_at_ms"] >= 60000
    (last,) = http.ask("POST", f"queues/{queue}/take", **JSON).json["items"]
    assert (last["body"], last["queue"], last["failures"], last["pri"]) == ("drei", queue, 0, 1024)
    assert http.take(queue, "?n=5").status == 204


def test_a_client_waits_for_an_item(http: Http, http_server: RunningServer, queue: str) -> None:
    http.connection.request("POST", f"/api/v1/queues/{queue}/take?wait=10000")
    other = http_server.client()
    wait_until(lambda: other.stats().get("queues_awaited") == "1")
    other.set(queue, b"there")
    assert http.answer().body == b"there"


def test_the_time_of_a_wait_is_over(http: Http, queue: str) -> None:
    assert http.take(queue, "?wait=50").status == 204


def test_a_client_waits_at_several_queues(http: Http, http_server: RunningServer, queue: str) -> None:
    http.connection.request("POST", f"/api/v1/take?q={queue}1&q={queue}2&wait=10000")
    other = http_server.client()
    wait_until(lambda: other.stats().get("queues_awaited") == "2")
    other.set(f"{queue}2", b"there")
    said = http.answer()
    assert (said.body, said.headers["x-darner-queue"]) == (b"there", f"{queue}2")
    assert http.post("take").detail == "parameter q is missing: the names of the queues, as in ?q=a&q=b"


def test_a_client_that_hangs_up_while_it_waits_gets_nothing(http: Http, http_server: RunningServer, queue: str) -> None:
    http.connection.request("POST", f"/api/v1/queues/{queue}/take?wait=60000")
    other = http_server.client()
    wait_until(lambda: other.stats().get("queues_awaited") == "1")
    http.close()
    wait_until(lambda: other.stats().get("queues_awaited") == "0")
    other.set(queue, b"mine")
    assert other.get(queue) == b"mine"


def test_a_large_item_comes_alone(http: Http, queue: str) -> None:
    http.put(queue, b"small")
    http.put(queue, bytes(300_000))
    assert len(http.take(queue, "?n=5").json["items"]) == 1
    assert http.take(queue, "?n=5").body == bytes(300_000)


def test_waiters_are_served_in_their_order(
    http: Http, http_server: RunningServer, connect_http: Connect, queue: str
) -> None:
    http.ask("PUT", f"queues/{queue}")
    clients = [connect_http(http_server) for _ in range(3)]
    for number, client in enumerate(clients, 1):
        client.connection.request("POST", f"/api/v1/queues/{queue}/take?wait=10000")
        wait_until(lambda n=number: http.get(f"queues/{queue}").json["waiters"] == n)  # type: ignore[misc]
    for number, client in enumerate(clients):
        http.put(queue, b"%d" % number)
        assert client.answer().body == b"%d" % number


def test_too_many_or_none_are_refused(http: Http, queue: str) -> None:
    assert http.take(queue, "?n=0").detail == 'parameter n = "0": must be a whole number from 1 to 1000'
