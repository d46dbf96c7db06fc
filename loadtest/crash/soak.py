"""Mixed load for an hour, with restarts: does what the server takes of the machine level off?

    python -m loadtest.crash.soak --seconds 3600          # or: make soak SECONDS=3600
    python -m loadtest.crash.soak --redraw soak.json --plot docs/plots/soak.svg

The load of kill.py, held at a rate that leaves the machine to others, and coming in waves: the queues are filled up to
some thousand items, then emptied. Beside it queues are made and deleted all the time, and clients die half-way
(trouble.py); and every minute the disk refuses writes for some seconds, with the checked load at rest and all else
going on. Every few minutes the server ends, by kill -9 and by SIGTERM in turn, starts again, and is held to its
promises (promises.py). Every few seconds its resident memory, open files and disk use are written down; before each
restart, with the load at rest, also what the idle server takes of the processor. At the end the last third of the time
is compared with the third before it: each must have levelled off, else the exit status is 1. The plot shows all of it.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from random import randrange
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from loadtest.compare.plots import COLOURS, STYLE
from loadtest.crash.books import DELETED, FLUSHED
from loadtest.crash.kill import Trial, keep
from loadtest.crash.mix import CHUNK_BYTES, Load
from loadtest.crash.promises import Model
from loadtest.crash.trouble import Trouble
from loadtest.errors import LoadTestError, Violation
from loadtest.load.client import Client
from loadtest.load.peers import Memcache
from loadtest.program import run
from loadtest.progress import Bar
from loadtest.servers import OURS, Server, ServerProcess, our_server

OPTIONS = ["--chunk-bytes", str(CHUNK_BYTES)]  # else as anybody runs it
FULL_ITEMS, EMPTY_ITEMS = 8_000, 200  # where a wave turns
DROP_FACTOR = 0.02  # or flushes would end each wave before its time
STEP_S = 1.0
FIRST_PAUSE_S = 0.05
CALM_S = 2.0  # what the load has asked is done by then, and compactions that it has caused have ended
IDLE_S = 5.0
FAILING_EVERY_S = 60.0
FAILING_S = 3.0
RECOVERED_S = 20.0  # the server opens its database again within a second or two

# Figure, unit, what it is called, and by how much of it the last third may be above the one before: waves and restarts
# do not fall alike into both.
FIGURES = (
    ("resident_bytes", 1e6, "resident memory, MB", 8e6),
    ("open_files", 1, "open files", 20),
    ("disk_bytes", 1e6, "disk use, MB", 24e6),
    ("idle_ms_per_s", 1, "processor time of the idle server, ms/s", 4),
    ("waiting_items", 1e3, "waiting items, thousands", None),
)
MORE_SHARE = 0.10  # and by this share more

Sample = dict[str, Any]


class Soak:
    """A trial with restarts by the clock, and its samples."""

    def __init__(self, server: Server, seed: str, options: argparse.Namespace) -> None:
        """The server runs."""
        self.trial = Trial(server, seed, hasty=False)
        self.options = options
        self.samples: list[Sample] = []
        self.restarts: list[dict[str, Any]] = []
        self.began = time.monotonic()
        self.pause_s = FIRST_PAUSE_S
        self.filling = True
        self.idle_ms_per_s: float | None = None
        self.queues_made = self.half_dead = self.disk_failures = 0

    @property
    def elapsed_s(self) -> float:
        """Since the soak began."""
        return time.monotonic() - self.began

    def run(self, bar: Bar) -> None:
        """All of it. Raises Violation, LoadTestError."""
        stop = False
        while self.elapsed_s < self.options.seconds:
            self._between_restarts(bar)
            self.restarts.append({"at_s": round(self.elapsed_s, 1), "how": "SIGTERM" if stop else "kill -9"})
            self.trial.end_server(self.load, chance=1.0 if stop else 0.0)
            self.trial.start_server()
            self.trial.check(1.0 if self.elapsed_s >= self.options.seconds else 0.5)
            stop = not stop

    def _between_restarts(self, bar: Bar) -> None:
        trial, options = self.trial, self.options
        model = trial.model
        self.load = Load(model, trial.server.port, f"{trial.seed} {len(self.restarts)}", drop_factor=DROP_FACTOR)
        process = ServerProcess(trial.server.pid, trial.server.data)
        trouble = Trouble(trial.server.port, f"{trial.seed} {len(self.restarts)}")
        until = min(self.elapsed_s + options.restart_seconds, options.seconds)
        next_sample_s = self.elapsed_s
        next_failure_s = self.elapsed_s + FAILING_EVERY_S / 2
        while self.elapsed_s < until:
            self.load.pause_s, self.load.filling = self.pause_s, self.filling
            began, before = time.monotonic(), model.requests
            self.load.wait_s(min(STEP_S, options.every, max(0.01, until - self.elapsed_s)))
            rate = (model.requests - before) / (time.monotonic() - began)
            self.pause_s = min(1.0, max(0.001, self.pause_s * min(2.0, max(0.5, rate / options.rate))))
            waiting = waiting_items(model)
            self.filling = waiting < (FULL_ITEMS if self.filling else EMPTY_ITEMS)
            if self.elapsed_s >= next_failure_s and until - self.elapsed_s > RECOVERED_S:
                self._fail_disk()
                next_failure_s = self.elapsed_s + FAILING_EVERY_S
            if self.elapsed_s >= next_sample_s:
                next_sample_s += options.every
                self.samples.append(
                    {
                        "at_s": round(self.elapsed_s, 1),
                        "waiting_items": waiting,
                        "requests_per_s": round(rate),
                        "cpu_s": process.cpu_s(),
                        "open_files": process.open_files(),
                        "idle_ms_per_s": self.idle_ms_per_s,
                        **process.footprint(),
                    }
                )
            bar.show(self.elapsed_s)
        trouble.end()
        self.queues_made += trouble.queues_made
        self.half_dead += trouble.half_dead
        if self.options.restart_seconds > 10 * IDLE_S:
            self._look_at_idle(process)

    def _fail_disk(self) -> None:
        """No file of the server may grow for some seconds; then it serves again. Raises Violation if it does not."""
        self.load.resting = True
        self.load.wait_s(CALM_S)
        pid = self.trial.server.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))
        self.load.wait_s(FAILING_S)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
        client = Client(Memcache(), "127.0.0.1", self.trial.server.port, b"")
        deadline = time.monotonic() + RECOVERED_S
        while True:
            self.load.wait_s(0.5)
            try:
                client.ask([Memcache().put(b"after-failure", b"x"), Memcache().get(b"after-failure")])
                break
            except LoadTestError as error:
                if time.monotonic() > deadline:
                    raise Violation(
                        f"{RECOVERED_S:.0f} s after the disk works again, sets are refused: {error}"
                    ) from None
                client.close()
                client = Client(Memcache(), "127.0.0.1", self.trial.server.port, b"")
        client.close()
        self.disk_failures += 1
        self.load.resting = False

    def _look_at_idle(self, process: ServerProcess) -> None:
        """What the server takes of the processor while nobody asks anything."""
        self.load.resting = True
        self.load.wait_s(CALM_S)
        before, began = process.cpu_s() or 0.0, time.monotonic()
        self.load.wait_s(IDLE_S)
        used_s = (process.cpu_s() or 0.0) - before
        self.idle_ms_per_s = round(1000 * used_s / (time.monotonic() - began), 1)
        self.load.resting = False

    def report(self) -> dict[str, Any]:
        """Everything that was found."""
        model = self.trial.model
        return {
            "seed": self.trial.seed,
            "seconds": round(self.elapsed_s),
            "rate": self.options.rate,
            "requests": model.requests,
            "items_stored": model.stored,
            "items_confirmed": model.confirmed,
            "queues_made_and_deleted": self.queues_made,
            "half_dead_clients": self.half_dead,
            "disk_failures": self.disk_failures,
            "longest_start_s": round(self.trial.longest_start_s, 2),
            "restarts": self.restarts,
            "samples": self.samples,
        }


def waiting_items(model: Model) -> int:
    """As the model has it."""
    gone = (FLUSHED, DELETED)
    return sum(item.state not in gone for book in model.books.values() for item in book.items.values())


def verdict(found: dict[str, Any]) -> tuple[bool, list[str]]:
    """Whether all has levelled off, and a line about each figure."""
    samples, good, lines = found["samples"], True, []
    third = len(samples) // 3
    for key, unit, name, allowed in FIGURES:
        if allowed is None or not third:
            continue
        middle = sorted(sample[key] for sample in samples[third : 2 * third] if sample.get(key) is not None)
        last = sorted(sample[key] for sample in samples[2 * third :] if sample.get(key) is not None)
        if not middle or not last:
            continue
        level = all(
            now <= before * (1 + MORE_SHARE) + allowed
            for before, now in ((median(middle), median(last)), (middle[-1], last[-1]))
        )
        good &= level
        lines.append(
            f"{name}: median {median(middle) / unit:,.0f}, highest {middle[-1] / unit:,.0f} in the middle third; "
            f"{median(last) / unit:,.0f} and {last[-1] / unit:,.0f} in the last: "
            + ("level" if level else "STILL GROWING")
        )
    return good, lines


def draw(found: dict[str, Any], path: Path) -> None:
    """The samples over time, a panel for each figure, the restarts as lines."""
    minutes = [sample["at_s"] / 60 for sample in found["samples"]]
    with mpl.rc_context(STYLE | {"svg.hashsalt": "soak"}):
        figure = Figure(figsize=(7.6, 8.0), layout="constrained")
        panels = figure.subplots(len(FIGURES), 1, sharex=True)
        for axes, (key, unit, name, _allowed) in zip(panels, FIGURES, strict=True):
            values = [sample.get(key) for sample in found["samples"]]
            axes.plot(
                minutes,
                [None if value is None else value / unit for value in values],
                color=COLOURS[OURS],
                linewidth=1.2,
            )
            for restart in found["restarts"]:
                killed = restart["how"] == "kill -9"
                axes.axvline(
                    restart["at_s"] / 60, color="#d55e00" if killed else "#8a8a8a", linewidth=0.6, linestyle=":"
                )
            axes.set_ylim(bottom=0)
            axes.set_title(name)
            axes.grid(axis="y")
        panels[-1].set_xlabel("minutes; dotted: restarts, red by kill -9, grey by SIGTERM")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, facecolor="white", metadata={"Date": None} if path.suffix == ".svg" else None)


def conclude(found: dict[str, Any], plot: Path | None) -> int:
    """Print the summary, draw the plot; the exit status."""
    good, lines = verdict(found)
    print("\n".join(lines))
    if plot is not None:
        draw(found, plot)
    print(
        f"{found['seconds']:,} s, nothing lost: {found['items_stored']:,} items stored, {found['items_confirmed']:,} "
        f"confirmed, {found['requests']:,} requests, "
        f"{found['queues_made_and_deleted']:,} queues made and deleted, {found['half_dead_clients']:,} clients died "
        f"half-way, {found['disk_failures']} times the disk refused writes; {len(found['restarts'])} restarts, longest "
        f"{found['longest_start_s']} s; {'all levels off' if good else 'NOT LEVEL'}; seed {found['seed']}"
    )
    return 0 if good else 1


def main() -> int:
    """The exit status. Raises Violation, LoadTestError."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3600, help="default 3600")
    parser.add_argument("--rate", type=float, default=1500, help="requests a second to hold to, default 1500")
    parser.add_argument("--restart-seconds", type=float, default=300, help="time between restarts, default 300")
    parser.add_argument("--every", type=float, default=5, help="seconds between samples, default 5")
    parser.add_argument("--seed", default=str(randrange(1 << 32)), help="default: another one each time")
    parser.add_argument("--python", default=sys.executable, help="interpreter that runs the server")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("--plot", type=Path, help="draw it into this file")
    parser.add_argument("--redraw", type=Path, metavar="JSON", help="run nothing: judge and draw what is in this file")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args()
    if options.redraw:
        return conclude(json.loads(options.redraw.read_text()), options.plot)
    bar = Bar("soak", options.seconds, "s", options.quiet)
    with Server(our_server(options.python, OPTIONS)) as server:
        soak = Soak(server, options.seed, options)
        try:
            soak.run(bar)
        except LoadTestError as error:
            kept = keep(soak.trial)
            raise Violation(f"after {soak.elapsed_s:.0f} s, seed {options.seed}: {error}; kept: {kept}") from error
        finally:
            bar.clear()
            if options.json:
                options.json.write_text(json.dumps(soak.report(), indent=1) + "\n")
    return conclude(soak.report(), options.plot)


if __name__ == "__main__":
    run("soak", main)
