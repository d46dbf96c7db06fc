"""How much longer clients of memcache wait while others work over HTTP.

    python -m loadtest.waits.http_beside [--rounds-per-s 1000] [--clients 50] [--seconds 4] [--times 5]

A flood of memcache's clients, from a process of its own, asks as fast as it can: alone, and beside HTTP clients that
put, take and acknowledge so often a second. Both are measured in turns, several times, and the medians compared,
because a machine has quiet and busy moments. Needs loopback, and better three cores than two.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from loadtest.program import run
from loadtest.servers import HOST, ROOT, Server, free_port, our_server

HTTP_CLIENTS = 8
SETTLE_S = 0.5


class Worker:
    """One HTTP client, which puts, takes and acknowledges."""

    def __init__(self, port: int, number: int) -> None:
        self._socket = socket.create_connection((HOST, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._path = b"/api/v1/queues/http%d/" % number
        self.rounds = 0
        self.waits_s: list[float] = []

    def _ask(self, method: bytes, path: bytes, body: bytes, status: bytes) -> bytes:
        head = b"%b %b%b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (
            method, self._path, path, len(body),
        )  # fmt: skip
        begun = time.perf_counter()
        self._socket.sendall(head + body)
        answer = self._socket.recv(8192)  # all of them are short
        self.waits_s.append(time.perf_counter() - begun)
        if answer[9:12] != status:
            sys.exit(f"{method.decode()} {path.decode()}: {answer.decode('latin-1')}")
        return answer

    def round(self) -> None:
        """Put an item, take it, and acknowledge it."""
        self._ask(b"POST", b"items", b"x" * 64, b"201")
        taken = self._ask(b"POST", b"take", b"", b"200")
        item = taken.partition(b"x-darner-id: ")[2].partition(b"\r")[0]
        self._ask(b"DELETE", b"items/" + item, b"", b"204")
        self.rounds += 1

    def work(self, rounds_per_s: float, until: float) -> None:
        """So many rounds a second, evenly."""
        begun = time.monotonic()
        while time.monotonic() < until:
            ahead_s = self.rounds / rounds_per_s - (time.monotonic() - begun)
            if ahead_s > 0:
                time.sleep(ahead_s)
            self.round()


def work(port: int, rounds_per_s: float, seconds: float) -> None:
    """Work over HTTP, and print the figures as JSON."""
    workers = [Worker(port, number) for number in range(HTTP_CLIENTS)]
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=one.work, args=(rounds_per_s / HTTP_CLIENTS, until)) for one in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    waits_s = sorted(wait_s for one in workers for wait_s in one.waits_s)
    print(json.dumps({
        "rounds_per_s": round(sum(one.rounds for one in workers) / seconds),
        "http_p50_ms": round(waits_s[len(waits_s) // 2] * 1000, 2),
        "http_p99_ms": round(waits_s[len(waits_s) * 99 // 100] * 1000, 2),
    }))  # fmt: skip


def flood(port: int, clients: int, seconds: float) -> dict[str, Any]:
    """The figures of the flood."""
    words = ["flood", "--port", str(port), "--connections", str(clients), "--seconds", str(seconds)]
    ended = subprocess.run(
        [sys.executable, "-m", "loadtest.load.flood", *words, "--warmup-seconds", "0.3", "--json", "-", "--quiet"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def cpu_s(pid: int) -> float:
    """How long the process has run."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(rounds_per_s: float, clients: int, seconds: float, times: int, checkout: Path) -> dict[str, object]:
    port = free_port()
    listener = f'[[listener]]\nport = {port}\ndialect = "http"\n'
    alone: list[dict[str, Any]] = []
    beside: list[dict[str, Any]] = []
    worked: list[dict[str, Any]] = []
    with Server(our_server(sys.executable, [], str(checkout / "darner.py")), listener) as server:
        before_s = cpu_s(server.pid)
        began = worker_of(port, rounds_per_s, seconds)
        only_http = json.loads(began.communicate()[0])
        cost_us = (cpu_s(server.pid) - before_s) / (only_http["rounds_per_s"] * seconds * 3) * 1e6
        for _ in range(times):
            alone.append(flood(server.port, clients, seconds))
            worker = worker_of(port, rounds_per_s, seconds + 4)
            time.sleep(SETTLE_S)
            beside.append(flood(server.port, clients, seconds))
            worked.append(json.loads(worker.communicate()[0]))
    p99s = [statistics.median(one["p99_us"] / 1000 for one in some) for some in (alone, beside)]
    return {
        "flood_clients": clients,
        "flood_p99_ms": round(p99s[0], 2),
        "flood_p99_beside_ms": round(p99s[1], 2),
        "ratio": round(p99s[1] / p99s[0], 2),
        "server_us_a_request": round(cost_us, 1),
        **{name: statistics.median(one[name] for one in worked) for name in worked[0]},
    }


def worker_of(port: int, rounds_per_s: float, seconds: float) -> subprocess.Popen[str]:
    words = ["--work", str(port), "--rounds-per-s", str(rounds_per_s), "--seconds", str(seconds)]
    command = [sys.executable, "-m", "loadtest.waits.http_beside", *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="How much longer memcache's clients wait while others work over HTTP.")
    parser.add_argument("--rounds-per-s", type=float, default=1000.0, help="of put, take, acknowledge; default 1000")
    parser.add_argument("--clients", type=int, default=50, help="of the flood; default 50")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement; default 4")
    parser.add_argument("--times", type=int, default=5, help="how often both are measured; default 5")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="whose server is measured; default: this")
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.work:
        work(parsed.work, parsed.rounds_per_s, parsed.seconds)
        return
    found = measure(parsed.rounds_per_s, parsed.clients, parsed.seconds, parsed.times, parsed.checkout.resolve())
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    run("http_beside", main)
