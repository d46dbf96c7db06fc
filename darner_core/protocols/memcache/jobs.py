"""The commands about jobs, and how their replies are written: puts and gets with options that say something of a job or
of several items, gets of several queues, add, touch, history, kick and pause. A command is what `contract` says.
"""

import logging
import time
from functools import partial
from typing import Any

from darner_core import NAME
from darner_core.config.options import Config
from darner_core.engines.contract import Read
from darner_core.errors import ServerError, StorageError
from darner_core.operations.client import Client, now_or_later
from darner_core.operations.operations import Operations
from darner_core.operations.session import READS_AT_ONCE, ManyReads, Session
from darner_core.operations.taking import Batch, Settle
from darner_core.protocols.contract import Reply
from darner_core.protocols.memcache import replies
from darner_core.protocols.memcache.items import Items, close, is_satisfied
from darner_core.protocols.memcache.options import ReadOptions
from darner_core.protocols.memcache.reader import LineRequest
from darner_core.protocols.memcache.replies import END, NONE, NOT_FOUND, NOT_THAT_MANY_OPEN, NOT_THAT_OPEN, TOUCHED
from darner_core.repeated import BY_TEXT

log = logging.getLogger(NAME)

_NOTHING = ReadOptions()


class JobItems:
    """The commands, bound to the queues."""

    def __init__(self, operations: Operations, config: Config, items: Items) -> None:
        self._stats = operations.stats
        self._putting = operations.putting
        self._taking = operations.taking
        self._monitoring = operations.monitoring
        self._jobs = operations.jobs
        self._holding = operations.holding
        self._items = items
        self._max_reply_bytes = config.max_reply_bytes
        self._max_item_bytes = config.max_item_bytes

    # -- putting

    def set(self, request: LineRequest, body: bytes, session: Session) -> bytes:
        """A set or add of a job."""
        assert request.job is not None
        self._stats.cmd_set += 1
        self._putting.require_taken(request.body_bytes)
        names, expires_at_ms = request.targets or (request.queue,), self._items.expires_at_ms(request)
        placed = self._jobs.put(session, names, body, request.flags, expires_at_ms, request.job, request.parent != b"")
        return self._items.stored(request, session, is_satisfied(request, placed.outcome))

    # -- taking

    def get(self, request: LineRequest, body: None, session: Session) -> Reply:
        options = request.asked or _NOTHING
        if request.closes:
            reply: Reply = self._close(request, options, session)
            if not request.opens or reply is not END:
                return reply
        elif request.aborts:
            return self._give_back(request, options, session)
        else:
            session.require_none_open()
        return self._open(request, options, session)

    def get_several(self, request: LineRequest, body: None, session: Session) -> Reply:
        """A get of several queues: an item of the first that has one, or a wait at all of them."""
        if request.closes:
            for name in request.targets:
                read = session.find(name)
                if read is not None:
                    session.close_found(read)
                    break
            if not request.opens:  # it may not open any more, see `refused`
                return END
        else:
            session.require_none_open()
        return self._open(request, request.asked or _NOTHING, session)

    def _close(self, request: LineRequest, options: ReadOptions, session: Session) -> Any:
        if options.most and isinstance(session, ManyReads):
            return self._monitoring.confirm_then(
                session, request.queue, options.most, lambda done: END if done else NOT_THAT_MANY_OPEN
            )
        read = session.find(request.queue, options.item_id)
        if read is not None:
            session.close_found(read)
        return END if read is not None or not options.item_id else NOT_THAT_OPEN

    def _give_back(self, request: LineRequest, options: ReadOptions, session: Session) -> bytes:
        read = session.find(request.queue, options.item_id)
        if read is None:
            return NOT_THAT_OPEN if options.item_id else END
        if options.rejects:
            self._jobs.reject(session, read)
        elif options.delay_ms is None and options.pri is None:
            session.abort_found(read)
        else:
            self._jobs.abort(session, read, options.delay_ms, options.pri)
        return END

    def _open(self, request: LineRequest, options: ReadOptions, session: Session) -> Reply:
        for one in request.several or (request,):
            if one.parent:
                self._taking.make_child(one.queue)
        names = request.targets or (request.queue,)
        if request.opens:
            if session.several_reads:
                self._taking.require_room(session, names)
            if options.ttr_ms is not None:
                for name in names:
                    self._jobs.require_room(name)
        if options.most > 1 and isinstance(session, ManyReads):
            return self._open_batch(request, options, session)
        until = time.monotonic() + request.wait_ms / 1000
        return now_or_later(
            self._taking.open(names, request.wait_ms, request.cursor),
            lambda read: self._opened(request, options, session, read),
            lambda client: self._taking.wait_open(client, names, until, request.cursor),
        )

    def _opened(self, request: LineRequest, options: ReadOptions, session: Session, read: Read | None) -> Reply:
        if read is None:
            self._stats.get_misses += 1
            return END
        request = next((one for one in request.several if one.queue == read.queue.name), request)
        settle = self._settle(request, options, session, read)
        if read.blob:
            return partial(self._items.wait_send, request, read, settle)
        return self._items.value(request, self._taking.accept(read, settle), read.id)

    def _settle(self, request: LineRequest, options: ReadOptions, session: Session, read: Read) -> Settle:
        """What becomes of an item that the client gets. Raises ServerError, and gives it back, if there are too many
        leases by now."""
        return self._holding.settle(session, options.ttr_ms, read) if request.opens else close

    # -- several items of one queue

    def _open_batch(self, request: LineRequest, options: ReadOptions, session: ManyReads) -> Reply:
        name = request.queue
        most = min(options.most, READS_AT_ONCE, self._taking.most_open(name) - session.open_reads(name))
        if options.ttr_ms is not None:
            most = min(most, self._jobs.require_room(name))
        batch = Batch(self._taking, most, self._max_reply_bytes, self._max_item_bytes)
        until = time.monotonic() + request.wait_ms / 1000
        if batch.fill(name, request.wait_ms) or batch.reads:
            return self._opened_batch(request, options, session, batch)
        return partial(self._wait_batch, request, options, batch, until)

    def _wait_batch(
        self, request: LineRequest, options: ReadOptions, batch: Batch, until: float, client: Client
    ) -> bytes:
        batch.wait_first(client, request.queue, until)
        reply = self._opened_batch(request, options, client.session, batch)
        return reply if isinstance(reply, bytes) else reply(client)

    def _opened_batch(self, request: LineRequest, options: ReadOptions, session: Session, batch: Batch) -> Reply:
        if not batch.reads or batch.is_large:
            read = batch.reads[0] if batch.reads else None
            return self._opened(request, options, session, read)
        blocks = []
        try:
            if options.ttr_ms is not None:
                batch.keep(self._jobs.require_room(request.queue))  # it may be less than before the wait
            found = batch.readable()
            for read, item in found:
                self._settle(request, options, session, read)(read)
                blocks.append(self._items.block(request, item, read.id))
        except BaseException:
            batch.give_back()
            raise
        self._stats.get_hits += len(found)
        self._stats.get_misses += not found
        return b"".join(blocks) + END

    # -- what is open, and queues

    def history(self, request: LineRequest, body: None, session: Session) -> bytes:
        history = self._jobs.history(session, request.queue, _item_id(request))
        return replies.history(history) if history else NOT_FOUND

    def touch(self, request: LineRequest, body: None, session: Session) -> bytes:
        touched = self._jobs.touch(session, request.queue, _item_id(request), request.expiry)
        return NONE if request.noreply else TOUCHED if touched else NOT_FOUND

    def kick(self, request: LineRequest, body: None, session: Session) -> Reply:
        return partial(self._wait_kick, request)

    def _wait_kick(self, request: LineRequest, client: Client) -> bytes:
        try:
            kicked = self._jobs.wait_kick(client, request.queue, request.most)
        except (ServerError, StorageError) as error:
            if not request.noreply:
                raise
            log.error("kick: %s", error, extra=BY_TEXT)
            return NONE
        return NONE if request.noreply else replies.line(f"KICKED {kicked}")

    def pause(self, request: LineRequest, body: None, session: Session) -> bytes:
        self._jobs.pause(request.queue, request.pause, request.expiry)
        return NONE if request.noreply else replies.line(f"PAUSED {request.pause.value}")


def _item_id(request: LineRequest) -> int:
    return request.asked.item_id if request.asked is not None else 0
