"""What is measured of jobs: each function starts a server of its own, and returns figures by their names.

Raises LoadTestError if anything goes wrong, Violation if a job is lost or comes out twice.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from loadtest.compare import instructions, versus
from loadtest.compare.job_clients import Beanstalkd, Books, Clients, Darner, Peer, PlainDarner, Script
from loadtest.errors import LoadTestError
from loadtest.servers import OURS, ROOT, Kind, Server, ServerProcess, our_server
from loadtest.waits.bystander import Bystander
from loadtest.wire import Wire

Figures = dict[str, float]

FLOOD_CONNECTIONS = 10
RATE_DELAY_S = 3  # longer than the puts take
LEAD_S = 10  # at least: between the last put and the time when all are due
SLOWER = 10  # puts of jobs are at most so many times slower than plain ones
LOOK_S = 0.1
DUE_AT_MOST_S = 3600.0
FLUSHED_S = 2.0  # until full write buffers are on the disk
SETTLE_S = 60.0  # for how long the disk is watched
SMALL_BYTES = 30e6  # what a drained server has on disk, at most
SAY_EVERY_S = 10.0
GETS = 20

IDLE_S = 3.0  # the bystander alone
AT_ONCE_MS = 1


class Progress:
    """A line on standard error now and then."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.begin()

    def begin(self) -> None:
        """Something begins of which there is nothing to tell yet."""
        self._said = time.monotonic()

    def say(self, text: Callable[[], str]) -> None:
        """If it is time to."""
        if not self.quiet and time.monotonic() - self._said > SAY_EVERY_S:
            self._said = time.monotonic()
            print(f"{'':10}{text()}", file=sys.stderr, flush=True)


def rates(kind: Kind, connections: int, items: int, progress: Progress) -> Figures:
    """Jobs put with a delay, and taken and closed when they are due."""
    peer: Peer = Darner() if kind.name == OURS else Beanstalkd()
    with Server(kind) as server, Clients(server.port, connections) as clients:
        books = Books(items)
        found = _put(server, clients, peer, books, lambda: RATE_DELAY_S * 1000, progress)
        time.sleep(RATE_DELAY_S + 0.3)
        if kind.name == OURS:
            wire = Wire(server.port)
            _wait_until_due(wire, progress)
            wire.close()
        found |= _take(server, clients, peer, books, progress)
        server.check()
    return found


def _timed(
    server: Server, clients: Clients, what: str, books: Books, script: Callable[[], Script], progress: Progress
) -> Figures:
    """All clients run such a script; its rate, and the server's processor time for each job."""
    process = ServerProcess(server.pid, server.data)
    progress.begin()
    began, before_s = time.monotonic(), process.cpu_s() or 0.0
    clients.run(script() for _ in range(len(clients)))
    took_s, cpu_s = time.monotonic() - began, (process.cpu_s() or 0.0) - before_s
    return {f"{what}_per_s": books.items / took_s, f"{what}_cpu_us": cpu_s / books.items * 1e6}


def _put(
    server: Server, clients: Clients, peer: Peer, books: Books, delay_ms: Callable[[], int], progress: Progress
) -> Figures:
    clients.progress = partial(progress.say, lambda: f"put {books.given:,} of {books.items:,}")
    return _timed(server, clients, "put", books, lambda: peer.put(books, delay_ms), progress)


def _take(server: Server, clients: Clients, peer: Peer, books: Books, progress: Progress) -> Figures:
    clients.progress = partial(progress.say, lambda: f"taken {books.items - books.left:,} of {books.items:,}")
    return _timed(server, clients, "take", books, lambda: peer.take(books), progress)


def _delayed(wire: Wire) -> int:
    return int(wire.stats().get("queue_q_delayed", 0))


def _wait_until_due(wire: Wire, progress: Progress) -> None:
    deadline = time.monotonic() + DUE_AT_MOST_S
    while left := _delayed(wire):
        progress.say(lambda: f"{left:,} are delayed still")
        if time.monotonic() > deadline:
            raise LoadTestError(f"{left:,} jobs do not become due")
        time.sleep(LOOK_S)


def flood(kind: Kind, items: int, progress: Progress) -> Figures:
    """So many jobs are delayed, the server is killed and started, and all come due at the same moment."""
    process: ServerProcess
    with Server(kind) as server, Clients(server.port, FLOOD_CONNECTIONS) as clients:
        process = ServerProcess(server.pid, server.data)
        found: Figures = {"empty_bytes": process.resident_bytes() or 0}
        # RocksDB's buffers have their own limit, and fill with whatever is put. So what delayed jobs take is what they
        # take beyond as many plain items before them.
        before = Books(items)
        warm = PlainDarner(b"plain")
        found["plain_put_per_s"] = _put(server, clients, warm, before, int, progress)["put_per_s"]
        _take(server, clients, warm, before, progress)
        time.sleep(FLUSHED_S)
        found["plain_bytes"] = process.resident_bytes() or 0
        books = Books(items)
        due = time.time() + LEAD_S + items / (found["plain_put_per_s"] / SLOWER)
        peer = Darner()
        found |= _put(server, clients, peer, books, lambda: int((due - time.time()) * 1000), progress)
        time.sleep(FLUSHED_S)
        found["delayed_bytes"] = process.resident_bytes() or 0
        server.check()
        server.kill()
        began = time.monotonic()
        server.launch()
        server.wait_until_it_listens()
        wire = Wire(server.port)
        wire.ask_until(b"version\r\n", b"\r\n")
        found["start_s"] = time.monotonic() - began
        process = ServerProcess(server.pid, server.data)
        found["restarted_bytes"] = process.resident_bytes() or 0
        found["delayed_disk_bytes"] = process.disk_bytes() or 0
        if time.time() > due - IDLE_S:
            raise LoadTestError(
                f"the jobs were put, and the server started, {time.time() - due + IDLE_S:.1f} s too late"
            )
        if (delayed := _delayed(wire)) != items:
            raise LoadTestError(f"{delayed:,} of {items:,} jobs are delayed after the start")
        found |= _come_due(server, wire, due, items, progress)
        server.check()
        with Clients(server.port, FLOOD_CONNECTIONS) as others:
            found |= _take(server, others, peer, books, progress)
        found |= _drained(process, wire, progress)
        server.check()
    found["more_bytes"] = found["delayed_bytes"] - found["plain_bytes"]
    return found


def _come_due(server: Server, wire: Wire, due: float, items: int, progress: Progress) -> Figures:
    process = ServerProcess(server.pid, server.data)
    with Bystander(server.port, "items") as bystander:
        time.sleep(max(0.0, due - IDLE_S - time.time()))
        bystander.waits_s.clear()
        time.sleep(max(0.0, due - time.time()))
        alone_s = sorted(bystander.waits_s)
        bystander.waits_s.clear()
        before_s = process.cpu_s() or 0.0
        _wait_until_due(wire, progress)
        took_s, cpu_s = time.time() - due, (process.cpu_s() or 0.0) - before_s
        waits_s = sorted(bystander.waits_s)
    found = {"due_per_s": items / took_s, "due_cpu_us": cpu_s / items * 1e6, "looks": float(len(waits_s))}
    return found | _percentiles("alone", alone_s) | _percentiles("beside", waits_s)


def _percentiles(what: str, waits_s: list[float]) -> Figures:
    if not waits_s:
        raise LoadTestError("the bystander had no answer")
    places = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "longest": 1.0}
    last = len(waits_s) - 1
    return {f"{what}_{name}_us": waits_s[min(int(len(waits_s) * at), last)] * 1e6 for name, at in places.items()}


def _drained(process: ServerProcess, wire: Wire, progress: Progress) -> Figures:
    """The next gets, and how long it takes until the disk is given back."""
    gets_s = []
    for _ in range(GETS):
        began = time.monotonic()
        wire.ask(b"get q\r\n", b"END")
        gets_s.append(time.monotonic() - began)
    began = time.monotonic()
    found = {"next_get_us": gets_s[0] * 1e6, "longest_next_get_us": max(gets_s) * 1e6}
    while (disk_bytes := process.disk_bytes() or 0) > SMALL_BYTES and time.monotonic() - began < SETTLE_S:
        progress.say(lambda: f"drained: {disk_bytes / 1e6:,.0f} MB on disk")
        time.sleep(LOOK_S)
    settled_s = time.monotonic() - began
    return found | {"settled_disk_bytes": disk_bytes, "settled_s": settled_s}


def drain(kind: Kind, items: int, progress: Progress) -> Figures:
    """So many jobs are put, with a delay of a moment, and then taken."""
    with Server(kind) as server, Clients(server.port, FLOOD_CONNECTIONS) as clients:
        process, wire = ServerProcess(server.pid, server.data), Wire(server.port)
        books, peer = Books(items), Darner()
        found = _put(server, clients, peer, books, lambda: AT_ONCE_MS, progress)
        _wait_until_due(wire, progress)
        found["waiting_disk_bytes"] = process.disk_bytes() or 0
        found["waiting_bytes"] = process.resident_bytes() or 0
        found |= _take(server, clients, peer, books, progress)
        found |= _drained(process, wire, progress)
        server.check()
    return found


def plain(checkouts: dict[str, Path], seconds: float, number: int, row: str) -> Figures:
    """Microseconds of processor time that a plain request costs each checkout, and now / before. `row`: of versus."""
    _, scenario, connections, in_flight = next(one for one in versus.ROWS if one[0] == row)
    found = {
        which: versus.cost_us(sys.executable, checkouts[which], scenario, connections, in_flight, seconds)
        for which in sorted(checkouts, reverse=bool(number % 2))
    }
    return {f"{which}_us": cost for which, cost in found.items()} | {"ratio": found["now"] / found["before"]}


def counted(before: Path, get: bytes) -> Figures:
    """Instructions of a request, with this form of get, in this checkout and the one before."""
    found = {"now": instructions.a_request(ROOT, get), "before": instructions.a_request(before, get)}
    return found | {"ratio": found["now"] / found["before"]}


def server_of(options: list[str]) -> Kind:
    """This server, in this interpreter."""
    return our_server(sys.executable, options)
