"""The workers of refused.py that speak Kestrel's text protocol and its thrift service."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from thriftpy2.protocol.binary import TBinaryProtocol
from thriftpy2.thrift import TApplicationException, TClient
from thriftpy2.transport import TTransportException
from thriftpy2.transport.framed import TFramedTransport
from thriftpy2.transport.socket import TSocket

from darner_core.protocols.thrift.messages import load_idl
from loadtest.crash.workers import REPLY_S, Worker
from loadtest.errors import Refused, RequestLost, Violation
from loadtest.wire import Wire

IDL = load_idl()
ABORT_MS = 700  # what nobody has decided on by then goes back


class Text(Worker):
    """A get, a peek and a monitor confirm what is open, of which the worker keeps count."""

    def connect(self) -> None:
        self.links = [Wire(self.server.text_port, REPLY_S)]
        (self.link,) = self.links
        self.open = 0

    def actions(self) -> list[Callable[[], None]]:
        return [self.put, self.put, self.get, self.get, self.monitor, self.monitor_and_confirm, self.peek]

    def body(self) -> bytes:
        self.puts += 1
        return b"%b %d " % (self.queue, self.puts) + b"x" * 40

    def put(self) -> None:
        bodies = [self.body() for _ in range(self.rng.randrange(1, 4))]
        before = list(self.items)
        self.link.send(b"put %b:\n%b\n\n" % (self.queue, b"\n".join(bodies)))
        try:
            self.link.expect(b"+%d" % len(bodies))
        except RequestLost:
            self.settle(before, [*before, *bodies])
            raise
        self.items.extend(bodies)

    def received(self, place: int) -> bool:
        line = self.link.line()
        if line == b"*":
            return False
        if line.startswith(b"-"):
            raise Refused(line.decode())
        self.is_head(line[1:], place)
        return True

    def get(self) -> None:
        before, was_open = list(self.items), self.open
        self.link.send(b"get %b %d\n" % (self.queue, self.rng.choice((0, 20))))
        try:
            opened = self.received(was_open)
        except (Refused, RequestLost):
            self.settle(before, before[was_open:])
            raise
        for _ in range(was_open):
            self.items.popleft()
        self.open = int(opened)

    def peek(self) -> None:
        before, was_open = list(self.items), self.open
        self.link.send(b"peek %b %d\n" % (self.queue, self.rng.choice((0, 20))))
        try:
            self.received(was_open)
        except (Refused, RequestLost):
            self.settle(before, before[was_open:])
            raise
        for _ in range(was_open):
            self.items.popleft()
        self.open = 0

    def monitor(self) -> None:
        before, was_open, opened = list(self.items), self.open, 0
        self.link.send(b"monitor %b 30\n" % self.queue)
        try:
            while self.received(was_open + opened):
                opened += 1
        except (Refused, RequestLost):
            self.settle(before, before[was_open:])
            raise
        for _ in range(was_open):
            self.items.popleft()
        self.open = opened

    def monitor_and_confirm(self) -> None:
        self.monitor()
        count, before = min(2, self.open), list(self.items)
        if not count:
            return
        try:
            self.link.ask(b"confirm %b %d\n" % (self.queue, count), b"+%d" % count)
        except RequestLost:
            self.settle(before, before[count:])
            raise
        self.open -= count
        for _ in range(count):
            self.items.popleft()


class Thrift(Worker):
    def connect(self) -> None:
        transport = TFramedTransport(TSocket("127.0.0.1", self.server.thrift_port, socket_timeout=REPLY_S * 1000))
        transport.open()
        self.client = TClient(IDL.Kestrel, TBinaryProtocol(transport))
        self.links = [self.client]

    def actions(self) -> list[Callable[[], None]]:
        return [self.put, self.put, self.get, self.confirm, self.confirm_some, self.abort, self.time_over]

    def call(self, name: str, *arguments: Any) -> Any:
        try:
            return getattr(self.client, name)(*arguments)
        except TApplicationException as error:
            raise Refused(str(error)) from None
        except (TTransportException, OSError, EOFError) as error:
            if "timed out" in str(error):
                raise Violation(f"no answer for {REPLY_S:g} s") from None
            raise RequestLost(str(error)) from None

    def put(self) -> None:
        bodies = [self.body() for _ in range(self.rng.randrange(1, 4))]
        before = list(self.items)
        try:
            stored = self.call("put", self.name, bodies, 0)
        except RequestLost:
            self.settle(before, [*before, *bodies])
            raise
        self.items.extend(bodies[:stored])

    def take(self, abort_ms: int) -> list[Any]:
        before = list(self.items)
        most = self.rng.randrange(1, 5)
        try:
            items = list(self.call("get", self.name, most, self.rng.choice((0, 20)), abort_ms))
        except RequestLost:
            self.settle(*(before[count:] for count in range(1 if abort_ms else most + 1)))
            raise
        for place, item in enumerate(items):
            self.is_head(item.data, place)
        return items

    def get(self) -> None:
        for _ in self.take(0):
            self.items.popleft()

    def confirm(self, share: float = 1.0) -> None:
        items = self.take(ABORT_MS)
        count = round(len(items) * share)
        before = list(self.items)
        began = time.monotonic()
        try:
            confirmed = self.call("confirm", self.name, {item.id for item in items[:count]})
        except (Refused, RequestLost):
            self.settle(before)
            raise
        if confirmed != count:
            if time.monotonic() - began < ABORT_MS / 2000:
                raise Violation(f"{confirmed} of {count} could be confirmed")
            self.settle(before, before[confirmed:])
            return
        for _ in range(count):
            self.items.popleft()
        if count != len(items):
            self.given_back(items[count:])

    def confirm_some(self) -> None:
        self.confirm(0.5)

    def abort(self) -> None:
        self.given_back(self.take(ABORT_MS))

    def given_back(self, items: list[Any]) -> None:
        try:
            self.call("abort", self.name, {item.id for item in items})
        except (Refused, RequestLost):  # their time will be over
            self.settle(list(self.items))
            raise

    def time_over(self) -> None:
        if self.rng.random() < 0.2:
            self.take(ABORT_MS)
            self.settle(list(self.items))
