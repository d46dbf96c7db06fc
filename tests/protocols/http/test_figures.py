"""The figures of a queue."""

from darner_core.protocols.http.figures import FIELDS
from tests.support.http import Http


def test_every_figure_has_its_place(http: Http, queue: str) -> None:
    http.put(queue, b"x")
    (found,) = http.get(f"queues?prefix={queue}").json["queues"]
    assert tuple(found) == FIELDS


def test_items_in_all_states_are_counted(http: Http, queue: str) -> None:
    for query in ("", "", "?delay=60000"):
        http.put(queue, b"12", query)
    item = http.take(queue).headers["x-darner-id"]
    found = http.get(f"queues/{queue}").json
    assert [found[one] for one in ("items", "waiting", "open", "delayed", "buried")] == [3, 1, 1, 1, 0]
    http.post(f"queues/{queue}/items/{item}/bury")
    found = http.get(f"queues/{queue}").json
    assert [found[one] for one in ("items", "waiting", "open", "delayed", "buried")] == [3, 1, 0, 1, 1]
