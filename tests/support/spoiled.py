"""Random data directories, as kill -9 leaves them, and six ways to spoil each of their files."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from darner_core.engines.local.journal import Journal
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.window import WindowBudget
from darner_core.storage.records import Blob
from darner_core.storage.storage import Storage
from tests.conftest import SMALL
from tests.support.damaged import CHUNK_BYTES, NAMES, body
from tests.support.harness import ROOT

FAR_MS = 4_000_000_000_000
TURNS = 150


def make_random(path: Path, seed: int) -> None:
    code = "import sys; from tests.support.spoiled import fill; fill(sys.argv[1], int(sys.argv[2]))"
    subprocess.run([sys.executable, "-c", code, str(path), str(seed)], cwd=ROOT, check=True)


def fill(path: str, seed: int) -> None:
    """Put, take, read by cursors, expire, flush, compact and restart at random; then end as kill -9 does."""
    chance = random.Random(seed)
    numbers = dict.fromkeys(NAMES, 0)
    for is_last in (*[False] * chance.randrange(3), True):
        storage = Storage(path, **SMALL)
        journal = Journal(storage)
        registry = Registry(journal, WindowBudget(1 << 20))
        for _ in range(TURNS):
            for name in chance.sample(NAMES, chance.randrange(1, 4)):
                queue = registry.queues.get(name) or registry.create(name)
                for _ in range(chance.randrange(4)):
                    numbers[name] += 1
                    data = body(name, numbers[name])
                    put = queue.put_until if chance.random() < 0.1 else queue.put
                    expires_at_ms = FAR_MS + numbers[name] if put == queue.put_until else 0
                    if len(data) < 2 * CHUNK_BYTES:
                        put(data, numbers[name], expires_at_ms)
                        continue
                    blob = queue.large_items.start()
                    for index, at in enumerate(range(0, len(data), CHUNK_BYTES)):
                        storage.put_chunk(queue.log.record.number, blob, index, data[at : at + CHUNK_BYTES])
                    queue.large_items.finish(blob)
                    put(Blob(blob, len(data)), numbers[name], expires_at_ms)
                if chance.random() < 0.3:
                    queue.take()
                if chance.random() < 0.1:
                    registry.cursors.of(queue, b"seen").take()
            journal.commit()
            if chance.random() < 0.02:
                storage.flush()
            elif chance.random() < 0.02:  # begins a log while the one before it is needed
                storage.families[chance.randrange(4)].flush(True)
            elif chance.random() < 0.01:
                storage.compact(0, b"", b"\xff" * 12)
        if is_last:
            os._exit(0)
        storage.close()


def _flipped(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) or 1)
    return data[:at] + bytes(byte ^ 1 << chance.randrange(8) for byte in data[at : at + 1]) + data[at + 1 :]


def _zeroed(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(0, len(data) or 1, 4096)
    return data[:at] + bytes(len(data[at : at + 4096])) + data[at + 4096 :]


WAYS: dict[str, Callable[[bytes, random.Random], bytes | None]] = {
    "removed": lambda data, chance: None,
    "emptied": lambda data, chance: b"",
    "cut": lambda data, chance: data[: len(data) // 2],
    "flipped": _flipped,
    "zeroed": _zeroed,
    "appended to": lambda data, chance: data + chance.randbytes(chance.choice((10, 5000, 70_000))),
}


def spoil(file: Path, way: str, chance: random.Random) -> bool:
    """Whether it is another file now."""
    before = file.read_bytes()
    after = WAYS[way](before, chance)
    if after is None:
        file.unlink()
    else:
        file.write_bytes(after)
    return after != before
