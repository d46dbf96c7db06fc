"""The data directory before RocksDB opens it: what is refused, what is told, and what is left alone."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from rocksdict import Options, Rdict

from darner_core import files
from darner_core.storage import opening
from darner_core.storage.directory import DataDirectory
from darner_core.storage.records import QueueRecord
from darner_core.storage.storage import Storage
from tests.conftest import SMALL
from tests.support.harness import ROOT
from tests.support.stored import JOBS, OpenStorage, add_queue, damage, ids, put_items, refusal

# -- opening


def test_a_new_directory_is_made_with_all_its_column_families(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "a" / "b"), **SMALL)
    assert len(storage.families) == SMALL["max_column_families"]
    assert storage.is_open
    assert storage.queues() == []
    assert storage.unfinished_uploads() == []
    storage.close()
    assert not storage.is_open


def test_a_new_file_system_is_an_empty_directory(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    Storage(str(tmp_path), **SMALL).close()


def test_what_was_written_is_there_when_the_directory_is_opened_again(open_storage: OpenStorage) -> None:
    storage = open_storage()
    add_queue(storage, b"jobs", JOBS)
    put_items(storage, JOBS, 1, 2)
    storage.close()
    storage = open_storage()
    assert storage.queues() == [(b"jobs", JOBS)]
    assert ids(storage, JOBS, 1, 9) == [1, 2]


@pytest.mark.parametrize("written", [b"darner 4\n", b"darner 10\n", b"darner", b"", b"\x00\xff\n\n" * 100])
def test_a_directory_of_another_format_is_refused_with_what_to_do_and_left_alone(
    open_storage: OpenStorage, tmp_path: Path, written: bytes
) -> None:
    open_storage().close()
    (tmp_path / "storage" / "FORMAT").write_bytes(written)
    files = sorted(os.listdir(tmp_path / "storage"))
    reason = refusal(tmp_path / "storage")
    assert "this server reads 'darner 3'" in reason
    assert "drain it with the server that wrote it" in reason
    assert written.isascii() is (f"'{written.decode('ascii', 'replace').strip()}'" in reason)
    assert sorted(os.listdir(tmp_path / "storage")) == files


@pytest.mark.parametrize("left", [[], ["FORMAT.new"], ["FORMAT"], ["FORMAT", "FORMAT.new"]])
def test_a_directory_whose_making_was_cut_off_is_made(
    open_storage: OpenStorage, tmp_path: Path, left: list[str]
) -> None:
    (tmp_path / "storage").mkdir()
    for name in left:
        (tmp_path / "storage" / name).write_bytes(b"darner 1\n" if name == "FORMAT" else b"dar")
    open_storage().close()
    assert open_storage().is_open


def test_a_directory_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    assert refusal(tmp_path) == "holds other files and no queues; give an empty or a new directory"
    assert os.listdir(tmp_path) == ["letter.txt"]


@pytest.mark.parametrize("raw", [True, False])
def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path, raw: bool) -> None:
    database = Rdict(str(tmp_path), Options(raw_mode=raw))
    database[b"theirs"] = b"1"
    database.close()
    assert refusal(tmp_path) == "holds other files and no queues; give an empty or a new directory"
    assert Rdict.list_cf(str(tmp_path), Options(raw_mode=raw)) == ["default"]
    database = Rdict(str(tmp_path))
    assert database[b"theirs"] == b"1"
    database.close()


def test_a_directory_in_use_is_refused(open_storage: OpenStorage, tmp_path: Path) -> None:
    open_storage()
    assert refusal(tmp_path / "storage") == "in use by another server"
    code = (
        "import sys\n"
        "from darner_core.storage.storage import Storage\n"
        "from tests.conftest import SMALL\n"
        "try: Storage(sys.argv[1], **SMALL)\n"
        "except Exception as error: print(error)"
    )
    other = subprocess.run([sys.executable, "-c", code, str(tmp_path / "storage")], cwd=ROOT, stdout=-1, text=True)
    assert other.stdout == f"data directory {tmp_path / 'storage'}: in use by another server\n"


@pytest.mark.parametrize(("name", "reason"), [("file", "is a file"), ("file/data", "Not a directory")])
def test_a_file_where_the_directory_should_be_is_said_to_be_there(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").write_text("")
    assert refusal(tmp_path / name) == reason


@pytest.mark.parametrize("pattern", ["MANIFEST*", "CURRENT"])
def test_a_damaged_directory_is_not_said_to_be_in_use(open_storage: OpenStorage, tmp_path: Path, pattern: str) -> None:
    storage = open_storage()
    for number in range(100):
        add_queue(storage, b"%d" % number * 50, QueueRecord(number, 0, 0))
    storage.flush()
    storage.close()
    directory = tmp_path / "a-block-of-flats"
    shutil.move(tmp_path / "storage", directory)
    damage(directory, pattern)
    reason = refusal(directory)
    assert "in use" not in reason
    assert "orrupt" in reason or "MANIFEST" in reason


# -- room


def test_the_free_bytes_are_those_of_the_disk(open_storage: OpenStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage()
    real = os.statvfs(storage.path)
    asked = []

    def statvfs(path: str) -> os.statvfs_result:
        asked.append(path)
        return real

    monkeypatch.setattr(os, "statvfs", statvfs)
    assert storage.free_bytes() == real.f_bavail * real.f_frsize  # what others than root may use
    assert asked == [storage.path]


# -- what is there is never made anew


def killed(directory: Path) -> Path:
    """A directory as kill -9 leaves it, with a queue in a table and one in the log."""
    code = (
        "import os, sys\n"
        "from darner_core.storage.records import QueueRecord\n"
        "from darner_core.storage.storage import Storage\n"
        "from tests.conftest import SMALL\n"
        "storage = Storage(sys.argv[1], **SMALL)\n"
        "for number, name in enumerate((b'table', b'log'), 1):\n"
        "    batch = storage.batch()\n"
        "    storage.add_queue(batch, name, QueueRecord(number, 0, 5))\n"
        "    storage.write(batch)\n"
        "    number == 1 and storage.flush()\n"
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(directory)], cwd=ROOT, check=True)
    return directory


def copy_if_there(source: str, target: str) -> None:
    """RocksDB may delete files meanwhile."""
    with suppress(FileNotFoundError):
        shutil.copy2(source, target)


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if not path.name.startswith("LOG")}


@pytest.mark.parametrize("missing", ["CURRENT", "MANIFEST-*", "FORMAT", "*.log"])
def test_a_directory_without_one_of_its_files_is_refused_with_its_name_or_told(tmp_path: Path, missing: str) -> None:
    directory = killed(tmp_path / "data")
    (gone,) = directory.glob(missing)
    gone.unlink()
    before = names_in(directory)
    if missing == "*.log":
        storage = Storage(str(directory), **SMALL)
        assert storage.damage == [f"write-ahead log {gone.name} or a newer one: missing; what was in it is lost"]
        storage.close()
        return
    said = refusal(directory)
    assert gone.name in said
    assert "missing" in said
    assert "--repair" in said
    assert names_in(directory) == before


@pytest.mark.parametrize(
    "left", ["000005.sst", "000004.log", "MANIFEST-000007", "OPTIONS-000007", "RUNNING", "DAMAGED"]
)
def test_any_trace_of_data_keeps_a_directory_from_being_made(tmp_path: Path, left: str) -> None:
    (tmp_path / "FORMAT").write_bytes(b"darner 2\n")
    (tmp_path / left).write_bytes(b"x")
    assert refusal(tmp_path).startswith(f"the file CURRENT is missing, {left} is there; ")
    assert names_in(tmp_path) == {"FORMAT", left}


@pytest.mark.parametrize(
    "left",
    [
        [],
        ["FORMAT.new"],
        ["FORMAT"],
        ["FORMAT", "rocksdict-config.json", "LOG", "LOCK", "000000.dbtmp"],
        ["FORMAT", "rocksdict-config.json", "LOG", "LOCK", "IDENTITY", "MANIFEST-000001", "000001.dbtmp"],
    ],
)
def test_a_start_that_was_killed_while_it_made_the_directory_can_begin_again(tmp_path: Path, left: list[str]) -> None:
    for name in left:
        (tmp_path / name).write_bytes(b"darner 2\n" if name == "FORMAT" else b"")
    storage = Storage(str(tmp_path), **SMALL)
    assert storage.queues() == []
    assert storage.damage == []
    storage.close()


def test_an_emptied_log_is_told(tmp_path: Path) -> None:
    directory = killed(tmp_path / "data")
    (log,) = directory.glob("*.log")
    os.truncate(log, 0)
    storage = Storage(str(directory), **SMALL)
    assert storage.damage == [f"write-ahead log {log.name}: empty; what was in it is lost"]
    storage.close()


def test_starts_that_were_killed_before_they_wrote_anything_are_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = killed(tmp_path / "data")
    marked = (directory / "RUNNING").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "_note_running", lambda _: None)
        storage = Storage(str(directory), **SMALL)
        copy = tmp_path / "copy"
        shutil.copytree(directory, copy, copy_function=copy_if_there)
        storage.close()
    log = max(copy.glob("*.log"))  # RocksDB may not have deleted the one before yet
    assert (log.stat().st_size, (copy / "RUNNING").read_bytes()) == (0, marked)
    (copy / "000900.log").touch()
    storage = Storage(str(copy), **SMALL)
    assert storage.damage == []
    storage.close()


def test_tables_that_may_hold_what_a_missing_log_held_are_not_removed(tmp_path: Path) -> None:
    directory = killed(tmp_path / "data")
    (log,) = directory.glob("*.log")
    log.unlink()
    (directory / "000900.sst").write_bytes(b"x")
    assert "MANIFEST-000005 does not list 000900.sst, where items may be" in refusal(directory)
    assert (directory / "000900.sst").exists()


def test_the_room_is_looked_at_before_anything_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = killed(tmp_path / "data")
    before = names_in(directory)
    monkeypatch.setattr(DataDirectory, "free_bytes", lambda _: 100_000)
    assert refusal(directory).startswith("no space left on device: 0.1 MiB are free, about 1.0 MiB are needed to open")
    assert names_in(directory) == before


def test_a_start_that_fails_leaves_no_files_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = killed(tmp_path / "data")
    before = names_in(directory)

    def full(path: str, *_: object) -> None:
        for name in ("000900.sst", "000901.log", "MANIFEST-000902", "000903.dbtmp", "mine"):
            Path(path, name).write_bytes(b"" if name.endswith(".log") else b"x")
        raise Exception("IO error: No space left on device: While appending to file: /x/000900.sst")

    monkeypatch.setattr(opening, "open_database", full)
    assert refusal(directory).startswith("no space left on device: ")
    assert names_in(directory) == before | {"mine"}


def test_the_format_is_not_written_while_another_server_may_be_there(
    open_storage: Callable[[], Storage], tmp_path: Path
) -> None:
    open_storage()
    path = tmp_path / "storage" / "FORMAT"
    path.write_bytes(b"darner 1\n")
    assert refusal(tmp_path / "storage") == "in use by another server"
    assert path.read_bytes() == b"darner 1\n"


def test_the_folder_is_synced_behind_each_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    replace, sync_folder = os.replace, files.sync_folder
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("replace"), replace(*names))[1])
    monkeypatch.setattr(files, "sync_folder", lambda path: (done.append("sync"), sync_folder(path))[1])
    Storage(str(tmp_path), **SMALL).close()
    assert done
    assert done == ["replace", "sync"] * (len(done) // 2)


def test_the_begin_of_a_longer_header_at_the_end_of_a_log_does_not_hang_the_start(tmp_path: Path) -> None:
    """RocksDB would look for the rest of it in a loop."""
    directory = killed(tmp_path / "data")
    (log,) = directory.glob("*.log")
    with open(log, "ab") as file:
        file.write(bytes.fromhex("d926a3b238b008f763b6"))  # 08 is a type of recycled logs, whose headers have 11 bytes
    storage = Storage(str(directory), **SMALL)
    assert [name for name, _ in storage.queues()] == [b"log", b"table"]
    assert "its end: a write that was cut off, or damage; dropped" in storage.torn[0]
    storage.close()
