"""What becomes of a job that was not closed."""

from collections.abc import Callable

import pytest

from darner_core.engines.local import aside_failures, aside_leaving
from darner_core.engines.local.aside_failures import bury, fail, release
from darner_core.engines.local.job_rules import LOSS, NACK, TIMEOUT, JobRules
from darner_core.storage.storage import Storage
from tests.support.asides import Bench

OpenStorage = Callable[[], Storage]


def test_failures_count_and_survive_a_crash(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage)
    item_id = bench.put(b"x")
    for how in (NACK, TIMEOUT, LOSS, LOSS):
        fail(bench.aside, bench.opened(), how)
        bench.end_turn()
    bench.opened()
    bench.crash()  # which is nobody's failure
    found = bench.aside.find(item_id)
    assert found is not None
    assert (found[2].nacks, found[2].timeouts, found[2].losses) == (1, 1, 2)


def test_a_job_that_is_released_keeps_its_place(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage)
    for body in (b"a", b"b", b"c"):
        bench.put(body)
    release(bench.aside, bench.opened())
    assert bench.bodies(bench.aside.ready) == [b"a", b"b", b"c"]
    release(bench.aside, bench.opened(), pri=2000)
    assert bench.bodies(bench.aside.ready) == [b"b", b"c", b"a"]
    release(bench.aside, bench.opened(), delay_ms=5)
    assert bench.bodies(bench.aside.ready) == [b"c", b"a"]
    assert bench.bodies(bench.aside.delayed) == [b"b"]


def test_the_next_delivery_waits_as_the_options_or_the_reader_say(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, JobRules(retry_delay_ms=100, retry_backoff=2))
    bench.put(b"x")
    fail(bench.aside, bench.opened(), NACK)
    assert bench.noted.times == [1_000_100]
    bench.put(b"y")
    fail(bench.aside, bench.opened(), NACK, delay_ms=0)
    assert bench.bodies(bench.aside.ready) == [b"y"]


def test_the_last_failure_buries(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, JobRules(max_deliveries=2))
    bench.put(b"x")
    for _ in range(2):
        assert bench.aside.buried.waiting == 0
        fail(bench.aside, bench.opened(), TIMEOUT)
        bench.end_turn()
    bench.crash()
    assert bench.bodies(bench.aside.buried) == [b"x"]


def test_or_makes_a_dead_letter_with_a_history(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, JobRules(max_deliveries=1))
    bench.has_dead_letters = True
    bench.start()
    item_id = bench.put(b"x", pri=7)
    fail(bench.aside, bench.opened(), TIMEOUT, "somebody")
    bench.end_turn()
    assert bench.aside.is_empty
    ((item, job),) = bench.dead
    assert (item[0], job.pri, job.timeouts) == (b"x", 7, 1)
    assert job.note == b"from=q id=%d failures=1 last=timeout client=somebody put=1000000" % item_id
    bench.has_room = False
    bench.put(b"y")
    fail(bench.aside, bench.opened(), TIMEOUT)
    assert bench.bodies(bench.aside.buried) == [b"y"]


@pytest.mark.parametrize("lands", [False, True])
def test_a_dead_letter_is_open_again_if_its_turn_fails(open_storage: OpenStorage, lands: bool) -> None:
    bench = Bench(open_storage, JobRules(max_deliveries=1))
    bench.has_dead_letters = True
    bench.start()
    bench.put(b"x")
    bench.end_turn()
    read = bench.opened()
    bench.end_turn()
    fail(bench.aside, read, TIMEOUT)
    bench.journal.undo.append((bench.aside.take_back, read))
    bench.fail_turn(lands)
    assert bench.dead == []
    assert bench.aside.holds(read)
    bench.crash()
    assert bench.bodies(bench.aside.ready) == [b"x"]


def test_nothing_happens_to_what_is_not_open_any_more(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, JobRules(max_deliveries=1))
    bench.put(b"x")
    read = bench.opened()
    bench.aside.give_back(read)
    for late in (release, bury):
        late(bench.aside, read)
    fail(bench.aside, read, NACK)
    assert bench.bodies(bench.aside.ready) == [b"x"]
    assert aside_leaving.remove_id(bench.aside, read.id)
    aside_failures.bury(bench.aside, read)
    assert bench.aside.is_empty


def test_they_are_buried_in_the_order_of_burying(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage)
    for body in (b"a", b"b", b"c"):
        bench.put(body)
    reads = [bench.opened() for _ in range(3)]
    for read in (reads[1], reads[2], reads[0]):
        bury(bench.aside, read)
    bench.end_turn()
    bench.crash()
    assert bench.bodies(bench.aside.buried) == [b"b", b"c", b"a"]
