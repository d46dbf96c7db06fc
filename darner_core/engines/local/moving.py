"""Large items that have expired, or are dead letters, and go to another queue: their chunks are copied over many turns.

Meanwhile such an item is open, or waits behind the head. If another client takes it, it does not go elsewhere.
It leaves its queue in the turn that puts it into the other, so that a crash leaves it in exactly one of them.

Names that begin with wait_ switch greenlets.
"""

import logging
from collections.abc import Callable
from typing import Any, TypeAlias

from darner_core import NAME
from darner_core.engines.local import aside_failures, expiry
from darner_core.engines.local.aside import Aside
from darner_core.engines.local.large_items import Download
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.reads import OpenRead
from darner_core.engines.local.routing import Routing
from darner_core.engines.local.transfer import Transfer
from darner_core.errors import DamagedError, ServerError, StorageError
from darner_core.showing import show
from darner_core.storage.records import Blob, Item

log = logging.getLogger(NAME)

FULL = "it is full"  # why a queue did not take an item


class Mover:
    def __init__(
        self,
        moving: list[OpenRead],
        routing: Routing,
        wait: Callable[[float], None],
        dead: list[OpenRead] | None = None,
        put_dead: Callable[[MessageQueue, Blob, Item, bytes], None] | None = None,
    ) -> None:
        """`moving`: large items that have been found to have expired. `dead`: large dead letters, which `put_dead` puts
        where they go, with their notes. `wait(seconds)` ends the turn, so that it is written and others are served,
        even with 0 seconds."""
        self._moving = moving
        self._dead = dead if dead is not None else []
        self.put_dead = put_dead
        self._routing = routing
        self._wait = wait

    def wait_move_all(self) -> None:
        """Move all that has been found to have expired, and the dead letters."""
        while self._moving:
            read = self._moving.pop(0)
            self._wait_try(_FromAside(read) if isinstance(read.queue, Aside) else _FromLine(read))
        while self._dead:
            self._wait_try(_DeadLetter(self._dead.pop(0), self.put_dead))

    def _wait_try(self, move: "_Move") -> None:
        try:
            if move.is_there():
                self._wait_move_one(move)
        except StorageError as error:
            what = "a dead letter" if isinstance(move, _DeadLetter) else "an expired item"
            name = show(move.place.name)
            log.error("%s of queue %s could not be moved, and waits for the next sweep: %s", what, name, error)
            move.give_back()

    def _wait_move_one(self, move: "_Move") -> None:
        place, item = move.place, move.item()
        blob, flags, _, _ = item
        assert isinstance(blob, Blob)
        download = place.large_items.send(blob)  # may raise: afterwards the item can be removed for certain
        name = move.target
        if not name:  # the queue's options have changed since
            move.finish(item, "")
            return
        with self._routing.transfer((name,), len(blob)) as transfer:
            why_lost = _why_not_begun(transfer)
            if not why_lost:
                if not self._wait_copy(move, download, transfer):
                    return
                if not transfer.put(flags, 0, move.put_one(item)):
                    why_lost = FULL
            move.finish(item, why_lost, self._routing.lost)  # in the turn of the put

    def _wait_copy(self, move: "_Move", download: Download, transfer: Transfer) -> bool:
        """Copy all chunks. False: the item does not go there, because it has been taken or removed meanwhile, or
        because the other queue has been deleted."""
        transfer.wait_begin(self._wait_turn)
        while transfer.uploads and download.missing_bytes:
            transfer.wait_add(download.next(transfer.room_bytes), self._wait_turn)
            self._wait_turn()
            if not move.is_there():
                return False
        transfer.wait_store(self._wait_turn)
        if not move.is_there():
            return False
        try:
            transfer.require_queues()
        except ServerError:
            move.give_back(wake=True)  # it is looked at again
            return False
        return True

    def _wait_turn(self) -> None:
        self._wait(0)


class _FromLine:
    """An expired item of a queue's line."""

    def __init__(self, read: OpenRead) -> None:
        assert isinstance(read.queue, MessageQueue)  # cursors move nothing
        self.read = read
        self.place: Any = read.queue

    @property
    def target(self) -> bytes:
        name: bytes = self.place.options.expire_to_queue
        return name

    def is_there(self) -> bool:
        return expiry.is_moving(self.place, self.read)

    def item(self) -> Item:
        item: Item = self.place.log.read_one(self.read.id)
        return item

    def put_one(self, item: Item) -> Callable[[MessageQueue, Blob], None] | None:
        return None

    def finish(self, item: Item, why_lost: str, lost: Callable[[MessageQueue, str], None] | None = None) -> None:
        if why_lost and lost is not None:
            lost(self.place, why_lost)
        expiry.finish_moving(self.place, self.read, item)

    def give_back(self, wake: bool = False) -> None:
        """A client that waits would open it, to be moved, again."""
        self.place.give_back(self.read, wake=wake)


class _FromAside(_FromLine):
    """An expired item that lies aside. It is open."""

    def __init__(self, read: OpenRead) -> None:
        self.read = read
        self.place = read.queue

    def is_there(self) -> bool:
        return bool(self.place.holds(self.read))

    def finish(self, item: Item, why_lost: str, lost: Callable[[MessageQueue, str], None] | None = None) -> None:
        if why_lost and lost is not None:
            lost(self.place.parent, why_lost)
        self.place.close(self.read, what=b"expire")
        self.place.log.journal.count(self.place, "expired_items")


class _DeadLetter(_FromAside):
    """A dead letter, which is open in its queue's aside."""

    def __init__(self, read: OpenRead, put: Callable[[MessageQueue, Blob, Item, bytes], None] | None) -> None:
        super().__init__(read)
        self._put = put

    @property
    def target(self) -> bytes:
        name: bytes = self.place.options.dead_letter_queue
        return name

    def put_one(self, item: Item) -> Callable[[MessageQueue, Blob], None] | None:
        put, note = self._put, self.place.job_of(self.read).note
        return None if put is None else lambda queue, blob: put(queue, blob, item, note)

    def finish(self, item: Item, why_lost: str, lost: Callable[[MessageQueue, str], None] | None = None) -> None:
        if why_lost or not self.target:
            if why_lost:
                log.warning("a dead letter of queue %s is buried: %s", show(self.place.name), why_lost)
            aside_failures.bury(self.place, self.read)
            return
        self.place.close(self.read, what=b"dead")
        self.place.log.journal.count(self.place, "dead_lettered")


_Move: TypeAlias = _FromLine


def _why_not_begun(transfer: Transfer) -> str:
    """Why the item cannot go where it has to; "": its queues are found."""
    try:
        return FULL if transfer.find_queues() is None else ""
    except (ServerError, DamagedError) as error:
        return str(error)
