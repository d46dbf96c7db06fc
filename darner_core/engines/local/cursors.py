"""The cursors by queue and name: which there are, making and removing them, and reading them back.

A cursor is made by the first use, at the head of its queue. Who waits at one of a queue that does not exist stands at a
place that costs memory alone, and the cursor is made when the queue is.

No call here switches greenlets.
"""

from collections.abc import Callable, Iterator
from itertools import chain

from darner_core.engines.local.cursor import Cursor, Keeper
from darner_core.engines.local.journal import Journal, MemoryLog
from darner_core.engines.local.message_queue import DamagedQueue, MessageQueue
from darner_core.engines.local.window import WindowBudget
from darner_core.errors import ServerError, StorageError
from darner_core.storage.records import QueueRecord, State
from darner_core.storage.storage import Batch


class Cursors:
    """Those of all queues. Each stands in its queue's `cursors`."""

    def __init__(
        self,
        journal: Journal,
        budget: WindowBudget,
        queues: dict[bytes, MessageQueue],
        hidden: dict[bytes, MessageQueue],
        new_number: Callable[[], int],
        require_room: Callable[[], None],
        require_waiting_room: Callable[[], None],
    ) -> None:
        """`hidden` are queues that are out of reach at present. `require_room` raises ServerError if there may be no
        more queues and cursors, `require_waiting_room` if there may be no more that are only waited for."""
        self.count = 0
        self.awaited_count = 0
        # Who waits for cursors that there are not: by the queue's name and their own.
        self.awaited: dict[bytes, dict[bytes, MessageQueue]] = {}
        self._refused: dict[bytes, None] = {}  # queues whose cursors could not be made: there were too many
        self._journal = journal
        self._budget = budget
        self._queues = queues
        self._hidden = hidden
        self._new_number = new_number
        self._require_room = require_room
        self._require_waiting_room = require_waiting_room

    def read_back(self) -> set[int]:
        """Read every cursor back; their numbers. Raises StorageError if it cannot be read which there are."""
        numbers = set()
        storage = self._journal.storage
        for queue_name, name, record in storage.cursors():
            numbers.add(record.number)
            queue = self._queues.get(queue_name)
            if queue is None:
                continue  # damage has taken its queue's record
            cursor: MessageQueue = Cursor(queue, name, self._budget)
            try:
                if isinstance(queue, DamagedQueue):
                    raise StorageError(queue.damage)
                cursor.attach(self._journal, record, storage.state(record))
            except StorageError as error:
                cursor = DamagedQueue(cursor.name, self._budget, self._journal, record, error)
            self._add(queue, name, cursor)
        return numbers

    def _add(self, queue: MessageQueue, name: bytes, cursor: MessageQueue) -> None:
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
        """All but those that could not be read back."""
        return (cursor for cursor in self._all() if isinstance(cursor, Cursor))

    def _all(self) -> Iterator[MessageQueue]:
        for queue in chain(self._queues.values(), self._hidden.values()):
            yield from (queue.cursors or {}).values()

    @property
    def damaged(self) -> list[MessageQueue]:
        return [cursor for cursor in self._all() if cursor.damage]

    # -- using

    def of(self, queue: MessageQueue, name: bytes, peeks: bool = False) -> MessageQueue:
        """The cursor `name` on `queue`, made if there is none: raises ServerError if there may be no more. To see
        what it would show none is made: the queue itself shows it."""
        cursor = queue.cursors.get(name) if queue.cursors is not None else None
        if cursor is not None:
            return cursor
        if peeks or isinstance(queue, DamagedQueue):
            return queue
        if isinstance(queue.log, MemoryLog):
            raise ServerError("a queue that is in memory only has no durable cursors")
        return self._create(queue, name)

    def _create(self, queue: MessageQueue, name: bytes) -> Cursor:
        self._require_room()
        journal = self._journal
        record = QueueRecord(self._new_number(), queue.log.record.family, journal.time_ms())
        cursor = Cursor(queue, name, self._budget)
        cursor.attach(journal, record, State(next=queue.head_id))
        self._add(queue, name, cursor)
        if queue.line is not None:
            queue.line.wake_peeks(queue)  # some have waited there to see what this cursor shows
        journal.undo.append((self._uncreate, queue, cursor))
        storage = journal.storage
        journal.also.append(lambda batch: storage.add_cursor(batch, queue.name, name, record))
        cursor.touch()
        cursor.log.state_changed = True
        place = self._pop_awaited(queue.name, name)
        if place is not None:
            line, place.line = place.line, None
            cursor.take_line(line)
            cursor.serve_line()
        return cursor

    def _uncreate(self, queue: MessageQueue, cursor: Cursor) -> None:
        self._take_out(queue, cursor.short)
        cursor.deleted = True
        self._move_line(queue.name, cursor.short, cursor)

    # -- waiting

    def wait_at(self, queue_name: bytes, name: bytes) -> MessageQueue:
        """Where to wait for the cursor, whether its queue exists or not. Call `done_waiting` with it afterwards.

        Raises ServerError if there may be no more cursors.
        """
        queue = self._queues.get(queue_name)
        if queue is not None:
            return self.of(queue, name)
        place = self.awaited.get(queue_name, {}).get(name)
        if place is None:
            self._require_waiting_room()
            place = self._await(queue_name, name)
        return place

    def _await(self, queue_name: bytes, name: bytes) -> MessageQueue:
        """The place of a cursor that does not exist."""
        places = self.awaited.setdefault(queue_name, {})
        if name not in places:
            places[name] = MessageQueue(b"%b.%b" % (queue_name, name), self._budget)
            self.awaited_count += 1
        return places[name]

    def _pop_awaited(self, queue_name: bytes, name: bytes) -> MessageQueue | None:
        places = self.awaited.get(queue_name, {})
        place = places.pop(name, None)
        if place is not None:
            self.awaited_count -= 1
            if not places:
                del self.awaited[queue_name]
        return place

    def done_waiting(self, queue_name: bytes, name: bytes, place: MessageQueue) -> None:
        place.tidy_line()
        # Not always the same: what was deleted meanwhile, or made, has left its line to the next of its name.
        queue = self._queues.get(queue_name)
        if queue is not None and queue.cursors is not None and name in queue.cursors:
            queue.cursors[name].tidy_line()
        awaited = self.awaited.get(queue_name, {}).get(name)
        if awaited is not None:
            awaited.tidy_line()
            if awaited.line is None:
                self._pop_awaited(queue_name, name)

    def _move_line(self, queue_name: bytes, name: bytes, gone: MessageQueue) -> None:
        """Let those who wait at a cursor that is gone wait for the next of its name. Who peeks waits elsewhere: no
        cursor is made for that."""
        line, gone.line = gone.line, None
        if line is not None:
            line.wake_peeks(gone)
        if line:
            self._await(queue_name, name).line = line

    def make_awaited(self, queue_name: bytes) -> None:
        """Make the cursors of this queue that are waited for, if there may be so many; and those that there was no room
        for before."""
        for waiting in (queue_name, *self._refused):
            queue = self._queues.get(waiting)
            try:
                if queue is not None:
                    for name in list(self.awaited.get(waiting, ())):
                        self.of(queue, name)
            except ServerError:
                self._refused[waiting] = None
                return  # they wait in vain, or until there is room
            self._refused.pop(waiting, None)

    def make_all_awaited(self) -> None:
        """The same for all queues."""
        for queue_name in list(self.awaited):
            if queue_name in self._queues:
                self.make_awaited(queue_name)

    # -- removing

    def delete(self, queue_name: bytes, name: bytes) -> None:
        """Remove a cursor. Nothing happens if it does not exist. Who waits there waits at a new one."""
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
        if isinstance(cursor, Cursor):
            cursor.remove_chunks()
        self._move_line(queue.name, name, cursor)
        cursor.release_window()
        storage, record = self._journal.storage, cursor.log.record
        # What has a record is known when the turn ends. After a failed turn more may be there.
        ids = cursor.marked if isinstance(cursor, Cursor) and cursor.log.recorded else None
        self._journal.also.append(lambda batch: storage.remove_cursor(batch, queue.name, name, record, ids))
        self._journal.undo.append((self._undelete, queue, name, cursor, hook))

    def _undelete(self, queue: MessageQueue, name: bytes, cursor: MessageQueue, hook: Callable[[Batch], bool]) -> None:
        self._add(queue, name, cursor)
        cursor.options = queue.options  # the rules may have been applied to all others meanwhile
        if isinstance(cursor, Cursor):
            cursor.set_max_age(queue.max_age_ms)
        queue.log.hook = hook  # which knows what the queue had before this turn
        cursor.deleted = False
        place = self._pop_awaited(queue.name, name)
        if place is not None and isinstance(cursor, Cursor):
            line, place.line = place.line, None
            cursor.take_line(line)

    def flush(self, queue_name: bytes, name: bytes) -> None:
        """Put a cursor back to the head of its queue. Nothing happens if it does not exist. Raises StorageError."""
        queue = self._queues.get(queue_name)
        if queue is not None and queue.cursors is not None and name in queue.cursors:
            queue.cursors[name].flush()

    def recheck(self, batch: Batch) -> None:
        """As Registry.recheck: what may have been written of a turn that failed."""
        for cursor in self:
            if not cursor.log.recorded:
                cursor.recheck(batch)
