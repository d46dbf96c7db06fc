"""What each call of kestrel.thrift does.

A call is a method (request, session) -> value. The value is encoded as the IDL says; if the call has to wait, it is a
function of the Client that returns one. Calls raise RequestError for what the client did wrong and StorageError for the
disk.
"""

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from darner_core import VERSION
from darner_core.engines.contract import Read
from darner_core.errors import ServerError, StorageError
from darner_core.operations.client import LATER, Client
from darner_core.operations.operations import Operations
from darner_core.operations.putting import PutOne
from darner_core.operations.session import Session
from darner_core.operations.status import STATUSES
from darner_core.operations.taking import Batch, Shown, give_back, wait_body
from darner_core.protocols.thrift.messages import BODY, Idl, ThriftRequest
from darner_core.protocols.thrift.reader import MAX_ITEM_BYTES

# The most items that a get hands out: 4096 take 15 ms. A client that asks for more gets the rest by its next call.
MAX_ITEMS = 4096
# Limit on the bodies of one reply together; the first is always sent, however large.
MAX_REPLY_BYTES = 1 << 20
SCARCE_REPLY_BYTES = 4 << 10  # the limit while pipeline_memory_bytes are exceeded

# The IDL's statuses by ours.
_STATUSES = {"UP": "UP", "WRITEAVOID": "UP", "READONLY": "READ_ONLY", "QUIESCENT": "QUIESCENT"}

# How long what a client gets may be open; None: it is closed at once.
LastsMs = Callable[[Read], int] | None


class Calls:
    """The calls, bound to the operations."""

    def __init__(self, operations: Operations, idl: Idl) -> None:
        self._queues = operations.queues
        self._stats = operations.stats
        self._statistics = operations.statistics
        self._administering = operations.administering
        self._putting = operations.putting
        self._taking = operations.taking
        self._lending = operations.lending
        self._pipeline_memory = operations.pipeline_memory
        self._host = operations.host
        self._idl = idl
        self._structs = idl.module

    # -- putting and taking

    def put(self, request: ThriftRequest, session: Session) -> Any:
        return self.put_all(request, session, request.arguments.items)

    def put_all(
        self, request: ThriftRequest, session: Session, items: list[bytes], put_one: PutOne | None = None
    ) -> Any:
        """How many of these were put. `put_one`: what puts each of them, if they are jobs."""
        asked = request.queue, items, request.arguments.expiration_msec or None, request.parent != b"", put_one
        stored = self._putting.put_several(session, *asked)
        return stored if stored is not LATER else lambda client: self._putting.wait_put_several(client, *asked)

    def get(self, request: ThriftRequest, session: Session) -> Any:
        auto_abort_ms = request.arguments.auto_abort_msec
        return self.take(request, session, (lambda read: auto_abort_ms) if auto_abort_ms > 0 else None)

    def take(self, request: ThriftRequest, session: Session, lasts_ms: LastsMs) -> Any:
        arguments = request.arguments
        most_items = min(arguments.max_items, MAX_ITEMS)
        if lasts_ms is not None:
            most_items = min(most_items, self._lending.room(session, request.queue))
        if most_items <= 0:
            return []
        if request.parent:
            self._taking.make_child(request.queue)
        most_bytes = SCARCE_REPLY_BYTES if self._pipeline_memory.scarce else MAX_REPLY_BYTES
        batch = Batch(self._taking, most_items, most_bytes, MAX_ITEM_BYTES)
        if not batch.fill(request.queue, arguments.timeout_msec):
            return partial(self._wait_get, request, lasts_ms, batch)
        if batch.is_large:
            return partial(self._wait_send, request, lasts_ms, batch.reads[0])
        return self._hand_out(request, session, lasts_ms, batch)

    def _wait_get(self, request: ThriftRequest, lasts_ms: LastsMs, batch: Batch, client: Client) -> Any:
        batch.wait_fill(client, request.queue, time.monotonic() + request.arguments.timeout_msec / 1000)
        if batch.is_large:
            return self._wait_send(request, lasts_ms, batch.reads[0], client)
        return self._hand_out(request, client.session, lasts_ms, batch)

    def _wait_send(self, request: ThriftRequest, lasts_ms: LastsMs, read: Read, client: Client) -> Any:
        """Send the reply with a large item, chunk by chunk, so that it costs no more memory than a chunk."""
        if not read.queue.holds(read):  # flushed, deleted or undone meanwhile
            self._stats.get_misses += 1
            return []
        if lasts_ms is not None and self._lending.room(client.session, request.queue) <= 0:
            read.queue.give_back(read)
            return []
        (item_id,) = self._next_ids(lasts_ms, 1)
        frame: list[bytes] = []

        def head(item: object) -> bytes:
            frame[:] = self._idl.around(request, [self._structs.Item(data=BODY, id=item_id)], read.body_bytes)
            return frame[0]

        self._taking.wait_send(client, read, head, partial(self._settle, client.session, lasts_ms, item_id))
        return frame[1]

    def _hand_out(self, request: ThriftRequest, session: Session, lasts_ms: LastsMs, batch: Batch) -> Any:
        """The reply with what was taken, which from here on is gone, or open until it is decided."""
        try:
            found = batch.readable()
            if lasts_ms is not None:  # others may have taken the room while this client waited
                room = max(0, self._lending.room(session, request.queue))
                give_back(read for read, _ in found[room:])
                del found[room:]
            ids = self._next_ids(lasts_ms, len(found))
            items = [
                self._structs.Item(data=item[0], id=item_id) for (_, item), item_id in zip(found, ids, strict=True)
            ]
            reply = self._idl.reply(request, items)
            for (read, _), item_id in zip(found, ids, strict=True):
                self._settle(session, lasts_ms, item_id, read)
        except BaseException:
            batch.give_back()
            raise
        self._stats.get_hits += len(found)
        self._stats.get_misses += not found
        return reply

    def _next_ids(self, lasts_ms: LastsMs, count: int) -> Iterable[int]:
        """Ids for items that the client has to decide on; 0 for each if they are closed at once."""
        return self._lending.next_ids(count) if lasts_ms is not None else [0] * count

    def _settle(self, session: Session, lasts_ms: LastsMs, item_id: int, read: Read) -> None:
        if lasts_ms is not None:
            self._lending.hold(session, item_id, lasts_ms(read), read)
        else:
            read.queue.close(read)

    def confirm(self, request: ThriftRequest, session: Session) -> Any:
        return self._lending.confirm(request.queue, request.arguments.ids)

    def abort(self, request: ThriftRequest, session: Session) -> Any:
        return self._lending.abort(request.queue, request.arguments.ids)

    # -- looking

    def peek(self, request: ThriftRequest, session: Session) -> Any:
        return self._taking.peek_then(request.queue, 0, partial(self._shown, request))

    def _shown(self, request: ThriftRequest, shown: Shown | None) -> Any:
        queue = shown.queue if shown is not None else self._queues.get(request.queue)
        if queue is None:
            waiters = self._statistics.waiters(request.queue)
            return self._structs.QueueInfo(
                items=0, bytes=0, journal_bytes=0, age=0, waiters=waiters, open_transactions=0
            )
        if shown is None or not shown.is_large:
            return self._describe(queue, shown.item[0] if shown is not None else None)
        if len(shown.item[0]) > MAX_ITEM_BYTES:
            return self._describe(queue, None)
        return partial(self._wait_show, request, shown)

    def _wait_show(self, request: ThriftRequest, shown: Shown, client: Client) -> Any:
        """If the head is another item when this one has been read, it is left out. If there is no room for all of it in
        memory, it is sent chunk by chunk, and the client is hung up on if the head goes meanwhile."""
        queue, size, body = shown.queue, len(shown.item[0]), None
        memory = self._pipeline_memory
        try:
            if not memory.has_room(size):
                before, after = self._idl.around(request, self._describe(queue, BODY), size)
                self._taking.wait_show(client, shown, before)
                return after
            with memory.reserved(size):
                body = wait_body(client, shown)
        except StorageError:
            if not queue.deleted and queue.head_id == shown.id:
                raise
        return self._describe(queue, body if queue.head_id == shown.id else None)

    def _describe(self, queue: Any, head: Any) -> Any:
        return self._structs.QueueInfo(
            head_item=head,
            items=queue.waiting_items,
            bytes=queue.waiting_bytes,
            journal_bytes=queue.log_bytes,
            age=self._statistics.age_ms(queue),
            waiters=self._statistics.waiters(queue.name),
            open_transactions=queue.open_reads,
        )

    # -- looking after queues and the server

    def flush_queue(self, request: ThriftRequest, session: Session) -> None:
        self._administering.flush(request.queue)

    def flush_all_queues(self, request: ThriftRequest, session: Session) -> Any:
        return self._administering.wait_flush_all

    def delete_queue(self, request: ThriftRequest, session: Session) -> None:
        self._administering.delete(request.queue)

    def current_status(self, request: ThriftRequest, session: Session) -> int:
        return int(getattr(self._structs.Status, _STATUSES[self._host.status.shown.word]))

    def set_status(self, request: ThriftRequest, session: Session) -> Any:
        for ours, name in _STATUSES.items():
            if request.arguments.status == getattr(self._structs.Status, name):
                return self._host.status.change_then(STATUSES[ours], None)
        raise ServerError(f"status {request.arguments.status}: it can be set to UP, READ_ONLY or QUIESCENT")

    def get_version(self, request: ThriftRequest, session: Session) -> str:
        return VERSION
