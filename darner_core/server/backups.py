"""Backups of the running server, below one directory that the operator names.

A backup gets its name when it is whole and on the disk; until then its name begins with a dot. wait_save switches
greenlets: the files are copied in a thread, and clients are served meanwhile.
"""

import logging
import os
import shutil

import gevent

from darner_core import NAME
from darner_core.errors import ServerError, StorageError
from darner_core.files import sync_folder
from darner_core.storage import backup
from darner_core.storage.backup import Copied, Moment
from darner_core.waiters import wait_in_thread

log = logging.getLogger(NAME)

# RocksDB may remove files while they are being linked: under a flood about three times a second, for some ms.
ATTEMPTS = 100
BETWEEN_S = 0.02

UNFINISHED = ".unfinished"


class Backups:
    def __init__(self, data: str, folder: str) -> None:
        """`folder`: "": there are to be no backups."""
        self._data = data
        self._folder = folder
        self._is_saving = False

    def wait_save(self, name: str) -> tuple[int, int]:
        """Save what has been written so far as `name`; how many files and bytes that is. Raises ServerError or
        StorageError; then nothing of it is left."""
        if not self._folder:
            raise ServerError("no backup: the option backup_dir does not say where to")
        if self._is_saving:
            raise ServerError("no backup: another one is being made")
        target = os.path.join(self._folder, name)
        if os.path.exists(target):
            raise ServerError(f"no backup: there is one of the name {name}")
        self._is_saving = True
        try:
            copied = self._wait_copy(target)
        except StorageError as error:
            log.error("no backup: %s", error)
            raise ServerError(f"no backup: {error}") from error
        finally:
            self._is_saving = False
        log.info("backup: %s, %s files, %s bytes", target, f"{copied.files:,}", f"{copied.bytes:,}")
        return copied.files, copied.bytes

    def _wait_copy(self, target: str) -> Copied:
        """Raises StorageError."""
        unfinished = os.path.join(self._folder, f".{os.path.basename(target)}{UNFINISHED}")
        wait_in_thread(lambda: _make_room(self._folder, unfinished))
        for _ in range(ATTEMPTS):
            moment = backup.look(self._data)  # here, in the thread that writes, no write is half done
            if moment is not None:
                copied = self._wait_try(moment, unfinished)
                if copied is not None:
                    wait_in_thread(lambda: _name(unfinished, target))
                    return copied
            gevent.sleep(BETWEEN_S)
        raise StorageError(f"data directory {self._data}: its files change faster than they can be opened; try again")

    def _wait_try(self, moment: Moment, unfinished: str) -> Copied | None:
        """None: files of that moment are gone already. Raises StorageError."""
        copied: list[Copied | None] = []
        wait_in_thread(lambda: copied.append(backup.copy(self._data, moment, unfinished)))
        return copied[0]


def _make_room(folder: str, unfinished: str) -> None:
    """What a kill has left under this name goes. Raises StorageError."""
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        if os.path.exists(unfinished):
            shutil.rmtree(unfinished)
    except OSError as error:
        raise StorageError(f"{error.filename or folder}: {error.strerror}") from error


def _name(unfinished: str, target: str) -> None:
    try:
        os.rename(unfinished, target)
        sync_folder(os.path.dirname(target))
    except OSError as error:
        raise StorageError(f"{target}: {error.strerror}") from error
