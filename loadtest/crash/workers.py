"""The load of refused.py: workers with a queue of their own each, of which they know what must be in it.

Here is what all have in common, and the worker that speaks the memcache protocol. What a worker has asked and nobody
has answered (RequestLost) may have happened, and so may a part of what took several turns and was refused in the last:
then `settle` looks which it was.
"""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Protocol

from loadtest.errors import Refused, RequestLost, Violation
from loadtest.wire import Wire

REPLY_S = 20.0  # nobody waits longer for an answer
WORKS_AGAIN_S = 20.0
LARGE_BYTES = 9000  # three chunks


class Ports(Protocol):
    """A server with a listener for each protocol."""

    port: int
    text_port: int
    thrift_port: int


def short(body: bytes | None) -> str:
    return repr(body if body is None else body[:30])


class Worker(threading.Thread):
    """One or more connections, all for one queue, which nobody else uses: it knows what must be in it."""

    def __init__(self, server: Ports, name: str, rng: Random) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.name = name
        self.queue = name.encode()
        self.rng = rng
        self.items: deque[bytes] = deque()
        self.puts = self.done = self.refused = self.unsure = 0
        self.goes_on, self.stands = threading.Event(), threading.Event()
        self.error: BaseException | None = None
        self.history: deque[str] = deque(maxlen=30)
        self.links: list[Any] = []

    def run(self) -> None:
        while True:
            if not self.goes_on.is_set():
                self.stands.set()
                self.goes_on.wait()
                self.stands.clear()
            try:
                self.step()
            except BaseException as error:
                self.error = error
                self.stands.set()
                return
            time.sleep(self.rng.random() * 0.004)

    def step(self) -> None:
        action = self.rng.choice(self.actions())
        before = len(self.items)
        said = "done"
        try:
            if not self.links:
                self.connect()
            action()
            self.done += 1
        except Refused as error:
            self.refused += 1
            said = f"refused: {error}"
        except RequestLost as error:
            self.unsure += 1
            said = f"unsure: {error}"
            self.hang_up()
        self.history.append(f"{action.__name__}: {before} -> {len(self.items)} items; {said}")

    # -- what each protocol has

    @abstractmethod
    def actions(self) -> list[Callable[[], None]]:
        """What it does, drawn by chance."""

    @abstractmethod
    def connect(self) -> None:
        """Make the connections that it needs."""

    def hang_up(self) -> None:
        for link in self.links:
            link.close()
        self.links = []

    # -- the model

    def body(self) -> bytes:
        self.puts += 1
        large = LARGE_BYTES if self.rng.random() < 0.15 else 40
        return b"%b %d " % (self.queue, self.puts) + b"x" * large

    def is_head(self, body: bytes | None, place: int = 0) -> None:
        """This is what has to stand there; None: nothing."""
        expected = self.items[place] if len(self.items) > place else None
        if body != expected:
            raise Violation(f"{short(body)} instead of {short(expected)}")

    def settle(self, *possible: list[bytes]) -> None:
        """Part of a request may have happened: see which of these the queue holds. Nobody is connected then."""
        self.hang_up()
        deadline = time.monotonic() + WORKS_AGAIN_S
        found = None
        while time.monotonic() < deadline:
            try:
                link = Wire(self.server.port, REPLY_S)
                stats = link.stats()
                link.close()
            except (Refused, RequestLost):
                continue
            found = int(stats.get(f"queue_{self.name}_items", 0))
            if stats.get(f"queue_{self.name}_open_transactions", "0") == "0":
                for items in possible:
                    if len(items) == found:
                        self.items = deque(items)
                        return
            time.sleep(0.05)
        raise Violation(f"{found} items, where {[len(items) for items in possible]} are possible; {stats}")


class Memcache(Worker):
    def connect(self) -> None:
        self.links = [Wire(self.server.port, REPLY_S), Wire(self.server.port, REPLY_S)]
        self.one, self.other = self.links

    def actions(self) -> list[Callable[[], None]]:
        seldom = [self.flush_and_wait, self.delete_and_wait] if self.rng.random() < 0.3 else []
        return [
            self.put, self.put, self.put, self.put_and_wait, self.put_and_wait, self.take, self.wait_and_take,
            self.open_and_close, self.open_and_abort, self.chain, self.chain, self.chain_and_put, self.peek, *seldom,
        ]  # fmt: skip

    def request(self, body: bytes) -> bytes:
        return b"set %b 0 0 %d\r\n%b\r\n" % (self.queue, len(body), body)

    def put(self) -> None:
        body = self.body()
        before = list(self.items)
        try:
            self.one.ask(self.request(body), b"STORED")
        except RequestLost:
            self.settle(before, [*before, body])
            raise
        self.items.append(body)

    def put_and_wait(self) -> None:
        """Both in one turn, if they come together."""
        body = self.body()
        before = list(self.items)
        self.one.send(self.request(body) + b"get %b-nothing/t=20\r\n" % self.queue)
        try:
            try:
                self.one.expect(b"STORED")
                self.items.append(body)
            finally:
                self.one.item()
        except RequestLost:
            self.settle(before, [*before, body])
            raise

    def take(self, option: bytes = b"") -> None:
        before = list(self.items)
        try:
            body = self.one.get(self.queue + option)
        except RequestLost:
            self.settle(before, before[1:])
            raise
        self.is_head(body)
        if body is not None:
            self.items.popleft()

    def wait_and_take(self) -> None:
        """What it waits for is put by another client of the same worker."""
        if self.items:
            self.take(b"/t=50")
            return
        body = self.body()
        self.one.send(b"get %b/t=300\r\n" % self.queue)
        time.sleep(self.rng.random() * 0.01)
        stored = got = None
        try:
            try:
                self.other.ask(self.request(body), b"STORED")
                stored = True
            except Refused:
                stored = False
            got = self.one.item()
        except Refused:
            self.settle([body] if stored else [])
            return
        except RequestLost:
            self.settle([], [body])
            raise
        if got is None:
            self.settle([body] if stored else [])
        elif got != body or not stored:
            raise Violation(f"got {short(got)}, put {short(body)}, stored: {stored}")

    def open_and_close(self) -> None:
        self.opened()
        self.closed(self.one, b"get %b/close\r\n" % self.queue)

    def open_and_abort(self) -> None:
        self.opened()
        try:
            self.one.ask(b"get %b/abort\r\n" % self.queue, b"END")
        except (Refused, RequestLost):  # it is open still
            self.settle(list(self.items))
            raise

    def opened(self) -> None:
        self.is_head(self.one.get(self.queue + b"/open"))

    def closed(self, link: Wire, request: bytes) -> None:
        """The head is open; this closes it."""
        if not self.items:
            return
        before = list(self.items)
        try:
            link.ask(request, b"END")
            self.items.popleft()
        except Refused:
            try:
                link.ask(b"get %b/abort\r\n" % self.queue, b"END")
            except Refused:
                self.settle(before)
            raise
        except RequestLost:
            self.settle(before, before[1:])
            raise

    def chain(self) -> None:
        """Close and open the next, waiting for it at the end."""
        self.opened()
        for _ in range(self.rng.randrange(1, 5)):
            if not self.items:
                return
            if not self.chained(b"get %b/close/open/t=30\r\n" % self.queue):
                return
        self.closed(self.one, b"get %b/close\r\n" % self.queue)

    def chained(self, request: bytes, then: Callable[[], None] | None = None) -> bool:
        """True: the next is open."""
        before = list(self.items)
        self.one.send(request)
        if then is not None:
            then()
        added = list(self.items)[len(before) :]
        try:
            body = self.one.item()
        except (Refused, RequestLost):
            # The close may have been written before the turn that has failed, in which the next was opened.
            self.settle([*before, *added], [*before[1:], *added])
            raise
        self.items.popleft()
        if body is None and added:
            self.settle(list(self.items))  # it came when the wait was over
            return False
        self.is_head(body)
        return body is not None

    def chain_and_put(self) -> None:
        """It waits behind the close, and what it waits for is put by another client."""
        while len(self.items) > 1:
            self.take()
        self.opened()
        if not self.items:
            return

        def put() -> None:
            time.sleep(self.rng.random() * 0.01)
            body = self.body()
            try:
                self.other.ask(self.request(body), b"STORED")
                self.items.append(body)
            except Refused:
                pass

        if self.chained(b"get %b/close/open/t=300\r\n" % self.queue, put):
            self.closed(self.one, b"get %b/close\r\n" % self.queue)

    def peek(self) -> None:
        self.is_head(self.one.get(self.queue + b"/peek"))

    def flush_and_wait(self) -> None:
        self.emptied(b"flush %b\r\n" % self.queue, b"END")

    def delete_and_wait(self) -> None:
        self.emptied(b"delete %b\r\n" % self.queue, b"DELETED")

    def emptied(self, request: bytes, answer: bytes) -> None:
        before = list(self.items)
        self.one.send(request + b"get %b/t=20\r\n" % self.queue)
        try:
            try:
                self.one.expect(answer)
                self.items.clear()
            finally:
                self.is_or_is_refused(self.one)
        except RequestLost:
            self.settle(before, [])
            raise

    def is_or_is_refused(self, link: Wire) -> None:
        before = list(self.items)
        try:
            body = link.item()
        except Refused:
            return
        except RequestLost:
            self.settle(before, before[1:])
            raise
        self.is_head(body)
        if body is not None:
            self.items.popleft()
