"""What a protocol is: a reader of bytes, a table of commands, and a way to write errors.

A command is a function (request, body, session) -> reply. The reply is bytes, b"" for none, or, when the command has to
wait for something, a function of the Client that the server runs in the client's own greenlet, blocking-style, and
that returns the bytes. Commands raise RequestError for what the client did wrong and StorageError for the disk. They
never switch greenlets themselves; the functions that they return do, through the Client's wait_... calls.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from typing import Protocol as Form

from darner_core import NAME
from darner_core.access.origins import Origin
from darner_core.access.rights import ADMIN_ALL
from darner_core.engines.contract import Turn
from darner_core.errors import DamagedError, RequestError, ServerError, StorageError
from darner_core.operations.client import Client
from darner_core.operations.session import Failures, Session
from darner_core.repeated import BY_TEXT
from darner_core.showing import show

log = logging.getLogger(NAME)

Reply = bytes | Callable[[Client], bytes]

# (right, queue): raises ClientError if the client does not have this right to the queue.
Require = Callable[[str, bytes], None]

# What can be refused, by the status or for a client that may never put or get; see `Command.kind`.
WRITES, READS = "writes", "reads"


@dataclass(slots=True)
class Request:
    """One request, as far as the server and its guard look at it. Never changed once it is served."""

    run: Callable[..., Any]
    verb: bytes = b""
    key: bytes = b""  # as it was asked for, options and all
    queue: bytes = b""  # the name as it was given, options taken off
    parent: bytes = b""  # whose fanout child `queue` is
    cursor: bytes = b""  # which of `queue`'s durable cursors is meant
    targets: tuple[bytes, ...] = ()  # the queues that an item is put into, or taken from, if several are named
    wait_ms: int = 0  # how long the client waits for what is not there yet
    body_bytes: int = -1  # -1: no body follows
    noreply: bool = False
    free: bool = False  # every user may ask this, whatever right its verb needs
    told: bytes = b""  # of an operator's command: what else the log says of it
    plain_bytes: int = -1  # how many bytes follow the line, if the Turn may serve it; -1: it may not


def answered(reply: bytes, verb: bytes = b"") -> Request:
    """A request that has its answer already."""
    return Request(lambda *_: reply, verb)


def everything_allowed(right: str, queue: bytes) -> None:
    """The Require of a client that may do everything."""


class Command(NamedTuple):
    """A verb's entry in the table: how its line is read, and what it does.

    parse   (request, words after the verb) fills in the request, or raises RequestError
    run     (request, body, session) -> reply
    right   what a user must be allowed to do to the queue, one of those in `rights`; by default the most
    job     run instead of both, where options say something of a job, or of several items
    several run instead of all others, where several queues are named to take from
    placed  run instead, where the dialect reads the name as more than a queue's: a child, a cursor, several queues
    kind    WRITES or READS: such requests can be refused for a while; "": they never are
    refusal why they are refused now; "": they are not
    only_refused the verb does not exist here; it is in the table so that clients are told so, and can go on
    """

    parse: Callable[..., None]
    run: Callable[..., Any]
    right: str = ADMIN_ALL
    placed: Callable[..., Any] | None = None
    kind: str = ""
    refusal: str = ""
    only_refused: bool = False
    job: Callable[..., Any] | None = None
    several: Callable[..., Any] | None = None


class Reader(Form):
    """Turns the bytes of one connection into requests; each protocol has its own."""

    @property
    def in_pieces(self) -> bool:
        """Whether something incomplete is held."""

    @property
    def large(self) -> Request | None:
        """A request whose body comes next and is received in pieces."""

    @property
    def error(self) -> RequestError | None:
        """What is wrong behind the last request returned; nothing can be read then."""

    @property
    def body_bytes(self) -> int:
        """How many bytes of an incomplete request are held, its line not counted."""

    @property
    def body_missing(self) -> int:
        """More than 0: the request that is incomplete can be handed over, and its body be received in pieces."""

    def single(self, data: bytes) -> Request | None:
        """The request that `data` is, if it is exactly one, in a common form and without a body; None: `requests` reads
        it. Never fed both ways."""

    def requests(self, data: bytes) -> Iterator[tuple[Request, bytes | None]]:
        """The requests that `data` completes, each with its body or None, one by one. They have to be gone through
        before anything else is fed: `error`, `large` and `in_pieces` hold at the end."""

    def hand_over(self) -> None:
        """Hold the incomplete body no longer: from here on it is `large`, whatever its size."""

    def drop(self) -> None:
        """Nothing more will be read: hold nothing."""

    def take_body(self, most_bytes: int) -> bytes:
        """Up to `most_bytes` of the large body, as far as they have come; b"" when that is nothing."""

    def end_body(self) -> None:
        """The large body has been taken; requests(b"") goes on behind it."""


class WholeReader:
    """What a Reader answers about bodies in pieces, if its protocol has none."""

    __slots__ = ()

    large = None
    body_missing = 0

    def single(self, data: bytes) -> Request | None:
        return None

    def hand_over(self) -> None:
        raise AssertionError("there is nothing to hand over")

    def take_body(self, most_bytes: int) -> bytes:
        raise AssertionError("there is no body to take")

    end_body = hand_over


class PieceReader:
    """What a Reader answers about bodies in pieces, if its protocol announces the size of a body in the line before."""

    __slots__ = ("_rest", "_parts", "_missing", "_request", "large")

    _rest: bytes  # an incomplete line, or, while `large` is set, the first bytes of its body
    _parts: list[bytes]  # an incomplete body
    _missing: int  # bytes that the incomplete body still lacks, its CR LF included; 0: in no body
    _request: Any  # whose body that is
    large: Any

    def __init__(self) -> None:
        self._rest = b""
        self._parts = []
        self._missing = 0
        self._request = None
        self.large = None

    def single(self, data: bytes) -> Request | None:
        return None

    @property
    def body_bytes(self) -> int:
        return sum(map(len, self._parts))

    @property
    def body_missing(self) -> int:
        return self._missing

    def hand_over(self) -> None:
        self.large, self._request = self._request, None
        self._rest = b"".join(self._parts)
        self._parts, self._missing = [], 0

    def drop(self) -> None:
        self._parts, self._missing, self._rest = [], 0, b""

    def take_body(self, most_bytes: int) -> bytes:
        taken, self._rest = self._rest[:most_bytes], self._rest[most_bytes:]
        return taken

    def end_body(self) -> None:
        self.large = None


def told(error: RequestError | StorageError, origin: Origin) -> RequestError:
    """What a client is told of `error`; the log is told as well. For protocols that answer errors themselves."""
    if isinstance(error, RequestError):
        log.debug("refused: %s: %s", origin, show(str(error)))
        return error
    if not isinstance(error, DamagedError):  # which its queue has told already
        log.error("%s", error, extra=BY_TEXT)
    return ServerError(str(error))


def error_line(error: RequestError) -> bytes:
    """An error as the memcache protocol writes it."""
    return error.reply


class Login(NamedTuple):
    """What a client has said to log in."""

    name: bytes
    password: bytes
    reply: bytes | Callable[[Any], bytes]  # if these are right; perhaps made for the session
    rest: bytes  # what has come behind it


class NoLogin(Exception):
    """What came is no login. str() says for the log what it was."""


class NotYet(Exception):
    """What came is no login, but the client may go on."""

    def __init__(self, reply: bytes, rest: bytes) -> None:
        self.reply = reply
        self.rest = rest  # what has come behind it


class BadLogin(Exception):
    """The login cannot be right. str() says for the log why."""


@dataclass(frozen=True)
class Traits:
    """What the server has to know of a protocol."""

    name: str
    error_reply: Callable[[RequestError], bytes] = error_line
    hands_over: Callable[[bytes], bool] = bool  # whether this reply has an item in it
    # The login at the beginning of these bytes, which are all that has come; None: it is incomplete. Raises NoLogin,
    # NotYet or BadLogin. Without such a function only a client's certificate says who it is.
    read_login: Callable[[bytes], "Login | None"] | None = None
    receives_whole: bool = True  # no request is received in pieces
    drained_by_signal: bool = False  # its operators expect that SIGUSR1 makes the server take no more items


class Protocol(Form):
    """What a package of `protocols` offers, see `vocabularies`."""

    @property
    def traits(self) -> Traits: ...

    def table(self) -> dict[bytes, Command]:
        """The commands by their verbs."""

    def refused(self, verb: bytes, command: Command, why: str, by_status: bool) -> Command:
        """The entry of a command that is refused. `by_status`: to all clients for now; else to some clients, as long as
        they are connected."""

    def new_reader(self, table: dict[bytes, Command], kept_lines: dict[bytes, Any]) -> Reader: ...

    def new_session(self, journal: Turn, failures: Failures, require: Require) -> Session:
        """What a new client has open, and whatever else the protocol keeps of a client. `require` is for protocols
        whose requests do not say which queue they are about."""

    def receive_large(self, request: Any, client: Client) -> bytes:
        """Serve the request that the reader has come upon as `large`; its reply. Switches greenlets."""


class Vocabulary:
    """What the clients of one dialect can ask. Shared by all their connections.

    `table` and `kept_lines` are changed in place, both together. They are never replaced: every reader has them.
    """

    __slots__ = ("dialect", "table", "kept_lines", "protocol")

    def __init__(self, protocol: Protocol, table: dict[bytes, Command]) -> None:
        self.protocol = protocol
        self.dialect = protocol.traits
        self.table = table
        self.kept_lines: dict[bytes, Any] = {}  # lines that have been parsed before, and their requests

    def new_reader(self) -> Reader:
        return self.protocol.new_reader(self.table, self.kept_lines)
