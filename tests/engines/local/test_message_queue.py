"""The rules of FIFO, seen from the calls that the commands make; and a model that the queues have to agree with."""

import copy
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from darner_core.engines.large_items import LARGE
from darner_core.engines.local import journal as journal_module
from darner_core.engines.local import window as window_module
from darner_core.engines.local.compaction import Compaction
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.reads import OpenRead
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.window import WindowBudget
from darner_core.errors import StorageError
from darner_core.operations.session import Session
from darner_core.storage.records import ITEM_HEADER_BYTES, ITEM_KEY_BYTES, Blob, item_key
from darner_core.storage.storage import Storage
from darner_core.waiters import Waiter
from tests.conftest import SMALL
from tests.support.bench import items_put
from tests.support.moved_clock import MovedClock

OpenStorage = Callable[[], Storage]
CHUNK_BYTES = 400  # of the large items here

NEVER_MS = 2**60  # an expiry that does not come in these tests


@contextmanager
def refusing_writes(storage: Storage) -> Iterator[None]:
    """A disk that is full for as long as this lasts."""

    def refuse(*_: Any) -> None:
        raise StorageError("no space left on device")

    whole = storage.write, storage.put
    storage.write = refuse  # type: ignore[assignment]
    storage.put = refuse  # type: ignore[assignment]
    try:
        yield
    finally:
        storage.write, storage.put = whole


def put_large(queue: MessageQueue, body: bytes) -> None:
    """What `receive_large` does with the body of a large item."""
    blob = queue.large_items.start()
    storage, number = queue.log.journal.storage, queue.log.record.number
    for index in range(0, len(body), CHUNK_BYTES):
        storage.put_chunk(number, blob, index // CHUNK_BYTES, body[index : index + CHUNK_BYTES])
    queue.large_items.finish(blob)
    queue.put(Blob(blob, len(body)), 0, 0)


def whole_body(queue: MessageQueue, body: bytes | Blob) -> bytes:
    """The bytes of an item's body, wherever they are."""
    if isinstance(body, bytes):
        return body
    whole = b""
    while len(whole) < len(body):
        whole += queue.log.journal.storage.chunk(queue.log.record.number, body.blob, len(whole) // CHUNK_BYTES)
    return whole


class Bench(MovedClock):
    """The queue `q` in a data directory, and the ends of its turns."""

    def __init__(self, open_storage: OpenStorage, window_bytes: int = 1 << 20) -> None:
        self._open_storage = open_storage
        self._window_bytes = window_bytes
        self.now_s = 1000.0
        self._start()
        self.queue = self.registry.create(b"q")
        self.end_turn()

    def _start(self) -> None:
        self.storage = self._open_storage()
        self.journal = Journal(self.storage, lambda: self.now_s)
        self.budget = WindowBudget(self._window_bytes)
        self.registry = Registry(self.journal, self.budget)

    def end_turn(self) -> None:
        self.journal.commit()

    def put(self, *bodies: bytes) -> None:
        for body in bodies:
            self.queue.put(body, 0, 0)
        self.end_turn()

    def open(self) -> OpenRead:
        read = self.queue.open()
        assert read is not None
        return read

    def take_all(self) -> list[bytes]:
        """What takes answer until there is nothing left, each in a turn of its own."""
        bodies = []
        while (item := self.queue.take()) is not None:
            assert isinstance(item, tuple)
            assert isinstance(item[0], bytes)
            bodies.append(item[0])
            self.end_turn()
        return bodies

    def crash(self) -> None:
        """Forget all that is in memory, and start again from what is on disk."""
        self.storage.close()
        self._start()
        self.queue = self.registry.queues[b"q"]

    def lose_record(self, item_id: int) -> None:
        """Let the disk lose an item, as a damaged disk might."""
        batch = self.storage.batch()
        record = self.queue.log.record
        batch.delete(item_key(record.number, item_id), self.storage.handles[record.family])
        self.storage.write(batch)


@pytest.fixture
def bench(open_storage: OpenStorage) -> Bench:
    return Bench(open_storage)


@pytest.fixture
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read ahead three items at a time."""
    monkeypatch.setattr(window_module, "FILL_ITEMS", 3)


# -- first in, first out


def test_items_come_out_in_the_order_they_went_in(bench: Bench) -> None:
    bench.put(b"a", b"b", b"c")
    bench.put(b"d")
    assert bench.take_all() == [b"a", b"b", b"c", b"d"]


def test_an_empty_queue_has_nothing_to_take_open_or_peek_at(bench: Bench) -> None:
    for _ in range(2):
        assert bench.queue.take() is None
        assert bench.queue.open() is None
        assert bench.queue.peek() is None
        assert bench.queue.head_added_at_ms() == 0
        bench.put(b"x")
        bench.take_all()


def test_an_item_keeps_its_body_flags_expiry_and_time(bench: Bench) -> None:
    bench.queue.put(b"", 7, 9_000_000)
    bench.queue.put(b"x", 0, 0)
    bench.end_turn()
    bench.now_s = 2000.0
    assert bench.queue.peek() == (b"", 7, 9_000_000, 1_000_000)
    bench.crash()
    assert bench.queue.take() == (b"", 7, 9_000_000, 1_000_000)
    assert bench.queue.take() == (b"x", 0, 0, 1_000_000)


def test_ids_are_given_in_order_and_never_again(bench: Bench) -> None:
    bench.put(b"a", b"b")
    assert bench.open().id == 1
    bench.queue.flush()
    bench.put(b"c")
    assert bench.open().id == 3
    bench.crash()
    assert bench.open().id == 1
    assert bench.open().id == 3
    bench.queue.flush()
    bench.end_turn()
    bench.crash()
    bench.put(b"d")
    assert [bench.open().id for _ in range(3)] == [1, 3, 4]


# -- open reads


def test_an_open_item_is_nobody_elses_until_it_is_given_back(bench: Bench) -> None:
    bench.put(b"a")
    read = bench.open()
    assert bench.queue.item_of(read)[0] == b"a"
    assert bench.queue.take() is None
    bench.queue.give_back(read)
    assert bench.take_all() == [b"a"]


def test_a_closed_item_is_gone(bench: Bench) -> None:
    bench.put(b"a", b"b")
    bench.queue.close(bench.open())
    bench.end_turn()
    assert bench.take_all() == [b"b"]
    bench.crash()
    assert bench.take_all() == []


def test_items_that_were_given_back_come_first_and_oldest_first(bench: Bench) -> None:
    bench.put(b"a", b"b", b"c", b"d", b"e")
    reads = [bench.open() for _ in range(4)]
    for index in (2, 0, 3):
        bench.queue.give_back(reads[index])
        bench.end_turn()
    assert bench.take_all() == [b"a", b"c", b"d", b"e"]
    bench.queue.give_back(reads[1])
    assert bench.take_all() == [b"b"]


def test_a_read_ends_once(bench: Bench) -> None:
    bench.put(b"a", b"b", b"c")
    closed, returned = bench.open(), bench.open()
    bench.queue.close(closed)
    bench.queue.give_back(returned)
    for read in (closed, returned):
        assert not bench.queue.holds(read)
        bench.queue.close(read)
        bench.queue.give_back(read)
    assert (bench.queue.waiting_items, bench.queue.open_reads) == (2, 0)
    again = bench.open()
    assert again.id == returned.id
    bench.queue.close(returned)
    assert bench.queue.holds(again)
    assert not bench.queue.holds(returned)


def test_what_is_open_can_be_read_as_often_as_it_is_asked_for(bench: Bench) -> None:
    bench.put(b"a")
    for _ in range(2):
        read = bench.open()
        assert [bench.queue.item_of(read)[0] for _ in range(3)] == [b"a"] * 3
        bench.queue.give_back(read)


def test_peek_shows_the_head_and_leaves_it(bench: Bench) -> None:
    bench.put(b"a", b"b")
    read = bench.open()
    assert [bench.queue.peek(), bench.queue.peek()] == [(b"b", 0, 0, 1_000_000)] * 2
    bench.queue.give_back(read)
    assert bench.queue.peek() == (b"a", 0, 0, 1_000_000)
    assert bench.take_all() == [b"a", b"b"]


# -- large items


def test_a_large_item_is_not_taken_but_opened_and_closed(bench: Bench) -> None:
    large = bytes(range(256)) * 5
    bench.put(b"small")
    put_large(bench.queue, large)
    bench.put(b"behind")
    assert bench.queue.take() == (b"small", 0, 0, 1_000_000)
    for _ in range(2):
        assert bench.queue.take() is LARGE
        read = bench.open()
        assert whole_body(bench.queue, bench.queue.item_of(read)[0]) == large
        bench.queue.give_back(read)
        assert bench.queue.peek() == (Blob(1, len(large)), 0, 0, 1_000_000)
    bench.queue.close(bench.open())
    assert bench.take_all() == [b"behind"]


def test_the_chunks_of_a_large_item_go_when_it_is_closed_and_not_before(bench: Bench) -> None:
    put_large(bench.queue, bytes(1000))
    put_large(bench.queue, b"x" * 1000)
    read = bench.open()
    bench.end_turn()
    bench.crash()
    read = bench.open()
    assert whole_body(bench.queue, bench.queue.item_of(read)[0]) == bytes(1000)
    bench.queue.close(read)
    bench.end_turn()
    with pytest.raises(StorageError, match="chunk 0 of large item 1 is missing"):
        bench.storage.chunk(1, 1, 0)
    assert whole_body(bench.queue, bench.queue.item_of(bench.open())[0]) == b"x" * 1000


def test_a_flush_takes_the_chunks_of_what_waits_and_leaves_those_of_what_is_open_or_on_its_way(bench: Bench) -> None:
    for body in (b"a", b"b", b"c"):
        put_large(bench.queue, body * 500)
    bench.queue.close(bench.open())
    read = bench.open()
    coming = bench.queue.large_items.start()
    bench.storage.put_chunk(1, coming, 0, b"d")
    bench.queue.flush()
    bench.end_turn()
    assert whole_body(bench.queue, bench.queue.item_of(read)[0]) == b"b" * 500
    assert bench.storage.chunk(1, coming, 0) == b"d"
    with pytest.raises(StorageError, match="missing"):
        bench.storage.chunk(1, 3, 0)


# -- flushing


def test_a_flush_removes_what_waits_and_what_was_given_back(bench: Bench) -> None:
    bench.put(b"a", b"b", b"c")
    bench.queue.give_back(bench.open())
    bench.queue.flush()
    bench.end_turn()
    assert bench.take_all() == []
    bench.crash()
    assert bench.take_all() == []


def test_a_flush_leaves_what_is_open(bench: Bench) -> None:
    bench.put(b"a", b"b", b"c", b"d")
    first, second = bench.open(), bench.open()
    bench.queue.flush()
    bench.put(b"e")
    assert bench.queue.holds(first)
    assert bench.queue.item_of(second)[0] == b"b"
    bench.queue.give_back(second)
    assert bench.take_all() == [b"b", b"e"]
    bench.queue.give_back(first)
    bench.end_turn()
    bench.crash()
    assert bench.take_all() == [b"a"]


def test_what_was_flushed_between_open_items_stays_away_after_a_crash(bench: Bench) -> None:
    bench.put(b"a", b"b", b"c", b"d")
    bench.open()
    returned = bench.open()
    bench.open()
    bench.queue.give_back(returned)
    bench.queue.put(b"e", 0, 0)
    bench.queue.flush()
    bench.queue.put(b"f", 0, 0)
    bench.open()
    bench.end_turn()
    bench.crash()
    assert bench.take_all() == [b"a", b"c", b"f"]


# -- the window


# -- figures


def figures(queue: MessageQueue) -> tuple[int, int, int, int, int]:
    return queue.waiting_items, queue.waiting_bytes, queue.open_reads, queue.total_items, queue.total_flushes


# -- a plain model


class Put(NamedTuple):
    """An item as the model knows it."""

    id: int
    body: bytes
    flags: int
    expires_at_ms: int
    added_at_ms: int
    large: bool


class PlainQueue:
    """What a queue is, without a disk, a window or a turn."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.waiting: list[Put] = []  # in order of their ids
        self.open: list[Put] = []
        self.next_id = 1
        self.total_items = 0
        self.total_flushes = 0

    def put(self, body: bytes, flags: int, expires_at_ms: int, now_ms: int, large: bool) -> None:
        self.waiting.append(Put(self.next_id, body, flags, expires_at_ms, now_ms, large))
        self.next_id += 1
        self.total_items += 1

    def hand_out(self) -> Put:
        self.open.append(self.waiting.pop(0))
        return self.open[-1]

    def give_back(self, item: Put) -> None:
        if item in self.open:
            self.open.remove(item)
            self.waiting = sorted([*self.waiting, item])

    def close(self, item: Put) -> None:
        if item in self.open:
            self.open.remove(item)

    def restart(self) -> None:
        self.waiting = sorted(self.waiting + self.open)
        self.open = []
        self.total_items = self.total_flushes = 0


Held = tuple[PlainQueue, Put]  # an open item and its queue, which may have been deleted


class Plain:
    """All queues, and their clients, by number: what each holds, who stands in line, and who has been served there."""

    def __init__(self) -> None:
        self.queues: dict[bytes, PlainQueue] = {}
        self.held: dict[int, Held] = {}
        self.lines: dict[bytes, list[tuple[int, bool]]] = {}  # client, and whether it only wants to peek
        self.handed: dict[int, Held | None] = {}  # None: a peek, or an item that a failed turn has taken back
        self.total_items_of_deleted = self.creates = self.deletes = 0

    def queue(self, name: bytes) -> PlainQueue:
        if name not in self.queues:
            self.queues[name] = PlainQueue(name)
            self.creates += 1
        return self.queues[name]

    def delete(self, name: bytes) -> None:
        if name in self.queues:
            self.total_items_of_deleted += self.queues.pop(name).total_items
            self.deletes += 1

    def lives(self, queue: PlainQueue) -> bool:
        return self.queues.get(queue.name) is queue

    def serve(self, name: bytes) -> None:
        """Hand what waits to who waits."""
        queue, line = self.queues.get(name), self.lines.get(name)
        while queue and line and queue.waiting:
            client, peeks = line.pop(0)
            self.handed[client] = None if peeks else (queue, queue.hand_out())

    def give_back(self, held: Held | None) -> None:
        if held is not None:
            held[0].give_back(held[1])
            if self.lives(held[0]):
                self.serve(held[0].name)

    def undone(self, before: "Plain", gone: set[int], collected: set[int]) -> "Plain":
        """All as it was `before` the turn, but for the clients: who has hung up since is gone, who stands in line
        stands there, and what was handed over and collected since goes back: its client is told of the error."""
        for client in gone:
            if (held := before.held.pop(client, None)) is not None:
                held[0].give_back(held[1])
        for client in collected:
            if (held := before.handed.pop(client)) is not None:
                held[0].give_back(held[1])
        before.lines = self.lines
        for client in self.handed:
            before.handed.setdefault(client, None)
        return before

    def restart(self) -> None:
        for queue in self.queues.values():
            queue.restart()
        self.held, self.lines, self.handed = {}, {}, {}
        self.total_items_of_deleted = self.creates = self.deletes = 0


class Upload(NamedTuple):
    """A large item that is being received."""

    queue: MessageQueue
    name: bytes
    blob: int
    body: bytes


NAMES = st.sampled_from([b"a", b"b", b"c"])
CLIENTS = st.integers(0, 3)


class Queues(RuleBasedStateMachine, MovedClock):
    """Three queues in two column families with memory for a few items, used by four clients that open and wait.

    Nothing is lost, nothing comes twice, the order is kept and every figure is true: at any time, after a turn that
    could not be written, after a restart and after a crash. After every turn that was written, the disk is looked
    at as a crash right then would leave it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.storage = Storage(str(Path(self.directory.name) / "data"), **{**SMALL, "max_column_families": 2})
        self.now_s = 1000
        self.bodies = 0
        self.plain = Plain()
        self.start()

    def teardown(self) -> None:
        self.storage.close()
        self.directory.cleanup()

    def start(self, disk_is_full: bool = False) -> None:
        self.journal = Journal(self.storage, lambda: self.now_s)
        self.budget = WindowBudget(6000)
        self.registry = Registry(self.journal, self.budget)
        self.upkeep = Compaction(self.registry, self.journal, 0)
        self.sessions = [Session(self.journal) for _ in range(4)]
        self.waits: dict[int, tuple[bytes, Waiter]] = {}  # of each client that is waiting
        self.sending: dict[int, OpenRead] = {}
        self.uploads: list[Upload] = []
        # The server's first turn ends before there are clients.
        if disk_is_full:
            with refusing_writes(self.storage), suppress(StorageError):
                self.journal.commit()
        self.journal.commit()
        self.begin_turn()

    def begin_turn(self) -> None:
        self.before = copy.deepcopy(self.plain)
        self.gone: set[int] = set()  # who has hung up in this turn
        self.collected: set[int] = set()  # who has collected in this turn what it was handed in an earlier one

    def a_body(self, size: int) -> bytes:
        """Unlike every other."""
        self.bodies += 1
        return b"%d " % self.bodies + b"x" * size

    def a_queue(self, name: bytes) -> MessageQueue:
        return self.registry.queues.get(name) or self.registry.create(name)

    def both(self, name: bytes) -> tuple[MessageQueue, PlainQueue] | None:
        queue = self.registry.queues.get(name)
        return None if queue is None else (queue, self.plain.queues[name])

    def is_busy(self, client: int) -> bool:
        return client in self.plain.held or client in self.waits

    # -- what clients do

    @rule(
        name=NAMES, size=st.sampled_from([0, 10, 300, 1500]), flags=st.sampled_from([0, 0, 5]), count=st.integers(1, 5)
    )
    def put(self, name: bytes, size: int, flags: int, count: int) -> None:
        for _ in range(count):
            body = self.a_body(size)
            self.a_queue(name).put(body, flags, NEVER_MS + flags)
            self.plain.queue(name).put(body, flags, NEVER_MS + flags, int(self.now_s * 1000), large=False)
            self.plain.serve(name)

    @rule(name=NAMES)
    def put_large(self, name: bytes) -> None:
        body = self.a_body(900)
        put_large(self.a_queue(name), body)
        self.plain.queue(name).put(body, 0, 0, int(self.now_s * 1000), large=True)
        self.plain.serve(name)

    @rule(name=NAMES, count=st.integers(1, 6))
    def take(self, name: bytes, count: int) -> None:
        if (both := self.both(name)) is None:
            return
        queue, expected = both
        for _ in range(count):
            item = queue.take()
            if not expected.waiting:
                assert item is None
            elif expected.waiting[0].large:
                assert item is LARGE
                return
            else:
                assert item == expected.waiting.pop(0)[1:5]

    @rule(name=NAMES)
    def peek(self, name: bytes) -> None:
        if (both := self.both(name)) is None:
            return
        queue, expected = both
        item = queue.peek()
        assert (item is None) == (not expected.waiting)
        if item is not None:
            assert (whole_body(queue, item[0]), *item[1:]) == expected.waiting[0][1:5]
            assert queue.head_id == expected.waiting[0].id

    @rule(name=NAMES, client=CLIENTS)
    def open(self, name: bytes, client: int) -> None:
        if (both := self.both(name)) is None or self.is_busy(client):
            return
        queue, expected = both
        read = queue.open()
        if not expected.waiting:
            assert read is None
            return
        assert read is not None
        self.sessions[client].hold(read)
        self.plain.held[client] = expected, expected.hand_out()

    @rule(client=CLIENTS)
    def close(self, client: int) -> None:
        self.sessions[client].close_read()
        if (held := self.plain.held.pop(client, None)) is not None:
            held[0].close(held[1])

    @rule(client=CLIENTS)
    def abort(self, client: int) -> None:
        self.sessions[client].abort_read()
        self.plain.give_back(self.plain.held.pop(client, None))

    @rule(name=NAMES, client=CLIENTS, peeks=st.sampled_from([False, False, True]))
    def wait(self, name: bytes, client: int, peeks: bool) -> None:
        both = self.both(name)
        if (both is not None and both[1].waiting) or self.is_busy(client):
            return
        self.waits[client] = name, self.registry.join_line(name, b"", peeks)
        self.plain.lines.setdefault(name, []).append((client, peeks))

    @rule(name=NAMES)
    def send(self, name: bytes) -> None:
        """Begin to send an item to a client of its own. It is open until it has been sent, in whichever turn."""
        if (both := self.both(name)) is not None and (read := both[0].open()) is not None:
            sender = max(self.sending, default=len(self.sessions)) + 1
            self.sending[sender] = read
            self.plain.handed[sender] = both[1], both[1].hand_out()

    @precondition(lambda self: self.plain.handed)
    @rule(data=st.data())
    def collect(self, data: st.DataObject) -> None:
        """Who has been served in line wakes up, or what was being sent has been sent. In any later turn, too."""
        client = data.draw(st.sampled_from(sorted(self.plain.handed)))
        held = self.take_handed(client)
        if client in self.waits:
            name, waiter = self.waits.pop(client)
            self.registry.leave_line(name, b"")
            if waiter.peeks:
                return
            read = waiter.got
        else:
            read = self.sending.pop(client)
        lives = held is not None and self.plain.lives(held[0])
        assert read.queue.holds(read) == lives
        how = data.draw(st.sampled_from(["takes it", "opens it", "is gone"]))
        if held is None or not lives or how == "is gone":
            read.queue.give_back(read)
            self.plain.give_back(held)
        elif how == "takes it" or client >= len(self.sessions):
            read.queue.close(read)
            held[0].close(held[1])
        else:
            self.sessions[client].hold(read)
            self.plain.held[client] = held

    def take_handed(self, client: int) -> Held | None:
        if client in self.before.handed and client not in self.gone:
            self.collected.add(client)
        return self.plain.handed.pop(client)

    @rule(client=CLIENTS)
    def hang_up(self, client: int) -> None:
        if (wait := self.waits.pop(client, None)) is not None:
            name, waiter = wait
            if client in self.plain.handed:
                held = self.take_handed(client)
                if not waiter.peeks:
                    waiter.got.queue.give_back(waiter.got)
                self.plain.give_back(held)
            else:
                self.plain.lines[name].remove((client, waiter.peeks))
            waiter.cancel()
            self.registry.leave_line(name, b"")
        self.sessions[client].end()
        self.sessions[client] = Session(self.journal)
        self.gone.add(client)
        self.plain.give_back(self.plain.held.pop(client, None))

    @rule(name=NAMES)
    def flush(self, name: bytes) -> None:
        self.registry.flush(name)
        if name in self.plain.queues:
            self.plain.queues[name].waiting = []
            self.plain.queues[name].total_flushes += 1

    @rule(name=NAMES)
    def delete(self, name: bytes) -> None:
        self.registry.delete(name)
        self.plain.delete(name)

    @rule(name=NAMES)
    def begin_upload(self, name: bytes) -> None:
        queue = self.a_queue(name)
        self.plain.queue(name)
        self.uploads.append(Upload(queue, name, queue.large_items.start(), self.a_body(700)))
        self.storage.put_chunk(queue.log.record.number, self.uploads[-1].blob, 0, self.uploads[-1].body[:CHUNK_BYTES])

    @precondition(lambda self: self.uploads)
    @rule(arrives=st.booleans())
    def end_upload(self, arrives: bool) -> None:
        queue, name, blob, body = self.uploads.pop(0)
        if queue.deleted or not arrives:
            queue.large_items.drop(blob, CHUNK_BYTES)
            return
        self.storage.put_chunk(queue.log.record.number, blob, 1, body[CHUNK_BYTES:])
        queue.large_items.finish(blob)
        queue.put(Blob(blob, len(body)), 0, 0)
        self.plain.queues[name].put(body, 0, 0, int(self.now_s * 1000), large=True)
        self.plain.serve(name)

    # -- what the server does

    @rule()
    def end_turn(self) -> None:
        self.now_s += 1
        self.journal.commit()
        self.begin_turn()
        self.look_at_disk()

    @rule(writes_again=st.booleans())
    def fail_turn(self, writes_again: bool) -> None:
        self.now_s += 1
        try:
            with refusing_writes(self.storage):
                self.journal.commit()
        except StorageError:
            self.plain = self.plain.undone(self.before, self.gone, self.collected)
        self.begin_turn()
        if writes_again:
            self.registry.recheck()
            for name in self.plain.queues:
                self.plain.serve(name)

    @rule()
    def tidy_up(self) -> None:
        for job in self.upkeep.tick():
            job()

    @rule()
    def restart(self) -> None:
        self.registry.record_all()
        self.journal.commit()
        self.plain.restart()
        self.start()

    @rule(disk_is_full=st.booleans())
    def crash(self, disk_is_full: bool) -> None:
        self.plain = self.before
        self.plain.restart()
        self.start(disk_is_full)

    @rule()
    def take_all(self) -> None:
        """After a restart all that is stored comes out in order, and of large items nothing else is stored."""
        self.end_turn()
        self.crash(disk_is_full=False)
        for queue in self.registry:
            expected = self.plain.queues[queue.name]
            number, large = queue.log.record.number, 0
            while (read := queue.open()) is not None:
                assert as_put(queue, read) == expected.waiting.pop(0)
                large = max(large, read.blob)
                assert self.storage.last_blob(number) >= large
                queue.close(read)
            assert self.storage.last_blob(number) == large
            assert expected.waiting == []
        self.end_turn()
        assert not any(self.storage.last_blob(queue.log.record.number) for queue in self.registry)

    def look_at_disk(self) -> None:
        found = Registry(Journal(self.storage), WindowBudget(1 << 20))
        assert sorted(found.queues) == sorted(self.plain.queues)
        for queue in found:
            expected = self.plain.queues[queue.name]
            assert queue.tail == expected.next_id
            stored = sorted(expected.waiting + expected.open)
            assert queue.waiting_bytes == sum(len(item.body) for item in stored)
            assert [as_put(queue, read) for read in drain(queue)] == stored

    # -- what has to be true at any time

    @invariant()
    def the_figures_are_true(self) -> None:
        assert sorted(self.registry.queues) == sorted(self.plain.queues)
        for name, expected in self.plain.queues.items():
            queue = self.registry.queues[name]
            stored = expected.waiting + expected.open
            assert queue.waiting_items == len(expected.waiting)
            assert queue.waiting_bytes == sum(len(item.body) for item in expected.waiting)
            assert queue.open_reads == len(expected.open)
            assert queue.total_items == expected.total_items
            assert queue.total_flushes == expected.total_flushes
            assert queue.tail == expected.next_id
            assert queue.head_added_at_ms() == (expected.waiting[0].added_at_ms if expected.waiting else 0)
            assert queue.log_bytes >= sum(len(item.body) + ITEM_HEADER_BYTES + ITEM_KEY_BYTES for item in stored)
        totals = self.registry.creates, self.registry.deletes, items_put(self.registry)
        plain = self.plain
        everything = plain.total_items_of_deleted + sum(queue.total_items for queue in plain.queues.values())
        assert totals == (plain.creates, plain.deletes, everything)

    @invariant()
    def what_is_open_is_held_and_can_be_read(self) -> None:
        holders = {client: session.open_read for client, session in enumerate(self.sessions) if session.open_read}
        assert sorted(holders) == sorted(self.plain.held)
        for client, read in holders.items():
            queue, item = self.plain.held[client]
            assert read.queue.holds(read) == self.plain.lives(queue)
            if self.plain.lives(queue):
                assert as_put(cast(Any, read.queue), cast(Any, read)) == item

    @invariant()
    def who_waits_stands_in_line_until_served(self) -> None:
        standing = {client for line in self.plain.lines.values() for client, _ in line}
        assert {client for client, (_, waiter) in self.waits.items() if waiter.got is None} == standing
        for name in (b"a", b"b", b"c"):
            assert self.registry.waiters(name) == len(self.plain.lines.get(name, []))
            queue, line = self.registry.queues.get(name), self.registry.lines.find(name)
            assert queue is None or queue.line is line

    @invariant()
    def queues_have_numbers_of_their_own(self) -> None:
        numbers = [queue.log.record.number for queue in self.registry]
        assert len(set(numbers)) == len(numbers)


def drain(queue: MessageQueue) -> Iterator[OpenRead]:
    while (read := queue.open()) is not None:
        yield read


def as_put(queue: MessageQueue, read: OpenRead) -> Put:
    body, flags, expires_at_ms, added_at_ms = queue.item_of(read)
    return Put(read.id, whole_body(queue, body), flags, expires_at_ms, added_at_ms, isinstance(body, Blob))


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes thousands of items takes a few."""
    monkeypatch.setattr(window_module, "FILL_ITEMS", 3)
    monkeypatch.setattr(window_module, "FILL_BYTES", 2000)
    monkeypatch.setattr(window_module, "ACCOUNT_STEP_BYTES", 100)
    monkeypatch.setattr(journal_module, "STATE_EVERY", 4)
    monkeypatch.setattr(journal_module, "RECLAIM_ITEMS", 5)
    monkeypatch.setattr(journal_module, "RECLAIM_BYTES", 4000)


EXAMPLES = settings(
    max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)


@pytest.mark.usefixtures("small_steps")
def test_queues_agree_with_a_plain_model_whatever_is_done_and_goes_wrong() -> None:
    run_state_machine_as_test(Queues, settings=EXAMPLES)


@pytest.mark.parametrize("at_cursor", [False, True])
@pytest.mark.parametrize("given_back", [False, True])
@pytest.mark.parametrize("large", [False, True])
def test_an_item_that_expires_while_it_is_being_taken_is_taken(
    bench: Bench, at_cursor: bool, given_back: bool, large: bool
) -> None:
    if large:
        put_large(bench.queue, b"x" * 1000)
        bench.queue.flush()  # so that the queue knows the numbers of its chunks
    body = Blob(7, 1000) if large else b"x"
    bench.queue.put_until(body, 0, 1_001_000)
    bench.end_turn()
    place = bench.registry.cursors.of(bench.queue, b"c") if at_cursor else bench.queue
    if given_back:
        read = place.open()
        assert read is not None
        place.give_back(read)
    bench.end_turn()
    looks = iter([1000.999])
    bench.journal._clock = lambda: next(looks, 1002.0)
    item = place.take()
    if large:
        assert item is LARGE
        assert place.open() is not None
    else:
        assert item == (b"x", 0, 1_001_000, 1_000_000)
    bench.end_turn()
    assert place.peek() is None
