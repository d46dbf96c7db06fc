"""The tables of what is set aside, as a restart reads them."""

from collections.abc import Callable

import pytest

from darner_core.errors import StorageError
from darner_core.storage import job_records
from darner_core.storage.job_records import BURIED, DELAYED, READY, AsideRecord, AsideState, Flush, Front, Job, Taken
from darner_core.storage.job_tables import JobTables
from darner_core.storage.records import Item
from darner_core.storage.rocks import JOB_FAMILY, ORDER_FAMILY, STATE_FAMILY
from darner_core.storage.storage import Storage

OpenStorage = Callable[[], Storage]

ITEM: Item = (b"body", 1, 2, 3)
JOB = Job(DELAYED, 5, 6, 7, key=b"k")
STATE = AsideState(2**51 + 9, 2, 3, (Front(1, (2, 3, 4)), Front(), Front(), Front()))


def fill(storage: Storage, number: int) -> None:
    jobs, batch = storage.jobs, storage.batch()
    jobs.add_aside(batch, b"q%d" % number, AsideRecord(number, 1))
    jobs.put_state(batch, number, STATE)
    jobs.put_items(batch, number, {1: ITEM, 2: ITEM})
    jobs.put_jobs(batch, number, {1: JOB})
    jobs.put_order(batch, number, READY, {(1, 2, 3): b"", (1, 2, 4): b"", (2, 0, 0): b"", (9, 9, 9): b""})
    jobs.put_order(batch, number, DELAYED, {(1, 1, 1): b"x"})
    jobs.put_keys(batch, number, {b"k": Taken(1, 2)})
    storage.write(batch)


def seen(jobs: JobTables, number: int) -> list[object]:
    return [jobs.state(number), jobs.item(number, 1), jobs.job(number, 1), jobs.taken(number, b"k"),
        jobs.places(number, READY, (0, 0, 0), 9), jobs.at_place(number, DELAYED, (1, 1, 1))]  # fmt: skip


def test_what_was_written_is_there_after_a_restart(open_storage: OpenStorage) -> None:
    storage = open_storage()
    for number in (1, 2):
        fill(storage, number)
    storage.close()
    jobs = open_storage().jobs
    assert jobs.asides() == [(b"q1", AsideRecord(1, 1)), (b"q2", AsideRecord(2, 1))]
    places = [(1, 2, 3), (1, 2, 4), (2, 0, 0), (9, 9, 9)]
    assert seen(jobs, 2) == [STATE, ITEM, JOB, Taken(1, 2), places, b"x"]


def test_places_are_read_from_one_on_and_as_many_as_are_wanted(open_storage: OpenStorage) -> None:
    storage = open_storage()
    fill(storage, 1)
    assert storage.jobs.places(1, READY, (1, 2, 4), 2) == [(1, 2, 4), (2, 0, 0)]
    assert storage.jobs.places(1, DELAYED, (0, 0, 0), 9) == [(1, 1, 1)]
    assert storage.jobs.places(1, BURIED, (0, 0, 0), 9) == []


def test_what_is_none_is_removed(open_storage: OpenStorage) -> None:
    storage = open_storage()
    fill(storage, 1)
    jobs, batch = storage.jobs, storage.batch()
    jobs.put_items(batch, 1, {1: None})
    jobs.put_jobs(batch, 1, {1: None})
    jobs.put_keys(batch, 1, {b"k": None})
    jobs.put_order(batch, 1, DELAYED, {(1, 1, 1): None})
    jobs.remove_front(batch, 1, READY, (2, 0, 0))
    jobs.remove_front(batch, 1, BURIED, (0, 0, 0))
    storage.write(batch)
    assert seen(jobs, 1) == [STATE, None, None, None, [(2, 0, 0), (9, 9, 9)], None]


@pytest.mark.parametrize("is_empty", [False, True])
def test_an_aside_is_removed_and_leaves_the_others(open_storage: OpenStorage, is_empty: bool) -> None:
    storage = open_storage()
    for number in (1, 2):
        fill(storage, number)
    whole = seen(storage.jobs, 2)
    batch = storage.batch()
    storage.jobs.remove_aside(batch, b"q1", 1, is_empty)
    storage.write(batch)
    assert storage.jobs.asides() == [(b"q2", AsideRecord(2, 1))]
    assert seen(storage.jobs, 2) == whole
    assert storage.jobs.state(1) == AsideState()
    assert (storage.jobs.item(1, 1) is None) != is_empty  # whoever says that it is empty has to know


def test_bytes_that_mean_nothing_are_damage(open_storage: OpenStorage) -> None:
    storage = open_storage()
    storage.put(JOB_FAMILY, job_records.job_key(1, 1), b"x")
    storage.put(STATE_FAMILY, job_records.number_key(1), b"x")
    storage.put(STATE_FAMILY, job_records.flush_key(1, 0), b"x")
    storage.put(ORDER_FAMILY, b"\0\0\0\1\0x", b"")
    for read in (
        lambda: storage.jobs.job(1, 1),
        lambda: storage.jobs.state(1),
        lambda: storage.jobs.flush(1),
        lambda: storage.jobs.places(1, READY, (0, 0, 0), 9),
    ):
        with pytest.raises(StorageError, match=r"^aside number 1: "):
            read()


def test_places_and_ids_are_read_from_the_end_and_between_bounds(open_storage: OpenStorage) -> None:
    storage = open_storage()
    for number in (1, 2, 3):
        fill(storage, number)
    jobs = storage.jobs
    assert jobs.places_back(2, READY, (0, 0, 0), (9, 9, 9), 2) == [(2, 0, 0), (1, 2, 4)]
    assert jobs.places_back(2, READY, (1, 2, 4), (2**64 - 1,) * 3, 9) == [(9, 9, 9), (2, 0, 0), (1, 2, 4)]
    assert jobs.places_back(2, BURIED, (0, 0, 0), (9, 9, 9), 2) == []
    assert [*jobs.job_ids(2, 0, 9)] == [1]
    assert [*jobs.job_ids(2, 2, 9)] == []


def test_a_flush_is_kept_till_its_end_and_beside_that_of_another(open_storage: OpenStorage) -> None:
    storage = open_storage()
    first, second = Flush(2, 3, 0, frozenset(), set()), Flush(4, 5, 6, frozenset((7,)), {8})
    batch = storage.batch()
    storage.jobs.put_flush(batch, 1, Flush(0, 0, 0, frozenset(), {1, 2, 3}))
    storage.jobs.spare(batch, 1, 2, (9,))
    storage.jobs.put_flush(batch, 1, first)
    storage.jobs.put_flush(batch, 2, second)
    storage.jobs.spare(batch, 2, 2, (10,))
    storage.jobs.put_state(batch, 2, AsideState(5))
    storage.write(batch)
    assert storage.jobs.flush(1) == first
    assert storage.jobs.flush(2) == second._replace(spared={8, 10})
    batch = storage.batch()
    storage.jobs.end_flush(batch, 1)
    storage.write(batch)
    assert [storage.jobs.flush(number) is None for number in (1, 2)] == [True, False]
    assert storage.jobs.state(2) == AsideState(5)
    batch = storage.batch()
    storage.jobs.remove_aside(batch, b"q", 2, False)
    storage.write(batch)
    assert storage.jobs.flush(2) is None
