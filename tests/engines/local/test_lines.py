# ruff: noqa: F811  (fixtures)
"""Who waits, waits for a name: for queues that exist or do not, whatever becomes of them meanwhile."""

from collections.abc import Callable
from typing import Any

import pytest

from darner_core.errors import ServerError, StorageError
from darner_core.operations.session import Session
from tests.engines.local.test_message_queue import Bench as QueueBench
from tests.engines.local.test_message_queue import bench as queue_bench  # noqa: F401
from tests.engines.local.test_message_queue import refusing_writes
from tests.engines.local.test_registry import Bench, bench, body_of  # noqa: F401

# -- waiting


def test_what_is_put_or_given_back_is_handed_to_who_has_waited_longest(queue_bench: QueueBench) -> None:
    waiters = [queue_bench.registry.join_line(b"q", b"", False) for _ in range(3)]
    queue_bench.put(b"a", b"b")
    assert [queue_bench.queue.item_of(waiter.got)[0] for waiter in waiters[:2]] == [b"a", b"b"]
    assert len(queue_bench.queue.line or ()) == 1
    assert queue_bench.queue.open_reads == 2
    queue_bench.queue.give_back(waiters[0].got)
    assert queue_bench.queue.item_of(waiters[2].got)[0] == b"a"
    assert queue_bench.queue.waiting_items == 0


def test_a_waiting_peek_leaves_the_item_to_the_next_in_line(queue_bench: QueueBench) -> None:
    peeking, taking = queue_bench.registry.join_line(b"q", b"", True), queue_bench.registry.join_line(b"q", b"", False)
    queue_bench.put(b"a")
    assert peeking.got is queue_bench.queue
    assert queue_bench.queue.item_of(taking.got)[0] == b"a"


def test_nobody_is_handed_what_a_failed_turn_takes_back(queue_bench: QueueBench) -> None:
    queue_bench.put(b"a")
    held = queue_bench.open()
    queue_bench.end_turn()
    first, second = queue_bench.registry.join_line(b"q", b"", False), queue_bench.registry.join_line(b"q", b"", False)
    queue_bench.queue.put(b"b", 0, 0)
    queue_bench.queue.close(held, Session(queue_bench.journal))
    with refusing_writes(queue_bench.storage), pytest.raises(StorageError):
        queue_bench.end_turn()
    assert not queue_bench.queue.holds(first.got)
    assert second.got is None
    assert queue_bench.queue.holds(held)
    assert queue_bench.queue.waiting_items == 0


def test_an_item_that_a_failed_turn_gives_back_reaches_who_still_waits(queue_bench: QueueBench) -> None:
    """The first in line is told of the error; the item it was handed waits again while the second is in line."""
    queue_bench.put(b"a")
    held = queue_bench.open()
    queue_bench.end_turn()
    first, second = queue_bench.registry.join_line(b"q", b"", False), queue_bench.registry.join_line(b"q", b"", False)
    queue_bench.queue.give_back(held)  # its client has hung up, so it stays given back
    queue_bench.queue.put(b"b", 0, 0)  # for the second
    with refusing_writes(queue_bench.storage), pytest.raises(StorageError):
        queue_bench.end_turn()
    third = queue_bench.registry.join_line(b"q", b"", False)
    queue_bench.registry.recheck()
    queue_bench.end_turn()
    assert not any(queue_bench.queue.holds(waiter.got) for waiter in (first, second))
    assert third.got is not None
    assert queue_bench.queue.item_of(third.got)[0] == b"a"


# -- who waits for a queue that does not exist


def test_waiting_for_a_queue_that_does_not_exist_costs_nothing_on_disk(bench: Bench) -> None:
    waiting = bench.wait_at(b"q")
    assert bench.journal.commit() is False
    assert bench.registry.queues == {}
    assert bench.names_on_disk() == []
    bench.stop_waiting(waiting)


def test_who_waits_for_a_queue_gets_its_first_item(bench: Bench) -> None:
    first, second = bench.wait_at(b"q"), bench.wait_at(b"q")
    bench.registry.create(b"q").put(b"x", 0, 0)
    bench.end_turn()
    assert body_of(first) == b"x"
    assert second.got is None


def test_who_waits_for_a_queue_that_could_not_be_made_gets_the_first_item_of_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiter = bench.wait_at(b"q")

    def refuse(*_: Any) -> Any:
        raise StorageError("cannot be read")

    with monkeypatch.context() as patch:
        patch.setattr(bench.storage, "items", refuse)
        with pytest.raises(StorageError):
            bench.registry.create(b"q")
    bench.create(b"q")
    bench.registry.queues[b"q"].put(b"1", 0, 0)
    assert body_of(waiter) == b"1"


def test_a_queue_that_is_not_waited_for_any_more_is_forgotten(bench: Bench) -> None:
    first, second = bench.wait_at(b"q"), bench.wait_at(b"q")
    bench.stop_waiting(first)
    assert bench.awaited() == [b"q"]
    bench.stop_waiting(second)
    assert bench.awaited() == []


# What may happen to a queue while clients wait for an item of it, and whether it exists at first.
MEANWHILE: dict[str, tuple[bool, list[Callable[[Bench], object]]]] = {
    "made and deleted": (False, [lambda b: b.create(b"q"), lambda b: b.delete(b"q")]),
    "made, and that undone": (False, [lambda b: b.registry.create(b"q"), Bench.fail_turn]),
    "deleted, made and deleted": (
        True,
        [lambda b: b.delete(b"q"), lambda b: b.create(b"q"), lambda b: b.delete(b"q")],
    ),
    "deleted, and that undone": (True, [lambda b: b.registry.delete(b"q"), Bench.fail_turn]),
    "deleted and made, and that undone": (
        True,
        [lambda b: b.registry.delete(b"q"), lambda b: b.registry.create(b"q"), Bench.fail_turn],
    ),
}


@pytest.mark.parametrize(("exists", "changes"), list(MEANWHILE.values()), ids=list(MEANWHILE))
def test_who_waits_goes_on_waiting_whatever_happens_to_the_queue(
    bench: Bench, exists: bool, changes: list[Callable[[Bench], object]]
) -> None:
    if exists:
        bench.create(b"q")
    first, second = bench.wait_at(b"q"), bench.wait_at(b"q")
    for change in changes:
        change(bench)
    third = bench.wait_at(b"q")
    bench.stop_waiting(second)
    queue = bench.registry.queues.get(b"q") or bench.registry.create(b"q")
    for body in (b"1", b"2", b"3"):
        queue.put(body, 0, 0)
    bench.end_turn()
    bench.stop_waiting(first)
    bench.stop_waiting(third)
    assert (body_of(first), second.got, body_of(third)) == (b"1", None, b"2")
    assert queue.waiting_items == 1
    assert queue.line is None


@pytest.mark.parametrize(("exists", "changes"), list(MEANWHILE.values()), ids=list(MEANWHILE))
def test_nothing_is_left_of_a_wait_whatever_happens_to_the_queue_meanwhile(
    bench: Bench, exists: bool, changes: list[Callable[[Bench], object]]
) -> None:
    if exists:
        bench.create(b"q")
    first, second = bench.wait_at(b"q"), bench.wait_at(b"q")
    for change in changes:
        change(bench)
    third = bench.wait_at(b"q")
    for waiting in (second, third, first):
        bench.stop_waiting(waiting)
    assert bench.awaited() == []
    assert all(queue.line is None for queue in bench.registry)


def test_who_came_to_wait_while_the_queue_was_deleted_is_served_when_that_is_undone(bench: Bench) -> None:
    (queue,) = bench.create(b"q")
    queue.put(b"x", 0, 0)
    bench.end_turn()
    bench.registry.delete(b"q")
    waiting = bench.wait_at(b"q")
    bench.fail_turn()
    bench.registry.recheck()
    bench.end_turn()
    assert body_of(waiting) == b"x"
    bench.stop_waiting(waiting)
    assert bench.awaited() == []


# -- queues that are only waited for


def test_only_so_many_queues_that_do_not_exist_can_be_waited_for(bench: Bench) -> None:
    registry = bench.registry
    registry.max_queues = 3
    waiting = [(bench.wait_at(name), name, b"") for name in (b"a", b"b")]
    waiting.append((bench.wait_at(b"c", b"cursor"), b"c", b"cursor"))
    assert registry.awaited_count == 3
    for name, cursor in ((b"d", b""), (b"c", b"other")):
        with pytest.raises(ServerError, match="too many queues that do not exist are waited for: at most 3"):
            bench.wait_at(name, cursor)
    waiting.append((bench.wait_at(b"a"), b"a", b""))  # which others wait for already
    bench.create(b"b")  # exists now, so it does not count any more
    waiting.append((bench.wait_at(b"d"), b"d", b""))
    bench.delete(b"b")  # clients that wait there wait on, whatever the limit
    assert registry.awaited_count == 4
    for waiter, name, cursor in waiting:
        bench.stop_waiting(waiter, name, cursor)
    assert registry.awaited_count == 0
    assert bench.awaited() == []
