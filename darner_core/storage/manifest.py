"""RocksDB's MANIFEST, read without RocksDB: which tables and logs belong to a database.

RocksDB silently goes on when a log that it needs is missing, and removes every table that the MANIFEST does not list.
So a start looks here first. This module only reads, and does not know queues.

A MANIFEST is written like a log. Each record is an edit: fields that begin with a tag, all numbers varints.
Source: RocksDB wiki, "MANIFEST"; db/version_edit.h for the tags.
"""

import os
import re
from typing import NamedTuple

from darner_core.storage import wal
from darner_core.storage.encoding import counted_bytes, varint

CURRENT = "CURRENT"  # holds the name of the MANIFEST
TABLE = ".sst"

_LOG_NUMBER, _LAST_SEQUENCE, _DELETED_FILE, _KEPT_LOG = 2, 4, 6, 10
_NUMBERS = {3: 1, 9: 1, 200: 1, 203: 1, 300: 1, 202: 0}  # other tags: how many numbers follow
_COMPARATOR, _NEW_FAMILY = 1, 201  # a slice follows
_COMPACT_CURSOR = 5
_NEW_FILES = {7: (3, 0), 100: (3, 2), 102: (4, 2), 103: (3, 2)}  # how many numbers stand before and behind the two keys
_WITH_MORE = 103  # further fields follow, each a number and a slice, up to the number 1
_IGNORABLE = 1 << 13  # in a tag: it is followed by a slice


class Damaged(ValueError):
    """The MANIFEST, or the file that names it, is missing or damaged; str() names the file."""


class Manifest(NamedTuple):
    name: str
    families: set[str]  # names of the column families
    tables: dict[str, int]  # names of the tables that belong to the database, and their bytes
    first_log: int  # logs with lower numbers are not needed; there need not be one with this number
    first_sequence: int  # the oldest of these logs begins with this change at the latest
    last_log: int  # the highest number of a log that is known to have been there
    last_sequence: int  # RocksDB's number of a change that had been written for certain
    cut_at: int | None  # the byte from which on nothing can be read


class Lost(NamedTuple):
    """A log file that is missing in whole or in part."""

    why: str
    newest: bool  # what is missing is the end of the newest log, which a loss of power may take
    empty: int = 0  # the newest log's number if it is empty, as it is when it has just been made


def read(directory: str) -> Manifest:
    """What the MANIFEST says, the one that CURRENT names. Raises Damaged or OSError."""
    name = _named_by_current(directory)
    families: set[str] = set()
    tables: dict[str, int] = {}
    first_log = last_log = last_sequence = edits = 0
    first_sequence = 1
    cut_at: int | None = None
    for edit in wal.records(os.path.join(directory, name)):
        if isinstance(edit, wal.Bad):
            cut_at = edit.offset if cut_at is None else cut_at
            continue
        if cut_at is not None:
            raise Damaged(f"{name}: damaged at byte {cut_at}")
        try:
            fields, added = _fields(edit.data)
        except (IndexError, ValueError) as error:
            raise Damaged(f"{name}: damaged at byte {edit.offset}") from error
        edits += 1
        families |= added
        kept_log = log_number = 0
        for tag, *numbers in fields:
            if tag == _LOG_NUMBER:
                log_number = numbers[0]
                last_log = max(last_log, log_number)
            elif tag == _KEPT_LOG:
                kept_log = numbers[0]
            elif tag == _LAST_SEQUENCE:
                last_sequence = max(last_sequence, numbers[0])
            elif tag == _DELETED_FILE:
                tables.pop(_table(numbers[1]), None)
            elif tag in _NEW_FILES:
                tables[_table(numbers[1])] = numbers[-1]
        if kept_log > first_log or log_number == first_log > 0:  # each column family by itself stops needing logs
            first_log, first_sequence = max(first_log, kept_log), last_sequence + 1
    if not edits:
        raise Damaged(f"{name}: empty")
    return Manifest(name, families, tables, first_log, first_sequence, last_log, last_sequence, cut_at)


def lost_logs(directory: str, manifest: Manifest) -> list[Lost]:
    """What is missing of the write-ahead log: whole files, and writes between files. Damage within files is left to
    `wal`."""
    found = []
    names = wal.files(directory, manifest.first_log)
    # When RocksDB has read the logs of a database that it opens, it names a higher number as that of the first log it
    # needs, which no log has to have. It begins the next log just before the MANIFEST.
    is_exact = manifest.first_log >= int(manifest.name.rpartition("-")[2]) - 1
    expected = manifest.first_sequence
    if is_exact and (not names or wal.number_of(names[0]) > manifest.first_log):
        expected = 0
        if names:
            found.append(Lost(f"{wal.FINDING}{manifest.first_log:06}{wal.SUFFIX}: missing", False))
    is_empty = False
    written = [name for name in names if os.path.getsize(os.path.join(directory, name))]
    for name in names:
        path = os.path.join(directory, name)
        if is_empty:
            expected = 0  # the empty log has been reported
        is_empty = name not in written
        if is_empty:
            # Two starts that were killed before they wrote anything leave two empty logs.
            newest = not written or wal.number_of(name) > wal.number_of(written[-1])
            found.append(Lost(f"{wal.FINDING}{name}: empty", newest, wal.number_of(name) if newest else 0))
            continue
        begin, following = wal.numbers(path)
        if expected and begin > expected:
            found.append(Lost(f"{wal.FINDING}{name}: {begin - expected} changes before it are missing", False))
        expected = following
    if not names or wal.number_of(names[-1]) < manifest.last_log:
        found.append(Lost(f"{wal.FINDING}{manifest.last_log:06}{wal.SUFFIX} or a newer one: missing", True))
    elif not is_empty and 0 < expected <= manifest.last_sequence:
        lost = manifest.last_sequence + 1 - expected
        found.append(Lost(f"{wal.FINDING}{names[-1]}: the last {lost} changes that are known of are missing", True))
    return found


def unlisted_tables(directory: str, manifest: Manifest) -> set[str]:
    """Tables that RocksDB will remove when it opens the database."""
    return {name for name in os.listdir(directory) if name.endswith(TABLE)} - manifest.tables.keys()


def missing_tables(directory: str, manifest: Manifest) -> set[str]:
    return manifest.tables.keys() - set(os.listdir(directory))


def _named_by_current(directory: str) -> str:
    try:
        with open(os.path.join(directory, CURRENT), "rb") as file:
            found = file.read(100)
    except FileNotFoundError:
        raise Damaged(f"{CURRENT} is missing") from None
    if not re.fullmatch(rb"MANIFEST-\d+\n", found):
        raise Damaged(f"{CURRENT}: damaged, it names no MANIFEST")
    name = found.decode().strip()
    if not os.path.exists(os.path.join(directory, name)):
        raise Damaged(f"{name} is missing, which {CURRENT} names")
    return name


def _table(number: int) -> str:
    return f"{number:06}{TABLE}"


def _fields(edit: bytes) -> tuple[list[tuple[int, ...]], set[str]]:
    """(tag, numbers) of each field, and the names of new column families. The numbers of a new file are its level, its
    number and its bytes. Raises IndexError or ValueError for what is no edit."""
    found: list[tuple[int, ...]] = []
    families: set[str] = set()
    at = 0

    def number() -> int:
        nonlocal at
        value, at = varint(edit, at)
        return value

    def text() -> bytes:
        nonlocal at
        found, at = counted_bytes(edit, at)
        return found

    while at < len(edit):
        tag = number()
        if tag in (_LOG_NUMBER, _LAST_SEQUENCE, _KEPT_LOG):
            found.append((tag, number()))
        elif tag == _DELETED_FILE:
            found.append((tag, number(), number()))
        elif tag in _NEW_FILES:
            before, behind = _NEW_FILES[tag]
            numbers = [number() for _ in range(before)]
            text()
            text()
            for _ in range(behind):
                number()
            while tag == _WITH_MORE and number() != 1:
                text()
            found.append((tag, numbers[0], numbers[1], numbers[-1]))
        elif tag == _COMPACT_CURSOR:
            number()
            text()
        elif tag == _NEW_FAMILY:
            families.add(text().decode("utf-8", "backslashreplace"))
        elif tag == _COMPARATOR or tag & _IGNORABLE:
            text()
        elif tag in _NUMBERS:
            for _ in range(_NUMBERS[tag]):
                number()
        else:
            raise ValueError(f"a field of the unknown kind {tag}")
    return found, families
