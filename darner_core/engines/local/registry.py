"""The queues by name: which exist, how they are made and removed, and how they are read back from the data directory.

The hot path looks names up in `queues` directly. Asking for a queue that does not exist makes nothing; clients that
wait for one stand in `lines`. The registry does not know where items go when they are put: see `routing`.

No call here switches greenlets.
"""

import logging
import sys
from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import chain
from typing import cast

from darner_core import NAME
from darner_core.config.queues import QueueOptions, QueueRules, parent_of
from darner_core.engines.local import expiry, lines, recovery, window
from darner_core.engines.local.aside import Aside
from darner_core.engines.local.aside_parts import Watcher
from darner_core.engines.local.asides import Asides
from darner_core.engines.local.cursor import Cursor
from darner_core.engines.local.cursors import Cursors
from darner_core.engines.local.damaged_queue import DamagedQueue
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.large_items import may_have_chunks
from darner_core.engines.local.lines import Lines
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.places import Places
from darner_core.engines.local.public_numbers import PublicNumbers
from darner_core.engines.local.reads import OpenRead
from darner_core.engines.local.tracing import Traces
from darner_core.engines.local.window import WindowBudget
from darner_core.errors import DamagedError, ServerError, StorageError
from darner_core.showing import show
from darner_core.storage import records
from darner_core.storage.records import CHILD, PLAIN, Item, QueueRecord, State
from darner_core.storage.storage import Batch
from darner_core.waiters import Waiter

log = logging.getLogger(NAME)


# Up to this many queues are given new options in one turn, or made in one: 1 to 2 ms.
CHANGED_A_TURN = 200
MADE_A_TURN = 50


class Registry:
    """All queues of one data directory.

    `children` holds the fanout children by the name of their parent, which need not exist. Each is in `queues`, too.
    """

    def __init__(
        self,
        journal: Journal,
        budget: WindowBudget,
        max_queues: int = sys.maxsize,
        rules: QueueRules | None = None,
        move_expired: Callable[[MessageQueue, Item], None] | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        """Read back all queues of the data directory, though they may be more than `max_queues`. Raises StorageError if
        the list of queues cannot be read.

        `move_expired` is called with each item that expires in a queue with an expire_to_queue, unless it is large;
        None: it is dropped. `watcher` is told when something that lies aside is due; None: nobody looks.
        """
        self.max_queues = max_queues
        self.rules = rules or QueueRules()
        self.children: dict[bytes, dict[bytes, MessageQueue]] = {}
        self.by_number: dict[int, MessageQueue] = {}
        self.timed: dict[MessageQueue, None] = {}  # those that have a max_age_s or a max_queue_age_s
        self.hidden: dict[bytes, MessageQueue] = {}  # those that an alias hides, because it has their name
        self.aliases: Collection[bytes] = ()
        self.large_expired: list[OpenRead] = []  # large items to be moved to an expire_to_queue, see `moving`
        self.queues: dict[bytes, MessageQueue] = {}
        self.lines = Lines()
        self.creates = 0
        self.deletes = 0
        self.expires = 0  # of the deletes, those because of a max_queue_age_s
        self.total_items_of_deleted = 0
        self._places = Places(journal.storage)
        self.asides = Asides(
            journal, self._places.new_number, watcher or NobodyLooks(), expire_to=self._expire_aside,
            settle=self._settle,
        )  # fmt: skip
        self.traces = Traces(self.queues, journal, self.asides)
        self._journal = journal
        self._budget = budget
        self._move_expired = move_expired
        storage = journal.storage
        numbers = set()
        for name, record in storage.queues():
            queue = self._read_back(name, record)
            self.queues[name] = queue
            self._register(queue)
            self.traces.changed(queue)
            self._places.family_users[record.family] += 1
            numbers.add(record.number)
        self.cursors = Cursors(
            journal, budget, self.queues, self.hidden, self._places.new_number, self.require_room, self.lines
        )
        self.numbers = PublicNumbers(journal, self.by_number, self.asides)
        numbers |= self.cursors.read_back() | self.asides.read_back(self.queues) | self.numbers.read_back()
        uploads = storage.unfinished_uploads()
        numbers.update(number for number, _ in uploads)  # their chunks are there until the first turn ends
        self._places.pass_over(numbers)
        for number, blob in uploads:
            journal.also.append(partial(_forget_upload, journal, number, blob))

    def _read_back(self, name: bytes, record: QueueRecord) -> MessageQueue:
        """The queue, or a DamagedQueue if it cannot be read, so that all others can be served."""
        options, journal = self.options(name, bool(record.kind & CHILD)), self._journal
        try:
            return MessageQueue(name, self._budget, options, journal, record, journal.storage.state(record))
        except StorageError as error:
            # It stands in for a queue wherever queues are used by name.
            return cast(MessageQueue, DamagedQueue(name, options, journal, record, error))

    # -- options and families

    def options(self, name: bytes, is_child: bool = False) -> QueueOptions:
        """The options of the queue with this name, which need not exist."""
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
        """Set what depends on the queue's options, and on whether it has children."""
        if queue.unreadable:
            return
        options = queue.options
        queue.governed = bool(
            options.max_items or options.max_bytes or options.max_item_bytes or options.max_age_s or options.fanout_only
            or options.sync == "always" or queue.name in self.children or queue.takes_nothing
        )  # fmt: skip
        if options.max_age_s or options.max_queue_age_s:
            self.timed[queue] = None
        else:
            self.timed.pop(queue, None)
        queue.expire_to = self._move_expired if options.expire_to_queue else None
        queue.move_large = self.large_expired.append if options.expire_to_queue else None

    def _settle(self, queue: MessageQueue) -> None:
        """The queue may have jobs from now on, or no more."""
        if not queue.unreadable and not queue.deleted:  # an aside may tell of a queue that is gone
            self.traces.changed(queue)
            self._govern(queue)

    def _expire_aside(self, aside: Aside, item: Item) -> None:
        if aside.options.expire_to_queue and self._move_expired is not None:
            self._move_expired(cast(MessageQueue, aside.parent), item)

    def set_rules(self, rules: QueueRules) -> Iterator[None]:
        """Queues that are made from now on have the options that `rules` say. Those that exist are given theirs in
        slices, one with each step of what is returned; all options of a queue change together."""
        self.rules = rules
        return self._apply_rules()

    def _apply_rules(self) -> Iterator[None]:
        for number, queue in enumerate([*self.queues.values(), *self.hidden.values()], 1):
            if not queue.deleted and not queue.unreadable:
                self._set_options(queue)
                self._settle(queue)
            if number % CHANGED_A_TURN == 0:
                yield

    def _set_options(self, queue: MessageQueue) -> None:
        """Give the queue and its cursors the options that the rules say now."""
        queue.options = self.options(queue.name, queue.is_child)
        for cursor in (queue.cursors or {}).values():
            cursor.options = queue.options
        if not queue.unreadable:
            self.asides.set_rules(queue)
            expiry.set_max_age(queue, queue.options.max_age_s * 1000)

    def make_named(self) -> Iterator[None]:
        """Make the queues that the configuration names, a slice with each step. Raises ServerError at `max_queues`."""
        for number, name in enumerate(self._missing(self.rules), 1):
            if name not in self.queues and name not in self.hidden:  # a client may have made it meanwhile
                self.create(name, is_child=parent_of(name) != b"")
            if number % MADE_A_TURN == 0:
                yield

    def has_room_for(self, rules: QueueRules) -> bool:
        """Whether all queues that these rules name can exist beside those that exist already."""
        missing = len(self._missing(rules))  # if none is missing, there may be more queues than `max_queues`
        return not missing or len(self.queues) + self.cursors.count + missing <= self.max_queues

    def _missing(self, rules: QueueRules) -> list[bytes]:
        return [name for name in rules.named if name not in self.queues and name not in self.hidden]

    def hide(self, names: Collection[bytes]) -> None:
        """Hide the queues with these names, which are aliases from now on, and no others."""
        self.aliases = frozenset(names)
        for name in [name for name in self.hidden if name not in names]:
            self.queues[name] = self.hidden.pop(name)
        for name in names:
            if name in self.queues:
                self.hidden[name] = self.queues.pop(name)
                log.warning("queue %s is out of reach: there is an alias of that name", show(name))

    def children_of(self, parent: bytes) -> Collection[bytes]:
        """The names of the fanout children of a queue, which need not exist."""
        return self.children.get(parent, {})

    def child(self, name: bytes) -> MessageQueue | None:
        """The fanout child `name`. It is made if it does not exist; a plain queue of that name becomes a child. None:
        the name is an alias. Raises ServerError at `max_queues`."""
        queue = self.queues.get(name)
        if queue is None:
            if name in self.aliases:
                return None
            return self.create(name, is_child=True)
        if not queue.is_child and not queue.unreadable:
            before = queue.log.record.kind
            self._set_kind(queue, before | CHILD)
            self._journal.undo.append((self._set_kind, queue, before))
            storage, record = self._journal.storage, queue.log.record
            if queue.log.durable:
                self._journal.also.append(lambda batch: storage.add_queue(batch, name, record))
        return queue

    def _set_kind(self, queue: MessageQueue, kind: int) -> None:
        self._unregister(queue)
        queue.log.record = queue.log.record._replace(kind=kind)
        self._set_options(queue)
        self._register(queue)
        self._settle(queue)

    # -- queues

    @property
    def damaged(self) -> list[MessageQueue | Cursor]:
        """The queues and cursors that cannot be read. All others are served."""
        return [*(queue for queue in self.queues.values() if queue.damage), *self.cursors.damaged]

    def require_room(self, more: int = 1) -> None:
        """Raises ServerError if `more` more queues would be more than `max_queues`. Cursors are counted as queues."""
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
        for name in names if self.lines.unserved else ():  # when all queues are there: cursors count as queues
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
        """Where a queue of this name belongs: a reload may have made it an alias since the turn began."""
        return self.hidden if name in self.aliases else self.queues

    # -- waiting

    @property
    def awaited_count(self) -> int:
        """Queues and cursors that do not exist and are waited for."""
        return self.lines.unserved

    def join_line(self, name: bytes, cursor: bytes, peeks: bool, waiter: Waiter | None = None) -> Waiter:
        """Stand in line at queue `name`, or at a cursor on it, whether these exist or not: a new waiter, or `waiter`,
        which stands in other lines, too. Call `leave_line` afterwards.

        Waiting at a cursor makes it if its queue exists. A waiter that peeks makes no cursor: it waits at the queue.
        Raises ServerError if clients wait for as many queues and cursors that do not exist as may exist.
        """
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
        """Drop the line if it is empty. To be called when a waiter that stood in it has been decided."""
        self.lines.tidy(name, cursor)

    def waiters(self, name: bytes) -> int:
        """How many clients wait for an item of the queue `name`, which need not exist."""
        line = self.lines.find(name)
        return len(line) if line is not None else 0

    # -- removing

    def delete(self, name: bytes) -> None:
        """Remove the queue with all of its items, open ones too. Nothing happens if it does not exist."""
        queue = self.queues.get(name)
        if queue is None:
            return
        self.cursors.delete_all(queue)
        self.asides.delete(queue)
        self.numbers.queue_gone(queue.log.record.number)
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
        self.traces.deleted(queue)

    def remove_unused(self, queue: MessageQueue) -> None:
        """Delete a queue that was made for an item that is not put after all. It stays if it has had other items, is
        receiving one, has cursors, or is named by the configuration."""
        if queue.tail > records.FIRST_ID or queue.is_receiving or queue.cursors or queue.name in self.rules.named:
            return
        if queue in self.asides.by_queue:
            return
        if self.queues.get(queue.name) is queue:
            self.delete(queue.name)

    def _undelete(self, queue: MessageQueue) -> None:
        queue.deleted = False
        self.lines.serve_from(queue)
        self._places.family_users[queue.log.record.family] += 1
        self.deletes -= 1
        self.total_items_of_deleted -= queue.total_items
        queue.log.recorded = 0  # the disk may have deleted it all the same: see `recheck`
        self._place_of(queue.name)[queue.name] = queue
        self._set_options(queue)  # the rules may have changed meanwhile
        self._register(queue)

    def flush(self, name: bytes) -> None:
        queue = self.queues.get(name)
        if queue is not None:
            queue.flush()

    def record_all(self) -> None:
        """Write the state of every queue in this turn, so that the next start does not have to read items."""
        for queue in self:
            if queue.log.recorded != queue.tail:
                if not queue.log.touched:
                    queue.enter_turn()
                queue.log.state_changed = True

    def recheck(self) -> None:
        """After a failed write, when the storage has been opened again: remove what may have been written of that turn,
        and serve the clients that wait. Raises StorageError."""
        storage = self._journal.storage
        batch = storage.batch()
        for queue in self:
            if queue.log.recorded == 0:
                recovery.recheck(queue, batch)
                if queue.log.durable:
                    storage.add_queue(batch, queue.name, queue.log.record)
        self.cursors.recheck(batch)
        self.asides.recheck(batch)
        self.numbers.recheck(batch)
        orphans = list(self._journal.orphans)
        for number, blob in orphans:
            _forget_upload(self._journal, number, blob, batch)
        storage.write(batch)
        self.asides.rechecked()
        del self._journal.orphans[: len(orphans)]
        self.cursors.make_all_awaited()
        for queue in self:
            lines.serve(queue)

    def __iter__(self) -> Iterator[MessageQueue]:
        """All but those that could not be read back."""
        return (queue for queue in chain(self.queues.values(), self.hidden.values()) if not queue.unreadable)


class NobodyLooks:
    """The Watcher of a registry without timers."""

    def note(self, aside: Aside, due_ms: int) -> None: ...

    def forget(self, aside: Aside) -> None: ...


def _forget_upload(journal: Journal, number: int, blob: int, batch: Batch) -> None:
    journal.storage.remove_blobs(batch, number, blob, blob + 1)
    journal.storage.end_upload(batch, number, blob)
