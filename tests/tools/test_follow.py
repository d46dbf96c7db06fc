"""`--dump QUEUE --follow` beside a running server, as a person or a program starts it."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from tests.support.harness import REPLY_S, ROOT, RunningServer
from tests.support.identities import Authority, UnixClient, write_users

Start = Callable[..., RunningServer]


class Follower:
    """The program, and what it prints."""

    def __init__(self, *arguments: str, password: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "darner.py", "--dump", *arguments], cwd=ROOT, text=True, encoding="utf-8",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONIOENCODING": "utf-8", "TZ": "UTC"},
        )  # fmt: skip
        assert self.process.stdin is not None
        if password:
            self.process.stdin.write(f"{password}\n")
            self.process.stdin.flush()

    def line(self, stream: IO[str] | None) -> str:
        assert stream is not None
        watchdog = threading.Timer(REPLY_S, self.process.kill)
        watchdog.start()
        try:
            return stream.readline().rstrip("\n")
        finally:
            watchdog.cancel()

    def said(self) -> str:
        """The next line on stderr."""
        return self.line(self.process.stderr)

    def shown(self) -> str:
        return self.line(self.process.stdout)

    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.shown())
        return event

    def status(self) -> int:
        return self.process.wait(REPLY_S)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


Follow = Callable[..., Follower]


@pytest.fixture
def follow() -> Iterator[Follow]:
    started: list[Follower] = []

    def start(*arguments: str, **more: str) -> Follower:
        started.append(Follower(*arguments, **more))
        return started[-1]

    yield start
    for one in started:
        one.end()


def test_a_person_follows_a_queue_until_ctrl_c(server: RunningServer, follow: Follow) -> None:
    port = str(server.port)
    follower = follow("work", "--follow", "--port", port)
    assert follower.said() == f"darner: following queue work at 127.0.0.1 port {port}; it does not exist yet"
    assert follower.shown().split() == ["TIME", "WHAT", "ID", "SIZE", "FLAGS", "BODY"]
    client = server.client()
    client.set("work", "grün".encode(), 3)
    client.get("work")
    assert follower.shown().split()[1:] == ["create"]
    assert follower.shown().split()[1:] == ["put", "1", "5", "3", "grün"]
    assert follower.shown().split()[1:] == ["get", "1", "5", "3", "grün"]
    follower.process.send_signal(signal.SIGINT)
    assert follower.status() == 0
    assert follower.said() == ""


def test_a_program_gets_one_object_a_line_over_a_unix_socket(
    start_server: Start, follow: Follow, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    server = start_server("--host", f"unix:{path}")
    client = server.adopt(UnixClient(path))
    client.set("work", b"a")
    follower = follow("work", "--follow", "--json", "--host", f"unix:{path}")
    assert follower.said() == f"darner: following queue work at unix:{path}"
    client.set("work", b"b\0")
    event = follower.event()
    assert event.pop("time_ms") > 0
    assert event == {"what": "put", "id": 2, "bytes": 2, "flags": 0, "first_bytes": "YgA=", "text": r"b\x00"}
    server.stop()
    assert follower.status() == 2
    assert follower.said() == f"darner: the server at unix:{path} has ended, or has hung up"


def test_where_no_server_answers_is_one_line_and_exit_status_2(follow: Follow) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        follower = follow("q", "--follow", "--port", str(port))
        assert follower.status() == 2
        assert follower.said() == (
            f"darner: cannot follow: no server answers at 127.0.0.1 port {port}: Connection refused"
        )
    nowhere = follow("q", "--follow", "--host", "unix:/nowhere/at/all")
    assert nowhere.status() == 2
    assert nowhere.said().endswith("no server answers at unix:/nowhere/at/all: No such file or directory")


def test_a_user_logs_in_over_tls(start_server: Start, follow: Follow, tmp_path: Path) -> None:
    users = write_users(tmp_path / "users", anna="secret")
    authority = Authority(tmp_path)
    options = authority.options()
    server = start_server("--auth-file", str(users), *options)
    where = ["--follow", "--json", "--port", str(server.port), options[0], options[1]]
    follower = follow("q", *where, "--user", "anna", password="secret")
    assert follower.said().startswith("darner: following queue q at 127.0.0.1 port ")
    other = follow("q", *where, "--user", "anna", password="wrong")
    assert other.status() == 2
    assert other.said().endswith("CLIENT_ERROR authentication failure")
    nobody = follow("q", *where)
    assert nobody.status() == 2
    assert nobody.said().endswith("CLIENT_ERROR unauthenticated")
    impostor = follow("q", *where[:-1], str(Authority(tmp_path, "other").server()[0]))
    assert impostor.status() == 2
    assert "certificate verify failed" in impostor.said().lower().replace("_", " ")


def test_what_is_no_queue_server_is_said_to_be_none(follow: Follow) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        follower = follow("q", "--follow", "--port", str(listener.getsockname()[1]))
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(100) == b"watch q\r\n"
            connection.sendall(b"ERROR\r\n")
        assert follower.status() == 2
        assert follower.said().endswith(": ERROR")


def test_who_reads_only_the_beginning_causes_no_traceback(server: RunningServer, follow: Follow) -> None:
    follower = follow("q", "--follow", "--json", "--port", str(server.port))
    follower.said()
    assert follower.process.stdout is not None
    follower.process.stdout.close()
    server.client().set("q", b"a")
    assert follower.status() == 0
    assert follower.said() == ""
