"""What a bystander waits while something happens to very many queues.

    python -m loadtest.waits.many_queues [--checkout DIRECTORY] [--queues 100000]

Starts a server of its own on a free port of the loopback, with a data directory that goes afterwards. A second process
asks for the version every few milliseconds; for each deed the longest wait of it is told, in ms, and how long the deed
took.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from loadtest.servers import ROOT

CHILDREN = 2000
AT_ONCE = 500

BYSTANDER = """
import socket, sys, time
peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
while True:
    start = time.monotonic()
    peer.sendall(b"version\\r\\n")
    if not peer.recv(100):
        break
    print(time.monotonic() - start, flush=True)
    time.sleep(0.003)
"""


class House:
    """The server, one client, and the bystander."""

    def __init__(self, checkout: str, queues: int) -> None:
        self.folder = tempfile.mkdtemp(prefix="many-queues-")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.checkout = checkout
        self.queues = queues
        self.configure("")
        self.start()

    def configure(self, options: str) -> None:
        head = f'port = {self.port}\ndata = "{self.folder}/data"\ndialect = "kestrel"\nmax_queues = 1000000\n'
        with open(f"{self.folder}/darner.toml", "w") as file:
            file.write(head + options)

    def start(self) -> None:
        program = os.path.join(self.checkout, "darner.py")
        with open(f"{self.folder}/log", "a") as log:
            self.server = subprocess.Popen(
                [sys.executable, program, "-c", f"{self.folder}/darner.toml"], stdout=log, stderr=log
            )
        end = time.monotonic() + 120
        while time.monotonic() < end:
            with suppress(OSError):
                self.peer = socket.create_connection(("127.0.0.1", self.port), timeout=600)
                break
            time.sleep(0.02)
        self.waits: list[float] = []
        self.bystander = subprocess.Popen(
            [sys.executable, "-c", BYSTANDER, str(self.port)], stdout=subprocess.PIPE, text=True
        )
        threading.Thread(target=self._note, args=(self.bystander,), daemon=True).start()

    def _note(self, bystander: "subprocess.Popen[str]") -> None:
        assert bystander.stdout is not None
        for line in bystander.stdout:
            self.waits.append(float(line))

    def restart(self) -> None:
        self.bystander.kill()
        self.bystander.wait()
        self.server.send_signal(signal.SIGTERM)
        self.server.wait(60)
        self.start()

    def end(self) -> None:
        for process in (self.bystander, self.server):
            process.kill()
            process.wait()
        shutil.rmtree(self.folder)

    def ask(self, request: bytes, end: bytes) -> None:
        """Send, and receive up to `end`."""
        self.peer.sendall(request)
        tail = b""
        while not tail.endswith(end):
            data = self.peer.recv(1 << 20)
            if not data:
                sys.exit("the server hung up")
            tail = (tail + data)[-len(end) :]

    def for_each(self, request: bytes, queues: int = 0) -> None:
        """Ask this of each queue: `%d` stands for its number. The replies are ended by a question of its own."""
        for first in range(0, queues or self.queues, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, queues or self.queues))
            lines = b"".join(request.replace(b"%d", b"%d" % number) for number in numbers)
            self.ask(lines + b"get nothing-%d\r\nversion\r\n" % first, b"VERSION " + self.version + b"\r\n")

    @property
    def version(self) -> bytes:
        return self._version

    def learn_version(self) -> None:
        self.peer.sendall(b"version\r\n")
        self._version = self.peer.recv(100).split()[1]

    def tell(self, what: str, deed: Callable[[], object], wait_s: float = 0.3) -> None:
        time.sleep(0.3)
        self.waits.clear()
        start = time.monotonic()
        deed()
        took_s = time.monotonic() - start
        time.sleep(wait_s)
        longest_ms = max(self.waits, default=0) * 1000
        print(f"{what:<52} {longest_ms:7.0f} ms  ({took_s:.1f} s)", flush=True)

    def processor_s(self) -> float:
        with open(f"/proc/{self.server.pid}/stat") as file:
            words = file.read().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def tell_idle(self, what: str) -> None:
        time.sleep(3)
        before = self.processor_s()
        self.tell(f"{what}: nothing, for 5 s", lambda: time.sleep(5))
        with open(f"/proc/{self.server.pid}/status") as file:
            memory_kib = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
        print(
            f"    {(self.processor_s() - before) * 200:.0f} ms of processor a second, {memory_kib >> 10} MiB",
            flush=True,
        )


def large_to_children(house: House) -> None:
    body = bytes(1 << 20)
    house.ask(b"set parent 0 0 %d\r\n%b\r\n" % (len(body), body), b"STORED\r\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", default=str(ROOT))
    parser.add_argument("--queues", type=int, default=100_000)
    options = parser.parse_args()
    house = House(options.checkout, options.queues)
    try:
        run(house)
    finally:
        house.end()


def run(house: House) -> None:
    house.learn_version()
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
    house.configure("[default]\nmax_items = 1000\nmax_queue_age_s = 86400\n")
    house.tell("reload with other options", lambda: house.ask(b"reload\r\n", b"config.\r\n"))
    house.tell("flush_all", lambda: house.ask(b"flush_all\r\n", b"queues.\r\n"), 5)
    house.configure("[default]\nmax_queue_age_s = 1\n")

    def expire() -> None:
        house.ask(b"reload\r\n", b"config.\r\n")
        end = time.monotonic() + 120
        while time.monotonic() < end:
            house.peer.sendall(b"dump_config x\r\nstats\r\n")
            reply = b""
            while not reply.endswith(b"\r\nEND\r\n") or b"queue_deletes" not in reply:
                reply += house.peer.recv(1 << 20)
            if reply.count(b"_items ") < 10:
                return
            time.sleep(2)

    house.tell("reload, and all deleted for their age", expire)
    house.configure("")
    house.ask(b"reload\r\n", b"config.\r\n")
    for first in range(0, CHILDREN, AT_ONCE):
        lines = b"".join(b"get parent+%d\r\n" % number for number in range(first, first + AT_ONCE))
        house.ask(lines + b"version\r\n", b"VERSION " + house.version + b"\r\n")
    house.tell(f"an item of 1 MiB for {CHILDREN} children", lambda: large_to_children(house))
    house.for_each(b"set q%d 0 0 1\r\nx\r\n")
    start = time.monotonic()
    house.restart()
    print(f"{'stop, and start again':<52} {'':7}     ({time.monotonic() - start:.1f} s)")


if __name__ == "__main__":
    main()
