"""What fanout, cursors and expiry cost: each is compared with plain requests to the same server, several times.

    python -m loadtest.compare.features [fanout] [cursor] [expiry] [--rounds 5] [--items 1000000]

fanout   a put into a parent with ten children, against ten puts
cursor   draining a cursor of a long queue, against draining the queue itself; 100 requests in flight
expiry   --items items expire within a second: the longest that another client waits for a set and a get, against
         the longest in the seconds before

The loop of the client is plain Python, so its rates can be compared only with each other.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from loadtest.errors import LoadTestError
from loadtest.program import run
from loadtest.servers import Server, our_server
from loadtest.wire import Wire

BODY = b"x" * 64
IN_FLIGHT = 100
ANSWER_S = 120.0
CHILDREN = 10
FANOUT_PUTS = 20_000
PAUSE_S = 0.0005  # between two looks of the other client
LOOK_S = 10  # how long it looks on, before the items expire and afterwards
LEAD_S = 15  # at least: all have been put that long before they expire


def many(wire: Wire, request: bytes, count: int, end: bytes) -> None:
    """Send `count` of this request, IN_FLIGHT at a time; each answer ends with `end`, which nothing else in it has."""
    for start in range(0, count, IN_FLIGHT):
        due = min(IN_FLIGHT, count - start)
        wire.ask_until(request * due, end, due)


def put(queue: str, expiry: int = 0) -> bytes:
    """A set of one item."""
    return b"set %b 0 %d %d\r\n%b\r\n" % (queue.encode(), expiry, len(BODY), BODY)


def timed(work: Callable[[], None]) -> float:
    """Seconds that it takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def fanout(python: str, _items: int) -> dict[str, float]:
    """Microseconds for a put into a parent with CHILDREN children, and for as many puts into queues of their own."""
    with Server(our_server(python, ["--dialect", "kestrel"])) as server:
        wire = Wire(server.port, ANSWER_S)
        for number in range(CHILDREN):
            wire.ask_until(f"get parent+{number}\r\n".encode(), b"END\r\n")
        several = b"".join(put(f"single{number}") for number in range(CHILDREN))
        to_parent = put("parent")
        many(wire, to_parent, IN_FLIGHT, b"STORED\r\n")
        many(wire, several, 1, b"STORED\r\n" * CHILDREN)
        together = timed(lambda: many(wire, to_parent, FANOUT_PUTS, b"STORED\r\n"))
        apart = timed(lambda: _in_turn(wire, several, FANOUT_PUTS))
        server.check()
    micro = 1e6 / FANOUT_PUTS
    return {"with ten children us": together * micro, "ten puts us": apart * micro, "ratio": together / apart}


def _in_turn(wire: Wire, several: bytes, count: int) -> None:
    each = IN_FLIGHT // CHILDREN
    for _ in range(count // each):
        wire.ask_until(several * each, b"STORED\r\n", each * CHILDREN)


def cursor(python: str, items: int) -> dict[str, float]:
    """Gets a second of a cursor and of the queue that it is on, each to the end."""
    with Server(our_server(python, ["--dialect", "siberite"])) as server:
        wire = Wire(server.port, ANSWER_S)
        many(wire, put("q"), items, b"STORED\r\n")
        by_cursor = timed(lambda: many(wire, b"get q.c\r\n", items, b"END\r\n"))
        plainly = timed(lambda: many(wire, b"get q\r\n", items, b"END\r\n"))
        if wire.ask_until(b"get q.c\r\nget q\r\n", b"END\r\nEND\r\n") != b"END\r\nEND\r\n":
            raise LoadTestError("something is left")
        server.check()
    return {"cursor gets/s": items / by_cursor, "plain gets/s": items / plainly, "ratio": plainly / by_cursor}


def expiry(python: str, items: int) -> dict[str, float]:
    """Milliseconds that another client waits at most while all the items expire, and before."""
    with Server(our_server(python, [])) as server:
        wire = Wire(server.port, ANSWER_S)
        wire.ask_until(put("q"), b"STORED\r\n")  # stays: what expires is behind it
        lead_s = LEAD_S + items // 20_000
        expires = int(time.time()) + lead_s
        many(wire, put("q", expires), items, b"STORED\r\n")
        if time.time() > expires - LOOK_S / 2:
            raise LoadTestError("the items could not be put in time")
        other = Wire(server.port, ANSWER_S)
        before: list[float] = []
        after: list[float] = []
        while (now := time.time()) < expires + LOOK_S * 2:
            took_ms = 1000 * timed(lambda: _set_and_get(other))
            (before if now < expires else after).append(took_ms)
            time.sleep(PAUSE_S)
        left = float(wire.stats()["queue_q_items"])
        server.check()
    after.sort()
    return {
        "longest ms": after[-1],
        "p99.9 ms": after[int(len(after) * 0.999)],
        "longest before ms": max(before),
        "items left": left,
    }


def _set_and_get(wire: Wire) -> None:
    wire.ask_until(put("other"), b"STORED\r\n")
    wire.ask_until(b"get other\r\n", b"END\r\n")


FEATURES: dict[str, Callable[[str, int], dict[str, float]]] = {"fanout": fanout, "cursor": cursor, "expiry": expiry}


def rows(measured: dict[str, list[dict[str, float]]]) -> Iterator[str]:
    """The table, in Markdown: the median of the rounds, the lowest and the highest."""
    yield "| | | median | lowest | highest |"
    yield "|---|---|---:|---:|---:|"
    for feature, rounds in measured.items():
        for figure in rounds[0]:
            values = sorted(one[figure] for one in rounds)
            shown = [f"{value:,.2f}" if value < 100 else f"{value:,.0f}" for value in (values[0], values[-1])]
            median = statistics.median(values)
            middle = f"{median:,.2f}" if median < 100 else f"{median:,.0f}"
            yield f"| {feature} | {figure} | {middle} | {shown[0]} | {shown[1]} |"


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print the table; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", nargs="*", help=f"which: {', '.join(FEATURES)} (default all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--items", type=int, default=1_000_000, help="how long the queue is, and how many expire")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs the server")
    options: Any = parser.parse_args(arguments)
    unknown = set(options.features) - FEATURES.keys()
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(FEATURES)}")
    chosen = [name for name in FEATURES if not options.features or name in options.features]
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    for number in range(options.rounds):
        for name in chosen:
            print(f"round {number + 1} of {options.rounds}: {name}", file=sys.stderr, flush=True)
            measured[name].append(FEATURES[name](options.python, options.items))
    print("\n".join(rows(measured)))
    return 0


if __name__ == "__main__":
    run("features", main)
