"""What can be asked of a server over the memcache text protocol, in values. Source: docs/protocol.md.

Every call raises NoServer if the connection fails, and Refused with the server's words. After most refusals the server
hangs up, so a client that was refused is used no more.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from darner_core.ctl import names
from darner_core.ctl.address import Address, Tls
from darner_core.ctl.connection import Connection
from darner_core.ctl.errors import NoServer, Refused
from darner_core.showing import show

PIECE_BYTES: Final = 1 << 16  # of a body that is not held as a whole


class Login(NamedTuple):
    name: str
    password: bytes


class PutOptions(NamedTuple):
    """None: not said, so that the server's own default counts."""

    delay_ms: int | None = None
    pri: int | None = None
    ttr_ms: int | None = None
    key: bytes = b""
    expires_s: int = 0  # 0: never
    flags: int = 0
    sync: bool = False

    def behind_name(self) -> bytes:
        given = ((b"delay", self.delay_ms), (b"pri", self.pri), (b"ttr", self.ttr_ms))
        options = b"".join(b"/%b=%d" % (name, value) for name, value in given if value is not None)
        return options + (b"/key=" + self.key if self.key else b"") + (b"/sync" if self.sync else b"")


@dataclass
class Arriving:
    """An item whose body is on its way: it has to be read before anything else is asked."""

    queue: bytes
    flags: int
    size: int
    id: int  # 0: the server did not tell it
    pieces: Iterator[bytes] = field(repr=False)

    def body(self) -> bytes:
        return b"".join(self.pieces)


@dataclass(frozen=True)
class QueueFigures:
    """What the server counts of one queue. `all` has everything, by the names in docs/operations.md."""

    name: bytes
    all: dict[str, str]

    def _number(self, name: str) -> int:
        value = self.all.get(name, "0")
        return int(value) if value.lstrip("-").isdigit() else 0

    @property
    def is_alias(self) -> bool:
        return "put_items" in self.all

    @property
    def damaged(self) -> bool:
        return self._number("damaged") == 1

    @property
    def waiting(self) -> int:
        return self._number("ready") if "ready" in self.all else self._number("items")

    @property
    def open(self) -> int:
        return self._number("open_transactions")

    @property
    def delayed(self) -> int:
        return self._number("delayed")

    @property
    def buried(self) -> int:
        return self._number("buried")

    @property
    def failures(self) -> int:
        return self._number("failures")

    @property
    def dead_lettered(self) -> int:
        return self._number("dead_lettered")

    @property
    def age_ms(self) -> int:
        return self._number("age")

    @property
    def bytes(self) -> int:
        return self._number("bytes")

    @property
    def waiters(self) -> int:
        return self._number("waiters")

    @property
    def put_total(self) -> int:
        return self._number("total_items")

    @property
    def held(self) -> int:
        """All items that are in the queue, in whatever state."""
        return self.waiting + self.open + self.delayed + self.buried

    @property
    def paused(self) -> str:
        return ("none", "in", "out", "all")[self._number("paused") & 3]


class Option(NamedTuple):
    name: str
    value: str  # as the options file has it
    source: str


class Client:
    """A logged-in connection."""

    def __init__(
        self, address: Address, login: Login | None = None, tls: Tls | None = None, timeout_s: float = 10
    ) -> None:
        self.address = address
        self._connection = Connection(address, timeout_s, tls)
        try:
            if login is not None:
                self._log_in(login)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """What is open goes back to its queue."""
        self._connection.close()

    def _log_in(self, login: Login) -> None:
        words = login.name.encode("utf-8", "surrogateescape") + b" " + login.password
        self._expect(b"set login 0 0 %d\r\n%b\r\n" % (len(words), words), b"STORED")

    # -- putting and taking

    def put(self, queue: bytes, body: bytes, options: PutOptions = PutOptions()) -> bool:  # noqa: B008
        """False: the queue is full or paused, or takes no items of this size; with a key, there is such an item."""
        return self.put_pieces(queue, len(body), [body], options)

    def put_pieces(self, queue: bytes, size: int, pieces: Iterable[bytes], options: PutOptions) -> bool:
        """As `put`. All pieces together have `size` bytes."""
        key = queue + options.behind_name()
        verb = b"add" if options.key else b"set"
        head = b"%b %b %d %d %d\r\n" % (verb, key, options.flags, options.expires_s, size)
        if size <= PIECE_BYTES:
            self._connection.send(b"".join((head, *pieces, b"\r\n")))
        else:
            self._connection.send(head)
            for piece in pieces:
                self._connection.send(piece)
            self._connection.send(b"\r\n")
        reply = self._connection.reply()
        if reply not in (b"STORED", b"NOT_STORED"):
            raise self._unexpected(reply)
        return reply == b"STORED"

    def open(self, queue: bytes, wait_ms: int = 0) -> Arriving | None:
        """The item at the head, which is held until `close_item` or `abort_item`; None: there is none."""
        self._connection.wait_longer(wait_ms / 1000)
        return self._item(queue, b"gets %b/open%b\r\n" % (queue, b"/t=%d" % wait_ms if wait_ms else b""))

    def peek(self, queue: bytes) -> Arriving | None:
        """The item at the head, which stays where it is; None: there is none."""
        return self._item(queue, b"gets %b/peek\r\n" % queue)

    def close_item(self, queue: bytes) -> None:
        """What is open of this queue has been dealt with."""
        self._expect(b"get %b/close\r\n" % queue, b"END")

    def abort_item(self, queue: bytes) -> None:
        """What is open of this queue goes back, which is a failure where failures count."""
        self._expect(b"get %b/abort\r\n" % queue, b"END")

    def _item(self, queue: bytes, request: bytes) -> Arriving | None:
        self._connection.send(request)
        line = self._connection.reply()
        self._connection.wait_longer(0)
        if line == b"END":
            return None
        word, *words = line.split(b" ")
        if word != b"VALUE" or not 3 <= len(words) <= 4 or not all(one.isdigit() for one in words[1:]):
            raise self._unexpected(line)
        flags, size, *ids = map(int, words[1:])
        return Arriving(queue, flags, size, ids[0] if ids else 0, self._pieces(size))

    def _pieces(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self._connection.read(min(size, PIECE_BYTES))
            size -= len(piece)
            yield piece
        for ending in (b"", b"END"):
            line = self._connection.line()
            if line != ending:
                raise self._unexpected(line)

    # -- looking

    def queues(self, asked_for: Iterable[bytes] = ()) -> list[QueueFigures]:
        """The figures of these queues and aliases, of all if none is named. One that does not exist has none."""
        request = b" ".join((b"dump_stats", *asked_for))
        return [
            QueueFigures(name, dict(line.split("=", 1) for line in lines if "=" in line))
            for name, lines in self._frames(request)
        ]

    def figures(self) -> dict[str, str]:
        """What the server counts, its queues among it: their names are in those of the figures."""
        self._connection.send(b"stats\r\n")
        found = {}
        while (line := self._connection.reply()) != b"END":
            word, _, rest = line.partition(b" ")
            name, _, value = rest.rpartition(b" ")
            if word != b"STAT":
                raise self._unexpected(line)
            found[names.write(name)] = show(value)
        return found

    def options(self, queue: bytes = b"") -> list[Option]:
        """Those of the queue, or of the server."""
        frames = list(self._frames(b"dump_config %b" % queue if queue else b"dump_config"))
        return [_option(line) for line in frames[0][1]] if frames else []

    def _frames(self, request: bytes) -> Iterator[tuple[bytes, list[str]]]:
        """The name in the title of each frame, and its lines."""
        self._connection.send(request + b"\r\n")
        while (line := self._connection.reply()) != b"END":
            if not line.endswith(b" {"):
                raise self._unexpected(line)
            kind, _, quoted = line.removesuffix(b" {").partition(b" ")
            lines = []
            while (inner := self._connection.line()) != b"}":
                lines.append(show(inner.strip()))
            yield quoted[1:-1] or kind, lines

    def watch(self, queue: bytes) -> Iterator[dict[str, Any]]:
        """First whether there is such a queue, then what happens to it, until the server stops."""
        return self._objects(b"watch %b\r\n" % queue)

    def dead(self, queue: bytes, most: int) -> Iterator[dict[str, Any]]:
        """Up to `most` dead letters of the queue, the oldest first."""
        return self._objects(b"dead %b %d\r\n" % (queue, most))

    def _objects(self, request: bytes) -> Iterator[dict[str, Any]]:
        """A reply of lines of JSON. The next may be long in coming."""
        self._connection.send(request)
        line = self._connection.reply()
        self._connection.wait_longer(None)
        while line != b"END":
            told = json.loads(line)
            assert isinstance(told, dict)
            yield told
            line = self._connection.reply()
        self._connection.wait_longer(0)

    def version(self) -> str:
        return show(self._ask(b"version\r\n").removeprefix(b"VERSION "))

    def status(self) -> str:
        return show(self._ask(b"status\r\n")).lower()

    # -- looking after

    def set_status(self, word: str) -> None:
        self._expect(b"status %b\r\n" % word.encode(), b"END")

    def reload(self) -> None:
        self._expect(b"reload\r\n", b"Reloaded config.")

    def flush(self, queue: bytes) -> None:
        self._expect(b"flush %b\r\n" % queue, b"END")

    def delete(self, queue: bytes) -> None:
        reply = self._ask(b"delete %b\r\n" % queue)
        if reply == b"NOT_FOUND":  # in the kyototycoon dialect a delete acknowledges
            raise Refused(f"{self.address} speaks a dialect in which no queue can be deleted: use another listener")
        if reply not in (b"DELETED", b"END"):
            raise self._unexpected(reply)

    def pause(self, queue: bytes, what: str, seconds: int | None = None) -> None:
        """`what`: in, out, all or none."""
        time = b"" if seconds is None else b" %d" % seconds
        self._expect(b"pause %b %b%b\r\n" % (queue, what.encode(), time), b"PAUSED " + what.encode())

    def kick(self, queue: bytes, most: int) -> int:
        """How many buried or delayed items are ready now."""
        reply = self._ask(b"kick %b %d\r\n" % (queue, most))
        word, _, number = reply.partition(b" ")
        if word != b"KICKED" or not number.isdigit():
            raise self._unexpected(reply)
        return int(number)

    def put_back(self, queue: bytes, item_id: int | None, most: int) -> int | None:
        """Put the dead letter with this id back, or up to `most` of them if it is None; how many. None: there is no
        dead letter with this id."""
        return self._change_dead(b"put_back", b"PUT_BACK", queue, item_id, most)

    def drop_dead(self, queue: bytes, item_id: int | None, most: int) -> int | None:
        """As `put_back`, but they are gone."""
        return self._change_dead(b"drop", b"DROPPED", queue, item_id, most)

    def _change_dead(self, verb: bytes, answer: bytes, queue: bytes, item_id: int | None, most: int) -> int | None:
        which = b"/id=%d" % item_id if item_id is not None else b" %d" % most
        self._connection.wait_longer(None)  # there may be very many
        reply = self._ask(b"%b %b%b\r\n" % (verb, queue, which))
        self._connection.wait_longer(0)
        word, _, number = reply.partition(b" ")
        if reply != b"NOT_FOUND" and (word != answer or not number.isdigit()):
            raise self._unexpected(reply)
        return None if reply == b"NOT_FOUND" else int(number)

    # -- bytes

    def _ask(self, request: bytes) -> bytes:
        self._connection.send(request)
        return self._connection.reply()

    def _expect(self, request: bytes, answer: bytes) -> None:
        reply = self._ask(request)
        if reply != answer:
            raise self._unexpected(reply)

    def _unexpected(self, line: bytes) -> NoServer:
        said = show(line[:100])
        return NoServer(f'{self.address} answers "{said}", which is not the memcache protocol of a Darner server')


def _option(line: str) -> Option:
    """`max_items=0 (built in)`"""
    name, _, rest = line.partition("=")
    value, _, source = rest.rpartition(" (")
    return Option(name, value, source.removesuffix(")"))
