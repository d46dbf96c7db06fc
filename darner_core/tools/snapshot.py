"""A data directory as it is at one moment, whether a server is running in it or not.

The server is not asked, nothing is locked, and nothing is written in the directory or beside it.

The snapshot is a directory of its own below the system's temporary one. Its table files and write-ahead logs are
symbolic links to descriptors that this process holds open (/dev/fd), so they stay readable when the server
removes them, and nothing is left of them when this process ends, even by a kill. Only CURRENT, the MANIFEST and
RUNNING are copied.

It is consistent because RocksDB never changes what it has written: tables and older logs are complete, and the newest
log only grows, so that reading it gives the writes up to some moment. The MANIFEST says which files belong together.
If it, or the list of logs, has changed while the files were opened, all of them are opened anew.

Other ways were tried. RocksDB's secondary instance opens files by name when it needs them, and fails if the server has
removed them meanwhile. Hard links need a directory on the same file system that this user may write to, and stay behind
after kill -9.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from darner_core.errors import DataDirError
from darner_core.operating_system import raise_descriptor_limit
from darner_core.storage import manifest
from darner_core.storage.manifest import CURRENT, TABLE
from darner_core.storage.records import RUNNING_FILE
from darner_core.storage.wal import SUFFIX as LOG

# Under a flood the MANIFEST changes about three times a second, and an attempt takes about a millisecond.
ATTEMPTS = 100
BETWEEN_S = 0.01

SPARE_DESCRIPTORS = 256  # for RocksDB, which opens the files that it reads once more, and for everything else


class _Moment(NamedTuple):
    """What says which files belong together. They do if it has not changed while they were opened."""

    current: bytes
    manifest_bytes: int
    logs: frozenset[str]


@contextmanager
def snapshot(path: str) -> Iterator[str]:
    """The path of a directory that shows the data directory `path` as it is now. Raises DataDirError."""
    if not os.path.isdir(path):
        raise DataDirError(f"data directory {path}: there is none")
    if not os.path.exists(os.path.join(path, CURRENT)):
        traces = [name for name in os.listdir(path) if name.endswith((TABLE, LOG)) or name.startswith("MANIFEST-")]
        missing = f"the file {CURRENT} is missing; --repair saves what can be read" if traces else "holds no queues"
        raise DataDirError(f"data directory {path}: {missing}")
    with tempfile.TemporaryDirectory(prefix="darner-") as folder:
        for _ in range(ATTEMPTS):
            with ExitStack() as opened:
                here = tempfile.mkdtemp(dir=folder)
                try:
                    taken = _take(path, here, opened)
                except PermissionError as error:
                    name = os.path.basename(error.filename or "")
                    raise DataDirError(
                        f"data directory {path}: no permission to read {name}; run this as the server's user"
                    ) from error
                except OSError as error:
                    raise DataDirError(f"data directory {path}: {error.strerror}") from error
                if taken:
                    yield here
                    return
            time.sleep(BETWEEN_S)
    with suppress(OSError):
        try:
            manifest.read(path)
        except manifest.Damaged as error:
            raise DataDirError(f"data directory {path}: {error}; --repair saves what can be read") from error
    raise DataDirError(f"data directory {path}: its files change faster than they can be opened; try again")


def _take(path: str, folder: str, opened: ExitStack) -> bool:
    """Fill `folder` with the files of `path`. False if they have changed meanwhile. Raises OSError."""
    moment = _look(path)
    if moment is None:
        return False
    names = [name for name in os.listdir(path) if name.endswith((TABLE, LOG))]
    raise_descriptor_limit(len(names) + SPARE_DESCRIPTORS)  # if it cannot be raised, os.open will say so
    for name in names:
        try:
            file = os.open(os.path.join(path, name), os.O_RDONLY)
        except FileNotFoundError:
            continue  # not needed any more: if it is, the MANIFEST has changed, and `_look` will see that
        opened.callback(os.close, file)
        os.symlink(f"/dev/fd/{file}", os.path.join(folder, name))
    name = _named_by(moment.current)
    try:
        with open(os.path.join(path, name), "rb") as source:
            content = source.read(moment.manifest_bytes)
    except FileNotFoundError:
        return False
    Path(folder, name).write_bytes(content)
    Path(folder, CURRENT).write_bytes(moment.current)
    with suppress(FileNotFoundError):
        # It says whether the machine ended with the server: then not all logs are read.
        shutil.copyfile(os.path.join(path, RUNNING_FILE), os.path.join(folder, RUNNING_FILE))
    return _look(path) == moment


def _named_by(current: bytes) -> str:
    return os.fsdecode(current).strip()


def _look(path: str) -> _Moment | None:
    """What `path` has now; None if the file that CURRENT names is not there. Raises OSError."""
    current = Path(path, CURRENT).read_bytes()
    try:
        size = os.stat(os.path.join(path, _named_by(current))).st_size
    except (FileNotFoundError, ValueError):  # the second: a zero is in the name
        return None
    return _Moment(current, size, frozenset(name for name in os.listdir(path) if name.endswith(LOG)))
