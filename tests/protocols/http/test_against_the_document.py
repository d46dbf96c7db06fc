"""The API is asked whatever its OpenAPI document allows, and much that it does not: it never fails, and answers only
what the document says.
"""

from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.harness import RunningServer
from tests.support.http import HTTP, http_port

# These have no end, or would end the test for all others.
LEFT_OUT = ("/watch", "/server/status")
QUEUES = st.sampled_from(["a", "b%20c", "c%2Fd", None])
IDS = st.sampled_from([*map(str, range(1, 20)), None])
CHECKS: list[Any] = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
]  # fmt: skip


def ask_everything(server: RunningServer, examples: int) -> int:
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{http_port(server)}/api/v1/openapi.json")
    asked = 0
    # Twice, so that there is something to look at and to act on.
    for found in [*schema.get_all_operations(), *schema.get_all_operations()]:
        operation: Any = found.ok()  # type: ignore[union-attr]
        if operation.path.endswith(LEFT_OUT):
            continue

        @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.as_strategy(), queue=QUEUES, item=IDS)
        def ask(case: Any, queue: str | None, item: str | None) -> None:
            for name, value in (("queue", queue), ("id", item)):  # mostly such as there are
                if value is not None and name in (case.path_parameters or {}):
                    case.path_parameters[name] = value
            if isinstance(case.query, dict) and "wait" in case.query:
                case.query["wait"] = 1
            response = case.call(timeout=10)
            if response.status_code not in (501, 503, 507):  # said so in the document
                case.validate_response(response, checks=CHECKS)

        ask()
        asked += 1
    return asked


def test_it_answers_as_the_document_says(start_server: Callable[..., RunningServer]) -> None:
    assert ask_everything(start_server(*HTTP), examples=3) > 50


@pytest.mark.long
def test_it_answers_as_the_document_says_whatever_is_asked(start_server: Callable[..., RunningServer]) -> None:
    assert ask_everything(start_server(*HTTP), examples=100) > 50
