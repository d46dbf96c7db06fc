"""The statistics: what is counted, and the lines of the `stats` reply. Names are Darner's and Kestrel's.

Counters of items live where the items are (the queues); here is what the connections count.
"""

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator

from darner_core import VERSION
from darner_core.engines.local.cursor import Cursor
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.window import WindowBudget
from darner_core.errors import StorageError
from darner_core.protocols.memcache import replies

MaySee = Callable[[bytes], bool]


class Stats:
    """Counts since the server started."""

    __slots__ = (
        "started", "curr_connections", "total_connections", "rejected_connections", "cmd_set", "cmd_peek", "get_hits",
        "get_misses", "bytes_read", "bytes_written", "children_of", "budget", "_clock", "_monotonic",
    )  # fmt: skip

    def __init__(self, clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        """`clock` tells the time of day, which may be set; `monotonic` only runs forward."""
        self.budget = WindowBudget(1)  # the queues', when there are some
        self.children_of: Callable[[bytes], Collection[bytes]] = _no_children  # a queue's fanout children
        self._clock = clock
        self._monotonic = monotonic
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

    def server_lines(self, registry: Registry, totals: "Totals") -> Iterator[bytes]:
        now = self._clock()
        for name, value in (
            ("uptime", int(self._monotonic() - self.started)),
            ("time", int(now)),
            ("version", VERSION.encode()),
            ("pid", os.getpid()),
            ("curr_items", totals.waiting_items),
            ("total_items", totals.total_items),
            ("bytes", totals.waiting_bytes),
            ("reserved_memory_ratio", b"%.3f" % (self.budget.used_bytes / self.budget.budget_bytes)),
            ("curr_connections", self.curr_connections),
            ("total_connections", self.total_connections),
            ("rejected_connections", self.rejected_connections),
            ("cmd_get", self.get_hits + self.get_misses),
            ("cmd_set", self.cmd_set),
            ("cmd_peek", self.cmd_peek),
            ("get_hits", self.get_hits),
            ("get_misses", self.get_misses),
            ("bytes_read", self.bytes_read),
            ("bytes_written", self.bytes_written),
            ("queue_creates", registry.creates),
            ("queue_deletes", registry.deletes),
            ("queue_expires", registry.expires),  # deleted by max_queue_age_s; among the deletes
            ("queues_damaged", totals.damaged),
            ("queues_awaited", registry.awaited_count),  # that do not exist, and have somebody waiting for them
        ):
            yield replies.stat(name.encode(), value)

    def queue_lines(self, queue: MessageQueue, may_see: MaySee) -> bytes:
        prefix = b"queue_%b_" % queue.name
        lines = [replies.stat(prefix + name, value) for name, value in self.of_queue(queue, may_see)]
        for cursor in (queue.cursors or {}).values():
            prefix = b"queue_%b_" % cursor.name
            lines += [replies.stat(prefix + name, value) for name, value in self.of_cursor(cursor)]
        return b"".join(lines)

    def of_queue(self, queue: MessageQueue, may_see: MaySee) -> list[tuple[bytes, int | bytes]]:
        """What is told of one queue, in Kestrel's order; what Kestrel does not have comes last. `may_see`: whether the
        name of another queue may be told."""
        if queue.unreadable:
            return [(b"damaged", 1)]  # nothing else is known of it
        in_memory = [len(item[0]) for item in queue.window if item[0].__class__ is bytes]
        children = sorted(filter(may_see, self.children_of(queue.name)))
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
            (b"waiters", len(queue.line) if queue.line is not None else 0),
            (b"open_transactions", queue.open_reads),
            (b"transactions", queue.transactions),
            (b"canceled_transactions", queue.canceled_transactions),
            (b"total_flushes", queue.total_flushes),
            *([(b"children", b",".join(children))] if children else ()),
            (b"create_time", queue.log.record.created_at_ms // 1000),
            *([(b"expired_lost", queue.lost_expired)] if queue.options.expire_to_queue else ()),
            *([(b"damaged", 1)] if queue.damage else ()),
        ]

    def of_cursor(self, cursor: Cursor) -> list[tuple[bytes, int | bytes]]:
        """What is told of a cursor."""
        if cursor.unreadable:
            return [(b"damaged", 1)]
        return [
            (b"items", cursor.waiting_items),
            (b"waiters", len(cursor.line) if cursor.line is not None else 0),
            (b"open_transactions", cursor.open_reads),
            (b"total_flushes", cursor.total_flushes),
            (b"create_time", cursor.log.record.created_at_ms // 1000),
        ]

    def age_ms(self, queue: MessageQueue) -> int:
        """How long the head has been waiting; 0 if nothing waits, or it cannot be read."""
        try:
            added_at_ms = queue.head_added_at_ms()
        except StorageError:
            return 0  # who gets the item is told; the statistics of the others are of use still
        return max(0, int(self._clock() * 1000) - added_at_ms) if added_at_ms else 0


class Totals:
    """What is summed up over all queues, some at a time: with many of them it is the sum over several moments."""

    def __init__(self, total_items_of_deleted: int) -> None:
        """The argument is of the moment when the queues were listed: one that is deleted later is counted as listed."""
        self.waiting_items = 0
        self.waiting_bytes = 0
        self.total_items = total_items_of_deleted
        self.expired_items = 0
        self.damaged = 0

    def add(self, queues: Iterable[MessageQueue]) -> None:
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


class AliasCounts:
    """What has been put by an alias's name since the server started."""

    def __init__(self) -> None:
        self.put_items = 0
        self.put_bytes = 0


def of_alias(counts: AliasCounts, queues: Iterable[bytes], may_see: MaySee) -> list[tuple[bytes, int | bytes]]:
    """What is told of one alias, which leads to these `queues`."""
    seen = sorted(filter(may_see, queues))
    children = [(b"children", b",".join(seen))] if seen else []
    return [(b"put_items", counts.put_items), (b"put_bytes", counts.put_bytes), *children]


def _no_children(_: bytes) -> Collection[bytes]:
    return ()
