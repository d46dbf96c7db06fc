"""`darner ctl` as a person runs it: on a terminal, and in a pipe."""

import io
import json
import os
import pty
import select
import subprocess
import sys
import time
from typing import Any, NamedTuple

from darner_core.ctl.main import main
from tests.support.harness import END_S, REPLY_S, ROOT


class Ended(NamedTuple):
    status: int
    out: str
    complaint: str

    def json(self) -> Any:
        """The one line of JSON that was printed."""
        return json.loads(self.out)

    def jsons(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


def words_of(*words: str | bytes, port: int = 0) -> list[str | bytes]:
    server = ["--server", f"127.0.0.1:{port}"] if port else []
    return [sys.executable, str(ROOT / "darner.py"), "ctl", *server, *words]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DARNER_")}
    return {**kept, "PYTHONIOENCODING": "utf-8", **more}


def run_ctl(*words: str | bytes, port: int = 0, typed: bytes = b"", **variables: str) -> Ended:
    """Run a command as in a pipe, until it ends. It runs in this process: a new one would take half a second."""
    command = [os.fsdecode(word) for word in words_of(*words, port=port)[3:]]
    out, complaint = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    before = sys.stdin, sys.stdout, sys.stderr, dict(os.environ)
    os.environ.clear()
    os.environ.update(environment(**variables))
    sys.stdin, sys.stdout, sys.stderr = io.TextIOWrapper(io.BytesIO(typed), "utf-8"), out, complaint
    try:
        status = main(command)
    finally:
        sys.stdin, sys.stdout, sys.stderr = before[:3]
        os.environ.clear()
        os.environ.update(before[3])
    return Ended(status, *(one.buffer.getvalue().decode() for one in (out, complaint)))


def run_process(*words: str | bytes, port: int = 0) -> Ended:
    """Run a command in a process of its own."""
    ended = subprocess.run(
        words_of(*words, port=port), input=b"", capture_output=True, env=environment(), timeout=END_S, check=False
    )
    return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


class Terminal:
    """A command that runs on a terminal of its own."""

    def __init__(self, *words: str | bytes, port: int = 0, **variables: str) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            words_of(*words, port=port), stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            env=environment(TERM="xterm", COLUMNS="150", LINES="40", **variables),
        )  # fmt: skip
        os.close(slave)
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_shows(self, text: str) -> None:
        """Wait until this has been shown. AssertionError if it does not come."""
        deadline = time.monotonic() + REPLY_S
        while text not in self.shown:
            assert time.monotonic() < deadline, self.shown
            self._read(0.1)

    def _read(self, within_s: float) -> bool:
        """False: the command has ended, and all that it has shown has been read."""
        if not select.select([self._master], [], [], within_s)[0]:
            return True
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:  # Linux says so when the other end is closed
            return False
        self.shown += data.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(data)

    def wait_ended(self) -> int:
        """The exit status."""
        deadline = time.monotonic() + REPLY_S
        while self._read(0.1):
            assert time.monotonic() < deadline, self.shown
        os.close(self._master)
        return self.process.wait(REPLY_S)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
