"""Fixtures for the control tool, which is run as a person runs it."""

import io
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

from darner_core.ctl.main import main
from tests.support.harness import RunningServer, run_darner

Ctl = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def running(shared_server: Callable[..., RunningServer]) -> RunningServer:
    """One server for all tests of a module."""
    return shared_server()


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ctl:
    """Runs `darner ctl WORDS` in this process, which takes less time than a process of its own."""

    def run(*words: str, typed: str = "") -> "CompletedProcess[str]":
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(typed.encode())))
        capsys.readouterr()
        status = main(words)
        printed = capsys.readouterr()
        return CompletedProcess(words, status, printed.out, printed.err)

    return run


@pytest.fixture
def ctl(running: RunningServer, here: Ctl) -> Ctl:
    """Runs `darner ctl --server ... WORDS` in this process."""
    return lambda *words, typed="": here("--server", f"127.0.0.1:{running.port}", *words, typed=typed)


@pytest.fixture
def process(running: RunningServer) -> Ctl:
    """Runs `python darner.py ctl --server ... WORDS`."""
    return lambda *words, typed="": run_darner("ctl", "--server", f"127.0.0.1:{running.port}", *words, typed=typed)
