"""Reads a data directory without changing it, and without stopping at what cannot be read.

`check`, `repair` and `dump` see a directory through this module. It promises to give every record whose checksum is
right, in order, and a Gap wherever something cannot be read. Memory does not grow with the directory.
"""

import os
from collections.abc import Callable, Iterator
from struct import error as struct_error
from typing import Any, NamedTuple, TypeVar

from darner_core.showing import show
from darner_core.storage import opening, records
from darner_core.storage.opening import ASIDE_TABLES, ASIDES, CHUNKS, NOT_QUEUES
from darner_core.storage.records import Blob, Item, QueueRecord, State
from darner_core.tools import unchanged

_T = TypeVar("_T")

OPEN_FILES = 64

# How many keys behind an unreadable one are tried one by one. A block of 16 KiB holds 500 of the smallest items.
NEAR_KEYS = 1024
_INDEX_BITS = 32  # of the number of a chunk within its item, at the end of its key


class Gap(NamedTuple):
    """Records behind the key `after` cannot be read. The next that can has the key `resumes`; None: there is none."""

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
    """A record is missing without any sign of damage."""


class ListedQueue(NamedTuple):
    """A queue as it was found. `lost`: its name is lost and `name` is made up, because only its items are left."""

    name: bytes
    record: QueueRecord
    lost: bool = False

    @property
    def shown(self) -> str:
        return f"queue {show(self.name)}"


class ListedCursor(NamedTuple):
    queue: bytes  # its name
    name: bytes
    record: QueueRecord

    @property
    def shown(self) -> str:
        return "cursor " + show(b".".join((self.queue, self.name)))


class Salvaged:
    """A data directory that is open for reading only."""

    def __init__(self, path: str, log_folder: str, lenient: bool = False) -> None:
        """`lenient`: leave out table files that cannot be opened. Raises RocksDB's error."""
        self.path = path
        path = unchanged.without_lost_power(unchanged.writable(path, log_folder), log_folder)
        torn = False
        if opening.has_hole(path):
            path, torn = unchanged.mended(path, log_folder)
        try:
            self._db = opening.open_read_only(path, log_folder, OPEN_FILES, lenient, torn)
        except Exception as error:
            if not opening.is_damage(error):
                raise
            path, torn = unchanged.mended(path, log_folder)
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
        """Table files that are not part of the database, because the MANIFEST or a compaction was cut short."""
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
                    # RocksDB's repair also takes tables that a compaction has replaced. If the old and the new one have
                    # a key with sequence number 0, it comes twice, in either order. A look-up finds the newer record.
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
        """A key near the end of the unreadable stretch that begins behind `after`, from which on records can be read.
        None: there is none before `end`."""
        # Keys are counted up like numbers. Names, which differ in length, are padded first.
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

    def _steps(self, family: Any, begin: bytes | None, end: bytes, behind: Callable[[bytes], bytes]) -> Iterator[bytes]:
        """Some keys in [begin, end): the first that can be read, then the first that is not below `behind` of that one,
        and so on."""
        while begin is not None and begin < end:
            entries = family.iter()
            entries.seek(begin)
            if not entries.valid():
                begin = self._beyond(family, begin, end) if _status(entries) else None
            elif (key := entries.key()) < end:
                yield key
                begin = behind(key)
            else:
                return

    # -- what the directory lists

    def _listed(self, prefix: bytes, what: str, unpack: Callable[[bytes, bytes], _T]) -> Iterator[_T | Gap | Broken]:
        """The entries of a list in the default family, whose keys begin with `prefix`."""
        for entry in self.scan(self._db, prefix, prefix[:-1] + bytes((prefix[-1] + 1,))):
            if isinstance(entry, Gap):
                yield entry
                continue
            try:
                yield unpack(*entry)
            except struct_error:
                yield Broken(0, f"the record of {what} {show(entry[0][len(prefix) :])} makes no sense")

    def queues(self) -> Iterator[ListedQueue | Gap | Broken]:
        size = len(records.QUEUE_PREFIX)
        return self._listed(
            records.QUEUE_PREFIX, "queue", lambda key, value: ListedQueue(key[size:], records.unpack_queue(value))
        )

    def cursors(self) -> Iterator[ListedCursor | Gap | Broken]:
        return self._listed(
            records.CURSOR_PREFIX,
            "cursor",
            lambda key, value: ListedCursor(*records.unpack_cursor_key(key), records.unpack_queue(value)),
        )

    def uploads(self) -> Iterator[tuple[int, int] | Gap | Broken]:
        """(number, blob) of the large items that were being received."""
        return self._listed(records.UPLOAD_PREFIX, "upload", lambda key, _: records.unpack_upload_key(key))

    # -- what belongs to a queue or a cursor

    def numbers(self, family: Any) -> Iterator[int]:
        """The numbers of the queues and cursors that have readable records in a family."""
        key_bytes = records.CHUNK_KEY_BYTES if family is self.chunks else records.ITEM_KEY_BYTES
        end = b"\xff" * key_bytes

        def behind(key: bytes) -> bytes:
            number = int.from_bytes(key[:4])
            return (number + 1).to_bytes(4).ljust(key_bytes, b"\0") if number < records.MAX_NUMBER else end

        for key in self._steps(family, bytes(key_bytes), end, behind):
            yield int.from_bytes(key[:4])

    def blobs(self, number: int) -> Iterator[int]:
        """The numbers of the large items of which a queue has readable chunks."""
        begin, end = records.chunk_key(number, 0, 0), records.chunk_key(number + 1, 0, 0)

        def behind(key: bytes) -> bytes:
            return records.chunk_key(number, records.unpack_chunk_key(key)[1] + 1, 0)

        for key in self._steps(self.chunks, begin, end, behind):
            yield records.unpack_chunk_key(key)[1]

    def state(self, queue: QueueRecord) -> State | Broken:
        """What was last written of the queue."""
        key = records.item_key(queue.number, records.STATE_ID)
        try:
            value = self.families[queue.family].get(key)
            return State() if value is None else records.unpack_state(value)
        except Exception as error:
            return Broken(records.STATE_ID, opening.file_named(error))

    def items(self, queue: QueueRecord, from_id: int, tail: int) -> Iterator[tuple[int, Item] | IdGap | Broken]:
        """(id, item) of each item from `from_id` on that can be read, in order. Ids up to `tail` have been used."""
        handle = self.families[queue.family]
        return self._items(handle, queue.number, range(from_id, records.MAX_ID), tail, records.unpack_item)

    def cursor_items(self, cursor: QueueRecord) -> Iterator[tuple[int, Item | None] | IdGap | Broken]:
        """(id, item) of each record of a cursor that can be read. None for the item: the queue has it."""
        handle, ids = self.families[cursor.family], range(records.FIRST_ID, records.MAX_ID)
        return self._items(handle, cursor.number, ids, 0, records.unpack_cursor_item)

    def aside_items(self, number: int, ids: range) -> Iterator[tuple[int, Item] | IdGap | Broken]:
        """(id, item) of each item with one of these ids that is set aside and can be read, in order."""
        return self._items(self.aside_tables[ASIDES], number, ids, 0, records.unpack_item)

    def _items(
        self, handle: Any, number: int, ids: range, tail: int, unpack: Callable[[bytes], _T]
    ) -> Iterator[tuple[int, _T] | IdGap | Broken]:
        begin = records.item_key(number, ids.start)
        ends = ids.stop == records.MAX_ID
        end = records.item_key(number + 1, records.STATE_ID) if ends else records.item_key(number, ids.stop)
        for entry in self.scan(handle, begin, end):
            if not isinstance(entry, Gap):
                yield _unpacked(records.unpack_item_key(entry[0])[1], entry[1], unpack)
                continue
            after = records.unpack_item_key(entry.after)[1]
            gap_begin = after if entry.after == begin else after + 1  # behind an item that was read
            gap_end = ids.stop if entry.resumes is None else records.unpack_item_key(entry.resumes)[1]
            yield from self._one_by_one(handle, number, IdGap(gap_begin, gap_end, entry.why), tail, unpack)

    def _one_by_one(
        self, handle: Any, number: int, gap: IdGap, tail: int, unpack: Callable[[bytes], _T]
    ) -> Iterator[tuple[int, _T] | IdGap | Broken]:
        """Look up the records of a gap one by one. That finds some that a scan does not reach because a block beside
        theirs is damaged."""
        get = handle.get
        begin, item_id, misses = gap.from_id, gap.from_id, 0
        while item_id < gap.to_id and (item_id < tail or misses < NEAR_KEYS):
            try:
                value = get(records.item_key(number, item_id))
            except Exception:
                value = None
            misses += 1
            if value is not None:
                if begin < item_id:
                    yield gap._replace(from_id=begin, to_id=item_id)
                yield _unpacked(item_id, value, unpack)
                begin, misses = item_id + 1, 0
            item_id += 1
        if begin < gap.to_id:
            yield gap._replace(from_id=begin)

    def blob_chunks(self, number: int, blob: Blob) -> Iterator[bytes]:
        """The chunks of a large item, in order. Raises ValueError if a chunk is missing or cannot be read."""
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


def open_lenient(path: str, log_folder: str) -> tuple[Salvaged, str]:
    """The directory, if need be without table files that cannot be opened, and why the first of them cannot; "" if all
    can. Raises RocksDB's error."""
    try:
        return Salvaged(path, log_folder), ""
    except Exception as error:
        why = opening.file_named(error)
    return Salvaged(path, log_folder, lenient=True), why


def _unpacked(item_id: int, value: bytes, unpack: Callable[[bytes], _T]) -> tuple[int, _T] | Broken:
    try:
        return item_id, unpack(value)
    except (struct_error, ValueError) as error:
        return Broken(item_id, str(error))


def _status(entries: Any) -> str:
    """Why an iterator cannot go on; "" if it has only come to its end."""
    try:
        entries.status()
    except Exception as error:
        return opening.file_named(error)
    return ""
