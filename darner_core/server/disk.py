"""Whether the disk takes what is written, and has room; and the fsyncs between turns.

After an error RocksDB writes nothing more until it is opened again; until then, and while there is too little room,
sets are refused. Names that begin with wait_ switch greenlets; nothing else here does.
"""

import logging
from collections.abc import Callable

from darner_core import NAME
from darner_core.engines.local.compaction import Compaction
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.registry import Registry
from darner_core.errors import StorageError
from darner_core.operations.stats import Stats
from darner_core.repeated import BY_FORM
from darner_core.storage.storage import Storage
from darner_core.waiters import wait_in_thread

log = logging.getLogger(NAME)

# Between two looks at the room on the disk, clients send an eighth of min_free_bytes, but at least this much.
LOOK_BYTES = 1 << 20


class Disk:
    def __init__(
        self,
        storage: Storage,
        journal: Journal,
        registry: Registry,
        stats: Stats,
        min_free_bytes: int,
        refuse_sets: Callable[[str], None],
        wait_make_named: Callable[[], None],
        sync: Callable[[], None] | None = None,
    ) -> None:
        """`refuse_sets` is told why sets are refused now; "": they are not. `wait_make_named` makes the queues that the
        configuration names, as far as they are missing. `sync`: what to call for `storage.sync`."""
        self.look_at_bytes = 0  # how many bytes have been received in all when it is time for another look at the room
        self._storage = storage
        self._sync = sync
        self._journal = journal
        self._registry = registry
        self._stats = stats
        self._min_free_bytes = min_free_bytes
        self._refuse_sets = refuse_sets
        self._wait_make_named = wait_make_named
        self._upkeep = Compaction(registry, journal, min_free_bytes)
        self._has_failed = False

    def write_failed(self, error: StorageError) -> None:
        """A turn could not be written."""
        log.error("cannot write: %s", error, extra=BY_FORM)
        self._has_failed = True
        self._refuse_sets(f"cannot write: {error}")

    def sync_failed(self, error: StorageError) -> None:
        log.error("cannot sync: %s", error, extra=BY_FORM)
        self._has_failed = True  # the system may forget what it could not write, so write all of it again

    def look_for_room(self) -> None:
        """Decide whether sets have to be refused. Called once a second, and whenever clients have sent a good part of
        min_free_bytes, because the sets of one second may be more than that."""
        self.look_at_bytes = self._stats.bytes_read + max(LOOK_BYTES, self._min_free_bytes // 8)
        if self._has_failed:
            return
        try:
            self._refuse_sets(self._upkeep.no_room())
        except StorageError as error:  # what is known of the room stands until the next look
            log.error("cannot see how much room there is: %s", error, extra=BY_FORM)
        except Exception:
            log.exception("cannot see how much room there is", extra=BY_FORM)

    # -- in the background

    def wait_upkeep(self) -> None:
        """To be called about once a second. Raises StorageError."""
        if self._has_failed or (self._storage.met_damage and not self._storage.salvages):
            self._wait_recover()
        self.look_for_room()
        for task in self._upkeep.tick():
            wait_in_thread(task)

    def _wait_recover(self) -> None:
        """Open RocksDB again: then it writes. Raises StorageError."""
        if self._storage.is_open and not self._upkeep.room_to_reopen():
            return  # it would fail half-way; until there is room, what only reads goes on
        self._storage.reopen()
        self._registry.recheck()
        if self._has_failed:
            log.info("the disk takes writes again")
        self._has_failed = False
        self._wait_make_named()  # a reload may have made them in a turn that could not be written

    def wait_sync(self) -> None:
        """Have all that has been written on the disk, if it is not yet. Raises StorageError."""
        if not self._journal.unsynced:
            return
        self._journal.unsynced = False
        try:
            wait_in_thread(self._sync or self._storage.sync)
        except Exception:
            self._journal.unsynced = self._has_failed = True
            raise

    def wait_write_last(self) -> None:
        """When nothing changes any more. Raises StorageError."""
        self._registry.record_all()
        self._journal.commit()
        self._storage.sync()
        self._storage.note_synced()
