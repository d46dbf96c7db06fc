"""beanstalkd's protocol: bytes in, requests out. No sockets, no queues, no gevent.

This module owns the grammar and its limits. It does not know what the commands do: a table of verb -> Command comes in
from `commands`, and each parser below reads one form of line.

    request = verb [ SP arguments ] CR LF                  at most 224 bytes
            | "put" SP pri SP delay SP ttr SP size CR LF body CR LF
    number  = *SP 1*DIGIT
    tube    = 1*200 of letters, digits and - + / ; . $ _ ( ) %, not - first

A verb must be lower case. A line ends with CR LF alone. Behind an error the next line is read as a command, as
beanstalkd does it: only the size in a put's line says what is no line.

Source: beanstalkd's doc/protocol.txt, and beanstalkd 1.12, which was asked with each form.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from darner_core.engines.jobs import JobOptions
from darner_core.errors import RequestError
from darner_core.protocols.beanstalkd.replies import BAD_FORMAT, EXPECTED_CRLF, UNKNOWN_COMMAND, BadFormat
from darner_core.protocols.contract import Command, PieceReader, Request, answered
from darner_core.protocols.escaping import meant, queue_name

MAX_LINE_BYTES: Final = 224  # with CR LF
MAX_TUBE_BYTES: Final = 200
MAX_U32: Final = 2**32 - 1
MAX_U64: Final = 2**64 - 1

# The most pieces in which a body that trickles in is held; beyond it they are joined.
MAX_PIECES: Final = 64

# Clients send few different lines without a job's number, over and over: a look-up is 0.03 us, a parse 2 us.
MAX_KEPT_LINES: Final = 4096

TUBE: Final = re.compile(rb"(?!-)[A-Za-z0-9+/;.$_()%-]{1,200}")
# What a tube cannot be called, so that it is escaped.
NOT_IN_TUBES: Final = re.compile(rb"[^A-Za-z0-9+/;.$_()-]|^-")

_CRLF: Final = b"\r\n"
_NO_OPTIONS: Final = JobOptions()
_NUMBER: Final = re.compile(rb" *(\d+)")
_ATOI: Final = re.compile(rb"[ \t]*([+-]?\d+)")


@dataclass(slots=True)
class TubeRequest(Request):
    """One request line, parsed. Shared by all connections that send the same line, so it is never changed."""

    tube: bytes = b""  # as the client calls it
    job: int = 0  # its public number
    pri: int = 0
    seconds: int = 0  # a delay, a time to wait, or how long a tube is paused
    ttr_s: int = 0
    most: int = 0
    options: JobOptions = _NO_OPTIONS  # of a put
    too_big: bool = False  # the body is read and dropped
    refused: bool = False  # at present: the body is read and dropped, and `run` says why


def _number(words: bytes, at: int, highest: int = MAX_U32) -> tuple[int, int]:
    """(the number that begins here, where it ends). Raises BadFormat."""
    found = _NUMBER.match(words, at)
    if found is None or len(found[1]) > 20 or int(found[1]) > highest:
        raise BadFormat
    return int(found[1]), found.end()


def _last(words: bytes, at: int = 0, highest: int = MAX_U32) -> int:
    """As `_number`, and nothing may follow."""
    number, end = _number(words, at, highest)
    if end != len(words):
        raise BadFormat
    return number


def _tube(name: bytes) -> tuple[bytes, bytes]:
    """(the tube, its queue). Raises BadFormat."""
    queue = queue_name(meant(name)) if TUBE.fullmatch(name) else None
    if queue is None:
        raise BadFormat
    return name, queue


def parse_put(request: TubeRequest, words: bytes) -> None:
    """`put <pri> <delay> <ttr> <bytes>`"""
    request.pri, at = _number(words, 0)
    request.seconds, at = _number(words, at)
    request.ttr_s, at = _number(words, at)
    request.ttr_s = max(1, request.ttr_s)
    request.body_bytes = _last(words, at)
    request.options = JobOptions(request.seconds * 1000, request.pri, request.ttr_s * 1000)


def parse_naming(request: TubeRequest, words: bytes) -> None:
    """`use <tube>`, `watch <tube>`, `ignore <tube>`, `stats-tube <tube>`"""
    request.tube, request.queue = _tube(words)


def parse_pausing(request: TubeRequest, words: bytes) -> None:
    """`pause-tube <tube> <seconds>`"""
    name, _, seconds = words.lstrip(b" ").partition(b" ")
    request.tube, request.queue = _tube(name)
    request.seconds = _last(seconds)


def parse_job(request: TubeRequest, words: bytes) -> None:
    """`delete <id>`, `touch <id>`, `peek <id>`, `kick-job <id>`, `reserve-job <id>`, `stats-job <id>`"""
    request.job = int(words) if words.isdigit() and len(words) < 19 else _last(words, 0, MAX_U64)


def parse_release(request: TubeRequest, words: bytes) -> None:
    """`release <id> <pri> <delay>`"""
    request.job, at = _number(words, 0, MAX_U64)
    request.pri, at = _number(words, at)
    request.seconds = _last(words, at)


def parse_bury(request: TubeRequest, words: bytes) -> None:
    """`bury <id> <pri>`"""
    request.job, at = _number(words, 0, MAX_U64)
    request.pri = _last(words, at)


def parse_kick(request: TubeRequest, words: bytes) -> None:
    """`kick <bound>`. What follows the number is passed over."""
    found = _ATOI.match(words)
    if found is None:
        raise BadFormat
    request.most = int(found[1]) % 2**32 if len(found[1]) < 20 else MAX_U32


def parse_waiting(request: TubeRequest, words: bytes) -> None:
    """`reserve-with-timeout <seconds>`"""
    request.seconds = _last(words)


def parse_bare(request: TubeRequest, words: bytes) -> None:
    if words:
        raise BadFormat


def parse_any(request: TubeRequest, words: bytes) -> None:
    """`quit`, whatever stands behind it."""


# Verbs that a line may begin with although no space follows: beanstalkd then says what is wrong with the rest.
BARE: Final = (
    b"peek-ready", b"peek-delayed", b"peek-buried", b"reserve", b"stats", b"list-tubes", b"list-tube-used",
    b"list-tubes-watched", b"quit", b"pause-tube",
)  # fmt: skip
_IS_BARE: Final = frozenset(BARE)
# Lines that name a job are not kept: there are as many as there are jobs.
_KEPT: Final = (parse_put, parse_naming, parse_bare, parse_waiting)


class JobReader(PieceReader):
    """Turns the bytes of one connection into requests. See `contract.Reader`.

    What it holds is bounded: one incomplete line, or one incomplete body of at most `chunk_bytes`.
    """

    __slots__ = (
        "_table", "_kept", "_chunk", "_most_body", "_searched", "_skips", "in_pieces", "error",
    )  # fmt: skip

    def __init__(
        self,
        table: Mapping[bytes, Command],
        kept_lines: dict[bytes, TubeRequest],
        max_job_bytes: int,
        chunk_bytes: int,
    ) -> None:
        super().__init__()
        self._table = table
        self._kept = kept_lines
        self._most_body = max_job_bytes
        self._chunk = chunk_bytes
        self._searched = 0  # so far there is no end of a line in `_rest`
        self._skips = False  # the line is too long: it is dropped up to its end
        self.in_pieces = False
        self.error: RequestError | None = None  # always None: the connection goes on behind every error

    def single(self, data: bytes) -> Request | None:
        end = data.find(_CRLF)
        if self.in_pieces or end < 0 or end + len(_CRLF) != len(data):
            return None
        request = self._read_line(data[:-1])
        return request if request.body_bytes < 0 else None

    def requests(self, data: bytes) -> Iterator[tuple[Request, bytes | None]]:
        assert self.large is None, "a body has to be taken first"
        position = 0
        if self._missing:
            self._parts.append(data)
            if len(data) < self._missing:
                self._missing -= len(data)
                if len(self._parts) >= MAX_PIECES:
                    self._parts = [b"".join(self._parts)]
                return
            data = b"".join(self._parts)
            self._parts, self._missing = [], 0
            request = self._request
            assert request is not None
            self.in_pieces = False
            position = request.body_bytes + len(_CRLF)
            if self._table[request.verb].refusal:  # since its line was parsed
                request = TubeRequest(self._table[request.verb].run, request.verb)
            yield self._with_body(request, data[:position])
        elif self._rest:
            data = self._rest + data
            if data.find(_CRLF, max(0, self._searched - 1)) < 0:
                self._keep(data)
                return
            self._rest = b""
        self.in_pieces = False

        kept_line, chunk = self._kept.get, self._chunk
        length = len(data)
        while (end := data.find(_CRLF, position)) >= 0:
            line = data[position : end + 1]  # with its CR: the turn looks whole lines up by what stands before LF
            position = end + len(_CRLF)
            if self._skips:
                self._skips = False
                yield _BAD_FORMAT, None
                continue
            request = kept_line(line)
            if request is None:
                parsed = self._read_line(line)
                if not isinstance(parsed, TubeRequest):
                    yield parsed, None
                    continue
                request = parsed
            size = request.body_bytes
            if size < 0:
                yield request, None
                continue
            if size > chunk or request.too_big:
                self.large = request
                self._rest = data[position:]
                self._searched = 0
                self.in_pieces = True
                return
            have = length - position
            if have < size + len(_CRLF):
                self._request = request
                self._parts = [data[position:]]
                self._missing = size + len(_CRLF) - have
                self.in_pieces = True
                return
            yield self._with_body(request, data[position : position + size + len(_CRLF)])
            position += size + len(_CRLF)
        if position < length:
            self._keep(data[position:])

    def _keep(self, rest: bytes) -> None:
        """The beginning of a line."""
        self.in_pieces = True
        if len(rest) >= MAX_LINE_BYTES:
            self._skips = True
        if self._skips:
            rest = rest[-1:]  # perhaps the CR of its end
        self._rest, self._searched = rest, len(rest)

    @staticmethod
    def _with_body(request: TubeRequest, data: bytes) -> tuple[Request, bytes | None]:
        if not data.endswith(_CRLF):
            return _EXPECTED_CRLF, None
        return request, data[: -len(_CRLF)]

    # -- one line

    def _read_line(self, line: bytes) -> Request:
        """As `_parse`, of a line with its CR, which is kept if it may come again."""
        request = self._parse(line[:-1])
        if isinstance(request, TubeRequest) and self._table[request.verb].parse in _KEPT:
            if len(self._kept) >= MAX_KEPT_LINES:
                self._kept.clear()
            self._kept[line] = request
        return request

    def _parse(self, line: bytes) -> Request:
        if len(line) + len(_CRLF) > MAX_LINE_BYTES or b"\0" in line:
            return _BAD_FORMAT
        verb, space, words = line.partition(b" ")
        command = self._table.get(verb)
        if verb in _IS_BARE:
            words = space + words
        elif command is None or not space:
            begun = [bare for bare in BARE if line.startswith(bare)]
            if not begun:
                return _UNKNOWN_COMMAND
            verb = max(begun, key=len)
            command, words = self._table[verb], line[len(verb) :]
        assert command is not None
        request = TubeRequest(command.run, verb, refused=bool(command.refusal))
        try:
            command.parse(request, words)
        except BadFormat:
            return _BAD_FORMAT
        if request.body_bytes < 0:
            request.plain_bytes = 0
        elif request.body_bytes > self._most_body:
            request.too_big = True
        elif request.body_bytes <= self._chunk:
            request.plain_bytes = request.body_bytes + len(_CRLF)
        return request


_Answer = Callable[[bytes], Request]
_answer: _Answer = partial(answered)
_BAD_FORMAT: Final = _answer(BAD_FORMAT)
_EXPECTED_CRLF: Final = _answer(EXPECTED_CRLF)
_UNKNOWN_COMMAND: Final = _answer(UNKNOWN_COMMAND)
