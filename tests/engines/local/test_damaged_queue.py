# ruff: noqa: F811  (fixtures)
"""What cannot be read is told to whoever wants it, and disturbs nobody else."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from darner_core.engines.local import expiry
from darner_core.engines.local.cursor_log import Keeper
from darner_core.engines.local.damaged_queue import DamagedQueue
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.errors import DamagedError, StorageError
from darner_core.storage.records import QueueRecord, item_key
from tests.engines.local.test_cursor import Bench, bench  # noqa: F401
from tests.engines.local.test_message_queue import Bench as QueueBench
from tests.engines.local.test_message_queue import bench as queue_bench  # noqa: F401


def test_what_stands_in_for_a_damaged_queue_refuses_all_and_looks_empty(bench: Bench) -> None:
    queue = DamagedQueue(b"q", bench.queue.options, bench.journal, QueueRecord(7, 0, 0), "a test")
    for ask in (queue.take, queue.peek, queue.open, queue.flush, lambda: queue.put(b"x", 0, 0)):
        with pytest.raises(DamagedError, match="queue q cannot be read: a test"):
            ask()  # type: ignore[no-untyped-call]
    with pytest.raises(DamagedError, match="queue q cannot be read: a test"):
        _ = queue.large_items
    assert queue.drop_expired()
    assert (queue.waiting_items, queue.open_reads, queue.total_items) == (0, 0, 0)


# -- a disk that loses items


@pytest.mark.parametrize("ask", [MessageQueue.take, MessageQueue.open, MessageQueue.peek])
def test_a_head_that_cannot_be_read_is_an_error_and_stays(
    queue_bench: QueueBench, ask: Callable[[MessageQueue], object]
) -> None:
    queue_bench.put(b"a", b"b")
    queue_bench.crash()
    queue_bench.lose_record(1)
    for _ in range(2):
        with pytest.raises(StorageError, match="item 1 is missing"):
            ask(queue_bench.queue)
    assert (queue_bench.queue.waiting_items, queue_bench.queue.open_reads) == (2, 0)


def test_who_waits_goes_on_waiting_while_the_head_cannot_be_read(queue_bench: QueueBench) -> None:
    queue_bench.put(b"a")
    queue_bench.crash()
    queue_bench.lose_record(1)
    first, second = queue_bench.registry.join_line(b"q", b"", False), queue_bench.registry.join_line(b"q", b"", False)
    queue_bench.put(b"b")
    assert (first.got, second.got) == (None, None)
    queue_bench.queue.flush()
    queue_bench.put(b"c")
    assert queue_bench.queue.item_of(first.got)[0] == b"c"
    assert second.got is None


# -- damage


def test_a_cursor_passes_damage_on(bench: Bench) -> None:
    bench.put(b"a", b"b", b"c")
    bench.take()
    batch, record = bench.storage.batch(), bench.queue.log.record
    batch.delete(item_key(record.number, 2), bench.storage.handles[record.family])
    bench.storage.write(batch)
    bench.crash()
    with pytest.raises(StorageError, match="item 2 is missing"):
        bench.cursor.take()
    assert [cursor.name for cursor in bench.registry.damaged] == [b"q.c"]


def test_a_cursor_whose_state_is_damaged_can_only_be_deleted(bench: Bench) -> None:
    bench.put(b"a")
    record = bench.cursor.log.record
    bench.storage.put(record.family, item_key(record.number, 0), b"short")
    bench.end_turn()
    bench.storage.put(record.family, item_key(record.number, 0), b"short")
    bench.crash()
    with pytest.raises(DamagedError, match=r"queue q\.c cannot be read"):
        bench.registry.cursors.of(bench.queue, b"c").take()
    expiry.set_max_age(bench.queue, 1 << 40)  # does not ask it for the ages of its items
    assert bench.take(bench.queue) == b"a"
    bench.registry.cursors.delete(b"q", b"c")
    bench.put(b"b")
    bench.crash()
    assert bench.take_all() == [b"b"]


def test_a_damaged_queue_may_have_cursors(bench: Bench) -> None:
    """They are read back at the start, whatever has become of their queue."""
    queue = DamagedQueue(b"q", bench.queue.options, bench.journal, QueueRecord(7, 0, 0), "a test")
    cast(Any, Keeper)(queue)
    assert queue.first_id() == queue.next_id == queue.tail
