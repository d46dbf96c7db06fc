"""`--check`: read a whole data directory, change nothing, and say what is damaged.

Each finding is one line that names the file or the queue and says what the damage means. Every record of every queue is
read, and RocksDB verifies its checksum, so what no finding names is whole. `repair` reads queues with the functions of
this module, so it keeps all that this tool can read.
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TypeVar

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
from darner_core.tools.aside_salvage import aside_names, find_asides, unused_name
from darner_core.tools.check_asides import check_aside
from darner_core.tools.numbers import check_numbers
from darner_core.tools.progress import Progress
from darner_core.tools.salvage import (
    Broken,
    Gap,
    IdGap,
    ListedCursor,
    ListedQueue,
    Missing,
    Salvaged,
    open_lenient,
)
from darner_core.tools.unchanged import lock

WHOLE, DAMAGED, UNREADABLE = 0, 1, 2  # exit statuses

Say = Callable[[str], None]
_L = TypeVar("_L", ListedQueue, ListedCursor)


@dataclass
class Counts:
    """Counts of the items of one queue, or of all queues."""

    items: int = 0
    bytes: int = 0
    lost: int = 0  # items that were there for certain and cannot be read
    missing: int = 0  # lost items that are gone without a trace of damage in their place
    nameless: int = 0  # queues whose names are lost
    stateless: int = 0  # queues of which nothing says how many items are lost, or something beside items is lost

    def add(self, more: "Counts") -> None:
        for name, count in vars(more).items():
            setattr(self, name, getattr(self, name) + count)


def check(path: str, say: Say, progress: Progress) -> int:
    """Say all that is wrong with the directory `path`. Returns the exit status. Raises DataDirError if the directory
    cannot be read."""
    with lock(path, only_reads=True):
        status = examine(path, say, progress)
    for note in leftovers(path):
        say(note)
    return status


def examine(path: str, say: Say, progress: Progress) -> int:
    """`check` for a directory that this process has locked."""
    findings = 0

    def note(line: str) -> None:
        progress.end()
        say(line)

    def tell(finding: str) -> None:
        nonlocal findings
        findings += 1
        note(finding)

    try:
        check_files(path, tell, progress)
        with tempfile.TemporaryDirectory() as log_folder, closing(open_damaged(path, log_folder, tell)) as directory:
            progress.begin("checking", directory_bytes(path))
            queues, total = _check_records(directory, tell, note, progress)
    except OSError as error:
        raise DataDirError(f"data directory {path}: cannot be read: {error}") from error
    progress.end()
    what = f"{queues} queues, {total.items} items, {total.bytes} bytes"
    if not findings:
        say(f"whole: {what}")
        return WHOLE
    say(
        f"damaged: {findings} findings; {what} can be read, {total.lost} items are known to be lost; "
        "--repair saves what can be read"
    )
    return DAMAGED


def leftovers(path: str) -> Iterator[str]:
    """Notes about files and directories that can be removed by hand."""
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
        tell(f"file {records.FORMAT_FILE}: {what}; no queue is damaged by that")
    _check_listed(path, tell)
    for line in earlier_damage(path):
        tell(f"found at an earlier start: {line.strip()}")
    total = sum(os.path.getsize(os.path.join(path, name)) for name in wal.files(path))
    progress.begin("checking the write-ahead log", total)
    for damage in wal.examine(path, lambda offset, _: progress.at(offset)):
        tell(str(damage))


def _check_listed(path: str, tell: Say) -> None:
    """Compare the files that are there with those that the MANIFEST lists."""
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


def open_damaged(path: str, log_folder: str, tell: Say) -> Salvaged:
    """Open the directory, if need be without table files that cannot be opened. Raises DataDirError if that does not
    help."""
    try:
        directory, unopened = open_lenient(path, log_folder)
    except Exception as error:
        why = opening.file_named(error)
        advice = "" if "Permission denied" in why or "Read-only" in why else "; --repair"
        raise DataDirError(f"data directory {path}: cannot be read at all: {why}{advice}") from error
    if unopened:
        tell(f"table file: {unopened}")
    return directory


def find_queues(directory: Salvaged, tell: Say) -> tuple[list[ListedQueue], list[ListedCursor]]:
    """All queues, in order of their numbers, and all cursors. A queue that is not listed any more is found by its
    items."""
    queues = {queue.record.number: queue for queue in _readable(directory, "queues", directory.queues(), tell)}
    cursors = list(_readable(directory, "cursors", directory.cursors(), tell))
    known = queues.keys() | {cursor.record.number for cursor in cursors}
    nameless: list[QueueRecord] = []
    for family, handle in enumerate(directory.families):
        for number in directory.numbers(handle):
            if number not in known:
                known.add(number)
                nameless.append(QueueRecord(number, family, 0))
    names = {queue.name for queue in queues.values()}
    without_queue = aside_names(directory) - names
    for record in nameless:
        if len(nameless) == len(without_queue) == 1:
            (name,), lost = without_queue, False
            tell(f"queue number {record.number}: its record is lost; --repair takes it for queue {show(name)}")
        else:
            name, lost = unused_name(record.number, names), True
            tell(f"queue number {record.number}: its name is lost; --repair calls it {show(name)}")
        queues[record.number] = ListedQueue(name, record, lost)
    return [queues[number] for number in sorted(queues)], cursors


def _readable(directory: Salvaged, what: str, listed: Iterable[_L | Gap | Broken], tell: Say) -> Iterator[_L]:
    for entry in listed:
        if isinstance(entry, (Gap, Broken)):
            tell(f"list of {what}: {entry.why}")
        elif entry.record.family >= len(directory.families):
            tell(f"{entry.shown}: its column family {entry.record.family} is not there")
        else:
            yield entry


def _check_records(directory: Salvaged, tell: Say, note: Say, progress: Progress) -> tuple[int, Counts]:
    """Read all records of queues and cursors. Returns the number of queues and the counts of their items."""
    total = Counts()
    pointed: dict[int, set[int]] = {}  # large items by queue: 100 bytes in memory for each
    queues, cursors = find_queues(directory, tell)
    numbers = {queue.name: queue.record.number for queue in queues}
    for queue in queues:
        blobs = pointed[queue.record.number] = set()
        total.add(_check_queue(directory, queue, blobs, tell, progress))
    for cursor in cursors:
        blobs = _check_cursor(directory, cursor, tell)
        if cursor.queue in numbers:
            pointed[numbers[cursor.queue]] |= blobs
        else:
            tell(f"{cursor.shown}: there is no queue {show(cursor.queue)}")
    for aside in find_asides(directory, queues, tell):
        number = numbers.get(aside.queue)
        read_blob = _blob_reader(directory, number or 0, pointed.setdefault(number or 0, set()), progress)
        checked = check_aside(directory, aside, read_blob, tell)
        progress.add(checked.bytes)
        total.add(Counts(checked.items, checked.bytes, checked.lost, nameless=aside.lost))
        if number is None and not aside.lost:
            tell(f"queue {show(aside.queue)}: {checked.items} items are set aside, and there is no such queue")
    for line in _orphans(directory, pointed):
        note(line)
    check_numbers(directory, tell)
    return len(queues), total


def _check_cursor(directory: Salvaged, cursor: ListedCursor, tell: Say) -> set[int]:
    """Read all records of a cursor. Returns the numbers of the large items among its copies."""
    blobs: set[int] = set()
    state = directory.state(cursor.record)
    if isinstance(state, Broken):
        tell(f"{cursor.shown}: its state cannot be read ({state.why})")
    for entry in directory.cursor_items(cursor.record):
        if isinstance(entry, IdGap):
            ids = f"from {entry.from_id} to {entry.to_id - 1}"
            tell(f"{cursor.shown}: what was open there {ids} cannot be read: {entry.why}")
        elif isinstance(entry, Broken):
            tell(f"{cursor.shown}: item {entry.id}: {entry.why}")
        elif entry[1] is not None and isinstance(entry[1][0], Blob):
            blobs.add(entry[1][0].blob)
    return blobs


def read_queue(
    directory: Salvaged, queue: ListedQueue, read_blob: Callable[[Blob], object], tell: Say, counts: Counts
) -> Iterator[tuple[int, Item]]:
    """(id, item) of each item of a queue that can be read, in order; `tell` hears of the others. Items that were taken
    are left out. `read_blob` is called with each large item, and raises ValueError if not all of it can be read."""
    state = directory.state(queue.record)
    known = not isinstance(state, Broken)
    if isinstance(state, Broken):
        counts.stateless += 1
        tell(f"{queue.shown}: its state cannot be read ({state.why}): items that were confirmed may come again")
        state = State()
    expected = state.next if known else 0  # the id that has to come next; 0: any
    holes: list[tuple[int, int]] = []  # [from, to) of ids that are missing without an error
    sound, state_bytes = True, 0
    for entry in directory.items(queue.record, max(records.FIRST_ID, state.first), state.tail):
        if isinstance(entry, IdGap):
            sound = False
            if entry.to_id == records.MAX_ID and entry.from_id >= state.tail:
                tell(f"{queue.shown}: items from {entry.from_id} on, if there are any, cannot be read: {entry.why}")
                continue
            end = min(entry.to_id, state.tail) if entry.to_id == records.MAX_ID else entry.to_id
            counts.lost += max(0, end - max(entry.from_id, state.next)) if known else 0
            tell(f"{queue.shown}: items {entry.from_id} to {end - 1} cannot be read: {entry.why}")
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
            tell(f"{queue.shown}: item {item_id}: {entry.why}")
            continue
        body = entry[1][0]
        if item_id < state.tail:
            state_bytes += len(body)
        try:
            if isinstance(body, Blob):
                read_blob(body)
        except ValueError as error:
            counts.lost += 1
            counts.missing += isinstance(error, Missing)
            tell(f"{queue.shown}: large item {item_id}: {error}")
            continue
        counts.items += 1
        counts.bytes += len(body)
        yield entry
    if known and expected < state.tail:
        holes.append((expected, state.tail))
    unexplained = sum(to_id - from_id for from_id, to_id in holes) - state.missing
    if known and sound and unexplained < 0:
        tell(f"{queue.shown}: its state tells of {state.missing} expired items, {-unexplained} of them are there")
    if unexplained > 0:
        # Items that have expired left holes, too, and nothing says which.
        counts.lost += unexplained
        counts.missing += unexplained
        for from_id, to_id in holes:
            expired = f", {state.missing} of all that are missing have expired" if state.missing else ""
            tell(f"{queue.shown}: items {from_id} to {to_id - 1} are missing{expired}")
    elif known and sound and state_bytes != state.bytes:
        tell(f"{queue.shown}: its state tells of {state.bytes} bytes in items, {state_bytes} are there")


def _check_queue(directory: Salvaged, queue: ListedQueue, blobs: set[int], tell: Say, progress: Progress) -> Counts:
    read_blob = _blob_reader(directory, queue.record.number, blobs, progress)
    counts = Counts()
    _check_taken(directory, queue, tell)
    for _, (body, *_) in read_queue(directory, queue, read_blob, tell, counts):
        progress.add(records.ITEM_KEY_BYTES + records.ITEM_HEADER_BYTES + (0 if isinstance(body, Blob) else len(body)))
    return counts


def _blob_reader(directory: Salvaged, number: int, blobs: set[int], progress: Progress) -> Callable[[Blob], None]:
    """Reads large items of the queue with this number, and adds their numbers to `blobs`."""

    def read_blob(blob: Blob) -> None:
        blobs.add(blob.blob)
        for chunk in directory.blob_chunks(number, blob):
            progress.add(len(chunk))

    return read_blob


def _check_taken(directory: Salvaged, queue: ListedQueue, tell: Say) -> None:
    """Read items that have been taken and are not removed yet. Nobody needs them, but RocksDB stops writing when a
    compaction meets damage in them."""
    record = queue.record
    state = directory.state(record)
    first = records.FIRST_ID if isinstance(state, Broken) else state.first
    begin, end = records.item_key(record.number, records.FIRST_ID), records.item_key(record.number, first)
    for entry in directory.scan(directory.families[record.family], begin, end):
        if isinstance(entry, Gap):
            tell(f"{queue.shown}: what has been taken of it cannot be read, and no item is lost by that: {entry.why}")


def _orphans(directory: Salvaged, pointed: dict[int, set[int]]) -> Iterator[str]:
    """Notes about chunks that no item points to. They take space and do no harm. An upload that was cut off leaves some
    until the next start."""
    uploads = {entry for entry in directory.uploads() if not isinstance(entry, (Gap, Broken))}
    for number in directory.numbers(directory.chunks):
        known = pointed.get(number, set())
        count = sum(blob not in known and (number, blob) not in uploads for blob in directory.blobs(number))
        if count:
            yield f"note: queue number {number}: {count} large items' chunks belong to no item; they only take space"
