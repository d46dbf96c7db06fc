"""Pages of what lies aside: some entries of one kind, from a place on, forward or backward.

Nothing is read from the first key on: forward, a page begins in the window of the order or behind it; backward, at its
end. What is hidden is passed over. A page may be read at any time in a turn, and changes nothing.

No call here switches greenlets. All raise StorageError.
"""

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from darner_core.storage.job_records import HIGHEST, Place

if TYPE_CHECKING:
    from darner_core.engines.local.order import Order


def some_behind(order: "Order", after: Place | None, most: int) -> list[Place]:
    """Up to `most` that are behind `after`, in order; None: from the first on."""
    order.first()  # the window begins with it
    window = order.window
    start = bisect_right(window, after) if after is not None else 0
    found = window[start : start + most]
    if order.whole or len(found) == most:
        return found
    begin = order.scan_from
    if after is not None and after >= begin:
        begin = after[0], after[1], after[2] + 1
    changed, hidden = order.log.order[order.kind], order.hidden
    new = sorted(place for place, value in changed.items() if value is not None and place >= begin)
    while len(found) < most:
        stored = order.log.places(order.kind, begin, most)
        is_last = len(stored) < most
        end = HIGHEST if is_last else stored[-1]
        more = {place for place in stored if place not in changed}
        more.update(place for place in new if begin <= place <= end)
        found += sorted(place for place in more if place not in hidden)
        if is_last:
            break
        begin = end[0], end[1], end[2] + 1
    return found[:most]


def some_before(order: "Order", before: Place | None, most: int) -> list[Place]:
    """Up to `most` that are before `before`, the last one first; None: from the last on."""
    order.first()
    end = HIGHEST if before is None else before
    found: list[Place] = []
    changed, hidden = order.log.order[order.kind], order.hidden
    if not order.whole and end > order.scan_from:
        start = order.scan_from
        new = sorted(place for place, value in changed.items() if value is not None and start <= place < end)
        while len(found) < most:
            stored = order.log.places_back(order.kind, start, end, most)
            is_last = len(stored) < most
            begin = start if is_last else stored[-1]
            more = {place for place in stored if place not in changed}
            more.update(place for place in new if begin <= place < end)
            found += sorted((place for place in more if place not in hidden), reverse=True)
            if is_last:
                break
            end = begin
    window = order.window
    at = bisect_left(window, before) if before is not None else len(window)
    found += reversed(window[max(0, at - most) : at])
    return found[:most]
