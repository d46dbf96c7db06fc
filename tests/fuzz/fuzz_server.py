"""Fuzzing the whole server over sockets: several clients at once say things that are right, and some that are not.

    python -m tests.fuzz.fuzz_server --runs 100000 [--seed 1]

Each client has queues of its own, and all its items bear its mark. While it says only what is right, a model of its
queues says what each reply must be, byte by byte. Then it says something mutated and hangs up: each reply must be one
the protocol knows, and no item in it another client's. How what it says is cut, and whose piece comes when, is random.
"""

import argparse
import random
import re
import select
import socket
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

from tests.fuzz.fuzz_protocol import WORDS, mutate
from tests.support.harness import REPLY_S, RunningServer

CLIENTS = 8
REQUESTS_A_ROUND = 40
OPTIONS = (
    "--chunk-bytes",
    "1KiB",
    "--body-memory-bytes",
    "1MiB",
    "--max-reply-bytes",
    "4KiB",
    "--max-item-bytes",
    "64KiB",
)

ERROR = re.compile(rb"(ERROR|CLIENT_ERROR|SERVER_ERROR) [\x20-\x7e]*")
PLAIN = re.compile(rb"STORED|END|DELETED|VERSION [0-9.]+|STAT \S+ \S+|Flushed all queues\.")
MARK = re.compile(rb"(?=([0-9a-f]{16}))")
VALUE = re.compile(rb"VALUE (\S+) \d+ (\d+)( \d+)?")


class Model:
    """What a client that is alone with its queues must hear."""

    def __init__(self, mark: bytes) -> None:
        self.mark = mark
        self._queues: dict[bytes, deque[tuple[bytes, int]]] = {mark + b"a": deque(), mark + b"b": deque()}
        self._open: tuple[bytes, tuple[bytes, int]] | None = None
        self._open_lives = False
        self._count = 0

    def request(self, dice: random.Random) -> tuple[bytes, bytes]:
        """(a request, its reply)"""
        name = dice.choice(list(self._queues))
        queue = self._queues[name]
        end = dice.choice((b"\r\n", b"\r\n", b"\n", b" \r\n"))
        kind = dice.randrange(12)
        if kind < 5:
            return self._set(name, queue, dice, end)
        if kind == 5:
            return b"version" + end, b"VERSION 1.0.0\r\n"
        if kind == 6:
            if dice.random() < 0.7:
                return b"flush %b" % name + end, self._flush(queue)
            return b"delete %b" % name + end, self._delete(name, queue)
        if self._open is not None:
            way = dice.choice((b"/close", b"/abort", b"/close/open", b"/open/close/t=1"))
        else:
            way = dice.choice((b"", b"", b"/open", b"/peek", b"/t=1", b"/close", b"/abort", b"/peek/t=1"))
        return dice.choice((b"get ", b"GET ")) + name + way + end, self._get(name, queue, way)

    def _set(
        self, name: bytes, queue: deque[tuple[bytes, int]], dice: random.Random, end: bytes
    ) -> tuple[bytes, bytes]:
        self._count += 1
        size = dice.choice((0, 1, 30, 30, 200, 1023, 1024, 1025, 5000))
        body = (b"<%b %d %b" % (self.mark, self._count, dice.choice(WORDS) * 400))[:size]
        flags = dice.choice((0, 0, 7, 2**32 - 1))
        noreply = dice.random() < 0.2
        sync = b"/sync" if dice.random() < 0.002 else b""
        line = b"set %b%b %d 0 %d%b" % (name, sync, flags, len(body), b" noreply" if noreply else b"")
        queue.append((body, flags))
        return line + end + body + b"\r\n", b"" if noreply else b"STORED\r\n"

    def _flush(self, queue: deque[tuple[bytes, int]]) -> bytes:
        queue.clear()
        return b"END\r\n"

    def _delete(self, name: bytes, queue: deque[tuple[bytes, int]]) -> bytes:
        queue.clear()
        if self._open is not None and self._open[0] == name:
            self._open_lives = False
        return b"DELETED\r\n"

    def _get(self, name: bytes, queue: deque[tuple[bytes, int]], way: bytes) -> bytes:
        held, self._open = self._open, None
        if held is not None and b"/abort" in way and self._open_lives:
            self._queues[held[0]].appendleft(held[1])
        if way in (b"/close", b"/abort") or not queue:
            return b"END\r\n"
        body, flags = item = queue[0]
        if b"/peek" not in way:
            queue.popleft()
        if b"/open" in way:
            self._open, self._open_lives = (name, item), True
        return b"VALUE %b %d %d\r\n%b\r\nEND\r\n" % (name, flags, len(body), body)


class Talker:
    """One connection: what it has yet to say, and what it has heard."""

    def __init__(self, port: int, dice: random.Random, marks: set[bytes]) -> None:
        """`marks` are those of all clients there have been."""
        self._dice = dice
        self._marks = marks
        self.model = Model(b"%016x" % dice.getrandbits(64))
        marks.add(self.model.mark)
        self.socket = socket.create_connection(("127.0.0.1", port), REPLY_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.inputs = 0
        self._says = b""
        self._expects = b""
        self._heard = bytearray()

    def begin_round(self) -> None:
        requests = [self.model.request(self._dice) for _ in range(REQUESTS_A_ROUND)]
        self.inputs += len(requests)
        self._says = b"".join(request for request, _ in requests)
        self._expects = b"".join(reply for _, reply in requests)

    def say_some(self) -> bool:
        """False: all has been said."""
        size = self._dice.choice((1, 3, 50, 1000, 20_000))
        self.socket.sendall(self._says[:size])
        self._says = self._says[size:]
        return bool(self._says)

    def end_round(self) -> None:
        """What it hears is what its model says."""
        self._hear(len(self._expects))
        assert self._heard == self._expects, difference(self._expects, bytes(self._heard))
        self._heard.clear()

    def misbehave(self) -> None:
        """Say something mutated, and hear it out."""
        good = [self.model.request(self._dice)[0] for _ in range(8)]
        self.inputs += len(good)
        said = b"".join(good[:4]) + mutate(b"".join(good[4:]), self._dice)
        said = said.replace(b"flush_all", b"flush_al")  # would be the others' loss, and right
        try:
            for start in range(0, len(said), 700):
                self.socket.sendall(said[start : start + 700])
            self.socket.shutdown(socket.SHUT_WR)
            self._hear(1 << 30)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was hung up on before it had said all
        self.socket.close()
        problem = why_no_replies(bytes(self._heard))
        if foreign := {mark for mark in MARK.findall(self._heard) if mark in self._marks} - {self.model.mark}:
            problem = f"what {foreign} said"
        assert not problem, f"{problem}: said {said!r}, heard {bytes(self._heard)!r}"

    def _hear(self, size: int) -> None:
        until = time.monotonic() + REPLY_S
        while len(self._heard) < size:
            ready, _, _ = select.select([self.socket], [], [], max(0, until - time.monotonic()))
            assert ready, f"hangs, having said {bytes(self._heard[-200:])!r}"
            data = self.socket.recv(1 << 16)
            if not data:
                return
            self._heard += data


def difference(expected: bytes, got: bytes) -> str:
    at = next((i for i, (a, b) in enumerate(zip(expected, got, strict=False)) if a != b), min(len(expected), len(got)))
    return f"at byte {at}: expected {expected[at : at + 200]!r}, got {got[at : at + 200]!r}"


def why_no_replies(heard: bytes) -> str:
    """What is wrong with this stream of replies, the last of which may be cut off; "" if nothing is."""
    position = 0
    while position < len(heard):
        end = heard.find(b"\r\n", position)
        if end < 0:
            return ""
        line = heard[position:end]
        position = end + 2
        if value := VALUE.fullmatch(line):
            body = heard[position : position + int(value[2])]
            position += len(body)
            if heard[position : position + 7] not in (b"\r\nEND\r\n", *(b"\r\nEND\r\n"[:n] for n in range(7))):
                return "an item without its end"
            position += 7
        elif not (PLAIN.fullmatch(line) or ERROR.fullmatch(line)):
            return f"no reply of the protocol: {line!r}"
    return ""


def run(server: RunningServer, runs: int, seed: int, most_s: float = 1e9) -> int:
    """How many requests were tried. Raises AssertionError at the first thing that is wrong."""
    dice = random.Random(seed)
    marks: set[bytes] = set()
    talkers = [Talker(server.port, dice, marks) for _ in range(CLIENTS)]
    until = time.monotonic() + most_s
    tried = 0
    try:
        while tried < runs and time.monotonic() < until:
            for talker in talkers:
                talker.begin_round()
            speaking = list(talkers)
            while speaking:
                talker = dice.choice(speaking)
                if not talker.say_some():
                    speaking.remove(talker)
            for talker in talkers:
                talker.end_round()
            bad = dice.randrange(CLIENTS)
            talkers[bad].misbehave()
            tried += talkers[bad].inputs
            talkers[bad] = Talker(server.port, dice, marks)
            assert server.process.poll() is None, "the server has died"
    except BaseException:
        print(f"seed {seed}, after {tried} requests", file=sys.stderr)
        raise
    finally:
        for talker in talkers:
            talker.socket.close()
    return tried + sum(talker.inputs for talker in talkers)


def main() -> None:
    parser = argparse.ArgumentParser(description="fuzz the server over sockets")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = RunningServer(Path(folder) / "data", *OPTIONS)
        began = time.monotonic()
        try:
            tried = run(server, options.runs, options.seed)
        finally:
            server.end()
    print(f"{tried} requests over {CLIENTS} connections in {time.monotonic() - began:.0f} s, nothing found")


if __name__ == "__main__":
    main()
