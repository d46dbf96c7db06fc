"""What is in a queue, item by item, as somebody sees it who takes nothing: those of its line and those that lie aside,
in one order.

Positions are places, as `aside` has them: (priority, place, id) of what is ready, whether it stands in the line or not;
(due_ms, place, id) of what is delayed; (number of the burying, 0, id) of what is buried; (0, 0, id) of what is open.

No call here switches greenlets. All raise StorageError.
"""

import heapq
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, TypeAlias

from darner_core.engines.items import Seen, State
from darner_core.engines.local import line_pages, order_pages
from darner_core.engines.local.aside import Aside
from darner_core.engines.local.damaged_queue import reading
from darner_core.engines.local.job_queue import PLAIN
from darner_core.storage.job_records import BURIED, DELAYED, READY, Job, Place
from darner_core.storage.records import Item

if TYPE_CHECKING:
    from darner_core.engines.local.message_queue import MessageQueue

# Expired items that one look passes over. It may end there.
PASSED_OVER = 1000

PAGE_ENTRIES = 100

KINDS: Final = {State.READY: READY, State.DELAYED: DELAYED, State.BURIED: BURIED}
STATES: Final = {kind: state for state, kind in KINDS.items()}

# Where it lies, its item if that has been read, and whether it stands in the line.
_Found: TypeAlias = tuple[Place, Item | None, bool]


def look(
    queue: "MessageQueue", aside: Aside | None, state: State, after: Place | None, most: int, backwards: bool
) -> list[Seen]:
    """As `items.Items.look` says."""
    if state is State.OPEN:
        return _look_at_open(queue, aside, after, most, backwards)
    kind, now_ms = KINDS[state], queue.log.journal.time_ms()
    found: Iterator[_Found] = _in_aside(aside, kind, after, backwards) if aside is not None else iter(())
    if kind == READY:
        pri = aside.record.pri if aside is not None else PLAIN.pri
        in_line = _in_line(queue, pri, after, most, backwards)
        found = heapq.merge(in_line, found, key=_place, reverse=backwards)
    seen: list[Seen] = []
    passed_over = 0
    for place, read, is_in_line in found if most > 0 else ():
        item, job = read, None
        if not is_in_line:
            assert aside is not None
            item, job = aside.read(place[2])
        assert item is not None
        if 0 < item[2] < now_ms:
            passed_over += 1
            if passed_over >= PASSED_OVER:
                break
            continue
        seen.append(of_line(aside, place, item) if job is None else of_aside(state, place, item, job))
        if len(seen) >= most:
            break
    return seen


def _place(found: _Found) -> Place:
    return found[0]


def of_line(aside: Aside | None, place: Place, item: Item, state: State = State.READY) -> Seen:
    """An item of the line."""
    terms = aside.record if aside is not None else PLAIN
    body, flags, expires_at_ms, added_at_ms = item
    return Seen(
        place[2], state, terms.pri, terms.ttr_ms, 0, len(body), flags, added_at_ms, expires_at_ms, position=place
    )


def of_aside(state: State, place: Place, item: Item, job: Job) -> Seen:
    """An item that lies aside."""
    body, flags, expires_at_ms, added_at_ms = item
    return Seen(
        place[2], state, job.pri, job.ttr_ms, job.at if state is State.DELAYED else 0, len(body), flags, added_at_ms,
        expires_at_ms, job.key, job.note, job.nacks, job.timeouts, job.losses, job.buries, job.kicks, place,
    )  # fmt: skip


def _in_line(queue: "MessageQueue", pri: int, after: Place | None, most: int, backwards: bool) -> Iterator[_Found]:
    """What waits in the line, which is of this priority."""
    if backwards:
        items = line_pages.backward(queue, *(() if after is None else (_first_not_before(pri, after),)))
    else:
        items = line_pages.forward(queue, 0 if after is None else _first_not_before(pri, after, behind=True), most)
    for item_id, item in items:
        yield (pri, 2 * item_id + 1, item_id), item, True


def _first_not_before(pri: int, position: Place, behind: bool = False) -> int:
    """The lowest id whose place in a line of this priority is not before `position`; or `behind` it."""
    if position[0] != pri:
        return 0 if position[0] < pri else 2**63
    item_id = position[1] // 2  # 2 * id + 1 is the place of an id
    if position[1] % 2:
        return item_id + ((pri, position[1], item_id) < position or (behind and item_id == position[2]))
    return item_id


def _in_aside(aside: Aside, kind: int, after: Place | None, backwards: bool) -> Iterator[_Found]:
    order = aside.orders[kind]
    some = order_pages.some_before if backwards else order_pages.some_behind
    while places := aside.reading(some, order, after, PAGE_ENTRIES):
        for place in places:
            if not is_flushed(aside, kind, place):
                yield place, None, False
        after = places[-1]


def is_flushed(aside: Aside, kind: int, place: Place) -> bool:
    """Whether it is as good as gone, because a flush takes it that goes on over several turns."""
    return aside.flushing is not None and kind != BURIED and aside.flushing.flush.takes(place)


def _look_at_open(
    queue: "MessageQueue", aside: Aside | None, after: Place | None, most: int, backwards: bool
) -> list[Seen]:
    """By their ids, because nothing says which will come back first."""
    in_line = (item_id for item_id, read in queue.outstanding.items() if not read.returned)
    beside = aside.outstanding if aside is not None else {}
    if after is None:
        ids = [*in_line, *beside]
    elif backwards:
        ids = [item_id for ids in (in_line, beside) for item_id in ids if item_id < after[2]]
    else:
        ids = [item_id for ids in (in_line, beside) for item_id in ids if item_id > after[2]]
    chosen = (heapq.nlargest if backwards else heapq.nsmallest)(most, ids)
    return [open_one(queue, aside, item_id) for item_id in chosen]


def open_one(queue: "MessageQueue", aside: Aside | None, item_id: int) -> Seen:
    """One that is open."""
    place = 0, 0, item_id
    if aside is not None and item_id in aside.outstanding:
        item, _ = aside.read(item_id)
        return of_aside(State.OPEN, place, item, aside.outstanding[item_id].job)
    item = queue.aged(reading(queue, queue.log.read_one, item_id))
    return of_line(aside, place, item, State.OPEN)
