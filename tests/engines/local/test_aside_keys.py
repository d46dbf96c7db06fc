"""Unique keys: one job for each, while it exists and for a time behind it."""

from collections.abc import Callable

import pytest

from darner_core.engines.local import aside_failures, aside_keys, aside_leaving, aside_moves
from darner_core.engines.local.job_rules import LOSS, JobRules
from darner_core.storage.storage import Storage
from tests.support.asides import Bench

OpenStorage = Callable[[], Storage]


def owner(bench: Bench) -> int:
    return aside_keys.owner(bench.aside, b"k")


def test_a_key_is_taken_while_its_job_exists_open_or_not(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage)
    assert owner(bench) == 0
    first = bench.put(b"x", key=b"k")
    assert owner(bench) == first
    read = bench.opened()
    bench.end_turn()
    assert owner(bench) == first
    aside_failures.fail(bench.aside, read, LOSS)
    assert owner(bench) == first
    bench.crash()
    assert owner(bench) == first
    bench.aside.take()
    assert owner(bench) == 0


def test_a_window_keeps_it_taken_and_ends(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, JobRules(unique_ms=5000))
    first = bench.put(b"x", key=b"k")
    bench.end_turn()
    bench.aside.take()
    bench.end_turn()
    bench.crash()
    assert owner(bench) == first
    assert bench.noted.times == [1_005_000]
    assert not bench.aside.is_empty
    bench.now_s += 5
    bench.journal.begin()
    assert owner(bench) == 0
    assert aside_moves.move_due(bench.aside, 10) == 1
    bench.end_turn()
    assert bench.aside.is_empty
    assert bench.storage.jobs.taken(bench.aside.record.number, b"k") is None


def test_a_key_whose_window_is_over_can_be_taken_before_anybody_has_looked(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, JobRules(unique_ms=5000))
    bench.put(b"x", key=b"k")
    bench.aside.take()
    bench.end_turn()
    bench.now_s += 5
    bench.journal.begin()
    second = bench.put(b"y", key=b"k")
    bench.end_turn()
    assert aside_moves.move_due(bench.aside, 10) == 0
    assert owner(bench) == second


@pytest.mark.parametrize("lands", [False, True])
@pytest.mark.parametrize("again", [False, True])
def test_a_window_that_ends_in_a_failed_turn_ends_later(open_storage: OpenStorage, lands: bool, again: bool) -> None:
    bench = Bench(open_storage, JobRules(unique_ms=5000))
    bench.put(b"x", key=b"k")
    bench.aside.take()
    bench.end_turn()
    bench.now_s += 5
    bench.journal.begin()
    if again:
        bench.put(b"y", key=b"k")
    else:
        assert aside_moves.move_due(bench.aside, 10) == 1
    bench.fail_turn(lands)
    bench.crash()
    assert bench.aside.key_windows.entries == 1
    assert aside_moves.move_due(bench.aside, 10) == 1
    bench.end_turn()
    assert bench.aside.is_empty
    assert bench.storage.jobs.taken(bench.aside.record.number, b"k") is None


@pytest.mark.parametrize("unique_ms", [0, 5000])
@pytest.mark.parametrize("lands", [False, True])
def test_a_failed_turn_gives_it_back(open_storage: OpenStorage, unique_ms: int, lands: bool) -> None:
    bench = Bench(open_storage, JobRules(unique_ms=unique_ms))
    first = bench.put(b"x", key=b"k")
    bench.end_turn()
    aside_leaving.remove_id(bench.aside, first)
    bench.fail_turn(lands)
    assert owner(bench) == first
    bench.crash()
    assert owner(bench) == first
    assert bench.aside.key_windows.entries == 0
    bench.aside.take()
    bench.put(b"y", key=b"z")
    bench.fail_turn(lands)
    assert aside_keys.owner(bench.aside, b"z") == 0
