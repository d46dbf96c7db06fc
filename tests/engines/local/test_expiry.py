"""How items leave a queue without being handed to anybody, seen from who asks for them."""

from collections.abc import Callable

import pytest

from darner_core.config.queues import QueueOptions
from darner_core.storage.storage import Storage
from tests.support.bench import Bench, opened

OpenStorage = Callable[[], Storage]


@pytest.fixture
def bench(open_storage: OpenStorage) -> Bench:
    return Bench(open_storage)


def test_an_expired_item_is_never_handed_out(bench: Bench) -> None:
    bench.put(b"q", b"1", expires_in_s=10)
    bench.put(b"q", b"2")
    bench.now_s += 10
    assert bench.take() == b"1"  # not before its time is over
    bench.put(b"q", b"3", expires_in_s=5)
    bench.put(b"q", b"4", expires_in_s=50)
    bench.now_s += 5.001
    assert bench.drain() == [b"2", b"4"]
    assert bench.queue().expired_items == 1


def test_it_is_not_shown_opened_or_given_to_who_waits_either(bench: Bench) -> None:
    bench.put(b"q", b"1", expires_in_s=-5)
    queue = bench.queue()
    assert queue.peek() is None
    bench.put(b"q", b"2", expires_in_s=-5)
    assert queue.open() is None
    waiter = bench.registry.join_line(b"q", b"", False)
    shown = bench.registry.join_line(b"q", b"", True)
    bench.put(b"q", b"3", expires_in_s=-5)
    assert (waiter.got, shown.got) == (None, None)
    bench.put(b"q", b"4", expires_in_s=5)
    assert queue.item_of(waiter.got)[0] == b"4"
    assert queue.expired_items == 3


def test_what_is_behind_many_that_have_expired_is_found(bench: Bench) -> None:
    for number in range(8):
        bench.put(b"q", b"%d" % number)
        bench.put(b"q", *[b"x"] * (600 if number % 3 == 0 else 5), expires_in_s=1)
        bench.end_turn()
    queue = bench.queue()
    bench.now_s += 2
    bench.sweep()
    assert bench.take() == b"0"
    bench.end_turn()
    queue.drop_window()
    assert queue.head_added_at_ms() == 1_000_000  # though nothing has been read ahead
    assert bench.take() == b"1"
    bench.put(b"aside", b"x")
    bench.fail_turn()
    assert queue.waiting_items == 7
    assert bench.drain() == [b"%d" % number for number in range(1, 8)]
    assert queue.missing == 0


def test_clients_that_wait_at_a_cursor_are_handed_what_is_behind_many_that_have_expired(bench: Bench) -> None:
    bench.put(b"q", *[b"x"] * 3000, expires_in_s=1)
    bench.put(b"q", b"1")
    cursor = bench.registry.cursors.of(bench.queue(), b"c")
    while cursor.take() is not None:
        pass
    bench.end_turn()
    waiter = bench.registry.join_line(b"q", b"c", False)
    bench.now_s += 2
    cursor.flush()
    assert not waiter.got
    bench.sweeper.wait_moves()
    assert cursor.item_of(waiter.got)[0] == b"1"


def test_given_back_after_its_time_it_is_not_handed_out_again(bench: Bench) -> None:
    bench.put(b"q", b"1", b"2", expires_in_s=1)
    bench.put(b"q", b"3")
    queue = bench.queue()
    first, second = opened(queue), opened(queue)
    bench.now_s += 2
    queue.give_back(first)
    queue.give_back(second)
    assert bench.drain() == [b"3"]


def test_the_maximum_age_counts_from_the_put_and_can_be_changed(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, q=QueueOptions(max_age_s=10))
    bench.put(b"q", b"1")
    bench.put(b"q", b"2", expires_in_s=3)
    bench.put(b"q", b"3", expires_in_s=100)
    bench.end_turn()
    bench.crash()
    bench.now_s += 5
    bench.sweep()
    assert bench.queue().waiting_items == 2
    bench.rules.options[b"q"] = QueueOptions(max_age_s=4)
    bench.put(b"q", b"4")
    list(bench.registry.set_rules(bench.rules))
    bench.sweep()
    assert (bench.queue().waiting_items, bench.drain()) == (1, [b"4"])
    bench.rules.options[b"q"] = QueueOptions()
    bench.put(b"q", b"5")
    list(bench.registry.set_rules(bench.rules))
    bench.now_s += 1000
    assert bench.drain() == [b"5"]
