"""What happens to items and queues because time passes: items expire, empty queues are deleted.

A sweep takes many turns and a millisecond or two of each, so that a million items that expire at once hold up nobody.

Names that begin with wait_ switch greenlets.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from darner_core import NAME, records
from darner_core.delivery import Delivery
from darner_core.errors import DamagedError, ServerError, StorageError
from darner_core.expiring import MOVED_AT_ONCE
from darner_core.journal import Journal
from darner_core.large_items import Upload, in_turns, wait_not_behind
from darner_core.message_queue import DamagedQueue, MessageQueue
from darner_core.open_read import OpenRead
from darner_core.records import Blob, Expiry
from darner_core.registry import Registry
from darner_core.shared_memory import BodyMemory
from darner_core.storage import Batch

log = logging.getLogger(NAME)

# Expiries looked at in one turn, and bytes of items read for it: under 1 ms. RocksDB is asked for each item, whether
# it is the one that is meant.
SWEPT_AT_ONCE = 100
SWEPT_BYTES = 1 << 20

# Expiries are removed from the disk when so many have been dealt with, as one range: every iterator looks at every
# range deletion. What is there at the next start is looked at again, in 0.1 s.
MOST_DEAD = 20_000

# Expiries that stand in memory because their items cannot be removed yet: 2 MB.
MOST_KEPT = 10_000

BUSY_S = 0.01  # between two looks whether another sweep has ended

# Queues with a maximum age that are looked at in one turn, and those that are deleted in one: 1 to 2 ms.
QUEUES_AT_ONCE = 500
DELETED_AT_ONCE = 20


class Sweeper:
    """Sweeps, one at a time."""

    def __init__(
        self,
        registry: Registry,
        delivery: Delivery,
        journal: Journal,
        body_memory: BodyMemory,
        chunk_bytes: int,
        wait: Callable[[float], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`wait(seconds)` lets everybody else have a turn, and this one be written, also for 0."""
        self._registry = registry
        self._delivery = delivery
        self._journal = journal
        self._body_memory = body_memory
        self._chunk_bytes = chunk_bytes
        self._wait = wait
        self._monotonic = monotonic
        self._busy = False
        self._position = records.EXPIRY_PREFIX  # all expiries before it have been looked at
        self._dead = 0  # so many of them are not needed any more, and still on disk
        self._kept: set[Expiry] = set()  # those of them that are: their items are open, or on their way elsewhere
        # Of queues that had more than one sweep may remove: the first expiry that has still to be looked at.
        self._behind: dict[MessageQueue, bytes] = {}
        self._swept: dict[MessageQueue, int] = {}  # items in this sweep, of queues with a max_expire_sweep
        self._quiet: dict[MessageQueue, tuple[int, float]] = {}  # empty queues: what they have had, and since when

    def wait_moves(self) -> None:
        """Let the large items that have been found to have expired go to where they go. Raises StorageError."""
        with self._wait_alone():
            self._wait_move()

    def wait_sweep(self, only: MessageQueue | None = None) -> None:
        """Remove all that has expired, or what has of one queue and whatever else is met. Raises StorageError."""
        with self._wait_alone():
            self._swept = {}
            self._wait_kept()
            self._wait_behind()
            self._wait_expiries()
            for queues in _slices([only] if only is not None else list(self._registry.timed)):
                for queue in queues:
                    if not queue.deleted:
                        self._wait_head(queue)
                self._wait(0)
            self._wait_move()

    @contextmanager
    def _wait_alone(self) -> Iterator[None]:
        while self._busy:
            self._wait(BUSY_S)
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    # -- items with an expiry of their own

    def _wait_kept(self) -> None:
        kept = sorted(self._kept)
        while kept:
            looked_at = self._expire(kept[:SWEPT_AT_ONCE])
            del kept[:looked_at]
            self._wait(0)

    def _wait_behind(self) -> None:
        storage = self._journal.storage
        behind, self._behind = self._behind, {}
        for queue, position in behind.items():
            while queue not in self._behind and not queue.deleted:
                found = storage.expiries(position, self._journal.time_ms(), SWEPT_AT_ONCE)
                found = [expiry for expiry in found if records.expiry_key(*expiry) < self._position]
                if not found:
                    break
                its = [expiry for expiry in found if expiry.number == queue.log.record.number]
                self._dead += len(found)
                looked_at = self._expire(its)
                last = found[-1] if looked_at == len(its) else its[looked_at - 1]
                position = records.expiry_key(*last) + b"\0"
                self._wait(0)

    def _wait_expiries(self) -> None:
        storage, journal = self._journal.storage, self._journal
        self._go_back()
        now_ms = journal.time_ms()
        while len(self._kept) < MOST_KEPT:
            found = storage.expiries(self._position, now_ms, SWEPT_AT_ONCE)
            if not found:
                break
            looked_at = self._expire(found)
            self._position = records.expiry_key(*found[looked_at - 1]) + b"\0"
            self._dead += looked_at
            self._wait(0)
        if self._dead > MOST_DEAD and not self._go_back():
            self._dead = 0
            end = min([self._position, *self._behind.values()])
            kept = sorted(expiry for expiry in self._kept if records.expiry_key(*expiry) < end)
            journal.also.append(partial(_forget, journal, end, kept))

    def _go_back(self) -> bool:
        """Whether items were put whose time is over already: the next sweep begins with them then."""
        earliest, self._journal.earliest_ms = self._journal.earliest_ms, records.MAX_ID
        if (begin := records.expiry_key(earliest)) >= self._position:
            return False
        self._position = begin
        return True

    def _expire(self, found: list[Expiry]) -> int:
        """Expire what `found` tells of; how many of them were looked at."""
        bytes_before: dict[MessageQueue, int] = {}
        looked_at = moved = 0
        if found:
            self._journal.undo.append((self._look_again, found[0].expires_at_ms))
        for expiry in found:
            queue = self._registry.by_number.get(expiry.number)
            looked_at += 1
            if queue is not None and not isinstance(queue, DamagedQueue):
                if self._may_not(queue):
                    self._behind.setdefault(queue, records.expiry_key(*expiry))
                    continue
                bytes_before.setdefault(queue, queue.bytes_out)
                if not self._expire_one(queue, expiry):
                    self._kept.add(expiry)
                    continue
                moved += queue.expire_to is not None
                if queue.bytes_out - bytes_before[queue] > SWEPT_BYTES or moved >= MOVED_AT_ONCE:
                    break
            self._kept.discard(expiry)
        for queue in bytes_before:
            queue.serve_line()
        return looked_at

    def _look_again(self, from_ms: int) -> None:
        """The turn could not be written: what has expired in it is there again."""
        self._journal.earliest_ms = min(self._journal.earliest_ms, from_ms)

    def _may_not(self, queue: MessageQueue) -> bool:
        """Whether the queue has lost as many in this sweep as max_expire_sweep allows."""
        most = queue.options.max_expire_sweep
        return bool(most) and self._swept.get(queue, 0) >= most

    def _expire_one(self, queue: MessageQueue, expiry: Expiry) -> bool:
        before = queue.expired_items
        try:
            return queue.expire(expiry)
        except StorageError as error:
            log.error("an item that should expire: %s", error)
            return True  # the hint has done its work; who wants the item is told
        finally:
            if queue.options.max_expire_sweep:
                self._swept[queue] = self._swept.get(queue, 0) + queue.expired_items - before

    # -- items that are too old

    def _wait_head(self, queue: MessageQueue) -> None:
        while not queue.deleted and not self._may_not(queue):
            before = queue.expired_items
            most = queue.options.max_expire_sweep or SWEPT_AT_ONCE
            try:
                done = queue.drop_expired(min(most - self._swept.get(queue, 0), SWEPT_AT_ONCE))
            except StorageError as error:
                queue.cannot_be_read(error)
                return
            if queue.options.max_expire_sweep:
                self._swept[queue] = self._swept.get(queue, 0) + queue.expired_items - before
            if done:
                if queue.expired_items != before:
                    queue.serve_line()
                return
            self._wait(0)

    # -- large items that go to another queue

    def _wait_move(self) -> None:
        moving = self._delivery.large_expired
        while moving:
            read = moving.pop(0)
            try:
                if read.queue.is_moving(read):
                    self._wait_move_one(read)
            except StorageError as error:
                name = read.queue.name.decode("utf-8", "backslashreplace")
                log.error("an expired item of queue %s, which goes elsewhere, waits: %s", name, error)
                read.queue.give_back(read, wake=False)  # who waits would open it, to be moved, again

    def _wait_move_one(self, read: OpenRead) -> None:
        """Copy the chunks of an expired large item to where it goes, and put it there. Others may take it meanwhile, or
        remove it: then it does not go there."""
        queue = read.queue
        if not queue.options.expire_to_queue:  # not any more
            queue.finish_expired(read)
            return
        try:
            targets = self._delivery.targets((queue.options.expire_to_queue,))
        except (ServerError, DamagedError) as error:
            self._delivery.lost(queue, str(error))
            queue.finish_expired(read)
            return
        blob, flags, _, _ = queue.log.read_one(read.id)
        assert isinstance(blob, Blob)
        uploads: list[Upload] = []
        try:
            for target in targets:
                uploads.append(target.queue.large_items.receive(self._chunk_bytes, self._body_memory))
            download = queue.large_items.send(blob)
            while download.missing_bytes:
                piece = download.next(self._chunk_bytes)
                for upload in in_turns(uploads, self._chunk_bytes, self._wait_turn):
                    rest = piece
                    while rest:
                        room_bytes = upload.room_bytes
                        upload.add(rest[:room_bytes])
                        rest = rest[room_bytes:]
                self._wait(0)
                if not queue.is_moving(read):
                    break
            for upload in in_turns(uploads, self._chunk_bytes, self._wait_turn):
                upload.store()
        except BaseException:  # the queue may also have been deleted meanwhile
            for upload in uploads:
                upload.drop()
            raise
        if not queue.is_moving(read):
            for upload in uploads:
                upload.drop()
            return
        if any(target.queue.deleted and target.decides for target in targets):
            for upload in uploads:
                upload.drop()
            queue.give_back(read)  # what is expired at the head is looked at again
            return
        refused = False
        for target, upload in zip(targets, uploads, strict=True):
            if target.queue.deleted or not self._delivery.make_room(target.queue, len(blob)):
                upload.drop()
                refused |= target.decides
                continue
            upload.finish()
            target.queue.put_until(Blob(upload.blob, len(blob)), flags, 0)
        if refused:
            self._delivery.lost(queue, "it is full")
        queue.finish_expired(read)

    def _wait_turn(self) -> None:
        wait_not_behind(self._journal.storage, self._wait)
        self._wait(0)

    # -- queues

    def wait_expire_queues(self) -> None:
        """Delete the empty queues that nobody has used for their max_queue_age_s. To ask for an item is to use a queue,
        whether there is one or not."""
        now = self._monotonic()
        quiet: dict[MessageQueue, tuple[int, float]] = {}
        for queues in _slices(list(self._registry.timed)):
            deleted = 0
            for queue in queues:
                age_s = queue.options.max_queue_age_s
                if not age_s or not _is_idle(queue) or self._registry.queues.get(queue.name) is not queue:
                    continue
                had, since = self._quiet.get(queue, (-1, now))
                if had != queue.tail + queue.next_id or queue.polled:
                    since = now
                queue.polled = False
                if now - since < age_s:
                    quiet[queue] = queue.tail + queue.next_id, since
                    continue
                self._delete_idle(queue)
                deleted += 1
                if deleted % DELETED_AT_ONCE == 0:
                    self._wait(0)
            self._wait(0)
        self._quiet = quiet

    def _delete_idle(self, queue: MessageQueue) -> None:
        name, age_s = queue.name.decode("utf-8", "replace"), queue.options.max_queue_age_s
        log.info("queue %s is deleted: nobody has used it for %d s", name, age_s)
        self._registry.delete(queue.name)
        self._registry.expires += 1
        self._journal.undo.append((self._undelete_idle,))

    def _undelete_idle(self) -> None:
        self._registry.expires -= 1


def _is_idle(queue: MessageQueue) -> bool:
    """Whether the queue is empty and nobody is about to change that, at its cursors either."""
    if queue.waiting_items or queue.open_reads or queue.line or queue.is_receiving or isinstance(queue, DamagedQueue):
        return False
    return not any(cursor.outstanding or cursor.line for cursor in (queue.cursors or {}).values())


def _slices(queues: list[MessageQueue]) -> Iterator[Iterable[MessageQueue]]:
    for start in range(0, len(queues), QUEUES_AT_ONCE):
        yield queues[start : start + QUEUES_AT_ONCE]


def _forget(journal: Journal, before: bytes, kept: list[Expiry], batch: Batch) -> None:
    journal.storage.remove_expiries(batch, records.EXPIRY_PREFIX, before)
    for expiry in kept:
        journal.storage.add_expiry(batch, expiry)
