"""Large items that have expired and go to another queue: their chunks are copied over many turns.

Meanwhile such an item is open, or waits behind the head. If another client takes it, it does not go elsewhere.

Names that begin with wait_ switch greenlets.
"""

import logging
from collections.abc import Callable

from darner_core import NAME
from darner_core.config.values import show_bytes
from darner_core.engines.local import expiry
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.reads import OpenRead
from darner_core.engines.local.routing import Delivery
from darner_core.errors import DamagedError, ServerError, StorageError
from darner_core.shared_memory import BodyMemory
from darner_core.storage.records import Blob, Item

log = logging.getLogger(NAME)


class Mover:
    def __init__(
        self, delivery: Delivery, body_memory: BodyMemory, chunk_bytes: int, wait: Callable[[float], None]
    ) -> None:
        """`wait(seconds)` lets this turn be written and other clients have theirs, also for 0."""
        self._delivery = delivery
        self._body_memory = body_memory
        self._chunk_bytes = chunk_bytes
        self._wait = wait

    def wait_move_all(self) -> None:
        """Move all that has been found to have expired."""
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
        item = queue.log.read_one(read.id)
        _ = queue.large_items  # may raise: before anything is copied
        if self._wait_put(queue, read, item):
            expiry.finish_moving(queue, read, item)  # in the turn of the put

    def _wait_put(self, queue: MessageQueue, read: OpenRead, item: Item) -> bool:
        """Put a copy of the item where it goes, or say in the log that it is lost. False: it is still in its queue, or
        another client has taken it meanwhile."""
        blob, flags, _, _ = item
        assert isinstance(blob, Blob)
        name = queue.options.expire_to_queue
        if not name:  # not any more
            return True
        with self._delivery.transfer(self._body_memory, self._chunk_bytes, (name,), len(blob), False) as transfer:
            try:
                queues = transfer.find_queues()
            except (ServerError, DamagedError) as error:
                self._delivery.lost(queue, str(error))
                return True
            if queues is None:
                self._delivery.lost(queue, "it is full")
                return True
            transfer.wait_begin(self._wait_turn)
            download = queue.large_items.send(blob)
            while queues and download.missing_bytes:
                piece = download.next(self._chunk_bytes)
                while piece:
                    room_bytes = transfer.room_bytes
                    transfer.wait_add(piece[:room_bytes], self._wait_turn)
                    piece = piece[room_bytes:]
                self._wait_turn()
                if not expiry.is_moving(queue, read):
                    return False
            transfer.wait_store(self._wait_turn)
            if not expiry.is_moving(queue, read):
                return False
            try:
                transfer.require_queues()
            except ServerError:
                queue.give_back(read)  # what is expired at the head is looked at again
                return False
            if transfer.put(flags, 0) is None:
                self._delivery.lost(queue, "it is full")
            return True

    def _wait_turn(self) -> None:
        self._wait(0)
