"""What is due is moved in time, a part of it each turn, and a clock that is set is noticed."""

from collections.abc import Callable

import pytest

from darner_core.engines.local import due as due_module
from darner_core.engines.local.due import LONGEST_S, DueTimes
from darner_core.storage.storage import Storage
from tests.support.asides import Bench, refusing
from tests.support.job_bench import JobBench

OpenStorage = Callable[[], Storage]


class Timer:
    def __init__(self, seconds: float, call: Callable[[], None]) -> None:
        self.seconds = seconds
        self.call = call
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Loop:
    """A bench whose time passes as the test says, with due times."""

    def __init__(self, open_storage: OpenStorage) -> None:
        self.timers: list[Timer] = []
        self.bench = Bench(open_storage)
        self.watch()

    def watch(self) -> None:
        self.due = DueTimes(self.bench.journal, self.run_after, lambda: self.bench.now_s)
        self.bench.noted = self.due  # type: ignore[assignment]
        self.bench.aside = self.bench.read_aside(self.bench.journal)

    def run_after(self, seconds: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(seconds, call))
        return self.timers[-1]

    @property
    def live(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.closed]

    def fire(self) -> None:
        (timer,) = self.live
        timer.call()

    def turn(self) -> bool:
        """What the server does with slices; whether there was one."""
        slices = self.bench.journal.slices
        there = bool(slices)
        for _ in range(len(slices)):
            piece = slices.popleft()
            for _ in piece:
                slices.append(piece)
                break
        self.bench.end_turn()
        return there

    def ready(self) -> int:
        return self.bench.aside.waiting_items


@pytest.fixture
def loop(open_storage: OpenStorage) -> Loop:
    return Loop(open_storage)


def test_one_timer_is_set_for_the_earliest(loop: Loop) -> None:
    assert loop.timers == []
    for delay_ms in (5000, 7000, 3000):
        loop.bench.put(b"x", delay_ms=delay_ms)
    (timer,) = loop.live
    assert timer.seconds == 3.0
    loop.bench.put(b"x", delay_ms=9_000_000)
    assert loop.live == [timer]


def test_what_is_due_is_ready_and_the_timer_is_set_for_the_next(loop: Loop) -> None:
    for delay_ms in (3000, 5000, 100_000):
        loop.bench.put(b"%d" % delay_ms, delay_ms=delay_ms)
    loop.bench.end_turn()
    loop.bench.now_s += 5
    loop.bench.end_turn()
    loop.fire()
    assert loop.ready() == 0  # it is done in a turn
    assert loop.turn()
    assert loop.ready() == 2
    assert [timer.seconds for timer in loop.live] == [LONGEST_S]
    assert not loop.turn()


def test_a_timer_that_comes_early_is_set_again(loop: Loop) -> None:
    loop.bench.put(b"x", delay_ms=60_000)
    loop.bench.end_turn()
    loop.bench.now_s += 10
    loop.fire()
    assert not loop.turn()
    assert [timer.seconds for timer in loop.live] == [LONGEST_S]


def test_very_many_are_moved_in_parts(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(due_module, "DUE_A_TURN", 20)
    for _ in range(50):
        loop.bench.put(b"x", delay_ms=1000)
    loop.bench.end_turn()
    loop.bench.now_s += 1
    loop.fire()
    seen = []
    while loop.turn():
        seen.append(loop.ready())
    assert seen == [20, 40, 50]
    assert loop.live == []


def test_a_look_at_one_where_nothing_is_due_counts_too(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(due_module, "DUE_A_TURN", 20)
    bench = loop.bench
    others = [bench.read_aside(bench.journal) for _ in range(5)]
    bench.now_s += 1
    bench.journal.begin()
    for aside in others:
        loop.due.note(aside, bench.now_ms)
    bench.now_s += 1
    bench.journal.begin()
    loop.fire()
    turns = 0
    while loop.turn():
        turns += 1
    assert turns == 3


def test_what_is_due_is_found_after_a_restart(loop: Loop) -> None:
    loop.bench.put(b"x", delay_ms=1000)
    loop.bench.end_turn()
    loop.bench.now_s += 2
    loop.timers = []
    loop.bench.noted = None  # type: ignore[assignment]
    loop.bench.storage.close()
    loop.bench.storage = loop.bench._open_storage()
    loop.bench.start()
    loop.watch()
    loop.fire()
    loop.turn()
    assert loop.ready() == 1


def test_a_turn_that_fails_is_done_again(loop: Loop) -> None:
    loop.bench.put(b"x", delay_ms=1000)
    loop.bench.end_turn()
    loop.bench.now_s += 2
    loop.fire()
    for piece in list(loop.bench.journal.slices):
        list(piece)
    loop.bench.journal.slices.clear()
    assert loop.ready() == 1
    loop.bench.fail_turn()
    assert loop.ready() == 0
    loop.fire()
    loop.turn()
    assert loop.ready() == 1


def test_a_disk_that_cannot_be_read_is_tried_again(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.bench.put(b"x", delay_ms=1000)
    loop.bench.end_turn()
    loop.bench.now_s += 2
    loop.bench.aside.drop_window()
    loop.bench.storage.close()
    loop.fire()
    while loop.turn():
        pass
    assert "what is due there waits" in caplog.text
    loop.bench.storage = loop.bench._open_storage()
    loop.bench.journal.storage = loop.bench.storage
    loop.bench.now_s += 2
    loop.fire()
    loop.turn()
    assert loop.ready() == 1


def test_a_deleted_aside_is_forgotten(loop: Loop) -> None:
    loop.bench.put(b"x", delay_ms=1000)
    loop.bench.end_turn()
    loop.bench.now_s += 2
    loop.due.forget(loop.bench.aside)
    loop.fire()
    assert not loop.turn()
    assert loop.live == []


def test_an_aside_that_a_failed_turn_has_made_is_forgotten(open_storage: OpenStorage) -> None:
    bench = JobBench(open_storage)
    bench.put_job(b"q", b"x", delay_ms=60_000)
    (timer,) = bench._timers
    assert timer.call is not None
    bench.fail_turn()
    bench.pass_time(1)
    bench.pass_time(20)
    assert bench._timers == []


def test_nothing_is_written_for_waiting(loop: Loop) -> None:
    loop.bench.put(b"x", delay_ms=1000)
    loop.bench.end_turn()
    with refusing(loop.bench.storage):
        loop.fire()
        loop.turn()
