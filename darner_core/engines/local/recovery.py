"""What a queue has on disk: it is read back when the server starts, put right after a failed turn, and removed with the
queue.

No call here switches greenlets.
"""

from typing import TYPE_CHECKING

from darner_core.engines.local import reads, window
from darner_core.storage import records
from darner_core.storage.records import Expiry, State
from darner_core.storage.storage import Batch

if TYPE_CHECKING:
    from darner_core.engines.local.message_queue import MessageQueue


def read_back(queue: "MessageQueue", state: State) -> None:
    """Give a new queue the numbers of its state record and of its items. What was open when the server ended waits
    again, ahead of all that was never handed out. Raises StorageError."""
    journal, record = queue.log.journal, queue.log.record
    queue.next_id, queue.tail, queue.missing = state.next, state.tail, state.missing
    stored_bytes = state.bytes
    now_ms = journal.time_ms()
    if state.first < state.next:
        for item_id, item in journal.storage.items(record, state.first, state.next):
            expires_at_ms = queue.aged(item)[2]
            reads.wait_again(queue, item_id, item, expires_at_ms)
            if 0 < expires_at_ms < now_ms:  # the sweeper may have passed it while it was open
                journal.again.append(Expiry(expires_at_ms, record.number, item_id))
    for item_id, item in journal.storage.items(record, state.tail, records.MAX_ID):
        stored_bytes += len(item[0])
        queue.tail = item_id + 1
    queue.log.written = queue.first_tail = queue.tail
    queue.bytes_in = stored_bytes
    queue.whole = queue.next_id == queue.tail


def recheck(queue: "MessageQueue", batch: Batch) -> None:
    """After a failed write: remove what may be on disk behind what was written before, and let the next turn write the
    state as memory has it."""
    log = queue.log
    number, family, _, _ = log.record
    begin, end = records.item_key(number, log.written), records.item_key(number + 1, records.STATE_ID)
    batch.delete_range(begin, end, log.journal.storage.handles[family])
    log.write_state()


def undo_turn(queue: "MessageQueue") -> None:
    """The turn could not be written: go back to the numbers that the queue had at its beginning."""
    next_id, queue.tail, queue.bytes_in, stored_bytes, queue.missing = queue.before
    queue.gap = queue.end_gap = (0, 0)
    queue.next_id = next_id
    queue.outstanding = {i: read for i, read in sorted(queue.outstanding.items()) if i < next_id}
    reads.find_returned(queue)
    queue.open_bytes = sum(read.body_bytes for read in queue.outstanding.values() if not read.returned)
    queue.bytes_out = queue.bytes_in + queue.open_bytes - stored_bytes
    window.release(queue)
    for cursor in (queue.cursors or {}).values():
        window.release(cursor)  # it may have read ahead what is undone, without a change of its own


def stored_ids(queue: "MessageQueue") -> range | None:
    """The ids that may be on disk; None: they are not known, because of damage or a turn that could not be written."""
    if queue.unreadable or not queue.log.recorded:
        return None
    return range(queue.log.reclaimed, queue.tail)


def remove(queue: "MessageQueue", ids: range | None, has_chunks: bool, batch: Batch) -> None:
    """Remove what is on disk of a queue that is deleted in this turn. Range deletions cost every later read, so there
    are none for what was not there."""
    storage, record = queue.log.journal.storage, queue.log.record
    if queue.log.durable:
        storage.remove_queue(batch, queue.name, record, ids, has_chunks)
    elif has_chunks:
        storage.remove_blobs(batch, record.number, 0, records.MAX_ID)
        storage.end_uploads(batch, record.number, 0, records.MAX_ID)
