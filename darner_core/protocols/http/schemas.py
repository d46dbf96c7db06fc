"""What answers look like, in JSON Schema, for the OpenAPI document. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from darner_core.protocols.http.contract import BYTES, EVENTS, JSON
from darner_core.protocols.http.figures import FIELDS

Schema = Mapping[str, Any]

TEXT: Final[Schema] = {"type": "string"}
NUMBER: Final[Schema] = {"type": "integer"}
FLAG: Final[Schema] = {"type": "boolean"}
ANY: Final[Schema] = {}


def maybe(schema: Schema) -> Schema:
    """That, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def object_of(**properties: Schema) -> Schema:
    """All of them are there; there may be more."""
    return {"type": "object", "required": list(properties), "properties": properties}


def list_of(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def as_json(schema: Schema) -> Schema:
    """The content of an answer."""
    return {JSON: {"schema": schema}}


AS_BYTES: Final[Schema] = {BYTES: {"schema": {"type": "string", "format": "binary"}}}
AS_EVENTS: Final[Schema] = {EVENTS: {"schema": TEXT}}

_KINDS: Final[Mapping[str, Schema]] = {
    "name": TEXT,
    "path": TEXT,
    "paused": maybe({"enum": ["none", "in", "out", "all"]}),
    "damaged": FLAG,
    "rate_in": maybe({"type": "number"}),
    "rate_out": maybe({"type": "number"}),
    "spark": maybe(list_of(maybe(NUMBER))),
}
_FIGURES: Final = {field: _KINDS.get(field, maybe(NUMBER)) for field in FIELDS}
OPTION: Final = object_of(name=TEXT, value=ANY, source=TEXT)
NAMED: Final = object_of(name=TEXT, path=TEXT)

# With `fields` some of the figures are left out.
QUEUES: Final = object_of(queues=list_of({"type": "object", "properties": _FIGURES}), total=NUMBER)
QUEUE: Final = object_of(
    **_FIGURES,
    may=list_of(TEXT),
    options=list_of(OPTION),
    children=list_of(NAMED),
    cursors=list_of(TEXT),
    dead_letter_queue=maybe(TEXT),
    waiting_clients=list_of(object_of(address=TEXT, user=maybe(TEXT))),
)

PUT_ONE: Final = object_of(id=TEXT)
PUT_MANY: Final = object_of(put=NUMBER, ids=list_of(TEXT))
TAKEN: Final = object_of(
    items=list_of(
        {
            **object_of(id=TEXT, queue=TEXT, path=TEXT, failures=NUMBER, put_at_ms=NUMBER, held_until_ms=NUMBER),
            "oneOf": [{"required": ["body"]}, {"required": ["body_base64"]}],
        }
    )
)
SEEN: Final = object_of(
    id=TEXT,
    state={"enum": ["ready", "delayed", "buried", "open"]},
    size=NUMBER,
    pri=NUMBER,
    due_at_ms=maybe(NUMBER),
    expires_at_ms=maybe(NUMBER),
    failures=NUMBER,
    put_at_ms=NUMBER,
    preview_base64=TEXT,
)
LOOKED_AT: Final = object_of(items=list_of(SEEN), next=maybe(TEXT))
HISTORY: Final = object_of(**{"from": TEXT}, id=TEXT, failures=NUMBER, reason=TEXT, client=TEXT, put_at_ms=NUMBER)
DEAD: Final = object_of(
    items=list_of({"allOf": [SEEN, object_of(path=TEXT, history=maybe(HISTORY))]}), next=maybe(TEXT), path=TEXT
)

SESSION: Final = object_of(
    user=maybe(TEXT), token=TEXT, version=TEXT, may_admin=FLAG, readonly=FLAG, status=TEXT, now_ms=NUMBER
)
SERVER: Final = object_of(
    status=TEXT,
    version=TEXT,
    pid=NUMBER,
    uptime_s=NUMBER,
    listeners=list_of(object_of(address=TEXT, dialect=TEXT)),
    figures={"type": "object"},
)
OPTIONS: Final = list_of(
    object_of(name=TEXT, value=ANY, source=TEXT, changed_takes_effect={"enum": ["reload", "restart"]})
)
LINES: Final = list_of(object_of(time_ms=NUMBER, level=TEXT, text=TEXT))
CONNECTIONS: Final = object_of(
    connections=list_of(
        object_of(
            id=TEXT,
            address=TEXT,
            user=maybe(TEXT),
            dialect=TEXT,
            listener=TEXT,
            connected_at_ms=NUMBER,
            state=TEXT,
            open_reads=NUMBER,
            waiting_for=list_of(TEXT),
        )
    ),
    next=maybe(TEXT),
)
