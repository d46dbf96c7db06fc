"""Clients of HTTP listeners: each is served by pywsgi in its own greenlet, within the limits of all clients.

The application knows what requests ask. It is imported when there is a listener that needs it, because it needs
libraries that the server alone does not.

Names that begin with wait_, and `serve`, switch greenlets; nothing else here does.
"""

import time
from collections.abc import Collection
from http import HTTPStatus
from importlib import import_module
from itertools import count
from typing import Any

import gevent

from darner_core.access.origins import Origin
from darner_core.config.listeners import HTTP
from darner_core.config.options import Config
from darner_core.errors import StartError
from darner_core.server.http_connection import HttpConnection
from darner_core.server.http_handler import Handler, HttpServer, response
from darner_core.server.http_lane import Lane
from darner_core.server.listeners import Listener
from darner_core.waiters import wait_round

# What has to be installed for it.
NEEDS = "falcon and prometheus-client"

# How many clients are looked at in one go.
LOOKED_AT = 500


def application_of(host: Any, config: Config) -> Any:
    """The module's application, and how it writes a problem. Raises StartError if a library is missing."""
    try:
        module = import_module("darner_core.protocols.http.app")
    except ImportError as error:
        if (error.name or "").startswith("darner_core"):
            raise
        raise StartError(
            f'a listener with dialect = "{HTTP}" needs the packages {NEEDS}: {error}; pip install "darner[http]"'
        ) from error
    return module.Application(host.operations, config, host.access, host)


class HttpListeners:
    """All listeners that speak HTTP."""

    def __init__(self, host: Any, config: Config, listeners: Collection[Listener]) -> None:
        """`host` is the server. Raises StartError if there is such a listener, and a library is missing."""
        self._host = host
        self._numbers = count(1)
        self._lane = Lane(host.turn, gevent.get_hub().loop, time.perf_counter)
        self._servers: dict[Listener, HttpServer] = {}
        self.connections: set[HttpConnection] = set()
        self._stalled = _Stillness(config.body_timeout_s)
        self._idle = _Stillness(config.idle_timeout_s)
        self._silent = _Stillness(config.client_timeout_s)
        several = [listener for listener in listeners if listener.dialect == HTTP]
        if several:
            application = application_of(host, config)
            for listener in several:
                name, is_tls = listener.host, bool(config.tls_cert) and not listener.is_unix
                self._servers[listener] = HttpServer(application, application.problem, name, listener.port, is_tls)

    def new_client(self, client_socket: Any, origin: Origin, listener: Listener) -> HttpConnection:
        return HttpConnection(self._host, client_socket, origin, listener, self._lane, next(self._numbers))

    def serve(self, client: HttpConnection) -> None:
        """Serve the client until one of the two hangs up. In its greenlet."""
        self.connections.add(client)
        try:
            client.run(self._handle)
        finally:
            self.connections.discard(client)
            for one in (self._stalled, self._idle, self._silent):
                one.forget(client)

    def _handle(self, client: HttpConnection) -> None:
        handler = Handler(client, self._servers[client.listener])
        handler.handle()
        if handler.lingers:
            client.wait_linger()

    def too_many(self, listener: Listener) -> bytes:
        """What a client is told that is one too many."""
        status = HTTPStatus.SERVICE_UNAVAILABLE
        problem = self._servers[listener].problem(status.value, "too many connections: max_connections allows no more")
        return response(status, problem, "Retry-After: 1")

    def wait_look_for_silent(self) -> None:
        """Hang up on clients that have been silent for too long; to be called about once a second. Switches."""
        several = list(self.connections)
        call = gevent.get_hub().loop.run_callback
        for start in range(0, len(several), LOOKED_AT):
            now = time.monotonic()
            for client in several[start : start + LOOKED_AT]:
                if self._stalled.lasts(client, client.progress, now):
                    call(client.end_stalled)
                elif self._silent.lasts(client, client.silence, now) or self._idle.lasts(client, client.idle, now):
                    call(client.hang_up)
            wait_round()


class _Stillness:
    """Whether a client has shown the same sign for too long."""

    def __init__(self, timeout_s: int) -> None:
        """0 is never."""
        self._timeout_s = timeout_s
        self._seen: dict[HttpConnection, tuple[object, float]] = {}  # the last sign, and since when

    def lasts(self, client: HttpConnection, sign: object, now: float) -> bool:
        """`sign` None: what is watched for does not go on."""
        if not self._timeout_s or sign is None:
            self.forget(client)
            return False
        before, since = self._seen.get(client, (None, now))
        if sign != before:
            since = now
        self._seen[client] = (sign, since)
        return now - since >= self._timeout_s

    def forget(self, client: HttpConnection) -> None:
        self._seen.pop(client, None)
