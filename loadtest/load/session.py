"""What all scenarios share: the options, numbered items, and a session that fills, measures, drains and verifies.

Every scenario uses a queue name of its own and empties it. Where gets take items away, it checks that all items put
were got or left over.
"""

from __future__ import annotations

import base64
import os
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Self

from loadtest.errors import LoadTestError
from loadtest.load.client import Client, raise_file_limit
from loadtest.load.peers import PROTOCOLS, Memcache, Peer, Request
from loadtest.load.report import summary
from loadtest.load.rings import Load, Step, ring
from loadtest.progress import Bar
from loadtest.servers import ServerProcess

NUMBER_DIGITS = 12
BATCH_BYTES = 65536  # a fill or drain has at most this much in flight, so that no two blocking ends wait for each other
PROBE_PAUSE_S = 0.005  # a modest pace: 200 requests/s

Result = dict[str, Any]


@dataclass
class Options:
    """What to run against. connections and in_flight have a default in each scenario."""

    host: str = "127.0.0.1"
    port: int = 22133
    protocol: str = "memcache"
    connections: int | None = None
    in_flight: int | None = None
    item_bytes: int = 64
    large_bytes: int = 8_000_000  # below 8 MiB, a common limit
    seconds: float = 5.0
    warmup_seconds: float = 1.0
    items: int = 100_000
    queues: int = 10_000
    settle_seconds: float = 30.0
    pid: int | None = None
    data: Path | None = None
    quiet: bool = True


def random_text(size_bytes: int) -> bytes:
    """Text that compresses to three quarters and holds no line end."""
    return base64.b64encode(os.urandom(size_bytes))[:size_bytes]


class Numbered:
    """Bodies that begin with their number and go on with different parts of a text that does not compress well."""

    def __init__(self, item_bytes: int) -> None:
        """LoadTestError if the number does not fit."""
        if item_bytes < NUMBER_DIGITS:
            raise LoadTestError(f"this scenario numbers its items: --item-bytes must be at least {NUMBER_DIGITS}")
        self.rest_bytes = item_bytes - NUMBER_DIGITS
        self.text = random_text((1 << 20) + self.rest_bytes)

    def body(self, number: int) -> bytes:
        """The body of one item."""
        at = number * 61 % (1 << 20)
        return b"%0*d" % (NUMBER_DIGITS, number) + self.text[at : at + self.rest_bytes]

    @staticmethod
    def number(body: bytes) -> int:
        """Which item it is; -1 if it is none of ours."""
        return int(body[:NUMBER_DIGITS]) if body[:NUMBER_DIGITS].isdigit() else -1


class Session:
    """One scenario's run: the peer, an empty queue, a blocking client, and the result being written."""

    def __init__(self, scenario: str, options: Options, connections: int, in_flight: int = 1) -> None:
        """Connects, finds out whether the server keeps queues, and empties ours."""
        self.scenario, self.options, self.in_flight = scenario, options, in_flight
        self.connections = connections
        self.queue = f"flood-{os.getpid()}-{scenario}".encode()
        self.server = ServerProcess(options.pid, options.data)
        raise_file_limit(connections)
        if options.protocol not in PROTOCOLS:
            raise LoadTestError(f"unknown protocol {options.protocol!r}: one of {', '.join(PROTOCOLS)}")
        self.peer: Peer = PROTOCOLS[options.protocol]()
        self.client = self.new_client(self.queue)
        self.loads: list[Load] = []
        self.other_queues: list[bytes] = []
        self.rows: list[Result] = []
        self.lines: list[str] = []
        self.main_row = ""  # label of the row whose figures stand at the top of the result; empty: the first
        self.figures: Result = {}
        self.check: Result | None = None
        self.body = random_text(options.item_bytes)
        self.empty(self.queue)
        if isinstance(self.peer, Memcache):
            # A queue gives an item once, a cache again and again.
            self.client.ask([self.peer.put(self.queue, b"probe")])
            self.peer.has_queues = len(self.client.ask([self.peer.get(self.queue), self.peer.get(self.queue)])) < 2
            self.empty(self.queue)

    def new_client(self, queue: bytes) -> Client:
        """Another blocking connection."""
        return Client(self.peer, self.options.host, self.options.port, queue)

    def new_load(self) -> Load:
        """A load without connections."""
        load = Load(self.peer, self.options.host, self.options.port)
        self.loads.append(load)
        return load

    def empty(self, queue: bytes) -> None:
        """Delete the queue, where that can be."""
        request = self.peer.delete(queue)
        if request:
            self.client.ask([request])

    def need_queue_server(self) -> None:
        """Refuse where only the queue server knows what is asked."""
        if not isinstance(self.peer, Memcache) or not self.peer.has_queues:
            raise LoadTestError(
                f"{self.scenario} needs the queue server (memcache protocol, and gets that take items away)"
            )

    def bar(self, what: str, total: float, unit: str) -> Bar:
        """A progress bar."""
        return Bar(f"{self.scenario}: {what}", total, unit, self.options.quiet)

    def alternate(self, get: Request | None = None, queue: bytes = b"", body: bytes = b"", known: bool = True) -> Step:
        """Set and get in turn, in batches if more than one is in flight. known: a get must bring the body just put."""
        queue, body = queue or self.queue, body or self.body
        put = self.peer.put(queue, body)
        get = get or self.peer.get(queue, body if known else b"")
        if self.in_flight == 1:
            return ring([Step([put], body if known else b""), Step([get], body if known else b"")])
        return Step([put, get] * (self.in_flight // 2), body if known else b"")

    def connect(self, load: Load, firsts: list[Step], latencies: array[float]) -> None:
        """Connect to our queue, with a progress bar: one connection for each first step."""
        bar = self.bar("connecting", len(firsts), "connections")
        load.connect(self.queue, firsts, latencies, tick=bar.show)
        bar.clear()

    def probe(self, load: Load, queue: bytes) -> array[float]:
        """Connect a client that sets at a modest pace; its latencies."""
        latencies = array("d")
        step = Step([self.peer.put(queue, self.body)], pause_s=PROBE_PAUSE_S)
        load.connect(queue, [step], latencies)
        return latencies

    def measure(self, load: Load, groups: dict[str, tuple[array[float], int]], warmup: bool = True) -> list[Result]:
        """Warm up, then run for the seconds asked for; adds a row for each group: label -> (latencies, connections)."""
        seconds = self.options.seconds
        warmup_s = self.options.warmup_seconds if warmup else 0.0
        bar = self.bar("running", warmup_s + seconds, "s")
        load.run(warmup_s, bar.show)
        before = {label: len(latencies) for label, (latencies, _) in groups.items()}
        with self.cpu() as cpu:
            elapsed_s = load.run(seconds, lambda passed_s: bar.show(warmup_s + passed_s))
        bar.clear()
        rows = []
        for label, (latencies, connections) in groups.items():
            rows.append(self.row(label, latencies[before[label] :], elapsed_s, connections, cpu))
        return rows

    def row(
        self, label: str, latencies: array[float], elapsed_s: float, connections: int, cpu: Result, rounds_of: int = 0
    ) -> Result:
        """Add a row of the table; rounds_of: requests in a round, if not as many as are in flight."""
        rounds_of = rounds_of or self.in_flight
        row = {"label": label, "connections": connections, "in_flight": rounds_of}
        row |= summary(latencies, elapsed_s, rounds_of) | cpu
        self.rows.append(row)
        return row

    @contextmanager
    def cpu(self) -> Iterator[Result]:
        """Processor shares of the block, of one core, filled in at its end."""
        shares: Result = {"generator_cpu_percent": None, "server_cpu_percent": None}
        begun, own_s, server_s = perf_counter(), time.process_time(), self.server.cpu_s()
        yield shares
        wall_s = perf_counter() - begun
        shares["generator_cpu_percent"] = round(100 * (time.process_time() - own_s) / wall_s, 1)
        if server_s is not None:
            shares["server_cpu_percent"] = round(100 * ((self.server.cpu_s() or 0.0) - server_s) / wall_s, 1)

    def fill(self, items: int, numbered: Numbered) -> float:
        """Put numbered items through one connection, two half batches on the way; returns items/s."""
        half = max(1, min(self.batch(), BATCH_BYTES // self.options.item_bytes) // 2)
        bar = self.bar("filling", items, "items")
        begun = perf_counter()
        for first in range(0, items, half):
            requests = [self.peer.put(self.queue, numbered.body(n)) for n in range(first, min(first + half, items))]
            self.client.send(requests)
            self.client.collect(len(requests))
            bar.show(first)
        self.client.collect()
        bar.clear()
        return items / (perf_counter() - begun)

    def batch(self) -> int:
        """Requests in flight on the blocking connection."""
        return self.in_flight if self.in_flight > 1 else 32

    def drain(self, take: Callable[[list[bytes]], None] = lambda _bodies: None, items: int = 0) -> int:
        """Get through one connection until the queue is empty; take sees the bodies in order. Returns their number."""
        gets = [self.peer.get(self.queue)] * max(1, self.batch() // 2)
        replies = sum(request.replies for request in gets)
        bar = self.bar("draining", items, "items")
        got, misses = 0, self.client.misses
        while self.client.misses == misses:
            self.client.send(gets)
            bodies = self.client.collect(replies)
            got += len(bodies)
            take(bodies)
            bar.show(got)
        bodies = self.client.collect()
        take(bodies)
        bar.clear()
        return got + len(bodies)

    def count_out(self, queue: bytes) -> int:
        """Items in another queue, got one by one until it is empty."""
        if not self.peer.has_queues:
            return 0
        client = self.new_client(queue)
        got = 0
        while client.ask([self.peer.get(queue)]):
            got += 1
        client.close()
        return got

    def verify(self, puts: int, gets: int, left_over: int, misses: int = 0, wrong: int = 0, unordered: int = 0) -> None:
        """Compare what went in with what came out, and say so."""
        if not self.peer.has_queues:
            self.lines.append("not checked for loss: the server is a cache, its gets leave the items there")
            return
        lost = puts - gets - left_over
        self.check = {
            "puts": puts,
            "gets": gets,
            "left_over": left_over,
            "lost": max(lost, 0),
            "invented": max(-lost, 0),
        }
        self.check |= {"gets_of_nothing": misses, "wrong_bodies": wrong, "out_of_order": unordered}
        self.check["ok"] = not (lost or wrong or unordered)
        line = f"checked: {puts:,} puts = {gets:,} gets + {left_over:,} left over" if not lost else ""
        if lost:
            line = f"WRONG: {puts:,} puts, but {gets:,} gets + {left_over:,} left over: "
            line += f"{lost:,} lost" if lost > 0 else f"{-lost:,} invented"
        line += f"; {misses:,} gets found nothing" if misses else ""
        line += f"; WRONG: {wrong:,} gets brought another body than was put" if wrong else ""
        line += f"; WRONG: {unordered:,} items out of order" if unordered else ""
        self.lines.append(line)

    def verify_load(self, load: Load, filled: int = 0, confirm: bool = False) -> None:
        """Land the load, drain what is left over, and compare. confirm: the connections may still hold open items."""
        load.land()
        puts, gets = load.totals()
        misses = load.misses
        if confirm:
            load.finish([self.peer.confirm(self.queue, number) for number in range(len(load.connections))])
        left_over = self.drain() if self.peer.has_queues else 0
        for queue in self.other_queues:
            left_over += self.count_out(queue)
        self.verify(puts + filled, gets, left_over, misses, load.wrong_bodies)

    def result(self) -> Result:
        """The scenario's dict; the figures of its main row stand at its top as well."""
        parameters = {
            key: str(value) if isinstance(value, Path) else value for key, value in asdict(self.options).items()
        }
        parameters |= {"connections": self.connections, "in_flight": self.in_flight}
        main = next((row for row in self.rows if row["label"] == self.main_row), self.rows[0] if self.rows else {})
        return {
            "scenario": self.scenario,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "parameters": parameters,
            "has_queues": self.peer.has_queues,
            **{key: value for key, value in main.items() if key != "label"},
            **self.figures,
            "rows": self.rows,
            "check": self.check,
            "lines": [self.peer.counting, *self.lines] if self.peer.counting else self.lines,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Leave no queue behind; after an error only close, the server may be gone."""
        if kind is None:
            for queue in [self.queue, *self.other_queues]:
                self.empty(queue)
        for load in self.loads:
            load.close()
        self.client.close()


class Order:
    """Checks that items come numbered 0, 1, 2, ..."""

    def __init__(self) -> None:
        """wrong: how many items did not follow the one before."""
        self.next, self.wrong = 0, 0

    def take(self, bodies: list[bytes]) -> None:
        """The next bodies."""
        for body in bodies:
            number = Numbered.number(body)
            if number != self.next:
                self.wrong += 1
            self.next = number + 1
