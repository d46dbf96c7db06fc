"""A directory that RocksDB cannot open, or not all of, rebuilt for `--repair`."""

import shutil
from pathlib import Path

import pytest

from darner_core.storage import opening
from darner_core.storage.number_records import Block
from darner_core.storage.storage import DEFAULT_FAMILY, Storage
from darner_core.tools import rebuild
from darner_core.tools.repair import repair
from darner_core.tools.salvage import Salvaged
from tests.conftest import SMALL
from tests.storage.test_job_tables import fill, seen
from tests.support.damaged import ITEMS, NAMES, POPPED, body, copy_of, make_directory, turn_over
from tests.tools.test_repair import numbers, quiet, run, table


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    make_directory(tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize("gone", ["CURRENT", "MANIFEST", "both"])
def test_a_directory_that_openingdb_does_not_open_is_rebuilt_whole(directory: Path, gone: str) -> None:
    for pattern in {"both": ["CURRENT", "MANIFEST-*"]}.get(gone, [f"{gone}*"]):
        for path in directory.glob(pattern):
            path.unlink()
    done = run(directory)
    assert done.returncode == 0, done
    assert "rebuilding" in done.stdout
    for name in NAMES:
        assert numbers(directory, name) == list(range(1 + POPPED, ITEMS + 1))


@pytest.mark.parametrize("cut_bytes", [20, 200])
def test_tables_that_a_manifest_cut_short_does_not_list_are_saved(directory: Path, cut_bytes: int) -> None:
    manifest = next(directory.glob("MANIFEST-*"))
    with open(manifest, "r+b") as file:
        file.truncate(manifest.stat().st_size - cut_bytes)
    done = run(directory)
    assert "rebuilding" in done.stdout
    for name in NAMES:
        assert numbers(directory, name) == list(range(1 + POPPED, ITEMS + 1))


def test_a_table_left_over_does_not_cost_the_readable_items_of_a_damaged_one(directory: Path) -> None:
    damaged = table(directory, b"a")
    turn_over(damaged, damaged.read_bytes().index(body(b"a", 100)))
    shutil.copy(table(directory, b"b"), directory / "000900.sst")  # as a kill leaves one that a compaction replaced
    readable = next(line for line in run(directory, "--check").stdout.splitlines() if line.startswith("damaged: "))
    done = run(directory)
    assert done.returncode == 1
    assert "rebuilding" not in done.stdout
    items = int(readable.split(" queues, ")[1].split()[0])
    assert f"saved {len(NAMES)} queues, {items} items" in done.stdout
    saved = numbers(directory, b"a")
    assert saved[0] == 1 + POPPED  # of the same table, before the damage and behind it
    assert set(range(190, ITEMS + 1)) <= set(saved)


@pytest.mark.parametrize("rebuilds", [True, False])
def test_if_a_table_is_gone_the_fuller_of_two_ways_is_taken(
    directory: Path, monkeypatch: pytest.MonkeyPatch, rebuilds: bool
) -> None:
    table(directory, b"a").unlink()

    def cannot(path: str) -> None:
        raise RuntimeError("Unable to encode VersionEdit")

    if not rebuilds:
        monkeypatch.setattr(opening, "rebuild", cannot)
    said: list[str] = []
    assert repair(str(directory), 4, said.append, quiet.progress) == 1
    failures = [line for line in said if "Unable to encode VersionEdit; saved what could be read" in line]
    assert len(failures) == (0 if rebuilds else 1)
    for name in (b"b", b"c", b"d"):
        assert set(range(ITEMS // 2 + 1, ITEMS + 1)) <= set(numbers(directory, name))
    if rebuilds:
        assert numbers(directory, b"a") == list(range(ITEMS // 2 + 1, ITEMS + 1))


def test_nothing_has_the_rebuilt_tables_open_while_they_are_looked_through(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in [directory / "CURRENT", *directory.glob("MANIFEST-*")]:
        path.unlink()
    look_through = rebuild._families_in_tables

    def alone(rebuilt: str, log_folder: str) -> dict[int, int]:
        Storage(rebuilt, **SMALL).close()  # raises an error if it is open; whoever has it open may compact, too
        return look_through(rebuilt, log_folder)

    monkeypatch.setattr(rebuild, "_families_in_tables", alone)
    assert repair(str(directory), 4, quiet, quiet.progress) == 0
    for name in NAMES:
        assert numbers(directory, name) == list(range(1 + POPPED, ITEMS + 1))


def test_a_record_that_two_tables_have_without_a_sequence_number_comes_once_and_as_it_was_last(tmp_path: Path) -> None:
    """A compaction to the last level sets sequence numbers to 0. A kill can leave a table that it replaced."""
    directory = tmp_path / "data"
    storage = Storage(str(directory), **SMALL)
    everything = b"", b"\xff" * 12
    keys = [b"%012d" % number for number in range(20)]
    for value in (b"old", b"new"):
        for _ in range(2):  # RocksDB only moves a table that it need not merge with another
            for key in keys:
                storage.put(0, key, value)
            storage.flush()
        storage.compact(0, *everything)
        if value == b"old":
            replaced = next(path for path in directory.glob("*.sst") if keys[0] in path.read_bytes())
            shutil.copy(replaced, tmp_path / "kept")
    storage.close()
    shutil.copy(tmp_path / "kept", directory / replaced.name)
    rebuild.rebuild(str(directory), str(tmp_path / "rebuilt"), 4, str(tmp_path))
    found = Salvaged(str(tmp_path / "rebuilt"), str(tmp_path))
    assert list(found.scan(found.families[0], *everything)) == [(key, b"new") for key in keys]
    found.close()


def test_what_is_set_aside_is_replayed_into_its_own_tables(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "made"), **SMALL)
    for number in (7, 8):
        fill(storage, number)
    batch = storage.batch()
    storage.jobs.remove_aside(batch, b"q8", 8, False)
    storage.write(batch)
    expected = seen(storage.jobs, 7), seen(storage.jobs, 8)
    copy_of(tmp_path / "made", tmp_path / "data")  # all is in the write-ahead log
    storage.close()
    rebuild.rebuild(str(tmp_path / "data"), str(tmp_path / "rebuilt"), 4, str(tmp_path))
    rebuilt = Storage(str(tmp_path / "rebuilt"), **SMALL)
    assert (seen(rebuilt.jobs, 7), seen(rebuilt.jobs, 8)) == expected
    assert [name for name, _ in rebuilt.jobs.asides()] == [b"q7"]
    rebuilt.close()


def test_public_numbers_and_the_identity_are_rebuilt(directory: Path) -> None:
    storage = Storage(str(directory), **SMALL)
    batch = storage.batch()
    for first in (1, 2, 4):
        storage.numbers.put_block(batch, Block(first, 1, first, 1))
    storage.numbers.put_mark(batch, 9)
    storage.numbers.put_identity(batch, b"n" * 20, b"s" * 16)
    storage.write(batch)
    storage.flush()
    batch = storage.batch()
    storage.numbers.remove_block(batch, 2)
    storage.numbers.put_block(batch, Block(9, 1, 9, 2))
    storage.numbers.put_mark(batch, 11)
    storage.write(batch)  # which is in the log alone
    storage.close()
    (directory / "CURRENT").unlink()
    rebuilt = str(directory.with_name("rebuilt"))
    rebuild.rebuild(str(directory), rebuilt, 4, str(directory.parent))
    storage = Storage(rebuilt, **SMALL)
    assert storage.numbers.read() == (11, [Block(1, 1, 1, 1), Block(4, 1, 4, 1), Block(9, 1, 9, 2)])
    assert storage.numbers.identity() == (b"n" * 20, b"s" * 16)
    storage.close()


@pytest.mark.parametrize("nonsense", [b"qx", b"jx"])
def test_a_record_in_the_log_that_makes_no_sense_does_not_stop_a_rebuild(tmp_path: Path, nonsense: bytes) -> None:
    storage = Storage(str(tmp_path / "made"), **SMALL)
    fill(storage, 7)
    batch = storage.batch()
    batch.put(nonsense, b"?", storage.handles[DEFAULT_FAMILY])
    storage.write(batch)
    expected = seen(storage.jobs, 7)
    copy_of(tmp_path / "made", tmp_path / "data")
    storage.close()
    rebuild.rebuild(str(tmp_path / "data"), str(tmp_path / "rebuilt"), 4, str(tmp_path))
    rebuilt = Storage(str(tmp_path / "rebuilt"), **SMALL)
    assert seen(rebuilt.jobs, 7) == expected
    rebuilt.close()
