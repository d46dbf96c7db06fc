"""What a session holds of a read with a deadline: used as a read and as its queue, it ends and keeps its lease."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from darner_core.config.options import Config
from darner_core.config.queues import QueueOptions, QueueRules
from darner_core.engines.jobs import Failure
from darner_core.engines.local.leases import Leases
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.errors import StorageError
from darner_core.operations.availability import Availability
from darner_core.operations.jobs import Comebacks, JobOperations
from darner_core.operations.session import ManyReads, Session
from darner_core.storage.storage import Storage
from tests.engines.local.test_leases import Clock, fail_turn
from tests.operations.test_session import House
from tests.support.bench import opened
from tests.support.job_bench import JobBench


class Told:
    """Failures, as they are told. A read that has failed waits again."""

    def __init__(self) -> None:
        self.failures: list[tuple[int, Failure, bytes]] = []
        self.refuses = False

    def fail(self, read: Any, why: Failure, client: bytes = b"", *_: object, counted: bool = False) -> None:
        if self.refuses:
            raise StorageError("no space left on device")
        self.failures.append((read.id, why, client))
        read.queue.give_back(read)


class Office:
    """A queue with the items a, b and c, whose clients hold them for a time."""

    def __init__(self, house: House) -> None:
        self.house = house
        house.put(b"a", b"b", b"c")
        house.turn()
        self.clock, self.jobs = Clock(), Told()
        jobs: Any = self.jobs
        self.leases = Leases(house.registry, house.journal, self.clock.run_after, lambda: self.clock.now, jobs, 5)

    def take(self, session: Session, lasts_ms: int = 1000, most_ms: int = 0) -> Any:
        leased: Any = self.leases.bind(opened(self.house.registry.queues[b"q"]), lasts_ms, most_ms, b"dora")
        session.hold(leased)
        return leased


@pytest.fixture
def office(open_storage: Callable[[], Storage]) -> Office:
    return Office(House(open_storage, Config()))


SESSIONS = pytest.mark.parametrize("kind", [Session, ManyReads])
Kind = Callable[..., Session]


@SESSIONS
def test_an_item_that_is_closed_in_time_is_gone_and_its_lease_too(office: Office, kind: Kind) -> None:
    session = kind(office.house.journal)
    office.take(session)
    office.house.turn()
    session.close_read(b"q")
    office.house.turn()
    assert (len(office.leases), session.holds_nothing) == (0, True)
    office.clock.go_on(2)
    assert office.house.waiting() == [b"b", b"c"]


@SESSIONS
def test_when_its_time_is_over_an_item_goes_to_others_and_its_close_does_nothing(office: Office, kind: Kind) -> None:
    session = kind(office.house.journal)
    office.take(session)
    office.clock.go_on(1.1)
    office.house.turn()
    assert office.house.waiting() == [b"a", b"b", b"c"]
    session.close_read(b"q")
    office.house.turn()
    assert office.house.waiting() == [b"a", b"b", b"c"]


@SESSIONS
@pytest.mark.parametrize("end", [lambda session: session.abort_read(b"q"), lambda session: session.end()])
def test_what_comes_back_before_its_time_has_no_deadline_any_more(office: Office, kind: Kind, end: Any) -> None:
    session = kind(office.house.journal)
    office.take(session, 1000)
    end(session)
    assert len(office.leases) == 0
    held = kind(office.house.journal)
    held.hold(opened(office.house.registry.queues[b"q"]))
    office.clock.go_on(2)
    assert office.house.waiting() == [b"b", b"c"]


@SESSIONS
@pytest.mark.parametrize("end", [lambda session: session.close_read(b"q"), lambda session: session.abort_read(b"q")])
def test_what_a_failed_turn_had_ended_is_open_again_and_its_time_goes_on(
    office: Office, kind: Kind, end: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = kind(office.house.journal)
    office.take(session)
    office.house.turn()
    end(session)
    office.house.registry.create(b"other")  # so that there is something to write
    fail_turn(office.house, monkeypatch)
    assert (len(office.leases), session.holds_nothing) == (1, False)
    assert office.house.waiting() == [b"b", b"c"]
    office.clock.go_on(1.1)
    assert office.house.waiting() == [b"a", b"b", b"c"]


@SESSIONS
def test_an_open_that_a_failed_turn_takes_back_leaves_no_lease(
    office: Office, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = kind(office.house.journal)
    office.take(session)
    office.house.registry.create(b"other")
    fail_turn(office.house, monkeypatch)
    assert (len(office.leases), session.holds_nothing) == (0, True)
    assert office.house.waiting() == [b"a", b"b", b"c"]


def test_a_touch_moves_the_deadline_both_ways(office: Office) -> None:
    session = Session(office.house.journal)
    leased = office.take(session, 1000)
    for _ in range(5):
        office.clock.go_on(0.9)
        assert office.leases.touch(leased)  # as long as at first
    assert office.leases.touch(leased, 60_000)
    office.clock.go_on(50)
    assert office.house.waiting() == [b"b", b"c"]
    assert office.leases.touch(leased, 500)
    office.clock.go_on(0.6)
    assert office.house.waiting() == [b"a", b"b", b"c"]
    assert not office.leases.touch(leased)
    office.clock.go_on(100)
    assert office.clock.set_timers == 0


def test_touches_keep_an_item_no_longer_than_is_allowed(office: Office) -> None:
    session = Session(office.house.journal)
    leased = office.take(session, 1000, most_ms=2000)
    office.clock.go_on(0.9)
    assert office.leases.touch(leased, 60_000)
    office.clock.go_on(1.0)
    assert office.leases.touch(leased, 60_000)
    office.clock.go_on(0.2)
    assert office.house.waiting() == [b"a", b"b", b"c"]
    office.take(session, 5000, most_ms=2000)
    office.clock.go_on(2.1)
    assert office.house.waiting() == [b"a", b"b", b"c"]


def test_what_has_no_deadline_gets_none_by_a_touch(office: Office) -> None:
    read = opened(office.house.registry.queues[b"q"])
    assert office.leases.touch(read, 1)
    office.clock.go_on(100)
    assert office.house.waiting() == [b"b", b"c"]
    office.house.registry.queues[b"q"].close(read)
    assert not office.leases.touch(read, 1)


def test_there_are_only_so_many_leases_in_all_and_of_one_queue(office: Office) -> None:
    house = office.house
    list(house.registry.set_rules(QueueRules(queues={b"q": {"max_leases": 2}})))
    session = ManyReads(house.journal)
    assert (office.leases.room(b"q"), office.leases.room(b"other"), office.leases.room(b"none")) == (2, 5, 5)
    office.take(session)
    office.take(session)
    assert (office.leases.room(b"q"), office.leases.room(b"other")) == (0, 3)
    session.close_read(b"q")
    assert (office.leases.room(b"q"), office.leases.room(b"other")) == (1, 4)


def test_where_failures_count_a_time_out_is_one_and_a_close_in_time_is_none(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MessageQueue, "counts_failures", True)
    session = ManyReads(office.house.journal)
    first, second = office.take(session), office.take(session)
    session.close_read(b"q")
    office.clock.go_on(1.1)
    assert office.jobs.failures == [(second.id, Failure.TIMED_OUT, b"dora")]
    assert first.id != second.id


def test_an_item_comes_back_although_its_failure_cannot_be_written(
    office: Office, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(MessageQueue, "counts_failures", True)
    office.jobs.refuses = True
    office.take(Session(office.house.journal))
    office.clock.go_on(1.1)
    assert "a failure (timed out) could not be counted" in caplog.text
    assert office.house.waiting() == [b"a", b"b", b"c"]


def test_an_item_that_failed_is_the_read_itself_to_the_engine(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(office.house.journal)
    leased = office.take(session)
    office.house.turn()
    read = office.leases.end(leased)
    assert (read, len(office.leases)) == (leased.read, 0)
    office.house.registry.create(b"other")
    fail_turn(office.house, monkeypatch)
    assert len(office.leases) == 1
    assert office.leases.end(read) is read


@SESSIONS
def test_a_client_that_is_lost_in_a_turn_that_fails_leaves_no_lease(
    open_storage: Callable[[], Storage], kind: Kind
) -> None:
    class Serving:
        stopping = False

    bench = JobBench(open_storage, q=QueueOptions(max_deliveries=3))
    comebacks = Comebacks(bench.engine, cast(Availability, Serving()))
    session = kind(bench.journal, comebacks)
    bench.put(b"q", b"line")
    bench.end_turn()
    JobOperations(bench.engine, comebacks).hold(session, 10**9, bench.opened())
    bench.end_turn()
    session.end()
    bench.fail_turn()
    assert (len(bench.engine.leases), bench.drain()) == (0, [b"line"])
