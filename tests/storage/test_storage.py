"""What is written to a data directory and read there, and its space."""

from pathlib import Path

import pytest

from darner_core.errors import StorageError
from darner_core.storage import records
from darner_core.storage.records import Blob, Item, QueueRecord, State, chunk_key, item_key
from darner_core.storage.storage import CHUNK_FAMILY, Storage
from tests.conftest import SMALL
from tests.support.stored import JOBS, OpenStorage, add_queue, an_item, disk_bytes, ids, put_items

# -- column families


def test_a_directory_keeps_the_column_families_it_was_made_with(tmp_path: Path) -> None:
    path = str(tmp_path / "data")
    last = QueueRecord(number=1, family=4, created_at_ms=1)
    for families, expected in ((5, 5), (2, 5), (9, 9), (1, 9)):
        storage = Storage(path, **{**SMALL, "max_column_families": families})
        assert len(storage.families) == expected
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


# -- errors


@pytest.mark.parametrize("record", [b"\x09" + bytes(20), b"\x00\x01", b""])
def test_a_record_that_is_no_item_is_an_error(open_storage: OpenStorage, record: bytes) -> None:
    storage = open_storage()
    storage.put(JOBS.family, item_key(JOBS.number, 1), record)
    with pytest.raises(StorageError, match=r"^queue number 7: "):
        list(storage.items(JOBS, 1, 2))
    with pytest.raises(StorageError, match=r"^queue number 7: "):
        storage.item(JOBS, 1)
