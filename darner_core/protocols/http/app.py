"""The application: the endpoints of all parts, and what is done before and after each of them.

Falcon finds the endpoint and writes the response. What is the same for all endpoints is done here: who asks, and
whether that is allowed, what the query says, errors, and that nothing is answered before it is written.

Requests run in their clients' greenlets, and may switch.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any

import falcon

from darner_core import NAME
from darner_core.access.access import Access
from darner_core.config.listeners import HTTP
from darner_core.config.options import Config
from darner_core.errors import DamagedError, RequestError, StorageError
from darner_core.operations.client import HangUp
from darner_core.operations.operations import Operations
from darner_core.protocols.http import parameters, problems
from darner_core.protocols.http.acting import Acting
from darner_core.protocols.http.administering import Administering
from darner_core.protocols.http.admission import Admission
from darner_core.protocols.http.contract import PROBLEM, READS, WRITES, Asked, Endpoint, Part, Problem
from darner_core.protocols.http.dead import Dead
from darner_core.protocols.http.health import Health
from darner_core.protocols.http.looking import Looking
from darner_core.protocols.http.metrics import Metrics
from darner_core.protocols.http.names import queue_of
from darner_core.protocols.http.openapi import OpenApi
from darner_core.protocols.http.page_files import PageFiles
from darner_core.protocols.http.putting import Putting
from darner_core.protocols.http.queues import Queues
from darner_core.protocols.http.server import ServerPart
from darner_core.protocols.http.taking import Taking
from darner_core.protocols.http.watching import Watching
from darner_core.repeated import BY_TEXT
from darner_core.showing import show

log = logging.getLogger(NAME)

API = "/api/v1"

# So that a queue's name, or what a client has put, can never be taken for a page or a script.
_HEADERS = {"x-content-type-options": "nosniff", "cache-control": "no-store"}


class Application:
    """A WSGI application."""

    def __init__(self, operations: Operations, config: Config, access: Access, host: Any) -> None:
        """`host` is the server, see `server.Host`."""
        self._admission = admission = Admission(access)
        self._availability = operations.availability
        self._measures = operations.measures
        looking = Looking(operations)
        parts: list[Part] = [
            ServerPart(operations, admission, host),
            Queues(operations, admission, lambda: host.overview),
            Putting(operations, config),
            Taking(operations, admission),
            Acting(operations, admission),
            looking,
            Dead(operations, admission, looking),
            Administering(operations, admission),
            Watching(operations, admission),
            Health(operations),
            Metrics(operations, config),
            PageFiles(),
        ]
        endpoints = [endpoint for part in parts for endpoint in part.endpoints()]
        endpoints += OpenApi(endpoints).endpoints()
        self._app = falcon.App()
        self._app.add_error_handler(HangUp, _hang_up)
        self._app.add_error_handler(Exception, self._on_error)
        self._app.add_error_handler(falcon.HTTPError, self._on_falcon_error)
        self.problem = problems.written
        self._add(endpoints)

    def __call__(self, env: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return self._app(env, start_response)

    def _add(self, endpoints: Sequence[Endpoint]) -> None:
        by_path: dict[str, list[Endpoint]] = {}
        for endpoint in endpoints:
            by_path.setdefault(endpoint.path, []).append(endpoint)
        for path, several in by_path.items():
            resource = _Resource()
            for endpoint in several:
                setattr(resource, f"on_{endpoint.method.lower()}", self._responder(endpoint))
                if endpoint.method == "GET":
                    resource.on_head = resource.on_get
            self._app.add_route(path, resource)

    def _responder(self, endpoint: Endpoint) -> Callable[..., None]:
        measures, verb = self._measures, f"{endpoint.method} {endpoint.path.removeprefix(API)}"

        def respond(req: falcon.Request, resp: falcon.Response, queue: str = "", id: str = "") -> None:  # noqa: A002
            env = req.env
            client = env["darner.client"]
            asked = Asked(client, env, queue_of(queue) if queue else b"", id)
            if not endpoint.looks:
                self._wait_allowed(endpoint, asked)
            asked.told = parameters.read(env["QUERY_STRING"], endpoint.parameters) if env["QUERY_STRING"] else {}
            began = time.perf_counter()
            answer = endpoint.run(asked)
            if not endpoint.looks:
                client.wait_written()
            if measures is not None and answer.pieces is None and "wait" not in asked.told:
                measures.request(HTTP, verb, time.perf_counter() - began)
            resp.status = answer.status
            resp.set_headers({**_HEADERS, **answer.headers} if answer.headers else _HEADERS)
            if answer.pieces is not None:
                resp.stream = answer.pieces
                if answer.length is not None:
                    resp.content_length = answer.length
                resp.content_type = answer.kind
            elif answer.body is not None:
                body = answer.body
                resp.data = body if body.__class__ is bytes else json.dumps(body).encode()
                resp.content_type = answer.kind

        return respond

    def _wait_allowed(self, endpoint: Endpoint, asked: Asked) -> None:
        """Raises Problem."""
        client = asked.client
        self._admission.wait_admit(client, asked.env)
        if endpoint.method != "GET":
            self._admission.require_own_page(client, asked.env)
        self._admission.require(client, endpoint.right, asked.queue)
        if endpoint.kind:
            availability = self._availability
            no_writes, no_reads = availability.no_writes or client.no_writes, availability.no_reads or client.no_reads
            why = no_writes if endpoint.kind == WRITES else no_reads if endpoint.kind == READS else ""
            if why:
                raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, why, {"Retry-After": "1"})

    # -- what goes wrong

    def _on_error(self, req: falcon.Request, resp: falcon.Response, error: Exception, _: Any) -> None:
        if isinstance(error, (Problem, RequestError, StorageError)):
            if isinstance(error, StorageError) and not isinstance(error, DamagedError):
                log.error("%s", error, extra=BY_TEXT)
            problem = problems.problem_of(error)
            log.debug("refused: %s: %s", req.env["darner.client"].session.origin, show(problem.detail))
        else:
            log.error("a request failed", exc_info=error)
            problem = Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the server has failed; see its log")
        self._write(resp, problem, req.path)

    def _on_falcon_error(self, req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, _: Any) -> None:
        status = int(falcon.http_status_to_code(error.status))
        detail = error.description or ""
        if status == HTTPStatus.NOT_FOUND:
            detail = f"there is nothing at {show(req.path)}; {API}/openapi.json tells what there is"
        headers = dict(error.headers or {})
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            detail = f"{req.method} is not allowed here: {headers.get('Allow', '')}"
        self._write(resp, Problem(status, detail, headers), req.path)

    @staticmethod
    def _write(resp: falcon.Response, problem: Problem, path: str) -> None:
        resp.status = problem.status
        resp.content_type = PROBLEM
        resp.set_headers({**_HEADERS, **problem.headers})
        resp.stream = None
        resp.data = problems.written(problem.status, problem.detail, path, **problem.more)


class _Resource:
    """The endpoints of one path, as Falcon wants them."""

    on_get: Any
    on_head: Any


def _hang_up(req: falcon.Request, resp: falcon.Response, error: Exception, _: Any) -> None:
    raise error
