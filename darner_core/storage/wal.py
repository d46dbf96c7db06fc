"""RocksDB's write-ahead log files, read without RocksDB: where one is damaged, and what can still be read of it.

RocksDB says no more than that a log is damaged, or silently drops what it cannot read. This module finds the file and
the byte, and tells a write that a crash has cut off from bytes that were changed later. `mend` writes a log anew
without what cannot be read; all else only reads. Nothing here knows queues.

A log file is a sequence of blocks of 32 KiB. A block holds fragments: CRC-32C u32 (masked), length u16, type u8, the
bytes; all little-endian. One write is one fragment, or a first, middle ones and a last.
Source: RocksDB wiki, "Write Ahead Log File Format"; db/write_batch.cc for what a write consists of.
"""

import os
from collections.abc import Callable, Iterator
from struct import Struct
from typing import BinaryIO, NamedTuple

from darner_core.storage.encoding import counted_bytes, masked_crc, varint

BLOCK_BYTES = 32 << 10
PAGE_BYTES = 4096  # what the system writes out at a time
EMPTY_BYTES = 16  # a page that ends with this many zeros is taken for one that was never written, or not again
SUFFIX = ".log"
FINDING = "write-ahead log "  # begins what is said of damage

_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_OF_WRITES = (_FULL, _FIRST, _MIDDLE, _LAST)
_header = Struct("<IHB")
_batch_head = Struct("<QI")

# Up to this many damaged blocks of a file are searched for whole fragments, which takes up to 0.1 s for each.
_SEARCHED_BLOCKS = 64

# The tags in a WriteBatch that the server writes: (what it does, whether the number of a column family follows).
_DELETE, _PUT, _FAMILY_DELETE, _FAMILY_PUT, _FAMILY_DELETE_RANGE, _DELETE_RANGE = 0x0, 0x1, 0x4, 0x5, 0xE, 0xF
PUT, DELETE, DELETE_RANGE = "put", "delete", "delete_range"
_TAGS = {
    _PUT: (PUT, False),
    _DELETE: (DELETE, False),
    _DELETE_RANGE: (DELETE_RANGE, False),
    _FAMILY_PUT: (PUT, True),
    _FAMILY_DELETE: (DELETE, True),
    _FAMILY_DELETE_RANGE: (DELETE_RANGE, True),
}

# Called now and then with (bytes read, bytes in all).
Progress = Callable[[int, int], None]


class Record(NamedTuple):
    """A whole record. In a log it is a write."""

    offset: int
    data: bytes


class Bad(NamedTuple):
    """Bytes that are no fragment, or a record that is not whole."""

    offset: int
    empty: bool  # whether the block ends in zeros from there on, which a file system shows for what was never written
    page_empty: bool  # whether one of its pages ends in zeros


class Damage(NamedTuple):
    """What is wrong with a log file."""

    name: str
    offset: int  # of the first byte that cannot be read
    file_bytes: int
    readable_behind: int  # writes that can be read behind it, in this file and later ones
    empty: bool  # as `Bad` says of that byte
    page_empty: bool
    lost: int = 0  # changes that are missing between writes that can be read; the numbers tell

    @property
    def torn(self) -> bool:
        """Whether it is what a crash leaves: a write that was cut off at the end, or a gap that was never written."""
        return not self.readable_behind or self.empty

    def after_loss_of_power(self) -> "Damage":
        """This damage, as it is to be judged if the machine went down: then a single page may never have been written.
        Otherwise a page that ends in zeros is more likely part of an item."""
        return self._replace(empty=self.empty or self.page_empty)

    def __str__(self) -> str:
        where = f"{FINDING}{self.name}: unreadable from byte {self.offset} of {self.file_bytes}"
        if not self.readable_behind:
            return f"{where} on, its end: a write that was cut off, or damage; dropped"
        if self.empty:
            return f"{where}, where nothing was ever written: a loss of power; what follows is dropped"
        lost = f"{self.lost} changes in it are lost, " if self.lost else ""
        return f"{where}: damaged; {lost}{self.readable_behind} writes behind it can be read"


def number_of(name: str) -> int:
    """The number in the name of a log file."""
    return int(name[: -len(SUFFIX)])


def files(directory: str, first: int = 0) -> list[str]:
    """The names of the log files from this number on, oldest first."""
    names = (name for name in os.listdir(directory) if name.endswith(SUFFIX) and name[: -len(SUFFIX)].isdigit())
    return sorted((name for name in names if number_of(name) >= first), key=number_of)


def _fragments(path: str, progress: Progress | None) -> Iterator[tuple[int, int, bytes] | Bad]:
    """(offset, type, bytes) of each fragment; Bad for bytes between them that are no fragment."""
    total = os.path.getsize(path)
    searches = _SEARCHED_BLOCKS
    with open(path, "rb") as file:
        start = 0
        while block := file.read(BLOCK_BYTES):
            if progress is not None:
                progress(start, total)
            at = 0
            while len(block) - at >= _header.size:
                end = at + _header.size + _header.unpack_from(block, at)[1]
                if not _is_fragment(block, at):
                    is_empty = not any(block[at:])
                    yield Bad(start + at, is_empty, _has_empty_page(block, at, end))
                    if is_empty or not searches:
                        break
                    searches -= 1
                    found = end if _is_write_fragment(block, end) else _search(block, at + 1)
                    if found is None:
                        break
                    at = found
                    continue
                yield start + at, block[at + 6], block[at + _header.size : end]
                at = end
            else:
                if any(block[at:]) or (at < len(block) < BLOCK_BYTES):
                    yield Bad(start + at, not any(block[at:]), False)
            start += len(block)


def _is_fragment(block: bytes, at: int) -> bool:
    """Whether there is a fragment at `at`, and its checksum is right."""
    crc, size, _ = _header.unpack_from(block, at)
    end: int = at + _header.size + size
    return end <= len(block) and masked_crc(block[at + 6 : end]) == crc


def _is_write_fragment(block: bytes, at: int) -> bool:
    return at + _header.size <= len(block) and block[at + 6] in _OF_WRITES and _is_fragment(block, at)


def _search(block: bytes, begin: int) -> int | None:
    """Where the first fragment from `begin` on is. Every byte is tried, because a length may be damaged."""
    for at in range(begin, len(block) - _header.size):
        if block[at + 6] in _OF_WRITES and _is_fragment(block, at):
            return at
    return None


def _has_empty_page(block: bytes, begin: int, end: int) -> bool:
    """Whether one of the pages that [begin, end) of the block lies in ends with zeros."""
    for page_end in range(begin - begin % PAGE_BYTES + PAGE_BYTES, end + PAGE_BYTES, PAGE_BYTES):
        tail = block[max(begin, page_end - EMPTY_BYTES) : page_end]
        if tail and not any(tail):
            return True
    return False


def writes(path: str, progress: Progress | None = None) -> Iterator[Record | Bad]:
    """Each write (RocksDB's WriteBatch) that can be read, in order; Bad for what cannot.

    An item may contain what looks like a log. So behind damage, a write counts only if its number can come next.
    """
    following = damaged_at = -1
    for write in records(path, progress):
        if isinstance(write, Bad):
            damaged_at = write.offset if damaged_at < 0 else damaged_at
        elif len(write.data) < _batch_head.size:
            write = Bad(write.offset, False, False)
        else:
            number, count = _batch_head.unpack_from(write.data)
            if damaged_at >= 0 and following >= 0 and not 0 <= number - following <= write.offset - damaged_at:
                write = Bad(write.offset, False, False)
            else:
                following, damaged_at = number + count, -1
        yield write


def records(path: str, progress: Progress | None = None) -> Iterator[Record | Bad]:
    """Each record that can be read of a log, or of a file written like one, in order; Bad for what cannot."""
    parts: list[bytes] = []
    begun = -1  # the offset of a record that has begun and not ended
    for fragment in _fragments(path, progress):
        if isinstance(fragment, Bad):
            yield fragment if begun < 0 else fragment._replace(offset=begun)
            parts, begun = [], -1
            continue
        offset, kind, data = fragment
        if kind not in _OF_WRITES:
            continue  # RocksDB's notes to itself
        if (kind in (_FULL, _FIRST)) == (begun >= 0):
            yield Bad(begun if begun >= 0 else offset, False, False)
            parts, begun = [], -1
            if kind not in (_FULL, _FIRST):
                continue
        if kind == _FULL:
            yield Record(offset, data)
        elif kind == _FIRST:
            parts, begun = [data], offset
        else:
            parts.append(data)
            if kind == _LAST:
                yield Record(begun, b"".join(parts))
                parts, begun = [], -1
    if begun >= 0:
        yield Bad(begun, False, False)


def mend(source: str, target: str, end: int | None = None) -> None:
    """Write a new log, of all writes in `source` that can be read, up to the byte `end`. Raises OSError."""
    with open(target, "wb") as file:
        for write in writes(source):
            if end is not None and write.offset >= end:
                break
            if isinstance(write, Record):
                _append(file, write.data)
        file.flush()
        os.fsync(file.fileno())


def _append(file: BinaryIO, write: bytes) -> None:
    """Add a write to a log, in as many fragments as it takes."""
    at, first = 0, True
    while first or at < len(write):
        room = BLOCK_BYTES - file.tell() % BLOCK_BYTES
        if room < _header.size:
            file.write(bytes(room))
            continue
        part = write[at : at + room - _header.size]
        at += len(part)
        kind = (_FULL if first else _LAST) if at == len(write) else (_FIRST if first else _MIDDLE)
        crc = masked_crc(bytes((kind,)) + part)
        file.write(_header.pack(crc, len(part), kind) + part)
        first = False


def examine(directory: str, progress: Progress | None = None, first: int = 0) -> list[Damage]:
    """What is wrong with the log files of a database, from number `first` on. `progress` is told of all files as if
    they were one. Without google-crc32c about 10 MB are read in a second."""
    found: list[Damage] = []
    names = files(directory, first)
    total, before = sum(os.path.getsize(os.path.join(directory, name)) for name in names), 0
    for name in names:
        path = os.path.join(directory, name)
        bad: Bad | None = None
        behind = lost = following = 0

        def progress_of_all(offset: int, _: int, before: int = before) -> None:
            if progress is not None:
                progress(before + offset, total)

        for write in writes(path, progress_of_all):
            if isinstance(write, Bad):
                bad = bad or write
                continue
            number, count = _batch_head.unpack_from(write.data)
            lost += max(0, number - following) if following else 0
            following = number + count
            if bad is not None:
                behind += 1
            else:
                found = _with_more_behind(found, 1)
        before += os.path.getsize(path)
        if bad is not None:
            found = _with_more_behind(found, behind)
            size = os.path.getsize(path)
            found.append(Damage(name, bad.offset, size, behind, bad.empty, bad.page_empty, lost))
    return found


def _with_more_behind(found: list[Damage], writes_behind: int) -> list[Damage]:
    return [damage._replace(readable_behind=damage.readable_behind + writes_behind) for damage in found]


def has_hole(path: str) -> bool:
    """Whether a log has zeros where a write should begin, which RocksDB silently passes over to the end of the block;
    or an end at which RocksDB hangs. Such a log is read here, and RocksDB is given what can be read."""
    with open(path, "rb") as file:
        start = 0
        while block := file.read(BLOCK_BYTES):
            # Few blocks have a page that begins with zeros, and only these are looked at more closely.
            if any(not any(block[page : page + EMPTY_BYTES]) for page in range(0, len(block), PAGE_BYTES)):
                end = start
                for place, _, end in _places(file, start):  # noqa: B007
                    pass
                if start + len(block) - end >= _header.size and not any(block[end - start :][: _header.size]):
                    return True
                file.seek(start + len(block))
            start += len(block)
        return _ends_in_recycled_part(file, start)


# Types of fragments that RocksDB writes only if it is told to use log files again, which it is not here.
_RECYCLED = (5, 6, 7, 8, 11, 131)


def _ends_in_recycled_part(file: BinaryIO, size: int) -> bool:
    """Whether the last bytes look like the beginning of a fragment of a recycled log: RocksDB would look for the rest
    of it for ever."""
    end = start = max(size - 1, 0) // BLOCK_BYTES * BLOCK_BYTES
    for place, _, following in _places(file, start):
        end = following if following <= size else place
    if size - end < _header.size:
        return False
    file.seek(end)
    return file.read(_header.size)[-1] in _RECYCLED


def gap_between(directory: str, first: int = 0) -> str | None:
    """The first log file, from number `first` on, before which writes are missing; None: there is none. RocksDB numbers
    all changes without a gap, so only the ends of the files are read."""
    expected = 0
    for name in files(directory, first):
        begin, following = numbers(os.path.join(directory, name))
        if expected and begin > expected:
            return name
        expected = following or expected
    return None


def numbers(path: str) -> tuple[int, int]:
    """RocksDB's numbers of the first change in a log file, and of the one that would follow its last; 0: not known. A
    write whose end is missing does not count, as RocksDB does not apply it."""
    with open(path, "rb") as file:
        place = _first_place(file)
        begin, _ = (0, 0) if place is None else _head(file, place)
        place = _last_place(file, os.path.getsize(path))
        number, count = (0, 0) if place is None else _head(file, place)
    return begin, number + count


def _places(file: BinaryIO, start: int) -> Iterator[tuple[int, int, int]]:
    """(offset, type, end) of each fragment of the block that begins at `start`. Lengths are believed, and checksums are
    not looked at."""
    file.seek(start)
    block = file.read(BLOCK_BYTES)
    at = 0
    while len(block) - at >= _header.size:
        _, size, kind = _header.unpack_from(block, at)
        end = at + _header.size + size
        if end > len(block) or not (kind or size):
            return  # cut off, or never written
        yield start + at, kind, start + end
        at = end


def _first_place(file: BinaryIO) -> int | None:
    return next((place for place, kind, _ in _places(file, 0) if kind in (_FULL, _FIRST)), None)


def _last_place(file: BinaryIO, size: int) -> int | None:
    """Where the last whole write begins. Lengths are believed."""
    has_end = False
    for start in range((size - 1) // BLOCK_BYTES * BLOCK_BYTES, -1, -BLOCK_BYTES):
        for place, kind, _ in reversed(list(_places(file, start))):
            if kind == _FULL or (kind == _FIRST and has_end):
                return place
            has_end = has_end or kind == _LAST
    return None


def _head(file: BinaryIO, place: int) -> tuple[int, int]:
    """(number of the first change, number of changes) in the write that begins at `place`; 0, 0: it cannot be read."""
    head = b""
    while len(head) < _batch_head.size:
        file.seek(place)
        block = file.read(BLOCK_BYTES - place % BLOCK_BYTES)
        if len(block) < _header.size or not _is_fragment(block, 0):
            return 0, 0
        end = _header.size + _header.unpack_from(block, 0)[1]
        head += block[_header.size : end]
        if len(head) < _batch_head.size and block[6] != _FIRST:
            return 0, 0
        place += len(block)  # the rest is in the next block
    number, count = _batch_head.unpack_from(head)
    return number, count


def operations(batch: bytes) -> Iterator[tuple[str, int, bytes, bytes]]:
    """(what it does, number of the column family, key, value or end of the range) of each change in a write, in order.

    Raises ValueError for what the server never writes.
    """
    _, count = _batch_head.unpack_from(batch)
    at = _batch_head.size
    for _ in range(count):
        if at >= len(batch) or batch[at] not in _TAGS:
            raise ValueError("a write of an unknown kind")
        what, has_family = _TAGS[batch[at]]
        at += 1
        family = 0
        if has_family:
            family, at = varint(batch, at)
        key, at = counted_bytes(batch, at)
        value = b""
        if what != DELETE:
            value, at = counted_bytes(batch, at)
        yield what, family, key, value
