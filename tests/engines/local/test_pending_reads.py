"""Open items that are known by ids: decided by anybody, given back when their time is over, undone with their turn."""

from collections.abc import Callable

import pytest

from darner_core.engines.local import pending_reads as pending_module
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.pending_reads import PendingReads
from darner_core.engines.local.reads import OpenRead
from darner_core.errors import StorageError
from darner_core.storage.storage import Storage
from tests.operations.test_session import House
from tests.support.bench import opened


class Clock:
    """Time and a loop's timers."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None], Clock.Timer]] = []

    class Timer:
        closed = False

        def close(self) -> None:
            self.closed = True

    def run_after(self, seconds: float, call: Callable[[], None]) -> "Clock.Timer":
        timer = Clock.Timer()
        self.timers.append((self.now + seconds, call, timer))
        return timer

    def go_on(self, seconds: float) -> None:
        self.now += seconds
        while due := [one for one in self.timers if one[0] <= self.now and not one[2].closed]:
            self.timers.remove(due[0])
            due[0][1]()

    @property
    def set_timers(self) -> int:
        return sum(not timer.closed for _, _, timer in self.timers)


@pytest.fixture
def house(open_storage: Callable[[], Storage]) -> House:
    house = House(open_storage)
    house.put(b"a", b"b", b"c")
    house.turn()
    return house


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pending(house: House, clock: Clock) -> PendingReads:
    return PendingReads(house.journal, clock.run_after, lambda: clock.now)


def open_one(house: House, pending: PendingReads, auto_abort_ms: int = 1000, owner: object = "client") -> int:
    read = house.registry.queues[b"q"].open()
    assert isinstance(read, OpenRead)
    (item_id,) = pending.next_ids(1)
    pending.hold(item_id, read, owner, auto_abort_ms)
    return item_id


def fail_turn(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:

        def fail(*_: object) -> None:
            raise StorageError("no space left on device")

        patched.setattr(house.storage, "write", fail)
        patched.setattr(house.storage, "put", fail)
        with pytest.raises(StorageError):
            house.journal.commit()
    house.registry.recheck()


def test_ids_differ_from_those_of_an_earlier_start_at_the_same_time(
    house: House, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 0.0)
    ids: list[int] = []
    for _ in range(3):
        pending = PendingReads(house.journal, clock.run_after)
        ids += [*pending.next_ids(3), *pending.next_ids(1000)]
    assert len(set(ids)) == 3009
    assert max(ids) < 2**53


def test_confirmed_items_are_gone(house: House, pending: PendingReads) -> None:
    first, second = open_one(house, pending), open_one(house, pending)
    house.turn()
    assert pending.confirm(b"q", [second, second, 5]) == 1
    assert pending.confirm(b"other", [first]) == 0
    assert pending.confirm(b"q", [first, second]) == 1
    house.turn()
    house.restart()
    assert house.waiting() == [b"c"]


def test_aborted_items_wait_again_in_their_order(house: House, pending: PendingReads) -> None:
    first, second = open_one(house, pending), open_one(house, pending)
    assert pending.abort(b"q", [second, first, 5]) == 2
    assert pending.abort(b"q", [first]) == 0
    house.turn()
    assert house.waiting() == [b"a", b"b", b"c"]


def test_items_nobody_decides_on_go_back_when_their_time_is_over(
    house: House, pending: PendingReads, clock: Clock
) -> None:
    longer, shorter, decided = (open_one(house, pending, ms) for ms in (3000, 1000, 500))
    house.turn()
    assert pending.confirm(b"q", [decided]) == 1
    clock.go_on(0.9)
    assert (len(pending), house.waiting()) == (2, [])
    clock.go_on(0.2)
    assert (len(pending), house.waiting()) == (1, [b"b"])
    assert pending.confirm(b"q", [shorter]) == 0
    clock.go_on(2)
    assert (len(pending), house.waiting()) == (0, [b"a", b"b"])
    assert pending.abort(b"q", [longer]) == 0
    assert clock.set_timers == 0


def test_what_a_failed_turn_has_left_open_goes_back_once_when_its_time_is_over(
    house: House, pending: PendingReads, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [open_one(house, pending) for _ in range(3)]
    house.turn()
    for _ in range(2):
        assert pending.confirm(b"q", ids[:2]) == 2
        fail_turn(house, monkeypatch)
    clock.go_on(1.1)
    house.turn()
    assert (len(pending), house.waiting()) == (0, [b"a", b"b", b"c"])
    assert clock.set_timers == 0


def test_a_confirm_after_a_delete_is_undone_with_it(
    house: House, pending: PendingReads, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    item_id = open_one(house, pending)
    house.turn()
    house.registry.delete(b"q")
    assert pending.confirm(b"q", [item_id]) == 0
    fail_turn(house, monkeypatch)
    clock.go_on(1.1)
    house.turn()
    assert (len(pending), house.waiting()) == (0, [b"a", b"b", b"c"])


def test_one_item_that_cannot_be_given_back_stops_neither_the_others_nor_the_timer(
    house: House, pending: PendingReads, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for ms in (1000, 1000, 3000):
        open_one(house, pending, ms)
    house.turn()
    give_back, calls = MessageQueue.give_back, []

    def fail_once(queue: MessageQueue, read: OpenRead, wake: bool = True) -> None:
        calls.append(read)
        if len(calls) == 1:
            raise ZeroDivisionError
        give_back(queue, read, wake)

    monkeypatch.setattr(MessageQueue, "give_back", fail_once)
    clock.go_on(1.1)
    assert (house.waiting(), clock.set_timers) == ([b"b"], 1)


def test_one_timer_is_enough(house: House, pending: PendingReads, clock: Clock) -> None:
    for ms in (3000, 2000, 2500):
        open_one(house, pending, ms)
        assert clock.set_timers == 1


def test_who_opened_how_many_is_known_until_they_are_decided(house: House, pending: PendingReads) -> None:
    first, second = open_one(house, pending, owner="one"), open_one(house, pending, owner="two")
    open_one(house, pending, owner="one")
    assert [pending.opened_by(owner, b"q") for owner in ("one", "two", "three")] == [2, 1, 0]
    pending.confirm(b"q", [first])
    pending.abort(b"q", [second])
    assert [pending.opened_by(owner, b"q") for owner in ("one", "two", "three")] == [1, 0, 0]
    queue = house.registry.queues[b"q"]
    assert (queue.transactions, queue.canceled_transactions) == (3, 1)


def test_an_item_of_a_deleted_queue_is_not_counted(house: House, pending: PendingReads) -> None:
    first, second = open_one(house, pending), open_one(house, pending)
    house.registry.delete(b"q")
    house.turn()
    house.put(b"new")
    assert pending.confirm(b"q", [first]) == 0
    assert pending.abort(b"q", [second]) == 0
    assert len(pending) == 0
    house.turn()
    assert house.waiting() == [b"new"]


def test_a_turn_that_fails_undoes_what_was_decided_in_it(
    house: House, pending: PendingReads, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (open_one(house, pending) for _ in range(3))
    house.turn()
    assert pending.confirm(b"q", [first]) == 1
    assert pending.abort(b"q", [second]) == 1
    clock.go_on(2)  # the third goes back
    assert len(pending) == 0
    fail_turn(house, monkeypatch)
    assert len(pending) == 3
    assert pending.opened_by("client", b"q") == 3
    assert pending.confirm(b"q", [third]) == 1
    house.turn()
    clock.go_on(2)
    house.turn()
    assert house.waiting() == [b"a", b"b"]
    assert pending.confirm(b"q", [first, second]) == 0


def test_a_turn_that_fails_undoes_what_was_handed_out_in_it(
    house: House, pending: PendingReads, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = house.registry.queues[b"q"].open()  # as for a client that waited for more
    assert earlier is not None
    house.turn()
    (item_id,) = pending.next_ids(1)
    pending.hold(item_id, earlier, "client", 1000)
    open_one(house, pending)
    house.put(b"d")
    fail_turn(house, monkeypatch)
    assert len(pending) == 0
    assert house.registry.queues[b"q"].transactions == 0
    assert house.waiting() == [b"a", b"b", b"c"]
    assert pending.confirm(b"q", [item_id]) == 0
    clock.go_on(2)


def test_many_that_are_decided_leave_nothing_behind(house: House, pending: PendingReads) -> None:
    for _ in range(3000):
        assert pending.abort(b"q", [open_one(house, pending, 10**9)]) == 1
    assert len(pending._due) < 1100  # they are kept until a long time is over, else


def test_many_that_are_overdue_go_back_a_part_at_a_time(
    house: House, clock: Clock, pending: PendingReads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_module, "DECIDED_AT_ONCE", 2)
    queue = house.registry.queues[b"q"]
    for item_id in pending.next_ids(3):
        pending.hold(item_id, opened(queue), "owner", 1000)
    house.turn()
    clock.now += 2
    timer = min(one for one in clock.timers if not one[2].closed)
    clock.timers.remove(timer)
    timer[1]()
    assert queue.open_reads == 1
    clock.go_on(1)
    assert (queue.open_reads, len(pending)) == (0, 0)
