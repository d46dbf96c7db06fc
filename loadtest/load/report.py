"""What is shown and what is looked up: percentiles, the table, the progress bar, and the server's /proc.

Knows nothing of sockets or protocols. Latencies come in as seconds and leave as microseconds.
"""

from __future__ import annotations

from array import array
from typing import Any

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


def megabytes(size_bytes: float | None) -> str:
    """Decimal megabytes, or `unknown`."""
    return "unknown" if size_bytes is None else f"{size_bytes / 1e6:,.1f} MB"
