"""`--check`: what it finds, and that it changes nothing."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from darner_core.errors import DataDirError
from darner_core.storage.records import QueueRecord, chunk_key, item_key, pack_item, pack_state
from darner_core.storage.storage import CHUNK_FAMILY, DEFAULT_FAMILY, Storage
from darner_core.tools.check import DAMAGED, WHOLE, check
from tests.conftest import SMALL
from tests.support.bench import Bench
from tests.support.damaged import ITEMS, NAMES, POPPED, body, copy_of, make_directory, turn_over
from tests.support.harness import ROOT
from tests.tools.test_repair import quiet, run


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("check") / "base"
    make_directory(path)
    return path


@pytest.fixture
def directory(base: Path, tmp_path: Path) -> Path:
    return copy_of(base, tmp_path / "data")


def findings(directory: Path) -> list[str]:
    said: list[str] = []
    assert check(str(directory), said.append, quiet.progress) == (WHOLE if said[-1].startswith("whole") else DAMAGED)
    return said


def altered(directory: Path, *changes: tuple[int | None, bytes, bytes | None]) -> None:
    """Write or remove records as no server would."""
    storage = Storage(str(directory), **SMALL)
    batch = storage.batch()
    for family, key, value in changes:
        if value is None:
            batch.delete(key, storage.handles[DEFAULT_FAMILY if family is None else family])
        else:
            batch.put(key, value, storage.handles[DEFAULT_FAMILY if family is None else family])
    storage.write(batch)
    storage.close()


def record(directory: Path, name: bytes) -> QueueRecord:
    storage = Storage(str(directory), **SMALL)
    found = dict(storage.queues())[name]
    storage.close()
    return found


def test_a_whole_directory_is_said_to_be_whole_and_is_not_changed(directory: Path) -> None:
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    done = run(directory, "--check")
    count = len(NAMES) * (ITEMS - POPPED)
    size = sum(len(body(name, number)) for name in NAMES for number in range(1 + POPPED, ITEMS + 1))
    assert (done.returncode, done.stdout) == (0, f"whole: {len(NAMES)} queues, {count} items, {size} bytes\n")
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == files


def test_a_damaged_table_is_named_with_the_queue_and_the_items(directory: Path) -> None:
    table = next(path for path in directory.glob("*.sst") if body(b"a", 10) in path.read_bytes())
    turn_over(table, table.read_bytes().index(body(b"a", 100)))
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    done = run(directory, "--check")
    assert done.returncode == 1
    first = done.stdout.splitlines()[0]
    assert first.startswith("queue a: items ")
    assert f"cannot be read: Corruption: {table.name} is damaged at byte" in first
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == files


def test_a_directory_that_cannot_be_opened_is_another_exit_status(directory: Path) -> None:
    (directory / "CURRENT").write_bytes(b"nonsense\n")
    done = run(directory, "--check")
    assert done.returncode == 2
    assert "cannot be read at all: Corruption: CURRENT file corrupted; --repair" in done.stderr


def test_records_that_do_not_fit_together_are_found(directory: Path) -> None:
    queue = record(directory, b"a")
    number, family, _, _ = queue
    altered(
        directory,
        (family, item_key(number, 50), None),
        (family, item_key(number, 60), b"\x07" * 40),
        (CHUNK_FAMILY, chunk_key(number, 2, 1), None),
        (CHUNK_FAMILY, chunk_key(number, 3, 0), b"short"),
        (CHUNK_FAMILY, chunk_key(99, 1, 0), b"nobody's"),
    )
    said = findings(directory)
    assert "queue a: items 50 to 50 are missing" in said
    assert "queue a: item 60: an item record of unknown kind 7" in said
    assert any(line.startswith("queue a: large item ") and "chunk 1 is missing" not in line for line in said)
    assert "note: queue number 99: 1 large items' chunks belong to no item; they only take space" in said
    assert said[-1].startswith("damaged: ")
    assert "4 items are known to be lost" in said[-1]


def test_a_state_that_tells_of_other_items_is_found(directory: Path) -> None:
    queue = record(directory, b"b")
    state = item_key(queue.number, 0)
    altered(directory, (queue.family, state, pack_state(1 + POPPED, 1 + POPPED, ITEMS + 6, 1, 1)))
    assert f"queue b: items {ITEMS + 1} to {ITEMS + 5} are missing" in findings(directory)
    altered(directory, (queue.family, state, pack_state(1 + POPPED, 1 + POPPED, ITEMS + 1, 1, 1)))
    assert any("queue b: its state tells of 1 bytes in items" in line for line in findings(directory))
    altered(directory, (queue.family, state, b"?"))
    assert any("queue b: its state cannot be read" in line for line in findings(directory))


def test_items_of_no_queue_are_found(directory: Path) -> None:
    altered(directory, (0, item_key(77, 1), pack_item((b"whose?", 0, 0, 1))))
    assert "queue number 77: its name is lost; --repair calls it recovered-77" in findings(directory)


def test_what_is_no_data_directory_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(DataDirError):
            check(str(path), quiet, quiet.progress)
    assert os.listdir(tmp_path) == []


# -- as a user who may read, or may not


AS_ANOTHER = """
import locale, os, pickle, sys  # what is imported late lies perhaps where the other user may not read
from darner_core.main import main
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
sys.exit(main(sys.argv[1:]))
"""


def run_as_another(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """As a user to whom permissions apply; who may not write what `make coverage` would, either."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    return subprocess.run(
        [sys.executable, "-c", AS_ANOTHER, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.fixture
def write_protected(base: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is for its owner's eyes only
        os.chmod(folder, 0o755)
        path = copy_of(base, Path(folder) / "data")
        for file in path.iterdir():
            file.chmod(0o444)
        path.chmod(0o555)
        yield path
        path.chmod(0o755)


def test_a_write_protected_directory_can_be_checked(write_protected: Path) -> None:
    files = {path.name: path.read_bytes() for path in write_protected.iterdir()}
    done = run_as_another("--check", "--data", str(write_protected))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"whole: {len(NAMES)} queues, {len(NAMES) * (ITEMS - POPPED)} items, ")
    assert {path.name: path.read_bytes() for path in write_protected.iterdir()} == files


@pytest.mark.parametrize("name", ["FORMAT", "CURRENT", "000008.log"])
def test_a_file_that_may_not_be_read_is_named_and_not_said_to_be_damaged(write_protected: Path, name: str) -> None:
    (write_protected / name).chmod(0)
    done = run_as_another("--check", "--data", str(write_protected))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"darner: data directory {write_protected}: no permission to read {name}; run this as the server's user\n"
    )


def test_what_has_expired_in_the_middle_is_not_missing_and_what_is_missing_beside_it_is(
    open_storage: Callable[[], Storage], tmp_path: Path
) -> None:
    bench = Bench(open_storage)
    bench.registry.child(b"p+child")
    for number in range(7):
        bench.put(b"p", b"%d" % number, expires_in_s=1 if number in (2, 3) else 10**9)
    bench.end_turn()
    bench.now_s += 2
    bench.sweep()
    queue = bench.queue(b"p").log.record
    assert bench.storage is not None
    bench.storage.close()
    directory = tmp_path / "storage"
    assert findings(directory) == ["whole: 2 queues, 10 items, 10 bytes"]
    altered(directory, (queue.family, item_key(queue.number, 6), None))
    said = findings(directory)
    assert "queue p: items 3 to 4 are missing, 2 of all that are missing have expired" in said
    assert "queue p: items 6 to 6 are missing, 2 of all that are missing have expired" in said
    assert "1 items are known to be lost" in said[-1]
    assert run(directory, "--repair").returncode == 1
    bench.start()
    assert list(bench.registry.children) == [b"p"]
    assert bench.queue(b"p").waiting_items == 4
    bench.now_s += 10**9 + 1
    bench.sweep()
    assert (bench.drain(b"p"), bench.drain(b"p+child")) == ([], [])
    assert bench.queue(b"p").expired_items == 4  # found by what repair has written for it


@pytest.mark.parametrize("way", ["removed", "emptied"])
def test_a_log_that_is_gone_or_empty_is_found(base: Path, tmp_path: Path, way: str) -> None:
    directory = copy_of(base, tmp_path / "data")
    (log,) = directory.glob("*.log")
    if way == "removed":
        log.unlink()
    else:
        os.truncate(log, 0)
    assert any(log.name in line and "is lost" in line for line in findings(directory))


def test_a_directory_without_current_is_not_said_to_be_empty(base: Path, tmp_path: Path) -> None:
    directory = copy_of(base, tmp_path / "data")
    (directory / "CURRENT").unlink()
    said: list[str] = []
    with pytest.raises(DataDirError, match=r"cannot be read at all: .*--repair"):
        check(str(directory), said.append, quiet.progress)
    assert said == ["file CURRENT is missing"]
    assert not (directory / "CURRENT").exists()


def test_damage_to_what_has_been_taken_is_found(open_storage: Callable[[], Storage], tmp_path: Path) -> None:
    """RocksDB meets it when it compacts, and stops writing."""
    storage = open_storage()
    jobs = QueueRecord(1, 0, 5)
    batch = storage.batch()
    storage.add_queue(batch, b"jobs", jobs)
    batch.put(item_key(1, 0), pack_state(250, 250, 301, 51 * 200, 1), storage.handles[0])
    for number in range(1, 301):
        batch.put(item_key(1, number), pack_item((b"%0200d" % number, 0, 0, 1)), storage.handles[0])
    storage.write(batch)
    storage.flush()
    storage.close()
    table = next(path for path in (tmp_path / "storage").glob("*.sst") if b"%0200d" % 120 in path.read_bytes())
    turn_over(table, table.read_bytes().index(b"%0200d" % 120))
    first, last = findings(tmp_path / "storage")
    assert first.startswith("queue jobs: what has been taken of it cannot be read, and no item is lost by that: ")
    assert table.name in first
    assert last.startswith("damaged: 1 findings; 1 queues, 51 items, 10200 bytes can be read, 0 items are known to be ")
