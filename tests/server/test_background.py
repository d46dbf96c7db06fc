"""Tasks that go on whatever they raise, and fsyncs that are shared."""

import logging
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from darner_core.errors import StorageError
from darner_core.server.background import TOLD_AT_ONCE, Background, SyncGroup
from darner_core.waiters import WaitingLine
from tests.test_waiters import outcome, wait


@pytest.fixture
def background() -> Iterator[Background]:
    made = Background()
    yield made
    made.wait_closed()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StorageError("no space"), "tidying: no space"),
        (OSError("no such file"), "tidying: no such file"),
        (ZeroDivisionError(), "tidying: unexpected error"),
        (KeyError(1), "tidying: unexpected error"),
    ],
)
def test_a_task_is_done_again_whatever_it_raises(
    background: Background, caplog: pytest.LogCaptureFixture, error: Exception, said: str
) -> None:
    times: list[float] = []

    def tidy() -> None:
        times.append(time.monotonic())
        raise error

    with caplog.at_level(logging.ERROR):
        background.every(0.001, "tidying", tidy)
        with gevent.Timeout(5):
            while len(times) < 3:
                gevent.sleep(0.001)
    assert [record.getMessage() for record in caplog.records][:3] == [said] * 3


def test_the_time_between_is_asked_for_each_time(background: Background) -> None:
    waits = iter([0.001, 0.001, 60.0])
    done: list[int] = []
    background.every(lambda: next(waits), "counting", lambda: done.append(1))
    gevent.sleep(0.05)
    assert len(done) == 2


def test_nothing_is_done_after_the_end(background: Background) -> None:
    done: list[int] = []
    background.every(0.001, "counting", lambda: done.append(1))
    background.wait_closed()
    gevent.sleep(0.01)
    assert done == []


# -- shared fsyncs


class Disk:
    """An fsync that takes until it is told to end, and who was told how theirs ended."""

    def __init__(self) -> None:
        self.started = 0
        self.failing: set[int] = set()  # which fsyncs fail: the first is 1
        self.told: list[tuple[list[str], str]] = []
        self.in_hub: list[bool] = []
        self.group = SyncGroup(self._sync, self._done)
        self.may_end = threading.Semaphore(0)

    def _sync(self) -> None:
        self.started += 1
        number = self.started
        assert self.may_end.acquire(timeout=10)
        if number in self.failing:
            raise StorageError(f"fsync {number} failed")

    def _done(self, members: list[str], error: StorageError | None) -> None:
        self.in_hub.append(gevent.getcurrent() is gevent.get_hub())
        self.told.append((members, str(error) if error is not None else "synced"))

    def wait_started(self, number: int) -> None:
        self._wait_until(lambda: self.started >= number)

    def end(self, times: int = 1) -> None:
        """Let the fsync that runs end, and wait until its members have been told."""
        for _ in range(times):
            told = len(self.told)
            self.may_end.release()
            self._wait_until(lambda told=told: len(self.told) > told)

    def _wait_until(self, true: Any) -> None:
        with gevent.Timeout(10):
            while not true():
                gevent.sleep(0.001)


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    for _ in range(10):
        disk.may_end.release()


def test_who_asks_for_an_fsync_is_told_when_it_has_ended_and_not_before(disk: Disk) -> None:
    disk.group.join("a")
    disk.wait_started(1)
    gevent.sleep(0)
    assert disk.told == []
    disk.end()
    assert disk.told == [(["a"], "synced")]


def test_all_that_ask_in_one_turn_share_an_fsync(disk: Disk) -> None:
    for member in ("a", "b", "c"):
        disk.group.join(member)
    disk.end()
    assert disk.told == [(["a", "b", "c"], "synced")]
    assert disk.started == 1


def test_who_asks_while_an_fsync_runs_goes_with_the_next(disk: Disk) -> None:
    """It may have begun before what the latecomer wrote."""
    disk.group.join("a")
    disk.wait_started(1)
    disk.group.join("b")
    disk.group.join("c")
    disk.end()
    assert disk.told == [(["a"], "synced")]
    disk.wait_started(2)
    disk.group.join("d")
    disk.end(2)
    assert disk.told == [(["a"], "synced"), (["b", "c"], "synced"), (["d"], "synced")]
    assert disk.started == 3


def test_the_loop_goes_on_while_an_fsync_runs(disk: Disk) -> None:
    disk.group.join("a")
    disk.wait_started(1)
    line = WaitingLine()
    greenlet = wait(line.join())
    line.next().hand("item")
    assert outcome(greenlet) == "item"
    assert disk.told == []
    disk.end()


def test_the_end_is_told_in_the_hub(disk: Disk) -> None:
    disk.group.join("a")
    disk.end()
    assert disk.in_hub == [True]


def test_an_error_reaches_all_that_shared_the_fsync_and_nobody_else(disk: Disk) -> None:
    disk.failing = {1}
    disk.group.join("a")
    disk.group.join("b")
    disk.wait_started(1)
    disk.group.join("c")
    disk.end(2)
    assert disk.told == [(["a", "b"], "fsync 1 failed"), (["c"], "synced")]


@pytest.mark.parametrize("fails", [False, True])
def test_after_a_pause_there_are_fsyncs_again(disk: Disk, fails: bool) -> None:
    if fails:
        disk.failing = {1}
    disk.group.join("a")
    disk.end()
    gevent.sleep(0.001)
    assert disk.started == 1
    disk.group.join("b")
    disk.end()
    assert disk.told == [(["a"], "fsync 1 failed" if fails else "synced"), (["b"], "synced")]


def test_who_asks_again_when_told_is_told_again() -> None:
    told: list[list[str]] = []

    def done(members: list[str], error: StorageError | None) -> None:
        told.append(members)
        if len(told) < 4:
            group.join(f"again {len(told)}")

    group = SyncGroup(lambda: None, done)
    group.join("first")
    with gevent.Timeout(10):
        while len(told) < 4:
            gevent.sleep(0.001)
    assert told == [["first"], ["again 1"], ["again 2"], ["again 3"]]


def test_others_are_served_while_many_are_told_of_their_fsync(disk: Disk) -> None:
    happened: list[str] = []
    mine, theirs = socket.socketpair()
    with mine, theirs:
        theirs.send(b"x")
        watcher = gevent.get_hub().loop.io(mine.fileno(), 1)
        disk.group = SyncGroup(disk._sync, lambda members, error: happened.append("told"))
        for member in range(3 * TOLD_AT_ONCE):
            disk.group.join(str(member))
        disk.wait_started(1)
        watcher.start(happened.append, "read")
        disk.may_end.release()
        disk._wait_until(lambda: happened.count("told") == 3)
        watcher.stop()
    first = happened.index("told")
    between = [happened[first + 1 :][: happened[first + 1 :].index("told")], happened[:first]]
    assert all("read" in part for part in between)


def test_an_fsync_that_fails_in_a_way_nobody_foresaw_leaves_nobody_waiting() -> None:
    told: list[tuple[list[str], str]] = []

    def sync() -> None:
        raise ZeroDivisionError("a bug")

    group = SyncGroup(sync, lambda members, error: told.append((members, str(error))))
    for member in ("first", "second"):
        group.join(member)
        with gevent.Timeout(10):
            while not told or told[-1][0] != [member]:
                gevent.sleep(0.001)
    assert told == [(["first"], "ZeroDivisionError: a bug"), (["second"], "ZeroDivisionError: a bug")]
