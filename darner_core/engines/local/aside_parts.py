"""What an aside has of its queue, whom it tells of times, and what it knows of an open item.

Types alone, so that the modules about asides need not import one another.
"""

from typing import TYPE_CHECKING, Protocol

from darner_core.config.queues import QueueOptions
from darner_core.engines.local.large_items import LargeItems
from darner_core.engines.local.reads import OpenRead
from darner_core.engines.local.window import WindowBudget
from darner_core.storage.job_records import Job, Place
from darner_core.storage.records import Item

if TYPE_CHECKING:
    from darner_core.engines.local.aside import Aside


class Parent(Protocol):
    """What an aside has of its queue."""

    name: bytes
    options: QueueOptions

    @property
    def budget(self) -> WindowBudget: ...

    @property
    def large_items(self) -> LargeItems: ...

    def aged(self, item: Item) -> Item:
        """The item, expiring when the queue's maximum age says so, if not before."""


class Watcher(Protocol):
    """Who is told when something in an aside has to be moved because of the time; see `due`."""

    def note(self, aside: "Aside", due_ms: int) -> None: ...


class Held:
    """What an aside knows of an open item."""

    __slots__ = ("read", "job", "kind", "place")

    def __init__(self, read: OpenRead, job: Job, kind: int, place: Place) -> None:
        self.read = read
        self.job = job
        self.kind = kind  # where it lies in the order of this kind; a delayed one that is due lies among the ready
        self.place = place
