"""What the local engine does beside what `tests/engines/test_items.py` says of all engines."""

from collections.abc import Callable

import pytest

from darner_core.config.queues import QueueOptions
from darner_core.engines.contract import Event
from darner_core.engines.items import State
from darner_core.errors import DamagedError, StorageError
from darner_core.storage.job_records import number_key
from darner_core.storage.rocks import STATE_FAMILY
from darner_core.storage.storage import Storage
from tests.support.job_bench import JobBench

OpenStorage = Callable[[], Storage]


class Listener:
    def __init__(self) -> None:
        self.events: list[tuple[bytes, int]] = []

    def tell(self, event: Event) -> None:
        self.events.append((event.what, event.id))


def test_who_watches_is_told_once_of_each(open_storage: OpenStorage) -> None:
    bench = JobBench(open_storage)
    bench.put(b"q", b"1", b"2", b"3", b"4")
    bench.end_turn()
    listener = Listener()
    bench.registry.traces.watch(b"q", listener)
    items = bench.engine.items
    for item_id in (3, 1):
        assert items.open(b"q", item_id) is not None
        bench.end_turn()
    for item_id in (3, 1, 2, 4):
        assert items.remove(b"q", item_id)
        bench.end_turn()
    opened, closed = [(b"open", 3), (b"open", 1)], [(b"close", item_id) for item_id in (3, 1, 2, 4)]
    assert listener.events == opened + closed


def test_a_key_is_taken_as_long_as_it_would_be_if_its_item_had_been_closed(open_storage: OpenStorage) -> None:
    bench = JobBench(open_storage, q=QueueOptions(unique_s=5))
    bench.put_job(b"q", b"1", key=b"k")
    bench.end_turn()
    assert bench.engine.items.remove(b"q", bench.queue().head_id)
    bench.end_turn()
    bench.put_job(b"q", b"2", key=b"k")
    assert bench.queue().waiting_items == 0
    bench.pass_time(6)
    bench.put_job(b"q", b"3", key=b"k")
    assert bench.drain() == [b"3"]


@pytest.mark.parametrize("durable", [True, False])
def test_at_which_end_a_list_has_its_head_is_kept_with_its_queue(open_storage: OpenStorage, durable: bool) -> None:
    bench = JobBench(open_storage, q=QueueOptions(durable=durable))
    items = bench.engine.items
    items.set_head_at_left(b"q", True)  # there is none
    assert items.head_at_left(b"q") is None
    bench.put(b"q", b"1")
    assert items.head_at_left(b"q") is None
    items.set_head_at_left(b"q", False)
    bench.end_turn()
    assert items.head_at_left(b"q") is False
    items.set_head_at_left(b"q", True)
    if durable:
        bench.fail_turn()
        assert items.head_at_left(b"q") is False
        items.set_head_at_left(b"q", True)
        bench.end_turn()
        bench.crash()
        items = bench.engine.items
        assert bench.drain() == [b"1"]
    assert items.head_at_left(b"q") is True
    bench.registry.delete(b"q")
    bench.put(b"q", b"2")
    assert items.head_at_left(b"q") is None


def test_a_list_may_be_a_fanout_child(open_storage: OpenStorage) -> None:
    bench = JobBench(open_storage)
    bench.put(b"q+a", b"1")
    items = bench.engine.items
    items.set_head_at_left(b"q+a", True)
    bench.end_turn()
    child = bench.registry.child(b"q+a")
    assert child is not None
    assert child.is_child
    bench.end_turn()
    bench.crash()
    assert bench.queue(b"q+a").is_child
    assert bench.engine.items.head_at_left(b"q+a") is True


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("aside", [False, True])
def test_an_open_item_goes_to_an_end_of_its_full_queue(open_storage: OpenStorage, first: bool, aside: bool) -> None:
    bench = JobBench(open_storage, q=QueueOptions(max_items=3))
    bench.put(b"q", b"1", b"2", b"3")
    items = bench.engine.items
    read = items.open(b"q", bench.queue().head_id + aside)
    assert read is not None
    items.requeue(read, b"2" if aside else b"1", first)
    items.requeue(read, b"x", first)  # it is not open any more
    bench.end_turn()
    bench.crash()
    rest = [b"1", b"3"] if aside else [b"2", b"3"]
    moved = b"2" if aside else b"1"
    assert bench.drain() == ([moved, *rest] if first else [*rest, moved])


def test_leases_of_nobody_count_for_the_limit(open_storage: OpenStorage) -> None:
    bench = JobBench(open_storage, q=QueueOptions(max_leases=2))
    bench.put(b"q", b"1", b"2", b"3")
    leases, items = bench.engine.leases, bench.engine.items
    for item_id, room in ((1, 1), (3, 0)):
        items.hold(items.open(b"q", item_id), 5000)
        assert leases.room(b"q") == room
    bench.end_turn()
    assert items.remove(b"q", 1)
    assert leases.room(b"q") == 1
    bench.registry.delete(b"q")
    bench.pass_time(6)
    assert len(leases) == 0


def test_what_is_set_aside_and_cannot_be_read_is_told(open_storage: OpenStorage) -> None:
    bench = JobBench(open_storage)
    bench.put(b"q", b"1")
    bench.put_job(b"q", b"2", pri=5)
    bench.end_turn()
    aside = bench.registry.asides.by_queue[bench.queue()]
    bench.storage.put(STATE_FAMILY, number_key(aside.record.number), b"nonsense")  # type: ignore[union-attr]
    bench.crash()
    items = bench.engine.items
    assert items.item(b"q", 1) is not None
    with pytest.raises(StorageError):
        items.find(b"q", aside.new_id - 1)
    for call in (lambda: items.look(b"q", State.BURIED), lambda: items.open(b"q", aside.new_id - 1)):
        with pytest.raises(StorageError):
            call()


def test_a_damaged_queue_is_told(open_storage: OpenStorage) -> None:
    bench = JobBench(open_storage)
    bench.put(b"q", b"1")
    bench.take()
    bench.end_turn()
    record = bench.queue().log.record
    bench.storage.put(record.family, number_key(record.number) + bytes(8), b"nonsense")  # type: ignore[union-attr]
    bench.crash()
    with pytest.raises(DamagedError):
        bench.engine.items.find(b"q", 1)


def test_what_a_queue_takes_back_is_held_by_nobody(open_storage: OpenStorage) -> None:
    bench = JobBench(open_storage, q=QueueOptions(open_transaction_timeout_s=5))
    bench.put(b"q", b"1")
    items, leases = bench.engine.items, bench.engine.leases
    items.hold(items.open(b"q", 1), 60_000)
    for _ in range(3):
        for _ in leases.look():
            bench.end_turn()
        bench.pass_time(4)
    assert (items.held(b"q", 1), len(leases)) == (None, 0)
    assert bench.drain() == [b"1"]


def test_a_line_of_which_only_gaps_are_left_takes_other_terms(open_storage: OpenStorage) -> None:
    bench = JobBench(open_storage)
    bench.put_job(b"q", b"1", pri=5)
    bench.put_job(b"q", b"2", pri=5)
    bench.end_turn()
    assert bench.engine.items.remove(b"q", 2)
    assert bench.take() == b"1"
    bench.put_job(b"q", b"3", pri=7)
    bench.end_turn()
    assert bench.figures()["set_aside"] == 0
    assert bench.drain() == [b"3"]


def test_what_cannot_be_buried_is_held_as_before(open_storage: OpenStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = JobBench(open_storage)
    bench.put(b"q", b"1")
    items = bench.engine.items
    items.hold(items.open(b"q", 1), 5000)
    bench.end_turn()
    with monkeypatch.context() as patch:
        patch.setattr("darner_core.engines.local.queue_log.QueueLog.read_one", _refuse)
        with pytest.raises(StorageError):
            items.bury(items.held(b"q", 1))
    bench.put(b"q", b"2")
    bench.fail_turn()
    assert items.left_ms(b"q", 1) == 5000
    items.bury(items.held(b"q", 1))
    assert items.held(b"q", 1) is None
    assert bench.figures()["buried"] == 1


def _refuse(*_: object) -> None:
    raise StorageError("damaged")


@pytest.mark.parametrize("how", ["bury", "postpone"])
def test_a_turn_that_fails_does_not_open_what_had_come_back_before(open_storage: OpenStorage, how: str) -> None:
    bench = JobBench(open_storage)
    bench.put(b"q", b"1")
    read = bench.opened()
    read.queue.give_back(read)
    bench.end_turn()
    if how == "bury":
        bench.engine.items.bury(read)
    else:
        bench.engine.items.postpone(read, 1)
    bench.put(b"q", b"2")
    bench.fail_turn()
    assert not read.queue.holds(read)
    assert bench.drain() == [b"1"]
