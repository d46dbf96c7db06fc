"""Kestrel's journals, written here byte by byte as its 2.4.8 writes them."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from darner_core.ctl.errors import CtlError
from darner_core.ctl.kestrel_journal import KestrelJournal, journal_files, queues_in
from darner_core.ctl.moving.mover import Mover
from darner_core.ctl.moving.server import Server
from darner_core.ctl.resuming import Progress
from tests.support.harness import RunningServer
from tests.support.moving import drained, wire_to


def stamped(body: bytes, expires_ms: int = 0) -> bytes:
    return struct.pack("<iqq", len(body) + 16, 1_400_000_000_000, expires_ms) + body


def add(body: bytes, expires_ms: int = 0) -> bytes:
    return b"\x02" + stamped(body, expires_ms)


def old_add(body: bytes, expires_s: int = 0) -> bytes:
    return b"\x00" + struct.pack("<ii", len(body) + 4, expires_s) + body


REMOVE = b"\x01"
OPEN = b"\x03"


def save_xid(xid: int) -> bytes:
    return b"\x04" + struct.pack("<i", xid)


def unremove(xid: int) -> bytes:
    return b"\x05" + struct.pack("<i", xid)


def confirm(xid: int) -> bytes:
    return b"\x06" + struct.pack("<i", xid)


def add_xid(xid: int, body: bytes) -> bytes:
    return b"\x07" + struct.pack("<i", xid) + stamped(body)


def go_on(xid: int, body: bytes) -> bytes:
    return b"\x08" + struct.pack("<i", xid) + stamped(body)


def open_xid(xid: int) -> bytes:
    return b"\x09" + struct.pack("<i", xid)


def read(folder: Path, takes_damaged: bool = False) -> tuple[list[bytes], list[str]]:
    """The bodies of the queue `work`, in order, and what could not be read."""
    source = KestrelJournal(str(folder), "work", takes_damaged)
    bodies = [item.body for item in source.batch(b"work", 1000)]
    source.close()
    assert all(isinstance(body, bytes) for body in bodies)
    return bodies, [line.replace(f"{folder}/", "") for line in source.told()]  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("records", "bodies"),
    [
        ([add(b"a"), old_add(b"b"), add(b""), REMOVE], [b"b", b""]),
        ([add(b"a"), add(b"b"), OPEN, confirm(1)], [b"b"]),
        ([add(b"a"), add(b"b"), add(b"c"), OPEN, OPEN, unremove(1)], [b"b", b"a", b"c"]),
        # What is open waits again: in its old order, at the head.
        ([add(b"a"), add(b"b"), add(b"c"), OPEN, OPEN], [b"a", b"b", b"c"]),
        ([add(b"a"), add(b"b"), add(b"c"), open_xid(5), open_xid(6), confirm(5)], [b"b", b"c"]),
        # A journal that was written anew begins with what was open then.
        ([add_xid(7, b"a"), OPEN, save_xid(8), add(b"b"), OPEN, confirm(7)], [b"b"]),
        ([add_xid(7, b"a"), open_xid(7), save_xid(8), add(b"b"), confirm(7)], [b"b"]),
        ([add(b"a"), OPEN, go_on(1, b"a2")], [b"a2"]),
        ([REMOVE, OPEN, confirm(9), unremove(9), add(b"a")], [b"a"]),
    ],
)
def test_a_journal_is_replayed_as_kestrel_replays_it(records: list[bytes], bodies: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "work").write_bytes(b"".join(records))
    assert read(tmp_path) == (bodies, [])


def test_older_files_come_first_and_a_pack_stands_for_those_before_it(tmp_path: Path) -> None:
    for name, record in (
        ("work.100", add(b"packed away")), ("work.200.pack", add(b"b")), ("work.200", add(b"packed away")),
        ("work.1000", add(b"c")), ("work", add(b"d") + REMOVE), ("work.x", b"?"), ("workers", add(b"w")),
        ("work~~1234", b"?"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(record)
    assert [Path(path).name for path in journal_files(str(tmp_path), "work")] == ["work.200.pack", "work.1000", "work"]
    assert read(tmp_path) == ([b"c", b"d"], [])
    assert queues_in(str(tmp_path)) == (["work", "work.x", "workers"], ["work~~1234"])


WHOLE = add(b"a") + add(b"b")


@pytest.mark.parametrize("cut", range(1, len(add(b"b"))))
def test_a_record_that_a_crash_has_cut_off_is_named_and_dropped(cut: int, tmp_path: Path) -> None:
    """As Kestrel does."""
    (tmp_path / "work").write_bytes(WHOLE[: len(add(b"a")) + cut])
    assert read(tmp_path) == (
        [b"a"],
        [f"work: byte {len(add(b'a'))}: the last record is cut off: {cut} bytes of it are there"],
    )


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (b"\x0a", "10 is no kind of record"),
        (b"\xff123", "255 is no kind of record"),
        (b"\x02" + struct.pack("<i", 15) + bytes(15), "an item of 15 bytes with its times"),
        (b"\x02" + struct.pack("<i", -1) + bytes(15), "an item of -1 bytes with its times"),
    ],
)
def test_damage_is_named_and_nothing_behind_it_is_believed(wrong: bytes, why: str, tmp_path: Path) -> None:
    """A later record might remove an item that cannot be read: it must not remove another one instead."""
    (tmp_path / "work.1").write_bytes(add(b"a") + wrong)
    (tmp_path / "work").write_bytes(REMOVE + add(b"b"))
    bodies, told = read(tmp_path)
    assert bodies == []
    assert told[0].startswith(f"work.1: byte {len(add(b'a'))}: {why}")
    assert told[1:] == ["work: byte 0: not read, because it goes on with a journal that is damaged"]
    assert read(tmp_path, takes_damaged=True)[0] == [b"a"]


def test_a_queue_without_a_journal_is_said(tmp_path: Path) -> None:
    with pytest.raises(CtlError, match="no journal of a queue work"):
        KestrelJournal(str(tmp_path), "work")
    with pytest.raises(CtlError, match="cannot read"):
        KestrelJournal(str(tmp_path / "nowhere"), "work")


def test_it_goes_on_where_it_was_killed(start_server: Callable[..., RunningServer], tmp_path: Path) -> None:
    """And what has expired, or will, does so in its time. A large body is read in pieces."""
    server = start_server()
    large = bytes(range(256)) * 8192
    folder = tmp_path / "kestrel"
    folder.mkdir()
    (folder / "work").write_bytes(
        b"".join(add(b"%d" % number) for number in range(50)) + add(b"gone", 1) + add(large, 4_000_000_000_123)
    )

    def run(stop_after: int) -> int:
        batches = iter(range(stop_after))
        source = KestrelJournal(str(folder), "work", progress=Progress(str(tmp_path / "state")))
        target = Server(wire_to(server.port))
        moved = Mover(source, target, batch=10, stop=lambda: next(batches, None) is None).move(b"work")
        source.close()
        target.close()
        return moved.items

    assert [run(2), run(100), run(100)] == [20, 32, 0]
    assert drained(server, "work") == [b"%d" % number for number in range(50)] + [large]
