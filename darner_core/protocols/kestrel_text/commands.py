"""Kestrel's text protocol: the table of its verbs, and what they do. See `contract` for what a command is.

A get, a peek or a monitor confirms all items of the queue that the client has open: a client that asks for the next
item has dealt with the one before. Items that are open when the connection ends are given back. A count is answered as
+n, an item as :item, no item as *, an error as -message.
"""

import time
from functools import partial
from typing import Any, NoReturn

from darner_core import VERSION
from darner_core.access.rights import ADMIN, ADMIN_ALL, FREE, GET, PUT
from darner_core.config.listeners import TEXT
from darner_core.config.options import Config
from darner_core.engines.contract import Item, Read, Turn
from darner_core.errors import ServerError, StorageError
from darner_core.operations.client import LATER, Client, HangUp, now_or_later
from darner_core.operations.operations import Operations
from darner_core.operations.session import Failures, ManyReads
from darner_core.operations.status import status_of
from darner_core.operations.taking import Shown
from darner_core.protocols.contract import READS, WRITES, Command, Reply, Request, Require, Traits, told
from darner_core.protocols.guard import as_admin, require_admin
from darner_core.protocols.kestrel_text import reader
from darner_core.protocols.kestrel_text.reader import (
    MAX_COUNT,
    NOT_UNDERSTOOD,
    STATUS_TO,
    TextReader,
    TextRequest,
    error_reply,
)
from darner_core.showing import show

NONE = b"*\n"
DONE = b"+0\n"

# What `help` says of each verb.
USAGE = {
    b"put": "put <queue> [<expiry in ms>]: and then a line for each item, and an empty line",
    b"get": "get <queue> [<ms>]",
    b"peek": "peek <queue> [<ms>]",
    b"monitor": "monitor <queue> <ms>",
    b"confirm": "confirm <queue> <count>",
    b"flush": "flush <queue>",
    b"delete": "delete <queue>",
    b"status": "status [up, writeavoid, readonly or quiescent]",
    b"version": "version",
    b"shutdown": "shutdown",
    b"help": "help",
    b"quit": "quit",
}


class TextCommands:
    """The protocol, bound to the operations."""

    traits = Traits(TEXT, error_reply=error_reply, hands_over=lambda reply: reply.startswith(b":"))

    def __init__(self, operations: Operations, config: Config) -> None:
        self._operations = operations
        self._stats = operations.stats
        self._taking = operations.taking
        self._monitoring = operations.monitoring
        self._config = config

    def new_reader(self, table: dict[bytes, Command], kept_lines: dict[bytes, Any]) -> TextReader:
        config = self._config
        # An item that is longer than a chunk would have to be received in pieces, which lines do not announce.
        return TextReader(table, config.max_line_bytes, min(config.max_item_bytes, config.chunk_bytes))

    def new_session(self, journal: Turn, failures: Failures, require: Require) -> ManyReads:
        return ManyReads(journal, failures)

    def receive_large(self, request: Request, client: Client) -> NoReturn:
        raise AssertionError("nothing is received in pieces")

    def table(self) -> dict[bytes, Command]:
        administering = self._operations.administering
        entries: dict[bytes, tuple[Any, Any, str, str]] = {
            b"put": (reader.parse_put, self.put, PUT, WRITES),
            b"get": (reader.parse_reading, self.get, GET, READS),
            b"peek": (reader.parse_reading, self.peek, GET, READS),
            b"monitor": (reader.parse_monitor, self.monitor, GET, READS),
            b"confirm": (reader.parse_confirm, self.confirm, GET, ""),
            b"flush": (reader.parse_naming, _done(administering.flush), ADMIN, WRITES),
            b"delete": (reader.parse_naming, _done(administering.delete), ADMIN, WRITES),
            b"status": (reader.parse_status, self.status, FREE, ""),
            STATUS_TO: (reader.parse_status, self.status, ADMIN_ALL, ""),
            b"version": (reader.parse_bare, _version, FREE, ""),
            b"shutdown": (reader.parse_bare, self.shutdown, ADMIN_ALL, ""),
            b"help": (reader.parse_any, _help, FREE, ""),
            b"?": (reader.parse_any, _help, FREE, ""),
            b"quit": (reader.parse_bare, _quit, FREE, ""),
            NOT_UNDERSTOOD: (reader.parse_bare, _quit, FREE, ""),
        }
        return {
            verb: as_admin(Command(parse, run, right, kind=kind)) for verb, (parse, run, right, kind) in entries.items()
        }

    def refused(self, verb: bytes, command: Command, why: str, by_status: bool) -> Command:
        said = f"{verb.decode()} is refused: {why}"
        if by_status:
            said = f"Server not available for operation {verb.decode()}"

        def refuse(request: TextRequest, body: None, session: ManyReads) -> NoReturn:
            if command.kind == READS:  # it goes on confirming
                _close_all(request, session)
            raise ServerError(said)

        return command._replace(run=refuse, refusal=said)

    # -- putting and taking

    def put(self, request: TextRequest, body: None, session: ManyReads) -> Reply:
        items, as_child = request.items or (), request.parent != b""
        stored = self._operations.putting.put_several(session, request.queue, items, request.expiry_ms, as_child)
        assert stored is not LATER  # the reader takes few items, none longer than a chunk
        return b"+%d\n" % stored

    def get(self, request: TextRequest, body: None, session: ManyReads) -> Reply:
        _close_all(request, session)
        if request.parent:
            self._taking.make_child(request.queue)
        taking, names, until = self._taking, (request.queue,), time.monotonic() + request.wait_ms / 1000
        return now_or_later(
            taking.open(names, request.wait_ms),
            lambda read: self._got(session, read),
            lambda client: taking.wait_open(client, names, until),
        )

    def _got(self, session: ManyReads, read: Read | None) -> Reply:
        if read is None:
            self._stats.get_misses += 1
            return NONE
        return self._answer(session, read)

    def _answer(self, session: Any, read: Read) -> Reply:
        """The reply with an item that has been opened, and that the session holds from now on."""
        if read.blob:
            return partial(self._wait_send, read)
        return _line(self._taking.accept(read, session.hold))

    def _wait_send(self, read: Read, client: Client) -> bytes:
        self._taking.wait_send(client, read, lambda item: b":", client.session.hold)
        return b"\n"

    def peek(self, request: TextRequest, body: None, session: ManyReads) -> Any:
        _close_all(request, session)
        return self._taking.peek_then(request.queue, request.wait_ms, self._shown)

    def _shown(self, shown: Shown | None) -> Reply:
        if shown is None:
            return NONE
        return partial(self._wait_show, shown) if shown.is_large else _line(shown.item)

    def _wait_show(self, shown: Shown, client: Client) -> bytes:
        self._taking.wait_show(client, shown, b":")
        return b"\n"

    def monitor(self, request: TextRequest, body: None, session: ManyReads) -> Reply:
        _close_all(request, session)
        if request.parent:
            self._taking.make_child(request.queue)
        return partial(self._wait_monitor, request)

    def _wait_monitor(self, request: TextRequest, client: Client) -> bytes:
        answer: Any = partial(self._answer, client.session)
        try:
            self._monitoring.wait_monitor(client, request.queue, request.wait_ms, MAX_COUNT, answer, takes_all=True)
        except StorageError as error:  # what comes before it is open and has been sent, line by line
            return error_reply(told(error, client.session.origin))
        return NONE

    def confirm(self, request: TextRequest, body: None, session: ManyReads) -> Any:
        done, not_done = b"+%d\n" % request.count, error_reply("Not that many transactions open.")
        return self._monitoring.confirm_then(
            session, request.queue, request.count, lambda is_done: done if is_done else not_done
        )

    # -- looking after the server

    def status(self, request: TextRequest, body: None, session: ManyReads) -> Any:
        status = self._operations.host.status
        if not request.word:
            return b":%b\n" % status.shown.word.encode()
        require_admin(request, session)  # the run of STATUS_TO is this one, of the verb that was read
        word = request.word.decode("latin-1")
        try:
            new = status_of(word)
        except ValueError as allowed:
            raise ServerError(f'unknown status "{show(word)}": {allowed}') from None
        return status.change_then(new, DONE)

    def shutdown(self, request: TextRequest, body: None, session: ManyReads) -> bytes:
        self._operations.host.request_stop()
        return DONE


def speak(operations: Operations, config: Config, dialect: str, reply_key: str) -> TextCommands:
    return TextCommands(operations, config)


def _done(do: Any) -> Any:
    """The command that does this to a queue."""

    def run(request: TextRequest, body: None, session: ManyReads) -> bytes:
        do(request.queue)
        return DONE

    return run


def _version(request: TextRequest, body: None, session: ManyReads) -> bytes:
    return b":%b\n" % VERSION.encode()


def _help(request: TextRequest, body: None, session: ManyReads) -> bytes:
    return b"".join(b":%b\n" % usage.encode() for usage in USAGE.values()) + NONE


def _quit(request: TextRequest, body: None, session: ManyReads) -> NoReturn:
    raise HangUp


def _line(item: Item) -> bytes:
    body: Any = item[0]
    return b":%b\n" % body


def _close_all(request: Request, session: ManyReads) -> None:
    """Raises StorageError, with nothing closed."""
    session.close_oldest(request.queue, session.open_reads(request.queue))
