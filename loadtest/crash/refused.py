"""Lets a real server's disk refuse writes now and then, under mixed load in three protocols, and checks every promise.

    python -m loadtest.crash.refused --rounds 20           # or: make refused ROUNDS=300
    python -m loadtest.crash.refused --rounds 300 --seed 4711

A round: load; then the disk refuses all writes for a moment or for some seconds, by a limit on the size of files
(RLIMIT_FSIZE, which acts as a full quota does: the database is closed and cannot be opened again), or the data
directory is away, while the load goes on; then the disk works again, and the queues are emptied and compared with what
was answered. Behind every change of state stands a wait: a get that closes, waits and opens, a wait at a queue that was
just deleted, a confirm and then the next. Now and then the server is killed with -9, or told to stop while its disk
refuses: that has to end with status 0.

What was answered is there, in its order; what was refused is not; nobody waits for an answer in vain; nothing is open
that nobody holds; items expire as before; no traceback is in the log. Else one line says what, with the seed, and the
exit status is 1.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from pathlib import Path
from random import Random, randrange
from typing import Any

from thriftpy2.protocol.binary import TBinaryProtocol
from thriftpy2.thrift import TApplicationException, TClient
from thriftpy2.transport import TTransportException
from thriftpy2.transport.framed import TFramedTransport
from thriftpy2.transport.socket import TSocket

from darner_core.protocols.thrift.messages import load_idl
from loadtest.errors import Violation
from loadtest.servers import ROOT

REPLY_S = 20.0  # nobody waits longer for an answer
WORKS_AGAIN_S = 20.0
START_S = 30.0
STOP_S = 8.0  # the server has 5
LARGE_BYTES = 9000  # three chunks
ABORT_MS = 700  # thrift: what nobody has decided on goes back

OPTIONS = [
    *("--chunk-bytes", "4KiB", "--max-column-families", "4", "--window-bytes", "1MiB"),
    *("--write-buffer-bytes", "1MiB", "--max-wal-bytes", "2MiB", "--min-free-bytes", "1MiB"),
    *("--expiration-timer-s", "1"),
]
LISTENERS = "".join(f'[[listener]]\nport = 0\ndialect = "{dialect}"\n' for dialect in ("text", "thrift"))

IDL = load_idl()


class Refused(Exception):
    """The server has answered with an error: it has not happened."""


class Unsure(Exception):
    """The same for what took several turns: part of it may have happened. Or the client was hung up on."""


class Server:
    """A server with three listeners on a data directory. Its log comes through a pipe: no limit on files meets it."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self._config = folder / "darner.toml"
        self._config.write_text(LISTENERS)
        self.lines: list[str] = []
        self.start()

    def start(self) -> None:
        begin = len(self.lines)
        command = [sys.executable, str(ROOT / "darner.py"), "-c", str(self._config), "-p", "0", "-d", str(self.data)]
        self.process = subprocess.Popen(
            [*command, *OPTIONS], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True).start()
        deadline = time.monotonic() + START_S
        while not any("ready: listening" in line for line in self.lines[begin:]):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Violation("the server does not start: " + "".join(self.lines[-10:]))
            time.sleep(0.01)
        found = re.findall(r"listening on: \S+ port (\d+)", "".join(self.lines[begin:]))
        self.port, self.text_port, self.thrift_port = map(int, found)

    def _read(self, output: Any) -> None:
        self.lines.extend(output)

    def refuse_writes(self, refuse: bool) -> None:
        unlimited = resource.RLIM_INFINITY
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (1 if refuse else unlimited, unlimited))

    def take_away(self, away: bool) -> None:
        here, there = str(self.data), f"{self.data}.away"
        os.rename(*((here, there) if away else (there, here)))

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            raise Violation(f"the server has not ended {STOP_S:g} s after signal {number}") from None


class Link:
    """A connection of the memcache or the text protocol."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), REPLY_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise Unsure(f"hung up: {error}") from None

    def line(self) -> bytes:
        try:
            line = self._file.readline()
        except TimeoutError:
            raise Violation(f"no answer for {REPLY_S:g} s") from None
        except OSError as error:
            raise Unsure(f"hung up: {error}") from None
        if not line.endswith(b"\n"):
            raise Unsure("hung up")
        return line.rstrip(b"\r\n")

    def ask(self, request: bytes, *expected: bytes) -> bytes:
        """The line that answers; it has to be one of those, or an error."""
        self.send(request)
        return self.expect(*expected)

    def expect(self, *expected: bytes) -> bytes:
        line = self.line()
        if line.startswith((b"SERVER_ERROR", b"-")):
            raise Refused(line.decode())
        if line not in expected:
            raise Violation(f"{line!r} instead of {expected!r}")
        return line

    def value(self) -> bytes | None:
        """The body that answers a get."""
        line = self.line()
        if line == b"END":
            return None
        if line.startswith(b"SERVER_ERROR"):
            raise Refused(line.decode())
        if not line.startswith(b"VALUE "):
            raise Violation(f"{line!r} instead of an item")
        size = int(line.split()[3])
        body = self._file.read(size + 7)
        if len(body) < size + 7:
            raise Unsure("hung up in the middle of an item")
        if body[-7:] != b"\r\nEND\r\n":
            raise Violation(f"an item ends with {body[-7:]!r}")
        return body[:-7]

    def get(self, key: str) -> bytes | None:
        self.send(b"get %b\r\n" % key.encode())
        return self.value()

    def stats(self) -> dict[str, str]:
        self.send(b"stats\r\n")
        found = {}
        while (line := self.line()) != b"END":
            if line.startswith(b"SERVER_ERROR"):
                raise Refused(line.decode())
            _, name, value = line.decode().split(" ", 2)
            found[name] = value
        return found

    def close(self) -> None:
        self._file.close()
        self._socket.close()


class Worker(threading.Thread):
    """One or more connections, all for one queue, which nobody else uses: it knows what must be in it."""

    def __init__(self, server: Server, name: str, rng: Random) -> None:
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
        except (Unsure, OSError) as error:
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
            raise Violation(f"{_short(body)} instead of {_short(expected)}")

    def settle(self, *possible: list[bytes]) -> None:
        """Part of a request may have happened: see which of these the queue holds. Nobody is connected then."""
        self.hang_up()
        deadline = time.monotonic() + WORKS_AGAIN_S
        found = None
        while time.monotonic() < deadline:
            try:
                link = Link(self.server.port)
                stats = link.stats()
                link.close()
            except (Refused, Unsure, OSError):
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
        self.links = [Link(self.server.port), Link(self.server.port)]
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
        except Unsure:
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
                self.one.value()
        except Unsure:
            self.settle(before, [*before, body])
            raise

    def take(self, option: str = "") -> None:
        before = list(self.items)
        try:
            body = self.one.get(self.name + option)
        except Unsure:
            self.settle(before, before[1:])
            raise
        self.is_head(body)
        if body is not None:
            self.items.popleft()

    def wait_and_take(self) -> None:
        """What it waits for is put by another client of the same worker."""
        if self.items:
            self.take("/t=50")
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
            got = self.one.value()
        except Refused:
            self.settle([body] if stored else [])
            return
        except Unsure:
            self.settle([], [body])
            raise
        if got is None:
            self.settle([body] if stored else [])
        elif got != body or not stored:
            raise Violation(f"got {_short(got)}, put {_short(body)}, stored: {stored}")

    def open_and_close(self) -> None:
        self.opened()
        self.closed(self.one, b"get %b/close\r\n" % self.queue)

    def open_and_abort(self) -> None:
        self.opened()
        try:
            self.one.ask(b"get %b/abort\r\n" % self.queue, b"END")
        except (Refused, Unsure):  # it is open still
            self.settle(list(self.items))
            raise

    def opened(self) -> None:
        self.is_head(self.one.get(f"{self.name}/open"))

    def closed(self, link: Link, request: bytes) -> None:
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
        except Unsure:
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
            body = self.one.value()
        except (Refused, Unsure):
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
        self.is_head(self.one.get(f"{self.name}/peek"))

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
        except Unsure:
            self.settle(before, [])
            raise

    def is_or_is_refused(self, link: Link) -> None:
        before = list(self.items)
        try:
            body = link.value()
        except Refused:
            return
        except Unsure:
            self.settle(before, before[1:])
            raise
        self.is_head(body)
        if body is not None:
            self.items.popleft()


class Text(Worker):
    """A get, a peek and a monitor confirm what is open, of which the worker keeps count."""

    def connect(self) -> None:
        self.links = [Link(self.server.text_port)]
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
        except Unsure:
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
        except (Refused, Unsure):
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
        except (Refused, Unsure):
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
        except (Refused, Unsure):
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
        except Unsure:
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
            raise Unsure(str(error)) from None

    def put(self) -> None:
        bodies = [self.body() for _ in range(self.rng.randrange(1, 4))]
        before = list(self.items)
        try:
            stored = self.call("put", self.name, bodies, 0)
        except Unsure:
            self.settle(before, [*before, *bodies])
            raise
        self.items.extend(bodies[:stored])

    def take(self, abort_ms: int) -> list[Any]:
        before = list(self.items)
        most = self.rng.randrange(1, 5)
        try:
            items = list(self.call("get", self.name, most, self.rng.choice((0, 20)), abort_ms))
        except Unsure:
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
        except (Refused, Unsure):
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
        except (Refused, Unsure):  # their time will be over
            self.settle(list(self.items))
            raise

    def time_over(self) -> None:
        if self.rng.random() < 0.2:
            self.take(ABORT_MS)
            self.settle(list(self.items))


def _short(body: bytes | None) -> str:
    return repr(body if body is None else body[:30])


class Trial:
    def __init__(self, folder: Path, seed: int) -> None:
        self.rng = Random(seed)
        self.server = Server(folder)
        kinds: list[type[Worker]] = [Memcache] * 5 + [Text] * 2 + [Thrift] * 2
        self.workers = [
            kind(self.server, f"{kind.__name__.lower()}{number}", Random(f"{seed} {number}"))
            for number, kind in enumerate(kinds)
        ]
        for worker in self.workers:
            worker.start()
        self.kills = self.stops = 0

    def go_on(self) -> None:
        for worker in self.workers:
            worker.goes_on.set()

    def stand(self) -> None:
        for worker in self.workers:
            worker.goes_on.clear()
        for worker in self.workers:
            if not worker.stands.wait(REPLY_S + WORKS_AGAIN_S):
                raise Violation(f"{worker.name} is stuck")
        self.look_at_errors()

    def look_at_errors(self) -> None:
        for worker in self.workers:
            if worker.error is not None:
                history = "\n    ".join(worker.history)
                raise Violation(f"{worker.name}: {worker.error!r}; before:\n    {history}") from worker.error

    def round(self, number: int) -> None:
        rng, server = self.rng, self.server
        self.put_what_expires()
        self.go_on()
        time.sleep(rng.uniform(0.1, 0.4))
        away = rng.random() < 0.2
        fail = server.take_away if away else server.refuse_writes
        fail(True)
        time.sleep(rng.choice((rng.uniform(0.0, 0.1), rng.uniform(0.1, 1.0), rng.uniform(1.0, 2.5))))
        if rng.random() < 0.1:
            server.process.send_signal(signal.SIGHUP)
        if not away and rng.random() < 0.08:
            self.stop_while_refused()
        else:
            fail(False)
            time.sleep(rng.uniform(0.0, 0.3))
            self.stand()
        self.wait_works_again()
        self.check()
        if rng.random() < 0.1:
            for worker in self.workers:
                worker.hang_up()
            server.end(signal.SIGKILL)
            server.start()
            self.kills += 1
        if server.process.poll() is not None:
            raise Violation(f"the server has ended with status {server.process.returncode}")
        if any("Traceback" in line for line in server.lines):
            raise Violation("a traceback is in the log:\n" + "".join(server.lines[-60:]))

    def stop_while_refused(self) -> None:
        """The clients stand still, or what was answered at the last moment would not be known."""
        self.stand()
        for worker in self.workers:
            worker.hang_up()
        status = self.server.end(signal.SIGTERM)
        if status != 0:
            raise Violation(f"stopped while writes are refused, it ends with status {status}")
        self.stops += 1
        self.server.start()

    def put_what_expires(self) -> None:
        link = Link(self.server.port)
        link.ask(b"set expires 0 1 1\r\nx\r\n", b"STORED")
        link.close()

    def wait_works_again(self) -> None:
        deadline = time.monotonic() + WORKS_AGAIN_S
        said = "nothing"
        while time.monotonic() < deadline:
            link = Link(self.server.port)
            try:
                link.ask(b"set works 0 0 1\r\nx\r\n", b"STORED")
                link.get("works")
                return
            except (Refused, Unsure) as error:
                said = str(error)
            finally:
                link.close()
            time.sleep(0.05)
        raise Violation(f"sets are still refused: {said}")

    def check(self) -> None:
        """The queues hold what their workers know of; most of it is taken out."""
        for worker in self.workers:
            worker.settle(list(worker.items))
        link = Link(self.server.port)
        for worker in self.workers:
            for _ in range(len(worker.items) - self.rng.choice((0, 0, 3))):
                worker.is_head(link.get(worker.name))
                worker.items.popleft()
            if not worker.items and (body := link.get(worker.name)) is not None:
                raise Violation(f"{worker.name}: {_short(body)} is there, and was never put, or taken")
        deadline = time.monotonic() + WORKS_AGAIN_S
        while link.stats().get("queue_expires_items", "0") != "0":
            if time.monotonic() > deadline:
                raise Violation("items do not expire any more")
            time.sleep(0.1)
        link.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=randrange(10**6))
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="darner-refused-"))
    trial = Trial(folder, options.seed)
    number = 0
    try:
        for number in range(1, options.rounds + 1):
            trial.round(number)
        status = trial.server.end(signal.SIGTERM)
        if status != 0:
            raise Violation(f"it ends with status {status}")
    except (Violation, OSError, Refused, Unsure) as error:
        (folder / "log").write_text("".join(trial.server.lines))
        where = f"round {number} of {options.rounds}, seed {options.seed}"
        print(f"refused: {where}: {error}; kept: {folder}", file=sys.stderr)
        trial.server.process.kill()
        return 1
    done, refused, unsure = (
        sum(getattr(worker, what) for worker in trial.workers) for what in ("done", "refused", "unsure")
    )
    print(
        f"{options.rounds} rounds, nothing lost: {done:,} requests done, {refused:,} refused, {unsure:,} hung up on,"
        f" {trial.kills} kills, {trial.stops} stops while refused"
    )
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
