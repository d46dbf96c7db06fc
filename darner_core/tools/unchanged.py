"""How tools get at a data directory that they must not change: its lock, and copies made of links.

RocksDB writes into a directory even if it only reads there, and stops at a damaged log. So it may be given a temporary
directory of symbolic links in its place, from which some files are left out or in which a log is mended.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from glob import escape, glob
from typing import BinaryIO

from darner_core.errors import DataDirError
from darner_core.storage import opening, wal
from darner_core.storage.directory import power_was_lost, take_lock

_SETTINGS_FILE = "rocksdict-config.json"


@contextmanager
def lock(path: str, only_reads: bool = False) -> Iterator[None]:
    """Keep servers out of the directory. Raises DataDirError if a server is in it, if there is no directory, or if this
    user may not read a file in it. `only_reads`: the directory may be write-protected."""
    if not os.path.isdir(path):
        beside = glob(f"{escape(path)}.damaged-*") + glob(f"{escape(path)}.repaired-*")
        raise DataDirError(f"data directory {path}: there is none{', but ' * bool(beside)}{', '.join(sorted(beside))}")
    try:
        _check_readable(path)
        file, kind = _open_lock(os.path.join(path, "LOCK"), only_reads)
    except FileNotFoundError:
        yield
        return
    except OSError as error:
        raise DataDirError(f"data directory {path}: {error.strerror}") from error
    with file:
        if not take_lock(file, kind):
            raise DataDirError(f"data directory {path}: in use by a server; stop it first")
        yield


def _check_readable(path: str) -> None:
    """Raises DataDirError if this user may not read a file, which RocksDB would call damaged, or leave out."""
    for name in sorted(os.listdir(path)):
        file = os.path.join(path, name)
        if os.path.exists(file) and not os.access(file, os.R_OK):
            raise DataDirError(f"data directory {path}: no permission to read {name}; run this as the server's user")


def _open_lock(path: str, only_reads: bool) -> tuple[BinaryIO, int]:
    try:
        return open(path, "r+b"), fcntl.LOCK_EX
    except FileNotFoundError:
        raise
    except OSError:
        if not only_reads:
            raise
        return open(path, "rb"), fcntl.LOCK_SH  # a server's lock is exclusive, so this still keeps servers out


def writable(path: str, folder: str) -> str:
    """`path`, or a directory of links to its files in `folder` if it is write-protected: rocksdict (0.3.29) writes its
    settings into a directory even if it only reads there."""
    settings = os.path.join(path, _SETTINGS_FILE)
    if os.access(path, os.W_OK) and (os.access(settings, os.W_OK) or not os.path.exists(settings)):
        return path
    return _linked(path, folder, ())


def _linked(path: str, folder: str, without: Collection[str]) -> str:
    """A new directory in `folder`, of links to the files of `path`."""
    links = tempfile.mkdtemp(dir=folder)
    for name in os.listdir(path):
        if name != _SETTINGS_FILE and name not in without:
            os.symlink(os.path.join(os.path.abspath(path), name), os.path.join(links, name))
    if os.path.exists(settings := os.path.join(path, _SETTINGS_FILE)):
        shutil.copyfile(settings, os.path.join(links, _SETTINGS_FILE))
    return links


def without_lost_power(path: str, folder: str) -> str:
    """`path`, or a directory of links without the logs that a start would put aside after a loss of power."""
    if not power_was_lost(path):
        return path
    first = opening.first_log(path)
    behind = wal.gap_between(path, first)
    if behind is None:
        return path
    names = wal.files(path, first)
    return _linked(path, folder, names[names.index(behind) :])


def mended(path: str, folder: str) -> tuple[str, bool]:
    """A directory in which RocksDB can read as much of a damaged log as a start would take; and whether RocksDB has to
    be told to stop where the log cannot be read any further."""
    damages = wal.examine(path, first=opening.first_log(path))
    if power_was_lost(path):
        damages = [damage.after_loss_of_power() for damage in damages]
    if all(damage.torn for damage in damages):
        if not damages or not wal.has_hole(os.path.join(path, damages[0].name)):
            return path, True
        first, logs = damages[0], wal.files(path)
        links = _linked(path, folder, logs[logs.index(first.name) :])
        wal.mend(os.path.join(path, first.name), os.path.join(links, first.name), first.offset)
        return links, False
    names = {damage.name for damage in damages}
    links = _linked(path, folder, names)
    for name in names:
        wal.mend(os.path.join(path, name), os.path.join(links, name))
    return links, False
