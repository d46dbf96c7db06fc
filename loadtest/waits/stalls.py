"""How long another client has to wait while many items expire, are given back, confirmed or discarded.

    python -m loadtest.waits.stalls [REPOSITORY] [ITEMS]

Each case starts a server of its own on a free port of loopback. Printed are the server's processor time and the longest
wait of a client that asks for the version all the time.
"""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path


class Asker:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes, ends: bytes, times: int = 1) -> None:
        """Send `request`, and receive until `ends` has come so many times."""
        self.socket.sendall(request)
        tail = b""
        while times > 0:
            data = tail + self.socket.recv(1 << 18)
            times -= data.count(ends)
            tail = data[-len(ends) + 1 :] if len(ends) > 1 else b""

    def put(self, queue: bytes, count: int, expiry_s: int = 0) -> None:
        for _ in range(0, count, 500):
            self.ask(b"set %b 0 %d 4\r\nbody\r\n" % (queue, expiry_s) * 500, b"STORED\r\n", 500)

    def open(self, queue: bytes, count: int) -> None:
        for _ in range(0, count, 500):
            self.ask(b"get %b/open\r\n" % queue * 500, b"END\r\n", 500)


class Server:
    def __init__(self, repository: str, folder: str, config: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        (Path(folder) / "darner.toml").write_text(
            f'port = {self.port}\ndata = "{folder}/data"\ndialect = "kestrel"\n{config}'
        )
        log = (Path(folder) / "log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, f"{repository}/darner.py", "-c", f"{folder}/darner.toml"], stdout=log, stderr=log
        )
        for _ in range(100):
            try:
                Asker(self.port).socket.close()
                return
            except OSError:
                time.sleep(0.1)
        raise SystemExit("the server does not start")

    def cpu_s(self) -> float:
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


class Bystander:
    def __init__(self, port: int) -> None:
        self.longest_s = 0.0
        self._asker = Asker(port)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            self._asker.ask(b"version\r\n", b"\r\n")
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            time.sleep(0.002)

    def end(self) -> float:
        self._ended.set()
        self._thread.join()
        return self.longest_s


Step = Callable[[], None]
Case = Callable[[Asker, int, int], Step]  # prepares, and returns what is measured


def hang_up(client: Asker, port: int, items: int) -> Step:
    """A client that has all open hangs up."""
    client.put(b"q", items)
    client.open(b"q", items)

    def step() -> None:
        client.socket.close()
        time.sleep(2)

    return step


def hang_up_expired(client: Asker, port: int, items: int) -> Step:
    """The same when all have expired, and another client asks for one."""
    other = Asker(port)
    seconds = 10 + items // 5000
    began = time.monotonic()
    client.put(b"q", items, seconds)
    client.open(b"q", items)
    time.sleep(max(0.0, began + 2 * seconds - time.monotonic()))

    def step() -> None:
        client.socket.close()
        time.sleep(0.2)
        other.ask(b"get q\r\n", b"END\r\n")
        time.sleep(3)

    return step


def confirm(client: Asker, port: int, items: int) -> Step:
    """One `confirm` of all."""
    client.put(b"q", items)
    client.open(b"q", items)
    return lambda: client.ask(b"confirm q %d\r\n" % items, b"END\r\n")


def sweep(client: Asker, port: int, items: int) -> Step:
    """All expire behind an item that lives."""
    client.put(b"q", 500)
    client.put(b"q", items, 2 + items // 20_000)
    return lambda: time.sleep(8 + items // 20_000)


CASES: tuple[Case, ...] = (hang_up, hang_up_expired, confirm, sweep)
CONFIG = '[queues."*"]\nmax_open_reads = 1000000\n'


def main() -> None:
    repository = sys.argv[1] if len(sys.argv) > 1 else "."
    items = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            server = Server(repository, folder, CONFIG)
            try:
                step = case(Asker(server.port), server.port, items)
                bystander, cpu_s = Bystander(server.port), server.cpu_s()
                try:
                    step()
                finally:
                    longest_s = bystander.end()
                print(
                    f"{case.__name__:16} {server.cpu_s() - cpu_s:6.2f} s, longest wait {longest_s * 1000:6.0f} ms",
                    flush=True,
                )
            finally:
                server.process.terminate()
                server.process.wait()


if __name__ == "__main__":
    main()
