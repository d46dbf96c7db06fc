"""RocksDB's write-ahead log, read without RocksDB: compared with what RocksDB says of the same files."""

from collections.abc import Callable
from pathlib import Path

import pytest

from darner_core import wal
from darner_core.records import QueueRecord, item_key
from darner_core.storage import Storage
from tests.damaged import make_directory, turn_over

OpenStorage = Callable[[], Storage]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wal") / "base"
    make_directory(path)
    return path


@pytest.fixture
def log(base: Path, tmp_path: Path) -> Path:
    name = wal.files(str(base))[-1]
    target = tmp_path / name
    target.write_bytes((base / name).read_bytes())
    return target


def examine(log: Path) -> list[wal.Damage]:
    return wal.examine(str(log.parent))


def test_the_checksum_is_crc_32c() -> None:
    assert wal._crc32c(b"123456789") == 0xE3069283  # the catalogue's check value
    assert wal._crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4


def test_every_write_is_read_and_consists_of_what_was_written(open_storage: OpenStorage) -> None:
    storage = open_storage()
    batch = storage.batch()
    storage.add_queue(batch, b"jobs", QueueRecord(1, 0, 5))
    storage.remove_blobs(batch, 1, 2, 3)
    storage.end_upload(batch, 1, 9)
    storage.write(batch)
    storage.put(0, item_key(1, 1), bytes(100_000))  # longer than a block
    name = wal.files(storage.path)[-1]
    writes = [write for write in wal.writes(f"{storage.path}/{name}") if not isinstance(write, wal.Bad)]
    assert wal.examine(storage.path) == []
    changes = [list(wal.operations(batch)) for _, batch in writes]
    assert [[what for what, *_ in change] for change in changes] == [[wal.PUT, wal.DELETE_RANGE, wal.DELETE], [wal.PUT]]
    assert changes[0][0][1:3] == (0, b"qjobs")
    assert changes[1][0][2:] == (item_key(1, 1), bytes(100_000))


def test_a_whole_log_has_nothing_wrong(log: Path) -> None:
    assert examine(log) == []


def test_damage_in_the_middle_is_not_what_a_crash_leaves(log: Path) -> None:
    turn_over(log, 40_000)
    (damage,) = examine(log)
    assert not damage.torn
    assert damage.offset <= 40_000 < damage.offset + wal.BLOCK_BYTES
    assert damage.readable_behind > 10
    assert f"{log.name}: unreadable from byte {damage.offset} of {log.stat().st_size}: damaged" in str(damage)


@pytest.mark.parametrize("cut", [1, 3, 100])
def test_a_write_that_was_cut_off_is_what_a_crash_leaves(log: Path, cut: int) -> None:
    data = log.read_bytes()
    log.write_bytes(data[:-cut])
    (damage,) = examine(log)
    assert damage.torn
    assert damage.readable_behind == 0
    assert "dropped" in str(damage)


def test_zeros_in_the_middle_are_what_was_never_written(log: Path) -> None:
    data = bytearray(log.read_bytes())
    data[wal.BLOCK_BYTES : 2 * wal.BLOCK_BYTES] = bytes(wal.BLOCK_BYTES)
    log.write_bytes(data)
    (damage,) = examine(log)
    assert damage.torn
    assert damage.readable_behind > 10


def test_damage_at_the_end_of_one_log_is_in_the_middle_if_another_follows(log: Path) -> None:
    data = log.read_bytes()
    (log.parent / "999999.log").write_bytes(data)
    log.write_bytes(data[:-5])
    (damage,) = examine(log)
    assert damage.name == log.name
    assert not damage.torn


def test_garbage_is_bad_and_never_more_than_that(log: Path) -> None:
    log.write_bytes(bytes(range(256)) * 300)
    assert all(isinstance(write, wal.Bad) for write in wal.writes(str(log)))
    with pytest.raises(ValueError, match="unknown kind"):
        list(wal.operations(bytes(8) + b"\x01\0\0\0\x7f"))
