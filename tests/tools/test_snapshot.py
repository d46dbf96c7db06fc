"""A directory in which a server may be running, as it is at one moment."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from darner_core.errors import DataDirError
from darner_core.storage.storage import Storage
from darner_core.tools import snapshot as snapshot_module
from darner_core.tools.snapshot import snapshot
from tests.conftest import SMALL

OpenStorage = Callable[[], Storage]


def put(storage: Storage, *numbers: int) -> None:
    for number in numbers:
        storage.put(0, b"%012d" % number, b"%d" % number)


def read(path: str) -> list[int]:
    storage = Storage(path, **SMALL)
    try:
        return [int(value) for _, value in storage._rocks.scan(0, b"", b"\xff")]
    finally:
        storage.close()


def readable(here: str) -> str:
    """A storage wants to see its own file first."""
    (Path(here) / "FORMAT").write_bytes(b"darner 1\n")
    return here


def test_it_shows_what_was_written_and_nothing_that_comes_later(open_storage: OpenStorage) -> None:
    storage = open_storage()
    put(storage, 1)
    storage.flush()
    put(storage, 2)
    with snapshot(storage.path) as here:
        assert read(readable(here)) == [1, 2]
    assert not os.path.exists(here)
    put(storage, 3)
    with snapshot(storage.path) as here:
        assert read(readable(here)) == [1, 2, 3]


def test_files_that_the_server_removes_stay_readable(open_storage: OpenStorage) -> None:
    storage = open_storage()
    put(storage, 1)
    storage.flush()
    put(storage, 2)
    with snapshot(storage.path) as here:
        names = {name for name in os.listdir(here) if name.endswith((".sst", ".log"))}
        put(storage, 1, 3)
        storage.flush()
        storage.compact(0, b"", b"\xff")
        storage.close()
        gone = names - set(os.listdir(storage.path))
        assert any(name.endswith(".sst") for name in gone)
        assert any(name.endswith(".log") for name in gone)
        # What is written to the newest log until it is read is part of it; here that is the third.
        assert read(readable(here)) in ([1, 2], [1, 2, 3])


def test_nothing_is_written_into_the_directory_nor_beside_it(open_storage: OpenStorage) -> None:
    storage = open_storage()
    put(storage, 1)
    path = Path(storage.path)

    def seen() -> set[tuple[str, int, int]]:
        """All files. RocksDB may delete one that it needs no longer at any time, and this is no change."""
        found = set()
        for file in path.parent.rglob("*"):
            with suppress(FileNotFoundError):
                if file.is_file():
                    found.add((str(file), file.stat().st_mtime_ns, file.stat().st_size))
        return found

    before = seen()
    with snapshot(storage.path):
        assert seen() <= before
    assert seen() <= before


def test_a_directory_that_changes_meanwhile_is_looked_at_again(
    open_storage: OpenStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage()
    put(storage, 1)
    take = snapshot_module._take
    taken: list[bool] = []
    listdir = os.listdir
    changed: list[bool] = []

    def listdir_and_change(path: str) -> list[str]:
        """The server writes a table and lets go of its log behind the back of who has just listed them."""
        names = listdir(path)
        if path == storage.path and len(taken) == 1 and not changed:
            changed.append(True)
            put(storage, 2)
            storage.flush()
        return names

    def counted(*arguments: object) -> bool:
        taken.append(True)
        return take(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(snapshot_module, "_take", counted)
    monkeypatch.setattr(os, "listdir", listdir_and_change)
    with snapshot(storage.path) as here:
        assert len(taken) == 2
        assert read(readable(here)) == [1, 2]


def test_one_that_never_rests_is_an_error(open_storage: OpenStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage()
    monkeypatch.setattr(snapshot_module, "_take", lambda *_: False)
    monkeypatch.setattr(snapshot_module, "BETWEEN_S", 0)
    with pytest.raises(DataDirError, match="change faster than they can be opened"), snapshot(storage.path):
        pass


def test_its_descriptors_are_closed_again(open_storage: OpenStorage) -> None:
    storage = open_storage()
    put(storage, 1)
    before = len(os.listdir("/proc/self/fd"))
    with snapshot(storage.path):
        assert len(os.listdir("/proc/self/fd")) > before
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_no_data_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataDirError, match="there is none"), snapshot(str(tmp_path / "none")):
        pass
    with pytest.raises(DataDirError, match="holds no queues"), snapshot(str(tmp_path)):
        pass


@pytest.mark.parametrize("found", [b"MANIFEST-0\n\0", b"\xff" * 16, b"MANIFEST-000099\n"])
def test_a_damaged_current_is_named(open_storage: OpenStorage, monkeypatch: pytest.MonkeyPatch, found: bytes) -> None:
    storage = open_storage()
    put(storage, 1)
    storage.close()
    (Path(storage.path) / "CURRENT").write_bytes(found)
    monkeypatch.setattr(snapshot_module, "BETWEEN_S", 0)
    with pytest.raises(DataDirError, match=r"CURRENT.*--repair saves what can be read"), snapshot(storage.path):
        pass
