"""Kills the server with -9 while clients of beanstalkd, of Disque, of Redis lists and of memcache share its queues.

    python -m loadtest.crash.doors --rounds 60
    python -m loadtest.crash.doors --rounds 60 --seed 4711

What jobs.py checks of memcache's protocol, this does of the other ones. Each round: some tenths of a second of load
(door_workers.py), the end of the server (mostly by kill -9), a start on the same data, and then:

- beanstalkd's numbers and Disque's ids reach their own items, also after the start, and what was removed by nobody;
  they are never given twice;
- what was put and answered is there once, by whichever protocol, unless its removal was asked for; what was removed
  does not come again; a pop that was never answered has removed one item at most;
- nobody gets what another client holds;
- LMOVE leaves an item in one of its lists;
- MULTI and EXEC happen whole or not at all: two lists that are only changed together hold the same items in the same
  order, and of a job and the one that replaces it, one is there;
- the one consumer of a queue gets the items of each producer in their order.

The seed repeats the load's choices, though not the machine's timing. A promise that is broken is one line, and exit
status 1; the data directory is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from loadtest.crash.clients import kick_all, take_all
from loadtest.crash.door_books import LARGE_BYTES, NO, Books, Item
from loadtest.crash.door_workers import (
    BeanstalkdWorker,
    DisqueWorker,
    DoorWorker,
    ListWorker,
    MemcacheWorker,
    check_shown,
)
from loadtest.crash.resp_wire import RespWire
from loadtest.crash.rounds import Trial, command, play
from loadtest.errors import RequestLost, Violation
from loadtest.program import run
from loadtest.servers import Server, free_port, our_server
from loadtest.wire import Wire

OPTIONS = [
    *("--dialect", "kestrel", "--chunk-bytes", str(LARGE_BYTES), "--max-column-families", "3"),
    *("--window-bytes", "1MiB", "--write-buffer-bytes", "1MiB", "--max-wal-bytes", "1MiB"),
    *("--block-cache-bytes", "1MiB", "--min-free-bytes", "1MiB"),
]
KINDS: tuple[type[DoorWorker], ...] = (
    *(BeanstalkdWorker, DisqueWorker, ListWorker, MemcacheWorker),
    *(BeanstalkdWorker, DisqueWorker, ListWorker),
    *(BeanstalkdWorker, DisqueWorker, ListWorker),
)
QUEUES = {  # by place
    "mail": ["mail"],
    "work": ["work"],
    "steps": ["steps"],
    "order": ["order"],
    "list": ["list", *(f"busy.{number}" for number, kind in enumerate(KINDS) if kind is ListWorker)],
    "pair": ["left", "right"],
}
DRAIN_SHARE = 0.6  # of the places that are emptied
LOOKS = 60  # at items by their ids, after each start
REMOVE_SHARE = 0.2  # of these are removed by them


class DoorTrial(Trial):
    """With the listeners, and what is known of the items."""

    def __init__(self, server: Server, seed: str, beanstalkd: int, resp: int) -> None:
        """server: it runs already. beanstalkd, resp: the ports of these listeners."""
        self.books = Books()
        self.beanstalkd, self.resp = beanstalkd, resp
        super().__init__(
            server, seed, self.books, [name for names in QUEUES.values() for name in names], (beanstalkd, resp)
        )
        self._wait_until_alone()  # and until it serves: before, SIGTERM ends it at once
        self.books.settled(restarted=True)

    def clients(self) -> Sequence[DoorWorker]:
        ports = {BeanstalkdWorker: self.beanstalkd, MemcacheWorker: self.server.port}
        consumer = self.rng.randrange(len(KINDS))
        return [
            kind(self.books, ports.get(kind, self.resp), n, Random(f"{self.seed} {self.rng.random()}"), n == consumer)
            for n, kind in enumerate(KINDS)
        ]

    def check(self, last: bool) -> None:
        wire = Wire(self.server.port)
        try:
            self._look_by_ids()
            for place, names in QUEUES.items():
                if last or self.rng.random() < DRAIN_SHARE:
                    self._drain(wire, place, names)
        except RequestLost as error:
            raise Violation(f"the queues are being emptied, and {error}") from None
        wire.close()
        self.server.check()

    def _look_by_ids(self) -> None:
        """Look at some items that should be there, and at some that should not."""
        beanstalkd, resp = Wire(self.beanstalkd), RespWire(self.resp)
        for given, look in ((self.books.numbers, self._peek), (self.books.job_ids, self._show)):
            items = list(given.values())
            there = [item for item in items if item.gone == NO and item.place != "order"]
            rng = self.rng
            for item in (*rng.sample(there, min(LOOKS, len(there))), *rng.choices(items, k=LOOKS if items else 0)):
                look(beanstalkd, resp, item)
        beanstalkd.close()
        resp.close()

    def _peek(self, wire: Wire, _resp: RespWire, item: Item) -> None:
        wire.send(b"peek %b\r\n" % item.number)
        words = wire.line().split()
        if words[0] == b"FOUND":
            body = wire.read(int(words[2]) + 2)[:-2]
            if words[1] != item.number or body != item.body():
                raise Violation(f"number {item.number.decode()} is that of {item}, and reaches {body[:60]!r}")
        elif words != [b"NOT_FOUND"]:
            raise Violation(f"a peek is answered {words!r}")
        self.books.looked(item, words[0] == b"FOUND")
        if words[0] == b"FOUND" and self.rng.random() < REMOVE_SHARE:
            self.books.removing(item)
            wire.ask(b"delete %b\r\n" % item.number, b"DELETED")
            self.books.removed(item, True)

    def _show(self, _wire: Wire, resp: RespWire, item: Item) -> None:
        is_there = check_shown(item, resp.several(b"SHOW", item.job_id))
        self.books.looked(item, is_there)
        if is_there and self.rng.random() < REMOVE_SHARE:
            self.books.removing(item)
            if (answer := resp.bulk(b"ACKJOB", item.job_id)) != b"1":
                raise Violation(f"{item} is there, and ACKJOB is answered {answer!r}")
            self.books.removed(item, True)

    def _drain(self, wire: Wire, place: str, names: list[str]) -> None:
        found = {}
        for name in names:
            kick_all(wire, name.encode())
            found[name] = take_all(wire, name.encode())
        if place == "pair":
            left, right = found["left"], found.pop("right")
            if left != right:
                raise Violation(
                    f"a MULTI was done in part: two lists that are changed together hold {len(left)} and {len(right)} "
                    f"items, and from place {next_difference(left, right)} on they differ"
                )
        for bodies in found.values():
            for body in bodies:
                self.books.came(body, (place,), self.books.tick())
        self.books.judge(place)
        stats = wire.stats()
        for name in names:
            for what in ("items", "bytes", "open_transactions", "delayed", "buried", "set_aside", "reserved"):
                if stats.get(f"queue_{name}_{what}", "0") != "0":
                    raise Violation(f"queue {name} is empty, but the statistics say that it has {what}: {stats}")


def next_difference(left: list[bytes], right: list[bytes]) -> int:
    """The first place where two lists differ."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(left), len(right)))


def rounds(python: str, program: str, seed: str, count: int, quiet: bool) -> str:
    """Run `count` rounds on one data directory. Returns a line about them. Raises Violation, LoadTestError."""
    beanstalkd, resp = free_port(), free_port()
    listeners = "".join(
        f'[[listener]]\nport = {port}\ndialect = "{dialect}"\n'
        for port, dialect in ((beanstalkd, "beanstalkd"), (resp, "resp"))
    )
    with Server(our_server(python, OPTIONS, program), listeners) as server:
        trial = play("doors", server, lambda: DoorTrial(server, seed, beanstalkd, resp), seed, count, quiet)
    counts = trial.books.counts
    names = ("stored", "came", "removed", "given back", "timed out", "replaced", "looked at by id")
    said = ", ".join(f"{counts[name]:,} {name}" for name in names)
    return f"{count} rounds, nothing lost: {said}; {trial.kills} kills; seed {seed}"


def main() -> None:
    """Raises Violation, LoadTestError."""
    command(__doc__ or "", rounds)


if __name__ == "__main__":
    run("doors", main)
