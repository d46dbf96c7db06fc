"""Kills the server with -9 while clients of beanstalkd, Disque, Redis lists and memcache share its queues.

    python -m loadtest.crash.doors --rounds 100
    python -m loadtest.crash.doors --rounds 100 --seed 4711

Each round: some tenths of a second of load (door_workers.py), the end of the server (mostly by kill -9), a start, and
then every id that was given is asked for, all queues are emptied, and what came out is compared with the books:

- what was put and answered is there once, unless its removal was asked for; what was removed never comes again;
- an id is never given twice, and it finds its own job, also after a start;
- of what MULTI and EXEC put together, all is there or nothing;
- a list with one producer and one consumer keeps its order.

The seed repeats the load's choices, though not the machine's timing. A promise that is broken is one line, and exit
status 1; the data directory is kept.
"""

from __future__ import annotations

import signal
import socket
import time
from dataclasses import replace
from random import Random

from loadtest.crash.clients import kick_all, take_all
from loadtest.crash.door_books import Books
from loadtest.crash.door_workers import (
    APART,
    Beanstalkd,
    Client,
    Consumer,
    Disque,
    Lists,
    Memcache,
    Ports,
    Producer,
    Resp,
    Transactions,
)
from loadtest.crash.driving import read_options, rounds
from loadtest.errors import RequestLost, Violation
from loadtest.program import run
from loadtest.servers import HOST, Server, free_port, our_server
from loadtest.wire import Wire

LARGE_BYTES = 4096
OPTIONS = [
    *(
        "--chunk-bytes",
        str(LARGE_BYTES),
        "--max-column-families",
        "3",
        "--window-bytes",
        "1MiB",
        "--write-buffer-bytes",
        "1MiB",
    ),
    *("--max-wal-bytes", "1MiB", "--block-cache-bytes", "1MiB", "--min-free-bytes", "1MiB"),
]
CLIENTS = (Beanstalkd, Beanstalkd, Disque, Disque, Lists, Lists, Transactions, Memcache)
QUEUES = (b"tube", b"jobs", b"disque", APART, b"list", b"held")
LOAD_S = (0.05, 0.7)
STOP_SHARE = 0.15  # of the rounds end with SIGTERM
START_SHARE = 0.2  # with a start that is killed, too
START_S = 0.5  # within which such a start is killed
HASTY_SHARE = 0.5
ASKED = 300  # ids, after a start
LISTENS_S = 20.0


def config(ports: Ports) -> str:
    """The file with the listeners."""
    doors = {"beanstalkd": ports.beanstalkd, "resp": ports.resp}
    return "".join(f'[[listener]]\ndialect = "{dialect}"\nport = {port}\n\n' for dialect, port in doors.items())


class Trial:
    """One data directory, its server, and the books of what must be in it."""

    def __init__(self, server: Server, ports: Ports, seed: str) -> None:
        """server: it runs already."""
        self.server = server
        self.ports = ports
        self.rng = Random(seed)
        self.books = Books()
        self.kills = self.asked = 0
        self._sane = server.kind
        program = ["loadtest/crash/hasty.py" if word == "darner.py" else word for word in self._sane.command]
        self._hasty = replace(self._sane, command=tuple(program))
        self._next = 0  # the first number of the list in order that nobody has put

    def round(self, last: bool) -> None:
        """Load, an end, a start and the check. Raises Violation, LoadTestError."""
        rng, books = self.rng, self.books
        books.alive = True
        clients: list[Client] = [kind(books, self.ports, Random(rng.random())) for kind in CLIENTS]
        producer = Producer(books, self.ports, Random(rng.random()), self._next)
        consumer = Consumer(books, self.ports, Random(rng.random()), self._next)
        clients += [producer, consumer]
        for client in clients:
            client.start()
        time.sleep(rng.uniform(*LOAD_S))
        self._end()
        for client in clients:
            client.join()
            if client.error is not None:
                raise client.error
        self._start()
        try:
            self._ask_ids()
            self._check(producer, consumer)
        except RequestLost as error:
            raise Violation(f"the queues are being emptied, and {error}") from None
        self.server.check()

    def _end(self) -> None:
        process = self.server.process
        assert process is not None
        with self.books.lock:
            self.books.alive = False
        if self.rng.random() < STOP_SHARE:
            process.send_signal(signal.SIGTERM)
            if (status := self.server.wait_stopped()) != 0:
                raise Violation(f"the server ended with status {status} after SIGTERM")
            return
        self.server.kill()
        self.kills += 1

    def _start(self) -> None:
        if self.rng.random() < START_SHARE:
            self.server.launch()
            time.sleep(self.rng.random() * START_S)
            self.server.kill()
            self.kills += 1
        self.server.kind = self._hasty if self.rng.random() < HASTY_SHARE else self._sane
        self.server.launch()
        self.server.wait_until_it_listens()
        for port in (self.ports.beanstalkd, self.ports.resp):
            wait_until_it_listens(port)

    # -- the check

    def _ask_ids(self) -> None:
        """Every id finds its own job, as long as that is there."""
        beanstalkd, resp = Wire(self.ports.beanstalkd), Resp(self.ports.resp)
        by_name = {body[:8]: body for body in self.books.values}
        ids = list(self.books.ids.items())
        there = [one for one in ids if one[1] in by_name]
        for job_id, name in self.rng.sample(ids, min(ASKED, len(ids))) + there:
            body = by_name.get(name, b"")
            found = peek(beanstalkd, job_id.split()[1]) if job_id.startswith(b"beanstalkd ") else show(resp, job_id)
            if found is None:
                self.books.missing(body)
            elif found or len(body) < LARGE_BYTES:  # SHOW has no bodies of large items
                self.books.came(found, job_id)
            self.asked += 1
        beanstalkd.close()
        resp.close()

    def _check(self, producer: Producer, consumer: Consumer) -> None:
        wire = Wire(self.server.port)
        for queue in QUEUES:
            kick_all(wire, queue)
        left, right = (take_all(wire, queue) for queue in (b"left", b"right"))
        if left != right:
            raise Violation(f"of {len(left)} and {len(right)} values in two lists, not all were put into both")
        found = [body for queue in QUEUES for body in take_all(wire, queue)]
        self.books.judge([*left, *found])
        line = take_all(wire, b"line")
        if line and consumer.asks and int(line[0]) == consumer.next + 1:
            consumer.next += 1  # it was taken for an answer that never came
        for number in line:
            consumer.came(number)
        if not producer.answered - consumer.asks <= consumer.next <= producer.sent:
            raise Violation(
                f"a list ends before {consumer.next}; before {producer.answered} all was answered, "
                f"before {producer.sent} all was sent"
            )
        self._next = producer.sent
        wire.close()


def peek(wire: Wire, job_id: bytes) -> bytes | None:
    """The job of this id, asked of beanstalkd's protocol."""
    wire.send(b"peek %b\r\n" % job_id)
    words = wire.line().split()
    if words[0] == b"NOT_FOUND":
        return None
    if words[:2] != [b"FOUND", job_id]:
        raise Violation(f"peek {job_id.decode()} is answered {words}")
    return wire.read(int(words[2]) + 2)[:-2]


def show(wire: Resp, job_id: bytes) -> bytes | None:
    """The job of this id, asked of Disque's protocol."""
    shown = wire.do(b"SHOW", job_id)
    if shown is None:
        return None
    body = dict(zip(shown[::2], shown[1::2], strict=True))[b"body"]
    assert isinstance(body, bytes)
    return body


def wait_until_it_listens(port: int) -> None:
    until = time.monotonic() + LISTENS_S
    while True:
        try:
            socket.create_connection((HOST, port)).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)


def main() -> None:
    """Raises Violation, LoadTestError."""
    options = read_options(__doc__)
    ports = Ports(free_port(), free_port(), free_port())
    kind = our_server(options.python, [*OPTIONS, "--dialect", "kestrel"], options.program)

    def trial(server: Server) -> Trial:
        return Trial(server, replace(ports, memcache=server.port), options.seed)

    done = rounds("doors", kind, config(ports), trial, options)
    counts = done.books.counts
    print(
        f"{options.rounds} rounds, nothing lost: {counts['stored']:,} stored, {counts['removed']:,} removed, "
        f"{done.asked:,} ids asked for, {done.kills} kills; seed {options.seed}"
    )


if __name__ == "__main__":
    run("doors", main)
