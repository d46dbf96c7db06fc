"""How long one client waits beside a hundred that send as fast as they can.

    python -m loadtest.waits.crowd gets sets stats thrift text [--clients 100] [--seconds 5]

For each kind of flood it starts the server anew. The flood comes from a process of its own; the bystander, in this one,
puts and gets an item in turn. Needs loopback and two cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import selectors
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from loadtest.servers import HOST, ROOT, free_port

PAUSE_S = 0.005  # of the bystander, between two requests
SETTLE_S = 1.0
START_S = 20.0
PUT_AND_GET = ((b"set bystander 0 0 4\r\nitem\r\n", b"STORED\r\n"), (b"get bystander\r\n", b"END\r\n"))
SEND_BYTES = 256 << 10
DEFAULT, THRIFT, TEXT = "darner", "thrift", "text"


def thrift_put(items: int) -> bytes:
    """A put of so many empty items into the queue "flood", as a frame."""
    name = b"flood"
    message = b"".join(
        (
            struct.pack(">Ii3si", 0x80010001, 3, b"put", 1),
            struct.pack(">bhi5s", 11, 1, len(name), name),
            struct.pack(">bhbi", 15, 2, 11, items) + bytes(4 * items),
            struct.pack(">bhib", 8, 3, 0, 0),
        )
    )
    return struct.pack(">i", len(message)) + message


# The dialect that is spoken, and what each client of the flood sends again and again.
FLOODS: dict[str, tuple[str, bytes]] = {
    "nobody": (DEFAULT, b""),
    "gets": (DEFAULT, b"get q\r\n"),
    "sets": (DEFAULT, b"set flood 0 0 10 noreply\r\n0123456789\r\n"),
    "stats": (DEFAULT, b"stats\r\n"),
    "thrift": (THRIFT, thrift_put(16_383)),
    "text": (TEXT, b"get q\n"),
}


def flood(port: int, clients: int, request: bytes) -> None:
    """Send, and read what is answered, until killed."""
    data = memoryview(request * max(1, SEND_BYTES // len(request)))
    selector = selectors.DefaultSelector()
    for _ in range(clients):
        sock = socket.create_connection((HOST, port))
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, ([0], sock))
    while True:
        for key, events in selector.select():
            position, sock = key.data
            try:
                if events & selectors.EVENT_READ and not sock.recv(SEND_BYTES):
                    sys.exit("the server has hung up")
                if events & selectors.EVENT_WRITE:
                    position[0] = (position[0] + sock.send(data[position[0] :])) % len(data)
            except BlockingIOError:
                pass


class Bystander:
    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes, end: bytes) -> bytes:
        self._socket.sendall(request)
        reply = b""
        while not reply.endswith(end):
            received = self._socket.recv(1 << 20)
            if not received:
                sys.exit("the server has hung up")
            reply += received
        return reply

    def figures(self) -> dict[str, int]:
        lines = self.ask(b"stats\r\n", b"END\r\n").split(b"\r\n")
        stats = [words for line in lines if len(words := line.split()) == 3 and words[2].isdigit()]
        return {words[1].decode(): int(words[2]) for words in stats}

    def wait_times(self, seconds: float) -> list[float]:
        times = []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for request, end in PUT_AND_GET:
                begun = time.perf_counter()
                self.ask(request, end)
                times.append(time.perf_counter() - begun)
            time.sleep(PAUSE_S)
        return sorted(times)


def measure(kind: str, server_root: Path, clients: int, seconds: float) -> dict[str, object]:
    dialect, request = FLOODS[kind]
    port, other_port = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="crowd-") as folder:
        config = Path(folder) / "conf.toml"
        listener = f'[[listener]]\nport = {other_port}\ndialect = "{dialect}"\n' if dialect != DEFAULT else ""
        config.write_text(f'host = "{HOST}"\nport = {port}\ndata = "{folder}/data"\n{listener}')
        with open(Path(folder) / "log", "w") as log:
            server = subprocess.Popen(
                [sys.executable, "darner.py", "-c", str(config)], cwd=server_root, stdout=log, stderr=subprocess.STDOUT
            )
        flooding = None
        try:
            bystander = connect(port, server)
            if request:
                words = ["--flood", kind, "--port", str(other_port if listener else port), "--clients", str(clients)]
                flooding = subprocess.Popen([sys.executable, "-m", "loadtest.waits.crowd", *words], cwd=ROOT)
            time.sleep(SETTLE_S)
            before, begun = bystander.figures(), time.monotonic()
            times = bystander.wait_times(seconds)
            after, passed_s = bystander.figures(), time.monotonic() - begun
        finally:
            for process in (flooding, server):
                if process is not None:
                    process.kill()
                    process.wait()
    served = sum(after[name] - before[name] for name in ("cmd_get", "cmd_set")) - len(times)
    at = {f"p{share}_ms": round(times[len(times) * share // 100] * 1000, 1) for share in (50, 99)}
    return {
        "flood": kind,
        "clients": clients,
        "asked": len(times),
        **at,
        "longest_ms": round(times[-1] * 1000, 1),
        "flood_gets_and_sets_per_s": round(served / passed_s),
        "flood_bytes_per_s": round((after["bytes_read"] - before["bytes_read"]) / passed_s),
    }


def connect(port: int, server: subprocess.Popen[bytes]) -> Bystander:
    until = time.monotonic() + START_S
    for _ in itertools.count():
        try:
            return Bystander(port)
        except OSError:
            if server.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.05)
    raise AssertionError


def main() -> None:
    parser = argparse.ArgumentParser(description="How long one client waits beside a hundred that flood the server.")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(FLOODS)}; default: all")
    parser.add_argument("--clients", type=int, default=100, help="that flood; default 100")
    parser.add_argument("--seconds", type=float, default=5.0, help="of measuring; default 5")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout whose server is measured; default: this")
    parser.add_argument("--flood", choices=list(FLOODS), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.flood:
        flood(parsed.port, parsed.clients, FLOODS[parsed.flood][1])
    unknown = [kind for kind in parsed.kinds if kind not in FLOODS]
    if unknown:
        parser.error(f"unknown kind {unknown[0]!r}: one of {', '.join(FLOODS)}")
    for kind in parsed.kinds or FLOODS:
        print(json.dumps(measure(kind, parsed.root, parsed.clients, parsed.seconds)), flush=True)


if __name__ == "__main__":
    main()
