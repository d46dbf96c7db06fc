"""Queues over HTTP: the list, one of them, making and deleting."""

from collections.abc import Callable

from tests.support.harness import RunningServer
from tests.support.http import HTTP, Connect, Http


def names(http: Http, query: str = "") -> list[str]:
    return [one["name"] for one in http.get(f"queues{query}").json["queues"]]


def test_a_queue_is_made_and_deleted(http: Http, queue: str) -> None:
    assert http.get(f"queues/{queue}").status == 404
    assert http.ask("PUT", f"queues/{queue}").status == 201
    assert http.ask("PUT", f"queues/{queue}").status == 204
    assert http.get(f"queues/{queue}").json["items"] == 0
    assert http.delete(f"queues/{queue}").status == 204
    assert http.delete(f"queues/{queue}").status == 204
    assert http.get(f"queues/{queue}").status == 404


def test_a_queue_says_how_it_is(http: Http, queue: str) -> None:
    for number in range(3):
        http.put(queue, b"%d" % number)
    http.take(queue)
    found = http.get(f"queues/{queue}").json
    told = {name: found[name] for name in ("name", "path", "items", "bytes", "waiting", "open", "put_total", "paused")}
    assert told == {
        "name": queue, "path": queue, "items": 3, "bytes": 2, "waiting": 2, "open": 1, "put_total": 3, "paused": "none",
    }  # fmt: skip
    assert {"name": "max_items", "value": 0, "source": "built in"} in found["options"]


def test_a_name_that_is_no_text_is_shown_and_can_be_reached(http: Http, queue: str) -> None:
    http.put(f"{queue}%FF%2F", b"x")
    (found,) = http.get(f"queues?prefix={queue}").json["queues"]
    assert (found["name"], found["path"]) == (f"{queue}\\xff/", f"{queue}%FF%2F")
    assert http.get(f"queues/{found['path']}").json["items"] == 1


def test_the_list_is_sorted_filtered_and_cut(start_server: Callable[..., RunningServer], connect_http: Connect) -> None:
    http = connect_http(start_server(*HTTP))
    for name, count in (("mail.in", 2), ("mail.out", 1), ("news", 3)):
        for _ in range(count):
            http.put(name, b"x")
    assert names(http) == ["mail.in", "mail.out", "news"]
    assert names(http, "?sort=items&order=desc") == ["news", "mail.in", "mail.out"]
    assert names(http, "?sort=age&order=desc")[0] == "mail.in"
    assert names(http, "?prefix=mail") == ["mail.in", "mail.out"]
    assert names(http, "?contains=out") == ["mail.out"]
    assert names(http, "?limit=1&offset=1") == ["mail.out"]
    assert http.get("queues?limit=1").json["total"] == 3
    assert http.get("queues?limit=1&fields=name,items").json["queues"] == [{"name": "mail.in", "items": 2}]


def test_many_queues_are_told_in_slices(start_server: Callable[..., RunningServer], connect_http: Connect) -> None:
    server = start_server(*HTTP)
    http, other = connect_http(server), server.client()
    for start in range(0, 3000, 500):
        other.send(b"".join(b"set q%05d 0 0 1\r\nx\r\n" % number for number in range(start, start + 500)))
        other.expect(b"STORED\r\n" * 500)
    assert names(http, "?limit=2&offset=2000") == ["q02000", "q02001"]
    assert len(names(http, "?limit=1000&sort=age&order=desc")) == 1000


def test_what_the_list_may_be_told(http: Http) -> None:
    assert http.get("queues?sort=nme").detail.endswith('; did you mean "name"?')
    assert http.get("queues?limit=1001").detail == 'parameter limit = "1001": must be a whole number from 0 to 1000'
    assert http.get("queues?fields=name,x").status == 400


def test_a_name_that_no_queue_can_have(http: Http) -> None:
    assert http.ask("PUT", f"queues/{'x' * 251}").status == 400
    assert http.ask("PUT", f"queues/{'%2F' * 100}").status == 400


def test_there_may_be_no_more_queues(start_server: Callable[..., RunningServer], connect_http: Connect) -> None:
    http = connect_http(start_server(*HTTP, "--max-queues", "1"))
    http.ask("PUT", "queues/one")
    assert http.ask("PUT", "queues/two").status == 507
    assert http.post("queues/two/items", b"x").status == 507


def test_the_history_of_a_queue(http: Http, queue: str) -> None:
    assert http.get(f"queues/{queue}/history").status == 404
    http.put(queue, b"x")
    assert http.get(f"queues/{queue}/history?minutes=5").status == 200
