"""The local engine: what stands around the queues of this process, built in order."""

from collections.abc import Callable

from darner_core.engines.local.journal import Journal
from darner_core.engines.local.leases import Leases, Timer
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.routing import Delivery
from darner_core.engines.local.sweeper import Sweeper
from darner_core.engines.local.tracing import Traces
from darner_core.shared_memory import BodyMemory
from darner_core.waiters import wait_round


class LocalEngine:
    def __init__(
        self,
        registry: Registry,
        journal: Journal,
        chunk_bytes: int,
        body_memory: BodyMemory,
        run_after: Callable[[float, Callable[[], None]], Timer],
    ) -> None:
        """`run_after(seconds, call)` calls once, in the loop."""
        self.registry = registry
        self.journal = journal
        self.delivery = Delivery(registry, journal)
        self.sweeper = Sweeper(registry, self.delivery, journal, body_memory, chunk_bytes, wait_round)
        self.traces = Traces(registry, journal, lambda queue: queue.options.trace)
        self.leases = Leases(registry, journal, run_after)
