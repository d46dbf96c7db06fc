"""MULTI and EXEC: commands that are kept, and then done one after the other in one turn. So they are written together,
and no other client sees some of them alone.

What a transaction may have is bounded, because all of it happens in one turn, and its commands are in memory until
then. No call here switches greenlets.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from darner_core.protocols.contract import Request
from darner_core.protocols.resp.replies import RespError

MAX_QUEUED: Final = 1024  # commands
MAX_WORDS: Final = 4096  # of them all: what is pushed, named, or asked for by a count; 20 ms
MOST_LOOKED_AT: Final = 2000  # values that its commands look at without taking them: 20 ms
MAX_QUEUED_BYTES: Final = 64 << 20  # of all clients together

# Commands with a number of items among their words.
_COUNTING: Final = frozenset((b"lpop", b"rpop", b"lmpop", b"blmpop", b"getjob", b"qpeek", b"lrange"))
_MOST_COUNTED: Final = 1000  # what none of them exceeds


class QueuedMemory:
    """What the transactions of all clients have in memory."""

    __slots__ = ("used_bytes",)

    def __init__(self) -> None:
        self.used_bytes = 0


class Transaction:
    """What one client has queued since MULTI."""

    __slots__ = ("commands", "spoiled", "_memory", "_bytes", "_words")

    def __init__(self, memory: QueuedMemory) -> None:
        self.commands: list[tuple[Callable[..., Any], Request]] = []
        self.spoiled = False  # one was refused: EXEC will do nothing
        self._memory = memory
        self._bytes = 0
        self._words = 0

    def queue(self, run: Callable[..., Any], request: Request, words: Sequence[bytes]) -> None:
        """Raises RespError if that is too much; then EXEC will do nothing."""
        size = sum(map(len, words))
        count = len(words)
        if request.verb in _COUNTING:
            count += max((min(int(word), _MOST_COUNTED) for word in words[1:] if _is_number(word)), default=0)
        try:
            if len(self.commands) >= MAX_QUEUED:
                raise RespError(f"too many commands in one transaction: at most {MAX_QUEUED}")
            if self._words + count > MAX_WORDS:
                raise RespError(f"too many values in one transaction: at most {MAX_WORDS}")
            if self._memory.used_bytes + size > MAX_QUEUED_BYTES:
                raise RespError("too much memory is taken by transactions that have begun; try again", "OOM")
        except RespError:
            self.spoiled = True
            raise
        self._words += count
        self._bytes += size
        self._memory.used_bytes += size
        self.commands.append((run, request))

    def end(self) -> None:
        """Its commands take no memory any more, or are done now."""
        self._memory.used_bytes -= self._bytes
        self._bytes = 0


def _is_number(word: bytes) -> bool:
    return len(word) < 20 and word.isdigit()
