"""What one client is owed: the replies of this turn, those that wait for an fsync, and what it has not yet taken.

Replies are gathered while requests are served, and sent with one call when the turn's changes have been written: by the
Turn, or here if there is more to it. An Outbox does not know the client's state and hangs up on nobody: its caller, the
Connection, does. No call here switches greenlets.
"""

from collections.abc import Callable
from typing import Any

import gevent

from darner_core.errors import RequestError, ServerError, StorageError
from darner_core.operations.stats import Stats
from darner_core.protocols.contract import Traits
from darner_core.server.poller import WRITE
from darner_core.shared_memory import PipelineMemory


class Outbox:
    __slots__ = (
        "replies", "unsent", "held", "mid_reply", "dialect", "_send", "_fd", "_stats", "_pipeline_memory", "_watcher",
        "_held_replies", "_written_replies",
    )  # fmt: skip

    def __init__(
        self, send: Callable[[bytes], int], fd: int, dialect: Traits, stats: Stats, pipeline_memory: PipelineMemory
    ) -> None:
        self.replies: list[bytes] = []  # of this turn, one element a request; always the same list
        self.unsent = b""  # replies that the client has not taken
        self.held = False  # replies wait for an fsync
        self.mid_reply = False  # part of a reply has been sent: an error can only be a hang-up
        self._send = send
        self._fd = fd
        self._stats = stats
        self.dialect = dialect
        self._pipeline_memory = pipeline_memory
        self._watcher: Any = None  # of a client that is slow to take its replies
        self._held_replies = 0  # how many of `replies` the running fsync is for
        self._written_replies = 0  # how many of `replies` are of turns that have been written

    @property
    def is_empty(self) -> bool:
        return not (self.replies or self.unsent or self.held)

    # -- sending

    def end_turn(self) -> None:
        """The changes that all replies so far tell of are written."""
        self._written_replies = len(self.replies)

    def hold(self) -> None:
        """Keep the replies until `release`: an fsync comes first."""
        self.held = True
        self._held_replies = len(self.replies)

    def release(self) -> None:
        self.held = False

    def send_replies(self, on_writable: Callable[[], None]) -> bool:
        """Send the replies. True: the client has taken all; else see `wait_to_write`. Raises OSError if it has gone."""
        data = b"".join(self.replies)
        self.replies.clear()
        self._written_replies = 0
        if self.unsent:
            self._set_unsent(self.unsent + data)
            return False
        rest = self._send_some(data)
        if rest:
            self.wait_to_write(rest, on_writable)
        return not rest

    def send_more(self) -> bool:
        """The client can take more of what is unsent. Returns and raises as `send_replies`."""
        rest = self._send_some(self.unsent)
        self._set_unsent(rest)
        if not rest:
            self._watcher.stop()
        return not rest

    def wait_to_write(self, unsent: bytes, on_writable: Callable[[], None]) -> None:
        """The client does not take its replies as fast as it asks: have `on_writable` called when it can take more."""
        self._set_unsent(unsent)
        if self._watcher is None:
            self._watcher = gevent.get_hub().loop.io(self._fd, WRITE)
        self._watcher.start(on_writable)

    def _send_some(self, data: bytes) -> bytes:
        """Send as much as the client takes; the rest."""
        if not data:
            return b""
        try:
            sent = self._send(data)
        except BlockingIOError:
            return data
        self._stats.bytes_written += sent
        return data[sent:]

    def _set_unsent(self, unsent: bytes) -> None:
        self._pipeline_memory.used_bytes += len(unsent) - len(self.unsent)
        self.unsent = unsent

    def drop(self) -> None:
        """Send nothing more: the client has gone."""
        if self._watcher is not None:
            self._watcher.stop()
        self._set_unsent(b"")
        self.replies.clear()

    # -- failing

    def refuse(self, error: RequestError) -> None:
        self.replies.append(self.dialect.error_reply(error))

    def fail_turn(self, error: StorageError) -> bool:
        """Say `error` instead of the replies of this turn: nothing of it has happened. False: it cannot be said,
        because the client has part of a reply."""
        begin = self._written_replies
        if len(self.replies) == begin:
            return True
        if self.mid_reply:
            return False
        self.replies[begin:] = [self._refusal(error)] * (len(self.replies) - begin)
        return True

    def fail_sync(self, error: StorageError) -> None:
        """Say `error` instead of the replies that were held: what they tell of has been written, but perhaps does not
        survive a loss of power. A reply with an item stays, because that item is in no queue any more."""
        refusal, hands_over = self._refusal(error), self.dialect.hands_over
        count = self._held_replies or len(self.replies)
        self.replies[:count] = [reply if hands_over(reply) else refusal for reply in self.replies[:count]]

    def _refusal(self, error: StorageError) -> bytes:
        return self.dialect.error_reply(ServerError(str(error)))
