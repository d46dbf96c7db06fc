"""Whole items of a queue, read from the data directory, whether a server is running in it or not.

As `dump`, this sees a snapshot, and asks and changes nothing. It gives bodies whole, or in chunks if they are large,
and what is stored of each item's job. First comes the line, in its order, then what is set aside, in the order in which
it goes out. An item that a client has open is still in its queue, and comes, too.
"""

import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from typing import NamedTuple

from darner_core.errors import DataDirError
from darner_core.storage import opening, records
from darner_core.storage.directory import read_format, require_readable_format
from darner_core.storage.job_records import BURIED, DELAYED, NEUTRAL_PRI, Job
from darner_core.storage.records import Blob, Item, QueueRecord
from darner_core.tools.aside_salvage import AsideReader, LineJobs, Tell, aside_of
from darner_core.tools.dump import Say, find_queue
from darner_core.tools.salvage import Broken, IdGap, Salvaged, open_lenient
from darner_core.tools.snapshot import snapshot

__all__ = ["NEUTRAL_PRI", "WholeItem", "whole_items"]


class WholeItem(NamedTuple):
    """`due_ms`: when a delayed item is ready, since 1970; else 0. `body`: all of it, or the chunks of a large one."""

    id: int
    flags: int
    expires_at_ms: int
    size: int
    body: bytes | Iterator[bytes]
    pri: int = NEUTRAL_PRI
    ttr_ms: int = 0
    due_ms: int = 0
    key: bytes = b""
    is_buried: bool = False
    failures: int = 0


def whole_items(path: str, queue: bytes, tell: Say) -> Generator[WholeItem]:
    """`tell` hears what cannot be read. A large body has to be read before the next item is asked for. Raises
    DataDirError."""
    with snapshot(path) as here, tempfile.TemporaryDirectory() as log_folder:
        with suppress(OSError):
            require_readable_format(path, read_format(path))
        try:
            directory, _ = open_lenient(here, log_folder)
        except Exception as error:
            why = opening.file_named(error).replace(here, path)
            raise DataDirError(f"data directory {path}: cannot be read: {why}") from error
        with closing(directory):
            record = find_queue(path, directory, queue, tell)
            aside = aside_of(directory, queue, tell)
            reader = None

            def found(where: str, what: str) -> None:
                tell(f"set aside: {where}: {what}")

            terms = NEUTRAL_PRI, 0
            if aside is not None:
                reader, terms = AsideReader(directory, aside.number, found), (aside.pri, aside.ttr_ms)
            yield from _line(directory, record, terms, tell)
            if reader is not None:
                yield from _aside(directory, record, reader, found)


def _line(directory: Salvaged, queue: QueueRecord, terms: tuple[int, int], tell: Say) -> Iterator[WholeItem]:
    state = directory.state(queue)
    if isinstance(state, Broken):
        tell(f"the queue's state cannot be read ({state.why}): items that are gone may come")
        state = records.State()
    jobs = LineJobs(directory, queue.number)
    for entry in directory.items(queue, max(records.FIRST_ID, state.first), state.tail):
        if isinstance(entry, IdGap):
            end = "on" if entry.to_id == records.MAX_ID else f"to {entry.to_id - 1}"
            tell(f"items from {entry.from_id} {end} cannot be read: {entry.why}")
        elif isinstance(entry, Broken):
            tell(f"item {entry.id}: {entry.why}")
        else:
            item_id, item = entry
            job = jobs.of(item_id)
            failures = 0 if job is None else job.nacks + job.timeouts + job.losses
            yield _whole(directory, queue, item_id, item)._replace(pri=terms[0], ttr_ms=terms[1], failures=failures)


def _aside(directory: Salvaged, queue: QueueRecord, reader: AsideReader, found: Tell) -> Iterator[WholeItem]:
    for entry, kind in reader.in_order():
        if entry.item is None or isinstance(entry.item, Broken):
            found(f"item {entry.id}", "it cannot be read")
            continue
        job = entry.job if isinstance(entry.job, Job) else Job(kind, NEUTRAL_PRI, 0)
        if not isinstance(entry.job, Job):
            found(f"item {entry.id}", "its job cannot be read")
        yield _whole(directory, queue, entry.id, entry.item)._replace(
            pri=job.pri, ttr_ms=job.ttr_ms, due_ms=job.at if kind == DELAYED else 0, key=job.key,
            is_buried=kind == BURIED, failures=job.nacks + job.timeouts + job.losses,
        )  # fmt: skip


def _whole(directory: Salvaged, queue: QueueRecord, item_id: int, item: Item) -> WholeItem:
    body, flags, expires_at_ms, _ = item
    content = directory.blob_chunks(queue.number, body) if isinstance(body, Blob) else body
    return WholeItem(item_id, flags, expires_at_ms, len(body), content)
