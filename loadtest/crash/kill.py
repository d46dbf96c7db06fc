"""Kills the server with -9 at random moments under mixed load, starts it again, and checks every promise.

    python -m loadtest.crash.kill --rounds 20            # or: make soak ROUNDS=20
    python -m loadtest.crash.kill --rounds 500 --json crash.json
    python -m loadtest.crash.kill --rounds 20 --seed 4711

A round: some tenths of a second of load (mix.py), the end of the server (mostly by kill -9; now and then SIGTERM, with
or without a kill -9 while it stops), now and then a start that is killed as well, a start, and then most of the queues
are emptied and compared with the model (promises.py). The others keep what they hold over the next kill. Now and then
the clients hang up, and the queues are looked at without a restart. Half of the rounds run a server in which all that
happens rarely happens all the time (hasty.py).

The seed repeats the load's choices, though not the machine's timing. If a promise is broken, one line says what, in
which queue and with which seed; the data directory is kept as it was found, with the last events as the clients saw
them; and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from random import Random, randrange

from loadtest.crash.links import Broken, Connection
from loadtest.crash.mix import CHUNK_BYTES, QUEUES, Load, drain
from loadtest.crash.promises import Model
from loadtest.errors import LoadTestError, Violation
from loadtest.program import run
from loadtest.progress import Bar
from loadtest.servers import Kind, Server, our_server

# Small buffers, so that RocksDB writes and compacts tables all the time; fewer families than queues, so that some
# share.
OPTIONS = [
    *("--chunk-bytes", str(CHUNK_BYTES), "--max-column-families", "3", "--window-bytes", "1MiB"),
    *("--write-buffer-bytes", "1MiB", "--max-wal-bytes", "1MiB", "--block-cache-bytes", "1MiB"),
    *("--min-free-bytes", "1MiB"),
]
LOAD_S = (0.05, 0.7)
NOTICED_S = 10.0
START_SHARE = 0.25  # of the rounds in which a start is killed, too
START_S = 0.5  # within which such a start is killed
CALM_SHARE = 0.2  # of the rounds that begin with load which ends by itself
DRAIN_SHARE = 0.75  # of the queues that are emptied in each round
HASTY_SHARE = 0.5


class Trial:
    """One data directory, its server, and the model of what must be in it."""

    def __init__(self, server: Server, seed: str, hasty: bool = True) -> None:
        """server: it runs already. hasty: run hasty.py in its place now and then, with another `sync` each time."""
        self.server = server
        self.seed = seed
        self.model = Model()
        self.rng = Random(seed)
        self.may_be_hasty = hasty
        self.sane = server.kind
        program = ["loadtest/crash/hasty.py" if word == "darner.py" else word for word in self.sane.command]
        self.hasty = replace(self.sane, command=tuple(program))
        self.starts = self.kills = 0
        self.longest_start_s = 0.0

    def round(self, last: bool) -> None:
        """Load, a kill, a start and the check. Raises Violation, LoadTestError."""
        rng = self.rng
        if rng.random() < CALM_SHARE:
            self.calm_down()
        load = Load(self.model, self.server.port, f"{self.seed} {rng.random()}")
        load.filling = rng.random() < 0.7
        try:
            load.wait_s(rng.uniform(*LOAD_S))
            self.end_server(load, rng.random())
        finally:
            load.end()
        if rng.random() < START_SHARE:
            self.server.launch()
            time.sleep(rng.random() * START_S)
            self.server.kill()
            self.kills += 1
        self.start_server()
        self.check(1.0 if last else DRAIN_SHARE)

    def calm_down(self) -> None:
        """Load, then all clients hang up, and the check: what they held was given back, without a restart."""
        load = Load(self.model, self.server.port, f"{self.seed} {self.rng.random()}")
        try:
            load.wait_s(self.rng.uniform(*LOAD_S))
            load.stop()
        finally:
            load.end()
        connection = Connection(self.model, self.server.port, CHUNK_BYTES)
        deadline = time.monotonic() + NOTICED_S
        while connection.stats()["curr_connections"] != "1":
            if time.monotonic() > deadline:
                raise Violation("the server has not noticed that clients have hung up")
            time.sleep(0.01)
        connection.drop()
        self.model.settled()
        self.check(1.0)

    def end_server(self, load: Load, chance: float) -> None:
        """End the server in one of several ways, and let the load take what was sent. chance, from 0 to 1: in which
        way."""
        rng, process = self.rng, self.server.process
        assert process is not None
        self.model.stopping = chance > 0.75
        self.model.alive = False
        if self.model.stopping:
            process.send_signal(signal.SIGTERM)
            load.wait_s(rng.random() * 0.1)
        if chance < 0.9:
            self.server.kill()
            self.kills += 1
        load.join()
        if chance >= 0.9:
            if (status := self.server.wait_stopped()) != 0:
                raise Violation(f"the server ended with status {status} after SIGTERM")

    def start_server(self) -> None:
        """Start it again. Raises LoadTestError if it does not start."""
        began = time.monotonic()
        if self.may_be_hasty:
            kind = self.hasty if self.rng.random() < HASTY_SHARE else self.sane
            words = ("--sync", self.rng.choice(("never", "never", "never", "20", "always")))
            self.server.kind = replace(kind, command=(*kind.command, *words))
        self.server.launch()
        self.server.wait_until_it_listens()
        self.starts += 1
        self.longest_start_s = max(self.longest_start_s, time.monotonic() - began)
        self.model.settled()

    def check(self, drain_share: float) -> None:
        """Empty some of the queues, and compare what they held with the model. Raises Violation."""
        chosen = [self.model.book(name) for name in QUEUES if self.rng.random() < drain_share]
        try:
            connection = Connection(self.model, self.server.port, CHUNK_BYTES)
            try:
                drain(self.model, connection, chosen, self.rng)
            finally:
                connection.drop()
        except Broken:
            raise Violation("the server hung up while its queues were being emptied") from None
        self.server.check()


def keep(trial: Trial) -> Path:
    """Keep all that may show what went wrong; where."""
    trial.server.kill()
    kept = Path(tempfile.mkdtemp(prefix="crash-kept-"))
    shutil.copytree(trial.server.folder, kept, dirs_exist_ok=True)
    (kept / "events").write_text("".join(" ".join(map(str, event)) + "\n" for event in trial.model.events))
    return kept


def rounds(kind: Kind, seed: str, count: int, quiet: bool) -> dict[str, object]:
    """Run `count` rounds on one data directory. Returns their figures. Raises Violation, LoadTestError."""
    bar = Bar("crash", count, "rounds", quiet)
    with Server(kind) as server:
        trial = Trial(server, seed)
        done = 0
        try:
            for done in range(count):
                bar.show(done)
                trial.round(last=done == count - 1)
        except LoadTestError as error:
            bar.clear()
            raise Violation(f"round {done + 1} of {count}, seed {seed}: {error}; kept: {keep(trial)}") from error
        finally:
            bar.clear()
    model = trial.model
    return {
        "seed": seed,
        "rounds": count,
        "items_stored": model.stored,
        "items_confirmed": model.confirmed,
        "items_flushed_or_deleted": model.dropped,
        "in_doubt_at_kills": model.in_doubt,
        "kills": trial.kills,
        "starts": trial.starts,
        "longest_start_s": round(trial.longest_start_s, 2),
    }


def summary(figures: dict[str, object]) -> str:
    """One line."""
    return (
        "{rounds} rounds, nothing lost: {items_stored:,} items stored, {items_confirmed:,} confirmed, "
        "{items_flushed_or_deleted:,} flushed or deleted, {in_doubt_at_kills:,} requests in doubt at kills; "
        "{kills} kills, {starts} starts, longest {longest_start_s} s; seed {seed}"
    ).format(**figures)


def main() -> None:
    """Raises Violation, LoadTestError."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20, help="default 20")
    parser.add_argument("--seed", default=str(randrange(1 << 32)), help="default: another one each time")
    parser.add_argument("--python", default=sys.executable, help="interpreter that runs the server")
    parser.add_argument("--program", default="darner.py", help="the server to be killed, default darner.py")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args()
    kind = our_server(options.python, OPTIONS, options.program)
    figures = rounds(kind, options.seed, options.rounds, options.quiet)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(summary(figures))


if __name__ == "__main__":
    run("crash", main)
