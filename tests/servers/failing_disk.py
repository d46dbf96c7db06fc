"""The server on a disk that refuses what the file DATA.fails says while it exists, and on which an fsync takes its
time and says when it is done. Run like darner.py.

DATA.fails holds the names of the calls of Storage that fail; if it is empty, every write fails. "once" before the
names: only the first call fails; a number n: only the nth. "bug" behind the names: with an error that nobody has
foreseen. "reopen" fails before the database is closed, and "_open" after that, so that it stays closed.
"""

import os
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from darner_core import main
from darner_core.errors import StorageError
from darner_core.server import server
from darner_core.storage.rocks import Rocks
from darner_core.storage.storage import Storage

WRITES = ["write", "put", "put_chunk", "reopen"]
CALLS = [
    *WRITES, "start_upload", "end_upload", "remove_blobs", "add_queue", "remove_queue",
    "chunk", "item", "items", "last_blob", "sync", "flush", "compact", "state", "queues", "_open",
]  # fmt: skip
# Those of its parts that the Storage hands out as they are.
OF_PARTS = ["write", "put", "sync", "compact", "free_bytes", "wal_bytes", "table_bytes"]
IN_BACKGROUND = ["expiries", "free_bytes", "wal_bytes", "table_bytes"]


def check(path: str, call: str) -> None:
    """Raise StorageError if it is to fail."""
    switch = f"{path}.fails"
    with suppress(FileNotFoundError):
        with open(switch) as file:
            names = file.read().split() or WRITES
        if call in names:
            if names[0].isdigit() and int(names[0]) > 1:
                with open(switch, "w") as file:
                    file.write(" ".join([str(int(names[0]) - 1), *names[1:]]))
                return
            if names[0] == "once" or names[0].isdigit():
                os.unlink(switch)
            if "bug" in names:
                raise ZeroDivisionError("a bug")
            raise StorageError("no space left on device")


class FailingStorage(Storage):
    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        for name in OF_PARTS:
            setattr(self, name, partial(failing_part, self.path, getattr(self, name), name))
        self._whole_sync, self.sync = self.sync, self._slow_sync

    def _slow_sync(self) -> None:
        time.sleep(0.2)
        self._whole_sync()
        print("synced", flush=True)


def failing_part(path: str, whole: Any, call: str, *arguments: Any) -> Any:
    check(path, call)
    return whole(*arguments)


def failing(whole: Any, call: str) -> Any:
    def fail_or_call(self: Storage | Rocks, *arguments: Any) -> Any:
        check(self.path, call)
        return whole(self, *arguments)

    return fail_or_call


for name in {*CALLS, *IN_BACKGROUND} - {*OF_PARTS, "_open"}:
    setattr(FailingStorage, name, failing(getattr(Storage, name), name))

if __name__ == "__main__":
    main.Storage = FailingStorage  # type: ignore[attr-defined]
    Rocks.open = failing(Rocks.open, "_open")  # type: ignore[method-assign]
    server.TICK_S = float(os.environ.get("DARNER_TICK_S", server.TICK_S))  # it tries to recover at each tick
    main.command()
