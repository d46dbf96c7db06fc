"""What happens because time passes: items expire wherever they are, and empty queues are deleted."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from darner_core.config.queues import QueueOptions
from darner_core.engines.local import expiry as expiry_module
from darner_core.engines.local import lines
from darner_core.engines.local import reads as reads_module
from darner_core.engines.local import sweeper as sweeper_module
from darner_core.errors import StorageError
from darner_core.shared_memory import BodyMemory
from darner_core.storage.storage import Storage
from tests.support.bench import CHUNK_BYTES, Bench, opened
from tests.support.harness import RunningServer, wait_until

OpenStorage = Callable[[], Storage]


@pytest.fixture
def bench(open_storage: OpenStorage) -> Bench:
    return Bench(open_storage)


@pytest.mark.parametrize("options", [QueueOptions(max_age_s=1), QueueOptions(max_age_s=1, max_expire_sweep=1000)])
def test_a_sweep_of_many_items_that_are_too_old_removes_them_all(
    open_storage: OpenStorage, options: QueueOptions
) -> None:
    bench = Bench(open_storage, q=options)
    for _ in range(5):
        bench.put(b"q", *[b"x"] * 100)
        bench.end_turn()
    bench.now_s += 5
    turns = bench.turns
    bench.wait = lambda _: bench.end_turn() if bench.turns < turns + 100 else pytest.fail("it does not end")
    bench.sweep()
    assert bench.queue().waiting_items == 0


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
    first, second = opened(queue), opened(queue)
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


@pytest.mark.parametrize("closed", [False, True])
def test_a_sweep_that_cannot_read_forgets_nothing(
    open_storage: OpenStorage, monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    bench = Bench(open_storage, slow=QueueOptions(max_expire_sweep=3))
    for name in (b"slow", b"q"):
        bench.put(name, b"live", *[b"x"] * 8)
    bench.put(b"slow", *[b"x"] * 8, expires_in_s=1)
    bench.put(b"q", *[b"x"] * 8, expires_in_s=1)
    bench.end_turn()
    held = [opened(bench.queue(b"q")) for _ in range(12)]
    bench.end_turn()
    bench.now_s += 2
    bench.sweep()
    for read in held:
        bench.queue(b"q").give_back(read)
    bench.end_turn()
    storage = bench.journal.storage
    with monkeypatch.context() as patched:

        def fail(*_: object) -> None:
            raise StorageError("it hiccups")

        patched.setattr(storage, "expiries", fail)
        if closed:
            storage.close()
        with pytest.raises(StorageError):
            bench.sweep()
    storage.reopen()
    for _ in range(4):
        bench.sweep()
    assert [bench.queue(name).expired_items for name in (b"slow", b"q")] == [8, 8]


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
    queue.give_back(opened(queue))
    bench.end_turn()
    bench.now_s += 2
    before = (queue.waiting_items, queue.waiting_bytes, queue.missing)
    for expiry in bench.storage.expiries(b"e", 10**9, 10):  # type: ignore[union-attr]
        assert expiry_module.expire(queue, expiry)
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


def test_the_hints_on_disk_go_and_open_items_expire_after_a_crash_all_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper_module, "MOST_DEAD", 5)
    bench.put(b"q", *[b"%d" % number for number in range(10)], expires_in_s=1)
    bench.put(b"q", b"later", expires_in_s=1000)
    bench.end_turn()
    queue = bench.queue()
    held = queue.open()
    bench.now_s += 2
    bench.sweep()
    assert bench.storage is not None
    assert [expiry.id for expiry in bench.storage.expiries(b"e", 1 << 60, 100)] == [11]
    bench.crash()
    bench.sweep()
    assert held is not None
    assert bench.queue().waiting_items == 1
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


def test_nor_does_it_to_an_item_that_was_given_back(bench: Bench) -> None:
    bench.put(b"q", b"1", expires_in_s=1)
    bench.end_turn()
    bench.registry.delete(b"q")
    bench.end_turn()
    bench.crash()
    bench.put(b"other", b"stays", expires_in_s=1000)
    queue = bench.queue(b"other")
    queue.give_back(opened(queue))
    bench.end_turn()
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
    read = opened(queue)
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


def test_an_item_in_memory_expires_also_if_nothing_else_is_written(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, q=QueueOptions(durable=False))
    bench.put(b"q", b"live")
    bench.end_turn()
    bench.put(b"q", b"1", expires_in_s=1)
    bench.end_turn()
    bench.now_s += 2
    bench.sweep()
    assert (bench.queue().expired_items, bench.drain()) == (1, [b"live"])


def test_a_queue_that_may_lose_few_in_a_sweep_does_not_hold_up_others(
    open_storage: OpenStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper_module, "MOST_KEPT", 10)
    monkeypatch.setattr(sweeper_module, "MOST_DEAD", 10)
    monkeypatch.setattr(sweeper_module, "SWEPT_AT_ONCE", 5)
    bench = Bench(open_storage, slow=QueueOptions(max_expire_sweep=7))
    bench.put(b"slow", b"live")
    bench.put(b"slow", *[b"x"] * 20, expires_in_s=1)
    bench.put(b"other", b"live")
    bench.put(b"other", *[b"x"] * 20, expires_in_s=1.5)
    bench.put(b"slow", *[b"x"] * 20, expires_in_s=2)
    bench.end_turn()
    bench.now_s += 3
    left = []
    for _ in range(7):
        bench.sweep()
        left.append((bench.queue(b"slow").waiting_items, bench.queue(b"other").waiting_items))
    assert left == [(34, 1), (27, 1), (20, 1), (13, 1), (6, 1), (1, 1), (1, 1)]
    assert bench.storage is not None
    assert len(bench.storage.expiries(b"e", 1 << 60, 100)) <= 10


def test_one_turn_reads_only_so_many_bytes(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, q=QueueOptions(max_age_s=1))
    for _ in range(30):
        bench.put(b"q", b"x" * 100_000)
        bench.end_turn()
    bench.now_s += 2
    assert not bench.queue().drop_expired()
    assert 1_000_000 < bench.queue().waiting_bytes < 2_000_000
    bench.sweep()
    assert bench.queue().waiting_items == 0


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
    bench.registry.join_line(b"awaited", b"", False)
    for _ in range(4):
        bench.sweeper.wait_expire_queues()
        bench.end_turn()
        bench.put(b"used", b"x")
        bench.take(b"used")
        bench.now_s += 4
    bench.sweeper.wait_expire_queues()
    bench.end_turn()
    bench.crash()
    assert sorted(bench.registry.queues) == [b"awaited", b"full", b"open", b"plain", b"used"]


def test_a_server_sweeps_by_itself(start_server: Callable[..., RunningServer], tmp_path: Path) -> None:
    file = tmp_path / "darner.toml"
    file.write_text('[queues.q]\nexpire_to_queue = "dead"\n[queues."tmp*"]\nmax_queue_age_s = 1\n')
    client = start_server("-c", str(file)).client()
    client.ask(b"set q 0 0 1\r\na\r\nset q 0 1 1\r\nb\r\nset tmp1 0 0 1\r\nc\r\n", b"STORED\r\n" * 3)
    assert client.get("tmp1") == b"c"
    # Nobody asks for an item of any of these queues meanwhile.
    wait_until(lambda: client.stats().get("queue_dead_items") == "1")
    wait_until(lambda: "queue_tmp1_items" not in client.stats())
    stats = client.stats()
    assert [stats[name] for name in ("queue_q_items", "queue_q_expired_items", "queue_expires")] == ["1", "1", "1"]
    assert (client.get("q"), client.get("dead")) == (b"a", b"b")


def test_a_queue_is_used_while_an_item_is_received_or_a_cursor_has_one_open(open_storage: OpenStorage) -> None:
    names = ("receiving", "read", "line", "aliased")
    bench = Bench(open_storage, **{name: QueueOptions(max_queue_age_s=10) for name in names})
    for name in names:
        bench.put(name.encode(), b"x")
    cursor = bench.registry.cursors.of(bench.queue(b"read"), b"c")
    read = cursor.open()
    bench.registry.join_line(b"line", b"c", False)
    for name in names:
        bench.take(name.encode())
    upload = bench.queue(b"receiving").large_items.receive(CHUNK_BYTES, BodyMemory(1 << 20, lambda: None))
    bench.routing.set_aliases({b"aliased": (b"x",)})
    for _ in range(4):
        bench.sweeper.wait_expire_queues()
        bench.end_turn()
        bench.now_s += 6
    assert sorted(bench.registry.queues) == [b"line", b"read", b"receiving"]
    assert bench.registry.expires == 0
    upload.drop()
    assert read is not None
    cursor.close(read)
    for _ in range(4):
        bench.sweeper.wait_expire_queues()
        bench.end_turn()
        bench.now_s += 6
    assert sorted(bench.registry.queues) == [b"line"]


def test_without_sweeps_a_large_item_that_a_get_finds_expired_goes_where_it_goes(
    start_server: Callable[..., RunningServer], tmp_path: Path
) -> None:
    config = tmp_path / "darner.toml"
    config.write_text('expiration_timer_s = 0\nchunk_bytes = "4 KiB"\n[queues.q]\nexpire_to_queue = "dead"\n')
    client = start_server("-c", str(config)).client()
    client.ask(b"set q 0 -1 9000\r\n%b\r\n" % (b"x" * 9000), b"STORED\r\n")
    assert client.get("q") is None
    assert client.get("dead/t=5000") == b"x" * 9000


def test_a_sweep_whose_turn_failed_is_made_up_for(bench: Bench) -> None:
    bench.put(b"q", b"lives")
    bench.put(b"q", b"x", expires_in_s=5)
    bench.end_turn()
    bench.now_s += 6
    waits = iter([bench.fail_turn])
    bench.wait = lambda _: next(waits, bench.end_turn)()
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
        bench.sweeper.wait_expire_queues()
    assert b"q" in bench.registry.queues
    assert read is not None
    cursor.close(read)
    for _ in range(3):
        bench.now_s += 31
        bench.sweeper.wait_expire_queues()
    assert b"q" not in bench.registry.queues


def test_a_queue_behind_an_alias_is_not_deleted_for_its_age(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, q=QueueOptions(max_queue_age_s=30))
    bench.put(b"q", b"1")
    bench.drain()
    bench.routing.set_aliases({b"q": (b"other",)})
    for _ in range(3):
        bench.now_s += 31
        bench.sweeper.wait_expire_queues()
    assert bench.registry.expires == 0


def hints(bench: Bench) -> list[int]:
    assert bench.storage is not None
    return [expiry.id for expiry in bench.storage.expiries(b"e", 1 << 60, 1000)]


def test_what_is_open_does_not_stop_the_sweeps_of_others(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper_module, "MOST_KEPT", 10)
    bench.put(b"held", *[b"x"] * 30, expires_in_s=1)
    bench.put(b"other", b"lives")
    bench.put(b"other", b"x", expires_in_s=2)
    bench.end_turn()
    reads = [opened(bench.queue(b"held")) for _ in range(30)]
    bench.now_s += 3
    bench.sweep()
    assert bench.queue(b"other").waiting_items == 1
    assert not bench.sweeper._kept
    for read in reads[5:]:  # behind five that stay open
        bench.queue(b"held").give_back(read)
    bench.end_turn()
    bench.sweep()
    held = bench.queue(b"held")
    assert (held.waiting_items, held.open_reads, held.expired_items) == (0, 5, 25)
    assert not bench.journal.again


def test_an_item_that_is_taken_in_the_turn_in_which_it_is_put_leaves_no_hint(bench: Bench) -> None:
    bench.put(b"q", b"1", b"2", expires_in_s=1000)
    assert bench.take() == b"1"
    bench.end_turn()
    assert hints(bench) == [2]


@pytest.mark.parametrize("sweeps", [True, False])
def test_hints_of_items_that_were_taken_go_long_before_their_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, sweeps: bool
) -> None:
    monkeypatch.setattr(sweeper_module, "MOST_TAKEN", 10)
    monkeypatch.setattr(sweeper_module, "TIDIED_AT_ONCE", 5)
    most = 0
    bench.put(b"open", b"x", expires_in_s=1000)
    bench.queue(b"open").open()
    for number in range(200):
        bench.put(b"q", b"%d" % number, expires_in_s=1000)
        bench.end_turn()
        assert bench.take() == b"%d" % number
        bench.end_turn()
        if number % 10 == 9:
            bench.sweep() if sweeps else bench.sweeper.wait_moves()
            bench.end_turn()
            most = max(most, len(hints(bench)))
    assert most <= 30
    bench.put(b"q", b"lives", expires_in_s=2000)
    bench.put(b"gone", *[b"x"] * 50, expires_in_s=1000)
    bench.end_turn()
    bench.registry.delete(b"gone")
    bench.end_turn()
    bench.sweep()
    assert len(hints(bench)) <= 30
    assert 201 in hints(bench)
    bench.crash()
    bench.put(b"q", b"last")
    bench.now_s += 2001
    bench.sweep()
    assert bench.drain() == [b"last"]


def test_items_whose_time_is_over_when_they_are_put_do_not_send_the_sweep_back(bench: Bench) -> None:
    bench.put(b"q", b"lives")
    bench.put(b"q", b"x", expires_in_s=50)
    bench.end_turn()
    bench.now_s += 100
    bench.sweep()
    position = bench.sweeper._position
    for _ in range(3):
        bench.put(b"q", b"x", expires_in_s=-500)
        bench.end_turn()
        bench.sweep()
        assert bench.sweeper._position >= position
        assert bench.queue().waiting_items == 1


def test_after_the_clock_was_set_back_items_expire_in_time(bench: Bench) -> None:
    bench.put(b"q", b"lives")
    bench.put(b"q", b"x", expires_in_s=50)
    bench.end_turn()
    bench.now_s += 100
    bench.sweep()
    bench.now_s -= 90
    bench.put(b"q", b"x", expires_in_s=5)
    bench.end_turn()
    bench.now_s += 6
    bench.sweep()
    assert bench.queue().waiting_items == 1


def test_queues_that_may_lose_few_in_a_sweep_are_gone_through_together(
    open_storage: OpenStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper_module, "SWEPT_AT_ONCE", 10)
    names = [f"q{number}" for number in range(10)]
    bench = Bench(open_storage, **{name: QueueOptions(max_expire_sweep=2) for name in names})
    for _ in range(10):
        for name in names:
            bench.put(name.encode(), b"x", expires_in_s=1)
    bench.end_turn()
    bench.now_s += 2
    bench.sweep()
    looks = 0
    expiries = bench.storage.expiries  # type: ignore[union-attr]

    def count(*arguments: Any) -> Any:
        nonlocal looks
        looks += 1
        return expiries(*arguments)

    monkeypatch.setattr(bench.storage, "expiries", count)
    bench.sweep()
    assert [bench.queue(name.encode()).waiting_items for name in names] == [6] * 10
    assert looks <= 10  # each by itself would take thirty


def test_all_that_drop_what_has_expired_in_one_turn_do_so_within_limits(bench: Bench) -> None:
    for name in (b"q", b"r", b"s"):
        bench.put(name, *[b"x"] * 900, expires_in_s=1)
        bench.put(name, b"lives")
    bench.end_turn()
    bench.now_s += 2
    for name in (b"q", b"r", b"s"):
        bench.take(name)
    assert [bench.queue(name).expired_items for name in (b"q", b"r", b"s")] == [900, 100, 0]
    waiter = bench.registry.join_line(b"s", b"", False)
    lines.serve(bench.queue(b"s"))
    assert waiter.got is None
    bench.end_turn()
    bench.sweeper.wait_moves()  # also without sweeps
    assert waiter.got is not None


def test_what_leaves_in_order_or_from_the_middle_of_what_was_given_back_takes_constant_time(
    bench: Bench,
) -> None:
    bench.put(b"q", *[b"x"] * 5000)
    bench.end_turn()
    queue = bench.queue()
    reads = [opened(queue) for _ in range(5000)]
    bench.end_turn()
    for read in reads:
        queue.give_back(read)
    bench.end_turn()
    kept = queue.returned
    for read in reads[1::2]:  # from the middle, and undone
        expiry_module.remove_returned(queue, read)
        assert queue.returned is kept or len(queue.returned) <= 2 * queue.waiting_items + reads_module.MANY
    assert (queue.waiting_items, queue.open_reads, len(reads_module.given_back(queue))) == (2500, 0, 2500)
    bench.fail_turn()
    assert (queue.waiting_items, queue.stale, queue.head_id) == (5000, 0, reads[0].id)
    thinned = 0
    for read in reads[:4000]:
        before = queue.outstanding
        expiry_module.remove_returned(queue, read)
        thinned += queue.outstanding is not before
    assert thinned >= 1  # its first is found at once
    bench.end_turn()
    assert len(bench.drain()) == 1000


@pytest.mark.parametrize("asks", ["take", "open", "peek", "take at a cursor", "peek at a cursor"])
def test_to_ask_an_empty_queue_is_to_use_it(open_storage: OpenStorage, asks: str) -> None:
    bench = Bench(open_storage, **{name: QueueOptions(max_queue_age_s=10) for name in ("q", "idle")})
    for name in (b"q", b"idle"):
        bench.put(name, b"x")
        bench.take(name)
    bench.end_turn()
    what, _, at_cursor = asks.partition(" ")
    for _ in range(5):
        queue = bench.queue()
        asked = bench.registry.cursors.of(queue, b"c") if at_cursor else queue
        assert getattr(asked, what)() is None
        bench.end_turn()
        bench.sweeper.wait_expire_queues()
        bench.now_s += 8
    assert sorted(bench.registry.queues) == [b"q"]
    bench.sweeper.wait_expire_queues()
    bench.now_s += 8
    bench.sweeper.wait_expire_queues()
    assert sorted(bench.registry.queues) == []


def test_queues_that_nobody_uses_are_deleted_in_slices(
    open_storage: OpenStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper_module, "DELETED_AT_ONCE", 3)
    monkeypatch.setattr(sweeper_module, "QUEUES_AT_ONCE", 10)
    names = [f"q{number}" for number in range(20)]
    bench = Bench(open_storage, **{name: QueueOptions(max_queue_age_s=10) for name in names})
    for name in names:
        bench.put(name.encode(), b"x")
        bench.take(name.encode())
    bench.sweeper.wait_expire_queues()
    bench.now_s += 11
    left = [20]

    def wait(_: float) -> None:
        bench.end_turn()
        left.append(len(bench.registry.queues))
        if len(left) == 2:
            bench.put(b"q4", b"used meanwhile")

    bench.wait = wait
    bench.sweeper.wait_expire_queues()
    assert max(before - after for before, after in pairwise(left)) == 3
    assert bench.registry.expires == 19
    assert bench.drain(b"q4") == [b"used meanwhile"]


def test_queues_are_not_gone_if_the_turn_that_deletes_them_fails(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, q=QueueOptions(max_queue_age_s=10))
    bench.put(b"q", b"x")
    bench.take()
    bench.end_turn()
    bench.sweeper.wait_expire_queues()
    bench.now_s += 11
    bench.wait = lambda _: None
    bench.sweeper.wait_expire_queues()
    assert (bench.registry.expires, bench.registry.deletes) == (1, 1)
    bench.fail_turn()
    assert (bench.registry.expires, bench.registry.deletes, list(bench.registry.queues)) == (0, 0, [b"q"])
