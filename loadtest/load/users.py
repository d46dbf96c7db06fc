"""The kinds of Locust's users, of which locustfile.py tells. Each has one connection, and one request in flight."""

# mypy: allow-untyped-calls, allow-untyped-decorators
# (Locust's event hooks have no types.)

from __future__ import annotations

import random
import time
from typing import Any, ClassVar

import gevent
from locust import User, task

from loadtest.errors import LoadTestError, RequestLost
from loadtest.load.client import Client
from loadtest.load.ledger import Item, Ledger
from loadtest.load.peers import Memcache, Request

DEFAULT_HOST = "tcp://127.0.0.1:22133"
PEER = Memcache()
RECONNECT_PAUSE_S = 1.0
DELAYS_MS = (0, 0, 50, 200, 1000, 3_600_000)  # the last is found at the end
PRIS = (0, 100, 1024, 100_000)
TTR_MS = 60_000  # longer than any user takes
SHORT_TTR_MS, LATE_S = 50, 0.3


class NotStored(LoadTestError):
    """The key of the put is taken, which is no fault. The connection goes on."""


class QueueUser(User):
    """One connection, made when it is needed, and one queue. After any error the connection is closed."""

    abstract = True
    host = DEFAULT_HOST
    run_now: ClassVar[Any]  # the Run of locustfile.py: Locust makes the users itself, so they find it here

    def on_start(self) -> None:
        """Take a place in the run that is going on."""
        self.queue: bytes
        self.ledger: Ledger
        self.address: tuple[str, int]
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

        Raises NotStored; RequestLost if it is not known what became of the request; another LoadTestError if nothing
        did.
        """
        client = self.client or self._connect()
        begun, misses = time.perf_counter(), client.misses
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
        elif request.puts and client.misses > misses:
            raise self._refused(name, begun)
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

    def _refused(self, name: str, begun: float) -> LoadTestError:
        self._note(name + " NOT_STORED", begun, 0)
        return NotStored("not stored: its key is taken")

    def _note(self, name: str, begun: float, size_bytes: int, error: LoadTestError | None = None) -> None:
        self.environment.events.request.fire(
            request_type=type(self).__name__,
            name=name,
            response_time=(time.perf_counter() - begun) * 1000,
            response_length=size_bytes,
            exception=error,
            context={},
        )


class NumberedUser(QueueUser):
    """One that sets items: it counts its own."""

    abstract = True

    def on_start(self) -> None:
        """Get a number."""
        super().on_start()
        self.number = self.ledger.add_producer()


class Producer(NumberedUser):
    """Sets items."""

    weight = 1

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


class JobProducer(NumberedUser):
    """Sets and adds jobs: with delays and priorities, and now and then under the key of the one before."""

    weight = 1
    key_of: Item | None = None

    @task
    def put(self) -> None:
        """One job."""
        item = self.ledger.sending(self.number)
        body = self.ledger.body(item)
        options = f"/delay={random.choice(DELAYS_MS)}/pri={random.choice(PRIS)}"
        verb = "set"
        if random.random() < 0.3:
            if self.key_of is None or random.random() < 0.5:
                self.key_of = item
            verb, options = "add", f"{options}/key={self.ledger.name(self.key_of)}"
        data = b"%b %b 0 0 %d\r\n%b\r\n" % (verb.encode(), self.key(options), len(body), body)
        try:
            self.ask(f"{verb} job", Request(data, 1, puts=1), len(body))
        except RequestLost:
            return
        except LoadTestError:
            self.ledger.refused(item)
        else:
            self.ledger.stored(item)


class JobWorker(QueueUser):
    """Opens items with a deadline, and fails: aborts with a delay, rejects, lets the deadline pass, or vanishes. It
    confirms the others, each with a request of its own."""

    weight = 1
    held = False

    def hang_up(self) -> None:
        """With an item open, it is given back."""
        if self.held:
            self.ledger.dropped += 1
            self.held = False
        super().hang_up()

    @task
    def work(self) -> None:
        """One item, or none within the wait."""
        run = self.run_now
        late = random.random() < run.late_share
        ttr_ms = SHORT_TTR_MS if late else TTR_MS
        try:
            body = self.ask("get /open/ttr", PEER.get(self.key(f"/open/ttr={ttr_ms}/t={run.wait_ms}")))
        except LoadTestError:
            return
        if body is None:
            return
        item = self.ledger.read(body)
        self.held = True
        dice = random.random()
        if late:
            self._be_late()
        elif item is None or dice < run.drop_share:
            self.hang_up()
        elif (dice := dice - run.drop_share) < run.abort_share:
            self._end(f"/abort/delay={random.choice(DELAYS_MS)}", "get /abort/delay")
            self.ledger.aborted += 1
        elif dice - run.abort_share < run.reject_share:
            if self._end("/reject", "get /reject"):
                self.ledger.rejected(item)
        else:
            self.ledger.closing(item)
            if self._end("/close", "get /close"):
                self.ledger.confirmed(item)

    def _be_late(self) -> None:
        """Its deadline passes, and somebody else gets the item."""
        gevent.sleep(LATE_S)
        self.ledger.timed_out += 1
        self._end("/abort", "get /abort too late")

    def _end(self, options: str, name: str) -> bool:
        """The item is let go. False: nobody knows."""
        self.held = False
        try:
            self.ask(name, Request(b"get %b\r\n" % self.key(options), 1, b"END\r\n"))
        except LoadTestError:
            return False
        return True
