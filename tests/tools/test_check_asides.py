"""`--check` of what is set aside."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from darner_core.engines.local import aside_failures, aside_moves
from darner_core.engines.local.job_rules import JobRules
from darner_core.storage import job_records, records
from darner_core.storage.job_records import READY, WINDOW, Flush, Job, Taken
from darner_core.storage.rocks import ASIDE_FAMILY, JOB_FAMILY, KEY_FAMILY, ORDER_FAMILY, STATE_FAMILY
from darner_core.storage.storage import Storage
from darner_core.tools import check_asides
from darner_core.tools.check import DAMAGED, WHOLE, check
from tests.conftest import SMALL
from tests.support.asides import NUMBER, Bench
from tests.tools.test_repair import quiet

Change = Callable[[Any, Any], None]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A queue with 6 items aside: ready, due, delayed, failed, buried, and with a key; and a key whose item is gone."""

    def open_storage() -> Storage:
        return Storage(str(tmp_path / "data"), **SMALL)

    bench = Bench(open_storage, JobRules(unique_ms=10**9))
    bench.put(b"gone", key=b"gone")
    bench.aside.take()
    for number in range(2):
        bench.put(b"%d" % number)
    aside_failures.bury(bench.aside, bench.opened())
    bench.put(b"due", delay_ms=1000)
    bench.put(b"delayed", delay_ms=99_000, key=b"k")
    bench.end_turn()
    bench.now_s += 2
    bench.journal.begin()
    assert aside_moves.move_due(bench.aside, 9) == 1
    aside_failures.fail(bench.aside, bench.opened(), "nack")
    bench.end_turn()
    bench.storage.close()
    return tmp_path / "data"


def altered(directory: Path, change: Change) -> None:
    storage = Storage(str(directory), **SMALL)
    batch = storage.batch()
    change(batch, storage.handles)
    storage.write(batch)
    storage.close()


def findings(directory: Path) -> list[str]:
    said: list[str] = []
    status = check(str(directory), said.append, quiet.progress)
    assert status == (WHOLE if said[-1].startswith("whole") else DAMAGED)
    return said


FIRST = job_records.FIRST_ASIDE_ID


def test_what_is_whole_is_counted(directory: Path) -> None:
    assert findings(directory) == ["whole: 1 queues, 4 items, 12 bytes"]


def begin_flush(batch: Any, handles: Any, spared: bytes = job_records.pack_numbers([FIRST + 2])) -> None:
    flush = job_records.pack_flush(Flush(99, FIRST + 9, 0, frozenset(), set()))
    batch.put(job_records.flush_key(NUMBER, 0), flush, handles[STATE_FAMILY])
    batch.put(job_records.flush_key(NUMBER, 1), spared, handles[STATE_FAMILY])


def test_what_was_flushed_and_is_not_removed_yet_is_not_counted(directory: Path) -> None:
    altered(directory, begin_flush)
    assert findings(directory) == ["whole: 1 queues, 2 items, 2 bytes"]  # one that is spared, and one that is buried


CASES: list[tuple[Change, list[str]]] = [
    (
        lambda batch, handles: batch.delete(records.item_key(NUMBER, FIRST + 2), handles[ASIDE_FAMILY]),
        [f"item {FIRST + 2}: its job is there, and not the item", "state: it tells of 12 bytes in items, 11 are there"],
    ),
    (
        lambda batch, handles: batch.put(records.item_key(NUMBER, FIRST + 2), b"\x09" * 30, handles[ASIDE_FAMILY]),
        [f"item {FIRST + 2}: it makes no sense", "state: it tells of 12 bytes in items, 11 are there"],
    ),
    (
        lambda batch, handles: batch.delete(job_records.job_key(NUMBER, FIRST + 1), handles[JOB_FAMILY]),
        [
            f"item {FIRST + 1}: its job is missing",
            f"item {FIRST + 1}: it is at a place in the order that is not its own",
        ],
    ),
    (
        lambda batch, handles: batch.put(job_records.job_key(NUMBER, FIRST + 1), b"x", handles[JOB_FAMILY]),
        [f"item {FIRST + 1}: its job makes no sense"],
    ),
    (
        lambda batch, handles: batch.delete(
            job_records.order_key(NUMBER, READY, 1024, 6, FIRST + 2), handles[ORDER_FAMILY]
        ),
        [f"item {FIRST + 2}: it is nowhere in the order", "state: it tells of 2 entries of kind 0, 1 are there"],
    ),
    (
        lambda batch, handles: batch.put(job_records.order_key(NUMBER, 9, 1, 1, 1), b"", handles[ORDER_FAMILY]),
        ["order: an entry of unknown kind"],
    ),
    (
        lambda batch, handles: batch.delete(job_records.key_key(NUMBER, b"k"), handles[KEY_FAMILY]),
        [f"item {FIRST + 4}: its key is not taken by it", "keys: 1 are taken, 2 should be"],
    ),
    (
        lambda batch, handles: batch.put(
            job_records.key_key(NUMBER, b"gone"), job_records.pack_taken(Taken(FIRST, 5)), handles[KEY_FAMILY]
        ),
        [f"item {FIRST}: it is gone, and its key is not taken for as long as the order tells"],
    ),
    (
        lambda batch, handles: batch.put(
            job_records.order_key(NUMBER, WINDOW, 10**9 + 10**6, 0, FIRST), b"other", handles[ORDER_FAMILY]
        ),
        [f"item {FIRST}: it is gone, and its key is not taken for as long as the order tells"],
    ),
    (
        lambda batch, handles: batch.put(job_records.number_key(NUMBER), b"x", handles[STATE_FAMILY]),
        ["state: it makes no sense"],
    ),
    (
        lambda batch, handles: begin_flush(batch, handles, b"x"),
        ["flush: it makes no sense: what was flushed may come again"],
    ),
]


@pytest.mark.parametrize(("change", "expected"), CASES)
def test_what_is_wrong_is_told(directory: Path, change: Change, expected: list[str]) -> None:
    altered(directory, change)
    said = findings(directory)
    assert said[:-1] == [f"queue q: set aside: {finding}" for finding in expected]


def test_a_state_that_hides_items_is_told(directory: Path) -> None:
    def hide(batch: Any, handles: Any) -> None:
        state = storage_state._replace(fronts=(front._replace(lowest=job_records.HIGHEST), *storage_state.fronts[1:]))
        batch.put(job_records.number_key(NUMBER), job_records.pack_aside_state(state), handles[STATE_FAMILY])

    storage = Storage(str(directory), **SMALL)
    storage_state = storage.jobs.state(NUMBER)
    front = storage_state.fronts[READY]
    storage.close()
    altered(directory, hide)
    what = "it tells of a lowest place of kind 0 that others are before"
    assert findings(directory)[:-1] == [f"queue q: set aside: state: {what}"]


def test_a_state_that_tells_of_other_urgent_items_is_told(directory: Path) -> None:
    storage = Storage(str(directory), **SMALL)
    state = storage.jobs.state(NUMBER)
    storage.close()
    more = job_records.pack_aside_state(state._replace(urgent=state.urgent + 1))
    altered(directory, lambda batch, handles: batch.put(job_records.number_key(NUMBER), more, handles[STATE_FAMILY]))
    what = f"it tells of {state.urgent + 1} urgent items, {state.urgent} are there"
    assert findings(directory)[:-1] == [f"queue q: set aside: state: {what}"]


def test_an_aside_without_a_queue_or_of_no_sense_is_told(directory: Path) -> None:
    altered(directory, lambda batch, handles: batch.delete(b"qq", handles[-2]))
    altered(directory, lambda batch, handles: batch.put(b"jx", b"y", handles[-2]))
    assert findings(directory)[:-1] == [
        "queue x: the record of what is set aside makes no sense",
        "queue q: 4 items are set aside, and there is no such queue",
    ]


def test_of_very_many_findings_a_few_are_told(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_asides, "MOST_TOLD", 1)
    job = job_records.pack_job(Job(READY, 1, 2))
    altered(
        directory,
        lambda batch, handles: [batch.put(job_records.job_key(NUMBER, n), job, handles[JOB_FAMILY]) for n in range(5)],  # type: ignore[arg-type]
    )
    assert findings(directory)[:-1] == [
        "queue q: set aside: item 0: its job is there, and not the item",
        "queue q: set aside: item 0: it is nowhere in the order",
        "queue q: set aside: 4 more: its job is there, and not the item",
        "queue q: set aside: 4 more: it is nowhere in the order",
    ]
