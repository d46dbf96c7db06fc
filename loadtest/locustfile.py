"""Locust users for the queue server, and a check that nothing was lost.

    locust -f loadtest/locustfile.py --headless -u 50 -r 50 -t 30s
    locust -f loadtest/locustfile.py                                    # and a browser at http://127.0.0.1:8089

A fifth of the users each: producers, consumers (long-poll gets that take), workers (reliable reads, some of them
aborted, some dropped with the connection), producers of jobs (delays, priorities, keys), and workers that fail on
purpose (aborts with a delay, rejects, deadlines that pass, lost connections). Each has one connection and one request
in flight. A wait that ends without
an item has a name of its own in the statistics, with END behind it. The size is that of the item set or got.

At the end of each run what is left in the queue is drained, delayed and buried items included, and one line says
whether everything that was answered STORED was confirmed, is a dead letter, or was left; if not, or if items came that
were not to come, the exit status is 1. ledger.py has the rules. Users end when their request is answered, so normally
nothing is in doubt; with `--stop-timeout 0` they end at once, and the ledger knows what was in flight. The web page
can start one run after another; each has queues and books of its own.

Its own options, also on the web page. `--help` does not know them: Locust answers that before it reads this file.

    --queues a,b          the queues, which must be empty; default: a fresh one each run, deleted at its end
    --item-bytes 64
    --wait-ms 500         how long a get waits for an item
    --abort-share 0.05    of the workers' reads
    --drop-share 0.02     of the workers' reads
    --reject-share 0.02   of the failing workers' reads
    --late-share 0.02     of the failing workers' reads: their deadlines pass
    --dead NAME           the queues' dead_letter_queue, which must be empty; default: none, dead letters are buried

One process only: the books of producers and readers must lie in one place. `--master`, `--worker` and `--processes`
are refused.
"""

# mypy: allow-untyped-calls, allow-untyped-decorators
# (Locust's event hooks have no types.)

from __future__ import annotations

import itertools
import logging
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import gevent

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # Locust adds only this folder

from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtest.errors import LoadTestError
from loadtest.load.client import ANSWER_TIMEOUT_S, Client
from loadtest.load.ledger import MIN_ITEM_BYTES, Balance, Ledger
from loadtest.load.peers import Request
from loadtest.load.session import random_text
from loadtest.load.users import DEFAULT_HOST, PEER, Consumer, JobProducer, JobWorker, Producer, QueueUser, Worker

__all__ = ["Consumer", "JobProducer", "JobWorker", "Producer", "Worker"]  # Locust takes the users from here

MAX_WAIT_MS = 20_000  # client.py gives up on an answer after 30 s
STOP_TIMEOUT_S = ANSWER_TIMEOUT_S + 5  # longer than any request, so that users can finish theirs when the run ends
DRAIN_BATCH = 32
SETTLE_S = 1.0  # before the drain: the server may not yet have noticed the last who hung up with an item open
NOTHING_ASKED = "NOT STARTED: the run ended before a user asked anything; give -t more time"

logger = logging.getLogger("locustfile")


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
        self.reject_share = within(options.reject_share, "--reject-share", 0, 1 - self.abort_share - self.drop_share)
        self.late_share = within(options.late_share, "--late-share", 0, 1)
        self.dead = options.dead.encode()
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
        for queue in [*(queue for queue, _ in self.books), *([self.dead] if self.dead else [])]:
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
        for body in self._drain(client, self.dead) if self.dead else ():
            self._ledger_of(body).dead(body)
        for queue, ledger in self.books:
            for body in self._drain(client, queue):
                ledger.left(body)
            if self.own_queue:
                client.ask([Request(b"delete %b\r\n" % queue, 1)])
            balance.add(ledger.balance())
        client.close()
        return balance

    def _drain(self, client: Client, queue: bytes) -> Iterator[bytes]:
        """All that is in a queue: what is ready, and what has to be kicked."""
        while True:
            while bodies := client.ask([PEER.get(queue)] * DRAIN_BATCH):
                yield from bodies
            before = client.misses
            client.ask([Request(b"kick %b 1000\r\n" % queue, 1)])
            if client.misses > before:
                return

    def _ledger_of(self, body: bytes) -> Ledger:
        """Whose item this is; of one that is nobody's, the first."""
        ledgers = [ledger for _, ledger in self.books]
        return next((ledger for ledger in ledgers if body.startswith(f"{ledger.tag}-".encode())), ledgers[0])


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
    parser.add_argument("--reject-share", type=float, default=0.02, help="Share of the job workers' reads they reject")
    parser.add_argument("--late-share", type=float, default=0.02, help="Share in which they let the deadline pass")
    parser.add_argument("--dead", default="", help="Where the queues' dead letters go, if they have such a queue")
    parser.set_defaults(stop_timeout=STOP_TIMEOUT_S)
    # Here, because a worker without its master would wait for it before any other event.
    options, _ = parser.parse_known_args()
    if options.master or options.worker or options.processes:
        sys.exit(
            "loadtest/locustfile.py runs in one process: its check cannot work with --master, --worker, --processes"
        )
