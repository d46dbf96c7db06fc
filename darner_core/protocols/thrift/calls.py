"""Kestrel's thrift service: each call of kestrel.thrift, and what it does. See `client` for what a command is.

Imported only when there is a thrift listener, because it needs the library. An error is answered as a
TApplicationException to the call, and the connection goes on. One that ends the connection, and one that takes the
place of a reply whose turn could not be written, does not know the call: it has no name and the sequence number 0.

No call here switches greenlets, except through the Client's wait_... calls.
"""

import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NoReturn

from darner_core import NAME, VERSION
from darner_core.access.rights import ADMIN, ADMIN_ALL, FREE, GET, PUT
from darner_core.config.options import Config
from darner_core.config.values import show_text
from darner_core.engines.contract import Item, Read
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.pending_reads import DECIDED_AT_ONCE, PendingReads
from darner_core.engines.local.registry import Registry
from darner_core.errors import DamagedError, MalformedRequest, RequestError, ServerError, StorageError
from darner_core.nearest import did_you_mean
from darner_core.operations.administering import is_admin, require_admin
from darner_core.operations.batches import ITEMS_A_TURN, Batches, give_back, wait_body, wait_swept
from darner_core.operations.client import Client, Reply
from darner_core.operations.session import Session
from darner_core.operations.stats import Stats
from darner_core.protocols.kestrel_text.commands import ServerStatus
from darner_core.protocols.memcache.commands import Commands
from darner_core.protocols.memcache.reader import Command, Request, Vocabulary, set_name, show
from darner_core.protocols.thrift.messages import (
    DIALECT,
    UNKNOWN_METHOD,
    ThriftRequest,
    decode,
    encode,
    error_reply,
    exception,
    load_idl,
)
from darner_core.protocols.thrift.reader import CALL, MAX_ITEM_BYTES, REPLY, FrameReader, check_arguments, read_message
from darner_core.protocols.thrift.taken import Taken
from darner_core.repeated import BY_TEXT
from darner_core.storage.records import Blob

log = logging.getLogger(NAME)

# What a get hands out at a time; a client that asks for more gets the rest by its next call. So many items take 15 ms.
MAX_ITEMS = 4096
# Of their bodies, the first aside.
MAX_REPLY_BYTES = 1 << 20
SCARCE_REPLY_BYTES = 4 << 10  # the same while pipeline_memory_bytes are exceeded

# Stands in a reply for the body of a large item while the reply is encoded; nothing else in it is so long and free.
_BODY = b"\x00the large item\x00"

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
            if request.verb and is_admin(self._table[request.verb]):
                require_admin(request, session)
            reply = call(request, session)
        except (RequestError, StorageError) as error:
            return _exception(request, error, session)
        return partial(self._wait_run, request, reply) if callable(reply) else self._encode(request, reply)

    def _wait_run(self, request: ThriftRequest, task: Callable[[Client], Any], client: Client) -> bytes:
        try:
            reply = task(client)
        except (RequestError, StorageError) as error:
            return _exception(request, error, client.session)
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
        methods = sorted(self._service.thrift_services)
        near = did_you_mean(show(request.key), methods, ", ".join(methods))
        message = f'unknown method "{show(request.key)}": {near}'
        return _Encoded(exception(UNKNOWN_METHOD, message, request.key, request.sequence))

    def _put(self, request: ThriftRequest, session: Session) -> Any:
        items, expiry_ms = request.arguments.items, request.arguments.expiration_msec or None
        if self._batches.has_large(items):
            return partial(self._batches.wait_put, request.queue, items, expiry_ms)
        if len(items) > ITEMS_A_TURN:
            return partial(self._batches.wait_put_many, request.queue, items, expiry_ms)
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
        except BaseException:
            give_back(taken.reads)
            raise
        if taken.is_large:
            return self._wait_send_large(request, taken.reads[0], client)
        return self._hand_out(request, client.session, taken)

    def _wait_send_large(self, request: ThriftRequest, read: Read, client: Client) -> Any:
        """Send the reply with a large item, chunk by chunk, so that it costs no more memory than a chunk. The item is
        open while it is sent: it goes to the next if the client goes."""
        queue, auto_abort_ms = read.queue, request.arguments.auto_abort_msec
        if not queue.holds(read):  # flushed, deleted or undone meanwhile
            self._stats.get_misses += 1
            return []
        try:
            item_id = self._pending.next_ids(1)[0] if auto_abort_ms > 0 else 0
            item = queue.item_of(read)
            before, after = self._around(request, [self._idl.Item(data=_BODY, id=item_id)], item)
            self._reading.send_chunks(before, queue, item, read.id, client, read)
            if item_id:
                self._pending.hold(item_id, read, client.session, auto_abort_ms)
            else:
                queue.close(read)
        except BaseException:
            queue.give_back(read)
            raise
        self._stats.get_hits += 1
        return after

    def _around(self, request: ThriftRequest, reply: Any, item: Item) -> tuple[bytes, "_Encoded"]:
        """The frame that answers `reply`, in which _BODY stands for the body of `item`: what comes before the body, and
        what comes behind it."""
        before, _, after = self._encode(request, reply).partition(_BODY)
        size = len(item[0])
        frame_bytes = len(before) - 4 + size + len(after)
        return frame_bytes.to_bytes(4, "big") + before[4:-4] + size.to_bytes(4, "big"), _Encoded(after)

    def _hand_out(self, request: ThriftRequest, session: Session, taken: Taken) -> Any:
        """The reply with what was taken, which from here on is gone, or open until it is decided."""
        reads = [read for read in taken.reads if read.queue.holds(read)]  # flushed, deleted or undone meanwhile
        auto_abort_ms = request.arguments.auto_abort_msec
        ids = self._pending.next_ids(len(reads)) if auto_abort_ms > 0 else [0] * len(reads)
        items: list[Any] = []
        try:
            for read, item_id in zip(reads, ids, strict=True):
                try:
                    body = read.queue.item_of(read)[0]
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

    def _confirm(self, request: ThriftRequest, session: Session) -> Any:
        return self._decide(request, self._pending.confirm)

    def _abort(self, request: ThriftRequest, session: Session) -> Any:
        return self._decide(request, self._pending.abort)

    def _decide(self, request: ThriftRequest, decide: Callable[[bytes, Iterable[int]], int]) -> Any:
        ids = request.arguments.ids
        if len(ids) > DECIDED_AT_ONCE:
            return partial(self._wait_decide, request.queue, list(ids), decide)
        return decide(request.queue, ids)

    def _wait_decide(
        self, queue: bytes, ids: list[int], decide: Callable[[bytes, Iterable[int]], int], client: Client
    ) -> int:
        """A part in each turn, the last in that of the reply."""
        decided = 0
        for start in range(0, len(ids), DECIDED_AT_ONCE):
            if start:
                client.wait_turn()
                self._pending.require_decided(queue, ids[start - DECIDED_AT_ONCE : start])
            decided += decide(queue, ids[start : start + DECIDED_AT_ONCE])
        return decided

    def _peek(self, request: ThriftRequest, session: Session) -> Any:
        self._stats.cmd_peek += 1
        queue = self._queues.get(request.queue)
        if queue is None:
            return self._idl.QueueInfo(
                items=0,
                bytes=0,
                journal_bytes=0,
                age=0,
                waiters=self._registry.waiters(request.queue),
                open_transactions=0,
            )
        head = queue.peek()
        if head is None and queue.half_swept:
            return partial(self._sweep_and_peek, request, session, queue)
        if head is not None and isinstance(head[0], Blob) and len(head[0]) <= MAX_ITEM_BYTES:
            return partial(self._wait_peek, request, queue)
        return self._describe(queue, head[0] if head is not None and isinstance(head[0], bytes) else None)

    def _sweep_and_peek(self, request: ThriftRequest, session: Session, queue: MessageQueue, client: Client) -> Any:
        wait_swept(queue, client)
        reply = self._peek(request, session)
        return reply(client) if callable(reply) else reply

    def _wait_peek(self, request: ThriftRequest, queue: MessageQueue, client: Client) -> Any:
        """It holds nobody up: if the head is another one when it has been read, it is left out. If there is no room for
        all of it in memory, it is sent chunk by chunk, and the client is cut off if the head goes meanwhile."""
        head_id, head, body = queue.head_id, queue.peek(), None
        assert head is not None
        memory = self._pipeline_memory
        try:
            if memory.has_room(len(head[0])):
                with memory.reserved(len(head[0])):
                    body = wait_body(head, queue, client)
            else:
                before, after = self._around(request, self._describe(queue, _BODY), head)
                self._reading.send_chunks(before, queue, head, head_id, client)
                return after
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
            waiters=self._registry.waiters(queue.name),
            open_transactions=queue.open_reads,
        )

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


def _exception(request: ThriftRequest, error: RequestError | StorageError, session: Session) -> bytes:
    if isinstance(error, RequestError):
        log.debug("refused: %s: %s", session.origin, show_text(str(error)))
    else:
        if not isinstance(error, DamagedError):  # which its queue has told already
            log.error("%s", error, extra=BY_TEXT)
        error = ServerError(str(error))
    return error_reply(error, request.verb, request.sequence)


def _answer(reply: bytes, *_: Any) -> bytes:
    return reply


def _no_line(request: Request, words: list[bytes]) -> None:
    """There are no lines in thrift."""
