"""Pages of what waits in a queue's line: some of its items, from an id on, forward or backward.

Each function yields (id, item) one after the other, as it is asked: no more is read than somebody wants, and a page
ahead. That has to happen within one turn, in which the queue is not changed meanwhile. All raise StorageError.

No call here switches greenlets.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from darner_core.engines.local import reads
from darner_core.engines.local.damaged_queue import reading
from darner_core.storage.records import MAX_ID, Item

if TYPE_CHECKING:
    from darner_core.engines.local.message_queue import MessageQueue

PAGE_ITEMS = 100
PAGE_BYTES = 256 << 10
BACK_IDS = 200  # the first page that is read backward; the next ones double

# Where this many or fewer were given back, they are looked for among those that were; else one id after the other.
FEW = 1000


def forward(queue: "MessageQueue", begin: int = 0, wanted: int = PAGE_ITEMS) -> Iterator[tuple[int, Item]]:
    """What waits, from the id `begin` on. `wanted`: how many items the caller is likely to ask for."""
    page_items = min(wanted, PAGE_ITEMS)
    for item_id in _given_back(queue, begin, MAX_ID):
        yield item_id, _one(queue, item_id)
    window, item_id = queue.window, max(begin, queue.next_id)
    for at in range(item_id - queue.next_id, len(window)):
        yield queue.next_id + at, window[at]
    item_id = max(item_id, queue.next_id + len(window))
    while item_id < queue.tail:
        gap_begin, gap_end = queue.gap
        if queue.missing and gap_begin <= item_id < gap_end:
            item_id = gap_end
        first, items = reading(queue, queue.log.read, item_id, page_items, PAGE_BYTES, queue.missing)
        page_items = PAGE_ITEMS  # of what was wanted, some has expired
        if not items:
            return
        for item_id, item in enumerate(items, first):
            yield item_id, queue.aged(item)
        item_id += 1


def backward(queue: "MessageQueue", end: int = MAX_ID) -> Iterator[tuple[int, Item]]:
    """What waits, the last one first, from before the id `end` on."""
    from_tail = end >= queue.tail
    for item_id, item in _never_handed_out(queue, min(end, queue.tail)):
        if from_tail:  # else each look would pass over all that was removed at the end
            queue.end_gap, from_tail = (item_id + 1, queue.tail), False
        yield item_id, item
    for item_id in _given_back(queue, 0, end, backwards=True):
        yield item_id, _one(queue, item_id)


def _never_handed_out(queue: "MessageQueue", end: int) -> Iterator[tuple[int, Item]]:
    """As `backward`, of what stands behind `next_id`."""
    if queue.missing == queue.tail - queue.next_id:
        return
    gap_begin, gap_end = queue.end_gap
    if end > gap_end:
        yield from _between(queue, gap_end, end)
    yield from _between(queue, queue.next_id, min(end, gap_begin))


def _between(queue: "MessageQueue", begin: int, end: int) -> Iterator[tuple[int, Item]]:
    """What waits in [begin, end), the last one first. Nothing was given back there."""
    log, window, begin = queue.log, queue.window, max(begin, queue.next_id)
    behind = queue.next_id + len(window)  # what is in memory
    gone = set(log.removed) if log.removed else ()
    for item_id in range(end - 1, max(log.written, behind, begin) - 1, -1):
        if item_id not in gone:
            yield item_id, queue.aged(log.appended[item_id - log.written])
    stored_begin, stored_end, ids = max(behind, begin), min(end, log.written), BACK_IDS
    while stored_begin < stored_end:
        # Not all at once: whoever goes backward first passes over what was removed at the beginning of the range.
        first, ids = max(stored_begin, stored_end - ids), 2 * ids
        for item_id, item in log.stored_back(first, stored_end):
            if item_id not in gone:
                yield item_id, queue.aged(item)
        stored_end = first
    for item_id in range(min(end, behind) - 1, begin - 1, -1):
        yield item_id, window[item_id - queue.next_id]


def _one(queue: "MessageQueue", item_id: int) -> Item:
    return queue.aged(reading(queue, queue.log.read_one, item_id))


def _given_back(queue: "MessageQueue", begin: int, end: int, backwards: bool = False) -> Iterator[int]:
    """The ids in [begin, end) that were given back and wait, in order."""
    outstanding, returned = queue.outstanding, queue.returned
    if not returned:
        return
    begin, end = max(begin, queue.first_id()), min(end, queue.next_id)
    if len(returned) > FEW and end - begin <= 2 * len(outstanding):
        for item_id in range(end - 1, begin - 1, -1) if backwards else range(begin, end):
            read = outstanding.get(item_id)
            if read is not None and read.returned:
                yield item_id
        return
    waiting = returned if len(returned) <= FEW else reads.given_back(queue)
    for item_id in sorted({one for one in waiting if begin <= one < end}, reverse=backwards):
        read = outstanding.get(item_id)
        if read is not None and read.returned:
            yield item_id
