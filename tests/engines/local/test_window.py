# ruff: noqa: F811  (fixtures)
"""The memory that the queues share for what stands at their heads."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from darner_core.engines.local.window import WindowBudget
from darner_core.storage.records import ITEM_HEADER_BYTES, ITEM_KEY_BYTES
from tests.engines.local.test_message_queue import (  # noqa: F401
    Bench,
    OpenStorage,
    bench,
    figures,
    put_large,
    short_windows,
)

# A machine that is busy is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Queue:
    """Holds so many bytes until it is told to drop them."""

    def __init__(self, budget: WindowBudget) -> None:
        self.budget = budget
        self.held = 0
        self.drops = 0

    def hold(self, held_bytes: int) -> None:
        self.held = held_bytes
        self.budget.account(self, held_bytes)  # type: ignore[arg-type]

    def drop_window(self) -> None:
        self.held = 0
        self.drops += 1


def queues(budget_bytes: int, count: int = 3) -> tuple[WindowBudget, list[Queue]]:
    budget = WindowBudget(budget_bytes)
    return budget, [Queue(budget) for _ in range(count)]


def test_nobody_gives_up_anything_while_there_is_enough() -> None:
    budget, (first, second, third) = queues(100)
    first.hold(50)
    second.hold(30)
    third.hold(20)
    assert budget.used_bytes == 100
    assert [queue.drops for queue in (first, second, third)] == [0, 0, 0]


def test_the_one_that_was_filled_longest_ago_gives_up_first() -> None:
    budget, (first, second, third) = queues(100)
    first.hold(50)
    second.hold(40)
    third.hold(20)
    assert (first.held, second.held, third.held) == (0, 40, 20)
    assert budget.used_bytes == 60


def test_filling_again_makes_it_the_youngest() -> None:
    _, (first, second, third) = queues(100)
    first.hold(40)
    second.hold(40)
    first.hold(50)
    third.hold(20)
    assert (first.held, second.held, third.held) == (50, 0, 20)


def test_as_many_give_up_as_it_takes_and_no_more() -> None:
    budget, holders = queues(100, 5)
    for holder in holders[:4]:
        holder.hold(25)
    holders[4].hold(60)
    assert [holder.held for holder in holders] == [0, 0, 0, 25, 60]
    assert budget.used_bytes == 85


def test_one_alone_may_hold_more_than_the_budget() -> None:
    budget, (huge, other, _) = queues(100)
    other.hold(10)
    huge.hold(500)
    assert (huge.held, huge.drops, other.held) == (500, 0, 0)
    assert budget.used_bytes == 500
    other.hold(10)
    assert (huge.held, other.held) == (0, 10)
    assert budget.used_bytes == 10


def test_what_was_given_back_is_free_for_others() -> None:
    budget, (first, second, third) = queues(100)
    first.hold(60)
    first.hold(0)
    assert budget.used_bytes == 0
    second.hold(60)
    third.hold(40)
    assert (first.drops, second.drops, third.drops) == (0, 0, 0)
    first.hold(0)
    assert budget.used_bytes == 100


@unhurried
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 150))))
def test_what_is_in_use_is_what_is_held_and_over_the_budget_by_one_holder_at_most(steps: list[tuple[int, int]]) -> None:
    budget, holders = queues(100, 5)
    for index, held_bytes in steps:
        holders[index].hold(held_bytes)
        assert holders[index].held == held_bytes
        assert budget.used_bytes == sum(holder.held for holder in holders)
        assert budget.used_bytes <= 100 or sum(holder.held > 0 for holder in holders) == 1


# -- the windows of queues


@pytest.mark.usefixtures("short_windows")
def test_what_is_not_in_memory_comes_from_disk_in_order(bench: Bench) -> None:
    bodies = [b"%d" % number for number in range(20)]
    bench.put(*bodies)
    bench.crash()
    bench.put(b"20")
    bench.queue.put(b"21", 0, 0)  # on disk, of an earlier turn and of this one
    assert bench.take_all() == [*bodies, b"20", b"21"]
    bench.put(b"22")
    assert bench.take_all() == [b"22"]


@pytest.mark.usefixtures("short_windows")
@pytest.mark.parametrize("taken", range(8))
def test_a_window_can_be_dropped_at_any_time(bench: Bench, taken: int) -> None:
    bodies = [b"%d" % number for number in range(8)]
    bench.put(*bodies[:5])
    bench.crash()
    for body in bodies[5:]:
        bench.queue.put(body, 0, 0)
    got = []
    for number in range(8):
        item = bench.queue.take()
        assert isinstance(item, tuple)
        got.append(item[0])
        if number == taken:
            bench.queue.drop_window()
            bench.put(b"more")
    assert [*got, *bench.take_all()] == [*bodies, b"more"]


def test_all_queues_together_hold_no_more_in_memory_than_they_may(open_storage: OpenStorage) -> None:
    window_bytes, item_bytes, count = 4 << 20, 32 << 10, 12
    bench = Bench(open_storage, window_bytes)
    queues = [bench.registry.create(b"%02d" % number) for number in range(count)]
    for number in range(50):
        for queue in queues:
            queue.put(b"%b %02d " % (queue.name, number) + bytes(item_bytes), 0, 0)
            bench.end_turn()
        assert sum(len(body) for queue in queues for body, *_ in queue.window) <= window_bytes
    for number in range(50):
        for queue in queues:
            item = queue.take()
            assert isinstance(item, tuple)
            assert isinstance(item[0], bytes)
            assert item[0][:6] == b"%b %02d " % (queue.name, number)
            bench.end_turn()
        assert sum(len(body) for queue in queues for body, *_ in queue.window) <= window_bytes
    assert [queue.take() for queue in queues] == [None] * count


def test_a_queue_alone_holds_no_more_in_memory_than_all_may(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, window_bytes=1 << 20)
    for number in range(1000):
        bench.queue.put(b"%03d " % number + bytes(4000), 0, 0)
        if number % 10 == 9:
            bench.end_turn()
        assert sum(len(body) for body, *_ in bench.queue.window) <= 1 << 20
    assert [body[:4] for body in bench.take_all()] == [b"%03d " % number for number in range(1000)]


def test_an_item_larger_than_the_memory_for_items_is_served_all_the_same(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, window_bytes=1000)
    bench.put(bytes(5000), b"b", b"c" * 5000)
    bench.crash()
    assert bench.take_all() == [bytes(5000), b"b", b"c" * 5000]


def test_the_figures_are_true_at_every_step(bench: Bench) -> None:
    queue = bench.queue
    assert figures(queue) == (0, 0, 0, 0, 0)
    bench.put(b"1", b"22", b"333", b"4444")
    assert figures(queue) == (4, 10, 0, 4, 0)
    queue.take()
    assert figures(queue) == (3, 9, 0, 4, 0)
    second, third = bench.open(), bench.open()
    assert figures(queue) == (1, 4, 2, 4, 0)
    bench.end_turn()
    assert figures(queue) == (1, 4, 2, 4, 0)
    queue.give_back(second)
    assert figures(queue) == (2, 6, 1, 4, 0)
    queue.peek()
    assert figures(queue) == (2, 6, 1, 4, 0)
    queue.take()
    assert figures(queue) == (1, 4, 1, 4, 0)
    queue.flush()
    assert figures(queue) == (0, 0, 1, 4, 1)
    bench.put(b"55555")
    assert figures(queue) == (1, 5, 1, 5, 1)
    queue.give_back(third)
    assert figures(queue) == (2, 8, 0, 5, 1)
    bench.end_turn()
    bench.crash()
    assert figures(bench.queue) == (2, 8, 0, 0, 0)


def test_a_large_item_counts_with_the_size_of_its_body(bench: Bench) -> None:
    put_large(bench.queue, bytes(5000))
    assert figures(bench.queue) == (1, 5000, 0, 1, 0)
    bench.end_turn()
    bench.crash()
    assert figures(bench.queue) == (1, 5000, 0, 0, 0)
    bench.open()
    assert figures(bench.queue) == (0, 0, 1, 0, 0)


@pytest.mark.usefixtures("short_windows")
def test_the_age_is_that_of_the_head_wherever_it_is(bench: Bench) -> None:
    for second in range(1, 9):
        bench.now_s = second
        bench.put(b"x")
    read = bench.open()
    assert bench.queue.head_added_at_ms() == 2000
    bench.queue.give_back(read)
    assert bench.queue.head_added_at_ms() == 1000
    bench.open()
    assert bench.queue.head_added_at_ms() == 2000
    bench.end_turn()
    bench.queue.drop_window()
    assert bench.queue.head_added_at_ms() == 2000
    bench.crash()
    for second in range(1, 9):
        assert bench.queue.head_added_at_ms() == second * 1000
        bench.queue.take()
    assert bench.queue.head_added_at_ms() == 0


def test_the_log_is_as_large_as_its_records_until_the_dead_ones_are_range_deleted(bench: Bench) -> None:
    record_bytes = ITEM_KEY_BYTES + ITEM_HEADER_BYTES
    assert bench.queue.log_bytes == 0
    bench.put(bytes(100), bytes(200), bytes(300))
    assert bench.queue.log_bytes == 3 * record_bytes + 600
    bench.queue.take()
    bench.end_turn()
    assert bench.queue.log_bytes == 3 * record_bytes + 600
    bench.queue.log.reclaim()
    bench.end_turn()
    assert bench.queue.log_bytes == 2 * record_bytes + 500
    bench.crash()
    assert bench.queue.log_bytes == 2 * record_bytes + 500
    bench.take_all()
    bench.queue.log.reclaim()
    bench.end_turn()
    assert bench.queue.log_bytes == 0
