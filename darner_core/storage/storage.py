"""A data directory that is open: what the queues' engine keeps there, by table.

`Storage` puts together the files of the `directory`, the database in `rocks` and the bytes in `records`. It knows no
rules of queues; the engine's journal decides what is written when.

None of its calls switches greenlets. `sync`, `compact` and `flush` take long and release the GIL: run them in a thread.
All others but `reopen` keep the GIL and take microseconds.
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
from darner_core.storage.records import Expiry, Item, QueueRecord, State
from darner_core.storage.rocks import CHUNK_FAMILY, DEFAULT_FAMILY, Batch, Rocks

__all__ = ["CHUNK_FAMILY", "DEFAULT_FAMILY", "Batch", "Storage"]

# Up to this many records are deleted one by one, more of them as a range. A read has to look at every range deletion
# of its column family that is still in the write buffer, so a queue that held little must not leave one behind.
DELETED_SINGLY = 32

_T = TypeVar("_T")


class Storage:
    """An open data directory.

    It is closed for a while if it could not be opened again: then whatever needs the database raises StorageError.
    """

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
        """Open `path`, creating it if missing. Raises DataDirError with what a person can do about it. `say` hears what
        takes long."""
        self.path = path
        self.fresh_from = records.MAX_NUMBER + 1  # at the start, no queue with a number from it on had chunks
        self._nothing_left = False  # to be written or synced
        self._last_sequence = 0  # RocksDB's number of the last change, before the database was closed
        self._directory = DataDirectory(path, say)
        settings = opening.Settings(block_cache_bytes, write_buffer_bytes, max_wal_bytes, max_open_files)
        note_damage = self._directory.note_damage
        self._rocks = Rocks(path, settings, max_column_families, self._directory.is_there, note_damage, say)
        # The two that a turn is written with. No call of ours stands between.
        self.write, self.put = self._rocks.write, self._rocks.put
        self.jobs = JobTables(self._rocks)  # what is set aside from queues' lines
        self._open_first()

    def _open_first(self) -> None:
        """Raises DataDirError, and leaves no more in the directory than there was."""
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
        """All is synced, and nothing will be written any more: a loss of power costs nothing from here on."""
        self._nothing_left = True

    def close(self) -> None:
        """Close the database. What was written is in the write-ahead log; `sync` first for the loss of power. Raises
        StorageError."""
        if not self._rocks.is_open or not self._rocks.close(flushes=self._directory.takes_writes()):
            return
        # RocksDB has written the log to tables, and begun an empty one.
        with suppress(OSError):
            if self._nothing_left:
                self._directory.note_ended()
            else:
                self._directory.note_running()

    def reopen(self) -> None:
        """Close and open again: what makes RocksDB write again after an I/O error, and go on beside damage.

        Raises StorageError, and is to be called again then.
        """
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

    def require_open(self) -> None:
        """Raises StorageError while the database is closed because it cannot be opened again."""
        self._rocks.require_open()

    def _note_running(self) -> None:
        """Note which log is the newest, and give it a write without changes: so one that is empty by nature can be told
        from one that was emptied. Raises RocksDB's error, StorageError or OSError."""
        mark = b""
        try:
            self._rocks.db.write(self.batch())
            mark = records.MARKED_LOG + b"%d\n" % wal.number_of(wal.files(self.path)[-1])
        except Exception as error:
            if not opening.is_damage(error):
                raise
            self._rocks.met_damage = True  # a compaction has met it, which has begun meanwhile
        self._directory.note_running(mark)

    # -- damage

    @property
    def damage(self) -> list[str]:
        """What opening has found damaged, ever: lines for a person."""
        return self._directory.damage

    @property
    def torn(self) -> list[str]:
        """What a crash had cut off when the directory was opened: lines for a person."""
        return self._directory.torn

    @property
    def met_damage(self) -> bool:
        """Whether a read has met damage since the process began."""
        return self._rocks.met_damage

    @property
    def salvages(self) -> bool:
        """Whether the database is open so that damage does not stop what is whole."""
        return self._rocks.salvages

    @property
    def damaged_families(self) -> set[int]:
        """Column families in which a read has met damage."""
        return self._rocks.damaged_families

    # -- numbers that nothing has used

    def fresh_number(self) -> int:
        """A queue's number from which on none has been used but those that are known; 0: the one behind these will do.

        Where records are missing, what uses a number may be hidden. So it is drawn, which needs no record of the
        highest, and no clock, which may have been set back. That a thousand new queues meet one of a thousand hidden
        ones is as likely as one in a million.
        """
        return 1 + secrets.randbits(31) if self.damage else 0

    def next_blob(self, number: int) -> int:
        """A number for a large item of queue `number` that is higher than all before it. To be asked for once a queue,
        and again after a restart. Raises StorageError."""
        if number >= self.fresh_from and not self.damage:
            return 1
        try:
            last = self.last_blob(number)
        except StorageError as error:
            if not self._rocks.is_damage(error):
                raise
            last = 0
            if str(error) not in self.damage:
                self._directory.note_damage([str(error)])
        # As with a queue's number: hidden ones may be higher. There is room for a quarter of a million such steps.
        return last + 1 + (secrets.randbits(46) if self.damage else 0)

    # -- writing

    def batch(self) -> Batch:
        return self._rocks.batch()

    @property
    def families(self) -> list[Any]:
        """RocksDB's objects for the column families of queues. Raises StorageError while the database is closed."""
        return self._rocks.families

    @property
    def handles(self) -> list[Any]:
        """What a batch knows column families by: those of queues by number, and CHUNK_FAMILY and DEFAULT_FAMILY. Not to
        be kept beyond a turn. Raises StorageError while the database is closed."""
        return self._rocks.handles

    def sync(self) -> None:
        """Make all that was written survive the loss of power (fsync). Takes milliseconds. Raises StorageError."""
        self._rocks.sync()

    # -- queues

    def queues(self) -> list[tuple[bytes, QueueRecord]]:
        """(name, record) of every queue. Raises StorageError."""
        prefix = records.QUEUE_PREFIX
        return self._listed(prefix, lambda key, value: (key[len(prefix) :], records.unpack_queue(value)), "queues")

    def _listed(self, prefix: bytes, unpack: Callable[[bytes, bytes], _T], what: str) -> list[_T]:
        """All whose key in the default family begins so."""
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
        """Remove the queue and its items, all of which are among `ids`; None: it is not known which there are."""
        batch.delete(records.queue_key(name), self.handles[DEFAULT_FAMILY])
        self._remove_number(batch, record, ids)
        if has_chunks:
            self.remove_blobs(batch, record.number, 0, records.MAX_ID)

    def _remove_number(self, batch: Batch, record: QueueRecord, ids: Collection[int] | None) -> None:
        """Remove all records of a queue or cursor, those of `ids` and the state."""
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
        """Remove a cursor and its records, which are of these items; None: it is not known of which."""
        batch.delete(records.cursor_key(queue, name), self.handles[DEFAULT_FAMILY])
        self._remove_number(batch, record, ids)

    def cursor_items(self, cursor: QueueRecord) -> Iterator[tuple[int, Item | None]]:
        """(id, item) of what a cursor has records of, in order; None: its queue has the item. As `items`."""
        number = cursor.number
        begin, end = records.item_key(number, records.FIRST_ID), records.item_key(number + 1, records.STATE_ID)
        try:
            for key, value in self._rocks.scan(cursor.family, begin, end):
                yield records.unpack_item_key(key)[1], records.unpack_cursor_item(value)
        except (StorageError, ValueError, struct.error) as error:
            raise self._unreadable(f"cursor number {number}", error) from error

    def _unreadable(self, what: str, error: Exception) -> StorageError:
        self.require_open()
        return StorageError(f"{what}: {error}")

    # -- items

    def items(self, queue: QueueRecord, from_id: int, to_id: int) -> Iterator[tuple[int, Item]]:
        """(id, item) of what is stored in [from_id, to_id), in order.

        Exhaust or drop it before the turn ends: an open iterator pins every file it has seen. Raises StorageError.
        """
        unpack_key, unpack_item = records.unpack_item_key, records.unpack_item
        number = queue.number
        begin, end = records.item_key(number, from_id), records.item_key(number, to_id)
        try:
            for key, value in self._rocks.scan(queue.family, begin, end):
                yield unpack_key(key)[1], unpack_item(value)
        except (StorageError, ValueError, struct.error) as error:
            raise self._unreadable(f"queue number {number}", error) from error

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
        """Note that chunks of `blob` are coming, so that a crash half-way leaves nothing behind. Raises
        StorageError."""
        self._rocks.put(DEFAULT_FAMILY, records.upload_key(number, blob), b"")

    def put_chunk(self, number: int, blob: int, index: int, chunk: bytes) -> None:
        """Raises StorageError."""
        self._rocks.put(CHUNK_FAMILY, records.chunk_key(number, blob, index), chunk)

    def chunk(self, number: int, blob: int, index: int) -> bytes:
        """Raises StorageError, also if it is missing."""
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
        """The key of the first chunk of all; None if there is none, or it cannot be read. Raises StorageError."""
        return self._rocks.first_key(CHUNK_FAMILY)

    # -- expiries

    def add_expiry(self, batch: Batch, expiry: Expiry) -> None:
        batch.put(records.expiry_key(*expiry), b"", self.handles[DEFAULT_FAMILY])

    def expiries(self, begin: bytes, before_ms: int, most: int) -> list[Expiry]:
        """Up to `most` of those that expire before that time, by time, from the key `begin` on. Raises StorageError."""
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

    def compact(self, family: int, begin: bytes, end: bytes) -> None:
        """Give the space of removed records in [begin, end) back to the file system. Seconds: run it in a thread."""
        self._rocks.compact(family, begin, end)

    def flush(self) -> None:
        """Write all write buffers to tables, which lets go of the write-ahead logs. Run it in a thread. Raises
        StorageError."""
        self._rocks.flush()
        try:
            self._note_running()
        except Exception as error:
            raise self._rocks.failure(error) from error

    def table_bytes(self, family: int) -> int:
        """Bytes of a column family's tables. Raises StorageError."""
        return self._rocks.table_bytes(family)

    def is_behind(self) -> bool:
        """Whether a few more chunks would make the next write wait."""
        return self._rocks.is_behind()

    def wal_bytes(self) -> int:
        """Bytes of write-ahead log on disk. Raises StorageError."""
        return self._directory.wal_bytes()

    def free_bytes(self) -> int:
        """Bytes that may still be written to the file system of the data directory. Raises StorageError."""
        return self._directory.free_bytes()
