"""A server for the tests of RESP, one for each module of them."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.resp_clients import RespClient, RespServer


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RespServer]:
    directory = tmp_path_factory.mktemp("server")
    server = RespServer(directory / "data", "--chunk-bytes", "16 KiB", "--max-item-bytes", "20 MiB")
    yield server
    server.end()


@pytest.fixture
def server(shared: RespServer) -> RespServer:
    shared.as_new()
    return shared


@pytest.fixture
def connect(server: RespServer) -> Callable[[], RespClient]:
    return server.resp


@pytest.fixture
def client(server: RespServer) -> RespClient:
    return server.resp()
