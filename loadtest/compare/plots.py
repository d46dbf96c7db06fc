"""Draws the pictures of docs/benchmarks.md as SVG files.

Each function draws one picture from the runs, or none if nothing of it was measured. Text stays text, so the files are
small, and nothing in them changes unless a figure does. The background is white: a dark viewer shows a light card.
"""

from __future__ import annotations

from collections.abc import Callable
from math import nan
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from loadtest.compare.targets import Run, Spread, number, spread, values
from loadtest.servers import OURS

# Distinguishable with any colour vision (Okabe and Ito); ours is the strong one.
COLOURS = {OURS: "#0072b2", "memcached": "#d55e00", "redis": "#009e73", "beanstalkd": "#8a8a8a", "floor": "#cc79a7"}
MARKERS = {OURS: "o", "memcached": "s", "redis": "^", "beanstalkd": "D", "floor": "v"}
INK, FAINT = "#222222", "#dddddd"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "compare",  # else every drawing has new ids
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.edgecolor": "#888888",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "text.color": INK,
    "axes.labelcolor": INK,
    "legend.frameon": False,
}

PANELS = {"pipeline": "10 connections, 32 requests in flight each", "reliable": "100 connections, reliable gets"}
FLOODS = {1: "flood-1", 10: "flood-10", 100: "flood-100", 1000: "flood-1000"}
# Group, beginning of the row's label (empty: the main row), and what the reader is told.
LATENCIES = (
    ("flood-1", "", "flood, 1 connection"),
    ("flood-10", "", "flood, 10"),
    ("flood-100", "", "flood, 100"),
    ("flood-1000", "", "flood, 1000"),
    ("pipeline", "", "10 × 32 in flight"),
    ("reliable", "", "reliable, 100"),
    ("packing", "", "with a backlog, 10"),
    ("fairness", "fairness, small beside", "beside 8 MB items"),
    ("queues", "queues, others beside", "beside new queues"),
    ("sync", "sync, plain beside", "beside /sync sets"),
    ("waiters", "", "put to its waiter"),
)
BARS = (
    ("memory", "full_resident_bytes", 1e6, "resident memory, MB"),
    ("memory", "start_s", 1, "start-up after kill -9, s"),
    ("memory", "settled_disk_bytes", 1e6, "disk use once drained, MB"),
)


def draw_all(runs: list[Run], folder: Path, servers: list[str], ending: str = "svg") -> dict[str, Path]:
    """Draw what there are figures for into folder, which is made; returns the files by what they show."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {}
    drawings: tuple[tuple[str, str, Callable[[list[Run], list[str]], Figure | None]], ...] = (
        ("rate", "Request rate by number of connections", rate),
        ("in-flight", "Request rate pipelined, and with reliable gets", in_flight),
        ("latency", "Latencies by scenario: p50, p99 and p99.9", latency),
        ("memory", "Memory, start-up and disk use with items waiting", memory),
    )
    with mpl.rc_context(STYLE):
        for name, caption, draw in drawings:
            figure = draw(runs, servers)
            if figure is not None:
                path = folder / f"{name}.{ending}"
                figure.savefig(path, facecolor="white", metadata={"Date": None} if ending == "svg" else None)
                pictures[caption] = path
    return pictures


def rate(runs: list[Run], servers: list[str]) -> Figure | None:
    """Lines over the number of connections; the bars reach from the slowest round to the fastest."""
    figure, (axes,) = new_figure(7.0, 3.6, 1)
    drawn = False
    for place, server in enumerate(servers):
        found = {n: s for n, group in FLOODS.items() if (s := spread(values(runs, group, server, "requests_per_s")))}
        if not found:
            continue
        drawn = True
        shift = 1.04 ** (place - (len(servers) - 1) / 2)  # beside each other, or the bars would hide each other
        axes.errorbar(
            [connections * shift for connections in found],
            [one.median / 1e3 for one in found.values()],
            yerr=whiskers(list(found.values()), 1e3),
            color=COLOURS[server],
            marker=MARKERS[server],
            markersize=5,
            linewidth=2.2 if server == OURS else 1.4,
            elinewidth=1,
            capsize=3,
            label=server,
            zorder=3 if server == OURS else 2,
        )
    if not drawn:
        return None
    axes.set_xscale("log")
    axes.set_xticks(list(FLOODS), [f"{connections:,}" for connections in FLOODS])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    axes.set_xlabel("connections, one request in flight each")
    axes.set_ylabel("thousand requests/s")
    axes.set_title("Request rate: 64-byte items, half sets, half gets")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def in_flight(runs: list[Run], servers: list[str]) -> Figure | None:
    """A panel each for pipelined requests and for reliable gets."""
    panels = [
        (group, title)
        for group, title in PANELS.items()
        if any(values(runs, group, server, "requests_per_s") for server in servers)
    ]
    if not panels:
        return None
    figure, places = new_figure(7.6, 2.3, len(panels))
    for axes, (group, title) in zip(places, panels, strict=True):
        found = {s: one for s in servers if (one := spread(values(runs, group, s, "requests_per_s")))}
        bars(axes, found, 1e3)
        axes.set_title(title)
        axes.set_xlabel("thousand requests/s")
    return figure


def latency(runs: list[Run], servers: list[str]) -> Figure | None:
    """A line from p50 to p99.9 for each scenario and server, with a tick at p99."""
    rows = [
        (title, {s: one for s in servers if (one := percentiles(runs, group, s, label))})
        for group, label, title in LATENCIES
    ]
    rows = [(title, found) for title, found in rows if found]
    if not rows:
        return None
    figure, (axes,) = new_figure(7.6, 1.3 + 0.42 * len(rows), 1)
    for place, (_title, found) in enumerate(rows):
        for nth, (server, (p50, p99, p999)) in enumerate(found.items()):
            height = place + 0.19 * (nth - (len(found) - 1) / 2)
            look: dict[str, Any] = {"color": COLOURS[server], "zorder": 3 if server == OURS else 2}
            axes.plot([p50, p999], [height, height], linewidth=1.4, **look)
            axes.plot([p50], [height], "o", markersize=4.5, **look)
            axes.plot([p99], [height], "|", markersize=8, markeredgewidth=2, **look)
            axes.plot([p999], [height], ">", markersize=4, **look)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))
    axes.set_yticks(range(len(rows)), [title for title, _found in rows])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.grid(axis="x")
    axes.set_xlabel("milliseconds")
    axes.set_title("Latency, from p50 to p99.9")
    shown = [server for server in servers if any(server in found for _title, found in rows)]
    marks = [Line2D([], [], color=COLOURS[server], linewidth=2, label=server) for server in shown]
    for marker, size, name in (("o", 4.5, "p50"), ("|", 8, "p99"), (">", 4, "p99.9")):
        marks.append(
            Line2D([], [], color=INK, linestyle="", marker=marker, markersize=size, markeredgewidth=2, label=name)
        )
    axes.legend(handles=marks, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def memory(runs: list[Run], servers: list[str]) -> Figure | None:
    """Panels of bars for what a long queue costs."""
    panels = [panel for panel in BARS if any(values(runs, panel[0], server, panel[1]) for server in servers)]
    if not panels:
        return None
    figure, places = new_figure(9.0, 2.3, len(panels))
    items = max(run["parameters"]["items"] for run in runs if run["group"] == "memory" and "parameters" in run)
    for axes, (group, key, unit, label) in zip(places, panels, strict=True):
        bars(axes, {s: one for s in servers if (one := spread(values(runs, group, s, key)))}, unit)
        axes.set_xlabel(label)
    places[0].set_title(f"{items:,} items of 1 KiB waiting")
    return figure


def new_figure(width_in: float, height_in: float, panels: int) -> tuple[Figure, list[Axes]]:
    """Panels beside each other."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    return figure, [figure.add_subplot(1, panels, nth + 1) for nth in range(panels)]


def whiskers(found: list[Spread], unit: float) -> list[list[float]]:
    """How far the rounds reach below and above the medians; nothing to draw where they do not."""
    return [
        [(one.median - one.low) / unit if one.high > one.low else nan for one in found],
        [(one.high - one.median) / unit if one.high > one.low else nan for one in found],
    ]


def bars(axes: Axes, found: dict[str, Spread], unit: float) -> None:
    """A horizontal bar with its figure for each server, the spread as whiskers."""
    spreads = list(found.values())
    axes.barh(
        range(len(found)),
        [one.median / unit for one in spreads],
        height=0.62,
        color=[COLOURS[server] for server in found],
        xerr=whiskers(spreads, unit),
        error_kw={"elinewidth": 1, "capsize": 3, "ecolor": INK},
    )
    longest = max((one.high for one in spreads), default=0.0) / unit
    for place, one in enumerate(spreads):
        axes.text(one.high / unit + longest * 0.03, place, number(one.median / unit), va="center")
    axes.set_xlim(0, longest * 1.25 or 1)
    axes.set_yticks(range(len(found)), list(found))
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.grid(axis="x")


def percentiles(runs: list[Run], group: str, server: str, label: str) -> tuple[float, float, float] | None:
    """Medians of p50, p99 and p99.9 in milliseconds, of the last row whose label begins so."""
    found = []
    for run in runs:
        if run["group"] == group and run["server"] == server and "rows" in run:
            rows = [row for row in run["rows"] if row["label"].startswith(label)] if label else [run]
            found += [row for row in rows[-1:] if row.get("p999_us") is not None]
    if not found:
        return None
    p50, p99, p999 = (median(row[key] for row in found) / 1e3 for key in ("p50_us", "p99_us", "p999_us"))
    return p50, p99, p999
