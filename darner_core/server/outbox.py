"""What a client is owed: the replies of this turn, those that wait for an fsync, and what it has not yet taken.

Replies are gathered while requests are served, and sent with one call when the turn's changes have been written: by the
Turn, or here if there is more to it. What is done when the client does not take them, or when all has gone out, its
Connection knows. No call here switches greenlets.
"""

import logging
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol

import gevent

from darner_core import NAME
from darner_core.config.options import Config
from darner_core.engines.local.journal import Journal
from darner_core.errors import ServerError, StorageError
from darner_core.operations.session import ManyReads, Session
from darner_core.operations.stats import Stats
from darner_core.protocols.contract import Traits
from darner_core.protocols.vocabularies import Vocabularies
from darner_core.server.tls import TlsSocket
from darner_core.server.turn import Turn
from darner_core.shared_memory import BodyMemory, PipelineMemory
from darner_core.waiters import SyncGroup

log = logging.getLogger(NAME)

WRITE = 2  # libev's name for it

Arguments = ParamSpec("Arguments")


class Host(Protocol):
    """What a connection needs of its server."""

    config: Config
    stats: Stats
    journal: Journal
    body_memory: BodyMemory
    whole_memory: BodyMemory
    pipeline_memory: PipelineMemory
    vocabularies: Vocabularies
    turn: Turn
    sync_group: SyncGroup

    @property
    def stopping(self) -> bool: ...

    def stir(self) -> None:
        """Something was woken up at the end of the turn: go round once more before the loop sleeps."""


Callback = Callable[Concatenate[Any, Arguments], None]


def careful(callback: Callback[Arguments]) -> Callback[Arguments]:
    """A method of a connection that the loop calls. If it raises something, this client is hung up on and the others
    are served: gevent would stop the watcher, and drop what the same call still had to do for others."""

    @wraps(callback)
    def call(connection: Any, /, *arguments: Arguments.args, **more: Arguments.kwargs) -> None:
        try:
            callback(connection, *arguments, **more)
        except Exception as error:
            connection.hang_up_after(error)

    return call


class Outgoing(ABC):
    __slots__ = (
        "session", "send", "replies", "special", "_server", "_stats", "_turn", "_fd", "_write_watcher", "_unsent",
        "_held", "_held_replies", "_written_replies", "_mid_reply", "_error_reply", "_hands_over",
    )  # fmt: skip

    def __init__(self, server: Host, client_socket: socket.socket | TlsSocket, dialect: Traits) -> None:
        self.session = (ManyReads if dialect.several_reads else Session)(server.journal)
        self._error_reply = dialect.error_reply
        self._hands_over = dialect.hands_over
        self.send: Callable[[bytes], int] = client_socket.send
        self.replies: list[bytes] = []  # of this turn, one element a request
        self.special = False  # in the turn's list of those that have more to do than to send replies
        self._server = server
        self._stats = server.stats
        self._turn = server.turn
        self._fd = client_socket.fileno()
        self._write_watcher: Any = None
        self._unsent = b""  # replies that the client has not taken
        self._held = False  # replies wait for an fsync
        self._held_replies = 0  # how many of them the running fsync is for
        self._written_replies = 0  # how many of them are of turns that have been written
        self._mid_reply = False  # part of a reply has been sent: an error can only be a hang-up

    # -- what the connection does

    @abstractmethod
    def _pause(self) -> None:
        """Read no more."""

    @abstractmethod
    def _close(self, lingers: bool) -> None:
        """Hang up when all is sent."""

    @abstractmethod
    def _went_out(self) -> None:
        """All replies have been taken by the kernel."""

    @abstractmethod
    def _account_pending(self) -> None:
        """There is more or less of what the client has not taken."""

    @abstractmethod
    def _tell_task(self, error: StorageError) -> None:
        """What the client's greenlet is doing has done something in a turn that has failed."""

    @abstractmethod
    def hang_up(self) -> None:
        """The client has gone."""

    def hang_up_after(self, error: Exception) -> None:
        """Nobody foresaw `error`. Whatever has called goes on with the others."""
        log.error("a client could not be served", exc_info=error)
        try:
            self.hang_up()
        except Exception:
            log.exception("a client could not be hung up on")

    # -- sending

    @property
    def _all_sent(self) -> bool:
        return not (self.replies or self._unsent or self._held)

    def end_turn(self, sync: bool) -> None:
        """The turn's changes are written: send its replies, after an fsync if they need one. Called in the hub."""
        if sync:
            self.session.needs_sync = True
        self._written_replies = len(self.replies)
        if self._held:
            return  # the fsync that runs may have begun before this turn: `synced` sees to another
        if self.session.needs_sync:
            self._hold()
        else:
            self._send_replies()

    def _hold(self) -> None:
        """Send the replies after an fsync that begins now."""
        self.session.needs_sync = False
        self._held = True
        self._held_replies = len(self.replies)
        self._pause()
        self._server.sync_group.join(self)
        self._server.stir()

    @careful
    def synced(self, error: StorageError | None) -> None:
        """The fsync that the replies waited for has ended. Called in the hub."""
        self._held = False
        if error is not None:
            self._fail_sync(error)
        if self.special:
            return  # more is being added: the end of this turn sends it all
        if self.session.needs_sync:
            self._hold()
        else:
            self._send_replies()

    def fail_turn(self, error: StorageError) -> None:
        """Nothing of the turn has happened."""
        if len(self.replies) != self._written_replies:
            self._fail(error, self._written_replies, len(self.replies))
        self._tell_task(error)

    def _fail(self, error: StorageError, begin: int, end: int) -> None:
        """Say `error` instead of these replies."""
        if self._mid_reply:
            self.replies.clear()
            self._close(lingers=False)
            self._server.stir()
            return
        self.replies[begin:end] = [self._error_reply(ServerError(str(error)))] * len(self.replies[begin:end])

    def _fail_sync(self, error: StorageError) -> None:
        """What the replies that were held tell of has been written, and perhaps does not survive a loss of power. The
        item in the reply to a get is in no queue any more: it is handed over all the same. If no reply was held, it was
        a turn of a request that takes several: that request is told."""
        if self._mid_reply:
            self._fail(error, 0, self._held_replies)
            return
        if not self.replies:
            self._tell_task(error)
            return
        refusal = self._error_reply(ServerError(str(error)))
        count = self._held_replies or len(self.replies)
        self.replies[:count] = [reply if self._hands_over(reply) else refusal for reply in self.replies[:count]]

    def _send_replies(self) -> None:
        data = b"".join(self.replies)
        self.replies.clear()
        self._written_replies = 0
        if self._unsent:
            self._unsent += data
            self._account_pending()
        elif self._send_some(data):
            self._went_out()

    def _send_some(self, data: bytes) -> bool:
        """Send as much as the client takes; True: all."""
        if data:
            try:
                sent = self.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.hang_up()
                return False
            self._stats.bytes_written += sent
            if sent != len(data):
                self.wait_to_write(data[sent:])
                return False
        return True

    def wait_to_write(self, unsent: bytes) -> None:
        """The client does not take its replies as fast as it asks: read no more from it until it has."""
        self._unsent = unsent
        self._account_pending()
        self._pause()
        if self._write_watcher is None:
            self._write_watcher = gevent.get_hub().loop.io(self._fd, WRITE)
        self._write_watcher.start(self._on_writable)

    @careful
    def _on_writable(self) -> None:
        if self._send_some(self._unsent):
            self._unsent = b""
            self._account_pending()
            self._write_watcher.stop()
            self._went_out()
