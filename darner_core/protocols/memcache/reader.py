"""The memcache text protocol as a queue server speaks it: bytes in, requests out. No sockets, no gevent.

This module owns the grammar and its limits. It does not know which verbs exist: a table of verb -> (parser, command)
comes in from `commands`, and each parser in `lines` reads one form of line.

    line     = verb *( SP word ) *SP [CR] LF             at most max_line_bytes
    storing  = verb key flags expiry bytes ["noreply"]   followed by `bytes` bytes and CR LF
    reading  = verb key                                  in one dialect: verb 1*key
    watching = "monitor" name seconds [items]
    closing  = "confirm" name items
    naming   = verb name [number] ["noreply"]
    key      = name *( "/" option )
    name     = 1*250 bytes other than controls, DEL, SP and "/"

Everything wrong is a RequestError that knows its reply. After one, the reader reads no more: it cannot tell what
the bytes that follow are meant to be.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from darner_core.config.listeners import DARNER
from darner_core.engines.jobs import JobOptions, Pause
from darner_core.errors import ClientError, MalformedRequest, RequestError, Unavailable
from darner_core.nearest import did_you_mean
from darner_core.protocols.contract import Command, PieceReader, Request
from darner_core.protocols.grammar import excerpt, require_no_http, wrong_beginning
from darner_core.protocols.memcache.dialects import DIALECTS, Dialect, kestrel_expiry
from darner_core.protocols.memcache.options import ReadOptions

# Parsed lines are kept, because clients send few different lines, over and over: a look-up is 0.03 us, a parse 2 us.
# 4096 lines of at most 300 bytes (a longest name with its options) are about 3 MB.
MAX_KEPT_LINES = 4096
MAX_KEPT_LINE_BYTES = 300

# The most pieces in which a body that trickles in is held; beyond it they are joined.
MAX_PIECES = 64

_CRLF = b"\r\n"
_LF = b"\n"


@dataclass(slots=True)
class LineRequest(Request):
    """One request line, parsed. Shared by all connections that send the same line, so it is never changed,
    except for `head` and `head_bytes`: there a get keeps the first line of its last reply."""

    several: tuple["LineRequest", ...] = ()  # a get of several queues: a get of each of them alone, in order
    opens: bool = False
    closes: bool = False
    aborts: bool = False
    peeks: bool = False
    most: int = 0  # how many items a monitor opens, or a confirm closes; 0: as many as may be open
    flags: int = 0
    expiry: int = 0
    expires_at_ms: Callable[[int, int], int] = kestrel_expiry  # what `expiry` means in this dialect
    sync: bool = False
    with_cas: bool = False  # clients of `gets` read a fourth number
    repeats_key: bool = False  # the reply has `key` in it; else `queue`
    plain: bool = False  # a get without options
    job: JobOptions | None = None  # what a put says of its job
    asked: ReadOptions | None = None  # what a get or touch says of jobs, or of several items
    pause: Pause = Pause.NONE
    head: bytes = b""
    head_bytes: int = -1


class RequestReader(PieceReader):
    """Turns the bytes of one connection into requests.

    All readers of a dialect share `kept_lines`. What the reader holds is bounded: one incomplete line, or one
    incomplete body of at most `chunk_bytes`. A larger body is not gathered: the reader stops at its first byte,
    says so in `large`, and the caller takes the body in pieces with `take_body`.
    """

    __slots__ = (
        "_table", "_dialect", "_kept", "_max_line", "_chunk", "_searched", "in_pieces", "error",
    )  # fmt: skip

    def __init__(
        self,
        table: Mapping[bytes, Command],
        kept_lines: dict[bytes, LineRequest],
        max_line_bytes: int,
        chunk_bytes: int,
        dialect: Dialect = DIALECTS[DARNER],
    ) -> None:
        super().__init__()
        self._table = table
        self._dialect = dialect
        self._kept = kept_lines
        self._max_line = max_line_bytes
        self._chunk = chunk_bytes
        self._searched = 0  # so far there is no end of a line in `_rest`
        self.in_pieces = False  # something incomplete is held
        self.error: RequestError | None = None  # what is wrong behind the last request returned

    def requests(self, data: bytes) -> Iterator[tuple[LineRequest, bytes | None]]:
        """See `contract.Reader`. What is not yet asked for stays bytes: as requests, 64 KiB of the shortest would be
        700 KiB."""
        assert self.large is None, "a body has to be taken first"
        assert self.error is None, "nothing can be read behind an error"
        position = 0
        if self._missing:
            self._parts.append(data)
            if len(data) < self._missing:
                self._missing -= len(data)
                if len(self._parts) >= MAX_PIECES:
                    self._parts = [b"".join(self._parts)]
                return
            data = b"".join(self._parts)
            self._parts = []
            self._missing = 0
            request = self._request
            assert request is not None
            end = request.body_bytes
            if data[end : end + 2] != _CRLF:
                self.error = bad_terminator(request)
                return
            if why := self._table[request.verb].refusal:  # since its line was parsed
                self.error = Unavailable(why)
                return
            body, data = data[:end], data[end + 2 :]  # not kept while what follows waits
            yield request, body
            del body
        elif self._rest:
            data = self._rest + data
            if data.find(_LF, self._searched) < 0 and len(data) <= self._max_line:
                self.error = wrong_beginning(data[0])  # else what came behind a large item has not been looked at
                self._rest = data
                self._searched = len(data)
                return
            self._rest = b""
        self.in_pieces = False

        # The hot loop: one find, one slice and one look-up a line. With a regular expression it was 3 us a line.
        find, has_at, kept_line, chunk = data.find, data.startswith, self._kept.get, self._chunk
        length = len(data)
        while True:
            end_of_line = find(b"\n", position)
            if end_of_line < 0:
                break
            line = data[position:end_of_line]
            request = kept_line(line)
            if request is None:
                try:
                    request = self._parse(line)
                except RequestError as error:
                    self.error = error.with_traceback(None)  # which would keep `data`
                    return
            position = end_of_line + 1
            size = request.body_bytes
            if size < 0:
                yield request, None
                continue
            end = position + size
            if size <= chunk and has_at(b"\r\n", end):
                yield request, data[position:end]
                position = end + 2
                continue
            if size > chunk:
                self.large = request
                self._rest = data[position:]
                self._searched = 0
                self.in_pieces = True
                return
            have = length - position
            if have >= size + 2:
                self.error = bad_terminator(request)
                return
            self._request = request
            self._parts = [data[position:]]
            self._missing = size + 2 - have
            self.in_pieces = True
            return

        if position == length:
            return
        self.error = wrong_beginning(data[position])
        if self.error is None and length - position > self._max_line:
            self.error = self._line_too_long()
        if self.error is None:
            self._rest = data[position:] if position else data
            self._searched = length - position
            self.in_pieces = True

    def _line_too_long(self) -> RequestError:
        return ClientError(f"line too long: at most {self._max_line} bytes")

    def _parse(self, line: bytes) -> LineRequest:
        if line and (wrong := wrong_beginning(line[0])) is not None:
            raise wrong
        if len(line) > self._max_line:
            raise self._line_too_long()
        require_no_http(line)
        # python-memcached and libmemcached end some lines with a space; libmemcached puts two before noreply.
        words = [word for word in (line[:-1] if line[-1:] == b"\r" else line).split(b" ") if word]
        if not words:
            raise MalformedRequest("an empty line: a command is expected")
        verb = words.pop(0).lower()
        command = self._table.get(verb)
        if command is None:
            near = did_you_mean(excerpt(verb), known_verbs(self._table), "help lists the commands")
            raise self._dialect.unknown(f'unknown command "{excerpt(verb)}": {near}')
        request = LineRequest(command.run, verb)
        command.parse(request, words)
        if request.queue:
            self._dialect.read_name(request)
            for one in request.several:
                self._dialect.read_name(one)
                if one.cursor:
                    raise ClientError(f'"{excerpt(one.key)}" in a get of several queues: a cursor is read alone')
            for one in (request, *request.several):
                one.repeats_key = self._dialect.repeats_key
            request.expires_at_ms = self._dialect.expires_at_ms
            if command.placed is not None and (request.parent or request.cursor or request.targets):
                request.run = command.placed
            if command.job is not None and (request.job is not None or request.asked is not None):
                request.run = command.job
            if command.several is not None and request.several:
                request.run = command.several
        if request.body_bytes < 0:
            request.plain_bytes = 0
        elif request.body_bytes <= self._chunk and not request.sync:
            request.plain_bytes = request.body_bytes + len(_CRLF)
        if len(line) <= MAX_KEPT_LINE_BYTES and not request.several:  # which may be 20 KB
            if len(self._kept) >= MAX_KEPT_LINES:
                self._kept.clear()
            self._kept[line] = request
        return request


def known_verbs(table: Mapping[bytes, Command]) -> list[str]:
    """The verbs that a client may have meant."""
    return [verb.decode() for verb, command in table.items() if not command.only_refused]


def bad_terminator(request: LineRequest) -> RequestError:
    return ClientError(f"bad data chunk: the {request.body_bytes} bytes of the item must be followed by CR LF")
