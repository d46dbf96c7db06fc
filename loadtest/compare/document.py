"""Writes the measured part of docs/benchmarks.md: machine, commands, tables, and links to the pictures.

Owns what stands between the two marker comments and touches nothing else of the file. It is given everything and
measures nothing, except for the description of the machine.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from loadtest.compare.targets import (
    MISSED,
    RATIO,
    TARGETS,
    Judgement,
    Run,
    judge,
    measured,
    ratios,
    shown,
    spread,
    values,
)
from loadtest.errors import LoadTestError
from loadtest.load.peers import PROTOCOLS
from loadtest.servers import ALL, FLOOR, OURS, PROTOCOL, Kind, python_of

BEGIN, END = "<!-- compare: begin -->", "<!-- compare: end -->"
PERCENTILES = (("p50", "p50_us"), ("p99", "p99_us"), ("p99.9", "p999_us"))


def machine(kinds: Iterable[Kind], folder: str) -> dict[str, Any]:
    """What the figures depend on. folder: where the servers' data directories stand."""
    kinds = list(kinds)
    model = next((line.partition(":")[2] for line in lines_of("/proc/cpuinfo") if line.startswith("model name")), "")
    memory = next((int(line.split()[1]) for line in lines_of("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "cpu": model.strip() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": memory * 1024,
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "file_system": file_system(folder),
        "servers": {kind.name: {"version": kind.version, "command": kind.shown} for kind in kinds},
        **python_of(next(kind for kind in kinds if kind.name == OURS)),
    }


def lines_of(path: str) -> list[str]:
    """A file of /proc; nothing on systems without."""
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def file_system(folder: str) -> str:
    """Its type, for an fsync on tmpfs costs nothing."""
    mounts = [line.split()[1:3] for line in lines_of("/proc/mounts")]
    above = [(len(point), kind) for point, kind in mounts if Path(folder).resolve().is_relative_to(point)]
    return max(above)[1] if above else "unknown"


def python_build(about: dict[str, Any]) -> str:
    """The interpreter and how it was built."""
    build = " ".join(about["build"])
    return f"Python {about['python']}, built " + (f"with `{build}`" if build else "without optimisation (PGO, LTO)")


def replace_marked(text: str, part: str, begin: str = BEGIN, end: str = END) -> str:
    """Put `part` between the markers, in place of what stands there; LoadTestError unless each is there once."""
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise LoadTestError(f"the document must have the lines {begin} and {end}, once each and in this order")
    before, after = text.partition(begin)[0], text.partition(end)[2]
    return f"{before}{begin}\n\n{part.strip()}\n\n{end}{after}"


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; all columns but the first two are figures."""
    lines = [heads, ["---", "---", *["---:"] * (len(heads) - 2)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def measured_part(
    about: dict[str, Any], commands: list[str], runs: list[Run], groups: list[str], pictures: dict[str, Path]
) -> str:
    """All that stands between the markers. groups: in the order in which they are to be shown."""
    servers = [name for name in ALL if name in about["servers"]]
    versions = [f"{name} {about['servers'][name]['version']}" for name in servers if name != OURS]
    starts = [about["servers"][name]["command"] for name in servers]
    rounds = max((run["round"] for run in runs), default=0)
    return "\n\n".join(
        [
            "## Comparison",
            f"Machine: {about['cpu']}, {about['cores']} cores, {about['memory_bytes'] / 1e9:.0f} GB of memory, "
            f"{about['kernel']}, data on {about['file_system']}. {python_build(about)}, gevent {about['gevent']}, "
            f"rocksdict {about['rocksdict']}. Beside it: {', '.join(versions) or 'no other server'}.",
            "Measured by [rivals.py](../loadtest/compare/rivals.py), which starts each server anew for each run:",
            "\n".join(f"    {command}" for command in [*commands, *starts]),
            f"Up to {rounds} rounds, the servers in turn: the median of the rounds, and in brackets the lowest and the "
            "highest. A ratio to memcached is taken within each round. 64-byte items, half sets and half gets, "
            "where nothing else is said. " + counting(servers),
            "### Targets",
            targets_table([judge(runs, target) for target in TARGETS]),
            *[f"![{caption}]({path.parent.name}/{path.name})" for caption, path in pictures.items()],
            "### Rates and latencies",
            rates_table(runs, groups, servers),
            "Latencies in milliseconds, from sending a request until its answer is read; one core is 100 %. Where the "
            "generator is near 100 %, it is what limits the rate.",
            *beside_peers(runs, servers),
        ]
    )


def counting(servers: list[str]) -> str:
    """What a set and a get are with each server, where they are not a set and a get."""
    notes = []
    for name in servers:
        peer = PROTOCOLS[PROTOCOL[name]]
        said = dict.fromkeys(text for text in (peer.counting, peer.counting_reliable) if text)
        if name == "memcached":
            said = dict.fromkeys(["a key stands for a queue of one item, which its gets leave there"])
        if name == FLOOR:
            said = dict.fromkeys(["no rival, but what a server in Python on gevent's loop can reach before any work"])
        if name != OURS:
            notes.append(f"{name}: {'; '.join(said)}.")
    return " ".join(notes)


def targets_table(judgements: list[Judgement]) -> str:
    """Each target, the figure, and whether it was met."""
    rows = []
    for judged in judgements:
        target = judged.target
        verdict = "**missed**" if judged.verdict == MISSED else judged.verdict
        rows.append(
            [target.title, target.unit, f"{target.must:,g}", f"{target.aim:,g}", f"**{shown(judged.spread)}**", verdict]
        )
    return table(["scenario", "unit", "must", "aim", "measured", ""], rows)


def rates_table(runs: list[Run], groups: list[str], servers: list[str]) -> str:
    """Requests per second and latencies of every server, in the scenarios that are about a rate."""
    heads = ["scenario", "server", "requests/s", RATIO, *[name for name, _ in PERCENTILES]]
    rows = []
    for group in groups:
        if not any(target.group == group and target.figure == "requests_per_s" for target in TARGETS):
            continue
        for server in servers:
            rate = spread(values(runs, group, server, "requests_per_s"))
            if rate is None:
                continue
            latencies = [shown_ms(values(runs, group, server, key)) for _name, key in PERCENTILES]
            shares = [shown_share(values(runs, group, server, f"{who}_cpu_percent")) for who in ("server", "generator")]
            ratio = "" if server == "memcached" else shown(spread(ratios(runs, group, server, "requests_per_s")))
            rows.append([group, server, shown(rate), ratio, *latencies, *shares])
    return table([*heads, "server's core", "generator's core"], rows)


def shown_ms(microseconds: list[float]) -> str:
    """The median of some latencies, in milliseconds."""
    found = spread(microseconds)
    return f"{found.median / 1e3:.2f}" if found else "-"


def shown_share(percent: list[float]) -> str:
    """The median of some shares of a core."""
    found = spread(percent)
    return f"{found.median:.0f} %" if found else "-"


def beside_peers(runs: list[Run], servers: list[str]) -> list[str]:
    """The figures with a target of their own that some peer has, too: for scale."""
    rows = []
    for target in TARGETS:
        found = [spread(measured(runs, target, server)) for server in servers]
        if target.unit != RATIO and any(found[1:]):
            rows.append([target.title, target.unit, *map(shown, found)])
    return ["### The others' figures, for scale", table(["scenario", "unit", *servers], rows)] if rows else []
