"""RocksDB's write-ahead log, read without RocksDB: compared with what RocksDB says of the same files."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from darner_core.storage import wal
from darner_core.storage.encoding import masked_crc
from darner_core.storage.records import QueueRecord, item_key
from darner_core.storage.storage import Storage
from tests.support.damaged import make_directory, turn_over

OpenStorage = Callable[[], Storage]
HEADER_BYTES = 7


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
    assert list(wal.operations(writes[0][1])) == []  # no log is empty
    changes = [list(wal.operations(batch)) for _, batch in writes[1:]]
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


# -- logs that follow each other


def log_of(writes: list[bytes]) -> bytes:
    """A log file that holds these writes, in fragments as RocksDB cuts them."""
    log = bytearray()
    for write in writes:
        rest, first = write, True
        while rest or first:
            room = wal.BLOCK_BYTES - len(log) % wal.BLOCK_BYTES
            if room < HEADER_BYTES:
                log += bytes(room)
                continue
            part, rest = rest[: room - HEADER_BYTES], rest[room - HEADER_BYTES :]
            kind = (1 if first else 4) if not rest else (2 if first else 3)
            log += struct.pack("<IHB", masked_crc(bytes([kind]) + part), len(part), kind) + part
            first = False
    return bytes(log)


def batch(number: int, size: int) -> bytes:
    """A write of one change, with this number."""
    return struct.pack("<QI", number, 1) + bytes(size)


@pytest.mark.parametrize("left", range(30))
def test_a_log_that_goes_on_where_the_one_before_it_ends_is_no_gap(tmp_path: Path, left: int) -> None:
    """Wherever the last write begins in its block, and though the names grow longer."""
    before = batch(1, wal.BLOCK_BYTES - 2 * HEADER_BYTES - len(batch(1, 0)) - left)
    (tmp_path / "999999.log").write_bytes(log_of([before, batch(2, 100)]))
    (tmp_path / "1000000.log").write_bytes(log_of([batch(3, 10), batch(4, 10)]))
    (tmp_path / "1000001.log").write_bytes(b"")
    assert wal.files(str(tmp_path)) == ["999999.log", "1000000.log", "1000001.log"]
    assert wal.gap_between(str(tmp_path)) is None


def test_a_log_behind_writes_that_are_missing_is_found(tmp_path: Path) -> None:
    whole = log_of([batch(number, 100) for number in range(1, 21)])
    (tmp_path / "000004.log").write_bytes(whole)
    (tmp_path / "000009.log").write_bytes(log_of([batch(21, 10)]))
    assert wal.gap_between(str(tmp_path)) is None
    for end in (len(whole) - 1, len(whole) - 119, len(whole) - 119 - 100, 119):
        (tmp_path / "000004.log").write_bytes(whole[:end])
        assert wal.gap_between(str(tmp_path)) == "000009.log"
    (tmp_path / "000004.log").write_bytes(whole[:-119] + bytes(119))
    assert wal.gap_between(str(tmp_path)) == "000009.log"


def test_a_write_that_was_cut_off_does_not_count_where_the_next_log_has_its_number(tmp_path: Path) -> None:
    """So RocksDB leaves it after a crash, until it has removed the old log."""
    (tmp_path / "000004.log").write_bytes(log_of([batch(1, 100), batch(2, 100)])[:-50])
    (tmp_path / "000009.log").write_bytes(log_of([batch(2, 0), batch(2, 10)]))
    assert wal.gap_between(str(tmp_path)) is None


# -- what damage costs


def read(log: Path) -> list[bytes]:
    return [write[1] for write in wal.writes(str(log)) if not isinstance(write, wal.Bad)]


@pytest.mark.parametrize("size", [40, 300, 100_000])
def test_a_flipped_bit_costs_the_write_that_it_is_in_and_no_other(tmp_path: Path, size: int) -> None:
    writes = [batch(number, size if number % 5 == 0 else 60) for number in range(1, 31)]
    whole = log_of(writes)
    log = tmp_path / "000004.log"
    ends = [len(log_of(writes[:count])) for count in range(31)]
    for at in range(0, len(whole), max(1, len(whole) // 150)):
        log.write_bytes(whole[:at] + bytes((whole[at] ^ 1 << at % 8,)) + whole[at + 1 :])
        place = next(place for place, end in enumerate(ends[1:]) if at < end)
        assert read(log) == writes[:place] + writes[place + 1 :] or not any(whole[at : at + 7]), at
        (damage,) = examine(log)
        assert (damage.lost, damage.readable_behind) == (0 if place in (0, 29) else 1, 29 - place)


def test_a_mended_log_holds_what_can_be_read_and_nothing_is_wrong_with_it(log: Path) -> None:
    turn_over(log, 40_000)
    turn_over(log, 90_000)
    left = read(log)
    wal.mend(str(log), str(log) + ".new")
    Path(f"{log}.new").replace(log)
    assert read(log) == left
    assert examine(log) == []


def test_an_item_that_looks_like_a_log_is_not_read_as_one(tmp_path: Path) -> None:
    """Only where it lies in what is damaged could it be."""
    inner = log_of([batch(1, 10), batch(900_000, 10)])
    log = tmp_path / "000004.log"
    log.write_bytes(log_of([batch(10, 5), batch(11, 0) + inner, batch(12, 5)]))
    data = bytearray(log.read_bytes())
    place = bytes(data).index(inner)
    data[place - 17] ^= 0xFF  # the length
    log.write_bytes(data)
    assert read(log) == [batch(10, 5), batch(12, 5)]


def test_the_numbers_at_the_ends_of_a_log_are_those_of_all_its_writes(log: Path) -> None:
    writes = read(log)
    first, last = writes[0], writes[-1]
    following = int.from_bytes(last[:8], "little") + int.from_bytes(last[8:12], "little")
    assert wal.numbers(str(log)) == (int.from_bytes(first[:8], "little"), following)
    log.write_bytes(log_of([batch(5, 10), batch(6, 200_000)]))
    assert wal.numbers(str(log)) == (5, 7)
    log.write_bytes(log_of([batch(5, 10), batch(6, 200_000)])[:-1])
    assert wal.numbers(str(log)) == (5, 6)


def test_a_hole_is_found_wherever_it_begins(tmp_path: Path) -> None:
    log = tmp_path / "000004.log"
    whole = log_of([batch(number, 4096 - 12 - HEADER_BYTES) for number in range(1, 20)])  # a write a page
    log.write_bytes(whole)
    assert not wal.has_hole(str(log))
    for page in range(19):
        log.write_bytes(whole[: page * 4096] + bytes(4096) + whole[(page + 1) * 4096 :])
        assert wal.has_hole(str(log)), page
    log.write_bytes(log_of([batch(1, 200_000), batch(2, 5000)]))  # an item of zeros
    assert not wal.has_hole(str(log))
