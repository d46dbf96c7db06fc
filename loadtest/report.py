"""What is shown and what is looked up: percentiles, the table, the progress bar, and the server's /proc.

Knows nothing of sockets or protocols. Latencies come in as seconds and leave as microseconds.
"""

from __future__ import annotations

import os
import sys
from array import array
from pathlib import Path
from time import perf_counter
from typing import Any

from peers import FloodError

BAR_WIDTH = 30
BAR_AFTER_S = 1.0  # what is done sooner needs no bar
BAR_EVERY_S = 0.1
MICROSECONDS = 1e6

# Heading, key in a row, width and format of each column.
COLUMNS = (
    ("scenario", "label", 26, "<26"),
    ("connections", "connections", 11, ">11,"),
    ("in flight", "in_flight", 9, ">9,"),
    ("requests/s", "requests_per_s", 11, ">11,.0f"),
    ("p50", "p50_us", 10, ">10,.0f"),
    ("p99", "p99_us", 10, ">10,.0f"),
    ("p99.9", "p999_us", 10, ">10,.0f"),
    ("max (us)", "max_us", 10, ">10,.0f"),
    ("generator cpu %", "generator_cpu_percent", 15, ">15.0f"),
    ("server cpu %", "server_cpu_percent", 12, ">12.0f"),
)


def summary(latencies: array[float], elapsed_s: float, requests_per_round: int = 1) -> dict[str, Any]:
    """Rate and percentiles of rounds that took these seconds each; None for figures of no rounds."""
    ordered = sorted(latencies)
    requests = len(ordered) * requests_per_round

    def at(share: float) -> float | None:
        return round(ordered[min(int(len(ordered) * share), len(ordered) - 1)] * MICROSECONDS, 1) if ordered else None

    return {
        "requests": requests,
        "seconds": round(elapsed_s, 3),
        "requests_per_s": round(requests / elapsed_s, 1),
        "p50_us": at(0.5),
        "p99_us": at(0.99),
        "p999_us": at(0.999),
        "max_us": at(1.0),
    }


def table_head() -> str:
    """The line over the rows."""
    return "  ".join(f"{heading:{'<' if heading == 'scenario' else '>'}{width}}" for heading, _, width, _ in COLUMNS)


def table_row(row: dict[str, Any]) -> str:
    """One aligned line; a dash where the row has no such figure."""
    cells = []
    for _heading, key, width, form in COLUMNS:
        value = row.get(key)
        cells.append(f"{'-':>{width}}" if value is None else f"{value:{form}}")
    return "  ".join(cells)


class Bar:
    """A progress bar on standard error, only for terminals and for what takes longer than a moment."""

    def __init__(self, what: str, total: float, unit: str, quiet: bool) -> None:
        """total: how much there is to do, in unit."""
        self.what, self.total, self.unit = what, total, unit
        self.wanted = sys.stderr.isatty() and not quiet
        self.next_at = perf_counter() + BAR_AFTER_S
        self.width = 0  # of what stands on the terminal

    def show(self, done: float) -> None:
        """Redraw if it is time to; cheap enough to call often."""
        if not self.wanted or (now := perf_counter()) < self.next_at:
            return
        self.next_at = now + BAR_EVERY_S
        share = min(done / self.total, 1.0) if self.total else 1.0
        filled = int(share * BAR_WIDTH)
        number = f"{done:,.1f}" if self.unit == "s" else f"{done:,.0f}"
        line = f"{self.what} [{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {share:4.0%}  {number}/{self.total:,.0f} "
        line += self.unit
        sys.stderr.write("\r" + line.ljust(self.width))
        sys.stderr.flush()
        self.width = len(line)

    def clear(self) -> None:
        """Leave no trace."""
        if self.width:
            sys.stderr.write("\r" + " " * self.width + "\r")
            sys.stderr.flush()
            self.width = 0


class ServerProcess:
    """The server as /proc shows it; every figure is None if no process was named."""

    def __init__(self, pid: int | None, data: Path | None) -> None:
        """pid: the server; data: the directory it keeps its data in."""
        self.pid, self.data = pid, data
        if pid is not None and not Path(f"/proc/{pid}").is_dir():
            raise FloodError(f"no process {pid}")
        if data is not None and not data.is_dir():
            raise FloodError(f"no directory {data}")

    def cpu_s(self) -> float | None:
        """Processor time so far, of all threads."""
        text = self._read("stat")
        if text is None:
            return None
        fields = text.rpartition(")")[2].split()  # the name before it may hold anything
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int | None:
        """VmRSS."""
        text = self._read("status")
        if text is None:
            return None
        return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmRSS:")), 0)

    def open_files(self) -> int | None:
        """Descriptors, sockets included."""
        if self.pid is None:
            return None
        try:
            return len(os.listdir(f"/proc/{self.pid}/fd"))
        except OSError as error:
            raise FloodError(f"cannot look at the open files of process {self.pid}: {error.strerror}") from error

    def disk_bytes(self) -> int | None:
        """Blocks allocated below the data directory; files may vanish while we look."""
        if self.data is None:
            return None
        total = 0
        for folder, _folders, names in os.walk(self.data):
            for name in names:
                try:
                    total += os.stat(os.path.join(folder, name)).st_blocks * 512
                except FileNotFoundError:
                    continue
        return total

    def footprint(self) -> dict[str, int | None]:
        """Resident memory and disk use at this moment."""
        return {"resident_bytes": self.resident_bytes(), "disk_bytes": self.disk_bytes()}

    def _read(self, name: str) -> str | None:
        if self.pid is None:
            return None
        try:
            return Path(f"/proc/{self.pid}/{name}").read_text()
        except OSError as error:
            raise FloodError(f"cannot look at process {self.pid}: {error.strerror}") from error


def megabytes(size_bytes: float | None) -> str:
    """Decimal megabytes, or `unknown`."""
    return "unknown" if size_bytes is None else f"{size_bytes / 1e6:,.1f} MB"
