"""The open database: opening it again, what it answers while it is closed, and damage that it meets."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rocksdict import WriteBatch

from darner_core.errors import StorageError
from darner_core.storage import records
from darner_core.storage.records import Expiry, QueueRecord, item_key
from darner_core.storage.rocks import MANY_FILES
from darner_core.storage.storage import CHUNK_FAMILY, Storage
from tests.support.harness import ROOT
from tests.support.stored import JOBS, OpenStorage, add_queue, an_item, damage, ids, put_items

# -- opening again


def test_reopened_it_has_all_that_was_written(open_storage: OpenStorage) -> None:
    storage = open_storage()
    add_queue(storage, b"jobs", JOBS)
    put_items(storage, JOBS, 1)
    storage.reopen()
    assert storage.is_open
    assert storage.queues() == [(b"jobs", JOBS)]
    put_items(storage, JOBS, 2)
    batch = storage.batch()
    batch.put(item_key(JOBS.number, 3), records.pack_item(an_item(b"")), storage.handles[JOBS.family])
    storage.write(batch)
    assert ids(storage, JOBS, 1, 9) == [1, 2, 3]


def test_a_directory_that_has_gone_is_not_begun_anew(open_storage: OpenStorage, tmp_path: Path) -> None:
    storage = open_storage()
    put_items(storage, JOBS, 1)
    (tmp_path / "storage").rename(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match=r"^cannot reopen "):
        storage.reopen()
    assert not storage.is_open
    (tmp_path / "elsewhere").rename(tmp_path / "storage")
    storage.reopen()
    assert ids(storage, JOBS, 1, 9) == [1]


def test_a_directory_that_cannot_be_reopened_can_be_when_it_is_well_again(
    open_storage: OpenStorage, tmp_path: Path
) -> None:
    storage = open_storage()
    put_items(storage, JOBS, 1)
    current = tmp_path / "storage" / "CURRENT"
    content = current.read_bytes()
    current.write_bytes(b"nonsense")
    with pytest.raises(StorageError, match=r"^cannot reopen ") as failed:
        storage.reopen()
    assert "\n" not in str(failed.value)
    current.write_bytes(content)
    storage.reopen()
    assert ids(storage, JOBS, 1, 9) == [1]


# -- errors


def test_a_damaged_file_is_an_error_and_not_fewer_items(open_storage: OpenStorage, tmp_path: Path) -> None:
    storage = open_storage()
    put_items(storage, JOBS, *range(1, 101), body_bytes=20_000)
    storage.flush()
    storage.close()
    damage(tmp_path / "storage", "*.sst")
    storage = open_storage()
    with pytest.raises(StorageError, match="orruption") as failed:
        ids(storage, JOBS, 1, 101)
    assert "\n" not in str(failed.value)
    with pytest.raises(StorageError, match="orruption"):
        [storage.item(JOBS, item_id) for item_id in range(1, 101)]


def test_a_damaged_file_is_an_error_and_not_fewer_queues(open_storage: OpenStorage, tmp_path: Path) -> None:
    storage = open_storage()
    for number in range(3000):
        add_queue(storage, b"%06d" % number * 40, QueueRecord(number, 0, 0))
    storage.flush()
    storage.close()
    damage(tmp_path / "storage", "*.sst")
    with pytest.raises(StorageError, match="orruption"):
        open_storage().queues()


def test_damaged_chunks_are_an_error_when_the_last_blob_is_looked_for(
    open_storage: OpenStorage, tmp_path: Path
) -> None:
    storage = open_storage()
    storage.put_chunk(1, 1, 0, bytes(1_000_000))
    storage.flush()
    storage.close()
    damage(tmp_path / "storage", "*.sst")
    with pytest.raises(StorageError, match="orruption"):
        open_storage().last_blob(1)


# -- closed, because it could not be opened again

ARGUMENTS = {
    "batch": WriteBatch(raw_mode=True), "family": 0, "key": b"k", "value": b"v", "name": b"n", "queue": JOBS,
    "cursor": JOBS, "record": JOBS, "from_id": 1, "to_id": 9, "item_id": 1, "number": 7, "blob": 1, "index": 0,
    "chunk": b"c", "from_blob": 1, "to_blob": 2, "expiry": Expiry(1, 7, 1), "begin": b"a", "end": b"b", "before_ms": 1,
    "most": 1, "ids": None, "has_chunks": True, "known": (),
}  # fmt: skip
WORKS = {"batch", "close", "fresh_number", "note_synced", "wal_bytes", "free_bytes", "is_behind"}  # need no database
CALLS = [
    "write",
    "put",
    "batch",
    "sync",
    "compact",
    "table_bytes",
    "is_behind",
    "require_open",
    "wal_bytes",
    "free_bytes",
] + [name for name, call in vars(Storage).items() if inspect.isfunction(call) and not name.startswith("_")]


@pytest.mark.parametrize("name", [name for name in CALLS if name != "reopen"])
def test_whatever_a_closed_storage_is_asked_it_answers_in_the_same_way(name: str, open_storage: OpenStorage) -> None:
    storage = open_storage()
    storage.close()
    call = getattr(storage, name)
    arguments = {word: ARGUMENTS[word] for word in inspect.signature(call).parameters}
    if name in ("add_cursor", "remove_cursor"):
        arguments["queue"] = b"q"
    if name in WORKS:
        call(**arguments)
        return
    with pytest.raises(StorageError) as failed:
        list(call(**arguments))  # what is an iterator says so when it begins
    assert str(failed.value) == f"data directory {storage.path} is not open"  # clients are answered with this


@pytest.mark.parametrize("name", ["families", "handles"])
def test_what_belongs_to_the_database_is_not_there_while_it_is_closed(name: str, open_storage: OpenStorage) -> None:
    storage = open_storage()
    storage.close()
    with pytest.raises(StorageError, match="is not open"):
        getattr(storage, name)
    storage.reopen()
    assert getattr(storage, name) is not None
    with pytest.raises(AttributeError):
        storage.something_else  # type: ignore[attr-defined]  # noqa: B018


def test_a_directory_that_is_away_is_an_error_and_no_damage(open_storage: OpenStorage) -> None:
    storage = open_storage()
    add_queue(storage, b"jobs", JOBS)
    os.rename(storage.path, storage.path + ".away")
    for ask in (storage.free_bytes, storage.wal_bytes, storage.reopen):
        with pytest.raises(StorageError, match="No such file"):
            ask()
    os.rename(storage.path + ".away", storage.path)
    storage.reopen()
    assert storage.queues() == [(b"jobs", JOBS)]
    assert not storage.damage
    assert not storage.met_damage


CLOSE_WHILE_REFUSED = """
import resource, sys
from darner_core.storage.storage import Storage
from tests.conftest import SMALL

storage = Storage(sys.argv[1], **SMALL)
storage._rocks.met_damage = sys.argv[2] == "beside damage"
storage.reopen()
storage.put(0, bytes(16), b"x")
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
try:
    storage.close()
except Exception as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
storage.reopen()
print(storage.families[0].get(bytes(16)), storage.salvages)
"""


@pytest.mark.parametrize("how", ["beside damage", "as always"])
def test_closing_does_not_wait_for_a_disk_that_refuses_writes(tmp_path: Path, how: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", CLOSE_WHILE_REFUSED, str(tmp_path / "storage"), how],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert ended.stdout.splitlines()[-1] == f"b'x' {how == 'beside damage'}"


def test_a_storage_that_has_caught_up_is_not_behind_nor_is_one_that_is_closed(open_storage: OpenStorage) -> None:
    storage = open_storage()
    storage.put_chunk(1, 1, 0, b"chunk")
    assert not storage.is_behind()
    for number in range(MANY_FILES):
        storage._rocks._families[CHUNK_FAMILY].set_options({"disable_auto_compactions": "true"})
        storage.put_chunk(1, 1, number, b"chunk")
        storage.flush()
    assert storage.is_behind()
    storage.close()
    assert not storage.is_behind()


# -- backward


def test_a_range_is_read_backward_and_no_further(open_storage: OpenStorage) -> None:
    storage = open_storage()
    put_items(storage, JOBS, *range(1, 10))
    other = JOBS._replace(number=JOBS.number + 1)
    put_items(storage, other, *range(1, 10))
    assert [item_id for item_id, _ in storage.items_back(JOBS, 3, 8)] == [7, 6, 5, 4, 3]
    assert [item_id for item_id, _ in storage.items_back(other, 1, 2**40)] == [*range(9, 0, -1)]
    assert list(storage.items_back(JOBS, 10, 20)) == []
    assert list(storage.items_back(JOBS._replace(number=3), 1, 20)) == []
    storage.close()
    with pytest.raises(StorageError):
        list(storage.items_back(JOBS, 1, 9))
