"""What cannot be read: a queue whose head is damaged, and what stands in for a queue that is damaged altogether.

No call here switches greenlets.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

from darner_core import NAME
from darner_core.config.queues import QueueOptions
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.queue_log import QueueLog
from darner_core.errors import DamagedError, StorageError
from darner_core.showing import show
from darner_core.storage import records
from darner_core.storage.records import Item, QueueRecord, State
from darner_core.waiters import WaitingLine

if TYPE_CHECKING:
    from darner_core.engines.local.aside import Aside
    from darner_core.engines.local.cursor import Cursor
    from darner_core.engines.local.message_queue import MessageQueue

log = logging.getLogger(NAME)

_Read = TypeVar("_Read", Item, tuple[int, list[Item]])


def cannot_be_read(queue: "MessageQueue | Cursor | Aside", error: StorageError) -> StorageError:
    """What to raise when the head is asked for, which cannot be read because of `error`. The log says it once."""
    if not queue.log.journal.storage.is_open:
        return error  # for a while nothing can be read, of whichever queue
    known, queue.damage = queue.damage, why_damaged(queue.name, error)
    if queue.damage != known:
        log.error("%s", queue.damage)
    return DamagedError(queue.damage)


def reading(queue: "MessageQueue | Cursor", read: Callable[..., _Read], *arguments: int) -> _Read:
    """What `read` returns. The queue notes whether its head can be read, and the log says it once if not."""
    try:
        found = read(*arguments)
    except StorageError as error:
        raise cannot_be_read(queue, error) from error
    if queue.damage:
        queue.damage = ""
    return found


def why_damaged(name: bytes, why: object) -> str:
    return f"queue {show(name)} cannot be read: {why}; {records.REPAIR_ADVICE}"


class DamagedQueue:
    """Stands in for a queue or cursor whose records could not be read when the server started. All that can be done is
    to delete it: every use raises DamagedError, and its figures are those of an empty queue."""

    __slots__ = ("name", "options", "log", "damage", "deleted", "line", "cursors", "transactions", "late_closes")

    unreadable: ClassVar = True
    traced: ClassVar = False
    counts_failures: ClassVar = False
    aside_items: ClassVar = 0
    # A put goes by way of `routing`, which looks at all queues of an item before it puts anything.
    governed: ClassVar = True
    polled: ClassVar = False
    half_swept: ClassVar = False
    outstanding: ClassVar[dict[int, Any]] = {}
    returned: ClassVar[list[int]] = []
    is_receiving: ClassVar = False
    head_id: ClassVar = 0
    line_head_id: ClassVar = 0
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
        return bool(self.log.record.kind & records.CHILD)

    def refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise DamagedError(self.damage)

    put = take = peek = open = flush = item_of = holds = close = give_back = take_back = cannot_be_read = refuse

    @property
    def large_items(self) -> NoReturn:
        self.refuse()

    def first_id(self) -> int:
        """Asked for by the Keeper of its cursors."""
        return self.next_id

    def drop_expired(self, *_: int) -> bool:
        """No item is known that could expire."""
        return True
