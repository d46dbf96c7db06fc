"""`--check`: read a whole data directory, change nothing, and say what is damaged.

Each finding is one line: the file or the queue, and what the damage means. Every record of every queue is read with
RocksDB's checksums, so what is not named is whole. `repair` reads queues with the functions here, so it keeps all that
this tool can read.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from darner_core.errors import DataDirError
from darner_core.showing import show
from darner_core.storage import manifest, opening, records, wal
from darner_core.storage.directory import (
    earlier_damage,
    losses,
    read_format,
    require_readable_format,
    shown_few,
)
from darner_core.storage.records import Blob, Item, QueueRecord, State
from darner_core.tools.check_asides import check_aside, find_asides
from darner_core.tools.progress import Progress
from darner_core.tools.salvage import Broken, Directory, Gap, IdGap, lock

WHOLE, DAMAGED, UNREADABLE = 0, 1, 2  # exit statuses

Say = Callable[[str], None]


class Named(NamedTuple):
    """A queue as it was found. If its name is lost, only items are left of it, and `name` is made up."""

    name: bytes
    record: QueueRecord
    lost: bool = False

    @property
    def shown(self) -> str:
        return "queue " + show(self.name)


class Counts:
    """Counts of the items of one queue, or of all queues."""

    def __init__(self) -> None:
        self.items = 0
        self.bytes = 0
        self.lost = 0  # items that were there for certain and cannot be read
        self.missing = 0  # those of the lost ones that are gone without a trace of damage in their place
        self.nameless = 0  # queues whose names are lost
        self.stateless = 0  # queues of which nothing says how many items are lost

    def add(self, more: "Counts") -> None:
        self.items += more.items
        self.bytes += more.bytes
        self.lost += more.lost
        self.missing += more.missing
        self.nameless += more.nameless
        self.stateless += more.stateless


def check(path: str, say: Say, progress: Progress) -> int:
    """Say all that is wrong with the directory `path`; the exit status. Raises DataDirError if it cannot be read."""
    with lock(path, only_reads=True):
        status = examine(path, say, progress)
    for note in leftovers(path):
        say(note)
    return status


def examine(path: str, say: Say, progress: Progress) -> int:
    """Say all that is wrong with a directory that this process has locked; the exit status. Raises DataDirError."""
    try:
        return _examine(path, say, progress)
    except OSError as error:
        raise DataDirError(f"data directory {path}: cannot be read: {error}") from error


def _examine(path: str, say: Say, progress: Progress) -> int:
    found = 0

    def tell(finding: str) -> None:
        nonlocal found
        found += 1
        progress.end()
        say(finding)

    check_files(path, tell, progress)
    total = Counts()
    queues = 0
    pointed: dict[int, set[int]] = {}  # by queue, its large items: 100 bytes for each, which has chunk_bytes on disk
    numbers: dict[bytes, int] = {}  # of the queues
    with tempfile.TemporaryDirectory() as log_folder:
        directory = open_damaged(path, log_folder, tell)
        try:
            progress.begin("checking", directory_bytes(path))
            for named in find_queues(directory, tell):
                queues += 1
                blobs = pointed[named.record.number] = set()
                numbers[named.name] = named.record.number
                total.add(_check_queue(directory, named, blobs, tell, progress))
            for queue, name, record in find_cursors(directory, _say_nothing):
                of_queue = numbers.get(queue)
                blobs = _check_cursor(directory, queue, name, record, tell, of_queue is not None)
                if of_queue is not None:
                    pointed[of_queue] |= blobs
            for aside in find_asides(directory, tell):
                checked = check_aside(directory, aside, tell)
                total.items += checked.items
                total.bytes += checked.bytes
                if aside.queue in numbers:
                    pointed[numbers[aside.queue]] |= checked.blobs
                else:
                    tell(f"queue {show(aside.queue)}: {checked.items} items are set aside, and there is no such queue")
            for note in _orphans(directory, pointed):
                progress.end()
                say(note)
        finally:
            directory.close()
    progress.end()
    what = f"{queues} queues, {total.items} items, {total.bytes} bytes"
    if not found:
        say(f"whole: {what}")
        return WHOLE
    say(
        f"damaged: {found} findings; {what} can be read, {total.lost} items are known to be lost; "
        "--repair saves what can be read"
    )
    return DAMAGED


def leftovers(path: str) -> Iterator[str]:
    """Notes about what stands in the directory or beside it and can be removed by hand."""
    with suppress(OSError):
        for name in sorted(name for name in os.listdir(path) if wal.SUFFIX + "." in name):
            why = "as it was before it was mended" if opening.DAMAGED in name else "put aside after a loss of power"
            yield f"note: {os.path.join(path, name)}: {why}; it only takes space"
    folder, name = os.path.split(os.path.realpath(path))
    with suppress(OSError):
        for other in sorted(os.listdir(folder)):
            if other.startswith((f"{name}.repaired-", f"{name}.rebuilt-")):
                left = "left by a repair that did not end; not needed if the queues are in place"
                yield f"note: {os.path.join(folder, other)}: {left}"


def directory_bytes(path: str) -> int:
    total = 0
    with os.scandir(path) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                total += entry.stat().st_size if entry.name.endswith((".sst", ".log")) else 0
    return total


def check_files(path: str, tell: Say, progress: Progress) -> None:
    """Check the files beside the database, and the write-ahead log. Raises DataDirError if it is not our directory."""
    if not records.traces(os.listdir(path)):
        raise DataDirError(f"data directory {path}: holds no queues")
    try:
        found, what = read_format(path), "damaged"
    except FileNotFoundError:
        found, what = b"", "missing"
    require_readable_format(path, found)
    if found not in records.READABLE_FORMATS:
        tell(f"file {records.FORMAT_FILE}: {what}; the queues do not suffer from that")
    _check_listed(path, tell)
    for line in earlier_damage(path):
        tell(f"found at an earlier start: {line.strip()}")
    total = sum(os.path.getsize(os.path.join(path, name)) for name in wal.files(path))
    progress.begin("checking the write-ahead log", total)
    for damage in wal.examine(path, lambda offset, _: progress.at(offset)):
        tell(str(damage))


def _check_listed(path: str, tell: Say) -> None:
    """See that all files are there that the MANIFEST lists."""
    try:
        found = manifest.read(path)
    except manifest.Damaged as error:
        tell(f"file {error}")
        return
    if found.cut_at is not None:
        tell(f"file {found.name}: unreadable from byte {found.cut_at} on")
    missing = sorted(manifest.missing_tables(path, found))
    for name in missing:
        tell(f"table file {name}: missing")
    damage, torn = losses(path, found)
    for loss in damage + torn:
        tell(loss)
    unlisted = sorted(manifest.unlisted_tables(path, found))
    if unlisted and (missing or damage):
        tell(f"file {found.name}: does not list {shown_few(unlisted)}, where items may be")


def open_damaged(path: str, log_folder: str, tell: Say) -> Directory:
    """Open the directory, without the files that cannot be opened. Raises DataDirError if nothing can be."""
    try:
        return Directory(path, log_folder)
    except Exception as error:
        first = opening.file_named(error)
    try:
        directory = Directory(path, log_folder, lenient=True)
    except Exception as error:
        why = opening.file_named(error)
        advice = "" if "Permission denied" in why or "Read-only" in why else "; --repair"
        raise DataDirError(f"data directory {path}: cannot be read at all: {why}{advice}") from error
    tell(f"table file: {first}")
    return directory


def find_queues(directory: Directory, tell: Say) -> Iterator[Named]:
    """Every queue: those that are listed, then those of which only items are left."""
    by_number: dict[int, Named] = {}
    for entry in directory.queues():
        if isinstance(entry, (Gap, Broken)):
            tell(f"list of queues: {entry.why}")
        elif entry[1].family >= len(directory.families):
            tell(f"{Named(*entry).shown}: its column family {entry[1].family} is not there")
        else:
            by_number[entry[1].number] = Named(*entry)
    cursors = {record.number for *_, record in find_cursors(directory, tell)}
    for family, handle in enumerate(directory.families):
        for number in directory.numbers(handle):
            if number not in by_number and number not in cursors:
                named = Named(b"recovered-%d" % number, QueueRecord(number, family, 0), True)
                by_number[number] = named
                tell(f"queue number {number}: its name is lost; --repair calls it {named.name.decode()}")
    yield from (by_number[number] for number in sorted(by_number))


def find_cursors(directory: Directory, tell: Say) -> Iterator[tuple[bytes, bytes, QueueRecord]]:
    """(queue's name, name, record) of every cursor that is listed."""
    for entry in directory.cursors():
        if isinstance(entry, (Gap, Broken)):
            tell(f"list of cursors: {entry.why}")
        elif entry[2].family >= len(directory.families):
            tell(f"cursor {shown_cursor(*entry[:2])}: its column family {entry[2].family} is not there")
        else:
            yield entry


def shown_cursor(queue: bytes, name: bytes) -> str:
    return show(b".".join((queue, name)))


def _check_cursor(
    directory: Directory, queue: bytes, name: bytes, record: QueueRecord, tell: Say, has_queue: bool
) -> set[int]:
    """See that all records of a cursor can be read; the numbers of the large items among its copies."""
    shown = f"cursor {shown_cursor(queue, name)}"
    blobs: set[int] = set()
    if not has_queue:
        tell(f"{shown}: there is no queue {show(queue)}")
    state = directory.state(record)
    if isinstance(state, Broken):
        tell(f"{shown}: its state cannot be read ({state.why})")
    for entry in directory.cursor_items(record):
        if isinstance(entry, IdGap):
            tell(f"{shown}: what was open there from {entry.from_id} to {entry.to_id - 1} cannot be read: {entry.why}")
        elif isinstance(entry, Broken):
            tell(f"{shown}: item {entry.id}: {entry.why}")
        elif entry[1] is not None and isinstance(entry[1][0], Blob):
            blobs.add(entry[1][0].blob)
    return blobs


def read_queue(directory: Directory, named: Named, tell: Say, counts: Counts) -> Iterator[tuple[int, Item]]:
    """(id, item) of each item of a queue that can be read, in order; `tell` hears of the others. Items that were taken
    are not read."""
    state = directory.state(named.record)
    known = not isinstance(state, Broken)
    if isinstance(state, Broken):
        counts.stateless += 1
        tell(f"{named.shown}: its state cannot be read ({state.why}): items that were confirmed may come again")
        state = State()
    expected = state.next if known else 0  # the id that has to come next; 0: whichever comes
    holes: list[tuple[int, int]] = []  # [from, to) of what is not there, and nothing says that it cannot be read
    sound, state_bytes = True, 0
    for entry in directory.items(named.record, max(records.FIRST_ID, state.first), state.tail):
        if isinstance(entry, IdGap):
            sound = False
            if entry.to_id == records.MAX_ID and entry.from_id >= state.tail:
                tell(f"{named.shown}: items from {entry.from_id} on, if there are any, cannot be read: {entry.why}")
                continue
            end = min(entry.to_id, state.tail) if entry.to_id == records.MAX_ID else entry.to_id
            counts.lost += max(0, end - max(entry.from_id, state.next)) if known else 0
            tell(f"{named.shown}: items {entry.from_id} to {end - 1} cannot be read: {entry.why}")
            expected = max(expected, end)
            continue
        item_id = entry.id if isinstance(entry, Broken) else entry[0]
        if expected and item_id > expected:
            holes.append((expected, item_id))
        if item_id >= state.next:
            expected = item_id + 1
        if isinstance(entry, Broken):
            sound = False
            counts.lost += 1
            tell(f"{named.shown}: item {item_id}: {entry.why}")
            continue
        if item_id < state.tail:
            state_bytes += len(entry[1][0])
        yield item_id, entry[1]
    if known and expected < state.tail:
        holes.append((expected, state.tail))
    unexplained = sum(to_id - from_id for from_id, to_id in holes) - state.missing
    if known and sound and unexplained < 0:
        tell(f"{named.shown}: its state tells of {state.missing} expired items, {-unexplained} of them are there")
    if unexplained > 0:
        # Nothing says in which of the holes items have expired.
        counts.lost += unexplained
        counts.missing += unexplained
        for from_id, to_id in holes:
            expired = f", {state.missing} of all that are missing have expired" if state.missing else ""
            tell(f"{named.shown}: items {from_id} to {to_id - 1} are missing{expired}")
    elif known and sound and state_bytes != state.bytes:
        tell(f"{named.shown}: its state tells of {state.bytes} bytes in items, {state_bytes} are there")


def _check_queue(directory: Directory, named: Named, blobs: set[int], tell: Say, progress: Progress) -> Counts:
    counts = Counts()
    _check_taken(directory, named, tell)
    for item_id, (body, *_) in read_queue(directory, named, tell, counts):
        if isinstance(body, Blob):
            blobs.add(body.blob)
            why = _check_blob(directory, named.record.number, body, progress)
            if why:
                counts.lost += 1
                tell(f"{named.shown}: large item {item_id}: {why}")
                continue
        counts.items += 1
        counts.bytes += len(body)
        progress.add(records.ITEM_KEY_BYTES + records.ITEM_HEADER_BYTES + (0 if isinstance(body, Blob) else len(body)))
    return counts


def _check_taken(directory: Directory, named: Named, tell: Say) -> None:
    """Look at items that have been taken and are not removed yet. Nobody needs them, but RocksDB stops when it meets
    damage."""
    record = named.record
    state = directory.state(record)
    first = records.FIRST_ID if isinstance(state, Broken) else state.first
    begin, end = records.item_key(record.number, records.FIRST_ID), records.item_key(record.number, first)
    for entry in directory.scan(directory.families[record.family], begin, end):
        if isinstance(entry, Gap):
            tell(f"{named.shown}: what has been taken of it cannot be read, and no item is lost by that: {entry.why}")


def _check_blob(directory: Directory, number: int, blob: Blob, progress: Progress) -> str:
    try:
        for chunk in directory.blob_chunks(number, blob):
            progress.add(len(chunk))
    except ValueError as error:
        return str(error)
    return ""


def _say_nothing(finding: str) -> None:
    """For findings that have been said before."""


def _orphans(directory: Directory, pointed: dict[int, set[int]]) -> Iterator[str]:
    """Notes about chunks that no item points to. An upload that was cut off leaves some until the next start; they take
    space, and do no harm."""
    uploads = {entry for entry in directory.uploads() if not isinstance(entry, Gap)}
    for number in directory.numbers(directory.chunks):
        known = pointed.get(number, set())
        count = sum(blob not in known and (number, blob) not in uploads for blob in directory.blobs(number))
        if count:
            yield f"note: queue number {number}: {count} large items' chunks belong to no item; they only take space"
