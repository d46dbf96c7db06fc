"""The local engine: the queues of this process, on one data directory. It builds its parts, and names them for those
that use it."""

import time
from collections.abc import Callable

from darner_core.config.options import Config
from darner_core.engines.local.due import DueTimes
from darner_core.engines.local.items import LocalItems
from darner_core.engines.local.jobs import LocalJobs
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.leases import Leases
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.routing import Routing
from darner_core.engines.local.sweeper import Sweeper
from darner_core.engines.local.window import WindowBudget
from darner_core.shared_memory import BodyMemory
from darner_core.storage.records import Item
from darner_core.storage.storage import Storage
from darner_core.waiters import Timer, wait_round


class LocalEngine:
    def __init__(
        self,
        config: Config,
        storage: Storage,
        body_memory: BodyMemory,
        run_after: Callable[[float, Callable[[], None]], Timer],
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = wait_round,
    ) -> None:
        """`run_after(seconds, call)` calls once, in the loop. `wait(seconds)` is what a sweep calls between its turns.

        Raises StorageError if the list of queues cannot be read."""
        self.journal = journal = Journal(storage, clock)
        self.budget = WindowBudget(config.window_bytes)
        due_times = DueTimes(journal, run_after, clock)
        self.registry = Registry(journal, self.budget, config.max_queues, config.rules, self._move_expired, due_times)
        self.routing = Routing(self.registry, journal, body_memory, config.chunk_bytes)
        self.sweeper = Sweeper(self.registry, self.routing, journal, wait, monotonic)
        self.traces = self.registry.traces
        self.jobs = LocalJobs(self.registry, self.routing, journal)
        self.sweeper.mover.put_dead = self.jobs.put_dead_letter
        self.leases = Leases(self.registry, journal, run_after, monotonic, self.jobs, config.max_leases)
        self.items = LocalItems(self.registry, journal, self.jobs, self.leases)
        self.free_bytes = storage.free_bytes

    def _move_expired(self, queue: MessageQueue, item: Item) -> None:
        self.routing.move_expired(queue, item)  # which is built on the registry
