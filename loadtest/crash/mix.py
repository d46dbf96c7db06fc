"""The mixed load: workers that do a bit of everything at several queues, and the emptying of a queue afterwards.

Every choice is drawn from the seed, so a seed repeats the load, though not its timing. Workers run until the server has
gone. Any call may switch greenlets.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import gevent
from gevent.event import Event

from loadtest.crash.books import Book, Item, Op
from loadtest.crash.links import Broken, Connection
from loadtest.crash.promises import Model
from loadtest.errors import Violation

CHUNK_BYTES = 4096  # the server's option: small, so that large items are cheap
SIZES = (0, 1, 7, 8, 9, 64, 64, 64, 200, 200, 1000, 1000, 3000)
LARGE_SIZES = (CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES + 17)
HUGE_BYTES = 50 * CHUNK_BYTES + 1
LARGE_SHARE, HUGE_SHARE = 0.04, 0.002
QUEUES = tuple(b"soak-%d" % number for number in range(6))
WORKERS = 12
DRAIN_BATCH = 64
RECONNECT_S = 0.05
REST_S = 0.2

# What a worker does next: name of the method, weight while the queues are filled, and while they are emptied.
ACTIONS = (
    ("put", 40, 8),
    ("put_many", 12, 1),
    ("take", 12, 30),
    ("take_many", 4, 12),
    ("read", 20, 20),
    ("chain", 6, 12),
    ("read_and_close_at_once", 4, 4),
    ("wait", 8, 8),
    ("peek", 4, 4),
    ("put_and_take", 6, 6),
    ("flush", 0.25, 0.25),
    ("delete", 0.25, 0.25),
    ("hang_up", 1, 1),
    ("cut_short", 0.5, 0.5),
    ("rest", 3, 3),
)
DROPS = ("flush", "delete")


class Load:
    """Workers against one server process."""

    def __init__(self, model: Model, port: int, seed: str, *, drop_factor: float = 1.0, pause_s: float = 0.0) -> None:
        """drop_factor: flushes and deletes, relative to ACTIONS; pause_s: after each action, on average."""
        self.model = model
        self.port = port
        self.drop_factor = drop_factor
        self.pause_s = pause_s
        self.filling = True
        self.going = True
        self.resting = False  # for a while, nobody begins anything
        self.trouble: BaseException | None = None
        self.troubled = Event()
        self._workers = [gevent.spawn(self._run, Worker(self, Random(f"{seed} {n}"))) for n in range(WORKERS)]

    def _run(self, worker: Worker) -> None:
        try:
            worker.run()
        except BaseException as error:  # also what is wrong with the worker itself
            self.trouble = self.trouble or error
            self.troubled.set()

    def wait_s(self, seconds: float) -> None:
        """Let the workers work. Raises Violation as soon as one of them has found one."""
        self.troubled.wait(seconds)
        if self.trouble is not None:
            raise self.trouble

    def join(self) -> None:
        """The server has gone: let the workers read what it has sent, and end. Raises Violation."""
        gevent.joinall(self._workers)
        self.wait_s(0)

    def stop(self) -> None:
        """Let each worker finish what it does, and hang up. Raises Violation."""
        self.going = False
        self.join()

    def end(self) -> None:
        """End the workers at once."""
        gevent.killall(self._workers)


class Worker:
    """One client after the other."""

    def __init__(self, load: Load, rng: Random) -> None:
        """rng: all its choices come from it."""
        self.load = load
        self.model = load.model
        self.rng = rng
        self.connection: Connection
        names = [name for name, _, _ in ACTIONS]
        # Each worker has its leanings, so that no two kills find the same.
        lean = [rng.choice((0.3, 1, 1, 3)) * (load.drop_factor if name in DROPS else 1) for name in names]
        self.actions: list[Callable[[], None]] = [getattr(self, name) for name in names]
        self.fill_weights = [weight * factor for (_, weight, _), factor in zip(ACTIONS, lean, strict=True)]
        self.drain_weights = [weight * factor for (_, _, weight), factor in zip(ACTIONS, lean, strict=True)]
        self.queues = rng.sample(QUEUES, 3)

    def run(self) -> None:
        """Work until the server is gone, or the load ends. Raises Violation."""
        while self.model.alive and self.load.going:
            try:
                self.connection = Connection(self.model, self.load.port, CHUNK_BYTES)
            except Broken:
                gevent.sleep(RECONNECT_S)
                continue
            try:
                self._work()
            except Broken:
                cut_off = self.connection.may_have_been_cut_off()
                pending = self.connection.link.pending
                self.connection.drop()
                if not cut_off:
                    raise Violation(f"the server hung up on a connection that waited for {pending}") from None
            except Violation:
                raise
            finally:
                self.connection.drop()

    def _work(self) -> None:
        while self.model.alive and self.load.going:
            if self.load.resting:
                gevent.sleep(REST_S)
                continue
            weights = self.fill_weights if self.load.filling else self.drain_weights
            self.rng.choices(self.actions, weights)[0]()
            if self.load.pause_s:
                gevent.sleep(self.rng.expovariate(1 / self.load.pause_s))

    # -- requests

    def book(self) -> Book:
        """One of its queues; the first is its favourite."""
        return self.model.book(self.rng.choice((self.queues[0], *self.queues)))

    def size(self) -> int:
        """Of an item."""
        chance = self.rng.random()
        if chance < HUGE_SHARE:
            return HUGE_BYTES
        if chance < LARGE_SHARE:
            return self.rng.choice(LARGE_SIZES)
        return self.rng.choice(SIZES)

    def new_item(self, book: Book, cut_short: bool = False) -> Item:
        """About to be sent."""
        return self.model.new_item(book, self.size(), self.connection.link, cut_short)

    def set_op(self) -> Op:
        """A set of a new item."""
        book, chance = self.book(), self.rng.random()
        return Op("set", book, self.new_item(book), sync=chance < 0.06, noreply=chance > 0.9)

    def get_op(self, **how: bool | int) -> Op:
        """A get."""
        return Op("get", self.book(), with_id=self.rng.random() < 0.3, **how)  # type: ignore[arg-type]

    def ask(self, *ops: Op) -> None:
        """Send and take the answers."""
        self.connection.ask(list(ops))

    # -- actions; each leaves nothing open

    def put(self) -> None:
        self.ask(self.set_op())

    def put_many(self) -> None:
        # Each item is made when its turn comes: the order of their numbers is that of their sending.
        self.ask(*[self.set_op() for _ in range(self.rng.choice((2, 5, 20, 40)))])

    def take(self) -> None:
        self.ask(self.get_op())

    def take_many(self) -> None:
        self.ask(*[self.get_op() for _ in range(self.rng.choice((2, 5, 20)))])

    def put_and_take(self) -> None:
        """Put and take in one turn of the server."""
        self.ask(self.set_op(), self.get_op(), self.set_op(), self.set_op(), self.get_op())

    def read(self) -> None:
        """A reliable read."""
        self.ask(self.get_op(opens=True))
        if self.connection.link.open is None:
            return
        if self.rng.random() < 0.3:
            gevent.sleep(self.rng.random() * 0.05)
        if self.rng.random() < 0.3:
            self.ask(self.set_op())
        chance = self.rng.random()
        if chance < 0.7:
            self.ask(self.get_op(closes=True))
        elif chance < 0.75:
            self.ask(self.get_op(closes=True, peeks=True))
        elif chance < 0.95:
            self.ask(self.get_op(aborts=True))
        else:
            self.hang_up()

    def chain(self) -> None:
        """A worker's loop."""
        for _ in range(self.rng.randrange(1, 12)):
            self.ask(self.get_op(opens=True, closes=True, wait_ms=self.rng.choice((0, 0, 10))))
            if self.connection.link.open is None:
                return
        self.ask(self.get_op(closes=True))

    def read_and_close_at_once(self) -> None:
        """Open an item and close it without waiting for it."""
        self.ask(self.get_op(opens=True), self.get_op(opens=True, closes=True), self.get_op(closes=True))

    def wait(self) -> None:
        self.ask(self.get_op(wait_ms=self.rng.choice((1, 20, 100)), peeks=self.rng.random() < 0.1))

    def peek(self) -> None:
        self.ask(self.get_op(peeks=True))

    def flush(self) -> None:
        self.ask(Op("flush", self.book()))

    def delete(self) -> None:
        self.ask(Op("delete", self.book()))

    def rest(self) -> None:
        gevent.sleep(self.rng.random() * 0.02)

    def hang_up(self) -> None:
        """Hang up, now and then with requests on their way."""
        if self.rng.random() < 0.5:
            held = self.connection.link.open is not None
            last = self.get_op(closes=True) if held else self.get_op(wait_ms=self.rng.choice((0, 50)))
            self.connection.send([self.set_op(), last])
        self._connect_again()

    def cut_short(self) -> None:
        """Hang up in the middle of an item."""
        book = self.book()
        item = self.new_item(book, cut_short=True)
        body = item.body()
        part = b"set %b %d 0 %d\r\n" % (book.name, item.flags, item.size) + body[: self.rng.randrange(len(body) + 1)]
        self.connection.send([self.set_op()], part)
        gevent.sleep(self.rng.random() * 0.02)
        self._connect_again()

    def _connect_again(self) -> None:
        self.connection.drop(reset=self.rng.random() < 0.3)
        self.connection = Connection(self.model, self.load.port, CHUNK_BYTES)


def drain(model: Model, connection: Connection, books: list[Book], rng: Random) -> None:
    """Empty these queues while nobody else is connected, and compare what comes out with the statistics. Raises
    Violation, Broken."""
    stats = connection.stats()
    for book in books:
        before = model.confirmed, model.confirmed_bytes
        name, reliable = book.name.decode(), rng.random() < 0.3
        more = True
        while more:
            left = model.confirmed
            if reliable:
                ops = [Op("get", book, opens=True, closes=True) for _ in range(DRAIN_BATCH)]
                ops.append(Op("get", book, closes=True))
            else:
                ops = [Op("get", book, with_id=rng.random() < 0.3) for _ in range(DRAIN_BATCH)]
            connection.ask(ops)
            more = model.confirmed > left
        counted = [model.confirmed - before[0], model.confirmed_bytes - before[1]]
        promised = [int(stats.get(f"queue_{name}_{what}", 0)) for what in ("items", "bytes")]
        if promised != counted:
            raise book.wrong(f"{counted[0]} items of {counted[1]} bytes came out, but the statistics say {promised}")
        if stats.get(f"queue_{name}_open_transactions", "0") != "0":
            raise book.wrong("an item is open, though no client is connected that could have it")
    model.judge(books)
    stats = connection.stats()
    for book in books:
        name = book.name.decode()
        if any(stats.get(f"queue_{name}_{what}", "0") != "0" for what in ("items", "bytes", "open_transactions")):
            raise book.wrong("the statistics say that it is not empty")
