"""A data directory as it is, damage and all: read without changing it, and without stopping at what cannot be read.

`check`, `repair` and `dump` see a directory through this module. It promises to give every record that RocksDB can read
with its checksums, in order, and a Gap wherever something cannot be read. Memory does not grow with the directory.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from glob import escape, glob
from struct import error as struct_error
from typing import Any, BinaryIO, NamedTuple

from darner_core.errors import DataDirError
from darner_core.storage import opening, records, wal
from darner_core.storage.directory import power_was_lost, take_lock
from darner_core.storage.opening import ASIDE_TABLES, CHUNKS, NOT_QUEUES
from darner_core.storage.records import Blob, Item, QueueRecord, State

OPEN_FILES = 64

# How many keys are tried one by one behind an unreadable one. A block of 16 KiB holds 500 of the smallest items.
NEAR_KEYS = 1024
_INDEX_BITS = 32  # of a chunk's key
_SETTINGS_FILE = "rocksdict-config.json"


class Gap(NamedTuple):
    """Something behind the key `after` cannot be read. Records go on at `resumes`; None: there are no more."""

    after: bytes
    resumes: bytes | None
    why: str


class IdGap(NamedTuple):
    """A gap in a queue: the items with ids in [from_id, to_id) cannot be read."""

    from_id: int
    to_id: int
    why: str


class Broken(NamedTuple):
    """A record that can be read but makes no sense."""

    id: int
    why: str


class Missing(ValueError):
    """A record that has to be there is missing, without any sign of damage."""


@contextmanager
def lock(path: str, only_reads: bool = False) -> Iterator[None]:
    """Keep servers out of the directory. Raises DataDirError if a server is in it, if there is no directory, or if this
    user may not read a file in it. `only_reads`: tools that only read may share it, and it may be write-protected."""
    if not os.path.isdir(path):
        beside = glob(f"{escape(path)}.damaged-*") + glob(f"{escape(path)}.repaired-*")
        raise DataDirError(f"data directory {path}: there is none{', but ' * bool(beside)}{', '.join(sorted(beside))}")
    try:
        _check_readable(path)
        file, kind = _open_lock(os.path.join(path, "LOCK"), only_reads)
    except FileNotFoundError:
        yield
        return
    except OSError as error:
        raise DataDirError(f"data directory {path}: {error.strerror}") from error
    with file:
        if not take_lock(file, kind):
            raise DataDirError(f"data directory {path}: in use by a server; stop it first")
        yield


def _check_readable(path: str) -> None:
    """Raises DataDirError if this user may not read a file: RocksDB would call it damaged, or leave it out."""
    for name in sorted(os.listdir(path)):
        file = os.path.join(path, name)
        if os.path.exists(file) and not os.access(file, os.R_OK):
            raise DataDirError(f"data directory {path}: no permission to read {name}; run this as the server's user")


def _open_lock(path: str, only_reads: bool) -> tuple[BinaryIO, int]:
    try:
        return open(path, "r+b"), fcntl.LOCK_EX
    except FileNotFoundError:
        raise
    except OSError:
        if not only_reads:
            raise
        return open(path, "rb"), fcntl.LOCK_SH  # a server's lock is exclusive, so this still keeps servers out


def _writable(path: str, folder: str) -> str:
    """`path`; or, if it is write-protected, a directory of links to its files in `folder`. rocksdict (0.3.29) writes
    its settings into a directory even if it only reads there."""
    settings = os.path.join(path, _SETTINGS_FILE)
    if os.access(path, os.W_OK) and (os.access(settings, os.W_OK) or not os.path.exists(settings)):
        return path
    return _linked(path, folder, ())


def _linked(path: str, folder: str, without: Collection[str]) -> str:
    """A new directory in `folder`, of links to the files of `path`."""
    links = tempfile.mkdtemp(dir=folder)
    for name in os.listdir(path):
        if name != _SETTINGS_FILE and name not in without:
            os.symlink(os.path.join(os.path.abspath(path), name), os.path.join(links, name))
    if os.path.exists(settings := os.path.join(path, _SETTINGS_FILE)):
        shutil.copyfile(settings, os.path.join(links, _SETTINGS_FILE))
    return links


def _without_lost_power(path: str, folder: str) -> str:
    """`path`, or a directory of links without the logs that a start would put aside after a loss of power."""
    if not power_was_lost(path):
        return path
    first = opening.first_log(path)
    behind = wal.gap_between(path, first)
    if behind is None:
        return path
    names = wal.files(path, first)
    return _linked(path, folder, names[names.index(behind) :])


def _mended(path: str, folder: str) -> tuple[str, bool]:
    """A directory in which RocksDB can read as much of a damaged log as a start would take; and whether RocksDB has to
    stop by itself where the log cannot be read any further."""
    damages = wal.examine(path, first=opening.first_log(path))
    if power_was_lost(path):
        damages = [damage.after_loss_of_power() for damage in damages]
    if all(damage.torn for damage in damages):
        if not damages or not wal.has_hole(os.path.join(path, damages[0].name)):
            return path, True
        first, logs = damages[0], wal.files(path)
        links = _linked(path, folder, logs[logs.index(first.name) :])
        wal.mend(os.path.join(path, first.name), os.path.join(links, first.name), first.offset)
        return links, False
    names = {damage.name for damage in damages}
    links = _linked(path, folder, names)
    for name in names:
        wal.mend(os.path.join(path, name), os.path.join(links, name))
    return links, False


class Directory:
    """A data directory that is open for reading only."""

    def __init__(self, path: str, log_folder: str, lenient: bool = False) -> None:
        """Raises RocksDB's error. `lenient`: without the files that cannot be opened."""
        self.path = path
        path = _without_lost_power(_writable(path, log_folder), log_folder)
        torn = False
        if opening.has_hole(path):
            path, torn = _mended(path, log_folder)
        try:
            self._db = opening.open_read_only(path, log_folder, OPEN_FILES, lenient, torn)
        except Exception as error:
            if not opening.is_damage(error):
                raise
            path, torn = _mended(path, log_folder)
            self._db = opening.open_read_only(path, log_folder, OPEN_FILES, lenient, torn)
        all_names = opening.family_names(path)
        names = set(all_names) - set(NOT_QUEUES)
        self.family_names = sorted(names, key=lambda name: int(name[1:]))
        self.families = [self._db.get_column_family(name) for name in self.family_names]
        self.chunks: Any = self._db.get_column_family(CHUNKS)
        self.default: Any = self._db
        # Those of what is set aside, by name; none in a directory of an earlier format.
        self.aside_tables = {name: self._db.get_column_family(name) for name in ASIDE_TABLES if name in all_names}

    def close(self) -> None:
        self.families = []
        del self.chunks, self.default
        self.aside_tables = {}
        self._db.close()

    def unlisted_tables(self) -> set[str]:
        """Table files that the MANIFEST does not list, because the MANIFEST or a compaction was cut short."""
        listed = {file["name"].lstrip("/") for file in self._db.live_files()}
        return {name for name in os.listdir(self.path) if name.endswith(".sst")} - listed

    # -- records

    def scan(self, family: Any, begin: bytes, end: bytes) -> Iterator[tuple[bytes, bytes] | Gap]:
        """(key, value) of each record in [begin, end) that can be read, and a Gap for each stretch that cannot."""
        while True:
            found: tuple[bytes, bytes] | None = None
            entries = family.iter()
            entries.seek(begin)
            while entries.valid() and (key := entries.key()) < end:
                if found is None or key != found[0]:
                    if found is not None:
                        yield found
                    found = key, entries.value()
                else:
                    # RocksDB's repair also takes tables whose records were compacted into others. If both tables have a
                    # key with sequence number 0, it comes twice, in either order. A look-up finds the newer record.
                    found = key, family.get(key)
                entries.next()
            if found is not None:
                yield found
            if entries.valid():
                return
            why = _status(entries)
            if not why:
                return
            after = begin if found is None else found[0]
            resumes = self._beyond(family, after, end)
            yield Gap(after, resumes, why)
            if resumes is None:
                return
            begin = resumes

    def _beyond(self, family: Any, after: bytes, end: bytes) -> bytes | None:
        """The first key that can be read behind the unreadable stretch behind `after`, as nearly as can be told; None:
        there is none before `end`."""
        # Keys of the same length are taken as numbers; names are padded to be long enough.
        size = len(end) if len(after) == len(end) else max(len(after), len(end)) + 8
        start: int = int.from_bytes(after.ljust(size, b"\0"))
        limit: int = int.from_bytes(end.ljust(size, b"\0"))

        def readable(number: int) -> bool:
            entries = family.iter()
            entries.seek(number.to_bytes(size))
            return not _status(entries)

        step: int
        near: int = 1 << _INDEX_BITS if size == records.CHUNK_KEY_BYTES else 1
        for step in [*range(1, 65), *range(near, near * NEAR_KEYS, near)]:
            if start + step >= limit:
                break
            if readable(start + step):
                return (start + step).to_bytes(size)
        low, step = start, near * NEAR_KEYS
        while start + step < limit and not readable(start + step):
            low, step = start + step, step * 2
        high = start + step
        if high >= limit:
            high = limit - 1
            if high <= low or not readable(high):
                return None
        while high - low > 1:
            middle = (low + high) // 2
            if readable(middle):
                high = middle
            else:
                low = middle
        return high.to_bytes(size)

    # -- queues

    def queues(self) -> Iterator[tuple[bytes, QueueRecord] | Gap | Broken]:
        """(name, record) of the queues whose names can be read."""
        for entry in self.scan(self._db, records.QUEUE_PREFIX, b"r"):
            if isinstance(entry, Gap):
                yield entry
                continue
            try:
                yield entry[0][1:], records.unpack_queue(entry[1])
            except struct_error:
                yield Broken(0, f"the record of queue {entry[0][1:]!r} makes no sense")

    def cursors(self) -> Iterator[tuple[bytes, bytes, QueueRecord] | Gap | Broken]:
        """(queue's name, name, record) of the cursors whose names can be read."""
        for entry in self.scan(self._db, records.CURSOR_PREFIX, b"d"):
            if isinstance(entry, Gap):
                yield entry
                continue
            queue, name = records.unpack_cursor_key(entry[0])
            try:
                yield queue, name, records.unpack_queue(entry[1])
            except struct_error:
                yield Broken(0, f"the record of cursor {name!r} of queue {queue!r} makes no sense")

    def cursor_items(self, cursor: QueueRecord) -> Iterator[tuple[int, Item | None] | IdGap | Broken]:
        """(id, item) of what a cursor has records of, as far as they can be read; None: its queue has the item."""
        begin, end = records.item_key(cursor.number, 1), records.item_key(cursor.number + 1, records.STATE_ID)
        for entry in self.scan(self.families[cursor.family], begin, end):
            if isinstance(entry, Gap):
                yield _id_gap(entry)
            elif entry[1] == records.HELD:
                yield records.unpack_item_key(entry[0])[1], None
            else:
                yield _item(records.unpack_item_key(entry[0])[1], entry[1])

    def uploads(self) -> Iterator[tuple[int, int] | Gap]:
        """(number, blob) of the large items that were being received."""
        for entry in self.scan(self._db, records.UPLOAD_PREFIX, b"v"):
            yield entry if isinstance(entry, Gap) else records.unpack_upload_key(entry[0])

    def numbers(self, family: Any) -> Iterator[int]:
        """The numbers of the queues that have readable records in a family."""
        key_bytes = records.CHUNK_KEY_BYTES if family is self.chunks else records.ITEM_KEY_BYTES
        begin: bytes | None = bytes(key_bytes)
        while begin is not None:
            entries = family.iter()
            entries.seek(begin)
            if entries.valid():
                number = int.from_bytes(entries.key()[:4])
                yield number
                begin = (number + 1).to_bytes(4).ljust(key_bytes, b"\0") if number < records.MAX_NUMBER else None
            else:
                begin = self._beyond(family, begin, b"\xff" * key_bytes) if _status(entries) else None

    def blobs(self, number: int) -> Iterator[int]:
        """The numbers of the large items of which a queue has readable chunks."""
        begin: bytes | None = records.chunk_key(number, 0, 0)
        end = records.chunk_key(number + 1, 0, 0)
        while begin is not None:
            entries = self.chunks.iter()
            entries.seek(begin)
            if entries.valid():
                found, blob, _ = records.unpack_chunk_key(entries.key())
                if found != number:
                    return
                yield blob
                begin = records.chunk_key(number, blob + 1, 0)
            else:
                begin = self._beyond(self.chunks, begin, end) if _status(entries) else None

    def state(self, queue: QueueRecord) -> State | Broken:
        """What was last written of the queue."""
        key = records.item_key(queue.number, records.STATE_ID)
        try:
            value = self.families[queue.family].get(key)
            return State() if value is None else records.unpack_state(value)
        except Exception as error:
            return Broken(records.STATE_ID, opening.file_named(error))

    def items(self, queue: QueueRecord, from_id: int, tail: int) -> Iterator[tuple[int, Item] | IdGap | Broken]:
        """(id, item) of each item from `from_id` on that can be read, in order. There are ids at least up to `tail`."""
        begin, end = records.item_key(queue.number, from_id), records.item_key(queue.number + 1, records.STATE_ID)
        for entry in self.scan(self.families[queue.family], begin, end):
            if isinstance(entry, Gap):
                gap = _id_gap(entry)
                if entry.after != begin:  # it is the key of an item that was read
                    gap = gap._replace(from_id=gap.from_id + 1)
                yield from self._one_by_one(queue, gap, tail)
            else:
                yield _item(records.unpack_item_key(entry[0])[1], entry[1])

    def _one_by_one(self, queue: QueueRecord, gap: IdGap, tail: int) -> Iterator[tuple[int, Item] | IdGap | Broken]:
        """Look up the records of a gap one by one. That may find some that a scan misses because of a damaged block
        beside them."""
        get, number = self.families[queue.family].get, queue.number
        begin, item_id, misses = gap.from_id, gap.from_id, 0
        while item_id < gap.to_id and (item_id < tail or misses < NEAR_KEYS):
            try:
                value = get(records.item_key(number, item_id))
            except Exception:
                value = None
            misses += 1
            if value is not None:
                if begin < item_id:
                    yield IdGap(begin, item_id, gap.why)
                yield _item(item_id, value)
                begin, misses = item_id + 1, 0
            item_id += 1
        if begin < gap.to_id:
            yield IdGap(begin, gap.to_id, gap.why)

    def blob_chunks(self, number: int, blob: Blob) -> Iterator[bytes]:
        """The chunks of a large item, in order. Raises ValueError if not all of it is there and can be read."""
        size = index = 0
        while size < len(blob):
            try:
                chunk = self.chunks.get(records.chunk_key(number, blob.blob, index))
            except Exception as error:
                raise ValueError(f"chunk {index}: {opening.file_named(error)}") from error
            if chunk is None:
                raise Missing(f"chunk {index} is missing: {size} of its {len(blob)} bytes are there")
            yield chunk
            size += len(chunk)
            index += 1
        if size > len(blob):
            raise ValueError(f"its chunks have {size} bytes, not {len(blob)}")


def _id_gap(gap: Gap) -> IdGap:
    resumes = records.MAX_ID if gap.resumes is None else records.unpack_item_key(gap.resumes)[1]
    return IdGap(records.unpack_item_key(gap.after)[1], resumes, gap.why)


def _item(item_id: int, value: bytes) -> tuple[int, Item] | Broken:
    try:
        return item_id, records.unpack_item(value)
    except (struct_error, ValueError) as error:
        return Broken(item_id, str(error))


def _status(entries: Any) -> str:
    """Why an iterator cannot go on; "" if it can, or is at its end."""
    try:
        entries.status()
    except Exception as error:
        return opening.file_named(error)
    return ""
