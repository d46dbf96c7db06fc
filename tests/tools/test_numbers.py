"""What the tools find and keep of public numbers."""

from contextlib import closing
from pathlib import Path

import pytest

from darner_core.storage.number_records import Block, block_key, pack_block, pack_mark
from darner_core.storage.storage import Storage
from darner_core.tools.check import WHOLE
from darner_core.tools.numbers import NumbersOf
from darner_core.tools.repair import repair
from darner_core.tools.salvage import open_lenient
from tests.conftest import SMALL
from tests.support.damaged import make_directory
from tests.tools.test_check import altered, findings
from tests.tools.test_repair import quiet

GIVEN = [Block(1, 1, 1, 4), Block(5, 2, 1, 8), Block(13, 1, 5, 4)]
MARK = (None, block_key(0), pack_mark(17))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    make_directory(path)
    altered(path, MARK, *((None, block_key(block.first), pack_block(block)) for block in GIVEN))
    altered(path, (None, b"n", b"n" * 20 + b"s" * 16))
    return path


def test_numbers_that_are_right_are_no_finding(directory: Path) -> None:
    assert findings(directory)[-1].startswith("whole")


@pytest.mark.parametrize(
    ("key", "value", "finding"),
    [
        (block_key(0), pack_mark(16), "public numbers: those from 16 on are said to be free, and are given up to 16"),
        (block_key(0), None, "public numbers: those from 0 on are said to be free, and are given up to 16"),
        (block_key(12), pack_block(Block(12, 1, 100, 1)), "public numbers: 12 is given twice"),
        (block_key(13), pack_block(Block(13, 1, 4, 4)), "queue number 1: item 4 has two public numbers"),
        (block_key(13), b"nonsense", "public numbers: a record of them makes no sense"),
        (b"n", b"short", "the directory's identity cannot be read: an identity of 5 bytes"),
    ],
)
def test_what_is_wrong_is_told(directory: Path, key: bytes, value: bytes | None, finding: str) -> None:
    altered(directory, (None, key, value))
    assert finding in findings(directory)[:-1]


def test_after_a_repair_no_number_is_given_again_and_the_identity_is_the_same(directory: Path) -> None:
    altered(directory, (None, block_key(0), pack_mark(3)), (None, block_key(40), b"nonsense"))
    said: list[str] = []
    repair(str(directory), 4, said.append, quiet.progress)
    assert "items are given new public numbers, from 17 on" in said
    assert findings(directory)[-1].startswith("whole")
    storage = Storage(str(directory), **SMALL)
    assert storage.numbers.read() == (17, [])
    assert storage.numbers.identity() == (b"n" * 20, b"s" * 16)
    storage.close()


def test_a_lost_identity_is_told(directory: Path) -> None:
    altered(directory, (None, b"n", b"short"))
    said: list[str] = []
    assert repair(str(directory), 4, said.append, quiet.progress) == WHOLE
    assert "the directory has another identity from now on" in said


def test_an_item_is_told_its_number(directory: Path, tmp_path: Path) -> None:
    altered(directory, (None, block_key(17), pack_block(Block(17, 1, 2**51, 2))), (None, block_key(30), b"nonsense"))
    said: list[str] = []
    with closing(open_lenient(str(directory), str(tmp_path))[0]) as salvaged:
        numbers, others, none = (NumbersOf(salvaged, queue, said.append) for queue in (1, 2, 3))
    ids = (1, 4, 5, 8, 9, 2**51 - 1, 2**51 + 1, 2**51 + 2)
    assert [numbers.of(item_id) for item_id in ids] == [1, 4, 13, 16, 0, 0, 18, 0]
    assert (others.of(1), bool(others), none.of(1), bool(none)) == (5, True, 0, False)
    assert said == ["public numbers: a record of them makes no sense"] * 3
