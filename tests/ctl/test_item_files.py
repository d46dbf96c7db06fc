"""Items in files, written and read back."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darner_core.ctl.errors import CtlError
from darner_core.ctl.item_files import RAW_HEAD, ItemFile, ItemsOf
from darner_core.ctl.moving.places import Item
from darner_core.ctl.resuming import Progress

ITEMS = [
    (b"work", Item(5, b"hello", 3, 12)),
    (b"work", Item(3, b"\xff\n\0", key=b"k1", pri=5, ttr_ms=6000, delay_ms=7, expires_at=4_000_000_000)),
    (b"work", Item(0, b"")),
    (b"\xffother", Item(2, b"{}")),
]


def write(path: Path, items: list[tuple[bytes, Item]], raw: bool) -> Path:
    file = ItemFile(open(path, "xb"), raw)  # noqa: SIM115 - it closes it
    for queue, item in items:
        file.put(queue, item)
    assert file.settle() == []
    file.close()
    return path


def read(path: Path, into: bytes = b"") -> tuple[list[tuple[bytes, Item]], list[str]]:
    source = ItemsOf(str(path), into)
    found = []
    while listed := source.queues():
        queue = listed[0].name
        while items := [(queue, item) for item in source.batch(queue, 2)]:
            found += items
            source.confirm(queue)
    source.close()
    return found, [line.replace(f"{path}: ", "") for line in source.told()]


@pytest.mark.parametrize("raw", [False, True])
def test_what_is_written_is_read_back(raw: bool, tmp_path: Path) -> None:
    found, told = read(write(tmp_path / "items", ITEMS, raw))
    for _, item in ITEMS:
        item.id = 0
    assert (found, told) == (ITEMS, [])


@pytest.mark.parametrize("raw", [False, True])
@settings(deadline=None)
@given(bodies=st.lists(st.binary(max_size=300), max_size=20))
def test_bodies_may_be_any_bytes(tmp_path_factory: pytest.TempPathFactory, raw: bool, bodies: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("items") / "items"
    found, told = read(write(path, [(b"q", Item(len(body), body)) for body in bodies], raw))
    assert ([item.body for _, item in found], told) == (bodies, [])


def test_a_large_body_goes_through_in_pieces(tmp_path: Path) -> None:
    large = bytes(range(256)) * 8192
    path = write(tmp_path / "items", [(b"q", Item(len(large), iter((large[:7], large[7:])))), ITEMS[0]], raw=True)
    source = ItemsOf(str(path))
    first, second = source.batch(b"q", 5), b""
    for item in first:
        assert not isinstance(item.body, bytes)
        second = b"".join(item.pieces())
    assert second == large
    assert [item.body for item in source.batch(b"work", 5)] == [b"hello"]
    source.close()


def test_all_may_go_into_one_queue(tmp_path: Path) -> None:
    path = write(tmp_path / "items", ITEMS, raw=False)
    assert {queue for queue, _ in read(path, b"new")[0]} == {b"new"}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("[]", "a line must be an object"),
        ('{"body": "x"}', '"queue" must be there, and a string'),
        ('{"queue": "q"}', 'one of "body" and "body_base64" must be there'),
        ('{"queue": "q", "body": "x", "body_base64": "eA=="}', 'one of "body" and "body_base64" must be there'),
        ('{"queue": "q", "body_base64": "?"}', '"body_base64" must be base64'),
        ('{"queue": "q", "body": 1}', '"body" must be there, and a string'),
        ('{"queue": "a b", "body": "x"}', "no spaces"),
        ('{"queue": "q", "body": "x", "pri": -1}', '"pri" must be a whole number from 0 to 4294967295'),
        ('{"queue": "q", "body": "x", "delay": true}', '"delay" must be a whole number'),
        ("{", "Expecting property name"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_line_that_makes_no_sense_is_named_and_the_others_are_read(line: str, why: str, tmp_path: Path) -> None:
    good = '{"queue": "q", "body": "good"}'
    (tmp_path / "items").write_text(f"{good}\n\n{line}\n{good}")
    found, (told,) = read(tmp_path / "items")
    assert [item.body for _, item in found] == [b"good", b"good"]
    assert told.startswith(f"line 3, byte {len(good) + 2}: ")
    assert why in told


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        (b'{"bytes": 9, "queue": "q"}\nshort\n', "an item of 9 bytes, and the file ends before"),
        (b'{"bytes": 2, "queue": "q"}\nlong\n', "its length is wrong"),
        (b'{"queue": "q"}\nx\n', '"bytes" says how long the item is'),
    ],
)
def test_a_raw_file_is_read_up_to_what_makes_no_sense(rest: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "items").write_bytes(RAW_HEAD + b'{"bytes": 3, "queue": "q"}\na\nb\n' + rest)
    found, (told,) = read(tmp_path / "items")
    assert [item.body for _, item in found] == [b"a\nb"]
    assert told.startswith("line 5, byte ")
    assert why in told


def test_it_goes_on_behind_what_was_put_before(tmp_path: Path) -> None:
    path = write(tmp_path / "items", [(b"q", Item(1, b"%d" % number)) for number in range(9)], raw=True)
    source = ItemsOf(str(path), progress=Progress(str(tmp_path / "state")))
    list(source.batch(b"q", 4))
    source.confirm(b"q")
    list(source.batch(b"q", 4))
    source.close()  # killed before the second batch was confirmed
    source = ItemsOf(str(path), progress=Progress(str(tmp_path / "state")))
    assert [item.body for item in source.batch(b"q", 100)] == [b"4", b"5", b"6", b"7", b"8"]
    source.close()


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    file = ItemFile(open("/dev/full", "wb"))  # noqa: SIM115 - closed below
    file.put(b"q", ITEMS[0][1])
    with pytest.raises(CtlError, match="stay in their queue"):
        file.settle()
    try:
        file.close()
    except OSError:
        pass  # what is in the buffer cannot be written either


def test_no_such_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(CtlError, match="cannot read"):
        ItemsOf(str(tmp_path / "nothing"))
