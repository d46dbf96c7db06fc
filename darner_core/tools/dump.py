"""`--dump`: the items of a queue, one a line, read from the data directory; a server may be running in it.

It shows a snapshot: all that had been written at one moment. The directory is not changed and the server is not asked,
so what only the server knows is not shown. To open an item writes nothing, so an open item is shown as waiting until
the queue's state is written for another reason. From then on it is shown as open or returned, which look alike on disk.
Items that are set aside follow those of the line.

Memory grows neither with the queue nor with its items.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import TextIO

from darner_core.errors import DataDirError
from darner_core.showing import show
from darner_core.storage import opening, records
from darner_core.storage.directory import read_format, require_readable_format
from darner_core.storage.job_records import DELAYED, DYING, NEUTRAL_PRI, Job
from darner_core.storage.records import Blob, Item, QueueRecord
from darner_core.tools import formatting
from darner_core.tools.aside_salvage import AsideReader, LineJobs, aside_of
from darner_core.tools.formatting import (
    DEAD_LETTER,
    START_BYTES,
    TAKEN,
    WAITING,
    ShownItem,
    ShownJob,
    aside_head,
    aside_lines,
    item_head,
    item_json,
    item_line,
)
from darner_core.tools.numbers import NumbersOf
from darner_core.tools.salvage import Broken, Gap, IdGap, Salvaged, open_lenient
from darner_core.tools.snapshot import snapshot

SHOWN, DAMAGED, NOT_THERE = 0, 1, 2  # exit statuses

MOST_NAMES = 10  # queues that an error names if the directory has no queue with the name that was asked for
MORE_DIGITS = 100_000  # room in the column of ids for items that were put after the state was written

# Of items that are set aside, as kinds in their order.
STATES = (formatting.READY, formatting.DELAYED, formatting.BURIED)

Say = Callable[[str], None]


def dump(path: str, queue: bytes, as_json: bool, out: TextIO, say: Say) -> int:
    """Write to `out` what is in a queue of the data directory `path`. `say` hears what cannot be read. Returns the exit
    status. Raises DataDirError if the directory cannot be read or the queue is not there."""
    status = SHOWN

    def tell(finding: str) -> None:
        nonlocal status
        status = DAMAGED
        say(finding)

    now_ms = int(time.time() * 1000)
    with snapshot(path) as here, tempfile.TemporaryDirectory() as log_folder:
        with suppress(OSError):  # a missing FORMAT is for --check to tell of
            require_readable_format(path, read_format(path))
        try:
            directory, _ = open_lenient(here, log_folder)
        except Exception as error:
            why = opening.file_named(error).replace(here, path)
            raise DataDirError(f"data directory {path}: cannot be read: {why}") from error
        with closing(directory):
            record = find_queue(path, directory, queue, say)
            numbers = NumbersOf(directory, record.number, tell)
            for line in _lines(directory, record, numbers, as_json, now_ms, tell):
                out.write(f"{line}\n")
            aside = aside_of(directory, queue, tell)
            if aside is not None:
                for line in _aside_lines(directory, record, aside.number, numbers, as_json, now_ms, tell):
                    out.write(f"{line}\n")
    return status


def find_queue(path: str, directory: Salvaged, queue: bytes, say: Say) -> QueueRecord:
    others = []
    for entry in directory.queues():
        if isinstance(entry, (Gap, Broken)):
            say(f"list of queues: {entry.why}")
        elif entry.name == queue and entry.record.family < len(directory.families):
            return entry.record
        else:
            others.append(show(entry.name))
    names = ", ".join(others[:MOST_NAMES]) or "none"
    more = f" and {len(others) - MOST_NAMES} more" if len(others) > MOST_NAMES else ""
    raise DataDirError(f"data directory {path}: there is no queue {show(queue)}; its queues: {names}{more}")


def _lines(
    directory: Salvaged, queue: QueueRecord, numbers: NumbersOf, as_json: bool, now_ms: int, tell: Say
) -> Iterator[str]:
    """The head, and a line for each item of the queue that can be read; `tell` hears of the others."""
    state = directory.state(queue)
    if isinstance(state, Broken):
        tell(f"the queue's state cannot be read ({state.why}): items that are gone may be shown")
        state = records.State()
    id_letters = max(8, len(str(state.tail + MORE_DIGITS)))
    if not as_json:
        yield item_head(id_letters, bool(numbers))
    jobs = LineJobs(directory, queue.number)
    for entry in directory.items(queue, max(records.FIRST_ID, state.first), state.tail):
        if isinstance(entry, IdGap):
            end = "on" if entry.to_id == records.MAX_ID else f"to {entry.to_id - 1}"
            tell(f"items from {entry.from_id} {end} cannot be read: {entry.why}")
            continue
        if isinstance(entry, Broken):
            tell(f"item {entry.id}: {entry.why}")
            continue
        item_id, item = entry
        shown = _shown(directory, queue, item_id, item, TAKEN if item_id < state.next else WAITING, now_ms, tell)
        number = numbers.of(item_id)
        if as_json:
            job = jobs.of(item_id)
            yield item_json(shown, number, _shown_job(job) if job is not None else None)
        else:
            yield item_line(id_letters, shown, number if numbers else None)


def _shown(
    directory: Salvaged, queue: QueueRecord, item_id: int, item: Item, state: str, now_ms: int, tell: Say
) -> ShownItem:
    body, flags, expires_at_ms, added_at_ms = item
    is_large = isinstance(body, Blob)
    start = _first_chunk(directory, queue, item_id, body, tell) if isinstance(body, Blob) else body
    return ShownItem(
        item_id, flags, expires_at_ms, added_at_ms, now_ms, len(body), state, start[:START_BYTES], is_large
    )  # fmt: skip


def _shown_job(job: Job) -> ShownJob:
    due_ms = job.at if job.state == DELAYED else 0
    return ShownJob(due_ms, job.pri, job.ttr_ms, job.key, *job[5:10], job.note)


def _aside_lines(
    directory: Salvaged, queue: QueueRecord, aside: int, numbers: NumbersOf, as_json: bool, now_ms: int, tell: Say
) -> Iterator[str]:
    """A line for each item that is set aside: first what is ready, then what is delayed, then what is buried, each in
    the order in which it goes out."""
    told = set()

    def found(where: str, what: str) -> None:
        if (where, what) not in told:
            told.add((where, what))
            tell(f"set aside: {where}: {what}")

    reader = AsideReader(directory, aside, found)
    is_first = not as_json
    for entry, kind in reader.in_order():
        job = entry.job if isinstance(entry.job, Job) else Job(kind, NEUTRAL_PRI, 0)
        if not isinstance(entry.job, Job):
            found(f"item {entry.id}", "its job cannot be read")
        if entry.item is None or isinstance(entry.item, Broken):
            found(f"item {entry.id}", "it cannot be read")
            continue
        state = DEAD_LETTER if job.state == DYING else STATES[kind]
        shown = _shown(directory, queue, entry.id, entry.item, state, now_ms, tell)
        if is_first:
            yield from ("", aside_head(bool(numbers)))
            is_first = False
        number, shown_job = numbers.of(entry.id), _shown_job(job._replace(state=kind))
        if as_json:
            yield item_json(shown, number, shown_job)
        else:
            yield from aside_lines(shown, shown_job, number if numbers else None)


def _first_chunk(directory: Salvaged, queue: QueueRecord, item_id: int, blob: Blob, tell: Say) -> bytes:
    try:
        return next(directory.blob_chunks(queue.number, blob), b"")
    except ValueError as error:
        tell(f"item {item_id}: {error}")
        return b""
