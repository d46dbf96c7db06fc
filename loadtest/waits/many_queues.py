"""How long a bystander waits while something happens to very many queues.

    python -m loadtest.waits.many_queues [--checkout DIRECTORY] [--queues 100000]

For each deed it prints the longest wait of the bystander, in ms, and how long the deed took.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from loadtest import program
from loadtest.servers import ROOT, Server, ServerProcess, our_server
from loadtest.waits.bystander import Bystander
from loadtest.wire import Wire

CHILDREN = 2000
AT_ONCE = 500
ANSWER_S = 600.0
EXPIRED_S = 120.0
BEFORE_S = AFTER_S = 0.3  # for how long the bystander is watched around a deed


class House:
    """A server, one client, and the bystander."""

    def __init__(self, server: Server, bystander: Bystander, queues: int) -> None:
        """The server runs."""
        self.server, self.bystander, self.queues = server, bystander, queues
        self.wire = Wire(server.port, ANSWER_S)
        self.process = ServerProcess(server.pid, server.data)
        self.version = self.wire.ask_until(b"version\r\n", b"\r\n")

    def ask(self, request: bytes, end: bytes) -> None:
        """Send, and receive up to `end`."""
        self.wire.ask_until(request, end)

    def reload(self, options: str) -> None:
        """With this configuration file."""
        self.server.configure(options)
        self.ask(b"reload\r\n", b"config.\r\n")

    def for_each(self, request: bytes, queues: int = 0) -> None:
        """Send this request for each queue, with its number for `%d`. A `version` at the end of each batch tells when
        all replies have come."""
        for first in range(0, queues or self.queues, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, queues or self.queues))
            lines = b"".join(request.replace(b"%d", b"%d" % number) for number in numbers)
            self.ask(lines + b"version\r\n", self.version)

    def tell(self, what: str, deed: Callable[[], object], after_s: float = AFTER_S) -> None:
        """Do it, and print what the bystander noticed."""
        time.sleep(BEFORE_S)
        self.bystander.waits_s.clear()
        began = time.monotonic()
        deed()
        took_s = time.monotonic() - began
        time.sleep(after_s)
        print(f"{what:<52} {self.bystander.longest_s * 1000:7.0f} ms  ({took_s:.1f} s)", flush=True)

    def tell_idle(self, what: str) -> None:
        """Print what the server takes of the machine while nothing is asked."""
        time.sleep(3)
        before_s = self.process.cpu_s() or 0.0
        self.tell(f"{what}: nothing, for 5 s", lambda: time.sleep(5))
        cpu_ms = ((self.process.cpu_s() or 0.0) - before_s) * 1000 / 5
        memory_mib = (self.process.resident_bytes() or 0) >> 20
        print(f"    {cpu_ms:.0f} ms of processor a second, {memory_mib} MiB", flush=True)

    def expire(self) -> None:
        """All queues are deleted for their age."""
        self.reload("[default]\nmax_queue_age_s = 1\n")
        deadline = time.monotonic() + EXPIRED_S
        while time.monotonic() < deadline:
            if sum(name.endswith("_items") for name in self.wire.stats()) < 10:
                return
            time.sleep(2)


def run(house: House) -> None:
    """All deeds but the restart."""
    several = f"{house.queues} queues"
    house.tell_idle("no queues")
    house.for_each(b"set gone%d 0 0 1\r\nx\r\ndelete gone%d\r\n")
    house.tell_idle(f"{several} made and deleted")
    house.tell(
        "flush of 300 new queues", lambda: house.for_each(b"set f%d 0 0 1\r\nx\r\nflush f%d\r\ndelete f%d\r\n", 300)
    )
    house.for_each(b"set q%d 0 0 1\r\nx\r\n")
    house.tell_idle(f"{several}, an item in each")
    house.tell("stats", lambda: house.ask(b"stats\r\n", b"\r\nEND\r\n"))
    house.tell("dump_stats", lambda: house.ask(b"dump_stats\r\n", b"}\r\nEND\r\n"))
    house.tell("dump_config", lambda: house.ask(b"dump_config\r\n", b"}\r\nEND\r\n"))
    house.tell("flush_all_expired", lambda: house.ask(b"flush_all_expired\r\n", b"\r\n"))
    house.tell("reload with other options", lambda: house.reload("[default]\nmax_items = 1000\n"))
    house.tell("flush_all", lambda: house.ask(b"flush_all\r\n", b"queues.\r\n"), 5)
    house.tell("reload, and all deleted for their age", house.expire)
    house.reload("[default]\n")
    for first in range(0, CHILDREN, AT_ONCE):
        lines = b"".join(b"get parent+%d\r\n" % number for number in range(first, first + AT_ONCE))
        house.ask(lines + b"version\r\n", house.version)
    large = b"set parent 0 0 %d\r\n%b\r\n" % (1 << 20, bytes(1 << 20))
    house.tell(f"an item of 1 MiB for {CHILDREN} children", lambda: house.ask(large, b"STORED\r\n"))
    house.for_each(b"set q%d 0 0 1\r\nx\r\n")


def main() -> None:
    """All deeds, then a stop and a start."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, default=ROOT, help="whose server is measured; default: this")
    parser.add_argument("--queues", type=int, default=100_000, help="default 100,000")
    options = parser.parse_args()
    words = ["--dialect", "kestrel", "--max-queues", "1000000"]
    with Server(
        our_server(sys.executable, words, str(options.checkout.resolve() / "darner.py")), "[default]\n"
    ) as server:
        with Bystander(server.port) as bystander:
            run(House(server, bystander, options.queues))
        began = time.monotonic()
        server.stop()
        server.launch()
        server.wait_until_it_listens()
        print(f"{'stop, and start again':<52} {'':7}     ({time.monotonic() - began:.1f} s)")


if __name__ == "__main__":
    program.run("many_queues", main)
