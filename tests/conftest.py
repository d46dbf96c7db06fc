"""Fixtures that most test files share."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from darner_core.storage.storage import Storage
from tests.support.harness import Client, RunningServer
from tests.support.http import Connect, Http, http_port

SMALL: dict[str, Any] = {
    "max_column_families": 4,
    "block_cache_bytes": 8 << 20,
    "write_buffer_bytes": 16 << 20,
    "max_wal_bytes": 64 << 20,
    "max_open_files": 64,
}


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., RunningServer]]:
    """Starts servers with the command-line options that it is called with. Another `kind` runs another program.

    They are stopped when the test ends, and a traceback in a log fails it.
    """
    servers: list[RunningServer] = []

    def start(*options: str, kind: type[RunningServer] = RunningServer) -> RunningServer:
        server = kind(tmp_path / f"data{len(servers)}", *options)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.end()


@pytest.fixture
def connect_http() -> Iterator[Connect]:
    """Connects clients of HTTP to a server; they are closed when the test ends."""
    clients: list[Http] = []

    def connect(server: RunningServer, *about: Any, **more: Any) -> Http:
        clients.append(Http(http_port(server), *about, **more))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., RunningServer]]:
    """Servers with these command-line options, one for all tests of a module that ask for the same."""
    servers: dict[tuple[str, ...], RunningServer] = {}

    def shared(*options: str) -> RunningServer:
        if options not in servers:
            servers[options] = RunningServer(tmp_path_factory.mktemp("shared") / "data", *options)
        return servers[options]

    yield shared
    for server in servers.values():
        server.end()


@pytest.fixture
def queue() -> str:
    """The name of a queue that no other test uses."""
    return f"q{time.time_ns()}"


@pytest.fixture
def server(start_server: Callable[..., RunningServer]) -> RunningServer:
    """A server with the default options."""
    return start_server()


@pytest.fixture
def connect(server: RunningServer) -> Callable[[], Client]:
    """Connect clients to `server`."""
    return server.client


@pytest.fixture
def open_storage(tmp_path: Path) -> Iterator[Callable[[], Storage]]:
    """Opens the storage in the test's directory. Opened again after it was closed, it is what a restart sees."""
    opened: list[Storage] = []

    def open_it() -> Storage:
        storage = Storage(str(tmp_path / "storage"), **SMALL)
        opened.append(storage)
        return storage

    yield open_it
    for storage in opened:
        storage.close()
