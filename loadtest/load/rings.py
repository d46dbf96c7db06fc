"""Sends requests over many connections and notes how long each took.

Owns the measured sockets and the clock: an epoll loop over connections that each walk a ring of prebuilt steps, one
request (or one batch) in flight each. It knows no protocol; that is peers.py.

The loop is written for speed. Its plain form would parse every reply; here a reply that equals the expected bytes is
done with one comparison, and only others are parsed (`_whole`). A batch counts as one round, as with
`redis-benchmark -P`: it is sent in one write, the next follows when all its answers are there, and its time is the time
of each request in it.
"""

from __future__ import annotations

import gc
import select
import socket
from array import array
from collections.abc import Callable, Iterable
from math import inf
from time import perf_counter

from loadtest.errors import AnswerError, LoadTestError, RequestLost
from loadtest.load.client import ANSWER_TIMEOUT_S, RECV_BYTES, open_socket
from loadtest.load.peers import LINE_END, Peer, Request

SLICE_S = 0.1  # how often the loop comes up to look at the progress bar and its stop condition


class Step:
    """One write and the answer it must get, in a chain of steps; several connections may walk the same chain."""

    __slots__ = (
        "body",
        "done",
        "expected",
        "following",
        "gets",
        "name",
        "pause_s",
        "puts",
        "replies",
        "request",
        "size",
    )

    def __init__(self, requests: list[Request], body: bytes = b"", pause_s: float = 0.0) -> None:
        """body: what every get here must bring (empty: anything); pause_s: to wait before sending, from the answer
        before."""
        self.request = b"".join([request.data for request in requests])
        self.size = len(self.request)
        known = all(request.expected for request in requests)
        self.expected = b"".join([request.expected for request in requests]) if known else b""
        self.replies = sum(request.replies for request in requests)
        self.puts = sum(request.puts for request in requests)
        self.gets = sum(request.gets for request in requests)
        self.name = requests[0].name if requests else ""
        if len(requests) > 1:
            self.name += f" (or another of {len(requests)} sent together)"
        self.body = body
        self.pause_s = pause_s
        self.done = 0  # how many times it was answered
        self.following = self


END_OF_CHAIN = Step([], pause_s=inf)


def ring(steps: list[Step]) -> Step:
    """Link steps so that the last is followed by the first; returns the first."""
    for step, following in zip(steps, steps[1:] + steps[:1], strict=True):
        step.following = following
    return steps[0]


def chain(steps: list[Step]) -> Step:
    """Link steps so that a connection rests after the last; returns the first."""
    ring(steps)
    steps[-1].following = END_OF_CHAIN
    return steps[0]


class Connection:
    """One non-blocking socket and where it stands in its chain."""

    __slots__ = (
        "chunks",
        "due_at",
        "first",
        "note",
        "recv",
        "seen",
        "send",
        "sock",
        "started",
        "step",
        "taken",
        "unsent",
    )

    def __init__(self, sock: socket.socket, first: Step, note: Callable[[float], None]) -> None:
        """note: called with the seconds that each round took."""
        self.sock = sock
        self.recv = sock.recv
        self.send = sock.send
        self.first = self.step = first
        self.note = note
        self.started = 0.0
        self.due_at = 0.0  # while resting: when to go on
        self.seen = 0  # bytes of the answer so far, if all were as expected
        self.chunks: list[bytes] = []  # else: what could not be taken apart yet
        self.taken = 0  # and the number of replies taken
        self.unsent = memoryview(b"")


class Load:
    """Connections that keep a server busy. Every request sent is answered before `land` returns."""

    def __init__(self, peer: Peer, host: str, port: int) -> None:
        """No connection yet: see `connect`."""
        self.peer = peer
        self.address = (host, port)
        self.epoll = select.epoll()
        self.connections: dict[int, Connection] = {}
        self.idle: list[Connection] = []  # not started, or landed
        self.resting: list[Connection] = []  # paused until due_at
        self.wake_at = inf
        self.misses = 0
        self.wrong_bodies = 0

    def connect(
        self,
        queue: bytes,
        firsts: Iterable[Step],
        latencies: array[float],
        send_buffer_bytes: int = 0,
        tick: Callable[[int], None] | None = None,
    ) -> list[Connection]:
        """One connection per step in firsts, to begin there with the next `run`; rounds are noted in latencies."""
        added = []
        for first in firsts:
            sock = open_socket(self.peer, self.address, queue)
            if send_buffer_bytes:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
            sock.setblocking(False)
            connection = Connection(sock, first, latencies.append)
            self.connections[sock.fileno()] = connection
            self.epoll.register(sock.fileno(), select.EPOLLIN)
            added.append(connection)
            if tick:
                tick(len(added))
        self.idle += added
        return added

    def run(
        self,
        seconds: float,
        tick: Callable[[float], None] | None = None,
        until: Callable[[], bool] = lambda: False,
    ) -> float:
        """Keep the connections busy for some seconds, or until a condition holds; returns the seconds it took."""
        idle, self.idle = self.idle, []
        for connection in idle:
            self._begin(connection)
        return self._keep_going(seconds, tick, until)

    def _keep_going(self, seconds: float, tick: Callable[[float], None] | None, until: Callable[[], bool]) -> float:
        """`run` without beginning idle connections."""
        begun = perf_counter()
        gc_was_enabled = gc.isenabled()
        gc.disable()  # the loop makes no cycles, and a collection would show up as latency
        try:
            while (passed_s := perf_counter() - begun) < seconds and not until():
                if tick:
                    tick(passed_s)
                self._run_until(begun + min(passed_s + SLICE_S, seconds))
        except OSError as error:
            raise RequestLost(f"connection lost while requests were in flight: {error.strerror or error}") from error
        finally:
            if gc_was_enabled:
                gc.enable()
        return perf_counter() - begun

    def land(self) -> None:
        """Send nothing more and wait for the answers to all that is in flight; `run` then begins anew.

        The steps are made to lead nowhere for as long as this takes, so that the hot loop needs no test for landing.
        """
        for connection in self.resting:
            connection.due_at = inf
        steps = self._steps()
        followings = [step.following for step in steps]
        for step in steps:
            step.following = END_OF_CHAIN
        everyone = len(self.connections) - len(self.idle)
        self._keep_going(ANSWER_TIMEOUT_S, None, lambda: len(self.resting) == everyone)
        for step, following in zip(steps, followings, strict=True):
            step.following = following
        if len(self.resting) != everyone:
            late = next(c for c in self.connections.values() if c not in self.resting)
            raise RequestLost(
                f"{everyone - len(self.resting)} connections had no answer within {ANSWER_TIMEOUT_S:.0f} s, "
                f"one of them to {late.step.name!r}"
            )
        for connection in self.resting:
            connection.step = connection.first
            self.idle.append(connection)
        self.resting = []

    def finish(self, requests: list[Request | None]) -> None:
        """After `land` and `totals`: one last request (or none) for each connection, in order of connecting."""
        for connection, request in zip(self.connections.values(), requests, strict=True):
            connection.first = connection.step = chain([Step([request])]) if request else END_OF_CHAIN
        self.run(0.0)
        self.land()

    def totals(self) -> tuple[int, int]:
        """Puts that were stored and gets that brought an item, since the beginning."""
        steps = self._steps()
        puts = sum(step.done * step.puts for step in steps)
        return puts, sum(step.done * step.gets for step in steps) - self.misses

    def close(self) -> None:
        """Close all connections."""
        for connection in self.connections.values():
            connection.sock.close()
        self.connections = {}
        self.epoll.close()

    def _steps(self) -> list[Step]:
        """Every step of every chain, once."""
        steps: dict[int, Step] = {}
        for connection in self.connections.values():
            step = connection.first
            while id(step) not in steps and step is not END_OF_CHAIN:
                steps[id(step)] = step
                step = step.following
        return list(steps.values())

    def _run_until(self, deadline: float) -> None:
        """The hot loop: about 9 µs a round with 100 connections, of which the kernel takes 7."""
        poll, connections, clock, whole = self.epoll.poll, self.connections, perf_counter, self._whole
        now = clock()
        while now < deadline:
            if now >= self.wake_at:
                self._wake(now)
            for fd, _events in poll(max(0.0, min(deadline, self.wake_at) - now)):
                connection = connections[fd]
                step = connection.step
                try:
                    data = connection.recv(RECV_BYTES)
                except BlockingIOError:
                    self._send_rest(connection)  # so it was woken because it can send again
                    continue
                if data != step.expected and not whole(connection, data):
                    continue
                now = clock()
                connection.note(now - connection.started)
                step.done += 1
                step = connection.step = step.following
                if step.pause_s:
                    self._rest(connection, now)
                    continue
                connection.started = now
                sent = connection.send(step.request)
                if sent != step.size:
                    self._keep_rest(connection, step.request, sent)
            now = clock()

    def _whole(self, connection: Connection, data: bytes) -> bool:
        """Take in more of an answer that did not come in one piece, or is not known beforehand; True if it is all."""
        step = connection.step
        if not data:
            raise RequestLost(f"server closed the connection instead of answering {step.name!r}")
        if not connection.taken and not connection.chunks:
            if step.expected.startswith(data, connection.seen):
                connection.seen += len(data)
                if connection.seen < len(step.expected):
                    return False
                connection.seen = 0
                return True
            if connection.seen:
                connection.chunks.append(step.expected[: connection.seen])
                connection.seen = 0
        connection.chunks.append(data)
        if not data.endswith(LINE_END):
            return False  # every reply ends so, and bodies hold none: without it there is no need to join and look
        data = b"".join(connection.chunks)
        try:
            replies = self.peer.take(data)
        except AnswerError as error:
            raise LoadTestError(f"server answered {str(error)!r} to {step.name!r}") from error
        if replies is None:
            connection.chunks = [data]
            return False
        connection.chunks = []
        self.misses += replies.misses
        if step.body:
            self.wrong_bodies += len(replies.bodies) - replies.bodies.count(step.body)
        if replies.follow_up:
            self._send(connection, replies.follow_up)
        connection.taken += replies.count
        if connection.taken < step.replies:
            return False
        if connection.taken > step.replies:
            raise LoadTestError(f"server sent more replies than asked for after {step.name!r}")
        connection.taken = 0
        return True

    def _begin(self, connection: Connection) -> None:
        if connection.step.pause_s:
            self._rest(connection, perf_counter())
        else:
            connection.started = perf_counter()
            self._send(connection, connection.step.request)

    def _rest(self, connection: Connection, now: float) -> None:
        connection.due_at = now + connection.step.pause_s
        self.wake_at = min(self.wake_at, connection.due_at)
        self.resting.append(connection)

    def _wake(self, now: float) -> None:
        due = [connection for connection in self.resting if connection.due_at <= now]
        self.resting = [connection for connection in self.resting if connection.due_at > now]
        self.wake_at = min((connection.due_at for connection in self.resting), default=inf)
        for connection in due:
            connection.started = perf_counter()
            self._send(connection, connection.step.request)

    def _send(self, connection: Connection, data: bytes) -> None:
        """Send, behind whatever could not be sent yet."""
        if connection.unsent:
            connection.unsent = memoryview(bytes(connection.unsent) + data)
            return
        try:
            sent = connection.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise RequestLost(f"cannot send {connection.step.name!r}: {error.strerror or error}") from error
        if sent != len(data):
            self._keep_rest(connection, data, sent)

    def _keep_rest(self, connection: Connection, data: bytes, sent: int) -> None:
        connection.unsent = memoryview(data)[sent:]
        self.epoll.modify(connection.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _send_rest(self, connection: Connection) -> None:
        if connection.unsent:
            connection.unsent = connection.unsent[connection.send(connection.unsent) :]
        if not connection.unsent:
            self.epoll.modify(connection.sock.fileno(), select.EPOLLIN)
