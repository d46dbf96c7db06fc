"""Servers for conversations of beanstalkd's clients: each is held with this server, and with the real one where it is
installed.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.beanstalkd import BEANSTALKD, RealBeanstalkd, TubeServer, Worker

OURS, REAL = "darner", "beanstalkd"
# What the real one says does not change with our code, so it is asked in the long tests.
BOTH = [OURS, pytest.param(REAL, marks=pytest.mark.long)]
MAX_JOB_BYTES = 300_000  # more than one chunk

Beans = TubeServer | RealBeanstalkd


def start(kind: str, data: Path, max_job_bytes: int = MAX_JOB_BYTES) -> Beans:
    if kind == OURS:
        return TubeServer(data, f"max_job_bytes = {max_job_bytes}")
    if BEANSTALKD is None:
        pytest.skip("beanstalkd is not installed")
    return RealBeanstalkd(data, "-z", str(max_job_bytes))


@pytest.fixture(scope="package", params=BOTH)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beans]:
    """One server for all conversations."""
    server = start(request.param, tmp_path_factory.mktemp("beans") / "data")
    yield server
    server.end()


@pytest.fixture(params=BOTH)
def alone(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Beans]:
    """A server of which nobody has asked anything yet."""
    server = start(request.param, tmp_path / "data")
    yield server
    server.end()


@pytest.fixture
def tube() -> str:
    """The name of a tube that no other conversation uses."""
    return f"t{time.time_ns()}"


@pytest.fixture
def join(shared: Beans, tube: str) -> Iterator[Callable[[], Worker]]:
    """Makes clients who use and watch `tube` alone."""
    joined: list[Worker] = []

    def join() -> Worker:
        joined.append(shared.worker())
        joined[-1].use(tube)
        return joined[-1]

    yield join
    for worker in joined:
        worker.close()


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Callable[..., TubeServer]]:
    """Starts servers of ours, with these lines in their file."""
    servers: list[TubeServer] = []

    def serve(*lines: str, listener: tuple[str, ...] = (), fails: bool = False) -> TubeServer:
        servers.append(TubeServer(tmp_path / f"ours{len(servers)}", *lines, listener=listener, fails=fails))
        return servers[-1]

    yield serve
    for server in servers:
        server.end()
