"""Whose an aside is of which the record is lost: the chunks of its large items lie under the number of its queue.

Memory grows with the large items of such asides, and of the queues that have chunks like theirs.
"""

from collections import Counter
from collections.abc import Iterable

from darner_core.storage import records
from darner_core.storage.records import Blob, Item
from darner_core.tools.salvage import Broken, Gap, IdGap, ListedQueue, Salvaged

# (number of a large item, its bytes)
_Large = tuple[int, int]


def find_owners(directory: Salvaged, numbers: Iterable[int], queues: list[ListedQueue]) -> dict[int, bytes]:
    """By the numbers of asides the names of their queues, as far as that is certain: of `queues` one alone has chunks
    for this aside, and for no other."""
    may_own: dict[int, list[ListedQueue]] = {}
    for number in numbers:
        large = _large_items(directory.aside_items(number, range(records.FIRST_ID, records.MAX_ID)))[0]
        may_own[number] = [queue for queue in queues if _has_any(directory, queue, large)]
    times = Counter(queue.name for found in may_own.values() for queue in found)
    return {
        number: found[0].name
        for number, found in may_own.items()
        if len(found) == 1 and times[found[0].name] == 1 and _knows_its_own(directory, found[0])
    }


def _has_any(directory: Salvaged, queue: ListedQueue, large: set[_Large]) -> bool:
    """Whether the queue has all chunks of one of these, and does not need them itself."""
    there = {blob for blob, size in large if _is_whole(directory, queue.record.number, Blob(blob, size))}
    return bool(there) and bool(there - {blob for blob, _ in _of_queue(directory, queue)[0]})


def _knows_its_own(directory: Salvaged, queue: ListedQueue) -> bool:
    """Whether all can be read that may need chunks of the queue. Else its aside might be given what is another's."""
    return _of_queue(directory, queue)[1]


def _is_whole(directory: Salvaged, number: int, blob: Blob) -> bool:
    try:
        for _ in directory.blob_chunks(number, blob):
            pass
    except ValueError:
        return False
    return True


def _of_queue(directory: Salvaged, queue: ListedQueue) -> tuple[set[_Large], bool]:
    """The large items of its line and its cursors, and whether all of these could be read."""
    large, is_whole = _large_items(directory.items(queue.record, records.FIRST_ID, records.FIRST_ID))
    for cursor in directory.cursors():
        if isinstance(cursor, (Gap, Broken)):
            is_whole = False
        elif cursor.queue == queue.name:
            more, more_whole = _large_items(directory.cursor_items(cursor.record))
            large |= more
            is_whole = is_whole and more_whole
    return large, is_whole


def _large_items(entries: Iterable[tuple[int, Item | None] | IdGap | Broken]) -> tuple[set[_Large], bool]:
    large: set[_Large] = set()
    is_whole = True
    for entry in entries:
        if isinstance(entry, (IdGap, Broken)):
            is_whole = False
        elif entry[1] is not None and isinstance(entry[1][0], Blob):
            large.add((entry[1][0].blob, len(entry[1][0])))
    return large, is_whole
