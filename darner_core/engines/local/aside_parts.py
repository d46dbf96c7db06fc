"""What an aside has of its queue, whom it tells of times, and what it knows of an open item.

Types alone, so that the modules about asides need not import one another.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from darner_core.config.queues import QueueOptions
from darner_core.engines.local.large_items import LargeItems
from darner_core.engines.local.reads import OpenRead
from darner_core.engines.local.window import WindowBudget
from darner_core.storage.job_records import AsideRecord, Job, Place
from darner_core.storage.records import Item

if TYPE_CHECKING:
    from darner_core.engines.local.aside import Aside


class Parent(Protocol):
    """What an aside has of its queue."""

    name: bytes
    options: QueueOptions
    move_large: Callable[[OpenRead], None] | None
    expired_items: int
    transactions: int
    canceled_transactions: int
    late_closes: int

    @property
    def counts_failures(self) -> bool: ...

    @property
    def traced(self) -> bool: ...

    @property
    def budget(self) -> WindowBudget: ...

    @property
    def large_items(self) -> LargeItems: ...

    def outstanding_blobs(self) -> set[int]:
        """The large items that are open in its line, or were given back there."""

    def aged(self, item: Item) -> Item:
        """The item, expiring when the queue's maximum age says so, if not before."""


class OfItsQueue:
    """What an aside counts and tells as its queue's."""

    __slots__ = ()

    parent: Parent
    record: AsideRecord

    @property
    def opener(self) -> Any:
        """What comes next may stand in the line."""
        return self.parent

    @property
    def created_at_ms(self) -> int:
        return self.record.created_at_ms

    @property
    def expired_items(self) -> int:
        return self.parent.expired_items

    @expired_items.setter
    def expired_items(self, items: int) -> None:
        self.parent.expired_items = items

    @property
    def transactions(self) -> int:
        return self.parent.transactions

    @transactions.setter
    def transactions(self, reads: int) -> None:
        self.parent.transactions = reads

    @property
    def canceled_transactions(self) -> int:
        return self.parent.canceled_transactions

    @canceled_transactions.setter
    def canceled_transactions(self, reads: int) -> None:
        self.parent.canceled_transactions = reads

    @property
    def late_closes(self) -> int:
        return self.parent.late_closes

    @late_closes.setter
    def late_closes(self, closes: int) -> None:
        self.parent.late_closes = closes

    def tell(self, what: bytes, *about: Any) -> None:
        """Tell those who watch the queue, if anybody does."""
        parent: Any = self.parent
        if parent.traced:
            parent.traces.note(parent, what, *about)


class Watcher(Protocol):
    """Who is told when something in an aside has to be moved because of the time; see `due`."""

    def note(self, aside: "Aside", due_ms: int) -> None: ...

    def forget(self, aside: "Aside") -> None:
        """It has been deleted, or was never made."""


class Held:
    """What an aside knows of an open item."""

    __slots__ = ("read", "job", "kind", "place")

    def __init__(self, read: OpenRead, job: Job, kind: int, place: Place) -> None:
        self.read = read
        self.job = job
        self.kind = kind  # where it lies in the order of this kind; a delayed one that is due lies among the ready
        self.place = place
