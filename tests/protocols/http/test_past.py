"""What queues have been like, asked of a real server."""

from tests.support.http import Http


def test_a_queue_that_has_just_been_made_has_no_past(http: Http, queue: str) -> None:
    http.put(queue, b"x")
    told = http.get(f"queues/{queue}/history?minutes=2").json
    assert (told["step_s"], told["items"], told["in"]) == (15, [None] * 8, [None] * 8)
    assert told.keys() == {"step_s", "from_ms", "items", "in", "out", "age_ms", "open", "failures"}


def test_of_a_queue_that_is_not_there_nothing_is_told(http: Http) -> None:
    said = http.get("queues/none/history")
    assert (said.status, said.detail) == (404, "there is no queue none")


def test_more_than_an_hour_is_not_kept(http: Http, queue: str) -> None:
    http.put(queue, b"x")
    assert http.get(f"queues/{queue}/history?minutes=61").status == 400
