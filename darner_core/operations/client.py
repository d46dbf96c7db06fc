"""What an operation sees of the client that it is done for, and the two forms that an operation can have.

An operation that may have to wait for something has two forms. The first answers in the turn: with a value, or with
LATER. The second has a name that begins with wait_, takes the Client, and runs in the client's own greenlet: it does
what the first form left open. The first form never switches greenlets; the second does, through the Client's calls.
"""

from enum import Enum
from typing import Protocol

from darner_core.operations.session import Session
from darner_core.waiters import Waiter

# Why what goes on for long ends before its time.
RIGHTS_GONE = "you may not do this any longer: the rights of users have been read again"


class Later(Enum):
    """The answer of an operation that has to wait before it can answer."""

    LATER = "later"


LATER = Later.LATER


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
