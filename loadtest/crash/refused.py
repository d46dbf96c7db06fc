"""Lets a real server's disk refuse writes now and then, under mixed load in three protocols, and checks every promise.

    python -m loadtest.crash.refused --rounds 20           # or: make refused ROUNDS=300
    python -m loadtest.crash.refused --rounds 300 --seed 4711

A round: load; then the disk refuses all writes for a moment or for some seconds, by a limit on the size of files
(RLIMIT_FSIZE, which acts as a full quota does: the database is closed and cannot be opened again), or the data
directory is away, while the load goes on; then the disk works again, and the queues are emptied and compared with what
was answered. Behind every change of state stands a wait: a get that closes, waits and opens, a wait at a queue that was
just deleted, a confirm and then the next. Now and then the server is killed with -9, or told to stop while its disk
refuses: that has to end with status 0.

What was answered is there, in its order; what was refused is not; nobody waits for an answer in vain; nothing is open
that nobody holds; items expire as before; no traceback is in the log. Else one line says what, with the seed, and the
exit status is 1.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from random import Random, randrange
from typing import Any, Self

from loadtest.crash.kestrel_workers import Text, Thrift
from loadtest.crash.workers import REPLY_S, WORKS_AGAIN_S, Memcache, Worker, short
from loadtest.errors import LoadTestError, Refused, RequestLost, Violation
from loadtest.program import run
from loadtest.progress import Bar
from loadtest.servers import ROOT, end_with_parent
from loadtest.wire import Wire

START_S = 30.0
STOP_S = 8.0  # the server has 5

OPTIONS = [
    *("--chunk-bytes", "4KiB", "--max-column-families", "4", "--window-bytes", "1MiB"),
    *("--write-buffer-bytes", "1MiB", "--max-wal-bytes", "2MiB", "--min-free-bytes", "1MiB"),
    *("--expiration-timer-s", "1"),
]
LISTENERS = "".join(f'[[listener]]\nport = 0\ndialect = "{dialect}"\n' for dialect in ("text", "thrift"))


class Server:
    """A server with three listeners on a data directory, inside its `with` block. Its log comes through a pipe: no
    limit on files meets it."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self._config = folder / "darner.toml"
        self._config.write_text(LISTENERS)
        self.lines: list[str] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.kill()
        self.process.wait()

    def start(self) -> None:
        begin = len(self.lines)
        command = [sys.executable, str(ROOT / "darner.py"), "-c", str(self._config), "-p", "0", "-d", str(self.data)]
        self.process = subprocess.Popen(
            [*command, *OPTIONS],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,  # Ctrl-C does not reach it
            preexec_fn=end_with_parent,
        )
        try:
            self._wait_until_it_listens(begin)
        except BaseException:
            self.__exit__()
            raise

    def _wait_until_it_listens(self, begin: int) -> None:
        threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True).start()
        deadline = time.monotonic() + START_S
        while not any("ready: listening" in line for line in self.lines[begin:]):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Violation("the server does not start: " + "".join(self.lines[-10:]))
            time.sleep(0.01)
        found = re.findall(r"listening on: \S+ port (\d+)", "".join(self.lines[begin:]))
        self.port, self.text_port, self.thrift_port = map(int, found)

    def _read(self, output: Any) -> None:
        self.lines.extend(output)

    def refuse_writes(self, refuse: bool) -> None:
        unlimited = resource.RLIM_INFINITY
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (1 if refuse else unlimited, unlimited))

    def take_away(self, away: bool) -> None:
        here, there = str(self.data), f"{self.data}.away"
        os.rename(*((here, there) if away else (there, here)))

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            raise Violation(f"the server has not ended {STOP_S:g} s after signal {number}") from None


class Trial:
    def __init__(self, server: Server, seed: int) -> None:
        self.rng = Random(seed)
        self.server = server
        kinds: list[type[Worker]] = [Memcache] * 5 + [Text] * 2 + [Thrift] * 2
        self.workers = [
            kind(self.server, f"{kind.__name__.lower()}{number}", Random(f"{seed} {number}"))
            for number, kind in enumerate(kinds)
        ]
        for worker in self.workers:
            worker.start()
        self.kills = self.stops = 0

    def go_on(self) -> None:
        for worker in self.workers:
            worker.goes_on.set()

    def stand(self) -> None:
        for worker in self.workers:
            worker.goes_on.clear()
        for worker in self.workers:
            if not worker.stands.wait(REPLY_S + WORKS_AGAIN_S):
                raise Violation(f"{worker.name} is stuck")
        self.look_at_errors()

    def look_at_errors(self) -> None:
        for worker in self.workers:
            if worker.error is not None:
                history = "\n    ".join(worker.history)
                raise Violation(f"{worker.name}: {worker.error!r}; before:\n    {history}") from worker.error

    def round(self) -> None:
        """Load, refused writes, and the check. Raises LoadTestError."""
        rng, server = self.rng, self.server
        self.put_what_expires()
        self.go_on()
        time.sleep(rng.uniform(0.1, 0.4))
        away = rng.random() < 0.2
        fail = server.take_away if away else server.refuse_writes
        fail(True)
        time.sleep(rng.choice((rng.uniform(0.0, 0.1), rng.uniform(0.1, 1.0), rng.uniform(1.0, 2.5))))
        if rng.random() < 0.1:
            server.process.send_signal(signal.SIGHUP)
        if not away and rng.random() < 0.08:
            self.stop_while_refused()
        else:
            fail(False)
            time.sleep(rng.uniform(0.0, 0.3))
            self.stand()
        self.wait_works_again()
        self.check()
        if rng.random() < 0.1:
            for worker in self.workers:
                worker.hang_up()
            server.end(signal.SIGKILL)
            server.start()
            self.kills += 1
        if server.process.poll() is not None:
            raise Violation(f"the server has ended with status {server.process.returncode}")
        if any("Traceback" in line for line in server.lines):
            raise Violation("a traceback is in the log:\n" + "".join(server.lines[-60:]))

    def stop_while_refused(self) -> None:
        """The clients stand still, or what was answered at the last moment would not be known."""
        self.stand()
        for worker in self.workers:
            worker.hang_up()
        status = self.server.end(signal.SIGTERM)
        if status != 0:
            raise Violation(f"stopped while writes are refused, it ends with status {status}")
        self.stops += 1
        self.server.start()

    def put_what_expires(self) -> None:
        link = Wire(self.server.port, REPLY_S)
        link.ask(b"set expires 0 1 1\r\nx\r\n", b"STORED")
        link.close()

    def wait_works_again(self) -> None:
        deadline = time.monotonic() + WORKS_AGAIN_S
        said = "nothing"
        while time.monotonic() < deadline:
            link = Wire(self.server.port, REPLY_S)
            try:
                link.ask(b"set works 0 0 1\r\nx\r\n", b"STORED")
                link.get(b"works")
                return
            except (Refused, RequestLost) as error:
                said = str(error)
            finally:
                link.close()
            time.sleep(0.05)
        raise Violation(f"sets are still refused: {said}")

    def check(self) -> None:
        """The queues hold what their workers know of; most of it is taken out."""
        for worker in self.workers:
            worker.settle(list(worker.items))
        link = Wire(self.server.port, REPLY_S)
        for worker in self.workers:
            for _ in range(len(worker.items) - self.rng.choice((0, 0, 3))):
                worker.is_head(link.get(worker.queue))
                worker.items.popleft()
            if not worker.items and (body := link.get(worker.queue)) is not None:
                raise Violation(f"{worker.name}: {short(body)} is there, and was never put, or taken")
        deadline = time.monotonic() + WORKS_AGAIN_S
        while link.stats().get("queue_expires_items", "0") != "0":
            if time.monotonic() > deadline:
                raise Violation("items do not expire any more")
            time.sleep(0.1)
        link.close()


def rounds(folder: Path, seed: int, count: int, quiet: bool) -> str:
    """Run `count` rounds on one data directory in `folder`; a line about them. Raises Violation, and keeps the folder
    then."""
    bar = Bar("refused", count, "rounds", quiet)
    number = 0
    with Server(folder) as server:
        try:
            trial = Trial(server, seed)
            for number in range(1, count + 1):
                bar.show(number - 1)
                trial.round()
            status = server.end(signal.SIGTERM)
            if status != 0:
                raise Violation(f"it ends with status {status}")
        except (LoadTestError, OSError) as error:
            (folder / "log").write_text("".join(server.lines))
            raise Violation(f"round {number} of {count}, seed {seed}: {error}; kept: {folder}") from error
        finally:
            bar.clear()
    done, refused, unsure = (
        sum(getattr(worker, what) for worker in trial.workers) for what in ("done", "refused", "unsure")
    )
    return (
        f"{count} rounds, nothing lost: {done:,} requests done, {refused:,} refused, {unsure:,} hung up on,"
        f" {trial.kills} kills, {trial.stops} stops while refused"
    )


def main() -> None:
    """Raises Violation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="default 20")
    parser.add_argument("--seed", type=int, default=randrange(10**6), help="default: another one each time")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="darner-refused-"))
    try:
        print(rounds(folder, options.seed, options.rounds, options.quiet))
    except Violation:
        raise
    except BaseException:
        shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)


if __name__ == "__main__":
    run("refused", main)
