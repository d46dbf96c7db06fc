"""What every engine promises of single items, in the words of `engines.items`."""

from typing import Any

import pytest

from darner_core.engines.items import Seen, State
from darner_core.engines.jobs import Failure, JobOptions
from tests.support.engines import Q, World, opened, put, take_all

ALL = (State.READY, State.DELAYED, State.BURIED, State.OPEN)


def put_job(world: World, body: bytes, **options: Any) -> None:
    world.engine.jobs.put((Q,), body, 0, 0, JobOptions(**options))
    world.end_turn()


def body_of(world: World, item_id: int) -> Any:
    item = world.engine.items.item(Q, item_id)
    assert item is not None
    return item[0]


def looked(world: World, state: State = State.READY, **about: Any) -> list[Any]:
    return [body_of(world, seen.id) for seen in world.engine.items.look(Q, state, **about)]


def id_of(world: World, body: bytes) -> int:
    return next(
        seen.id
        for state in ALL
        for seen in world.engine.items.look(Q, state, most=1000)
        if body_of(world, seen.id) == body
    )


def found(world: World, item_id: int) -> Seen:
    seen = world.engine.items.find(Q, item_id)
    assert seen is not None
    return seen


def open_item(world: World, body: bytes) -> Any:
    read = world.engine.items.open(Q, id_of(world, body))
    assert read is not None
    return read


def a_mixture(world: World) -> list[bytes]:
    """Some that stand in order, some that do not; in which order they will be handed out."""
    put(world, b"1", b"2")
    put_job(world, b"urgent", pri=5)
    put(world, b"3")
    put_job(world, b"late", pri=2000)
    put_job(world, b"4", key=b"k")
    put(world, b"5")
    queue = world.registry.queues[Q]
    for read in (opened(queue), opened(queue)):
        read.queue.give_back(read)
    world.end_turn()
    return [b"urgent", b"1", b"2", b"3", b"4", b"5", b"late"]


# -- looking


def test_a_queue_that_does_not_exist_has_no_items(world: World) -> None:
    items = world.engine.items
    assert [items.look(Q, state) for state in ALL] == [[]] * 4
    assert (items.find(Q, 1), items.item(Q, 1), items.rank(Q), items.open(Q, 1)) == (None,) * 4
    assert not items.remove(Q, 1)
    assert not items.kick(Q, 1)
    assert items.held(Q, 1) is None


def test_a_look_shows_what_waits_in_the_order_in_which_it_will_go(world: World) -> None:
    expected = a_mixture(world)
    assert looked(world) == expected
    assert looked(world, backwards=True) == expected[::-1]
    assert looked(world, most=2) == expected[:2]
    assert looked(world, most=0) == []
    assert take_all(world) == expected


@pytest.mark.parametrize("most", [1, 2, 3])
@pytest.mark.parametrize("backwards", [False, True])
def test_the_next_look_goes_on_where_the_last_one_ended(world: World, most: int, backwards: bool) -> None:
    expected = a_mixture(world)
    seen, position = [], None
    while page := world.engine.items.look(Q, after=position, most=most, backwards=backwards):
        seen += [body_of(world, one.id) for one in page]
        position = page[-1].position
    assert seen == (expected[::-1] if backwards else expected)


def test_a_look_goes_on_though_what_it_saw_is_gone(world: World) -> None:
    expected = a_mixture(world)
    position = world.engine.items.look(Q, most=3)[-1].position
    for body in expected[:4]:
        world.engine.items.remove(Q, id_of(world, body))
    assert looked(world, after=position) == expected[4:]


def test_what_was_put_in_this_turn_is_seen(world: World) -> None:
    put(world, b"1")
    world.registry.queues[Q].put(b"2", 0, 0)
    world.engine.jobs.put((Q,), b"first", 0, 0, JobOptions(pri=1))
    assert looked(world) == [b"first", b"1", b"2"]
    assert looked(world, backwards=True) == [b"2", b"1", b"first"]


def test_what_has_expired_is_not_seen(world: World) -> None:
    put(world, b"1", b"2", expires_at_ms=1_001_000)
    put(world, b"3")
    world.pass_time(2)
    assert looked(world) == looked(world, backwards=True) == [b"3"]
    assert world.engine.items.find(Q, 1) is None
    assert world.engine.items.open(Q, 1) is None
    assert not world.engine.items.remove(Q, 1)


def test_each_state_has_a_look_of_its_own(world: World) -> None:
    put(world, b"ready", b"open", b"buried first", b"buried then")
    put_job(world, b"delayed longer", delay_ms=9000)
    put_job(world, b"delayed", delay_ms=5000)
    for body in (b"buried first", b"buried then"):
        world.engine.items.bury(open_item(world, body))
    open_item(world, b"open")
    world.end_turn()
    assert looked(world, State.READY) == [b"ready"]
    assert looked(world, State.OPEN) == [b"open"]
    assert looked(world, State.DELAYED) == [b"delayed", b"delayed longer"]
    assert looked(world, State.BURIED) == [b"buried first", b"buried then"]
    for state in (State.DELAYED, State.BURIED):
        page = world.engine.items.look(Q, state, most=1)
        assert looked(world, state, after=page[0].position) == looked(world, state)[1:]
        assert looked(world, state, backwards=True) == looked(world, state)[::-1]


def test_open_ones_are_seen_page_by_page(world: World) -> None:
    put(world, b"1", b"2", b"3", b"4")
    for body in (b"3", b"1", b"4"):
        open_item(world, body)
    page = world.engine.items.look(Q, State.OPEN, most=2)
    assert [body_of(world, seen.id) for seen in page] == [b"1", b"3"]
    assert looked(world, State.OPEN, after=page[-1].position) == [b"4"]
    assert looked(world, State.OPEN, after=page[-1].position, backwards=True) == [b"1"]


def test_an_item_says_all_that_is_known_of_it(world: World) -> None:
    put_job(world, b"body", delay_ms=5000, pri=7, ttr_ms=3000, key=b"k")
    seen = found(world, id_of(world, b"body"))
    assert seen[1:8] == (State.DELAYED, 7, 3000, 1_005_000, 4, 0, 1_000_000)
    assert (seen.expires_at_ms, seen.key) == (0, b"k")
    read = open_item(world, b"body")
    assert found(world, seen.id)[1:5] == (State.OPEN, 7, 3000, 0)
    world.engine.jobs.fail(read, Failure.TIMED_OUT, counted=True)
    world.end_turn()
    assert found(world, seen.id)[1:5] == (State.READY, 7, 3000, 0)
    assert found(world, seen.id).timeouts == 1


def test_an_item_of_the_line_has_the_priority_of_all(world: World) -> None:
    put_job(world, b"1", pri=7, ttr_ms=3000)
    put_job(world, b"2", pri=7, ttr_ms=3000)
    assert [(seen.pri, seen.ttr_ms) for seen in world.engine.items.look(Q)] == [(7, 3000)] * 2


def test_to_look_at_an_item_leaves_it_where_it_is(world: World) -> None:
    put(world, b"1")
    item_id = id_of(world, b"1")
    read = opened(world.registry.queues[Q])
    assert body_of(world, item_id) == b"1"
    assert world.registry.queues[Q].holds(read)
    assert found(world, item_id).state is State.OPEN


def test_rank_tells_what_would_be_handed_out(world: World) -> None:
    put(world, b"1")
    assert world.engine.items.rank(Q) == (1024, 1_000_000)
    world.pass_time(1)
    put_job(world, b"2", pri=5)
    assert world.engine.items.rank(Q) == (5, 1_001_000)
    opened(world.registry.queues[Q])
    assert world.engine.items.rank(Q) == (1024, 1_000_000)
    opened(world.registry.queues[Q])
    assert world.engine.items.rank(Q) is None


# -- opening


@pytest.mark.parametrize("body", [b"1", b"2", b"3", b"urgent", b"4", b"5", b"late"])
def test_any_item_can_be_opened_and_comes_back_to_its_place(world: World, body: bytes) -> None:
    expected = a_mixture(world)
    read = open_item(world, body)
    assert read.queue.item_of(read)[0] == body
    assert world.engine.items.open(Q, read.id) is None
    assert looked(world) == [one for one in expected if one != body]
    world.end_turn()
    assert found(world, read.id).state is State.OPEN
    read.queue.give_back(read)
    world.end_turn()
    assert found(world, read.id).state is State.READY
    assert looked(world) == expected
    assert take_all(world) == expected


@pytest.mark.parametrize("body", [b"1", b"2", b"3", b"urgent", b"4", b"5", b"late"])
def test_an_item_that_was_opened_can_be_closed(world: World, body: bytes) -> None:
    expected = a_mixture(world)
    read = open_item(world, body)
    read.queue.close(read)
    world.end_turn()
    assert world.engine.items.find(Q, read.id) is None
    assert take_all(world) == [one for one in expected if one != body]


@pytest.mark.parametrize("body", [b"1", b"2", b"3", b"urgent", b"4", b"5", b"late"])
def test_an_open_in_a_turn_that_fails_has_not_happened(world: World, body: bytes) -> None:
    expected = a_mixture(world)
    read = open_item(world, body)
    world.fail_turn()
    assert not read.queue.holds(read)
    assert looked(world) == expected
    assert take_all(world) == expected


def test_an_item_put_in_this_turn_can_be_opened(world: World) -> None:
    put(world, b"1")
    queue = world.registry.queues[Q]
    for body in (b"2", b"3", b"4"):
        queue.put(body, 0, 0)
    read = open_item(world, b"3")
    assert looked(world) == [b"1", b"2", b"4"]
    assert looked(world, backwards=True) == [b"4", b"2", b"1"]
    assert [queue.item_of(opened(queue))[0] for _ in range(2)] == [b"1", b"2"]
    queue.put(b"5", 0, 0)
    world.end_turn()
    read.queue.give_back(read)
    assert take_all(world) == [b"3", b"4", b"5"]


def test_delayed_and_buried_items_can_be_opened_and_are_then_what_they_were(world: World) -> None:
    put_job(world, b"delayed", delay_ms=5000)
    put(world, b"buried")
    world.engine.items.bury(opened(world.registry.queues[Q]))
    world.end_turn()
    for body, state in ((b"delayed", State.DELAYED), (b"buried", State.BURIED)):
        read = open_item(world, body)
        assert looked(world, state) == []
        read.queue.give_back(read)
        world.end_turn()
        assert looked(world, state) == [body]


# -- removing


@pytest.mark.parametrize("body", [b"1", b"2", b"3", b"urgent", b"4", b"5", b"late"])
@pytest.mark.parametrize("is_open", [False, True])
def test_any_item_can_be_removed(world: World, body: bytes, is_open: bool) -> None:
    expected = a_mixture(world)
    item_id = id_of(world, body)
    read = world.engine.items.open(Q, item_id) if is_open else None
    world.end_turn()
    assert world.engine.items.remove(Q, item_id)
    assert not world.engine.items.remove(Q, item_id)
    world.fail_turn()
    assert found(world, item_id).state is (State.OPEN if is_open else State.READY)
    assert world.engine.items.remove(Q, item_id)
    world.end_turn()
    assert world.engine.items.find(Q, item_id) is None
    if read is not None:
        assert not read.queue.holds(read)
        read.queue.close(read)  # does nothing
        read.queue.give_back(read)
        world.end_turn()
    assert take_all(world) == [one for one in expected if one != body]


def test_delayed_and_buried_items_can_be_removed(world: World) -> None:
    put_job(world, b"delayed", delay_ms=5000, key=b"k")
    put(world, b"buried")
    world.engine.items.bury(opened(world.registry.queues[Q]))
    for body in (b"delayed", b"buried"):
        assert world.engine.items.remove(Q, id_of(world, body))
    world.end_turn()
    put_job(world, b"again", key=b"k")
    world.pass_time(10)
    assert take_all(world) == [b"again"]


# -- changing states


def test_one_item_is_kicked(world: World) -> None:
    put_job(world, b"1", delay_ms=5000)
    put_job(world, b"2", delay_ms=5000)
    put(world, b"3")
    item_id = id_of(world, b"2")
    assert world.engine.items.kick(Q, item_id)
    world.fail_turn()
    assert looked(world, State.DELAYED) == [b"1", b"2"]
    assert world.engine.items.kick(Q, item_id)
    assert not world.engine.items.kick(Q, item_id)  # it is ready
    assert not world.engine.items.kick(Q, id_of(world, b"3"))
    read = open_item(world, b"1")
    assert not world.engine.items.kick(Q, read.id)
    world.end_turn()
    assert found(world, item_id).kicks == 1
    assert take_all(world) == [b"2", b"3"]


def test_what_is_buried_has_not_failed(world: World) -> None:
    put(world, b"1", b"2")
    read = opened(world.registry.queues[Q])
    world.end_turn()
    world.engine.items.bury(read, 7)
    world.engine.items.bury(read, 7)  # does nothing: it is open no more
    world.fail_turn()
    assert read.queue.holds(read)
    assert found(world, read.id).state is State.OPEN
    world.engine.items.bury(read, 7)
    world.end_turn()
    seen = found(world, read.id)
    assert (seen.state, seen.pri, seen.buries, seen.nacks) == (State.BURIED, 7, 1, 0)
    assert world.engine.jobs.kick(Q, 1) == 1
    assert take_all(world) == [b"1", b"2"]


def test_what_is_postponed_has_not_failed(world: World) -> None:
    put(world, b"1", b"2")
    read = opened(world.registry.queues[Q])
    world.end_turn()
    world.engine.items.postpone(read, 1_005_000)
    world.fail_turn()
    assert read.queue.holds(read)
    world.engine.items.postpone(read, 1_005_000)
    world.end_turn()
    seen = found(world, read.id)
    assert (seen.state, seen.due_ms, seen.nacks) == (State.DELAYED, 1_005_000, 0)
    assert looked(world) == [b"2"]
    world.pass_time(6)
    assert take_all(world) == [b"1", b"2"]


def test_what_is_postponed_until_a_time_that_has_passed_is_ready(world: World) -> None:
    put(world, b"1", b"2")
    world.engine.items.postpone(opened(world.registry.queues[Q]), 5)
    assert looked(world) == [b"1", b"2"]
    world.engine.items.postpone(open_item(world, b"2"), 5)
    assert looked(world) == [b"1", b"2"]


# -- held without a connection


@pytest.mark.parametrize("body", [b"1", b"2", b"late"])
def test_what_is_held_by_its_id_comes_back_in_time(world: World, body: bytes) -> None:
    expected = a_mixture(world)
    read = open_item(world, body)
    world.engine.items.hold(read, 5000, b"somebody")
    world.end_turn()
    held = world.engine.items.held(Q, read.id)
    assert world.engine.items.left_ms(Q, read.id) == 5000
    world.pass_time(3)
    assert world.engine.items.left_ms(Q, read.id) == 2000
    assert world.engine.leases.touch(held)
    assert world.engine.items.left_ms(Q, read.id) == 5000
    world.pass_time(4)
    assert world.registry.queues[Q].open_reads == 1
    world.pass_time(2)
    assert world.engine.items.held(Q, read.id) is None
    assert world.engine.items.left_ms(Q, read.id) == -1
    assert take_all(world) == expected


def test_a_failure_is_counted_if_whoever_holds_it_wants_that(world: World) -> None:
    put(world, b"1")
    read = open_item(world, b"1")
    world.engine.items.hold(read, 5000, counted=True)
    world.pass_time(6)
    assert found(world, read.id).timeouts == 1
    assert take_all(world) == [b"1"]


def test_a_hold_in_a_turn_that_fails_holds_nothing(world: World) -> None:
    put(world, b"1")
    read = open_item(world, b"1")
    world.engine.items.hold(read, 5000)
    world.fail_turn()
    assert world.engine.items.held(Q, read.id) is None
    assert looked(world) == [b"1"]


def test_what_is_held_can_be_removed(world: World) -> None:
    put(world, b"1", b"2")
    read = open_item(world, b"2")
    world.engine.items.hold(read, 5000)
    world.end_turn()
    assert world.engine.items.remove(Q, read.id)
    world.fail_turn()
    assert world.engine.items.left_ms(Q, read.id) == 5000
    assert world.engine.items.remove(Q, read.id)
    assert world.engine.items.held(Q, read.id) is None
    world.pass_time(6)
    assert take_all(world) == [b"1"]


def test_what_is_held_can_be_ended_and_failed(world: World) -> None:
    put(world, b"1", b"2")
    read = open_item(world, b"2")
    world.engine.items.hold(read, 5000)
    for fails in (True, False):
        world.end_turn()
        held = world.engine.items.held(Q, read.id)
        world.engine.jobs.fail(world.engine.leases.end(held), Failure.ABORTED, b"c", counted=True)
        assert world.engine.items.held(Q, read.id) is None
        if fails:
            world.fail_turn()
            assert world.engine.items.left_ms(Q, read.id) == 5000
            assert found(world, read.id).state is State.OPEN
    world.end_turn()
    assert found(world, read.id).nacks == 1
    assert looked(world) == [b"1", b"2"]


def test_what_a_session_holds_nobody_else_does(world: World) -> None:
    put(world, b"1", b"2")
    read, other = open_item(world, b"1"), open_item(world, b"2")
    assert world.engine.items.left_ms(Q, read.id) == -1
    world.engine.leases.bind(read, 5000)
    assert world.engine.items.held(Q, read.id) is None
    assert world.engine.items.left_ms(Q, read.id) == 5000
    lease_id = world.engine.leases.next_ids(1)[0]
    world.engine.leases.hold(lease_id, other, None, 3000)
    assert world.engine.items.held(Q, other.id) is None
    assert world.engine.items.left_ms(Q, other.id) == 3000
    for one in (read, other):
        assert world.engine.items.remove(Q, one.id)
        assert world.engine.items.left_ms(Q, one.id) == -1
    assert world.engine.leases.confirm(Q, [lease_id]) == 0


# -- numbers


def number(world: World, body: bytes, name: bytes = Q) -> int:
    item_id = id_of(world, body)
    given = world.engine.items.number(name, item_id)
    assert world.engine.items.numbered(given) == (name, item_id)
    return given


def test_items_have_numbers_in_the_order_in_which_they_are_asked_for(world: World) -> None:
    put(world, *(b"%d" % count for count in range(1, 21)))
    assert [number(world, b"%d" % count) for count in range(1, 21)] == [*range(1, 21)]
    assert [number(world, b"%d" % count) for count in range(20, 0, -1)] == [*range(20, 0, -1)]


def test_no_two_items_of_any_queues_have_one_number(world: World) -> None:
    numbers = set()
    for count in range(100):
        for name in (b"q", b"r", b"s"):
            placed = world.engine.jobs.put((name,), b"x", 0, 0, JobOptions(pri=count % 2))
            given = world.engine.items.number(name, placed.id)
            assert world.engine.items.numbered(given) == (name, placed.id)
            numbers.add(given)
        world.end_turn()
    assert len(numbers) == 300
    assert max(numbers) < 1000


def test_an_item_keeps_its_number_wherever_it_goes(world: World) -> None:
    put(world, b"1", b"2", b"3")
    given = {body: number(world, body) for body in (b"3", b"1", b"2")}
    for body in (b"2", b"3"):
        world.engine.items.bury(open_item(world, body))
    world.end_turn()
    assert {body: number(world, body) for body in given} == given


def test_a_number_of_a_turn_that_fails_is_no_items(world: World) -> None:
    put(world, b"1", b"2", b"3")
    first = number(world, b"1")
    world.end_turn()
    lost = number(world, b"3")
    number(world, b"2")
    world.fail_turn()
    assert world.engine.items.numbered(lost) is None
    assert [number(world, body) for body in (b"1", b"2", b"3")] == [first, first + 1, first + 2]


def test_what_was_never_given_is_no_items(world: World) -> None:
    put(world, b"1", b"2", b"3")
    last = [number(world, body) for body in (b"1", b"2", b"3")][-1]
    assert [world.engine.items.numbered(given) for given in (0, last + 1, last + 2, 2**60)] == [None] * 4


def test_the_numbers_of_a_queue_that_is_deleted_are_not_used_again(world: World) -> None:
    put(world, b"1", b"2")
    before = [number(world, body) for body in (b"1", b"2")]
    world.registry.delete(Q)
    world.end_turn()
    assert world.engine.items.numbered(before[0]) is None
    put(world, b"3")
    assert number(world, b"3") > max(before)


def test_a_queue_has_a_number_as_long_as_it_exists(world: World) -> None:
    items = world.engine.items
    assert items.queue_number(Q) == 0
    put(world, b"1")
    world.routing.put((b"r",), b"1", 0, 0)
    numbers = [items.queue_number(name) for name in (Q, b"r")]
    assert 0 < min(numbers) < max(numbers) < 2**32
    assert [items.queue_numbered(given) for given in (*numbers, 0, 2**31)] == [Q, b"r", None, None]
    world.registry.delete(Q)
    assert items.queue_numbered(numbers[0]) is None


def test_an_engine_has_a_name_and_a_secret(world: World) -> None:
    name, secret = world.engine.items.identity
    assert (len(name), len(secret)) == (20, 16)
    world.end_turn()
    assert world.engine.items.identity == (name, secret)
