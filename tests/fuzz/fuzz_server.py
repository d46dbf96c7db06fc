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
from bisect import insort
from pathlib import Path
from typing import NamedTuple

from darner_core.engines.jobs import NEUTRAL
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
PLAIN = re.compile(
    rb"(NOT_)?STORED|TOUCHED|NOT_FOUND|KICKED \d+|PAUSED [a-z]+"
    rb"|END|DELETED|VERSION [0-9.]+|STAT \S+ \S+|Flushed all queues\."
)
MARK = re.compile(rb"(?=([0-9a-f]{16}))")
VALUE = re.compile(rb"VALUE (\S+) \d+ (\d+)( \d+)?")


class Item(NamedTuple):
    pri: int
    place: int  # in the order of arrival
    body: bytes
    flags: int
    key: bytes


class Held(NamedTuple):
    name: bytes
    item: Item


class Model:
    """What a client that is alone with its queues must hear."""

    def __init__(self, mark: bytes) -> None:
        self.mark = mark
        # What is ready, the most urgent first, and what is buried, the oldest burial first.
        self._queues: dict[bytes, list[Item]] = {mark + b"a": [], mark + b"b": []}
        self._buried: dict[bytes, list[Item]] = {name: [] for name in self._queues}
        self._open: Held | None = None
        self._open_lives = False
        self._count = 0

    def request(self, dice: random.Random) -> tuple[bytes, bytes]:
        """(a request, its reply)"""
        name = dice.choice(list(self._queues))
        end = dice.choice((b"\r\n", b"\r\n", b"\n", b" \r\n"))
        kind = dice.randrange(14)
        if kind < 5:
            return self._set(name, dice, end)
        if kind == 5:
            return b"version" + end, b"VERSION 1.0.0\r\n"
        if kind == 6:
            if dice.random() < 0.7:
                return b"flush %b" % name + end, self._flush(name)
            return b"delete %b" % name + end, self._delete(name)
        if kind == 7:
            noreply = b" noreply" if dice.random() < 0.2 else b""
            touched = b"TOUCHED\r\n" if self._open is not None and self._open_lives else b"NOT_FOUND\r\n"
            return b"touch %b 600%b" % (name, noreply) + end, b"" if noreply else touched
        if kind == 8:
            most = dice.choice((1, 2, 100))
            return b"kick %b %d" % (name, most) + end, b"KICKED %d\r\n" % self._kick(name, most)
        verb = dice.choice((b"get ", b"GET "))
        if self._open is not None:
            way = dice.choice(
                (b"/close", b"/abort", b"/reject", b"/abort/pri=7", b"/abort/delay=0", b"/close/open",
                 b"/open/close/t=1", b"/close/open/ttr=600000")
            )  # fmt: skip
        else:
            way = dice.choice(
                (b"", b"", b"/open", b"/peek", b"/t=1", b"/close", b"/abort", b"/peek/t=1", b"/reject", b"/open/ttr")
            )
        if dice.random() < 0.1 and b"/peek" not in way and (way in (b"", b"/t=1") or b"/open" in way):
            second = dice.choice(list(self._queues))
            return verb + name + b" " + second + way + end, self._get((name, second), way)
        return verb + name + way + end, self._get((name,), way)

    def _set(self, name: bytes, dice: random.Random, end: bytes) -> tuple[bytes, bytes]:
        self._count += 1
        size = dice.choice((0, 1, 30, 30, 200, 1023, 1024, 1025, 5000))
        body = (b"<%b %d %b" % (self.mark, self._count, dice.choice(WORDS) * 400))[:size]
        flags = dice.choice((0, 0, 7, 2**32 - 1))
        noreply = dice.random() < 0.2
        sync = b"/sync" if dice.random() < 0.002 else b""
        key = dice.choice((b"x", b"y")) if dice.random() < 0.1 else b""
        pri = dice.choice((0, 7, NEUTRAL, 2000)) if dice.random() < 0.2 else None
        said = (b"/key=" + key if key else b"") + (b"/pri=%d" % pri if pri is not None else b"") + sync
        verb = b"add" if key and dice.random() < 0.5 else b"set"
        line = b"%b %b%b %d 0 %d%b" % (verb, name, said, flags, len(body), b" noreply" if noreply else b"")
        taken = bool(key) and key in self._keys(name)
        if not taken:
            insort(self._queues[name], Item(NEUTRAL if pri is None else pri, self._count, body, flags, key))
        reply = b"NOT_STORED\r\n" if taken and verb == b"add" else b"STORED\r\n"
        return line + end + body + b"\r\n", b"" if noreply else reply

    def _keys(self, name: bytes) -> set[bytes]:
        held = [self._open.item] if self._open is not None and self._open_lives and self._open.name == name else []
        return {item.key for item in (*self._queues[name], *self._buried[name], *held)}

    def _flush(self, name: bytes) -> bytes:
        self._queues[name].clear()
        return b"END\r\n"

    def _delete(self, name: bytes) -> bytes:
        self._queues[name].clear()
        self._buried[name].clear()
        if self._open is not None and self._open.name == name:
            self._open_lives = False
        return b"DELETED\r\n"

    def _kick(self, name: bytes, most: int) -> int:
        kicked, self._buried[name] = self._buried[name][:most], self._buried[name][most:]
        for item in kicked:
            insort(self._queues[name], item)
        return len(kicked)

    def _get(self, names: tuple[bytes, ...], way: bytes) -> bytes:
        held, self._open = self._open, None
        if held is not None and self._open_lives:
            if b"/abort" in way:
                item = held.item._replace(pri=7) if b"/pri=7" in way else held.item
                insort(self._queues[held.name], item)
            elif b"/reject" in way:
                self._buried[held.name].append(held.item)
        if way == b"/close" or b"/abort" in way or b"/reject" in way:
            return b"END\r\n"
        name = next((name for name in names if self._queues[name]), None)
        if name is None:
            return b"END\r\n"
        item = self._queues[name][0]
        if b"/peek" not in way:
            self._queues[name].pop(0)
        if b"/open" in way:
            self._open, self._open_lives = Held(name, item), True
        return b"VALUE %b %d %d\r\n%b\r\nEND\r\n" % (name, item.flags, len(item.body), item.body)


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
