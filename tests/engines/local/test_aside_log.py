"""What a turn writes of an aside, and what is left of one that fails."""

from collections.abc import Callable

import pytest

from darner_core.engines.local import aside_failures
from darner_core.engines.local import aside_log as module
from darner_core.engines.local.job_rules import NACK
from darner_core.errors import StorageError
from darner_core.storage.job_records import HIGHEST, LOWEST, READY
from darner_core.storage.records import ITEM_HEADER_BYTES
from darner_core.storage.rocks import ASIDE_FAMILY, JOB_FAMILY, ORDER_FAMILY
from darner_core.storage.storage import Storage
from tests.support.asides import NUMBER, Bench, counts, refusing

OpenStorage = Callable[[], Storage]


@pytest.fixture
def bench(open_storage: OpenStorage) -> Bench:
    return Bench(open_storage)


def test_a_job_is_three_records_and_the_state_and_leaves_the_state(bench: Bench) -> None:
    assert counts(bench) == [0, 0, 0, 0, 0]
    bench.put(b"x", key=b"k")
    bench.end_turn()
    assert counts(bench) == [1, 1, 1, 1, 1]
    bench.opened()
    sequence = bench.storage._rocks.last_sequence()
    bench.end_turn()
    assert bench.storage._rocks.last_sequence() == sequence  # opening writes nothing
    bench.aside.give_back(bench.aside.outstanding[bench.aside.new_id - 1].read)
    bench.aside.take()
    bench.end_turn()
    assert counts(bench) == [0, 0, 0, 0, 1]


def test_what_comes_and_goes_within_a_turn_is_not_written(bench: Bench) -> None:
    before = bench.storage._rocks.last_sequence()
    bench.put(b"x")
    aside_failures.fail(bench.aside, bench.opened(), NACK, delay_ms=5)
    aside_failures.bury(bench.aside, bench.aside.open_id(bench.aside.new_id - 1))  # type: ignore[arg-type]
    read = bench.aside.open_id(bench.aside.new_id - 1)
    assert read is not None
    bench.aside.close(read)
    bench.end_turn()
    assert bench.storage._rocks.last_sequence() == before + 1  # the state
    assert counts(bench) == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("lands", [False, True])
def test_of_a_failed_turn_nothing_stays(bench: Bench, lands: bool) -> None:
    bench.put(b"a")
    bench.put(b"b")
    bench.end_turn()
    bench.aside.take()
    bench.put(b"c", pri=0, key=b"k")
    aside_failures.fail(bench.aside, bench.aside.open_id(bench.aside.new_id - 2), NACK, delay_ms=9)  # type: ignore[arg-type]
    bench.fail_turn(lands)
    for _ in range(2):
        assert bench.bodies(bench.aside.ready) == [b"a", b"b"]
        assert counts(bench) == [2, 2, 0, 2, 1]
        found = bench.aside.find(bench.aside.new_id - 1)
        assert found is not None
        assert found[2].nacks == 0
        bench.crash()


def test_what_a_failed_turn_may_have_left_is_known_until_it_has_been_put_right(bench: Bench) -> None:
    bench.put(b"a")
    bench.end_turn()
    bench.aside.take()
    for pri in range(2):
        bench.put(b"refused", pri=pri)
    with refusing(bench.storage, lands=True), pytest.raises(StorageError):
        bench.journal.commit()
    bench.journal.begin()
    bench.aside.log.recheck(bench.storage.batch())  # which is never written: the disk refuses that, too
    with refusing(bench.storage), pytest.raises(StorageError):
        bench.journal.commit()
    bench.journal.begin()
    bench.fail_turn()
    for _ in range(2):
        assert bench.bodies(bench.aside.ready) == [b"a"]
        assert counts(bench) == [1, 1, 0, 1, 1]
        bench.crash()


def test_what_a_later_turn_has_written_is_not_put_back(bench: Bench) -> None:
    bench.put(b"a")
    bench.put(b"b", key=b"k")
    bench.end_turn()
    for _ in range(2):
        bench.aside.take()
    with refusing(bench.storage), pytest.raises(StorageError):
        bench.journal.commit()
    bench.journal.begin()
    for _ in range(2):
        bench.aside.take()
    bench.end_turn()  # now it can be written, though nobody has opened the database again
    bench.put(b"c")
    bench.fail_turn()
    for _ in range(2):
        assert counts(bench) == [0, 0, 0, 0, 1]
        assert bench.aside.take() is None
        bench.crash()


def test_dead_fronts_go_as_a_range_and_their_space_is_given_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECLAIM_ITEMS", 10)
    for _ in range(12):
        bench.put(b"12345")
    bench.end_turn()
    removed = []
    monkeypatch.setattr(
        type(bench.storage.jobs), "remove_front", lambda _, batch, number, kind, before: removed.append((kind, before))
    )
    for _ in range(11):
        bench.aside.take()
    bench.fail_turn()
    for _ in range(11):
        bench.aside.take()
    bench.end_turn()
    lowest = (1024, 24, bench.aside.new_id - 1)
    assert removed == [(READY, lowest)] * 2
    assert bench.aside.ready.gone == 0
    items = bench.journal.dead.ranges[ASIDE_FAMILY, 0]
    assert items.dead_bytes >= 11 * (ITEM_HEADER_BYTES + 12 + 5)
    assert {family for family, _ in bench.journal.dead.ranges} >= {ORDER_FAMILY, JOB_FAMILY}
    bench.aside.take()
    bench.aside.log.reclaim()  # as is done where nobody has come for a while, however few have gone
    bench.end_turn()
    assert removed[2:] == [(READY, HIGHEST)]


def test_an_item_that_is_missing_is_told(bench: Bench) -> None:
    bench.put(b"x")
    bench.end_turn()
    batch = bench.storage.batch()
    bench.storage.jobs.put_items(batch, NUMBER, {bench.aside.new_id - 1: None})
    bench.storage.write(batch)
    with pytest.raises(StorageError, match="is missing"):
        bench.aside.open()
    assert bench.aside.log.find(bench.aside.new_id - 1) is None


def test_in_memory_it_is_kept_as_a_disk_would(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, durable=False)
    first, second = bench.put(b"a", key=b"k"), bench.put(b"b")
    bench.end_turn()
    log = bench.aside.log
    assert not log.durable
    assert log.places(READY, LOWEST, 9) == [(1024, 2, first), (1024, 4, second)]
    bench.aside.take()
    bench.end_turn()
    assert log.places(READY, LOWEST, 9) == [(1024, 4, second)]
    assert (log.find(first), log.job(first), log.taken(b"k")) == (None, None, None)
    assert log.read_one(second)[0] == b"b"
    assert sum(counts(bench)) == 0
