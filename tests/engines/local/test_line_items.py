"""Items of a line by their ids. `tests/engines/test_items.py` has what is promised."""

from collections.abc import Callable

import pytest

from darner_core.engines.local import line_items
from darner_core.engines.local.aside import Aside
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.storage.storage import CHUNK_FAMILY, Storage
from tests.support.job_bench import JobBench


@pytest.fixture
def bench(open_storage: Callable[[], Storage]) -> JobBench:
    return JobBench(open_storage)


def chunks(bench: JobBench) -> int:
    assert bench.storage is not None
    return len(list(bench.storage._rocks.scan(CHUNK_FAMILY, b"", b"\xff" * 40)))


def test_the_head_and_what_was_given_back_stay_in_the_line(bench: JobBench) -> None:
    bench.put(b"q", *(b"%d" % number for number in range(1, 6)))
    queue = bench.queue()
    for read in [bench.opened() for _ in range(3)]:
        queue.give_back(read)
    for item_id in (2, 4, 1, 3, 5):
        read = bench.engine.items.open(b"q", item_id)
        assert read is not None
        assert read.queue is queue
    assert queue.__class__ is MessageQueue
    bench.end_turn()
    bench.crash()
    assert bench.drain() == [b"1", b"2", b"3", b"4", b"5"]


def test_another_is_moved_aside_and_stays_there_over_a_crash(bench: JobBench) -> None:
    bench.put(b"q", b"1", b"2", b"3", b"4")
    bench.end_turn()
    read = bench.engine.items.open(b"q", 3)
    assert read is not None
    assert isinstance(read.queue, Aside)
    bench.end_turn()
    bench.crash()
    assert line_items.find(bench.queue(), 3) is None
    assert [seen.id for seen in bench.engine.items.look(b"q")] == [1, 2, 3, 4]
    assert bench.queue().all_bytes() == 4
    assert bench.drain() == [b"1", b"2", b"3", b"4"]


def test_what_lies_behind_a_gap_is_opened_in_its_place_when_it_is_the_head(bench: JobBench) -> None:
    bench.put(b"q", *(b"%d" % number for number in range(1, 2001)))
    bench.end_turn()
    queue = bench.queue()
    assert bench.take() == b"1"
    for item_id in range(2, 1990):
        assert bench.engine.items.remove(b"q", item_id)
    bench.end_turn()
    read = bench.engine.items.open(b"q", 1990)
    assert read is not None
    assert read.queue is queue
    read.queue.close(read)
    bench.end_turn()
    bench.crash()
    assert bench.drain() == [b"%d" % number for number in range(1991, 2001)]


@pytest.mark.parametrize("how", ["open", "remove", "remove open"])
@pytest.mark.parametrize("item_id", [1, 2, 3])
def test_the_chunks_of_a_large_item_stay_as_long_as_it_does(bench: JobBench, how: str, item_id: int) -> None:
    for body in (b"1", b"2", b"3"):
        bench.put_large(b"q", body * 1000)
    if how != "remove":
        assert bench.engine.items.open(b"q", item_id) is not None
    bench.end_turn()
    assert chunks(bench) == 9
    if how != "open":
        assert bench.engine.items.remove(b"q", item_id)
        bench.fail_turn()
        assert chunks(bench) == 9
        assert bench.engine.items.remove(b"q", item_id)
        bench.end_turn()
    left = [number for number in (1, 2, 3) if how == "open" or number != item_id]
    assert chunks(bench) == 3 * len(left)
    bench.crash()
    assert bench.drain() == [b"%d" % number * 1000 for number in left]
    assert chunks(bench) == 0


def test_a_cursor_has_what_its_queue_moves_aside(bench: JobBench) -> None:
    bench.put_large(b"q", b"1" * 1000)
    bench.put_large(b"q", b"2" * 1000)
    cursor = bench.registry.cursors.of(bench.queue(), b"c")
    reads = [cursor.open(), cursor.open()]
    bench.end_turn()
    assert bench.engine.items.open(b"q", 2) is not None
    bench.end_turn()
    for read in reads:
        assert read is not None
        cursor.close(read)
        bench.end_turn()
    assert chunks(bench) == 6
    bench.crash()
    assert bench.drain() == [b"1" * 1000, b"2" * 1000]
