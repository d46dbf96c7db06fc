# ruff: noqa: F811  (fixtures)
"""What is dead on disk is range-deleted when there is enough of it, and known with its place and size."""

import pytest

from darner_core.engines.local import journal as journal_module
from darner_core.engines.local.dead_ranges import DeadRanges
from darner_core.storage.records import STATE_ID, QueueRecord, chunk_key, item_key, unpack_item_key
from darner_core.storage.storage import CHUNK_FAMILY
from tests.engines.local.test_journal import Bench, bench  # noqa: F401

# -- dead ranges


def drain(bench: Bench, items: int) -> None:
    for _ in range(items):
        bench.queue.take()
        bench.end_turn()


def test_dead_items_are_range_deleted_when_there_are_many(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "RECLAIM_ITEMS", 10)
    bench.put(*[b"x"] * 30)
    drain(bench, 9)
    assert bench.stored() == list(range(1, 31))
    drain(bench, 1)
    assert bench.stored() == list(range(11, 31))
    drain(bench, 9)
    assert bench.stored() == list(range(11, 31))
    bench.crash()
    drain(bench, 1)
    assert bench.stored() == list(range(21, 31))
    assert bench.storage.state(bench.queue.log.record).reclaimed == 21


def test_dead_items_are_range_deleted_when_they_are_large(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "RECLAIM_BYTES", 1000)
    bench.put(*[bytes(300)] * 10)
    drain(bench, 3)
    assert bench.stored() == list(range(1, 11))
    drain(bench, 1)
    assert bench.stored() == list(range(5, 11))
    drain(bench, 3)
    assert bench.stored() == list(range(5, 11))


def test_what_is_open_is_not_range_deleted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "RECLAIM_ITEMS", 5)
    monkeypatch.setattr(journal_module, "RECLAIM_BYTES", 5)
    bench.put(*[b"x"] * 20)
    drain(bench, 2)
    read = bench.open()
    drain(bench, 15)
    assert bench.stored()[-3:] == [3, 19, 20]
    bench.queue.close(read)
    bench.end_turn()
    assert bench.stored() == [19, 20]


def test_reclaiming_deletes_what_is_dead_however_little_it_is(bench: Bench) -> None:
    bench.put(b"a", b"b")
    drain(bench, 1)
    assert bench.stored() == [1, 2]
    bench.queue.log.reclaim()
    bench.end_turn()
    assert bench.stored() == [2]
    bench.writes.calls = []
    bench.queue.take()
    bench.queue.log.reclaim()
    bench.end_turn()
    assert (len(bench.writes.last), bench.stored()) == (1, [])


def test_what_was_range_deleted_is_known_with_its_place_and_size(bench: Bench) -> None:
    bench.put(b"x" * 100, b"y" * 50, b"z")
    drain(bench, 2)
    bench.queue.log.reclaim()
    bench.end_turn()
    number, family, _, _ = bench.queue.log.record
    (dead,) = bench.journal.dead.ranges.values()
    assert dead.family == family
    assert dead.begin <= item_key(number, 1) < item_key(number, 3) <= dead.end
    assert dead.dead_bytes == 2 * 33 + 150  # a key of 12 bytes and a header of 21 to each item


def test_dead_ranges_of_one_family_are_one_range() -> None:
    dead = DeadRanges()
    dead.add_items(QueueRecord(5, 1, 0), 10, 20, 100)
    dead.add_items(QueueRecord(3, 1, 0), 1, 7, 10)
    dead.add_items(QueueRecord(4, 2, 0), 1, 2, 1)
    dead.add_chunks(5, 2, 3, 1000)
    dead.add_chunks(5, 7, 9, 2000)
    dead.add_chunks(6, 1, 2, 5000)
    assert sorted((found.family, found.begin, found.end, found.dead_bytes) for found in dead.ranges.values()) == [
        (CHUNK_FAMILY, chunk_key(5, 2, 0), chunk_key(5, 9, 0), 3000),
        (CHUNK_FAMILY, chunk_key(6, 1, 0), chunk_key(6, 2, 0), 5000),
        (1, item_key(3, 1), item_key(5, 20), 110),
        (2, item_key(4, 1), item_key(4, 2), 1),
    ]
    assert unpack_item_key(item_key(5, STATE_ID)) == (5, 0)
