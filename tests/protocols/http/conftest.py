"""A server with an HTTP listener, shared by the tests of a module, and clients of it."""

from collections.abc import Callable

import pytest

from tests.support.harness import RunningServer
from tests.support.http import HTTP, Connect, Http


@pytest.fixture
def http_server(shared_server: Callable[..., RunningServer]) -> RunningServer:
    return shared_server(*HTTP)


@pytest.fixture
def http(http_server: RunningServer, connect_http: Connect) -> Http:
    """A connection to it."""
    return connect_http(http_server)
