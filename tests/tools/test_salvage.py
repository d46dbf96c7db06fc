"""Reading a damaged directory: every record that can be read, and a gap for what cannot."""

from pathlib import Path

import pytest

from darner_core.storage.records import QueueRecord
from darner_core.tools.salvage import Broken, Gap, IdGap, Salvaged
from tests.support.damaged import ITEMS, NAMES, body, copy_of, make_directory, turn_over


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("salvage") / "base"
    make_directory(path)
    return path


def queues(directory: Salvaged) -> dict[bytes, QueueRecord]:
    return {entry.name: entry.record for entry in directory.queues() if not isinstance(entry, (Gap, Broken))}


def test_all_records_of_a_whole_directory_come_in_order(base: Path, tmp_path: Path) -> None:
    directory = Salvaged(str(base), str(tmp_path))
    found = queues(directory)
    assert sorted(found) == NAMES
    for record in found.values():
        ids = [entry[0] for entry in directory.items(record, 1, ITEMS + 1) if not isinstance(entry, (IdGap, Broken))]
        assert ids == list(range(1, ITEMS + 1))
        assert list(directory.blobs(record.number)) == list(range(1, 11))
    assert sorted(n for family in directory.families for n in directory.numbers(family)) == [1, 2, 3, 4, 5, 6]
    directory.close()


@pytest.mark.parametrize("damaged", [[10], [100], [10, 190], [10, 100, 190]])
def test_between_two_gaps_nothing_is_passed_over(base: Path, tmp_path: Path, damaged: list[int]) -> None:
    path = copy_of(base, tmp_path / "data")
    table = next(path for path in path.glob("*.sst") if body(b"a", 10) in path.read_bytes())
    for number in damaged:
        turn_over(table, table.read_bytes().index(body(b"a", number)))
    directory = Salvaged(str(path), str(tmp_path))
    ids: list[int] = []
    gaps: list[int] = []
    for entry in directory.items(queues(directory)[b"a"], 1, ITEMS + 1):
        if isinstance(entry, IdGap):
            assert table.name in entry.why
            gaps.extend(range(entry.from_id, min(entry.to_id, ITEMS + 1)))
        else:
            ids.append(entry[0])
    assert set(damaged) <= set(gaps)
    assert sorted([*ids, *gaps]) == list(range(1, ITEMS + 1))
    assert len(damaged) == 3 or len(ids) > ITEMS // 2 + 60
    directory.close()
