"""Ids and state of a repaired line."""

from collections.abc import Callable

import pytest

from darner_core.storage import records
from darner_core.storage.job_records import READY, Job
from darner_core.storage.records import QueueRecord, State
from darner_core.storage.storage import Storage
from darner_core.tools.line_copy import CopiedLine
from darner_core.tools.salvage import ListedQueue, Salvaged

OpenStorage = Callable[[], Storage]
QUEUE = ListedQueue(b"q", QueueRecord(7, 0, 1))


@pytest.fixture
def line_of(open_storage: OpenStorage, tmp_path: object) -> Callable[..., CopiedLine]:
    """A line whose state record was this; b"" for one that makes no sense."""

    def make(state: State | bytes, has_aside: bool, jobs: tuple[int, ...] = ()) -> CopiedLine:
        storage = open_storage()
        value = state if isinstance(state, bytes) else records.pack_state(*state)
        storage.put(0, records.item_key(7, records.STATE_ID), value)
        batch = storage.batch()
        storage.jobs.put_jobs(batch, 7, {item_id: Job(READY, 1, item_id) for item_id in jobs})
        storage.write(batch)
        storage.close()
        return CopiedLine(Salvaged(storage.path, str(tmp_path)), QUEUE, has_aside, records.FIRST_ID)

    return make


def saved(line: CopiedLine, *ids: int) -> tuple[list[int], State]:
    return [line.add(item_id) for item_id in ids], records.unpack_state(line.state(9))


def test_without_an_aside_ids_follow_one_another(line_of: Callable[..., CopiedLine]) -> None:
    assert saved(line_of(State(4, 6, 20), False), 4, 7, 19) == ([1, 2, 3], State(1, 1, 4, 9, 1))


def test_with_an_aside_ids_stay_and_what_is_gone_is_counted(line_of: Callable[..., CopiedLine]) -> None:
    """Item 4 was open or given back, 8 and 9 are lost, 21 was put when the state was written already."""
    expected = State(4, 6, 22, 9, 4, 22 - 6 - 4)
    assert saved(line_of(State(4, 6, 20, 0, 1), True), 4, 6, 7, 10, 21) == ([4, 6, 7, 10, 21], expected)


def test_without_any_items_the_line_goes_on_with_its_ids(line_of: Callable[..., CopiedLine]) -> None:
    assert saved(line_of(State(4, 6, 20), True)) == ([], State(20, 20, 20, 9, 20))


def test_without_a_state_all_items_wait(line_of: Callable[..., CopiedLine]) -> None:
    assert saved(line_of(b"short", True), 5, 6, 9) == ([5, 6, 9], State(5, 5, 10, 9, 5, 2))


def test_jobs_of_items_that_have_failed_go_with_them_and_keep_the_ids(line_of: Callable[..., CopiedLine]) -> None:
    line = line_of(State(4, 6, 20), False, (3, 5, 8))
    assert line.keeps_ids
    assert [line.jobs.of(item_id) for item_id in (4, 5, 9)] == [None, Job(READY, 1, 5), None]
