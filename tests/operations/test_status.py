"""The status's words and rules, by a clock of our own, and the file that keeps it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from darner_core.config.options import Config
from darner_core.operations.status import (
    QUIESCENT,
    READONLY,
    UP,
    WRITEAVOID,
    ServerStatus,
    Status,
    read_status,
    status_of,
    write_status,
)

GRACE_S = 10


class Changing:
    """A status, at a time that we tell."""

    def __init__(self, first: Status = UP, grace_s: float = GRACE_S) -> None:
        self._now_s = 5000.0
        self.came_into_force: list[Status] = []
        self._timer: tuple[float, Callable[[], None]] | None = None
        config = Config(default_status=first.word, status_change_grace_period_s=grace_s)  # type: ignore[arg-type]
        self.status = ServerStatus(config, self._note, self._run_after, lambda: self._now_s)

    def _note(self, no_writes: str, no_reads: str) -> None:
        self.forbidden = no_writes, no_reads
        if hasattr(self, "status"):  # else it is the first
            self.came_into_force.append(self.status.enforced)

    def _run_after(self, seconds: float, call: Callable[[], None]) -> "Changing":
        self._timer = self._now_s + seconds, call
        return self

    def close(self) -> None:
        """As the timer."""
        self._timer = None

    def pass_s(self, seconds: float) -> None:
        self._now_s += seconds
        if self._timer is not None and self._timer[0] <= self._now_s:
            self._timer[1]()

    def now(self) -> tuple[Status, Status]:
        return self.status.shown, self.status.enforced


@pytest.mark.parametrize("word", ["readonly", "READONLY", "ReadOnly"])
def test_words_are_taken_in_any_case(word: str) -> None:
    assert status_of(word) is READONLY


@pytest.mark.parametrize("word", ["", "DOWN", "down", "ßp", "ﬁ"])
def test_no_other_words_are(word: str) -> None:
    with pytest.raises(ValueError, match=r"^one of up, writeavoid, readonly, quiescent$"):
        status_of(word)


@pytest.mark.parametrize(("word", "near"), [("upp", "up"), ("read only", "readonly"), ("QUIESCENDO", "quiescent")])
def test_the_nearest_is_named(word: str, near: str) -> None:
    with pytest.raises(ValueError, match=rf'^one of up, writeavoid, readonly, quiescent; did you mean "{near}"\?$'):
        status_of(word)


def test_they_forbid_more_and_more() -> None:
    assert UP.strictness < WRITEAVOID.strictness < READONLY.strictness < QUIESCENT.strictness
    assert [(status.blocks_writes, status.blocks_reads) for status in (UP, WRITEAVOID, READONLY, QUIESCENT)] == [
        (False, False), (False, False), (True, False), (True, True),
    ]  # fmt: skip


def test_a_stricter_one_is_shown_at_once_and_in_force_after_the_grace_period() -> None:
    changing = Changing()
    assert changing.status.change(READONLY)
    assert changing.now() == (READONLY, UP)
    changing.pass_s(9.9)
    assert changing.now() == (READONLY, UP)
    changing.pass_s(0.1)
    assert changing.now() == (READONLY, READONLY)
    assert changing.forbidden == ("the server is READONLY", "")
    changing.pass_s(1000)
    assert changing.came_into_force == [READONLY]


@pytest.mark.parametrize("again", [READONLY, QUIESCENT])
def test_while_one_is_pending_another_as_strict_or_stricter_is_ignored(again: Status) -> None:
    changing = Changing()
    changing.status.change(READONLY)
    changing.pass_s(6)
    assert not changing.status.change(again)
    assert changing.now() == (READONLY, UP)
    changing.pass_s(4)
    assert changing.now() == (READONLY, READONLY)
    assert changing.status.change(QUIESCENT)
    assert changing.now() == (QUIESCENT, READONLY)


@pytest.mark.parametrize("looser", [READONLY, WRITEAVOID, UP])
def test_a_looser_one_is_in_force_at_once_and_ends_the_grace_period(looser: Status) -> None:
    changing = Changing()
    changing.status.change(QUIESCENT)
    changing.pass_s(5)
    assert changing.status.change(looser)
    assert changing.now() == (looser, looser)
    changing.pass_s(1000)
    assert changing.now() == (looser, looser)


def test_without_a_grace_period_it_is_in_force_at_once() -> None:
    changing = Changing(grace_s=0)
    for status in (QUIESCENT, QUIESCENT, UP, READONLY):
        assert changing.status.change(status)
        assert changing.now() == (status, status)
    assert changing.came_into_force == [QUIESCENT, UP, READONLY]


def test_the_first_is_in_force_at_once() -> None:
    assert Changing().forbidden == ("", "")
    assert Changing(QUIESCENT).forbidden == ("the server is QUIESCENT", "the server is QUIESCENT")


def test_the_same_again_changes_nothing() -> None:
    changing = Changing(READONLY)
    assert changing.status.change(READONLY)
    assert changing.now() == (READONLY, READONLY)
    assert changing.came_into_force == []


# -- the file


@pytest.mark.parametrize("status", [UP, WRITEAVOID, READONLY, QUIESCENT])
def test_the_file_says_what_was_written(tmp_path: Path, status: Status) -> None:
    path = tmp_path / "status"
    assert read_status(str(path)) is None
    write_status(str(path), QUIESCENT)
    write_status(str(path), status)
    assert read_status(str(path)) is status
    assert os.listdir(tmp_path) == ["status"]


def test_the_file_is_as_kestrel_writes_it(tmp_path: Path) -> None:
    write_status(str(tmp_path / "status"), READONLY)
    assert (tmp_path / "status").read_bytes() == b"ReadOnly\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "holds ''"),
        (b"Down\n", "holds 'Down'"),
        (b"Up\nDown\n", "holds 'Up\\nDown'"),
        (b"\xff\x00", "holds '\\\\xff\\x00'"),
        (b"Up" * 1_000_000, "holds 'UpUp"),
    ],
)
def test_a_file_that_says_something_else_is_told_in_one_line(tmp_path: Path, text: bytes, said: str) -> None:
    path = tmp_path / "status"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=r"not one of up, writeavoid, readonly, quiescent$") as raised:
        read_status(str(path))
    assert str(raised.value).startswith(said)
    assert len(str(raised.value).splitlines()) == 1
    assert len(str(raised.value)) < 600


def test_what_cannot_be_read_or_written_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "status").mkdir()
    with pytest.raises(ValueError, match=r"^cannot be read: Is a directory$"):
        read_status(str(tmp_path / "status"))
    with pytest.raises(OSError, match="Is a directory"):
        write_status(str(tmp_path / "status"), UP)
    assert os.listdir(tmp_path) == ["status"]
    with pytest.raises(FileNotFoundError):
        write_status(str(tmp_path / "nowhere" / "status"), UP)
