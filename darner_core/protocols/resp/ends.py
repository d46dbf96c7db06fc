"""At which end each list is pushed, and at which it is popped. A queue knows only its head and its tail.

What is pushed at the end where others pop goes before all others, as whoever gives unfinished work back expects. A pop
at the end where others push would make the list a stack, and is refused.

Which end is which, clients say by what they do. A pop that finds something proves it. As long as there was none, a push
says it while the list holds at most one value, because both ends of it are the same, and so does a pop that finds
nothing. The server knows it until it ends; behind a restart the first push or pop says it again.

No call here switches greenlets.
"""

from enum import IntEnum
from typing import Final

from darner_core.operations.operations import Operations
from darner_core.protocols.escaping import name_elsewhere
from darner_core.protocols.grammar import excerpt
from darner_core.protocols.resp.replies import RespError

LEFT, RIGHT = "left", "right"
OTHER: Final = {LEFT: RIGHT, RIGHT: LEFT}

# More lists than there are queues are known for a while: such a list is empty, and will be used again.
SPARE: Final = 1000


class _Known(IntEnum):
    GUESSED = 0  # by a push behind values that nobody has seen pushed, or that contradicts the push before it
    SAID = 1  # by a push
    PROVEN = 2  # by a pop


class Ends:
    """Those of all lists."""

    def __init__(self, operations: Operations) -> None:
        self._queues = operations.queues
        self._pushed: dict[bytes, tuple[str, _Known]] = {}

    def pushed(self, queue: bytes) -> str:
        """LEFT or RIGHT; if nobody has said it, LEFT, because LPUSH and BRPOP are what most clients use."""
        return self._pushed.get(queue, (LEFT, 0))[0]

    def length(self, queue: bytes) -> int:
        """How many values the list has; 0: there is no such list."""
        found = self._queues.get(queue)
        return found.waiting_items if found is not None and not found.unreadable else 0

    def push(self, queue: bytes, end: str) -> bool:
        """Something is pushed at this end. False: it is where others pop."""
        known = self._pushed.get(queue)
        if known is not None and (known[0] == end or known[1] is _Known.PROVEN):
            return known[0] == end
        length = self.length(queue)
        if known is None:
            self._note(queue, end, _Known.SAID if length <= 1 else _Known.GUESSED)
            return True
        if length <= 1:
            # While the list holds something, the two pushes contradict each other, and the first pop decides.
            self._note(queue, end, _Known.GUESSED if length else _Known.SAID)
            return True
        return False

    def pop(self, queue: bytes, end: str) -> None:
        """Something is to be popped at this end, perhaps later. Raises RespError if it is where others push."""
        known = self._pushed.get(queue)
        if known is not None and known[1] is _Known.PROVEN and known[0] != end:
            return  # as always
        length = self.length(queue)
        if known is not None and known[0] == end and known[1] is not _Known.GUESSED and length > 1:
            raise RespError(f"queue {shown(queue)} is a FIFO: it is pushed at the {end} and popped at the {OTHER[end]}")
        if length:
            self.popped(queue, end)
        elif known is None or known[1] is not _Known.PROVEN:
            self._note(queue, OTHER[end], _Known.SAID)

    def popped(self, queue: bytes, end: str) -> None:
        """Something has been popped at this end."""
        self._note(queue, OTHER[end], _Known.PROVEN)

    def forget(self, queue: bytes) -> None:
        """The list has been deleted: others may use its name in another way."""
        self._pushed.pop(queue, None)

    def _note(self, queue: bytes, end: str, known: _Known) -> None:
        if self._pushed.get(queue) == (end, known):
            return
        self._pushed[queue] = end, known
        if len(self._pushed) > 2 * len(self._queues) + SPARE:
            self._pushed = {name: one for name, one in self._pushed.items() if name in self._queues}


def shown(queue: bytes) -> str:
    """A list's name in an error message."""
    return excerpt(name_elsewhere(queue))
