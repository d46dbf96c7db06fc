"""Items of a queue's line by their ids: found, opened, moved aside, and removed, wherever in the line they stand.

An item of the line can be open in its place if it is the head, or was handed out before. Any other is moved aside when
somebody wants it: it keeps its id and its place in the order of arrival, and leaves the line in the same turn.

All functions are about one queue, and raise StorageError before they have changed anything. No call here switches
greenlets.
"""

from typing import TYPE_CHECKING

from darner_core.engines.local import expiry, window
from darner_core.engines.local.damaged_queue import reading
from darner_core.engines.local.reads import OpenRead
from darner_core.errors import StorageError
from darner_core.storage.job_records import READY, Job
from darner_core.storage.records import Blob, Item

if TYPE_CHECKING:
    from darner_core.engines.local.asides import Asides
    from darner_core.engines.local.message_queue import MessageQueue


def find(queue: "MessageQueue", item_id: int) -> Item | None:
    """The item, waiting or open; None: it does not stand in the line, or has expired."""
    if item_id < queue.next_id:
        read = queue.outstanding.get(item_id)
        if read is None:
            return None
        item = queue.aged(reading(queue, queue.log.read_one, item_id))
        return item if not read.returned or not _has_expired(queue, item) else None
    if item_id >= queue.tail:
        return None
    in_memory = item_id - queue.next_id
    if in_memory < len(queue.window):
        item = queue.window[in_memory]
    elif item_id in queue.log.removed:
        return None
    else:
        try:
            found = queue.log.find(item_id)
        except StorageError as error:
            raise queue.cannot_be_read(error) from error
        if found is None:
            return None
        item = queue.aged(found)
    return item if not _has_expired(queue, item) else None


def _has_expired(queue: "MessageQueue", item: Item) -> bool:
    return 0 < item[2] < queue.log.journal.time_ms()


def is_open(queue: "MessageQueue", item_id: int) -> bool:
    read = queue.outstanding.get(item_id)
    return read is not None and not read.returned


def open_one(queue: "MessageQueue", asides: "Asides", item_id: int, item: Item) -> OpenRead:
    """Open what `find` has found, which nobody has open."""
    if item_id < queue.next_id:
        return queue.hand_out(item_id)
    if not queue.window:
        window.fill(queue)  # which passes over what is gone before the head
    if item_id == queue.next_id and queue.window:
        return queue.hand_out()
    record = asides.record_of(queue)
    aside = asides.enter(queue)
    body = item[0]
    stored = queue.log.find(item_id)
    assert stored is not None
    _leave_middle(queue, item_id, len(body))
    blob = body.blob if isinstance(body, Blob) else 0
    job = Job(READY, record.pri, 2 * item_id + 1, ttr_ms=record.ttr_ms)
    return aside.adopt_open(OpenRead(aside, item_id, item, len(body), blob, item[2]), stored, job)  # type: ignore[arg-type]


def _leave_middle(queue: "MessageQueue", item_id: int, body_bytes: int) -> None:
    """The item leaves the line; its chunks stay, if it is large."""
    queue.log.write_state()
    queue.bytes_out += body_bytes
    expiry.leave_middle(queue, item_id)


def remove(queue: "MessageQueue", item_id: int, item: Item) -> None:
    """Remove what `find` has found, which nobody has open."""
    if item_id < queue.next_id:
        expiry.remove_returned(queue, queue.outstanding[item_id])
    else:
        expiry.remove_unopened(queue, item_id, item)
