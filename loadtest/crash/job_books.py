"""What the clients of jobs.py know about jobs: which there are, how urgent, how often they have failed, and where.

A request is announced before it goes out. What was announced and never answered may have happened. Every call raises
Violation if what the server says cannot be. Clients are threads; each call holds the lock.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from threading import RLock

from loadtest.errors import Violation

NEUTRAL = 1024
NEVER = 1 << 62
# The server reads the clock once a turn, and knows milliseconds. A delay is much longer than that.
TURN_S = 0.1
LARGE_BYTES = 4096  # the server's chunk_bytes
POOL = Random(13).randbytes(1 << 18)

NO, MAYBE, SURE = 0, 1, 2


@dataclass
class Rules:
    """The options of a queue."""

    max_deliveries: int = 0
    dead: str = ""
    retry_delay_s: int = 0
    unique_s: int = 0
    pris: tuple[int, ...] = (NEUTRAL,)  # what its producers ask for


class Hold:
    """A client has a job open."""

    def __init__(self, sent_s: float, ttr_s: float, kicks: int) -> None:
        """sent_s: when it was asked for, by a clock that does not step; ttr_s: 0: without a deadline; kicks: of the
        queue, answered before."""
        self.kicks = kicks
        self.ends_s = sent_s + ttr_s if ttr_s else float("inf")  # not before
        self.let_go = False  # what lets it go has been sent

    def in_time(self) -> bool:
        """Whether the deadline has surely not passed."""
        return time.monotonic() < self.ends_s


@dataclass(eq=False)
class Job:
    """One that was sent."""

    serial: int
    size: int
    line: Line
    producer: int
    key: bytes
    pris: set[int]  # one of these
    sent: int = NEVER
    put_by: int = NEVER
    stored: int = MAYBE
    due_s: float = 0.0  # not before this time of day, unless it is kicked
    ready_s: float = 0.0  # by this time of day it is ready, whatever happened
    kicks: int = 0  # of its queue, answered when this began
    pauses: int = 0  # of its queue, when it was sent
    hold: Hold | None = None
    lost: bool = False  # whoever had it has hung up, which the server may not have noticed
    low: int = 0  # it has failed so often at least,
    high: int = 0  # and at most
    seen_low: int = -1  # so often at least when it came last: from then on it was handed out once more
    rejected: int = NO
    gone: int = NO  # closed or taken
    is_dead: bool = False  # it was seen to be a dead letter
    gone_from_s: float = 0.0  # a close was sent then; time of day
    gone_by_s: float = 0.0  # and answered then

    def body(self) -> bytes:
        """The bytes that are sent, and have to come back."""
        begin = self.serial * 977 % (len(POOL) - self.size)
        return b"%08x" % self.serial + POOL[begin : begin + self.size - 8]

    def __str__(self) -> str:
        return (
            f"job {self.serial} of {self.line.name} ({self.size} bytes, pri {sorted(self.pris)}, key {self.key!r}, "
            f"failed {self.low} to {self.high} times, rejected {self.rejected}, gone {self.gone}, "
            f"due {self.due_s:.3f}, sent at {self.sent}, put by {self.put_by})"
        )

    @property
    def may_be_given_up(self) -> bool:
        """Whether it may be dead or buried."""
        most = self.line.rules.max_deliveries
        return self.rejected != NO or (most > 0 and self.high + self.line.leasing >= most)

    @property
    def is_given_up(self) -> bool:
        """Whether it is dead or buried for sure."""
        most = self.line.rules.max_deliveries
        return self.rejected == SURE or (most > 0 and self.low >= most and self.low > self.seen_low)

    @property
    def has_key(self) -> bool:
        """Whether it is in its queue for sure, so that its key is taken."""
        if self.line.asking or self.is_dead or (self.hold is not None and not self.hold.in_time()):
            return False
        in_queue = not self.may_be_given_up or not self.line.rules.dead
        return self.stored == SURE and self.gone == NO and in_queue


@dataclass(eq=False)
class Line:
    """One queue, and the one where its dead letters go."""

    name: str
    rules: Rules
    jobs: dict[int, Job] = field(default_factory=dict)  # sent, and not known to be gone
    by_key: defaultdict[bytes, list[Job]] = field(default_factory=lambda: defaultdict(list))
    asking: int = 0  # gets on their way that may remove something, or open it for a moment only
    leasing: int = 0  # those that open it for a moment
    takers: int = 0  # those that were never answered
    kicks_sent: int = 0
    kicks_answered: int = 0
    pause: set[str] = field(default_factory=lambda: {"none"})  # one of these
    pauses: int = 0  # sent or answered

    @property
    def queue(self) -> bytes:
        return self.name.encode()

    @property
    def dead(self) -> bytes:
        return self.rules.dead.encode()


class Books:
    """Of all queues."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self.lock = RLock()
        self.lines = list(lines)
        self.alive = self.stopping = False
        self.now = self.serial = 0
        self.by_serial: dict[int, Job] = {}  # by serial, all that are not forgotten
        self.counts: Counter[str] = Counter()

    def tick(self) -> int:
        self.now += 1
        return self.now

    # -- puts

    def sending(self, line: Line, producer: int, size: int, pri: int, delay_s: float, key: bytes) -> Job:
        with self.lock:
            self.serial += 1
            job = Job(self.serial, size, line, producer, key, {pri}, self.tick(), kicks=line.kicks_answered)
            job.pauses = line.pauses
            job.due_s = job.ready_s = time.time() + delay_s if delay_s else 0.0
            line.jobs[job.serial] = self.by_serial[job.serial] = job
            if key:
                line.by_key[key].append(job)
            return job

    def stored(self, job: Job, sent_s: float, is_add: bool) -> None:
        """STORED. sent_s: time of day."""
        with self.lock:
            if job.pauses == job.line.pauses and not job.line.pause & {"none", "out"}:
                raise Violation(f"{job} was put into a queue that takes nothing")
            job.put_by = min(job.put_by, self.tick())
            certain = SURE
            for other in self._others(job):
                left_s = other.gone_from_s + job.line.rules.unique_s - TURN_S
                is_kept = other.gone == SURE and other.stored == SURE and time.time() < left_s
                if not other.has_key and not is_kept:
                    if self._may_be_taken(other, sent_s):
                        certain = min(certain, MAYBE)
                elif is_add:
                    raise Violation(f"{job} was put, though its key was taken by {other}")
                else:
                    certain = NO
            if is_add or certain == SURE:
                job.stored = SURE
            elif certain == NO:
                self._forget(job, NO)
            self.counts["stored"] += job.stored == SURE

    def not_stored(self, job: Job, sent_s: float) -> None:
        with self.lock:
            may_be_paused = job.pauses != job.line.pauses or job.line.pause & {"in", "all"}
            if not may_be_paused and not any(self._may_be_taken(other, sent_s) for other in self._others(job)):
                raise Violation(f"{job} was refused, though its key is free and puts are not paused")
            self._forget(job, NO)
            self.counts["refused"] += 1

    def _others(self, job: Job) -> list[Job]:
        return [other for other in job.line.by_key[job.key] if other is not job] if job.key else []

    def _may_be_taken(self, other: Job, sent_s: float) -> bool:
        if other.stored == NO:
            return False
        return other.gone != SURE or sent_s < other.gone_by_s + other.line.rules.unique_s + TURN_S

    # -- what comes

    def came(self, line: Line, body: bytes, is_dead: bool, hold: Hold | None, sent_s: float) -> Job:
        """A job has come from a queue, or, `is_dead`, from where its dead letters go. hold: None: it was taken.
        sent_s: when the get was sent, time of day."""
        with self.lock:
            job = self._identify(line, body)
            self.tick()
            if hold is not None and not hold.in_time() and (job.hold or job.is_dead or job.gone == SURE):
                job.high += 1  # its deadline had passed before the client has read the answer
                return job
            if job.gone == SURE or job.stored == NO:
                raise Violation(f"{job} came, though it was gone or never put")
            if job.hold is not None and not self.stopping:
                in_time = job.hold.in_time()
                if in_time and (job.gone == MAYBE or not job.hold.let_go):
                    raise Violation(f"{job} came, and another client has it open")
                job.high += not in_time
                self.counts["timed out"] += not in_time
                job.low += job.rejected == NO  # its deadline has passed, or it was aborted
            elif not self.stopping and (job.lost or (job.gone == MAYBE and job.gone_by_s)):
                job.low += 1  # that was noticed; or it was closed too late
            job.lost, job.gone, job.stored, job.hold, job.gone_by_s = False, NO, SURE, hold, 0.0
            job.low = min(job.low, job.high)
            job.put_by = min(job.put_by, self.now)
            if is_dead:
                self._is_dead(job)
            else:
                self._is_alive(job)
            if hold is None:
                job.gone_from_s, job.gone_by_s = 0.0 if is_dead else sent_s, time.time()
                self._forget(job, SURE)
            self.counts["came"] += 1
            return job

    def _identify(self, line: Line, body: bytes) -> Job:
        try:
            job = self.by_serial[int(body[:8], 16)]
        except (ValueError, KeyError):
            raise Violation(f"queue {line.name}: {body[:60]!r} came, which nobody put") from None
        if job.line is not line:
            raise Violation(f"queue {line.name}: {job} came")
        if job.body() != body:
            raise Violation(f"{job} came out changed: {len(body)} bytes, {body[:60]!r}")
        return job

    def _is_dead(self, job: Job) -> None:
        if not job.is_dead and not job.may_be_given_up:
            raise Violation(f"{job} is a dead letter, though it has not failed often enough")
        if not job.is_dead:
            self.counts["dead letters"] += 1
        job.is_dead, job.pris, job.due_s = True, {NEUTRAL}, 0.0
        job.gone_by_s = job.gone_by_s or time.time()

    def _is_alive(self, job: Job) -> None:
        if job.is_dead:
            raise Violation(f"{job} came from its queue, though it was a dead letter")
        was_kicked = job.line.kicks_sent > job.kicks
        if job.is_given_up and (job.line.rules.dead or not was_kicked):
            raise Violation(f"{job} came, though it was given up")
        early_s = job.due_s - time.time()
        if early_s > TURN_S and not was_kicked:
            raise Violation(f"{job} came {early_s:.3f} s before its time")
        if job.due_s:
            self.counts["delayed"] += 1
        job.rejected, job.seen_low = NO, job.low
        if job.line.rules.max_deliveries and job.line.rules.dead:
            job.high = min(job.high, job.line.rules.max_deliveries - 1)

    # -- how holds end

    def closing(self, job: Job, hold: Hold) -> None:
        with self.lock:
            if job.hold is hold:
                hold.let_go = True
                job.gone, job.gone_from_s, job.gone_by_s = MAYBE, 0.0 if job.is_dead else time.time(), 0.0
                job.high += not hold.in_time()

    def closed(self, job: Job, hold: Hold) -> None:
        with self.lock:
            self.tick()
            if hold.in_time():
                job.gone_by_s = time.time()
                self._forget(job, SURE)
                self.counts["closed"] += 1
            elif job.hold is hold:
                job.gone_by_s = time.time()
                job.hold = None
                job.high += 1
                self._comes_back(job, hold)

    def failing(self, job: Job, hold: Hold, delay_s: float | None, pri: int | None) -> None:
        """An abort is sent."""
        with self.lock:
            if job.hold is not hold:
                return
            hold.let_go = True
            job.high += 1
            self._comes_back(job, hold, delay_s or 0)
            if pri is not None:
                job.pris.add(pri)

    def failed(self, job: Job, hold: Hold, sent_s: float, delay_s: float | None, pri: int | None) -> None:
        """It was answered. sent_s: time of day."""
        with self.lock:
            self.tick()
            if job.hold is not hold:
                return
            job.hold = None
            job.low += not self.stopping
            if hold.in_time():
                if pri is not None and not job.may_be_given_up:  # what is buried keeps what it had
                    job.pris = {pri}
                delay_s = job.line.rules.retry_delay_s if delay_s is None else delay_s
                job.due_s = sent_s + delay_s if delay_s and not job.may_be_given_up else 0.0
                job.ready_s = time.time() + delay_s
            self._note_dead(job)
            self.counts["failed"] += 1

    def rejecting(self, job: Job, hold: Hold) -> None:
        with self.lock:
            if job.hold is hold:
                hold.let_go = True
                job.rejected = MAYBE
                self._comes_back(job, hold)
                job.high += not hold.in_time()

    def rejected(self, job: Job, hold: Hold) -> None:
        with self.lock:
            self.tick()
            if job.hold is not hold:
                return
            job.hold = None
            if hold.in_time():
                job.rejected = SURE
                self._note_dead(job)
                self.counts["rejected"] += 1
            else:
                job.high += 1

    def timed_out(self, job: Job, hold: Hold) -> None:
        """The server says that the client does not have it any more."""
        with self.lock:
            if hold.in_time():
                raise Violation(f"{job} was taken away before its deadline")
            if job.hold is hold:
                job.hold, job.gone, job.rejected = None, NO, NO
                job.high += not hold.let_go
                job.low += 1
                job.low = min(job.low, job.high)
                self._comes_back(job, hold)
            self.counts["timed out"] += 1

    def hung_up(self, holds: Iterable[tuple[Job, Hold]]) -> None:
        """A client has gone, while the server runs."""
        with self.lock:
            for job, hold in holds:
                if job.hold is hold and not hold.let_go:
                    job.hold, job.lost = None, True
                    job.high += 1
                    self._comes_back(job, hold)

    def _comes_back(self, job: Job, hold: Hold, delay_s: float = 0.0) -> None:
        """Its reader fails, or may have failed, so that it may be ready at once, or after this or its retry delay."""
        job.due_s, job.kicks = 0.0, job.line.kicks_answered if hold.in_time() else hold.kicks
        job.ready_s = time.time() + max(delay_s, job.line.rules.retry_delay_s)

    def _note_dead(self, job: Job) -> None:
        if job.is_given_up and job.line.rules.dead:
            job.gone_by_s = time.time()

    # -- all of them

    def settled(self, restarted: bool) -> None:
        """Nobody is connected, and the server has noticed; or it was started again."""
        with self.lock:
            now = self.tick()
            for line in self.lines:
                for job in line.jobs.values():
                    job.high += line.leasing  # its deadline may have passed before the answer came
                    if job.hold is not None:
                        if not job.hold.let_go and not job.hold.in_time():
                            job.high += 1
                            self._comes_back(job, job.hold)
                        job.hold = None
                    if job.lost and not restarted:
                        job.low += 1
                    job.lost = False
                    job.put_by = min(job.put_by, now)
                line.kicks_answered = line.kicks_sent
                line.takers += line.asking - line.leasing
                line.asking = line.leasing = 0
            self.alive, self.stopping = True, False

    def judge(self, line: Line) -> None:
        """Its queues have been emptied."""
        with self.lock:
            missing = [job for job in line.jobs.values() if job.stored == SURE and job.gone == NO]
            if len(missing) > line.takers:
                shown = ", ".join(map(str, missing[:3]))
                raise Violation(
                    f"LOST {len(missing)} jobs that were stored ({line.takers} may have been taken by gets that were "
                    f"not answered): {shown}"
                )
            for job in line.jobs.values():
                self.by_serial.pop(job.serial)
            line.jobs.clear()
            line.takers = 0
            now_s = time.time()
            for key, jobs in list(line.by_key.items()):
                # What nobody knows of is gone now, and its key may stay taken for a while.
                for job in jobs:
                    if job.gone != SURE and job.stored != NO:
                        job.gone, job.stored, job.gone_by_s = SURE, MAYBE, now_s
                kept = [job for job in jobs if job.stored != NO and now_s < job.gone_by_s + line.rules.unique_s + 1]
                if kept:
                    line.by_key[key] = kept
                else:
                    del line.by_key[key]

    def _forget(self, job: Job, gone: int) -> None:
        """It is gone, or, NO, was never put."""
        job.gone, job.hold = gone, None
        if gone == NO:
            job.stored = NO
            if job.key:
                job.line.by_key[job.key].remove(job)
        job.line.jobs.pop(job.serial, None)
