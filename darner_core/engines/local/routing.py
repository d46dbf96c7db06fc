"""Where an item goes: into its queue and the fanout children of that, or into the queues of an alias, as far as limits
allow.

A put into a queue that is not `governed` never comes here. An item is put into all of its queues or into none: in one
turn, which is written as a whole. So everything that can be refused or can fail comes first, before anything is
changed: `_plan` and `_takers`. What follows cannot fail. No call here switches greenlets.

Source of the rules: Kestrel 2.4, "fanout queues", "aliases", "maxItems"; where they differ, docs/operations.md says so.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from darner_core import NAME
from darner_core.config.queues import QueueOptions
from darner_core.engines.local import expiry
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.large_items import Upload
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.transfer import Transfer
from darner_core.errors import DamagedError, ServerError, StorageError
from darner_core.shared_memory import BodyMemory
from darner_core.showing import show
from darner_core.storage.records import Blob, Item

log = logging.getLogger(NAME)

# Up to this many items are discarded in one turn from queues that hold more than their limits allow: 4 ms. Each put
# discards at least two, so that such a queue gets shorter.
DISCARDED_AT_ONCE = 1000
LEAST_DISCARDED = 2

# Each put into a full queue removes up to this many expired items, however many the turn has removed before.
LEAST_EXPIRED = 10


class Target(NamedTuple):
    """A queue that an item goes into."""

    queue: MessageQueue
    decides: bool  # whether the item is refused if this queue has no room; a child without room just misses it
    made: bool = False  # whether the queue was made for this item


def _fit(options: QueueOptions, items: int, size: int, sizes: Sequence[int]) -> bool:
    """Whether so many items and bytes leave room for these."""
    if options.discard_old_when_full:  # each makes room for itself
        sizes = (max(sizes, default=0),)
    if options.max_items and items + len(sizes) > options.max_items:
        return False
    return not (options.max_bytes and size + sum(sizes) > options.max_bytes)


class AliasCounts:
    """What has been put by an alias's name since the server started."""

    def __init__(self) -> None:
        self.put_items = 0
        self.put_bytes = 0


class Routing:
    def __init__(self, registry: Registry, journal: Journal, memory: BodyMemory, chunk_bytes: int) -> None:
        """`memory` is shared by all large items that are being received, in chunks of up to `chunk_bytes`."""
        self._registry = registry
        self._queues = registry.queues
        self._journal = journal
        self._memory = memory
        self._chunk_bytes = chunk_bytes
        self.aliases: dict[bytes, tuple[bytes, ...]] = {}
        self.alias_counts: dict[bytes, AliasCounts] = {}

    def set_aliases(self, aliases: Mapping[bytes, tuple[bytes, ...]]) -> None:
        """From now on these are the aliases, each with its destinations, none of which is an alias. An alias hides a
        queue of its name."""
        self.aliases = dict(aliases)
        self.alias_counts = {name: self.alias_counts.get(name) or AliasCounts() for name in aliases}
        self._registry.hide(aliases)

    def targets(self, names: tuple[bytes, ...], size: int, as_child: bool = False) -> list[Target] | None:
        """The queues that a large item of this size for `names` goes into, children first, each once; None: one that
        decides has no room for it. `as_child`: the one name is that of a fanout child.

        Queues that do not exist are made. Call `abandon` if nothing is put in the end. Raises ServerError if a queue
        cannot be made, StorageError if one cannot be used, with nothing changed.
        """
        as_child = as_child and names[0] not in self.aliases
        plan = self._plan(names, size, as_child)
        if plan is None:
            return None
        found, missing = plan
        made = self._registry.create_all(missing, as_child)
        return [Target(queue, decides) for queue, decides in found.items()] + [
            Target(queue, True, True) for queue in made
        ]

    def transfer(self, names: tuple[bytes, ...], size: int, as_child: bool = False) -> Transfer:
        """A large item for `names`, which comes piece by piece."""
        return Transfer(self, self._journal.storage, self._memory, self._chunk_bytes, names, size, as_child)

    def abandon(self, targets: Iterable[Target]) -> None:
        """No item is put after all: remove the queues that were made for it, unless other items have used them."""
        for target in targets:
            if target.made:
                self._registry.remove_unused(target.queue)

    def put(
        self, names: tuple[bytes, ...], body: bytes, flags: int, expires_at_ms: int, as_child: bool = False
    ) -> list[MessageQueue] | None:
        """Put an item that is not large into all queues or none; the queues that have it now, None: one that decides
        has no room for it. Raises ServerError or StorageError, with nothing changed."""
        takers = self.find_takers(names, len(body), as_child)
        for queue in takers or ():
            queue.put_until(body, flags, expires_at_ms)
        return takers

    def fit(self, names: tuple[bytes, ...], sizes: Sequence[int]) -> bool:
        """Whether items of these sizes, put one after the other, find room. Nothing is made. Raises StorageError."""
        queues = self._follow(names)
        for queue in [queue for queue, decides in self._existing(queues, False).items() if decides]:
            if queue.unreadable:
                raise DamagedError(queue.damage)
            if not self._fit_queue(queue, sizes):
                queue.drop_expired(least=LEAST_EXPIRED)
                if not self._fit_queue(queue, sizes):
                    return False
        for options in [self._registry.options(name) for name in queues if name not in self._queues]:
            if any(self._is_too_large(options, size) for size in sizes) or not _fit(options, 0, 0, sizes):
                return False
        return True

    def _fit_queue(self, queue: MessageQueue, sizes: Sequence[int]) -> bool:
        options = queue.options
        if queue.takes_nothing or any(self._is_too_large(options, size) for size in sizes):
            return False
        if options.discard_old_when_full:
            items, size = queue.kept()
        else:
            items, size = queue.stored_items, queue.all_bytes()
        return _fit(options, items, size, sizes)

    def first_of(self, names: tuple[bytes, ...]) -> bytes:
        """The first queue that these names stand for."""
        return self._follow(names)[0]

    def keeps(self, name: bytes, as_child: bool = False) -> bool:
        """Whether this queue, which need not exist, has items itself: one that is fanout_only leaves them to its
        children."""
        queue = self._queues.get(name)
        if as_child or (queue is not None and queue.is_child):
            return True
        return not (queue.options if queue is not None else self._registry.options(name)).fanout_only

    def existing(self, names: Iterable[bytes], as_child: bool = False) -> Iterable[MessageQueue]:
        """The queues that an item for these names goes into, if it can, as far as they exist."""
        return self._existing(self._follow(names), as_child)

    def find_takers(self, names: tuple[bytes, ...], size: int, as_child: bool = False) -> list[MessageQueue] | None:
        """The queues into which the caller puts an item that is not large, in this turn and in place of `put`."""
        as_child = as_child and names[0] not in self.aliases
        plan = self._plan(names, size, as_child)
        if plan is None:
            return None
        found, missing = plan
        takers = self._takers(found, size, as_child)
        takers += self._registry.create_all(missing, as_child)
        self._make_room(names, takers, size, as_child)
        self._count(names, size)
        return takers

    def put_large(
        self,
        names: tuple[bytes, ...],
        uploads: list[tuple[Target, Upload]],
        size: int,
        flags: int,
        expires_at_ms: int,
        as_child: bool = False,
        put_one: Callable[[MessageQueue, Blob], None] | None = None,
    ) -> list[MessageQueue] | None:
        """As `put`, for a large item of which all has come. None also if a queue that decides has been deleted. What is
        not put is dropped, even if this raises. `put_one` puts it into one of its queues, if not as every item."""
        is_put = False
        as_child = as_child and names[0] not in self.aliases
        try:
            if any(target.queue.deleted and target.decides for target, _ in uploads):
                return None
            found = {target.queue: target.decides for target, _ in uploads if not target.queue.deleted}
            self._drop_expired(found, size)
            if not self._all_fit(found, size, as_child):
                return None
            takers = self._takers(found, size, as_child)
            for _, upload in uploads:
                upload.store()  # so that nothing can fail from here on
            self._make_room(names, takers, size, as_child)
            taking = set(takers)
            for target, upload in uploads:
                if target.queue in taking:
                    upload.finish()
                    if put_one is None:
                        target.queue.put_until(Blob(upload.blob, size), flags, expires_at_ms)
                    else:
                        put_one(target.queue, Blob(upload.blob, size))
            self._count(names, size)
            is_put = True
            return takers
        finally:
            for _, upload in uploads:
                upload.drop()
            if not is_put:
                self.abandon(target for target, _ in uploads)

    # -- before anything is changed

    def _plan(
        self, names: Iterable[bytes], size: int, as_child: bool
    ) -> tuple[dict[MessageQueue, bool], list[bytes]] | None:
        """(the queues that exist, and whether each decides; the names of those that have to be made); None: there is
        no room. Raises ServerError or StorageError."""
        queues = self._follow(names)
        found = self._existing(queues, as_child)
        for queue in found:
            if queue.unreadable:
                raise DamagedError(queue.damage)
        if self._drop_expired(found, size):
            found = self._existing(queues, as_child)  # the queue that expired items go to may have been made
        registry = self._registry
        missing = []
        for name in queues:
            if name not in self._queues:
                options = registry.options(name, as_child)
                if as_child or not options.fanout_only:
                    if self._is_too_large(options, size):
                        return None
                    missing.append(name)
        if not self._all_fit(found, size, as_child):
            return None
        if missing:
            registry.require_room(len(missing))
        return found, missing

    def _follow(self, names: Iterable[bytes]) -> tuple[bytes, ...]:
        """The queues that these names stand for, each once."""
        aliases = self.aliases
        return tuple(dict.fromkeys(queue for name in names for queue in aliases.get(name, (name,))))

    def _existing(self, queues: Iterable[bytes], as_child: bool) -> dict[MessageQueue, bool]:
        found: dict[MessageQueue, bool] = {}
        for name in queues:
            for child in self._registry.children.get(name, {}).values():
                found.setdefault(child, False)
            queue = self._queues.get(name)
            if queue is not None and (as_child or queue.is_child or not queue.options.fanout_only):
                found[queue] = True
        return found

    def _drop_expired(self, queues: Iterable[MessageQueue], size: int) -> bool:
        """Remove expired items from full queues; False: no queue is full. Raises StorageError."""
        full = [queue for queue in queues if self._is_full(queue, queue.options, size)]
        for queue in full:
            queue.drop_expired(least=LEAST_EXPIRED)
        return bool(full)

    def _all_fit(self, found: Mapping[MessageQueue, bool], size: int, as_child: bool) -> bool:
        """Whether all queues that decide have room."""
        return all(
            self._has_room(queue, self._options(queue, as_child), size) for queue, decides in found.items() if decides
        )

    def _options(self, queue: MessageQueue, as_child: bool) -> QueueOptions:
        """The options that apply to this put: a queue that this put makes a fanout child already has its parent's."""
        return queue.options if queue.is_child or not as_child else self._registry.options(queue.name, True)

    def _has_room(self, queue: MessageQueue, options: QueueOptions, size: int) -> bool:
        """Whether `queue` takes an item of this size, as it is or after older items have been discarded."""
        if queue.takes_nothing or self._is_too_large(options, size):
            return False
        if options.discard_old_when_full:
            kept_items, kept_bytes = queue.kept()
            if options.max_bytes and kept_bytes + size > options.max_bytes:
                return False
            return not (options.max_items and kept_items >= options.max_items)
        return not self._is_full(queue, options, size)

    @staticmethod
    def _is_too_large(options: QueueOptions, size: int) -> bool:
        return bool(options.max_item_bytes and size > options.max_item_bytes) or bool(
            options.max_bytes and size > options.max_bytes
        )

    @staticmethod
    def _is_full(queue: MessageQueue, options: QueueOptions, size: int) -> bool:
        if options.max_items and queue.stored_items >= options.max_items:
            return True
        return bool(options.max_bytes) and queue.all_bytes() + size > options.max_bytes

    def _takers(self, found: Mapping[MessageQueue, bool], size: int, as_child: bool) -> list[MessageQueue]:
        """The queues that take the item: all but children without room. Raises StorageError if a queue has to discard
        items and cannot."""
        takers = []
        for queue, decides in found.items():
            if decides or self._has_room(queue, queue.options, size):
                takers.append(queue)
                if self._is_full(queue, self._options(queue, as_child), size):
                    expiry.has_oldest(queue)
        return takers

    # -- changing

    def _make_room(self, names: Iterable[bytes], takers: Iterable[MessageQueue], size: int, as_child: bool) -> None:
        """Discard what has to go. If a queue has far too many items because its limits were changed, each put discards
        some of them."""
        if as_child:
            for name in names:
                self._registry.child(name)
        journal = self._journal
        for queue in takers:
            discarded, most = 0, max(LEAST_DISCARDED, DISCARDED_AT_ONCE - journal.dropped)
            while self._is_full(queue, queue.options, size):
                try:
                    if not queue.discard_oldest():
                        break
                except StorageError:
                    break  # damage behind items that were discarded: the next put gets the error
                discarded += 1
                journal.dropped += 1
                if discarded >= most and self._is_full(queue, queue.options, 0):
                    break

    def _count(self, names: Iterable[bytes], size: int) -> None:
        """Count a put by these names, of which some may be aliases."""
        for name in names:
            counts = self.alias_counts.get(name)
            if counts is not None:
                undo = self._journal.undo
                undo.append((setattr, counts, "put_items", counts.put_items))
                undo.append((setattr, counts, "put_bytes", counts.put_bytes))
                counts.put_items += 1
                counts.put_bytes += size

    # -- expired items

    def move_expired(self, queue: MessageQueue, item: Item) -> None:
        """Put `item`, which expires and is not large, into the expire_to_queue of its queue."""
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
        """Count and log an expired item that its expire_to_queue did not take."""
        self._journal.undo.append((setattr, queue, "lost_expired", queue.lost_expired))
        queue.lost_expired += 1
        said = (
            "an expired item of queue %s was dropped: queue %s did not take it: %s",
            show(queue.name),
            show(queue.options.expire_to_queue),
            why,
        )
        self._journal.after.append((log.warning, *said))  # if the turn fails, it has not been dropped
