"""Every call of the storage made to fail, once or for a while, under a small mixed load: what is answered with an
error has not happened, memory and disk agree afterwards, and nothing that was answered is gone."""

import random
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.failing_disk import CALLS
from tests.harness import Client
from tests.test_connection import wait_until
from tests.test_server import FailingServer

QUEUES = ["a", "b"]
LARGE_BYTES = 3000
OPTIONS = ("--chunk-bytes", "1 KiB", "--window-bytes", "1 MiB", "--max-column-families", "2")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingServer]:
    monkeypatch.setenv("DARNER_TICK_S", "0.1")
    server = FailingServer(tmp_path, *OPTIONS)
    yield server
    server.end()


class Load:
    """A client that keeps account of what it was answered."""

    def __init__(self, connect: Callable[[], Client]) -> None:
        self._connect = connect
        self._client = connect()
        self._chance = random.Random(1)
        self._puts = 0
        self.queues: dict[str, deque[bytes]] = {name: deque() for name in QUEUES}
        self.refused = 0

    def body(self) -> bytes:
        self._puts += 1
        return b"%d " % self._puts + bytes(LARGE_BYTES if self._puts % 3 == 0 else 50)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            name = self._chance.choice(QUEUES)
            put = self.put_synced if self._chance.random() < 0.2 else self.put  # which takes its time
            self._chance.choice([put, put, put, self.take, self.open_and_close, self.flush])(name)

    def _answered(self, reply: bytes, expected: bytes) -> bool:
        if reply.startswith(b"SERVER_ERROR "):
            self.refused += 1
            return False
        assert reply == expected
        return True

    def put(self, name: str, option: bytes = b"") -> None:
        body = self.body()
        self._client.send(b"set %b%b 0 0 %d\r\n%b\r\n" % (name.encode(), option, len(body), body))
        if self._answered(self._client.line(), b"STORED\r\n"):
            self.queues[name].append(body)

    def put_synced(self, name: str) -> None:
        before = self.items(name)
        refused = self.refused
        self.put(name, b"/sync")
        if self.refused != refused and self.items(name) > before:
            # Written, and the fsync has failed: it is there, though nobody was promised that.
            self.queues[name].append(b"%d " % self._puts + bytes(LARGE_BYTES if self._puts % 3 == 0 else 50))

    def items(self, name: str) -> int:
        return int(self._client.stats().get(f"queue_{name}_items", 0))

    def take(self, name: str) -> None:
        body = self._read(name, b"")
        if body is not None:
            assert body == self.queues[name].popleft()

    def _read(self, name: str, option: bytes) -> bytes | None:
        """The item; None if the queue is empty or the get is refused."""
        self._client.send(b"get %b%b\r\n" % (name.encode(), option))
        line = self._client.line()
        if line == b"END\r\n":
            assert not self.queues[name]
            return None
        if not line:  # cut off in the middle of a large item, or before it
            return self._cut_off()
        if not line.startswith(b"VALUE "):
            self._answered(line, b"")
            return None
        body = self._client.read(int(line.split()[3]))
        if self._client.read(7) != b"\r\nEND\r\n":
            return self._cut_off()
        return body

    def _cut_off(self) -> None:
        self.refused += 1
        self._client = self._connect()

    def open_and_close(self, name: str) -> None:
        body = self._read(name, b"/open")
        if body is None:
            return
        assert body == self.queues[name][0]
        self._client.send(b"get %b/close\r\n" % name.encode())
        if self._answered(self._client.line(), b"END\r\n"):
            self.queues[name].popleft()
        else:  # it is open still
            self._client.send(b"get %b/abort\r\n" % name.encode())
            self._client.line()

    def flush(self, name: str) -> None:
        if self._chance.random() < 0.1:
            request, reply = self._chance.choice([(b"flush", b"END\r\n"), (b"delete", b"DELETED\r\n")])
            self._client.send(b"%b %b\r\n" % (request, name.encode()))
            if self._answered(self._client.line(), reply):
                self.queues[name].clear()

    def agrees(self, client: Client) -> None:
        stats = client.stats()
        for name, bodies in self.queues.items():
            found = (int(stats.get(f"queue_{name}_items", 0)), int(stats.get(f"queue_{name}_bytes", 0)))
            assert found == (len(bodies), sum(map(len, bodies))), name
            assert stats.get(f"queue_{name}_open_transactions", "0") == "0"


ONCE, A_WHILE = "once ", ""


@pytest.mark.parametrize("modes", [(ONCE, A_WHILE), (A_WHILE, ONCE)])
def test_whatever_fails_nothing_that_was_answered_is_gone(server: FailingServer, modes: tuple[str, str]) -> None:
    load = Load(server.client)
    switch = server.data.parent / "data.fails"
    for number, call in enumerate(CALLS):
        load.run(8)
        switch.write_text(modes[number % 2] + call)
        load.run(12)
        switch.unlink(missing_ok=True)
        other = server.client()
        wait_until(lambda other=other: _stored(other, load))
        load.agrees(other)
    assert load.refused > len(CALLS) // 2
    server.kill()
    server.start()
    client = server.client()
    load.agrees(client)
    for name, bodies in load.queues.items():
        assert [client.get(name) for _ in bodies] == list(bodies)
        assert client.get(name) is None


def _stored(client: Client, load: Load) -> bool:
    """Whether sets work again."""
    client.send(b"set a 0 0 1\r\nx\r\n")
    if client.line() != b"STORED\r\n":
        return False
    load.queues["a"].append(b"x")
    return True


def test_an_item_that_was_taken_is_handed_over_though_the_fsync_fails(server: FailingServer, tmp_path: Path) -> None:
    client = server.client()
    client.set("p", b"taken")
    (tmp_path / "data.fails").write_text("once sync")
    client.send(b"set q/sync 0 0 1\r\nx\r\nget p\r\n")
    assert client.line().startswith(b"SERVER_ERROR ")
    assert client.item() == b"taken"
    assert client.get("p") is None
