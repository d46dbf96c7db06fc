"""The disk: one RocksDB database in the data directory. With `database` the only module that imports rocksdict.

It owns the column families, the reading and writing of records, the giving back of space, and the mapping of
RocksDB's errors to ours. It knows no rules of queues; `journal` decides what is written when.

None of its calls switches greenlets. `sync` and `compact` take long and release the GIL: run them in a thread.
All others hold it and take microseconds, `open` and `reopen` excepted.

Source for the settings: RocksDB wiki, "Implement Queue Service Using RocksDB" and "Memory usage in RocksDB".
"""

import os
import re
import secrets
import struct
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from typing import Any

from rocksdict import ReadOptions, WriteBatch

from darner_core.errors import DataDirError, StorageError
from darner_core.operating_system import boot_id, free_bytes
from darner_core.storage import manifest, records, rocks, wal
from darner_core.storage.records import Expiry, Item, QueueRecord, State

Batch = WriteBatch

DEFAULT = "default"
CHUNKS = "chunks"
NEW = ".new"  # behind the name of a file that is being written
# Room that opening needs besides that for the log, which is written to tables.
OPEN_BYTES = 1 << 20
TOLD_BYTES = 1 << 20  # a log of so many bytes takes so long to read that it is told
_MADE_BY_START = re.compile(r"\d+\.(sst|log|dbtmp)|MANIFEST-\d+|OPTIONS-\d+(\.dbtmp)?")
CHUNK_FAMILY = -1  # stands for it where queues' families are numbered
DEFAULT_FAMILY = -2  # the same

PROBE_BYTES = 4096  # a block of most file systems

# What there is of a Storage only while the database is open.
OPENED = frozenset(("_db", "_chunks", "_chunks_handle", "_default_handle", "families", "handles"))

# So many records are deleted one by one, more of them as a range. A read has to look at every range deletion of its
# column family that is still in the write buffer, so a queue that held little must not leave one behind.
DELETED_SINGLY = 32

# Of chunks, tables that have not been compacted. From 20 on RocksDB slows down all writes.
MANY_FILES = 12


def family_name(index: int) -> str:
    return f"q{index:03}"


class Storage:
    """An open data directory.

    `families[i]` is the column family that queues with family i live in; `handles[i]` the same for write batches.
    Both are replaced by `reopen`, so no one keeps an element of them. While the database is not open, because it could
    not be opened again yet, neither is there: whatever needs the database raises StorageError.
    """

    _db: Any
    _chunks: Any
    _chunks_handle: Any
    _default_handle: Any
    families: list[Any]
    handles: list[Any]

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
        self._say = say
        self._max_column_families = max_column_families
        self._settings = rocks.Settings(block_cache_bytes, write_buffer_bytes, max_wal_bytes, max_open_files)
        self.torn: list[str] = []  # what a crash has cut off, as found when opening
        self._last_sequence = 0  # RocksDB's number of the last write, before it was closed
        self.met_damage = False  # since the directory was opened
        self.damaged_families: set[int] = set()
        self.salvages = False  # opened so that damage does not stop what is whole
        self.fresh_from = records.MAX_NUMBER + 1  # no queue with a number from it on had chunks when the server started
        self._nothing_left = False  # to be written or synced
        how = self._prepare_directory()
        self.damage = self._read_damage()  # one line for each that opening has found, ever
        before: set[str] = set()
        try:
            if how != rocks.NEW:
                before = set(os.listdir(path))
                self._look_over(how)
            self._open(how)
            self._note_format()
            self._note_running()
        except Exception as error:
            with suppress(StorageError):
                self.close()
            if how != rocks.NEW:
                self._remove_what_start_made(before)
            if isinstance(error, DataDirError):
                raise
            raise DataDirError(_why_not_open(path, str(error))) from error

    # -- opening and closing

    def _prepare_directory(self) -> str:
        """See that the directory is ours, or empty, before RocksDB writes anything into it. How to open it."""
        try:
            os.makedirs(self.path, exist_ok=True)
            names = set(os.listdir(self.path)) - {"lost+found", records.FORMAT_FILE + NEW}
            traces = records.traces(names)
            if records.FORMAT_FILE in names:
                with open(os.path.join(self.path, records.FORMAT_FILE), "rb") as file:
                    self._check_format(file.read(100))
            elif traces and _may_hold_queues(self.path):
                raise DataDirError(
                    f"data directory {self.path}: the file {records.FORMAT_FILE} is missing, {shown_few(traces)} "
                    f"{'is' if len(traces) == 1 else 'are'} there; if these are queues, --repair saves them"
                )
            elif names:
                raise DataDirError(
                    f"data directory {self.path}: holds other files and no queues; give an empty or a new directory"
                )
            else:
                self._write_file(records.FORMAT_FILE, records.FORMAT)
            if not traces:
                return rocks.NEW
            if manifest.CURRENT not in names:
                raise DataDirError(
                    f"data directory {self.path}: the file {manifest.CURRENT} is missing, {shown_few(traces)} "
                    f"{'is' if len(traces) == 1 else 'are'} there; {records.REPAIR_ADVICE}"
                )
        except FileExistsError as error:
            raise DataDirError(f"data directory {self.path}: is a file") from error
        except OSError as error:
            raise DataDirError(f"data directory {self.path}: {error.strerror}") from error
        return rocks.POWER_LOST if power_was_lost(self.path) else rocks.START

    def _look_over(self, how: str) -> None:
        """See that all is there that RocksDB needs, which it does not tell, and that there is room to open it."""
        path = self.path
        with rocks.locked(path) as is_free:
            if not is_free:
                return  # opening will say so
            try:
                found = manifest.read(path)
            except manifest.Damaged as error:
                raise DataDirError(f"data directory {path}: {error}; {records.REPAIR_ADVICE}") from error
            if how == rocks.POWER_LOST:
                self.torn += rocks.put_aside_behind_gap(path, found.first_log)
            damage, torn = losses(path, found)
            self.torn += torn
            missing = sorted(manifest.missing_tables(path, found))
            unlisted = sorted(manifest.unlisted_tables(path, found))
            if unlisted and (damage or missing):
                # RocksDB would remove these tables.
                gone = damage[0] if damage else f"{shown_few(missing)}: missing"
                raise DataDirError(
                    f"data directory {path}: {gone}, and {found.name} does not list {shown_few(unlisted)}, where "
                    f"items may be; {records.REPAIR_ADVICE}"
                )
            if damage:
                self._note_damage(damage)
            names = wal.files(path, found.first_log)
            log_bytes = sum(os.path.getsize(os.path.join(path, name)) for name in names)
            if log_bytes >= TOLD_BYTES:
                self._say(f"reading the write-ahead log: {log_bytes / (1 << 20):,.1f} MiB in {len(names)} files")
            free, needed = self.free_bytes(), log_bytes + OPEN_BYTES
            if free < needed:
                raise DataDirError(f"data directory {path}: {_no_space(free, needed)}")

    def _remove_what_start_made(self, before: set[str]) -> None:
        """A start has failed, on a full disk for example: leave no more behind than there was. `before`: the names of
        the files before it."""
        with suppress(OSError, manifest.Damaged), rocks.locked(self.path) as is_free:
            if not is_free:
                return
            found = manifest.read(self.path)
            for name in set(os.listdir(self.path)) - before:
                path = os.path.join(self.path, name)
                is_needed = name in found.tables or name == found.name
                is_log = name.endswith(wal.SUFFIX) and os.path.getsize(path)
                if _MADE_BY_START.fullmatch(name) and not is_needed and not is_log:
                    os.unlink(path)

    def _check_format(self, found: bytes) -> None:
        if found in records.READABLE_FORMATS:
            return
        if not records.is_format(found):
            damaged = f"if the file {records.FORMAT_FILE} is damaged, --repair writes a new one"
        else:
            damaged = (
                f"if no other server ever had it, the file {records.FORMAT_FILE} is damaged: write the line "
                f"{records.FORMAT.decode().strip()!r} into it"
            )
        raise DataDirError(
            f"data directory {self.path}: of format {' '.join(found.decode('ascii', 'replace').split())!r}, this "
            f"server reads {records.FORMAT.decode().strip()!r}; drain it with the server that wrote it, and start "
            f"with a new directory; {damaged}"
        )

    def _note_format(self) -> None:
        """The directory is of the newest format from now on. Not before it is ours alone."""
        with open(os.path.join(self.path, records.FORMAT_FILE), "rb") as file:
            if file.read() == records.FORMAT:
                return
        self._write_file(records.FORMAT_FILE, records.FORMAT)

    def _write_file(self, name: str, content: bytes) -> None:
        """One of the small files beside RocksDB's: all of it or nothing. Raises OSError."""
        path = os.path.join(self.path, name)
        with open(path + NEW, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + NEW, path)
        rocks.sync_folder(self.path)

    def _open(self, how: str) -> None:
        # All families are made when the directory is: together 60 ms for 64, one by one up to 20 ms for each,
        # with every client waiting.
        names = {DEFAULT, CHUNKS, *map(family_name, range(self._max_column_families))}
        if how != rocks.NEW:
            names.update(rocks.family_names(self.path))
        queues = sorted(names - {DEFAULT, CHUNKS}, key=lambda name: int(name[1:]))
        quiet = {CHUNKS if index == CHUNK_FAMILY else queues[index] for index in self.damaged_families}
        if how == rocks.SALVAGE and not quiet:
            quiet = names  # a compaction has met the damage, and RocksDB does not say where
        opened = rocks.open_database(self.path, sorted(names), self._settings, how, quiet, self._note_damage, self._say)
        self._db = opened.db
        self.salvages = opened.salvaged
        self.torn += opened.torn
        if opened.found:
            self._note_damage(opened.found)
        self._use(queues)

    def _use(self, queues: list[str]) -> None:
        self._chunks = self._db.get_column_family(CHUNKS)
        self._chunks_handle = self._db.get_column_family_handle(CHUNKS)
        self._default_handle = self._db.get_column_family_handle(DEFAULT)
        self.families = [self._db.get_column_family(name) for name in queues]
        self.handles = [self._db.get_column_family_handle(name) for name in queues]

    # -- damage

    @property
    def is_damaged(self) -> bool:
        return bool(self.damage)

    def _note_damage(self, found: list[str]) -> None:
        """Write down in the directory that records may be missing: numbers may not be given twice from now on, and
        the damage is to be told at each start until it is repaired."""
        self.damage += [finding for finding in found if finding not in self.damage]
        try:
            self._write_file(records.DAMAGE_FILE, "".join(f"{line}\n" for line in self.damage).encode())
        except OSError as error:
            raise StorageError(f"{self.path}/{records.DAMAGE_FILE}: {error.strerror}") from error

    def _read_damage(self) -> list[str]:
        try:
            with open(os.path.join(self.path, records.DAMAGE_FILE), errors="backslashreplace") as file:
                return file.read().splitlines()
        except FileNotFoundError:
            return []

    def fresh_number(self) -> int:
        """A queue's number from which on none has been used but those that are known; 0: the one behind these will do.

        Where records are missing, what uses a number may be hidden. So it is drawn, which needs no record of the
        highest, and no clock, which may have been set back. That a thousand new queues meet one of a thousand hidden
        ones is as likely as one in a million.
        """
        return 1 + secrets.randbits(31) if self.is_damaged else 0

    def next_blob(self, number: int) -> int:
        """A number for a large item of queue `number` that is higher than all before it. To be asked for once a queue,
        and again after a restart. Raises StorageError."""
        if number >= self.fresh_from and not self.is_damaged:
            return 1
        try:
            last = self.last_blob(number)
        except StorageError as error:
            if not self._is_damage(error):
                raise
            last = 0
            if str(error) not in self.damage:
                self._note_damage([str(error)])
        # As a queue's number: hidden ones may be higher. There is room for a quarter of a million such steps.
        return last + 1 + (secrets.randbits(46) if self.is_damaged else 0)

    # -- the loss of power

    def _note_running(self) -> None:
        """RUNNING names the newest log, which is given a write without changes: so one that is empty by nature can be
        told from one that was emptied."""
        mark = b""
        try:
            self._db.write(self.batch())
            mark = records.MARKED_LOG + b"%d\n" % wal.number_of(wal.files(self.path)[-1])
        except Exception as error:
            if not rocks.is_damage(error):
                raise
            self.met_damage = True  # by a compaction, which has begun meanwhile
        self._write_file(records.RUNNING_FILE, boot_id() + mark)

    def note_synced(self) -> None:
        """All is synced, and nothing will be written any more: a loss of power costs nothing from here on."""
        self._nothing_left = True

    # -- closing, and opening again

    def close(self) -> None:
        """Close the database. What was written is in the write-ahead log; `sync` first for the loss of power."""
        db = self.__dict__.get("_db")
        flushes = db is None or self._takes_writes()
        if db is not None and not flushes:
            # Closing writes the write buffers to tables. Beside damage, RocksDB would try that until the disk works
            # again, with everybody waiting; else for a second. What is in the buffers is in the log.
            with suppress(Exception):
                db.cancel_all_background(False)
        # RocksDB gives up its lock when the last reference is gone.
        for name in OPENED:
            self.__dict__.pop(name, None)
        if db is not None:
            try:
                db.close()
            except Exception as error:
                if not flushes:
                    return  # it says that it was told to stop
                raise StorageError(rocks.file_named(error)) from error
            # RocksDB has written the log to tables, and begun an empty one.
            with suppress(OSError):
                if self._nothing_left:
                    os.unlink(os.path.join(self.path, records.RUNNING_FILE))
                else:
                    self._write_file(records.RUNNING_FILE, boot_id())

    def _takes_writes(self) -> bool:
        """Whether the file system has room for the write buffers, and writes."""
        probe = os.path.join(self.path, records.RUNNING_FILE + NEW)
        try:
            if self.free_bytes() < self.wal_bytes():
                return False
            with open(probe, "wb") as file:
                file.write(bytes(PROBE_BYTES))
            os.unlink(probe)
        except (OSError, StorageError):
            with suppress(OSError):
                os.unlink(probe)
            return False
        return True

    def reopen(self) -> None:
        """Close and open again: what makes RocksDB write again after an I/O error, and go on beside damage.

        Raises StorageError, and is to be called again then.
        """
        if self.is_open:
            with suppress(Exception):
                self._last_sequence = self._db.latest_sequence_number()
        with suppress(StorageError):  # it is being closed because it does not work
            self.close()
        try:
            self._open(rocks.SALVAGE if self.met_damage or self.salvages else rocks.AGAIN)
            if self._db.latest_sequence_number() < self._last_sequence:
                self._note_damage(["write-ahead log: what was written is not there any more"])
            with suppress(OSError):
                self._note_running()
        except Exception as error:
            if rocks.is_damage(error):
                self.met_damage = True  # next time it is opened beside the damage
            with suppress(StorageError):
                self.close()
            raise StorageError(f"cannot reopen {self.path}: {rocks.one_line(error)}") from error

    def _failure(self, error: Exception, family: int | None = None) -> StorageError:
        if not self.is_open:
            return self._not_open()
        if self._is_damage(error):
            self.met_damage = True
            if family is not None:
                self.damaged_families.add(family)
        return StorageError(rocks.file_named(error))

    def _is_damage(self, error: Exception) -> bool:
        """Not if the whole directory is away, as a file system is that is not mounted: it may be back, and whole."""
        return rocks.is_damage(error) and os.path.exists(os.path.join(self.path, records.FORMAT_FILE))

    @property
    def is_open(self) -> bool:
        return "_db" in self.__dict__

    def __getattr__(self, name: str) -> Any:
        """Called for what is not there: what `close` has taken away."""
        if name in OPENED:
            raise self._not_open()
        raise AttributeError(f"{type(self).__name__} has no {name}")

    def require_open(self) -> None:
        """Raises StorageError while the database is closed because it cannot be opened again."""
        if not self.is_open:
            raise self._not_open()

    def _not_open(self) -> StorageError:
        return StorageError(f"data directory {self.path} is not open")

    # -- writing

    def batch(self) -> Batch:
        return WriteBatch(raw_mode=True)

    def write(self, batch: Batch) -> None:
        """Write all of `batch` or nothing of it. Raises StorageError."""
        try:
            self._db.write(batch)
        except Exception as error:
            raise self._failure(error) from error

    def put(self, family: int, key: bytes, value: bytes) -> None:
        """Write one record: 3 us, where a batch of one takes 5. Raises StorageError."""
        try:
            self.families[family].put(key, value)
        except Exception as error:
            raise self._failure(error) from error

    def sync(self) -> None:
        """Make all that was written survive the loss of power (fsync). Takes milliseconds. Raises StorageError."""
        try:
            self._db.flush_wal(True)
        except Exception as error:
            raise self._failure(error) from error

    # -- queues

    def queues(self) -> list[tuple[bytes, QueueRecord]]:
        """(name, record) of every queue. Raises StorageError."""
        prefix = records.QUEUE_PREFIX
        try:
            return [(key[len(prefix) :], records.unpack_queue(value)) for key, value in self._with_prefix(prefix)]
        except struct.error as error:
            raise StorageError(f"the list of queues: {error}") from error

    def _with_prefix(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return self._scan(self._db, prefix, prefix[:-1] + bytes((prefix[-1] + 1,)))

    def _scan(self, family: Any, begin: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) of all in [begin, end), in order. Raises StorageError.

        Exhaust or drop it before the turn ends: an open iterator pins every file it has seen.
        """
        options = ReadOptions()
        options.set_iterate_upper_bound(end)
        last = None
        try:
            for entry in family.items(from_key=begin, read_opt=options):
                yield entry
                last = entry[0]
            # What cannot be read ends rocksdict's iteration as if there were no more (0.3.29), so look again.
            rest = family.iter(options)
            rest.seek(begin if last is None else last + b"\0")
            rest.status()
            if rest.valid():
                raise StorageError("an iteration ended before its end")
        except StorageError:
            raise
        except Exception as error:
            raise self._failure(error) from error

    def add_queue(self, batch: Batch, name: bytes, record: QueueRecord) -> None:
        batch.put(records.queue_key(name), records.pack_queue(record), self._default_handle)

    def remove_queue(
        self,
        batch: Batch,
        name: bytes,
        record: QueueRecord,
        ids: range | None = None,
        has_chunks: bool = True,
    ) -> None:
        """Remove the queue and its items, all of which are among `ids`; None: it is not known which there are."""
        batch.delete(records.queue_key(name), self._default_handle)
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

    def remove_items(self, batch: Batch, queue: QueueRecord, from_id: int, to_id: int) -> None:
        """Remove the items in [from_id, to_id), of which some may be gone."""
        number, handle = queue.number, self.handles[queue.family]
        if to_id - from_id > DELETED_SINGLY:
            batch.delete_range(records.item_key(number, from_id), records.item_key(number, to_id), handle)
            return
        for item_id in range(from_id, to_id):
            batch.delete(records.item_key(number, item_id), handle)

    def cursors(self) -> list[tuple[bytes, bytes, QueueRecord]]:
        """(queue's name, name, record) of every cursor. Raises StorageError."""
        found = []
        try:
            for key, value in self._with_prefix(records.CURSOR_PREFIX):
                found.append((*records.unpack_cursor_key(key), records.unpack_queue(value)))
        except struct.error as error:
            raise StorageError(f"the list of cursors: {error}") from error
        return found

    def add_cursor(self, batch: Batch, queue: bytes, name: bytes, record: QueueRecord) -> None:
        batch.put(records.cursor_key(queue, name), records.pack_queue(record), self._default_handle)

    def remove_cursor(
        self, batch: Batch, queue: bytes, name: bytes, record: QueueRecord, ids: Collection[int] | None = None
    ) -> None:
        """Remove a cursor and its records, which are of these items; None: it is not known of which."""
        batch.delete(records.cursor_key(queue, name), self._default_handle)
        self._remove_number(batch, record, ids)

    def state(self, queue: QueueRecord) -> State:
        """What was last written of the queue. Raises StorageError."""
        value = self._get(queue.family, records.item_key(queue.number, records.STATE_ID))
        try:
            return State() if value is None else records.unpack_state(value)
        except struct.error as error:
            raise StorageError(f"state: {error}") from error

    def items(self, queue: QueueRecord, from_id: int, to_id: int) -> Iterator[tuple[int, Item]]:
        """(id, item) of what is stored in [from_id, to_id), in order.

        Exhaust or drop it before the turn ends: an open iterator pins every file it has seen. Raises StorageError.
        """
        unpack_key, unpack_item = records.unpack_item_key, records.unpack_item
        number = queue.number
        begin, end = records.item_key(number, from_id), records.item_key(number, to_id)
        try:
            for key, value in self._scan(self.families[queue.family], begin, end):
                yield unpack_key(key)[1], unpack_item(value)
        except (StorageError, IndexError, ValueError, struct.error) as error:
            self.require_open()
            raise StorageError(f"queue number {number}: {self._failure(error, queue.family)}") from error

    def cursor_items(self, cursor: QueueRecord) -> Iterator[tuple[int, Item | None]]:
        """(id, item) of what a cursor has records of, in order; None: its queue has the item. As `items`."""
        number = cursor.number
        begin, end = records.item_key(number, records.FIRST_ID), records.item_key(number + 1, records.STATE_ID)
        try:
            for key, value in self._scan(self.families[cursor.family], begin, end):
                yield records.unpack_item_key(key)[1], records.unpack_cursor_item(value)
        except (StorageError, IndexError, ValueError, struct.error) as error:
            self.require_open()
            raise StorageError(f"cursor number {number}: {self._failure(error, cursor.family)}") from error

    def item(self, queue: QueueRecord, item_id: int) -> Item | None:
        try:
            value = self._get(queue.family, records.item_key(queue.number, item_id))
            return None if value is None else records.unpack_item(value)
        except (StorageError, ValueError, struct.error) as error:
            self.require_open()
            raise StorageError(f"queue number {queue.number}: item {item_id}: {self._failure(error)}") from error

    def _get(self, family: int, key: bytes) -> bytes | None:
        try:
            value: bytes | None = self.families[family].get(key)
            return value
        except Exception as error:
            raise self._failure(error, family) from error

    # -- large items

    def start_upload(self, number: int, blob: int) -> None:
        """Note that chunks of `blob` are coming, so that a crash half-way leaves nothing behind."""
        self._put_default(records.upload_key(number, blob), b"")

    def _put_default(self, key: bytes, value: bytes) -> None:
        try:
            self._db.put(key, value)
        except Exception as error:
            raise self._failure(error) from error

    def put_chunk(self, number: int, blob: int, index: int, chunk: bytes) -> None:
        try:
            self._chunks.put(records.chunk_key(number, blob, index), chunk)
        except Exception as error:
            raise self._failure(error) from error

    def chunk(self, number: int, blob: int, index: int) -> bytes:
        try:
            value: bytes | None = self._chunks.get(records.chunk_key(number, blob, index))
        except Exception as error:
            raise self._failure(error, CHUNK_FAMILY) from error
        if value is None:
            raise StorageError(f"queue number {number}: chunk {index} of large item {blob} is missing")
        return value

    def end_upload(self, batch: Batch, number: int, blob: int) -> None:
        batch.delete(records.upload_key(number, blob), self._default_handle)

    def end_uploads(self, batch: Batch, number: int, from_blob: int, to_blob: int) -> None:
        """The same for the blobs in [from_blob, to_blob)."""
        begin, end = records.upload_key(number, from_blob), records.upload_key(number, to_blob)
        batch.delete_range(begin, end, self._default_handle)

    def remove_blobs(self, batch: Batch, number: int, from_blob: int, to_blob: int) -> None:
        """Remove the chunks of the blobs in [from_blob, to_blob)."""
        batch.delete_range(
            records.chunk_key(number, from_blob, 0), records.chunk_key(number, to_blob, 0), self._chunks_handle
        )

    def unfinished_uploads(self) -> list[tuple[int, int]]:
        """(queue number, blob) of the uploads that a crash cut off. Raises StorageError."""
        try:
            return [records.unpack_upload_key(key) for key, _ in self._with_prefix(records.UPLOAD_PREFIX)]
        except struct.error as error:
            raise StorageError(f"the list of uploads: {error}") from error

    def last_blob(self, number: int) -> int:
        """The highest blob number that queue `number` has chunks of; 0 if none. Raises StorageError."""
        begin, end = records.chunk_key(number, 0, 0), records.chunk_key(number + 1, 0, 0)
        options = ReadOptions()
        options.set_iterate_upper_bound(end)
        try:
            # Forward first: on its way back to another queue's chunks, RocksDB walks through every range deletion of
            # the queues between, and stops at the bound only on its way forward.
            entries = self._chunks.iter(options)
            entries.seek(begin)
            if entries.valid():
                entries.seek_for_prev(records.chunk_key(number, records.MAX_ID, 0))
                if entries.valid():
                    found, blob, _ = records.unpack_chunk_key(entries.key())
                    if found == number:
                        return blob
            entries.status()
        except Exception as error:
            raise self._failure(error, CHUNK_FAMILY) from error
        return 0

    # -- expiry

    def add_expiry(self, batch: Batch, expiry: Expiry) -> None:
        batch.put(records.expiry_key(*expiry), b"", self._default_handle)

    def expiries(self, begin: bytes, before_ms: int, most: int) -> list[Expiry]:
        """The first of those that expire before that time, by time, from the key `begin` on. Raises StorageError."""
        found = []
        try:
            for key, _ in self._scan(self._db, begin, records.expiry_key(before_ms)):
                found.append(records.unpack_expiry_key(key))
                if len(found) >= most:
                    break
        except struct.error as error:
            raise StorageError(f"expiry: {error}") from error
        return found

    def remove_expiry(self, batch: Batch, expiry: Expiry) -> None:
        batch.delete(records.expiry_key(*expiry), self._default_handle)

    def remove_expiries(self, batch: Batch, begin: bytes, end: bytes) -> None:
        """All whose key is in [begin, end)."""
        batch.delete_range(begin, end, self._default_handle)

    # -- repairing

    def handle(self, family: int | None) -> Any:
        """Of a queues' column family, of CHUNK_FAMILY, or of the default one: None."""
        if family is None:
            return self._default_handle
        return self._chunks_handle if family == CHUNK_FAMILY else self.handles[family]

    # -- space

    def compact(self, family: int, begin: bytes, end: bytes) -> None:
        """Give the space of removed records in [begin, end) back to the file system. Seconds: run it in a thread."""
        if family in self.damaged_families:
            return  # it would fail at what cannot be read, again and again
        try:
            if family == DEFAULT_FAMILY:
                self._db.compact_range(begin, end)
            else:
                (self._chunks if family == CHUNK_FAMILY else self.families[family]).compact_range(begin, end)
        except Exception as error:
            raise self._failure(error) from error

    def flush(self) -> None:
        """Write all write buffers to tables, which lets go of the write-ahead logs. Run it in a thread."""
        try:
            for family in (self._db, self._chunks, *self.families):
                family.flush(True)
            self._note_running()
        except Exception as error:
            raise self._failure(error) from error

    def table_bytes(self, family: int) -> int:
        """Bytes of a column family's tables. Raises StorageError."""
        try:
            column_family = self._chunks if family == CHUNK_FAMILY else self.families[family]
            return int(column_family.property_int_value("rocksdb.total-sst-files-size") or 0)
        except Exception as error:
            raise self._failure(error) from error

    def is_behind(self) -> bool:
        """Whether chunks wait in memory to be written to a table, or tables to be compacted. With a few more RocksDB
        would make the next write wait, and with it everybody."""
        try:
            if self._chunks.property_int_value("rocksdb.num-immutable-mem-table"):
                return True
            files = int(self._chunks.property_value("rocksdb.num-files-at-level0") or 0)
            return files >= MANY_FILES and not self.salvages  # which compacts nothing
        except Exception:
            return False  # whoever writes is told

    def first_chunk(self) -> bytes | None:
        """The key of the first chunk of all; None if there is none, or it cannot be read. Raises StorageError."""
        try:
            entries = self._chunks.iter()
            entries.seek_to_first()
            return entries.key() if entries.valid() else None
        except Exception as error:
            raise self._failure(error) from error

    def wal_bytes(self) -> int:
        """Bytes of write-ahead log on disk. Raises StorageError."""
        try:
            with os.scandir(self.path) as entries:
                return sum(_bytes_of(entry) for entry in entries if entry.name.endswith(".log"))
        except OSError as error:
            raise StorageError(f"data directory {self.path}: {error.strerror}") from error

    def free_bytes(self) -> int:
        """Bytes that may still be written to the file system of the data directory. Raises StorageError."""
        try:
            return free_bytes(self.path)
        except OSError as error:
            raise StorageError(f"data directory {self.path}: {error.strerror}") from error


def _left_running(path: str) -> bytes:
    """What the server that had a directory has left there if it did not end well; b"" if it did."""
    try:
        with open(os.path.join(path, records.RUNNING_FILE), "rb") as file:
            return file.read() or b"?"
    except FileNotFoundError:
        return b""


def power_was_lost(path: str) -> bool:
    """Whether the server that had a directory ended with the machine. kill -9 does not: the system still has what was
    written."""
    left = _left_running(path)
    return left != b"" and not left.startswith(boot_id())


def losses(path: str, found: manifest.Manifest) -> tuple[list[str], list[str]]:
    """What is missing of the log of a directory: what only damage can have taken, and what else may have."""
    damage, torn = [], []
    left = _left_running(path)
    marked = int((re.search(records.MARKED_LOG + rb"(\d+)\n$", left) or [0, 0])[1])
    for loss in manifest.lost_logs(path, found):
        why = f"{loss.why}; what was in it is lost"
        if not loss.newest:
            damage.append(why)
        elif loss.empty and not marked:
            continue  # as it is when the server has closed it
        elif left and not power_was_lost(path) and (not loss.empty or loss.empty == marked):
            damage.append(why)
        else:
            torn.append(f"{loss.why}: it had just been begun, or it was emptied since" if loss.empty else why)
    return damage, torn


def _may_hold_queues(path: str) -> bool:
    """Whether this can be a data directory though it does not say so."""
    try:
        return CHUNKS in manifest.read(path).families
    except manifest.Damaged:
        return True


def _bytes_of(entry: os.DirEntry[str]) -> int:
    """0 for a file that RocksDB has removed since the directory was read."""
    try:
        return entry.stat().st_size
    except FileNotFoundError:
        return 0


def shown_few(names: list[str]) -> str:
    """Some names of files, for a line."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _no_space(free: int, needed: int = 0) -> str:
    enough = f", about {needed / (1 << 20):,.1f} MiB are needed to open it" if needed else ""
    return f"no space left on device: {free / (1 << 20):,.1f} MiB are free{enough}; make room and start again"


def _why_not_open(path: str, message: str) -> str:
    if "lock hold by" in message or "While lock file" in message:
        return f"data directory {path}: in use by another server"
    if rocks.is_full(message):
        return f"data directory {path}: {_no_space(free_bytes(path))}"
    advice = f"; {records.REPAIR_ADVICE}" if rocks.is_damage(message) else ""
    return f"data directory {path}: {rocks.file_named(message)}{advice}"
