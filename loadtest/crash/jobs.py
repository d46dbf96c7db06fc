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

import time
from collections.abc import Sequence
from random import Random

from loadtest.crash.job_books import LARGE_BYTES, Books, Job, Line, Rules
from loadtest.crash.job_dump import look
from loadtest.crash.job_workers import Worker, values
from loadtest.crash.rounds import SETTLES_S, Trial, command, play
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
LOOK_SHARE = 0.3  # of the kills, before the start one queue is looked at on disk
DRAIN_SHARE = 0.75  # of the queues that are emptied
KICK_SHARE = 0.5  # of these, all that is delayed or buried is kicked first
BATCH = 64


def config() -> str:
    """The file with the options of all queues."""
    lines = []
    for name, rules in QUEUES.items():
        lines += [f"[queues.{name}]", f"max_deliveries = {rules.max_deliveries}", f"unique_s = {rules.unique_s}"]
        lines += [f"retry_delay_s = {rules.retry_delay_s}"]
        lines += [f'dead_letter_queue = "{rules.dead}"'] if rules.dead else []
    return "\n".join(lines) + "\n"


class JobTrial(Trial):
    """With the queues, and what is known of their jobs."""

    def __init__(self, server: Server, seed: str) -> None:
        """server: it runs already."""
        self.books = Books(Line(name, rules) for name, rules in QUEUES.items())
        super().__init__(server, seed, self.books, list(QUEUES))
        self.looked = 0
        wire = Wire(server.port)
        for line in self.books.lines:
            wire.ask(b"set %b 0 0 5\r\nfirst\r\n" % line.queue, b"STORED")
            wire.get(line.queue)
        wire.close()
        self.books.settled(restarted=True)

    def clients(self) -> Sequence[Worker]:
        return [
            Worker(self.books, self.server.port, n, Random(f"{self.seed} {self.rng.random()}")) for n in range(WORKERS)
        ]

    def look(self) -> None:
        if self.rng.random() < LOOK_SHARE:
            line = self.rng.choice(self.books.lines)
            self.looked += look(self.sane.command[0], self.server.data, self.books, line)

    # -- the check

    def check(self, last: bool) -> None:
        drain_share = 1.0 if last else DRAIN_SHARE
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


def rounds(python: str, program: str, seed: str, count: int, quiet: bool) -> str:
    """Run `count` rounds on one data directory. Returns a line about them. Raises Violation, LoadTestError."""
    with Server(our_server(python, OPTIONS, program), config()) as server:
        trial = play("jobs", server, lambda: JobTrial(server, seed), seed, count, quiet)
    counts = trial.books.counts
    names = ("stored", "refused", "closed", "failed", "rejected", "timed out", "dead letters", "delayed")
    said = ", ".join(f"{counts[name]:,} {name}" for name in names)
    return f"{count} rounds, nothing lost: {said}; {trial.looked:,} looked at on disk, {trial.kills} kills; seed {seed}"


def main() -> None:
    """Raises Violation, LoadTestError."""
    command(__doc__ or "", rounds)


if __name__ == "__main__":
    run("jobs", main)
