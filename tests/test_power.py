"""The loss of power: the write-ahead log ends where no program ended it, and the queues are whole all the same.

The server is stopped for a moment under load (SIGSTOP) and its data directory copied. Of the copy, the newest log is
cut short, overwritten or removed in every way that a disk may leave it, but never what a /sync had been answered for.

What is then in the queues must be what was in them after the first so many of the requests that were sent: all queues
as they were at one and the same moment, not before the last /sync that was answered. So there are no holes, no halves
and nothing out of order.
"""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from darner_core.engines.large_items import Large
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.window import WindowBudget
from darner_core.errors import DataDirError, StorageError
from darner_core.storage.records import RUNNING_FILE, Blob
from darner_core.storage.storage import Storage
from tests.conftest import SMALL
from tests.support.harness import Client, RunningServer

CHUNK_BYTES = 4096
OPTIONS = (
    *("--chunk-bytes", str(CHUNK_BYTES), "--max-column-families", "3"),
    *("--write-buffer-bytes", "1MiB", "--max-wal-bytes", "1MiB", "--min-free-bytes", "0"),
)
QUEUES = ("own", "also own", "third", "shares", "shares, too")
SIZES = (9, 20, 100, 100, 400, 1000, 3000, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES)
SERIAL_BYTES = 8
REQUESTS = 500  # between two copies
SYNC_SHARE = 0.02
COPIES = 3
IN_FLIGHT = 40  # sent, and not answered yet, when the copy is made

# Of the log, as RocksDB's wiki has it ("Write Ahead Log File Format").
BLOCK_BYTES = 32 << 10
HEADER_BYTES = 7
PAGE_BYTES = 4096

State = tuple[tuple[str, tuple[int, ...]], ...]  # the serials in each queue that has any


def names() -> list[str]:
    return [name.replace(" ", "-").replace(",", "") for name in QUEUES]


# -- the load


class Story:
    """All requests so far, and what was in the queues after each of them, as a restart would show it."""

    def __init__(self, server: RunningServer, seed: int) -> None:
        self.server = server
        self.rng = Random(seed)
        self.clients = [server.client() for _ in range(3)]
        self.open: dict[Client, tuple[str, int]] = {}
        self.queues: dict[str, list[int]] = {name: [] for name in names()}
        self.bodies: dict[int, bytes] = {}
        self.states: list[State] = [()]
        self.synced = 0  # the state after so many requests is on the disk
        self.logs: dict[str, int] = {}  # the logs' sizes at that time

    def _next(self) -> None:
        self.states.append(tuple((name, tuple(serials)) for name, serials in sorted(self.queues.items()) if serials))

    def _set(self, sync: bool) -> bytes:
        """A set's bytes."""
        name, serial = self.rng.choice(names()), len(self.bodies) + 1
        body = b"%08d" % serial + self.rng.randbytes(self.rng.choice(SIZES) - SERIAL_BYTES)
        self.bodies[serial] = body
        self.queues[name].append(serial)
        self._next()
        return b"set %b%b 0 0 %d\r\n%b\r\n" % (name.encode(), b"/sync" if sync else b"", len(body), body)

    def put(self) -> None:
        sync = self.rng.random() < SYNC_SHARE
        self.clients[0].ask(self._set(sync), b"STORED\r\n")
        if sync:
            self.synced = len(self.states) - 1
            self.logs = sizes(self.server.data)

    def take(self) -> None:
        """One or all that wait: what is open stays."""
        name = self.rng.choice(names())
        body = self.clients[0].get(name)
        if body is not None:
            self.queues[name].remove(int(body[:SERIAL_BYTES]))
        self._next()

    def read(self) -> None:
        """Open an item, or do something with the one that is open."""
        client = self.rng.choice(self.clients[1:])
        if client in self.open:
            name, serial = self.open.pop(client)
            closes = self.rng.random() < 0.6
            assert client.get(f"{name}/{'close' if closes else 'abort'}") is None
            if closes and serial in self.queues[name]:
                self.queues[name].remove(serial)
        else:
            name = self.rng.choice(names())
            body = client.get(f"{name}/open")
            if body is not None:
                self.open[client] = name, int(body[:SERIAL_BYTES])
        self._next()

    def drop(self) -> None:
        name, verb = self.rng.choice(names()), self.rng.choice((b"flush", b"delete"))
        self.clients[0].ask(b"%b %b\r\n" % (verb, name.encode()), b"END\r\n" if verb == b"flush" else b"DELETED\r\n")
        kept = {serial for _, serial in self.open.values()} if verb == b"flush" else set()
        self.queues[name] = [serial for serial in self.queues[name] if serial in kept]
        self._next()

    def go_on(self) -> None:
        actions = self.rng.choices((self.put, self.take, self.read, self.drop), (60, 25, 30, 0.5), k=REQUESTS)
        for action in actions:
            action()

    def copy(self, to: Path) -> "Copy":
        """The data directory as it is at one moment, with requests on their way."""
        client = self.clients[0]
        client.send(b"".join(self._set(sync=False) for _ in range(IN_FLIGHT)))
        time.sleep(self.rng.random() * 0.01)
        os.kill(self.server.process.pid, signal.SIGSTOP)
        try:
            wait_stopped(self.server.process.pid)
            shutil.copytree(self.server.data, to)
        finally:
            os.kill(self.server.process.pid, signal.SIGCONT)
        client.expect(b"STORED\r\n" * IN_FLIGHT)
        return Copy(to, {state: place for place, state in enumerate(self.states)}, self.synced, self.logs, self.bodies)


def wait_stopped(pid: int) -> None:
    """SIGSTOP does not stop all threads at once."""
    deadline = time.monotonic() + 10
    while any(state(thread) not in "TZ" for thread in Path(f"/proc/{pid}/task").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def state(thread: Path) -> str:
    with suppress(FileNotFoundError, ProcessLookupError):  # it may end just now
        return (thread / "stat").read_text().rpartition(")")[2].split()[0]
    return "Z"


# -- the copies, and what is left of them


def logs(directory: Path) -> list[Path]:
    """The write-ahead logs, the oldest first."""
    return sorted(directory.glob("*.log"), key=lambda path: int(path.stem))


def sizes(directory: Path) -> dict[str, int]:
    """Of the logs; RocksDB may remove one while we look."""
    found = {}
    for path in logs(directory):
        with suppress(FileNotFoundError):
            found[path.name] = path.stat().st_size
    return found


class Cut(NamedTuple):
    """What has become of the newest log. None: it is not there any more."""

    what: str
    log: bytes | None


class Copy(NamedTuple):
    """A data directory, and what is known of it."""

    path: Path
    states: dict[State, int]  # to the last of its places in the story
    synced: int
    logs: dict[str, int]
    bodies: dict[int, bytes]

    def cuts(self, rng: Random) -> Iterator[Cut]:
        """The newest log at every kind of place, as far as it was not synced."""
        newest = logs(self.path)[-1]
        log = newest.read_bytes()
        safe = self.logs.get(newest.name, 0)
        if not safe:
            yield Cut("empty", b"")
            yield Cut("missing", None)
        yield Cut("zeros behind its end", log + bytes(PAGE_BYTES))
        if safe == len(log):
            return
        late = [begin for begin in record_begins(log) if begin >= safe]
        some = sorted(rng.sample(late, min(3, len(late))))
        places = {"between records": some, "at the sync": [safe], "nowhere": [len(log)]}
        places["inside a header"] = [begin + rng.randrange(1, HEADER_BYTES) for begin in some]
        places["inside a body"] = [begin + HEADER_BYTES + rng.randrange(1, 9) for begin in some]
        edges = range(safe - safe % BLOCK_BYTES + BLOCK_BYTES, len(log), BLOCK_BYTES)
        places["at a block"] = [edge + off for edge in list(edges)[:2] for off in (-1, 0, 1)]
        places["anywhere"] = [rng.randrange(safe, len(log)) for _ in range(4)]
        for what, ends in places.items():
            for end in ends:
                if safe <= end <= len(log):
                    yield Cut(f"cut {what}, at {end} of {len(log)}", log[:end])
        last = (len(log) - 1) // PAGE_BYTES
        for page in {last, rng.randrange(safe, len(log)) // PAGE_BYTES}:
            begin, end = max(page * PAGE_BYTES, safe), min((page + 1) * PAGE_BYTES, len(log))
            yield Cut(f"zeros from {begin} to {end} of {len(log)}", log[:begin] + bytes(end - begin) + log[end:])
            if page == last:  # else it is damage, of which test_damage has more: what is readable behind it is kept
                yield Cut(f"garbage from {begin} to {end}", log[:begin] + rng.randbytes(end - begin) + log[end:])
            yield Cut(f"zeros from {begin} to the end", log[:begin] + bytes(len(log) - begin))

    def after(self, cut: Cut, to: Path) -> None:
        """Make the directory `to` what is left."""
        shutil.copytree(self.path, to)
        newest = logs(to)[-1]
        if cut.log is None:
            newest.unlink()
        else:
            newest.write_bytes(cut.log)
        machine_starts(to)

    def check(self, found: dict[str, list[bytes]], what: str) -> int:
        """What was found is what was there at some moment, not before the sync; how many requests before its end."""
        for body in (body for bodies in found.values() for body in bodies):
            assert body == self.bodies[int(body[:SERIAL_BYTES])], f"{what}: an item is not whole"
        serials = {name: tuple(int(body[:SERIAL_BYTES]) for body in bodies) for name, bodies in found.items()}
        state = tuple(sorted((name, some) for name, some in serials.items() if some))
        assert state in self.states, f"{what}: this was never in the queues: {serials}"
        place = self.states[state]
        assert place >= self.synced, f"{what}: synced after {self.synced} requests, found is what was after {place}"
        return max(self.states.values()) - place


def machine_starts(directory: Path) -> None:
    """What a server that starts on it will see: the machine has been started since the last one ran."""
    (directory / RUNNING_FILE).write_text("another start of the machine")


def record_begins(log: bytes) -> list[int]:
    """Where the records of a log begin."""
    begins, place = [], 0
    while place + HEADER_BYTES <= len(log):
        left = BLOCK_BYTES - place % BLOCK_BYTES
        if left < HEADER_BYTES:
            place += left
            continue
        begins.append(place)
        place += HEADER_BYTES + int.from_bytes(log[place + 4 : place + 6], "little")
    return begins


# -- looking into what is left


def contents(path: Path) -> dict[str, list[bytes]]:
    """All that the queues in this data directory hold, taken out; the counts agree, and the queues can be used."""
    storage = Storage(str(path), **SMALL | {"max_column_families": 3})
    try:
        journal = Journal(storage)
        registry = Registry(journal, WindowBudget(1 << 20))
        journal.commit()
        found = {}
        for name, queue in registry.queues.items():
            counted = queue.waiting_items, queue.waiting_bytes
            bodies = []
            while (item := queue.peek()) is not None:
                body = item[0]
                if isinstance(body, Blob):
                    number, size = queue.log.record.number, len(body)
                    chunks = [storage.chunk(number, body.blob, index) for index in range(-(-size // CHUNK_BYTES))]
                    bodies.append(b"".join(chunks))
                    read = queue.open()
                    assert read is not None
                    queue.close(read)
                else:
                    bodies.append(body)
                    assert not isinstance(queue.take(), Large)
                journal.commit()
            assert counted == (len(bodies), sum(map(len, bodies)))
            found[name.decode()] = bodies
            queue.put(b"again", 0, 0)
            journal.commit()
            taken = queue.take()
            assert isinstance(taken, tuple)
            assert taken[0] == b"again"
            journal.commit()
        return found
    finally:
        storage.close()


def served(server: RunningServer) -> dict[str, list[bytes]]:
    """The same, from a server."""
    client = server.client()
    stats = client.stats()
    found = {}
    for name in names():
        bodies = []
        while (body := client.get(f"{name}/close/open")) is not None:
            bodies.append(body)
        assert int(stats.get(f"queue_{name}_items", 0)) == len(bodies)
        assert int(stats.get(f"queue_{name}_bytes", 0)) == sum(map(len, bodies))
        found[name] = bodies
        client.set(name, b"again")
        assert client.get(name) == b"again"
    return found


# -- the tests


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> list[Copy]:
    """Copies made at some moments of one long load."""
    directory = tmp_path_factory.mktemp("power")
    server = RunningServer(directory / "data", *OPTIONS)
    try:
        story = Story(server, seed=22133)
        made = []
        for number in range(COPIES):
            story.go_on()
            made.append(story.copy(directory / f"copy{number}"))
        return made
    finally:
        server.end()


@pytest.mark.long
def test_the_queues_are_whole_wherever_the_log_ends(copies: list[Copy], tmp_path: Path) -> None:
    rng = Random(1)
    lost, kinds = [], set()
    for copy in copies:
        for cut in copy.cuts(rng):
            copy.after(cut, tmp_path / "left")
            lost.append(copy.check(contents(tmp_path / "left"), cut.what))
            kinds.add(" ".join(cut.what.split()[:2]))
            shutil.rmtree(tmp_path / "left")
    assert max(lost) > 0, "no cut has cost anything: nothing was tried"
    assert min(lost) == 0
    assert len(lost) > 10 * COPIES
    print(f"{len(lost)} cuts of {len(kinds)} kinds; requests lost: {sorted(lost)}")


def test_damage_to_what_was_synced_is_not_taken_for_a_loss_of_power(copies: list[Copy], tmp_path: Path) -> None:
    copy = max(copies, key=lambda copy: len(record_begins(logs(copy.path)[-1].read_bytes())))  # one may just have begun
    log = bytearray(logs(copy.path)[-1].read_bytes())
    begins = record_begins(bytes(log))
    log[begins[len(begins) // 3] + HEADER_BYTES + 3] ^= 0xFF
    copy.after(Cut("flipped", bytes(log)), tmp_path / "left")
    storage = Storage(str(tmp_path / "left"), **SMALL | {"max_column_families": 3})
    try:
        assert storage.torn == []
        assert "writes behind it can be read" in storage.damage[0]
    finally:
        storage.close()


def test_a_log_behind_one_whose_end_is_lost_is_not_read(tmp_path: Path) -> None:
    """RocksDB begins a new log before it syncs the old one: the disk may have the new one and not all of the old."""
    server = RunningServer(tmp_path / "data", *OPTIONS)
    try:
        story = Story(server, seed=7)
        story.go_on()
        copy = story.copy(tmp_path / "copy")
        while len(record_begins(logs(copy.path)[-1].read_bytes())) < IN_FLIGHT:  # it has just been begun
            shutil.rmtree(copy.path)
            copy = story.copy(tmp_path / "copy")
        old = logs(copy.path)[-1].name
        os.link(server.data / old, tmp_path / old)  # RocksDB removes it when it has been written to tables
        while (new := logs(server.data)[-1]).name == old or new.stat().st_size < 3 * PAGE_BYTES:
            story.put()
        behind, whole = new.read_bytes(), (tmp_path / old).read_bytes()
    finally:
        server.end()
    copy = copy._replace(states={state: place for place, state in enumerate(story.states)}, synced=0)
    lost = []
    begins = record_begins(whole)
    for end in (len(whole), begins[-1], begins[-2], begins[-IN_FLIGHT], begins[-IN_FLIGHT] + HEADER_BYTES + 3):
        shutil.rmtree(tmp_path / "left", ignore_errors=True)
        shutil.copytree(copy.path, tmp_path / "left")
        (tmp_path / "left" / old).write_bytes(whole[:end])
        (tmp_path / "left" / new.name).write_bytes(behind)
        machine_starts(tmp_path / "left")
        lost.append(copy.check(contents(tmp_path / "left"), f"cut at {end} of {len(whole)}"))
    assert lost == sorted(lost)
    assert lost[0] < lost[-1]


def test_a_server_starts_on_what_is_left(copies: list[Copy], tmp_path: Path) -> None:
    rng = Random(2)
    for number, copy in enumerate(copies[1:]):
        cut = rng.choice(list(copy.cuts(rng)))
        copy.after(cut, tmp_path / f"left{number}")
        server = RunningServer(tmp_path / f"left{number}", *OPTIONS)
        try:
            copy.check(served(server), cut.what)
            server.kill()
            server.start()
            assert server.client().stats()["curr_items"] == "0"
        finally:
            server.end()


def test_what_was_synced_is_missed_if_it_is_cut_off(copies: list[Copy], tmp_path: Path) -> None:
    """The checks above can fail."""
    copy = copies[0]
    copy.after(Cut("all", b""), tmp_path / "left")
    for log in logs(tmp_path / "left")[:-1]:
        log.unlink()
    said = r"synced after|never in the queues|\.log: missing|chunk \d+ of large item \d+ is missing"
    with pytest.raises((AssertionError, DataDirError, StorageError), match=said):
        copy.check(contents(tmp_path / "left"), "all")
