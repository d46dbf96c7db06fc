"""A real server in a process of its own, and a client to talk to it in plain bytes."""

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

START_S = 20.0  # a loaded machine; a start takes 0.3 s
REPLY_S = 10.0
END_S = 60.0  # the longest is the repair of a damaged directory, of a second or two
QUIET_S = 0.15  # what has not come within this time will not come


def run_darner(*words: str | bytes, typed: str = "") -> "subprocess.CompletedProcess[str]":
    """`python darner.py` with these options, which is expected to end by itself."""
    return subprocess.run(
        [sys.executable, str(ROOT / "darner.py"), *words], input=typed, capture_output=True, encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"}, timeout=END_S, check=False,
    )  # fmt: skip


def wait_until(true: Callable[[], object], within_s: float = REPLY_S) -> None:
    """Wait until `true` says so. AssertionError if that takes longer than `within_s`."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, f"did not come true in {within_s:g} s"
        time.sleep(0.01)


class RunningServer:
    """`python darner.py` on a free port. Everything it prints is in `log`."""

    program = "darner.py"

    def __init__(self, data: Path, *options: str) -> None:
        self.data = data
        self.options = options
        self.log = ""
        self._clients: list[Client] = []
        self.process: subprocess.Popen[str]
        self.port = 0
        self.start()

    def start(self) -> None:
        """Start, or start again on the same data directory."""
        self._log_path = self.data.parent / f"{self.data.name}.log"
        with open(self._log_path, "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / self.program), "--port", "0", "--data", str(self.data), *self.options],
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            text = self._log_path.read_text()
            if "ready: listening" in text:
                found = re.search(r"listening on: \S+ port (\d+)", text)
                assert found or "listening on: unix:" in text, text
                self.port = int(found[1]) if found else 0
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise AssertionError(f"the server did not start: {self._log_path.read_text()}")

    def printed(self) -> str:
        """What the running server has printed so far."""
        return self._log_path.read_text()

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self._ended()

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        """Stop it as an operator would. Returns the exit status."""
        self.process.send_signal(signal_number)
        return self._ended()

    def _ended(self) -> int:
        status = self.process.wait(REPLY_S)
        self.log += self._log_path.read_text()
        return status

    def end(self) -> None:
        """Called when the test ends: stops the server if it runs, and looks for tracebacks in its log."""
        for client in self._clients:
            client.close()
        if self.process.poll() is None:
            self.stop()
        assert "Traceback" not in self.log, self.log

    def client(self) -> "Client":
        """A new connection; closed when the server's test ends."""
        return self.adopt(Client(self.port))

    def adopt(self, client: "Client") -> "Client":
        """Close this client, too, when the server's test ends."""
        self._clients.append(client)
        return client

    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


class Client:
    """One connection. Its methods read like the conversation they make."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), REPLY_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def expect(self, reply: bytes) -> None:
        """The next bytes from the server are these."""
        got = self.read(len(reply))
        assert got == reply, f"expected {reply[:200]!r}, got {got[:200]!r}"

    def ask(self, request: bytes, reply: bytes) -> None:
        self.send(request)
        self.expect(reply)

    def read(self, size: int) -> bytes:
        """The next `size` bytes, or fewer if the server hangs up or sends no more."""
        self.socket.settimeout(REPLY_S)
        while len(self._received) < size:
            try:
                data = self.socket.recv(1 << 20)
            except TimeoutError:
                break
            if not data:
                break
            self._received += data
        got = bytes(self._received[:size])
        del self._received[:size]
        return got

    def line(self) -> bytes:
        """The next line, with its end."""
        line = b""
        while not line.endswith(b"\n"):
            byte = self.read(1)
            if not byte:
                break
            line += byte
        return line

    def expect_nothing(self) -> None:
        """The server sends nothing for now."""
        self.socket.settimeout(QUIET_S)
        try:
            data = self.socket.recv(1)
        except TimeoutError:
            return
        raise AssertionError(f"expected nothing, got {data!r}")

    def expect_hang_up(self) -> None:
        self.socket.settimeout(REPLY_S)
        try:
            data = bytes(self._received) + self.socket.recv(100)
        except ConnectionResetError:
            return
        assert data == b"", f"expected a hang-up, got {data!r}"

    # -- the usual requests

    def set(self, queue: str, body: bytes, flags: int = 0) -> None:
        self.ask(b"set %b %d 0 %d\r\n%b\r\n" % (queue.encode(), flags, len(body), body), b"STORED\r\n")

    def get(self, key: str) -> bytes | None:
        """What a get of this key answers: the item's body, or None."""
        self.send(b"get %b\r\n" % key.encode())
        return self.item()

    def item(self) -> bytes | None:
        """The body in the next reply to a get, or None."""
        line = self.line()
        if line == b"END\r\n":
            return None
        word, _, _, size = line.split()
        assert word == b"VALUE", line
        body = self.read(int(size))
        self.expect(b"\r\nEND\r\n")
        return body

    def stats(self) -> dict[str, str]:
        self.send(b"stats\r\n")
        stats = {}
        while (line := self.line()) != b"END\r\n":
            word, name, value = line.decode().split()
            assert word == "STAT"
            stats[name] = value
        return stats

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Hang up with an RST, as a client that is killed with unread data does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
