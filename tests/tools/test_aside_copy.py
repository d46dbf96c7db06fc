"""What is set aside, in a repaired directory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from darner_core.storage import job_records, records
from darner_core.storage.job_records import FIRST_ASIDE_ID, AsideRecord, Flush, Job
from darner_core.storage.rocks import (
    ASIDE_FAMILY,
    DEFAULT_FAMILY,
    JOB_FAMILY,
    KEY_FAMILY,
    ORDER_FAMILY,
    STATE_FAMILY,
)
from darner_core.storage.storage import Storage
from darner_core.tools.check import WHOLE, check
from darner_core.tools.repair import DROPPED, repair
from tests.conftest import SMALL
from tests.support.damaged import copy_of
from tests.support.damaged_asides import ITEMS, NAMES, Found, aside_keys_of, look, opened
from tests.tools.test_repair import quiet


@pytest.fixture
def directory(with_asides: Path, tmp_path: Path) -> Path:
    return copy_of(with_asides, tmp_path / "data")


@pytest.fixture(scope="session")
def whole(with_asides: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bytes, Found]:
    return found_in(copy_of(with_asides, tmp_path_factory.mktemp("whole") / "data"))


def found_in(directory: Path) -> dict[bytes, Found]:
    with opened(directory) as engine:
        assert engine.storage.damage == []
        return {name: look(engine, name) for name in engine.registry.queues}


def numbers(directory: Path) -> dict[bytes, int]:
    """The asides' numbers."""
    with opened(directory) as engine:
        return {name: record.number for name, record in engine.storage.jobs.asides()}


def altered(directory: Path, change: Callable[[Any, Any], None]) -> None:
    storage = Storage(str(directory), **SMALL)
    batch = storage.batch()
    change(batch, storage.handles)
    storage.write(batch)
    storage.close()


def repaired(directory: Path, status: int) -> list[str]:
    """What a repair says; behind it a check finds nothing."""
    said: list[str] = []
    assert repair(str(directory), 4, said.append, quiet.progress) == status, said
    checked: list[str] = []
    assert check(str(directory), checked.append, quiet.progress) == WHOLE, checked
    return said


def spoil_format(directory: Path) -> None:
    """Nothing is damaged but what makes a repair do its work."""
    (directory / "FORMAT").write_bytes(b"damaged\0")


def test_the_directory_is_whole_and_has_all(directory: Path, whole: dict[bytes, Found]) -> None:
    checked: list[str] = []
    assert check(str(directory), checked.append, quiet.progress) == WHOLE, checked
    for name in NAMES:
        assert sorted(whole[name].all) == list(range(1, ITEMS + 1))
        assert len(whole[name].keys) == len(whole[name].windows) == ITEMS // 8


@pytest.mark.parametrize("log", [True, False])
def test_all_is_saved_with_its_state_place_and_key(directory: Path, whole: dict[bytes, Found], log: bool) -> None:
    if not log:
        with opened(directory) as engine:
            engine.storage.flush()
    spoil_format(directory)
    said = repaired(directory, WHOLE)
    assert f"saved 2 queues, {2 * ITEMS} items" in said[-2]
    assert found_in(directory) == whole


def test_ids_of_a_line_stay_so_that_places_stay(directory: Path) -> None:
    with opened(directory) as engine:
        before = engine.storage.state(engine.registry.queues[b"m"].log.record)
        aside = engine.storage.jobs.state(engine.aside(b"m").record.number)
    spoil_format(directory)
    repaired(directory, WHOLE)
    with opened(directory) as engine:
        after = engine.storage.state(engine.registry.queues[b"m"].log.record)
        assert (after.next, after.tail, after.bytes) == (before.next, engine.registry.queues[b"m"].tail, after.bytes)
        again = engine.storage.jobs.state(engine.aside(b"m").record.number)
    assert again._replace(fronts=()) == aside._replace(fronts=())
    assert [front.entries for front in again.fronts] == [front.entries for front in aside.fronts]


@pytest.mark.parametrize("jobless", [False, True])
def test_what_was_flushed_goes_no_further(directory: Path, whole: dict[bytes, Found], jobless: bool) -> None:
    with opened(directory) as engine:
        aside = engine.aside(b"m")
        spared = aside.ready.first()
        assert spared is not None
        kept = aside.log.item(spared[2])[1]
        batch, number = engine.storage.batch(), aside.record.number
        engine.storage.jobs.put_flush(batch, number, Flush(10**6, aside.new_id, 0, frozenset(), {spared[2]}))
        if jobless:
            gone = aside.ready.next_behind(spared)
            assert gone is not None
            engine.storage.jobs.put_jobs(batch, number, {gone[2]: None})
        engine.storage.write(batch)
        (line_record,) = [record for name, record in engine.storage.queues() if name == b"m"]
        first = engine.storage.state(line_record).first
        in_line = {item[1] for _, item in engine.storage.items(line_record, first, records.MAX_ID)}
    spoil_format(directory)
    said = repaired(directory, WHOLE)
    assert not any("set aside: " in line and "items" in line for line in said), said
    found = found_in(directory)
    assert sorted(found[b"m"].all) == sorted([*in_line, kept, *whole[b"m"].buried])
    assert found[b"n"] == whole[b"n"]


def test_the_record_of_an_aside_is_kept(directory: Path) -> None:
    number = numbers(directory)[b"m"]
    record = AsideRecord(number, 5, job_records.NO_GETS, 77, 9, 8, 7)
    altered(
        directory,
        lambda batch, handles: batch.put(b"jm", job_records.pack_aside(record), handles[DEFAULT_FAMILY]),
    )
    spoil_format(directory)
    repaired(directory, WHOLE)
    with opened(directory) as engine:
        kept = dict(engine.storage.jobs.asides())
    assert kept[b"m"]._replace(number=number) == record
    assert len({one.number for one in kept.values()}) == 2


@pytest.mark.parametrize("family", [ORDER_FAMILY, KEY_FAMILY, STATE_FAMILY])
def test_order_keys_and_states_are_made_anew_from_the_jobs(
    directory: Path, whole: dict[bytes, Found], family: int
) -> None:
    altered(directory, lambda batch, handles: batch.delete_range(b"", b"\xff" * 40, handles[family]))
    said = repaired(directory, DROPPED if family == ORDER_FAMILY else WHOLE)
    found = found_in(directory)
    for name in NAMES:
        windows = [] if family == ORDER_FAMILY else whole[name].windows
        assert found[name] == whole[name]._replace(windows=windows)
    if family == ORDER_FAMILY:
        assert f"queue m: set aside: {ITEMS // 8} keys whose items are gone are free earlier" in said


EVERYTHING = b"", b"\xff" * 40
JOBS_LOST = ITEMS * 3 // 4  # of each queue, all that is set aside


def test_items_without_jobs_keep_what_the_order_tells(directory: Path, whole: dict[bytes, Found]) -> None:
    altered(directory, lambda batch, handles: batch.delete_range(*EVERYTHING, handles[JOB_FAMILY]))
    said = repaired(directory, DROPPED)
    assert f"queue m: set aside: {JOBS_LOST} items have lost their jobs, but not their places in the order" in said
    found = found_in(directory)
    for name in NAMES:
        assert found[name] == whole[name]._replace(keys={})


def test_items_of_which_nothing_is_left_but_themselves_are_ready_in_the_order_of_arrival(directory: Path) -> None:
    altered(directory, lambda batch, handles: batch.delete_range(*EVERYTHING, handles[JOB_FAMILY]))
    altered(directory, lambda batch, handles: batch.delete_range(*EVERYTHING, handles[ORDER_FAMILY]))
    said = repaired(directory, DROPPED)
    assert f"queue m: set aside: {JOBS_LOST} items have lost their jobs, and are ready, with priority 1024" in said
    with opened(directory) as engine:
        aside = engine.aside(b"m")
        ids = [place[2] for place in aside.log.places(job_records.READY, job_records.LOWEST, ITEMS)]
        own = [item_id for item_id in ids if item_id >= FIRST_ASIDE_ID]
        assert own == sorted(own)
        assert look(engine, b"m").all == [*look(engine, b"m").merged]
        assert len(look(engine, b"m").all) == ITEMS


def test_jobs_without_items_are_dropped_with_their_places_and_keys(directory: Path, whole: dict[bytes, Found]) -> None:
    number = numbers(directory)[b"m"]
    half = records.item_key(number, FIRST_ASIDE_ID + ITEMS // 4), records.item_key(number + 1, 0)
    altered(directory, lambda batch, handles: batch.delete_range(*half, handles[ASIDE_FAMILY]))
    said = repaired(directory, DROPPED)
    found = found_in(directory)
    lost = ITEMS - len(found[b"m"].all)
    assert lost > ITEMS // 4
    assert f"queue m: set aside: {JOBS_LOST - lost} items saved, {lost} dropped" in said
    assert f"saved 2 queues, {2 * ITEMS - lost} items" in said[-2]
    assert said[-2].endswith(f"{lost} items dropped")
    assert any(f"{lost} items are known to be lost" in line for line in said)
    left = set(found[b"m"].all)
    assert found[b"m"].merged == [flags for flags in whole[b"m"].merged if flags in left]
    assert found[b"m"].keys == {key: flags for key, flags in whole[b"m"].keys.items() if flags in left}
    assert found[b"n"] == whole[b"n"]


def test_records_of_no_sense_are_as_good_as_lost(directory: Path) -> None:
    number = numbers(directory)[b"n"]
    with opened(directory) as engine:
        first, second = list(engine.storage.jobs.places(number, job_records.DELAYED, job_records.LOWEST, 2))

    def change(batch: Any, handles: Any) -> None:
        batch.put(records.item_key(number, first[2]), b"\x09" * 30, handles[ASIDE_FAMILY])
        batch.put(job_records.job_key(number, second[2]), b"x", handles[JOB_FAMILY])
        batch.put(job_records.number_key(number), b"x", handles[STATE_FAMILY])

    altered(directory, change)
    said = repaired(directory, DROPPED)
    assert "queue n: set aside: 1 items have lost their jobs, but not their places in the order" in said
    assert f"queue n: set aside: {JOBS_LOST - 1} items saved, 1 dropped" in said


def test_of_two_items_with_one_key_the_owner_keeps_it(directory: Path, whole: dict[bytes, Found]) -> None:
    number = numbers(directory)[b"m"]
    with opened(directory) as engine:
        aside = engine.aside(b"m")
        buried = aside.buried.first()
        assert buried is not None
        other = aside.job(buried[2])._replace(key=b"key 4")
    value = job_records.pack_job(other)
    altered(
        directory, lambda batch, handles: batch.put(job_records.job_key(number, buried[2]), value, handles[JOB_FAMILY])
    )
    said = repaired(directory, DROPPED)
    assert "queue m: set aside: 1 items have lost their keys, which others have" in said
    assert found_in(directory) == whole


def test_a_record_with_an_unknown_pause_is_as_good_as_lost(directory: Path, whole: dict[bytes, Found]) -> None:
    record = job_records.pack_aside(AsideRecord(numbers(directory)[b"m"], 5, pause=238))
    altered(directory, lambda batch, handles: batch.put(b"jm", record, handles[DEFAULT_FAMILY]))
    said = repaired(directory, WHOLE)
    assert "queue m: the record of what is set aside makes no sense" in said
    assert found_in(directory) == whole


@pytest.mark.parametrize("name", [b"qm", b"jm"])
def test_what_one_record_lost_the_other_still_names(directory: Path, whole: dict[bytes, Found], name: bytes) -> None:
    altered(directory, lambda batch, handles: batch.delete(name, handles[DEFAULT_FAMILY]))
    said = repaired(directory, WHOLE)
    assert any("its record is lost; --repair" in line and "queue m" in line for line in said)
    assert found_in(directory) == whole


def test_asides_whose_queues_nothing_names_are_queues_of_their_own(directory: Path, whole: dict[bytes, Found]) -> None:
    of = numbers(directory)
    with opened(directory) as engine:  # large items are lost, because nothing says whose chunks they are
        small = {name: len(aside_keys_of(engine, name)) for name in NAMES}

    def change(batch: Any, handles: Any) -> None:
        batch.delete(b"jm", handles[DEFAULT_FAMILY])
        batch.delete(b"jn", handles[DEFAULT_FAMILY])

    altered(directory, change)
    repaired(directory, DROPPED)
    with opened(directory) as engine:
        made_up = {name: b"recovered-%d" % number for name, number in of.items()}
        assert set(engine.registry.queues) == {*NAMES, *made_up.values()}
        for name in NAMES:
            aside = engine.aside(made_up[name])
            assert aside.items == small[name]
            assert engine.registry.queues[made_up[name]].tail > 1
            assert look(engine, name).merged == sorted(set(look(engine, name).merged) & set(whole[name].merged))
            assert len(look(engine, name).merged) == ITEMS - JOBS_LOST


def test_counts_of_items_of_the_line_are_kept_with_their_items(tmp_path: Path) -> None:
    with opened(tmp_path / "data") as engine:
        queue = engine.registry.create(b"q")
        for number in range(9):
            queue.put(b"%d" % number, number, 0)
        engine.journal.commit()
        engine.journal.begin()
        for _ in range(3):
            queue.take()
        engine.journal.commit()
        number = queue.log.record.number
        batch = engine.storage.batch()
        failed = {item_id: Job(0, 1024, 2 * item_id + 1, losses=item_id) for item_id in (1, 5, 8)}
        engine.storage.jobs.put_jobs(batch, number, failed)  # that of a taken item was left behind
        engine.storage.write(batch)
    spoil_format(tmp_path / "data")
    repaired(tmp_path / "data", WHOLE)
    with opened(tmp_path / "data") as engine:
        queue = engine.registry.queues[b"q"]
        jobs = {item_id: engine.storage.jobs.job(queue.log.record.number, item_id) for item_id in range(10)}
        assert {item_id: job for item_id, job in jobs.items() if job} == {5: failed[5], 8: failed[8]}
        assert [queue.next_id, queue.tail, queue.missing] == [4, 10, 0]
        taken = [queue.take() for _ in range(7)]
        assert [item[1] for item in taken if item] == [3, 4, 5, 6, 7, 8]  # type: ignore[index]
