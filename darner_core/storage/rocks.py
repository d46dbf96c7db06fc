"""The open database: RocksDB's reads and writes by column family, with RocksDB's errors mapped to ours.

It knows bytes and no records. With `opening` it is the only module that imports rocksdict.

None of its calls switches greenlets. `sync`, `compact` and `flush` take long and release the GIL: run them in a thread.
All others but `open` keep the GIL and take microseconds.

Source for the settings: RocksDB wiki, "Implement Queue Service Using RocksDB" and "Memory usage in RocksDB".
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from rocksdict import ReadOptions, WriteBatch

from darner_core.errors import StorageError
from darner_core.storage import opening
from darner_core.storage.opening import NOT_QUEUES, Settings

Batch = WriteBatch

# The numbers of the column families that hold no queues. Queues' families are numbered from 0.
CHUNK_FAMILY, DEFAULT_FAMILY, ASIDE_FAMILY, JOB_FAMILY, KEY_FAMILY, ORDER_FAMILY, STATE_FAMILY = range(-1, -8, -1)

# This many tables of chunks that have not been compacted are many. From 20 on RocksDB slows down all writes.
MANY_FILES = 12


def family_name(index: int) -> str:
    return f"q{index:03}"


class Rocks:
    """A database that is open or closed. It is closed between `close` and `open`, and stays closed if `open` fails.
    While it is closed, every call that needs it raises StorageError.

    `handles` are the column families for write batches, by number. `open` replaces them, so they must not be kept.
    """

    def __init__(
        self,
        path: str,
        settings: Settings,
        max_column_families: int,
        is_there: Callable[[], bool],
        note_damage: Callable[[list[str]], None],
        say: Callable[[str], None],
    ) -> None:
        """`is_there` tells whether the directory exists. `note_damage` is told what is damaged, before RocksDB drops
        what it cannot read; `say` is told what takes long."""
        self.path = path
        self.met_damage = False  # since the process began
        self.damaged_families: set[int] = set()  # those in which a read has met damage
        self.salvages = False  # opened in the way that leaves out what is damaged
        self._settings = settings
        self._max_column_families = max_column_families
        self._is_there = is_there
        self._note_damage = note_damage
        self._say = say
        self._db: Any = None  # None while it is closed
        # All column families by number, so that the last are those with numbers below 0.
        self._families: list[Any] = []
        self._handles: list[Any] = []

    # -- opening and closing

    @property
    def is_open(self) -> bool:
        return self._db is not None

    @property
    def db(self) -> Any:
        """RocksDB's object. Raises StorageError while the database is closed."""
        if self._db is None:
            raise self._not_open()
        return self._db

    @property
    def families(self) -> list[Any]:
        """RocksDB's objects for the queues' column families. Raises StorageError while the database is closed."""
        self.require_open()
        return self._families[:STATE_FAMILY]

    @property
    def handles(self) -> list[Any]:
        """Raises StorageError while the database is closed."""
        if self._db is None:
            raise self._not_open()
        return self._handles

    def require_open(self) -> None:
        """Raises StorageError while the database is closed."""
        if self._db is None:
            raise self._not_open()

    def _not_open(self) -> StorageError:
        return StorageError(f"data directory {self.path} is not open")

    def open(self, how: str) -> list[str]:
        """Open it in the way `how`, see `opening`; what a crash had cut off. Raises RocksDB's error or StorageError."""
        # All families are made when the directory is: together 60 ms for 64, one by one up to 20 ms for each,
        # with every client waiting.
        names = {*NOT_QUEUES, *map(family_name, range(self._max_column_families))}
        if how != opening.NEW:
            names.update(opening.family_names(self.path))
        numbered = [*sorted(names - set(NOT_QUEUES), key=lambda name: int(name[1:])), *NOT_QUEUES]
        quiet = {numbered[family] for family in self.damaged_families}
        if how == opening.SALVAGE and not quiet:
            quiet = names  # a compaction has met the damage, and RocksDB does not say where
        opened = opening.open_database(
            self.path, sorted(names), self._settings, how, quiet, self._note_damage, self._say
        )
        self._db, self.salvages = opened.db, opened.salvaged
        self._families = [self._db.get_column_family(name) for name in numbered]
        self._handles = [self._db.get_column_family_handle(name) for name in numbered]
        if opened.found:
            self._note_damage(opened.found)
        return opened.torn

    def close(self, flushes: bool) -> bool:
        """Close the database. If `flushes`, the write buffers are written to tables before; what they hold is in the
        write-ahead log, too. False: they have not been written. Raises StorageError."""
        db = self._db
        if not flushes:
            # RocksDB would try to write the buffers for a second, while all clients wait; beside damage, until the disk
            # works again.
            with suppress(Exception):
                db.cancel_all_background(False)
        # RocksDB gives up its lock when the last reference is gone.
        self._db, self._families, self._handles = None, [], []
        try:
            db.close()
        except Exception as error:
            if flushes:
                raise StorageError(opening.file_named(error)) from error
            return False
        return True

    # -- errors

    def failure(self, error: Exception, family: int | None = None) -> StorageError:
        """Our error for one of RocksDB's. `family`: the column family that was being read."""
        if self._db is None:
            return self._not_open()
        if self.is_damage(error):
            self.met_damage = True
            if family is not None and family != DEFAULT_FAMILY:
                self.damaged_families.add(family)
        return StorageError(opening.file_named(error))

    def is_damage(self, error: Exception) -> bool:
        """Whether the error tells of damage. It does not while the whole directory is missing, because its file system
        is not mounted: it may come back whole."""
        return opening.is_damage(error) and self._is_there()

    # -- writing. Here and in reading, a call on a closed database fails in Python; `failure` makes it the right error

    def batch(self) -> Batch:
        return WriteBatch(raw_mode=True)

    def write(self, batch: Batch) -> None:
        """Write all of `batch` or nothing of it. Raises StorageError."""
        try:
            self._db.write(batch)
        except Exception as error:
            raise self.failure(error) from error

    def put(self, family: int, key: bytes, value: bytes) -> None:
        """Write one record. It takes 3 us, where a batch of one takes 5. Raises StorageError."""
        try:
            self._families[family].put(key, value)
        except Exception as error:
            raise self.failure(error) from error

    def sync(self) -> None:
        """Make all that was written survive the loss of power (fsync). Takes milliseconds. Raises StorageError."""
        try:
            self.db.flush_wal(True)
        except Exception as error:
            raise self.failure(error) from error

    def last_sequence(self) -> int:
        """RocksDB's number of the last change. Raises RocksDB's error, or StorageError."""
        return int(self.db.latest_sequence_number())

    # -- reading

    def get(self, family: int, key: bytes) -> bytes | None:
        """Raises StorageError."""
        try:
            value: bytes | None = self._families[family].get(key)
            return value
        except Exception as error:
            raise self.failure(error, family) from error

    def scan(self, family: int, begin: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) of all in [begin, end), in order. Raises StorageError.

        Exhaust or drop it before the turn ends: an open iterator pins every file it has seen.
        """
        options = ReadOptions()
        options.set_iterate_upper_bound(end)
        last = None
        try:
            column_family = self._families[family]
            for entry in column_family.items(from_key=begin, read_opt=options):
                yield entry
                last = entry[0]
            # Where a record cannot be read, rocksdict (0.3.29) ends the iteration as if there were no more: look again.
            rest = column_family.iter(options)
            rest.seek(begin if last is None else last + b"\0")
            rest.status()
            if rest.valid():
                raise StorageError("an iteration ended before its end")
        except StorageError:
            raise
        except Exception as error:
            raise self.failure(error, family) from error

    def scan_back(self, family: int, begin: bytes, last: bytes) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) of all in [begin, last], the last one first. As `scan`.

        It looks for the first of them before it goes to the last, and stops there: rocksdict (0.3.29) knows no bound
        for going backward, and what has been deleted before this range may be much.
        """
        options = ReadOptions()
        options.set_iterate_upper_bound(last + b"\0")
        try:
            entries = self._families[family].iter(options)
            entries.seek(begin)
            if entries.valid():
                first = entries.key()
                entries.seek_for_prev(last)
                while entries.valid():
                    key = entries.key()
                    yield key, entries.value()
                    if key == first:
                        return
                    entries.prev()
            entries.status()
        except StorageError:
            raise
        except Exception as error:
            raise self.failure(error, family) from error

    def last_key(self, family: int, begin: bytes, last: bytes) -> bytes | None:
        """The last key in [begin, last]; None if there is none. Raises StorageError."""
        options = ReadOptions()
        options.set_iterate_upper_bound(last + b"\0")
        try:
            # Forward first. Backward, RocksDB does not stop at this queue's bound: it walks through the range deletions
            # of the queues before it.
            entries = self._families[family].iter(options)
            entries.seek(begin)
            if entries.valid():
                entries.seek_for_prev(last)
            found = entries.key() if entries.valid() else None
            entries.status()
            return found
        except Exception as error:
            raise self.failure(error, family) from error

    def first_key(self, family: int) -> bytes | None:
        """None if there is none, or it cannot be read. Raises StorageError."""
        try:
            entries = self._families[family].iter()
            entries.seek_to_first()
            return entries.key() if entries.valid() else None
        except Exception as error:
            raise self.failure(error) from error

    # -- space

    def compact(self, family: int, begin: bytes, end: bytes) -> None:
        """Give the space of removed records in [begin, end) back to the file system. Seconds: run it in a thread."""
        if family in self.damaged_families:
            return  # it would fail again and again
        try:
            self._families[family].compact_range(begin, end)
        except Exception as error:
            raise self.failure(error) from error

    def flush(self) -> None:
        """Write all write buffers to tables. Run it in a thread. Raises StorageError."""
        try:
            self.require_open()
            for family in self._families:
                family.flush(True)
        except Exception as error:
            raise self.failure(error) from error

    def table_bytes(self, family: int) -> int:
        """Bytes of a column family's tables. Raises StorageError."""
        try:
            return int(self._families[family].property_int_value("rocksdb.total-sst-files-size") or 0)
        except Exception as error:
            raise self.failure(error) from error

    def is_behind(self) -> bool:
        """Whether chunks wait in memory to be written to a table, or many tables wait to be compacted: with a few more,
        RocksDB would make the next write wait, and with it all clients."""
        try:
            chunks = self._families[CHUNK_FAMILY]
            if chunks.property_int_value("rocksdb.num-immutable-mem-table"):
                return True
            files = int(chunks.property_value("rocksdb.num-files-at-level0") or 0)
            return files >= MANY_FILES and not self.salvages  # in which state nothing is compacted
        except Exception:
            return False  # the next write raises what is wrong
