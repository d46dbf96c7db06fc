"""The clients of doors.py: beanstalkd's, Disque's, Redis lists', memcache's, at the same queues.

One thread each. A worker that has asked and got no answer leaves it at that: the books know what may have happened.
"""

from __future__ import annotations

import time
from collections import deque
from random import Random

from loadtest.crash.door_books import LARGE_BYTES, Books, Hold, Item
from loadtest.crash.resp_wire import Answer, RespWire
from loadtest.crash.rounds import Client
from loadtest.errors import Refused, RequestLost, Violation
from loadtest.wire import Wire

SIZES = (8, 9, 64, 64, 200, 1000, 3000)
LARGE_SIZES = (LARGE_BYTES, LARGE_BYTES + 1, 3 * LARGE_BYTES + 17, 10 * LARGE_BYTES)
LARGE_SHARE = 0.06
LONG_TTR_S, SHORT_TTR_S = 60, 1
PAUSE_S = 0.008
KEEPS = 6  # as many items a client has at most
REMEMBERS = 30  # as many ids of its own

SHARED = ("mail", "work")  # all put there; only from `work` something is popped


class DoorWorker(Client):
    """What all of them have in common."""

    actions: tuple[tuple[str, float], ...] = ()

    def __init__(self, books: Books, port: int, number: int, rng: Random, consumes: bool) -> None:
        """consumes: whether it is the only one that takes from the queue `order`."""
        super().__init__(lambda: books.alive, number)
        self.books, self.port, self.rng = books, port, rng
        self.held: list[tuple[Item, Hold]] = []
        self.mine: deque[Item] = deque(maxlen=REMEMBERS)
        extra = (("consume", 8.0),) if consumes else ()
        self.names = [name for name, _ in (*self.actions, *extra)]
        self.weights = [weight * rng.choice((0.3, 1, 1, 3)) for _, weight in (*self.actions, *extra)]

    def step(self) -> None:
        try:
            self.doing = self.rng.choices(self.names, self.weights)[0]
            getattr(self, self.doing)()
        except Refused as error:
            if self.books.alive:
                raise Violation(f"{type(self).__name__} ({self.doing}): {error}") from None
            raise RequestLost(str(error)) from None  # the server is about to stop
        time.sleep(self.rng.random() * PAUSE_S)

    def size(self) -> int:
        return self.rng.choice(LARGE_SIZES if self.rng.random() < LARGE_SHARE else SIZES)

    def picked(self) -> tuple[Item, Hold] | None:
        """One that this client has."""
        return self.held.pop(self.rng.randrange(len(self.held))) if self.held else None


class BeanstalkdWorker(DoorWorker):
    """A worker of beanstalkd."""

    actions = (("put", 30), ("put_in_order", 5), ("reserve", 20), ("finish", 25), ("by_id", 8), ("kick", 1))
    wire: Wire
    order_wire: Wire

    def connect(self) -> None:
        self.wire, self.order_wire = Wire(self.port), Wire(self.port)
        self.wire.ask(b"watch mail\r\n", b"WATCHING 2")
        self.wire.ask(b"watch work\r\n", b"WATCHING 3")
        self.order_wire.ask(b"watch order\r\n", b"WATCHING 2")

    def drop(self) -> None:
        self.books.hung_up(self.held)
        self.wire.close()
        self.order_wire.close()

    def put(self) -> None:
        rng = self.rng
        pri, delay_s = rng.choice((0, 10, 1024, 1024, 1024, 5000)), rng.choice((0, 0, 0, 0, 1))
        ttr_s = rng.choice((LONG_TTR_S, LONG_TTR_S, LONG_TTR_S, SHORT_TTR_S))
        self._put(rng.choice(SHARED), pri, delay_s, ttr_s)

    def put_in_order(self) -> None:
        self._put("order", 1024, 0, LONG_TTR_S)

    def _put(self, tube: str, pri: int, delay_s: int, ttr_s: int) -> None:
        item = self.books.sending(tube, self.number, self.size(), ttr_s)
        self.wire.ask(b"use %b\r\n" % tube.encode(), b"USING %b" % tube.encode())
        self.wire.send(b"put %d %d %d %d\r\n%b\r\n" % (pri, delay_s, ttr_s, item.size, item.body()))
        verb, _, number = self.wire.line().partition(b" ")
        if verb != b"INSERTED":
            self.unexpected(b"put", verb)
        self.books.stored(item, number=number)
        self.mine.append(item)

    def unexpected(self, request: bytes, answer: bytes) -> None:
        if self.books.alive:
            raise Violation(f"{request!r} is answered {answer!r}")
        raise RequestLost(repr(answer))

    def reserve(self) -> None:
        if len(self.held) < KEEPS:
            self._reserve(self.wire, b"reserve-with-timeout 0\r\n", SHARED)

    def _reserve(self, wire: Wire, request: bytes, places: tuple[str, ...]) -> bool:
        sent, hold = self.books.tick(), Hold(time.monotonic())
        wire.send(request)
        words = wire.line().split()
        if words[0] != b"RESERVED":
            if words[0] not in (b"TIMED_OUT", b"DEADLINE_SOON", b"NOT_FOUND"):
                self.unexpected(request, b" ".join(words))
            return False
        body = wire.read(int(words[2]) + 2)[:-2]
        item = self.books.came(body, places, sent, hold)
        self.books.named(item, number=words[1])
        self.held.append((item, hold))
        return True

    def finish(self) -> None:
        """Do something to a job that is reserved."""
        found = self.picked()
        if found is None:
            return
        item, hold = found
        number, chance, wire = item.number, self.rng.random(), self.wire
        if chance < 0.45:
            self._remove(wire, item, hold)
        elif chance < 0.65:
            self._touch(item, hold)
        else:
            self.books.let_go(item, hold)
            if chance < 0.85:
                answer = wire.ask(
                    b"release %b %d %d\r\n" % (number, self.rng.choice((0, 1024)), self.rng.choice((0, 0, 1))),
                    *(b"RELEASED", b"NOT_FOUND"),
                )
            else:
                answer = wire.ask(b"bury %b 1024\r\n" % number, b"BURIED", b"NOT_FOUND")
            self.books.given_back(item, hold, answer != b"NOT_FOUND")

    def _touch(self, item: Item, hold: Hold) -> None:
        sent_s = time.monotonic()
        if self.wire.ask(b"touch %b\r\n" % item.number, b"TOUCHED", b"NOT_FOUND") == b"TOUCHED":
            hold.ends_s = sent_s + item.ttr_s
            self.held.append((item, hold))
        else:
            self.books.not_held(item, hold)

    def _remove(self, wire: Wire, item: Item, hold: Hold | None) -> None:
        self.books.removing(item, hold)
        answer = wire.ask(b"delete %b\r\n" % item.number, b"DELETED", b"NOT_FOUND")
        self.books.removed(item, answer == b"DELETED", hold)

    def by_id(self) -> None:
        """To a job that was put here, wherever it is now."""
        mine = [item for item in self.mine if item.place in SHARED]
        if not mine:
            return
        item, chance = self.rng.choice(mine), self.rng.random()
        if any(item is other for other, _ in self.held):
            return
        if chance < 0.3:
            self._remove(self.wire, item, None)
        elif chance < 0.6:
            self._reserve(self.wire, b"reserve-job %b\r\n" % item.number, (item.place,))
        elif chance < 0.8:
            self.wire.ask(b"kick-job %b\r\n" % item.number, b"KICKED", b"NOT_FOUND")
        else:
            self.wire.send(b"peek %b\r\n" % item.number)
            words = self.wire.line().split()
            if words[0] == b"FOUND":
                body = self.wire.read(int(words[2]) + 2)[:-2]
                if body != item.body():
                    raise Violation(f"number {words[1]!r} is that of {item}, and shows {body[:60]!r}")

    def kick(self) -> None:
        tube = self.rng.choice(SHARED).encode()
        self.wire.ask(b"use %b\r\n" % tube, b"USING %b" % tube)
        self.wire.send(b"kick %d\r\n" % self.rng.choice((1, 10, 200)))
        if not (answer := self.wire.line()).startswith(b"KICKED "):
            self.unexpected(b"kick", answer)

    def consume(self) -> None:
        if self._reserve(self.order_wire, b"reserve-with-timeout 0\r\n", ("order",)):
            self._remove(self.order_wire, *self.held.pop())


class RespWorker(DoorWorker):
    """What workers of Disque and of lists have in common."""

    wire: RespWire

    def connect(self) -> None:
        self.wire = RespWire(self.port)

    def drop(self) -> None:
        self.wire.close()

    def execute(self, *commands: tuple[bytes, ...]) -> list[Answer]:
        """A transaction, sent at once."""
        for words in ((b"MULTI",), *commands, (b"EXEC",)):
            self.wire.send_words(*words)
        for expected in (b"OK", *(b"QUEUED" for _ in commands)):
            if (answer := self.wire.answer()) != expected:
                raise Violation(f"{answer!r} instead of {expected!r} in a transaction")
        answers = self.wire.answer()
        if not isinstance(answers, list) or len(answers) != len(commands):
            raise Violation(f"EXEC is answered {answers!r}")
        return answers

    def pop(self, place: str, *words: bytes) -> None:
        """Take one item for good."""
        sent = self.books.tick()
        self.books.ask(place)
        body = self.wire.command(*words)
        if isinstance(body, list):
            body = body[1]
        if isinstance(body, bytes):
            self.books.came(body, (place,), sent)
        self.books.ask(place, more=-1)


class DisqueWorker(RespWorker):
    """A worker of Disque."""

    actions = (
        ("add", 30),
        ("add_in_order", 5),
        ("get", 20),
        ("finish", 25),
        ("by_id", 8),
        ("add_step", 5),
        ("next", 10),
    )

    def drop(self) -> None:
        for item, _ in self.held:
            self.wire.command(b"ENQUEUE", item.job_id)
        self.books.hung_up(self.held)
        super().drop()

    def add(self) -> None:
        rng = self.rng
        ttr_s = rng.choice((LONG_TTR_S, LONG_TTR_S, LONG_TTR_S, SHORT_TTR_S))
        words: tuple[bytes, ...] = (b"RETRY", b"%d" % ttr_s)
        if rng.random() < 0.2 and ttr_s > 1:
            words += (b"DELAY", b"1")
        if rng.random() < 0.2:
            words += (b"PRI", b"10")
        self._add(rng.choice(SHARED), ttr_s, *words)

    def add_in_order(self) -> None:
        self._add("order", LONG_TTR_S, b"RETRY", b"%d" % LONG_TTR_S)

    def add_step(self) -> None:
        self._add("steps", LONG_TTR_S, b"RETRY", b"%d" % LONG_TTR_S)

    def _add(self, place: str, ttr_s: int, *words: bytes) -> None:
        item = self.books.sending(place, self.number, self.size(), ttr_s)
        job_id = self.wire.bulk(b"ADDJOB", place.encode(), item.body(), b"0", *words)
        assert job_id is not None
        self.books.stored(item, job_id=job_id)
        self.mine.append(item)

    def get(self) -> None:
        if len(self.held) < KEEPS:
            self.held += self._get(self.rng.choice((1, 1, 3)), SHARED)

    def _get(self, count: int, places: tuple[str, ...]) -> list[tuple[Item, Hold]]:
        sent, sent_s = self.books.tick(), time.monotonic()
        how = self.rng.choice(((b"NOHANG",), (b"NOHANG",), (b"TIMEOUT", b"20")))
        froms = [place.encode() for place in places]
        got = []
        for job in self.wire.several(b"GETJOB", *how, b"COUNT", b"%d" % count, b"FROM", *froms):
            if not isinstance(job, list) or not isinstance(job[1], bytes) or not isinstance(job[2], bytes):
                raise Violation(f"GETJOB is answered {job!r}")
            hold = Hold(sent_s)
            item = self.books.came(job[2], places, sent, hold)
            hold.ends_s = min(hold.ends_s, sent_s + 300)
            self.books.named(item, job_id=job[1])
            got.append((item, hold))
        return got

    def finish(self) -> None:
        """Do something to a job that this worker has."""
        found = self.picked()
        if found is None:
            return
        item, hold = found
        chance = self.rng.random()
        if chance < 0.5:
            self._acknowledge(item, hold)
        elif chance < 0.65:
            sent_s = time.monotonic()
            try:
                self.wire.command(b"WORKING", item.job_id)
            except Refused:
                self.books.not_held(item, hold)
            else:
                hold.ends_s = sent_s + min(item.ttr_s, 300)
                self.held.append((item, hold))
        else:
            self.books.let_go(item, hold)
            words = self.rng.choice(((b"NACK",), (b"ENQUEUE",), (b"NACK", b"DELAY")))
            more = (item.job_id, b"DELAY", b"1") if b"DELAY" in words else (item.job_id,)
            answer = self.wire.bulk(words[0], *more)
            self.books.given_back(item, hold, answer == b"1")

    def _acknowledge(self, item: Item, hold: Hold | None) -> None:
        self.books.removing(item, hold)
        answer = self.wire.bulk(self.rng.choice((b"ACKJOB", b"FASTACK")), item.job_id)
        self.books.removed(item, answer == b"1", hold)

    def by_id(self) -> None:
        """To a job that was put here, wherever it is now."""
        mine = [item for item in self.mine if item.place in SHARED and not any(item is held for held, _ in self.held)]
        if not mine:
            return
        item, chance = self.rng.choice(mine), self.rng.random()
        if chance < 0.4:
            self._acknowledge(item, None)
        elif chance < 0.7:
            hold = Hold(time.monotonic())
            if self.wire.bulk(b"DEQUEUE", item.job_id) == b"1":
                self.held.append((item, hold))
        else:
            check_shown(item, self.wire.several(b"SHOW", item.job_id))

    def next(self) -> None:
        """Replace a job by the next step, in one transaction."""
        for item, hold in self._get(1, ("steps",)):
            other = self.books.sending("steps", self.number, self.rng.choice(SIZES), LONG_TTR_S)
            self.books.replacing(item, other, hold)
            done, job_id = self.execute(
                (b"ACKJOB", item.job_id),
                (b"ADDJOB", b"steps", other.body(), b"0", b"RETRY", b"%d" % LONG_TTR_S),
            )
            if done != b"1" or not isinstance(job_id, bytes):
                raise Violation(f"{item} was to be replaced, and that is answered {done!r} and {job_id!r}")
            self.books.replaced(item, other, job_id)

    def consume(self) -> None:
        for item, hold in self._get(1, ("order",)):
            self._acknowledge(item, hold)


def check_shown(item: Item, shown: list[Answer]) -> bool:
    """Whether SHOW has found a job. Raises Violation if it is another one."""
    if not shown:
        return False
    fields = dict(zip(shown[::2], shown[1::2], strict=True))
    body = b"" if item.size > LARGE_BYTES else item.body()  # a large one is not shown
    if fields.get(b"id") != item.job_id or fields.get(b"body") != body:
        raise Violation(f"{item.job_id.decode()} is the id of {item}, and shows {fields}"[:2000])
    return True


class ListWorker(RespWorker):
    """A worker with lists of Redis, and one of its own for what it is busy with."""

    actions = (
        *(("push", 25), ("push_in_order", 5), ("pop_one", 12), ("move", 12), ("finish", 12)),
        *(("push_pair", 8), ("pop_pair", 6)),
    )  # fmt: skip
    busy: list[Item]

    @property
    def own(self) -> bytes:
        """The list of what it is busy with."""
        return b"busy.%d" % self.number

    def connect(self) -> None:
        super().connect()
        # What its predecessor was busy with when the server was killed, this one goes on with.
        self.busy = []
        sent = self.books.tick()
        for body in self.wire.several(b"LRANGE", self.own, b"0", b"-1"):
            assert isinstance(body, bytes)
            hold = Hold(time.monotonic())
            self.busy.append(self.books.came(body, ("list",), sent, hold))
            hold.ends_s = float("inf")

    def push(self) -> None:
        if self.rng.random() < 0.4:
            self._push(self.rng.choice(SHARED), b"RPUSH", self.size())
        else:
            self._push("list", self.rng.choice((b"LPUSH", b"LPUSH", b"RPUSH")), self.rng.choice(SIZES))

    def push_in_order(self) -> None:
        self._push("order", b"RPUSH", self.size())

    def _push(self, place: str, verb: bytes, size: int) -> None:
        item = self.books.sending(place, self.number, size)
        self.wire.command(verb, place.encode(), item.body())
        self.books.stored(item)

    def pop_one(self) -> None:
        if self.rng.random() < 0.3:
            self.pop("work", b"LPOP", b"work")
        else:
            verb = self.rng.choice((b"LPOP", b"RPOP", b"BRPOP", b"BLPOP"))
            self.pop("list", verb, b"list", *((b"0.02",) if verb[:1] == b"B" else ()))

    def move(self) -> None:
        """Take one that is not lost with this worker."""
        sent = self.books.tick()
        words = self.rng.choice(
            (
                (b"LMOVE", b"list", self.own, b"RIGHT", b"LEFT"),
                (b"RPOPLPUSH", b"list", self.own),
                (b"BLMOVE", b"list", self.own, b"RIGHT", b"LEFT", b"0.02"),
            )
        )
        body = self.wire.bulk(*words)
        if body is not None:
            hold = Hold(time.monotonic())
            item = self.books.came(body, ("list",), sent, hold)
            hold.ends_s = float("inf")
            self.busy.append(item)

    def finish(self) -> None:
        """Done with it; or it goes back."""
        if not self.busy:
            return
        item = self.busy.pop(self.rng.randrange(len(self.busy)))
        hold = item.hold
        if hold is None:
            raise Violation(f"{item} is in a list of its own, and came to somebody else")
        if self.rng.random() < 0.7:
            self.books.removing(item, hold)
            answer = self.wire.bulk(b"LREM", self.own, b"1", item.body())
            if answer != b"1":
                raise Violation(f"LREM of {item} is answered {answer!r}")
            self.books.removed(item, True, hold)
            return
        for other in (*self.busy, item):  # which of them goes back, the server decides
            if other.hold is not None:
                self.books.let_go(other, other.hold)
        self.busy.append(item)
        body = self.wire.bulk(b"LMOVE", self.own, b"list", b"RIGHT", b"RIGHT")
        if body is None:
            raise Violation(f"a list with {item} is empty")
        back = next((other for other in self.busy if other.body() == body), None)
        if back is None:
            raise Violation(f"LMOVE brings {body[:60]!r}, which was not in its list")
        self.busy.remove(back)
        for other in self.busy:
            if other.hold is not None:
                other.hold.let_go = False

    def push_pair(self) -> None:
        """The same item into two lists at once."""
        item = self.books.sending("pair", self.number, self.rng.choice(SIZES))
        self.execute((b"RPUSH", b"left", item.body()), (b"RPUSH", b"right", item.body()))
        self.books.stored(item)

    def pop_pair(self) -> None:
        sent = self.books.tick()
        self.books.ask("pair")
        left, right = self.execute((b"LPOP", b"left"), (b"LPOP", b"right"))
        if left != right:
            raise Violation(f"a MULTI was done in part: {left!r:.80} and {right!r:.80} are popped together")
        if isinstance(left, bytes):
            self.books.came(left, ("pair",), sent)
        self.books.ask("pair", more=-1)

    def consume(self) -> None:
        self.pop("order", b"LPOP", b"order")


class MemcacheWorker(DoorWorker):
    """A client of memcache."""

    actions = (("put", 30), ("put_in_order", 5), ("take", 15))
    wire: Wire

    def connect(self) -> None:
        self.wire = Wire(self.port)

    def drop(self) -> None:
        self.wire.close()

    def put(self) -> None:
        rng = self.rng
        place = rng.choice((*SHARED, "list"))
        options = b""
        if place != "list":
            options = rng.choice((b"", b"", b"/delay=300", b"/pri=10", b"/ttr=60000"))
        self._put(place, options, self.size() if place != "list" else rng.choice(SIZES))

    def put_in_order(self) -> None:
        self._put("order", b"", self.size())

    def _put(self, place: str, options: bytes, size: int) -> None:
        item = self.books.sending(place, self.number, size, LONG_TTR_S)
        self.wire.ask(b"set %b%b 0 0 %d\r\n%b\r\n" % (place.encode(), options, size, item.body()), b"STORED")
        self.books.stored(item)

    def take(self) -> None:
        self._take(self.rng.choice(("work", "list")))

    def _take(self, place: str) -> None:
        sent = self.books.tick()
        self.books.ask(place)
        body = self.wire.get(b"%b/t=%d" % (place.encode(), self.rng.choice((0, 0, 20))))
        if body is not None:
            self.books.came(body, (place,), sent)
        self.books.ask(place, more=-1)

    def consume(self) -> None:
        self._take("order")
