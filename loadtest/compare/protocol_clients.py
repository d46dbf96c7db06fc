"""Clients of beanstalkd's and of Redis's protocol that take little time themselves: the server is to be measured.

All requests are made before the clock starts, and all answers are looked at after it has stopped. Only what has to be
said again, a job's number, is read meanwhile. Every body is a number of its own: each has to come out once.
"""

from __future__ import annotations

import re
import selectors
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from loadtest.errors import LoadTestError, RequestLost, Violation
from loadtest.servers import HOST

BODY_BYTES = 64
RECV_BYTES = 1 << 16
ANSWER_S = 30.0

_BODY = re.compile(rb"(?:^|\r\n)(\d{%d})\r\n" % BODY_BYTES)
_LINE = b"\r\n"


def body_of(number: int) -> bytes:
    return b"%0*d" % (BODY_BYTES, number)


@dataclass(frozen=True)
class Form:
    """How a protocol writes one kind of request, and what stands in a good answer to it."""

    asked: Callable[[int], bytes]  # by the number of the item
    lines: int  # of an answer
    good: re.Pattern[bytes]  # an answer
    takes: bool = False  # its answer has an item
    then: Callable[[bytes], bytes] | None = None  # what the answer has to be followed by, before the next request
    then_good: bytes = b""  # what that is answered


def _delete(answer: bytes) -> bytes:
    return b"delete %b\r\n" % answer[9 : answer.index(b" ", 9)]


PUT = Form(lambda number: b"put 1024 0 120 64\r\n%b\r\n" % body_of(number), 1, re.compile(rb"INSERTED \d+\r\n"))
RESERVE = Form(
    lambda _number: b"reserve-with-timeout 0\r\n",
    2,
    re.compile(rb"RESERVED \d+ 64\r\n\d{64}\r\n"),
    takes=True,
    then=_delete,
    then_good=b"DELETED\r\n",
)
LPUSH = Form(
    lambda number: b"*3\r\n$5\r\nLPUSH\r\n$1\r\nq\r\n$64\r\n%b\r\n" % body_of(number), 1, re.compile(rb":\d+\r\n")
)
RPOP = Form(lambda _number: b"*2\r\n$4\r\nRPOP\r\n$1\r\nq\r\n", 2, re.compile(rb"\$64\r\n\d{64}\r\n"), takes=True)


@dataclass
class _Work:
    """What one connection has to do."""

    socket: socket.socket
    batches: list[bytes] = field(default_factory=list)  # the next is the last
    lines: list[int] = field(default_factory=list)  # how many the answer to each has
    answers: list[bytes] = field(default_factory=list)
    received: bytes = b""  # a part of an answer
    then: Callable[[bytes], bytes] | None = None
    follows: bool = False  # what `then` has said is being answered

    def plan(self, form: Form, numbers: Iterable[int], in_flight: int) -> None:
        asked = list(map(form.asked, numbers))
        some = [asked[at : at + in_flight] for at in range(0, len(asked), in_flight)]
        self.batches = [b"".join(batch) for batch in reversed(some)]
        self.lines = [form.lines * len(batch) for batch in reversed(some)]
        self.answers, self.then, self.follows = [], form.then, False

    def read(self) -> bool:
        """Take what has come, and ask what is next. False: there is no more."""
        data = self.socket.recv(RECV_BYTES)
        if not data:
            raise RequestLost("the server hung up")
        if self.received:
            data = self.received + data
        if data.count(_LINE) < (1 if self.follows else self.lines[-1]):
            self.received = data
            return True
        self.received = b""
        self.answers.append(data)
        if self.then is not None:
            self.follows = not self.follows
            if self.follows:
                self.socket.sendall(self.then(data))
                return True
        self.batches.pop()
        self.lines.pop()
        if not self.batches:
            return False
        self.socket.sendall(self.batches[-1])
        return True


class Crowd:
    """So many connections, inside a `with` block."""

    def __init__(self, port: int, connections: int) -> None:
        try:
            self._all = [_Work(socket.create_connection((HOST, port), ANSWER_S)) for _ in range(connections)]
        except OSError as error:
            raise LoadTestError(f"cannot connect: {error}") from error
        self._selector = selectors.DefaultSelector()
        for one in self._all:
            one.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(one.socket, selectors.EVENT_READ, one)

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_error: object) -> None:
        self._selector.close()
        for one in self._all:
            one.socket.close()

    def plan(self, form: Form, items: int, in_flight: int) -> None:
        """Have all requests ready: each connection has an equal part."""
        for number, one in enumerate(self._all):
            one.plan(form, range(number, items, len(self._all)), in_flight)

    def run(self) -> None:
        """Ask all that is planned. Raises RequestLost if the server hangs up or does not answer."""
        try:
            busy = [one for one in self._all if one.batches]
            for one in busy:
                one.socket.sendall(one.batches[-1])
            if len(busy) == 1:  # nothing to choose from
                while busy[0].read():
                    pass
                return
            left, select = len(busy), self._selector.select
            while left:
                ready = select(ANSWER_S)
                if not ready:
                    raise RequestLost(f"no answer for {ANSWER_S:g} s")
                for key, _ in ready:
                    left -= not key.data.read()
        except OSError as error:
            raise RequestLost(f"hung up: {error}") from error

    def check(self, form: Form, items: int) -> None:
        """Look at all answers. Raises Violation."""
        check(form, items, [b"".join(one.answers) for one in self._all])


def check(form: Form, items: int, answers: Iterable[bytes]) -> None:
    """Whether these are good answers to so many requests. Raises Violation."""
    came = 0
    bodies: set[int] = set()
    for answer in answers:
        good = form.good.pattern + re.escape(form.then_good)
        rest, count = re.subn(good, b"", answer)
        if rest:
            raise Violation(f"answered {rest[:100]!r}")
        came += count
        if form.takes:
            bodies.update(map(int, _BODY.findall(answer)))
    if came != items:
        raise Violation(f"{came:,} answers to {items:,} requests")
    if form.takes and bodies != set(range(items)):
        raise Violation(f"{len(bodies & set(range(items))):,} of {items:,} items came out")
