"""Shows a person how far a long job is: as a bar on a terminal, otherwise as a line every ten seconds."""

import time
from collections.abc import Callable
from typing import TextIO

BAR_LETTERS = 30
TERMINAL_S, FILE_S = 0.2, 10.0  # between two bars or lines


class Progress:
    """The progress of a job that reads `total_bytes` bytes in records."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._terminal = stream.isatty()
        self._told = clock()
        self._what = ""
        self._shown = False
        self.total_bytes = self.done_bytes = self.records = 0

    def begin(self, what: str, total_bytes: int) -> None:
        self.end()
        self._what, self.total_bytes = what, total_bytes
        self.done_bytes = self.records = 0

    def at(self, done_bytes: int) -> None:
        self.done_bytes = done_bytes
        self._tell()

    def add(self, more_bytes: int) -> None:
        """Another record of `more_bytes` bytes has been read."""
        self.records += 1
        self.done_bytes += more_bytes
        if not self.records & 0xFF:
            self._tell()

    def _tell(self) -> None:
        now = self._clock()
        if now - self._told < (TERMINAL_S if self._terminal else FILE_S):
            return
        self._told = now
        part = min(1.0, self.done_bytes / self.total_bytes) if self.total_bytes else 1.0
        text = f"{part:4.0%} of {self.total_bytes / (1 << 20):,.0f} MiB, {self.records:,} records"
        if self._terminal:
            bar = "#" * int(part * BAR_LETTERS)
            self._stream.write(f"\r{self._what} [{bar:<{BAR_LETTERS}}] {text}")
            self._shown = True
        else:
            self._stream.write(f"{self._what}: {text}\n")
        self._stream.flush()

    def end(self) -> None:
        """Remove the bar, so that something else can be printed."""
        if self._shown:
            self._stream.write("\r\033[K")
            self._stream.flush()
            self._shown = False
