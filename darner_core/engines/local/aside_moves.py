"""How items go from one state to another: they become due, are kicked, or come back from whoever had them open.

All functions are about one aside, and raise StorageError. No call here switches greenlets.
"""

from typing import TYPE_CHECKING, Final

from darner_core.engines.local import aside_flushing, aside_keys, aside_leaving
from darner_core.engines.local.aside_flushing import FLUSHED_AT_ONCE
from darner_core.engines.local.aside_parts import Held
from darner_core.storage.job_records import BURIED, DELAYED, DYING, MAX_COUNT, READY, Job, Place

if TYPE_CHECKING:
    from darner_core.engines.local.aside import Aside
    from darner_core.engines.local.order import Order

NEVER_MS: Final = 2**64


def place_of(item_id: int, job: Job) -> tuple[int, Place]:
    """(kind, place) of an item whose job record says this, unless it has become due since."""
    if job.state in (READY, DYING):
        return READY, (job.pri, job.place, item_id)
    if job.state == DELAYED:
        return DELAYED, (job.at, job.place, item_id)
    return BURIED, (job.at, 0, item_id)


def new_burying(aside: "Aside") -> int:
    """The number of the next burying."""
    aside.next_burying += 1
    return aside.next_burying - 1


def move(aside: "Aside", held: Held, job: Job) -> None:
    """An item that was open lies from now on where its job says; one that is due among the ready."""
    if aside.deleted:
        aside.orders[held.kind].unhide(held.place)
        return
    item_id = held.read.id
    kind, place = place_of(item_id, job)
    aside_flushing.spare(aside, item_id, job)
    if kind == DELAYED and job.at <= aside.log.journal.time_ms():
        kind, place = READY, (job.pri, job.place, item_id)
    if place == held.place and kind == held.kind:
        aside.orders[kind].unhide(place)
    else:
        aside.orders[held.kind].remove(held.place, aside.log.is_new(item_id))
        aside.orders[kind].add(place)
        aside.log.state_changed = True
    if job != held.job:
        aside.log.change_job(item_id, job, held.job)
    if kind == DELAYED:
        aside.watcher.note(aside, job.at)


# -- time


def due_ms(aside: "Aside") -> int:
    """When `move_due` has something to do next."""
    firsts = aside.reading(aside.delayed.first), aside.reading(aside.key_windows.first)
    aside.account()
    times = [place[0] for place in firsts if place is not None]
    if aside.record.pause_until_ms and aside.paused:
        times.append(aside.record.pause_until_ms)
    return min(times, default=NEVER_MS)


def move_due(aside: "Aside", most: int) -> int:
    """Let up to `most` delayed items be ready whose time has come, and free keys; how many these were. If a pause is
    over, clients that wait are served."""
    now_ms, moved = aside.log.journal.time_ms(), 0
    aside_flushing.go_on(aside)
    if aside.record.pause_until_ms and not aside.paused:
        aside.settle()
        aside.serve()
    try:
        while moved < most and (place := aside.reading(aside.delayed.first)) is not None and place[0] <= now_ms:
            _make_ready(aside, aside.delayed, place, aside.job(place[2]))
            moved += 1
    finally:
        if moved:
            aside.serve()
    while moved < most and (place := aside.reading(aside.key_windows.first)) is not None and place[0] <= now_ms:
        aside_keys.end_window(aside, place)
        moved += 1
    return moved


def _make_ready(aside: "Aside", order: "Order", place: Place, job: Job) -> None:
    if not aside.log.touched:
        aside.enter_turn()
    order.remove(place, aside.log.is_new(place[2]))
    aside.ready.add((job.pri, job.place, place[2]))
    aside.log.state_changed = True


# -- kicking


def kick(aside: "Aside", most: int) -> int:
    """Let up to `most` buried items be ready, those buried longest first; if none is buried, delayed ones, those that
    are due soonest first. How many these were."""
    order = aside.buried if aside.buried.waiting else aside.delayed
    kicked = flushed = 0
    while kicked < most and (place := aside.reading(order.first)) is not None:
        job = aside.job(place[2])
        if not aside.is_flushed(place[2], job):
            _kick(aside, order, place, job)
            kicked += 1
        elif flushed < FLUSHED_AT_ONCE:
            aside_leaving.remove_id(aside, place[2])
            flushed += 1
        else:
            break  # what comes behind can be kicked when the flush has come so far
    if kicked:
        aside.serve()
    return kicked


def kick_id(aside: "Aside", item_id: int) -> bool:
    """Let this item be ready; False: it is open, or neither buried nor delayed."""
    found = aside.find(item_id)
    if found is None or found[0] == READY or item_id in aside.outstanding or aside.is_flushed(item_id, found[2]):
        return False
    kind, place, job = found
    _kick(aside, aside.orders[kind], place, job)
    aside.serve()
    return True


def _kick(aside: "Aside", order: "Order", place: Place, job: Job) -> None:
    _make_ready(aside, order, place, job)
    aside.tell(b"kick", place[2])
    kicked = job._replace(state=READY, at=0, kicks=min(job.kicks + 1, MAX_COUNT))
    aside_flushing.spare(aside, place[2], kicked)
    aside.log.change_job(place[2], kicked, job)
