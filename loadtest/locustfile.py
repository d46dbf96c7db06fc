"""Locust users for the queue server, and a check that nothing was lost.

    locust -f loadtest/locustfile.py --headless -u 50 -r 50 -t 30s
    locust -f loadtest/locustfile.py                                    # and a browser at http://127.0.0.1:8089

A third of the users each: producers, consumers (long-poll gets that take), workers (reliable reads, some of them
aborted, some dropped with the connection). Each has one connection and one request in flight. A wait that ends without
an item has a name of its own in the statistics, with END behind it. The size is that of the item set or got.

At the end of each run what is left in the queue is drained, and one line says whether everything that was answered
STORED was confirmed or left; if not, or if items came that were not to come, the exit status is 1. ledger.py has the
rules. Users end when their request is answered, so normally nothing is in doubt; with `--stop-timeout 0` they end at
once, and the ledger knows what was in flight. The web page can start one run after another; each has queues and books
of its own.

Its own options, also on the web page. `--help` does not know them: Locust answers that before it reads this file.

    --queues a,b          the queues, which must be empty; default: a fresh one each run, deleted at its end
    --item-bytes 64
    --wait-ms 500         how long a get waits for an item
    --abort-share 0.05    of the workers' reads
    --drop-share 0.02     of the workers' reads

One process only: the books of producers and readers must lie in one place. `--master`, `--worker` and `--processes`
are refused.
"""

# mypy: allow-untyped-calls, allow-untyped-decorators
# (Locust's event hooks have no types.)

from __future__ import annotations

import itertools
import logging
import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, ClassVar
from urllib.parse import urlsplit

import gevent

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # Locust adds only this folder

from locust import User, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtest.errors import LoadTestError, RequestLost
from loadtest.load.client import ANSWER_TIMEOUT_S, Client
from loadtest.load.ledger import MIN_ITEM_BYTES, Balance, Item, Ledger
from loadtest.load.peers import Memcache, Request
from loadtest.load.session import random_text

DEFAULT_HOST = "tcp://127.0.0.1:22133"
PEER = Memcache()
MAX_WAIT_MS = 20_000  # client.py gives up on an answer after 30 s
STOP_TIMEOUT_S = ANSWER_TIMEOUT_S + 5  # longer than any request, so that users can finish theirs when the run ends
RECONNECT_PAUSE_S = 1.0
DRAIN_BATCH = 32
SETTLE_S = 1.0  # before the drain: the server may not yet have noticed the last who hung up with an item open
NOTHING_ASKED = "NOT STARTED: the run ended before a user asked anything; give -t more time"

logger = logging.getLogger("locustfile")


class QueueUser(User):
    """One connection, made when it is needed, and one queue. After any error the connection is closed."""

    abstract = True
    host = DEFAULT_HOST
    run_now: ClassVar[Run]  # Locust makes the users itself, so they find it here

    def on_start(self) -> None:
        """Take a place in the run that is going on."""
        self.queue, self.ledger, self.address = self.run_now.place(type(self).__name__)
        self.client: Client | None = None

    def on_stop(self) -> None:
        """Stopped, perhaps in the middle of a request."""
        self.hang_up()

    def key(self, options: str) -> bytes:
        """What a get names: the queue with options behind it."""
        return self.queue + options.encode()

    def ask(self, name: str, request: Request, size_bytes: int = 0) -> bytes | None:
        """Send a request and wait for its answer, which is an item or none; note both in the statistics.

        Raises RequestLost if it is not known what became of the request, another LoadTestError if nothing did.
        """
        client = self.client or self._connect()
        begun = time.perf_counter()
        try:
            bodies = client.ask([request])
        except LoadTestError as error:
            self._note(name, begun, 0, error)
            self.hang_up()
            raise
        if bodies:
            size_bytes = len(bodies[0])
        elif request.gets:
            name += " END"
        self._note(name, begun, size_bytes)
        return bodies[0] if bodies else None

    def hang_up(self) -> None:
        """Close the connection, if there is one."""
        if self.client:
            self.client.close()
            self.client = None

    def _connect(self) -> Client:
        begun = time.perf_counter()
        try:
            self.client = Client(PEER, *self.address, self.queue)
        except LoadTestError as error:
            self._note("connect", begun, 0, error)
            gevent.sleep(RECONNECT_PAUSE_S)
            raise
        self._note("connect", begun, 0)
        return self.client

    def _note(self, name: str, begun: float, size_bytes: int, error: LoadTestError | None = None) -> None:
        self.environment.events.request.fire(
            request_type=type(self).__name__,
            name=name,
            response_time=(time.perf_counter() - begun) * 1000,
            response_length=size_bytes,
            exception=error,
            context={},
        )


class Producer(QueueUser):
    """Sets numbered items."""

    weight = 1

    def on_start(self) -> None:
        """Get a number."""
        super().on_start()
        self.number = self.ledger.add_producer()

    @task
    def put(self) -> None:
        """One item."""
        item = self.ledger.sending(self.number)
        body = self.ledger.body(item)
        try:
            self.ask("set", PEER.put(self.queue, body), len(body))
        except RequestLost:
            return
        except LoadTestError:
            self.ledger.refused(item)
        else:
            self.ledger.stored(item)


class Consumer(QueueUser):
    """Waits for items and takes them: what has been sent to it is gone."""

    weight = 1

    @task
    def take(self) -> None:
        """One item, or none within the wait."""
        self.ledger.asking()
        body = None
        try:
            body = self.ask("get /t", PEER.get(self.key(f"/t={self.run_now.wait_ms}")))
        except RequestLost:
            return
        except LoadTestError:
            pass
        self.ledger.answered(body)


class Worker(QueueUser):
    """Confirms each item with the get of the next, aborts some, and vanishes with some, which must come back."""

    weight = 1
    held: Item | None = None

    def hang_up(self) -> None:
        """With an item open, it is given back."""
        if self.held:
            self.ledger.dropped += 1
            self.held = None
        super().hang_up()

    @task
    def work(self) -> None:
        """One item, or none within the wait."""
        closing, self.held = self.held, None
        if closing:
            self.ledger.closing(closing)
        try:
            body = self.ask("get /close/open", PEER.get(self.key(f"/t={self.run_now.wait_ms}/close/open")))
        except RequestLost:
            return
        except LoadTestError:
            if closing:
                self.ledger.not_closed(closing)
            return
        if closing:
            self.ledger.confirmed(closing)
        if body is None:
            return
        self.held = self.ledger.read(body)
        dice = random.random()
        if dice < self.run_now.abort_share:
            self._abort()
        elif dice < self.run_now.abort_share + self.run_now.drop_share:
            self.hang_up()

    def _abort(self) -> None:
        self.ledger.aborted += 1
        self.held = None  # answered or not, it goes back
        try:
            self.ask("get /abort", Request(b"get %b\r\n" % self.key("/abort"), 1, b"END\r\n"))
        except LoadTestError:
            pass


class Run:
    """One run's options, its queues and their ledgers."""

    def __init__(self, environment: Environment) -> None:
        """LoadTestError if an option makes no sense, the server is not there, or a queue is not empty."""
        options = environment.parsed_options
        assert options
        self.address = address(environment.host or DEFAULT_HOST)
        self.wait_ms = within(options.wait_ms, "--wait-ms", 1, MAX_WAIT_MS)
        self.abort_share = within(options.abort_share, "--abort-share", 0, 1)
        self.drop_share = within(options.drop_share, "--drop-share", 0, 1 - self.abort_share)
        filler = random_text(int(within(options.item_bytes, "--item-bytes", MIN_ITEM_BYTES, 1 << 30)))
        run_id = os.urandom(4).hex()
        names = list(dict.fromkeys(name.strip() for name in options.queues.split(",") if name.strip()))
        self.own_queue = not names  # so nobody will miss it
        self.books = [
            (name.encode(), Ledger(f"{run_id}.{number}", filler))
            for number, name in enumerate(names or [f"locust-{run_id}"])
        ]
        self.places: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)
        client = Client(PEER, *self.address, b"")
        for queue, _ledger in self.books:
            if client.ask([PEER.get(queue + b"/peek")]):
                raise LoadTestError(f"queue {queue.decode()} is not empty: its items could not be told from a fault")
        client.close()

    def place(self, kind: str) -> tuple[bytes, Ledger, tuple[str, int]]:
        """Queue, its ledger and the server's address for one more user: the users of a kind go round the queues."""
        queue, ledger = self.books[next(self.places[kind]) % len(self.books)]
        return queue, ledger, self.address

    def balance(self) -> Balance:
        """Drain the queues, and see; only when all users have ended. LoadTestError if the server does not answer."""
        balance = Balance()
        gevent.sleep(SETTLE_S)
        client = Client(PEER, *self.address, b"")
        for queue, ledger in self.books:
            while bodies := client.ask([PEER.get(queue)] * DRAIN_BATCH):
                for body in bodies:
                    ledger.left(body)
            if self.own_queue:
                client.ask([Request(b"delete %b\r\n" % queue, 1)])
            balance.add(ledger.balance())
        client.close()
        return balance


def address(host: str) -> tuple[str, int]:
    """The address in `127.0.0.1:22133` or `tcp://127.0.0.1:22133`; LoadTestError for anything else."""
    try:
        url = urlsplit(host if "://" in host else f"tcp://{host}")
        if url.scheme == "tcp" and url.hostname and url.port:
            return url.hostname, url.port
    except ValueError:  # a port that is none
        pass
    raise LoadTestError(f"bad host {host!r}: give it as 127.0.0.1:22133 or tcp://127.0.0.1:22133")


def within(value: float, option: str, lowest: float, highest: float) -> Any:
    """The value of an option (the web page lets anything pass), or LoadTestError."""
    if not lowest <= value <= highest:
        raise LoadTestError(f"bad {option} {value}: from {lowest:g} to {highest:g}")
    return value


class Referee:
    """Begins and ends runs as Locust does, and gives the verdict: in the log, and in the exit status."""

    def __init__(self, environment: Environment) -> None:
        """Listens to all that happens in this environment."""
        self.environment = environment
        self.run: Run | None = None  # until its check has begun
        self.checking = False
        self.verdict: tuple[int, str] | None = None  # a log level, and the line; until it is shown
        self.judged = False  # there has been a verdict
        environment.events.test_start.add_listener(self.begin)
        environment.events.test_stop.add_listener(self.check)
        environment.events.quitting.add_listener(self.quitting)
        environment.events.quit.add_listener(self.show)

    def begin(self, **_: object) -> None:
        """A run begins; if it cannot, one line says why, and no users are started."""
        try:
            self.run = QueueUser.run_now = Run(self.environment)
        except LoadTestError as error:
            self._judge(False, f"NOT STARTED: {error}")
            runner = self.environment.runner
            assert runner
            gevent.spawn(runner.stop if self.environment.web_ui else runner.quit)
            # Ends the greenlet that would start the users. Locust's own StopTest does too, with a traceback.
            raise gevent.GreenletExit from None

    def check(self, **_: object) -> None:
        """The users have ended."""
        run, self.run = self.run, None
        if run is None:
            return
        self.checking = True
        try:
            balance = run.balance()
            if balance.good and not self.environment.stats.total.num_requests:
                self._judge(False, NOTHING_ASKED)
            else:
                self._judge(balance.good, balance.line())
        except LoadTestError as error:
            self._judge(False, f"NOT CHECKED: {error}")
        self.checking = False

    def quitting(self, **_: object) -> None:
        """The exit status is decided after this: when Locust is interrupted, even before the users have ended."""
        assert self.environment.runner
        self.environment.runner.stop()
        if self.checking:
            self._judge(False, "NOT CHECKED: interrupted while draining the queue")
        elif not self.judged and not self.environment.web_ui:
            self._judge(False, NOTHING_ASKED)

    def show(self, **_: object) -> None:
        """Show the verdict: with the web page at once, else as the last line, below the statistics."""
        if self.verdict:
            logger.log(*self.verdict)
            self.verdict = None

    def _judge(self, good: bool, line: str) -> None:
        self.judged = True
        self.verdict = logging.INFO if good else logging.ERROR, line
        if not good:
            self.environment.process_exit_code = 1
        if self.environment.web_ui:
            self.show()


@events.init.add_listener
def listen(environment: Environment, **_: object) -> None:
    """Locust has been set up."""
    # The loop's clock still shows when the imports began, and -t would count from then: on a busy machine, 1s was over
    # before the first user was there.
    gevent.get_hub().loop.update_now()
    Referee(environment)


@events.init_command_line_parser.add_listener
def add_options(parser: LocustArgumentParser) -> None:
    """The options in the docstring above; the web page shows them with their help."""
    parser.add_argument("--queues", default="", help="Names, separated by commas; none: a fresh one")
    parser.add_argument("--item-bytes", type=int, default=64, help="Size of an item")
    parser.add_argument("--wait-ms", type=int, default=500, help="How long a get waits for an item")
    parser.add_argument("--abort-share", type=float, default=0.05, help="Share of the workers' reads that they abort")
    parser.add_argument("--drop-share", type=float, default=0.02, help="Share in which they hang up instead")
    parser.set_defaults(stop_timeout=STOP_TIMEOUT_S)
    # Here, because a worker without its master would wait for it before any other event.
    options, _ = parser.parse_known_args()
    if options.master or options.worker or options.processes:
        sys.exit(
            "loadtest/locustfile.py runs in one process: its check cannot work with --master, --worker, --processes"
        )
