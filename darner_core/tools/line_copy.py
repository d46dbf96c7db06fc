"""The ids and the state of one queue's line, on its way into a repaired directory.

Items of a line get new ids, one after the other, so that nothing is missing between them. Not so if something is set
aside from the line, or items of it have failed: places in the order of arrival are told in the line's ids, so these are
kept, and the state says how many are missing.
"""

from darner_core.storage import records
from darner_core.tools.aside_salvage import LineJobs
from darner_core.tools.salvage import Broken, ListedQueue, Salvaged


class CopiedLine:
    """`tail`: the id that the next item gets. It may be raised before `state` is called."""

    def __init__(self, source: Salvaged, queue: ListedQueue, has_aside: bool, first_id: int) -> None:
        """`first_id` is the lowest id that a new item may have."""
        self.jobs = LineJobs(source, queue.record.number)
        self.keeps_ids = has_aside or self.jobs.has_any
        state = source.state(queue.record)
        self._next = 0  # below this id of the source all was handed out at least once
        self._first_id = self.tail = first_id
        self._first_new = 0  # the first item that was never handed out; 0: there is none so far
        self._new = 0  # how many of these there are
        if self.keeps_ids:
            self._first_id, self.tail = 0, records.FIRST_ID
            if not isinstance(state, Broken):
                self._next, self.tail = state.next, state.tail

    def add(self, item_id: int) -> int:
        """An item of the line is saved, the next by its id. Returns its new id."""
        new_id = item_id if self.keeps_ids else self.tail
        self._first_id = self._first_id or new_id
        if item_id >= self._next:
            self._first_new = self._first_new or new_id
            self._new += 1
        self.tail = max(self.tail, new_id + 1)
        return new_id

    def state(self, stored_bytes: int) -> bytes:
        """The line's state record."""
        if not self.keeps_ids:
            return records.pack_state(self._first_id, self._first_id, self.tail, stored_bytes, self._first_id)
        first, next_id = self._first_id or self.tail, self._first_new or self.tail
        return records.pack_state(first, next_id, self.tail, stored_bytes, first, self.tail - next_id - self._new)
