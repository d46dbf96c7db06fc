"""The clients of together.py: producers that pipeline numbered items, readers that confirm one at a time.

Each keeps books of what it knows, and runs until the server has gone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

from loadtest.errors import Violation
from loadtest.wire import Wire

PIPELINED = 20
PAUSE_S = 0.1  # the longest between two batches: the queues have to be emptied after each round


def take_all(wire: Wire, name: bytes) -> list[bytes]:
    """Take all items of a queue, or all that a cursor has not shown yet."""
    found: list[bytes] = []
    while True:
        wire.send(b"get %b\r\n" % name * PIPELINED)
        bodies = [body for body in [wire.item() for _ in range(PIPELINED)] if body is not None]
        found += bodies
        if len(bodies) < PIPELINED:
            return found


def kick_all(wire: Wire, name: bytes) -> None:
    """Make all that is delayed ready."""
    while True:
        wire.send(b"kick %b 1000\r\n" % name)
        if wire.line() == b"KICKED 0":
            return


@dataclass
class Producer:
    """A client that puts numbered items into one queue, pipelined."""

    name: str  # an item is `<name> <number>`
    queue: bytes
    dialect: str
    expiry_s: int = 0
    options: bytes = b""  # of its sets
    has_keys: bool = False  # each item has one of its own
    sent: int = 0
    answered: int = 0
    first: int = 0  # of this round

    def body(self, number: int) -> bytes:
        """The item."""
        return b"%b %06d" % (self.name.encode(), number)

    def run(self, wire: Wire, rng: Random) -> None:
        """Until the server is gone."""
        while True:
            time.sleep(rng.random() * PAUSE_S)
            requests = []
            for number in range(self.sent, self.sent + PIPELINED):
                body = self.body(number)
                options = self.options + (b"/key=%b" % body.replace(b" ", b"-") if self.has_keys else b"")
                size = len(body)
                requests.append(b"set %b%b 0 %d %d\r\n%b\r\n" % (self.queue, options, self.expiry_s, size, body))
            self.sent += PIPELINED  # before they go out: any of them may have come
            wire.send(b"".join(requests))
            for _ in requests:
                if (answer := wire.line()) != b"STORED":
                    raise Violation(f"a set of {self.queue.decode()} is answered {answer!r}")
                self.answered += 1

    def look(self, found: Iterable[bytes], where: str) -> int:
        """These are all of its items that there are: they must be all up to some number that is not below what was
        answered; that number."""
        mine = [int(body.split()[1]) for body in found if body.startswith(self.name.encode() + b" ")]
        expected = list(range(self.first, self.first + len(mine)))
        if mine != expected:
            wrong = next((pair for pair in zip(mine, expected, strict=True) if pair[0] != pair[1]), None)
            raise Violation(f"{where}: items of {self.name} are not in order or some are missing: {wrong}")
        if not self.answered <= self.first + len(mine) <= self.sent:
            raise Violation(
                f"{where}: {self.name} has {self.first} to {self.first + len(mine)}, answered {self.answered}, "
                f"sent {self.sent}"
            )
        return self.first + len(mine)


@dataclass
class Reader:
    """A client that reads one queue or cursor reliably, an item at a time, for as long as the server runs."""

    name: bytes  # a queue or a cursor
    dialect: str
    confirmed: set[bytes] = field(default_factory=set)
    in_doubt: set[bytes] = field(default_factory=set)  # the close was sent and not answered
    open: bytes | None = None

    def run(self, wire: Wire, rng: Random) -> None:
        """Until the server is gone."""
        while True:
            self.open = wire.get(self.name + b"/open")
            if self.open is None:
                time.sleep(0.002)
                continue
            if rng.random() < 0.1:
                wire.send(b"get %b/abort\r\n" % self.name)
                self.open = None
                wire.item()
                continue
            if rng.random() < 0.02:
                time.sleep(rng.random() * 0.1)  # so that there is something open when the server goes
            if self.open in self.confirmed:
                raise Violation(f"{self.name.decode()}: {self.open!r} had been confirmed, and comes again")
            self.in_doubt.add(self.open)
            wire.send(b"get %b/close\r\n" % self.name)
            wire.item()
            self.in_doubt.discard(self.open)
            self.confirmed.add(self.open)
            self.open = None
