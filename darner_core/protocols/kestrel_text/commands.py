"""Kestrel's text protocol: the table of its verbs, and what they do. See `client` for what a command is.

A get, a peek or a monitor confirms all that were open of the queue, so that a client which asks for the next has done
the one before; the session gives back what it held. Counts are answered as +n, items as :item, none as *,
errors as -message.

No call here switches greenlets, except through the Client's wait_... calls.
"""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn, Protocol, cast

from darner_core import NAME, VERSION
from darner_core.access.rights import ADMIN, ADMIN_ALL, FREE, GET, PUT
from darner_core.config.options import Config
from darner_core.engines.contract import Item, Read
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.registry import Registry
from darner_core.errors import ClientError, DamagedError, StorageError
from darner_core.operations.administering import as_admin, require_admin
from darner_core.operations.batches import Batches, wait_swept
from darner_core.operations.client import RIGHTS_GONE, Client, HangUp, Reply
from darner_core.operations.session import READS_AT_ONCE, ManyReads
from darner_core.operations.stats import Stats
from darner_core.protocols.kestrel_text import reader
from darner_core.protocols.kestrel_text.reader import NOT_UNDERSTOOD, STATUS_TO, TextReader, TextRequest, error_reply
from darner_core.protocols.memcache.commands import Commands
from darner_core.protocols.memcache.dialects import DIALECTS, Dialect
from darner_core.protocols.memcache.reader import Command, Request, Vocabulary
from darner_core.repeated import BY_TEXT
from darner_core.storage.records import Blob

log = logging.getLogger(NAME)

NONE = b"*\n"
NOTHING = b""
DONE = b"+0\n"

# What can be refused. What confirms is not.
WRITES = frozenset((b"put", b"flush", b"delete"))
READS = frozenset((b"get", b"peek", b"monitor"))

# A monitor sends so much at a time.
MONITOR_BYTES = 64 << 10
SCARCE_MONITOR_BYTES = 4 << 10  # the same while pipeline_memory_bytes are exceeded

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


class ServerStatus(Protocol):
    """What the server is willing to do at present, as the verb `status` shows and sets it."""

    @property
    def shown(self) -> str:
        """UP, WRITEAVOID, READONLY or QUIESCENT."""

    def refuses(self, right: str) -> bool:
        """Whether nobody may put (PUT), or take (GET), now."""

    def wait_change(self, word: str) -> None:
        """Raises RequestError or StorageError. May switch greenlets."""


def hands_over(reply: bytes) -> bool:
    return reply.startswith(b":")


DIALECT = Dialect(
    "text",
    DIALECTS["kestrel"].read_name,
    several_reads=True,
    error_reply=error_reply,
    hands_over=hands_over,
    logs_in=False,
)


class TextCommands:
    """The commands, bound to what they work on."""

    def __init__(
        self,
        commands: Commands,
        registry: Registry,
        journal: Journal,
        stats: Stats,
        config: Config,
        request_stop: Callable[[], None],
        status: ServerStatus | None = None,
    ) -> None:
        """`status`: None, there is none."""
        self._registry = registry
        self._queues = registry.queues
        self._stats = stats
        self._config = config
        self._reading = commands.reading
        self._pipeline_memory = commands.pipeline_memory
        self._batches = Batches(registry, commands, journal, stats, config)
        self._request_stop = request_stop
        self._status = status

    def vocabulary(self, no_writes: str = "", no_reads: str = "") -> Vocabulary:
        """Of clients that may never put, or get, for these reasons."""
        table = self._table()
        for verbs, why in ((WRITES, no_writes), (READS, no_reads)):
            for verb in verbs if why else ():
                table[verb] = table[verb]._replace(run=partial(_refuse, why))
        config = self._config
        # An item that is longer than a chunk would have to be received in pieces, which lines do not announce.
        most_item_bytes = min(config.max_item_bytes, config.chunk_bytes)
        return Vocabulary(DIALECT, table, lambda: TextReader(table, config.max_line_bytes, most_item_bytes))

    def _table(self) -> dict[bytes, Command]:
        entries: dict[bytes, tuple[Any, Any, str]] = {
            b"put": (reader.parse_put, self.put, PUT),
            b"get": (reader.parse_reading, self.get, GET),
            b"peek": (reader.parse_reading, self.peek, GET),
            b"monitor": (reader.parse_monitor, self.monitor, GET),
            b"confirm": (reader.parse_confirm, self.confirm, GET),
            b"flush": (reader.parse_naming, self.flush, ADMIN),
            b"delete": (reader.parse_naming, self.delete, ADMIN),
            b"status": (reader.parse_status, self.status, FREE),
            STATUS_TO: (reader.parse_status, self.status, ADMIN_ALL),
            b"version": (reader.parse_bare, self.version, FREE),
            b"shutdown": (reader.parse_bare, self.shutdown, ADMIN_ALL),
            b"help": (reader.parse_any, self.help, FREE),
            b"?": (reader.parse_any, self.help, FREE),
            b"quit": (reader.parse_bare, self.quit, FREE),
            NOT_UNDERSTOOD: (reader.parse_bare, self.quit, FREE),
        }
        return {verb: as_admin(Command(*entry)) for verb, entry in entries.items()}

    # -- putting

    def _unavailable(self, request: Request, right: str) -> bytes:
        """The answer to what the status forbids; b"": it does not. A get goes on confirming."""
        if self._status is None or not self._status.refuses(right):
            return NOTHING
        return error_reply(f"Server not available for operation {request.verb.decode()}")

    def put(self, request: TextRequest, body: None, session: ManyReads) -> bytes:
        if refusal := self._unavailable(request, PUT):
            return refusal
        return b"+%d\n" % self._batches.put(session, request.queue, request.items or (), request.expiry_ms)

    # -- taking

    def get(self, request: TextRequest, body: None, session: ManyReads) -> Reply:
        _close_all(request, session)
        if refusal := self._unavailable(request, GET):
            return refusal
        queue = self._batches.queue(request.queue)
        return self._take(request, queue, session)

    def _take(self, request: Request, queue: MessageQueue | None, session: Any) -> Reply:
        read = queue.open() if queue is not None else None
        if read is not None:
            return self._open(read, session)
        if queue is not None and queue.half_swept:
            return partial(self._sweep_and_get, request, queue)
        if request.wait_ms and self._may_wait(request):
            return partial(self._wait_and_get, request)
        return self._miss()

    def _may_wait(self, request: Request) -> bool:
        return not self._reading.stopping and self._batches.may_wait(request.queue)

    def _sweep_and_get(self, request: Request, queue: MessageQueue, client: Client) -> bytes:
        wait_swept(queue, client)
        reply = self._take(request, self._queues.get(request.queue), client.session)
        return reply if isinstance(reply, bytes) else reply(client)

    def _wait_and_get(self, request: Request, client: Client) -> bytes:
        read = self._reading.wait_for_read((request.queue,), client, request.wait_ms)
        if read is None:
            return self._miss()
        reply = self._open(read, client.session)
        return reply if isinstance(reply, bytes) else reply(client)

    def _miss(self) -> bytes:
        self._stats.get_misses += 1
        return NONE

    def _open(self, read: Read, session: Any) -> Reply:
        """The reply with an item that has just been opened, and that the session holds from now on."""
        try:
            if read.blob:
                return partial(self._send_large, read)
            item = read.queue.item_of(read)
        except BaseException:
            read.queue.give_back(read)
            raise
        self._stats.get_hits += 1
        session.hold(read)
        return _line(item)

    def _send_large(self, read: Read, client: Client) -> bytes:
        try:
            self._reading.send_chunks(b":", read.queue, read.queue.item_of(read), read.id, client, read)
        except BaseException as error:
            read.queue.give_back(read)
            sending = self._reading.sending.get(read)
            if isinstance(error, StorageError) and sending is not None and sending.missing_bytes != read.body_bytes:
                _tell(error)
                raise HangUp from None  # in the middle of a line nothing can be said
            raise
        finally:
            self._reading.sending.pop(read, None)
        self._stats.get_hits += 1
        client.session.hold(read)
        return b"\n"

    def peek(self, request: TextRequest, body: None, session: ManyReads) -> Reply:
        _close_all(request, session)
        if refusal := self._unavailable(request, GET):
            return refusal
        self._stats.cmd_peek += 1
        return self._look(request)

    def _look(self, request: Request) -> Reply:
        reply = self._show(request)
        if reply is not None:
            return reply
        queue = self._queues.get(request.queue)
        if queue is not None and queue.half_swept:
            return partial(self._sweep_and_peek, request, queue)
        return partial(self._wait_and_peek, request) if request.wait_ms and self._may_wait(request) else NONE

    def _show(self, request: Request) -> Reply | None:
        queue = self._queues.get(request.queue)
        item = queue.peek() if queue is not None else None
        if item is None:
            return None
        assert queue is not None
        return partial(self._show_large, queue, item) if isinstance(item[0], Blob) else _line(item)

    def _sweep_and_peek(self, request: Request, queue: MessageQueue, client: Client) -> bytes:
        wait_swept(queue, client)
        reply = self._look(request)
        return reply if isinstance(reply, bytes) else reply(client)

    def _wait_and_peek(self, request: Request, client: Client) -> bytes:
        until = time.monotonic() + request.wait_ms / 1000
        while self._reading.wait_peeked(request.queue, client, until):
            wait_swept(self._queues.get(request.queue), client)
            reply = self._show(request)
            if reply is not None:
                return reply if isinstance(reply, bytes) else reply(client)
        return NONE

    def _show_large(self, queue: MessageQueue, item: Item, client: Client) -> bytes:
        """It holds nobody up: if another client takes the item, this one is cut off."""
        head_id = queue.head_id
        try:
            self._reading.send_chunks(b":", queue, item, head_id, client)
        except StorageError:
            if queue.head_id != head_id:
                raise HangUp from None
            raise
        return b"\n"

    def monitor(self, request: TextRequest, body: None, session: ManyReads) -> Reply:
        _close_all(request, session)
        if refusal := self._unavailable(request, GET):
            return refusal
        self._batches.queue(request.queue)
        return partial(self._wait_monitor, request)

    def _room(self, request: Request, session: ManyReads) -> int:
        return self._batches.most_open(request.queue) - session.open_reads(request.queue)

    def _wait_monitor(self, request: Request, client: Client) -> bytes:
        """Open items as they come, until the time is over or as many are open as may be."""
        unsent: list[bytes] = []
        try:
            self._wait_items(request, unsent, client)
        except StorageError as error:
            # What lies before is open, and the next get confirms it: so it is sent, and lines end before the error's.
            client.wait_sent(b"".join(unsent))
            _tell(error)
            return error_reply(str(error))
        return NONE

    def _wait_items(self, request: Request, unsent: list[bytes], client: Client) -> None:
        """`unsent`: the lines of what has been opened and not been sent. Raises StorageError."""
        session = cast(ManyReads, client.session)
        until = time.monotonic() + request.wait_ms / 1000
        while self._room(request, session) > 0:
            queue = self._queues.get(request.queue)
            read: Read | None = queue.open() if queue is not None else None
            if read is None and queue is not None and queue.half_swept:
                wait_swept(queue, client)
                continue
            if read is None:
                rest_ms = int((until - time.monotonic()) * 1000)
                if rest_ms <= 0 or not self._may_wait(request):
                    break
                read = self._reading.wait_for_read((request.queue,), client, rest_ms)
                if read is None:
                    break
            if not client.may(GET, request):
                read.queue.give_back(read)
                raise ClientError(RIGHTS_GONE)
            unsent_bytes = 0
            while read is not None:
                if read.blob:
                    self._wait_line_of_large(read, unsent, client)
                    break
                line = cast(bytes, self._open(read, session))  # because it is not large
                unsent.append(line)
                unsent_bytes += len(line)
                most_bytes = SCARCE_MONITOR_BYTES if self._pipeline_memory.scarce else MONITOR_BYTES
                if unsent_bytes >= most_bytes or self._room(request, session) <= 0:
                    break
                read = read.queue.open() if not read.queue.deleted else None
            lines = b"".join(unsent)
            unsent.clear()
            client.wait_sent(lines)

    def _wait_line_of_large(self, read: Read, unsent: list[bytes], client: Client) -> None:
        """Send what comes before a large item, and the item; the end of its line is not sent yet."""
        before = b"".join(unsent)
        unsent.clear()
        try:
            client.wait_sent(before)
        except BaseException:
            read.queue.give_back(read)
            raise
        unsent.append(self._send_large(read, client))

    def confirm(self, request: TextRequest, body: None, session: ManyReads) -> Reply:
        if session.open_reads(request.queue) < request.count:
            return error_reply("Not that many transactions open.")
        if request.count > READS_AT_ONCE:
            return partial(self._wait_confirm, request)
        session.close_oldest(request.queue, request.count)
        return b"+%d\n" % request.count

    @staticmethod
    def _wait_confirm(request: TextRequest, client: Client) -> bytes:
        assert isinstance(client.session, ManyReads)
        for _ in client.session.close_in_slices(request.queue, request.count):
            client.wait_turn()
        return b"+%d\n" % request.count

    # -- looking after queues and the server

    def flush(self, request: TextRequest, body: None, session: ManyReads) -> bytes:
        if refusal := self._unavailable(request, PUT):
            return refusal
        self._registry.flush(request.queue)
        return DONE

    def delete(self, request: TextRequest, body: None, session: ManyReads) -> bytes:
        if refusal := self._unavailable(request, PUT):
            return refusal
        self._registry.delete(request.queue)
        return DONE

    def status(self, request: TextRequest, body: None, session: ManyReads) -> Reply:
        if self._status is None:
            return error_reply("No status is configured.")
        if not request.word:
            return b":%b\n" % self._status.shown.encode()
        require_admin(request, session)  # the run of STATUS_TO is this one, of the verb that was read
        return partial(self._wait_status, self._status, request.word.decode("latin-1"))

    @staticmethod
    def _wait_status(status: ServerStatus, word: str, client: Client) -> bytes:
        status.wait_change(word)
        return DONE

    def version(self, request: TextRequest, body: None, session: ManyReads) -> bytes:
        return b":%b\n" % VERSION.encode()

    def shutdown(self, request: TextRequest, body: None, session: ManyReads) -> bytes:
        self._request_stop()
        return DONE

    def help(self, request: TextRequest, body: None, session: ManyReads) -> bytes:
        return b"".join(b":%b\n" % usage.encode() for usage in USAGE.values()) + NONE

    def quit(self, request: TextRequest, body: None, session: ManyReads) -> NoReturn:
        raise HangUp


def _line(item: Item) -> bytes:
    body = item[0]
    assert isinstance(body, bytes)
    return b":%b\n" % body


def _refuse(why: str, request: Request, body: None, session: ManyReads) -> bytes:
    said = f"{request.verb.decode()} is refused: {why}"
    log.debug("refused: %s: %s", session.origin, said)
    return error_reply(said)


def _close_all(request: Request, session: ManyReads) -> None:
    """Raises StorageError, with nothing closed."""
    session.close_oldest(request.queue, session.open_reads(request.queue))


def _tell(error: StorageError) -> None:
    if not isinstance(error, DamagedError):  # which its queue has told already
        log.error("%s", error, extra=BY_TEXT)
