"""A data directory with items in lines and set aside from them, half of each in tables and half in the write-ahead log,
and what can be found in such a directory."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from darner_core.engines.local import aside_failures, aside_keys
from darner_core.engines.local.aside import Aside
from darner_core.engines.local.asides import Asides
from darner_core.engines.local.job_rules import JobRules
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.window import WindowBudget
from darner_core.storage import job_records, opening, records
from darner_core.storage.job_records import BURIED, DELAYED, READY, WINDOW, Job
from darner_core.storage.records import Blob
from darner_core.storage.storage import Storage
from darner_core.tools.salvage import Salvaged
from tests.conftest import SMALL
from tests.support.asides import Noted, in_order
from tests.support.damaged import CHUNK_BYTES, LARGE_BYTES, body
from tests.support.harness import ROOT

NAMES = [b"m", b"n"]
ITEMS = 320  # of each queue
FIRST_NUMBER = 1000  # of an aside
KEY_BYTES = {
    opening.ASIDES: records.ITEM_KEY_BYTES,
    opening.JOBS: job_records.JOB_KEY_BYTES,
    opening.ORDER: job_records.ORDER_KEY_BYTES,
    opening.KEYS: job_records.KEY_KEY_BYTES,
    opening.STATES: job_records.STATE_KEY_BYTES,
}
FAR_MS = 10**14  # when delayed items are due, but for a few ms


class Opened:
    """A data directory with its queues and asides."""

    def __init__(self, path: Path | str) -> None:
        self.storage = Storage(str(path), **SMALL)
        self.journal = Journal(self.storage)
        self.registry = Registry(self.journal, WindowBudget(1 << 20))
        numbers = iter(range(FIRST_NUMBER, 9999))
        self.asides = Asides(self.journal, lambda: next(numbers), Noted(), lambda queue: JobRules(unique_ms=10**12))
        self.asides.read_back(self.registry.queues)

    def aside(self, name: bytes) -> Aside:
        return self.asides.by_queue[self.registry.queues[name]]


@contextmanager
def opened(path: Path | str) -> Iterator[Opened]:
    found = Opened(path)
    try:
        yield found
    finally:
        found.storage.close()


def make_directory(path: Path) -> None:
    """Make it as a server leaves it that is killed."""
    code = "import sys; from tests.support.damaged_asides import fill; fill(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=True)


def fill(path: str) -> None:
    engine = Opened(path)
    journal = engine.journal
    for number in range(1, ITEMS + 1):
        for name in NAMES:
            queue = engine.registry.queues.get(name) or engine.registry.create(name)
            put(engine, queue, engine.asides.of(queue), number)
        journal.commit()
        journal.begin()
        if number == ITEMS // 2:
            engine.storage.flush()
    os._exit(0)


def put(engine: Opened, queue: MessageQueue, aside: Aside, number: int) -> None:
    """Put item `number`, whose number says what becomes of it."""
    data: bytes | Blob = body(queue.name, number)
    if len(data) >= LARGE_BYTES or number % 40 in (11, 21):  # also some that are delayed or buried
        data = upload(engine.storage, queue, data)  # type: ignore[arg-type]
    place, kind = 2 * queue.tail, number % 8
    if kind <= 1:
        queue.put(data, number, 0)
    elif kind == 2:
        aside.put(data, number, 0, 512, place, 0, 60_000)
    elif kind == 3:
        aside.adopt(aside.new_id, (data, number, 0, 1), Job(DELAYED, 1024, place, FAR_MS - number))
        aside.new_id += 1
    elif kind == 4:
        aside.put(data, number, 0, 1024, place, 0, 0, b"key %d" % number)
    elif kind == 5:
        aside.put(data, number, 0, 0, place)
        read = aside.open()
        assert read is not None
        aside_failures.bury(aside, read)
    elif kind == 6:
        aside.put(b"gone", number, 0, 0, place, 0, 0, b"gone %d" % number)
        aside.take()
        aside.put(data, number, 0, 1024, place)
    else:  # one of the line that has failed: it leaves the middle of the line
        queue.put(data, number, 0)
        read = queue.open()
        assert read is not None
        item = queue.item_of(read)
        read.blob = 0  # its chunks stay
        queue.close(read)
        aside.adopt(read.id, item, Job(READY, 1024, 2 * read.id + 1, nacks=1))


def upload(storage: Storage, queue: MessageQueue, data: bytes) -> Blob:
    blob = queue.large_items.start()
    for index, at in enumerate(range(0, len(data), CHUNK_BYTES)):
        storage.put_chunk(queue.log.record.number, blob, index, data[at : at + CHUNK_BYTES])
    queue.large_items.finish(blob)
    return Blob(blob, len(data))


class Found(NamedTuple):
    """What a queue holds, by the items' flags."""

    merged: list[int]  # the line, and what is ready, in the order in which they would go out
    delayed: list[int]
    buried: list[int]
    keys: dict[bytes, int]
    windows: list[bytes]

    @property
    def all(self) -> list[int]:
        return [*self.merged, *self.delayed, *self.buried]


def look(engine: Opened, name: bytes) -> Found:
    """Raises StorageError."""
    queue = engine.registry.queues[name]
    storage, record = engine.storage, queue.log.record
    places: list[tuple[Any, int]] = []

    def flags_of(item: Any) -> int:
        data, flags = item[0], item[1]
        if isinstance(data, Blob):
            count = -(-len(data) // CHUNK_BYTES)
            data = b"".join(storage.chunk(record.number, data.blob, index) for index in range(count))
        assert data == body(name, flags), f"{name!r}: what is served was never put into it"
        return int(flags)

    for item_id, item in storage.items(record, storage.state(record).first, records.MAX_ID):
        places.append(((1024, 2 * item_id + 1, item_id), flags_of(item)))
    if queue not in engine.asides.by_queue:
        return Found([flags for _, flags in sorted(places)], [], [], {}, [])
    aside = engine.asides.by_queue[queue]
    of = {kind: [flags_of(aside.log.item(i)) for i in in_order(aside.orders[kind])] for kind in (DELAYED, BURIED)}
    keys = {}
    for item_id in [item_id for order in aside.orders[:WINDOW] for item_id in in_order(order)]:
        job = aside.job(item_id)
        if job.key:
            assert aside_keys.owner(aside, job.key) == item_id
            keys[job.key] = flags_of(aside.log.item(item_id))
    place = aside.ready.first()
    while place is not None:
        places.append((place, flags_of(aside.log.item(place[2]))))
        place = aside.ready.next_behind(place)
    windows = []
    place = aside.key_windows.first()
    while place is not None:
        key = aside.log.at_place(WINDOW, place)
        assert key is not None
        assert aside_keys.owner(aside, key) == place[2]
        windows.append(key)
        place = aside.key_windows.next_behind(place)
    return Found([flags for _, flags in sorted(places)], of[DELAYED], of[BURIED], keys, sorted(windows))


def aside_keys_of(engine: Opened, name: bytes) -> dict[int, bytes]:
    """By the flags of items that are set aside and not large, the keys of their records."""
    aside = engine.aside(name)
    found = {}
    for order in aside.orders[:WINDOW]:
        for item_id in in_order(order):
            data, flags, *_ = aside.log.item(item_id)
            if not isinstance(data, Blob):
                found[flags] = records.item_key(aside.record.number, item_id)
    return found


def readable(directory: Path, keys: dict[int, bytes], log_folder: Path) -> set[int]:
    """Which of these records can be read, as one look-up each tells; none if RocksDB cannot open the directory."""
    try:
        source = Salvaged(str(directory), str(log_folder))
    except Exception:
        return set()
    found = set()
    for flags, key in keys.items():
        with suppress(Exception):
            if source.aside_tables[opening.ASIDES].get(key) is not None:
                found.add(flags)
    source.close()
    return found


def table_of(directory: Path, family: str) -> Path:
    """The table of a column family of what is set aside, as the form of its keys tells."""
    with tempfile.TemporaryDirectory() as folder:
        source = Salvaged(str(directory), folder)
        files = source.default.live_files()
        source.close()
    key_bytes = KEY_BYTES[family]
    (name,) = [
        str(file["name"])
        for file in files
        if len(file["start_key"]) == key_bytes and int.from_bytes(file["start_key"][:4]) >= FIRST_NUMBER
    ]
    return directory / name.lstrip("/")
