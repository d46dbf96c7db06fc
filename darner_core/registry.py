"""The queues by name: which there are, making and removing them, and reading them back from the data directory.

`queues` holds the durable ones; a hot path looks names up there directly. A queue that is only waited for stands in
`awaited` and costs memory alone: asking for a queue that does not exist creates nothing.

No call here switches greenlets.
"""

import sys
from collections.abc import Iterator
from functools import partial

from darner_core.cursors import Cursors
from darner_core.errors import ServerError, StorageError
from darner_core.journal import Journal
from darner_core.message_queue import DamagedQueue, MessageQueue
from darner_core.records import QueueRecord, State
from darner_core.storage import Batch
from darner_core.window import WindowBudget


class Registry:
    """All queues of one data directory.

    The first `max_column_families` queues have a column family each; later ones share, each with the family that
    fewest have. A family whose queue is deleted is used again.
    """

    def __init__(self, journal: Journal, budget: WindowBudget, max_queues: int = sys.maxsize) -> None:
        """Read every queue back, however many there are. Raises StorageError if it cannot be read which there are."""
        self.max_queues = max_queues
        self.queues: dict[bytes, MessageQueue] = {}
        self.awaited: dict[bytes, MessageQueue] = {}
        self.creates = 0
        self.deletes = 0
        self.total_items_of_deleted = 0
        self._journal = journal
        self._budget = budget
        storage = journal.storage
        self._family_users = [0] * len(storage.families)
        self._next_number = 1
        for name, record in storage.queues():
            self.queues[name] = self._read_back(name, record)
            self._family_users[record.family] += 1
            self._next_number = max(self._next_number, record.number + 1)
        self.cursors = Cursors(journal, budget, self.queues, self._new_number, self._require_room)
        self._next_number = max(self._next_number, self.cursors.read_back() + 1, storage.fresh_number())
        for number, blob in storage.unfinished_uploads():
            journal.also.append(partial(_forget_upload, journal, number, blob))

    def _read_back(self, name: bytes, record: QueueRecord) -> MessageQueue:
        """The queue; one that is damaged if it cannot be read, so that the others can be served."""
        queue = MessageQueue(name, self._budget)
        storage = self._journal.storage
        try:
            queue.attach(self._journal, record, storage.state(record))
        except StorageError as error:
            return DamagedQueue(name, self._budget, self._journal, record, error)
        return queue

    @property
    def damaged(self) -> list[MessageQueue]:
        """The queues that cannot be read. All others are served."""
        return [queue for queue in self.queues.values() if queue.damage] + self.cursors.damaged

    def _new_number(self) -> int:
        self._next_number += 1
        return self._next_number - 1

    def _require_room(self) -> None:
        """Raises ServerError at `max_queues`, cursors being counted."""
        if len(self.queues) + self.cursors.count >= self.max_queues:
            raise ServerError(f"too many queues: at most {self.max_queues}")

    def create(self, name: bytes) -> MessageQueue:
        """Make the durable queue `name`, which must not exist, in this turn. Raises ServerError at `max_queues`."""
        self._require_room()
        queue = self.awaited.pop(name, None) or MessageQueue(name, self._budget)
        damaged = self._journal.storage.damaged_families
        usable = [family for family in range(len(self._family_users)) if family not in damaged]
        family = min(usable or [0], key=self._family_users.__getitem__)
        if not self._journal.touched:
            self._journal.begin()
        record = QueueRecord(self._new_number(), family, self._journal.now_ms)
        self._family_users[family] += 1
        queue.attach(self._journal, record, State())
        self.queues[name] = queue
        self.creates += 1
        storage = self._journal.storage
        self._journal.also.append(lambda batch: storage.add_queue(batch, name, record))
        self._journal.undo.append((self._uncreate, queue, record))
        if self.cursors.awaited:
            self.cursors.make_awaited()
        return queue

    def _uncreate(self, queue: MessageQueue, record: QueueRecord) -> None:
        self.creates -= 1
        self._family_users[record.family] -= 1
        del self.queues[queue.name]
        queue.deleted = True
        self._move_line(queue)

    def wait_at(self, name: bytes) -> MessageQueue:
        """The queue `name` to wait at, whether it exists or not. Call `done_waiting` with it afterwards."""
        queue = self.queues.get(name) or self.awaited.get(name)
        if queue is None:
            queue = self.awaited[name] = MessageQueue(name, self._budget)
        return queue

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
            self.wait_at(gone.name).line, gone.line = gone.line, None

    def delete(self, name: bytes) -> None:
        """Remove the queue, waiting and open items and all. Nothing happens if it does not exist."""
        queue = self.queues.get(name)
        if queue is None:
            return
        self.cursors.delete_all(queue)
        del self.queues[name]
        queue.deleted = True
        record = queue.log.record
        self._family_users[record.family] -= 1
        self.deletes += 1
        self.total_items_of_deleted += queue.total_items
        self._move_line(queue)
        queue.release_window()
        storage = self._journal.storage
        self._journal.also.append(lambda batch: storage.remove_queue(batch, name, record))
        self._journal.undo.append((self._undelete, queue))
        self._journal.dead.add_queue(record, queue.log_bytes)

    def _undelete(self, queue: MessageQueue) -> None:
        awaited = self.awaited.pop(queue.name, None)
        if awaited is not None:
            queue.line = awaited.line
        queue.deleted = False
        self._family_users[queue.log.record.family] += 1
        self.deletes -= 1
        self.total_items_of_deleted -= queue.total_items
        self.queues[queue.name] = queue

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
        self.cursors.recheck(batch)
        storage.write(batch)
        self.cursors.make_awaited()
        for queue in self:
            queue.serve_line()

    def __iter__(self) -> Iterator[MessageQueue]:
        """All but those that could not be read back."""
        return (queue for queue in self.queues.values() if queue.__class__ is MessageQueue)

    @property
    def total_items(self) -> int:
        """Items put since the server started, those of deleted queues too."""
        return self.total_items_of_deleted + sum(queue.total_items for queue in self)


def _forget_upload(journal: Journal, number: int, blob: int, batch: Batch) -> None:
    journal.storage.remove_blobs(batch, number, blob, blob + 1)
    journal.storage.end_upload(batch, number, blob)
