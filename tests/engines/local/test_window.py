"""The memory that the queues share for what stands at their heads."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from darner_core.engines.local.window import WindowBudget

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
        self.budget.account(self, held_bytes)

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
