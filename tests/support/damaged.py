"""A data directory with known items in every kind of file, and ways to damage it."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from darner_core.engines.local.journal import Journal
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.window import WindowBudget
from darner_core.storage.records import Blob
from darner_core.storage.storage import Storage
from tests.conftest import SMALL
from tests.support.harness import ROOT

NAMES = [b"a", b"b", b"c", b"d", b"e", b"f"]  # four have a column family of their own, two share
ITEMS = 400  # of each queue: half in tables, half in the write-ahead log
POPPED = 3
LARGE_EVERY, LARGE_BYTES, CHUNK_BYTES = 40, 9000, 4096


def body(name: bytes, number: int) -> bytes:
    """The body of item `number`, counted from 1, of this queue. No other item has the same."""
    size = LARGE_BYTES if number % LARGE_EVERY == 7 else 150
    return b"%b %d " % (name, number) + random.Random(f"{name!r} {number}").randbytes(size)


def make_directory(path: Path) -> None:
    """Make it as a server leaves it that is killed: half of the items are in the write-ahead log."""
    code = "import sys; from tests.support.damaged import fill; fill(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=True)


def fill(path: str) -> None:
    storage = Storage(path, **SMALL)
    journal = Journal(storage)
    registry = Registry(journal, WindowBudget(1 << 20))
    for number in range(1, ITEMS + 1):
        for name in NAMES:
            queue = registry.queues.get(name) or registry.create(name)
            data = body(name, number)
            if len(data) < LARGE_BYTES:
                queue.put(data, number, 0)
                continue
            blob = queue.large_items.start()
            for index, at in enumerate(range(0, len(data), CHUNK_BYTES)):
                storage.put_chunk(queue.log.record.number, blob, index, data[at : at + CHUNK_BYTES])
            queue.large_items.finish(blob)
            queue.put(Blob(blob, len(data)), number, 0)
        journal.commit()
        if number == ITEMS // 2:
            storage.flush()
    for queue in registry:
        for _ in range(POPPED):
            queue.take()
    journal.commit()
    os._exit(0)


def copy_of(base: Path, target: Path) -> Path:
    """Copy a data directory. It may be open: files may vanish meanwhile, which RocksDB deletes in the background."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for path in base.iterdir():
        with suppress(FileNotFoundError):
            shutil.copy2(path, target)
    return target


def turn_over(path: Path, offset: int, size: int = 4) -> None:
    """Turn over all bits of some bytes of a file."""
    data = bytearray(path.read_bytes())
    offset = min(offset, len(data) - 1)
    data[offset : offset + size] = bytes(byte ^ 0xFF for byte in data[offset : offset + size])
    path.write_bytes(data)


def bodies(storage: Storage, name: bytes) -> Iterator[tuple[int, bytes]]:
    """(flags, body) of what is stored of a queue from its head on. Raises StorageError."""
    record = dict(storage.queues())[name]
    for _, (data, flags, *_) in storage.items(record, storage.state(record).first, 2**63):
        if isinstance(data, Blob):
            whole = b""
            while len(whole) < len(data):
                whole += storage.chunk(record.number, data.blob, -(-len(whole) // CHUNK_BYTES))
            yield flags, whole
        else:
            yield flags, data
