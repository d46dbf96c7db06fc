"""A backup becomes a data directory again, or nothing is left."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from darner_core.errors import StorageError
from darner_core.storage import backup
from darner_core.storage.storage import Storage
from darner_core.tools import restore
from tests.storage.test_backup import keys, put


def saved(open_storage: Callable[[], Storage], to: Path) -> Path:
    storage = open_storage()
    put(storage, b"test1")
    moment = backup.look(storage.path)
    assert moment is not None
    assert backup.copy(storage.path, moment, str(to)) is not None
    return to


def test_it_is_restored_into_an_empty_directory_only(open_storage: Callable[[], Storage], tmp_path: Path) -> None:
    there = saved(open_storage, tmp_path / "saved")
    told: list[tuple[int, int]] = []
    copied = restore.restore(str(there), str(tmp_path / "new"), lambda done, total: told.append((done, total)))
    assert told[-1] == (copied.bytes, copied.bytes)
    assert keys(tmp_path / "new") == [b"test1"]
    with pytest.raises(StorageError, match="not empty"):
        restore.restore(str(there), str(tmp_path / "new"), lambda done, total: None)


def test_what_is_no_backup_is_refused(open_storage: Callable[[], Storage], tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no backup"):
        restore.restore(str(tmp_path), str(tmp_path / "new"), lambda done, total: None)
    storage = open_storage()
    with pytest.raises(StorageError, match="data directory of a server"):
        restore.restore(storage.path, str(tmp_path / "new"), lambda done, total: None)
    assert not (tmp_path / "new").exists()


def test_a_restore_that_fails_leaves_nothing(
    open_storage: Callable[[], Storage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = saved(open_storage, tmp_path / "saved")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(restore, "write_copy", full)
    with pytest.raises(StorageError, match="No space left"):
        restore.restore(str(there), str(tmp_path / "new"), lambda done, total: None)
    assert os.listdir(tmp_path / "new") == []
