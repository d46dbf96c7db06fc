"""Copies of a data directory at a moment, and back."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from darner_core.storage import backup
from darner_core.storage.storage import Storage
from tests.conftest import SMALL


def put(storage: Storage, key: bytes) -> None:
    storage.put(-2, key, b"x")


def keys(path: Path) -> list[bytes]:
    storage = Storage(str(path), **SMALL)
    try:
        return [key for key, _ in storage._rocks.scan(-2, b"test", b"tesu")]
    finally:
        storage.close()


def test_a_copy_has_what_was_written_at_the_look_and_nothing_later(
    open_storage: Callable[[], Storage], tmp_path: Path
) -> None:
    storage = open_storage()
    put(storage, b"test1")
    storage.flush()
    put(storage, b"test2")
    moment = backup.look(storage.path)
    put(storage, b"test3")
    assert moment is not None
    copied = backup.copy(storage.path, moment, str(tmp_path / "saved"))
    assert copied is not None
    assert copied.bytes > 0
    assert keys(tmp_path / "saved") == [b"test1", b"test2"]


def test_what_rocksdb_removed_since_the_look_is_missed(open_storage: Callable[[], Storage], tmp_path: Path) -> None:
    storage = open_storage()
    put(storage, b"test1")
    moment = backup.look(storage.path)
    assert moment is not None
    storage.flush()
    storage.close()
    open_storage().close()  # which removes the old log
    assert backup.copy(storage.path, moment, str(tmp_path / "saved")) is None
    assert not (tmp_path / "saved").exists()


def test_without_links_tables_are_copied(
    open_storage: Callable[[], Storage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: str) -> None:
        raise OSError(18, "another file system")

    monkeypatch.setattr(os, "link", no_links)
    storage = open_storage()
    put(storage, b"test1")
    storage.flush()
    moment = backup.look(storage.path)
    assert moment is not None
    assert backup.copy(storage.path, moment, str(tmp_path / "saved")) is not None
    assert keys(tmp_path / "saved") == [b"test1"]
