"""What answers look like."""

from typing import Any

import pytest

from darner_core.protocols.http import schemas
from tests.support.http import Http

jsonschema_rs: Any = pytest.importorskip("jsonschema_rs")


def fits(found: Any, schema: Any) -> bool:
    return bool(jsonschema_rs.is_valid(schema, found))


def test_a_schema_says_what_must_be_there() -> None:
    schema = schemas.object_of(name=schemas.TEXT, next=schemas.maybe(schemas.NUMBER))
    assert fits({"name": "x", "next": None, "more": 1}, schema)
    assert fits({"name": "x", "next": 1}, schema)
    assert not fits({"name": "x"}, schema)
    assert not fits({"name": 1, "next": 1}, schema)


def test_answers_that_have_all_there_can_be(http: Http, queue: str) -> None:
    """What schemathesis seldom comes upon."""
    for body in (b"text", b"\xff"):
        http.put(queue, body)
    item = http.put(queue, b"x", "?delay=1000")
    assert fits(http.take(queue, "?n=2").json, schemas.TAKEN)
    assert fits(http.get(f"queues/{queue}").json, schemas.QUEUE)
    assert fits(http.get(f"queues?prefix={queue}").json, schemas.QUEUES)
    for state in ("open", "delayed"):
        found = http.get(f"queues/{queue}/items?state={state}").json
        assert found["items"]
        assert fits(found, schemas.LOOKED_AT)
    assert not fits({"items": [{"id": item}]}, schemas.LOOKED_AT)
    assert fits(http.get("connections").json, schemas.CONNECTIONS)
    assert fits(http.get("server/options").json, schemas.OPTIONS)
