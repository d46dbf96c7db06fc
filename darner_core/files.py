"""Files that are replaced whole or not at all."""

import os
from contextlib import suppress

NEW = ".new"  # behind the name of a file while it is being written


def write_atomically(path: str, content: bytes) -> None:
    """Replace what the file `path` holds with `content`. Whatever happens, a loss of power too, the file then holds one
    or the other. Raises OSError."""
    try:
        with open(path + NEW, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + NEW, path)
        sync_folder(os.path.dirname(os.path.abspath(path)))
    except OSError:
        with suppress(OSError):
            os.unlink(path + NEW)
        raise


def sync_folder(path: str) -> None:
    """Make the renames in a directory survive the loss of power. Raises OSError."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
