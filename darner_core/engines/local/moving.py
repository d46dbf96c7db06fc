"""Large items that have expired and go to another queue: their chunks are copied over many turns.

Meanwhile such an item is open, or waits behind the head. If another client takes it, it does not go elsewhere.
It leaves its queue in the turn that puts it into the other, so that a crash leaves it in exactly one of them.

Names that begin with wait_ switch greenlets.
"""

import logging
from collections.abc import Callable

from darner_core import NAME
from darner_core.engines.local import expiry
from darner_core.engines.local.large_items import Download
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.reads import OpenRead
from darner_core.engines.local.routing import Routing
from darner_core.engines.local.transfer import Transfer
from darner_core.errors import DamagedError, ServerError, StorageError
from darner_core.showing import show
from darner_core.storage.records import Blob

log = logging.getLogger(NAME)

FULL = "it is full"  # why a queue did not take an item


class Mover:
    def __init__(self, moving: list[OpenRead], routing: Routing, wait: Callable[[float], None]) -> None:
        """`moving`: large items that have been found to have expired. `wait(seconds)` ends the turn, so that it is
        written and others are served, even with 0 seconds."""
        self._moving = moving
        self._routing = routing
        self._wait = wait

    def wait_move_all(self) -> None:
        """Move all that has been found to have expired."""
        while self._moving:
            read = self._moving.pop(0)
            queue = read.queue
            assert isinstance(queue, MessageQueue)  # cursors move nothing
            try:
                if expiry.is_moving(queue, read):
                    self._wait_move_one(queue, read)
            except StorageError as error:
                name = show(queue.name)
                log.error(
                    "an expired item of queue %s could not be moved, and waits for the next sweep: %s", name, error
                )
                queue.give_back(read, wake=False)  # a client that waits would open it, to be moved, again

    def _wait_move_one(self, queue: MessageQueue, read: OpenRead) -> None:
        item = queue.log.read_one(read.id)
        blob, flags, _, _ = item
        assert isinstance(blob, Blob)
        download = queue.large_items.send(blob)  # may raise: afterwards the item can be removed for certain
        name = queue.options.expire_to_queue
        if not name:  # the queue's options have changed since
            expiry.finish_moving(queue, read, item)
            return
        with self._routing.transfer((name,), len(blob)) as transfer:
            why_lost = _why_not_begun(transfer)
            if not why_lost:
                if not self._wait_copy(queue, read, download, transfer):
                    return
                if transfer.put(flags, 0) is None:
                    why_lost = FULL
            if why_lost:
                self._routing.lost(queue, why_lost)
            expiry.finish_moving(queue, read, item)  # in the turn of the put

    def _wait_copy(self, queue: MessageQueue, read: OpenRead, download: Download, transfer: Transfer) -> bool:
        """Copy all chunks. False: the item does not go there, because it has been taken or removed meanwhile, or
        because the other queue has been deleted."""
        transfer.wait_begin(self._wait_turn)
        while transfer.uploads and download.missing_bytes:
            transfer.wait_add(download.next(transfer.room_bytes), self._wait_turn)
            self._wait_turn()
            if not expiry.is_moving(queue, read):
                return False
        transfer.wait_store(self._wait_turn)
        if not expiry.is_moving(queue, read):
            return False
        try:
            transfer.require_queues()
        except ServerError:
            queue.give_back(read)  # what has expired at the head is looked at again
            return False
        return True

    def _wait_turn(self) -> None:
        self._wait(0)


def _why_not_begun(transfer: Transfer) -> str:
    """Why the item cannot go where it has to; "": its queues are found."""
    try:
        return FULL if transfer.find_queues() is None else ""
    except (ServerError, DamagedError) as error:
        return str(error)
