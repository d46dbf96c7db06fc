"""The OpenAPI document, made of the endpoints themselves, so that it says what they do."""

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from darner_core import VERSION
from darner_core.access.rights import FREE
from darner_core.protocols.http.contract import PROBLEM, Answer, Asked, Endpoint

_PATH_PARAMETERS: Final = {
    "queue": ("The queue's name, percent-encoded in one segment: / is %2F.", {"type": "string", "minLength": 1}),
    "id": ("The item's id.", {"type": "string", "minLength": 1}),
}
_PROBLEM_SCHEMA: Final = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
    },
}
_ALWAYS: Final = {
    400: "What was asked is wrong; the detail says what is allowed.",
    401: "A name and a password are needed.",
    403: "Whoever asks may not do that.",
    404: "It is not there.",
    405: "There is no such method here; Allow tells which there are.",
    421: "Without users only some hosts are answered.",
    429: "Too many log in at once, or too many items are open.",
    500: "The server has failed.",
    503: "Not now: the status, the disk, or too many clients.",
}


class OpenApi:
    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        own = Endpoint("GET", "/api/v1/openapi.json", self.tell, "This document.", looks=True)
        self._endpoints = (own,)
        self._document = document([one for one in (*endpoints, own) if one.path.startswith(("/api/", "/health/"))])

    def endpoints(self) -> Sequence[Endpoint]:
        return self._endpoints

    def tell(self, asked: Asked) -> Answer:
        return Answer(self._document)


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Darner", "version": VERSION, "description": "Durable message queues.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {"Problem": _PROBLEM_SCHEMA},
            "securitySchemes": {"basic": {"type": "http", "scheme": "basic"}},
        },
    }  # fmt: skip


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = []
    for name in re.findall(r"{(\w+)}", endpoint.path):
        about, schema = _PATH_PARAMETERS[name]
        parameters.append({"name": name, "in": "path", "required": True, "description": about, "schema": schema})
    for name, parameter in endpoint.parameters.items():
        described = dict(parameter.schema)
        if parameter.several:
            described = {"type": "array", "minItems": 1, "items": described}
        parameters.append({"name": name, "in": "query", "description": parameter.about, "schema": described,
            **({"style": "form", "explode": True} if parameter.several else {})})  # fmt: skip
    found: dict[str, Any] = {
        "operationId": _id(endpoint),
        "summary": endpoint.about,
        "responses": _responses(endpoint),
        "security": [{}] if endpoint.looks else [{}, {"basic": []}],
    }
    if endpoint.right != FREE:
        found["description"] = f"Needs the right {endpoint.right!r}."
    if parameters:
        found["parameters"] = parameters
    if endpoint.takes:
        found["requestBody"] = {"content": {kind: {"schema": schema} for kind, schema in endpoint.takes.items()}}
    return found


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, about in sorted({**_ALWAYS, **(endpoint.answers or {200: "As it says."})}.items()):
        told: dict[str, Any] = {"description": about}
        if status >= HTTPStatus.BAD_REQUEST:
            told["content"] = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        elif status in endpoint.shapes:
            told["content"] = endpoint.shapes[status]
        responses[str(status)] = told
    return responses


def _id(endpoint: Endpoint) -> str:
    words = re.sub(r"[^a-z]+", "_", endpoint.path.removeprefix("/api/v1").lower()).strip("_")
    return f"{endpoint.method.lower()}_{words}"
