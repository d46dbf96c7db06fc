"""What becomes of an open item of an aside that is not closed: it comes again later, is buried, or is a dead letter.

All functions are about one aside, and an item that is open there; nothing happens if it is not. `Aside.take_back`
undoes each. No call here switches greenlets.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from darner_core.engines.local import aside_leaving, aside_moves, job_rules
from darner_core.engines.local.aside_parts import Held
from darner_core.engines.local.reads import OpenRead
from darner_core.storage.job_records import BURIED, DELAYED, DYING, MAX_COUNT, READY, Job

if TYPE_CHECKING:
    from darner_core.engines.local.aside import Aside


def release(aside: "Aside", read: OpenRead, delay_ms: int = 0, pri: int = -1) -> None:
    """The item is ready again after `delay_ms`, and of this priority, -1: of that which it has. That is no failure."""
    held = aside.let_go(read)
    if held is not None:
        _release(aside, held, held.job, delay_ms, pri)


def bury(aside: "Aside", read: OpenRead, pri: int = -1) -> None:
    """The item is set aside until somebody kicks it, and then of this priority, -1: of that which it has."""
    held = aside.let_go(read, b"bury")
    if held is not None:
        _bury(aside, held, held.job if pri < 0 else held.job._replace(pri=pri))


def fail(aside: "Aside", read: OpenRead, how: str, client: str = "", delay_ms: int = -1, pri: int = -1) -> None:
    """Its reader has failed, which counts. The item comes again after `delay_ms`, -1: as the options say, and of this
    priority, -1: of that which it has. If this was the last failure that the options allow, the item becomes a dead
    letter in this turn, or else is buried. Raises StorageError, with nothing changed."""
    if not aside.holds(read):
        return
    job = job_rules.failed(aside.outstanding[read.id].job, how)
    if pri >= 0:
        job = job._replace(pri=pri)  # also of one that is buried, and kicked later
    if aside.rules.is_last(job.failures):
        _give_up(aside, read, job, how, client)
    else:
        held = aside.let_go(read)
        assert held is not None
        _release(aside, held, job, aside.rules.delay_ms(job.failures) if delay_ms < 0 else delay_ms, pri)
    aside.log.journal.count(aside, "failures")


def reject(aside: "Aside", read: OpenRead, client: str = "") -> None:
    """Its reader says that nobody will ever deal with it: it is a dead letter at once, or else buried. Raises
    StorageError, with nothing changed."""
    if aside.holds(read):
        _give_up(aside, read, aside.outstanding[read.id].job, job_rules.REJECT, client)


def _give_up(aside: "Aside", read: OpenRead, job: Job, how: str, client: str) -> None:
    """Nobody is to get it again."""
    if read.blob and aside.move_dead is not None and aside.options.dead_letter_queue:
        _let_move(aside, read, job, how, client, aside.move_dead)
        return
    goes = aside.dead_letter is not None and _is_dead_letter(aside, read, job, how, client)
    held = aside.let_go(read, b"dead" if goes else b"bury")
    assert held is not None
    if goes:
        aside_leaving.forget(aside, held.kind, held.place, held.job, read.body_bytes)
        aside.log.journal.count(aside, "dead_lettered")
    else:
        _bury(aside, held, job)


def _let_move(
    aside: "Aside", read: OpenRead, job: Job, how: str, client: str, move_dead: Callable[[OpenRead], None]
) -> None:
    """A large one is open while it is copied to where dead letters go. It is never handed out again, also after a crash
    in the midst of that."""
    item = aside.reading(aside.log.item, read.id)
    held = aside.let_go(read, b"")  # it is still on its way
    assert held is not None
    note = job_rules.history(aside.name, read.id, job, how, client, item[3])
    job = job._replace(state=DYING, at=0, note=note)
    aside_moves.move(aside, held, job)
    move_dead(aside.hold(*aside_moves.place_of(read.id, job), job, item))


def _is_dead_letter(aside: "Aside", read: OpenRead, job: Job, how: str, client: str) -> bool:
    """Put it where dead letters go, with its history; False: there is no room."""
    assert aside.dead_letter is not None
    item = read.item or aside.reading(aside.log.item, read.id)
    note = job_rules.history(aside.name, read.id, job, how, client, item[3])
    return aside.dead_letter(aside, item, job._replace(note=note))


def _release(aside: "Aside", held: Held, job: Job, delay_ms: int, pri: int) -> None:
    pri = job.pri if pri < 0 else pri
    if delay_ms > 0:
        job = job._replace(state=DELAYED, at=aside.log.journal.time_ms() + delay_ms, pri=pri)
    else:
        job = job._replace(state=READY, at=0, pri=pri)
    aside_moves.move(aside, held, job)
    aside.serve()


def _bury(aside: "Aside", held: Held, job: Job) -> None:
    buries = min(job.buries + 1, MAX_COUNT)
    aside_moves.move(aside, held, job._replace(state=BURIED, at=aside_moves.new_burying(aside), buries=buries))
