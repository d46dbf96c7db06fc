"""`--repair`: save what can be read of a damaged data directory, and say what is dropped.

The damaged directory is only read. What can be read is written to a new directory beside it, queue by queue, in order:
items with their flags, expiry and time, open ones as waiting. When all is on disk, the two directories change places,
and the damaged one is kept as DATA.damaged-<time>. If anything fails, it stays where it is.

If RocksDB cannot open the directory, or if items are missing and may lie in tables that RocksDB does not list, the
directory is also rebuilt (see `rebuild`) and copied from there. The copy with more items is kept.
"""

import os
import shutil
import stat
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress

from darner_core import files
from darner_core.errors import DataDirError, StorageError
from darner_core.operating_system import exchange
from darner_core.showing import show
from darner_core.storage import job_records, records, wal
from darner_core.storage.records import Blob, Expiry, Item, QueueRecord, item_key
from darner_core.storage.rocks import JOB_FAMILY
from darner_core.storage.storage import CHUNK_FAMILY, Batch, Storage
from darner_core.tools.aside_copy import CopiedAside, CopyBlob
from darner_core.tools.aside_salvage import Aside, find_asides
from darner_core.tools.check import (
    WHOLE,
    Counts,
    Say,
    directory_bytes,
    examine,
    find_queues,
    leftovers,
    read_queue,
)
from darner_core.tools.cursor_copy import CopiedCursors
from darner_core.tools.line_copy import CopiedLine
from darner_core.tools.numbers import copy_numbers
from darner_core.tools.progress import Progress
from darner_core.tools.rebuild import BATCH_BYTES, manifest_is_cut, opened, rebuild, share
from darner_core.tools.salvage import ListedCursor, ListedQueue, Salvaged
from darner_core.tools.unchanged import lock

DROPPED = 1  # exit status: repaired, but not all could be saved

# An older record may win over a newer one then: a compaction to the last level sets the newer one's sequence number to
# 0, and a table from before the compaction may still be there.
_MAY_COME_AGAIN = "saved from all tables there are, also from those that were replaced: confirmed items may come again"


def repair(path: str, max_column_families: int, say: Say, progress: Progress) -> int:
    """Repair the directory `path`. Returns the exit status. Raises DataDirError if nothing could be repaired, and has
    changed nothing then."""
    path = os.path.realpath(path)
    log_damaged = False

    def say_and_note(finding: str) -> None:
        nonlocal log_damaged
        log_damaged = log_damaged or finding.startswith(wal.FINDING)
        say(finding)

    with lock(path):
        for note in leftovers(path):
            say(note)
        try:
            if examine(path, say_and_note, progress) == WHOLE:
                say("nothing to repair")
                return WHOLE
        except DataDirError as error:
            if not records.traces(os.listdir(path)):
                raise
            say(str(error))
        saving = _Saving(path, max_column_families, say, progress)
        try:
            counts = saving.run()
            _make_alike(path, saving.made)
        except BaseException as error:
            shutil.rmtree(saving.made, ignore_errors=True)
            if isinstance(error, (StorageError, OSError)):
                raise DataDirError(f"data directory {path}: not repaired, and not changed: {error}") from error
            raise
        _change_places(path, saving.made, f"{path}.damaged-{saving.stamp}")
    say(f"{path} is repaired; the damaged directory is kept as {path}.damaged-{saving.stamp}")
    if log_damaged:
        say("writes in the unreadable part of the write-ahead log are lost, too; nothing tells whose they were")
        return DROPPED
    return DROPPED if counts.lost or counts.nameless or counts.stateless else WHOLE


def _free_stamp(path: str) -> str:
    """The time, for the names of directories beside `path`, followed by a number if these names are taken."""
    now = stamp = time.strftime("%Y%m%d-%H%M%S")
    number = 1
    while any(os.path.exists(f"{path}.{what}-{stamp}") for what in ("damaged", "repaired", "rebuilt")):
        number += 1
        stamp = f"{now}-{number}"
    return stamp


def _make_alike(path: str, made: str) -> None:
    """Give the directory `made` the owner and permissions of `path`, so that the server can use it and no other user
    can read it."""
    found = Counter(_access(entry.path) for entry in os.scandir(path) if entry.is_file())
    (mode, user, group), _ = found.most_common(1)[0]
    for entry in os.scandir(made):
        _set_access(entry.path, mode, user, group)
    _set_access(made, *_access(path))
    files.sync_folder(made)


def _access(path: str) -> tuple[int, int, int]:
    status = os.stat(path)
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


def _set_access(path: str, mode: int, user: int, group: int) -> None:
    if os.geteuid() == 0:
        os.chown(path, user, group)  # before the mode, whose special bits it takes away
    os.chmod(path, mode)


def _change_places(path: str, made: str, kept: str) -> None:
    """Rename `path` to `kept` and `made` to `path`: in one step where the system can, so that there is a directory at
    `path` even after a kill. Raises DataDirError, with `path` as it was."""
    try:
        os.rename(made, kept)
        if not exchange(kept, path):
            os.rename(kept, made)
            os.rename(path, kept)
            os.rename(made, path)
    except OSError as error:
        with suppress(OSError):
            if not os.path.exists(path):
                os.rename(kept, path)
            elif not os.path.exists(made):
                os.rename(kept, made)
        raise DataDirError(
            f"data directory {path}: repaired as {made}, which cannot take its place: {error.strerror}"
        ) from error
    files.sync_folder(os.path.dirname(path))


# -- what is saved, and from where


class _Saving:
    """Saves what can be read of `path` in the new directory `made`."""

    def __init__(self, path: str, families: int, say: Say, progress: Progress) -> None:
        self._path = path
        self._families = families
        self._say = say
        self._progress = progress
        self.stamp = _free_stamp(path)
        self.made = f"{path}.repaired-{self.stamp}"
        self._other = f"{self.made}-2"
        self._rebuilt = f"{path}.rebuilt-{self.stamp}"

    def run(self) -> Counts:
        """Save all that can be read. Returns the counts of what was saved and lost."""
        try:
            with tempfile.TemporaryDirectory() as log_folder:
                counts, said = self._fuller(log_folder)
        finally:
            shutil.rmtree(self._rebuilt, ignore_errors=True)
            shutil.rmtree(self._other, ignore_errors=True)
        for line in said:
            self._say(line)
        return counts

    def _fuller(self, log_folder: str) -> tuple[Counts, list[str]]:
        """Copy what the directory lists. Only if that may not be all, rebuild it, copy that as well, and keep the copy
        with more items: what is rebuilt may lack items, or have some that were removed."""
        source, whole = _open_listed(self._path, self._rebuilt, log_folder, self._say)
        if source is None:
            counts, said = self._copy_rebuilt(self.made, log_folder)
            return counts, [_MAY_COME_AGAIN, *said]
        with closing(source):
            unlisted = bool(source.unlisted_tables())
            cut = unlisted and manifest_is_cut(source.path)
            listed, said = self._copy(source, self.made)
        if whole and not (unlisted and (cut or listed.missing or listed.nameless)):
            return listed, said
        if whole:
            self._say("items may be in tables that RocksDB does not list: rebuilding")
        try:
            rebuilt, said_of_rebuilt = self._copy_rebuilt(self._other, log_folder)
        except (DataDirError, StorageError, OSError) as error:
            return listed, [f"{error}; saved what could be read without that", *said]
        if rebuilt.items < listed.items or not (
            rebuilt.lost < listed.lost
            or rebuilt.nameless < listed.nameless
            or (rebuilt.items > listed.items and (cut or not whole))
        ):
            return listed, said
        shutil.rmtree(self.made)
        os.rename(self._other, self.made)
        return rebuilt, [_MAY_COME_AGAIN, *said_of_rebuilt]

    def _copy_rebuilt(self, made: str, log_folder: str) -> tuple[Counts, list[str]]:
        rebuild(self._path, self._rebuilt, self._families, log_folder)
        with closing(Salvaged(self._rebuilt, log_folder)) as source:
            return self._copy(source, made)

    def _copy(self, source: Salvaged, made: str) -> tuple[Counts, list[str]]:
        said: list[str] = []
        os.mkdir(made, 0o700)  # no other user may read it meanwhile
        with opened(made, max(self._families, len(source.families))) as storage:
            counts = _Copy(source, storage, said.append, self._progress).run(directory_bytes(self._path))
        return counts, said


def _open_listed(path: str, shared: str, log_folder: str, say: Say) -> tuple[Salvaged | None, bool]:
    """The damaged directory, None if RocksDB cannot open it; and whether it was opened with all its files."""
    with suppress(Exception):
        return Salvaged(path, log_folder), True
    say("RocksDB cannot open all of it: rebuilding")
    manifests = [name for name in os.listdir(path) if name.startswith("MANIFEST-")]
    for manifest in sorted(manifests, key=lambda name: (len(name), name), reverse=True):
        share(path, shared)  # only CURRENT may be damaged
        with open(os.path.join(shared, "CURRENT"), "w") as file:
            file.write(f"{manifest}\n")
        with suppress(Exception):
            return Salvaged(shared, log_folder), True
    with suppress(Exception):
        return Salvaged(path, log_folder, lenient=True), False
    return None, False


# -- copying


class _Copy:
    """Copies what can be read of `source` to a new data directory."""

    def __init__(self, source: Salvaged, storage: Storage, say: Say, progress: Progress) -> None:
        self._source = source
        self._say = say
        self._progress = progress
        self._storage = storage
        self._batch: Batch = storage.batch()
        self._batched = 0
        self._cursors: dict[bytes, list[ListedCursor]] = {}  # by queue
        self._asides: dict[bytes, Aside] = {}  # by queue
        self._next_number = 0  # of the next cursor or aside

    def run(self, total_bytes: int) -> Counts:
        """Copy all of it."""
        total = Counts()
        self._progress.begin("saving", total_bytes)
        queues, cursors = find_queues(self._source, lambda _: None)  # `examine` has told what is wrong
        for cursor in cursors:
            self._cursors.setdefault(cursor.queue, []).append(cursor)
        queues += self._find_asides(queues)
        self._next_number = len(queues) + 1
        for number, queue in enumerate(queues, 1):
            total.add(self._queue(number, queue))
        copy_numbers(self._source, self._storage, self._batch, self._say)
        self._flush()
        self._storage.flush()
        self._storage.sync()
        self._progress.end()
        self._say(f"saved {len(queues)} queues, {total.items} items, {total.bytes} bytes; {total.lost} items dropped")
        return total

    def _find_asides(self, queues: list[ListedQueue]) -> list[ListedQueue]:
        """Find what is set aside. Returns the queues of which nothing else is left, with numbers that nothing has."""
        known = {queue.name for queue in queues}
        alone = []
        for aside in find_asides(self._source, queues, lambda _: None):
            self._asides[aside.queue] = aside
            if aside.queue not in known:
                alone.append(ListedQueue(aside.queue, QueueRecord(0, 0, aside.record.created_at_ms), aside.lost))
        return alone

    def _queue(self, number: int, found: ListedQueue) -> Counts:
        name = found.name
        made_at_ms = found.record.created_at_ms or int(time.time() * 1000)
        record = QueueRecord(number, found.record.family, made_at_ms, found.record.kind)
        self._storage.add_queue(self._batch, name, record)
        counts = Counts()
        counts.nameless += found.lost
        dropped: list[str] = []
        cursors = CopiedCursors(self._source, self._cursors.get(found.name, []), self._say)
        line = CopiedLine(self._source, found, found.name in self._asides, cursors.first_id)
        blobs = 0

        def copy_blob(blob: Blob) -> Blob:
            nonlocal blobs
            blobs += 1
            self._blob(found.record.number, blob, number, blobs)
            return Blob(blobs, len(blob))

        for item_id, item in read_queue(self._source, found, copy_blob, dropped.append, counts):
            if isinstance(item[0], Blob):
                item = (Blob(blobs, len(item[0])), *item[1:])
            new_id = line.add(item_id)
            self._item(record, new_id, item)
            if (job := line.jobs.of(item_id)) is not None:
                self._put(JOB_FAMILY, job_records.job_key(number, new_id), job_records.pack_job(job))
            cursors.saved(item_id, new_id)
        if dropped or (found.lost and found.record.number):
            self._say(f"{ListedQueue(name, record).shown}: {counts.items} items saved, {counts.lost} dropped")
        stored_bytes = counts.bytes
        if found.name in self._asides:
            aside = self._copy_aside(self._asides[found.name], name, copy_blob)
            line.tail = max(line.tail, aside.line_tail)
            counts.add(aside.counts)
        cursors.end(line.tail)
        self._put_cursors(record, name, found.record.number, cursors, blobs, line.keeps_ids)
        self._put(record.family, item_key(number, records.STATE_ID), line.state(stored_bytes))
        self._progress.end()
        return counts

    def _copy_aside(self, found: Aside, queue: bytes, copy_blob: CopyBlob) -> CopiedAside:
        number, self._next_number = self._next_number, self._next_number + 1
        made_at_ms = found.record.created_at_ms or int(time.time() * 1000)
        self._storage.jobs.add_aside(self._batch, queue, found.record._replace(number=number, created_at_ms=made_at_ms))
        copied = CopiedAside(self._source, found, number, show(queue), self._put, copy_blob, self._say)
        copied.run()
        self._progress.add(copied.counts.bytes)
        return copied

    def _put_cursors(
        self,
        queue: QueueRecord,
        name: bytes,
        old_number: int,
        cursors: CopiedCursors,
        blobs: int,
        keeps_ids: bool,
    ) -> None:
        copy_id = records.FIRST_ID
        copied: dict[int, int] = {}  # old number -> new of large items: several cursors may have the same
        for cursor in cursors.found:
            number, self._next_number = self._next_number, self._next_number + 1
            record = QueueRecord(number, queue.family, cursor.record.created_at_ms)
            self._storage.add_cursor(self._batch, name, cursor.name, record)
            place = cursors.places[cursor.place]
            self._put(record.family, item_key(number, records.STATE_ID), records.pack_state(place, place, 0, 0, 0))
            for item_id in cursor.marks & cursors.marks.keys():
                self._put(record.family, item_key(number, cursors.marks[item_id]), records.HELD)
            for old_id, item in cursor.copies:
                body = item[0]
                if isinstance(body, Blob):
                    if body.blob not in copied:
                        blobs += 1
                        try:
                            self._blob(old_number, body, queue.number, blobs)
                        except ValueError:
                            self._say(f"cursor {show(cursor.name)}: a large item that was open there is dropped")
                            continue
                        copied[body.blob] = blobs
                    item = (Blob(copied[body.blob], len(body)), *item[1:])
                self._item(record, old_id if keeps_ids else copy_id, item)
                copy_id += 1

    def _item(self, record: QueueRecord, item_id: int, item: Item) -> None:
        value = records.pack_item(item)
        self._put(record.family, item_key(record.number, item_id), value)
        if item[2]:
            self._storage.add_expiry(self._batch, Expiry(item[2], record.number, item_id))
        self._progress.add(records.ITEM_KEY_BYTES + len(value))

    def _blob(self, from_number: int, body: Blob, number: int, blob: int) -> None:
        """Copy the chunks of a large item, all or none. Raises ValueError if they cannot be read."""
        try:
            for index, chunk in enumerate(self._source.blob_chunks(from_number, body)):
                self._put(CHUNK_FAMILY, records.chunk_key(number, blob, index), chunk)
                self._progress.add(len(chunk))
        except ValueError:
            self._storage.remove_blobs(self._batch, number, blob, blob + 1)
            raise

    def _put(self, family: int, key: bytes, value: bytes) -> None:
        self._batch.put(key, value, self._storage.handles[family])
        self._batched += len(key) + len(value)
        if self._batched > BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._storage.write(self._batch)
        self._batch, self._batched = self._storage.batch(), 0
