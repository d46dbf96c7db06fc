"""An open data directory: what the queue engine keeps there, table by table.

`Storage` joins the files of `directory`, the database of `rocks` and the bytes of `records`. It does not know the rules
of queues; the engine's journal decides what is written when.

No call switches greenlets. `sync`, `compact` and `flush` take long and release the GIL: run them in a thread. All
others but `reopen` keep the GIL and take microseconds.
"""

import os
import secrets
import struct
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, TypeVar

from darner_core.errors import DataDirError, StorageError
from darner_core.storage import opening, records, wal
from darner_core.storage.directory import DataDirectory
from darner_core.storage.job_tables import JobTables
from darner_core.storage.number_tables import NumberTables
from darner_core.storage.records import Expiry, Item, QueueRecord, State
from darner_core.storage.rocks import CHUNK_FAMILY, DEFAULT_FAMILY, Batch, Rocks

__all__ = ["CHUNK_FAMILY", "DEFAULT_FAMILY", "Batch", "Storage"]

# Up to this many records are deleted one by one, more of them as a range. A read looks at every range deletion of its
# column family that is still in the write buffer, so a queue that held little must not leave one behind.
DELETED_SINGLY = 32

_T = TypeVar("_T")


class Storage:
    """An open data directory. If it could not be opened again, it stays closed until `reopen` succeeds, and every call
    that needs the database raises StorageError."""

    def __init__(
        self,
        path: str,
        *,
        max_column_families: int,
        block_cache_bytes: int,
        write_buffer_bytes: int,
        max_wal_bytes: int,
        max_open_files: int,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Open `path`, which is made if it is missing. `say` is told what takes long. Raises DataDirError, with what a
        person can do about it."""
        self.path = path
        self._fresh_from = records.MAX_NUMBER + 1  # no queue with this number or a higher one had chunks at the start
        self._nothing_left = False  # to be written or synced
        self._last_sequence = 0  # RocksDB's number of the last change before the database was closed
        self._directory = DataDirectory(path, say)
        settings = opening.Settings(block_cache_bytes, write_buffer_bytes, max_wal_bytes, max_open_files)
        note_damage = self._directory.note_damage
        self._rocks = rocks = Rocks(path, settings, max_column_families, self._directory.is_there, note_damage, say)
        # Calls that the database and the directory answer themselves. A turn is written with the first three.
        self.batch, self.write, self.put, self.sync = rocks.batch, rocks.write, rocks.put, rocks.sync
        self.compact, self.table_bytes, self.is_behind = rocks.compact, rocks.table_bytes, rocks.is_behind
        self.require_open = rocks.require_open
        self.wal_bytes, self.free_bytes = self._directory.wal_bytes, self._directory.free_bytes
        self.damage, self.torn = self._directory.damage, self._directory.torn
        self.damaged_families = rocks.damaged_families
        self.jobs = JobTables(rocks)  # what is set aside from queues' lines
        self.numbers = NumberTables(rocks)
        self._open_first()

    def _open_first(self) -> None:
        """Raises DataDirError, and then leaves no new files in the directory."""
        directory = self._directory
        how = directory.prepare()
        before: set[str] = set()
        try:
            if how != opening.NEW:
                before = set(os.listdir(self.path))
                directory.look_over(how)
            directory.torn += self._rocks.open(how)
            directory.note_format()
            self._note_running()
        except Exception as error:
            with suppress(StorageError):
                self.close()
            if how != opening.NEW:
                directory.remove_what_start_made(before)
            if isinstance(error, DataDirError):
                raise
            raise directory.why_not_open(error) from error

    # -- closing, and opening again

    def note_synced(self) -> None:
        """All is synced, and nothing will be written any more: from here on a loss of power loses nothing."""
        self._nothing_left = True

    def close(self) -> None:
        """Close the database. What was written is in the write-ahead log, and survives a loss of power if `sync` was
        called before. Raises StorageError."""
        if not self._rocks.is_open or not self._rocks.close(flushes=self._directory.takes_writes()):
            return
        # RocksDB has written the log to tables, and begun an empty one.
        with suppress(OSError):
            if self._nothing_left:
                self._directory.note_ended()
            else:
                self._directory.note_running()

    def reopen(self) -> None:
        """Close and open again, so that RocksDB writes again after an I/O error, and works beside damage. If this
        raises StorageError, it is to be called again."""
        rocks = self._rocks
        with suppress(Exception):
            self._last_sequence = rocks.last_sequence()
        with suppress(StorageError):  # it is being closed because it does not work
            self.close()
        try:
            self._directory.torn += rocks.open(opening.SALVAGE if rocks.met_damage or rocks.salvages else opening.AGAIN)
            if rocks.last_sequence() < self._last_sequence:
                self._directory.note_damage(["write-ahead log: what was written is not there any more"])
            with suppress(OSError):
                self._note_running()
        except Exception as error:
            if opening.is_damage(error):
                rocks.met_damage = True  # next time it is opened beside the damage
            with suppress(StorageError):
                self.close()
            raise StorageError(f"cannot reopen {self.path}: {opening.one_line(error)}") from error

    @property
    def is_open(self) -> bool:
        return self._rocks.is_open

    def _note_running(self) -> None:
        """Note which log is the newest, and write to it, without a change. So a log that was emptied later can be told
        from one in which nothing was ever written. Raises RocksDB's error, StorageError or OSError."""
        mark = b""
        try:
            self._rocks.db.write(self.batch())
            mark = records.MARKED_LOG + b"%d\n" % wal.number_of(wal.files(self.path)[-1])
        except Exception as error:
            if not opening.is_damage(error):
                raise
            self._rocks.met_damage = True  # a compaction that has begun meanwhile has met it
        self._directory.note_running(mark)

    # -- damage

    @property
    def met_damage(self) -> bool:
        """Whether a read has met damage since the process began."""
        return self._rocks.met_damage

    @property
    def salvages(self) -> bool:
        """Whether the database has been opened in the way that leaves out what is damaged."""
        return self._rocks.salvages

    # -- numbers that nothing has used

    def fresh_number(self, known: Collection[int]) -> int:
        """A number for a queue, from which on none is in use except those among `known`, which are all that records
        tell of. To be called once, at the start.

        Where records are missing, a number may be in use without a record of it. So a random one is taken, which needs
        no record of the highest, and no clock, which may have been set back. The chance that a thousand new numbers,
        one after the other, meet a thousand lost ones is one in a million.
        """
        self._fresh_from = max(known, default=0) + 1
        return 1 + secrets.randbits(31) if self.damage else self._fresh_from

    def next_blob(self, number: int) -> int:
        """A number for a large item of queue `number`, higher than all before it. To be called once for each queue
        after a start. Raises StorageError."""
        if number >= self._fresh_from and not self.damage:
            return 1
        try:
            last = self.last_blob(number)
        except StorageError as error:
            if not self._rocks.is_damage(error):
                raise
            last = 0
            if str(error) not in self.damage:
                self._directory.note_damage([str(error)])
        # Where records are missing, lost items may have higher numbers. There is room for 250,000 such steps.
        return last + 1 + (secrets.randbits(46) if self.damage else 0)

    # -- writing

    @property
    def families(self) -> list[Any]:
        """RocksDB's objects for the column families of queues. Raises StorageError while the database is closed."""
        return self._rocks.families

    @property
    def handles(self) -> list[Any]:
        """The column families as a batch takes them: those of queues by number, CHUNK_FAMILY and DEFAULT_FAMILY. Not to
        be kept beyond a turn. Raises StorageError while the database is closed."""
        return self._rocks.handles

    # -- queues

    def queues(self) -> list[tuple[bytes, QueueRecord]]:
        """(name, record) of every queue. Raises StorageError."""
        prefix = records.QUEUE_PREFIX
        return self._listed(prefix, lambda key, value: (key[len(prefix) :], records.unpack_queue(value)), "queues")

    def _listed(self, prefix: bytes, unpack: Callable[[bytes, bytes], _T], what: str) -> list[_T]:
        """All records of the default family whose keys begin with `prefix`."""
        end = prefix[:-1] + bytes((prefix[-1] + 1,))
        try:
            return [unpack(key, value) for key, value in self._rocks.scan(DEFAULT_FAMILY, prefix, end)]
        except struct.error as error:
            raise StorageError(f"the list of {what}: {error}") from error

    def add_queue(self, batch: Batch, name: bytes, record: QueueRecord) -> None:
        batch.put(records.queue_key(name), records.pack_queue(record), self.handles[DEFAULT_FAMILY])

    def remove_queue(
        self,
        batch: Batch,
        name: bytes,
        record: QueueRecord,
        ids: range | None = None,
        has_chunks: bool = True,
    ) -> None:
        """Remove the queue and its items, whose ids are all among `ids`; None: it is not known which ids there are."""
        batch.delete(records.queue_key(name), self.handles[DEFAULT_FAMILY])
        self._remove_number(batch, record, ids)
        if has_chunks:
            self.remove_blobs(batch, record.number, 0, records.MAX_ID)

    def _remove_number(self, batch: Batch, record: QueueRecord, ids: Collection[int] | None) -> None:
        """Remove the state of a queue or cursor, and its records of `ids`; None: all of its records."""
        number, handle = record.number, self.handles[record.family]
        if ids is None or len(ids) > DELETED_SINGLY:
            begin, end = records.item_key(number, records.STATE_ID), records.item_key(number + 1, records.STATE_ID)
            batch.delete_range(begin, end, handle)
            return
        for item_id in (records.STATE_ID, *ids):
            batch.delete(records.item_key(number, item_id), handle)

    def state(self, queue: QueueRecord) -> State:
        """What was last written of the queue. Raises StorageError."""
        value = self._rocks.get(queue.family, records.item_key(queue.number, records.STATE_ID))
        try:
            return State() if value is None else records.unpack_state(value)
        except struct.error as error:
            raise StorageError(f"state: {error}") from error

    # -- cursors

    def cursors(self) -> list[tuple[bytes, bytes, QueueRecord]]:
        """(queue's name, name, record) of every cursor. Raises StorageError."""
        return self._listed(
            records.CURSOR_PREFIX,
            lambda key, value: (*records.unpack_cursor_key(key), records.unpack_queue(value)),
            "cursors",
        )

    def add_cursor(self, batch: Batch, queue: bytes, name: bytes, record: QueueRecord) -> None:
        batch.put(records.cursor_key(queue, name), records.pack_queue(record), self.handles[DEFAULT_FAMILY])

    def remove_cursor(
        self, batch: Batch, queue: bytes, name: bytes, record: QueueRecord, ids: Collection[int] | None = None
    ) -> None:
        """Remove a cursor and its records, which are of the items `ids`; None: it is not known which there are."""
        batch.delete(records.cursor_key(queue, name), self.handles[DEFAULT_FAMILY])
        self._remove_number(batch, record, ids)

    def cursor_items(self, cursor: QueueRecord) -> Iterator[tuple[int, Item | None]]:
        """(id, item) of each record of a cursor, in order; None: its queue has the item. See `items`."""
        return self._scan("cursor", cursor, records.FIRST_ID, records.MAX_ID, records.unpack_cursor_item)

    # -- items

    def items(self, queue: QueueRecord, from_id: int, to_id: int) -> Iterator[tuple[int, Item]]:
        """(id, item) of what is stored in [from_id, to_id), in order.

        Exhaust or drop it before the turn ends: an open iterator pins every file it has seen. Raises StorageError.
        """
        return self._scan("queue", queue, from_id, to_id, records.unpack_item)

    def items_back(self, queue: QueueRecord, from_id: int, to_id: int) -> Iterator[tuple[int, Item]]:
        """As `items`, the last one first."""
        begin, last = records.item_key(queue.number, from_id), records.item_key(queue.number, to_id - 1)
        return self._unpacked("queue", queue, self._rocks.scan_back(queue.family, begin, last), records.unpack_item)

    def _scan(
        self, what: str, record: QueueRecord, from_id: int, to_id: int, unpack: Callable[[bytes], _T]
    ) -> Iterator[tuple[int, _T]]:
        begin, end = records.item_key(record.number, from_id), records.item_key(record.number, to_id)
        return self._unpacked(what, record, self._rocks.scan(record.family, begin, end), unpack)

    def _unpacked(
        self, what: str, record: QueueRecord, entries: Iterator[tuple[bytes, bytes]], unpack: Callable[[bytes], _T]
    ) -> Iterator[tuple[int, _T]]:
        unpack_key, number = records.unpack_item_key, record.number
        try:
            for key, value in entries:
                yield unpack_key(key)[1], unpack(value)
        except (StorageError, ValueError, struct.error) as error:
            raise self._unreadable(f"{what} number {number}", error) from error

    def _unreadable(self, what: str, error: Exception) -> StorageError:
        self.require_open()
        return StorageError(f"{what}: {error}")

    def item(self, queue: QueueRecord, item_id: int) -> Item | None:
        """None: there is no such item. Raises StorageError."""
        try:
            value = self._rocks.get(queue.family, records.item_key(queue.number, item_id))
            return None if value is None else records.unpack_item(value)
        except (StorageError, ValueError, struct.error) as error:
            raise self._unreadable(f"queue number {queue.number}: item {item_id}", error) from error

    def remove_items(self, batch: Batch, queue: QueueRecord, from_id: int, to_id: int) -> None:
        """Remove the items in [from_id, to_id), of which some may be gone."""
        number, handle = queue.number, self.handles[queue.family]
        if to_id - from_id > DELETED_SINGLY:
            batch.delete_range(records.item_key(number, from_id), records.item_key(number, to_id), handle)
            return
        for item_id in range(from_id, to_id):
            batch.delete(records.item_key(number, item_id), handle)

    # -- large items: chunks, and the uploads that bring them

    def start_upload(self, number: int, blob: int) -> None:
        """Note that chunks of `blob` are coming: if a crash cuts them off, the next start removes them. Raises
        StorageError."""
        self._rocks.put(DEFAULT_FAMILY, records.upload_key(number, blob), b"")

    def put_chunk(self, number: int, blob: int, index: int, chunk: bytes) -> None:
        """Raises StorageError."""
        self._rocks.put(CHUNK_FAMILY, records.chunk_key(number, blob, index), chunk)

    def chunk(self, number: int, blob: int, index: int) -> bytes:
        """One chunk of a large item. Raises StorageError, also if it is missing."""
        value = self._rocks.get(CHUNK_FAMILY, records.chunk_key(number, blob, index))
        if value is None:
            raise StorageError(f"queue number {number}: chunk {index} of large item {blob} is missing")
        return value

    def end_upload(self, batch: Batch, number: int, blob: int) -> None:
        batch.delete(records.upload_key(number, blob), self.handles[DEFAULT_FAMILY])

    def end_uploads(self, batch: Batch, number: int, from_blob: int, to_blob: int) -> None:
        """End the uploads of the blobs in [from_blob, to_blob)."""
        begin, end = records.upload_key(number, from_blob), records.upload_key(number, to_blob)
        batch.delete_range(begin, end, self.handles[DEFAULT_FAMILY])

    def remove_blobs(self, batch: Batch, number: int, from_blob: int, to_blob: int) -> None:
        """Remove the chunks of the blobs in [from_blob, to_blob)."""
        begin, end = records.chunk_key(number, from_blob, 0), records.chunk_key(number, to_blob, 0)
        batch.delete_range(begin, end, self.handles[CHUNK_FAMILY])

    def unfinished_uploads(self) -> list[tuple[int, int]]:
        """(queue number, blob) of the uploads that a crash cut off. Raises StorageError."""
        return self._listed(records.UPLOAD_PREFIX, lambda key, _: records.unpack_upload_key(key), "uploads")

    def last_blob(self, number: int) -> int:
        """The highest blob number that queue `number` has chunks of; 0 if none. Raises StorageError."""
        begin, last = records.chunk_key(number, 0, 0), records.chunk_key(number, records.MAX_ID, 0)
        found = self._rocks.last_key(CHUNK_FAMILY, begin, last)
        return 0 if found is None else records.unpack_chunk_key(found)[1]

    def first_chunk(self) -> bytes | None:
        """The lowest key of a chunk; None: there is none, or it cannot be read. Raises StorageError."""
        return self._rocks.first_key(CHUNK_FAMILY)

    # -- expiries

    def add_expiry(self, batch: Batch, expiry: Expiry) -> None:
        batch.put(records.expiry_key(*expiry), b"", self.handles[DEFAULT_FAMILY])

    def expiries(self, begin: bytes, before_ms: int, most: int) -> list[Expiry]:
        """The first `most` expiries from the key `begin` on, of those before `before_ms`, by time. Raises
        StorageError."""
        entries = self._rocks.scan(DEFAULT_FAMILY, begin, records.expiry_key(before_ms))
        try:
            return [records.unpack_expiry_key(key) for key, _ in islice(entries, most)]
        except struct.error as error:
            raise StorageError(f"expiry: {error}") from error

    def remove_expiry(self, batch: Batch, expiry: Expiry) -> None:
        batch.delete(records.expiry_key(*expiry), self.handles[DEFAULT_FAMILY])

    def remove_expiries(self, batch: Batch, begin: bytes, end: bytes) -> None:
        """Remove all expiries whose key is in [begin, end)."""
        batch.delete_range(begin, end, self.handles[DEFAULT_FAMILY])

    # -- space

    def flush(self) -> None:
        """Write all write buffers to tables, so that the write-ahead logs are not needed any more. Run it in a thread.
        Raises StorageError."""
        self._rocks.flush()
        try:
            self._note_running()
        except Exception as error:
            raise self._rocks.failure(error) from error
