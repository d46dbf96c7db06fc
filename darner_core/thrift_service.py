"""Kestrel's thrift service: each call of kestrel.thrift, and what it does. See `client` for what a command is.

Imported only when there is a thrift listener, because it needs the library. An error is answered as a
TApplicationException to the call, and the connection goes on. One that ends the connection, and one that takes the
place of a reply whose turn could not be written, does not know the call: it has no name and the sequence number 0.

No call here switches greenlets, except through the Client's wait_... calls.
"""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from darner_core import NAME, VERSION
from darner_core.batches import Batches, give_back, wait_body, wait_swept
from darner_core.client import Client, Reply
from darner_core.commands import Commands
from darner_core.config import Config
from darner_core.errors import DamagedError, MalformedRequest, RequestError, ServerError, StorageError
from darner_core.journal import Journal
from darner_core.message_queue import MessageQueue
from darner_core.pending_reads import PendingReads
from darner_core.protocol import Command, Request, Vocabulary, set_name, show
from darner_core.records import Blob
from darner_core.registry import Registry
from darner_core.rights import ADMIN, ADMIN_ALL, FREE, GET, PUT
from darner_core.session import Session
from darner_core.stats import Stats
from darner_core.taken import Taken
from darner_core.text_commands import ServerStatus
from darner_core.thrift_messages import (
    DIALECT,
    UNKNOWN_METHOD,
    ThriftRequest,
    decode,
    encode,
    error_reply,
    exception,
    load_idl,
)
from darner_core.thrift_protocol import CALL, MAX_ITEM_BYTES, REPLY, FrameReader, check_arguments, read_message

log = logging.getLogger(NAME)

# What a get hands out at a time; a client that asks for more gets the rest by its next call. So many items take 15 ms.
MAX_ITEMS = 4096
# Of their bodies, the first aside.
MAX_REPLY_BYTES = 1 << 20
SCARCE_REPLY_BYTES = 64 << 10  # the same while pipeline_memory_bytes are exceeded

# What a status can forbid, and as what. What decides on an open item is never refused.
_REFUSED_WITH = dict.fromkeys((b"put", b"flush_queue", b"flush_all_queues", b"delete_queue"), PUT)
_REFUSED_WITH |= dict.fromkeys((b"get", b"peek"), GET)

# The IDL's by ours.
_STATUSES = {"UP": "UP", "WRITEAVOID": "UP", "READONLY": "READ_ONLY", "QUIESCENT": "QUIESCENT"}


class ThriftService:
    """The calls, bound to what they work on."""

    def __init__(
        self,
        commands: Commands,
        registry: Registry,
        journal: Journal,
        stats: Stats,
        config: Config,
        pending: PendingReads,
        status: ServerStatus | None = None,
    ) -> None:
        """`status`: None, there is none."""
        self._registry = registry
        self._queues = registry.queues
        self._stats = stats
        self._administering = commands.administering
        self._reading = commands.reading
        self._pipeline_memory = commands.pipeline_memory
        self._batches = Batches(registry, commands, journal, stats, config)
        self._pending = pending
        self._status = status
        self._idl = load_idl()
        self._service = self._idl.Kestrel
        self._table = self._make_table()

    def vocabulary(self, no_writes: str = "", no_reads: str = "") -> Vocabulary:
        """Of clients that may never put, or get, for these reasons."""
        table = dict(self._table)
        for call, right in _REFUSED_WITH.items():
            why = no_writes if right == PUT else no_reads
            if why:
                table[call] = table[call]._replace(run=partial(self._run, partial(_refuse, why)))
        return Vocabulary(DIALECT, table, lambda: FrameReader(partial(self.decode, table=table)))

    def _make_table(self) -> dict[bytes, Command]:
        calls: dict[str, tuple[Callable[..., Any], str]] = {
            "put": (self._put, PUT),
            "get": (self._get, GET),
            "confirm": (self._confirm, GET),
            "abort": (self._abort, GET),
            "peek": (self._peek, GET),
            "flush_queue": (self._flush_queue, ADMIN),
            "flush_all_queues": (self._flush_all_queues, ADMIN_ALL),
            "delete_queue": (self._delete_queue, ADMIN),
            "current_status": (self._current_status, FREE),
            "set_status": (self._set_status, ADMIN_ALL),
            "get_version": (self._get_version, FREE),
        }
        assert sorted(calls) == sorted(self._service.thrift_services)
        table = {
            name.encode(): Command(_no_line, partial(self._run, call), right) for name, (call, right) in calls.items()
        }
        table[b""] = Command(_no_line, partial(self._run, self._unknown), FREE)  # a call that there is not
        return table

    # -- decoding and encoding

    def decode(self, frame: bytes, table: dict[bytes, Command]) -> Request:
        """The call in `frame`; one that answers what is wrong with its arguments. Raises MalformedRequest if it is no
        message of a call."""
        method, kind, sequence, at = read_message(frame)
        if kind != CALL:
            raise MalformedRequest(f"a message of kind {kind}: only calls that wait for their reply are expected")
        command = table.get(method) if method else None
        if command is None:
            return ThriftRequest(table[b""].run, b"", key=method, sequence=sequence)
        arguments = getattr(self._service, f"{method.decode()}_args")()
        try:
            check_arguments(frame, at, arguments.thrift_spec)
        except MalformedRequest as error:
            reply = error_reply(MalformedRequest(f"{method.decode()}: {error}"), method, sequence)
            return Request(partial(_answer, reply), b"")
        decode(frame[at:], arguments)
        request = ThriftRequest(command.run, method, sequence=sequence, arguments=arguments)
        name = getattr(arguments, "queue_name", None)
        if name is not None:
            request.key = request.queue = name  # judged by it, whether a queue can be called that or not
            DIALECT.read_name(request)
        return request

    def _run(self, call: Callable[..., Any], request: ThriftRequest, body: None, session: Session) -> Reply:
        try:
            self._require_available(request)
            self._require_all(request)
            reply = call(request, session)
        except (RequestError, StorageError) as error:
            return _exception(request, error)
        return partial(self._wait_run, request, reply) if callable(reply) else self._encode(request, reply)

    def _wait_run(self, request: ThriftRequest, task: Callable[[Client], Any], client: Client) -> bytes:
        try:
            reply = task(client)
        except (RequestError, StorageError) as error:
            return _exception(request, error)
        return self._encode(request, reply)

    def _require_available(self, request: ThriftRequest) -> None:
        right = _REFUSED_WITH.get(request.verb)
        if self._status is not None and right is not None and self._status.refuses(right):
            raise ServerError(f"{request.verb.decode()} is refused: the server is {self._status.shown}")

    def _require_all(self, request: ThriftRequest) -> None:
        """Raises RequestError if an argument is missing, or no queue can have that name."""
        if request.arguments is None:
            return
        for _, name, *_ in request.arguments.thrift_spec.values():
            if getattr(request.arguments, name) is None:
                raise MalformedRequest(f"{request.verb.decode()}: {name} is missing")
        if hasattr(request.arguments, "queue_name"):
            set_name(request, request.queue)

    def _encode(self, request: ThriftRequest, reply: Any) -> bytes:
        """The frame that answers `reply`; one that is encoded already is taken as it is."""
        if isinstance(reply, _Encoded):
            return bytes(reply)
        result = getattr(self._service, f"{request.verb.decode()}_result")()
        if reply is not None:
            result.success = reply
        return encode(request.verb, REPLY, request.sequence, result)

    # -- the calls

    def _unknown(self, request: ThriftRequest, session: Session) -> Any:
        message = f'unknown method "{show(request.key)}": {", ".join(sorted(self._service.thrift_services))}'
        return _Encoded(exception(UNKNOWN_METHOD, message, request.key, request.sequence))

    def _put(self, request: ThriftRequest, session: Session) -> Any:
        items, expiry_ms = request.arguments.items, request.arguments.expiration_msec or None
        if self._batches.has_large(items):
            return partial(self._batches.wait_put, request.queue, items, expiry_ms)
        return self._batches.put(session, request.queue, items, expiry_ms)

    def _get(self, request: ThriftRequest, session: Session) -> Any:
        arguments = request.arguments
        most_items = min(arguments.max_items, MAX_ITEMS)
        if arguments.auto_abort_msec > 0:
            most_open = self._batches.most_open(request.queue)
            most_items = min(most_items, most_open - self._pending.opened_by(session, request.queue))
        if most_items <= 0:
            return []
        queue = self._batches.queue(request.queue)
        taken = Taken(SCARCE_REPLY_BYTES if self._pipeline_memory.scarce else MAX_REPLY_BYTES, most_items)
        try:
            taken.take(queue)
        except BaseException:
            give_back(taken.reads)
            raise
        waits = arguments.timeout_msec > 0 and self._may_wait(request)
        if taken.is_large or (not taken.full and (waits or (queue is not None and queue.half_swept))):
            return partial(self._wait_get, request, taken)
        return self._hand_out(request, session, taken)

    def _may_wait(self, request: Request) -> bool:
        return not self._reading.stopping and self._batches.may_wait(request.queue)

    def _wait_get(self, request: ThriftRequest, taken: Taken, client: Client) -> Any:
        until = time.monotonic() + request.arguments.timeout_msec / 1000
        try:
            while not taken.full:
                queue = self._queues.get(request.queue)
                if queue is not None and queue.half_swept:
                    wait_swept(queue, client)
                    taken.take(queue)
                    continue
                rest_ms = int((until - time.monotonic()) * 1000)
                if rest_ms <= 0 or not self._may_wait(request):
                    break
                read = self._reading.wait_for_read((request.queue,), client, rest_ms)
                if read is None:
                    break
                taken.add(read)
                taken.take(read.queue)
            if taken.is_large:
                taken.body = wait_body(taken.reads[0].queue.item_of(taken.reads[0]), taken.reads[0].queue, client)
        except BaseException:
            give_back(taken.reads)
            raise
        return self._hand_out(request, client.session, taken)

    def _hand_out(self, request: ThriftRequest, session: Session, taken: Taken) -> Any:
        """The reply with what was taken, which from here on is gone, or open until it is decided."""
        reads = [read for read in taken.reads if read.queue.holds(read)]  # flushed, deleted or undone meanwhile
        auto_abort_ms = request.arguments.auto_abort_msec
        ids = self._pending.next_ids(len(reads)) if auto_abort_ms > 0 else [0] * len(reads)
        items: list[Any] = []
        try:
            for read, item_id in zip(reads, ids, strict=True):
                try:
                    body = taken.body if taken.is_large else read.queue.item_of(read)[0]
                except StorageError:
                    if not items:
                        raise
                    break  # what lies before the damage is served
                items.append(self._idl.Item(data=body, id=item_id))
            reply = _Encoded(self._encode(request, items))
            for read, item_id in zip(reads[: len(items)], ids, strict=False):
                if item_id:
                    self._pending.hold(item_id, read, session, auto_abort_ms)
                else:
                    read.queue.close(read)
        except BaseException:
            give_back(reads)
            raise
        give_back(reads[len(items) :])
        self._stats.get_hits += len(items)
        self._stats.get_misses += not items
        return reply

    def _confirm(self, request: ThriftRequest, session: Session) -> int:
        return self._pending.confirm(request.queue, request.arguments.ids)

    def _abort(self, request: ThriftRequest, session: Session) -> int:
        return self._pending.abort(request.queue, request.arguments.ids)

    def _peek(self, request: ThriftRequest, session: Session) -> Any:
        self._stats.cmd_peek += 1
        queue = self._queues.get(request.queue)
        if queue is None:
            return self._idl.QueueInfo(
                items=0, bytes=0, journal_bytes=0, age=0, waiters=self._waiters(request.queue), open_transactions=0
            )
        head = queue.peek()
        if head is None and queue.half_swept:
            return partial(self._sweep_and_peek, request, session, queue)
        if head is not None and isinstance(head[0], Blob) and len(head[0]) <= MAX_ITEM_BYTES:
            return partial(self._wait_peek, queue)
        return self._describe(queue, head[0] if head is not None and isinstance(head[0], bytes) else None)

    def _sweep_and_peek(self, request: ThriftRequest, session: Session, queue: MessageQueue, client: Client) -> Any:
        wait_swept(queue, client)
        reply = self._peek(request, session)
        return reply(client) if callable(reply) else reply

    def _wait_peek(self, queue: MessageQueue, client: Client) -> Any:
        """It holds nobody up: if the head is another one when it has been read, it is left out."""
        head_id, head, body = queue.head_id, queue.peek(), None
        assert head is not None
        try:
            body = wait_body(head, queue, client)
        except StorageError:
            if not queue.deleted and queue.head_id == head_id:
                raise
        return self._describe(queue, body if queue.head_id == head_id else None)

    def _describe(self, queue: MessageQueue, head: bytes | None) -> Any:
        return self._idl.QueueInfo(
            head_item=head,
            items=queue.waiting_items,
            bytes=queue.waiting_bytes,
            journal_bytes=queue.log_bytes,
            age=self._stats.age_ms(queue),
            waiters=self._waiters(queue.name),
            open_transactions=queue.open_reads,
        )

    def _waiters(self, name: bytes) -> int:
        queue = self._queues.get(name) or self._registry.awaited.get(name)
        return len(queue.line) if queue is not None and queue.line is not None else 0

    def _flush_queue(self, request: ThriftRequest, session: Session) -> None:
        self._registry.flush(request.queue)

    def _flush_all_queues(self, request: ThriftRequest, session: Session) -> Any:
        return self._administering.wait_flush_all

    def _delete_queue(self, request: ThriftRequest, session: Session) -> None:
        self._registry.delete(request.queue)

    def _current_status(self, request: ThriftRequest, session: Session) -> int:
        name = _STATUSES[self._status.shown] if self._status is not None else "NOT_CONFIGURED"
        return int(getattr(self._idl.Status, name))

    def _set_status(self, request: ThriftRequest, session: Session) -> Any:
        if self._status is None:
            raise ServerError("no status is configured")
        for ours, name in _STATUSES.items():
            if request.arguments.status == getattr(self._idl.Status, name):
                return partial(self._wait_status, self._status, ours)
        raise ServerError(f"status {request.arguments.status}: it can be set to UP, READ_ONLY or QUIESCENT")

    @staticmethod
    def _wait_status(status: ServerStatus, word: str, client: Client) -> None:
        status.wait_change(word)

    def _get_version(self, request: ThriftRequest, session: Session) -> str:
        return VERSION


class _Encoded(bytes):
    """A frame that is the reply."""


def _refuse(why: str, request: ThriftRequest, session: Session) -> NoReturn:
    raise ServerError(f"{request.verb.decode()} is refused: {why}")


def _exception(request: ThriftRequest, error: RequestError | StorageError) -> bytes:
    if isinstance(error, StorageError):
        if not isinstance(error, DamagedError):  # which its queue has told already
            log.error("%s", error)
        error = ServerError(str(error))
    return error_reply(error, request.verb, request.sequence)


def _answer(reply: bytes, *_: Any) -> bytes:
    return reply


def _no_line(request: Request, words: list[bytes]) -> None:
    """There are no lines in thrift."""
