"""RESP: bytes in, requests out. No sockets, no queues, no gevent.

    request = "*" count CR LF *( "$" size CR LF bytes CR LF )     an array of words
            | *SP word *( SP word ) [CR] LF                       inline, as people type it

A word of an inline request may stand in quotes, with escapes in double ones. The reader knows the commands by the table
that comes in, and how many words each takes; what these mean, the commands find out. After an error of a command the
connection goes on; behind one of the protocol nothing can be read.

A request is in memory whole. What has come of one is bounded: words, their number, and the sum of all clients'
(`shared_memory`).

Source: the specification of RESP on redis.io; the words of the errors are Redis's and Disque's.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from darner_core.errors import MalformedRequest, RequestError
from darner_core.protocols.contract import Command, Request, WholeReader
from darner_core.protocols.grammar import excerpt, require_no_http, wrong_beginning
from darner_core.protocols.resp.replies import ProtocolError, RespError

# Of a request: what one turn can deal with. Redis takes 1,048,576.
MAX_WORDS: Final = 16_384
MAX_LINE_BYTES: Final = 64 << 10  # of an inline request, or of the line with a count or size: Redis's
MAX_WORD_BYTES: Final = 64 << 20
WORD_BYTES: Final = 48  # what a word takes beside its bytes

_CRLF: Final = b"\r\n"
# Headers of short requests, and what they say.
_COUNTS: Final = {b"*%d" % count: count for count in range(1, 17)}
_SIZES: Final = {b"$%d" % size: size for size in range(1024)}
SPLIT_BYTES: Final = 128 << 10  # more is never split: it may have many line ends

_INLINE: Final = re.compile(
    rb"""[ \t]*(?:"((?:[^"\\]|\\.)*)"(?=[ \t]|$)|'((?:[^'\\]|\\.)*)'(?=[ \t]|$)|([^ \t"']\S*))""", re.S
)
_ESCAPE: Final = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)", re.S)
_ESCAPES: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


@dataclass(slots=True)
class RespRequest(Request):
    words: tuple[bytes, ...] = ()  # the command and what it is told, as they were written

    @property
    def arguments(self) -> tuple[bytes, ...]:
        return self.words[1:]


class RespReader(WholeReader):
    """Turns the bytes of one connection into requests. See `contract.Reader`."""

    __slots__ = (
        "_table", "_refuse", "_max_word", "_may_split", "_parts", "_parts_bytes", "_needed", "_words", "_words_bytes",
        "_left", "error",
    )  # fmt: skip

    def __init__(
        self, table: Mapping[bytes, Command], refuse: Callable[[RespError], Callable[..., Any]], max_word_bytes: int
    ) -> None:
        """`refuse(error)`: what is run in place of a command that there is not, or that is told too much or little."""
        self._table = table
        self._refuse = refuse
        self._max_word = min(max_word_bytes, MAX_WORD_BYTES)
        self._may_split = self._max_word >= len(_SIZES)
        self._parts: list[bytes] = []  # what has come and is not a whole word
        self._parts_bytes = 0
        self._needed = 0  # so much has to be there before it is worth a look
        self._words: list[bytes] = []  # of an array, those that have come
        self._words_bytes = 0
        self._left = 0  # how many words of the array are still to come
        self.error: RequestError | None = None

    @property
    def in_pieces(self) -> bool:
        return bool(self._parts or self._left)

    @property
    def body_bytes(self) -> int:
        return self._parts_bytes + self._words_bytes + WORD_BYTES * len(self._words)

    def drop(self) -> None:
        self._parts, self._parts_bytes, self._words, self._words_bytes, self._left = [], 0, [], 0, 0

    def single(self, data: bytes) -> Request | None:
        if self._parts or self._left or len(data) > SPLIT_BYTES or b"\r\n*" in data or not self._may_split:
            return None
        parts = data.split(_CRLF)
        count = _COUNTS.get(parts[0])
        if count is None or len(parts) != 2 * count + 2 or parts[-1]:
            return None
        words = parts[2::2]
        if list(map(_SIZES.get, parts[1:-1:2])) != list(map(len, words)):
            return None
        return self._request(words)

    def requests(self, data: bytes) -> Iterator[tuple[Request, bytes | None]]:
        assert self.error is None, "nothing can be read behind an error"
        if self._parts:
            self._parts.append(data)
            self._parts_bytes += len(data)
            if self._parts_bytes < self._needed:
                return
            data = b"".join(self._parts)
            self._parts, self._parts_bytes = [], 0
        self._needed = 0
        at, length = 0, len(data)
        if not self._left and length <= SPLIT_BYTES and data[:1] == b"*" and self._may_split:
            # What most data are, arrays of short words without line ends in them: 0.6 of the time.
            parts, begin = data.split(_CRLF), 0
            while (count := _COUNTS.get(parts[begin])) is not None:
                end = begin + 1 + 2 * count
                if end >= len(parts):
                    break
                whole = parts[begin + 2 : end : 2]
                if list(map(_SIZES.get, parts[begin + 1 : end : 2])) != list(map(len, whole)):
                    break
                begin = end
                yield self._request(whole), None
            at = length - len(_CRLF.join(parts[begin:]))
        while at < length:
            try:
                words, at = self._array(data, at) if self._left or data[at] == 0x2A else _inline(data, at)
            except RequestError as error:
                self.error = error.with_traceback(None)
                self.drop()
                return
            if words is None:
                break
            if words:
                yield self._request(words), None
        if at < length:
            self._parts, self._parts_bytes = [data[at:]], length - at
            self._needed = max(0, self._needed - at)

    def _array(self, data: bytes, at: int) -> tuple[list[bytes] | None, int]:
        """(the words, where they end); None: more has to come, and what is not read begins there. Raises
        ProtocolError."""
        length = len(data)
        if not self._left:
            end = _end_of_line(data, at, "too big mbulk count string")
            if end < 0:
                return None, at
            count = _number(data[at + 1 : end])
            if count is None or count > MAX_WORDS:
                raise ProtocolError("invalid multibulk length")
            at = end + 2
            if count <= 0:
                return [], at
            self._left = count
        words, most, find = self._words, self._max_word, data.find
        while self._left:
            # Written out, with no call but find, because a request has several words: 0.85 of the time.
            end = find(_CRLF, at, at + MAX_LINE_BYTES)
            digits = data[at + 1 : end]
            if end < 0 or data[at] != 0x24 or not digits.isdigit() or end - at > 20:
                self._require_size(data, at)
                return None, at
            size = int(digits)
            if size > most:
                raise ProtocolError("invalid bulk length")
            begin = end + 2
            end = begin + size
            if length < end + 2:
                self._needed = end + 2
                return None, at
            words.append(data[begin:end])
            self._words_bytes += size
            self._left -= 1
            at = end + 2
        self._words, self._words_bytes = [], 0
        return words, at

    @staticmethod
    def _require_size(data: bytes, at: int) -> None:
        """Raises ProtocolError if no size of a word can begin there; else more has to come."""
        end = _end_of_line(data, at, "too big bulk count string")
        if end < 0:
            return
        if data[at] != 0x24:
            raise ProtocolError(f"expected '$', got '{excerpt(data[at : at + 1])}'")
        raise ProtocolError("invalid bulk length")

    def _request(self, words: list[bytes]) -> Request:
        verb = words[0].lower()
        command = self._table.get(verb)
        try:
            if command is None:
                raise RespError(f"unknown command '{excerpt(words[0])}'")
            request = RespRequest(command.run, verb, words=tuple(words))
            command.parse(request, words)
        except RespError as error:
            return RespRequest(self._refuse(error.with_traceback(None)), b"", words=tuple(words))
        return request


class Entry(NamedTuple):
    """What one command is to the table.

    run    (request, body, session) -> reply, see `protocols.contract`
    least  how many words it is told at least, itself not counted
    most   and at most; None: any number
    kind   WRITES or READS, see `contract.Command`
    returns_items  whether its reply may have items in it, and so be long
    """

    run: Callable[..., Any]
    least: int = 0
    most: int | None = None
    kind: str = ""
    returns_items: bool = False


def takes(least: int, most: int | None = None) -> Callable[[Request, list[bytes]], None]:
    """The parser of a command that is told so many words at least, itself not counted, and at most; None: any
    number."""

    def parse(request: Request, words: list[bytes]) -> None:
        if len(words) - 1 < least or (most is not None and len(words) - 1 > most):
            raise RespError(f"wrong number of arguments for '{request.verb.decode()}' command")

    return parse


def first_words(data: bytes) -> tuple[list[bytes], bytes] | None:
    """(the words of the first request in these bytes, what follows); None: it is incomplete. Raises RequestError."""
    reader = RespReader({}, lambda error: lambda *_: b"", MAX_LINE_BYTES)
    at = 0
    while at < len(data):
        words, at = reader._array(data, at) if data[at] == 0x2A else _inline(data, at)
        if words is None:
            return None
        if words:
            return words, data[at:]
    return None


def _end_of_line(data: bytes, at: int, too_long: str) -> int:
    end = data.find(_CRLF, at, at + MAX_LINE_BYTES)
    if end < 0 and len(data) - at >= MAX_LINE_BYTES:
        raise ProtocolError(too_long)
    return end


def _number(digits: bytes) -> int | None:
    sign = digits[:1] == b"-"
    if len(digits) > 20 or not digits[sign:].isdigit():
        return None
    return int(digits)


def _inline(data: bytes, at: int) -> tuple[list[bytes] | None, int]:
    """As `RespReader._array`, of a line."""
    wrong = wrong_beginning(data[at])
    if wrong is not None and not 0x20 < data[at] < 0x7F:  # TLS, or no text at all
        raise MalformedRequest(f"Protocol error: {wrong}")
    end = data.find(b"\n", at, at + MAX_LINE_BYTES)
    if end < 0:
        if len(data) - at >= MAX_LINE_BYTES:
            raise ProtocolError("too big inline request")
        return None, at
    line = data[at:end].removesuffix(b"\r")
    require_no_http(line)
    return _split(line), end + 1


def _split(line: bytes) -> list[bytes]:
    if b'"' not in line and b"'" not in line:
        return line.split()
    words, at, line = [], 0, line.rstrip()
    while at < len(line):
        found = _INLINE.match(line, at)
        if found is None:
            raise ProtocolError("unbalanced quotes in request")
        double, single, plain = found.groups()
        if double is not None:
            words.append(_ESCAPE.sub(_unescape, double))
        elif single is not None:
            words.append(single.replace(rb"\'", b"'"))
        else:
            words.append(plain)
        at = found.end()
    return words


def _unescape(found: "re.Match[bytes]") -> bytes:
    what = found[1]
    return bytes((int(what[1:], 16),)) if len(what) == 3 else _ESCAPES.get(what, what)
