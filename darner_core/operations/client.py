"""What a command sees of the client that it is done for.

A command is a method  (request, body, session) -> reply.  The reply is bytes, b"" for none, or, when the command has to
wait for something, a function of the Client that the server runs in the client's own greenlet, blocking-style, and
that returns the bytes. Commands raise RequestError for what the client did wrong and StorageError for the disk.

The commands themselves never switch greenlets; the functions they return do, through the Client's wait_... calls.
"""

from collections.abc import Callable
from typing import Protocol

from darner_core.operations.session import Session
from darner_core.protocols.memcache.reader import Request
from darner_core.waiters import Waiter

# Why what goes on for long ends before its time.
RIGHTS_GONE = "you may not do this any longer: the rights of users have been read again"


class HangUp(Exception):
    """Disconnect the client: it asked for that, or what it was being sent is gone."""


class Client(Protocol):
    """The connection, as the functions that wait see it. Every call may switch greenlets."""

    session: Session

    def wait_for(self, waiter: Waiter, wait_ms: int) -> object:
        """Wait in line, watching for a hang-up. What was handed over, or None."""

    def wait_sent(self, data: bytes = b"") -> None:
        """Send `data` behind all replies so far, and wait until the client has taken it."""

    def wait_body(self, most_bytes: int) -> bytes:
        """The next bytes of the large item that is being received; at least one, at most so many."""

    def wait_turn(self) -> None:
        """Let the others have their turn."""

    def may_see(self, queue: bytes) -> bool:
        """Whether `stats` tells this client of `queue`. Does not switch."""

    def may(self, right: str, request: Request) -> bool:
        """Whether the client may, at this moment, do such things to the queue that it has asked for. For what goes on
        for long: the rights may have been read again. Does not switch."""


Reply = bytes | Callable[[Client], bytes]
