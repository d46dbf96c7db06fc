"""The server, on a disk that refuses what the file DATA.fails says while it exists, and that takes its time for an
fsync and says when it is done. Run as darner.py is.

DATA.fails holds the names of the Storage's calls that fail. "once" before them: only the first that is made, or a
number n: only the nth. "bug" behind them: not as a disk fails, but as nobody has foreseen. Empty, it stands for every
write. Of these names "reopen" fails before the database is closed, "_open" when it has been: it stays closed then.
"""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from darner_core import main
from darner_core.errors import StorageError
from darner_core.server import server
from darner_core.storage import storage

WRITES = ["write", "put", "put_chunk", "reopen"]
CALLS = [
    *WRITES, "start_upload", "end_upload", "remove_blobs", "add_queue", "remove_queue",
    "chunk", "item", "items", "last_blob", "sync", "flush", "compact", "state", "queues", "_open",
]  # fmt: skip
IN_BACKGROUND = ["expiries", "free_bytes", "wal_bytes", "table_bytes"]


class FailingStorage(storage.Storage):
    def check(self, call: str) -> None:
        """Raise StorageError if it is to fail."""
        switch = f"{self.path}.fails"
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

    def sync(self) -> None:
        self.check("sync")
        time.sleep(0.2)
        super().sync()
        print("synced", flush=True)


def failing(call: str) -> Any:
    whole = getattr(storage.Storage, call)

    def fail_or_call(self: FailingStorage, *arguments: Any) -> Any:
        self.check(call)
        return whole(self, *arguments)

    return fail_or_call


for name in CALLS + IN_BACKGROUND:
    if name != "sync":
        setattr(FailingStorage, name, failing(name))

if __name__ == "__main__":
    main.Storage = FailingStorage  # type: ignore[attr-defined]
    server.TICK_S = float(os.environ.get("DARNER_TICK_S", server.TICK_S))  # it tries to recover at each tick
    main.command()
