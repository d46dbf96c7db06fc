"""Leases: known by ids, decided by anybody, given back when their time is over, undone with their turn. And the
deadlines of queues: which reads have been open for too long, by a clock of our own, and what clients see of it."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from darner_core.config.queues import BUILT_IN, QueueOptions
from darner_core.engines.local import leases as leases_module
from darner_core.engines.local.leases import Leases
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.reads import OpenRead
from darner_core.errors import StorageError
from darner_core.operations.session import ManyReads, Session
from darner_core.storage.storage import Storage
from tests.operations.test_session import House
from tests.support.bench import opened
from tests.support.harness import Client, RunningServer, wait_until
from tests.support.job_bench import JobBench


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
def leases(house: House, clock: Clock) -> Leases:
    return Leases(house.registry, house.journal, clock.run_after, lambda: clock.now)


def open_one(house: House, leases: Leases, lasts_ms: int = 1000, owner: object = "client", most_ms: int = 0) -> int:
    read = house.registry.queues[b"q"].open()
    assert isinstance(read, OpenRead)
    (item_id,) = leases.next_ids(1)
    leases.hold(item_id, read, owner, lasts_ms, most_ms=most_ms)
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
        leases = Leases(house.registry, house.journal, clock.run_after)
        ids += [*leases.next_ids(3), *leases.next_ids(1000)]
    assert len(set(ids)) == 3009
    assert max(ids) < 2**53


def test_confirmed_items_are_gone(house: House, leases: Leases) -> None:
    first, second = open_one(house, leases), open_one(house, leases)
    house.turn()
    assert leases.confirm(b"q", [second, second, 5]) == 1
    assert leases.confirm(b"other", [first]) == 0
    assert leases.confirm(b"q", [first, second]) == 1
    house.turn()
    house.restart()
    assert house.waiting() == [b"c"]


def test_aborted_items_wait_again_in_their_order(house: House, leases: Leases) -> None:
    first, second = open_one(house, leases), open_one(house, leases)
    assert leases.abort(b"q", [second, first, 5]) == 2
    assert leases.abort(b"q", [first]) == 0
    house.turn()
    assert house.waiting() == [b"a", b"b", b"c"]


def test_items_nobody_decides_on_go_back_when_their_time_is_over(house: House, leases: Leases, clock: Clock) -> None:
    longer, shorter, decided = (open_one(house, leases, ms) for ms in (3000, 1000, 500))
    house.turn()
    assert leases.confirm(b"q", [decided]) == 1
    clock.go_on(0.9)
    assert (len(leases), house.waiting()) == (2, [])
    clock.go_on(0.2)
    assert (len(leases), house.waiting()) == (1, [b"b"])
    assert leases.confirm(b"q", [shorter]) == 0
    clock.go_on(2)
    assert (len(leases), house.waiting()) == (0, [b"a", b"b"])
    assert leases.abort(b"q", [longer]) == 0
    assert clock.set_timers == 0


def test_what_a_failed_turn_has_left_open_goes_back_once_when_its_time_is_over(
    house: House, leases: Leases, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [open_one(house, leases) for _ in range(3)]
    house.turn()
    for _ in range(2):
        assert leases.confirm(b"q", ids[:2]) == 2
        fail_turn(house, monkeypatch)
    clock.go_on(1.1)
    house.turn()
    assert (len(leases), house.waiting()) == (0, [b"a", b"b", b"c"])
    assert clock.set_timers == 0


def test_a_confirm_after_a_delete_is_undone_with_it(
    house: House, leases: Leases, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    item_id = open_one(house, leases)
    house.turn()
    house.registry.delete(b"q")
    assert leases.confirm(b"q", [item_id]) == 0
    fail_turn(house, monkeypatch)
    clock.go_on(1.1)
    house.turn()
    assert (len(leases), house.waiting()) == (0, [b"a", b"b", b"c"])


def test_who_needs_longer_gets_a_new_deadline_up_to_the_longest(house: House, leases: Leases, clock: Clock) -> None:
    bounded, free = open_one(house, leases, 1000, most_ms=2500), open_one(house, leases, 1000)
    house.turn()
    for _ in range(2):
        clock.go_on(0.9)
        assert leases.touch_known(b"q", [bounded, free, 5]) == 2
    assert leases.touch_known(b"other", [free]) == 0
    clock.go_on(0.8)  # 2.6 s after it was handed out
    assert house.waiting() == [b"a", b"c"]
    assert leases.touch_known(b"q", [bounded, free], 5000) == 1
    clock.go_on(4.9)
    assert leases.touch_known(b"q", [free], 200) == 1  # and it can become shorter
    clock.go_on(0.3)
    assert (len(leases), house.waiting()) == (0, [b"a", b"b", b"c"])
    assert clock.set_timers == 0


def test_a_lease_that_is_longer_than_the_longest_is_cut(house: House, leases: Leases, clock: Clock) -> None:
    open_one(house, leases, 9000, most_ms=2000)
    clock.go_on(2.1)
    assert house.waiting() == [b"a", b"b", b"c"]


def test_whoever_hands_back_says_how_and_a_turn_that_fails_undoes_it(
    house: House, leases: Leases, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = open_one(house, leases), open_one(house, leases)
    house.turn()
    given_back = []

    def give_back(read: Any, client: bytes) -> None:
        given_back.append(read.id)
        read.queue.give_back(read)

    for fails in (True, False):
        house.put(b"x", queue=b"other")
        assert leases.hand_back(b"q", [second, 7, first, second], give_back) == 2
        assert len(leases) == 0
        if fails:
            fail_turn(house, monkeypatch)
            assert (len(leases), house.waiting()) == (2, [b"c"])
        else:
            house.turn()
    assert given_back == [1, 2, 1, 2]
    assert leases.hand_back(b"q", [first], give_back) == 0
    assert house.waiting() == [b"a", b"b", b"c"]


@pytest.mark.parametrize("by", ["abort", "hand_back"])
def test_what_had_gone_back_before_a_turn_that_fails_goes_on_waiting(
    house: House, leases: Leases, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    ids = [open_one(house, leases)]
    house.turn()
    house.give_back()  # its queue allows less time than its lease
    house.turn()
    house.put(b"x", queue=b"other")
    if by == "abort":
        assert leases.abort(b"q", ids) == 0
    else:
        assert leases.hand_back(b"q", ids, lambda read, client: read.queue.give_back(read)) == 0
    fail_turn(house, monkeypatch)
    assert house.waiting() == [b"a", b"b", b"c"]


def test_what_cannot_be_handed_back_stays_open_and_those_before_it_are_counted(
    house: House, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [open_one(house, leases) for _ in range(3)]
    house.turn()

    def give_back(read: Any, client: bytes) -> None:
        if read.id == 2:
            raise StorageError("cannot be read")
        read.queue.give_back(read)

    assert leases.hand_back(b"q", ids, give_back) == 1
    with pytest.raises(StorageError, match="cannot be read"):
        leases.hand_back(b"q", ids[1:], give_back)
    house.put(b"x", queue=b"other")
    fail_turn(house, monkeypatch)
    assert (len(leases), house.waiting()) == (3, [])
    assert leases.hand_back(b"q", ids, give_back) == 1
    house.turn()
    assert leases.confirm(b"q", ids) == 2
    house.turn()
    assert house.waiting() == [b"a"]


def test_one_item_that_cannot_be_given_back_stops_neither_the_others_nor_the_timer(
    house: House, leases: Leases, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for ms in (1000, 1000, 3000):
        open_one(house, leases, ms)
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


def test_one_timer_is_enough(house: House, leases: Leases, clock: Clock) -> None:
    for ms in (3000, 2000, 2500):
        open_one(house, leases, ms)
        assert clock.set_timers == 1


def test_who_opened_how_many_is_known_until_they_are_decided(house: House, leases: Leases) -> None:
    first, second = open_one(house, leases, owner="one"), open_one(house, leases, owner="two")
    open_one(house, leases, owner="one")
    assert [leases.opened_by(owner, b"q") for owner in ("one", "two", "three")] == [2, 1, 0]
    leases.confirm(b"q", [first])
    leases.abort(b"q", [second])
    assert [leases.opened_by(owner, b"q") for owner in ("one", "two", "three")] == [1, 0, 0]
    queue = house.registry.queues[b"q"]
    assert (queue.transactions, queue.canceled_transactions) == (3, 1)


def test_an_item_of_a_deleted_queue_is_not_counted(house: House, leases: Leases) -> None:
    first, second = open_one(house, leases), open_one(house, leases)
    house.registry.delete(b"q")
    house.turn()
    house.put(b"new")
    assert leases.confirm(b"q", [first]) == 0
    assert leases.abort(b"q", [second]) == 0
    assert len(leases) == 0
    house.turn()
    assert house.waiting() == [b"new"]


def test_a_turn_that_fails_undoes_what_was_decided_in_it(
    house: House, leases: Leases, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (open_one(house, leases) for _ in range(3))
    house.turn()
    assert leases.confirm(b"q", [first]) == 1
    assert leases.abort(b"q", [second]) == 1
    clock.go_on(2)  # the third goes back
    assert len(leases) == 0
    fail_turn(house, monkeypatch)
    assert len(leases) == 3
    assert leases.opened_by("client", b"q") == 3
    assert leases.confirm(b"q", [third]) == 1
    house.turn()
    clock.go_on(2)
    house.turn()
    assert house.waiting() == [b"a", b"b"]
    assert leases.confirm(b"q", [first, second]) == 0


def test_a_turn_that_fails_undoes_what_was_handed_out_in_it(
    house: House, leases: Leases, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = house.registry.queues[b"q"].open()  # as for a client that waited for more
    assert earlier is not None
    house.turn()
    (item_id,) = leases.next_ids(1)
    leases.hold(item_id, earlier, "client", 1000)
    open_one(house, leases)
    house.put(b"d")
    fail_turn(house, monkeypatch)
    assert len(leases) == 0
    assert house.registry.queues[b"q"].transactions == 0
    assert house.waiting() == [b"a", b"b", b"c"]
    assert leases.confirm(b"q", [item_id]) == 0
    clock.go_on(2)


def test_many_that_are_decided_leave_nothing_behind(house: House, leases: Leases) -> None:
    for _ in range(3000):
        assert leases.abort(b"q", [open_one(house, leases, 10**9)]) == 1
    assert len(leases._due) < 1100  # they are kept until a long time is over, else


def test_many_that_are_overdue_go_back_a_part_at_a_time(
    house: House, clock: Clock, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases_module, "DECIDED_AT_ONCE", 2)
    queue = house.registry.queues[b"q"]
    for item_id in leases.next_ids(3):
        leases.hold(item_id, opened(queue), "owner", 1000)
    house.turn()
    clock.now += 2
    timer = min(one for one in clock.timers if not one[2].closed)
    clock.timers.remove(timer)
    timer[1]()
    assert queue.open_reads == 1
    clock.go_on(1)
    assert (queue.open_reads, len(leases)) == (0, 0)


# -- the deadlines of queues

TIMEOUT_S = 10


@dataclass
class Item:
    missing_bytes: int


class Watch:
    """The queue q, whose reads may be open for 10 s, and looks at times that we tell."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.now_s = 0.0
        self.leases = Leases(house.registry, house.journal, lambda *_: Clock.Timer(), lambda: self.now_s)
        self.sending: dict[Any, Any] = self.leases.sending
        house.put(b"a", b"b", b"c")
        house.turn()
        self.queue = house.registry.queues[b"q"]
        self.queue.options = replace(BUILT_IN, open_transaction_timeout_s=TIMEOUT_S)

    def open(self, queue: bytes = b"q") -> OpenRead:
        read = self.house.registry.queues[queue].open()
        assert read is not None
        return read

    def look(self, now_s: float) -> int:
        """In so many parts."""
        self.now_s = now_s
        parts = 1
        for _ in self.leases.look():
            self.house.turn()
            parts += 1
        self.house.turn()
        return parts

    def waiting(self) -> list[int]:
        queue = self.queue
        return [*sorted(queue.returned), *range(queue.next_id, queue.tail)]


@pytest.fixture
def watch(open_storage: Callable[[], Storage]) -> Watch:
    return Watch(House(open_storage))


def test_what_is_open_is_given_back_after_its_time(watch: Watch) -> None:
    watch.open()
    watch.look(0)
    watch.open()
    watch.look(5)
    watch.look(9.9)
    assert watch.waiting() == [3]
    watch.look(10)
    assert watch.waiting() == [1, 3]
    watch.look(14.9)
    assert watch.waiting() == [1, 3]
    watch.look(15)
    assert watch.waiting() == [1, 2, 3]


def test_the_time_begins_with_the_first_look(watch: Watch) -> None:
    watch.look(0)
    watch.open()
    watch.look(100)
    assert watch.waiting() == [2, 3]
    watch.look(109)
    assert watch.waiting() == [2, 3]
    watch.look(110)
    assert watch.waiting() == [1, 2, 3]


def test_what_is_handed_out_again_has_its_time_anew(watch: Watch) -> None:
    first = watch.open()
    watch.look(0)
    watch.queue.give_back(first)
    second = watch.open()
    assert second.id == first.id
    watch.look(9)
    watch.look(18)
    assert watch.waiting() == [2, 3]
    watch.look(19)
    assert watch.waiting() == [1, 2, 3]


def test_what_was_closed_in_time_is_gone(watch: Watch) -> None:
    read = watch.open()
    watch.look(0)
    watch.queue.close(read)
    watch.look(50)
    assert watch.waiting() == [2, 3]


def test_queues_without_the_option_are_left_alone(watch: Watch) -> None:
    watch.house.put(b"x", queue=b"other")
    read = watch.open(b"other")
    watch.look(0)
    watch.look(1e6)
    assert read.queue.holds(read)


def test_the_option_may_change_at_any_time(watch: Watch) -> None:
    read = watch.open()
    watch.look(0)
    watch.queue.options = BUILT_IN
    watch.look(1000)
    assert watch.queue.holds(read)
    watch.queue.options = replace(BUILT_IN, open_transaction_timeout_s=1)
    watch.look(1001)
    assert watch.queue.holds(read)
    watch.look(1002)
    assert watch.waiting() == [1, 2, 3]


def test_what_is_given_back_goes_to_who_has_waited_longest_in_order(watch: Watch) -> None:
    for _ in range(3):
        watch.open()
    waiters = [watch.house.registry.join_line(b"q", b"", False) for _ in range(2)]
    watch.look(0)
    watch.look(10)
    assert [waiter.got.id for waiter in waiters] == [1, 2]
    assert watch.waiting() == [3]
    watch.look(11)  # who waited has reads of their own
    watch.look(20)
    assert watch.waiting() == [3]
    watch.look(21)
    assert watch.waiting() == [1, 2, 3]


def test_what_is_given_back_is_there_after_a_crash_and_what_was_closed_is_not(watch: Watch) -> None:
    session = ManyReads(watch.house.journal)
    session.hold(watch.open())
    session.hold(watch.open())
    watch.look(0)
    session.close_read(b"q")
    watch.look(10)
    session.close_read(b"q")  # too late
    watch.house.turn()
    assert watch.waiting() == [2, 3]
    watch.house.restart()
    assert watch.house.waiting() == [b"b", b"c"]


@pytest.mark.parametrize("kind", [Session, ManyReads])
def test_a_close_that_comes_too_late_is_told_in_the_log(
    watch: Watch, kind: type[Session], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    session = kind(watch.house.journal)
    session.hold(watch.open())
    watch.look(0)
    watch.look(10)
    session.close_read(b"q")
    session.end()
    watch.look(11)
    assert [record.getMessage() for record in caplog.records] == [
        "queue q: 1 items were open for 10 s and are given back",
        "queue q: 1 item was closed too late: it had been given back",
    ]
    assert watch.waiting() == [1, 2, 3]


def test_an_item_that_is_being_sent_is_not_given_back_while_it_moves(watch: Watch) -> None:
    read = watch.open()
    item = watch.sending[read] = Item(1000)
    for second in range(0, 100, 9):
        item.missing_bytes -= 1
        watch.look(second)
    assert watch.queue.holds(read)
    del watch.sending[read]  # it has been sent
    watch.look(100)
    watch.look(109)
    assert watch.queue.holds(read)
    watch.look(110)
    assert not watch.queue.holds(read)


def test_an_item_whose_client_stands_still_is_given_back(watch: Watch) -> None:
    read = watch.open()
    watch.sending[read] = Item(1000)
    watch.look(0)
    watch.look(10)
    assert not watch.queue.holds(read)


def test_a_look_at_many_gives_way_to_others(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases_module, "LOOKS_A_TURN", 3)
    for number in range(10):
        watch.house.put(b"x", queue=b"other %d" % number)
    watch.house.put(*[b"%d" % number for number in range(20)])
    watch.house.turn()
    reads = [watch.open() for _ in range(20)]
    assert watch.look(0) >= 8
    assert watch.look(10) >= 8
    assert watch.waiting() == list(range(1, 24))
    assert not any(watch.queue.holds(read) for read in reads)


def test_what_happens_between_two_parts_of_a_look_is_seen(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases_module, "LOOKS_A_TURN", 1)
    first, second, third = watch.open(), watch.open(), watch.open()
    watch.look(0)
    watch.now_s = 10
    look = watch.leases.look()
    next(look)
    assert [watch.queue.holds(read) for read in (first, second, third)] == [False, True, True]
    watch.queue.close(second)
    watch.house.registry.delete(b"q")
    list(look)
    watch.house.turn()
    assert b"q" not in watch.house.registry.queues
    assert not third.returned


def test_many_late_closes_are_one_line(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    session = ManyReads(watch.house.journal)
    for _ in range(3):
        session.hold(watch.open())
    watch.look(0)
    watch.look(10)
    while session.close_oldest(b"q"):
        watch.house.turn()
    watch.look(11)
    watch.look(12)
    lines = [record.getMessage() for record in caplog.records if "late" in record.getMessage()]
    assert lines == ["queue q: 3 items were closed too late: they had been given back"]


# -- what clients see of it


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Reads last a second, and three may be open at a time."""
    directory = tmp_path_factory.mktemp("brief")
    file = directory / "darner.toml"
    file.write_text('dialect = "kestrel"\n[default]\nopen_transaction_timeout_s = 1\nmax_open_reads = 3\n')
    server = RunningServer(directory / "data", "-c", str(file))
    yield server
    server.end()


@pytest.fixture
def client(brief: RunningServer) -> Client:
    return brief.client()


def test_a_waiting_client_gets_what_another_held_for_too_long(brief: RunningServer, client: Client, queue: str) -> None:
    holder = brief.client()
    client.set(queue, b"a")
    assert holder.get(f"{queue}/open") == b"a"
    assert client.get(f"{queue}/t=10000") == b"a"
    assert holder.get(f"{queue}/close") is None
    wait_until(lambda: f"queue {queue}: 1 item was closed too late" in brief.printed())
    assert client.get(queue) is None


def test_an_item_that_was_held_for_too_long_survives_its_late_close(
    brief: RunningServer, client: Client, queue: str
) -> None:
    holder = brief.client()
    client.set(queue, b"a")
    assert holder.get(f"{queue}/open") == b"a"
    wait_until(lambda: client.stats()[f"queue_{queue}_open_transactions"] == "0")
    assert holder.get(f"{queue}/close") is None
    assert client.get(queue) == b"a"


def test_a_client_that_stops_in_the_middle_of_a_large_item_is_cut_off_and_the_next_gets_it(
    brief: RunningServer, client: Client, queue: str
) -> None:
    body = bytes(30 << 20)
    client.set(queue, body)
    for key in (queue, f"{queue}/open"):
        slow = brief.client()
        slow.send(f"get {key}\r\n".encode())
        assert slow.line().endswith(b" %d\r\n" % len(body))
        assert client.get(f"{queue}/peek/t=10000") == body
        assert client.get(f"{queue}/open") == body
        assert client.get(f"{queue}/abort") is None
        assert len(slow.read(len(body))) < len(body)


@pytest.mark.long
def test_a_client_that_takes_a_large_item_slowly_gets_all_of_it(
    brief: RunningServer, client: Client, queue: str
) -> None:
    """For four times as long as a read may be open."""
    body = bytes(40 << 20)
    client.set(queue, body)
    slow = brief.client()
    slow.send(f"get {queue}\r\n".encode())
    assert slow.line().endswith(b" %d\r\n" % len(body))
    for _ in range(40):
        assert len(slow.read(1 << 20)) == 1 << 20
        time.sleep(0.1)
    slow.expect(b"\r\nEND\r\n")
    assert client.get(queue) is None


def test_no_more_reads_are_open_than_the_option_says(brief: RunningServer, client: Client, queue: str) -> None:
    for body in (b"a", b"b", b"c", b"d"):
        client.set(queue, body)
    watcher = brief.client()
    watcher.send(f"monitor {queue} 60\r\n".encode())
    assert [watcher.item() for _ in range(4)] == [b"a", b"b", b"c", None]
    watcher.send(f"get {queue}/open\r\n".encode())
    assert watcher.line().startswith(b"CLIENT_ERROR close a read first: 3 items of queue ")
    watcher.expect_hang_up()


def test_few_fail_in_one_turn_where_failures_count(
    open_storage: Callable[[], Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases_module, "DECIDED_AT_ONCE", 20)
    monkeypatch.setattr(leases_module, "LOOKS_A_TURN", 40)
    counting = QueueOptions(max_deliveries=9, open_transaction_timeout_s=5)
    bench = JobBench(open_storage, q=replace(counting, open_transaction_timeout_s=0), late=counting)
    for name in (b"q", b"late"):
        bench.put(name, *[b"x"] * 5)
    for _ in range(5):
        bench.engine.leases.bind(bench.opened(), 5000)
        bench.opened(b"late")
    for _ in bench.engine.leases.look():
        bench.end_turn()
    bench.end_turn()
    bench.now_s += 6
    failures = []
    for _ in range(3):
        bench.engine.leases._on_due()
        bench.end_turn()
        failures.append(bench.figures()["failures"])
    for _ in bench.engine.leases.look():
        bench.end_turn()
        failures.append(bench.figures(b"late")["failures"])
    assert failures == [2, 4, 5, 2, 4]
    assert bench.figures(b"late")["failures"] == 5


def test_touches_leave_nothing_behind_for_long(house: House, leases: Leases, clock: Clock) -> None:
    leased = leases.bind(opened(house.registry.queues[b"q"]), 10**8)
    for _ in range(5000):
        clock.now += 0.001
        assert leases.touch(leased, 10**9)
        assert leases.touch(leased, 10**7)
        assert leases.touch(leased, 10**6 - int(clock.now * 1000) % 1000)
    assert len(leases._due) < 2000


def look(leases: Leases) -> None:
    for _ in leases.look():
        pass


@pytest.mark.parametrize("delayed", [False, True])
def test_leases_of_a_deleted_queue_count_for_nothing(open_storage: Callable[[], Storage], delayed: bool) -> None:
    bench = JobBench(open_storage, q=QueueOptions(max_leases=2))
    leases = bench.engine.leases
    for name in (b"q", b"other"):
        for _ in range(2):
            bench.put_job(name, b"x", pri=5 if delayed else 1024)
            leases.bind(bench.opened(name), 10**12)
    bench.end_turn()
    bench.registry.delete(b"q")
    bench.put(b"q", b"new")
    assert leases.room(b"q") == 2
    bench.end_turn()
    look(leases)
    assert len(leases) == 2
    leases.bind(bench.opened(), 1000)
    assert (len(leases), leases.room(b"q")) == (3, 1)


def test_leases_of_a_queue_whose_delete_fails_are_there_again(open_storage: Callable[[], Storage]) -> None:
    bench = JobBench(open_storage, q=QueueOptions(max_leases=2))
    leases = bench.engine.leases
    bench.put(b"q", b"x")
    leased = leases.bind(bench.opened(), 60_000)
    bench.end_turn()
    bench.registry.delete(b"q")
    look(leases)
    bench.fail_turn()
    assert (len(leases), leases.room(b"q"), leases.touch(leased)) == (1, 1, True)
    bench.pass_time(61)
    assert bench.drain() == [b"x"]


def test_a_lease_on_what_its_queue_has_taken_back_ends(open_storage: Callable[[], Storage]) -> None:
    bench = JobBench(open_storage, q=QueueOptions(max_leases=1, open_transaction_timeout_s=5))
    leases = bench.engine.leases
    bench.put(b"q", b"x")
    leases.hold(1, bench.opened(), "client", 10**9)
    for _ in range(4):  # the last finds what the one before has given back
        bench.pass_time(4)
        look(leases)
    assert (len(leases), leases.room(b"q"), leases.opened_by("client", b"q")) == (0, 1, 0)
    assert bench.drain() == [b"x"]


def test_leases_of_a_deleted_cursor_end(open_storage: Callable[[], Storage]) -> None:
    bench = JobBench(open_storage)
    bench.put(b"q", b"x")
    leases, cursors = bench.engine.leases, bench.registry.cursors
    read = cursors.of(bench.queue(), b"c").open()
    assert read is not None
    leases.bind(read, 10**12)
    bench.end_turn()
    look(leases)
    assert len(leases) == 1
    cursors.delete(b"q", b"c")
    bench.end_turn()
    look(leases)
    assert len(leases) == 0


def test_leases_at_cursors_are_their_queues(open_storage: Callable[[], Storage]) -> None:
    bench = JobBench(open_storage, q=QueueOptions(max_leases=2))
    bench.put(b"q", b"1", b"2")
    leases, cursor = bench.engine.leases, bench.registry.cursors.of(bench.queue(), b"c")
    read = cursor.open()
    assert read is not None
    leased = leases.bind(read, 1000)
    assert leases.room(b"q") == 1
    leased.queue.close(leased)
    assert leases.room(b"q") == 2
