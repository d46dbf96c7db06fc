"""Looking after the server and its queues: the commands that neither put nor take. See `client` for what a command is.

No call here switches greenlets, except through the Client's wait_... calls.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import NoReturn, TypeVar

from darner_core import VERSION, replies
from darner_core.client import Client, HangUp, Reply
from darner_core.delivery import Delivery
from darner_core.errors import DamagedError
from darner_core.message_queue import DamagedQueue, MessageQueue
from darner_core.protocol import Request
from darner_core.registry import Registry
from darner_core.replies import END, NONE
from darner_core.session import Session
from darner_core.stats import Stats, Totals, of_alias
from darner_core.sweeper import Sweeper

# How many queues one turn goes through in `stats` and `flush_all`: 100 are 1 to 2 ms.
QUEUES_A_TURN = 100

# Queues of which one turn adds up the figures: 1 ms.
SUMMED_A_TURN = 1000

_Each = TypeVar("_Each", bytes, MessageQueue)


def slices(queues: Iterable[_Each], most: int = QUEUES_A_TURN) -> Iterator[list[_Each]]:
    """`queues`, or their names, as they are now, so many at a time as one turn can deal with."""
    fixed = list(queues)  # pointers alone: 100,000 in 1 ms
    for start in range(0, len(fixed), most):
        yield fixed[start : start + most]


class Administering:
    """These commands, bound to what they work on."""

    def __init__(self, registry: Registry, delivery: Delivery, stats: Stats, sweeper: Sweeper) -> None:
        self._delivery = delivery
        self._sweeper = sweeper
        self._registry = registry
        self._queues = registry.queues
        self._stats = stats

    def delete_with(self, reply: bytes) -> Callable[[Request, None, Session], bytes]:
        """The command that deletes, and says so in these words."""

        def delete(request: Request, body: None, session: Session) -> bytes:
            if request.cursor:
                self._registry.cursors.delete(request.queue, request.cursor)
            else:
                self._registry.delete(request.queue)
            return NONE if request.noreply else reply

        return delete

    def flush(self, request: Request, body: None, session: Session) -> bytes:
        if request.cursor:
            self._registry.cursors.flush(request.queue, request.cursor)
        else:
            self._registry.flush(request.queue)
        return NONE if request.noreply else END

    def flush_expired(self, request: Request, body: None, session: Session) -> Reply:
        return partial(self._flush_expired, request)

    def _flush_expired(self, request: Request, client: Client) -> bytes:
        queue = self._queues.get(request.queue)
        if queue is None:
            return replies.count(0)
        before = queue.expired_items
        self._sweeper.wait_sweep(queue)
        return replies.count(queue.expired_items - before)

    def flush_all_expired(self, request: Request, body: None, session: Session) -> Reply:
        return self._flush_all_expired

    def _flush_all_expired(self, client: Client) -> bytes:
        before = self._wait_totals(client).expired_items
        self._sweeper.wait_sweep()
        return replies.count(max(0, self._wait_totals(client).expired_items - before))  # some may have been deleted

    def _wait_totals(self, client: Client) -> Totals:
        """The sums over all queues, taken in slices if there are many."""
        registry = self._registry
        totals = Totals(registry.total_items_of_deleted)
        for number, queues in enumerate(slices(chain(self._queues.values(), registry.hidden.values()), SUMMED_A_TURN)):
            if number:
                client.wait_turn()
            totals.add(queues)
        return totals

    def flush_all(self, request: Request, body: None, session: Session) -> Reply:
        return partial(self._flush_all, request)

    def _flush_all(self, request: Request, client: Client) -> bytes:
        self.wait_flush_all(client)
        return NONE if request.noreply else replies.FLUSHED_ALL

    def wait_flush_all(self, client: Client) -> None:
        """Raises DamagedError when all others have been flushed. Switches greenlets."""
        damaged: list[MessageQueue] = []
        for names in slices(self._queues):
            for name in names:
                queue = self._queues.get(name)
                if isinstance(queue, DamagedQueue):
                    damaged.append(queue)
                elif queue is not None:
                    queue.flush()
            client.wait_turn()
        if damaged:
            first = min(damaged, key=lambda queue: queue.name)
            raise DamagedError(f"all queues were flushed but one: {first.damage}")

    def stats(self, request: Request, body: None, session: Session) -> Reply:
        return self._stats_lines

    def _stats_lines(self, client: Client) -> bytes:
        totals = self._wait_totals(client)
        client.wait_sent(b"".join(self._stats.server_lines(self._registry, totals)))
        for names in slices(self._queues):
            seen = [name for name in names if name in self._queues and client.may_see(name)]
            lines = [self._stats.queue_lines(self._queues[name], client.may_see) for name in seen]
            client.wait_sent(b"".join(lines))
            client.wait_turn()
        seen_aliases = [name for name in self._delivery.alias_counts if client.may_see(name)]
        return b"".join(self._alias_lines(name, client) for name in seen_aliases) + END

    def _alias_lines(self, name: bytes, client: Client) -> bytes:
        figures = of_alias(self._delivery.alias_counts[name], self._delivery.aliases[name], client.may_see)
        return b"".join(replies.stat(b"queue_%b_%b" % (name, figure), value) for figure, value in figures)

    def version(self, request: Request, body: None, session: Session) -> bytes:
        return replies.version(VERSION)

    def quit(self, request: Request, body: None, session: Session) -> NoReturn:
        raise HangUp
