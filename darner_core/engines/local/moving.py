"""Large items that have expired and go to another queue: their chunks are copied over many turns.

Meanwhile such an item is open, or waits behind the head; another client may take it, and then it does not go elsewhere.

Names that begin with wait_ switch greenlets.
"""

import logging
from collections.abc import Callable

from darner_core import NAME
from darner_core.config.values import show_bytes
from darner_core.engines.local import expiry
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.large_items import Upload, in_turns, wait_not_behind
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.reads import OpenRead
from darner_core.engines.local.routing import Delivery, Target
from darner_core.errors import DamagedError, ServerError, StorageError
from darner_core.shared_memory import BodyMemory
from darner_core.storage.records import Blob

log = logging.getLogger(NAME)


class Mover:
    def __init__(
        self,
        delivery: Delivery,
        journal: Journal,
        body_memory: BodyMemory,
        chunk_bytes: int,
        wait: Callable[[float], None],
    ) -> None:
        """`wait(seconds)` lets everybody else have a turn, and this one be written, also for 0."""
        self._delivery = delivery
        self._journal = journal
        self._body_memory = body_memory
        self._chunk_bytes = chunk_bytes
        self._wait = wait

    def wait_move_all(self) -> None:
        """Move all that has been found to have expired. Switches greenlets."""
        moving = self._delivery.large_expired
        while moving:
            read = moving.pop(0)
            queue = read.queue
            assert isinstance(queue, MessageQueue)  # cursors move nothing
            try:
                if expiry.is_moving(queue, read):
                    self._wait_move_one(queue, read)
            except StorageError as error:
                name = show_bytes(queue.name)
                log.error("an expired item of queue %s, which goes elsewhere, waits: %s", name, error)
                queue.give_back(read, wake=False)  # a client that waits would open it, to be moved, again

    def _wait_move_one(self, queue: MessageQueue, read: OpenRead) -> None:
        """Copy the chunks of an expired large item to where it goes, and put it there. Others may take it meanwhile, or
        remove it: then it does not go there."""
        blob, flags, _, _ = item = queue.log.read_one(read.id)
        assert isinstance(blob, Blob)
        download = queue.large_items.send(blob)
        name = queue.options.expire_to_queue
        if not name:  # not any more
            expiry.finish_moving(queue, read, item)
            return
        try:
            targets = self._delivery.targets((name,), len(blob))
        except (ServerError, DamagedError) as error:
            self._delivery.lost(queue, str(error))
            expiry.finish_moving(queue, read, item)
            return
        if targets is None:
            self._delivery.lost(queue, "it is full")
            expiry.finish_moving(queue, read, item)
            return
        uploads: list[tuple[Target, Upload]] = []
        try:
            for target in targets:
                uploads.append((target, target.queue.large_items.receive(self._chunk_bytes, self._body_memory)))
            while uploads and download.missing_bytes:
                piece = download.next(self._chunk_bytes)
                for _, upload in in_turns(uploads, self._chunk_bytes, self._wait_turn):
                    rest = piece
                    while rest:
                        room_bytes = upload.room_bytes
                        upload.add(rest[:room_bytes])
                        rest = rest[room_bytes:]
                self._wait(0)
                if not expiry.is_moving(queue, read):
                    return
            for _, upload in in_turns(uploads, self._chunk_bytes, self._wait_turn):
                upload.store()
            if not expiry.is_moving(queue, read):
                return
            if any(target.queue.deleted and target.decides for target in targets):
                queue.give_back(read)  # what is expired at the head is looked at again
                return
            if self._delivery.put_large((name,), uploads, len(blob), flags, 0) is None:
                self._delivery.lost(queue, "it is full")
            expiry.finish_moving(queue, read, item)  # in the turn of the put
        finally:  # what was put is not dropped
            for _, upload in uploads:
                upload.drop()
            self._delivery.abandon(targets)

    def _wait_turn(self) -> None:
        wait_not_behind(self._journal.storage, self._wait)
        self._wait(0)
