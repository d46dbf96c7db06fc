#!/usr/bin/env python3
r"""Replay wire transcripts against a running queue server.

    python tests/wire/transcript.py --port 22133 [--host ADDRESS] [--bytewise] FILE...

Prints what differs, and exits with status 1 if anything does.

A transcript is a text file of cases. A case begins with a line `== title`, and talks over connections of its own to
queues of its own: `{q}` stands for a name that no other case has. Its steps, for connection A, which is opened when
it is first named:

    A> bytes        A sends these bytes
    A< bytes        A now receives exactly these bytes
    A~ regex        A now receives bytes that match this regular expression as a whole
    A.              A receives nothing for now
    A# eof          the server hangs up on A
    A! close        A hangs up
    A! reset        A hangs up with an RST
    sleep 0.2       wait 0.2 seconds

Bytes are written with \r \n \t \\ and \x00; `z\*5` is zzzzz. Empty lines and lines that begin with # say nothing.

A case ends when its last step is done and no connection that is still open has anything more to read.
"""

import argparse
import re
import socket
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPLY_S = 10.0  # a loaded machine; a reply takes less than 1 ms
# What a server has to say at once it has said before it answers another client; this is what comes a little later.
QUIET_S = 0.02

# Byte by byte, up to this number of bytes are sent each by itself. Of more only the first and the last few are, where
# the request line ends and the item ends, with larger pieces between them: 200,000 sends would take half a minute.
MOST_SINGLE_BYTES = 4000
FIRST_BYTES, LAST_BYTES, PIECE_BYTES = 300, 10, 997
PAUSE_S = 0.00005  # between them, so that the server has the time to read one before the next comes

_STEP = re.compile(r"(\w)([<>~.#!])(?: (.*))?|sleep ([\d.]+)")
_CHARACTER = re.compile(r"(\\x[0-9a-fA-F]{2}|\\[rnt\\]|[^\\])(?:\\\*(\d+))?")


class Mismatch(AssertionError):
    """The server did something else than the transcript says."""


@dataclass(frozen=True)
class Step:
    line: int
    peer: str  # "" for a sleep
    kind: str
    text: str


@dataclass(frozen=True)
class Case:
    title: str
    where: str  # file:line
    steps: list[Step]


# -- reading transcripts


def read_cases(path: Path) -> list[Case]:
    """The cases of a transcript. Raises ValueError, naming the line, for what is no step."""
    cases: list[Case] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        where = f"{path.name}:{number}"
        if line.startswith("== "):
            cases.append(Case(line[3:], where, []))
        elif line.strip() and not line.startswith("#"):
            match = _STEP.fullmatch(line)
            if match is None or not cases:
                raise ValueError(f"{where}: not a step of a case: {line}")
            peer, kind, text, seconds = match.groups()
            step = Step(number, "", "sleep", seconds) if seconds else Step(number, peer, kind, text or "")
            if (step.kind == "!" and text not in ("close", "reset")) or (step.kind == "#" and text != "eof"):
                raise ValueError(f"{where}: not a step of a case: {line}")
            cases[-1].steps.append(step)
    return cases


def to_bytes(text: str, queue: str) -> bytes:
    """The bytes that `text` stands for. Raises ValueError for an unknown escape."""
    text = text.replace("{q}", queue)
    parts, position = [], 0
    while position < len(text):
        match = _CHARACTER.match(text, position)
        if match is None:
            raise ValueError(f"not an escape: {text[position : position + 4]}")
        character = match[1].encode("latin-1").decode("unicode_escape").encode("latin-1")
        parts.append(character * int(match[2] or 1))
        position = match.end()
    return b"".join(parts)


# -- talking


def pieces(data: bytes) -> Iterator[bytes]:
    """`data` in the pieces that are sent one by one when it is sent byte by byte."""
    middle = range(0)
    if len(data) > MOST_SINGLE_BYTES:
        middle = range(FIRST_BYTES, len(data) - LAST_BYTES, PIECE_BYTES)
    for position in range(middle.start if middle else len(data)):
        yield data[position : position + 1]
    for position in middle:
        yield data[position : min(position + PIECE_BYTES, middle.stop)]
    for position in range(middle.stop if middle else len(data), len(data)):
        yield data[position : position + 1]


class Peer:
    """One connection of a case. What it expects and does not find is a Mismatch."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, REPLY_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        self._ended = False  # the server has hung up

    def send(self, data: bytes, bytewise: bool) -> None:
        try:
            for piece in pieces(data) if bytewise else [data]:
                self._socket.sendall(piece)
                if bytewise:
                    time.sleep(PAUSE_S)
        except ConnectionError:
            pass  # the server has hung up in the middle, which may be right: the next steps tell

    def expect(self, wanted: bytes) -> None:
        while wanted.startswith(self._received) and self._received != wanted and self._receive(REPLY_S):
            pass
        if not self._received.startswith(wanted):
            raise Mismatch(f"wanted {_short(wanted)}, got {_short(self._received)}")
        self._received = self._received[len(wanted) :]

    def expect_match(self, pattern: bytes) -> None:
        while not re.fullmatch(pattern, self._received):
            if not self._receive(REPLY_S):
                raise Mismatch(f"wanted a match of {pattern!r}, got {_short(self._received)}")
        self._received = b""

    def expect_nothing(self) -> None:
        self._receive(QUIET_S)
        if self._received:
            raise Mismatch(f"wanted nothing, got {_short(self._received)}")

    def expect_end(self) -> None:
        while not self._received and self._receive(REPLY_S):
            pass
        if self._received or not self._ended:
            raise Mismatch(f"wanted a hang-up, got {_short(self._received)}")

    def _receive(self, seconds: float) -> bool:
        """Read more. False: nothing comes within this time, or the server has hung up."""
        if self._ended:
            return False
        self._socket.settimeout(seconds)
        try:
            data = self._socket.recv(1 << 20)
        except TimeoutError:
            return False
        except ConnectionError:
            data = b""
        self._received += data
        self._ended = not data
        return not self._ended

    def close(self, reset: bool = False) -> None:
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


def _short(data: bytes) -> str:
    return repr(data) if len(data) <= 400 else f"{data[:200]!r}...{data[-100:]!r} ({len(data)} bytes)"


class Replay:
    """Replays cases against the server at `address`, sending byte by byte if `bytewise`."""

    def __init__(self, address: tuple[str, int], bytewise: bool = False) -> None:
        self._address = address
        self._bytewise = bytewise
        self._peers: dict[str, Peer] = {}

    def run(self, case: Case, queue: str) -> None:
        """Replay one case with `queue` as its queue's name. Raises Mismatch, naming the line."""
        where = case.where
        try:
            for step in case.steps:
                where = f"{case.where.partition(':')[0]}:{step.line}: {step.peer}{step.kind}"
                self._do(step, queue)
            where = f"{case.where}: at the end of the case"
            self._catch_up()
            for peer in self._peers.values():
                peer.expect_nothing()
        except Mismatch as mismatch:
            raise Mismatch(f"{where}: {mismatch}") from None
        finally:
            for peer in self._peers.values():
                peer.close()
            self._peers.clear()

    def _do(self, step: Step, queue: str) -> None:
        if step.kind == "sleep":
            time.sleep(float(step.text))
            return
        if step.peer not in self._peers:
            self._peers[step.peer] = Peer(self._address)
        peer = self._peers[step.peer]
        if step.kind == ">":
            peer.send(to_bytes(step.text, queue), self._bytewise)
        elif step.kind == "<":
            peer.expect(to_bytes(step.text, queue))
        elif step.kind == "~":
            peer.expect_match(step.text.replace("{q}", queue).encode("latin-1"))
        elif step.kind == ".":
            self._catch_up()
            peer.expect_nothing()
        elif step.kind == "#":
            peer.expect_end()
        else:
            peer.close(reset=step.text == "reset")
            del self._peers[step.peer]
            self._catch_up()

    def _catch_up(self) -> None:
        """Wait until the server has dealt with all that it was sent, and with all hang-ups.

        It serves its clients in turn, so it has done that when a client that comes now has been answered.
        """
        newcomer = Peer(self._address)
        newcomer.send(b"version\r\n", bytewise=False)
        newcomer.expect_match(rb"VERSION .+\r\n")
        newcomer.close()


# -- from a shell


def main() -> int:
    parser = argparse.ArgumentParser(description="replay wire transcripts against a running queue server")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--bytewise", action="store_true", help="send every byte by itself")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    options = parser.parse_args()
    replay = Replay((options.host, options.port), options.bytewise)
    cases = [case for path in options.files for case in read_cases(path)]
    run = time.time_ns() // 1_000_000  # new queues every time
    failed = 0
    for index, case in enumerate(cases):
        try:
            replay.run(case, f"t{run}x{index}")
        except Mismatch as mismatch:
            failed += 1
            print(f"FAILED {case.title}\n    {mismatch}")
    print(f"{len(cases) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
