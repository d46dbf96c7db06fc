"""What one client has sent and what has not been served yet: a request that has come in part, bytes that were sent
ahead, the body of a large item; and the memory that all of it takes.

An Inbox receives and keeps. It does not know the client's state, serves nothing and hangs up on nobody: its caller, the
Connection, does. No call here switches greenlets.
"""

import socket
from collections.abc import Callable, Iterator

from darner_core.operations.stats import Stats
from darner_core.protocols.contract import Reader, Request
from darner_core.server.shares import RECV_BYTES
from darner_core.server.tls import TlsSocket
from darner_core.server.turn import Turn
from darner_core.shared_memory import BodyMemory, Holder, PipelineMemory

# What a client may send ahead while it waits for an item. Beyond it nothing is read until the wait ends. A client that
# has sent more than the kernel takes as well, and hangs up without a reset, is noticed only when its own kernel has
# given up sending the rest, after some minutes.
MAX_AHEAD_BYTES = 64 << 10

# What a client may send ahead while pipeline_memory_bytes are exceeded, or before it has logged in.
SCARCE_AHEAD_BYTES = 4 << 10

# An incomplete item of which less than this has come is not worth writing to disk early.
SMALL_PIECE_BYTES = 512


class Inbox:
    __slots__ = (
        "reader", "reads_whole", "received_bytes", "is_accounting", "recv", "_is_tls", "_turn", "_stats", "ahead",
        "piece_bytes", "_body_memory", "_pipeline_memory",
    )  # fmt: skip

    def __init__(
        self,
        client_socket: socket.socket | TlsSocket,
        reader: Reader,
        reads_whole: bool,
        turn: Turn,
        stats: Stats,
        body_memory: BodyMemory,
        pipeline_memory: PipelineMemory,
    ) -> None:
        """`reads_whole`: requests of this protocol cannot be received in pieces."""
        self.reader = reader
        self.reads_whole = reads_whole
        self.received_bytes = 0  # grows with every byte that this inbox receives
        self.is_accounting = False  # True while the shared memory is being told what this client holds
        self.recv: Callable[[int], bytes] = client_socket.recv
        self._is_tls = isinstance(client_socket, TlsSocket)
        self._turn = turn
        self._stats = stats
        self.ahead = b""  # bytes that came while the greenlet was waiting; changed here alone
        self.piece_bytes = 0  # of the incomplete request, as the shared memory was told last
        self._body_memory = body_memory
        self._pipeline_memory = pipeline_memory

    # -- receiving

    def receive(self, most_bytes: int = RECV_BYTES) -> bytes | None:
        """What there is to read; None: nothing yet; b"": the client has said all, or has gone. Over TLS it may be more
        than `most_bytes`: the poller does not know of bytes that have been decrypted and not taken."""
        try:
            data = self.recv(RECV_BYTES if self._is_tls else most_bytes)
        except BlockingIOError:
            self.received_bytes += self._is_tls  # part of a record has come
            return None
        except OSError:
            return b""
        self._stats.bytes_read += len(data)
        self.received_bytes += len(data)
        return data

    def receive_requests(self) -> bytes | None:
        """As `receive`, up to the end of the incomplete request if it is known."""
        if self.reads_whole:
            return self.receive()
        return self.receive(max(self._turn.shares.recv_bytes, min(self.reader.body_missing, RECV_BYTES)))

    # -- bytes sent ahead

    def room_ahead(self, is_stranger: bool) -> int:
        """How many more bytes the client may send ahead. `is_stranger`: it has yet to log in."""
        is_scarce = is_stranger or self._pipeline_memory.scarce
        return (SCARCE_AHEAD_BYTES if is_scarce else MAX_AHEAD_BYTES) - len(self.ahead)

    def keep_ahead(self, data: bytes) -> None:
        self._set_ahead(self.ahead + data)

    def take_ahead(self) -> Iterator[tuple[Request, bytes | None]]:
        """The requests that were sent ahead."""
        ahead = self.ahead
        self._set_ahead(b"")
        return self.reader.requests(ahead)

    def _set_ahead(self, ahead: bytes) -> None:
        self._pipeline_memory.used_bytes += len(ahead) - len(self.ahead)
        self.ahead = ahead

    # -- the body of a large item

    def take_body(self, most_bytes: int) -> bytes:
        """Up to `most_bytes` of the body that have come already; b"": none."""
        data = self.reader.take_body(most_bytes)
        if not data and self.ahead:
            data = self.ahead[:most_bytes]
            self._set_ahead(self.ahead[most_bytes:])
        return data

    def receive_body(self, most_bytes: int) -> bytes | None:
        """As `receive`; what is more than `most_bytes` is kept ahead. Nothing is ahead when this is called."""
        data = self.receive(min(most_bytes, RECV_BYTES))
        if data is not None and len(data) > most_bytes:
            self.keep_ahead(data[most_bytes:])
            data = data[:most_bytes]
        return data

    # -- the memory of incomplete requests

    def account(self, holder: Holder) -> None:
        """Tell the shared memory how much of an incomplete request `holder`, this inbox's client, holds now."""
        self._account(holder, self.reader.body_bytes)

    def _account(self, holder: Holder, held_bytes: int) -> None:
        self.piece_bytes = held_bytes if held_bytes > SMALL_PIECE_BYTES else 0
        self.is_accounting = True
        self._body_memory.account(holder, self.piece_bytes)
        self.is_accounting = False

    def forget_pieces(self) -> None:
        """The shared memory has taken this client off its list."""
        self.piece_bytes = 0

    def drop_pieces(self, holder: Holder) -> None:
        """Nothing of an incomplete request is wanted any more."""
        held_bytes = self.reader.body_bytes
        self.reader.drop()
        if self.piece_bytes:
            self._account(holder, 0)
        if held_bytes:
            self._body_memory.freed(held_bytes)

    def drop(self, holder: Holder) -> None:
        """Keep nothing: the client has gone."""
        self._set_ahead(b"")
        self.drop_pieces(holder)
