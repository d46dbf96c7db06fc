"""A flush of an aside: what is ready or delayed goes, what is open or buried stays.

It is decided in one turn. If there is much, it is removed over many turns, and a record on disk says so: what the flush
takes is gone for whoever asks, before and after a crash, and is removed when the server has started again. What is put
meanwhile stays, and so does what becomes ready though it was buried or open.

All functions are about one aside. No call here switches greenlets.
"""

import logging
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from darner_core import NAME
from darner_core.engines.local import aside_keys
from darner_core.engines.local.aside_leaving import remove_id
from darner_core.errors import StorageError
from darner_core.repeated import BY_TEXT
from darner_core.showing import show
from darner_core.storage.job_records import Flush, Job

if TYPE_CHECKING:
    from darner_core.engines.local.aside import Aside
    from darner_core.engines.local.order import Order

log = logging.getLogger(NAME)

# Items that a slice of a flush looks at, and removes: 2 to 4 ms.
FLUSHED_AT_ONCE = 200

# To find out whose chunks have to stay, a slice reads FLUSHED_AT_ONCE items, or stops earlier after this many bytes of
# bodies.
READ_AT_ONCE_BYTES = 1 << 20

# Ranges of chunks that a slice removes.
RANGES_AT_ONCE = 50

# Until a flush that met an error goes on.
RETRY_MS = 10_000


class Flushing:
    """A flush that is being carried out."""

    __slots__ = ("flush", "parts", "large_bytes", "undone", "runs")

    def __init__(self, flush: Flush, parts: int, large_bytes: int = 0) -> None:
        self.flush = flush
        self.parts = parts  # no part of its record has a higher number
        self.large_bytes = large_bytes  # about so many are in chunks of what has gone from the line
        self.undone = False  # what a slice has removed may be there again
        self.runs = False  # somebody goes on with it


def flush(aside: "Aside", before: int, open_ids: Collection[int] = (), large_bytes: int = -1) -> None:
    """Remove what is ready or delayed now, and nobody has open. `before`: twice the tail of the line; `open_ids`: what
    is open there. `large_bytes`: of what has been flushed from the line, where chunks may be left, -1: there are none.
    They are not removed at once, because to find out whose chunks have to stay, all that lies aside has to be read.
    Raises StorageError, with nothing changed but what is undone with the turn."""
    waiting = aside.ready.waiting + aside.delayed.waiting
    if waiting <= FLUSHED_AT_ONCE:
        for order in (aside.delayed, aside.ready):
            while (place := aside.reading(order.first)) is not None:
                remove_id(aside, place[2])
        if large_bytes < 0:
            _end(aside)  # an earlier one has nothing to do any more
            return
    end_blob, coming = (aside.large_items.next_blob, aside.large_items.coming) if large_bytes >= 0 else (0, frozenset())
    taken = Flush(before, aside.new_id, end_blob, coming, {*aside.outstanding, *open_ids})
    _set(aside, Flushing(taken, 1, large_bytes))
    go_on(aside)


def read_back(aside: "Aside", flush: Flush | None) -> None:
    """When the server starts: this is what the disk tells. Raises StorageError."""
    if flush is not None:
        if flush.end_blob:  # what comes now must not be taken for what was there before
            aside.large_items.pass_over(flush.end_blob)
        aside.flushing = Flushing(flush, 1 + len(flush.spared))
        go_on(aside)


def go_on(aside: "Aside") -> None:
    """Let the turns to come remove what a flush has taken, if there is one."""
    flushing = aside.flushing
    if flushing is not None and not flushing.runs:
        flushing.runs = True
        aside.log.journal.slices.append(_carry_out(aside, flushing))


def owner_of_key(aside: "Aside", key: bytes) -> int:
    """As `aside_keys.owner`; what a flush has taken owns nothing."""
    owner = aside_keys.owner(aside, key)
    if owner and aside.flushing is not None:
        job = aside.reading(aside.log.job, owner)
        if job is not None and aside.is_flushed(owner, job):
            remove_id(aside, owner)
            return aside_keys.owner(aside, key)  # it may stay taken for a while
    return owner


def spare(aside: "Aside", item_id: int, job: Job) -> None:
    """With this job an item becomes ready or delayed that was neither when the queue was flushed: it stays."""
    flushing = aside.flushing
    if flushing is None or not flushing.flush.takes_job(item_id, job):
        return
    aside.log.journal.count(flushing, "parts")
    aside.log.journal.undo.append((flushing.flush.spared.discard, item_id))
    flushing.flush.spared.add(item_id)
    aside.log.write_spared(flushing.parts, item_id)


def _set(aside: "Aside", flushing: Flushing | None) -> None:
    """In this turn, begin or end a flush."""
    if not aside.log.touched:
        aside.enter_turn()
    aside.log.journal.undo.append((setattr, aside, "flushing", aside.flushing))
    aside.flushing = flushing
    aside.log.write_flush(flushing.flush if flushing is not None else None)


def _end(aside: "Aside") -> None:
    if aside.flushing is not None:
        _set(aside, None)


def _carry_out(aside: "Aside", flushing: Flushing) -> Iterator[None]:
    """Remove it, a slice with each step."""
    try:
        while aside.flushing is flushing and not aside.deleted:
            flushing.undone = False
            # The delayed first: one that is due meanwhile goes to where it is looked for afterwards.
            for order in (aside.delayed, aside.ready):
                for _ in _remove_all(aside, flushing, order):
                    yield
                    if aside.flushing is not flushing or aside.deleted:
                        return
            if flushing.flush.end_blob:
                for _ in _remove_chunks(aside, flushing):
                    yield
                    if aside.flushing is not flushing or aside.deleted:
                        return
            if not flushing.undone:
                _end(aside)
                yield  # if this cannot be written, all begins again
    except StorageError as error:
        log.error("queue %s: a flush could not be ended yet: %s", show(aside.name), error, extra=BY_TEXT)
        aside.watcher.note(aside, aside.log.journal.time_ms() + RETRY_MS)
    finally:
        flushing.runs = False


def _remove_all(aside: "Aside", flushing: Flushing, order: "Order") -> Iterator[None]:
    """What the flush takes of this order. It is read from the disk: all of it was there when the first turn ended."""
    begin = order.lowest()
    while places := aside.reading(aside.log.places, order.kind, begin, FLUSHED_AT_ONCE):
        aside.log.journal.undo.append((setattr, flushing, "undone", True))
        changed = aside.log.order[order.kind]
        for place in places:
            if flushing.flush.takes(place) and place not in order.hidden and changed.get(place, b"") is not None:
                remove_id(aside, place[2])
        begin = (*places[-1][:2], places[-1][2] + 1)
        yield


def _remove_chunks(aside: "Aside", flushing: Flushing) -> Iterator[None]:
    """Of large items that do not exist any more."""
    end_blob, coming = flushing.flush.end_blob, flushing.flush.blobs
    # What is open in the line may come here, behind what has been read.
    keep = coming | aside.parent.outstanding_blobs()
    for some in aside.log.stored_blobs(FLUSHED_AT_ONCE, READ_AT_ONCE_BYTES):
        keep |= some
        yield
    begin, ranges = 1, 0
    for kept in [*sorted(blob for blob in keep if blob < end_blob), end_blob]:
        if begin < kept:
            aside.log.journal.undo.append((setattr, flushing, "undone", True))
            aside.large_items.remove(begin, kept, flushing.large_bytes if not ranges else 0)
            ranges += 1
            if ranges % RANGES_AT_ONCE == 0:
                yield
        begin = kept + 1
