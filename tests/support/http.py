"""A client of the HTTP listener, for tests that talk to a real server."""

import http.client
import json
import re
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tests.support.harness import REPLY_S, RunningServer

HTTP = ("--http", "127.0.0.1:0")


def http_port(server: RunningServer) -> int:
    found = re.search(r"listening on: \S+ port (\d+)[^\n]*, http", server.printed())
    assert found, server.printed()
    return int(found[1])


class Said(NamedTuple):
    """What the server has answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def detail(self) -> str:
        """What a problem says."""
        assert self.headers["content-type"] == "application/problem+json", self
        return str(self.json["detail"])


class Http:
    """One connection, which is kept alive, and made again if the server has closed it."""

    def __init__(self, port: int, user: str = "", password: str = "", tls: ssl.SSLContext | None = None) -> None:
        self.headers: dict[str, str] = {}
        if user:
            self.headers["Authorization"] = "Basic " + b64encode(f"{user}:{password}".encode()).decode()
        self.connection = (
            http.client.HTTPSConnection("127.0.0.1", port, timeout=REPLY_S, context=tls)
            if tls is not None
            else http.client.HTTPConnection("127.0.0.1", port, timeout=REPLY_S)
        )

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Said:
        """`path` is that of the API if it does not begin with a slash. A body that is no bytes is sent as JSON."""
        path = path if path.startswith("/") else f"/api/v1/{path}"
        told = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            told.setdefault("Content-Type", "application/json")
        self.connection.request(method, path, body, told)
        return self.answer()

    def answer(self) -> Said:
        response = self.connection.getresponse()
        return Said(response.status, {k.lower(): v for k, v in response.headers.items()}, response.read())

    def get(self, path: str, **headers: str) -> Said:
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Said:
        return self.ask("POST", path, body, **headers)

    def delete(self, path: str, **headers: str) -> Said:
        return self.ask("DELETE", path, **headers)

    def put(self, queue: str, body: bytes, query: str = "") -> str:
        """Put an item; its id."""
        said = self.post(f"queues/{queue}/items{query}", body)
        assert said.status == 201, said
        return str(said.json["id"])

    def take(self, queue: str, query: str = "") -> Said:
        return self.post(f"queues/{queue}/take{query}")

    def close(self) -> None:
        self.connection.close()


def plainly(port: int, request: bytes) -> bytes:
    """What the server answers to these bytes until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), REPLY_S) as client:
        client.sendall(request)
        answer = b""
        while data := client.recv(65536):
            answer += data
    return answer


# Connects a client to a server: the fixture `connect_http`.
Connect = Callable[..., Http]
