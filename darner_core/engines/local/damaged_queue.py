"""What cannot be read: a queue whose head is damaged, and what stands in for a queue that is damaged altogether.

No call here switches greenlets.
"""

import logging
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn, Protocol, TypeVar

from darner_core import NAME
from darner_core.config.queues import QueueOptions
from darner_core.config.values import show_bytes
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.queue_log import QueueLog
from darner_core.engines.local.reads import OpenRead
from darner_core.errors import DamagedError, StorageError
from darner_core.storage import records
from darner_core.storage.records import Item, QueueRecord, State
from darner_core.waiters import WaitingLine

log = logging.getLogger(NAME)

_Read = TypeVar("_Read", Item, tuple[int, list[Item]])


class Readable(Protocol):
    """A queue or cursor whose head may turn out to be damaged."""

    name: bytes
    damage: str

    @property
    def log(self) -> QueueLog: ...


def head_cannot_be_read(queue: Readable, error: StorageError) -> StorageError:
    """What to answer whoever wants the head, which cannot be read because of `error`. The log says it once."""
    if not queue.log.journal.storage.is_open:
        return error  # for a while nothing can be read, of whichever queue
    known, queue.damage = queue.damage, why_damaged(queue.name, error)
    if queue.damage != known:
        log.error("%s", queue.damage)
    return DamagedError(queue.damage)


def reading(queue: Readable, read: Callable[..., _Read], *arguments: int) -> _Read:
    """What `read` returns; the queue keeps in mind whether its head can be read, and says it in the log once."""
    try:
        found = read(*arguments)
    except StorageError as error:
        raise head_cannot_be_read(queue, error) from error
    if queue.damage:
        queue.damage = ""
    return found


def why_damaged(name: bytes, why: object) -> str:
    return f"queue {show_bytes(name)} cannot be read: {why}; {records.REPAIR_ADVICE}"


class DamagedQueue:
    """Stands where a queue or cursor would whose records could not be read when the server started. All that can be
    done is to delete it: every use raises DamagedError, and whoever only looks finds it empty."""

    __slots__ = ("name", "options", "log", "damage", "deleted", "line", "cursors", "transactions", "late_closes")

    unreadable: ClassVar = True
    traced: ClassVar = False
    # A put goes by way of `routing`, which judges all of an item's queues before it puts anything.
    governed: ClassVar = True
    polled: ClassVar = False
    half_swept: ClassVar = False
    outstanding: ClassVar[dict[int, OpenRead]] = {}
    is_receiving: ClassVar = False
    may_have_chunks: ClassVar = True
    head_id: ClassVar = 0
    next_id: ClassVar = records.FIRST_ID
    tail: ClassVar = records.FIRST_ID
    missing: ClassVar = 0
    waiting_items: ClassVar = 0
    waiting_bytes: ClassVar = 0
    open_reads: ClassVar = 0
    total_items: ClassVar = 0
    expired_items: ClassVar = 0
    log_bytes: ClassVar = 0

    def __init__(self, name: bytes, options: QueueOptions, journal: Journal, record: QueueRecord, why: object) -> None:
        self.name = name
        self.options = options
        self.log = QueueLog(journal, self, record, State())  # type: ignore[arg-type]  # which is never touched
        self.damage = why_damaged(name, why)
        self.deleted = False
        self.line: WaitingLine | None = None
        self.cursors: dict[bytes, Any] | None = None
        self.transactions = 0
        self.late_closes = 0

    @property
    def is_child(self) -> bool:
        return self.log.record.kind == records.CHILD

    def refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise DamagedError(self.damage)

    put = take = peek = open = flush = item_of = holds = close = give_back = take_back = cannot_be_read = refuse

    @property
    def large_items(self) -> NoReturn:
        self.refuse()

    def first_id(self) -> int:
        """A cursor of a damaged queue asks."""
        return self.next_id

    def drop_expired(self, *_: int) -> bool:
        """Nothing is known that could expire."""
        return True

    def serve_line(self) -> None:
        """There is nothing to hand out."""

    def drop_window(self) -> None:
        """There is none."""
