"""Kestrel's thrift service: each call of kestrel.thrift, and what it does. A call is a function (request, session) ->
value; the value is encoded as the IDL says, or, if the call has to wait, is a function of the Client that returns one.

Imported only when there is a thrift listener, because it needs the library. An error is answered as a
TApplicationException to the call, and the connection goes on. One that ends the connection, and one that takes the
place of a reply whose turn could not be written, does not know the call: it has no name and the sequence number 0.
"""

import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from darner_core import NAME, VERSION
from darner_core.access.rights import ADMIN, ADMIN_ALL, FREE, GET, PUT
from darner_core.config.values import show_text
from darner_core.errors import DamagedError, MalformedRequest, RequestError, ServerError, StorageError
from darner_core.nearest import did_you_mean
from darner_core.operations.client import LATER, Client
from darner_core.operations.status import STATUSES
from darner_core.operations.taking import Batch, wait_body
from darner_core.protocols.contract import READS, WRITES, Command, Reply, Request
from darner_core.protocols.grammar import require_name, show
from darner_core.protocols.guard import require_admin
from darner_core.protocols.memcache.dialects import with_children
from darner_core.protocols.thrift.messages import (
    TRAITS,
    UNKNOWN_METHOD,
    ThriftRequest,
    decode,
    encode,
    error_reply,
    exception,
    load_idl,
)
from darner_core.protocols.thrift.reader import CALL, MAX_ITEM_BYTES, REPLY, FrameReader, check_arguments, read_message
from darner_core.repeated import BY_TEXT

if TYPE_CHECKING:
    from darner_core.config.options import Config
    from darner_core.engines.local.message_queue import MessageQueue
    from darner_core.engines.local.reads import OpenRead
    from darner_core.operations.operations import Operations
    from darner_core.operations.session import Session
    from darner_core.operations.taking import Shown

log = logging.getLogger(NAME)

# The most items that a get hands out: 4096 take 15 ms. A client that asks for more gets the rest by its next call.
MAX_ITEMS = 4096
# How much the bodies of one reply have together; the first is always sent, however large.
MAX_REPLY_BYTES = 1 << 20
SCARCE_REPLY_BYTES = 4 << 10  # the limit while pipeline_memory_bytes are exceeded

# Stands in a reply for the body of a large item while the reply is encoded; nothing else in it is so long and free.
_BODY = b"\x00the large item\x00"

# The IDL's statuses by ours.
_STATUSES = {"UP": "UP", "WRITEAVOID": "UP", "READONLY": "READ_ONLY", "QUIESCENT": "QUIESCENT"}


class ThriftService:
    """The calls, bound to the operations."""

    traits = TRAITS

    def __init__(self, operations: "Operations") -> None:
        self._queues = operations.queues
        self._stats = operations.stats
        self._statistics = operations.statistics
        self._administering = operations.administering
        self._putting = operations.putting
        self._taking = operations.taking
        self._pending = operations.pending
        self._pipeline_memory = operations.pipeline_memory
        self._host = operations.host
        self._idl = load_idl()
        self._service = self._idl.Kestrel

    # -- as a protocol

    def new_reader(self, table: dict[bytes, Command], kept_lines: dict[bytes, Any]) -> FrameReader:
        return FrameReader(partial(self.decode, table=table))

    def receive_large(self, request: Request, client: Client) -> NoReturn:
        raise AssertionError("nothing is received in pieces")

    def table(self) -> dict[bytes, Command]:
        """What decides on an open item is never refused."""
        calls: dict[str, tuple[Callable[..., Any], str, str]] = {
            "put": (self._put, PUT, WRITES),
            "get": (self._get, GET, READS),
            "confirm": (self._confirm, GET, ""),
            "abort": (self._abort, GET, ""),
            "peek": (self._peek, GET, READS),
            "flush_queue": (self._flush_queue, ADMIN, WRITES),
            "flush_all_queues": (self._flush_all_queues, ADMIN_ALL, WRITES),
            "delete_queue": (self._delete_queue, ADMIN, WRITES),
            "current_status": (self._current_status, FREE, ""),
            "set_status": (self._set_status, ADMIN_ALL, ""),
            "get_version": (self._get_version, FREE, ""),
        }
        assert sorted(calls) == sorted(self._service.thrift_services)
        table = {
            name.encode(): Command(_no_line, partial(self._run, call, right), right, kind=kind)
            for name, (call, right, kind) in calls.items()
        }
        table[b""] = Command(_no_line, partial(self._run, self._unknown, FREE), FREE)  # answers unknown methods
        return table

    def refused(self, verb: bytes, command: Command, why: str, by_status: bool) -> Command:
        why = f"{verb.decode()} is refused: {why}"
        return command._replace(run=partial(self._run, partial(_refuse, why), FREE), refusal=why)

    # -- decoding and encoding

    def decode(self, frame: bytes, table: dict[bytes, Command]) -> Request:
        """The call in `frame`, or a request that answers what is wrong with its arguments. Raises MalformedRequest if
        it is no message of a call."""
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
            with_children(request)
        return request

    def _run(
        self, call: Callable[..., Any], right: str, request: ThriftRequest, body: None, session: "Session"
    ) -> Reply:
        try:
            self._require_all(request)
            if right in (ADMIN, ADMIN_ALL):
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

    @staticmethod
    def _require_all(request: ThriftRequest) -> None:
        """Raises RequestError if an argument is missing, or no queue can have that name."""
        if request.arguments is None:
            return
        for _, name, *_ in request.arguments.thrift_spec.values():
            if getattr(request.arguments, name) is None:
                raise MalformedRequest(f"{request.verb.decode()}: {name} is missing")
        if hasattr(request.arguments, "queue_name"):
            require_name(request.queue)

    def _encode(self, request: ThriftRequest, reply: Any) -> bytes:
        """The frame that answers `reply`; one that is encoded already is taken as it is."""
        if isinstance(reply, _Encoded):
            return bytes(reply)
        result = getattr(self._service, f"{request.verb.decode()}_result")()
        if reply is not None:
            result.success = reply
        return encode(request.verb, REPLY, request.sequence, result)

    def _around(self, request: ThriftRequest, reply: Any, size: int) -> tuple[bytes, "_Encoded"]:
        """The frame that answers `reply`, in which _BODY stands for a large body of `size` bytes: what comes before the
        body, and what comes behind it."""
        before, _, after = self._encode(request, reply).partition(_BODY)
        frame_bytes = len(before) - 4 + size + len(after)
        return frame_bytes.to_bytes(4, "big") + before[4:-4] + size.to_bytes(4, "big"), _Encoded(after)

    # -- putting and taking

    def _unknown(self, request: ThriftRequest, session: "Session") -> Any:
        methods = sorted(self._service.thrift_services)
        near = did_you_mean(show(request.key), methods, ", ".join(methods))
        message = f'unknown method "{show(request.key)}": {near}'
        return _Encoded(exception(UNKNOWN_METHOD, message, request.key, request.sequence))

    def _put(self, request: ThriftRequest, session: "Session") -> Any:
        arguments = request.arguments
        asked = request.queue, arguments.items, arguments.expiration_msec or None, request.parent != b""
        stored = self._putting.put_several(session, *asked)
        return stored if stored is not LATER else lambda client: self._putting.wait_put_several(client, *asked)

    def _get(self, request: ThriftRequest, session: "Session") -> Any:
        arguments = request.arguments
        most_items = min(arguments.max_items, MAX_ITEMS)
        if arguments.auto_abort_msec > 0:
            opened = self._pending.opened_by(session, request.queue)
            most_items = min(most_items, self._taking.most_open(request.queue) - opened)
        if most_items <= 0:
            return []
        if request.parent:
            self._taking.make_child(request.queue)
        most_bytes = SCARCE_REPLY_BYTES if self._pipeline_memory.scarce else MAX_REPLY_BYTES
        batch = Batch(self._taking, most_items, most_bytes, MAX_ITEM_BYTES)
        if not batch.fill(request.queue, arguments.timeout_msec):
            return partial(self._wait_get, request, batch)
        if batch.is_large:
            return partial(self._wait_send, request, batch.reads[0])
        return self._hand_out(request, session, batch)

    def _wait_get(self, request: ThriftRequest, batch: Batch, client: Client) -> Any:
        batch.wait_fill(client, request.queue, time.monotonic() + request.arguments.timeout_msec / 1000)
        if batch.is_large:
            return self._wait_send(request, batch.reads[0], client)
        return self._hand_out(request, client.session, batch)

    def _wait_send(self, request: ThriftRequest, read: "OpenRead", client: Client) -> Any:
        """Send the reply with a large item, chunk by chunk, so that it costs no more memory than a chunk."""
        if not read.queue.holds(read):  # flushed, deleted or undone meanwhile
            self._stats.get_misses += 1
            return []
        (item_id,) = self._next_ids(request, 1)
        frame: list[bytes] = []

        def head(item: object) -> bytes:
            frame[:] = self._around(request, [self._idl.Item(data=_BODY, id=item_id)], read.body_bytes)
            return frame[0]

        self._taking.wait_send(client, read, head, partial(self._settle, request, client.session, item_id))
        return frame[1]

    def _hand_out(self, request: ThriftRequest, session: "Session", batch: Batch) -> Any:
        """The reply with what was taken, which from here on is gone, or open until it is decided."""
        try:
            found = batch.readable()
            ids = self._next_ids(request, len(found))
            items = [self._idl.Item(data=body, id=item_id) for (_, body), item_id in zip(found, ids, strict=True)]
            reply = _Encoded(self._encode(request, items))
            for (read, _), item_id in zip(found, ids, strict=True):
                self._settle(request, session, item_id, read)
        except BaseException:
            batch.give_back()
            raise
        self._stats.get_hits += len(found)
        self._stats.get_misses += not found
        return reply

    def _next_ids(self, request: ThriftRequest, count: int) -> Iterable[int]:
        """By which the client knows these items until it has decided on them; 0: they are closed at once."""
        return self._pending.next_ids(count) if request.arguments.auto_abort_msec > 0 else [0] * count

    def _settle(self, request: ThriftRequest, session: "Session", item_id: int, read: "OpenRead") -> None:
        if item_id:
            self._pending.hold(item_id, read, session, request.arguments.auto_abort_msec)
        else:
            read.queue.close(read)

    def _confirm(self, request: ThriftRequest, session: "Session") -> Any:
        return self._decide(request, self._pending.confirm)

    def _abort(self, request: ThriftRequest, session: "Session") -> Any:
        return self._decide(request, self._pending.abort)

    def _decide(self, request: ThriftRequest, decide: Callable[[bytes, Iterable[int]], int]) -> Any:
        ids = list(request.arguments.ids)
        if len(ids) > self._pending.at_once:
            return partial(self._wait_decide, request.queue, ids, decide)
        return decide(request.queue, ids)

    def _wait_decide(
        self, queue: bytes, ids: list[int], decide: Callable[[bytes, Iterable[int]], int], client: Client
    ) -> int:
        """A part in each turn, the last in that of the reply."""
        decided, at_once = 0, self._pending.at_once
        for start in range(0, len(ids), at_once):
            if start:
                client.wait_turn()
                self._pending.require_decided(queue, ids[start - at_once : start])
            decided += decide(queue, ids[start : start + at_once])
        return decided

    # -- looking

    def _peek(self, request: ThriftRequest, session: "Session") -> Any:
        shown = self._taking.peek(request.queue)
        return partial(self._wait_peek, request) if shown is LATER else self._shown(request, shown)

    def _wait_peek(self, request: ThriftRequest, client: Client) -> Any:
        reply = self._shown(request, self._taking.wait_peek(client, request.queue, 0))
        return reply(client) if callable(reply) else reply

    def _shown(self, request: ThriftRequest, shown: "Shown | None") -> Any:
        queue = shown.queue if shown is not None else self._queues.get(request.queue)
        if queue is None:
            return self._idl.QueueInfo(
                items=0,
                bytes=0,
                journal_bytes=0,
                age=0,
                waiters=self._statistics.waiters(request.queue),
                open_transactions=0,
            )
        if shown is None or not shown.is_large:
            return self._describe(queue, shown.item[0] if shown is not None else None)
        if len(shown.item[0]) > MAX_ITEM_BYTES:
            return self._describe(queue, None)
        return partial(self._wait_show, request, shown)

    def _wait_show(self, request: ThriftRequest, shown: "Shown", client: Client) -> Any:
        """If the head is another item when this one has been read, it is left out. If there is no room for all of it in
        memory, it is sent chunk by chunk, and the client is hung up on if the head goes meanwhile."""
        queue, size, body = shown.queue, len(shown.item[0]), None
        memory = self._pipeline_memory
        try:
            if not memory.has_room(size):
                before, after = self._around(request, self._describe(queue, _BODY), size)
                self._taking.wait_show(client, shown, before)
                return after
            with memory.reserved(size):
                body = wait_body(client, shown)
        except StorageError:
            if not queue.deleted and queue.head_id == shown.id:
                raise
        return self._describe(queue, body if queue.head_id == shown.id else None)

    def _describe(self, queue: "MessageQueue", head: Any) -> Any:
        return self._idl.QueueInfo(
            head_item=head,
            items=queue.waiting_items,
            bytes=queue.waiting_bytes,
            journal_bytes=queue.log_bytes,
            age=self._statistics.age_ms(queue),
            waiters=self._statistics.waiters(queue.name),
            open_transactions=queue.open_reads,
        )

    # -- looking after queues and the server

    def _flush_queue(self, request: ThriftRequest, session: "Session") -> None:
        self._administering.flush(request.queue)

    def _flush_all_queues(self, request: ThriftRequest, session: "Session") -> Any:
        return self._administering.wait_flush_all

    def _delete_queue(self, request: ThriftRequest, session: "Session") -> None:
        self._administering.delete(request.queue)

    def _current_status(self, request: ThriftRequest, session: "Session") -> int:
        return int(getattr(self._idl.Status, _STATUSES[self._host.status.shown.word]))

    def _set_status(self, request: ThriftRequest, session: "Session") -> Any:
        for ours, name in _STATUSES.items():
            if request.arguments.status == getattr(self._idl.Status, name):
                return self._wait_keep_status if self._host.status.change(STATUSES[ours]) else None
        raise ServerError(f"status {request.arguments.status}: it can be set to UP, READ_ONLY or QUIESCENT")

    def _wait_keep_status(self, client: Client) -> None:
        self._host.status.wait_kept()

    def _get_version(self, request: ThriftRequest, session: "Session") -> str:
        return VERSION


def speak(operations: "Operations", config: "Config", dialect: str, reply_key: str) -> ThriftService:
    return ThriftService(operations)


class _Encoded(bytes):
    """A frame that is the reply."""


def _refuse(why: str, request: ThriftRequest, session: "Session") -> NoReturn:
    raise ServerError(why)


def _exception(request: ThriftRequest, error: RequestError | StorageError, session: "Session") -> bytes:
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
