"""Kestrel's text protocol: bytes in, requests out. No sockets, no queues, no gevent.

This module owns the grammar and its limits, as `memcache.reader` does for its protocol. It does not know which verbs
exist: the table comes in from `commands`, and each parser below reads one form of line.

    request = verb *( SP word ) *SP [CR] LF                          at most max_line_bytes
            | verb *( SP word ) *SP ":" *SP [CR] LF *item [CR] LF    items up to an empty line
    item    = 1*( byte other than LF ) [CR] LF

The first word is a queue's name. Some verbs take options behind it, each after a "/", as in the memcache protocol.

Where a line ends does not depend on what it says, so the connection goes on after an error: a line that cannot be
understood becomes a request that answers the error. Behind a line that ends with ":" come items, whatever is wrong with
the line. A line or item that is too long ends the connection. So do a put or add without its ":", HTTP, and the first
byte of another protocol: what follows may be items, or a stranger's lines, which must never be carried out.

Source: section "text protocol" of Kestrel 2.4's guide.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from darner_core.engines.jobs import MAX_DELAY_MS, JobOptions, Pause
from darner_core.errors import ClientError, MalformedRequest, RequestError
from darner_core.nearest import did_you_mean
from darner_core.protocols.contract import Command, Request, WholeReader, answered
from darner_core.protocols.grammar import (
    MAX_WAIT_MS,
    excerpt,
    read_child,
    require_name,
    require_no_http,
    wrong_beginning,
)
from darner_core.protocols.options import Options, pause_of, put_options, split, value_of

MAX_ITEMS = 1024  # in one put: Kestrel's
# In one put. They are in memory until the empty line has come: a put is done as a whole or not at all.
MAX_PUT_BYTES = 4 << 20

MAX_EXPIRY_MS = 2**53 - 1
MAX_COUNT = 2**31 - 1

PUT_OPTIONS = (b"delay", b"pri", b"ttr", b"key")
READ_OPTIONS = (b"ttr",)
ABORT_OPTIONS = (b"delay", b"pri")

# Behind the lines of these verbs come items.
TAKE_ITEMS = (b"put", b"add")

# Entries of the table that clients cannot name.
NOT_UNDERSTOOD = b""  # a request that cannot be understood
STATUS_TO = b"status to"  # to set the status, which needs another right than to see it


@dataclass(slots=True)
class TextRequest(Request):
    items: tuple[bytes, ...] | None = None  # the lines behind one that ends with ":"
    expiry_ms: int | None = None  # from now
    count: int = 0  # of a monitor: 0 is as many as may be open
    word: bytes = b""
    job: JobOptions | None = None  # what a put says of its job
    ttr_ms: int | None = None  # how long what is got may stay open; 0: as the item says; None: no deadline
    delay_ms: int | None = None  # when what is aborted comes again; None: as the queue says
    pri: int | None = None  # its priority then; None: as before
    time_ms: int = 0  # from now
    pause: Pause = Pause.NONE


def error_reply(error: RequestError | str) -> bytes:
    return b"-%b\n" % str(error).encode("utf-8", "backslashreplace")


def _number(word: bytes, highest: int, what: str, lowest: int = 0) -> int:
    if word.isdigit() and len(word) <= 20 and lowest <= int(word) <= highest:  # int() also takes "1_000"
        return int(word)
    raise MalformedRequest(f'Error parsing {what}. "{excerpt(word)}": a number from {lowest} to {highest}')


def _name(
    request: Request,
    words: list[bytes],
    missing: str = "Queue name required.",
    fewest: int = 1,
    allowed: tuple[bytes, ...] = (),
) -> Options:
    """The options behind the name, of those that are allowed."""
    if len(words) < fewest:
        raise MalformedRequest(missing)
    request.key = words.pop(0)
    name, *given = request.key.split(b"/") if allowed else (request.key,)
    require_name(name)
    request.queue = name
    read_child(request)
    return split(given, allowed, request.verb, reads=allowed is READ_OPTIONS) if given else {}


def _no_more(words: list[bytes]) -> None:
    if words:
        raise MalformedRequest(f'"{excerpt(words[0])}" is not expected here')


def parse_put(request: TextRequest, words: list[bytes]) -> None:
    """`put name[/option]... [expiry_ms]:`"""
    found = _name(request, words, allowed=PUT_OPTIONS)
    if words:
        request.expiry_ms = _number(words.pop(0), MAX_EXPIRY_MS, "expiration time")
    _no_more(words)
    request.job = put_options(found)
    if b"key" in found and len(request.items or ()) != 1:
        raise MalformedRequest(f"a /key with {len(request.items or ())} items: it is that of one item")


def parse_add(request: TextRequest, words: list[bytes]) -> None:
    """As a put, with a key."""
    parse_put(request, words)
    if request.job is None or not request.job.key:
        raise MalformedRequest("an add without /key=<text>: it puts an item unless the queue has one with this key")


def parse_reading(request: TextRequest, words: list[bytes]) -> None:
    """`peek name [ms]`."""
    _wait(request, words, _name(request, words))


def parse_get(request: TextRequest, words: list[bytes]) -> None:
    """`get name[/ttr=ms] [ms]`."""
    _wait(request, words, _name(request, words, allowed=READ_OPTIONS))


def _wait(request: TextRequest, words: list[bytes], found: Options) -> None:
    if words:
        request.wait_ms = _number(words.pop(0), MAX_WAIT_MS, "timeout")
    _no_more(words)
    request.ttr_ms = value_of(found, b"ttr")


def parse_monitor(request: TextRequest, words: list[bytes]) -> None:
    """`monitor name[/ttr=ms] ms [count]`."""
    found = _name(request, words, "Queue name & timeout required.", fewest=2, allowed=READ_OPTIONS)
    request.wait_ms = _number(words.pop(0), MAX_WAIT_MS, "timeout")
    if words:
        request.count = _number(words.pop(0), MAX_COUNT, "count", 1)
    _no_more(words)
    request.ttr_ms = value_of(found, b"ttr")


def parse_confirm(request: TextRequest, words: list[bytes]) -> None:
    """`confirm name count`, `reject name count`, `kick name count`."""
    _name(request, words, "Queue name & count required.", fewest=2)
    request.count = _number(words.pop(0), MAX_COUNT, "count")
    _no_more(words)


def parse_abort(request: TextRequest, words: list[bytes]) -> None:
    """`abort name[/delay=ms][/pri=n] count`."""
    found = _name(request, words, "Queue name & count required.", fewest=2, allowed=ABORT_OPTIONS)
    request.count = _number(words.pop(0), MAX_COUNT, "count")
    _no_more(words)
    request.delay_ms, request.pri = value_of(found, b"delay"), value_of(found, b"pri")


def parse_touch(request: TextRequest, words: list[bytes]) -> None:
    """`touch name ms`."""
    _name(request, words, "Queue name & time required.", fewest=2)
    request.time_ms = _number(words.pop(0), MAX_DELAY_MS, "time")
    _no_more(words)


def parse_pause(request: TextRequest, words: list[bytes]) -> None:
    """`pause name in|out|all|none [ms]`."""
    _name(request, words, "Queue name & what to pause required: in, out, all or none.", fewest=2)
    request.told = b" ".join(words)
    request.pause = pause_of(words.pop(0))
    if words and request.pause is Pause.NONE:
        raise MalformedRequest("a pause none with a time: it ends the pause at once")
    if words:
        request.time_ms = _number(words.pop(0), MAX_DELAY_MS, "time", 1)
    _no_more(words)


def parse_naming(request: TextRequest, words: list[bytes]) -> None:
    """`flush name`, `delete name`."""
    _name(request, words)
    _no_more(words)


def parse_bare(request: TextRequest, words: list[bytes]) -> None:
    """`version`, `quit`, `shutdown`."""
    _no_more(words)


def parse_any(request: TextRequest, words: list[bytes]) -> None:
    """`help`, whatever stands behind it."""


def parse_status(request: TextRequest, words: list[bytes]) -> None:
    """`status [word]`."""
    if words:
        request.key = request.word = words.pop(0)
        request.verb = STATUS_TO
    _no_more(words)


class TextReader(WholeReader):
    """Turns the bytes of one connection into requests. See `contract.Reader`.

    What it holds is bounded: one incomplete line, and the items of one put.
    """

    __slots__ = (
        "_table", "_verbs", "_max_line", "_max_item", "_rest", "_searched", "_line", "_items",
        "_items_bytes", "error",
    )  # fmt: skip

    def __init__(self, table: Mapping[bytes, Command], max_line_bytes: int, max_item_bytes: int) -> None:
        self._table = table
        self._verbs = [verb.decode() for verb in table if verb not in (NOT_UNDERSTOOD, STATUS_TO)]
        self._max_line = max_line_bytes
        self._max_item = max_item_bytes
        self._rest = bytearray()  # an incomplete line
        self._searched = 0  # so far there is no end of a line in it
        self._line = b""  # whose items are being read
        self._items: list[bytes] | None = None  # None: none are
        self._items_bytes = 0
        self.error: RequestError | None = None

    @property
    def in_pieces(self) -> bool:
        return bool(self._rest) or self._items is not None

    @property
    def body_bytes(self) -> int:
        return len(self._rest) + self._items_bytes

    def drop(self) -> None:
        self._rest = bytearray()
        self._items, self._items_bytes = None, 0

    def requests(self, data: bytes) -> Iterator[tuple[Request, bytes | None]]:
        assert self.error is None, "nothing can be read behind an error"
        if self._rest:
            self._rest += data
            if self._rest.find(b"\n", self._searched) < 0:
                self._keep(self._rest)
                return
            data = bytes(self._rest)
            self._rest = bytearray()
        position = 0
        while (end := data.find(b"\n", position)) >= 0:
            line = data[position : end - 1 if data[end - 1 : end] == b"\r" and end > position else end]
            position = end + 1
            if self._items is None:
                try:
                    self._require_readable(line)
                except RequestError as error:
                    self.error = error.with_traceback(None)
                    return
                line = line.rstrip()
                if line.endswith(b":"):
                    self._line, self._items = line[:-1], []
                else:
                    yield self._parse(line, None), None
            elif line:
                self._add(line)
            else:
                items, self._items, self._items_bytes = tuple(self._items), None, 0
                yield self._parse(self._line, items), None
            if self.error is not None:
                return
        self._keep(bytearray(data[position:]))

    def _keep(self, rest: bytearray) -> None:
        self._rest = rest
        self._searched = len(rest)
        if rest and self._items is None:
            self.error = wrong_beginning(rest[0])
        most_bytes = self._max_line if self._items is None else self._max_item
        if self.error is None and len(rest) > most_bytes + 1:  # a CR may be part of its end
            self.error = self._too_long()

    def _require_readable(self, line: bytes) -> None:
        """Raises RequestError if nothing can be read behind `line`, because it cannot be told what that would be."""
        wrong = wrong_beginning(line[0]) if line else None
        if wrong is not None:
            raise wrong
        if len(line) > self._max_line:
            raise self._too_long()
        require_no_http(line)
        verb = line.split(None, 1)[0].lower() if line.strip() else b""
        if verb in TAKE_ITEMS and not line.rstrip().endswith(b":"):
            a_put = "an add is: add <queue>/key=<text>" if verb == b"add" else "a put is: put <queue>"
            raise MalformedRequest(f"{a_put} [<expiry in ms>]: and then a line for each item and an empty one")

    def _too_long(self) -> RequestError:
        if self._items is None:
            return ClientError(f"line too long: at most {self._max_line} bytes")
        return ClientError(f"item too long: at most {self._max_item} bytes in this protocol")

    def _add(self, item: bytes) -> None:
        assert self._items is not None
        self._items.append(item)
        self._items_bytes += len(item)
        if len(item) > self._max_item:
            self.error = self._too_long()
        elif len(self._items) > MAX_ITEMS:
            self.error = ClientError(f"too many items: at most {MAX_ITEMS} in one put")
        elif self._items_bytes > MAX_PUT_BYTES:
            self.error = ClientError(f"too many bytes: at most {MAX_PUT_BYTES} in one put")

    def _parse(self, line: bytes, items: tuple[bytes, ...] | None) -> Request:
        words = [word for word in line.split(b" ") if word]
        verb = words.pop(0).lower() if words else b""
        command = self._table.get(verb)
        try:
            if not verb or command is None:
                near = did_you_mean(excerpt(verb), self._verbs)
                raise MalformedRequest(f"Unknown command: {excerpt(verb)}{near and '; '}{near}")
            request = TextRequest(command.run, verb, items=items)
            command.parse(request, words)
            if items is not None and verb not in TAKE_ITEMS:
                raise MalformedRequest(f"{excerpt(verb)} takes no items: its line must not end with a colon")
        except RequestError as error:
            return answered(error_reply(error), NOT_UNDERSTOOD)
        return request
