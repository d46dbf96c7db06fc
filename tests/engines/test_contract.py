"""What every engine promises, in the words of `engines.contract`."""

from darner_core.engines.contract import Event, Read
from darner_core.errors import ServerError
from darner_core.waiters import Waiter
from tests.support.engines import Q, World, opened, put, take_all


def test_items_come_in_the_order_in_which_they_were_put(world: World) -> None:
    queue = put(world, b"1", b"2")
    queue.put(b"3", 7, 0)
    assert queue.waiting_items == queue.total_items == 3
    assert queue.waiting_bytes == 3
    assert take_all(world) == [b"1", b"2", b"3"]
    assert queue.waiting_items == 0


def test_a_queue_is_made_by_its_first_put(world: World) -> None:
    assert Q not in world.registry.queues
    put(world, b"1")
    assert world.registry.queues[Q].name == Q


def test_an_item_is_given_as_it_was_put(world: World) -> None:
    world.routing.put((Q,), b"1", 7, 2**50)
    queue = world.registry.queues[Q]
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


def test_what_was_given_back_in_a_turn_that_fails_can_be_taken_back(world: World) -> None:
    queue = put(world, b"1")
    read = opened(queue)
    world.end_turn()
    queue.give_back(read, wake=False)
    world.turn.undo.append((queue.take_back, read))
    world.fail_turn()
    assert queue.holds(read)
    queue.close(read)
    world.end_turn()
    assert take_all(world) == []


def test_callers_have_their_part_of_a_turn_that_fails_undone_last_first(world: World) -> None:
    undone: list[int] = []
    world.turn.undo += [(undone.append, 1), (undone.append, 2)]
    world.fail_turn()
    assert undone == [2, 1]
    world.turn.undo.append((undone.append, 3))
    put(world, b"1")
    world.fail_turn()
    assert undone == [2, 1]


def test_the_time_stands_still_within_a_turn(world: World) -> None:
    began_ms = world.turn.time_ms()
    world.pass_time(1)
    assert world.turn.time_ms() == began_ms + 1000


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
    world.registry.flush(Q)
    world.end_turn()
    assert queue.holds(read)
    assert take_all(world) == []
    queue.give_back(read)
    assert take_all(world) == [b"1"]


def test_to_delete_removes_all(world: World) -> None:
    queue = put(world, b"1", b"2")
    read = opened(queue)
    world.registry.delete(Q)
    world.registry.delete(Q)  # does nothing
    world.end_turn()
    assert queue.deleted
    assert not queue.holds(read)
    assert Q not in world.registry.queues
    put(world, b"3")
    assert take_all(world) == [b"3"]


def test_a_delete_that_fails_leaves_the_queue(world: World) -> None:
    queue = put(world, b"1")
    world.registry.delete(Q)
    world.routing.put((b"other",), b"", 0, 0)
    world.fail_turn()
    assert world.registry.queues[Q] is queue
    assert not queue.deleted
    assert take_all(world) == [b"1"]


def test_reads_that_clients_hold_are_counted(world: World) -> None:
    queue = put(world, b"1")
    read = opened(queue)
    read.count()
    assert (queue.transactions, read.counted) == (1, True)
    read.uncount()
    assert queue.transactions == 0


# -- where items go


def test_a_fanout_child_gets_a_copy_of_what_is_put_into_its_parent(world: World) -> None:
    child = world.registry.child(b"q+c")
    assert child is not None
    assert child.is_child
    queue = put(world, b"1")
    assert queue.governed
    assert [child.waiting_items, queue.waiting_items] == [1, 1]


# -- cursors


def test_a_cursor_sees_all_items_and_removes_none(world: World) -> None:
    queue = put(world, b"1", b"2")
    try:
        cursor = world.registry.cursors.of(queue, b"c")
    except ServerError:
        assert not queue.options.durable  # declined
        return
    assert queue.cursors == {b"c": cursor}
    assert world.registry.cursors.of(queue, b"other", peeks=True) is queue
    read = cursor.open()
    assert read is not None
    assert read.queue is cursor
    cursor.close(read)
    world.end_turn()
    item = cursor.peek()
    assert isinstance(item, tuple)
    assert item[0] == b"2"
    world.registry.cursors.flush(Q, b"c")
    world.registry.cursors.flush(Q, b"other")  # does nothing
    assert cursor.waiting_items == 2
    world.registry.cursors.delete(Q, b"c")
    world.registry.cursors.delete(Q, b"c")  # does nothing
    assert cursor.deleted
    assert take_all(world) == [b"1", b"2"]


# -- waiting


def stand(world: World, peeks: bool = False, waiter: Waiter | None = None) -> Waiter:
    return world.registry.join_line(Q, b"", peeks, waiter)


def leave(world: World, waiter: Waiter) -> None:
    waiter.cancel()
    world.registry.leave_line(Q, b"")


def test_whoever_has_waited_longest_is_handed_an_item_open(world: World) -> None:
    first, second = stand(world), stand(world)
    assert world.registry.waiters(Q) == 2
    queue = put(world, b"1")
    assert second.got is None
    assert queue.holds(first.got)
    assert queue.item_of(first.got)[0] == b"1"
    leave(world, first)
    leave(world, second)
    assert world.registry.waiters(Q) == 0
    queue.put(b"2", 0, 0)
    assert second.got is None


def test_clients_wait_for_a_name_whatever_becomes_of_the_queue(world: World) -> None:
    queue, waiter = put(world, b"1"), stand(world)
    world.registry.delete(Q)
    world.end_turn()
    assert put(world, b"2") is not queue
    assert waiter.got.queue is world.registry.queues[Q]
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


# -- later


def test_what_later_means_is_found_out_by_drop_expired(world: World) -> None:
    put(world, *[b"old"] * 4500, expires_at_ms=world.turn.time_ms() + 1)
    put(world, b"new")
    world.pass_time(5)
    queue = world.registry.queues[Q]
    answers = [queue.open(), queue.take(), queue.peek()]  # each removes as much as one turn may
    assert (answers, queue.half_swept) == ([None, None, None], True)
    turns = 0
    while not queue.drop_expired():
        world.end_turn()
        turns += 1
    assert turns > 0
    assert take_all(world) == [b"new"]


# -- beside the queues


def test_a_read_with_a_lease_is_confirmed_by_its_id(world: World) -> None:
    queue, leases = put(world, b"1", b"2"), world.engine.leases
    first, second = leases.next_ids(2)
    for lease_id in (first, second):
        leases.hold(lease_id, opened(queue), "owner", 60_000)
    world.end_turn()
    assert leases.opened_by("owner", Q) == 2
    assert leases.confirm(Q, [first, first, 7]) == 1
    assert leases.abort(Q, [second]) == 1
    world.end_turn()
    leases.require_decided(Q, [first, second])
    assert (leases.opened_by("owner", Q), take_all(world)) == (0, [b"2"])


def test_an_observer_is_told_of_events_that_were_written(world: World) -> None:
    told: list[Event] = []

    class Observer:
        def tell(self, event: Event) -> None:
            told.append(event)

    observer = Observer()
    queue = put(world, b"1")
    try:
        assert world.engine.traces.watch(Q, observer)
    except ServerError:
        return  # declined
    queue.put(b"2", 7, 0)
    assert told == []
    world.end_turn()
    assert [(event.queue, event.what, event.start) for event in told] == [(Q, b"put", b"2")]
    world.engine.traces.unwatch(Q, observer)
    queue.put(b"3", 0, 0)
    world.end_turn()
    assert len(told) == 1


def test_a_sweep_removes_what_has_expired(world: World) -> None:
    queue = put(world, b"kept")
    put(world, b"old", expires_at_ms=world.turn.time_ms() + 1)
    world.pass_time(5)
    world.engine.sweeper.wait_sweep(queue)
    world.end_turn()
    assert (queue.waiting_items, queue.expired_items) == (1, 1)
    assert take_all(world) == [b"kept"]
