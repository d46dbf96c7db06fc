"""How items leave a queue without being handed out: they expire, or the oldest make room for others.

What is open does not expire. The head is looked at whenever an item is asked for, so that nothing that has expired is
handed out. What expires behind the head is found by a sweep (`sweeper`). All functions are about one queue. If they
raise StorageError, they have changed nothing.

No call here switches greenlets.
"""

from contextlib import suppress
from typing import TYPE_CHECKING

from darner_core.engines.local import reads, window
from darner_core.engines.local.damaged_queue import reading
from darner_core.engines.local.reads import OpenRead
from darner_core.errors import StorageError
from darner_core.storage.records import Blob, Expiry, Item

if TYPE_CHECKING:
    from darner_core.engines.local.cursor import Cursor
    from darner_core.engines.local.message_queue import MessageQueue

# How many expired items are removed in one turn, in about 2 ms. If there are more, the next turn goes on.
EXPIRED_AT_ONCE = 1000

# The limit on the bytes of their bodies, which may have to be read, and written to where they go.
EXPIRED_BYTES_AT_ONCE = 1 << 20

# How many expired items go to other queues in one turn: each is a put, and another for each child of that queue.
MOVED_AT_ONCE = 100

# What is removed behind the head is deleted one by one. Whenever this many ids in a row have gone, they are deleted as
# a range as well: a reader passes over a range at once, but every range costs every reader a little.
GAP_IDS = 16384


def set_max_age(queue: "MessageQueue", max_age_ms: int) -> None:
    """No item of the queue gets older than `max_age_ms`, those in it included; 0: only their own expiries count."""
    if max_age_ms != queue.max_age_ms:
        queue.max_age_ms = max_age_ms
        look_at_ages(queue)
        for cursor in (queue.cursors or {}).values():
            if not cursor.unreadable:
                look_at_ages(cursor)


def look_at_ages(place: "MessageQueue | Cursor") -> None:
    """The maximum age has changed: find the expiries of a queue's or cursor's items anew."""
    window.release(place)  # what is read again has the new age
    for read in place.outstanding.values():
        with suppress(StorageError):  # clients that ask for the item are told
            read.expires_at_ms = place.aged(place.log.read_one(read.id))[2]


# -- at the head


def drop_expired(queue: "MessageQueue", most: int = EXPIRED_AT_ONCE, least: int = 0) -> bool:
    """Remove up to `most` expired items at the head; False: there are more, and the queue is `half_swept`.

    All queues together remove EXPIRED_AT_ONCE in one turn; an item that goes to another queue counts as ten. After
    that, a call removes no more than `least`.
    """
    journal = queue.log.journal
    weight = 1 if queue.expire_to is None else EXPIRED_AT_ONCE // MOVED_AT_ONCE
    before = queue.expired_items
    until = before + min(most, max(least, (EXPIRED_AT_ONCE - journal.dropped) // weight))
    queue.half_swept = False
    try:
        queue.half_swept = _drop_head(queue, journal.time_ms(), until, queue.bytes_out + EXPIRED_BYTES_AT_ONCE)
    finally:
        journal.dropped += (queue.expired_items - before) * weight
    return not queue.half_swept


def _drop_head(queue: "MessageQueue", now_ms: int, until: int, until_bytes: int) -> bool:
    """Remove expired items until `expired_items` is `until` or `bytes_out` is `until_bytes`; whether there are more."""
    while True:
        if queue.returned:
            read = queue.outstanding[queue.returned[0]]
            if not 0 < read.expires_at_ms < now_ms:
                return False
            if queue.expired_items >= until or queue.bytes_out >= until_bytes:
                return True
            _expire_returned(queue, read)
            continue
        if not queue.window:
            if queue.next_id < queue.tail:
                window.fill(queue)
            if not queue.window:
                return False
        item = queue.window[0]
        if not 0 < item[2] < now_ms:
            return False
        if queue.expired_items >= until or queue.bytes_out >= until_bytes:
            return True
        if queue.move_large is not None and isinstance(item[0], Blob):
            queue.move_large(queue.hand_out())  # open while it is copied to where it goes
        elif queue.expire_to is not None or queue.traced or queue.outstanding or isinstance(item[0], Blob):
            queue.move_expired(queue.next_id, item)
            remove_head(queue, item)
        else:
            _drop_run(queue, now_ms, until - queue.expired_items)


def _drop_run(queue: "MessageQueue", now_ms: int, most: int) -> None:
    """Remove a run of expired items at the head of the window, which are not large and go nowhere else. One by one it
    would take five times as long."""
    queue.log.write_state()
    dropped = dropped_bytes = 0
    while queue.window and dropped < most:
        body, _, expires_at_ms, _ = queue.window[0]
        if not 0 < expires_at_ms < now_ms or isinstance(body, Blob):
            break
        queue.window.popleft()
        dropped += 1
        dropped_bytes += len(body)
    queue.next_id += dropped
    queue.bytes_out += dropped_bytes
    queue.log.journal.count(queue, "expired_items", dropped)


def move_expired(queue: "MessageQueue", item_id: int, item: Item) -> None:
    """An item expires: put it into the queue for expired items, if there is one, and count it. The caller removes it
    afterwards."""
    if isinstance(item[0], Blob):
        _ = queue.large_items  # would raise when the item is removed
    if queue.expire_to is not None:
        queue.expire_to(queue, item)
    queue.log.journal.count(queue, "expired_items")


def _expire_returned(queue: "MessageQueue", read: OpenRead) -> None:
    if queue.move_large is not None and read.blob:
        queue.move_large(queue.hand_out(read.id))
        return
    queue.move_expired(read.id, reading(queue, queue.log.read_one, read.id))
    remove_returned(queue, read)


# -- anywhere


def expire(queue: "MessageQueue", expiry: Expiry) -> bool:
    """An item's time has come: remove it, wherever it waits. False: it is on its way to another queue, and has to be
    looked at again. An open item is looked at when it is given back."""
    item_id = expiry.id
    if item_id < queue.next_id:
        read = queue.outstanding.get(item_id)
        if read is None or not 0 < read.expires_at_ms <= expiry.expires_at_ms:
            return True  # it has been closed, or an earlier queue had the same number
        if read.returned:
            _expire_returned(queue, read)
            return True
        # Its expiry is removed from the disk. The state record says that the item was handed out, so the next start
        # looks at it.
        queue.log.write_state()
        return True
    if item_id >= queue.tail:
        return True
    item = queue.log.find(item_id)
    if item is None or not 0 < item[2] <= expiry.expires_at_ms:
        return True  # an earlier queue had the same number, or an earlier sweep has removed the item
    if queue.move_large is not None and isinstance(item[0], Blob):
        # Only the head can be opened, so the item goes on waiting while it is copied to where it goes.
        queue.move_large(OpenRead(queue, item_id, None, len(item[0]), item[0].blob, item[2]))
        return False
    queue.move_expired(item_id, item)
    remove_unopened(queue, item_id, item)
    return True


def is_moving(queue: "MessageQueue", read: OpenRead) -> bool:
    """Whether the item that `move_large` was given is still there: open for it, or waiting as it did then. If not, the
    queue was deleted or flushed, the read was given back, or another client has opened the item."""
    if read.id < queue.next_id or queue.deleted:
        return queue.holds(read)
    if read.id >= queue.tail or read.id in queue.log.removed:
        return False
    item = queue.log.find(read.id)
    return item is not None and isinstance(item[0], Blob) and item[0].blob == read.blob


def finish_moving(queue: "MessageQueue", read: OpenRead, item: Item) -> None:
    """Remove `item`, which `move_large` was given with `read`, now that its copy has arrived elsewhere or is given up.
    The item must still be there. Cannot fail once the queue's `large_items` are known."""
    if queue.holds(read):
        queue.close(read)
    else:
        remove_unopened(queue, read.id, item)
    queue.log.journal.count(queue, "expired_items")


# -- removing


def remove_unopened(queue: "MessageQueue", item_id: int, item: Item) -> None:
    """Remove an item that was never handed out."""
    if item_id == queue.next_id:
        remove_head(queue, item)
    else:
        _remove_waiting(queue, item_id, item)


def remove_first(queue: "MessageQueue") -> None:
    """Remove the head, which is in the window if it was not given back."""
    if queue.returned:
        remove_returned(queue, queue.outstanding[queue.returned[0]])
    else:
        remove_head(queue, queue.window[0])


def remove_head(queue: "MessageQueue", item: Item) -> None:
    """Remove the item `next_id` without handing it out."""
    _enter_to_remove(queue, item[0])
    if queue.outstanding:
        queue.log.removed.append(queue.next_id)
    queue.next_id += 1
    if queue.window:
        queue.window.popleft()


def _remove_waiting(queue: "MessageQueue", item_id: int, item: Item) -> None:
    """Remove an item behind `next_id`."""
    _enter_to_remove(queue, item[0])
    leave_middle(queue, item_id)


def leave_middle(queue: "MessageQueue", item_id: int) -> None:
    """An item behind `next_id` is in the line no more."""
    queue.log.removed.append(item_id)
    queue.missing += 1
    begin, end = queue.gap
    if item_id == end:
        queue.gap = begin, end + 1
        if (end + 1 - begin) % GAP_IDS == 0:
            queue.log.remove_range(end + 1 - GAP_IDS, end + 1)
    elif end <= queue.next_id or end - begin < window.FILL_ITEMS:
        queue.gap = item_id, item_id + 1
    in_memory = item_id - queue.next_id
    if in_memory < len(queue.window):
        while len(queue.window) > in_memory:
            queue.window.pop()
    queue.whole = False


def _enter_to_remove(queue: "MessageQueue", body: bytes | Blob) -> None:
    if isinstance(body, Blob):
        queue.large_items.remove(body.blob, body.blob + 1, len(body))  # may raise: before anything is changed
    queue.log.write_state()
    queue.bytes_out += len(body)


def remove_returned(queue: "MessageQueue", read: OpenRead) -> None:
    """Remove an item that was given back."""
    if read.blob:
        queue.large_items.remove(read.blob, read.blob + 1, read.body_bytes)  # may raise: before anything is changed
    queue.log.write_state()
    if read.id != queue.first_id():
        queue.log.removed.append(read.id)
    elif len(queue.outstanding) > reads.MANY:
        reads.thinned(queue)
    del queue.outstanding[read.id]
    reads.leave_returned(queue, read.id)
    queue.bytes_out += read.body_bytes
    queue.log.journal.undo.append((queue.unclose, read, None))


def discard_oldest(queue: "MessageQueue") -> bool:
    """Remove the item that has waited longest; False: none waits."""
    if not has_oldest(queue):
        return False
    remove_first(queue)
    queue.log.journal.count(queue, "discarded")
    return True


def has_oldest(queue: "MessageQueue") -> bool:
    """Whether an item waits that could be discarded. Raises StorageError if it could not."""
    if queue.returned:
        is_large = bool(queue.outstanding[queue.returned[0]].blob)
    else:
        if not queue.window and queue.next_id < queue.tail:
            window.fill(queue)
        if not queue.window:
            return False
        is_large = isinstance(queue.window[0][0], Blob)
    if is_large:
        _ = queue.large_items  # would raise when the item is removed
    return True


def flush(queue: "MessageQueue") -> None:
    """Remove all that waits. Open items stay open."""
    flush_line(queue)


def flush_line(queue: "MessageQueue", leaves_chunks: bool = False) -> None:
    """As `flush`. `leaves_chunks`: those of large items are removed later, because some of them belong to items that do
    not stand in the line."""
    large_items = queue.large_items
    log, journal = queue.log, queue.log.journal
    log.write_state()
    returned = reads.given_back(queue)
    if len(returned) < len(queue.outstanding) and queue.next_id < queue.tail:
        # A restart would find these items between the open ones.
        log.remove_range(queue.next_id, queue.tail)
    journal.undo.append((setattr, queue, "outstanding", queue.outstanding))
    queue.outstanding = {item_id: read for item_id, read in queue.outstanding.items() if not read.returned}
    if queue.outstanding:  # else all below `next_id` is gone
        log.removed += returned
    reads.find_returned(queue)
    if not leaves_chunks:
        large_items.remove_all_but(reads.blobs(queue), queue.waiting_bytes)
    queue.next_id = queue.tail
    queue.missing = 0
    queue.bytes_out = queue.bytes_in
    window.release(queue)
    journal.count(queue, "total_flushes")
