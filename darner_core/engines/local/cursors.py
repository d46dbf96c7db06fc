"""The cursors by queue and name: which there are, making and removing them, and reading them back.

A cursor is made by its first use, at the head of its queue. Clients may also wait at a cursor of a queue that does not
exist: the cursor is made when the queue is.

No call here switches greenlets.
"""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import cast

from darner_core.engines.local import expiry, window
from darner_core.engines.local.cursor import Cursor
from darner_core.engines.local.cursor_log import Keeper
from darner_core.engines.local.damaged_queue import DamagedQueue
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.lines import Lines, serve
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.window import WindowBudget
from darner_core.errors import ServerError, StorageError
from darner_core.storage.records import QueueRecord, State
from darner_core.storage.storage import Batch


class Cursors:
    """The cursors of all queues. Each stands in its queue's `cursors`."""

    def __init__(
        self,
        journal: Journal,
        budget: WindowBudget,
        queues: dict[bytes, MessageQueue],
        hidden: dict[bytes, MessageQueue],
        new_number: Callable[[], int],
        require_room: Callable[[], None],
        lines: Lines,
    ) -> None:
        """`hidden` are queues that are out of reach at present. `require_room` raises ServerError if there may not be
        another queue or cursor."""
        self.count = 0
        self._refused: dict[bytes, None] = {}  # queues whose awaited cursors had no room
        self._journal = journal
        self._budget = budget
        self._queues = queues
        self._hidden = hidden
        self._new_number = new_number
        self._require_room = require_room
        self._lines = lines

    def read_back(self) -> set[int]:
        """Read every cursor back; their numbers. Raises StorageError if their list cannot be read."""
        numbers = set()
        storage = self._journal.storage
        for queue_name, name, record in storage.cursors():
            numbers.add(record.number)
            queue = self._queues.get(queue_name)
            if queue is None:
                continue  # damage has removed its queue's record
            try:
                if queue.unreadable:
                    raise StorageError(queue.damage)
                cursor = Cursor(queue, name, self._budget, record, storage.state(record))
            except StorageError as error:
                damaged = DamagedQueue(b"%b.%b" % (queue_name, name), queue.options, self._journal, record, error)
                cursor = cast(Cursor, damaged)  # it stands in for one wherever cursors are used by name
            self._add(queue, name, cursor)
        return numbers

    def _add(self, queue: MessageQueue, name: bytes, cursor: Cursor) -> None:
        if queue.cursors is None:
            queue.cursors = {}
            queue.log.hook = Keeper(queue).write
        queue.cursors[name] = cursor
        self.count += 1

    def _take_out(self, queue: MessageQueue, name: bytes) -> None:
        """Undo `_add`."""
        assert queue.cursors is not None
        del queue.cursors[name]
        if not queue.cursors:
            queue.cursors = queue.log.hook = None
        self.count -= 1

    def __iter__(self) -> Iterator[Cursor]:
        """All cursors that could be read back."""
        return (cursor for cursor in self._all() if not cursor.unreadable)

    def _all(self) -> Iterator[Cursor]:
        for queue in chain(self._queues.values(), self._hidden.values()):
            yield from (queue.cursors or {}).values()

    @property
    def damaged(self) -> list[Cursor]:
        return [cursor for cursor in self._all() if cursor.damage]

    # -- using

    def of(self, queue: MessageQueue, name: bytes, peeks: bool = False) -> MessageQueue | Cursor:
        """As `contract.Cursors` says."""
        cursor = queue.cursors.get(name) if queue.cursors is not None else None
        if cursor is not None:
            return cursor
        if peeks or queue.unreadable:
            return queue
        if not queue.log.durable:
            raise ServerError("a queue that is in memory only has no durable cursors")
        return self._create(queue, name)

    def _create(self, queue: MessageQueue, name: bytes) -> Cursor:
        self._require_room()
        journal = self._journal
        record = QueueRecord(self._new_number(), queue.log.record.family, journal.time_ms())
        cursor = Cursor(queue, name, self._budget, record, State(next=queue.line_head_id))
        self._add(queue, name, cursor)
        if queue.line is not None:
            queue.line.wake_peeks(queue)  # clients may have waited there to see what this cursor shows
        journal.undo.append((self._uncreate, queue, cursor))
        storage = journal.storage
        journal.also.append(lambda batch: storage.add_cursor(batch, queue.name, name, record))
        cursor.log.write_state()
        self._lines.serve_from(queue, name, cursor)
        serve(cursor)
        return cursor

    def _uncreate(self, queue: MessageQueue, cursor: Cursor) -> None:
        self._take_out(queue, cursor.short)
        cursor.deleted = True
        self._leave_line(queue, cursor.short, cursor)

    def _leave_line(self, queue: MessageQueue, name: bytes, gone: Cursor) -> None:
        """A cursor is gone: its clients wait for the next of its name. Those that peek ask anew and wait at the queue,
        because no cursor is made for them."""
        if gone.line is not None:
            gone.line.wake_peeks(gone)
        self._lines.leave_unserved(queue.name, name)

    def make_awaited(self, queue_name: bytes) -> None:
        """Make the cursors that clients wait for, of this queue and of those that had no room before, while there is
        room."""
        for waiting in (queue_name, *self._refused):
            queue = self._queues.get(waiting)
            try:
                if queue is not None:
                    for name in self._lines.unserved_cursors(waiting):
                        self.of(queue, name)
            except ServerError:
                self._refused[waiting] = None
                return  # its clients wait until there is room
            self._refused.pop(waiting, None)

    def make_all_awaited(self) -> None:
        for queue_name in self._lines.names():
            if queue_name in self._queues:
                self.make_awaited(queue_name)

    # -- removing

    def delete(self, queue_name: bytes, name: bytes) -> None:
        """Nothing happens if it does not exist. Clients that wait there wait at a new cursor."""
        queue = self._queues.get(queue_name)
        if queue is None or queue.cursors is None or name not in queue.cursors:
            return
        self._delete(queue, name)
        self.make_awaited(queue_name)

    def delete_all(self, queue: MessageQueue) -> None:
        """The queue is about to be deleted."""
        for name in list(queue.cursors or ()):
            self._delete(queue, name)

    def _delete(self, queue: MessageQueue, name: bytes) -> None:
        assert queue.cursors is not None
        cursor, hook = queue.cursors[name], queue.log.hook
        if any(read.blob for read in cursor.outstanding.values()):
            _ = cursor.large_items  # may raise: before anything is changed
        self._take_out(queue, name)
        cursor.deleted = True
        self._leave_line(queue, name, cursor)
        if not cursor.unreadable:
            cursor.remove_chunks()
            window.release(cursor)
        storage, record = self._journal.storage, cursor.log.record
        # `marked` says which ids have a record when the turn ends. After a failed turn there may be more.
        ids = cursor.marked if not cursor.unreadable and cursor.log.recorded else None
        self._journal.also.append(lambda batch: storage.remove_cursor(batch, queue.name, name, record, ids))
        self._journal.undo.append((self._undelete, queue, name, cursor, hook))

    def _undelete(self, queue: MessageQueue, name: bytes, cursor: Cursor, hook: Callable[[Batch], bool]) -> None:
        self._add(queue, name, cursor)
        before, cursor.options = cursor.options, queue.options  # the rules may have changed meanwhile
        if before.max_age_s != queue.options.max_age_s and not cursor.unreadable:
            expiry.look_at_ages(cursor)
        queue.log.hook = hook  # this Keeper knows what the queue had before the turn
        cursor.deleted = False
        self._lines.serve_from(queue, name, cursor)

    def flush(self, queue_name: bytes, name: bytes) -> None:
        queue = self._queues.get(queue_name)
        if queue is not None and queue.cursors is not None and name in queue.cursors:
            queue.cursors[name].flush()

    def recheck(self, batch: Batch) -> None:
        """As Registry.recheck does for queues: put right what may have been written of a turn that failed."""
        for cursor in self:
            if not cursor.log.recorded:
                cursor.log.recheck(batch)
