"""Clients that put and take jobs, of this server and of beanstalkd: many requests in flight on each connection.

A script is what one connection does: it yields requests and when their answers are whole, and gets the answers. All
scripts run in one thread. Every body is a number of its own, and the books say whether each came out once.
"""

from __future__ import annotations

import re
import selectors
import socket
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from loadtest.errors import LoadTestError, RequestLost, Violation
from loadtest.servers import HOST

IN_FLIGHT = 32
BODY_BYTES = 64
ANSWER_S = 120.0
RECV_BYTES = 1 << 16
MOST_MISSES = 100_000  # before what does not come out is lost

BODY = re.compile(rb"\r\n(\d{%d})\r\n" % BODY_BYTES)
RESERVED = re.compile(rb"RESERVED (\d+) ")

IsWhole = Callable[[bytearray], bool]
Script = Generator[tuple[bytes, IsWhole], bytes, None]


def body_of(number: int) -> bytes:
    return b"%0*d" % (BODY_BYTES, number)


@dataclass
class Books:
    """What has been put, and what came out."""

    items: int
    to_put: Iterator[int] = field(init=False)
    came: bytearray = field(init=False)  # by number: how often it came out
    given: int = 0  # to those who put
    left: int = field(init=False)  # that have not come out
    misses: int = 0  # answers in succession that had nothing

    def __post_init__(self) -> None:
        self.to_put = iter(range(self.items))
        self.came = bytearray(self.items)
        self.left = self.items

    def batch(self) -> list[int]:
        """What to put next, IN_FLIGHT at once; empty at the end."""
        some = list(islice(self.to_put, IN_FLIGHT))
        self.given += len(some)
        return some

    def note(self, answer: bytes) -> None:
        """Write down what an answer holds. Raises Violation if there is too little or too much."""
        found = BODY.findall(answer)
        for body in found:
            number = int(body)
            if number >= self.items or self.came[number]:
                raise Violation(f"job {number:,} of {self.items:,} came out again, or was never put")
            self.came[number] = 1
        self.left -= len(found)
        self.misses = 0 if found else self.misses + 1
        if self.misses > MOST_MISSES:
            raise Violation(f"{self.left:,} of {self.items:,} jobs do not come out")


def ends(mark: bytes, times: int) -> IsWhole:
    return lambda answer: answer.count(mark) == times


class Peer(Protocol):
    """How a server is asked."""

    def put(self, books: Books, delay_ms: Callable[[], int]) -> Script:
        """Put jobs until there are no more to put. delay_ms() is asked again for each batch."""

    def take(self, books: Books) -> Script:
        """Take jobs, and close or delete each, until all have come out."""


class Darner:
    """`set q/delay=<ms>` and `get q/close/open`, which closes one job and opens the next."""

    def __init__(self, queue: bytes = b"q") -> None:
        self.queue = queue

    def put(self, books: Books, delay_ms: Callable[[], int]) -> Script:
        while batch := books.batch():
            head = b"set %b/delay=%d 0 0 %d\r\n" % (self.queue, delay_ms(), BODY_BYTES)
            asked = b"".join([b"%b%b\r\n" % (head, body_of(number)) for number in batch])
            answer = yield asked, ends(b"\r\n", len(batch))
            require(answer, b"STORED\r\n" * len(batch))

    def take(self, books: Books) -> Script:
        asked = b"get %b/close/open\r\n" % self.queue * IN_FLIGHT
        while books.left:
            books.note((yield asked, ends(b"END\r\n", IN_FLIGHT)))
        yield b"get %b/close\r\n" % self.queue, ends(b"END\r\n", 1)


class PlainDarner(Darner):
    """Items that are no jobs, in the same form."""

    def put(self, books: Books, delay_ms: Callable[[], int]) -> Script:
        head = b"set %b 0 0 %d\r\n" % (self.queue, BODY_BYTES)
        while batch := books.batch():
            answer = yield (
                b"".join([b"%b%b\r\n" % (head, body_of(number)) for number in batch]),
                ends(b"\r\n", len(batch)),
            )
            require(answer, b"STORED\r\n" * len(batch))


class Beanstalkd:
    """`put` with a delay in seconds, `reserve-with-timeout 0`, and `delete` of what came."""

    def put(self, books: Books, delay_ms: Callable[[], int]) -> Script:
        while batch := books.batch():
            head = b"put 1024 %d 120 %d\r\n" % (-(-delay_ms() // 1000), BODY_BYTES)
            asked = b"".join([b"%b%b\r\n" % (head, body_of(number)) for number in batch])
            answer = yield asked, ends(b"\r\n", len(batch))
            if answer.count(b"INSERTED ") != len(batch):
                raise Violation(f"beanstalkd answered {answer[:100]!r}")

    def take(self, books: Books) -> Script:
        asked = b"reserve-with-timeout 0\r\n" * IN_FLIGHT
        while books.left:
            answer = yield asked, _all_reserved
            books.note(answer)
            ids = RESERVED.findall(answer)
            if not ids:
                continue
            answer = yield b"".join([b"delete %b\r\n" % one for one in ids]), ends(b"\r\n", len(ids))
            require(answer, b"DELETED\r\n" * len(ids))


def _all_reserved(answer: bytearray) -> bool:
    reserved, nothing = answer.count(b"RESERVED "), answer.count(b"TIMED_OUT\r\n")
    return reserved + nothing == IN_FLIGHT and answer.count(b"\r\n") == 2 * reserved + nothing


def require(answer: bytes, expected: bytes) -> None:
    """Raises Violation if the answer is another."""
    if answer != expected:
        raise Violation(f"{answer[:100]!r} instead of {expected[:20]!r}")


class _Connection:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port), ANSWER_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = bytearray()
        self.script: Script | None = None
        self.is_whole: IsWhole = bool

    def begin(self, script: Script) -> None:
        self.script = script
        self._ask(None)

    def _ask(self, answer: bytes | None) -> None:
        assert self.script is not None
        try:
            asked, self.is_whole = next(self.script) if answer is None else self.script.send(answer)
        except StopIteration:
            self.script = None
            return
        self.socket.sendall(asked)

    def read(self) -> None:
        data = self.socket.recv(RECV_BYTES)
        if not data:
            raise RequestLost("the server hung up")
        self.received += data
        if self.is_whole(self.received):
            answer = bytes(self.received)
            self.received.clear()
            self._ask(answer)


class Clients:
    """Connections that are used again and again, inside a `with` block."""

    def __init__(self, port: int, connections: int) -> None:
        try:
            self._all = [_Connection(port) for _ in range(connections)]
        except OSError as error:
            raise LoadTestError(f"cannot connect: {error}") from error
        self.progress: Callable[[], None] = lambda: None  # called now and then
        self._selector = selectors.DefaultSelector()
        for one in self._all:
            self._selector.register(one.socket, selectors.EVENT_READ, one)

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_error: object) -> None:
        self._selector.close()
        for one in self._all:
            one.socket.close()

    def __len__(self) -> int:
        return len(self._all)

    def run(self, scripts: Iterable[Script]) -> None:
        """Each connection does one of the scripts, until all are done. RequestLost if the server hangs up or does not
        answer."""
        try:
            running = self._begin(scripts)
            while running:
                events = self._selector.select(ANSWER_S)
                if not events:
                    raise RequestLost(f"no answer for {ANSWER_S:g} s")
                for key, _ in events:
                    key.data.read()
                    running -= key.data.script is None
                self.progress()
        except OSError as error:
            raise RequestLost(f"hung up: {error}") from error

    def _begin(self, scripts: Iterable[Script]) -> int:
        running = 0
        for one, script in zip(self._all, scripts, strict=False):
            one.begin(script)
            running += one.script is not None
        return running
