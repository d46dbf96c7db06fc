"""Every call of the storage made to fail, once or for a while, under a small mixed load: what is answered with an
error has not happened, memory and disk agree afterwards, and nothing that was answered is gone."""

import random
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from thriftpy2.thrift import TApplicationException

from tests.server.test_server import FailingServer
from tests.servers.failing_disk import CALLS, IN_BACKGROUND
from tests.support.harness import Client, wait_until
from tests.support.kestrel_clients import KestrelServer

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
            others = [self.take, self.open_and_close, self.close_and_wait, self.flush]
            self._chance.choice([put, put, put, *others])(name)

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
            self._cut_off()
            return None
        if not line.startswith(b"VALUE "):
            self._answered(line, b"")
            return None
        body = self._client.read(int(line.split()[3]))
        if self._client.read(7) != b"\r\nEND\r\n":
            self._cut_off()
            return None
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

    def close_and_wait(self, name: str) -> None:
        """The close is done, and then the client waits for what does not come."""
        while len(self.queues[name]) > 1 and self._chance.random() < 0.9:
            self.take(name)
        body = self._read(name, b"/open")
        if body is None:
            return
        before = list(self.queues[name])
        self.queues[name].popleft()
        refused = self.refused
        found = self._read(name, b"/close/open/t=5")
        if self.refused != refused:  # by the turn of the close, or by that in which the next was opened
            self._client.close()
            self._client = self._connect()
            wait_until(lambda: self._client.stats().get(f"queue_{name}_open_transactions", "0") == "0")
            self.queues[name] = deque(before[-self.items(name) :] if self.items(name) else [])
            assert len(before) - len(self.queues[name]) in (0, 1)
        elif found is not None:
            assert found == self.queues[name][0]
            self._client.send(b"get %b/abort\r\n" % name.encode())
            self._answered(self._client.line(), b"END\r\n")
            self._client.close()
            self._client = self._connect()

    def flush(self, name: str) -> None:
        if self._chance.random() < 0.1:
            request, reply = self._chance.choice([(b"flush", b"END\r\n"), (b"delete", b"DELETED\r\n")])
            self._client.send(b"%b %b\r\nget %b/t=5\r\n" % (request, name.encode(), name.encode()))
            if self._answered(self._client.line(), reply):
                self.queues[name].clear()
            line = self._client.line()
            if line.startswith(b"VALUE "):
                body = self._client.read(int(line.split()[3]))
                if self._client.read(7) == b"\r\nEND\r\n":
                    assert body == self.queues[name].popleft()
                else:
                    self._cut_off()
            elif not line:
                self._cut_off()
            elif line != b"END\r\n":
                self._answered(line, b"")

    def agrees(self, client: Client) -> None:
        stats = client.stats()
        for name, bodies in self.queues.items():
            found = (int(stats.get(f"queue_{name}_items", 0)), int(stats.get(f"queue_{name}_bytes", 0)))
            assert found == (len(bodies), sum(map(len, bodies))), name
            assert stats.get(f"queue_{name}_open_transactions", "0") == "0"


ONCE, A_WHILE = "once ", ""


@pytest.mark.long
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
        wait_until(partial(_stored, other, load))
        load.agrees(other)
    assert load.refused > len(CALLS) // 2
    server.kill()
    server.start()
    client = server.client()
    load.agrees(client)
    for name, bodies in load.queues.items():
        assert [client.get(name) for _ in bodies] == list(bodies)
        assert client.get(name) is None


def test_while_the_database_is_closed_all_is_refused_and_nothing_ends(server: FailingServer) -> None:
    load = Load(server.client)
    switch = server.data.parent / "data.fails"
    load.run(20)
    switch.write_text("write put _open")
    refused = load.refused
    while load.refused == refused:
        load.run(1)
    wait_until(lambda: "cannot reopen" in server.printed())
    load.run(60)
    client = server.client()
    for request in (b"delete a", b"set a+child 0 0 1\r\nx", b"reload"):
        client.send(request + b"\r\n")
        assert client.line().startswith(b"SERVER_ERROR ")
    assert client.stats()["curr_connections"]
    switch.unlink()
    wait_until(lambda: _stored(client, load))
    load.agrees(client)
    assert "cannot be read" not in server.printed()  # no queue is damaged


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


# -- who is told


@pytest.fixture
def kestrel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KestrelServer]:
    monkeypatch.setenv("DARNER_TICK_S", "0.1")
    server = KestrelServer(tmp_path / "data", "--chunk-bytes", "1 KiB", fails=True)
    yield server
    server.end()


def refusing(server: KestrelServer, refuse: bool) -> None:
    switch = server.data.parent / "data.fails"
    if refuse:
        switch.write_text("write put reopen")
    else:
        before = server.printed().count("the disk takes writes again")
        switch.unlink()
        wait_until(lambda: server.printed().count("the disk takes writes again") > before)


REFUSED = b"SERVER_ERROR no space left on device\r\n"


def test_who_waits_behind_a_change_is_told_when_its_turn_fails(kestrel: KestrelServer) -> None:
    memcache, text, other = kestrel.client(), kestrel.text_client(), kestrel.client()
    for queue in ("m", "t", "p"):
        other.set(queue, b"x")
    assert memcache.get("m/open") == b"x"
    text.ask(b"get t\n", b":x\n")
    refusing(kestrel, True)
    memcache.ask(b"get m/close/open/t=60000\r\n", REFUSED)
    text.ask(b"get none+child 60000\n", b"-no space left on device\n")  # it is made, and unmade
    other.ask(b"delete m\r\nget nothing/t=60000\r\n", REFUSED * 2)
    for verb in (b"get", b"peek"):
        text.ask(b"%b t 60000\n" % verb, b"-no space left on device\n")
    refusing(kestrel, False)
    assert memcache.get("m/abort") is None
    text.close()
    wait_until(lambda: other.stats()["queue_t_open_transactions"] == "0")
    assert [other.get("m"), other.get("m"), other.get("t"), other.get("t")] == [b"x", None, b"x", None]


def test_who_waits_for_an_item_gets_it_after_a_turn_of_others_has_failed(kestrel: KestrelServer) -> None:
    waiter, other = kestrel.client(), kestrel.client()
    waiter.send(b"get q/t=60000\r\n")
    wait_until(lambda: other.stats().get("queue_q_waiters", "1") == "1")
    waiter.expect_nothing()
    refusing(kestrel, True)
    other.ask(b"set q 0 0 1\r\nx\r\n", REFUSED)
    waiter.expect_nothing()
    refusing(kestrel, False)
    other.set("q", b"y")
    waiter.expect(b"VALUE q 0 1\r\ny\r\nEND\r\n")


def test_a_flush_in_slices_is_refused_if_one_of_them_could_not_be_written(kestrel: KestrelServer) -> None:
    client, thrift = kestrel.client(), kestrel.thrift_client()
    client.send(b"".join(b"set q%d 0 0 1 noreply\r\nx\r\n" % number for number in range(250)) + b"version\r\n")
    client.line()
    switch = kestrel.data.parent / "data.fails"
    switch.write_text("once write")  # of the first slice
    client.ask(b"flush_all\r\n", REFUSED)
    wait_until(lambda: "the disk takes writes again" in kestrel.printed())
    assert client.stats()["curr_items"] == "250"
    switch.write_text("once write")
    with pytest.raises(TApplicationException, match="no space left"):
        thrift.flush_all_queues()
    wait_until(lambda: kestrel.printed().count("the disk takes writes again") == 2)
    switch.write_text("once write")
    client.ask(b"flush_all noreply\r\nversion\r\n", b"VERSION")
    client.line()
    wait_until(lambda: kestrel.printed().count("the disk takes writes again") == 3)
    client.ask(b"flush_all\r\n", b"Flushed all queues.\r\n")
    assert client.stats()["curr_items"] == "0"


def test_a_large_item_that_is_coming_is_refused_if_its_queue_could_not_be_made(kestrel: KestrelServer) -> None:
    client = kestrel.client()
    refusing(kestrel, True)
    switch = kestrel.data.parent / "data.fails"
    switch.write_text("write put")
    client.send(b"set new+child 0 0 3000\r\n" + bytes(2000))
    wait_until(lambda: "cannot write" in kestrel.printed())
    refusing(kestrel, False)
    client.send(bytes(1000) + b"\r\nversion\r\n")
    client.expect(REFUSED + b"VERSION")  # its body has been read to the end
    assert "queue_new+child_items" not in kestrel.client().stats()


def test_thrift_items_whose_confirm_could_not_be_written_go_back_when_their_time_is_over(
    kestrel: KestrelServer,
) -> None:
    thrift, client = kestrel.thrift_client(), kestrel.client()
    thrift.put("q", [b"a", b"b", b"c"])
    ids = {item.id for item in thrift.get("q", 3, 0, 1000)}
    refusing(kestrel, True)
    with pytest.raises(TApplicationException, match="no space left"):
        thrift.confirm("q", ids)
    refusing(kestrel, False)
    wait_until(lambda: client.stats()["queue_q_open_transactions"] == "0")
    assert [client.get("q") for _ in range(4)] == [b"a", b"b", b"c", None]


def test_it_stops_as_always_while_writes_are_refused(kestrel: KestrelServer) -> None:
    client, waiter = kestrel.client(), kestrel.client()
    client.set("q", b"x")
    refusing(kestrel, True)
    client.ask(b"get q\r\n", REFUSED)
    waiter.send(b"get nothing/t=60000\r\n")
    waiter.expect_nothing()
    assert kestrel.stop() == 0
    waiter.expect(b"END\r\n")
    assert "shut down" in kestrel.log
    (kestrel.data.parent / "data.fails").unlink()
    kestrel.start()
    assert kestrel.client().get("q") == b"x"


def test_what_is_refused_again_and_again_is_one_line_in_the_log(kestrel: KestrelServer) -> None:
    client = kestrel.client()
    client.set("q", b"x")
    refusing(kestrel, True)
    for _ in range(100):
        client.ask(b"get q\r\n", REFUSED)
    refusing(kestrel, False)
    kestrel.stop()
    assert kestrel.log.count("cannot write: ") == 2
    assert "cannot write: no space left on device (99 such lines in 10 s)" in kestrel.log


@pytest.mark.parametrize("bug", ["", " bug"])
def test_what_fails_in_the_background_is_done_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: str
) -> None:
    monkeypatch.setenv("DARNER_TICK_S", "0.1")
    server = FailingServer(tmp_path, "--expiration-timer-s", "1", "--min-free-bytes", "1")
    try:
        client = server.client()
        (tmp_path / "data.fails").write_text(" ".join(IN_BACKGROUND) + bug)
        client.send(b"set q 0 1 1 noreply\r\nx\r\n" + b"set p 0 0 100000 noreply\r\n%b\r\n" % bytes(100_000) * 25)
        assert client.stats()["queue_p_items"] == "25"  # the room is looked at after each MiB
        wait_until(lambda: "sweep: " in server.printed() and "how much room there is" in server.printed())
        (tmp_path / "data.fails").unlink()
        wait_until(lambda: client.stats()["queue_q_items"] == "0")
    finally:
        server.stop()
        if bug:
            server.log = server.log.replace("Traceback", "", server.log.count("ZeroDivisionError: a bug"))
        server.end()
