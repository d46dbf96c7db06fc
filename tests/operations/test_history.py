"""Samples of queues over time, on an engine without a server."""

from collections.abc import Callable

import pytest

from darner_core.operations import history as module
from darner_core.operations.history import SAMPLES, SPARK_POINTS, STEP_S, History
from darner_core.storage.storage import Storage
from tests.support.engines import Local, put
from tests.support.operations_on import operations_on

Q = b"q"


class Watched(Local):
    def __init__(self, open_storage: Callable[[], Storage]) -> None:
        super().__init__(open_storage)
        operations = operations_on(self)
        self.history = History(operations.queues, operations.statistics, operations.jobs, self.journal._clock)

    def sample(self, times: int = 1) -> None:
        for _ in range(times):
            for _ in self.history.sample():
                pass
            self.pass_time(STEP_S)

    def take_some(self, items: int) -> None:
        for _ in range(items):
            assert self.registry.queues[Q].take() is not None
        self.end_turn()


@pytest.fixture
def world(open_storage: Callable[[], Storage]) -> Watched:
    return Watched(open_storage)


def test_rates_are_those_between_the_last_two_samples(world: Watched) -> None:
    put(world, b"a")
    world.sample()
    put(world, *[b"x"] * 30)
    world.take_some(15)
    assert world.history.rates(Q) == (None, None)
    world.sample()
    assert world.history.rates(Q) == (30 / STEP_S, 15 / STEP_S)


def test_the_history_has_a_value_for_each_step_and_none_where_nothing_is_known(world: Watched) -> None:
    put(world, b"a", b"b")
    world.sample()
    world.take_some(1)
    world.sample()
    told = world.history.history(Q, minutes=1)
    assert (told["items"], told["in"], told["out"]) == (
        [None, None, 2, 1],
        [None, None, None, 0],
        [None, None, None, 1],
    )
    assert told["step_s"] == STEP_S


def test_the_spark_ends_now(world: Watched) -> None:
    put(world, b"a")
    world.sample(9)
    put(world, b"b")
    world.sample()
    assert world.history.spark(Q) == [None] * (SPARK_POINTS - 2) + [1, 2]


def test_after_an_hour_the_oldest_samples_make_room(world: Watched) -> None:
    put(world, b"a")
    world.sample(SAMPLES)
    put(world, b"b")
    world.sample(3)
    told = world.history.history(Q)
    assert told["items"] == [1] * (SAMPLES - 4) + [2] * 3
    assert told["in"][-3:] == [1, 0, 0]


def test_all_that_has_left_is_counted_from_the_first_item_on(world: Watched) -> None:
    put(world, b"a", b"b", b"c")
    world.take_some(2)
    world.sample()
    assert world.history.gone(Q) == 2
    world.take_some(1)
    assert world.history.gone(Q) == 3


def test_a_queue_without_items_or_traffic_has_no_history(world: Watched) -> None:
    world.registry.create(b"still")
    world.end_turn()
    world.sample()
    assert world.history.spark(b"still") is None
    assert world.history.history(b"none", minutes=1)["items"] == [None] * 4
    assert world.history.figures(b"none") == {"rate_in": None, "rate_out": None, "spark": None}


def test_a_queue_that_is_made_again_begins_anew(world: Watched) -> None:
    put(world, b"a")
    world.sample(2)
    world.registry.delete(Q)
    world.end_turn()
    put(world, b"b")
    world.sample()
    told = world.history.history(Q, minutes=1)
    assert told["items"] == [None, None, None, 1]


def test_a_deleted_queue_is_forgotten(world: Watched) -> None:
    put(world, b"a")
    world.sample()
    world.registry.delete(Q)
    world.end_turn()
    world.sample()
    assert world.history.spark(Q) is None


def test_queues_beyond_the_most_are_counted_until_another_is_still(
    world: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_QUEUES", 1)
    put(world, b"a")
    world.sample(SPARK_POINTS - 1)
    other = world.registry.create(b"other")
    other.put(b"x", 0, 0)
    world.end_turn()
    assert world.history.spark(b"other") is None
    world.sample()
    assert (world.history.left_out, world.history.spark(b"other")) == (1, None)
    world.sample()
    assert world.history.spark(Q) is None
    assert world.history.spark(b"other") is not None
