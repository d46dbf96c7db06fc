"""Items become due and are kicked."""

from collections.abc import Callable

import pytest

from darner_core.engines.local import aside_failures
from darner_core.engines.local.aside_moves import NEVER_MS, due_ms, kick, kick_id, move_due
from darner_core.errors import StorageError
from darner_core.storage.storage import Storage
from tests.support.asides import NUMBER, Bench

OpenStorage = Callable[[], Storage]


@pytest.fixture
def bench(open_storage: OpenStorage) -> Bench:
    return Bench(open_storage)


def test_what_is_due_is_ready_in_the_order_of_arrival(bench: Bench) -> None:
    for body, delay_ms in ((b"a", 3000), (b"b", 0), (b"c", 1000), (b"d", 9000)):
        bench.put(body, delay_ms=delay_ms)
    bench.end_turn()
    assert due_ms(bench.aside) == 1_001_000
    assert move_due(bench.aside, 10) == 0
    bench.now_s += 3
    bench.journal.begin()
    assert move_due(bench.aside, 1) == 1
    assert bench.bodies(bench.aside.ready) == [b"b", b"c"]
    assert move_due(bench.aside, 10) == 1
    assert bench.bodies(bench.aside.ready) == [b"a", b"b", b"c"]
    assert bench.served == 3  # once for the put, once for each move
    bench.end_turn()
    bench.crash()
    assert bench.bodies(bench.aside.ready) == [b"a", b"b", b"c"]
    assert due_ms(bench.aside) == 1_009_000


def test_what_is_open_is_not_moved_and_is_ready_when_it_comes_back(bench: Bench) -> None:
    item_id = bench.put(b"x", delay_ms=1000)
    read = bench.aside.open_id(item_id)
    assert read is not None
    bench.end_turn()
    bench.now_s += 2
    bench.journal.begin()
    assert move_due(bench.aside, 10) == 0
    assert due_ms(bench.aside) == NEVER_MS
    bench.aside.give_back(read)
    assert bench.bodies(bench.aside.ready) == [b"x"]


def test_a_clock_that_is_set_back_delays_and_loses_nothing(bench: Bench) -> None:
    bench.now_s = 1e9
    bench.journal.begin()
    bench.put(b"x", delay_ms=1000)
    bench.end_turn()
    bench.now_s -= 86_400
    bench.journal.begin()
    bench.put(b"y", delay_ms=1000)
    bench.end_turn()
    bench.now_s += 2
    bench.journal.begin()
    assert move_due(bench.aside, 10) == 1
    bench.end_turn()
    bench.crash()
    assert (bench.bodies(bench.aside.ready), bench.bodies(bench.aside.delayed)) == ([b"y"], [b"x"])
    bench.now_s += 2 * 86_400
    bench.journal.begin()
    move_due(bench.aside, 10)
    assert bench.bodies(bench.aside.ready) == [b"x", b"y"]


def test_the_buried_are_kicked_before_the_delayed(bench: Bench) -> None:
    for body in (b"a", b"b"):
        bench.put(body)
        aside_failures.bury(bench.aside, bench.opened())
    bench.put(b"c", delay_ms=1000)
    bench.end_turn()
    assert kick(bench.aside, 5) == 2
    assert bench.bodies(bench.aside.ready) == [b"a", b"b"]
    assert kick(bench.aside, 5) == 1
    assert kick(bench.aside, 5) == 0
    bench.end_turn()
    bench.crash()
    assert bench.bodies(bench.aside.ready) == [b"a", b"b", b"c"]


def test_one_is_kicked_by_its_id(bench: Bench) -> None:
    delayed, ready = bench.put(b"d", delay_ms=1000), bench.put(b"r")
    assert kick_id(bench.aside, delayed)
    assert not kick_id(bench.aside, delayed)
    assert not kick_id(bench.aside, ready)
    assert not kick_id(bench.aside, 99)
    found = bench.aside.find(delayed)
    assert found is not None
    assert found[2].kicks == 1


def test_a_job_that_is_missing_is_told(bench: Bench) -> None:
    item_id = bench.put(b"x", delay_ms=1000)
    bench.end_turn()
    batch = bench.storage.batch()
    bench.storage.jobs.put_jobs(batch, NUMBER, {item_id: None})
    bench.storage.write(batch)
    bench.now_s += 2
    bench.journal.begin()
    with pytest.raises(StorageError, match=f"job {item_id} is missing"):
        move_due(bench.aside, 10)
    assert "queue q cannot be read" in bench.aside.damage
