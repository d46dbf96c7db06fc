"""The statistics: what is counted of connections and requests, and all figures by name, for protocols to write.

Counters of items live where the items are, in the queues. Names of figures are Darner's and Kestrel's. No call here
switches greenlets, except `wait_totals`.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain

from darner_core import VERSION
from darner_core.engines.contract import Engine, Queue, Source
from darner_core.errors import StorageError
from darner_core.operations.client import Client
from darner_core.slicing import slices

MaySee = Callable[[bytes], bool]

# The figures of the server, a queue or an alias, in the order in which clients are told them.
Figures = list[tuple[bytes, int | bytes]]

# How many queues one turn goes through to tell their figures, or to flush them: 100 are 1 to 2 ms.
QUEUES_A_TURN = 100

# How many queues' figures one turn adds up: 1 ms.
SUMMED_A_TURN = 1000


class Stats:
    """Counts since the server started."""

    __slots__ = (
        "started", "curr_connections", "total_connections", "rejected_connections", "cmd_set", "cmd_peek", "get_hits",
        "get_misses", "bytes_read", "bytes_written",
    )  # fmt: skip

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.started = monotonic()
        self.curr_connections = 0
        self.total_connections = 0
        self.rejected_connections = 0
        self.cmd_set = 0
        self.cmd_peek = 0
        self.get_hits = 0  # answered with an item; peeks count as neither
        self.get_misses = 0
        self.bytes_read = 0
        self.bytes_written = 0


class Totals:
    """Sums over all queues. With many queues they are added up in several turns, so they are of no single moment."""

    def __init__(self, total_items_of_deleted: int) -> None:
        """`total_items_of_deleted`: when the sum begins. A queue that is deleted later is still in the list."""
        self.waiting_items = 0
        self.waiting_bytes = 0
        self.total_items = total_items_of_deleted
        self.expired_items = 0
        self.damaged = 0

    def add(self, queues: "Iterable[Queue]") -> None:
        for queue in queues:
            self.total_items += queue.total_items
            self.expired_items += queue.expired_items
            if queue.deleted:
                continue
            self.waiting_items += queue.waiting_items
            self.waiting_bytes += queue.waiting_bytes
            self.damaged += bool(queue.damage)
            if queue.cursors is not None:
                self.damaged += sum(bool(cursor.damage) for cursor in queue.cursors.values())


class Statistics:
    """All figures of the server, its queues and its aliases."""

    def __init__(self, stats: Stats, engine: Engine) -> None:
        self._stats = stats
        self._registry = engine.registry
        self._routing = engine.routing
        self._budget = engine.budget
        self._jobs = engine.jobs

    @property
    def aliases(self) -> Mapping[bytes, object]:
        return self._routing.aliases

    def wait_totals(self, client: Client) -> Totals:
        """The sums over all queues, in slices if there are many."""
        registry = self._registry
        totals = Totals(registry.total_items_of_deleted)
        everyone = chain(registry.queues.values(), registry.hidden.values())
        for number, queues in enumerate(slices(everyone, SUMMED_A_TURN)):
            if number:
                client.wait_turn()
            totals.add(queues)
        return totals

    def of_server(self, totals: Totals) -> Figures:
        """What is told of the server, and of all its queues together."""
        stats, registry, budget = self._stats, self._registry, self._budget
        return [
            (b"uptime", int(time.monotonic() - stats.started)),
            (b"time", int(time.time())),
            (b"version", VERSION.encode()),
            (b"pid", os.getpid()),
            (b"curr_items", totals.waiting_items),
            (b"total_items", totals.total_items),
            (b"bytes", totals.waiting_bytes),
            (b"reserved_memory_ratio", b"%.3f" % (budget.used_bytes / budget.budget_bytes)),
            (b"curr_connections", stats.curr_connections),
            (b"total_connections", stats.total_connections),
            (b"rejected_connections", stats.rejected_connections),
            (b"cmd_get", stats.get_hits + stats.get_misses),
            (b"cmd_set", stats.cmd_set),
            (b"cmd_peek", stats.cmd_peek),
            (b"get_hits", stats.get_hits),
            (b"get_misses", stats.get_misses),
            (b"bytes_read", stats.bytes_read),
            (b"bytes_written", stats.bytes_written),
            (b"queue_creates", registry.creates),
            (b"queue_deletes", registry.deletes),
            (b"queue_expires", registry.expires),  # deleted by max_queue_age_s; among the deletes
            (b"queues_damaged", totals.damaged),
            (b"queues_awaited", registry.awaited_count),  # that do not exist, and that clients wait for
        ]

    def of_queue(self, name: bytes, may_see: MaySee) -> Figures | None:
        """What is told of one queue, in Kestrel's order; what Kestrel does not have comes last. None: there is none.
        `may_see`: whether the name of another queue may be told."""
        queue = self._registry.queues.get(name)
        if queue is None:
            return None
        if queue.unreadable:
            return [(b"damaged", 1)]  # nothing else is known of it
        in_memory = [len(item[0]) for item in queue.window if item[0].__class__ is bytes]
        children = sorted(filter(may_see, self._registry.children_of(name)))
        return [
            (b"items", queue.waiting_items),
            (b"bytes", queue.waiting_bytes),
            (b"total_items", queue.total_items),
            (b"logsize", queue.log_bytes),
            (b"expired_items", queue.expired_items),
            (b"mem_items", len(in_memory)),
            (b"mem_bytes", sum(in_memory)),
            (b"age", self.age_ms(queue)),
            (b"discarded", queue.discarded),
            (b"waiters", _waiters(queue)),
            (b"open_transactions", queue.open_reads),
            (b"transactions", queue.transactions),
            (b"canceled_transactions", queue.canceled_transactions),
            (b"total_flushes", queue.total_flushes),
            *([(b"children", b",".join(children))] if children else ()),
            (b"create_time", queue.created_at_ms // 1000),
            *self._jobs.figures(name),
            *([(b"expired_lost", queue.lost_expired)] if queue.options.expire_to_queue else ()),
            *([(b"damaged", 1)] if queue.damage else ()),
        ]

    def of_cursors(self, name: bytes) -> Iterator[tuple[bytes, Figures]]:
        """What is told of each cursor of a queue, by the cursor's name."""
        queue = self._registry.queues.get(name)
        for cursor in (queue.cursors or {}).values() if queue is not None else ():
            if cursor.unreadable:
                yield cursor.name, [(b"damaged", 1)]
                continue
            yield (
                cursor.name,
                [
                    (b"items", cursor.waiting_items),
                    (b"waiters", _waiters(cursor)),
                    (b"open_transactions", cursor.open_reads),
                    (b"total_flushes", cursor.total_flushes),
                    (b"create_time", cursor.created_at_ms // 1000),
                ],
            )

    def of_alias(self, name: bytes, may_see: MaySee) -> Figures | None:
        """What is told of one alias. None: there is none."""
        counts = self._routing.alias_counts.get(name)
        if counts is None:
            return None
        seen = sorted(filter(may_see, self._routing.aliases[name]))
        children: Figures = [(b"children", b",".join(seen))] if seen else []
        return [(b"put_items", counts.put_items), (b"put_bytes", counts.put_bytes), *children]

    def waiters(self, name: bytes) -> int:
        """How many clients wait for an item of the queue, which need not exist."""
        return self._registry.waiters(name)

    def age_ms(self, queue: Queue) -> int:
        """How long the head has been waiting; 0 if nothing waits, or the head cannot be read."""
        try:
            added_at_ms = queue.head_added_at_ms()
        except StorageError:
            return 0  # a client that takes the item is told; the statistics of other queues are of use still
        return max(0, int(time.time() * 1000) - added_at_ms) if added_at_ms else 0


def _waiters(queue: Source) -> int:
    return len(queue.line) if queue.line is not None else 0
