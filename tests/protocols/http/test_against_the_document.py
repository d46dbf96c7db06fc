"""The API is asked whatever its OpenAPI document allows, and much that it does not: it never fails, and answers only
what the document says.
"""

from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
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
CHECKS: list[Any] = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
]  # fmt: skip


def ask_everything(server: RunningServer, examples: int) -> int:
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{http_port(server)}/api/v1/openapi.json")
    asked = 0
    for found in schema.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]
        if operation.path.endswith(LEFT_OUT):
            continue

        @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            if isinstance(case.query, dict) and "wait" in case.query:
                case.query["wait"] = 1
            response = case.call(timeout=10)
            if response.status_code not in (501, 503, 507):  # said so in the document
                case.validate_response(response, checks=CHECKS)

        ask()
        asked += 1
    return asked


def test_it_answers_as_the_document_says(start_server: Callable[..., RunningServer]) -> None:
    assert ask_everything(start_server(*HTTP), examples=8) > 25


@pytest.mark.long
def test_it_answers_as_the_document_says_whatever_is_asked(start_server: Callable[..., RunningServer]) -> None:
    assert ask_everything(start_server(*HTTP), examples=300) > 25
