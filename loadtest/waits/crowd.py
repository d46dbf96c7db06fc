"""How long one client waits beside a hundred that send as fast as they can.

    python -m loadtest.waits.crowd gets sets stats thrift text [--clients 100] [--seconds 5]

For each kind of flood it starts the server anew. The flood comes from a process of its own; the bystander, in this one,
puts and gets an item in turn. Needs loopback and two cores.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

from loadtest.program import run
from loadtest.servers import HOST, ROOT, Server, free_port, our_server
from loadtest.wire import Wire

PAUSE_S = 0.005  # of the bystander, between two requests
SETTLE_S = 1.0
PUT_AND_GET = ((b"set bystander 0 0 4\r\nitem\r\n", b"STORED\r\n"), (b"get bystander\r\n", b"END\r\n"))
SEND_BYTES = 256 << 10
DEFAULT, THRIFT, TEXT = "darner", "thrift", "text"


def thrift_put(items: int) -> bytes:
    """A put of `items` empty items into the queue "flood", as a frame."""
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


def wait_times(bystander: Wire, seconds: float) -> list[float]:
    """How long each request of the bystander took, sorted."""
    times = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for request, end in PUT_AND_GET:
            begun = time.perf_counter()
            bystander.ask_until(request, end)
            times.append(time.perf_counter() - begun)
        time.sleep(PAUSE_S)
    return sorted(times)


def measure(kind: str, checkout: Path, clients: int, seconds: float) -> dict[str, object]:
    """The figures of one flood."""
    dialect, request = FLOODS[kind]
    other_port = free_port() if dialect != DEFAULT else 0
    listener = f'[[listener]]\nport = {other_port}\ndialect = "{dialect}"\n' if other_port else ""
    with Server(our_server(sys.executable, [], str(checkout / "darner.py")), listener) as server:
        bystander, flooding = Wire(server.port), None
        try:
            if request:
                words = ["--flood", kind, "--port", str(other_port or server.port), "--clients", str(clients)]
                flooding = subprocess.Popen([sys.executable, "-m", "loadtest.waits.crowd", *words], cwd=ROOT)
            time.sleep(SETTLE_S)
            before, begun = bystander.stats(), time.monotonic()
            times = wait_times(bystander, seconds)
            after, passed_s = bystander.stats(), time.monotonic() - begun
        finally:
            if flooding is not None:
                flooding.kill()
                flooding.wait()
    served = sum(int(after[name]) - int(before[name]) for name in ("cmd_get", "cmd_set")) - len(times)
    at = {f"p{share}_ms": round(times[len(times) * share // 100] * 1000, 1) for share in (50, 99)}
    return {
        "flood": kind,
        "clients": clients,
        "asked": len(times),
        **at,
        "longest_ms": round(times[-1] * 1000, 1),
        "flood_gets_and_sets_per_s": round(served / passed_s),
        "flood_bytes_per_s": round((int(after["bytes_read"]) - int(before["bytes_read"])) / passed_s),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="How long one client waits beside a hundred that flood the server.")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(FLOODS)}; default: all")
    parser.add_argument("--clients", type=int, default=100, help="that flood; default 100")
    parser.add_argument("--seconds", type=float, default=5.0, help="of measuring; default 5")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="whose server is measured; default: this")
    parser.add_argument("--flood", choices=list(FLOODS), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.flood:
        flood(parsed.port, parsed.clients, FLOODS[parsed.flood][1])
    unknown = [kind for kind in parsed.kinds if kind not in FLOODS]
    if unknown:
        parser.error(f"unknown kind {unknown[0]!r}: one of {', '.join(FLOODS)}")
    for kind in parsed.kinds or FLOODS:
        print(json.dumps(measure(kind, parsed.checkout.resolve(), parsed.clients, parsed.seconds)), flush=True)


if __name__ == "__main__":
    run("crowd", main)
