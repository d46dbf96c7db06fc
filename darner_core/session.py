"""What one connection holds: its open read. Closing the session gives it back.

No call here switches greenlets.
"""

from darner_core.errors import ClientError
from darner_core.journal import Journal
from darner_core.message_queue import OpenRead


class Session:
    """One read can be open at a time, of whichever queue. `needs_sync` says that a reply has to wait for an fsync."""

    __slots__ = ("_journal", "open_read", "needs_sync", "ended")

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.open_read: OpenRead | None = None
        self.needs_sync = False
        self.ended = False

    def require_none_open(self) -> None:
        """Raises ClientError while a read is open."""
        if self.open_read is not None:
            name = self.open_read.queue.name.decode("utf-8", "backslashreplace")
            raise ClientError(f"close current read first: an item of queue {name} is open on this connection")

    def hold(self, read: OpenRead) -> None:
        self.open_read = read
        self._journal.undo.append((self._let_go, read))

    def _let_go(self, read: OpenRead) -> None:
        if self.open_read is read:
            self.open_read = None
            read.queue.give_back(read, wake=False)  # it may have been handed over in an earlier turn

    def close_read(self) -> None:
        """Confirm the open read: its item is gone. Nothing happens if none is open."""
        read = self.open_read
        if read is not None:
            read.queue.close(read, self)
            self.open_read = None

    def unclose(self, read: OpenRead) -> None:
        """Undo `close_read`, as far as it is the session's."""
        if self.ended:  # hung up in the same turn
            read.queue.give_back(read, wake=False)
        else:
            self.open_read = read

    def abort_read(self) -> None:
        """Give the open read back. Nothing happens if none is open."""
        read = self.open_read
        if read is not None:
            self.open_read = None
            self._journal.undo.append((self._unabort, read))
            read.queue.give_back(read)

    def _unabort(self, read: OpenRead) -> None:
        if not self.ended:
            self.open_read = read
            read.queue.take_back(read)

    def end(self) -> None:
        """The connection is gone: what it held goes to the next."""
        self.ended = True
        read, self.open_read = self.open_read, None
        if read is not None:
            read.queue.give_back(read)
