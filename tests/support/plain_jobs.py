"""A queue of jobs as a person would keep it on paper: one list, in which each job says how urgent it is and what is to
become of it.

No turns, no disk, no windows, no ids, and nothing lies aside of anything: what is ready goes out by priority, and among
equally urgent jobs in the order of their arrival. A turn that cannot be written is undone by taking the copy that was
made before it; a crash leaves of the last such copy what `restart` does not change. What stands here is what
docs/jobs.md promises, and is not to know how the server does it.
"""

import pickle
from dataclasses import dataclass, field

NEUTRAL = 1024

READY, DELAYED, BURIED = "is ready", "is delayed", "is buried"

# How a failure comes about.
NACK, TIMEOUT, LOSS = "nack", "timeout", "loss"


@dataclass(eq=False)
class Job:
    arrival: int  # the order in which jobs were put; a failure does not change it
    body: bytes  # unlike every other
    pri: int = NEUTRAL
    ttr_ms: int = 0
    expires_ms: int = 0
    key: bytes = b""
    in_line: bool = False  # it is one of those that share the queue's terms
    state: str = READY
    due_ms: int = 0  # of one that is delayed
    buried: int = 0  # the order of burying
    is_open: bool = False
    nacks: int = 0
    timeouts: int = 0
    losses: int = 0
    buries: int = 0
    kicks: int = 0
    history: str = ""  # of a dead letter: from where, how often, why last, which client, when first put
    added_ms: int = 0

    @property
    def failures(self) -> int:
        return self.nacks + self.timeouts + self.losses

    def __repr__(self) -> str:
        return f"<{self.arrival} {self.body[:8]!r} pri {self.pri} {self.state} due {self.due_ms} open {self.is_open}>"


@dataclass(frozen=True)
class Terms:
    """What the jobs of the line have in common."""

    pri: int = NEUTRAL
    ttr_ms: int = 0


@dataclass(frozen=True)
class Rules:
    """The options of a queue that are about jobs; 0: off."""

    max_deliveries: int = 0
    has_dead_letters: bool = False
    retry_delay_ms: int = 0
    retry_backoff: int = 1
    max_retry_delay_ms: int = 0
    unique_ms: int = 0

    def delay_ms(self, failures: int) -> int:
        """Before the next delivery, after this many failures."""
        delay_ms: int = self.retry_delay_ms * self.retry_backoff ** (failures - 1)
        return min(delay_ms, self.max_retry_delay_ms) if self.max_retry_delay_ms else delay_ms


@dataclass(eq=False)
class Read:
    """A client has this job."""

    job: Job
    lives: bool = True


@dataclass(eq=False)
class JobQueue:
    name: bytes = b"q"
    rules: Rules = field(default_factory=Rules)
    terms: Terms = field(default_factory=Terms)
    now_ms: int = 0
    jobs: list[Job] = field(default_factory=list)  # in order of arrival
    reads: list[Read] = field(default_factory=list)
    # Of keys: whose job it is, and until when the key stays taken; 0: until the job is gone.
    keys: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    dead_letters: list[Job] = field(default_factory=list)
    paused_in_until_ms: int = -1  # -1: it is not; 0: until somebody ends it
    paused_out_until_ms: int = -1
    arrivals: int = 0
    buryings: int = 0

    def copy(self) -> "JobQueue":
        """Jobs and reads are others in the copy."""
        other: JobQueue = pickle.loads(pickle.dumps(self, -1))
        return other

    # -- putting

    def put(self, body: bytes, expires_ms: int = 0) -> Job | None:
        """Without options. None: puts are paused."""
        return self.put_job(body, expires_ms=expires_ms)[0]

    def put_job(
        self,
        body: bytes,
        pri: int = NEUTRAL,
        delay_ms: int = 0,
        ttr_ms: int = 0,
        key: bytes = b"",
        expires_ms: int = 0,
    ) -> tuple[Job | None, int]:
        """With options: (the job, None if nothing is put; the arrival of the job that has its key, or of itself)."""
        if self.is_paused_in:
            return None, 0
        if key and (taken_by := self.taken_by(key)):
            return None, taken_by
        terms = Terms(pri, ttr_ms)
        in_line = not delay_ms and not key
        if in_line and terms != self.terms:
            in_line = not any(job.in_line for job in self.jobs)
            if in_line:
                self.terms = terms
        return self.put_aside(body, pri, delay_ms, ttr_ms, key, expires_ms, in_line)

    def put_aside(
        self, body: bytes, pri: int, delay_ms: int, ttr_ms: int, key: bytes, expires_ms: int, in_line: bool = False
    ) -> tuple[Job | None, int]:
        """As `put_job`, of what is known not to be for the line."""
        if key and (taken_by := self.taken_by(key)):
            return None, taken_by
        job = Job(self._arrive(), body, pri, ttr_ms, expires_ms, key, in_line)
        if delay_ms:
            self._delay(job, delay_ms)
        if key:
            self.keys[key] = job.arrival, 0
        self._add(job)
        return job, job.arrival

    def taken_by(self, key: bytes) -> int:
        """The arrival of the job that has this key; 0: it is free."""
        arrival, until_ms = self.keys.get(key, (0, -1))
        return arrival if until_ms == 0 or until_ms > self.now_ms else 0

    def _arrive(self) -> int:
        self.arrivals += 1
        return self.arrivals

    def _add(self, job: Job) -> Job:
        job.added_ms = self.now_ms
        self.jobs.append(job)
        return job

    # -- time

    def pass_to(self, now_ms: int) -> None:
        """What was delayed until then is ready."""
        self.now_ms = now_ms
        for job in self.jobs:
            if job.state == DELAYED and job.due_ms <= now_ms and not job.is_open:
                job.state = READY

    @property
    def is_paused_in(self) -> bool:
        return self._lasts(self.paused_in_until_ms)

    @property
    def is_paused_out(self) -> bool:
        return self._lasts(self.paused_out_until_ms)

    def _lasts(self, until_ms: int) -> bool:
        return until_ms == 0 or until_ms > self.now_ms

    def pause(self, puts: bool, gets: bool, for_ms: int = 0) -> None:
        until_ms = self.now_ms + for_ms if for_ms else 0
        self.paused_in_until_ms = until_ms if puts else -1
        self.paused_out_until_ms = until_ms if gets else -1

    # -- taking

    def waiting(self, state: str) -> list[Job]:
        """Those in this state that nobody has open, in the order in which they will leave it."""
        found = [job for job in self.jobs if job.state == state and not job.is_open]
        if state == READY:
            return sorted(found, key=lambda job: (job.pri, job.arrival))
        if state == DELAYED:
            return sorted(found, key=lambda job: (job.due_ms, job.arrival))
        return sorted(found, key=lambda job: job.buried)

    def open(self) -> Read | None:
        """The head. What has expired there is gone."""
        if self.is_paused_out:
            return None
        for job in self.waiting(READY):
            if not 0 < job.expires_ms < self.now_ms:
                return self.open_job(job)
            self._remove(job)
        return None

    def open_job(self, job: Job) -> Read:
        """Somebody has named this one, in whatever state it is."""
        job.is_open = True
        read = Read(job)
        self.reads.append(read)
        return read

    def close(self, read: Read) -> None:
        if self._let_go(read):
            self._remove(read.job)

    def remove(self, job: Job) -> None:
        """Somebody has named it, and whoever has it open has nothing any more."""
        for read in [read for read in self.reads if read.job is job]:
            self._let_go(read)
        self._remove(job)

    def give_back(self, read: Read) -> None:
        """It is no failure: what it was before it was opened it is again."""
        if self._let_go(read) and read.job.state == DELAYED and read.job.due_ms <= self.now_ms:
            read.job.state = READY

    def release(self, read: Read, delay_ms: int = 0, pri: int | None = None) -> None:
        """It is no failure; but it comes again then, this urgent."""
        if not self._let_go(read):
            return
        job = read.job
        job.pri = job.pri if pri is None else pri
        job.state = READY
        if delay_ms:
            self._delay(job, delay_ms)

    def fail(self, read: Read, how: str, client: str = "", delay_ms: int | None = None, pri: int | None = None) -> None:
        """It counts. The last failure that is allowed makes a dead letter of it, or else buries it."""
        if not read.lives:
            return
        job = read.job
        if how == NACK:
            job.nacks += 1
        elif how == TIMEOUT:
            job.timeouts += 1
        else:
            job.losses += 1
        if not self.rules.max_deliveries or job.failures < self.rules.max_deliveries:
            if delay_ms is None:
                delay_ms = self.rules.delay_ms(job.failures)
            self.release(read, delay_ms, pri)
        elif self.rules.has_dead_letters:
            job.history = f"{self.name.decode()} {job.failures} {how} {client} {job.added_ms}"
            self.close(read)
            self.dead_letters.append(job)
        else:
            job.pri = job.pri if pri is None else pri
            self.bury(read)

    def bury(self, read: Read, pri: int | None = None) -> None:
        if not self._let_go(read):
            return
        read.job.pri = read.job.pri if pri is None else pri
        self.buryings += 1
        read.job.state, read.job.buried = BURIED, self.buryings
        read.job.buries += 1

    def kick(self, most: int) -> int:
        """Up to `most` of the buried ones are ready, those buried longest first; if none is buried, of the delayed."""
        kicked = self.waiting(BURIED)[:most] or self.waiting(DELAYED)[:most]
        for job in kicked:
            job.state = READY
            job.kicks += 1
        return len(kicked)

    def kick_job(self, job: Job) -> bool:
        if job.is_open or job.state == READY:
            return False
        job.state = READY
        job.kicks += 1
        return True

    def flush(self) -> None:
        """What is ready or delayed goes; what is open or buried stays."""
        for job in [*self.waiting(READY), *self.waiting(DELAYED)]:
            self._remove(job)

    def _let_go(self, read: Read) -> bool:
        lived, read.lives = read.lives, False
        if lived:
            read.job.is_open = False
            self.reads.remove(read)
        return lived

    def _delay(self, job: Job, delay_ms: int) -> None:
        job.state, job.due_ms = DELAYED, self.now_ms + delay_ms

    def _remove(self, job: Job) -> None:
        self.jobs.remove(job)
        if job.key:
            if self.rules.unique_ms:
                self.keys[job.key] = job.arrival, self.now_ms + self.rules.unique_ms
            else:
                del self.keys[job.key]

    # -- a restart

    def restart(self) -> None:
        """What was open waits again, as what it was. The server's crash is nobody's failure."""
        self.reads = []
        for job in self.jobs:
            job.is_open = False
        self.pass_to(self.now_ms)
