"""What happens because time passes: items expire wherever they are, and empty queues are deleted."""

from collections.abc import Callable

import pytest

from darner_core import sweeper as sweeper_module
from darner_core.queue_options import QueueOptions
from darner_core.storage import Storage
from tests.bench import Bench

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
    waiter = queue.join_line(peeks=False)
    shown = queue.join_line(peeks=True)
    bench.put(b"q", b"3", expires_in_s=-5)
    assert (waiter.got, shown.got) == (None, None)
    bench.put(b"q", b"4", expires_in_s=5)
    assert queue.item_of(waiter.got)[0] == b"4"
    assert queue.expired_items == 3


def test_a_sweep_finds_items_wherever_they_are(bench: Bench) -> None:
    for number in range(20):
        bench.put(b"q", b"%d" % number, expires_in_s=5 if number % 3 == 1 else 0)
        bench.end_turn()
    bench.now_s += 6
    bench.sweep()
    kept = [b"%d" % number for number in range(20) if number % 3 != 1]
    assert (bench.queue().waiting_items, bench.queue().waiting_bytes) == (len(kept), len(b"".join(kept)))
    bench.crash()
    assert (bench.queue().waiting_items, bench.queue().waiting_bytes) == (len(kept), len(b"".join(kept)))
    bench.put(b"q", b"last")
    assert bench.drain() == [*kept, b"last"]
    bench.crash()
    assert (bench.drain(), bench.queue().missing) == ([], 0)


@pytest.mark.parametrize("head", [False, True])
def test_many_expire_in_small_turns(bench: Bench, monkeypatch: pytest.MonkeyPatch, head: bool) -> None:
    monkeypatch.setattr(sweeper_module, "SWEPT_AT_ONCE", 10)
    if not head:
        bench.put(b"q", b"first")
    bench.put(b"q", *[b"x"] * 500, expires_in_s=1)
    bench.put(b"q", b"last")
    bench.end_turn()
    bench.now_s += 2
    before = bench.turns
    bench.sweep()
    assert bench.turns - before >= 50
    bench.crash()
    assert bench.drain() == ([] if head else [b"first"]) + [b"last"]


def test_what_is_open_does_not_expire_until_it_is_given_back(bench: Bench) -> None:
    bench.put(b"q", b"1", b"2", expires_in_s=1)
    bench.end_turn()
    queue = bench.queue()
    first, second = queue.open(), queue.open()
    bench.now_s += 2
    bench.sweep()
    queue.give_back(second)
    bench.end_turn()
    assert queue.waiting_items == 1
    bench.sweep()
    assert (queue.waiting_items, queue.open_reads, queue.expired_items) == (0, 1, 1)
    bench.crash()  # open at a crash: it waits again
    assert bench.drain() == []
    assert first is not None


def test_given_back_after_its_time_it_is_not_handed_out_again(bench: Bench) -> None:
    bench.put(b"q", b"1", b"2", expires_in_s=1)
    bench.put(b"q", b"3")
    queue = bench.queue()
    first, second = queue.open(), queue.open()
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
    bench.registry.set_rules(bench.rules)
    bench.sweep()
    assert (bench.queue().waiting_items, bench.drain()) == (1, [b"4"])
    bench.rules.options[b"q"] = QueueOptions()
    bench.put(b"q", b"5")
    bench.registry.set_rules(bench.rules)
    bench.now_s += 1000
    assert bench.drain() == [b"5"]


def test_only_so_many_expire_in_one_sweep(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, q=QueueOptions(max_expire_sweep=3), a=QueueOptions(max_expire_sweep=3, max_age_s=1))
    bench.put(b"q", b"live")
    bench.put(b"q", *[b"x"] * 7, expires_in_s=1)
    bench.put(b"a", *[b"x"] * 7)
    bench.put(b"other", *[b"x"] * 7, expires_in_s=1)
    bench.end_turn()
    bench.now_s += 2
    left = []
    for _ in range(4):
        bench.sweep()
        left.append([bench.queue(name).waiting_items for name in (b"q", b"a", b"other")])
    assert left == [[5, 4, 0], [2, 1, 0], [1, 0, 0], [1, 0, 0]]


def test_a_failed_turn_expires_nothing(bench: Bench) -> None:
    bench.put(b"q", b"0")
    bench.put(b"q", b"1", b"2", expires_in_s=1)
    bench.put(b"q", b"3")
    queue = bench.queue()
    queue.open()
    queue.give_back(queue.open())
    bench.end_turn()
    bench.now_s += 2
    before = (queue.waiting_items, queue.waiting_bytes, queue.missing)
    for expiry in bench.storage.expiries(b"e", 10**9, 10):  # type: ignore[union-attr]
        assert queue.expire(expiry)
    assert queue.waiting_items == before[0] - 2
    bench.fail_turn()
    assert ((queue.waiting_items, queue.waiting_bytes, queue.missing), queue.expired_items) == (before, 0)
    bench.sweep()
    assert queue.waiting_items == 1


def test_an_item_put_when_its_time_was_over_is_swept(bench: Bench) -> None:
    bench.put(b"q", b"first")
    bench.put(b"q", b"1", expires_in_s=50)
    bench.end_turn()
    bench.now_s += 100
    bench.sweep()
    bench.put(b"q", b"2", expires_in_s=-500)
    bench.end_turn()
    bench.sweep()
    assert bench.queue().waiting_items == 1


def test_the_hints_on_disk_go_and_those_of_open_items_stay(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper_module, "MOST_DEAD", 5)
    bench.put(b"q", *[b"%d" % number for number in range(10)], expires_in_s=1)
    bench.put(b"q", b"later", expires_in_s=1000)
    bench.end_turn()
    queue = bench.queue()
    held = queue.open()
    bench.now_s += 2
    bench.sweep()
    assert bench.storage is not None
    assert [expiry.id for expiry in bench.storage.expiries(b"e", 1 << 60, 100)] == [1, 11]
    bench.crash()
    bench.sweep()
    assert held is not None
    assert bench.drain() == [b"later"]


def test_a_hint_for_a_number_that_another_queue_has_now_does_no_harm(bench: Bench) -> None:
    bench.put(b"q", b"1", expires_in_s=1)
    bench.end_turn()
    bench.registry.delete(b"q")
    bench.end_turn()
    bench.crash()
    bench.put(b"other", b"stays")
    bench.end_turn()
    assert bench.queue(b"other").log.record.number == 1
    bench.now_s += 2
    bench.sweep()
    assert bench.drain(b"other") == [b"stays"]


def test_items_that_are_taken_leave_hints_that_do_no_harm(bench: Bench) -> None:
    bench.put(b"q", *[b"%d" % number for number in range(5)], expires_in_s=1)
    bench.put(b"q", b"kept")
    assert [bench.take() for _ in range(3)] == [b"0", b"1", b"2"]
    bench.end_turn()
    bench.registry.flush(b"q")
    bench.put(b"q", b"after")
    bench.end_turn()
    bench.now_s += 2
    bench.sweep()
    assert (bench.queue().expired_items, bench.drain()) == (0, [b"after"])


def test_large_items_expire_with_their_chunks(bench: Bench) -> None:
    bench.put(b"q", b"first")
    bench.put_large(b"q", b"y" * 1000, expires_in_s=1)
    bench.now_s += 2
    bench.sweep()
    assert bench.storage is not None
    assert bench.storage.first_chunk() is None
    assert bench.drain() == [b"first"]


def test_a_queue_in_memory_expires_too_and_ends_with_the_server(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, q=QueueOptions(durable=False))
    bench.put(b"q", b"1")
    bench.put(b"q", b"2", b"3", expires_in_s=1)
    bench.put(b"q", b"4")
    bench.put_large(b"q", b"y" * 1000)
    bench.now_s += 2
    bench.sweep()
    queue = bench.queue()
    read = queue.open()
    queue.give_back(read)
    queue.drop_window()
    assert bench.drain() == [b"1", b"4", b"y" * 1000]
    bench.put(b"q", b"5")
    bench.end_turn()
    bench.put_large(b"q", b"z" * 1000)
    bench.crash()
    bench.end_turn()
    assert b"q" not in bench.registry.queues
    assert bench.storage is not None
    assert bench.storage.first_chunk() is None


def test_a_queue_that_nobody_uses_is_deleted(open_storage: OpenStorage) -> None:
    names = ("empty", "used", "full", "open", "awaited")
    bench = Bench(open_storage, **{name: QueueOptions(max_queue_age_s=10) for name in names})
    for name in names:
        bench.put(name.encode(), b"x")
        if name != "full":
            bench.take(name.encode()) if name != "open" else bench.queue(b"open").open()
    bench.put(b"plain", b"x")
    bench.take(b"plain")
    bench.end_turn()
    bench.queue(b"awaited").join_line(peeks=False)
    for _ in range(4):
        bench.sweeper.expire_queues()
        bench.end_turn()
        bench.put(b"used", b"x")
        bench.take(b"used")
        bench.now_s += 4
    bench.sweeper.expire_queues()
    bench.end_turn()
    bench.crash()
    assert sorted(bench.registry.queues) == [b"awaited", b"full", b"open", b"plain", b"used"]


# -- found by the plain model of test_everything.py


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


def test_what_is_being_moved_and_is_given_back_meanwhile_is_moved_once(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, q=QueueOptions(expire_to_queue=b"dead"))
    bench.put_large(b"q", b"x" * 900, expires_in_s=5)
    bench.now_s += 6
    assert bench.take() is None
    (read,) = bench.queue().outstanding.values()
    bench.queue().give_back(read)
    bench.end_turn()
    bench.sweep()
    assert bench.drain(b"dead") == [b"x" * 900]


def test_what_was_to_be_moved_is_only_dropped_if_it_may_go_nowhere_any_more(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, q=QueueOptions(expire_to_queue=b"dead"))
    bench.put_large(b"q", b"x" * 900, expires_in_s=5)
    bench.now_s += 6
    assert bench.take() is None
    bench.rules.options[b"q"] = QueueOptions()
    bench.registry.set_rules(bench.rules)
    bench.sweep()
    assert (list(bench.registry.queues), bench.queue().expired_items) == ([b"q"], 1)
    assert bench.storage is not None
    assert bench.storage.first_chunk() is None


def test_a_sweep_whose_turn_failed_is_made_up_for(bench: Bench) -> None:
    bench.put(b"q", b"lives")
    bench.put(b"q", b"x", expires_in_s=5)
    bench.end_turn()
    bench.now_s += 6
    waits = iter([bench.fail_turn])
    bench.sweeper._wait = lambda _: next(waits, bench.end_turn)()  # type: ignore[assignment]
    bench.sweep()
    assert bench.queue().waiting_items == 2
    bench.sweep()
    assert bench.queue().waiting_items == 1


def test_an_expiry_of_a_queue_that_has_gone_is_not_taken_for_one_of_the_next_with_its_number(bench: Bench) -> None:
    bench.put(b"old", b"x", expires_in_s=5)
    bench.registry.delete(b"old")
    bench.end_turn()
    bench.crash()
    bench.put(b"q", b"lives", expires_in_s=60)
    queue = bench.queue()
    read = queue.open()
    assert read is not None
    queue.give_back(read)
    bench.end_turn()
    bench.now_s += 6
    bench.sweep()
    assert bench.drain() == [b"lives"]


def test_items_of_a_queue_in_memory_expire_behind_the_head_too(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, q=QueueOptions(durable=False))
    bench.put(b"q", b"lives")
    bench.put(b"q", b"x", expires_in_s=5)
    bench.end_turn()
    bench.now_s += 6
    bench.sweep()
    assert (bench.queue().waiting_items, bench.drain()) == (1, [b"lives"])


def test_a_queue_is_not_empty_while_a_cursor_has_something_open(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, q=QueueOptions(max_queue_age_s=30))
    bench.put(b"q", b"1")
    cursor = bench.registry.cursors.of(bench.queue(), b"c")
    read = cursor.open()
    assert bench.drain() == [b"1"]
    for _ in range(3):
        bench.now_s += 31
        bench.sweeper.expire_queues()
    assert b"q" in bench.registry.queues
    assert read is not None
    cursor.close(read)
    for _ in range(3):
        bench.now_s += 31
        bench.sweeper.expire_queues()
    assert b"q" not in bench.registry.queues


def test_a_queue_behind_an_alias_is_not_deleted_for_its_age(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, q=QueueOptions(max_queue_age_s=30))
    bench.put(b"q", b"1")
    bench.drain()
    bench.delivery.set_aliases({b"q": (b"other",)})
    for _ in range(3):
        bench.now_s += 31
        bench.sweeper.expire_queues()
    assert bench.registry.expires == 0


def test_a_large_item_is_not_lost_if_the_queue_it_goes_to_is_deleted_meanwhile(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, q=QueueOptions(expire_to_queue=b"dead"))
    bench.put(b"dead", b"before")
    bench.put_large(b"q", b"x" * 900, expires_in_s=5)
    bench.now_s += 6
    assert bench.take() is None

    def wait(_: float) -> None:
        bench.registry.delete(b"dead")
        bench.end_turn()

    bench.sweeper._wait = wait  # type: ignore[assignment]
    bench.sweep()
    bench.sweeper._wait = lambda _: bench.end_turn()  # type: ignore[assignment]
    assert bench.take() is None
    bench.sweep()
    assert bench.drain(b"dead") == [b"x" * 900]


def test_a_large_item_that_is_given_back_while_it_is_copied_is_moved_once(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, q=QueueOptions(expire_to_queue=b"dead"))
    bench.put_large(b"q", b"x" * 900, expires_in_s=5)
    bench.now_s += 6
    assert bench.take() is None
    (read,) = bench.queue().outstanding.values()

    def wait(_: float) -> None:
        bench.queue().give_back(read)
        bench.end_turn()

    bench.sweeper._wait = wait  # type: ignore[assignment]
    bench.sweeper._journal.time_ms = lambda: 0  # type: ignore[method-assign]  # nothing else expires in this sweep
    bench.sweep()
    del bench.sweeper._journal.time_ms
    assert bench.take() is None
    bench.sweep()
    assert bench.drain(b"dead") == [b"x" * 900]
