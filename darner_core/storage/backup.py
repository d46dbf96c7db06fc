"""A copy of a data directory while a server writes in it, as the directory was at one moment.

RocksDB never changes what it has written: tables are complete when the MANIFEST lists them, and logs and the MANIFEST
only grow. So a moment is given by three things, and a copy of it is the MANIFEST and the logs up to their sizes then,
and the tables that this MANIFEST lists. What RocksDB removes meanwhile is missed, and the copy is begun anew.

`look` has to be called in the thread that writes, between two writes, and takes well under a millisecond. `copy` is for
another thread. RocksDB's own checkpoint was tried: rocksdict (0.3.29) keeps the interpreter for itself while it makes
one, which took 50 ms for every 20 MB that were not in a table yet, and all clients would wait for so long.

On the same file system tables are hard links, so that a backup takes no room until the server removes them.
"""

import errno
import os
import shutil
from contextlib import ExitStack, suppress
from typing import IO, NamedTuple

from darner_core import files
from darner_core.errors import StorageError
from darner_core.operating_system import raise_descriptor_limit
from darner_core.storage import manifest, records, wal

# Beside tables, logs and the MANIFEST. All are small.
_SMALL = (records.FORMAT_FILE, records.DAMAGE_FILE, "IDENTITY", "rocksdict-config.json")

_SPARE_DESCRIPTORS = 256
_COPIED_BYTES = 1 << 20  # at once
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS)


class Moment(NamedTuple):
    manifest: str
    manifest_bytes: int
    logs: dict[str, int]  # bytes of each


class Copied(NamedTuple):
    files: int
    bytes: int


def look(path: str) -> Moment | None:
    """The moment that is now; None: files come and go just now. Raises StorageError."""
    try:
        with open(os.path.join(path, manifest.CURRENT)) as current:
            name = current.read().strip()
        logs = {log: os.path.getsize(os.path.join(path, log)) for log in wal.files(path)}
        return Moment(name, os.path.getsize(os.path.join(path, name)), logs)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"data directory {path}: {error.strerror}") from error


def copy(path: str, moment: Moment, target: str) -> Copied | None:
    """Make `target`, which must not exist, a data directory as `path` was at that moment, and have it on the disk.
    None: files that belong to it are gone; there is no `target` then. Raises StorageError."""
    made = False
    try:
        os.mkdir(target, 0o700)
        made = True
        copied = _copy(path, moment, target)
    except FileNotFoundError as error:
        if not made:
            raise StorageError(f"{target}: {error.strerror}") from error
        copied = None
    except manifest.Damaged:
        copied = None  # its last record was being written
    except OSError as error:
        if made:
            shutil.rmtree(target, ignore_errors=True)
        raise StorageError(f"{target}: {error.strerror}") from error
    if copied is None:
        shutil.rmtree(target, ignore_errors=True)
    return copied


def _copy(path: str, moment: Moment, target: str) -> Copied | None:
    with ExitStack() as opened:

        def open_file(name: str) -> IO[bytes]:
            return opened.enter_context(open(os.path.join(path, name), "rb"))

        size = write_copy(open_file(moment.manifest), target, moment.manifest, moment.manifest_bytes)
        current = f"{moment.manifest}\n".encode()
        files.write_atomically(os.path.join(target, manifest.CURRENT), current)
        size += len(current)
        found = manifest.read(target)
        if found.cut_at is not None:
            return None
        # All are opened before any is copied: what is open stays readable when RocksDB removes it.
        needed = {log: size for log, size in moment.logs.items() if wal.number_of(log) >= found.first_log}
        raise_descriptor_limit(len(found.tables) + len(needed) + _SPARE_DESCRIPTORS)
        logs = {log: open_file(log) for log in needed}
        tables = {table: open_file(table) for table in found.tables}
        for table, file in tables.items():
            if not _link(os.path.join(path, table), os.path.join(target, table)):
                write_copy(file, target, table, None)
            size += found.tables[table]
        for log, file in logs.items():
            size += write_copy(file, target, log, needed[log])
        small = 0
        for name in (*_SMALL, *_newest_options(path)):
            with suppress(FileNotFoundError):
                size += write_copy(open_file(name), target, name, None)
                small += 1
    files.sync_folder(target)
    return Copied(2 + len(tables) + len(logs) + small, size)


def _newest_options(path: str) -> list[str]:
    return sorted(name for name in os.listdir(path) if name.startswith("OPTIONS-") and name[8:].isdigit())[-1:]


def _link(path: str, target: str) -> bool:
    """False: this file system has no links, or it is another one."""
    try:
        os.link(path, target)
    except OSError as error:
        if error.errno in _NO_LINKS:
            return False
        raise
    return True


def write_copy(file: IO[bytes], folder: str, name: str, size: int | None) -> int:
    """Copy the first `size` bytes of a file, or all. Returns how many those are."""
    left = os.fstat(file.fileno()).st_size if size is None else size
    written = 0
    with open(os.path.join(folder, name), "xb") as out:
        while left and (data := file.read(min(_COPIED_BYTES, left))):
            out.write(data)
            left -= len(data)
            written += len(data)
        out.flush()
        os.fsync(out.fileno())
    return written
