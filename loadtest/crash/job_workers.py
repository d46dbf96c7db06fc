"""The clients of jobs.py: each puts, takes, fails, rejects, closes, kicks and pauses until the server has gone.

One thread each. A worker that has asked and got no answer leaves it at that: the books know what may have happened.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random

from loadtest.crash.job_books import LARGE_BYTES, NEUTRAL, Books, Hold, Job, Line
from loadtest.crash.rounds import Client
from loadtest.errors import Violation
from loadtest.wire import Wire

SIZES = (8, 9, 64, 64, 64, 200, 1000, 3000)
LARGE_SIZES = (LARGE_BYTES, LARGE_BYTES + 1, 3 * LARGE_BYTES + 17, 20 * LARGE_BYTES)
LARGE_SHARE = 0.05
DELAYS_S = (0.0, 0.0, 0.0, 0.15, 0.4, 1.0, 2.5, 3600.0)
KEYS = 6  # of each worker
SHORT_TTR_S, LONG_TTR_S = 0.03, 30.0
PAUSE_S = 0.01

Found = list[tuple[bytes, bytes]]  # ids and bodies

ACTIONS = (
    ("put", 30), ("put_many", 8), ("take", 4), ("work", 40), ("work_many", 8), ("bury_dead", 3), ("kick", 0.4),
    ("pause", 0.4), ("hang_up", 2), ("rest", 4),
)  # fmt: skip


def values(wire: Wire) -> Found:
    """The answer to `gets`. Raises RequestLost if it is an error because the server stops, or Violation."""
    found = []
    while (line := wire.line()) != b"END":
        words = line.split()
        if words[:1] != [b"VALUE"]:
            raise Violation(f"a get is answered {line!r}")
        body = wire.read(int(words[3]))
        if (end := wire.read(2)) != b"\r\n":
            raise Violation(f"an item ends with {end!r}")
        found.append((words[4], body))
    return found


class Worker(Client):
    """One client after the other."""

    def __init__(self, books: Books, port: int, number: int, rng: Random) -> None:
        super().__init__(lambda: books.alive, number)
        self.books = books
        self.port = port
        self.rng = rng
        self.wire: Wire
        self.held: list[tuple[Job, Hold]] = []
        self.lines = rng.sample(books.lines, 3)
        self.actions: list[Callable[[], None]] = [getattr(self, name) for name, _ in ACTIONS]
        self.weights = [weight * rng.choice((0.3, 1, 1, 3)) for _, weight in ACTIONS]

    def connect(self) -> None:
        self.wire = Wire(self.port)

    def step(self) -> None:
        self.rng.choices(self.actions, self.weights)[0]()
        time.sleep(self.rng.random() * PAUSE_S)

    def drop(self) -> None:
        self.books.hung_up(self.held)
        self.held.clear()
        self.wire.close()

    def line(self) -> Line:
        return self.rng.choice((self.lines[0], *self.lines))

    # -- puts

    def put(self) -> None:
        self._put(1)

    def put_many(self) -> None:
        self._put(self.rng.choice((5, 20, 40)))

    def _put(self, count: int) -> None:
        sent_s, sent, requests, keys = time.time(), [], [], set()
        for _ in range(count):
            rng, line = self.rng, self.line()
            key = b""
            if rng.random() < 0.35:
                key = b"%d-%d" % (self.number, rng.randrange(KEYS))
                if (line, key) in keys:
                    continue
                keys.add((line, key))
            size = rng.choice(LARGE_SIZES if rng.random() < LARGE_SHARE else SIZES)
            pri = rng.choice(line.rules.pris)
            delay_s = rng.choice(DELAYS_S)
            job = self.books.sending(line, self.number, size, pri, delay_s, key)
            is_add = bool(key) and rng.random() < 0.5
            options = [b"/key=%b" % key] if key else []
            if delay_s:
                options.append(b"/delay=%d" % (delay_s * 1000))
            if line.rules.pris != (NEUTRAL,):
                options.append(b"/pri=%d" % pri)
            if rng.random() < 0.05:
                options.append(b"/sync")
            rng.shuffle(options)
            verb = b"add" if is_add else b"set"
            requests.append(b"%b %b%b 0 0 %d\r\n%b\r\n" % (verb, line.queue, b"".join(options), size, job.body()))
            sent.append((job, is_add))
        self.wire.send(b"".join(requests))
        for job, is_add in sent:
            if self.wire.expect(b"STORED", b"NOT_STORED") == b"STORED":
                self.books.stored(job, sent_s, is_add)
            else:
                self.books.not_stored(job, sent_s)

    # -- gets

    def take(self) -> None:
        line, sent_s = self.line(), time.time()
        self._ask(line, 1)
        self.wire.send(b"gets %b/t=%d\r\n" % (line.queue, self.rng.choice((0, 0, 20))))
        found = values(self.wire)
        for _, body in found:
            self.books.came(line, body, False, None, sent_s)
        self._ask(line, -1)

    def _ask(self, line: Line, more: int, leases: bool = False) -> None:
        with self.books.lock:
            line.asking += more
            line.leasing += more * leases

    def work(self) -> None:
        self._work(b"")

    def work_many(self) -> None:
        self._work(b"/n=%d" % self.rng.choice((2, 5, 30)))

    def _work(self, how_many: bytes) -> None:
        rng, line = self.rng, self.line()
        ttr_s = rng.choice((0.0, 0.0, 0.0, LONG_TTR_S, LONG_TTR_S, SHORT_TTR_S))
        options = how_many + (b"/ttr=%d" % (ttr_s * 1000) if ttr_s else b"")
        if ttr_s == SHORT_TTR_S:
            self._ask(line, 1, leases=True)
        opened = self._open(line, line.queue + b"/open" + options + b"/t=%d" % rng.choice((0, 0, 20)), ttr_s)
        if ttr_s == SHORT_TTR_S:
            self._ask(line, -1, leases=True)
        rng.shuffle(opened)
        if rng.random() < (0.5 if ttr_s == SHORT_TTR_S else 0.1):
            time.sleep(rng.random() * 4 * SHORT_TTR_S)
        for job, hold, name in opened:
            if rng.random() < 0.1 and ttr_s:
                self._touch(job, hold, name)
            chance = rng.random()
            if chance < 0.5:
                self._close(job, hold, name)
            elif chance < 0.88:
                self._abort(job, hold, name)
            elif chance < 0.95:
                self._reject(job, hold, name)
            else:
                self.hang_up()
                return

    def _open(self, line: Line, key: bytes, ttr_s: float, is_dead: bool = False) -> list[tuple[Job, Hold, bytes]]:
        sent_s, begun_s, kicks = time.time(), time.monotonic(), line.kicks_answered
        self.wire.send(b"gets %b\r\n" % key)
        queue = line.dead if is_dead else line.queue
        opened = []
        for item_id, body in values(self.wire):
            hold = Hold(begun_s, ttr_s, kicks)
            job = self.books.came(line, body, is_dead, hold, sent_s)
            opened.append((job, hold, b"get %b/id=%b" % (queue, item_id)))
            self.held.append((job, hold))
        return opened

    def _done(self, job: Job, hold: Hold, request: bytes) -> bool:
        """Let go. False: the server says that it is not held any more."""
        answer = self.wire.ask(request, b"END", b"ERROR no item with this id is open on this connection")
        self.held.remove((job, hold))
        if answer != b"END":
            self.books.timed_out(job, hold)
        return answer == b"END"

    def _close(self, job: Job, hold: Hold, name: bytes) -> None:
        self.books.closing(job, hold)
        if self._done(job, hold, name + b"/close\r\n"):
            self.books.closed(job, hold)

    def _abort(self, job: Job, hold: Hold, name: bytes) -> None:
        rng, pris = self.rng, job.line.rules.pris
        delay_s = rng.choice((None, None, None, 0.0, 0.2, 1.0, 3600.0))
        pri = rng.choice(pris) if len(pris) > 1 and rng.random() < 0.3 else None
        words = b"/abort" + (b"/delay=%d" % (delay_s * 1000) if delay_s is not None else b"")
        sent_s = time.time()
        self.books.failing(job, hold, delay_s, pri)
        if self._done(job, hold, name + words + (b"/pri=%d" % pri if pri is not None else b"") + b"\r\n"):
            self.books.failed(job, hold, sent_s, delay_s, pri)

    def _reject(self, job: Job, hold: Hold, name: bytes) -> None:
        self.books.rejecting(job, hold)
        if self._done(job, hold, name + b"/reject\r\n"):
            self.books.rejected(job, hold)

    def _touch(self, job: Job, hold: Hold, name: bytes) -> None:
        begun_s = time.monotonic()
        answer = self.wire.ask(b"touch" + name.removeprefix(b"get") + b" 20\r\n", b"TOUCHED", b"NOT_FOUND")
        if answer == b"TOUCHED":
            hold.ends_s = begun_s + 20
        elif hold.in_time():
            raise Violation(f"{job} cannot be touched before its deadline")

    def bury_dead(self) -> None:
        """Deal with a dead letter, or hold it until the server is killed."""
        line = self.line()
        if not line.dead:
            return
        for job, hold, name in self._open(line, line.dead + b"/open", 0, is_dead=True):
            if self.rng.random() < 0.7:
                self._close(job, hold, name)
            else:
                self.hang_up()

    # -- what concerns whole queues

    def kick(self) -> None:
        line = self.line()
        with self.books.lock:
            line.kicks_sent += 1
        self.wire.send(b"kick %b %d\r\n" % (line.queue, self.rng.choice((1, 3, 50))))
        answer = self.wire.line()
        if not answer.startswith(b"KICKED "):
            raise Violation(f"a kick is answered {answer!r}")
        with self.books.lock:
            line.kicks_answered += 1

    def pause(self) -> None:
        """Only the queue's own worker does."""
        line = self.books.lines[self.number % len(self.books.lines)]
        if self.number >= len(self.books.lines):
            return
        for state in (self.rng.choice(("in", "out", "all")), "none"):
            with self.books.lock:
                line.pause.add(state)
                line.pauses += 1
            request = b"pause %b %b\r\n" % (line.queue, state.encode())
            self.wire.ask(request, b"PAUSED " + state.encode(), b"NOT_FOUND")
            with self.books.lock:
                line.pause = {state}
                line.pauses += 1
            time.sleep(self.rng.random() * 0.1)

    def rest(self) -> None:
        time.sleep(self.rng.random() * 0.02)

    def hang_up(self) -> None:
        self.drop()
        self.wire = Wire(self.port)
