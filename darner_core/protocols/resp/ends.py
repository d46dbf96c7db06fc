"""Lists as queues: which end of a list is the head of its queue, and what lies at each.

A queue is a list that is pushed at its tail and popped at its head: both cost what they cost clients of all other
protocols. What is pushed at the head is put before all others, and what is popped at the tail is removed from there. So
either end serves both, always in the order that LRANGE shows, and which one is the head only says what is quick.

Clients say it by what they do. The first push is at the tail, or the first pop at the head. A list of no more than one
value is the same from both ends: whoever pops there says it anew. The engine keeps it with the queue.

No call here switches greenlets.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any, Final

from darner_core.engines.contract import Item, Read
from darner_core.engines.items import Items
from darner_core.engines.jobs import Pause
from darner_core.engines.large_items import LARGE, Large
from darner_core.operations.operations import Operations
from darner_core.protocols.escaping import name_elsewhere
from darner_core.protocols.grammar import excerpt

LEFT, RIGHT = "left", "right"
OTHER: Final = {LEFT: RIGHT, RIGHT: LEFT}


# How many values of the tail are looked at together, by a command that pops several: they are read whole.
SEEN_AT_ONCE: Final = 16


class Side(Enum):
    """Where a push goes."""

    TAIL = "behind all others"
    HEAD = "before all others"
    NEW = "behind all others; nobody has said yet which end that is"


class Ends:
    """Those of all lists."""

    def __init__(self, operations: Operations) -> None:
        self._queues = operations.queues
        self._items = operations.items
        self._jobs = operations.jobs
        self._statistics = operations.statistics
        self._waiting: dict[bytes, dict[object, str]] = {}  # by list: the ends at which clients wait, in their order

    def begins_at_head(self, queue: bytes) -> bool:
        """Whether the left of the list is the head of the queue. If nobody has said it, the right is, because LPUSH and
        BRPOP are what most clients use."""
        return self._items.head_at_left(queue) or False

    def length(self, queue: bytes) -> int:
        """How many values the list has; 0: there is no such list."""
        found = self._queues.get(queue)
        return found.waiting_items if found is not None and not found.unreadable else 0

    # -- pushing

    def push(self, queue: bytes, end: str) -> Side:
        """Something is about to be pushed at this end."""
        at_left = self._items.head_at_left(queue)
        if at_left is None:
            return Side.NEW
        if at_left is not (end == LEFT):
            return Side.TAIL
        found = self._queues[queue]
        return Side.HEAD if self.length(queue) or found.outstanding else Side.TAIL  # an empty list has only one side

    def pushed(self, queue: bytes, end: str) -> None:
        """A first value was pushed at this end."""
        self._items.set_head_at_left(queue, end != LEFT)

    def in_order(self, queue: bytes, end: str, values: Sequence[bytes]) -> Sequence[bytes]:
        """In which order to put values that are pushed at this end by one command. Clients that wait get values as
        these are put, one each, and have to get what is at their ends behind the whole of it."""
        if len(values) < 2 or queue not in self._waiting or self.length(queue):
            return values
        waiters, ends = self._statistics.waiters(queue), list(self._waiting[queue].values())
        if waiters > len(ends) or self._jobs.paused(queue)[0] in (Pause.OUT, Pause.ALL):
            return values
        rest, first = deque(values), list[bytes]()
        for waits_at in ends[len(ends) - waiters :]:  # those before have got something, and do not run yet
            if rest:
                first.append(rest.pop() if waits_at == end else rest.popleft())
        return [*first, *rest]

    # -- popping

    def at_head(self, queue: bytes, end: str) -> bool:
        """Whether what is about to be popped at this end is the head, which it is if nobody has said otherwise."""
        at_left = self._items.head_at_left(queue)
        if at_left is (end == LEFT):
            return True
        if at_left is None or self.length(queue) <= 1:
            self._items.set_head_at_left(queue, end == LEFT)
            return True
        return False

    def source(self, queue: bytes, end: str) -> Any:
        """What to take or open values of at this end, as of a queue; None: there is no such queue."""
        found = self._queues.get(queue)
        if found is None or found.unreadable or self.at_head(queue, end):
            return found
        return _Tail(self._items, queue, self._jobs.paused(queue)[0] in (Pause.OUT, Pause.ALL))

    @contextmanager
    def waiting(self, queues: Sequence[bytes], end: str) -> Iterator[None]:
        """A client waits for a value at this end of one of these lists."""
        waiter = object()
        for queue in queues:
            self._waiting.setdefault(queue, {})[waiter] = end
        try:
            yield
        finally:
            for queue in set(queues):
                del self._waiting[queue][waiter]
                if not self._waiting[queue]:
                    del self._waiting[queue]


class _Tail:
    """The tail of a queue, for one command, which uses it as a queue whose head it would be."""

    half_swept = False

    def __init__(self, items: Items, name: bytes, paused: bool) -> None:
        self._items = items
        self._name = name
        self._paused = paused
        self._seen: list[int] = []  # ids, the last value's at the end
        self._looks_at = 1

    def _last(self) -> int:
        """The id of the last value; 0: there is none."""
        if not self._seen and not self._paused:
            self._seen = [seen.id for seen in self._items.look(self._name, most=self._looks_at, backwards=True)]
            self._seen.reverse()
            self._looks_at = SEEN_AT_ONCE
        return self._seen[-1] if self._seen else 0

    def take(self) -> Item | Large | None:
        item_id = self._last()
        item = self._items.item(self._name, item_id) if item_id else None
        if item is None:
            return None
        if item[0].__class__ is not bytes:
            return LARGE
        self._items.remove(self._name, item_id)
        self._seen.pop()
        return item

    def open(self) -> Read | None:
        item_id = self._last()
        return self._items.open(self._name, item_id) if item_id else None


def shown(queue: bytes) -> str:
    """A list's name in an error message."""
    return excerpt(name_elsewhere(queue))
