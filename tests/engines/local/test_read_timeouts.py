"""Which reads have been open for too long, by a clock of our own; and what clients see of it."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from darner_core.config.queues import BUILT_IN
from darner_core.engines.local import read_timeouts
from darner_core.engines.local.read_timeouts import ReadTimeouts
from darner_core.engines.local.reads import OpenRead
from darner_core.operations.session import ManyReads, Session
from darner_core.storage.storage import Storage
from tests.operations.test_session import House
from tests.support.harness import Client, RunningServer, wait_until

TIMEOUT_S = 10


@dataclass
class Item:
    missing_bytes: int


class Watch:
    """The queue q, whose reads may be open for 10 s, and looks at times that we tell."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.now_s = 0.0
        self.sending: dict[OpenRead, Item] = {}
        self.timeouts = ReadTimeouts(house.registry, self.sending, lambda: self.now_s)
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
        for _ in self.timeouts.look():
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
    monkeypatch.setattr(read_timeouts, "LOOKS_A_TURN", 3)
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
    monkeypatch.setattr(read_timeouts, "LOOKS_A_TURN", 1)
    first, second, third = watch.open(), watch.open(), watch.open()
    watch.look(0)
    watch.now_s = 10
    look = watch.timeouts.look()
    next(look)
    assert [watch.queue.holds(read) for read in (first, second, third)] == [False, True, True]
    watch.queue.close(second)
    watch.house.registry.delete(b"q")
    list(look)
    watch.house.turn()
    assert b"q" not in watch.house.registry.queues
    assert not third.returned


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
