# ruff: noqa: F811  (fixtures)
"""What a start finds on disk, and what a turn leaves there that could not be written."""

from collections.abc import Iterator
from typing import Any

import pytest

from darner_core.engines.local import journal as journal_module
from darner_core.errors import StorageError
from darner_core.storage.records import QueueRecord
from darner_core.storage.storage import Storage
from tests.engines.local.test_journal import Bench, bench  # noqa: F401
from tests.engines.local.test_message_queue import Bench as QueueBench
from tests.engines.local.test_message_queue import bench as queue_bench  # noqa: F401


def test_after_a_crash_what_was_open_comes_back_first_and_oldest_first(queue_bench: QueueBench) -> None:
    queue_bench.put(b"a", b"b", b"c", b"d", b"e")
    reads = [queue_bench.open() for _ in range(4)]
    queue_bench.queue.close(reads[1])
    queue_bench.queue.give_back(reads[2])
    queue_bench.end_turn()
    queue_bench.crash()
    assert (queue_bench.queue.waiting_items, queue_bench.queue.open_reads) == (4, 0)
    assert queue_bench.take_all() == [b"a", b"c", b"d", b"e"]


# -- the state record


def test_a_start_reads_no_more_than_the_items_behind_the_last_state(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "STATE_EVERY", 10)
    for number in range(1000):
        bench.put(*[b"x"] * (number % 3 + 1))
    read: list[int] = []
    items = Storage.items

    def counting(self: Storage, queue: QueueRecord, from_id: int, to_id: int) -> Iterator[tuple[int, Any]]:
        for found in items(self, queue, from_id, to_id):
            read.append(found[0])
            yield found

    monkeypatch.setattr(Storage, "items", counting)
    bench.crash()
    assert bench.queue.waiting_items == 1999
    assert len(read) < 10


@pytest.mark.parametrize("every", [1, 2, 7])
def test_the_state_is_written_every_so_many_puts(bench: Bench, monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    monkeypatch.setattr(journal_module, "STATE_EVERY", every)
    for item_id in range(1, 30):
        bench.put(b"x")
        assert item_id + 1 - bench.storage.state(bench.queue.log.record).tail < every


def test_what_a_failed_write_left_behind_is_removed_when_the_storage_is_opened_again(bench: Bench) -> None:
    """RocksDB says that a write has failed, and yet it is in the write-ahead log."""
    bench.put(b"a")
    write = bench.storage.write

    def write_and_fail(batch: Any) -> None:
        write(batch)
        raise StorageError("input/output error")

    bench.storage.write = write_and_fail
    for body in (b"b", b"c", b"d"):
        bench.queue.put(body, 0, 0)
    bench.queue.take()
    with pytest.raises(StorageError):
        bench.end_turn()
    bench.storage.write = write
    bench.storage.reopen()
    bench.registry.recheck()
    bench.end_turn()
    assert bench.stored() == [1]
    bench.put(b"e")
    bench.crash()
    assert list(iter(bench.queue.take, None)) == [(b"a", 0, 0, 1_000_000), (b"e", 0, 0, 1_000_000)]
