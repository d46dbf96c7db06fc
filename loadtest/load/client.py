"""The plain half of the load generator: blocking connections, for everything outside the measured loop.

Owns connecting (also for rings.py, so that a failure reads the same everywhere) and the limit of open files. Knows no
protocol; that is peers.py.
"""

from __future__ import annotations

import resource
import socket

from loadtest.errors import AnswerError, LoadTestError, RequestLost
from loadtest.load.peers import LINE_END, Peer, Request

RECV_BYTES = 65536  # larger buys nothing: an 8 MB reply then only keeps the other connections waiting longer
ANSWER_TIMEOUT_S = 30.0
SPARE_FILES = 64  # beside the connections: standard streams, epoll, modules being read


class Client:
    """One blocking connection for everything outside the measured loop."""

    def __init__(self, peer: Peer, host: str, port: int, queue: bytes) -> None:
        """Connects; queue is the one it will use, where the protocol wants to know (beanstalkd)."""
        self.peer = peer
        self.sock = open_socket(peer, (host, port), queue)
        self.replies_due = 0
        self.misses = 0  # of all gets so far
        self.unparsed = b""
        self.last_name = ""

    def send(self, requests: list[Request]) -> None:
        """Send without waiting for the answers; mind that far more than the socket's buffer would block for ever."""
        self.last_name = requests[0].name
        self.replies_due += sum(request.replies for request in requests)
        self._write(b"".join([request.data for request in requests]))

    def collect(self, replies_due: int = 0) -> list[bytes]:
        """Receive until at most `replies_due` replies are still missing; returns the bodies that came."""
        bodies: list[bytes] = []
        chunks = [self.unparsed]
        while self.replies_due > replies_due:
            try:
                data = self.sock.recv(4 * RECV_BYTES)
            except TimeoutError:
                raise RequestLost(f"no answer to {self.last_name!r} within {ANSWER_TIMEOUT_S:.0f} s") from None
            except OSError as error:
                raise RequestLost(f"no answer to {self.last_name!r}: {error.strerror or error}") from error
            if not data:
                raise RequestLost(f"server closed the connection instead of answering {self.last_name!r}")
            chunks.append(data)
            if not data.endswith(LINE_END):
                continue
            data = b"".join(chunks)
            try:
                replies = self.peer.take(data)
            except AnswerError as error:
                raise LoadTestError(f"server answered {str(error)!r} to {self.last_name!r}") from error
            if replies is None:
                chunks = [data]
                continue
            chunks = []
            self.replies_due -= replies.count
            self.misses += replies.misses
            bodies += replies.bodies
            if replies.follow_up:
                self._write(replies.follow_up)
        self.unparsed = b"".join(chunks)
        return bodies

    def ask(self, requests: list[Request]) -> list[bytes]:
        """Send, and wait for all answers; returns the bodies that came."""
        self.send(requests)
        return self.collect()

    def _write(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError as error:
            raise RequestLost(f"cannot send {self.last_name!r}: {error.strerror or error}") from error

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()


def open_socket(peer: Peer, address: tuple[str, int], queue: bytes) -> socket.socket:
    """A blocking connection with a timeout, after the protocol's hello."""
    where = f"{address[0]}:{address[1]}"
    try:
        sock = socket.create_connection(address, timeout=ANSWER_TIMEOUT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        hello = peer.hello(queue)
        if hello:
            sock.sendall(hello.data)
            received = b""
            while received.count(LINE_END) < hello.replies:
                data = sock.recv(RECV_BYTES)
                if not data:
                    raise RequestLost(f"{where} closed the connection instead of answering {hello.name!r}")
                received += data
    except OSError as error:
        raise LoadTestError(f"cannot connect to {where}: {error.strerror or error}") from error
    try:
        peer.take(received if hello else b"")
    except AnswerError as error:
        raise LoadTestError(f"server answered {str(error)!r} to the hello") from error
    return sock


def raise_file_limit(connections: int) -> None:
    """Allow this process that many sockets, or raise LoadTestError if the hard limit is lower and we are not root."""
    wanted = connections + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
    except (ValueError, OSError):
        raise LoadTestError(f"{connections} connections need {wanted} open files, but `ulimit -Hn` is {hard}") from None
