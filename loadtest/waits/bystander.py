"""A client in a process of its own that asks for the version again and again, and measures how long it waits.

python -m loadtest.waits.bystander PORT [items]     # prints the seconds that each answer took

With `items` it sets and gets an item of a queue of its own instead.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import Self

from loadtest.program import run
from loadtest.servers import ROOT
from loadtest.wire import Wire

PAUSE_S = 0.002
ANSWER_S = 600.0

# The requests, and how the answer to each ends.
ASKED = {
    "version": ((b"version\r\n", b"\r\n"),),
    "items": ((b"set bystander 0 0 4\r\nitem\r\n", b"STORED\r\n"), (b"get bystander\r\n", b"END\r\n")),
}


class Bystander:
    """The process, inside its `with` block."""

    def __init__(self, port: int, asks: str = "version") -> None:
        """port: of the server; asks: one of ASKED."""
        self.waits_s: list[float] = []
        self._begun = threading.Event()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "loadtest.waits.bystander", str(port), asks],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._thread = threading.Thread(target=self._note, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        self._begun.wait(ANSWER_S)
        self.waits_s.clear()
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()

    @property
    def longest_s(self) -> float:
        """The longest wait so far."""
        return max(self.waits_s, default=0.0)

    def _note(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.waits_s.append(float(line))
            self._begun.set()


def main() -> None:
    """Ask until killed, or until the server ends."""
    wire = Wire(int(sys.argv[1]), ANSWER_S)
    asked = ASKED[sys.argv[2] if len(sys.argv) > 2 else "version"]
    while True:
        for request, end in asked:
            began = time.monotonic()
            wire.ask_until(request, end)
            print(time.monotonic() - began, flush=True)
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    run("bystander", main)
