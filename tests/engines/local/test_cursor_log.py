# ruff: noqa: F811  (fixtures)
"""What a cursor keeps on disk: its place, and what its queue loses meanwhile."""

import pytest

from tests.engines.local.test_cursor import Bench, bench  # noqa: F401

# -- what survives


def test_a_place_is_kept_and_costs_one_record(bench: Bench) -> None:
    bench.put(b"a", b"b", b"c")
    bench.take()
    bench.crash()
    assert bench.take_all() == [b"b", b"c"]
    assert bench.own_records() == []


def test_what_was_open_at_a_crash_comes_again_and_first(bench: Bench) -> None:
    bench.put(b"a", b"b", b"c", b"d", b"e")
    reads = [bench.open() for _ in range(4)]
    bench.cursor.close(reads[1])
    bench.cursor.give_back(reads[2])
    bench.end_turn()
    assert bench.own_records() == [1]  # what lies above the highest that was closed needs none
    bench.crash()
    assert bench.take_all() == [b"a", b"c", b"d", b"e"]
    bench.crash()
    assert bench.take_all() == []
    assert bench.own_records() == []


@pytest.mark.parametrize("how", ["take", "open and close", "out of order", "flush", "in one turn"])
def test_what_the_queue_loses_meanwhile_is_kept(bench: Bench, how: str) -> None:
    bench.put(b"a", b"b", b"c", b"d")
    queue, cursor = bench.queue, bench.cursor
    reads = [bench.open() for _ in range(3)]
    if how == "take":
        assert [bench.take(queue) for _ in range(3)] == [b"a", b"b", b"c"]
    elif how == "open and close":
        for _ in range(3):
            queue.close(bench.open(queue))
            bench.end_turn()
    elif how == "out of order":
        theirs = [bench.open(queue) for _ in range(3)]
        for index in (2, 0, 1):
            queue.close(theirs[index])
            bench.end_turn()
    elif how == "flush":
        bench.open(queue)
        queue.flush()
        bench.end_turn()
    else:
        for _ in range(3):
            queue.take()
        cursor.close(reads[1])
        queue.put(b"e", 0, 0)
        bench.end_turn()
    kept = [1, 3] if how == "in one turn" else [2, 3] if how == "flush" else [1, 2, 3]
    assert bench.own_records() == kept
    cursor.give_back(reads[2])
    assert bench.take() == b"c"
    assert cursor.item_of(reads[0])[0] == b"a"
    queue.log.reclaim()
    bench.end_turn()
    bench.crash()
    expected = {"in one turn": [b"a", b"d", b"e"], "flush": [b"a", b"b"]}
    assert bench.take_all() == expected.get(how, [b"a", b"b", b"d"])
    assert bench.own_records() == []


def test_a_copy_that_lies_above_what_is_read_again_waits_for_its_turn(bench: Bench) -> None:
    bench.put(b"a", b"b", b"c")
    for _ in range(2):
        bench.open()
    theirs = [bench.open(bench.queue) for _ in range(2)]
    bench.queue.close(theirs[1])
    bench.end_turn()
    bench.crash()
    assert bench.take_all() == [b"a", b"b", b"c"]
