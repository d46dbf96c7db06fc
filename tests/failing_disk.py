"""The server, on a disk that refuses every write while the file DATA.fails exists, and that takes its time for an
fsync and says when it is done. Run as darner.py is."""

import os
import sys
import time
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from darner_core import main, storage
from darner_core.errors import StorageError


class FailingStorage(storage.Storage):
    def _check(self) -> None:
        if os.path.exists(f"{self.path}.fails"):
            raise StorageError("no space left on device")

    def write(self, batch: Any) -> None:
        self._check()
        super().write(batch)

    def put(self, family: int, key: bytes, value: bytes) -> None:
        self._check()
        super().put(family, key, value)

    def put_chunk(self, number: int, blob: int, index: int, chunk: bytes) -> None:
        self._check()
        super().put_chunk(number, blob, index, chunk)

    def sync(self) -> None:
        time.sleep(0.2)
        super().sync()
        print("synced", flush=True)

    def reopen(self) -> None:
        self._check()
        super().reopen()


if __name__ == "__main__":
    main.Storage = FailingStorage  # type: ignore[misc]
    main.command()
