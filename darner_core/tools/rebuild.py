"""A directory that RocksDB cannot open, made again from its table files and its write-ahead log.

RocksDB makes a new list of the table files that it can read, in a copy that shares them. Then the changes in the
write-ahead log are applied. The result may lack items, because RocksDB leaves out the whole of a table with a damaged
block. It may have items that were removed, because RocksDB also takes obsolete tables, which a kill leaves behind.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from struct import error as struct_error
from typing import Any

from darner_core.errors import DataDirError, StorageError
from darner_core.storage import job_records, manifest, opening, records, wal
from darner_core.storage.rocks import ASIDE_FAMILY, JOB_FAMILY, KEY_FAMILY, ORDER_FAMILY, STATE_FAMILY
from darner_core.storage.storage import CHUNK_FAMILY, DEFAULT_FAMILY, Storage
from darner_core.tools.salvage import Salvaged

BATCH_BYTES = 1 << 20
SETTINGS: dict[str, Any] = {
    "block_cache_bytes": 8 << 20,
    "write_buffer_bytes": 32 << 20,
    "max_wal_bytes": 64 << 20,
    "max_open_files": 128,
}

# By the lengths of their keys: the column families that are not queues', but for that of items set aside.
FAMILIES = {
    records.CHUNK_KEY_BYTES: CHUNK_FAMILY,
    job_records.JOB_KEY_BYTES: JOB_FAMILY,
    job_records.KEY_KEY_BYTES: KEY_FAMILY,
    job_records.ORDER_KEY_BYTES: ORDER_FAMILY,
    job_records.STATE_KEY_BYTES: STATE_FAMILY,
    job_records.FLUSH_KEY_BYTES: STATE_FAMILY,
}

NOT_COPIED = (records.DAMAGE_FILE, records.RUNNING_FILE)


def rebuild(path: str, rebuilt: str, families: int, log_folder: str) -> None:
    """Make the database `rebuilt` from the tables and the write-ahead log of `path` alone. Raises DataDirError,
    StorageError or OSError."""
    try:
        share(path, rebuilt)
        for name in wal.files(rebuilt):
            os.unlink(os.path.join(rebuilt, name))
        opening.rebuild(rebuilt)
        with opened(rebuilt, families):
            pass  # makes the column families, and compacts: nothing else can read the directory meanwhile
        family_of = _families_in_tables(rebuilt, log_folder)
        with opened(rebuilt, families) as storage:
            _replay(path, storage, family_of)
    except (DataDirError, StorageError, OSError):
        raise
    except Exception as error:  # RocksDB's
        raise DataDirError(f"data directory {path}: cannot be rebuilt: {opening.file_named(error)}") from error


def share(path: str, copy: str) -> None:
    """Copy a database. Table files, which are never changed, are linked if the file system can."""
    shutil.rmtree(copy, ignore_errors=True)
    os.mkdir(copy, 0o700)
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
                    yield from wal.operations(write.data)


def _families_in_tables(rebuilt: str, log_folder: str) -> dict[int, int]:
    """The column family of each queue that has records in tables, by the queue's number."""
    with closing(Salvaged(rebuilt, log_folder)) as directory:
        return {number: family for family, cf in enumerate(directory.families) for number in directory.numbers(cf)}


def _replay(path: str, storage: Storage, family_of: dict[int, int]) -> None:
    """Apply the write-ahead log of the directory `path`. The log names column families by numbers that nothing explains
    any more. But the length of a key says whether it is a chunk's, and the family of a queue is known from its records
    in tables or from the record that lists the queue."""
    for what, family, key, value in _changes(path):
        with suppress(ValueError, struct_error):  # one that makes no sense is told of later, and tells nothing here
            if family == 0 and what == wal.PUT and key.startswith((records.QUEUE_PREFIX, records.CURSOR_PREFIX)):
                record = records.unpack_queue(value)
                family_of.setdefault(record.number, record.family)
            elif family == 0 and what == wal.PUT and key.startswith(job_records.ASIDE_PREFIX):
                family_of[job_records.unpack_aside(value).number] = ASIDE_FAMILY
    with suppress(StorageError):
        listed = [record for _, record in storage.queues()] + [record for _, _, record in storage.cursors()]
        for record in listed:
            family_of.setdefault(record.number, record.family)
        family_of.update((record.number, ASIDE_FAMILY) for _, record in storage.jobs.asides())
    batch, size = storage.batch(), 0
    for what, family, key, value in _changes(path):
        if family == 0:
            handle = storage.handles[DEFAULT_FAMILY]
        elif len(key) in FAMILIES:
            handle = storage.handles[FAMILIES[len(key)]]
        else:
            of_queue = family_of.get(int.from_bytes(key[:4]), family)
            handle = storage.handles[of_queue if of_queue == ASIDE_FAMILY else of_queue % len(storage.families)]
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


def manifest_is_cut(path: str) -> bool:
    """Whether the MANIFEST ends in the middle of a record."""
    try:
        return manifest.read(path).cut_at is not None
    except manifest.Damaged:
        return True


@contextmanager
def opened(path: str, families: int) -> Iterator[Storage]:
    storage = Storage(path, max_column_families=families, **SETTINGS)
    try:
        yield storage
    except BaseException:
        with suppress(StorageError):  # the error that is raised already is the cause
            storage.close()
        raise
    storage.close()
