"""Queues by name: making, removing and finding them, in memory and after a restart."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from darner_core.config.queues import QueueRules
from darner_core.engines.local import registry as registry_module
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.window import WindowBudget
from darner_core.errors import StorageError
from darner_core.storage import records, wal
from darner_core.storage.records import Blob, QueueRecord, State
from darner_core.storage.storage import DEFAULT_FAMILY, Storage
from darner_core.waiters import Waiter
from tests.support.bench import items_put
from tests.support.moved_clock import MovedClock

OpenStorage = Callable[[], Storage]


class Bench(MovedClock):
    """A registry over a data directory."""

    def __init__(self, open_storage: OpenStorage) -> None:
        self._open_storage = open_storage
        self.now_s = 1000.0
        self._start()

    def _start(self) -> None:
        self.storage = self._open_storage()
        self.journal = Journal(self.storage, lambda: self.now_s)
        self.budget = WindowBudget(1 << 20)
        self.registry = Registry(self.journal, self.budget)

    def crash(self) -> None:
        """Forget all that is in memory, and start again from what is on disk."""
        self.storage.close()
        self._start()

    def stop_and_start(self) -> None:
        """What a server does when it is stopped, and started again."""
        self.registry.record_all()
        self.end_turn()
        self.crash()

    def end_turn(self) -> None:
        self.journal.commit()

    def fail_turn(self) -> None:
        def refuse(*_: Any) -> None:
            raise StorageError("no space left on device")

        whole = self.storage.write, self.storage.put
        self.storage.write = refuse  # type: ignore[assignment]
        self.storage.put = refuse  # type: ignore[assignment]
        with pytest.raises(StorageError):
            self.end_turn()
        self.storage.write, self.storage.put = whole

    def create(self, *names: bytes) -> list[MessageQueue]:
        queues = [self.registry.create(name) for name in names]
        self.end_turn()
        return queues

    def delete(self, *names: bytes) -> None:
        for name in names:
            self.registry.delete(name)
        self.end_turn()

    def wait_at(self, name: bytes, cursor: bytes = b"") -> Waiter:
        """Join the line at a queue, as a client that waits does."""
        return self.registry.join_line(name, cursor, peeks=False)

    def stop_waiting(self, waiter: Waiter, name: bytes = b"q", cursor: bytes = b"") -> None:
        """What a client does when its wait is over, however it ended."""
        waiter.cancel()
        self.registry.leave_line(name, cursor)

    def awaited(self) -> list[bytes]:
        """Queues that do not exist, and that clients wait for."""
        return [name for name in self.registry.lines.names() if name not in self.registry.queues]

    def families(self) -> dict[bytes, int]:
        return {queue.name: queue.log.record.family for queue in self.registry}

    def names_on_disk(self) -> list[bytes]:
        return sorted(name for name, _ in self.storage.queues())


@pytest.fixture
def bench(open_storage: OpenStorage) -> Bench:
    return Bench(open_storage)


def body_of(waiter: Waiter) -> object:
    return waiter.got.queue.item_of(waiter.got)[0]


# -- making and removing


def test_a_new_directory_has_no_queues(bench: Bench) -> None:
    assert list(bench.registry) == []
    assert bench.registry.queues == {}
    assert items_put(bench.registry) == 0


def test_a_queue_that_was_made_is_found_by_its_name_and_after_a_crash_too(bench: Bench) -> None:
    names = [b"jobs", b"jobs2", b"JOBS", b"\xff" * 250]
    queues = bench.create(*names)
    assert [bench.registry.queues[name] for name in names] == queues
    bench.crash()
    assert sorted(bench.registry.queues) == sorted(names)
    assert [bench.registry.queues[name].name for name in names] == names


def test_a_queue_is_as_old_as_the_turn_it_was_made_in(bench: Bench) -> None:
    bench.create(b"first")
    bench.now_s = 5000.0  # an hour in which nothing happened
    bench.create(b"second")
    bench.now_s = 6000.0
    bench.registry.create(b"third").put(b"x", 0, 0)
    bench.end_turn()
    bench.crash()
    ages = {queue.name: queue.log.record.created_at_ms for queue in bench.registry}
    assert ages == {b"first": 1_000_000, b"second": 5_000_000, b"third": 6_000_000}


def test_a_deleted_queue_is_gone_with_all_that_it_held(bench: Bench) -> None:
    queue, other = bench.create(b"q", b"other")
    for body in (b"a", b"b"):
        queue.put(body, 0, 0)
        other.put(body, 0, 0)
    read = queue.open()
    assert read is not None
    bench.delete(b"q")
    assert b"q" not in bench.registry.queues
    assert not queue.holds(read)
    queue.close(read)
    bench.end_turn()
    bench.crash()
    assert list(bench.registry.queues) == [b"other"]
    (again,) = bench.create(b"q")
    assert again.take() is None
    assert bench.registry.queues[b"other"].waiting_items == 2


def test_a_deleted_queue_takes_its_large_items_with_it(bench: Bench) -> None:
    (queue,) = bench.create(b"q")
    number, blob = queue.log.record.number, queue.large_items.start()
    bench.storage.put_chunk(number, blob, 0, b"chunk")
    queue.large_items.finish(blob)
    queue.put(Blob(blob, 5), 0, 0)
    bench.end_turn()
    bench.delete(b"q")
    with pytest.raises(StorageError, match="missing"):
        bench.storage.chunk(number, blob, 0)


def test_a_queue_can_be_deleted_and_made_again_in_one_turn(bench: Bench) -> None:
    (queue,) = bench.create(b"q")
    queue.put(b"old", 0, 0)
    bench.end_turn()
    queue.put(b"old too", 0, 0)
    bench.registry.delete(b"q")
    bench.registry.create(b"q").put(b"new", 0, 0)
    bench.end_turn()
    assert bench.registry.queues[b"q"].peek() == (b"new", 0, 0, 1_000_000)
    bench.crash()
    assert bench.registry.queues[b"q"].waiting_items == 1
    assert bench.registry.queues[b"q"].peek() == (b"new", 0, 0, 1_000_000)


def test_deleting_and_flushing_what_does_not_exist_changes_nothing(bench: Bench) -> None:
    bench.registry.delete(b"nobody")
    bench.registry.flush(b"nobody")
    assert bench.journal.commit() is False
    assert (bench.registry.creates, bench.registry.deletes) == (0, 0)
    assert bench.registry.queues == {}


def test_a_flush_empties_the_queue_of_that_name(bench: Bench) -> None:
    for queue in bench.create(b"a", b"b"):
        queue.put(b"x", 0, 0)
    bench.registry.flush(b"a")
    bench.end_turn()
    bench.crash()
    assert [bench.registry.queues[name].waiting_items for name in (b"a", b"b")] == [0, 1]


def test_the_memory_of_a_deleted_queue_is_free_for_others(bench: Bench) -> None:
    (queue,) = bench.create(b"q")
    queue.put(bytes(100_000), 0, 0)
    bench.end_turn()
    assert bench.budget.used_bytes > 100_000
    bench.delete(b"q")
    assert bench.budget.used_bytes == 0


def test_the_figures_count_what_deleted_queues_were_given(bench: Bench) -> None:
    a, b = bench.create(b"a", b"b")
    for queue in (a, a, b):
        queue.put(b"x", 0, 0)
    bench.delete(b"a")
    bench.create(b"a")[0].put(b"x", 0, 0)
    assert (bench.registry.creates, bench.registry.deletes, items_put(bench.registry)) == (3, 1, 4)
    bench.registry.delete(b"b")
    bench.registry.create(b"c").put(b"x", 0, 0)
    assert (bench.registry.creates, bench.registry.deletes, items_put(bench.registry)) == (4, 2, 5)
    bench.fail_turn()  # and with it the last put into `a`
    assert (bench.registry.creates, bench.registry.deletes, items_put(bench.registry)) == (3, 1, 3)


# -- starting


def test_what_a_crash_cut_off_half_way_is_removed_in_the_first_turn(bench: Bench) -> None:
    (queue,) = bench.create(b"q")
    number = queue.log.record.number
    whole, half, none = (queue.large_items.start() for _ in range(3))
    for blob in (whole, half):
        bench.storage.put_chunk(number, blob, 0, b"chunk")
        bench.storage.put_chunk(number, blob, 1, b"chunk")
    queue.large_items.finish(whole)
    queue.put(Blob(whole, 10), 0, 0)
    bench.end_turn()
    bench.crash()
    assert bench.storage.unfinished_uploads() == [(number, half), (number, none)]
    bench.end_turn()
    assert bench.storage.unfinished_uploads() == []
    assert [bench.storage.chunk(number, whole, index) for index in (0, 1)] == [b"chunk"] * 2
    with pytest.raises(StorageError, match="missing"):
        bench.storage.chunk(number, half, 0)
    assert bench.registry.queues[b"q"].waiting_bytes == 10


def test_if_that_turn_fails_it_is_removed_at_the_next_start(bench: Bench) -> None:
    (queue,) = bench.create(b"q")
    bench.storage.put_chunk(queue.log.record.number, queue.large_items.start(), 0, b"chunk")
    bench.crash()
    bench.fail_turn()
    bench.crash()
    bench.end_turn()
    assert bench.storage.unfinished_uploads() == []
    assert bench.storage.last_blob(queue.log.record.number) == 0


def read_at_start(bench: Bench, monkeypatch: pytest.MonkeyPatch, start: Callable[[], None]) -> int:
    """How many items `start` reads from disk."""
    read: list[int] = []
    items = Storage.items

    def counting(*arguments: Any) -> Iterator[tuple[int, Any]]:
        for found in items(*arguments):
            read.append(found[0])
            yield found

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "items", counting)
        start()
    return len(read)


def test_after_a_stop_the_next_start_reads_no_items(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for queue in bench.create(b"a", b"b"):
        for _ in range(100):
            queue.put(b"x", 0, 0)
        bench.end_turn()
    assert read_at_start(bench, monkeypatch, bench.crash) == 200
    assert read_at_start(bench, monkeypatch, bench.stop_and_start) == 0
    assert [queue.waiting_items for queue in bench.registry] == [100, 100]


def test_after_a_stop_what_was_open_is_found_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    (queue,) = bench.create(b"q")
    for number in range(10):
        queue.put(b"%d" % number, 0, 0)
    reads = [queue.open() for _ in range(5)]
    assert reads[3] is not None
    queue.close(reads[3])
    bench.end_turn()
    assert read_at_start(bench, monkeypatch, bench.stop_and_start) == 4
    bodies = [item[0] for item in iter(bench.registry.queues[b"q"].take, None) if isinstance(item, tuple)]
    assert bodies == [b"0", b"1", b"2", b"4", b"5", b"6", b"7", b"8", b"9"]


def test_a_stop_in_the_middle_of_a_turn_loses_nothing_of_it(bench: Bench) -> None:
    (queue,) = bench.create(b"q")
    queue.put(b"a", 0, 0)
    bench.end_turn()
    queue.put(b"b", 0, 0)
    queue.put(b"c", 0, 0)
    queue.take()
    bench.stop_and_start()
    queue = bench.registry.queues[b"q"]
    assert (queue.waiting_items, queue.waiting_bytes) == (2, 2)
    assert [queue.take(), queue.take()] == [(b"b", 0, 0, 1_000_000), (b"c", 0, 0, 1_000_000)]


def test_a_stop_with_nothing_to_record_writes_nothing(bench: Bench) -> None:
    (queue,) = bench.create(b"q")
    queue.put(b"a", 0, 0)
    queue.take()
    bench.end_turn()
    bench.stop_and_start()
    bench.registry.record_all()
    assert bench.journal.commit() is False


# -- becoming a child


def test_a_queue_that_becomes_a_child_has_the_options_of_its_parent_at_once(bench: Bench) -> None:
    bench.registry.set_rules(QueueRules({}, {b"p": {"max_age_s": 5}}))
    (queue,) = bench.create(b"p+c")
    queue.put(b"1", 0, 0)
    bench.end_turn()
    bench.registry.child(b"p+c")
    bench.now_s += 6
    assert queue.peek() is None
    bench.fail_turn()
    assert queue.peek() is not None


def test_a_queue_in_memory_that_becomes_a_child_is_not_there_after_a_restart(bench: Bench) -> None:
    bench.registry.set_rules(QueueRules({}, {b"p+c": {"durable": False}}))
    bench.create(b"p+c")
    bench.registry.child(b"p+c")
    bench.end_turn()
    assert bench.names_on_disk() == []


@pytest.mark.parametrize("clock_s", [0.0, 5e9])
def test_with_records_missing_no_number_is_given_twice_whatever_the_clock_says(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, clock_s: float
) -> None:
    monkeypatch.setattr("time.time", lambda: clock_s)
    numbers, blobs = [], []
    for name in (b"a", b"b", b"c"):
        if name != b"a":
            bench.storage._directory.note_damage(["something"])
            bench.crash()
        queue = bench.registry.create(name)
        queue.put(b"x", 0, 0)
        numbers.append(queue.log.record.number)
        bench.end_turn()
        blobs.append(bench.storage.next_blob(1))
        batch = bench.storage.batch()  # damage hides it
        batch.delete(b"q" + name, bench.storage.handles[DEFAULT_FAMILY])
        bench.storage.write(batch)
    assert len(set(numbers)) == 3
    assert max(numbers) < 2**32 - 1000
    assert len(set(blobs)) == 3


def test_a_number_that_is_known_to_be_used_is_passed_over(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = bench.create(b"a", b"b")
    bench.registry.cursors.of(second, b"c")
    bench.end_turn()
    monkeypatch.setattr("darner_core.storage.storage.Storage.fresh_number", lambda *_: first.log.record.number)
    bench.crash()
    assert bench.create(b"d")[0].log.record.number == 4


# -- what deleted queues leave behind


def changes_in_log(storage: Storage) -> list[tuple[str, int, bytes]]:
    """(what, column family, key) of all that the write-ahead log has."""
    found = []
    for name in wal.files(storage.path):
        for write in wal.writes(f"{storage.path}/{name}"):
            assert not isinstance(write, wal.Bad)
            found += [(what, family, key) for what, family, key, _ in wal.operations(write[1])]
    return found


def test_queues_that_held_little_leave_no_range_deletions(bench: Bench) -> None:
    """Every later read would have to look at them: of chunks at one for each queue that was ever deleted."""
    bench.create(b"old", b"flushed")
    bench.stop_and_start()
    for number in range(10):
        (queue,) = bench.create(b"job%d" % number)
        for body in (b"1", b"2", b"3"):
            queue.put(body, 0, 0)
        bench.end_turn()
        queue.take()
        read = queue.open()
        assert read is not None
        bench.registry.cursors.of(queue, b"c").open()
        bench.end_turn()
        bench.registry.flush(b"flushed")
        bench.delete(queue.name)
    bench.delete(b"old", b"flushed")
    assert wal.DELETE_RANGE not in {what for what, _, _ in changes_in_log(bench.storage)}
    assert [bench.storage.state(QueueRecord(number, family, 0)) for number in range(40) for family in range(4)] == [
        State()
    ] * 160
    assert not any(list(family.items()) for family in bench.storage.families)
    assert bench.names_on_disk() == []


def test_a_queue_of_which_it_is_not_known_what_is_on_disk_is_deleted_as_a_range(bench: Bench) -> None:
    (queue,) = bench.create(b"q")
    record = queue.log.record
    queue.put(b"1", 0, 0)
    bench.fail_turn()
    bench.storage.put(record.family, records.item_key(record.number, 5), b"what the failed write has left")
    bench.delete(b"q")
    assert not any(list(family.items()) for family in bench.storage.families)


def test_many_items_are_deleted_as_a_range(bench: Bench) -> None:
    (queue,) = bench.create(b"q")
    for _ in range(100):
        queue.put(b"x", 0, 0)
    bench.end_turn()
    bench.delete(b"q")
    bench.end_turn()
    assert [what for what, _, _ in changes_in_log(bench.storage)].count(wal.DELETE_RANGE) == 1
    assert not any(list(family.items()) for family in bench.storage.families)


def test_large_items_of_deleted_queues_are_removed_whenever_the_queue_was_made(bench: Bench) -> None:
    for name, durable in ((b"old", True), (b"new", True), (b"memory", False)):
        bench.registry.set_rules(QueueRules(queues={name: {"durable": durable}}))
        (queue,) = bench.create(name)
        blob = queue.large_items.start()
        bench.storage.put_chunk(queue.log.record.number, blob, 0, b"chunk")
        queue.large_items.finish(blob)
        queue.put(Blob(blob, 5), 0, 0)
        bench.end_turn()
        if name == b"old":
            bench.crash()
    bench.delete(b"old", b"new", b"memory")
    assert bench.storage.first_chunk() is None
    assert bench.storage.unfinished_uploads() == []


def test_nobody_looks_on_disk_for_large_items_of_a_queue_that_is_new(bench: Bench) -> None:
    bench.create(b"old")
    bench.crash()
    asked: list[int] = []
    last_blob = bench.storage.last_blob
    bench.storage.last_blob = lambda number: asked.append(number) or last_blob(number)  # type: ignore[method-assign]
    (queue,) = bench.create(b"new")
    for name in (b"new", b"old"):
        bench.registry.flush(name)
        bench.end_turn()
    old = bench.registry.queues[b"old"].log.record.number
    assert asked == [old]
    assert queue.large_items.start() == 1
    bench.delete(b"new", b"old")
    assert asked == [old]


# -- what a change of the rules costs others


def test_other_rules_are_applied_in_slices_and_at_once_to_what_is_new(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "CHANGED_A_TURN", 3)
    bench.create(*(b"q%d" % number for number in range(10)))
    slices = bench.registry.set_rules(QueueRules(default={"max_age_s": 9}))
    changed = []
    for turn, _ in enumerate(slices):
        if turn == 0:
            bench.registry.create(b"new")
            bench.registry.delete(b"q5")
        bench.end_turn()
        changed.append(sum(queue.options.max_age_s == 9 for queue in bench.registry))
    assert changed == [4, 6, 9]  # the new one with the first three; one is gone
    assert all(queue.options.max_age_s == 9 for queue in bench.registry)
    assert {queue.name for queue in bench.registry.timed} == set(bench.registry.queues)


def test_rules_that_change_while_a_delete_is_undone_are_applied(bench: Bench) -> None:
    bench.create(b"q")
    bench.registry.delete(b"q")
    list(bench.registry.set_rules(QueueRules(default={"max_items": 3})))
    bench.fail_turn()
    assert bench.registry.queues[b"q"].options.max_items == 3


def test_rules_that_change_while_the_delete_of_a_cursor_is_undone_are_applied(bench: Bench) -> None:
    (queue,) = bench.create(b"q")
    cursor = bench.registry.cursors.of(queue, b"c")
    bench.end_turn()
    for cursors_only in (True, False):
        if cursors_only:
            bench.registry.cursors.delete(b"q", b"c")
        else:
            bench.registry.delete(b"q")
        age_s = queue.options.max_age_s + 3
        list(bench.registry.set_rules(QueueRules(default={"max_age_s": age_s})))
        bench.fail_turn()
        assert cursor.options.max_age_s == age_s


def test_a_failed_turn_in_which_a_queues_name_became_an_alias_is_undone(bench: Bench) -> None:
    (old,) = bench.create(b"old")
    bench.registry.create(b"new")
    bench.registry.delete(b"old")
    bench.registry.hide((b"new", b"old"))
    bench.fail_turn()
    assert (bench.registry.queues, bench.registry.hidden) == ({}, {b"old": old})
    bench.registry.hide(())
    assert (bench.registry.queues, bench.registry.hidden) == ({b"old": old}, {})


def test_what_is_put_after_a_delete_that_failed_and_is_on_disk_all_the_same_is_not_lost(bench: Bench) -> None:
    (queue,) = bench.create(b"q")
    write = bench.storage.write

    def write_and_fail(batch: Any) -> None:
        write(batch)
        raise StorageError("disk error")

    bench.registry.delete(b"q")
    bench.storage.write = write_and_fail
    with pytest.raises(StorageError):
        bench.end_turn()
    bench.storage.write = write
    bench.registry.recheck()
    queue.put(b"1", 0, 0)
    bench.end_turn()
    bench.crash()
    assert bench.registry.queues[b"q"].take() is not None


def test_named_queues_are_made_in_slices(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "MADE_A_TURN", 2)
    bench.registry.set_rules(QueueRules(queues={b"q%d" % number: {"max_items": 1} for number in range(5)}))
    there = []
    for _ in bench.registry.make_named():
        bench.end_turn()
        there.append(len(bench.registry.queues))
        if len(there) == 1:
            bench.registry.create(b"q3")  # a client is faster
    assert (there, len(bench.registry.queues)) == ([2, 4], 5)
