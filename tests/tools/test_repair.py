"""`--repair`: what is saved, what is said, and what is left of the damaged directory."""

import io
import os
import stat
import subprocess
from pathlib import Path

import pytest

from darner_core import operating_system
from darner_core.errors import DataDirError, StorageError
from darner_core.storage.rocks import Rocks
from darner_core.storage.storage import Storage
from darner_core.tools import repair as repair_module
from darner_core.tools.progress import Progress
from darner_core.tools.repair import repair
from tests.conftest import SMALL
from tests.support.damaged import ITEMS, NAMES, POPPED, bodies, body, make_directory, turn_over
from tests.support.harness import RunningServer, run_darner


class Quiet:
    """Takes what is said."""

    progress = Progress(io.StringIO())

    def __call__(self, line: str) -> None:
        assert "\n" not in line


quiet = Quiet()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    make_directory(tmp_path / "data")
    return tmp_path / "data"


def run(directory: Path, action: str = "--repair") -> "subprocess.CompletedProcess[str]":
    return run_darner(action, "--data", str(directory))


def numbers(directory: Path, name: bytes) -> list[int]:
    storage = Storage(str(directory), **SMALL)
    try:
        found = list(bodies(storage, name))
        assert all(data == body(name, number) for number, data in found)
        return [number for number, _ in found]
    finally:
        storage.close()


def table(directory: Path, name: bytes) -> Path:
    return next(path for path in directory.glob("*.sst") if body(name, 10) in path.read_bytes())


def test_a_whole_directory_is_left_as_it_is(directory: Path) -> None:
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    done = run(directory)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "nothing to repair"
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == files
    assert os.listdir(directory.parent) == ["data"]


def test_what_is_dropped_is_said_and_all_else_is_saved_in_order(directory: Path) -> None:
    damaged = table(directory, b"a")
    turn_over(damaged, damaged.read_bytes().index(body(b"a", 10)))
    done = run(directory)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    found = next(line for line in lines if line.startswith("queue a: items 4 to "))
    assert f"cannot be read: Corruption: {damaged.name} is damaged at byte 0" in found
    last = int(found.split()[5])
    assert f"queue a: {ITEMS - last} items saved, {last - POPPED} dropped" in lines
    assert lines[-1].startswith(f"{directory} is repaired; the damaged directory is kept as {directory}.damaged-")
    assert numbers(directory, b"a") == list(range(last + 1, ITEMS + 1))
    for name in NAMES[1:]:
        assert numbers(directory, name) == list(range(1 + POPPED, ITEMS + 1))
    assert run(directory, "--check").stdout.startswith("whole: ")
    kept = Path(lines[-1].split(" kept as ")[1])
    assert (kept / damaged.name).exists()
    assert sorted(os.listdir(directory.parent)) == ["data", kept.name]


def test_writes_lost_with_the_log_are_not_said_to_be_saved(directory: Path) -> None:
    log = max(directory.glob("*.log"), key=lambda path: path.stat().st_size)
    with open(log, "r+b") as file:
        file.truncate(log.stat().st_size // 2)
    done = run(directory)
    assert done.returncode == 1
    assert "write-ahead log are lost, too" in done.stdout.splitlines()[-1]
    found = numbers(directory, b"a")
    assert found == list(range(1, len(found) + 1))  # the pops, which were written last, are lost


def test_items_of_a_queue_whose_name_is_lost_are_saved_under_another(directory: Path) -> None:
    damaged = next(path for path in directory.glob("*.sst") if b"qa" in path.read_bytes()[:100])
    turn_over(damaged, 0)
    done = run(directory)
    assert "queue number 1: its name is lost; --repair calls it recovered-1" in done.stdout
    storage = Storage(str(directory), **SMALL)
    assert [flags for flags, _ in bodies(storage, b"recovered-1")] == list(range(1 + POPPED, ITEMS + 1))
    storage.close()


def test_it_keeps_out_of_a_directory_in_use_and_of_what_is_none(directory: Path, tmp_path: Path) -> None:
    server = RunningServer(directory, "--max-column-families", "4")
    for action in ("--check", "--repair"):
        done = run(directory, action)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"darner: data directory {directory}: in use by a server; stop it first\n"
    server.end()
    done = run(tmp_path / "nothing")
    assert (done.returncode, done.stderr) == (2, f"darner: data directory {tmp_path}/nothing: there is none\n")
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").write_text("dear")
    assert run(tmp_path / "letters").returncode == 2
    assert os.listdir(tmp_path / "letters") == ["mine.txt"]


def test_when_it_fails_the_damaged_directory_stands_as_it_stood(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = table(directory, b"a")
    turn_over(damaged, 0)
    files = {path.name: path.read_bytes() for path in directory.iterdir()}

    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Storage, "flush", no_room)
    with pytest.raises(DataDirError, match=r"not repaired, and not changed: .*No space left"):
        repair(str(directory), 4, quiet, quiet.progress)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == files
    assert os.listdir(directory.parent) == ["data"]


def test_the_error_that_stopped_it_is_said_and_not_that_closing_failed(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = table(directory, b"a")
    turn_over(damaged, 0)
    close = Storage.close

    def no_room(*_: object) -> None:
        raise StorageError("No space left on device")

    def fails(storage: Storage) -> None:
        close(storage)
        raise StorageError("is not open")

    monkeypatch.setattr(Rocks, "write", no_room)
    monkeypatch.setattr(Storage, "close", fails)
    with pytest.raises(DataDirError, match="not repaired, and not changed: No space left on device"):
        repair(str(directory), 4, quiet, quiet.progress)


# -- the new directory in the place of the old one


def test_the_repaired_directory_belongs_to_whom_the_damaged_one_did(directory: Path) -> None:
    turn_over(table(directory, b"a"), 0)
    user = 65534 if os.geteuid() == 0 else os.geteuid()
    for path in [directory, *directory.iterdir()]:
        os.chown(path, user, -1)
        path.chmod(0o700 if path == directory else 0o640)
    assert run(directory).returncode == 1
    for path in [directory, *directory.iterdir()]:
        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o700 if path == directory else 0o640, user), path


@pytest.mark.parametrize("at_once", [True, False])
def test_the_directories_change_places_and_no_server_can_come_between(
    directory: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    turn_over(table(directory, b"a"), 0)
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    exchange, rename = operating_system.exchange, os.rename

    def look(one: str, other: str) -> bool:
        assert "in use" in run(directory, "--check").stderr
        if not at_once:
            return False  # as on a file system that cannot do it
        if not exchange(one, other):
            pytest.skip("this file system cannot exchange two names")
        return True

    def never_without(one: str, other: str) -> None:
        rename(one, other)
        assert directory.is_dir() or not at_once

    monkeypatch.setattr(repair_module, "exchange", look)
    monkeypatch.setattr(os, "rename", never_without)
    assert repair(str(directory), 4, quiet, quiet.progress) == 1
    assert len(numbers(directory, b"b")) == ITEMS - POPPED
    kept = next(directory.parent.glob("data.damaged-*"))
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == files
    assert sorted(os.listdir(directory.parent)) == ["data", kept.name]


def test_what_a_killed_repair_left_is_told_of(directory: Path) -> None:
    left = [f"{directory}.{what}-20260101-000000" for what in ("rebuilt", "repaired")]
    for path in left:
        os.mkdir(path)
    aside = directory / "000007.log.dropped"
    aside.write_bytes(b"")
    notes = [f"note: {path}: left by a repair that did not end; not needed if the queues are in place" for path in left]
    for action in ("--check", "--repair"):
        done = run(directory, action)
        assert done.returncode == 0
        lines = done.stdout.splitlines()
        assert [line for line in lines if "did not end" in line] == notes
        assert f"note: {aside}: put aside after a loss of power; it only takes space" in lines
    directory.rename(f"{directory}.damaged-1")
    assert f"there is none, but {directory}.damaged-1, {left[1]}\n" in run(directory, "--repair").stderr
