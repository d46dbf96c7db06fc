"""A backup becomes a data directory again."""

import os
from collections.abc import Callable
from contextlib import suppress

from darner_core import files
from darner_core.errors import StorageError
from darner_core.storage import manifest, records
from darner_core.storage.backup import Copied, write_copy


def restore(backup: str, path: str, progress: Callable[[int, int], None]) -> Copied:
    """Make `path`, which must be empty or missing, a data directory with what is in a backup, which stays as it is.
    `progress` hears of bytes that are copied, and of how many. Raises StorageError; then there is nothing in `path`."""
    begun = False
    try:
        if not os.path.exists(os.path.join(backup, records.FORMAT_FILE)):
            raise StorageError(f"{backup}: this is no backup: it has no file {records.FORMAT_FILE}")
        if os.path.exists(os.path.join(backup, records.RUNNING_FILE)):
            raise StorageError(f"{backup}: this is the data directory of a server, and no backup")
        os.makedirs(path, 0o700, exist_ok=True)
        if os.listdir(path):
            raise StorageError(f"{path} is not empty: restore writes into an empty or a new directory only")
        names = sorted(os.listdir(backup), key=lambda name: (name in (manifest.CURRENT, records.FORMAT_FILE), name))
        total = sum(os.path.getsize(os.path.join(backup, name)) for name in names)
        done, begun = 0, True
        for name in names:  # what makes it a data directory comes last
            with open(os.path.join(backup, name), "rb") as file:
                done += write_copy(file, path, name, None)
            progress(done, total)
        files.sync_folder(path)
    except OSError as error:
        if begun:
            _empty(path)
        raise StorageError(f"{error.filename or path}: {error.strerror}") from error
    return Copied(len(names), done)


def _empty(path: str) -> None:
    for name in os.listdir(path):
        with suppress(OSError):
            os.unlink(os.path.join(path, name))
