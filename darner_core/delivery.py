"""Where an item goes: into its queue and that one's fanout children, or an alias's queues, as far as limits allow.

A plain queue never comes here: it has no options, no children, and no alias has its name. All that belongs to one item
is put in one turn, so after a crash it is in all of its queues or in none. No call here switches greenlets.

Source of the rules: Kestrel 2.4, "fanout queues", "aliases", "maxItems"; where they differ, docs/operations.md says so.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from darner_core import NAME
from darner_core.errors import DamagedError, ServerError
from darner_core.journal import Journal
from darner_core.message_queue import DamagedQueue, MessageQueue
from darner_core.open_read import OpenRead
from darner_core.option_values import show_bytes
from darner_core.records import Blob, Item
from darner_core.registry import Registry
from darner_core.stats import AliasCounts

log = logging.getLogger(NAME)

# Items that puts discard in one turn of queues that hold more than they may: 4 ms. Each put discards two at least, so
# that such a queue gets shorter.
DISCARDED_AT_ONCE = 1000
LEAST_DISCARDED = 2

# Expired items of a full queue that each put removes, however many have been removed in the turn.
LEAST_EXPIRED = 10


class Target(NamedTuple):
    """A queue that an item goes into."""

    queue: MessageQueue
    decides: bool  # whether the item counts as refused if this queue has no room for it; a child's refusal does not


class Delivery:
    def __init__(self, registry: Registry, journal: Journal) -> None:
        self._registry = registry
        self._queues = registry.queues
        self._journal = journal
        self.aliases: dict[bytes, tuple[bytes, ...]] = {}
        self.alias_counts: dict[bytes, AliasCounts] = {}
        self.large_expired: list[OpenRead] = []  # to be moved to where they expire to; see `sweeper`
        registry.bury = self._bury
        registry.move_large = self.large_expired.append

    def set_aliases(self, aliases: Mapping[bytes, tuple[bytes, ...]]) -> None:
        """From now on these, each with its destinations, none of which is an alias. An alias wins over a queue of its
        name, which is out of reach meanwhile."""
        self.aliases = dict(aliases)
        self.alias_counts = {name: self.alias_counts.get(name) or AliasCounts() for name in aliases}
        self._registry.hide(aliases)

    def targets(self, names: Iterable[bytes]) -> list[Target]:
        """The queues that an item for `names` goes into, made if they do not exist, children first. Raises ServerError
        if one cannot be made, DamagedError if one cannot be used; nothing may be put then."""
        found: list[Target] = []
        for name in names:
            for destination in self.aliases.get(name, (name,)):
                self._add_targets(destination, found)
        for target in found:
            if isinstance(target.queue, DamagedQueue):
                raise DamagedError(target.queue.damage)
        return found

    def _add_targets(self, name: bytes, found: list[Target]) -> None:
        registry = self._registry
        queue = self._queues.get(name)
        found.extend(Target(child, False) for child in registry.children.get(name, {}).values())
        options = registry.options(name) if queue is None else queue.options
        if options.fanout_only and not (queue is not None and queue.is_child):
            return
        found.append(Target(queue or registry.create(name), True))

    def put(self, names: tuple[bytes, ...], body: bytes, flags: int, expires_at_ms: int) -> list[MessageQueue] | None:
        """Put an item that is not large; the queues that have it now, None: it was refused."""
        targets = self.targets(names)
        if len(names) > 1 and not all(self.has_room(target.queue, len(body)) for target in targets if target.decides):
            return None  # into all of them or into none
        refused = False
        stored = []
        for queue, decides in targets:
            if self.store(queue, body, flags, expires_at_ms):
                stored.append(queue)
            else:
                refused |= decides
        for name in names:
            self.count_alias(name, len(body))
        return None if refused else stored

    def count_alias(self, name: bytes, size: int) -> None:
        counts = self.alias_counts.get(name)
        if counts is not None:
            counts.put_items += 1
            counts.put_bytes += size

    def store(self, queue: MessageQueue, body: bytes | Blob, flags: int, expires_at_ms: int) -> bool:
        """Put the item into this one queue, over the oldest if need be; False: there is no room."""
        if not self.make_room(queue, len(body)):
            return False
        queue.put_until(body, flags, expires_at_ms)
        return True

    def has_room(self, queue: MessageQueue, size: int) -> bool:
        """Whether `queue` takes an item of this size, as it is or after discarding older ones. What has expired in a
        full queue is removed. Raises StorageError."""
        options = queue.options
        if (options.max_item_bytes and size > options.max_item_bytes) or (
            options.max_bytes and size > options.max_bytes
        ):
            return False
        if self._is_full(queue, size):
            queue.drop_expired(least=LEAST_EXPIRED)
        if options.discard_old_when_full:
            open_bytes, open_reads = queue.open_bytes, queue.open_reads
            if options.max_bytes and open_bytes + size > options.max_bytes:
                return False
            return not (options.max_items and open_reads >= options.max_items)
        return not self._is_full(queue, size)

    @staticmethod
    def _is_full(queue: MessageQueue, size: int) -> bool:
        options = queue.options
        if options.max_items and queue.waiting_items + queue.open_reads >= options.max_items:
            return True
        return bool(options.max_bytes) and queue.stored_bytes() + size > options.max_bytes

    def make_room(self, queue: MessageQueue, size: int) -> bool:
        """The same, and discard them. Of a queue that has far too many since its limits were changed, some go with each
        put."""
        if not self.has_room(queue, size):
            return False
        journal = self._journal
        discarded, most = 0, max(LEAST_DISCARDED, DISCARDED_AT_ONCE - journal.dropped)
        while self._is_full(queue, size) and queue.discard_oldest():
            discarded += 1
            journal.dropped += 1
            if discarded >= most and self._is_full(queue, 0):
                break
        return True

    def _bury(self, queue: MessageQueue, item: Item) -> None:
        """`item` expires, and its queue has an expire_to_queue."""
        body, flags, _, _ = item
        assert isinstance(body, bytes)
        name = queue.options.expire_to_queue
        try:
            stored = self.put((name,), body, flags, 0)
        except (ServerError, DamagedError) as error:
            self.lost(queue, str(error))
            return
        if stored is None:
            self.lost(queue, "it is full")

    def lost(self, queue: MessageQueue, why: str) -> None:
        """An expired item could not go where it had to."""
        queue.lost_expired += 1
        log.warning(
            "an expired item of queue %s was dropped: queue %s did not take it: %s",
            show_bytes(queue.name),
            show_bytes(queue.options.expire_to_queue),
            why,
        )
