"""The data directory: opening it, what is written and read there, its space, and its errors."""

import contextlib
import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rocksdict import Options, Rdict, WriteBatch

from darner_core.errors import DataDirError, StorageError
from darner_core.storage import records, rocks
from darner_core.storage.records import Blob, Expiry, Item, QueueRecord, State, chunk_key, item_key
from darner_core.storage.storage import CHUNK_FAMILY, MANY_FILES, Storage
from tests.conftest import SMALL
from tests.harness import ROOT

OpenStorage = Callable[[], Storage]
JOBS = QueueRecord(number=7, family=1, created_at_ms=1)


def an_item(body: bytes | Blob) -> Item:
    return body, 3, 0, 1_000


def put_items(storage: Storage, queue: QueueRecord, *ids: int, body_bytes: int = 1) -> None:
    for item_id in ids:
        storage.put(queue.family, item_key(queue.number, item_id), records.pack_item(an_item(bytes(body_bytes))))


def ids(storage: Storage, queue: QueueRecord, from_id: int, to_id: int) -> list[int]:
    return [item_id for item_id, _ in storage.items(queue, from_id, to_id)]


def add_queue(storage: Storage, name: bytes, record: QueueRecord) -> None:
    batch = storage.batch()
    storage.add_queue(batch, name, record)
    storage.write(batch)


def disk_bytes(storage: Storage) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(storage.path))


def damage(directory: Path, pattern: str) -> None:
    """Turn over some bits in the middle of the largest file whose name is like this."""
    path = max(directory.glob(pattern), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 16] = bytes(byte ^ 0xFF for byte in data[middle : middle + 16])
    path.write_bytes(data)


def refusal(path: Path) -> str:
    """Why the directory is not opened."""
    with pytest.raises(DataDirError) as refused:
        Storage(str(path), **SMALL)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(f"data directory {path}: ")
    return str(refused.value).removeprefix(f"data directory {path}: ")


# -- opening


def test_a_new_directory_is_made_with_all_its_column_families(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "a" / "b"), **SMALL)
    assert len(storage.families) == len(storage.handles) == SMALL["max_column_families"]
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


@pytest.mark.parametrize("written", [b"darner 3\n", b"darner 10\n", b"darner", b"", b"\x00\xff\n\n" * 100])
def test_a_directory_of_another_format_is_refused_with_what_to_do_and_left_alone(
    open_storage: OpenStorage, tmp_path: Path, written: bytes
) -> None:
    open_storage().close()
    (tmp_path / "storage" / "FORMAT").write_bytes(written)
    files = sorted(os.listdir(tmp_path / "storage"))
    reason = refusal(tmp_path / "storage")
    assert "this server reads 'darner 2'" in reason
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


# -- column families


def test_a_directory_keeps_the_column_families_it_was_made_with(tmp_path: Path) -> None:
    path = str(tmp_path / "data")
    last = QueueRecord(number=1, family=4, created_at_ms=1)
    for families, expected in ((5, 5), (2, 5), (9, 9), (1, 9)):
        storage = Storage(path, **{**SMALL, "max_column_families": families})
        assert len(storage.families) == len(storage.handles) == expected
        put_items(storage, last, families)
        storage.close()
    storage = Storage(path, **SMALL)
    assert ids(storage, last, 1, 99) == [1, 2, 5, 9]
    storage.close()


@pytest.mark.slow
def test_queues_stay_in_their_families_when_the_numbers_of_families_get_another_digit(tmp_path: Path) -> None:
    path = str(tmp_path / "data")
    queues = [QueueRecord(number=1, family=family, created_at_ms=1) for family in (0, 100, 101, 500, 999)]
    storage = Storage(path, **{**SMALL, "max_column_families": 1000})
    for queue in queues:
        put_items(storage, queue, queue.family + 1)
    storage.close()
    storage = Storage(path, **{**SMALL, "max_column_families": 1002})
    assert [ids(storage, queue, 1, 2000) for queue in queues] == [[queue.family + 1] for queue in queues]
    storage.close()


# -- queues


def test_queues_are_found_whatever_their_names(open_storage: OpenStorage) -> None:
    storage = open_storage()
    names = [b"format", b"q", b"u", b"\xff" * 250, b"a", b"\x80"]
    for number, name in enumerate(names):
        add_queue(storage, name, QueueRecord(number, number % 4, 1_000 + number))
        storage.start_upload(number, 1)
    found = storage.queues()
    assert sorted(found) == sorted((name, QueueRecord(n, n % 4, 1_000 + n)) for n, name in enumerate(names))


def test_a_removed_queue_takes_its_records_with_it_and_nobody_elses(open_storage: OpenStorage) -> None:
    storage = open_storage()
    queues = [QueueRecord(number, 2, 0) for number in (6, 7, 8)]
    for queue in queues:
        add_queue(storage, b"%d" % queue.number, queue)
        put_items(storage, queue, 1, 2, records.MAX_ID)
        storage.put(queue.family, item_key(queue.number, records.STATE_ID), records.pack_state(1, 2, 3, 4, 1))
        storage.put_chunk(queue.number, 1, 0, b"chunk")
    batch = storage.batch()
    storage.remove_queue(batch, b"7", queues[1])
    storage.write(batch)
    assert storage.queues() == [(b"6", queues[0]), (b"8", queues[2])]
    assert [ids(storage, queue, 1, records.MAX_ID) for queue in queues] == [[1, 2], [], [1, 2]]
    assert [storage.item(queue, records.MAX_ID) is None for queue in queues] == [False, True, False]
    assert [storage.state(queue).next for queue in queues] == [2, 1, 2]
    assert [storage.last_blob(number) for number in (6, 7, 8)] == [1, 0, 1]


def test_a_queue_without_a_state_record_is_new(open_storage: OpenStorage) -> None:
    storage = open_storage()
    assert storage.state(JOBS) == State()
    storage.put(JOBS.family, item_key(JOBS.number, records.STATE_ID), records.pack_state(1, 2, 3, 4, 5))
    assert storage.state(JOBS) == State(first=1, next=2, tail=3, bytes=4, reclaimed=5)


# -- items


@pytest.mark.parametrize(
    ("from_id", "to_id", "found"),
    [
        (1, 10, [1, 2, 3, 5, 9]),
        (2, 5, [2, 3]),
        (2, 6, [2, 3, 5]),
        (4, 5, []),
        (3, 3, []),
        (9, records.MAX_ID, [9, 2**40]),
        (10, 2**40, []),
    ],
)
def test_items_come_in_order_from_the_first_bound_up_to_the_second(
    open_storage: OpenStorage, from_id: int, to_id: int, found: list[int]
) -> None:
    storage = open_storage()
    put_items(storage, JOBS, 9, 3, 1, 5, 2, 2**40)
    put_items(storage, JOBS._replace(number=6), 1, 2, 3)
    put_items(storage, JOBS._replace(number=8), 1, 2, 3)
    put_items(storage, JOBS._replace(family=2), 4, 6)
    storage.put(JOBS.family, item_key(JOBS.number, records.STATE_ID), records.pack_state(1, 2, 3, 4, 5))
    assert ids(storage, JOBS, from_id, to_id) == found


def test_an_item_comes_back_as_it_was(open_storage: OpenStorage) -> None:
    storage = open_storage()
    written: list[Item] = [(b"", 0, 0, 1), (b"\x00\r\n", 2**32 - 1, 2**63, 2), (Blob(3, 10**9), 1, 2, 3)]
    for item_id, item in enumerate(written, 1):
        storage.put(JOBS.family, item_key(JOBS.number, item_id), records.pack_item(item))
    assert [item for _, item in storage.items(JOBS, 1, 9)] == written
    assert [storage.item(JOBS, item_id) for item_id in (1, 2, 3)] == written
    assert storage.item(JOBS, 4) is None


def test_a_batch_is_written_when_it_is_written(open_storage: OpenStorage) -> None:
    storage = open_storage()
    batch = storage.batch()
    storage.add_queue(batch, b"jobs", JOBS)
    batch.put(item_key(JOBS.number, 1), records.pack_item(an_item(b"x")), storage.handles[JOBS.family])
    assert (storage.queues(), ids(storage, JOBS, 1, 9)) == ([], [])
    storage.write(batch)
    assert (storage.queues(), ids(storage, JOBS, 1, 9)) == ([(b"jobs", JOBS)], [1])


# -- large items


def test_chunks_come_back_by_queue_blob_and_index(open_storage: OpenStorage) -> None:
    storage = open_storage()
    places = [(number, blob, index) for number in (1, 2) for blob in (1, 256) for index in (0, 1, 70_000)]
    for place in places:
        storage.put_chunk(*place, b"%d %d %d" % place)
    assert [storage.chunk(*place) for place in places] == [b"%d %d %d" % place for place in places]


def test_a_missing_chunk_is_an_error(open_storage: OpenStorage) -> None:
    storage = open_storage()
    storage.put_chunk(1, 2, 3, b"x")
    with pytest.raises(StorageError, match=r"^queue number 1: chunk 4 of large item 2 is missing$"):
        storage.chunk(1, 2, 4)


def test_blobs_are_removed_from_the_first_up_to_the_second(open_storage: OpenStorage) -> None:
    storage = open_storage()
    for number in (1, 2):
        for blob in range(1, 6):
            storage.put_chunk(number, blob, 0, b"x")
            storage.put_chunk(number, blob, 1, b"y")
    batch = storage.batch()
    storage.remove_blobs(batch, 1, 2, 4)
    storage.write(batch)
    for number, blob in ((1, 1), (1, 4), (1, 5), (2, 2), (2, 3)):
        assert storage.chunk(number, blob, 1) == b"y"
    for blob in (2, 3):
        with pytest.raises(StorageError):
            storage.chunk(1, blob, 0)


def test_the_last_blob_is_that_of_the_queue(open_storage: OpenStorage) -> None:
    storage = open_storage()
    assert storage.last_blob(2) == 0
    storage.put_chunk(1, 9, 0, b"x")
    storage.put_chunk(3, 1, 0, b"x")
    assert storage.last_blob(2) == 0
    storage.put_chunk(2, 1, 0, b"x")
    storage.put_chunk(2, 300, 5, b"x")
    assert [storage.last_blob(number) for number in (1, 2, 3, 4)] == [9, 300, 1, 0]


def test_an_upload_is_unfinished_until_it_ends(open_storage: OpenStorage) -> None:
    storage = open_storage()
    add_queue(storage, b"jobs", JOBS)
    for number, blob in ((1, 1), (1, 2), (2**32 - 1, 2**63)):
        storage.start_upload(number, blob)
    batch = storage.batch()
    storage.end_upload(batch, 1, 1)
    storage.write(batch)
    storage.close()
    assert open_storage().unfinished_uploads() == [(1, 2), (2**32 - 1, 2**63)]


# -- space


def test_a_compaction_gives_the_space_of_removed_items_back(open_storage: OpenStorage) -> None:
    storage = open_storage()
    put_items(storage, JOBS, *range(1, 801), body_bytes=10_000)
    storage.flush()
    assert disk_bytes(storage) > 8_000_000
    batch = storage.batch()
    begin, end = item_key(JOBS.number, 1), item_key(JOBS.number, 700)
    batch.delete_range(begin, end, storage.handles[JOBS.family])
    storage.write(batch)
    storage.compact(JOBS.family, begin, end)
    storage.flush()
    assert disk_bytes(storage) < 2_000_000
    assert ids(storage, JOBS, 1, 999) == list(range(700, 801))


def test_a_compaction_gives_the_space_of_removed_chunks_back(open_storage: OpenStorage) -> None:
    storage = open_storage()
    for index in range(800):
        storage.put_chunk(1, 1 + index // 400, index, bytes(10_000))
    storage.flush()
    batch = storage.batch()
    storage.remove_blobs(batch, 1, 1, 2)
    storage.write(batch)
    storage.compact(CHUNK_FAMILY, chunk_key(1, 1, 0), chunk_key(1, 2, 0))
    storage.flush()
    assert 4_000_000 < disk_bytes(storage) < 5_000_000
    assert storage.chunk(1, 2, 400) == bytes(10_000)


def test_a_flush_lets_go_of_the_write_ahead_log(open_storage: OpenStorage) -> None:
    storage = open_storage()
    put_items(storage, JOBS, *range(1, 101), body_bytes=10_000)
    assert storage.wal_bytes() > 1_000_000
    storage.flush()
    assert storage.wal_bytes() < 10_000
    assert ids(storage, JOBS, 1, 999) == list(range(1, 101))


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


@pytest.mark.parametrize("record", [b"\x09" + bytes(20), b"\x00\x01", b""])
def test_a_record_that_is_no_item_is_an_error(open_storage: OpenStorage, record: bytes) -> None:
    storage = open_storage()
    storage.put(JOBS.family, item_key(JOBS.number, 1), record)
    with pytest.raises(StorageError, match=r"^queue number 7: "):
        list(storage.items(JOBS, 1, 2))
    with pytest.raises(StorageError, match=r"^queue number 7: "):
        storage.item(JOBS, 1)


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
    "most": 1, "ids": None, "has_chunks": True,
}  # fmt: skip
WORKS = {"batch", "close", "fresh_number", "note_synced", "wal_bytes", "free_bytes", "is_behind"}  # need no database
CALLS = [name for name, call in vars(Storage).items() if inspect.isfunction(call) and not name.startswith("_")]


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


@pytest.mark.parametrize("name", ["families", "handles", "_db", "_chunks"])
def test_what_belongs_to_the_database_is_not_there_while_it_is_closed(name: str, open_storage: OpenStorage) -> None:
    storage = open_storage()
    storage.close()
    with pytest.raises(StorageError, match="is not open"):
        getattr(storage, name)
    storage.reopen()
    assert getattr(storage, name) is not None
    with pytest.raises(AttributeError):
        storage.something_else  # noqa: B018


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
    assert not storage.is_damaged
    assert not storage.met_damage


CLOSE_WHILE_REFUSED = """
import resource, sys
from darner_core.storage.storage import Storage
from tests.conftest import SMALL

storage = Storage(sys.argv[1], **SMALL)
storage.met_damage = sys.argv[2] == "beside damage"
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
        storage._chunks.set_options({"disable_auto_compactions": "true"})
        storage.put_chunk(1, 1, number, b"chunk")
        storage.flush()
    assert storage.is_behind()
    storage.close()
    assert not storage.is_behind()


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
    assert (storage.queues(), storage.damage) == ([], [])
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
        with contextlib.suppress(shutil.Error):  # RocksDB may delete the log before this one while it is copied
            shutil.copytree(directory, copy)
        storage.close()
    log = max(copy.glob("*.log"))  # or not have deleted it yet
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
    monkeypatch.setattr(Storage, "free_bytes", lambda _: 100_000)
    assert refusal(directory).startswith("no space left on device: 0.1 MiB are free, about 1.0 MiB are needed to open")
    assert names_in(directory) == before


def test_a_start_that_fails_leaves_no_files_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = killed(tmp_path / "data")
    before = names_in(directory)

    def full(path: str, *_: object) -> None:
        for name in ("000900.sst", "000901.log", "MANIFEST-000902", "000903.dbtmp", "mine"):
            Path(path, name).write_bytes(b"" if name.endswith(".log") else b"x")
        raise Exception("IO error: No space left on device: While appending to file: /x/000900.sst")

    monkeypatch.setattr(rocks, "open_database", full)
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
    replace, sync_folder = os.replace, rocks.sync_folder
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("replace"), replace(*names))[1])
    monkeypatch.setattr(rocks, "sync_folder", lambda path: (done.append("sync"), sync_folder(path))[1])
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
