"""RocksDB's write-ahead log files, read without RocksDB: where one is damaged, and what can still be read of it.

RocksDB itself says of a damaged log only that it is one, or drops what it cannot read without a word. This module finds
the file and the byte, and tells a write that was cut off by a crash from bytes that were changed later. It only reads,
and knows nothing of queues.

A log file is a sequence of blocks of 32 KiB. A block holds fragments: CRC-32C u32 (masked), length u16, type u8, the
bytes; all little-endian. One write is one fragment, or a first, middle ones and a last.
Source: RocksDB wiki, "Write Ahead Log File Format"; db/write_batch.cc for what a write consists of.
"""

import os
from collections.abc import Callable, Iterator
from struct import Struct
from typing import NamedTuple

BLOCK_BYTES = 32 << 10
PAGE_BYTES = 4096  # what the system writes out at a time
EMPTY_BYTES = 16  # so many zeros at the end of a page are taken for a page that was never, or not again, written
SUFFIX = ".log"
FINDING = "write-ahead log "  # begins what is said of damage

_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_OF_WRITES = (_FULL, _FIRST, _MIDDLE, _LAST)
_header = Struct("<IHB")
_batch_head = Struct("<QI")

# The tags of a WriteBatch that the server writes: whether a column family's number follows.
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

# (offset in the file, bytes of the file) every so often.
Progress = Callable[[int, int], None]


class Bad(NamedTuple):
    """Bytes that are no fragment."""

    offset: int
    empty: bool  # zeros to the end of the block, as a file system shows them for what it had no time to write
    page_empty: bool  # there are zeros to the end of a page


class Damage(NamedTuple):
    """What is wrong with a log file."""

    name: str
    offset: int  # of the first byte that cannot be read
    file_bytes: int
    readable_behind: int  # writes that can be read behind it, in this file and later ones
    empty: bool
    page_empty: bool

    @property
    def torn(self) -> bool:
        """Whether it is what a crash leaves: a write that was cut off at the end, or a gap that was never written."""
        return not self.readable_behind or self.empty

    def after_loss_of_power(self) -> "Damage":
        """What it is if the machine went down: then a single page may never have been written. Else a page that ends
        with zeros is more likely part of an item."""
        return self._replace(empty=self.empty or self.page_empty)

    def __str__(self) -> str:
        where = f"{FINDING}{self.name}: unreadable from byte {self.offset} of {self.file_bytes}"
        if not self.readable_behind:
            return f"{where} on, its end: a write that was cut off, or damage; dropped"
        if self.empty:
            return f"{where}, where nothing was ever written: a loss of power; what follows is dropped"
        return f"{where}: damaged; {self.readable_behind} writes behind it can be read"


def _crc_table() -> list[int]:
    table = []
    for number in range(256):
        for _ in range(8):
            number = (number >> 1) ^ (0x82F63B78 if number & 1 else 0)
        table.append(number)
    return table


_CRC = _crc_table()


def _crc32c(data: bytes) -> int:
    crc, table = 0xFFFFFFFF, _CRC
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _masked(crc: int) -> int:
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def files(directory: str) -> list[str]:
    """The names of the log files, oldest first."""
    names = (name for name in os.listdir(directory) if name.endswith(SUFFIX) and name[: -len(SUFFIX)].isdigit())
    return sorted(names, key=lambda name: int(name[: -len(SUFFIX)]))


def _fragments(path: str, progress: Progress | None) -> Iterator[tuple[int, int, bytes] | Bad]:
    """(offset, type, bytes) of each fragment; Bad, and on with the next block, where there is none."""
    total = os.path.getsize(path)
    with open(path, "rb") as file:
        start = 0
        while block := file.read(BLOCK_BYTES):
            if progress is not None:
                progress(start, total)
            at = 0
            while len(block) - at >= _header.size:
                crc, size, kind = _header.unpack_from(block, at)
                end = at + _header.size + size
                if end > len(block) or _masked(_crc32c(block[at + 6 : end])) != crc:
                    yield Bad(start + at, not any(block[at:]), _has_empty_page(block, at, end))
                    break
                yield start + at, kind, block[at + _header.size : end]
                at = end
            else:
                if any(block[at:]) or (at < len(block) < BLOCK_BYTES):
                    yield Bad(start + at, not any(block[at:]), False)
            start += len(block)


def _has_empty_page(block: bytes, begin: int, end: int) -> bool:
    """Whether one of the pages that [begin, end) of the block lies in ends with zeros."""
    for page_end in range(begin - begin % PAGE_BYTES + PAGE_BYTES, end + PAGE_BYTES, PAGE_BYTES):
        tail = block[max(begin, page_end - EMPTY_BYTES) : page_end]
        if tail and not any(tail):
            return True
    return False


def writes(path: str, progress: Progress | None = None) -> Iterator[tuple[int, bytes] | Bad]:
    """(offset, WriteBatch) of each write that can be read, in order; Bad for what cannot."""
    parts: list[bytes] = []
    begun = -1  # the offset of a write that has begun and not ended
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
            yield offset, data
        elif kind == _FIRST:
            parts, begun = [data], offset
        else:
            parts.append(data)
            if kind == _LAST:
                yield begun, b"".join(parts)
                parts, begun = [], -1
    if begun >= 0:
        yield Bad(begun, False, False)


def examine(directory: str, progress: Progress | None = None) -> list[Damage]:
    """What is wrong with the log files of a database. Pure Python: some 10 MB/s."""
    found: list[Damage] = []
    for name in files(directory):
        path = os.path.join(directory, name)
        first: Bad | None = None
        behind = 0
        for write in writes(path, progress):
            if isinstance(write, Bad):
                first = first or write
            else:
                behind += 1 if first is not None else 0
                if first is None and found:
                    found = [damage._replace(readable_behind=damage.readable_behind + 1) for damage in found]
        if first is not None:
            found = [damage._replace(readable_behind=damage.readable_behind + behind) for damage in found]
            found.append(Damage(name, first.offset, os.path.getsize(path), behind, first.empty, first.page_empty))
    return found


def gap_between(directory: str) -> str | None:
    """The first log file that begins with a later write than should follow the file before it; None: there is none.

    RocksDB numbers all changes without a gap. Only the heads are looked at: 1 us a write.
    """
    expected = 0
    for name in files(directory):
        first, following = _numbers(os.path.join(directory, name))
        if expected and first > expected:
            return name
        expected = following or expected
    return None


def _numbers(path: str) -> tuple[int, int]:
    """RocksDB's numbers of the first change in a log file, and of the one that would follow its last; 0: none.

    A write of which the end is missing does not count: RocksDB does not apply it.
    """
    with open(path, "rb") as file:
        data = file.read()
    first = following = place = 0
    head = b""  # of the write that has begun; it may be spread over two fragments
    while place + _header.size <= len(data):
        left = BLOCK_BYTES - place % BLOCK_BYTES
        if left < _header.size:
            place += left
            continue
        _, size, kind = _header.unpack_from(data, place)
        begin = place + _header.size
        place = begin + size
        if place > len(data) or not (kind or size):
            break  # cut off, or never written
        if kind in (_FULL, _FIRST):
            head = data[begin : min(place, begin + _batch_head.size)]
        elif kind in _OF_WRITES:
            head += data[begin : min(place, begin + _batch_head.size - len(head))]
        if kind in (_FULL, _LAST) and len(head) == _batch_head.size:
            number, count = _batch_head.unpack(head)
            first, following = first or number, number + count
    return first, following


def operations(batch: bytes) -> Iterator[tuple[str, int, bytes, bytes]]:
    """(what, number of the column family, key, value or end of the range) of each change in a write, in order.

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
            family, at = _varint(batch, at)
        key, at = _slice(batch, at)
        value = b""
        if what != DELETE:
            value, at = _slice(batch, at)
        yield what, family, key, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7


def _slice(data: bytes, at: int) -> tuple[bytes, int]:
    size, at = _varint(data, at)
    return data[at : at + size], at + size
