"""Dead letters: which those of a queue are, how they get back, and that others have their turns meanwhile."""

from collections.abc import Callable
from typing import Any

import pytest

from darner_core.config.queues import QueueOptions
from darner_core.engines.jobs import Pause
from darner_core.errors import ClientError, ServerError, StorageError
from darner_core.operations.dead_letters import LOOKED_AT_ONCE, DeadLetters, PutBack, history_of
from darner_core.operations.session import Session
from darner_core.storage.storage import Storage
from tests.support.job_bench import JobBench
from tests.support.operations_on import operations_on

FAILS = QueueOptions(max_deliveries=1, dead_letter_queue=b"dead")
OWN = QueueOptions(max_deliveries=1)


class InEffect:
    """What says where the dead letters of a queue go."""

    def __init__(self, bench: JobBench) -> None:
        self._bench = bench

    def of_queue(self, name: bytes) -> list[tuple[str, Any, str]]:
        return [("dead_letter_queue", self._bench.rules.of(name).dead_letter_queue, "")]


class Client:
    def __init__(self, bench: JobBench) -> None:
        self.bench = bench
        self.session = Session(bench.journal)
        self.turns = 0
        self.meanwhile: Callable[[], object] = lambda: None

    def wait_turn(self) -> None:
        self.turns += 1
        assert self.turns < 100, "it does not end"
        self.bench.end_turn()
        self.meanwhile()


@pytest.fixture
def bench(open_storage: Callable[[], Storage]) -> JobBench:
    return JobBench(open_storage, q=FAILS, r=FAILS, own=OWN)


@pytest.fixture
def client(bench: JobBench) -> Any:
    return Client(bench)


@pytest.fixture
def dead(bench: JobBench) -> DeadLetters:
    operations, in_effect = operations_on(bench), InEffect(bench)
    return DeadLetters(bench.engine, operations.jobs, operations.putting, in_effect)  # type: ignore[arg-type]


def fail(bench: JobBench, queue: bytes, *bodies: bytes) -> None:
    for body in bodies:
        bench.put_job(queue, body)
        assert bench.fail(queue) == body


def ids(dead: DeadLetters, client: Any, queue: bytes) -> list[int]:
    return [seen.id for seen in dead.wait_each(client, dead.place(queue))]


def bodies(bench: JobBench, queue: bytes) -> list[bytes]:
    """All of them are taken."""
    taken = []
    while (read := bench.registry.queues[queue].open()) is not None:
        taken.append(bench.body(read))
        read.queue.close(read)
    bench.end_turn()
    return taken


def allowed() -> None:
    pass


def test_those_of_other_queues_are_passed_over(bench: JobBench, client: Any, dead: DeadLetters) -> None:
    fail(bench, b"r", b"1")
    fail(bench, b"q", b"2")
    fail(bench, b"r", b"3")
    (only,) = ids(dead, client, b"q")
    assert dead.first_bytes(dead.place(b"q"), only, 10) == b"2"
    assert len(ids(dead, client, b"r")) == 2
    assert not dead.is_there(dead.place(b"r"), only)
    assert not dead.drop(dead.place(b"r"), only)


def test_a_page_says_where_to_go_on_though_all_it_has_seen_are_those_of_others(
    bench: JobBench, client: Any, dead: DeadLetters
) -> None:
    fail(bench, b"r", *[b"%d" % number for number in range(2 * LOOKED_AT_ONCE)])
    fail(bench, b"q", b"a", b"b")
    place, after, found = dead.place(b"q"), None, []
    for page in range(10):
        some, after = dead.wait_page(client, place, after, 1, LOOKED_AT_ONCE)
        found += [dead.first_bytes(place, seen.id, 10) for seen in some]
        assert page or not some
        if after is None:
            break
    assert found == [b"a", b"b"]


def test_one_is_put_back_in_the_same_turn(bench: JobBench, client: Any, dead: DeadLetters) -> None:
    fail(bench, b"q", b"a", b"b")
    first, second = ids(dead, client, b"q")
    client.turns = 0
    assert dead.wait_put_back(client, b"q", dead.place(b"q"), second) == PutBack(1)
    assert dead.wait_put_back(client, b"q", dead.place(b"q"), second) == PutBack(0)
    assert client.turns == 0
    bench.end_turn()
    assert bodies(bench, b"q") == [b"b"]
    assert ids(dead, client, b"q") == [first]


def test_one_that_somebody_has_open_is_not_there(bench: JobBench, client: Any, dead: DeadLetters) -> None:
    fail(bench, b"q", b"a")
    (only,) = ids(dead, client, b"q")
    read = bench.opened(b"dead")
    place = dead.place(b"q")
    assert not dead.is_there(place, only)
    assert not dead.drop(place, only)
    assert dead.wait_put_back(client, b"q", place, only) == PutBack(0)
    read.queue.give_back(read)
    assert dead.drop(place, only)
    assert ids(dead, client, b"q") == []


def test_a_queue_without_a_dead_letter_queue_has_its_buried_ones(
    bench: JobBench, client: Any, dead: DeadLetters
) -> None:
    fail(bench, b"own", b"a", b"b", b"c")
    first, second, third = ids(dead, client, b"own")
    assert dead.wait_put_back(client, b"own", dead.place(b"own"), second) == PutBack(1)
    assert dead.drop(dead.place(b"own"), first)
    assert not dead.drop(dead.place(b"own"), second)  # it is ready
    assert ids(dead, client, b"own") == [third]
    assert bodies(bench, b"own") == [b"b"]


def test_many_go_back_in_their_order_and_in_slices(bench: JobBench, client: Any, dead: DeadLetters) -> None:
    wanted = [b"%d" % number for number in range(2 * LOOKED_AT_ONCE + 5)]
    fail(bench, b"q", *wanted)
    place = dead.place(b"q")
    assert dead.wait_put_several_back(client, b"q", place, 3, allowed) == PutBack(3)
    client.turns = 0
    assert dead.wait_put_several_back(client, b"q", place, 10**6, allowed) == PutBack(len(wanted) - 3)
    assert client.turns >= 2
    assert bodies(bench, b"q") == wanted


def test_what_fails_again_meanwhile_stays_a_dead_letter(bench: JobBench, client: Any, dead: DeadLetters) -> None:
    fail(bench, b"q", *(b"x" for _ in range(LOOKED_AT_ONCE)))
    client.meanwhile = lambda: bench.fail(b"q")
    put_back = dead.wait_put_several_back(client, b"q", dead.place(b"q"), 10**6, allowed)
    assert put_back == PutBack(LOOKED_AT_ONCE)


def test_a_queue_that_takes_no_more_ends_it_and_nothing_is_lost(
    bench: JobBench, client: Any, dead: DeadLetters
) -> None:
    fail(bench, b"q", b"a", b"b")
    (first, second), place = ids(dead, client, b"q"), dead.place(b"q")
    bench.jobs.pause(b"q", Pause.IN)
    assert dead.wait_put_several_back(client, b"q", place, 10, allowed) == PutBack(0, is_full=True)
    bench.end_turn()
    assert ids(dead, client, b"q") == [first, second]


def test_a_disk_without_room_leaves_it_where_it_was(
    bench: JobBench, client: Any, dead: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(bench, b"q", b"a")
    (only,), place = ids(dead, client, b"q"), dead.place(b"q")
    for error in (ServerError("out of disk space"), StorageError("no space left")):

        def refuse(*_: object, error: Exception = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(dead._putting, "require_taken", refuse)
            with pytest.raises(type(error)):
                dead.wait_put_back(client, b"q", place, only)
    assert ids(dead, client, b"q") == [only]


def test_who_may_not_any_longer_is_stopped_half_way(bench: JobBench, client: Any, dead: DeadLetters) -> None:
    fail(bench, b"q", *(b"x" for _ in range(5)))
    asked = iter([None, None, ClientError("no longer")])

    def require() -> None:
        error = next(asked)
        if error is not None:
            raise error

    with pytest.raises(ClientError):
        dead.wait_drop_several(client, dead.place(b"q"), 10, require)
    assert len(ids(dead, client, b"q")) == 3


def test_many_are_dropped(bench: JobBench, client: Any, dead: DeadLetters) -> None:
    fail(bench, b"r", b"other")
    fail(bench, b"q", *(b"x" for _ in range(LOOKED_AT_ONCE + 5)))
    place = dead.place(b"q")
    assert dead.wait_drop_several(client, place, 2, allowed) == 2
    assert dead.wait_drop_several(client, place, 10**6, allowed) == LOOKED_AT_ONCE + 3
    assert dead.wait_drop_several(client, place, 10**6, allowed) == 0
    assert bodies(bench, b"dead") == [b"other"]


def test_a_queue_that_is_not_there_has_none(client: Any, dead: DeadLetters) -> None:
    for name in (b"q", b"own"):
        place = dead.place(name)
        assert list(dead.wait_each(client, place)) == []
        assert dead.wait_put_several_back(client, name, place, 10, allowed) == PutBack(0)


def test_a_history_is_read() -> None:
    assert history_of(b"from=a b id=7 failures=3 last=nack client=alice@1.2.3.4:5 put=99") == {
        "from": "a b", "id": "7", "failures": 3, "reason": "nack", "client": "alice@1.2.3.4:5", "put_at_ms": 99,
    }  # fmt: skip
    assert history_of(b"") is None
