"""`--repair`: save what can be read of a damaged data directory, and say what is dropped.

The damaged directory is only read. What can be read of it is written to a new one beside it, queue by queue, in order:
items with their flags, expiry and time, open ones as waiting. When that is on disk the two change places by renaming,
and the old one is kept as DATA.damaged-<time>. If anything fails, the old one stands where it stood.

If RocksDB cannot open the directory, it is rebuilt first, in a copy that shares the table files: RocksDB makes a new
list of those, and the write-ahead log is applied to them from its files.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress

from darner_core import database, records, wal
from darner_core.check import WHOLE, Counts, Named, Say, directory_bytes, examine, find_queues, read_queue
from darner_core.errors import DataDirError, StorageError
from darner_core.progress import Progress
from darner_core.records import Blob, Item, QueueRecord, item_key
from darner_core.salvage import Directory, lock
from darner_core.storage import CHUNK_FAMILY, Batch, Storage

BATCH_BYTES = 1 << 20
SETTINGS = {
    "block_cache_bytes": 8 << 20,
    "write_buffer_bytes": 32 << 20,
    "max_wal_bytes": 64 << 20,
    "max_open_files": 128,
}

NOT_COPIED = (records.DAMAGE_FILE, records.RUNNING_FILE)

DROPPED = 1  # exit status: repaired, but not all could be saved


def repair(path: str, max_column_families: int, say: Say, progress: Progress) -> int:
    """Repair the directory `path`; the exit status. Raises DataDirError, and has changed nothing then."""
    path = os.path.realpath(path)
    log_damaged = False

    def say_and_note(finding: str) -> None:
        nonlocal log_damaged
        log_damaged = log_damaged or finding.startswith(wal.FINDING)
        say(finding)

    with lock(path):
        try:
            if examine(path, say_and_note, progress) == WHOLE:
                say("nothing to repair")
                return WHOLE
        except DataDirError as error:
            if not os.path.exists(os.path.join(path, "IDENTITY")) and not wal.files(path):
                raise
            say(str(error))
        stamp = _free_stamp(path)
        made, rebuilt = f"{path}.repaired-{stamp}", f"{path}.rebuilt-{stamp}"
        try:
            with tempfile.TemporaryDirectory() as log_folder:
                source = _open_source(path, rebuilt, log_folder, max_column_families, say)
                try:
                    status = _Copy(source, made, max_column_families, say, progress).run(directory_bytes(path))
                finally:
                    source.close()
        except BaseException as error:
            shutil.rmtree(made, ignore_errors=True)
            if isinstance(error, (StorageError, OSError)):
                raise DataDirError(f"data directory {path}: not repaired, and not changed: {error}") from error
            raise
        finally:
            shutil.rmtree(rebuilt, ignore_errors=True)
    _exchange(path, made, f"{path}.damaged-{stamp}", say)
    if log_damaged:
        say("writes in the unreadable part of the write-ahead log are lost, too; nothing tells whose they were")
        return DROPPED
    return status


def _free_stamp(path: str) -> str:
    """The time, for the names of the directories that come to stand beside `path`; with a number if it was used."""
    now = stamp = time.strftime("%Y%m%d-%H%M%S")
    number = 1
    while any(os.path.exists(f"{path}.{what}-{stamp}") for what in ("damaged", "repaired", "rebuilt")):
        number += 1
        stamp = f"{now}-{number}"
    return stamp


def _exchange(path: str, made: str, kept: str, say: Say) -> None:
    try:
        os.rename(path, kept)
        os.rename(made, path)
    except OSError as error:
        if os.path.exists(kept) and not os.path.exists(path):
            os.rename(kept, path)
        raise DataDirError(
            f"data directory {path}: repaired as {made}, which cannot take its place: {error.strerror}"
        ) from error
    _sync_folder(os.path.dirname(path))
    say(f"{path} is repaired; the damaged directory is kept as {kept}")


def _sync_folder(path: str) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


# -- a directory that RocksDB cannot open


def _open_source(path: str, rebuilt: str, log_folder: str, families: int, say: Say) -> Directory:
    """The damaged directory, or what could be rebuilt of it if RocksDB does not open it with all its table files."""
    with suppress(Exception):
        directory = Directory(path, log_folder)
        if not directory.unlisted_tables():
            return directory
        directory.close()
    say("RocksDB does not open all of it: rebuilding")
    try:
        for manifest in sorted((name for name in os.listdir(path) if name.startswith("MANIFEST-")), reverse=True):
            _share(path, rebuilt)  # only CURRENT may be damaged
            with open(os.path.join(rebuilt, "CURRENT"), "w") as file:
                file.write(f"{manifest}\n")
            with suppress(Exception):
                directory = Directory(rebuilt, log_folder)
                if not directory.unlisted_tables():
                    return directory
                directory.close()
        _share(path, rebuilt)
        for name in wal.files(rebuilt):
            os.unlink(os.path.join(rebuilt, name))
        database.rebuild(rebuilt)
        storage = Storage(rebuilt, max_column_families=families, **SETTINGS)
        try:
            _replay(path, storage, _families_in_tables(rebuilt, log_folder))
        finally:
            storage.close()
        return Directory(rebuilt, log_folder)
    except (DataDirError, StorageError):
        raise
    except Exception as error:  # RocksDB's
        raise DataDirError(f"data directory {path}: cannot be rebuilt: {database.file_named(error)}") from error


def _share(path: str, copy: str) -> None:
    """Copy a database; its table files, which are never changed, only by name if the file system can."""
    shutil.rmtree(copy, ignore_errors=True)
    os.mkdir(copy)
    for name in os.listdir(path):
        source, target = os.path.join(path, name), os.path.join(copy, name)
        if not os.path.isfile(source) or name.startswith(("LOG", "LOCK")) or name in NOT_COPIED:
            continue
        if name.endswith(".sst"):
            with suppress(OSError):
                os.link(source, target)
                continue
        shutil.copyfile(source, target)
    with open(os.path.join(copy, records.FORMAT_FILE), "wb") as file:
        file.write(records.FORMAT)


def _changes(path: str) -> Iterator[tuple[str, int, bytes, bytes]]:
    for name in wal.files(path):
        for write in wal.writes(os.path.join(path, name)):
            if not isinstance(write, wal.Bad):
                with suppress(ValueError, IndexError):
                    yield from wal.operations(write[1])


def _families_in_tables(rebuilt: str, log_folder: str) -> dict[int, int]:
    """By queue number, the column family that its records lie in."""
    directory = Directory(rebuilt, log_folder)
    try:
        return {number: family for family, cf in enumerate(directory.families) for number in directory.numbers(cf)}
    finally:
        directory.close()


def _replay(path: str, storage: Storage, family_of: dict[int, int]) -> None:
    """Apply the write-ahead log of the directory `path`. Which number a column family had there nobody knows any more,
    but a key's length says what it is, and a queue's records, or the record of the queue, which family it is in."""
    for what, family, key, value in _changes(path):
        if family == 0 and what == wal.PUT and key.startswith(records.QUEUE_PREFIX):
            record = records.unpack_queue(value)
            family_of.setdefault(record.number, record.family)
    with suppress(StorageError):
        for _, record in storage.queues():
            family_of.setdefault(record.number, record.family)
    batch, size = storage.batch(), 0
    for what, family, key, value in _changes(path):
        if family == 0:
            handle = storage.handle(None)
        elif len(key) == records.CHUNK_KEY_BYTES:
            handle = storage.handle(CHUNK_FAMILY)
        else:
            handle = storage.handle(family_of.get(int.from_bytes(key[:4]), family) % len(storage.families))
        if what == wal.PUT:
            batch.put(key, value, handle)
        elif what == wal.DELETE:
            batch.delete(key, handle)
        else:
            batch.delete_range(key, value, handle)
        size += len(key) + len(value)
        if size > BATCH_BYTES:
            storage.write(batch)
            batch, size = storage.batch(), 0
    storage.write(batch)


# -- saving


class _Copy:
    """What can be read of `source`, as a new data directory."""

    def __init__(self, source: Directory, made: str, families: int, say: Say, progress: Progress) -> None:
        self._source = source
        self._say = say
        self._progress = progress
        families = max(families, len(source.families))
        self._storage = Storage(made, max_column_families=families, **SETTINGS)
        self._batch: Batch = self._storage.batch()
        self._batched = 0
        self._names: set[bytes] = set()

    def run(self, total_bytes: int) -> int:
        """Copy all of it; the exit status."""
        told: list[str] = []
        total = Counts()
        self._progress.begin("saving", total_bytes)
        try:
            queues = list(find_queues(self._source, told.append))
            self._names = {named.name for named in queues if not named.lost}
            for number, named in enumerate(queues, 1):
                total.add(self._queue(number, named))
            self._flush()
            self._storage.flush()
            self._storage.sync()
        finally:
            self._storage.close()
        self._progress.end()
        self._say(f"saved {len(queues)} queues, {total.items} items, {total.bytes} bytes; {total.lost} items dropped")
        return DROPPED if total.lost else WHOLE

    def _queue(self, number: int, named: Named) -> Counts:
        name = named.name
        while named.lost and name in self._names:
            name += b"-"
        self._names.add(name)
        record = QueueRecord(number, named.record.family, named.record.created_at_ms or int(time.time() * 1000))
        self._storage.add_queue(self._batch, name, record)
        counts = Counts()
        dropped: list[str] = []
        tail, blobs = records.FIRST_ID, 0
        for item_id, item in read_queue(self._source, named, dropped.append, counts):
            body = item[0]
            if isinstance(body, Blob):
                blobs += 1
                why = self._blob(named.record.number, body, number, blobs)
                if why:
                    counts.lost += 1
                    dropped.append(f"{named.shown}: large item {item_id}: {why}")
                    continue
                item = (Blob(blobs, len(body)), *item[1:])
            self._item(record, tail, item)
            tail += 1
            counts.items += 1
            counts.bytes += len(body)
        state = records.pack_state(records.FIRST_ID, records.FIRST_ID, tail, counts.bytes, records.FIRST_ID)
        self._put(record.family, item_key(number, records.STATE_ID), state)
        self._progress.end()
        if dropped or named.lost:
            shown = Named(name, record).shown
            self._say(f"{shown}: {counts.items} items saved, {counts.lost} dropped")
        return counts

    def _item(self, record: QueueRecord, item_id: int, item: Item) -> None:
        value = records.pack_item(item)
        self._put(record.family, item_key(record.number, item_id), value)
        self._progress.add(records.ITEM_KEY_BYTES + len(value))

    def _blob(self, from_number: int, body: Blob, number: int, blob: int) -> str:
        """Copy the chunks of a large item, all or none; why not."""
        try:
            for index, chunk in enumerate(self._source.blob_chunks(from_number, body)):
                self._put(CHUNK_FAMILY, records.chunk_key(number, blob, index), chunk)
                self._progress.add(len(chunk))
        except ValueError as error:
            self._storage.remove_blobs(self._batch, number, blob, blob + 1)
            return str(error)
        return ""

    def _put(self, family: int, key: bytes, value: bytes) -> None:
        self._batch.put(key, value, self._storage.handle(family))
        self._batched += len(key) + len(value)
        if self._batched > BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._storage.write(self._batch)
        self._batch, self._batched = self._storage.batch(), 0
