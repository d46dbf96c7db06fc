"""What endpoints are made of."""

from typing import Any

from darner_core.protocols.http.contract import Answer, Asked, Problem, done


def test_a_request_for_json_says_so() -> None:
    client: Any = None
    assert Asked(client, {"HTTP_ACCEPT": "application/json, */*"}).accepts_json
    assert not Asked(client, {"HTTP_ACCEPT": "*/*"}).accepts_json
    assert not Asked(client, {}).accepts_json


def test_an_answer_without_a_body() -> None:
    assert done() == Answer(status=204)


def test_a_problem_says_what_is_wrong() -> None:
    problem = Problem(409, "taken", {"Retry-After": "1"}, id="7")
    assert (str(problem), problem.status, problem.headers, problem.more) == (
        "taken", 409, {"Retry-After": "1"}, {"id": "7"},
    )  # fmt: skip
