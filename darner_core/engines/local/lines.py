"""The lines of clients that wait for an item, by the name of what they wait for.

Clients wait for a name, not for a queue: the queue may be deleted and made again meanwhile, or not exist yet. If there
is a queue or cursor of that name, its slot `line` holds the line, so that a put looks at nothing else. None means that
nobody waits. While clients wait at a cursor, its queue has a line too, perhaps an empty one: so a put to the queue
knows that it has clients to serve.

No call here switches greenlets; a client that is handed something runs later.
"""

from typing import TYPE_CHECKING, TypeAlias

from darner_core.errors import StorageError
from darner_core.waiters import Waiter, WaitingLine

if TYPE_CHECKING:
    from darner_core.engines.local.cursor import Cursor
    from darner_core.engines.local.message_queue import MessageQueue
    from darner_core.engines.local.reads import OpenRead


Place: TypeAlias = "MessageQueue | Cursor"


class Lines:
    """All lines in which clients wait. Where a queue itself is meant, `cursor` is b""."""

    def __init__(self) -> None:
        self._lines: dict[bytes, dict[bytes, WaitingLine]] = {}  # by the queue's name, then the cursor's
        self._places: dict[WaitingLine, Place] = {}  # the queue or cursor that serves a line, if it exists
        self._count = 0

    @property
    def unserved(self) -> int:
        """How many lines wait for queues and cursors that do not exist."""
        return self._count - len(self._places)

    def find(self, name: bytes, cursor: bytes = b"") -> WaitingLine | None:
        return self._lines.get(name, {}).get(cursor)

    def unserved_cursors(self, name: bytes) -> list[bytes]:
        """The cursors of this queue that clients wait for and that do not exist."""
        return [cursor for cursor, line in self._lines.get(name, {}).items() if cursor and line not in self._places]

    def names(self) -> list[bytes]:
        return list(self._lines)

    def join(
        self,
        name: bytes,
        queue: "Place | None",
        cursor_name: bytes,
        place: "Place | None",
        peeks: bool,
        waiter: Waiter | None,
    ) -> Waiter:
        """A new waiter at the end of a line, or `waiter`, which stands in other lines too. `queue` is the queue of this
        name, and `place` is what serves the line: that queue, or a cursor of it. They are None if they do not exist.
        Call `tidy` when the waiter has been decided."""
        line = self.find(name, cursor_name)
        if line is None:
            line = self._begin(name, cursor_name)
            if queue is not None and place is not None:
                self._give(queue, place, line)
        return line.join(peeks, waiter)

    def _begin(self, name: bytes, cursor: bytes) -> WaitingLine:
        line = self._lines.setdefault(name, {})[cursor] = WaitingLine()
        self._count += 1
        return line

    def _give(self, queue: Place, place: Place, line: WaitingLine) -> None:
        """`place`, which is the queue or a cursor of it, serves this line from now on."""
        place.line = line
        self._places[line] = place
        if queue.line is None:
            self._give(queue, queue, self._begin(queue.name, b""))

    def _release(self, line: WaitingLine) -> None:
        """Nothing serves this line any more."""
        place = self._places.pop(line, None)
        if place is not None:
            place.line = None

    def tidy(self, name: bytes, cursor: bytes = b"") -> None:
        """Drop a line that has become empty, so that a put has nothing to look at."""
        if cursor:
            self._drop_if_empty(name, cursor)
        line = self.find(name)
        if line is not None and (line not in self._places or len(self._lines[name]) == 1):
            self._drop_if_empty(name, b"")  # else clients wait at the queue's cursors, so it keeps its line

    def _drop_if_empty(self, name: bytes, cursor: bytes) -> None:
        line = self.find(name, cursor)
        if line is None or line:
            return
        del self._lines[name][cursor]
        if not self._lines[name]:
            del self._lines[name]
        self._count -= 1
        self._release(line)

    # -- queues and cursors come and go

    def serve_from(self, queue: Place, cursor_name: bytes = b"", cursor: "Place | None" = None) -> None:
        """This queue, or this cursor of it, exists from now on."""
        line = self.find(queue.name, cursor_name)
        if line is not None:
            self._give(queue, queue if cursor is None else cursor, line)

    def leave_unserved(self, name: bytes, cursor: bytes = b"") -> None:
        """This queue or cursor is gone: its clients wait for the next of its name."""
        line = self.find(name, cursor)
        if line is not None:
            self._release(line)
            self.tidy(name, cursor)


def serve(place: Place) -> None:
    """Hand what waits at a queue or cursor to the clients that wait there, in order. A queue's cursors come first: what
    is open in the queue is hidden from them."""
    if place.cursors is not None:
        for cursor in place.cursors.values():
            if cursor.line is not None:
                serve(cursor)
    while place.line and (place.returned or place.next_id < place.tail or place.aside_items):
        waiter = place.line.next()
        handed: Place | OpenRead | None
        try:
            handed = (place.peek() and place) if waiter.peeks else place.open()
        except StorageError:
            handed = None  # the head cannot be read: clients that ask now are told so, the others wait on
        if handed is None:  # or all has expired
            place.line.rejoin(waiter)
            if place.half_swept:
                place.log.journal.half_served[place] = None
            break
        waiter.hand(handed)
