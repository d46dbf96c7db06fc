"""The clients of doors.py: of beanstalkd, of Disque, of Redis lists and of memcache, at work until the server has gone.

One thread each. Every value has a name of eight digits at its beginning.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

from loadtest.crash.door_books import SIZES, SMALL, Books
from loadtest.errors import RequestLost, Violation
from loadtest.wire import Wire

TUBES = (b"tube", b"jobs")
QUEUES = (b"jobs", b"disque")  # "jobs" is used by clients of both
APART = b"apart"  # where nothing is taken while there is load
PAUSE_S = 0.004


@dataclass(frozen=True)
class Ports:
    memcache: int
    beanstalkd: int
    resp: int


class Resp(Wire):
    """A connection that speaks RESP."""

    def do(self, *words: bytes) -> Any:
        """What a command is answered: bytes, None or a list. Raises Violation for an error."""
        self.send(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))
        return self._answer(words[0])

    def _answer(self, verb: bytes) -> Any:
        line = self.line()
        kind, rest = line[:1], line[1:]
        if kind in (b"+", b":"):
            return rest
        if kind not in (b"$", b"*"):
            raise Violation(f"{verb.decode()} is answered {line!r}")
        if int(rest) < 0:
            return None
        if kind == b"*":
            return [self._answer(verb) for _ in range(int(rest))]
        return self.read(int(rest) + 2)[:-2]


class Client(threading.Thread):
    """`work` is done again and again."""

    def __init__(self, books: Books, ports: Ports, rng: Random) -> None:
        super().__init__(daemon=True)
        self.books, self.ports, self.rng = books, ports, rng
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.connect()
            while True:
                self.work()
                time.sleep(self.rng.random() * PAUSE_S)
        except RequestLost as error:
            if self.books.alive:
                self.error = Violation(f"{type(self).__name__}: {error}, though the server runs")
        except BaseException as error:
            self.error = error

    def connect(self) -> None:
        raise NotImplementedError

    def work(self) -> None:
        raise NotImplementedError

    @contextmanager
    def taking(self) -> Iterator[None]:
        """What is asked for meanwhile is away with its answer, so it may be lost if there is none."""
        with self.books.lock:
            self.books.takers += 1
        yield
        with self.books.lock:
            self.books.takers -= 1

    def remove(self, wire: Wire, body: bytes, request: bytes, answer: bytes) -> None:
        self.books.removing(body)
        wire.ask(request, answer)
        self.books.removed(body)


class Beanstalkd(Client):
    def connect(self) -> None:
        self.wire = Wire(self.ports.beanstalkd)
        for number, tube in enumerate(TUBES):
            self.wire.ask(b"watch %b\r\n" % tube, b"WATCHING %d" % (number + 2))

    def work(self) -> None:
        rng, wire = self.rng, self.wire
        if rng.random() < 0.6:
            tube = rng.choice(TUBES)
            wire.ask(b"use %b\r\n" % tube, b"USING " + tube)
            body = self.books.sending(rng)
            delay = rng.choice((0, 0, 0, 1, 3600))
            wire.send(b"put %d %d 60 %d\r\n%b\r\n" % (rng.choice((5, 1024, 1024)), delay, len(body), body))
            words = wire.line().split()
            if words[0] != b"INSERTED":
                raise Violation(f"a put is answered {words}")
            self.books.stored(body, b"beanstalkd " + words[1])
            if rng.random() < 0.1:
                self._reserve(b"reserve-job %b\r\n" % words[1])
        elif rng.random() < 0.04:
            wire.send(b"kick %d\r\n" % rng.choice((1, 20)))
            wire.line()
        else:
            self._reserve(b"reserve-with-timeout %d\r\n" % rng.choice((0, 0, 1)))

    def _reserve(self, request: bytes) -> None:
        rng, wire = self.rng, self.wire
        wire.send(request)
        words = wire.line().split()
        if words[0] in (b"TIMED_OUT", b"NOT_FOUND"):
            return
        if words[0] != b"RESERVED":
            raise Violation(f"a reserve is answered {words}")
        body = wire.read(int(words[2]) + 2)[:-2]
        self.books.came(body, b"beanstalkd " + words[1])
        if rng.random() < 0.1:
            wire.ask(b"touch %b\r\n" % words[1], b"TOUCHED")
        chance = rng.random()
        if chance < 0.6:
            self.remove(wire, body, b"delete %b\r\n" % words[1], b"DELETED")
        elif chance < 0.8:
            wire.ask(b"release %b %d %d\r\n" % (words[1], rng.choice((5, 1024)), rng.choice((0, 0, 1))), b"RELEASED")
        elif chance < 0.95:
            wire.ask(b"bury %b 1024\r\n" % words[1], b"BURIED")
        # Else it stays reserved, until the server ends.


class Disque(Client):
    def connect(self) -> None:
        self.wire = Resp(self.ports.resp)

    def work(self) -> None:
        rng, wire = self.rng, self.wire
        if rng.random() < 0.5:
            body = self.books.sending(rng)
            words = [b"DELAY", b"1"] if rng.random() < 0.2 else []
            # ENQUEUE takes a job from whoever has it, so only what nobody else takes is dequeued.
            queue = rng.choice((*QUEUES, APART))
            job_id = wire.do(b"ADDJOB", queue, body, b"0", b"RETRY", b"60", *words)
            self.books.stored(body, job_id)
            if queue == APART:
                wire.do(b"DEQUEUE", job_id)
                if rng.random() < 0.7:
                    wire.do(b"ENQUEUE", job_id)
            return
        wait = [b"NOHANG"] if rng.random() < 0.7 else [b"TIMEOUT", b"20"]
        jobs = wire.do(b"GETJOB", *wait, b"COUNT", b"%d" % rng.choice((1, 1, 5)), b"FROM", *QUEUES)
        for _, job_id, body in jobs or ():
            self.books.came(body, job_id)
            chance = rng.random()
            if chance < 0.7:
                self.books.removing(body)
                wire.do(rng.choice((b"ACKJOB", b"FASTACK")), job_id)
                self.books.removed(body)
            elif chance < 0.9:
                wire.do(rng.choice((b"NACK", b"ENQUEUE")), job_id)


class Lists(Client):
    """Its values are small: a large one cannot be moved from list to list."""

    def connect(self) -> None:
        self.wire = Resp(self.ports.resp)

    def work(self) -> None:
        rng, wire = self.rng, self.wire
        chance = rng.random()
        if chance < 0.45:
            bodies = [self.books.sending(rng, SMALL) for _ in range(rng.choice((1, 1, 3)))]
            wire.do(rng.choice((b"LPUSH", b"RPUSH", b"RPUSH")), b"list", *bodies)
            for body in bodies:
                self.books.stored(body)
        elif chance < 0.6:
            with self.taking():
                body = wire.do(rng.choice((b"LPOP", b"RPOP")), b"list")
                if body is not None:
                    self.books.came(body)
                    self.books.removed(body)
        elif chance < 0.7:
            with self.taking():
                found = wire.do(rng.choice((b"BLPOP", b"BRPOP")), b"list", b"0.02")
                if found is not None:
                    self.books.came(found[1])
                    self.books.removed(found[1])
        else:
            body = wire.do(b"LMOVE", b"list", b"held", rng.choice((b"LEFT", b"RIGHT")), b"RIGHT")
            if body is not None and rng.random() < 0.8:
                self.books.came(body)
                self.books.removing(body)
                if wire.do(b"LREM", b"held", b"1", body) == b"1":
                    self.books.removed(body)


class Transactions(Client):
    """Puts each value into two lists in one transaction."""

    def connect(self) -> None:
        self.wire = Resp(self.ports.resp)

    def work(self) -> None:
        body = self.books.sending(self.rng, SMALL)
        for words in ((b"MULTI",), (b"RPUSH", b"left", body), (b"RPUSH", b"right", body), (b"EXEC",)):
            self.wire.do(*words)
        self.books.stored(body)


class Memcache(Client):
    def connect(self) -> None:
        self.wire = Wire(self.ports.memcache)

    def work(self) -> None:
        rng, wire = self.rng, self.wire
        queue = rng.choice((b"jobs", b"tube", b"disque", b"list"))
        if rng.random() < 0.4:
            body = self.books.sending(rng, SMALL if queue == b"list" else SIZES)
            wire.ask(b"set %b 0 0 %d\r\n%b\r\n" % (queue, len(body), body), b"STORED")
            self.books.stored(body)
        elif (found := wire.get(queue + b"/open")) is not None:
            self.books.came(found)
            if rng.random() < 0.7:
                self.remove(wire, found, b"get %b/close\r\n" % queue, b"END")
            else:
                wire.ask(b"get %b/abort\r\n" % queue, b"END")


class Producer(Client):
    """Puts numbers at the right of a list, in order."""

    def __init__(self, books: Books, ports: Ports, rng: Random, first: int) -> None:
        super().__init__(books, ports, rng)
        self.sent = first  # below this number all were sent, the last of them perhaps not answered
        self.answered = first

    def connect(self) -> None:
        self.wire = Resp(self.ports.resp)

    def work(self) -> None:
        numbers = range(self.sent, self.sent + self.rng.choice((1, 5)))
        self.sent = numbers[-1] + 1
        self.wire.do(b"RPUSH", b"line", *(b"%d" % number for number in numbers))
        self.answered = self.sent


class Consumer(Client):
    """Takes the numbers at the left of the list, which nobody else does: it sees all, in order."""

    def __init__(self, books: Books, ports: Ports, rng: Random, first: int) -> None:
        super().__init__(books, ports, rng)
        self.next = first
        self.asks = False  # perhaps for one that has gone with the answer

    def connect(self) -> None:
        self.wire = Resp(self.ports.resp)

    def work(self) -> None:
        self.asks = True
        found = self.wire.do(b"BLPOP", b"line", b"0.05")
        self.asks = False
        if found is not None:
            self.came(found[1])

    def came(self, number: bytes) -> None:
        if int(number) != self.next:
            raise Violation(f"{number.decode()} came out of the list, instead of {self.next}")
        self.next += 1
