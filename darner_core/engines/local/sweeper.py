"""What happens to items and queues because time passes: items expire, empty queues are deleted.

A sweep takes many turns, and one or two milliseconds of each: a million items that expire at once delay no client.

Names that begin with wait_ switch greenlets.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from darner_core import NAME
from darner_core.engines.local import aside_leaving, lines
from darner_core.engines.local import expiry as expiries
from darner_core.engines.local.aside import Aside
from darner_core.engines.local.dead_ranges import DeadRange
from darner_core.engines.local.expiry import MOVED_AT_ONCE
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.moving import Mover
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.routing import Routing
from darner_core.errors import StorageError
from darner_core.repeated import BY_TEXT
from darner_core.showing import show
from darner_core.slicing import slices
from darner_core.storage import records
from darner_core.storage.records import Expiry
from darner_core.storage.storage import DEFAULT_FAMILY, Batch

log = logging.getLogger(NAME)

# One turn looks at up to this many expiries, and reads up to this many bytes of items for them: under 1 ms. RocksDB is
# asked for each item, because its id may have been used by another queue.
SWEPT_AT_ONCE = 100
SWEPT_BYTES = 1 << 20

# When this many expiries have been dealt with, they are removed from the disk as one range; not sooner, because every
# iterator looks at every range deletion. The next start looks at what is left again, in 0.1 s.
MOST_DEAD = 20_000

# A sweep pauses while more large items than this wait to be moved: 2 MB.
MOST_KEPT = 10_000

# When to look again at an item that lies aside and has expired while it is open.
OPEN_AGAIN_MS = 60_000

# Items that are taken before they expire leave their expiries behind. These are looked for when more expiries have been
# written than there were live ones, plus MOST_TAKEN. Then one turn looks at up to TIDIED_AT_ONCE, in 1 ms; one sweep at
# up to TIDIED_A_SWEEP, and twice as many as have been written since the last.
MOST_TAKEN = 20_000
TIDIED_AT_ONCE = 500
TIDIED_A_SWEEP = 20_000
# If more than MOST_TAKEN were live, all of these may have been taken since: then the search begins after this time.
TIDY_EVERY_S = 3600

BUSY_S = 0.01  # between two looks whether another sweep has ended

# One turn looks at up to this many queues with a maximum age, and deletes up to this many: 1 to 2 ms.
QUEUES_AT_ONCE = 500
DELETED_AT_ONCE = 20


class Sweeper:
    """Sweeps, one at a time."""

    def __init__(
        self,
        registry: Registry,
        routing: Routing,
        journal: Journal,
        wait: Callable[[float], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`wait(seconds)` has this turn written and lets others have theirs, also for 0 seconds."""
        self._registry = registry
        self._journal = journal
        self.mover = Mover(registry.large_expired, routing, wait, registry.asides.large_dead)
        self._wait = wait
        self._monotonic = monotonic
        self._busy = False
        self._position = records.EXPIRY_PREFIX  # all expiries before it have been looked at
        self._dead = 0  # how many of these are not needed any more, and still on disk
        self._kept: set[Expiry] = set()  # those of them that are needed: of large items that are being moved
        # Queues with more expired items than one sweep may remove: the first expiry that has still to be looked at.
        self._behind: dict[MessageQueue, bytes] = {}
        self._swept: dict[MessageQueue, int] = {}  # how many items this sweep has removed from each
        self._tidied = b""  # the items of all expiries before it have been looked for; b"": none are being looked for
        self._written = MOST_TAKEN + 1  # expiries written since that began; at the start it is not known how many
        self._live = 0  # how many of the expiries looked at are still needed
        self._tidied_at = 0.0  # when it last began
        # Empty queues: a number that changes with each use of the queue, and since when it has not changed.
        self._quiet: dict[MessageQueue, tuple[int, float]] = {}

    def wait_moves(self) -> None:
        """What has to be done even without sweeps: move the large items that have been found to have expired, and
        remove what is left of items that are gone. Raises StorageError."""
        with self._wait_alone():
            self._wait_half_served()
            self._wait_again()
            self.mover.wait_move_all()
            self._wait_tidy()

    def wait_sweep(self, only: MessageQueue | None = None) -> None:
        """Remove all expired items; with `only`, those of one queue, and others that are met. Raises StorageError."""
        with self._wait_alone():
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
            self.mover.wait_move_all()
            self._wait_tidy()

    @contextmanager
    def _wait_alone(self) -> Iterator[None]:
        while self._busy:
            self._wait(BUSY_S)
        self._busy = True
        self._swept = {}
        try:
            yield
        finally:
            self._busy = False

    # -- items with an expiry of their own

    def _wait_half_served(self) -> None:
        """Hand clients that wait the items that stand behind expired ones."""
        half_served = self._journal.half_served
        for queue in list(half_served):
            del half_served[queue]
            while queue.half_swept and not queue.deleted:
                try:
                    queue.drop_expired()
                except StorageError:
                    break  # a client that asks for the item is told
                self._wait(0)
            if not queue.deleted:
                lines.serve(queue)
                self._wait(0)

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
        """`count` expiries between these keys are removed: compaction gives their space back."""
        self._journal.dead.add(DeadRange(DEFAULT_FAMILY, begin, end, count * records.EXPIRY_KEY_BYTES))

    def _expire(self, found: list[Expiry], on_disk: bool = True) -> int:
        """Expire the items that `found` tells of, each once; how many entries of `found` were looked at."""
        bytes_before: dict[MessageQueue, int] = {}
        looked_at = moved = 0
        seen: set[tuple[int, int]] = set()
        if found:
            self._journal.undo.append((self._journal.again.extend, found))
        for expiry in found:
            queue = self._registry.by_number.get(expiry.number)
            looked_at += 1
            if queue is None and (aside := self._registry.asides.by_number.get(expiry.number)) is not None:
                if expiry[1:] not in seen:
                    seen.add(expiry[1:])
                    if not self._expire_aside(aside, expiry):
                        self._kept.add(expiry)
                        continue
                    moved += 1
                    if moved >= MOVED_AT_ONCE:
                        break
            if queue is not None and not queue.unreadable and expiry[1:] not in seen:
                if self._has_swept_enough(queue):
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

    def _expire_aside(self, aside: Aside, expiry: Expiry) -> bool:
        """False: it has to be looked at again. Of one that is open another expiry stands on disk from now on, which is
        later."""
        if expiry.id in aside.outstanding:
            later = Expiry(self._journal.time_ms() + OPEN_AGAIN_MS, expiry.number, expiry.id)
            storage = self._journal.storage
            self._journal.also.append(lambda batch: storage.add_expiry(batch, later))
            self._journal.count(self._journal, "hints")
            return True
        try:
            return aside_leaving.expire_id(aside, expiry.id) or aside.log.find(expiry.id) is None
        except StorageError as error:
            self._journal.storage.require_open()
            log.error("an expired item cannot be removed: %s", error, extra=BY_TEXT)
            return True

    def _has_swept_enough(self, queue: MessageQueue) -> bool:
        """Whether this sweep has removed as many items of the queue as its max_expire_sweep allows."""
        most = queue.options.max_expire_sweep
        return bool(most) and self._swept.get(queue, 0) >= most

    def _expire_one(self, queue: MessageQueue, expiry: Expiry) -> bool:
        before = queue.expired_items
        try:
            return expiries.expire(queue, expiry)
        except StorageError as error:
            self._journal.storage.require_open()  # if it is closed, all of them wait for the next sweep
            log.error("an expired item cannot be removed: %s", error, extra=BY_TEXT)
            return True  # the hint has done its work; a client that wants the item is told
        finally:
            self._count(queue, queue.expired_items - before)

    def _count(self, queue: MessageQueue, removed: int) -> None:
        if queue.options.max_expire_sweep:
            self._swept[queue] = self._swept.get(queue, 0) + removed

    # -- items that are too old

    def _wait_head(self, queue: MessageQueue) -> None:
        while not queue.deleted and not self._has_swept_enough(queue):
            before = queue.expired_items
            most = queue.options.max_expire_sweep or SWEPT_AT_ONCE
            try:
                done = queue.drop_expired(min(most - self._swept.get(queue, 0), SWEPT_AT_ONCE))
            except StorageError as error:
                queue.cannot_be_read(error)
                return
            self._count(queue, queue.expired_items - before)
            if done:
                if queue.expired_items != before:
                    lines.serve(queue)
                return
            self._wait(0)

    # -- expiries of what has been taken

    def _wait_tidy(self) -> None:
        """Remove the expiries of items that were gone before they expired, if there may be many."""
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
        begin, end = records.expiry_key(*taken[0]), records.expiry_key(*taken[-1]) + b"\0"
        storage = self._journal.storage

        def remove(batch: Batch) -> None:
            if len(taken) == len(found):
                storage.remove_expiries(batch, begin, end)
                return
            for expiry in taken:
                storage.remove_expiry(batch, expiry)

        self._journal.also.append(remove)
        self._note_dead(begin, end, len(taken))

    def _is_taken(self, expiry: Expiry) -> bool:
        """Whether the item that this expiry tells of neither waits nor is open."""
        queue = self._registry.by_number.get(expiry.number)
        if queue is None and (aside := self._registry.asides.by_number.get(expiry.number)) is not None:
            return aside.log.find(expiry.id) is None
        if queue is None or queue.unreadable:
            return queue is None
        return expiry.id >= queue.tail or (expiry.id < queue.next_id and expiry.id not in queue.outstanding)

    # -- queues

    def wait_expire_queues(self) -> None:
        """Delete the empty queues that no client has used for their max_queue_age_s. Asking for an item is use, too,
        whether there is one or not."""
        now = self._monotonic()
        quiet: dict[MessageQueue, tuple[int, float]] = {}
        for queues in slices(self._registry.timed, QUEUES_AT_ONCE):
            deleted = 0
            for queue in queues:
                age_s = queue.options.max_queue_age_s
                if not age_s or not _is_idle(queue, self._registry.asides.by_queue.get(queue)):
                    continue
                if self._registry.queues.get(queue.name) is not queue:
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
        log.info("queue %s is deleted: nobody has used it for %d s", show(queue.name), age_s)
        self._registry.delete(queue.name)
        self._journal.undo.append((setattr, self._registry, "expires", self._registry.expires))
        self._registry.expires += 1


def _is_idle(queue: MessageQueue, aside: Aside | None) -> bool:
    """Whether the queue and its cursors are empty, and nobody waits there or is putting an item; `aside`: what lies
    aside of it. A pause and a key that is taken are kept."""
    if queue.waiting_items or queue.open_reads or queue.line or queue.is_receiving or queue.unreadable:
        return False
    if aside is not None and (aside.items or aside.key_windows.entries or aside.paused):
        return False
    return not any(cursor.outstanding or cursor.line for cursor in (queue.cursors or {}).values())


def _forget(journal: Journal, before: bytes, kept: list[Expiry], batch: Batch) -> None:
    journal.storage.remove_expiries(batch, records.EXPIRY_PREFIX, before)
    for expiry in kept:
        journal.storage.add_expiry(batch, expiry)
