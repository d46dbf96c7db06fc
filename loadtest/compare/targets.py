"""What the figures are held against, and how they are put together: pairs by round, medians, spread, judgement.

A run is a scenario's result (a dict as scenarios.py returns it) with `group`, `round` and `server` added. Nothing here
measures or prints.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

from loadtest.servers import OURS

Run = dict[str, Any]

RATIO = "× memcached"
# What a figure is divided by to have its unit: results hold bytes, seconds and microseconds.
UNITS = {RATIO: 1, "×": 1, "": 1, "/s": 1, "MB": 1e6, "KB": 1e3, "MB/s": 1e6, "s": 1, "ms": 1e3}

AIM, MUST, MISSED = "aim met", "must met", "MISSED"
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Target:
    """One row: a figure of a group's results, what it must be, and what it should be."""

    group: str
    title: str
    figure: str
    unit: str  # RATIO: to memcached's figure in the same round
    must: float
    aim: float
    lower_is_better: bool = False
    items: int = 0  # how many must have been waiting for the figure to mean anything; 0: it does not matter

    def in_unit(self, value: float) -> float:
        """A figure as it stands in a result, in the target's unit."""
        return value / UNITS[self.unit]


# fmt: off
TARGETS = (
    Target("flood-1", "flood, 1 connection", "requests_per_s", RATIO, 0.70, 0.95),
    Target("flood-10", "flood, 10 connections", "requests_per_s", RATIO, 0.70, 1.0),
    Target("flood-100", "flood, 100 connections", "requests_per_s", RATIO, 0.95, 1.15),
    Target("flood-1000", "flood, 1000 connections", "requests_per_s", RATIO, 0.95, 1.15),
    Target("pipeline", "10 connections, 32 requests in flight each", "requests_per_s", RATIO, 3.5, 5),
    Target("reliable", "reliable (get q/close/open), 100 connections", "requests_per_s", RATIO, 0.8, 1.0),
    Target("packing", "1 million items of 1 KiB waiting, 10 connections: against an empty queue",
           "backlog_share", "×", 0.8, 0.95, items=1_000_000),
    Target("memory", "4 million items of 1 KiB waiting: resident memory",
           "full_resident_bytes", "MB", 130, 90, lower_is_better=True, items=4_000_000),
    Target("memory", "the same: start-up after kill -9",
           "start_s", "s", 2, 0.5, lower_is_better=True, items=4_000_000),
    Target("memory", "the same, drained: disk use 30 s later",
           "settled_disk_bytes", "MB", 100, 30, lower_is_better=True, items=4_000_000),
    Target("queues", "10,000 queues: time to create all through one connection",
           "creating_seconds", "s", 10, 3, lower_is_better=True),
    Target("queues", "the same: resident memory over an empty server",
           "resident_over_empty_bytes", "MB", 60, 20, lower_is_better=True),
    Target("queues", "the same: open files", "open_files", "", 500, 200, lower_is_better=True),
    Target("queues", "the same: start-up after kill -9", "start_s", "s", 3, 1, lower_is_better=True),
    Target("queues", "while queues are created: p99 of another client's set",
           "others_beside_p99_us", "ms", 20, 5, lower_is_better=True),
    Target("waiters", "10,000 waiting long-poll clients: memory each",
           "bytes_per_waiter", "KB", 15, 8, lower_is_better=True),
    Target("waiters", "the same: one put reaches its waiter, p99", "p99_us", "ms", 10, 2, lower_is_better=True),
    Target("fairness", "64-byte requests beside two clients of 8 MB items: p99",
           "small_beside_p99_us", "ms", 5, 2, lower_is_better=True),
    Target("fairness", "the same: 8 MB items move at", "large_bytes_per_s", "MB/s", 150, 400),
    Target("sync", "/sync sets of 100 clients, against one client's", "sync_ratio", "×", 20, 50),
    Target("sync", "the same: p99 of another client's plain set, against none syncing",
           "plain_p99_ratio", "×", 2, 1.2, lower_is_better=True),
)
# fmt: on


@dataclass(frozen=True)
class Spread:
    """Several rounds' figure."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Judgement:
    """A target and what came of it; spread is None where nothing was measured."""

    target: Target
    spread: Spread | None
    verdict: str  # AIM, MUST, MISSED, or why there is none


def spread(values: list[float]) -> Spread | None:
    """Median, lowest and highest; None of nothing."""
    return Spread(median(values), min(values), max(values)) if values else None


def by_round(runs: list[Run], group: str, server: str, figure: str) -> dict[int, float]:
    """A figure of one server, by round; rounds that failed or do not have it are left out."""
    return {
        run["round"]: run[figure]
        for run in runs
        if run["group"] == group and run["server"] == server and run.get(figure) is not None
    }


def values(runs: list[Run], group: str, server: str, figure: str) -> list[float]:
    """The figure of each round, as a list."""
    return list(by_round(runs, group, server, figure).values())


def ratios(runs: list[Run], group: str, server: str, figure: str, to: str = "memcached") -> list[float]:
    """A figure against another server's in the same round, so that what slows a machine down for a while cancels out.

    A ratio of two medians would compare two different moments.
    """
    own, other = by_round(runs, group, server, figure), by_round(runs, group, to, figure)
    return [own[number] / other[number] for number in own if other.get(number)]


def measured(runs: list[Run], target: Target, server: str = OURS) -> list[float]:
    """What was measured for a target, in its unit, a value for each round."""
    if target.unit == RATIO:
        return ratios(runs, target.group, server, target.figure)
    return [target.in_unit(value) for value in values(runs, target.group, server, target.figure)]


def judge(runs: list[Run], target: Target) -> Judgement:
    """Hold the median against the target."""
    found = spread(measured(runs, target))
    if found is None:
        return Judgement(target, None, NOT_MEASURED)
    items = {run["parameters"]["items"] for run in runs if run["group"] == target.group and "parameters" in run}
    if target.items and items != {target.items}:
        return Judgement(target, found, f"with {', '.join(f'{number:,}' for number in sorted(items))} items")
    for verdict, mark in ((AIM, target.aim), (MUST, target.must)):
        if found.median <= mark if target.lower_is_better else found.median >= mark:
            return Judgement(target, found, verdict)
    return Judgement(target, found, MISSED)


def number(value: float) -> str:
    """Two or three digits that mean something."""
    if value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}"


def shown(found: Spread | None) -> str:
    """The median, and the range if there is one."""
    if found is None:
        return "-"
    if found.low == found.high:
        return number(found.median)
    return f"{number(found.median)} ({number(found.low)}–{number(found.high)})"
