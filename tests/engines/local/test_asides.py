"""The asides by queue: making and removing them, and what a restart finds."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from darner_core.config.queues import BUILT_IN
from darner_core.engines.local import asides as asides_module
from darner_core.engines.local.asides import Asides
from darner_core.engines.local.job_rules import JobRules
from darner_core.errors import StorageError
from darner_core.storage.job_records import FIRST_ASIDE_ID, NO_GETS, number_key
from darner_core.storage.rocks import ASIDE_FAMILY, JOB_FAMILY, ORDER_FAMILY, STATE_FAMILY
from darner_core.storage.storage import Storage
from tests.support.asides import refusing
from tests.support.bench import Bench as QueueBench
from tests.support.job_bench import JobBench

OpenStorage = Callable[[], Storage]


class Noted:
    def note(self, aside: object, due_ms: int) -> None: ...

    def forget(self, aside: object) -> None: ...


class Bench(QueueBench):
    """Queues with asides."""

    def start(self) -> None:
        super().start()
        numbers = iter(range(1000, 2000))
        self.asides = Asides(self.journal, lambda: next(numbers), Noted(), lambda queue: JobRules(unique_ms=7))
        self.numbers = self.asides.read_back(self.registry.queues)
        self.end_turn()

    def fail_turn(self) -> None:
        super().fail_turn()
        batch = self.journal.storage.batch()
        self.asides.recheck(batch)
        self.journal.storage.write(batch)
        self.end_turn()


@pytest.fixture
def bench(open_storage: OpenStorage) -> Bench:
    bench = Bench(open_storage, memory=replace(BUILT_IN, durable=False))
    for name in (b"q", b"memory"):
        bench.registry.create(name)
    bench.end_turn()
    return bench


def test_one_is_made_when_it_is_needed_and_is_there_after_a_crash(bench: Bench) -> None:
    aside = bench.asides.of(bench.queue())
    assert bench.asides.of(bench.queue()) is aside
    assert bench.asides.by_number == {1000: aside}
    assert aside.rules.unique_ms == 7
    aside.put(b"x", 0, 0, 5, 2)
    bench.end_turn()
    bench.crash()
    assert bench.numbers == {1000}
    found: Any = bench.asides.of(bench.queue()).take()
    assert found[0] == b"x"


def test_one_of_a_failed_turn_never_was(bench: Bench) -> None:
    aside = bench.asides.of(bench.queue())
    aside.put(b"x", 0, 0, 5, 2)
    bench.fail_turn()
    assert (bench.asides.by_queue, bench.asides.by_number, aside.deleted) == ({}, {}, True)
    bench.crash()
    assert bench.numbers == set()


@pytest.mark.parametrize("again", [False, True])
def test_one_of_a_failed_turn_that_was_written_all_the_same_leaves_nothing(bench: Bench, again: bool) -> None:
    bench.asides.of(bench.queue()).put(b"refused", 0, 0, 5, 2)
    with refusing(bench.journal.storage, lands=True), pytest.raises(StorageError):
        bench.journal.commit()
    bench.journal.begin()
    if again:
        bench.asides.of(bench.queue()).put(b"stored", 0, 0, 5, 2)
        bench.end_turn()
    batch = bench.journal.storage.batch()
    bench.asides.recheck(batch)
    bench.journal.storage.write(batch)
    bench.asides.rechecked()
    bench.end_turn()
    bench.crash()
    assert len(bench.numbers) == again
    assert bench.journal.storage.jobs.item(1000, FIRST_ASIDE_ID) is None
    assert not again or bench.asides.of(bench.queue()).take() == (b"stored", 0, 0, 1_000_000)


def test_a_pause_that_was_refused_and_written_all_the_same_is_none(bench: Bench) -> None:
    aside = bench.asides.of(bench.queue())
    aside.put(b"x", 0, 0, 5, 2)
    bench.end_turn()
    bench.asides.change(bench.queue(), aside.record._replace(pause=NO_GETS, pri=7))
    with refusing(bench.journal.storage, lands=True), pytest.raises(StorageError):
        bench.journal.commit()
    bench.journal.begin()
    batch = bench.journal.storage.batch()
    bench.asides.recheck(batch)
    bench.journal.storage.write(batch)
    bench.crash()
    record = bench.asides.of(bench.queue()).record
    assert (record.pause, record.pri) == (0, 1024)


def test_nobody_looks_any_more_at_one_of_a_failed_turn(open_storage: OpenStorage) -> None:
    bench = JobBench(open_storage, m=replace(BUILT_IN, durable=False), timed=replace(BUILT_IN, max_age_s=5))
    bench.put_job(b"timed", b"x", delay_ms=10**12)
    assert bench.fails()
    assert bench.registry.timed == {}
    watcher: Any = bench.registry.asides._watcher
    assert watcher._earliest == {}
    bench.put(b"m", b"1")
    bench.put_job(b"m", b"2", key=b"k")
    bench.end_turn()
    bench.put_job(b"m", b"refused", pri=5)
    bench.put(b"q", b"x")
    assert bench.fails()
    assert not bench.registry.asides.by_queue[bench.queue(b"m")].log._doubtful


def test_it_goes_with_its_queue(bench: Bench) -> None:
    storage = bench.journal.storage
    aside = bench.asides.of(bench.queue())
    for number in range(3):
        aside.put(b"x", 0, 0, 5, 2 * number, key=b"%d" % number)
    read = aside.open()
    assert read is not None
    bench.end_turn()
    aside.put(b"y", 0, 0, 5, 9)
    bench.asides.delete(bench.queue())
    assert not aside.holds(read)
    aside.close(read)
    aside.give_back(read)
    bench.fail_turn()
    assert bench.asides.of(bench.queue()) is aside
    assert aside.ready.waiting == 3
    bench.asides.delete(bench.queue())
    bench.asides.delete(bench.queue())
    bench.end_turn()
    assert storage.jobs.asides() == []
    assert storage.jobs.places(1000, 0, (0, 0, 0), 9) == []
    assert [storage.jobs.item(1000, aside.new_id - 1), storage.jobs.taken(1000, b"1")] == [None, None]


def test_an_empty_one_leaves_no_range_deletion(bench: Bench) -> None:
    aside = bench.asides.of(bench.queue())
    aside.put(b"x", 0, 0, 5, 2)
    bench.end_turn()
    aside.take()
    bench.end_turn()
    bench.asides.delete(bench.queue())
    bench.end_turn()
    bench.crash()
    assert bench.numbers == set()


def test_a_pause_and_terms_are_kept_and_undone(bench: Bench) -> None:
    aside = bench.asides.of(bench.queue())
    bench.end_turn()
    before = aside.record
    bench.asides.change(bench.queue(), before._replace(pause=NO_GETS, pri=5))
    bench.fail_turn()
    assert aside.record == before
    bench.asides.change(bench.queue(), before._replace(pause=NO_GETS, pri=5))
    bench.end_turn()
    bench.crash()
    assert bench.asides.of(bench.queue()).record == before._replace(pause=NO_GETS, pri=5)


def test_one_of_a_queue_in_memory_writes_nothing(bench: Bench) -> None:
    aside = bench.asides.of(bench.queue(b"memory"))
    aside.put(b"x", 0, 0, 5, 2)
    with refusing(bench.journal.storage):
        bench.end_turn()
    found: Any = aside.take()
    assert found[0] == b"x"
    bench.asides.delete(bench.queue(b"memory"))
    assert bench.journal.also == []


def test_one_that_cannot_be_read_is_told_when_it_is_needed(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.asides.of(bench.queue())
    bench.end_turn()
    bench.journal.storage.put(STATE_FAMILY, number_key(1000), b"x")
    bench.crash()
    assert "queue q: what is set aside cannot be read: aside number 1000: state: " in caplog.text
    with pytest.raises(StorageError):
        bench.asides.of(bench.queue())


def test_rules_are_those_of_the_options(bench: Bench) -> None:
    aside = bench.asides.of(bench.queue())
    bench.asides._rules = lambda queue: JobRules(unique_ms=9)
    bench.asides.set_rules(bench.queue())
    bench.asides.set_rules(bench.queue(b"memory"))
    assert aside.rules.unique_ms == 9


def test_what_was_dead_at_the_last_end_is_found(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asides_module, "DEAD_BYTES", 1000)
    aside = bench.asides.of(bench.queue())
    for number in range(200):
        aside.put(b"x" * 100, 0, 0, 5, number)
    bench.end_turn()
    bench.journal.storage.flush()
    asides_module.find_dead(bench.journal, [aside])
    assert bench.journal.dead.ranges == {}
    while aside.take():
        pass
    bench.end_turn()
    asides_module.find_dead(bench.journal, [aside])
    assert {family for family, _ in bench.journal.dead.ranges} == {ASIDE_FAMILY, JOB_FAMILY, ORDER_FAMILY}
