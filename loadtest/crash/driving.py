"""The rounds of a harness that ends its server again and again. If a promise is broken, the data directory is kept."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from random import randrange
from typing import Protocol, TypeVar

from loadtest.errors import LoadTestError, Violation
from loadtest.progress import Bar
from loadtest.servers import Kind, Server


class Trial(Protocol):
    def round(self, last: bool) -> None:
        """Raises Violation, LoadTestError."""


_Trial = TypeVar("_Trial", bound=Trial)


def rounds(name: str, kind: Kind, config: str, make: Callable[[Server], _Trial], options: argparse.Namespace) -> _Trial:
    """Run `options.rounds` rounds of the trial that `make` makes of a running server. Returns the trial. Raises
    Violation, LoadTestError."""
    bar = Bar(name, options.rounds, "rounds", options.quiet)
    with Server(kind, config) as server:
        done = 0
        try:
            trial = make(server)
            for done in range(options.rounds):
                bar.show(done)
                trial.round(last=done == options.rounds - 1)
        except LoadTestError as error:
            bar.clear()
            server.kill()
            kept = tempfile.mkdtemp(prefix=f"{name}-kept-")
            shutil.copytree(server.folder, kept, dirs_exist_ok=True)
            raise Violation(
                f"round {done + 1} of {options.rounds}, seed {options.seed}: {error}; kept: {kept}"
            ) from error
        finally:
            bar.clear()
    return trial


def read_options(doc: str | None) -> argparse.Namespace:
    """The command line: rounds, seed, python, program, quiet."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20, help="default 20")
    parser.add_argument("--seed", default=str(randrange(1 << 32)), help="default: another one each time")
    parser.add_argument("--python", default=sys.executable, help="interpreter that runs the server")
    parser.add_argument("--program", default="darner.py", help="the server to be killed, default darner.py")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser.parse_args()
