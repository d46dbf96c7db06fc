"""What the model remembers: items, requests, and the books of each queue. promises.py has the rules.

Time is counted in events that the clients have seen.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from random import Random

from loadtest.errors import Violation

NEVER = 1 << 62  # later than all that has happened
POOL_BYTES = 1 << 20
SERIAL_BYTES = 8  # of a body, in hexadecimal, where it has room
FRONT_EVENTS = 2000

WAITING, OPEN, FLUSHED, DELETED = "waiting", "open", "flushed", "deleted"

_pool = Random(22133).randbytes(POOL_BYTES)


class Item:
    """One item that was sent. Its bytes follow from its serial number and its size."""

    __slots__ = (
        "serial", "size", "book", "producer", "sent", "put_by", "sure", "state", "holder", "opened_at", "open_end",
        "opened_ever", "aborting", "maybe_gone", "dropped_at", "seen_at",
    )  # fmt: skip

    def __init__(self, serial: int, size: int, book: Book, producer: object) -> None:
        """The item is about to be sent over the link `producer`."""
        self.serial = serial
        self.size = size
        self.book = book
        self.producer = producer
        self.sent = NEVER
        self.put_by = NEVER  # if it was put at all, then by this time
        self.sure = False  # it was put
        self.state = WAITING
        self.holder: object = None  # the link that has it open
        self.opened_at = 0
        self.open_end = 0  # it has waited since; NEVER: given back, nobody knows when
        self.opened_ever = False
        self.aborting = False  # an abort is on its way
        self.maybe_gone = False
        self.dropped_at = NEVER  # flushed or deleted by this time
        self.seen_at = 0  # handed out last

    @property
    def flags(self) -> int:
        """The serial if the body has no room for it, and with every other item. Otherwise 0, which the server treats
        differently."""
        return self.serial if self.size < SERIAL_BYTES or self.serial % 2 else 0

    def body(self) -> bytes:
        """The bytes that are sent, and have to come back."""
        begin = self.serial * 977 % (POOL_BYTES - self.size)
        if self.size < SERIAL_BYTES:
            return _pool[begin : begin + self.size]
        return b"%08x" % self.serial + _pool[begin : begin + self.size - SERIAL_BYTES]

    def __str__(self) -> str:
        return f"item {self.serial} ({self.size} bytes, {self.state}, sent at {self.sent})"


@dataclass
class Op:
    """One request. `sent`: at which time. `item`: what a set carries."""

    verb: str  # set, get, flush, delete
    book: Book
    item: Item | None = None
    sync: bool = False
    noreply: bool = False
    opens: bool = False
    closes: bool = False
    aborts: bool = False
    peeks: bool = False
    with_id: bool = False
    wait_ms: int = 0
    sent: int = 0

    def __str__(self) -> str:
        chosen = [name for name in ("sync", "noreply", "opens", "closes", "aborts", "peeks") if getattr(self, name)]
        item = "" if self.item is None else f" item {self.item.serial}, {self.item.size} bytes"
        return f"{self.verb} {self.book.name.decode()}{item} {' '.join(chosen)} t={self.wait_ms} sent {self.sent}"

    @property
    def takes(self) -> bool:
        """Whether it is a get that removes what it brings."""
        return self.verb == "get" and not (self.opens or self.closes or self.aborts or self.peeks)


class Front:
    """A value that only grows, and tells how far reading had come at a time that is not too long ago."""

    def __init__(self) -> None:
        """Nothing was read."""
        self._times: list[int] = []
        self._values: list[int] = []

    def add(self, time: int, value: int) -> None:
        """An item with this value was received."""
        if not self._values or value > self._values[-1]:
            self._times.append(time)
            self._values.append(value)
            if len(self._values) > FRONT_EVENTS:
                del self._times[: FRONT_EVENTS // 2], self._values[: FRONT_EVENTS // 2]

    def before(self, time: int) -> int:
        """The highest value that was received before a time; 0 if that is not known any more."""
        place = bisect_left(self._times, time)
        return self._values[place - 1] if place else 0


@dataclass
class Doubtful:
    """A flush or delete that was never answered, and what surely waited when it was sent."""

    op: Op
    group: list[Item] = field(default_factory=list)
    settled_at: int = NEVER


class Book:
    """One queue's books."""

    def __init__(self, name: bytes) -> None:
        """Empty."""
        self.name = name
        self.items: dict[int, Item] = {}  # sent and not known to be gone for good
        self.takers = 0  # gets never answered that may have removed an item
        self.holders = 0  # gets never answered that may have had one open
        self.jumps = 0  # items handed out late that nobody is known to have had open
        self.came_back = 0  # items seen after they were flushed
        self.deletes = 0  # sent
        self.doubtful: list[Doubtful] = []
        self.front = Front()
        self.fronts: dict[object, Front] = {}  # by producer

    @property
    def lost_gets(self) -> int:
        """The gets that were never answered. Each may have removed or opened an item."""
        return self.takers + self.holders

    def wrong(self, what: str) -> Violation:
        """What is wrong with this queue."""
        return Violation(f"queue {self.name.decode()}: {what}")
