"""A disk that is really full: a small tmpfs, mounted in a namespace of its own so that no one needs to be root."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.harness import Client, RunningServer

DISK_BYTES = 40 << 20
BODY_BYTES = 20_000


class SmallDisk:
    """A file system of DISK_BYTES at `path`, which only processes in the namespace of `keeper` see."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        command = f"mount -t tmpfs -o size={DISK_BYTES} tmpfs '{path}' && echo mounted && exec sleep 600"
        self.keeper = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.keeper.stdout is not None
        self.mounted = self.keeper.stdout.readline() == "mounted\n"
        self.path = path
        self.inside = Path(f"/proc/{self.keeper.pid}/root{path}")

    def free_bytes(self) -> int:
        disk = os.statvfs(self.inside)
        return disk.f_bavail * disk.f_frsize

    def fill(self, leave_bytes: int = 0) -> None:
        """Fill it with a file that can be taken away again."""
        with open(self.inside / "ballast", "wb") as ballast:
            ballast.write(bytes(self.free_bytes() - leave_bytes))

    def make_room(self) -> None:
        (self.inside / "ballast").unlink()

    def end(self) -> None:
        self.keeper.kill()
        self.keeper.communicate()


class ServerOnSmallDisk(RunningServer):
    program = "tests/servers/on_small_disk.py"


Serve = Callable[..., ServerOnSmallDisk]


@pytest.fixture
def serve(disk: SmallDisk) -> Iterator[Serve]:
    """Start servers on the disk; they are stopped when the test ends."""
    servers: list[ServerOnSmallDisk] = []

    def start(min_free_bytes: str) -> ServerOnSmallDisk:
        options = ("--write-buffer-bytes", "4 MiB", "--max-column-families", "4")
        servers.append(ServerOnSmallDisk(disk.path / "data", "--min-free-bytes", min_free_bytes, *options))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallDisk]:
    try:
        disk = SmallDisk(tmp_path / "disk")
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if not disk.mounted or not os.access(disk.inside, os.W_OK):
        disk.end()
        pytest.skip("this system lets nobody mount a file system in a namespace")
    monkeypatch.setenv("DARNER_NAMESPACE", str(disk.keeper.pid))
    yield disk
    disk.end()


def body(number: int) -> bytes:
    return b"%d " % number + bytes((number * 7 + place) & 0xFF for place in range(256)) * (BODY_BYTES // 256)


def put_until_refused(client: Client, stored: list[int], queue: str = "q") -> bytes:
    """Put items; those that are answered STORED are added to `stored`. The refusal."""
    while True:
        number = stored[-1] + 1 if stored else 1
        data = body(number)
        client.send(b"set %b 0 0 %d\r\n%b\r\n" % (queue.encode(), len(data), data))
        reply = client.line()
        if reply != b"STORED\r\n":
            return reply
        stored.append(number)


def put_until_stored(client: Client, number: int) -> None:
    data = body(number)
    deadline = time.monotonic() + 10
    reply = b""
    while reply != b"STORED\r\n":
        assert time.monotonic() < deadline, reply
        client.send(b"set q 0 0 %d\r\n%b\r\n" % (len(data), data))
        reply = client.line()
        time.sleep(0.1)


def got(client: Client, key: str) -> bytes | None:
    """The item that a get of this key answers; None if it is refused."""
    client.send(b"get %b\r\n" % key.encode())
    line = client.line()
    if line.startswith(b"SERVER_ERROR "):
        return None
    assert line.startswith(b"VALUE "), line
    data = client.read(int(line.split()[3]))
    client.expect(b"\r\nEND\r\n")
    return data


def test_when_less_room_is_left_than_is_kept_sets_are_refused_and_gets_go_on(serve: Serve, disk: SmallDisk) -> None:
    server = serve("8 MiB")
    client, holder = server.client(), server.client()
    holder.set("held", b"open")
    assert holder.get("held/open") == b"open"
    disk.fill(leave_bytes=16 << 20)
    stored: list[int] = []
    assert put_until_refused(client, stored).startswith(b"SERVER_ERROR out of disk space: ")
    assert len(stored) > 50
    for number in stored[:20]:
        assert client.get("q") == body(number)
    assert client.get("q/open") == body(stored[20])
    assert client.get("q/close") is None
    assert holder.get("held/close") is None
    disk.make_room()
    put_until_stored(client, 5000)
    server.kill()
    server.start()
    client = server.client()
    assert client.get("held") is None
    assert [client.get("q") for _ in range(len(stored) - 20)] == [*map(body, stored[21:]), body(5000)]
    assert client.get("q") is None


def test_a_disk_that_is_full_to_the_last_byte_loses_nothing_and_works_again_when_there_is_room(
    serve: Serve, disk: SmallDisk
) -> None:
    server = serve("0")
    client, holder = server.client(), server.client()
    holder.set("held", b"open")
    assert holder.get("held/open") == b"open"
    disk.fill(leave_bytes=10 << 20)
    stored: list[int] = []
    assert b"No space left on device" in put_until_refused(client, stored)
    assert len(stored) > 50
    taken = 0
    for _ in range(30):
        assert client.get("q/peek") == body(stored[taken])  # what writes nothing goes on
        assert client.get("q/open") == body(stored[taken])
        assert client.get("q/abort") is None
        found = got(client, "q")  # what has to be written may be refused, and has not happened then
        if found is not None:
            assert found == body(stored[taken])
            taken += 1
    time.sleep(1.2)  # it has tried to recover meanwhile
    client.send(b"set q 0 0 1\r\nx\r\n")
    assert client.line().startswith(b"SERVER_ERROR ")
    assert client.get("q/peek") == body(stored[taken])
    disk.make_room()
    put_until_stored(client, 5000)
    assert got(client, "q") == body(stored[taken])
    taken += 1
    assert holder.get("held/close") is None
    server.kill()
    server.start()
    client = server.client()
    assert client.get("held") is None
    left = [*map(body, stored[taken:]), body(5000)]
    assert [client.get("q") for _ in left] == left
    assert client.get("q") is None


def test_a_server_killed_on_a_full_disk_starts_when_there_is_room(serve: Serve, disk: SmallDisk) -> None:
    server = serve("0")
    client = server.client()
    disk.fill(leave_bytes=10 << 20)
    stored: list[int] = []
    put_until_refused(client, stored)
    server.kill()
    disk.make_room()
    server.start()
    client = server.client()
    assert [client.get("q") for _ in stored] == [*map(body, stored)]
    assert client.get("q") is None


def test_a_large_item_does_not_use_up_the_room_that_is_kept_free(disk: SmallDisk, serve: Serve) -> None:
    server = serve("8 MiB")
    client, other = server.client(), server.client()
    other.set("work", b"x")
    size = 60 << 20
    client.send(b"set q 0 0 %d\r\n" % size)
    with suppress(OSError):
        for _ in range(size >> 16):
            client.send(bytes(1 << 16))
        client.send(b"\r\n")
    assert client.line().startswith(b"SERVER_ERROR out of disk space")
    assert disk.free_bytes() > 7 << 20
    assert other.get("work") == b"x"
    other.set("work", b"y")
