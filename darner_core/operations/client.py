"""What an operation sees of the client that it is done for, and the two forms that an operation can have.

An operation that may have to wait for something has two forms. The first answers in the turn: with a value, or with
LATER. The second has a name that begins with wait_, takes the Client, and runs in the client's own greenlet: it does
what the first form left open. The first form never switches greenlets; the second does, through the Client's calls.
"""

from collections.abc import Callable
from enum import Enum
from typing import Any, Literal, Protocol, TypeVar

from darner_core.operations.session import Session
from darner_core.shared_memory import PipelineMemory
from darner_core.waiters import Waiter

_Found = TypeVar("_Found")
_Answer = TypeVar("_Answer")

# What a client is told when its rights end while an operation goes on.
RIGHTS_GONE = "you may not do this any longer: the rights of users have been read again"


class Later(Enum):
    """The answer of an operation that has to wait before it can answer."""

    LATER = "later"


LATER = Later.LATER

# How much of a long reply goes out in one piece while pipeline_memory_bytes are exceeded.
SCARCE_PIECE_BYTES = 4 << 10


class HangUp(Exception):
    """Disconnect the client: it asked for that, or what it was being sent is gone."""


class Client(Protocol):
    """The connection, as the operations that wait see it. Every call may switch greenlets, but for may and may_see."""

    session: Session

    def wait_for(self, waiter: Waiter, wait_ms: int) -> object:
        """Wait in line, watching for a hang-up. What was handed over, or None."""

    def wait_sent(self, data: bytes = b"") -> None:
        """Send `data` behind all replies so far, and wait until the client has taken it."""

    def wait_body(self, most_bytes: int) -> bytes:
        """The next bytes of the large item that is being received: at least one, at most `most_bytes`."""

    def wait_turn(self) -> None:
        """Let other clients have their turn."""

    def may_see(self, queue: bytes) -> bool:
        """Whether `stats` tells this client of `queue`."""

    def may(self, right: str, queue: bytes) -> bool:
        """Whether the client has this right to `queue` at this moment. An operation that goes on for long asks again
        and again: the rights may have been read anew."""


class Pieces:
    """A long reply that is sent in as few pieces as its bytes allow."""

    def __init__(self, client: Client, memory: PipelineMemory, most_bytes: int) -> None:
        """`most_bytes`: of a piece, unless what is added at once has more."""
        self._client = client
        self._memory = memory
        self._most_bytes = most_bytes
        self._gathered: list[bytes] = []
        self._bytes = 0

    def wait_add(self, data: bytes) -> None:
        """Switches greenlets if what there is must be sent first."""
        most_bytes = SCARCE_PIECE_BYTES if self._memory.scarce else self._most_bytes
        if self._bytes + len(data) > most_bytes:
            self.wait_sent()
        self._gathered.append(data)
        self._bytes += len(data)

    def wait_sent(self) -> None:
        """Send what there is."""
        if self._gathered:
            self._client.wait_sent(self.take())

    def take(self) -> bytes:
        """What has not been sent."""
        gathered, self._gathered, self._bytes = self._gathered, [], 0
        return b"".join(gathered)


def now_or_later(
    found: _Found | Literal[Later.LATER],
    answer: Callable[[_Found], _Answer | Callable[[Client], _Answer]],
    wait: Callable[[Client], _Found],
) -> _Answer | Callable[[Client], _Answer]:
    """`answer(found)`, where `found` is what an operation has found. If that is LATER: a function of the Client, which
    calls `wait`, the waiting form of the operation, and then `answer`."""
    if found is not LATER:
        return answer(found)

    def wait_answer(client: Client) -> _Answer:
        reply: Any = answer(wait(client))
        return reply(client) if callable(reply) else reply  # type: ignore[no-any-return]

    return wait_answer
