"""Disk use follows the live data, and sets are refused before the disk is full."""

import os
from collections.abc import Callable

import pytest

from darner_core.engines.local import compaction as upkeep_module
from darner_core.engines.local.compaction import COMPACT_BYTES, COMPACT_QUIET_BYTES, TRIM_WAL_BYTES, Compaction
from darner_core.engines.local.dead_ranges import MOST_CHUNK_RANGES
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.window import WindowBudget
from darner_core.errors import StorageError
from darner_core.storage.records import CHUNK_KEY_BYTES, Blob, QueueRecord, State, chunk_key
from darner_core.storage.storage import Storage

OpenStorage = Callable[[], Storage]
ITEM_BYTES = 32 << 10
CHUNK_BYTES = 64 << 10


class Bench:
    """The queue `q` in a data directory with its upkeep."""

    def __init__(self, open_storage: OpenStorage) -> None:
        self._open_storage = open_storage
        self._start()
        self.queue = self.registry.create(b"q")
        self.journal.commit()

    def _start(self) -> None:
        self.storage = self._open_storage()
        self.journal = Journal(self.storage)
        self.registry = Registry(self.journal, WindowBudget(1 << 20))
        self.upkeep = Compaction(self.registry, self.journal, min_free_bytes=1000)
        self.journal.commit()

    def crash(self) -> None:
        """Forget all that is in memory, and start again from what is on disk."""
        self.storage.close()
        self._start()
        self.queue = self.registry.queues.get(b"q") or self.registry.create(b"q")

    def tick(self, times: int = 1) -> int:
        """What the server does once a second; how many jobs there were."""
        count = 0
        for _ in range(times):
            jobs = self.upkeep.tick()
            self.journal.commit()
            for job in jobs:
                job()
            count += len(jobs)
        return count

    def disk_bytes(self) -> int:
        return sum(entry.stat().st_size for entry in os.scandir(self.storage.path))

    def stored(self, queue: MessageQueue) -> list[int]:
        """The ids of the items that are on disk."""
        return [item_id for item_id, _ in self.storage.items(queue.log.record, 1, 1 << 40)]


@pytest.fixture
def bench(open_storage: OpenStorage) -> Bench:
    return Bench(open_storage)


# -- disk use

FULL_BYTES = 40 << 20
# What may be left of it: too little to be worth a compaction, and the write-ahead log.
LEFT_BYTES = COMPACT_QUIET_BYTES + TRIM_WAL_BYTES + (1 << 20)


def fill(bench: Bench) -> None:
    for number in range(FULL_BYTES // ITEM_BYTES):
        bench.queue.put(bytes(ITEM_BYTES), 0, 0)
        if number % 8 == 7:
            bench.journal.commit()


def receive(bench: Bench) -> int:
    """The chunks of a large item; its blob."""
    blob = bench.queue.large_items.start()
    for index in range(FULL_BYTES // 2 // CHUNK_BYTES):
        bench.storage.put_chunk(bench.queue.log.record.number, blob, index, bytes(CHUNK_BYTES))
    return blob


def fill_with_large(bench: Bench) -> None:
    for _ in range(2):
        blob = receive(bench)
        bench.queue.large_items.finish(blob)
        bench.queue.put(Blob(blob, FULL_BYTES // 2), 0, 0)
        bench.journal.commit()


def drain(bench: Bench) -> None:
    while (read := bench.queue.open()) is not None:
        bench.queue.close(read)
        bench.journal.commit()


def drain_behind_an_open_item(bench: Bench) -> None:
    bench.queue.open()
    drain(bench)


def drain_in_two_halves_around_an_open_item(bench: Bench) -> None:
    for _ in range(FULL_BYTES // ITEM_BYTES // 2):
        bench.queue.take()
        bench.journal.commit()
    drain_behind_an_open_item(bench)


def drain_out_of_order(bench: Bench) -> None:
    reads = list(iter(bench.queue.open, None))
    bench.journal.commit()
    for read in reversed(reads):
        bench.queue.close(read)
        bench.journal.commit()


def flush(bench: Bench) -> None:
    bench.registry.flush(b"q")
    bench.journal.commit()


def flush_behind_an_open_item(bench: Bench) -> None:
    bench.queue.open()
    bench.journal.commit()
    flush(bench)


def delete(bench: Bench) -> None:
    bench.registry.delete(b"q")
    bench.journal.commit()


def give_up_half_way(bench: Bench) -> None:
    for _ in range(2):
        bench.queue.large_items.drop(receive(bench), FULL_BYTES // 2)
        bench.journal.commit()


def crash_half_way(bench: Bench) -> None:
    for _ in range(2):
        receive(bench)
    bench.crash()


EMPTIED: dict[str, list[Callable[[Bench], None]]] = {
    "drained": [fill, drain],
    "drained behind an open item": [fill, drain_behind_an_open_item],
    "drained in two halves around an open item": [fill, drain_in_two_halves_around_an_open_item],
    "drained out of order": [fill, drain_out_of_order],
    "flushed": [fill, flush],
    "flushed behind an open item": [fill, flush_behind_an_open_item],
    "deleted": [fill, delete],
    "drained, and then a crash": [fill, drain, Bench.crash],
    "flushed, and then a crash": [fill, flush, Bench.crash],
    "deleted, and then a crash": [fill, delete, Bench.crash],
    "a crash, and then drained": [fill, Bench.crash, drain],
    "large items drained": [fill_with_large, drain],
    "large items flushed": [fill_with_large, flush],
    "large items deleted": [fill_with_large, delete],
    "large items drained, and then a crash": [fill_with_large, drain, Bench.crash],
    "large items that did not arrive": [give_up_half_way],
    "large items that did not arrive because of a crash": [crash_half_way],
}


@pytest.mark.parametrize("how", EMPTIED)
def test_the_disk_is_given_back_when_a_queue_is_emptied(bench: Bench, how: str) -> None:
    other = bench.registry.create(b"other")
    for _ in range(10):
        other.put(bytes(1000), 0, 0)
    bench.journal.commit()
    for step in EMPTIED[how]:
        step(bench)
    for _ in range(10):  # RocksDB flushes and compacts when it has the time
        bench.tick(8)
        if bench.disk_bytes() < LEFT_BYTES:
            break
    assert bench.disk_bytes() < LEFT_BYTES
    other = bench.registry.queues[b"other"]
    assert [item[1:3] for item in iter(other.take, None) if isinstance(item, tuple)] == [(0, 0)] * 10


def test_what_is_live_stays_while_the_disk_is_given_back(bench: Bench) -> None:
    fill(bench)
    items = FULL_BYTES // ITEM_BYTES
    for _ in range(items - 100):
        bench.queue.take()
        bench.journal.commit()
    bench.tick(8)
    assert 100 * ITEM_BYTES < bench.disk_bytes() < 100 * ITEM_BYTES + LEFT_BYTES
    bench.crash()
    assert bench.queue.waiting_items == 100
    drain(bench)
    assert bench.queue.waiting_items == 0


@pytest.mark.parametrize("body_bytes", [1, ITEM_BYTES])
def test_what_is_live_is_not_written_anew_at_a_start(bench: Bench, body_bytes: int) -> None:
    for number in range(FULL_BYTES // 4 // (body_bytes + 100)):
        bench.queue.put(bytes(body_bytes), 0, 0)
        if number % 100 == 99:
            bench.journal.commit()
    bench.crash()
    compactions = Compactions(bench.storage)
    bench.tick(8)
    assert compactions.families == []


# -- when ranges are compacted

PLACE = QueueRecord(number=1, family=0, created_at_ms=0)


class Compactions:
    """Stands in for the storage's compaction: what was compacted, and whether it fails."""

    def __init__(self, storage: Storage) -> None:
        self.families: list[int] = []
        self.fails = False
        storage.compact = self.compact

    def compact(self, family: int, begin: bytes, end: bytes) -> None:
        if self.fails:
            raise StorageError("no space left on device")
        self.families.append(family)


def test_a_large_dead_range_is_compacted_at_once_and_once(bench: Bench) -> None:
    compactions = Compactions(bench.storage)
    bench.journal.dead.add_items(PLACE, 1, 2, COMPACT_BYTES)
    bench.tick()
    assert compactions.families == [PLACE.family]
    bench.tick(5)
    assert compactions.families == [PLACE.family]


def test_a_dead_range_that_grows_is_compacted_when_it_grows_no_more(bench: Bench) -> None:
    compactions = Compactions(bench.storage)
    for item_id in range(1, 6):
        bench.journal.dead.add_items(PLACE, item_id, item_id + 1, COMPACT_QUIET_BYTES)
        bench.tick()
        assert compactions.families == []
    bench.tick()
    assert compactions.families == [PLACE.family]


def test_a_dead_range_that_goes_on_growing_is_compacted_when_it_is_large(bench: Bench) -> None:
    compactions = Compactions(bench.storage)
    for item_id in range(1, 9):
        bench.journal.dead.add_items(PLACE, item_id, item_id + 1, COMPACT_BYTES // 4)
        bench.tick()
    assert compactions.families == [PLACE.family] * 2


def test_what_is_dead_and_small_is_let_lie_until_it_has_grown(bench: Bench) -> None:
    compactions = Compactions(bench.storage)
    for item_id in range(1, 5):
        bench.journal.dead.add_items(PLACE, item_id, item_id + 1, COMPACT_QUIET_BYTES // 4)
        assert compactions.families == []
        bench.tick(3)
    assert compactions.families == [PLACE.family]


def test_a_compaction_that_failed_is_tried_again_and_those_behind_it_too(bench: Bench) -> None:
    compactions = Compactions(bench.storage)
    for family in range(3):
        bench.journal.dead.add_items(PLACE._replace(family=family), 1, 2, COMPACT_BYTES)
    compactions.fails = True
    with pytest.raises(StorageError):
        bench.tick()
    compactions.fails = False
    bench.tick(2)
    assert sorted(compactions.families) == [0, 1, 2]


def test_after_a_compaction_a_long_write_ahead_log_is_let_go(bench: Bench) -> None:
    for _ in range(TRIM_WAL_BYTES // ITEM_BYTES + 10):
        bench.queue.put(bytes(ITEM_BYTES), 0, 0)
    bench.journal.commit()
    assert bench.tick(5) == 0  # nothing is dead
    assert bench.storage.wal_bytes() > TRIM_WAL_BYTES
    bench.journal.dead.add_items(PLACE, 1, 1, COMPACT_BYTES)
    bench.storage.compact = lambda *_: None  # which would let go of it too
    bench.tick(3)
    assert bench.storage.wal_bytes() < TRIM_WAL_BYTES


# -- queues that nobody uses


@pytest.fixture
def few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two queues are looked at in a tick."""
    monkeypatch.setattr(upkeep_module, "QUEUES_A_TICK", 2)


def test_what_is_dead_in_a_queue_that_nobody_uses_is_range_deleted(bench: Bench) -> None:
    for body in (b"a", b"b", b"c"):
        bench.queue.put(body, 0, 0)
    read = bench.queue.open()
    assert read is not None
    bench.queue.take()
    bench.journal.commit()
    bench.tick(4)
    assert bench.stored(bench.queue) == [1, 3]
    bench.queue.close(read)
    bench.journal.commit()
    assert bench.stored(bench.queue) == [1, 3]
    bench.tick(4)
    assert bench.stored(bench.queue) == [3]
    assert bench.queue.take() is not None


def test_a_queue_in_use_is_left_alone(bench: Bench) -> None:
    for _ in range(10):
        bench.queue.put(b"x", 0, 0)
        bench.queue.put(b"x", 0, 0)
        bench.journal.commit()
        bench.queue.take()
        bench.queue.take()
        bench.tick()
    assert len(bench.stored(bench.queue)) == 20


@pytest.mark.usefixtures("few_at_a_time")
def test_all_queues_have_their_turn(bench: Bench) -> None:
    queues = [bench.registry.create(b"%d" % number) for number in range(9)]
    for queue in queues:
        for body in (b"a", b"b"):
            queue.put(body, 0, 0)
        bench.journal.commit()
        queue.take()
    bench.registry.delete(b"3")
    bench.tick()
    bench.registry.delete(b"5")
    bench.registry.create(b"5").put(b"new", 0, 0)
    bench.tick(20)
    for queue in queues:
        assert bench.stored(queue) == ([] if queue.deleted else [2])
        if queue.deleted:
            assert bench.storage.state(queue.log.record) == State()  # there is none
    assert bench.stored(bench.registry.queues[b"5"]) == [1]


def test_a_queue_that_was_visited_goes_on_as_before(bench: Bench) -> None:
    for _ in range(3):
        bench.queue.put(b"a", 0, 0)
        assert bench.queue.take() is not None
        bench.tick(4)
        assert bench.queue.take() is None
    bench.crash()
    bench.queue.put(b"b", 0, 0)
    bench.journal.commit()
    assert bench.queue.waiting_items == 1


def test_a_tick_with_nothing_to_do_writes_nothing(bench: Bench) -> None:
    bench.queue.put(b"a", 0, 0)
    bench.journal.commit()
    for _ in range(5):
        assert bench.upkeep.tick() == []
        assert bench.journal.commit() is False


# -- room on the disk


@pytest.mark.parametrize("free_bytes", [1000, 1001, 10**15])
def test_there_is_room_while_as_much_is_free_as_was_asked_for(bench: Bench, free_bytes: int) -> None:
    bench.storage.free_bytes = lambda: free_bytes
    assert bench.upkeep.no_room() == ""


@pytest.mark.parametrize("free_bytes", [0, 999])
def test_when_there_is_no_room_it_says_how_much_is_missing(bench: Bench, free_bytes: int) -> None:
    bench.storage.free_bytes = lambda: free_bytes
    assert bench.upkeep.no_room() == f"out of disk space: {free_bytes} bytes free, sets need 1000"


# -- queues that are deleted


def test_deleted_queues_are_not_remembered(bench: Bench) -> None:
    for number in range(200):
        bench.registry.create(b"%d" % number).put(b"x", 0, 0)
        bench.journal.commit()
        bench.registry.delete(b"%d" % number)
        bench.journal.commit()
    assert len(bench.journal.dead.ranges) <= len(bench.storage.families)
    bench.tick(3)
    assert len(bench.upkeep._seen) <= len(bench.storage.families)


def test_of_deleted_queues_with_large_items_only_so_much_is_remembered_and_all_is_given_back(bench: Bench) -> None:
    compacted: list[tuple[bytes, bytes]] = []
    bench.storage.compact = lambda family, begin, end: compacted.append((begin, end))
    dead_bytes = COMPACT_QUIET_BYTES // 10
    for number in range(1, 1001):
        bench.journal.dead.add_queue(PLACE._replace(number=number), dead_bytes, has_chunks=True)
        assert len(bench.journal.dead.ranges) <= MOST_CHUNK_RANGES + 1
    assert sum(found.dead_bytes for found in bench.journal.dead.ranges.values()) == 2 * 1000 * dead_bytes
    bench.tick(3)
    bench.journal.dead.ranges.pop((PLACE.family, 0), None)
    spans = sorted((found.begin, found.end) for found in bench.journal.dead.ranges.values())
    spans += [span for span in compacted if len(span[0]) == CHUNK_KEY_BYTES]
    for number in range(1, 1001):
        assert any(begin <= chunk_key(number, 1, 0) < end for begin, end in spans)
    assert len(spans) < 1000 // 8
    assert len(bench.journal.dead.ranges) < MOST_CHUNK_RANGES


@pytest.mark.usefixtures("few_at_a_time")
def test_only_so_many_queues_are_tidied_up_in_one_tick(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep_module, "QUEUES_A_TICK", 100)
    monkeypatch.setattr(upkeep_module, "RECLAIMED_A_TICK", 3)
    for number in range(10):
        queue = bench.registry.create(b"%d" % number)
        queue.put(b"x", 0, 0)
        queue.flush()
    bench.journal.commit()
    bench.tick()
    left: list[int] = []
    while not left or left[-1]:
        bench.tick()
        left.append(sum(queue.first_id() > queue.log.reclaimed for queue in bench.registry))
    assert left == [7, 4, 1, 0]
