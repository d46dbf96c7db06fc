"""The queues by name: which there are, making and removing them, and reading them back from the data directory.

A hot path looks names up in `queues` directly. Asking for a queue that does not exist creates nothing; clients that
wait for one stand in `lines`.

No call here switches greenlets.
"""

import logging
import sys
from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import chain
from typing import Protocol, cast

from darner_core import NAME
from darner_core.config.queues import QueueOptions, QueueRules, parent_of
from darner_core.config.values import show_bytes
from darner_core.engines.local import expiry, lines, recovery, window
from darner_core.engines.local.cursor import Cursor
from darner_core.engines.local.cursors import Cursors
from darner_core.engines.local.damaged_queue import DamagedQueue
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.large_items import may_have_chunks
from darner_core.engines.local.lines import Lines
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.places import Places
from darner_core.engines.local.reads import OpenRead
from darner_core.engines.local.window import WindowBudget
from darner_core.errors import DamagedError, ServerError, StorageError
from darner_core.storage import records
from darner_core.storage.records import CHILD, PLAIN, Item, QueueRecord, State
from darner_core.storage.storage import Batch
from darner_core.waiters import Waiter

log = logging.getLogger(NAME)


# Queues that are given other options in one turn, and those that are made in one: 1 to 2 ms.
CHANGED_A_TURN = 200
MADE_A_TURN = 50


class Observer(Protocol):
    """Who is told that queues come and go, in the turn in which they do; see `tracing`."""

    def created(self, queue: MessageQueue) -> None: ...

    def deleted(self, queue: MessageQueue) -> None: ...

    def changed(self, queue: MessageQueue) -> None:
        """Its options are others."""


class Registry:
    """All queues of one data directory.

    The first `max_column_families` queues have a column family each; later ones share, each with the family that
    fewest have. A family whose queue is deleted is used again.

    `children` holds the fanout children by their parent's name; the parent need not exist. Each is in `queues`, too.
    """

    def __init__(
        self,
        journal: Journal,
        budget: WindowBudget,
        max_queues: int = sys.maxsize,
        rules: QueueRules | None = None,
    ) -> None:
        """Read every queue back, however many there are. Raises StorageError if it cannot be read which there are."""
        self.max_queues = max_queues
        self.rules = rules or QueueRules()
        self.children: dict[bytes, dict[bytes, MessageQueue]] = {}
        self.by_number: dict[int, MessageQueue] = {}
        self.timed: dict[MessageQueue, None] = {}  # which have a max_age_s or a max_queue_age_s
        self.hidden: dict[bytes, MessageQueue] = {}  # whose name is an alias at present
        self.aliases: Collection[bytes] = ()
        # What to do with items that expire, and with large ones, where queues have an expire_to_queue.
        self.move_expired: Callable[[MessageQueue, Item], None] | None = None
        self.move_large: Callable[[OpenRead], None] | None = None
        self.queues: dict[bytes, MessageQueue] = {}
        self.lines = Lines()
        self.creates = 0
        self.deletes = 0
        self.expires = 0  # of these, because of their max_queue_age_s
        self.total_items_of_deleted = 0
        self.traces: Observer | None = None
        self._journal = journal
        self._budget = budget
        storage = journal.storage
        self._places = Places(storage)
        numbers = set()
        for name, record in storage.queues():
            queue = self._read_back(name, record)
            self.queues[name] = queue
            self._register(queue)
            self._places.family_users[record.family] += 1
            numbers.add(record.number)
        self.cursors = Cursors(
            journal, budget, self.queues, self.hidden, self._places.new_number, self.require_room, self.lines
        )
        numbers |= self.cursors.read_back()
        uploads = storage.unfinished_uploads()
        numbers.update(number for number, _ in uploads)  # their chunks are there until the first turn ends
        self._places.pass_over(numbers)
        for number, blob in uploads:
            journal.also.append(partial(_forget_upload, journal, number, blob))

    def _read_back(self, name: bytes, record: QueueRecord) -> MessageQueue:
        """The queue; one that is damaged if it cannot be read, so that the others can be served."""
        options, journal = self.options(name, record.kind == CHILD), self._journal
        try:
            return MessageQueue(name, self._budget, options, journal, record, journal.storage.state(record))
        except StorageError as error:
            # It stands in for one wherever queues are used by name.
            return cast(MessageQueue, DamagedQueue(name, options, journal, record, error))

    # -- options and families

    def options(self, name: bytes, is_child: bool = False) -> QueueOptions:
        """Of the queue with this name, which need not exist."""
        return self.rules.of(name, parent_of(name) if is_child else b"")

    def _register(self, queue: MessageQueue) -> None:
        self.by_number[queue.log.record.number] = queue
        if queue.is_child:
            parent = parent_of(queue.name)
            self.children.setdefault(parent, {})[queue.name] = queue
            self._govern_by_name(parent)
        self._govern(queue)

    def _unregister(self, queue: MessageQueue) -> None:
        del self.by_number[queue.log.record.number]
        self.timed.pop(queue, None)
        if queue.is_child:
            parent = parent_of(queue.name)
            del self.children[parent][queue.name]
            if not self.children[parent]:
                del self.children[parent]
            self._govern_by_name(parent)

    def _govern_by_name(self, name: bytes) -> None:
        queue = self.queues.get(name)
        if queue is not None:
            self._govern(queue)

    def _govern(self, queue: MessageQueue) -> None:
        """See whether puts into `queue` have to be looked at more closely."""
        if queue.unreadable:
            return
        options = queue.options
        queue.governed = bool(
            options.max_items or options.max_bytes or options.max_item_bytes or options.max_age_s or options.fanout_only
            or options.sync == "always" or queue.name in self.children
        )  # fmt: skip
        if options.max_age_s or options.max_queue_age_s:
            self.timed[queue] = None
        else:
            self.timed.pop(queue, None)
        queue.expire_to = self._move_expired if options.expire_to_queue else None
        queue.move_large = self._move_large if options.expire_to_queue else None

    def _move_expired(self, queue: MessageQueue, item: Item) -> None:
        if self.move_expired is not None:
            self.move_expired(queue, item)

    def _move_large(self, read: OpenRead) -> None:
        if self.move_large is not None:
            self.move_large(read)

    def set_rules(self, rules: QueueRules) -> None:
        """From now on these: all queues that exist change in this turn."""
        self.rules = rules
        for _ in self.apply_rules():
            pass

    def apply_rules(self) -> Iterator[None]:
        """Give the queues that exist the options that `rules` say, which those made from now on have anyhow. To be gone
        on with after a turn of the loop each time. One queue's options change together."""
        for number, queue in enumerate([*self.queues.values(), *self.hidden.values()], 1):
            if not queue.deleted and not queue.unreadable:
                self._set_options(queue)
                self._govern(queue)
                if self.traces is not None:
                    self.traces.changed(queue)
            if number % CHANGED_A_TURN == 0:
                yield

    def _set_options(self, queue: MessageQueue) -> None:
        """What the rules say of this queue now."""
        queue.options = self.options(queue.name, queue.is_child)
        for cursor in (queue.cursors or {}).values():
            cursor.options = queue.options
        if not queue.unreadable:
            expiry.set_max_age(queue, queue.options.max_age_s * 1000)

    def create_named(self) -> None:
        """Make the queues that the configuration names, in this turn. Raises ServerError at `max_queues`."""
        for _ in self.make_named():
            pass

    def make_named(self) -> Iterator[None]:
        """Make the queues that the configuration names, a slice each time that this is gone on with, a turn later."""
        for number, name in enumerate(self._missing(self.rules), 1):
            if name not in self.queues and name not in self.hidden:  # nobody has made it meanwhile
                self.create(name, is_child=parent_of(name) != b"")
            if number % MADE_A_TURN == 0:
                yield

    def has_room_for(self, rules: QueueRules) -> bool:
        """Whether all queues that these rules name can exist beside those that there are."""
        missing = len(self._missing(rules))  # without any it does not matter how many there are
        return not missing or len(self.queues) + self.cursors.count + missing <= self.max_queues

    def _missing(self, rules: QueueRules) -> list[bytes]:
        return [name for name in rules.named if name not in self.queues and name not in self.hidden]

    def hide(self, names: Collection[bytes]) -> None:
        """Let nobody reach the queues with these names, and no others be hidden."""
        self.aliases = frozenset(names)
        for name in [name for name in self.hidden if name not in names]:
            self.queues[name] = self.hidden.pop(name)
        for name in names:
            if name in self.queues:
                self.hidden[name] = self.queues.pop(name)
                log.warning("queue %s is out of reach: there is an alias of that name", show_bytes(name))

    def children_of(self, parent: bytes) -> Collection[bytes]:
        """The names of the fanout children of a queue, which need not exist."""
        return self.children.get(parent, {})

    def child(self, name: bytes) -> MessageQueue | None:
        """The fanout child `name`, which is one from now on if it was none; None: it is an alias. Raises ServerError at
        `max_queues`."""
        queue = self.queues.get(name)
        if queue is None:
            if name in self.aliases:
                return None
            return self.create(name, is_child=True)
        if not queue.is_child and not queue.unreadable:
            self._set_kind(queue, CHILD)
            self._journal.undo.append((self._set_kind, queue, PLAIN))
            storage, record = self._journal.storage, queue.log.record
            if queue.log.durable:
                self._journal.also.append(lambda batch: storage.add_queue(batch, name, record))
        return queue

    def _set_kind(self, queue: MessageQueue, kind: int) -> None:
        self._unregister(queue)
        queue.log.record = queue.log.record._replace(kind=kind)
        self._set_options(queue)
        self._register(queue)

    # -- queues

    @property
    def damaged(self) -> list[MessageQueue | Cursor]:
        """The queues that cannot be read. All others are served."""
        return [*(queue for queue in self.queues.values() if queue.damage), *self.cursors.damaged]

    def require_room(self, more: int = 1) -> None:
        """Raises ServerError if there may not be `more` queues more. Cursors are counted."""
        if len(self.queues) + self.cursors.count + more > self.max_queues:
            raise ServerError(f"too many queues: at most {self.max_queues}")

    def create(self, name: bytes, is_child: bool = False) -> MessageQueue:
        """Make the queue `name`, which must not exist, in this turn. Raises ServerError at `max_queues`."""
        return self.create_all((name,), is_child)[0]

    def create_all(self, names: Collection[bytes], is_child: bool = False) -> list[MessageQueue]:
        """Make all of these queues, or none of them."""
        if not names:
            return []
        self.require_room(len(names))
        queues = [self._create(name, is_child) for name in names]
        for name in names if self.lines.unserved else ():  # not before all are there: their cursors are counted, too
            self.cursors.make_awaited(name)
        return queues

    def _create(self, name: bytes, is_child: bool) -> MessageQueue:
        options = self.options(name, is_child)
        family = self._places.family()
        record = QueueRecord(self._places.new_number(), family, self._journal.time_ms(), CHILD if is_child else PLAIN)
        state = State() if options.durable else None
        queue = MessageQueue(name, self._budget, options, self._journal, record, state)
        self._places.family_users[family] += 1
        if options.durable:
            storage = self._journal.storage
            self._journal.also.append(lambda batch: storage.add_queue(batch, name, record))
        self.queues[name] = queue
        self.lines.serve_from(queue)
        self._register(queue)
        self.creates += 1
        self._journal.undo.append((self._uncreate, queue, record))
        if self.traces is not None:
            self.traces.created(queue)
        return queue

    def _uncreate(self, queue: MessageQueue, record: QueueRecord) -> None:
        self.creates -= 1
        self._places.family_users[record.family] -= 1
        del self._place_of(queue.name)[queue.name]
        self._unregister(queue)
        queue.deleted = True
        self.lines.leave_unserved(queue.name)

    def _place_of(self, name: bytes) -> dict[bytes, MessageQueue]:
        """Where a queue of this name stands: a reload may have made it an alias since its turn began."""
        return self.hidden if name in self.aliases else self.queues

    # -- waiting

    @property
    def awaited_count(self) -> int:
        """Queues and cursors that do not exist and are waited for."""
        return self.lines.unserved

    def join_line(self, name: bytes, cursor: bytes, peeks: bool, waiter: Waiter | None = None) -> Waiter:
        """Stand in line at queue `name`, or at a cursor of it, whether these exist or not: a new waiter, or `waiter`,
        who stands in other lines, too. Call `leave_line` afterwards. To wait for a cursor makes it if its queue exists,
        except to peek: without the cursor that waits at the queue. Raises ServerError if as many queues and cursors
        that do not exist are waited for as may exist."""
        queue = self.queues.get(name)
        if cursor and peeks and (queue is None or cursor not in (queue.cursors or ())):
            cursor = b""
        place = queue if queue is None or not cursor else self.cursors.of(queue, cursor)
        if place is None:
            if self.lines.find(name, cursor) is None and self.lines.unserved >= self.max_queues:
                raise ServerError(f"too many queues that do not exist are waited for: at most {self.max_queues}")
        elif place.unreadable:
            raise DamagedError(place.damage)
        return self.lines.join(name, queue, cursor, place, peeks, waiter)

    def leave_line(self, name: bytes, cursor: bytes) -> None:
        """A waiter that has been decided stood in this line."""
        self.lines.tidy(name, cursor)

    def waiters(self, name: bytes) -> int:
        """How many clients wait for an item of the queue `name`, which need not exist."""
        line = self.lines.find(name)
        return len(line) if line is not None else 0

    # -- removing

    def delete(self, name: bytes) -> None:
        """Remove the queue, waiting and open items and all. Nothing happens if it does not exist."""
        queue = self.queues.get(name)
        if queue is None:
            return
        self.cursors.delete_all(queue)
        has_chunks = may_have_chunks(queue)
        del self.queues[name]
        queue.deleted = True
        self._unregister(queue)
        record = queue.log.record
        self._places.family_users[record.family] -= 1
        self.deletes += 1
        self.total_items_of_deleted += queue.total_items
        self.lines.leave_unserved(name)
        if not queue.unreadable:
            window.release(queue)
        self._journal.also.append(partial(recovery.remove, queue, recovery.stored_ids(queue), has_chunks))
        self._journal.undo.append((self._undelete, queue))
        self._journal.dead.add_queue(record, queue.log_bytes, has_chunks)
        if self.traces is not None:
            self.traces.deleted(queue)

    def remove_unused(self, queue: MessageQueue) -> None:
        """Delete a queue that was made for an item that is not put after all. Nothing happens if it has had other items
        or is about to, or has cursors."""
        if queue.tail > records.FIRST_ID or queue.is_receiving or queue.cursors or queue.name in self.rules.named:
            return
        if self.queues.get(queue.name) is queue:
            self.delete(queue.name)

    def _undelete(self, queue: MessageQueue) -> None:
        queue.deleted = False
        self.lines.serve_from(queue)
        self._places.family_users[queue.log.record.family] += 1
        self.deletes -= 1
        self.total_items_of_deleted -= queue.total_items
        queue.log.recorded = 0  # perhaps the disk has deleted it all the same: see `recheck`
        self._place_of(queue.name)[queue.name] = queue
        self._set_options(queue)  # the rules may have been applied to all others meanwhile
        self._register(queue)

    def flush(self, name: bytes) -> None:
        queue = self.queues.get(name)
        if queue is not None:
            queue.flush()

    def record_all(self) -> None:
        """Write the state of every queue in this turn, so that the next start has nothing to look for."""
        for queue in self:
            if queue.log.recorded != queue.tail:
                if not queue.log.touched:
                    queue.enter_turn()
                queue.log.state_changed = True

    def recheck(self) -> None:
        """The storage was opened again after a failed write: remove what may have been written of it, and serve who
        waited meanwhile. Raises StorageError."""
        storage = self._journal.storage
        batch = storage.batch()
        for queue in self:
            if queue.log.recorded == 0:
                recovery.recheck(queue, batch)
                if queue.log.durable:
                    storage.add_queue(batch, queue.name, queue.log.record)
        self.cursors.recheck(batch)
        orphans = list(self._journal.orphans)
        for number, blob in orphans:
            _forget_upload(self._journal, number, blob, batch)
        storage.write(batch)
        del self._journal.orphans[: len(orphans)]
        self.cursors.make_all_awaited()
        for queue in self:
            lines.serve(queue)

    def __iter__(self) -> Iterator[MessageQueue]:
        """All but those that could not be read back."""
        everybody = chain(self.queues.values(), self.hidden.values())
        return (queue for queue in everybody if not queue.unreadable)

    @property
    def total_items(self) -> int:
        """Items put since the server started, those of deleted queues too."""
        return self.total_items_of_deleted + sum(queue.total_items for queue in self)


def _forget_upload(journal: Journal, number: int, blob: int, batch: Batch) -> None:
    journal.storage.remove_blobs(batch, number, blob, blob + 1)
    journal.storage.end_upload(batch, number, blob)
