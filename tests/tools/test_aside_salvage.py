"""Damage in the tables of what is set aside: what can be read is found, and a repair saves it, in order and once."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from darner_core.storage import opening
from darner_core.tools.check import WHOLE, check
from darner_core.tools.repair import repair
from tests.support.damaged import copy_of, turn_over
from tests.support.damaged_asides import (
    ITEMS,
    NAMES,
    Found,
    aside_keys_of,
    look,
    opened,
    readable,
    table_of,
)
from tests.tools.test_repair import quiet

IN_TABLE = ITEMS * 3 // 4  # items of both queues that the table of `asides` has


class Whole(NamedTuple):
    found: dict[bytes, Found]
    keys: dict[bytes, dict[int, bytes]]  # of records in `asides`, by flags


@pytest.fixture(scope="session")
def whole(with_asides: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    with opened(copy_of(with_asides, tmp_path_factory.mktemp("whole") / "data")) as engine:
        found = {name: look(engine, name) for name in NAMES}
        return Whole(found, {name: aside_keys_of(engine, name) for name in NAMES})


def count(saved: dict[bytes, Found]) -> int:
    """Of items."""
    return sum(len(found.all) for found in saved.values())


def is_part(part: list[int], of: list[int]) -> bool:
    """Whether `part` is in the order of `of`, and nothing is there twice."""
    left = iter(of)
    return all(flags in left for flags in part)


def repair_and_compare(
    directory: Path, whole: Whole, log_folder: Path, may_be_older: bool = False
) -> dict[bytes, Found]:
    """What a repair has saved. `may_be_older`: changes are lost, so items are in an earlier state."""
    can_be_read = {name: readable(directory, whole.keys[name], log_folder) for name in NAMES}
    said: list[str] = []
    repair(str(directory), 4, said.append, quiet.progress)
    assert check(str(directory), quiet, quiet.progress) == WHOLE
    saved: dict[bytes, Found] = {}
    with opened(directory) as engine:
        assert engine.storage.damage == []
        assert not engine.asides.damaged
        for name, of_all in whole.found.items():
            if name not in engine.registry.queues:
                continue
            saved[name] = found = look(engine, name)
            assert len(set(found.all)) == len(found.all), said
            if may_be_older:
                continue
            assert can_be_read[name] <= set(found.all), said
            ready_now = set(found.merged) - set(of_all.merged)
            assert not ready_now or any("have lost their jobs, and are ready" in line for line in said), said
            assert is_part([flags for flags in found.merged if flags not in ready_now], of_all.merged), said
            assert is_part(found.delayed, of_all.delayed), said
            assert is_part(found.buried, of_all.buried), said
            assert found.keys.items() <= of_all.keys.items()
            assert set(found.windows) <= set(of_all.windows)
    return saved


def blocks(directory: Path, table: str) -> Iterator[int]:
    """Offsets in a table: a block is of 16 KiB."""
    size = (directory / table).stat().st_size
    yield from range(0, size, 4000)
    yield size - 8


@pytest.mark.parametrize("family", opening.ASIDE_TABLES)
def test_of_a_damaged_table_all_that_can_be_read_is_saved(
    with_asides: Path, tmp_path: Path, whole: Whole, family: str
) -> None:
    table = table_of(with_asides, family).name
    for offset in blocks(with_asides, table):
        directory = copy_of(with_asides, tmp_path / f"data-{offset}")
        turn_over(directory / table, offset)
        saved = repair_and_compare(directory, whole, tmp_path)
        if family == opening.ASIDES:
            assert count(saved) >= 2 * ITEMS - IN_TABLE
            continue
        assert count(saved) == 2 * ITEMS
        for name, found in saved.items():
            of_all = whole.found[name]
            if family == opening.JOBS:
                assert found == of_all._replace(keys=found.keys)
            else:
                windows = found.windows if family == opening.ORDER else of_all.windows
                assert found == of_all._replace(windows=windows)


@pytest.mark.parametrize("family", opening.ASIDE_TABLES)
def test_of_a_table_that_is_gone_the_others_tell_the_most(
    with_asides: Path, tmp_path: Path, whole: Whole, family: str
) -> None:
    table = table_of(with_asides, family).name
    directory = copy_of(with_asides, tmp_path / "data")
    (directory / table).unlink()
    saved = count(repair_and_compare(directory, whole, tmp_path, may_be_older=True))
    assert saved == 2 * ITEMS - IN_TABLE * (family == opening.ASIDES)


@pytest.mark.parametrize("seed", range(6))
def test_of_a_damaged_log_what_was_written_before_and_behind_is_saved(
    with_asides: Path, tmp_path: Path, whole: Whole, seed: int
) -> None:
    log = max(with_asides.glob("*.log"), key=lambda path: path.stat().st_size)
    directory = copy_of(with_asides, tmp_path / "data")
    turn_over(directory / log.name, random.Random(seed).randrange(log.stat().st_size))
    assert count(repair_and_compare(directory, whole, tmp_path, may_be_older=True)) >= 2 * ITEMS * 0.4


@pytest.mark.parametrize("gone", ["CURRENT", "MANIFEST-*"])
def test_a_directory_that_has_to_be_rebuilt_has_all(with_asides: Path, tmp_path: Path, whole: Whole, gone: str) -> None:
    directory = copy_of(with_asides, tmp_path / "data")
    for path in directory.glob(gone):
        path.unlink()
    said: list[str] = []
    assert repair(str(directory), 4, said.append, quiet.progress) == WHOLE, said
    with opened(directory) as engine:
        assert {name: look(engine, name) for name in NAMES} == whole.found
