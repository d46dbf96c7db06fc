"""What the clients of doors.py know: which items there are, by which ids, who holds them, and which may be gone.

A request is announced before it goes out. What was announced and never answered may have happened. Every call raises
Violation if what the server says cannot be. Clients are threads; each call holds the lock.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from threading import RLock

from loadtest.errors import Violation

NEVER = 1 << 62
LARGE_BYTES = 4096  # the server's chunk_bytes
POOL = Random(17).randbytes(1 << 18)

NO, MAYBE, SURE = 0, 1, 2


class Hold:
    """A client has an item."""

    def __init__(self, sent_s: float) -> None:
        """sent_s: when it was asked for, by a clock that does not step."""
        self.sent_s = sent_s
        self.ends_s = sent_s  # not before
        self.let_go = False  # what lets it go has been sent

    def in_time(self) -> bool:
        """Whether the deadline has surely not passed."""
        return time.monotonic() < self.ends_s


@dataclass(eq=False)
class Item:
    """One that was sent."""

    serial: int
    size: int
    place: str  # its queue, or its group of lists between which items are moved
    producer: int
    ttr_s: float  # infinite: none, but of Disque's clients 300 s
    stored: int = MAYBE
    gone: int = NO
    gone_at: int = NEVER  # its removal had been answered by then
    removers: int = 0  # removals that were sent and are not answered
    hold: Hold | None = None
    touched: bool = False  # also somebody who did not hold it has tried to remove it
    number: bytes = b""  # of beanstalkd's protocol
    job_id: bytes = b""  # of Disque
    replaces: Item | None = None  # a MULTI that was sent replaces that by this
    replaced_by: Item | None = None

    def body(self) -> bytes:
        """The bytes that are sent, and have to come back."""
        begin = self.serial * 977 % (len(POOL) - self.size)
        return b"%08x" % self.serial + POOL[begin : begin + self.size - 8]

    def __str__(self) -> str:
        return (
            f"item {self.serial} of {self.place} ({self.size} bytes, number {self.number.decode()}, "
            f"id {self.job_id.decode()}, stored {self.stored}, gone {self.gone}, {self.removers} removals in doubt)"
        )

    @property
    def is_there(self) -> bool:
        """Whether it has to be found."""
        return self.stored == SURE and self.gone == NO and self.removers == 0


class Books:
    """Of all queues."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.alive = self.stopping = False
        self.now = self.serial = 0
        self.items: dict[int, Item] = {}  # that are not known to be gone
        self.all: dict[int, Item] = {}
        self.numbers: dict[bytes, Item] = {}  # all that were ever given
        self.job_ids: dict[bytes, Item] = {}
        self.asking: Counter[str] = Counter()  # pops and the like on their way, by place
        self.takers: Counter[str] = Counter()  # those that were never answered, and may have removed an item each
        self.in_order: dict[int, int] = {}  # by producer, the last serial that has come from the queue `order`
        self.counts: Counter[str] = Counter()

    def tick(self) -> int:
        """The time, in events."""
        with self.lock:
            self.now += 1
            return self.now

    # -- puts

    def sending(self, place: str, producer: int, size: int, ttr_s: float = float("inf")) -> Item:
        """It is about to be put."""
        with self.lock:
            self.serial += 1
            item = Item(self.serial, size, place, producer, ttr_s)
            self.items[item.serial] = self.all[item.serial] = item
            return item

    def stored(self, item: Item, number: bytes = b"", job_id: bytes = b"") -> None:
        """It was answered, perhaps with a number or an id."""
        with self.lock:
            item.stored = SURE
            self.counts["stored"] += 1
            if number:
                self.named(item, number=number)
            if job_id:
                self.named(item, job_id=job_id)

    def named(self, item: Item, number: bytes = b"", job_id: bytes = b"") -> None:
        """This is its number, or its id."""
        with self.lock:
            for what, given, known, all_given in (
                ("number", number, item.number, self.numbers),
                ("id", job_id, item.job_id, self.job_ids),
            ):
                if not given:
                    continue
                if all_given.setdefault(given, item) is not item:
                    raise Violation(f"REUSED: {what} {given.decode()} is that of {all_given[given]}, and now of {item}")
                if known and known != given:
                    raise Violation(f"{item} has another {what} now, {given.decode()}")
            item.number, item.job_id = number or item.number, job_id or item.job_id

    # -- what comes

    def ask(self, *places: str, more: int = 1) -> None:
        """Something is sent that may remove an item from one of these places; or, -1, it was answered."""
        with self.lock:
            self.asking["/".join(places)] += more

    def identify(self, body: bytes, places: Iterable[str]) -> Item:
        """Which item this is, from one of these places."""
        with self.lock:
            try:
                item = self.all[int(body[:8], 16)]
            except (ValueError, KeyError):
                raise Violation(f"INVENTED: {body[:60]!r} came, which nobody put") from None
            if item.place not in places:
                raise Violation(f"{item} came from {places}")
            if item.body() != body:
                raise Violation(f"{item} came out changed: {len(body)} bytes, {body[:60]!r}")
            return item

    def came(self, body: bytes, places: Iterable[str], sent: int, hold: Hold | None = None) -> Item:
        """An item has come. sent: when it was asked for. hold: None: it was taken."""
        with self.lock:
            item = self.identify(body, places)
            self.tick()
            if item.gone_at < sent:
                raise Violation(f"REMOVED AND BACK, or DOUBLED: {item} came, which was gone")
            other = item.hold
            if other is not None and not other.let_go and other.in_time() and not self.stopping:
                raise Violation(f"{item} came, and another client has it")
            self._settle_replacement(item)
            item.stored = SURE
            if item.place == "order":
                if item.serial < self.in_order.get(item.producer, 0):
                    raise Violation(f"ORDER: {item} came after item {self.in_order[item.producer]}")
                self.in_order[item.producer] = item.serial
            self.counts["came"] += 1
            item.hold = hold
            if hold is None:
                self._gone(item)
            else:
                hold.ends_s = hold.sent_s + item.ttr_s
            return item

    def _settle_replacement(self, item: Item) -> None:
        """It is there, which tells whether a MULTI was done that was never answered."""
        if (before := item.replaces) is not None:
            before.replaced_by = item.replaces = None
            self._gone(before)
        if (after := item.replaced_by) is not None:
            after.replaces = item.replaced_by = None
            item.removers -= 1
            self._gone(after)  # it was never put, so it must not come

    # -- how holds and items end

    def let_go(self, item: Item, hold: Hold) -> None:
        """What gives it back is sent."""
        with self.lock:
            hold.let_go = True

    def given_back(self, item: Item, hold: Hold, done: bool) -> None:
        """It was answered. done: False: the server says that the client did not have it."""
        with self.lock:
            if not done:
                self.not_held(item, hold)
            if item.hold is hold:
                item.hold = None
            self.counts["given back"] += 1

    def not_held(self, item: Item, hold: Hold) -> None:
        """The server says that a client does not have it."""
        with self.lock:
            if hold.in_time() and not item.touched and item.hold is hold:
                raise Violation(f"{item} was taken away from a client before its deadline")
            if item.hold is hold:
                item.hold = None
            self.counts["timed out"] += 1

    def removing(self, item: Item, hold: Hold | None = None) -> None:
        """A removal is sent."""
        with self.lock:
            item.removers += 1
            item.touched |= hold is None
            if hold is not None:
                hold.let_go = True

    def removed(self, item: Item, done: bool, hold: Hold | None = None) -> None:
        """It was answered. done: False: there was nothing to remove, or somebody else holds it."""
        with self.lock:
            item.removers -= 1
            if done:
                self._gone(item)
                self.counts["removed"] += 1
            elif hold is not None:
                self.not_held(item, hold)

    def replacing(self, item: Item, other: Item, hold: Hold) -> None:
        """A MULTI is sent that removes `item` and puts `other`."""
        with self.lock:
            self.removing(item, hold)
            item.replaced_by, other.replaces = other, item

    def replaced(self, item: Item, other: Item, job_id: bytes) -> None:
        """EXEC was answered."""
        with self.lock:
            item.replaced_by = other.replaces = None
            self.removed(item, True)
            self.stored(other, job_id=job_id)
            self.counts["replaced"] += 1

    def hung_up(self, holds: Iterable[tuple[Item, Hold]]) -> None:
        """A client has gone, while the server runs."""
        with self.lock:
            for item, hold in holds:
                if item.hold is hold:
                    item.hold = None

    def _gone(self, item: Item) -> None:
        item.gone, item.gone_at, item.hold = SURE, min(item.gone_at, self.now), None
        self.items.pop(item.serial, None)

    # -- all of them

    def settled(self, restarted: bool) -> None:
        """Nobody is connected, and the server has noticed; or it was started again."""
        with self.lock:
            self.tick()
            for item in self.items.values():
                item.hold = None
            self.takers.update(self.asking)
            self.asking.clear()
            self.alive, self.stopping = True, False

    def may_be_taken(self, item: Item) -> bool:
        """It is not there, which has to be the doing of a pop that was never answered. Counts that."""
        with self.lock:
            for places in self.takers:
                if item.place in places.split("/") and self.takers[places] > 0:
                    self.takers[places] -= 1
                    return True
            return False

    def looked(self, item: Item, is_there: bool) -> None:
        """Somebody has looked for it by its number or id, while nobody else is connected."""
        with self.lock:
            if is_there and item.gone == SURE:
                raise Violation(f"REMOVED AND BACK: {item} is found by its id")
            if is_there:
                item.stored = SURE
                self._settle_replacement(item)
                item.removers = 0
            elif item.gone != SURE:
                if item.is_there and not self.may_be_taken(item):
                    raise Violation(f"LOST: {item} is not found by its id")
                if item.replaces is None and item.replaced_by is None:
                    self._gone(item)
            self.counts["looked at by id"] += 1

    def judge(self, place: str) -> None:
        """It has been emptied."""
        with self.lock:
            self.tick()
            left = [item for item in self.items.values() if item.place == place]
            for item in left:
                if item.replaced_by is not None:
                    raise Violation(f"a MULTI was done in part: {item} is gone, and {item.replaced_by} is not there")
            missing = [item for item in left if item.is_there and not self.may_be_taken(item)]
            if missing:
                shown = ", ".join(map(str, missing[:3]))
                raise Violation(f"LOST {len(missing)} items that were stored: {shown}")
            for item in left:
                self._gone(item)
