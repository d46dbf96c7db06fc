"""Servers of other kinds, from the system's packages, on free ports: what items are moved away from."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.harness import REPLY_S, wait_until


def require(program: str) -> str:
    """Its path; the test is skipped where it is not installed."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), REPLY_S).close()
    except OSError:
        return False
    return True


@contextmanager
def running(*command: str, port: int) -> Iterator[int]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _listens(port))
        yield port
    finally:
        process.kill()
        process.wait(REPLY_S)


@contextmanager
def beanstalkd() -> Iterator[int]:
    port = free_port()
    with running(require("beanstalkd"), "-l", "127.0.0.1", "-p", str(port), port=port):
        yield port


@contextmanager
def redis_server(folder: Path) -> Iterator[int]:
    port = free_port()
    options = ("--port", str(port), "--save", "", "--dir", str(folder), "--bind", "127.0.0.1")
    with running(require("redis-server"), *options, port=port):
        yield port
