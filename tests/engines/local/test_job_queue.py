"""A queue that is a JobQueue for as long as it has to be one."""

from collections.abc import Callable

import pytest

from darner_core.config.queues import QueueOptions
from darner_core.engines.local.job_queue import JobQueue
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.storage.storage import Storage
from tests.support.job_bench import JobBench


@pytest.fixture
def bench(open_storage: Callable[[], Storage]) -> JobBench:
    return JobBench(open_storage, counting=QueueOptions(max_deliveries=3))


def test_a_queue_is_plain_until_something_lies_aside_and_again_when_that_is_gone(bench: JobBench) -> None:
    bench.put(b"q", b"1")
    assert not bench.queue().counts_failures
    bench.put_job(b"q", b"2", key=b"k")
    assert bench.queue().counts_failures
    bench.crash()
    bench.put(b"q", b"1")
    bench.put_job(b"q", b"2", key=b"k")
    bench.end_turn()
    bench.crash()
    assert isinstance(bench.queue(), JobQueue)
    assert bench.drain() == [b"1", b"2"]
    assert bench.queue().__class__ is MessageQueue


def test_a_queue_whose_options_count_failures_always_is_one(bench: JobBench) -> None:
    bench.put(b"counting", b"1", b"2")
    queue = bench.queue(b"counting")
    assert isinstance(queue, JobQueue)
    assert (queue.waiting_items, queue.head_id, queue.head_added_at_ms(), queue.aside_items) == (2, 1, 1_000_000, 0)
    assert queue.peek() == (b"1", 0, 0, 1_000_000)
    queue.flush()
    assert (queue.drop_expired(), queue.head_added_at_ms(), queue.take()) == (True, 0, None)


def test_figures_are_those_of_line_and_aside(bench: JobBench) -> None:
    bench.put(b"q", b"1")
    bench.put_job(b"q", b"22", pri=1)
    bench.put_job(b"q", b"333", delay_ms=1000)
    queue = bench.queue()
    assert (queue.waiting_items, queue.stored_items, queue.waiting_bytes, queue.open_reads) == (2, 3, 6, 0)
    bench.opened()
    assert (queue.waiting_items, queue.stored_items, queue.waiting_bytes, queue.open_reads) == (1, 3, 4, 1)
    assert (queue.kept(), queue.all_bytes(), queue.head_id) == ((2, 5), 6, 1)
    assert not queue.keeps_aside(1)


def test_a_cursor_sees_the_line_and_keeps_no_chunks_from_an_item_that_went_aside(bench: JobBench) -> None:
    bench.put_large(b"q", b"x" * 900)
    bench.put_job(b"q", b"aside", key=b"k")
    cursor = bench.registry.cursors.of(bench.queue(), b"c")
    read = cursor.open()
    assert read is not None
    bench.fail(pri=2000)
    cursor.close(read)
    bench.end_turn()
    assert cursor.open() is None
    assert bench.drain() == [b"aside", b"x" * 900]


@pytest.mark.parametrize("flushes", [False, True])
def test_a_cursor_begins_at_the_head_of_the_line_whatever_comes_before_that(bench: JobBench, flushes: bool) -> None:
    bench.put(b"q", b"1", b"2")
    if flushes:
        bench.registry.cursors.of(bench.queue(), b"c").take()
    bench.put_job(b"q", b"fast", pri=3)
    cursor = bench.registry.cursors.of(bench.queue(), b"c")
    if flushes:
        cursor.flush()
    bench.put(b"q", b"3")
    bench.end_turn()
    bench.crash()
    cursor = bench.registry.cursors.of(bench.queue(), b"c")
    items = [cursor.take() for _ in range(4)]
    assert [item[0] for item in items if isinstance(item, tuple)] == [b"1", b"2", b"3"]
