"""What goes on around the load of a soak: queues that are made and deleted all the time, and clients that die half-way.

Nothing here is held to the promises of the mixed load: its queues have names of their own. The one check is that an
item that was answered STORED in a queue of one's own comes out of it again, unless the disk refuses that. Switches
greenlets everywhere.
"""

from __future__ import annotations

import struct
from collections import deque
from random import Random
from socket import SO_LINGER, SOL_SOCKET
from typing import BinaryIO

import gevent
import gevent.socket

from loadtest.errors import Violation

HOST = "127.0.0.1"
ANSWER_S = 30.0
AGAIN_S = 0.05  # after a connection that could not be made: the server is being restarted
QUEUE_PAUSE_S = 0.03
DYING_PAUSE_S = 0.2
MOST_HALF_DEAD = 60  # at a time; the oldest then really ends, mostly by a reset
LARGE_BYTES = 50_000

# What a client has sent when it is never heard of again. It reads none of the answers.
LAST_WORDS = (
    b"",
    b"get half-dead",
    b"set half-dead 0 0 100\r\nhalf an item",
    b"set half-dead 0 0 %d\r\n%b" % (LARGE_BYTES, bytes(LARGE_BYTES // 2)),
    b"set half-dead 0 0 2\r\nab\r\nget half-dead/open\r\n",
    b"get half-dead-nothing/t=600000\r\n",
    b"get half-dead-nothing/t=600000\r\n" + b"get half-dead\r\n" * 5000,
    b"set half-dead 0 0 %d\r\n%b\r\n" % (LARGE_BYTES, bytes(LARGE_BYTES)) + b"get half-dead/peek\r\n" * 200,
    b"stats\r\n" * 500,
)


class Trouble:
    """Greenlets against one server process, until `end`."""

    def __init__(self, port: int, seed: str) -> None:
        """seed: of all choices."""
        self.port = port
        self.queues_made = self.half_dead = 0
        self.found: Violation | None = None
        self._tag = seed.encode().hex()[-12:].encode()
        self._greenlets = [
            gevent.spawn(self._make_and_delete, Random(f"{seed} queues")),
            gevent.spawn(self._die, Random(f"{seed} clients")),
        ]

    def end(self) -> None:
        """No more of it. Raises Violation."""
        gevent.killall(self._greenlets)
        if self.found is not None:
            raise self.found

    def _connect(self) -> gevent.socket.socket:
        while True:
            try:
                return gevent.socket.create_connection((HOST, self.port), ANSWER_S)
            except OSError:
                gevent.sleep(AGAIN_S)

    def _make_and_delete(self, rng: Random) -> None:
        while self.found is None:
            connection = self._connect()
            try:
                with connection, connection.makefile("rb") as answers:
                    while self.found is None:
                        self._make_one(rng, connection, answers)
                        gevent.sleep(QUEUE_PAUSE_S)
            except OSError:
                pass  # the server is being restarted, or hangs up in the middle of a reply because the disk fails

    def _make_one(self, rng: Random, connection: gevent.socket.socket, answers: BinaryIO) -> None:
        self.queues_made += 1
        name = b"churn-%b-%d" % (self._tag, self.queues_made)
        body = bytes(LARGE_BYTES) if rng.random() < 0.1 else b"%d" % self.queues_made
        stored = _answer(connection, answers, b"set %b 0 0 %d\r\n%b\r\n" % (name, len(body), body))
        if stored == b"STORED\r\n" and rng.random() < 0.7:
            got = _answer(connection, answers, b"get %b\r\n" % name)
            value = b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (name, len(body), body)
            if got != value and not got.startswith(b"SERVER_ERROR"):
                self.found = Violation(f"queue {name.decode()}: an item was stored, and then it is {got[:80]!r}")
        _answer(connection, answers, b"delete %b\r\n" % name)

    def _die(self, rng: Random) -> None:
        dying: deque[gevent.socket.socket] = deque()
        while True:
            connection = self._connect()
            try:
                connection.settimeout(0.05)  # what the server does not take in that time it is not sent
                connection.sendall(rng.choice(LAST_WORDS))
            except OSError:
                pass
            dying.append(connection)
            self.half_dead += 1
            if len(dying) > MOST_HALF_DEAD:
                last = dying.popleft()
                if rng.random() < 0.7:
                    last.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
                last.close()
            gevent.sleep(DYING_PAUSE_S)


def _answer(connection: gevent.socket.socket, answers: BinaryIO, request: bytes) -> bytes:
    """The answer to `request`: a line, or an item whole. Raises OSError if the server has gone."""
    connection.sendall(request)
    answer = answers.readline()
    if answer.startswith(b"VALUE "):
        answer += answers.read(int(answer.split()[3]) + len(b"\r\nEND\r\n"))
    if not answer.endswith(b"\n"):
        raise OSError("hung up")
    return answer
