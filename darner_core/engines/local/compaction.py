"""Giving back disk space, and watching how much is left. Disk use follows the live data within seconds.

`tick` is called in the loop about once a second, and takes at most 3 ms. What takes long it returns as functions, to be
run in a thread one after the other.
"""

from collections.abc import Callable, Iterator
from functools import partial

from darner_core.engines.local import asides, window
from darner_core.engines.local.dead_ranges import DeadRange, RangeKey
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.registry import Registry
from darner_core.storage.storage import CHUNK_FAMILY

# A dead range is compacted at once if it is at least this large. If it has stopped growing, the smaller size is enough.
COMPACT_BYTES = 64 << 20
COMPACT_QUIET_BYTES = 1 << 20

# After a compaction the write-ahead logs are let go if they are larger than this.
TRIM_WAL_BYTES = 8 << 20

# What opening writes beside the contents of the write-ahead log: a MANIFEST, the options of all column families.
REOPEN_BYTES = 1 << 20

# A tick looks at up to this many queues for dead items, too few for a write to have reclaimed them: 10,000 queues are
# visited in 20 s. It reclaims those of up to RECLAIMED_A_TICK queues, in 3 ms.
QUEUES_A_TICK = 500
RECLAIMED_A_TICK = 100


FIRST_KEY, LAST_KEY = b"", b"\xff" * 16


class Compaction:
    def __init__(self, registry: Registry, journal: Journal, min_free_bytes: int) -> None:
        self._registry = registry
        self._journal = journal
        self._min_free_bytes = min_free_bytes
        self._visit: Iterator[bytes] = iter(())  # names that are still to be looked at in this round
        self._seen: dict[RangeKey, int] = {}  # dead bytes by range at the last tick
        self._running: dict[RangeKey, DeadRange] = {}  # ranges whose compaction has not ended well yet
        self._compacted = False
        self._find_dead()

    def _find_dead(self) -> None:
        """Find what was dead when the server last ended: where tables are larger than what lives in them."""
        storage, dead = self._journal.storage, self._journal.dead
        live_bytes = [0] * len(storage.families)
        for queue in self._registry:
            live_bytes[queue.log.record.family] += queue.log_bytes
        for family, live in enumerate(live_bytes):
            if family in storage.damaged_families:
                continue  # how much of it lives is not known
            dead_bytes = storage.table_bytes(family) - live
            if dead_bytes >= max(live, COMPACT_QUIET_BYTES):
                dead.add(DeadRange(family, FIRST_KEY, LAST_KEY, dead_bytes))
        asides.find_dead(self._journal, self._registry.asides.by_queue.values())
        # How many chunks live is not known without reading every item. What lies before the first one is dead.
        dead_bytes = storage.table_bytes(CHUNK_FAMILY)
        if dead_bytes >= COMPACT_QUIET_BYTES:
            dead.add(DeadRange(CHUNK_FAMILY, FIRST_KEY, storage.first_chunk() or LAST_KEY, dead_bytes))

    def tick(self) -> list[Callable[[], None]]:
        self._reclaim_idle()
        return self._compactions()

    def no_room(self) -> str:
        """Why sets have to be refused now; "": they need not be."""
        free = self._journal.storage.free_bytes()
        if free >= self._min_free_bytes:
            return ""
        return f"out of disk space: {free} bytes free, sets need {self._min_free_bytes}"

    def room_to_reopen(self) -> bool:
        """Whether the database can be opened again: what is in the write-ahead log is written to tables then."""
        storage = self._journal.storage
        return storage.free_bytes() >= storage.wal_bytes() + REOPEN_BYTES

    def _reclaim_idle(self) -> None:
        """Range-delete the dead items of queues that nobody has used since the last visit."""
        registry = self._registry
        reclaimed = 0
        for _ in range(min(QUEUES_A_TICK, len(registry.queues) + len(registry.hidden))):
            name = next(self._visit, None)
            if name is None:
                self._visit = iter([*registry.queues, *registry.hidden])  # pointers alone: 100,000 in 1 ms
                name = next(self._visit)
            queue = registry.queues.get(name) or registry.hidden.get(name)
            if queue is None or queue.unreadable:
                continue
            seen, queue.log.seen = queue.log.seen, queue.tail + queue.first_id()
            if queue.log.seen != seen:
                continue
            if queue.first_id() > queue.log.reclaimed or queue.removed_bytes() > queue.log.reclaimed_bytes:
                queue.log.reclaim()
                reclaimed += 1
            window.release_if_empty(queue)
            if reclaimed == RECLAIMED_A_TICK:
                break

    def _compactions(self) -> list[Callable[[], None]]:
        storage, dead = self._journal.storage, self._journal.dead
        for (_, number), failed in self._running.items():
            dead.add(failed, number)
        self._running = {}
        for key, found in list(dead.ranges.items()):
            quiet = self._seen.get(key) == found.dead_bytes
            if found.dead_bytes >= (COMPACT_QUIET_BYTES if quiet else COMPACT_BYTES):
                self._running[key] = dead.ranges.pop(key)
        self._seen = {key: found.dead_bytes for key, found in dead.ranges.items()}
        if self._running:
            self._compacted = True
            return [partial(self._compact, key, found) for key, found in self._running.items()]
        if self._compacted and storage.wal_bytes() > TRIM_WAL_BYTES:
            self._compacted = False
            return [storage.flush]
        return []

    def _compact(self, key: RangeKey, found: DeadRange) -> None:
        self._journal.storage.compact(found.family, found.begin, found.end)
        del self._running[key]
