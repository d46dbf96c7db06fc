"""What every engine promises, in the words of `engines.contract`. Another engine is one more of ENGINES."""

from collections.abc import Callable
from typing import Protocol

import pytest

from darner_core.config.queues import QueueOptions
from darner_core.engines.contract import Engine, Queue, Read, Routing
from darner_core.storage.storage import Storage
from darner_core.waiters import Waiter
from tests.support.bench import Bench

Q = b"q"


class World(Protocol):
    """An engine with a queue `q` that may be made, and the turns of the loop around it."""

    @property
    def engine(self) -> Engine: ...

    @property
    def routing(self) -> Routing: ...

    def end_turn(self) -> None: ...

    def fail_turn(self) -> None:
        """Nothing of this turn has happened."""

    def pass_time(self, seconds: float) -> None: ...


class Local(Bench):
    """The engine of this process."""

    @property
    def engine(self) -> Engine:
        return self.registry

    @property
    def routing(self) -> Routing:
        return self.delivery

    def fail_turn(self) -> None:
        self.registry.create(b"durable")  # so that there is something to write, which cannot be
        super().fail_turn()
        assert b"durable" not in self.registry.queues

    def pass_time(self, seconds: float) -> None:
        self.end_turn()
        self.now_s += seconds


ENGINES: dict[str, Callable[[Callable[[], Storage]], World]] = {
    "local, durable": Local,
    "local, in memory": lambda open_storage: Local(open_storage, q=QueueOptions(durable=False)),
}


@pytest.fixture(params=ENGINES)
def world(request: pytest.FixtureRequest, open_storage: Callable[[], Storage]) -> World:
    return ENGINES[request.param](open_storage)


def put(world: World, *bodies: bytes, expires_at_ms: int = 0) -> Queue:
    for body in bodies:
        assert world.routing.put((Q,), body, 0, expires_at_ms)
    world.end_turn()
    return world.engine.queues[Q]


def opened(queue: Queue) -> Read:
    read = queue.open()
    assert read is not None
    return read


def take_all(world: World) -> list[object]:
    queue = world.engine.queues[Q]
    found: list[object] = []
    while (item := queue.take()) is not None:
        assert isinstance(item, tuple)
        found.append(item[0])
    world.end_turn()
    return found


def test_items_come_in_the_order_in_which_they_were_put(world: World) -> None:
    queue = put(world, b"1", b"2")
    queue.put(b"3", 7, 0)
    assert queue.waiting_items == queue.total_items == 3
    assert queue.waiting_bytes == 3
    assert take_all(world) == [b"1", b"2", b"3"]
    assert queue.waiting_items == 0


def test_a_queue_is_made_by_its_first_put(world: World) -> None:
    assert Q not in world.engine.queues
    put(world, b"1")
    assert world.engine.queues[Q].name == Q


def test_an_item_is_given_as_it_was_put(world: World) -> None:
    world.routing.put((Q,), b"1", 7, 2**50)
    queue = world.engine.queues[Q]
    assert queue.item_of(opened(queue))[:3] == (b"1", 7, 2**50)


def test_an_open_item_is_with_nobody_else(world: World) -> None:
    queue = put(world, b"1", b"2")
    read = opened(queue)
    assert queue.item_of(read)[0] == b"1"
    assert queue.holds(read)
    assert (queue.open_reads, queue.waiting_items, read.body_bytes, read.blob) == (1, 1, 1, 0)
    world.end_turn()
    assert take_all(world) == [b"2"]


def test_what_is_closed_is_gone(world: World) -> None:
    queue = put(world, b"1", b"2")
    read = opened(queue)
    queue.close(read)
    world.end_turn()
    assert not queue.holds(read)
    queue.close(read)  # does nothing
    queue.give_back(read)
    assert take_all(world) == [b"2"]


def test_what_is_given_back_comes_first_again(world: World) -> None:
    queue = put(world, b"1", b"2", b"3")
    first, second = opened(queue), opened(queue)
    world.end_turn()
    queue.give_back(second)
    queue.give_back(first)
    queue.give_back(first)  # does nothing
    assert first.returned
    world.end_turn()
    assert take_all(world) == [b"1", b"2", b"3"]


def test_a_read_that_was_given_back_decides_nothing(world: World) -> None:
    queue = put(world, b"1")
    old = opened(queue)
    queue.give_back(old)
    new = opened(queue)
    queue.close(old)
    assert queue.holds(new)
    assert not queue.holds(old)


def test_ids_are_in_order_of_arrival(world: World) -> None:
    queue = put(world, b"1", b"2")
    head_id = queue.head_id
    first, second = opened(queue), opened(queue)
    assert head_id == first.id < second.id


def test_to_peek_takes_nothing(world: World) -> None:
    queue = put(world, b"1")
    for _ in range(2):
        item = queue.peek()
        assert item is not None
        assert item[0] == b"1"
    assert take_all(world) == [b"1"]
    assert queue.peek() is None


def test_a_turn_that_fails_has_not_happened(world: World) -> None:
    queue = put(world, b"1", b"2", b"3")
    held = opened(queue)
    given_back = opened(queue)
    world.end_turn()
    queue.put(b"4", 0, 0)
    queue.close(held)
    queue.give_back(given_back)
    queue.take()
    queue.take()
    world.fail_turn()
    assert take_all(world) == [b"1", b"2", b"3"]  # nobody is told that the first is open again, so it waits


class Session:
    """A Holder."""

    def __init__(self) -> None:
        self.reads: list[Read] = []

    def unclose(self, read: Read) -> None:
        self.reads.append(read)


def test_whoever_closed_in_a_turn_that_fails_has_the_read_again(world: World) -> None:
    queue, session = put(world, b"1"), Session()
    read = opened(queue)
    world.end_turn()
    queue.close(read, session)
    queue.put(b"2", 0, 0)
    world.fail_turn()
    assert session.reads == [read]
    assert queue.holds(read)
    queue.give_back(read)
    assert take_all(world) == [b"1"]


def test_expired_items_are_not_handed_out(world: World) -> None:
    queue = put(world, b"1", b"2", expires_at_ms=1_000_500)
    put(world, b"3")
    world.pass_time(1)
    while queue.peek() is None:
        assert queue.half_swept
        queue.drop_expired()
    assert take_all(world) == [b"3"]


def test_to_flush_removes_what_waits_and_leaves_what_is_open(world: World) -> None:
    queue = put(world, b"1", b"2")
    read = opened(queue)
    world.engine.flush(Q)
    world.end_turn()
    assert queue.holds(read)
    assert take_all(world) == []
    queue.give_back(read)
    assert take_all(world) == [b"1"]


def test_to_delete_removes_all(world: World) -> None:
    queue = put(world, b"1", b"2")
    read = opened(queue)
    world.engine.delete(Q)
    world.engine.delete(Q)  # does nothing
    world.end_turn()
    assert queue.deleted
    assert not queue.holds(read)
    assert Q not in world.engine.queues
    put(world, b"3")
    assert take_all(world) == [b"3"]


def test_a_delete_that_fails_leaves_the_queue(world: World) -> None:
    queue = put(world, b"1")
    world.engine.delete(Q)
    world.routing.put((b"other",), b"", 0, 0)
    world.fail_turn()
    assert world.engine.queues[Q] is queue
    assert not queue.deleted
    assert take_all(world) == [b"1"]


# -- waiting


def stand(world: World, peeks: bool = False, waiter: Waiter | None = None) -> Waiter:
    return world.engine.join_line(Q, b"", peeks, waiter)


def leave(world: World, waiter: Waiter) -> None:
    waiter.cancel()
    world.engine.leave_line(Q, b"")


def test_whoever_has_waited_longest_is_handed_an_item_open(world: World) -> None:
    first, second = stand(world), stand(world)
    assert world.engine.waiters(Q) == 2
    queue = put(world, b"1")
    assert second.got is None
    assert queue.holds(first.got)
    assert queue.item_of(first.got)[0] == b"1"
    leave(world, first)
    leave(world, second)
    assert world.engine.waiters(Q) == 0
    queue.put(b"2", 0, 0)
    assert second.got is None


def test_clients_wait_for_a_name_whatever_becomes_of_the_queue(world: World) -> None:
    queue, waiter = put(world, b"1"), stand(world)
    world.engine.delete(Q)
    world.end_turn()
    assert put(world, b"2") is not queue
    assert waiter.got.queue is world.engine.queues[Q]
    leave(world, waiter)


def test_clients_wait_on_when_the_turn_that_made_the_queue_fails(world: World) -> None:
    waiter = stand(world)
    world.routing.put((Q,), b"1", 0, 0)
    read = waiter.got
    world.routing.put((b"other",), b"", 0, 0)
    world.fail_turn()
    assert read.queue.deleted
    assert not read.queue.holds(read)
    again = stand(world)  # whoever was handed what has not been put asks again
    put(world, b"2")
    assert again.got.queue.holds(again.got)
    leave(world, again)
    leave(world, waiter)


def test_what_is_given_back_goes_to_whoever_waits(world: World) -> None:
    queue = put(world, b"1")
    read, waiter = opened(queue), stand(world)
    queue.give_back(read)
    assert waiter.got.id == read.id
    leave(world, waiter)


def test_whoever_peeks_is_shown_the_queue_and_takes_nothing(world: World) -> None:
    waiter = stand(world, peeks=True)
    queue = put(world, b"1")
    assert waiter.got is queue
    leave(world, waiter)
    assert take_all(world) == [b"1"]
