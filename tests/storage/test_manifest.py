"""RocksDB's MANIFEST, read without RocksDB: compared with the files of real directories."""

import os
from pathlib import Path

import pytest

from darner_core.storage import manifest, wal
from darner_core.storage.opening import DEFAULT, NOT_QUEUES
from darner_core.storage.storage import Storage
from tests.conftest import SMALL
from tests.support.damaged import copy_of, make_directory


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("manifest") / "base"
    make_directory(path)
    return path


def lost(directory: Path) -> list[str]:
    return [loss.why for loss in manifest.lost_logs(str(directory), manifest.read(str(directory)))]


def several_logs(path: Path) -> list[str]:
    """A directory as kill -9 leaves it, with several logs that are needed."""
    storage = Storage(str(path / "made"), **SMALL)
    for number in range(3):
        storage.put(number, b"%012d" % number, bytes(100))
        storage._rocks._families[-1].flush(True)  # has nothing to write, so the log stays
        storage.put(3, b"%012d" % number, bytes(100))
        storage.families[3].flush(True)  # begins a new log, while that of the others is still needed
    storage.put(0, b"%012d" % 9, bytes(100))
    copy_of(path / "made", path / "data")
    storage.close()
    return wal.files(str(path / "data"), manifest.read(str(path / "data")).first_log)


def test_it_tells_the_tables_the_families_and_the_logs(base: Path) -> None:
    found = manifest.read(str(base))
    assert found.tables == {path.name: path.stat().st_size for path in base.glob("*.sst")}
    assert found.families == {*NOT_QUEUES, "q000", "q001", "q002", "q003"} - {DEFAULT}
    assert [wal.number_of(name) for name in wal.files(str(base))] == [found.first_log]
    assert found.cut_at is None
    assert lost(base) == []
    assert manifest.unlisted_tables(str(base), found) == manifest.missing_tables(str(base), found) == set()


def test_tables_that_are_gone_and_tables_that_are_not_listed_are_found(base: Path, tmp_path: Path) -> None:
    directory = copy_of(base, tmp_path / "data")
    table = min(directory.glob("*.sst"))
    table.rename(directory / "999999.sst")
    found = manifest.read(str(directory))
    assert manifest.missing_tables(str(directory), found) == {table.name}
    assert manifest.unlisted_tables(str(directory), found) == {"999999.sst"}


def test_each_log_that_is_missing_or_empty_is_told(tmp_path: Path) -> None:
    logs = several_logs(tmp_path)
    assert len(logs) == 4
    assert lost(tmp_path / "data") == []
    for place, name in enumerate(logs):
        for is_removed in (True, False):
            directory = copy_of(tmp_path / "data", tmp_path / "copy")
            if is_removed:
                (directory / name).unlink()
            else:
                os.truncate(directory / name, 0)
            found = lost(directory)
            assert len(found) == 1, (place, found)
            assert found[0].startswith(wal.FINDING)
            if place == 0 or not is_removed or name == logs[-1]:
                assert name in found[0]
            else:
                assert logs[place + 1] in found[0], "the one behind the gap"
                assert "changes before it are missing" in found[0]


def test_the_log_is_whole_after_a_start_and_a_kill(base: Path, tmp_path: Path) -> None:
    directory = copy_of(base, tmp_path / "data")
    storage = Storage(str(directory), **SMALL)
    copy = copy_of(directory, tmp_path / "copy")
    storage.close()
    assert lost(copy) == []
    for log in copy.glob("*.log"):
        log.unlink()
    assert ["or a newer one: missing" in why for why in lost(copy)] == [True]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("CURRENT", None, "CURRENT is missing"),
        ("CURRENT", b"", "CURRENT: damaged, it names no MANIFEST"),
        ("CURRENT", b"MANIFEST-000004\n", "MANIFEST-000004 is missing, which CURRENT names"),
        ("MANIFEST-000005", None, "MANIFEST-000005 is missing, which CURRENT names"),
        ("MANIFEST-000005", b"", "MANIFEST-000005: empty"),
    ],
)
def test_what_is_not_there_is_named(base: Path, tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    directory = copy_of(base, tmp_path / "data")
    if content is None:
        (directory / name).unlink()
    else:
        (directory / name).write_bytes(content)
    with pytest.raises(manifest.Damaged) as caught:
        manifest.read(str(directory))
    assert str(caught.value) == said


def test_damage_in_the_middle_is_an_error_and_at_the_end_a_place(base: Path, tmp_path: Path) -> None:
    directory = copy_of(base, tmp_path / "data")
    path = directory / manifest.read(str(directory)).name
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    cut_at = manifest.read(str(directory)).cut_at
    assert cut_at is not None
    assert len(whole) - 100 < cut_at < len(whole)
    path.write_bytes(whole[:300] + bytes((whole[300] ^ 1,)) + whole[301:])
    with pytest.raises(manifest.Damaged, match=f"{path.name}: damaged at byte \\d+"):
        manifest.read(str(directory))


def test_what_is_no_edit_is_damage() -> None:
    for edit in (b"\x02", b"\x67\x00", b"\x33\x01", b"\xc9\x01\x50abc"):
        with pytest.raises((IndexError, ValueError)):
            manifest._fields(edit)
