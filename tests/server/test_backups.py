"""Backups of a running server: what is in them, and what is left of them after a kill."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from darner_core.tools.restore import restore
from tests.support.harness import Client, RunningServer, run_darner, wait_until

LARGE = bytes(range(256)) * (12 << 10)  # 3 MiB: it is stored in chunks


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "backups"


def restored(saved: Path, to: Path) -> Path:
    restore(str(saved), str(to), lambda done, total: None)
    checked = run_darner("--check", "--data", str(to))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    return to


def at(data: Path, start_server: Callable[..., RunningServer]) -> RunningServer:
    """A server on this directory."""

    class There(RunningServer):
        def __init__(self, _: Path, *options: str) -> None:
            super().__init__(data, *options)

    return start_server(kind=There)


def saves(client: Client, name: str) -> None:
    client.send(b"backup %b\r\n" % name.encode())
    line = client.line()
    assert line.startswith(b"BACKUP %b " % name.encode()), line


def test_all_that_was_answered_is_in_the_backup(
    start_server: Callable[..., RunningServer], folder: Path, tmp_path: Path
) -> None:
    server = start_server("--backup-dir", str(folder))
    client = server.client()
    for number in range(500):
        client.set("work", b"%d" % number)
    client.set("files", LARGE)
    client.ask(b"set work/delay=600000/key=k 0 0 1\r\nd\r\n", b"STORED\r\n")
    assert client.get("work") == b"0"
    saves(client, "monday")
    client.set("work", b"after")
    assert client.get("files") == LARGE
    other = at(restored(folder / "monday", tmp_path / "new"), start_server).client()
    stats = other.stats()
    assert (stats["queue_work_items"], stats["queue_work_delayed"]) == ("499", "1") or stats[
        "queue_work_delayed"
    ] == "1"
    assert [other.get("work") for _ in range(500)] == [b"%d" % number for number in range(1, 500)] + [None]
    assert other.get("files") == LARGE
    assert sorted(os.listdir(folder)) == ["monday"]


@pytest.mark.long
def test_a_backup_stays_as_it_is_while_the_server_goes_on(
    start_server: Callable[..., RunningServer], folder: Path, tmp_path: Path
) -> None:
    """Files are shared by links: what the server writes, removes and compacts later must not be seen in it."""
    server = start_server("--backup-dir", str(folder), "--write-buffer-bytes", "2 MiB", "--max-wal-bytes", "2 MiB")
    client = server.client()
    bodies = [b"%d " % number + bytes(10_000) for number in range(1000)]
    for body in bodies:
        client.set("work", body)
    saves(client, "first")
    for _ in range(1000):
        assert client.get("work") is not None
    for body in bodies:
        client.set("other", body)
    server.kill()
    other = at(restored(folder / "first", tmp_path / "new"), start_server).client()
    assert [other.get("work") for _ in range(1000)] == bodies
    assert other.get("other") is None


def test_what_is_refused(
    shared_server: Callable[..., RunningServer], start_server: Callable[..., RunningServer], folder: Path
) -> None:
    client = shared_server().client()
    client.ask(b"backup x\r\n", b"SERVER_ERROR no backup: the option backup_dir does not say where to\r\n")
    server = start_server("--backup-dir", str(folder))
    client = server.client()
    saves(client, "x")
    client.ask(b"backup x\r\n", b"SERVER_ERROR no backup: there is one of the name x\r\n")
    for wrong in (b"", b" ../x", b" .x", b" a b", b" " + b"x" * 101):
        client = server.client()
        client.send(b"backup%b\r\n" % wrong)
        assert client.line().startswith(b"ERROR a backup is: backup <name>"), wrong


def test_where_nothing_can_be_written_nothing_is_left(
    start_server: Callable[..., RunningServer], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    client = start_server("--backup-dir", str(tmp_path / "file" / "below")).client()
    client.send(b"backup x\r\n")
    assert client.line().startswith(b"SERVER_ERROR no backup: ")
    client.set("work", b"goes on")


@pytest.mark.long
def test_killed_during_a_backup_under_load(
    start_server: Callable[..., RunningServer], folder: Path, tmp_path: Path
) -> None:
    """A backup whose reply came has everything that was answered before it began. One that was cut off has no name, and
    is in nobody's way; the server's own directory is untouched by it."""
    options = ("--backup-dir", str(folder), "--write-buffer-bytes", "1 MiB", "--max-wal-bytes", "1 MiB")
    server = start_server(*options)
    put, begun = [0], [0]

    def flood() -> None:
        client = Client(server.port)
        try:
            while True:
                body = b"%d " % put[0] + bytes(2000)
                client.set("work", body)
                put[0] += 1
        except (AssertionError, OSError):
            client.close()

    thread = threading.Thread(target=flood)
    thread.start()
    wait_until(lambda: put[0] > 1000)
    client = server.client()
    for name in ("first", "second", "third"):
        begun.append(put[0])
        saves(client, name)
    client.send(b"backup fourth\r\n")
    server.process.send_signal(signal.SIGKILL)
    thread.join()
    server.process.wait()
    for number, name in enumerate(("first", "second", "third"), 1):
        there = at(restored(folder / name, tmp_path / name), start_server)
        other = there.client()
        count = int(other.stats()["queue_work_items"])
        assert begun[number] <= count <= put[0] + 1
        assert [other.get("work").split()[0] for _ in range(count)] == [b"%d" % one for one in range(count)]  # type: ignore[union-attr]
        there.stop()
    server.start()
    assert int(server.client().stats()["queue_work_items"]) in (put[0], put[0] + 1)
    if not (folder / "fourth").exists():
        saves(server.client(), "fourth")
    assert not [name for name in os.listdir(folder) if name.startswith(".fourth")]
