"""A server with an HTTP listener, shared by the tests of a module, and clients of it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.harness import RunningServer
from tests.support.http import HTTP, Http, http_port

Connect = Callable[..., Http]


@pytest.fixture
def connect_http() -> Iterator[Connect]:
    """Connects clients to a server; they are closed when the test ends."""
    clients: list[Http] = []

    def connect(server: RunningServer, *about: Any, **more: Any) -> Http:
        clients.append(Http(http_port(server), *about, **more))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def http_server(shared_server: Callable[..., RunningServer]) -> RunningServer:
    return shared_server(*HTTP)


@pytest.fixture
def http(http_server: RunningServer, connect_http: Connect) -> Http:
    """A connection to it."""
    return connect_http(http_server)
