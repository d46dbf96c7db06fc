"""Rounds of load, the end of the server, a start and a check; what jobs.py and doors.py have in common.

Each of them has books of what its clients know, clients that are threads, and a check of its own.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from random import Random, randrange
from typing import Protocol, TypeVar

from loadtest.errors import LoadTestError, RequestLost, Violation
from loadtest.progress import Bar
from loadtest.servers import Server
from loadtest.wire import Wire

LOAD_S = (0.05, 0.7)
CALM_SHARE = 0.15  # of the rounds end without a kill
STOP_SHARE = 0.15  # with SIGTERM
START_SHARE = 0.2  # with a start that is killed, too
START_S = 0.5  # within which such a start is killed
HASTY_SHARE = 0.5
GONE_S = 0.2  # within which a process has ended whose sockets are closed
SETTLES_S = 20.0  # within which the server has noticed who hung up, and moved large dead letters


class KilledBooks(Protocol):
    """What the clients know."""

    alive: bool  # no end of the server has been asked for
    stopping: bool  # it was told to stop

    @property
    def lock(self) -> AbstractContextManager[object]: ...

    def settled(self, restarted: bool) -> None:
        """Nobody is connected, and the server has noticed; or it was started again."""


class Client(threading.Thread):
    """One client after the other, until the server has gone or `goes_on` is false."""

    def __init__(self, alive: Callable[[], bool], number: int) -> None:
        """alive: whether the server is to answer still."""
        super().__init__(daemon=True)
        self.number = number
        self.goes_on = True
        self.doing = ""  # the step, for whoever reads what went wrong
        self.error: BaseException | None = None
        self._is_alive = alive

    def connect(self) -> None:
        """Before the first step."""

    def step(self) -> None:
        """Ask something."""

    def drop(self) -> None:
        """Hang up."""

    def run(self) -> None:
        try:
            self.connect()
            while self.goes_on:
                self.step()
            self.drop()
        except RequestLost as error:
            if self._is_alive():
                doing = f" ({self.doing})" if self.doing else ""
                self.error = Violation(f"worker {self.number}{doing}: {error}, though the server runs")
        except BaseException as error:
            self.error = error


class Trial(ABC):
    """One data directory, its server, and the books of what must be in it."""

    def __init__(self, server: Server, seed: str, books: KilledBooks, queues: Sequence[str], ports: Iterable[int] = ()):
        """server: it runs already. queues: in which nothing is open when nobody is connected. ports: its other ones."""
        self.server = server
        self.seed = seed
        self.rng = Random(seed)
        self.ends = books
        self.queues = queues
        self.ports = ports
        self.sane = server.kind
        program = ["loadtest/crash/hasty.py" if word == "darner.py" else word for word in self.sane.command]
        self.hasty = replace(self.sane, command=tuple(program))
        self.kills = 0

    # -- what a harness has of its own

    @abstractmethod
    def clients(self) -> Sequence[Client]:
        """Those of a round."""

    @abstractmethod
    def check(self, last: bool) -> None:
        """The server runs, and nobody is connected. last: all of it. Raises Violation, LoadTestError."""

    def look(self) -> None:
        """The server has ended. By default there is nothing to look at. Raises Violation."""
        return

    # -- a round

    def round(self, last: bool) -> None:
        """Load, an end, a start and the check. Raises Violation, LoadTestError."""
        rng = self.rng
        chance = rng.random()
        clients = self.clients()
        for client in clients:
            client.start()
        self._wait(clients, time.monotonic() + rng.uniform(*LOAD_S))
        if chance < CALM_SHARE:
            for client in clients:
                client.goes_on = False
            self._join(clients)
            self._wait_until_alone()
            self.ends.settled(restarted=False)
        else:
            self._end(stops=chance > 1 - STOP_SHARE)
            self._join(clients)
            if rng.random() < START_SHARE:
                self.server.launch()
                time.sleep(rng.random() * START_S)
                self.server.kill()
                self.kills += 1
            self.ends.settled(restarted=True)
            self.look()
            self._start()
        self.check(last)

    def _wait(self, clients: Sequence[Client], until_s: float) -> None:
        while time.monotonic() < until_s:
            self._raise(clients)
            time.sleep(0.005)

    def _join(self, clients: Sequence[Client]) -> None:
        for client in clients:
            client.join()
        self._raise(clients)

    def _raise(self, clients: Sequence[Client]) -> None:
        for client in clients:
            if client.error is not None:
                self._raise_if_it_ended()
                raise client.error

    def _raise_if_it_ended(self) -> None:
        """That the server has ended by itself says more than that clients have lost it."""
        if self.ends.alive:
            time.sleep(GONE_S)
            self.server.check()

    def _end(self, stops: bool) -> None:
        process = self.server.process
        assert process is not None
        with self.ends.lock:
            self.ends.alive = False
            self.ends.stopping = stops
        if stops:
            process.send_signal(signal.SIGTERM)
            if self.rng.random() < 0.5:
                if (status := self.server.wait_stopped()) != 0:
                    raise Violation(f"the server ended with status {status} after SIGTERM")
                return
            time.sleep(self.rng.random() * 0.1)
        self.server.kill()
        self.kills += 1

    def _start(self) -> None:
        kind = self.hasty if self.rng.random() < HASTY_SHARE else self.sane
        words = ("--sync", self.rng.choice(("never", "never", "20", "always")))
        self.server.kind = replace(kind, command=(*kind.command, *words))
        self.server.launch()
        self.server.wait_until_it_listens()
        for port in self.ports:
            self.server.wait_until_it_listens(port)
        self._wait_until_alone()
        self.ends.settled(restarted=True)

    def _wait_until_alone(self) -> None:
        """Until the server has noticed that nobody is connected, and large dead letters are where they belong."""
        wire = Wire(self.server.port)
        names = [f"queue_{name}_open_transactions" for name in self.queues]
        deadline = time.monotonic() + SETTLES_S
        while True:
            stats = wire.stats()
            if stats["curr_connections"] == "1" and all(stats.get(name, "0") == "0" for name in names):
                break
            if time.monotonic() > deadline:
                raise Violation(f"something is open, and nobody is connected: {stats}")
            time.sleep(0.01)
        wire.close()


T = TypeVar("T", bound=Trial)


def play(name: str, server: Server, trial: Callable[[], T], seed: str, count: int, quiet: bool) -> T:
    """Run `count` rounds on one data directory. Returns the trial. Raises Violation, which says where the directory is
    kept."""
    bar = Bar(name, count, "rounds", quiet)
    done = 0
    try:
        played = trial()
        for done in range(count):
            bar.show(done)
            played.round(last=done == count - 1)
    except LoadTestError as error:
        bar.clear()
        server.kill()
        kept = tempfile.mkdtemp(prefix=f"{name}-kept-")
        shutil.copytree(server.folder, kept, dirs_exist_ok=True)
        raise Violation(f"round {done + 1} of {count}, seed {seed}: {error}; kept: {kept}") from error
    finally:
        bar.clear()
    return played


def command(doc: str, rounds: Callable[[str, str, str, int, bool], str]) -> None:
    """The command line of a harness. rounds: of interpreter, program, seed, how many and whether to be quiet; returns
    what is printed. Raises Violation, LoadTestError."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20, help="default 20")
    parser.add_argument("--seed", default=str(randrange(1 << 32)), help="default: another one each time")
    parser.add_argument("--python", default=sys.executable, help="interpreter that runs the server")
    parser.add_argument("--program", default="darner.py", help="the server to be killed, default darner.py")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args()
    print(rounds(options.python, options.program, options.seed, options.rounds, options.quiet))
