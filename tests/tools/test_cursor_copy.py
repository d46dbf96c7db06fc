"""Cursors in a repaired directory: their places, and what was open there."""

import os
from pathlib import Path

import pytest

from darner_core.engines.local.journal import Journal
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.window import WindowBudget
from darner_core.storage.storage import Storage
from tests.conftest import SMALL
from tests.engines.local.test_message_queue import put_large, whole_body
from tests.tools.test_repair import run


class Opened:
    def __init__(self, directory: Path) -> None:
        self.storage = Storage(str(directory), **SMALL)
        self.journal = Journal(self.storage)
        self.registry = Registry(self.journal, WindowBudget(1 << 20))

    def close(self) -> None:
        self.journal.commit()
        self.storage.sync()
        self.storage.note_synced()
        self.storage.close()

    def read_all(self, name: bytes) -> list[bytes]:
        queue = self.registry.queues[b"q"]
        cursor = self.registry.cursors.of(queue, name)
        bodies = []
        while (read := cursor.open()) is not None:
            bodies.append(whole_body(queue, cursor.item_of(read)[0]))
            cursor.close(read)
        return bodies


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Of ten items the cursors are past some; the queue's own consumer has taken three; two more are large."""
    opened = Opened(tmp_path / "data")
    queue = opened.registry.create(b"q")
    for number in range(8):
        queue.put(b"%d" % number, 0, 0)
    for number in range(8, 10):
        put_large(queue, b"%d" % number * 500)
    opened.registry.create(b"other").put(b"x", 0, 0)
    opened.journal.commit()
    cursors = {name: opened.registry.cursors.of(queue, name) for name in (b"begun", b"behind", b"open", b"large")}
    for _ in range(5):
        cursors[b"begun"].take()
    reads = [cursors[b"open"].open() for _ in range(7)]
    for index in (0, 3, 6):
        read = reads[index]
        assert read is not None
        cursors[b"open"].close(read)
    large = [cursors[b"large"].open() for _ in range(9)]
    for index in range(8):
        read = large[index]
        assert read is not None
        cursors[b"large"].close(read)
    for _ in range(3):
        queue.take()
    opened.journal.commit()
    ninth = [queue.open() for _ in range(6)][-1]
    assert ninth is not None
    queue.close(ninth)
    opened.close()
    return tmp_path / "data"


def test_a_directory_with_cursors_is_whole(directory: Path) -> None:
    checked = run(directory, "--check")
    assert checked.stdout.splitlines() == [checked.stdout.strip()]
    assert checked.stdout.startswith("whole: 2 queues")


def test_cursors_are_saved(directory: Path) -> None:
    (directory / "FORMAT").write_bytes(b"damaged\0")
    repaired = run(directory)
    assert repaired.returncode == 0
    assert run(directory, "--check").stdout.startswith("whole: 2 queues")
    assert len(os.listdir(directory.parent)) == 2
    opened = Opened(directory)
    last = b"9" * 500
    assert opened.read_all(b"begun") == [b"5", b"6", b"7", last]
    assert opened.read_all(b"behind") == [b"3", b"4", b"5", b"6", b"7", last]
    assert opened.read_all(b"open") == [b"1", b"2", b"4", b"5", b"7", last]
    assert opened.read_all(b"large") == [b"8" * 500, last]
    opened.registry.queues[b"q"].flush()
    opened.journal.commit()
    assert opened.storage.first_chunk() is None
    opened.close()


def test_a_cursor_that_cannot_be_read_begins_again(directory: Path) -> None:
    storage = Storage(str(directory), **SMALL)
    record = {name: record for _, name, record in storage.cursors()}[b"begun"]
    storage.put(record.family, record.number.to_bytes(4) + bytes(8), b"short")
    storage.close()
    checked = run(directory, "--check").stdout
    assert "cursor q.begun: its state cannot be read" in checked
    assert "cursor q.begun: it begins again at the head of its queue" in run(directory).stdout
    opened = Opened(directory)
    assert opened.read_all(b"begun")[:2] == [b"3", b"4"]
    opened.close()
