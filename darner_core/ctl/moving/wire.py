"""One connection to a server whose protocol is made of lines and counted bodies, in plain bytes."""

import socket
from collections.abc import Iterator
from typing import Final

from darner_core.ctl.errors import CtlError, NoServer
from darner_core.ctl.moving.places import PIECE_BYTES, WHOLE_BYTES
from darner_core.showing import show

MAX_LINE_BYTES: Final = 1 << 20


class Wire:
    """Every call may raise NoServer, which names the server."""

    def __init__(self, connected: socket.socket, server: str) -> None:
        self.server = server
        self._socket = connected
        self._file = connected.makefile("rb", PIECE_BYTES)

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._gone(error) from error

    def line(self) -> bytes:
        """The next line, without its end."""
        try:
            line = self._file.readline(MAX_LINE_BYTES)
        except OSError as error:
            raise self._gone(error) from error
        if not line.endswith(b"\n"):
            raise NoServer(f"{self.server} has hung up" if len(line) < MAX_LINE_BYTES else self.not_said(line[:40]))
        return line[:-2] if line.endswith(b"\r\n") else line[:-1]

    def exactly(self, size: int) -> bytes:
        try:
            data: bytes = self._file.read(size)
        except OSError as error:
            raise self._gone(error) from error
        if len(data) < size:
            raise NoServer(f"{self.server} has hung up")
        return data

    def body(self, size: int) -> bytes | Iterator[bytes]:
        """A body and the end of its line: whole, or, if it is large, in pieces."""
        if size > WHOLE_BYTES:
            return self._pieces(size)
        return self.exactly(size + 2)[:-2]

    def _pieces(self, size: int) -> Iterator[bytes]:
        for start in range(0, size, PIECE_BYTES):
            yield self.exactly(min(PIECE_BYTES, size - start))
        self.exactly(2)

    def not_said(self, said: bytes) -> str:
        return f'{self.server} answers "{show(said[:100])}", which is not what its protocol says here'

    def unexpected(self, said: bytes) -> CtlError:
        return CtlError(self.not_said(said))

    def _gone(self, error: OSError) -> NoServer:
        if isinstance(error, TimeoutError):
            return NoServer(f"{self.server} does not answer in time; --timeout gives it longer")
        return NoServer(f"{self.server} has hung up: {show(error.strerror or str(error))}")
