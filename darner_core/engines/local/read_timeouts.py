"""Which reads have been open for too long: of the queues that have an open_transaction_timeout_s, their items go to
the next, as if the client had aborted.

It is looked at every expiration_timer_s, by what is open then. No time is kept with a read, so opening and closing cost
nothing for it: the time of a read begins with the first look that finds it, and it is given back up to two looks late.
Times are of the monotonic clock, which nobody can set.

A large item that is being sent is not given back while the client takes a chunk of it in that time; else the client is
cut off in the middle of it. Once it has been sent, its time begins anew.

The client's session knows nothing of it. To close or abort what has been given back does nothing to the item, which may
be with somebody else by then; the reply is as always, and each look tells in the log how many have been closed.

No call here switches greenlets. What is given back belongs to the turn of the loop in which that is done.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from darner_core import NAME
from darner_core.config.values import show_bytes
from darner_core.engines.local.cursor import Cursor
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.reads import OpenRead
from darner_core.engines.local.registry import Registry

log = logging.getLogger(NAME)

# Looked at in one turn: 2000 queues without the option are 0.1 ms, 2000 open reads 1 ms.
LOOKS_A_TURN = 2000

NOT_BEING_SENT = -1


class Sending(Protocol):
    """A large item on its way to the client."""

    missing_bytes: int  # how much of it has still to be sent


class ReadTimeouts:
    def __init__(self, registry: Registry, sending: Mapping[Any, Sending], clock: Callable[[], float]) -> None:
        """`sending` are the large items that are being sent, at all times."""
        self._registry = registry
        self._sending = sending
        self._clock = clock
        self._seen: dict[OpenRead, tuple[int, float]] = {}  # how far they were sent, and since when

    def look(self) -> Iterator[None]:
        """Give back what has been open for too long. To be gone on with after a turn of the loop each time."""
        now = self._clock()
        before, self._seen = self._seen, {}
        looked_at = 0
        for queue in _with_cursors(list(self._registry.queues.values())):
            looked_at += 1
            if queue.late_closes:
                _tell_too_late(queue)
            timeout_s = queue.options.open_transaction_timeout_s
            if timeout_s and queue.outstanding:
                reads = [read for read in queue.outstanding.values() if not read.returned]
                for start in range(0, len(reads), LOOKS_A_TURN):
                    some = reads[start : start + LOOKS_A_TURN]
                    self._give_back(queue, [read for read in some if self._is_overdue(read, now, timeout_s, before)])
                    looked_at += len(some)
                    if looked_at >= LOOKS_A_TURN:
                        looked_at = 0
                        yield
            if looked_at >= LOOKS_A_TURN:
                looked_at = 0
                yield

    def _is_overdue(
        self, read: OpenRead, now: float, timeout_s: int, before: Mapping[OpenRead, tuple[int, float]]
    ) -> bool:
        sending = self._sending.get(read)
        progress = NOT_BEING_SENT if sending is None else sending.missing_bytes
        known, since = before.get(read, (progress, now))
        if known != progress:
            since = now
        if now - since >= timeout_s:
            return True
        self._seen[read] = progress, since
        return False

    def _give_back(self, queue: MessageQueue | Cursor, overdue: list[OpenRead]) -> None:
        still = [read for read in overdue if queue.holds(read)]  # else they were closed in a turn since the look
        if still:
            name, timeout_s = show_bytes(queue.name), queue.options.open_transaction_timeout_s
            log.info("queue %s: %d items were open for %d s and are given back", name, len(still), timeout_s)
        for read in still:
            queue.give_back(read)


def _tell_too_late(queue: MessageQueue | Cursor) -> None:
    name, count, queue.late_closes = show_bytes(queue.name), queue.late_closes, 0
    what = "1 item was closed too late: it" if count == 1 else f"{count} items were closed too late: they"
    log.info("queue %s: %s had been given back", name, what)


def _with_cursors(queues: list[MessageQueue]) -> Iterator[MessageQueue | Cursor]:
    for queue in queues:
        yield queue
        if queue.cursors is not None:
            yield from list(queue.cursors.values())
