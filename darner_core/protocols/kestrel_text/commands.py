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
from darner_core.operations.job_put import JobPut
from darner_core.operations.operations import Operations
from darner_core.operations.session import Failures, ManyReads
from darner_core.operations.status import status_of
from darner_core.operations.taking import Settle, Shown
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
    b"put": "put <queue>[/delay=<ms>][/pri=<n>][/ttr=<ms>][/key=<text>] [<expiry in ms>]:"
    " and then a line for each item, and an empty line",
    b"add": "add <queue>/key=<text> [<expiry in ms>]: and then a line with the item, and an empty line",
    b"get": "get <queue>[/ttr=<ms>] [<ms>]",
    b"peek": "peek <queue> [<ms>]",
    b"monitor": "monitor <queue>[/ttr=<ms>] <ms> [<count>]",
    b"confirm": "confirm <queue> <count>",
    b"abort": "abort <queue>[/delay=<ms>][/pri=<n>] <count>",
    b"reject": "reject <queue> <count>",
    b"touch": "touch <queue> <ms>",
    b"kick": "kick <queue> <count>",
    b"pause": "pause <queue> in, out, all or none [<ms>]",
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
        self._jobs = operations.jobs
        self._holding = operations.holding
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
            b"add": (reader.parse_add, self.put, PUT, WRITES),
            b"get": (reader.parse_get, self.get, GET, READS),
            b"peek": (reader.parse_reading, self.peek, GET, READS),
            b"monitor": (reader.parse_monitor, self.monitor, GET, READS),
            b"confirm": (reader.parse_confirm, self.confirm, GET, ""),
            b"abort": (reader.parse_abort, self.abort, GET, ""),
            b"reject": (reader.parse_confirm, self.reject, GET, ""),
            b"touch": (reader.parse_touch, self.touch, GET, ""),
            b"kick": (reader.parse_confirm, self.kick, ADMIN, WRITES),
            b"pause": (reader.parse_pause, self.pause, ADMIN, ""),
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
        if request.job is not None:
            return self._put_jobs(request, session, JobPut(self._jobs, request.queue, request.job, as_child))
        stored = self._operations.putting.put_several(session, request.queue, items, request.expiry_ms, as_child)
        assert stored is not LATER  # the reader takes few items, none longer than a chunk
        return b"+%d\n" % stored

    def _put_jobs(self, request: TextRequest, session: ManyReads, put_one: JobPut) -> Reply:
        putting, as_child = self._operations.putting, request.parent != b""
        asked = request.queue, request.items or (), request.expiry_ms, as_child, put_one

        def answer(stored: int) -> bytes:
            is_there = put_one.key_taken and request.verb == b"put"
            return b"+1\n" if is_there else b"+%d\n" % stored

        stored = putting.put_several(session, *asked)
        return now_or_later(stored, answer, lambda client: putting.wait_put_several(client, *asked))

    def get(self, request: TextRequest, body: None, session: ManyReads) -> Reply:
        _close_all(request, session)
        if request.parent:
            self._taking.make_child(request.queue)
        if request.ttr_ms is not None:
            self._jobs.require_room(request.queue)
        taking, names, until = self._taking, (request.queue,), time.monotonic() + request.wait_ms / 1000
        return now_or_later(
            taking.open(names, request.wait_ms),
            lambda read: self._got(request, session, read),
            lambda client: taking.wait_open(client, names, until),
        )

    def _got(self, request: TextRequest, session: ManyReads, read: Read | None) -> Reply:
        if read is None:
            self._stats.get_misses += 1
            return NONE
        return self._answer(request, session, read)

    def _answer(self, request: TextRequest, session: Any, read: Read) -> Reply:
        """The reply with an item that has been opened, and that the session holds from now on."""
        ttr_ms = request.ttr_ms
        settle = session.hold if ttr_ms is None else self._holding.settle(session, ttr_ms, read)
        if read.blob:
            return partial(self._wait_send, read, settle)
        return _line(self._taking.accept(read, settle))

    def _wait_send(self, read: Read, settle: Settle, client: Client) -> bytes:
        self._taking.wait_send(client, read, lambda item: b":", settle)
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
        answer: Any = partial(self._answer, request, client.session)
        try:
            most = request.count or MAX_COUNT
            self._monitoring.wait_monitor(client, request.queue, request.wait_ms, most, answer, takes_all=True)
        except (ServerError, StorageError) as error:  # what comes before it is open and has been sent, line by line
            return error_reply(told(error, client.session.origin))
        return NONE

    # -- what is open

    def confirm(self, request: TextRequest, body: None, session: ManyReads) -> Any:
        return self._monitoring.confirm_then(
            session, request.queue, request.count, lambda done: _counted(request.count if done else None)
        )

    def abort(self, request: TextRequest, body: None, session: ManyReads) -> Any:
        return self._holding.abort_oldest_then(
            session, request.queue, request.count, request.delay_ms, request.pri, _counted
        )

    def reject(self, request: TextRequest, body: None, session: ManyReads) -> Any:
        return self._holding.reject_oldest_then(session, request.queue, request.count, _counted)

    def touch(self, request: TextRequest, body: None, session: ManyReads) -> Any:
        return self._holding.touch_all_then(session, request.queue, request.time_ms, _counted)

    # -- looking after queues

    def kick(self, request: TextRequest, body: None, session: ManyReads) -> Reply:
        return lambda client: _counted(self._jobs.wait_kick(client, request.queue, request.count))

    def pause(self, request: TextRequest, body: None, session: ManyReads) -> bytes:
        self._jobs.pause(request.queue, request.pause, -(-request.time_ms // 1000))
        return DONE

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


def _counted(count: int | None) -> bytes:
    return error_reply("Not that many transactions open.") if count is None else b"+%d\n" % count


def _line(item: Item) -> bytes:
    body: Any = item[0]
    return b":%b\n" % body


def _close_all(request: Request, session: ManyReads) -> None:
    """Raises StorageError, with nothing closed."""
    session.close_oldest(request.queue, session.open_reads(request.queue))
