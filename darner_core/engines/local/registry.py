"""The queues by name: which there are, making and removing them, and reading them back from the data directory.

`queues` holds the durable ones; a hot path looks names up there directly. A queue that is only waited for stands in
`awaited` and costs memory alone: asking for a queue that does not exist creates nothing.

No call here switches greenlets.
"""

import logging
import sys
from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import chain
from typing import Protocol

from darner_core import NAME
from darner_core.config.queues import QueueOptions, QueueRules, parent_of
from darner_core.config.values import show_bytes
from darner_core.engines.local.cursors import Cursors
from darner_core.engines.local.journal import Journal, MemoryLog
from darner_core.engines.local.message_queue import DamagedQueue, MessageQueue
from darner_core.engines.local.reads import Bury, OpenRead
from darner_core.engines.local.window import WindowBudget
from darner_core.errors import ServerError, StorageError
from darner_core.storage import records
from darner_core.storage.records import CHILD, PLAIN, Item, QueueRecord, State
from darner_core.storage.storage import Batch

log = logging.getLogger(NAME)


# Queues that are given other options in one turn, and those that are made in one: 1 to 2 ms.
CHANGED_A_TURN = 200
MADE_A_TURN = 50


class Observer(Protocol):
    """Who is told that queues come and go, in the turn in which they do; see `traced_queue`."""

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
        self.move_large: Callable[[OpenRead], None] | None = None  # the same for large ones
        self.bury: Bury | None = None  # what to do with items that expire, where queues have an expire_to_queue
        self.queues: dict[bytes, MessageQueue] = {}
        self.awaited: dict[bytes, MessageQueue] = {}
        self.creates = 0
        self.deletes = 0
        self.expires = 0  # of these, because of their max_queue_age_s
        self.total_items_of_deleted = 0
        self.traces: Observer | None = None
        self._journal = journal
        self._budget = budget
        storage = journal.storage
        self._family_users = [0] * len(storage.families)
        numbers = set()
        for name, record in storage.queues():
            queue = self._read_back(name, record)
            self.queues[name] = queue
            self._register(queue)
            self._family_users[record.family] += 1
            numbers.add(record.number)
        self.cursors = Cursors(
            journal, budget, self.queues, self.hidden, self._new_number, self.require_room, self._require_waiting_room
        )
        numbers |= self.cursors.read_back()
        uploads = storage.unfinished_uploads()
        numbers.update(number for number, _ in uploads)  # their chunks are there until the first turn ends
        storage.fresh_from = max(numbers, default=0) + 1
        self._next_number = storage.fresh_number() or storage.fresh_from
        self._taken = {number for number in numbers if number >= self._next_number}
        for number, blob in uploads:
            journal.also.append(partial(_forget_upload, journal, number, blob))

    def _read_back(self, name: bytes, record: QueueRecord) -> MessageQueue:
        """The queue; one that is damaged if it cannot be read, so that the others can be served."""
        queue = MessageQueue(name, self._budget, self.options(name, record.kind == CHILD))
        queue.max_age_ms = queue.options.max_age_s * 1000
        storage = self._journal.storage
        try:
            queue.attach(self._journal, record, storage.state(record))
        except StorageError as error:
            return DamagedQueue(name, self._budget, self._journal, record, error)
        return queue

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
        options = queue.options
        queue.governed = bool(
            options.max_items or options.max_bytes or options.max_item_bytes or options.max_age_s or options.fanout_only
            or options.sync == "always" or queue.name in self.children
        )  # fmt: skip
        if options.max_age_s or options.max_queue_age_s:
            self.timed[queue] = None
        else:
            self.timed.pop(queue, None)
        queue.expire_to = self._bury if options.expire_to_queue else None
        queue.move_large = self._move_large if options.expire_to_queue else None

    def _bury(self, queue: MessageQueue, item: Item) -> None:
        if self.bury is not None:
            self.bury(queue, item)

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
            if not queue.deleted and not isinstance(queue, DamagedQueue):
                self._set_options(queue)
                self._govern(queue)
                if self.traces is not None:
                    self.traces.changed(queue)
            if number % CHANGED_A_TURN == 0:
                yield

    def _set_options(self, queue: MessageQueue) -> None:
        """What the rules say of this queue now."""
        queue.options = self.options(queue.name, queue.is_child)
        queue.set_max_age(queue.options.max_age_s * 1000)
        for cursor in (queue.cursors or {}).values():
            cursor.options = queue.options

    def create_named(self) -> None:
        """Make the queues that the configuration names, in this turn. Raises ServerError at `max_queues`."""
        for _ in self.make_named():
            pass

    def make_named(self) -> Iterator[None]:
        """The same over several turns: to be gone on with after each."""
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
        if not queue.is_child and not isinstance(queue, DamagedQueue):
            self._set_kind(queue, CHILD)
            self._journal.undo.append((self._set_kind, queue, PLAIN))
            storage, record = self._journal.storage, queue.log.record
            if not isinstance(queue.log, MemoryLog):
                self._journal.also.append(lambda batch: storage.add_queue(batch, name, record))
        return queue

    def _set_kind(self, queue: MessageQueue, kind: int) -> None:
        self._unregister(queue)
        queue.log.record = queue.log.record._replace(kind=kind)
        self._set_options(queue)
        self._register(queue)

    # -- queues

    @property
    def damaged(self) -> list[MessageQueue]:
        """The queues that cannot be read. All others are served."""
        return [queue for queue in self.queues.values() if queue.damage] + self.cursors.damaged

    def _new_number(self) -> int:
        while self._next_number in self._taken:
            self._next_number += 1
        self._next_number += 1
        return self._next_number - 1

    def require_room(self, more: int = 1) -> None:
        """Raises ServerError if there may not be so many more queues. Cursors are counted."""
        if len(self.queues) + self.cursors.count + more > self.max_queues:
            raise ServerError(f"too many queues: at most {self.max_queues}")

    def create(self, name: bytes, is_child: bool = False) -> MessageQueue:
        """Make the queue `name`, which must not exist, in this turn. Raises ServerError at `max_queues`."""
        return self.create_all((name,), is_child)[0]

    def create_all(self, names: Collection[bytes], is_child: bool = False) -> list[MessageQueue]:
        """The same for all of these, or none of them."""
        if not names:
            return []
        self.require_room(len(names))
        queues = [self._create(name, is_child) for name in names]
        for name in names if self.cursors.awaited else ():  # not before all are there: their cursors are counted, too
            self.cursors.make_awaited(name)
        return queues

    def _create(self, name: bytes, is_child: bool) -> MessageQueue:
        queue = self.awaited.get(name) or MessageQueue(name, self._budget)
        queue.options = self.options(name, is_child)
        queue.max_age_ms = queue.options.max_age_s * 1000
        damaged = self._journal.storage.damaged_families
        usable = [family for family in range(len(self._family_users)) if family not in damaged]
        family = min(usable or [0], key=self._family_users.__getitem__)
        record = QueueRecord(self._new_number(), family, self._journal.time_ms(), CHILD if is_child else PLAIN)
        self._family_users[family] += 1
        if queue.options.durable:
            queue.attach(self._journal, record, State())
            storage = self._journal.storage
            self._journal.also.append(lambda batch: storage.add_queue(batch, name, record))
        else:
            queue.attach_memory(self._journal, record)
        self.awaited.pop(name, None)
        self.queues[name] = queue
        self._register(queue)
        self.creates += 1
        self._journal.undo.append((self._uncreate, queue, record))
        if self.traces is not None:
            self.traces.created(queue)
        return queue

    def _uncreate(self, queue: MessageQueue, record: QueueRecord) -> None:
        self.creates -= 1
        self._family_users[record.family] -= 1
        del self._place_of(queue.name)[queue.name]
        self._unregister(queue)
        queue.deleted = True
        self._move_line(queue)

    def _place_of(self, name: bytes) -> dict[bytes, MessageQueue]:
        """Where a queue of this name stands: a reload may have made it an alias since its turn began."""
        return self.hidden if name in self.aliases else self.queues

    @property
    def awaited_count(self) -> int:
        """Queues and cursors that do not exist and are waited for."""
        return len(self.awaited) + self.cursors.awaited_count

    def wait_at(self, name: bytes) -> MessageQueue:
        """The queue `name` to wait at, whether it exists or not. Call `done_waiting` with it afterwards. Raises
        ServerError if as many that do not exist are waited for as may exist."""
        queue = self.queues.get(name) or self.awaited.get(name)
        if queue is None:
            self._require_waiting_room()
            queue = self._await(name)
        return queue

    def _await(self, name: bytes) -> MessageQueue:
        """The place of a queue that does not exist."""
        return self.awaited.setdefault(name, MessageQueue(name, self._budget))

    def _require_waiting_room(self) -> None:
        if self.awaited_count >= self.max_queues:
            raise ServerError(f"too many queues that do not exist are waited for: at most {self.max_queues}")

    def done_waiting(self, queue: MessageQueue) -> None:
        queue.tidy_line()
        # Not always the same: a queue that was deleted meanwhile has left its line to the next of its name.
        awaited = self.awaited.get(queue.name)
        if awaited is not None:
            awaited.tidy_line()
            if awaited.line is None:
                del self.awaited[queue.name]

    def _move_line(self, gone: MessageQueue) -> None:
        """Let those who wait at a queue that is gone wait for the next of its name."""
        gone.tidy_line()
        if gone.line is not None:
            self._await(gone.name).line, gone.line = gone.line, None

    def delete(self, name: bytes) -> None:
        """Remove the queue, waiting and open items and all. Nothing happens if it does not exist."""
        queue = self.queues.get(name)
        if queue is None:
            return
        self.cursors.delete_all(queue)
        has_chunks = queue.may_have_chunks
        del self.queues[name]
        queue.deleted = True
        self._unregister(queue)
        record = queue.log.record
        self._family_users[record.family] -= 1
        self.deletes += 1
        self.total_items_of_deleted += queue.total_items
        self._move_line(queue)
        queue.release_window()
        self._journal.also.append(partial(self._remove, queue, _stored_ids(queue), has_chunks))
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

    def _remove(self, queue: MessageQueue, ids: range | None, has_chunks: bool, batch: Batch) -> None:
        """What is on disk of a queue that is deleted in this turn. Range deletions cost all who read after them, so
        there are none for what was not there."""
        storage, record = self._journal.storage, queue.log.record
        if not isinstance(queue.log, MemoryLog):
            storage.remove_queue(batch, queue.name, record, ids, has_chunks)
        elif has_chunks:
            storage.remove_blobs(batch, record.number, 0, records.MAX_ID)
            storage.end_uploads(batch, record.number, 0, records.MAX_ID)

    def _undelete(self, queue: MessageQueue) -> None:
        awaited = self.awaited.pop(queue.name, None)
        if awaited is not None:
            queue.line = awaited.line
        queue.deleted = False
        self._family_users[queue.log.record.family] += 1
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
                    queue.touch()
                queue.log.state_changed = True

    def recheck(self) -> None:
        """The storage was opened again after a failed write: remove what may have been written of it, and serve who
        waited meanwhile. Raises StorageError."""
        storage = self._journal.storage
        batch = storage.batch()
        for queue in self:
            if queue.log.recorded == 0:
                queue.recheck(batch)
                if not isinstance(queue.log, MemoryLog):
                    storage.add_queue(batch, queue.name, queue.log.record)
        self.cursors.recheck(batch)
        orphans = list(self._journal.orphans)
        for number, blob in orphans:
            _forget_upload(self._journal, number, blob, batch)
        storage.write(batch)
        del self._journal.orphans[: len(orphans)]
        self.cursors.make_all_awaited()
        for queue in self:
            queue.serve_line()

    def __iter__(self) -> Iterator[MessageQueue]:
        """All but those that could not be read back."""
        everybody = chain(self.queues.values(), self.hidden.values())
        return (queue for queue in everybody if not isinstance(queue, DamagedQueue))

    @property
    def total_items(self) -> int:
        """Items put since the server started, those of deleted queues too."""
        return self.total_items_of_deleted + sum(queue.total_items for queue in self)


def _stored_ids(queue: MessageQueue) -> range | None:
    """The ids that may be on disk; None: that is not known, because of damage or a turn that could not be written."""
    if isinstance(queue, DamagedQueue) or not queue.log.recorded:
        return None
    return range(queue.log.reclaimed, queue.tail)


def _forget_upload(journal: Journal, number: int, blob: int, batch: Batch) -> None:
    journal.storage.remove_blobs(batch, number, blob, blob + 1)
    journal.storage.end_upload(batch, number, blob)
