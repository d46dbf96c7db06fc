"""Kills the server with -9 while clients put, take, fail, reject, kick and pause jobs; and checks every promise.

    python -m loadtest.crash.jobs --rounds 100
    python -m loadtest.crash.jobs --rounds 100 --seed 4711

What kill.py checks of plain queues, this does of jobs: delays, priorities, keys, deadlines, failures that count, dead
letters, and pauses; some of the items are large. Each round: some tenths of a second of load (job_workers.py), the end
of the server (mostly by kill -9), now and then a look at what is on disk (job_dump.py), a start, and then most queues
are emptied and compared with the books:

- a job whose put was answered is there once: in its queue or, if it may have failed often enough, where dead letters
  go; what was closed, rejected or dead does not come to its queue again;
- a key that was taken refuses a second put while its job is in the queue and for `unique_s` after it, and never longer;
  two jobs with one key are never in the queue at once;
- nothing delayed comes before its time, unless it was kicked;
- nothing comes that has failed `max_deliveries` times, and nothing is dead that has not; a crash is no failure;
- nobody gets what another client has open;
- what comes out at the end comes by priority, and in the order of arrival among those that are equally urgent;
- a pause is kept.

The seed repeats the load's choices, though not the machine's timing. A promise that is broken is one line, and exit
status 1; the data directory is kept.
"""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from random import Random

from loadtest.crash.driving import read_options, rounds
from loadtest.crash.job_books import LARGE_BYTES, Books, Job, Line, Rules
from loadtest.crash.job_dump import look
from loadtest.crash.job_workers import Worker, values
from loadtest.errors import RequestLost, Violation
from loadtest.program import run
from loadtest.servers import Server, our_server
from loadtest.wire import Wire

OPTIONS = [
    *("--dialect", "kestrel", "--chunk-bytes", str(LARGE_BYTES), "--max-column-families", "3"),
    *("--window-bytes", "1MiB", "--write-buffer-bytes", "1MiB", "--max-wal-bytes", "1MiB"),
    *("--block-cache-bytes", "1MiB", "--min-free-bytes", "1MiB"),
]
PRIS = (0, 10, 1024, 1024, 5000)
QUEUES = {
    "mail": Rules(max_deliveries=3, dead="mail.dead", pris=PRIS),
    "work": Rules(max_deliveries=2, dead="work.dead", unique_s=2, pris=PRIS),
    "calm": Rules(max_deliveries=3, dead="calm.dead", retry_delay_s=1),
    "buried": Rules(max_deliveries=2, pris=PRIS),
    "plain": Rules(unique_s=1),
}
WORKERS = 10
LOAD_S = (0.05, 0.7)
CALM_SHARE = 0.15  # of the rounds end without a kill
STOP_SHARE = 0.15  # with SIGTERM
START_SHARE = 0.2  # with a start that is killed, too
START_S = 0.5  # within which such a start is killed
LOOK_SHARE = 0.3  # of the kills, before the start one queue is looked at on disk
DRAIN_SHARE = 0.75  # of the queues that are emptied
KICK_SHARE = 0.5  # of these, all that is delayed or buried is kicked first
HASTY_SHARE = 0.5
BATCH = 64
SETTLES_S = 20.0  # within which the server has noticed who hung up, and moved large dead letters


def config() -> str:
    """The file with the options of all queues."""
    lines = []
    for name, rules in QUEUES.items():
        lines += [f"[queues.{name}]", f"max_deliveries = {rules.max_deliveries}", f"unique_s = {rules.unique_s}"]
        lines += [f"retry_delay_s = {rules.retry_delay_s}"]
        lines += [f'dead_letter_queue = "{rules.dead}"'] if rules.dead else []
    return "\n".join(lines) + "\n"


class Trial:
    """One data directory, its server, and the books of what must be in it."""

    def __init__(self, server: Server, seed: str) -> None:
        """server: it runs already."""
        self.server = server
        self.seed = seed
        self.rng = Random(seed)
        self.books = Books(Line(name, rules) for name, rules in QUEUES.items())
        self.sane = server.kind
        program = ["loadtest/crash/hasty.py" if word == "darner.py" else word for word in self.sane.command]
        self.hasty = replace(self.sane, command=tuple(program))
        self.kills = self.looked = 0
        wire = Wire(server.port)
        for line in self.books.lines:
            wire.ask(b"set %b 0 0 5\r\nfirst\r\n" % line.queue, b"STORED")
            wire.get(line.queue)
        wire.close()
        self.books.settled(restarted=True)

    def round(self, last: bool) -> None:
        """Load, an end, a start and the check. Raises Violation, LoadTestError."""
        rng = self.rng
        chance = rng.random()
        workers = [
            Worker(self.books, self.server.port, n, Random(f"{self.seed} {rng.random()}")) for n in range(WORKERS)
        ]
        for worker in workers:
            worker.start()
        self._wait(workers, time.monotonic() + rng.uniform(*LOAD_S))
        if chance < CALM_SHARE:
            for worker in workers:
                worker.goes_on = False
            self._join(workers)
            self._wait_until_alone()
            self.books.settled(restarted=False)
        else:
            self._end(stops=chance > 1 - STOP_SHARE)
            self._join(workers)
            if rng.random() < START_SHARE:
                self.server.launch()
                time.sleep(rng.random() * START_S)
                self.server.kill()
                self.kills += 1
            self.books.settled(restarted=True)
            if rng.random() < LOOK_SHARE:
                self.looked += look(self.sane.command[0], self.server.data, self.books, rng.choice(self.books.lines))
            self._start()
        self._check(1.0 if last else DRAIN_SHARE)

    def _wait(self, workers: list[Worker], until_s: float) -> None:
        while time.monotonic() < until_s:
            for worker in workers:
                if worker.error is not None:
                    raise worker.error
            time.sleep(0.005)

    def _join(self, workers: list[Worker]) -> None:
        for worker in workers:
            worker.join()
        self._wait(workers, 0)
        for worker in workers:
            if worker.error is not None:
                raise worker.error

    def _end(self, stops: bool) -> None:
        process = self.server.process
        assert process is not None
        with self.books.lock:
            self.books.alive = False
            self.books.stopping = stops
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
        self._wait_until_alone()
        self.books.settled(restarted=True)

    def _wait_until_alone(self) -> None:
        """Until the server has noticed that nobody is connected, and large dead letters are where they belong."""
        wire = Wire(self.server.port)
        names = [f"queue_{line.name}_open_transactions" for line in self.books.lines]
        deadline = time.monotonic() + SETTLES_S
        while True:
            stats = wire.stats()
            if stats["curr_connections"] == "1" and all(stats.get(name, "0") == "0" for name in names):
                break
            if time.monotonic() > deadline:
                raise Violation(f"something is open, and nobody is connected: {stats}")
            time.sleep(0.01)
        wire.close()

    # -- the check

    def _check(self, drain_share: float) -> None:
        wire = Wire(self.server.port)
        try:
            for line in self.books.lines:
                if self.rng.random() < drain_share:
                    self._drain(wire, line)
        except RequestLost as error:
            raise Violation(f"the queues are being emptied, and {error}") from None
        wire.close()
        self.server.check()

    def _drain(self, wire: Wire, line: Line) -> None:
        rng = self.rng
        if line.pause <= {"out", "all"} and values_of(wire, line.queue):
            raise Violation(f"queue {line.name} hands out a job, though it is paused")
        wire.ask(b"pause %b none\r\n" % line.queue, b"PAUSED none")
        line.pause = {"none"}
        if rng.random() >= KICK_SHARE:
            # What is delayed may become ready at any moment, so that only the rest has its order.
            now_s = time.time()
            jobs = self._take_all(wire, line)
            check_order([job for job in jobs if job.ready_s < now_s - 1])
        while True:
            line.kicks_sent += 1
            wire.send(b"kick %b 1000\r\n" % line.queue)
            kicked = wire.line()
            line.kicks_answered += 1
            if kicked == b"KICKED 0":
                break
        jobs = self._take_all(wire, line)
        check_order(jobs)
        keys = [job.key for job in jobs if job.key]
        if len(set(keys)) != len(keys):
            raise Violation(f"two jobs in queue {line.name} have one key: {[str(job) for job in jobs if job.key]}")
        if line.dead:
            self._wait_moved(wire, line)
            self._take_all(wire, line, is_dead=True)
        self.books.judge(line)
        stats = wire.stats()
        for name in (line.name, *([line.rules.dead] if line.rules.dead else [])):
            for what in ("items", "bytes", "open_transactions", "delayed", "buried", "set_aside", "reserved"):
                if stats.get(f"queue_{name}_{what}", "0") != "0":
                    raise Violation(f"queue {name} is empty, but the statistics say that it has {what}: {stats}")

    def _wait_moved(self, wire: Wire, line: Line) -> None:
        """A large dead letter is moved after the start if the server ended meanwhile. It is open for so long."""
        until = time.monotonic() + SETTLES_S
        while wire.stats().get(f"queue_{line.name}_open_transactions") != "0":
            if time.monotonic() > until:
                raise Violation(
                    f"queue {line.name} has something open for more than {SETTLES_S} s, which no client has"
                )
            time.sleep(0.05)

    def _take_all(self, wire: Wire, line: Line, is_dead: bool = False) -> list[Job]:
        queue, jobs = line.dead if is_dead else line.queue, []
        while True:
            sent_s = time.time()
            wire.send(b"gets %b\r\n" % queue * BATCH)
            found = [body for _ in range(BATCH) for _, body in values(wire)]
            jobs += [self.books.came(line, body, is_dead, None, sent_s) for body in found]
            if not found:
                return jobs


def check_order(jobs: list[Job]) -> None:
    """These came one after the other from one queue, in which all were ready before: the most urgent first, and of
    those that are equally urgent those that arrived first."""
    urgent: tuple[int, Job | None] = -1, None
    last_sent: dict[int, Job] = {}
    last_of: dict[tuple[int, int], Job] = {}
    for job in jobs:
        if max(job.pris) < urgent[0]:
            raise Violation(f"{job} came behind {urgent[1]}, which is less urgent")
        if min(job.pris) > urgent[0]:
            urgent = min(job.pris), job
        if len(job.pris) > 1:
            continue
        (pri,) = job.pris
        for earlier in (last_sent.get(pri), last_of.get((pri, job.producer))):
            if earlier is not None and (
                job.put_by < earlier.sent or (job.producer == earlier.producer and job.serial < earlier.serial)
            ):
                raise Violation(f"{job} came behind {earlier}, which arrived later")
        if pri not in last_sent or job.sent > last_sent[pri].sent:
            last_sent[pri] = job
        last_of[pri, job.producer] = job


def values_of(wire: Wire, queue: bytes) -> bool:
    """Whether a peek shows an item."""
    wire.send(b"gets %b/peek\r\n" % queue)
    return bool(values(wire))


def main() -> None:
    """Raises Violation, LoadTestError."""
    options = read_options(__doc__)
    kind = our_server(options.python, OPTIONS, options.program)
    trial = rounds("jobs", kind, config(), lambda server: Trial(server, options.seed), options)
    counts = trial.books.counts
    names = ("stored", "refused", "closed", "failed", "rejected", "timed out", "dead letters", "delayed")
    said = ", ".join(f"{counts[name]:,} {name}" for name in names)
    ends = f"{trial.looked:,} looked at on disk, {trial.kills} kills; seed {options.seed}"
    print(f"{options.rounds} rounds, nothing lost: {said}; {ends}")


if __name__ == "__main__":
    run("jobs", main)
