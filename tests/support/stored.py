"""Records in a data directory, for the tests of the storage."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from darner_core.errors import DataDirError
from darner_core.storage import records
from darner_core.storage.records import Blob, Item, QueueRecord, item_key
from darner_core.storage.storage import Storage
from tests.conftest import SMALL

OpenStorage = Callable[[], Storage]
JOBS = QueueRecord(number=7, family=1, created_at_ms=1)


def an_item(body: bytes | Blob) -> Item:
    return body, 3, 0, 1_000


def put_items(storage: Storage, queue: QueueRecord, *ids: int, body_bytes: int = 1) -> None:
    for item_id in ids:
        storage.put(queue.family, item_key(queue.number, item_id), records.pack_item(an_item(bytes(body_bytes))))


def ids(storage: Storage, queue: QueueRecord, from_id: int, to_id: int) -> list[int]:
    return [item_id for item_id, _ in storage.items(queue, from_id, to_id)]


def add_queue(storage: Storage, name: bytes, record: QueueRecord) -> None:
    batch = storage.batch()
    storage.add_queue(batch, name, record)
    storage.write(batch)


def disk_bytes(storage: Storage) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(storage.path))


def damage(directory: Path, pattern: str) -> None:
    """Invert some bytes in the middle of the largest file whose name matches `pattern`."""
    path = max(directory.glob(pattern), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 16] = bytes(byte ^ 0xFF for byte in data[middle : middle + 16])
    path.write_bytes(data)


def refusal(path: Path) -> str:
    """Why the directory is not opened."""
    with pytest.raises(DataDirError) as refused:
        Storage(str(path), **SMALL)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(f"data directory {path}: ")
    return str(refused.value).removeprefix(f"data directory {path}: ")
