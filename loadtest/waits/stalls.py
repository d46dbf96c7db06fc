"""How long another client has to wait while many items expire, are given back or are confirmed.

    python -m loadtest.waits.stalls [--checkout DIRECTORY] [--items 100000]

Each case starts a server of its own, and prints its processor time and the longest wait of a bystander.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from loadtest.program import run
from loadtest.servers import ROOT, Server, ServerProcess, our_server
from loadtest.waits.bystander import Bystander
from loadtest.wire import Wire

CONFIG = '[queues."*"]\nmax_open_reads = 1000000\n'
AT_ONCE = 500
ANSWER_S = 120.0

Step = Callable[[], object]
Case = Callable[[Wire, int, int], Step]  # prepares what is measured, given a client, the port and the number of items


def put(client: Wire, count: int, expiry_s: int = 0) -> None:
    """Put `count` items, which expire in `expiry_s` seconds; 0: never."""
    for _ in range(0, count, AT_ONCE):
        client.ask_until(b"set q 0 %d 4\r\nbody\r\n" % expiry_s * AT_ONCE, b"STORED\r\n", AT_ONCE)


def open_all(client: Wire, count: int) -> None:
    """Open `count` items."""
    for _ in range(0, count, AT_ONCE):
        client.ask_until(b"get q/open\r\n" * AT_ONCE, b"END\r\n", AT_ONCE)


def hang_up(client: Wire, port: int, items: int) -> Step:
    """A client that has all open hangs up."""
    put(client, items)
    open_all(client, items)

    def step() -> None:
        client.close()
        time.sleep(2)

    return step


def hang_up_expired(client: Wire, port: int, items: int) -> Step:
    """All items expire while a client has them open; it hangs up, and another client asks for one."""
    other = Wire(port, ANSWER_S)
    seconds = 10 + items // 5000
    began = time.monotonic()
    put(client, items, seconds)
    open_all(client, items)
    time.sleep(max(0.0, began + 2 * seconds - time.monotonic()))

    def step() -> None:
        client.close()
        time.sleep(0.2)
        other.ask(b"get q\r\n", b"END")
        time.sleep(3)

    return step


def confirm(client: Wire, port: int, items: int) -> Step:
    """One `confirm` of all."""
    put(client, items)
    open_all(client, items)
    return lambda: client.ask(b"confirm q %d\r\n" % items, b"END")


def sweep(client: Wire, port: int, items: int) -> Step:
    """All expire behind an item that lives."""
    put(client, 500)
    put(client, items, 2 + items // 20_000)
    return lambda: time.sleep(8 + items // 20_000)


CASES: tuple[Case, ...] = (hang_up, hang_up_expired, confirm, sweep)


def main() -> None:
    """Each case in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, default=ROOT, help="whose server is measured; default: this")
    parser.add_argument("--items", type=int, default=100_000, help="default 100,000")
    options = parser.parse_args()
    kind = our_server(sys.executable, ["--dialect", "kestrel"], str(options.checkout.resolve() / "darner.py"))
    for case in CASES:
        with Server(kind, CONFIG) as server:
            process = ServerProcess(server.pid, server.data)
            step = case(Wire(server.port, ANSWER_S), server.port, options.items)
            with Bystander(server.port) as bystander:
                before_s = process.cpu_s() or 0.0
                step()
                cpu_s, longest_ms = (process.cpu_s() or 0.0) - before_s, bystander.longest_s * 1000
            print(f"{case.__name__:16} {cpu_s:6.2f} s, longest wait {longest_ms:6.0f} ms", flush=True)


if __name__ == "__main__":
    run("stalls", main)
