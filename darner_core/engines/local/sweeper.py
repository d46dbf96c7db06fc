"""What happens to items and queues because time passes: items expire, empty queues are deleted.

A sweep takes many turns and a millisecond or two of each, so that a million items that expire at once hold up nobody.

Names that begin with wait_ switch greenlets.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from darner_core import NAME
from darner_core.config.values import show_bytes
from darner_core.engines.local import expiry as expiries
from darner_core.engines.local import lines
from darner_core.engines.local.dead_ranges import DeadRange
from darner_core.engines.local.expiry import MOVED_AT_ONCE
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.moving import Mover
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.routing import Delivery
from darner_core.errors import StorageError
from darner_core.repeated import BY_TEXT
from darner_core.shared_memory import BodyMemory
from darner_core.slicing import slices
from darner_core.storage import records
from darner_core.storage.records import Expiry
from darner_core.storage.storage import DEFAULT_FAMILY, Batch, Storage

log = logging.getLogger(NAME)

# Expiries looked at in one turn, and bytes of items read for it: under 1 ms. RocksDB is asked for each item, whether
# it is the one that is meant.
SWEPT_AT_ONCE = 100
SWEPT_BYTES = 1 << 20

# Expiries are removed from the disk when this many have been dealt with, as one range: every iterator looks at every
# range deletion. What is there at the next start is looked at again, in 0.1 s.
MOST_DEAD = 20_000

# Large items that are to be moved and have not been yet: 2 MB.
MOST_KEPT = 10_000

# The expiries of items that have been taken before their time are looked for when as many have been written as there
# were live ones, and MOST_TAKEN more; then up to TIDIED_AT_ONCE in one turn, in 1 ms, and up to TIDIED_A_SWEEP in one
# sweep, besides twice what has come.
MOST_TAKEN = 20_000
TIDIED_AT_ONCE = 500
TIDIED_A_SWEEP = 20_000
# If there were more than MOST_TAKEN live ones, they may all have been taken since: then also after this time.
TIDY_EVERY_S = 3600

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
        self._journal = journal
        self._mover = Mover(delivery, journal, body_memory, chunk_bytes, wait)
        self._wait = wait
        self._monotonic = monotonic
        self._busy = False
        self._position = records.EXPIRY_PREFIX  # all expiries before it have been looked at
        self._dead = 0  # how many of them are not needed any more, and still on disk
        self._kept: set[Expiry] = set()  # those of them that are: large items on their way elsewhere
        # Of queues that had more than one sweep may remove: the first expiry that has still to be looked at.
        self._behind: dict[MessageQueue, bytes] = {}
        self._swept: dict[MessageQueue, int] = {}  # items in this sweep, of queues with a max_expire_sweep
        self._tidied = b""  # all before it have been looked at whether their items are there; b"": nobody looks
        self._written = MOST_TAKEN + 1  # expiries that have come since that was begun; unknown before the first time
        self._live = 0  # how many of those that have been looked at were needed
        self._tidied_at = 0.0  # when it was last begun
        self._quiet: dict[MessageQueue, tuple[int, float]] = {}  # empty queues: what they have had, and since when

    def wait_moves(self) -> None:
        """Instead of sweeps: let the large items that have been found to have expired go to where they go, and let
        nothing of what is gone stay. Raises StorageError."""
        with self._wait_alone():
            self._wait_half_served()
            self._wait_again()
            self._mover.wait_move_all()
            self._wait_tidy()

    def wait_sweep(self, only: MessageQueue | None = None) -> None:
        """Remove all that has expired, or what has of one queue and whatever else is met. Raises StorageError."""
        with self._wait_alone():
            self._swept = {}
            self._wait_half_served()
            self._wait_again()
            self._wait_kept()
            self._wait_behind()
            self._wait_expiries()
            for queues in slices([only] if only is not None else self._registry.timed, QUEUES_AT_ONCE):
                for queue in queues:
                    if not queue.deleted:
                        self._wait_head(queue)
                self._wait(0)
            self._mover.wait_move_all()
            self._wait_tidy()

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

    def _wait_half_served(self) -> None:
        """Hand clients that wait what lives behind items that have expired."""
        half_served = self._journal.half_served
        for queue in list(half_served):
            del half_served[queue]
            while queue.half_swept and not queue.deleted and self._drop_some(queue):
                self._wait(0)
            if not queue.deleted:
                lines.serve(queue)
                self._wait(0)

    @staticmethod
    def _drop_some(queue: MessageQueue) -> bool:
        try:
            queue.drop_expired()
        except StorageError:
            return False  # whoever asks for it is told
        return True

    def _wait_again(self) -> None:
        again = self._journal.again
        left = len(again)
        while left > 0:
            found = [again.popleft() for _ in range(min(left, SWEPT_AT_ONCE))]
            try:
                looked_at = self._expire(found, on_disk=False)
            except BaseException:
                again.extendleft(reversed(found))
                raise
            again.extendleft(reversed(found[looked_at:]))
            left -= looked_at
            self._wait(0)

    def _wait_kept(self) -> None:
        kept = sorted(self._kept)
        while kept:
            looked_at = self._expire(kept[:SWEPT_AT_ONCE])
            del kept[:looked_at]
            self._wait(0)

    def _wait_behind(self) -> None:
        storage, key = self._journal.storage, records.expiry_key
        behind, self._behind = self._behind, {}
        first = {queue.log.record.number: position for queue, position in behind.items()}
        waiting = deque(sorted(behind.items(), key=lambda entry: entry[1]))
        position = b""
        try:
            while waiting:
                queue, its_first = waiting[0]
                if queue in self._behind or queue.deleted:
                    waiting.popleft()
                    continue
                position = max(position, its_first)
                found = storage.expiries(position, self._journal.time_ms(), SWEPT_AT_ONCE)
                found = [expiry for expiry in found if key(*expiry) < self._position]
                if not found:
                    break  # all of them have caught up
                theirs = [expiry for expiry in found if key(*expiry) >= first.get(expiry.number, self._position)]
                looked_at = self._expire(theirs)
                self._dead += looked_at
                position = key(*(found[-1] if looked_at == len(theirs) else theirs[looked_at - 1])) + b"\0"
                self._wait(0)
        except BaseException:
            for queue, its_first in waiting:
                self._behind.setdefault(queue, its_first)
            raise

    def _wait_expiries(self) -> None:
        storage, journal = self._journal.storage, self._journal
        now_ms = journal.time_ms()
        journal.swept_ms = min(journal.swept_ms, now_ms)  # the clock may have been set back
        self._position = min(self._position, records.expiry_key(journal.swept_ms + 1))
        while len(self._kept) < MOST_KEPT:
            found = storage.expiries(self._position, now_ms, SWEPT_AT_ONCE)
            if not found:
                break
            looked_at = self._expire(found)
            self._position = records.expiry_key(*found[looked_at - 1]) + b"\0"
            journal.swept_ms = found[looked_at - 1].expires_at_ms
            self._dead += looked_at
            self._wait(0)
        if self._dead > MOST_DEAD and not journal.again:  # else a turn may have failed, and what it swept is needed
            end = min([self._position, *self._behind.values()])
            kept = sorted(expiry for expiry in self._kept if records.expiry_key(*expiry) < end)
            journal.also.append(partial(_forget, journal, end, kept))
            self._note_dead(records.EXPIRY_PREFIX, end, self._dead)
            self._dead = 0

    def _note_dead(self, begin: bytes, end: bytes, count: int) -> None:
        """`count` expiries are removed between these keys: compaction gives their space back."""
        self._journal.dead.add(DeadRange(DEFAULT_FAMILY, begin, end, count * records.EXPIRY_KEY_BYTES))

    def _expire(self, found: list[Expiry], on_disk: bool = True) -> int:
        """Expire what `found` tells of, each item once; how many of them were looked at."""
        bytes_before: dict[MessageQueue, int] = {}
        looked_at = moved = 0
        seen: set[tuple[int, int]] = set()
        if found:
            self._journal.undo.append((self._journal.again.extend, found))
        for expiry in found:
            queue = self._registry.by_number.get(expiry.number)
            looked_at += 1
            if queue is not None and not queue.unreadable and expiry[1:] not in seen:
                if self._may_not(queue):
                    if on_disk:
                        self._behind.setdefault(queue, records.expiry_key(*expiry))
                    else:
                        self._journal.again.append(expiry)
                    continue
                seen.add(expiry[1:])
                bytes_before.setdefault(queue, queue.bytes_out)
                if not self._expire_one(queue, expiry):
                    self._kept.add(expiry)
                    continue
                moved += queue.expire_to is not None
                if queue.bytes_out - bytes_before[queue] > SWEPT_BYTES or moved >= MOVED_AT_ONCE:
                    break
            self._kept.discard(expiry)
        for queue in bytes_before:
            lines.serve(queue)
        return looked_at

    def _may_not(self, queue: MessageQueue) -> bool:
        """Whether the queue has lost as many in this sweep as max_expire_sweep allows."""
        most = queue.options.max_expire_sweep
        return bool(most) and self._swept.get(queue, 0) >= most

    def _expire_one(self, queue: MessageQueue, expiry: Expiry) -> bool:
        before = queue.expired_items
        try:
            return expiries.expire(queue, expiry)
        except StorageError as error:
            self._journal.storage.require_open()  # else all of them wait for the next sweep
            log.error("an item that should expire: %s", error, extra=BY_TEXT)
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
                    lines.serve(queue)
                return
            self._wait(0)

    # -- expiries of what has been taken

    def _wait_tidy(self) -> None:
        """Remove the expiries of items that are gone before their time, if there may be many."""
        journal = self._journal
        written, journal.hints = journal.hints, 0
        self._written += written
        if not self._tidied:
            since_s = self._monotonic() - self._tidied_at
            if self._written <= MOST_TAKEN + self._live and (self._live <= MOST_TAKEN or since_s < TIDY_EVERY_S):
                return
            self._tidied, self._tidied_at = records.EXPIRY_PREFIX, self._monotonic()
            self._written = self._live = 0
        most = TIDIED_A_SWEEP + 2 * written
        while most > 0:
            found = journal.storage.expiries(self._tidied, records.MAX_ID, TIDIED_AT_ONCE)
            if not found:
                self._tidied = b""
                return
            self._tidy(found)
            self._tidied = records.expiry_key(*found[-1]) + b"\0"
            most -= len(found)
            self._wait(0)

    def _tidy(self, found: list[Expiry]) -> None:
        taken = [expiry for expiry in found if self._is_taken(expiry)]
        self._live += len(found) - len(taken)
        if not taken:
            return
        storage, begin, end = (
            self._journal.storage,
            records.expiry_key(*taken[0]),
            records.expiry_key(*taken[-1]) + b"\0",
        )
        if len(taken) == len(found):
            self._journal.also.append(lambda batch: storage.remove_expiries(batch, begin, end))
        else:
            self._journal.also.append(partial(_remove, storage, taken))
        self._note_dead(begin, end, len(taken))

    def _is_taken(self, expiry: Expiry) -> bool:
        """Whether nothing that waits or is open can be meant."""
        queue = self._registry.by_number.get(expiry.number)
        if queue is None or queue.unreadable:
            return queue is None
        return expiry.id >= queue.tail or (expiry.id < queue.next_id and expiry.id not in queue.outstanding)

    # -- queues

    def wait_expire_queues(self) -> None:
        """Delete the empty queues that nobody has used for their max_queue_age_s. To ask for an item is to use a queue,
        whether there is one or not."""
        now = self._monotonic()
        quiet: dict[MessageQueue, tuple[int, float]] = {}
        for queues in slices(self._registry.timed, QUEUES_AT_ONCE):
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
        age_s = queue.options.max_queue_age_s
        log.info("queue %s is deleted: nobody has used it for %d s", show_bytes(queue.name), age_s)
        self._registry.delete(queue.name)
        self._journal.undo.append((setattr, self._registry, "expires", self._registry.expires))
        self._registry.expires += 1


def _is_idle(queue: MessageQueue) -> bool:
    """Whether the queue is empty and nobody is about to change that, at its cursors either."""
    if queue.waiting_items or queue.open_reads or queue.line or queue.is_receiving or queue.unreadable:
        return False
    return not any(cursor.outstanding or cursor.line for cursor in (queue.cursors or {}).values())


def _forget(journal: Journal, before: bytes, kept: list[Expiry], batch: Batch) -> None:
    journal.storage.remove_expiries(batch, records.EXPIRY_PREFIX, before)
    for expiry in kept:
        journal.storage.add_expiry(batch, expiry)


def _remove(storage: Storage, taken: list[Expiry], batch: Batch) -> None:
    for expiry in taken:
        storage.remove_expiry(batch, expiry)
