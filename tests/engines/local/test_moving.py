"""Large items that expire and go to another queue, whatever happens while their chunks are copied."""

from collections.abc import Callable
from contextlib import suppress

import pytest

from darner_core.config.queues import QueueOptions
from darner_core.storage.storage import Storage
from tests.support.bench import Bench

OpenStorage = Callable[[], Storage]


def test_a_large_item_at_the_head_is_moved_by_a_sweep_alone_and_to_all_children(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, q=QueueOptions(expire_to_queue=b"dead"))
    bench.registry.child(b"dead+a")
    body = b"x" * 2000
    bench.put_large(b"q", body, expires_in_s=5)
    bench.now_s += 6
    bench.sweep()
    bench.crash()
    assert (bench.drain(b"q"), bench.drain(b"dead"), bench.drain(b"dead+a")) == ([], [body], [body])


def test_a_large_item_that_was_given_back_is_moved_when_it_is_the_head_and_no_other_for_it(
    open_storage: OpenStorage,
) -> None:
    bench = Bench(open_storage, q=QueueOptions(expire_to_queue=b"dead"))
    bench.put(b"q", b"lives")
    bench.put_large(b"q", b"x" * 900, expires_in_s=5)
    queue = bench.queue()
    for read in [queue.open(), queue.open()]:
        assert read is not None
        queue.give_back(read)
    bench.end_turn()
    bench.now_s += 6
    bench.sweep()
    assert bench.take() == b"lives"
    bench.sweep()
    assert (bench.drain(), bench.drain(b"dead")) == ([], [b"x" * 900])


def with_a_large_item_on_its_way(open_storage: OpenStorage) -> Bench:
    """A get has found that it has expired; a sweep will move it from `q` to `dead`."""
    bench = Bench(open_storage, q=QueueOptions(expire_to_queue=b"dead"))
    bench.put_large(b"q", b"x" * 900, expires_in_s=5)
    bench.now_s += 6
    assert bench.take() is None
    return bench


def test_what_is_being_moved_and_is_given_back_meanwhile_is_moved_once(open_storage: OpenStorage) -> None:
    bench = with_a_large_item_on_its_way(open_storage)
    (read,) = bench.queue().outstanding.values()
    bench.queue().give_back(read)
    bench.end_turn()
    bench.sweep()
    assert bench.drain(b"dead") == [b"x" * 900]


def test_what_was_to_be_moved_is_only_dropped_if_it_may_go_nowhere_any_more(open_storage: OpenStorage) -> None:
    bench = with_a_large_item_on_its_way(open_storage)
    bench.rules.options[b"q"] = QueueOptions()
    list(bench.registry.set_rules(bench.rules))
    bench.sweep()
    assert (list(bench.registry.queues), bench.queue().expired_items) == ([b"q"], 1)
    assert bench.storage is not None
    assert bench.storage.first_chunk() is None


def test_a_large_item_is_not_lost_if_the_queue_it_goes_to_is_deleted_meanwhile(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, q=QueueOptions(expire_to_queue=b"dead"))
    bench.put(b"dead", b"before")
    bench.put_large(b"q", b"x" * 900, expires_in_s=5)
    bench.now_s += 6
    assert bench.take() is None

    def wait(_: float) -> None:
        bench.registry.delete(b"dead")
        bench.end_turn()

    bench.wait = wait
    bench.sweep()
    bench.wait = lambda _: bench.end_turn()
    assert bench.take() is None
    bench.sweep()
    assert bench.drain(b"dead") == [b"x" * 900]


def test_a_large_item_that_is_given_back_while_it_is_copied_is_moved_once(open_storage: OpenStorage) -> None:
    bench = with_a_large_item_on_its_way(open_storage)
    (read,) = bench.queue().outstanding.values()

    def wait(_: float) -> None:
        bench.queue().give_back(read)
        bench.end_turn()

    bench.wait = wait
    bench.sweeper._journal.time_ms = lambda: 0  # type: ignore[method-assign]  # nothing else expires in this sweep
    bench.sweep()
    del bench.sweeper._journal.time_ms
    assert bench.take() is None
    bench.sweep()
    assert bench.drain(b"dead") == [b"x" * 900]


class CrashError(Exception):
    """The server is killed."""


@pytest.mark.parametrize("turns", range(1, 13))
def test_a_crash_after_any_turn_of_a_move_leaves_the_item_in_exactly_one_queue(
    open_storage: OpenStorage, turns: int
) -> None:
    bench = with_a_large_item_on_its_way(open_storage)
    last = bench.turns + turns

    def wait(_: float) -> None:
        bench.end_turn()
        if bench.turns == last:
            raise CrashError

    bench.wait = wait
    with suppress(CrashError):
        bench.sweep()
    bench.wait = lambda _: bench.end_turn()
    bench.crash()
    bench.end_turn()
    queues = [bench.registry.queues.get(name) for name in (b"q", b"dead")]
    assert sum(queue.waiting_items for queue in queues if queue is not None) == 1
    bench.sweep()
    bench.sweep()
    assert bench.drain(b"dead") == [b"x" * 900]
    assert bench.storage is not None
    assert bench.storage.first_chunk() is None
