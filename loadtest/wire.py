"""A blocking connection for harnesses that write the bytes of the protocol themselves.

Raises RequestLost when the connection ends, Violation when an answer does not come in time or cannot be one, and
Refused when the server answers that it has failed.
"""

from __future__ import annotations

import socket

from loadtest.errors import Refused, RequestLost, Violation

HOST = "127.0.0.1"
ANSWER_S = 30.0
RECV_BYTES = 1 << 18


class Wire:
    """One connection of the memcache or the text protocol."""

    def __init__(self, port: int, answer_s: float = ANSWER_S) -> None:
        """answer_s: how long an answer may take."""
        self.answer_s = answer_s
        try:
            self._socket = socket.create_connection((HOST, port), answer_s)
        except OSError as error:
            raise RequestLost(f"cannot connect: {error}") from None
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()

    def send(self, data: bytes) -> None:
        """Send without waiting for the answer."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise RequestLost(f"hung up: {error}") from None

    def until(self, end: bytes, times: int = 1) -> bytes:
        """All that comes, up to and with the `times`-th `end`."""
        place = 0
        while times:
            found = self._received.find(end, place)
            if found >= 0:
                place, times = found + len(end), times - 1
            else:
                place = max(place, len(self._received) - len(end) + 1)
                self._receive()
        return self._take(place)

    def read(self, size: int) -> bytes:
        """The next `size` bytes."""
        while len(self._received) < size:
            self._receive()
        return self._take(size)

    def line(self) -> bytes:
        """The next line, without its end."""
        return self.until(b"\n").rstrip(b"\r\n")

    def expect(self, *expected: bytes) -> bytes:
        """The next line, which has to be one of these. Raises Refused for an error."""
        line = self.line()
        if line.startswith((b"SERVER_ERROR", b"-")):
            raise Refused(line.decode())
        if line not in expected:
            raise Violation(f"{line!r} instead of {expected!r}")
        return line

    def item(self) -> bytes | None:
        """The item that answers a get, or None."""
        line = self.line()
        if line == b"END":
            return None
        if line.startswith(b"SERVER_ERROR"):
            raise Refused(line.decode())
        if not line.startswith(b"VALUE "):
            raise Violation(f"{line!r} instead of an item")
        body = self.read(int(line.split()[3]))
        if (end := self.read(7)) != b"\r\nEND\r\n":
            raise Violation(f"an item ends with {end!r}")
        return body

    # -- requests with their answers

    def ask(self, request: bytes, *expected: bytes) -> bytes:
        """Send a request. Returns the line that answers, which has to be one of these. Raises Refused for an error."""
        self.send(request)
        return self.expect(*expected)

    def ask_until(self, request: bytes, end: bytes, times: int = 1) -> bytes:
        """Send requests. Returns the answers, which end with the `times`-th `end`."""
        self.send(request)
        return self.until(end, times)

    def get(self, key: bytes) -> bytes | None:
        """What a get of this key answers: the item, or None."""
        self.send(b"get %b\r\n" % key)
        return self.item()

    def stats(self) -> dict[str, str]:
        """All statistics."""
        self.send(b"stats\r\n")
        found = {}
        while (line := self.line()) != b"END":
            if line.startswith(b"SERVER_ERROR"):
                raise Refused(line.decode())
            _, name, value = line.decode().split(" ", 2)
            found[name] = value
        return found

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _take(self, size: int) -> bytes:
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken

    def _receive(self) -> None:
        try:
            data = self._socket.recv(RECV_BYTES)
        except TimeoutError:
            raise Violation(f"no answer for {self.answer_s:g} s") from None
        except OSError as error:
            raise RequestLost(f"hung up: {error}") from None
        if not data:
            raise RequestLost("hung up")
        self._received += data
