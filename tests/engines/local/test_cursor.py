"""What a cursor hands out, and what it keeps: seen from the calls that the commands make, and against a plain model."""

import copy
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from darner_core.config.queues import QueueOptions
from darner_core.engines.large_items import LARGE
from darner_core.engines.local import cursor_log as cursor_log_module
from darner_core.engines.local import journal as journal_module
from darner_core.engines.local import window as window_module
from darner_core.engines.local.compaction import Compaction
from darner_core.engines.local.cursor import Cursor
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.reads import OpenRead
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.window import WindowBudget
from darner_core.errors import StorageError
from darner_core.operations.session import Session
from darner_core.storage.storage import Storage
from tests.conftest import SMALL
from tests.engines.local.test_message_queue import put_large, refusing_writes, whole_body
from tests.support.bench import Bench as ExpiryBench

OpenStorage = Callable[[], Storage]


class Bench:
    """The queue `q` with the cursor `c`, and the ends of its turns."""

    def __init__(self, open_storage: OpenStorage) -> None:
        self._open_storage = open_storage
        self._start()
        self.queue = self.registry.create(b"q")
        self.end_turn()

    def _start(self) -> None:
        self.storage = self._open_storage()
        self.journal = Journal(self.storage, lambda: 1000.0)
        self.registry = Registry(self.journal, WindowBudget(1 << 20))

    @property
    def cursor(self) -> Cursor:
        return self.of(b"c")

    def of(self, name: bytes) -> Cursor:
        cursor = self.registry.cursors.of(self.queue, name)
        assert isinstance(cursor, Cursor)
        return cursor

    def end_turn(self) -> None:
        self.journal.commit()

    def fail_turn(self) -> None:
        with refusing_writes(self.storage), pytest.raises(StorageError):
            self.end_turn()
        self.registry.recheck()
        self.end_turn()

    def crash(self) -> None:
        self.storage.close()
        self._start()
        self.queue = self.registry.queues[b"q"]

    def put(self, *bodies: bytes) -> None:
        for body in bodies:
            self.queue.put(body, 0, 0)
        self.end_turn()

    def open(self, queue: Any = None) -> OpenRead:
        read = (queue or self.cursor).open()
        assert read is not None
        self.end_turn()
        return read

    def take(self, queue: Any = None) -> bytes | None:
        item = (queue or self.cursor).take()
        self.end_turn()
        if item is None:
            return None
        assert isinstance(item, tuple)
        assert isinstance(item[0], bytes)
        return item[0]

    def take_all(self) -> list[bytes]:
        bodies = []
        while (body := self.take()) is not None:
            bodies.append(body)
        return bodies

    def own_records(self) -> list[int]:
        return [item_id for item_id, _ in self.storage.cursor_items(self.cursor.log.record)]


@pytest.fixture
def bench(open_storage: OpenStorage) -> Bench:
    return Bench(open_storage)


# -- reading


def test_a_cursor_reads_all_in_order_and_leaves_it_to_the_queue(bench: Bench) -> None:
    bench.put(b"a", b"b", b"c")
    assert bench.take_all() == [b"a", b"b", b"c"]
    bench.put(b"d")
    assert bench.take_all() == [b"d"]
    assert [bench.take(bench.queue) for _ in range(5)] == [b"a", b"b", b"c", b"d", None]


def test_cursors_do_not_disturb_each_other(bench: Bench) -> None:
    bench.put(b"a", b"b")
    first, second = bench.of(b"1"), bench.of(b"2")
    read = bench.open(first)
    assert [bench.take(second), bench.take(first), bench.take(second), bench.take(second)] == [b"a", b"b", b"b", None]
    first.give_back(read)
    assert bench.take(first) == b"a"


def test_a_cursor_behind_the_head_goes_on_at_the_head(bench: Bench) -> None:
    bench.put(*(b"%d" % number for number in range(2000)))
    assert bench.take() == b"0"
    for _ in range(1000):
        bench.queue.take()
    bench.end_turn()
    assert bench.take() == b"1000"
    assert bench.cursor.waiting_items == 999


def test_what_is_open_in_the_queue_is_passed_over_and_seen_again_if_it_comes_back_in_time(bench: Bench) -> None:
    bench.put(b"a", b"b", b"c", b"d")
    first, second = bench.open(bench.queue), bench.open(bench.queue)
    bench.queue.give_back(second)
    assert bench.take() == b"b"
    bench.queue.give_back(first)
    assert bench.take() == b"c"  # the cursor was past it
    third = [bench.open(bench.queue) for _ in range(4)][3]
    assert bench.take() is None
    bench.queue.give_back(third)
    assert bench.take() == b"d"


def test_a_peek_moves_nothing(bench: Bench) -> None:
    bench.put(b"a")
    for _ in range(2):
        item = bench.cursor.peek()
        assert item is not None
        assert (item[0], bench.cursor.head_id) == (b"a", 1)
    assert bench.take() == b"a"
    assert (bench.cursor.peek(), bench.cursor.head_id) == (None, 0)


def test_an_item_of_the_same_turn_is_read_from_memory(bench: Bench) -> None:
    cursor = bench.cursor
    for body in (b"a", b"b"):
        bench.queue.put(body, 0, 0)
    assert cursor.take() == (b"a", 0, 0, 1_000_000)
    read = cursor.open()
    assert read is not None
    bench.queue.take()
    bench.queue.take()
    bench.end_turn()
    assert cursor.item_of(read)[0] == b"b"
    bench.crash()
    assert bench.take_all() == [b"b"]


# -- large items


def has_chunks(bench: Bench, blob: int) -> bool:
    with suppress(StorageError):
        bench.storage.chunk(bench.queue.log.record.number, blob, 0)
        return True
    return False


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("how", ["close", "flush", "delete"])
def test_the_chunks_of_a_large_item_stay_until_the_last_has_closed_it(bench: Bench, how: str, restarted: bool) -> None:
    put_large(bench.queue, b"x" * 1000)
    put_large(bench.queue, b"y" * 1000)
    bench.end_turn()
    assert bench.cursor.take() is LARGE
    for name in (b"c", b"d"):
        bench.open(bench.of(name))
    bench.queue.close(bench.open(bench.queue))
    bench.queue.flush()
    bench.end_turn()
    assert [has_chunks(bench, 1), has_chunks(bench, 2)] == [True, False]
    if restarted:
        bench.crash()
    for left, name in (True, b"c"), (False, b"d"):
        cursor = bench.of(name)
        (read,) = cursor.outstanding.values()
        assert whole_body(bench.queue, cursor.log.read_one(read.id)[0]) == b"x" * 1000
        if how == "delete":
            bench.registry.cursors.delete(b"q", name)
        elif how == "close":
            if read.returned:
                read = bench.open(cursor)
            cursor.close(read)
        else:
            cursor.give_back(read)
            cursor.flush()
        bench.end_turn()
        assert has_chunks(bench, 1) == left


def test_chunks_that_the_queue_needs_still_stay(bench: Bench) -> None:
    put_large(bench.queue, b"x" * 1000)
    bench.end_turn()
    bench.cursor.close(bench.open())
    bench.end_turn()
    assert has_chunks(bench, 1)
    bench.queue.close(bench.open(bench.queue))
    bench.end_turn()
    assert not has_chunks(bench, 1)


# -- going back, going


def test_a_flush_goes_back_to_the_head_and_leaves_what_is_open(bench: Bench) -> None:
    bench.put(b"a", b"b", b"c", b"d", b"e")
    assert [bench.take(), bench.take(bench.queue)] == [b"a", b"a"]
    second, third, fourth = bench.open(), bench.open(), bench.open()
    bench.cursor.give_back(third)
    bench.cursor.flush()
    bench.end_turn()
    assert bench.cursor.holds(second)
    assert bench.take() == b"c"
    bench.crash()
    assert bench.take_all() == [b"b", b"d", b"e"]
    assert bench.cursor.outstanding == {}
    assert not bench.cursor.holds(fourth)


def test_a_deleted_cursor_begins_anew_and_a_deleted_queue_takes_its_cursors_with_it(bench: Bench) -> None:
    bench.put(b"a", b"b")
    bench.open()
    bench.registry.cursors.delete(b"q", b"c")
    bench.end_turn()
    assert bench.queue.cursors is None
    bench.crash()
    assert bench.queue.cursors is None
    assert bench.take_all() == [b"a", b"b"]
    read = bench.open(bench.of(b"d"))
    bench.registry.delete(b"q")
    bench.end_turn()
    assert not read.queue.holds(read)
    bench.queue = bench.registry.create(b"q")
    bench.end_turn()
    bench.crash()
    assert bench.storage.cursors() == []
    assert bench.registry.cursors.count == 0


# -- turns that cannot be written


def test_a_failed_turn_has_not_moved_a_cursor_nor_kept_anything(bench: Bench) -> None:
    bench.put(b"a", b"b", b"c", b"d")
    held, session = bench.open(), Session(bench.journal)
    session.open_read = held
    bench.take()
    session.close_read()
    assert bench.cursor.take() == (b"c", 0, 0, 1_000_000)
    bench.cursor.open()
    bench.queue.take()
    bench.registry.cursors.flush(b"q", b"c")
    bench.of(b"new")
    bench.fail_turn()
    assert list(bench.queue.cursors or ()) == [b"c"]
    assert session.open_read is held
    assert bench.cursor.holds(held)
    assert (bench.own_records(), bench.cursor.copied) == ([1], set())
    assert bench.take(bench.queue) == b"a"  # and now it is kept
    assert bench.own_records() == [1]
    bench.crash()
    assert bench.take_all() == [b"a", b"c", b"d"]


def test_what_a_cursor_has_looked_at_in_a_turn_that_failed_never_comes(bench: Bench) -> None:
    assert bench.cursor.peek() is None
    bench.end_turn()
    bench.queue.put(b"never stored", 0, 0)
    assert bench.cursor.peek() == (b"never stored", 0, 0, 1_000_000)
    bench.fail_turn()
    bench.put(b"stored")
    assert bench.cursor.take() == (b"stored", 0, 0, 1_000_000)


def test_a_delete_that_failed_forgets_nothing_of_what_the_queue_removes_next(bench: Bench) -> None:
    bench.put(b"a", b"b", b"c")
    bench.open()
    bench.queue.take()
    bench.registry.cursors.delete(b"q", b"c")
    bench.fail_turn()
    assert bench.take(bench.queue) == b"a"
    bench.crash()
    assert bench.take_all() == [b"a", b"b", b"c"]


# -- a plain model


class Item(NamedTuple):
    id: int
    body: bytes


class PlainPlace:
    """A queue, or a cursor on it: what is open and given back there."""

    def __init__(self) -> None:
        self.next = self.place = 1
        self.open: dict[int, Item] = {}
        self.returned: dict[int, Item] = {}
        self.marked: set[int] = set()  # what was outstanding at the end of a turn in which the cursor was put back
        self.put_back = False

    @property
    def outstanding(self) -> dict[int, Item]:
        return self.open | self.returned


class Plain:
    def __init__(self) -> None:
        self.tail = 1
        self.waiting: dict[int, Item] = {}  # in the queue, given back ones too
        self.open: dict[int, Item] = {}
        self.cursors: dict[bytes, PlainPlace] = {}

    def cursor(self, name: bytes) -> PlainPlace:
        if name not in self.cursors:
            self.cursors[name] = cursor = PlainPlace()
            cursor.next = cursor.place = min(self.waiting, default=self.tail)
        return self.cursors[name]

    def to_come(self, name: bytes) -> list[Item]:
        """What a reader is going to see, in order."""
        if not name:
            return [self.waiting[item_id] for item_id in sorted(self.waiting)]
        cursor = self.cursor(name)
        new = {i: item for i, item in self.waiting.items() if i >= cursor.next and i not in cursor.outstanding}
        return sorted([*new.values(), *cursor.returned.values()])

    def hand_out(self, name: bytes) -> Item:
        item = self.to_come(name)[0]
        if not name:
            self.open[item.id] = self.waiting.pop(item.id)
            return item
        cursor = self.cursor(name)
        cursor.returned.pop(item.id, None)
        cursor.next = max(cursor.next, item.id + 1)
        cursor.open[item.id] = item
        return item

    def close(self, name: bytes, item: Item) -> None:
        if not name:
            self.open.pop(item.id, None)
        elif name in self.cursors and self.cursors[name].open.pop(item.id, None) is not None:
            cursor = self.cursors[name]
            cursor.marked.discard(item.id)
            if item.id < cursor.next:
                cursor.place = max(cursor.place, item.id + 1)

    def give_back(self, name: bytes, item: Item) -> None:
        if not name:
            if self.open.pop(item.id, None):
                self.waiting[item.id] = item
        elif name in self.cursors and self.cursors[name].open.pop(item.id, None) is not None:
            self.cursors[name].returned[item.id] = item

    def flush(self, name: bytes) -> None:
        if not name:
            self.waiting = {}
            return
        cursor = self.cursors[name]
        cursor.returned = {}
        cursor.put_back = True
        cursor.next = cursor.place = min(self.waiting, default=self.tail)

    def turn_written(self) -> None:
        for cursor in self.cursors.values():
            if cursor.put_back:
                cursor.marked = set(cursor.outstanding)
                cursor.put_back = False

    def restart(self) -> None:
        self.waiting |= self.open
        self.open = {}
        for cursor in self.cursors.values():
            cursor.next = cursor.place
            cursor.returned = {
                i: item
                for i, item in cursor.outstanding.items()
                if i < cursor.place or i not in self.waiting or i in cursor.marked
            }
            cursor.open = {}


PLACES = st.sampled_from([b"", b"", b"c", b"c", b"d"])
CLIENT_COUNT = 7
DEEDS = [
    *["open", "close"] * 10, *["take", "abort", "put"] * 3, "hang_up", "peek", "flush", "delete_cursor",
    "fail_turn", "fail_turn", "restart", "crash", "read_all", "finish", "tidy_up",
]  # fmt: skip


class CursorsOfOneQueue(RuleBasedStateMachine):
    """A queue and two cursors on it, read by seven clients: turns fail, the server is stopped and killed."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.storage = Storage(str(Path(self.directory.name) / "data"), **{**SMALL, "max_column_families": 1})
        self.plain = Plain()
        self.bodies = 0
        self.refills = True  # the queue is never empty for long
        self.start()
        self.registry.create(b"q")
        self.journal.commit()

    def teardown(self) -> None:
        self.storage.close()
        self.directory.cleanup()

    def start(self) -> None:
        self.journal = Journal(self.storage, lambda: 1000.0)
        self.registry = Registry(self.journal, WindowBudget(3000))
        self.upkeep = Compaction(self.registry, self.journal, 0)
        self.sessions = [Session(self.journal) for _ in range(CLIENT_COUNT)]
        self.held: dict[int, tuple[bytes, Item]] = {}
        self.journal.commit()
        self.begin_turn()

    def begin_turn(self) -> None:
        self.before = copy.deepcopy((self.plain, self.held))
        self.gone: set[int] = set()
        if self.refills and b"q" in self.registry.queues and len(self.plain.waiting) < 4:
            self.put(6, 300 * (self.bodies % 2), large=self.bodies % 3 == 0)

    @property
    def queue(self) -> MessageQueue:
        return self.registry.queues[b"q"]

    def at(self, name: bytes) -> Any:
        self.plain.cursor(name) if name else None
        return self.registry.cursors.of(self.queue, name) if name else self.queue

    def body_of(self, place: Any, read: Any) -> bytes:
        return whole_body(self.queue, place.item_of(read)[0])

    # One rule: left to choose among many, hypothesis leaves out half of them in each run, and there is little to be
    # lost in a run without opens, or with as many crashes as opens.
    @rule(
        do=st.sampled_from(DEEDS),
        name=PLACES,
        count=st.integers(1, 4),
        size=st.sampled_from([0, 300, 1500]),
        large=st.sampled_from([False, False, True]),
        ends=st.booleans(),
    )
    def step(self, do: str, name: bytes, count: int, size: int, large: bool, ends: bool) -> None:
        if do == "put":
            self.put(count, size, large)
        elif do in ("take", "open"):
            getattr(self, do)(name, count)
        elif do in ("close", "abort", "hang_up"):
            if self.held:
                getattr(self, do)(sorted(self.held)[count % len(self.held)])
        elif do in ("peek", "flush", "read_all"):
            getattr(self, do)(name)
        elif do == "delete_cursor":
            self.delete_cursor(name or b"c")
        else:
            getattr(self, do)()
        if ends:
            self.end_turn()

    def put(self, count: int, size: int, large: bool) -> None:
        for _ in range(count):
            self.bodies += 1
            body = b"%d " % self.bodies + b"x" * size
            if large:
                put_large(self.queue, body)
            else:
                self.queue.put(body, 0, 0)
            self.plain.waiting[self.plain.tail] = Item(self.plain.tail, body)
            self.plain.tail += 1

    def take(self, name: bytes, count: int) -> None:
        place = self.at(name)
        for _ in range(count):
            item, expected = place.take(), self.plain.to_come(name)
            assert (item is None) == (not expected)
            if not isinstance(item, tuple):
                break
            assert item[0] == expected[0].body
            self.plain.close(name, self.plain.hand_out(name))

    def peek(self, name: bytes) -> None:
        place, expected = self.at(name), self.plain.to_come(name)
        item = place.peek()
        assert (item is None) == (not expected)
        if item is not None:
            assert Item(place.head_id, whole_body(self.queue, item[0])) == expected[0]

    def open(self, name: bytes, count: int) -> None:
        free = [client for client in range(CLIENT_COUNT) if client not in self.held]
        for client in free[:count]:
            read = self.at(name).open()
            assert (read is None) == (not self.plain.to_come(name))
            if read is not None:
                self.sessions[client].hold(read)
                self.held[client] = name, self.plain.hand_out(name)

    def close(self, client: int) -> None:
        self.sessions[client].close_read()
        self.plain.close(*self.held.pop(client))

    def abort(self, client: int) -> None:
        self.sessions[client].abort_read()
        self.plain.give_back(*self.held.pop(client))

    def hang_up(self, client: int) -> None:
        self.sessions[client].end()
        self.sessions[client] = Session(self.journal)
        self.gone.add(client)
        if client in self.held:
            self.plain.give_back(*self.held.pop(client))

    def flush(self, name: bytes) -> None:
        self.at(name).flush()
        self.plain.flush(name)

    def delete_cursor(self, name: bytes) -> None:
        self.registry.cursors.delete(b"q", name)
        self.plain.cursors.pop(name, None)
        for client, (held_at, _) in list(self.held.items()):
            if held_at == name:
                self.hang_up(client)

    def tidy_up(self) -> None:
        for job in self.upkeep.tick():
            job()

    def end_turn(self) -> None:
        self.journal.commit()
        self.plain.turn_written()
        self.begin_turn()

    def fail_turn(self) -> None:
        try:
            with refusing_writes(self.storage):
                self.journal.commit()
        except StorageError:
            self.plain, self.held = self.before
            for client in self.gone:
                if client in self.held:
                    self.plain.give_back(*self.held.pop(client))
        else:
            self.plain.turn_written()
        self.registry.recheck()
        self.journal.commit()
        self.begin_turn()

    def restart(self) -> None:
        self.registry.record_all()
        self.journal.commit()
        self.plain.turn_written()
        self.plain.restart()
        self.start()

    def crash(self) -> None:
        self.plain, _ = self.before
        self.plain.restart()
        self.start()

    def read_all(self, name: bytes) -> None:
        """After a crash, all that is to come does, in order."""
        self.end_turn()
        self.crash()
        place = self.at(name)
        for expected in self.plain.to_come(name):
            read = place.open()
            assert read is not None
            assert Item(read.id, self.body_of(place, read)) == expected
            place.close(read)
            self.plain.close(name, self.plain.hand_out(name))
        assert place.open() is None

    def finish(self) -> None:
        """When all have read all, nothing is left on disk: no record, no chunk."""
        self.refills = False
        for name in (*self.plain.cursors, b""):
            self.read_all(name)
        self.end_turn()
        self.refills = True
        assert self.storage.last_blob(self.queue.log.record.number) == 0
        for cursor in self.registry.cursors:
            assert list(self.storage.cursor_items(cursor.log.record)) == []

    @invariant()
    def the_figures_are_true(self) -> None:
        assert sorted(self.queue.cursors or ()) == sorted(self.plain.cursors)
        for cursor in self.registry.cursors:
            assert cursor.waiting_items == len(self.plain.to_come(cursor.short))
            assert cursor.open_reads == len(self.plain.cursors[cursor.short].open)
        assert self.queue.waiting_items == len(self.plain.waiting)

    @invariant()
    def what_is_open_can_be_read(self) -> None:
        for client, session in enumerate(self.sessions):
            assert (session.open_read is not None) == (client in self.held)
            if session.open_read is not None:
                read = session.open_read
                assert read.queue.holds(read)
                assert Item(read.id, self.body_of(read.queue, read)) == self.held[client][1]


EXAMPLES = settings(
    max_examples=40, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes thousands of items takes a few."""
    monkeypatch.setattr(window_module, "FILL_ITEMS", 6)
    monkeypatch.setattr(window_module, "FILL_BYTES", 2000)
    monkeypatch.setattr(cursor_log_module, "NEAR_ITEMS", 2)
    monkeypatch.setattr(journal_module, "STATE_EVERY", 4)
    monkeypatch.setattr(journal_module, "RECLAIM_ITEMS", 5)
    monkeypatch.setattr(journal_module, "RECLAIM_BYTES", 4000)


@pytest.mark.usefixtures("small_steps")
def test_a_queue_and_its_cursors_agree_with_a_plain_model_whatever_is_done_and_goes_wrong() -> None:
    run_state_machine_as_test(CursorsOfOneQueue, settings=EXAMPLES)


# -- expiry: see `sweeper`, too


def test_what_is_behind_very_many_that_have_expired_is_found_in_turns(open_storage: OpenStorage) -> None:
    bench = ExpiryBench(open_storage)
    bench.put(b"q", b"first")
    cursor = bench.registry.cursors.of(bench.queue(), b"c")
    bench.put(b"q", *[b"x"] * 2500, expires_in_s=1)
    bench.put(b"q", b"last")
    bench.end_turn()
    bench.now_s += 2
    got: list[object] = []
    while not got or cursor.half_swept:
        got.append(cursor.take())
        got.append(cursor.take())
        bench.end_turn()
    assert [item[0] for item in got if isinstance(item, tuple)] == [b"first", b"last"]


def test_an_age_that_has_changed_is_that_of_what_a_cursor_has_open_too(open_storage: OpenStorage) -> None:
    bench = ExpiryBench(open_storage, q=QueueOptions(max_age_s=100))
    bench.put(b"q", b"1")
    cursor = bench.registry.cursors.of(bench.queue(), b"c")
    read = cursor.open()
    assert read is not None
    bench.end_turn()
    bench.rules.options[b"q"] = QueueOptions(max_age_s=4)
    list(bench.registry.set_rules(bench.rules))
    bench.now_s += 6
    cursor.give_back(read)
    assert cursor.take() is None
