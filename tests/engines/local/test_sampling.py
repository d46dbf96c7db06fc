"""How long items wait and are open, in turns that are samples, on an engine without a server."""

from collections.abc import Callable

import pytest

from darner_core.engines.local.reads import OpenRead
from darner_core.engines.local.sampling import Sampling
from darner_core.storage.storage import Storage
from tests.support.engines import Local, Q, opened, put

OpenStorage = Callable[[], Storage]


class Sampled(Local):
    """Turns that are samples are those between `pick` and `end_turn`."""

    def __init__(self, open_storage: OpenStorage) -> None:
        super().__init__(open_storage)
        self.queued: list[tuple[float, int]] = []
        self.held: list[tuple[float, int]] = []
        self.now = 0.0
        self.sampling = Sampling(
            self.journal,
            lambda *sample: self.queued.append(sample),
            lambda *sample: self.held.append(sample),
            lambda: self.now,
        )

    def end_picked(self, weight: int = 1) -> None:
        self.sampling.end(weight)
        self.end_turn()


@pytest.fixture
def world(open_storage: OpenStorage) -> Sampled:
    return Sampled(open_storage)


def test_what_is_taken_in_a_picked_turn_tells_how_long_it_waited(world: Sampled) -> None:
    queue = put(world, b"a")
    world.pass_time(2)
    put(world, b"b")
    world.pass_time(1)
    world.sampling.begin()
    assert queue.take() is not None
    assert queue.open() is not None
    world.end_picked(weight=7)
    assert world.queued == [(3.0, 7), (1.0, 7)]


def test_what_is_put_and_taken_in_one_turn_has_not_waited(world: Sampled) -> None:
    queue = put(world, b"a")
    assert queue.take() is not None
    world.end_turn()
    world.sampling.begin()
    queue.put(b"b", 0, 0)
    assert queue.take() is not None
    world.end_picked()
    assert world.queued == [(0.0, 1)]


def test_turns_that_are_not_picked_tell_nothing(world: Sampled) -> None:
    queue = put(world, b"a", b"b")
    assert queue.take() is not None
    world.end_turn()
    world.sampling.begin()
    world.end_picked()
    assert queue.take() is not None
    world.end_turn()
    assert world.queued == []


def test_what_is_flushed_was_not_taken(world: Sampled) -> None:
    queue = put(world, b"a", b"b")
    world.sampling.begin()
    queue.flush()
    world.end_picked()
    assert world.queued == []


def hold(world: Sampled) -> OpenRead:
    """A client takes an item in a picked turn."""
    queue = put(world, b"a")
    world.sampling.begin()
    read = opened(queue)
    read.count()
    world.end_picked(weight=5)
    assert isinstance(read, OpenRead)
    return read


def test_an_item_that_is_acknowledged_tells_how_long_it_was_open(world: Sampled) -> None:
    read = hold(world)
    world.now = 4.0
    read.queue.close(read)
    world.end_turn()
    del read
    assert world.held == [(4.0, 5)]


def test_an_item_that_comes_back_tells_nothing(world: Sampled) -> None:
    read = hold(world)
    read.queue.give_back(read)
    world.end_turn()
    del read
    queue = world.registry.queues[Q]
    again = queue.open()
    assert again is not None
    queue.close(again)
    world.end_turn()
    assert world.held == []


def test_a_queue_that_is_deleted_tells_nothing(world: Sampled) -> None:
    read = hold(world)
    world.registry.delete(read.queue.name)
    world.end_turn()
    del read
    assert world.held == []


def test_what_is_opened_and_closed_in_one_turn_was_open_for_no_time(world: Sampled) -> None:
    queue = put(world, b"a")
    world.sampling.begin()
    read = opened(queue)
    read.count()
    queue.close(read)
    world.end_picked()
    assert world.held == [(0.0, 1)]


def test_a_sampled_read_can_be_undone_as_any(world: Sampled) -> None:
    queue = put(world, b"a")
    world.sampling.begin()
    read = opened(queue)
    world.sampling.end(1)
    world.fail_turn()
    assert read.returned
    assert queue.waiting_items == 1
    del read
    assert world.held == []


def test_a_close_that_is_undone_leaves_the_sample_open(world: Sampled) -> None:
    read = hold(world)
    read.queue.close(read, Holder())
    world.fail_turn()
    assert world.held == []
    world.now = 9.0
    read.queue.close(read)
    world.end_turn()
    del read
    assert world.held == [(9.0, 5)]


class Holder:
    def unclose(self, read: object) -> None:
        """Its client has it still."""
