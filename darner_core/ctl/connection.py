"""One connection to a server, in bytes: lines and bodies, with a limit on how long each may take."""

import ssl
from types import TracebackType
from typing import Final, Self

from darner_core.ctl.address import Address, Tls
from darner_core.ctl.errors import NoServer, Refused
from darner_core.showing import show

MAX_LINE_BYTES: Final = 1 << 20
_RECEIVED_BYTES: Final = 1 << 16

_REFUSALS: Final = (b"ERROR", b"CLIENT_ERROR", b"SERVER_ERROR")


class Connection:
    """Every call may raise NoServer, which says what happened to the connection."""

    def __init__(self, address: Address, timeout_s: float, tls: Tls | None = None) -> None:
        """`timeout_s`: without a byte from the server."""
        self._address = address
        self.timeout_s = timeout_s
        self._socket = address.connect(timeout_s, tls)
        self._received = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def wait_longer(self, more_s: float | None) -> None:
        """The next answers may take so much longer, because something is waited for. None: for ever."""
        self._socket.settimeout(None if more_s is None else self.timeout_s + more_s)

    def send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except (OSError, ssl.SSLError) as error:
            said = self._said_before_hanging_up()
            raise said if said is not None else self._gone(error) from error

    def line(self) -> bytes:
        """The next line, without its end."""
        searched = 0
        while (end := self._received.find(b"\n", searched)) < 0:
            searched = len(self._received)
            if searched > MAX_LINE_BYTES:
                raise NoServer(f"{self._address} does not speak the memcache protocol: a line does not end")
            self._receive()
        line = bytes(self._received[:end]).removesuffix(b"\r")
        del self._received[: end + 1]
        return line

    def reply(self) -> bytes:
        """The next line, unless it says that the request is refused. Raises Refused."""
        line = self.line()
        if line.split(b" ", 1)[0] in _REFUSALS:
            raise Refused(self._refusal(line))
        return line

    def read(self, most_bytes: int) -> bytes:
        """At least one byte, and at most so many."""
        if not self._received:
            self._receive()
        data = bytes(self._received[:most_bytes])
        del self._received[:most_bytes]
        return data

    def exactly(self, size: int) -> bytes:
        parts = []
        while size:
            parts.append(self.read(size))
            size -= len(parts[-1])
        return b"".join(parts)

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_RECEIVED_BYTES)
        except (OSError, ssl.SSLError) as error:
            raise self._gone(error) from error
        if not data:
            raise NoServer(f"{self._address} has hung up")
        self._received += data

    def _gone(self, error: Exception) -> NoServer:
        if isinstance(error, TimeoutError):
            return NoServer(f"{self._address} does not answer within {self.timeout_s:g} s; --timeout gives it longer")
        reason = getattr(error, "strerror", None) or str(error)
        return NoServer(f"{self._address} has hung up: {show(reason)}")

    def _said_before_hanging_up(self) -> Refused | None:
        """A server that refuses a request hangs up while the rest of it is still being sent."""
        try:
            line = self.line()
        except NoServer:
            return None
        return Refused(self._refusal(line)) if line.split(b" ", 1)[0] in _REFUSALS else None

    def _refusal(self, line: bytes) -> str:
        kind, _, why = line.partition(b" ")
        return f"{self._address} refuses: {show(why or kind)}"
