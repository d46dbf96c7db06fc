"""`--dump`: the items of a queue, one a line, read from the data directory; a server may be running in it.

It shows a snapshot, all that had been written at one moment. The directory is not changed and the server is not asked,
so what only the server knows is not shown. Opening an item writes nothing: an open item is shown as waiting until the
queue's state is written for some other reason. From then on it is shown as open or given back, which the disk cannot
tell apart.
Memory grows neither with the queue nor with its items.
"""

import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from darner_core.errors import DataDirError
from darner_core.showing import show
from darner_core.storage import opening, records
from darner_core.storage.directory import read_format, require_readable_format
from darner_core.storage.records import Blob, Item, QueueRecord
from darner_core.tools.formatting import START_BYTES, TAKEN, WAITING, item_head, item_json, item_line, show_start
from darner_core.tools.salvage import Broken, Directory, Gap, IdGap
from darner_core.tools.snapshot import snapshot

SHOWN, DAMAGED, NOT_THERE = 0, 1, 2  # exit statuses

MOST_NAMES = 10  # queues that are named if there is none with the name that was asked for
MORE_DIGITS = 100_000  # the column of ids is wide enough for this many more items than the state tells of

Say = Callable[[str], None]


def dump(path: str, queue: bytes, as_json: bool, out: TextIO, say: Say) -> int:
    """Write to `out` what is in a queue of the data directory `path`; the exit status. `say` hears what cannot be read.
    Raises DataDirError if the directory cannot be read or the queue is not there."""
    now_ms = int(time.time() * 1000)
    with snapshot(path) as here, tempfile.TemporaryDirectory() as log_folder:
        _check_format(path)
        directory = _open(path, here, log_folder)
        try:
            return _Dump(directory, _find(path, directory, queue, say), now_ms, as_json, out, say).run()
        finally:
            directory.close()


def _check_format(path: str) -> None:
    with suppress(OSError):  # --check tells of it
        require_readable_format(path, read_format(path))


def _open(path: str, here: str, log_folder: str) -> Directory:
    try:
        return Directory(here, log_folder)
    except Exception as error:
        first = error
    try:
        return Directory(here, log_folder, lenient=True)
    except Exception:
        why = opening.file_named(first).replace(here, path)
        raise DataDirError(f"data directory {path}: cannot be read: {why}") from first


def _find(path: str, directory: Directory, queue: bytes, say: Say) -> QueueRecord:
    others = []
    for entry in directory.queues():
        if isinstance(entry, (Gap, Broken)):
            say(f"list of queues: {entry.why}")
        elif entry[0] == queue and entry[1].family < len(directory.families):
            return entry[1]
        else:
            others.append(show(entry[0]))
    names = ", ".join(others[:MOST_NAMES]) or "none"
    more = f" and {len(others) - MOST_NAMES} more" if len(others) > MOST_NAMES else ""
    raise DataDirError(f"data directory {path}: there is no queue {show(queue)}; its queues: {names}{more}")


class _Dump:
    """The items of one queue."""

    def __init__(
        self, directory: Directory, queue: QueueRecord, now_ms: int, as_json: bool, out: TextIO, say: Say
    ) -> None:
        self._directory = directory
        self._queue = queue
        self._now_ms = now_ms
        self._as_json = as_json
        self._write = out.write
        self._say = say
        self._status = SHOWN
        self._id_letters = 0

    def run(self) -> int:
        state = self._directory.state(self._queue)
        if isinstance(state, Broken):
            self._tell(f"the queue's state cannot be read ({state.why}): items that are gone may be shown")
            state = records.State()
        self._id_letters = max(8, len(str(state.tail + MORE_DIGITS)))
        if not self._as_json:
            self._write(f"{item_head(self._id_letters)}\n")
        for entry in self._directory.items(self._queue, max(records.FIRST_ID, state.first), state.tail):
            if isinstance(entry, IdGap):
                end = "on" if entry.to_id == records.MAX_ID else f"to {entry.to_id - 1}"
                self._tell(f"items from {entry.from_id} {end} cannot be read: {entry.why}")
            elif isinstance(entry, Broken):
                self._tell(f"item {entry.id}: {entry.why}")
            else:
                self._show_item(entry[0], entry[1], TAKEN if entry[0] < state.next else WAITING)
        return self._status

    def _tell(self, finding: str) -> None:
        self._status = DAMAGED
        self._say(finding)

    def _show_item(self, item_id: int, item: Item, state: str) -> None:
        body, flags, expires_at_ms, added_at_ms = item
        start = self._first_chunk(item_id, body) if isinstance(body, Blob) else body[:START_BYTES]
        times = expires_at_ms, added_at_ms, self._now_ms
        if self._as_json:
            line = item_json(item_id, flags, *times, len(body), state, start, isinstance(body, Blob))
        else:
            shown = show_start(start, len(body))
            line = item_line(self._id_letters, item_id, flags, *times, len(body), state, shown)
        self._write(f"{line}\n")

    def _first_chunk(self, item_id: int, blob: Blob) -> bytes:
        try:
            chunk = self._directory.chunks.get(records.chunk_key(self._queue.number, blob.blob, 0))
        except Exception as error:
            self._tell(f"item {item_id}: {opening.file_named(error)}")
            return b""
        if chunk is None:
            self._tell(f"item {item_id}: its first chunk is missing")
            return b""
        return bytes(chunk[:START_BYTES])
