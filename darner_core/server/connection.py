"""One client, as the loop serves it: the state it is in, when it is read and when it is sent its replies, and its end.

Its greenlet owns the connection, see `client_greenlet`. Requests that need not wait are served in a callback, without
switching to the greenlet (1.1 to 1.4 times as many requests a second). What has to wait for an item, a large body or a
slow reader is done in the greenlet, blocking-style. Either a callback or the greenlet reads the client, never both at a
time: its State says which.

The bytes that come are the Inbox's, those that go the Outbox's, and what the bytes ask is done in `serving`. Replies
are gathered, and sent with one call when the turn's changes have been written.

No call here switches greenlets, but for `run` and where the client's greenlet is handed what it waits for.
"""

import socket
from collections.abc import Callable
from typing import Any, Protocol

import gevent

from darner_core.config.options import Config
from darner_core.engines.local.journal import Journal
from darner_core.errors import RequestError, ServerError, StorageError
from darner_core.operating_system import unread_bytes
from darner_core.operations.operations import Operations
from darner_core.operations.session import Session
from darner_core.operations.stats import Stats
from darner_core.protocols.contract import Reader, Request, Vocabulary, everything_allowed
from darner_core.protocols.guard import Guard
from darner_core.protocols.vocabularies import Vocabularies
from darner_core.server import serving
from darner_core.server.background import SyncGroup
from darner_core.server.careful import careful
from darner_core.server.client_greenlet import ClientGreenlet
from darner_core.server.inbox import Inbox
from darner_core.server.outbox import Outbox
from darner_core.server.serving import Backlog, Task
from darner_core.server.states import MOVES, UNOCCUPIED, WOKEN_AT_END, Ending, State
from darner_core.server.tls import TlsSocket
from darner_core.server.turn import Turn
from darner_core.shared_memory import BodyMemory, PipelineMemory
from darner_core.waiters import Waiter


class Host(Protocol):
    """What a connection needs of its server."""

    config: Config
    stats: Stats
    journal: Journal
    body_memory: BodyMemory
    whole_memory: BodyMemory
    pipeline_memory: PipelineMemory
    operations: Operations
    vocabularies: Vocabularies
    turn: Turn
    sync_group: SyncGroup

    @property
    def stopping(self) -> bool: ...


class Connection:
    """One client: `turn.Client` for the turn, `shared_memory.Holder` for the memory that all share.

    What its ClientGreenlet, `serving` and `idle` use has no underscore."""

    __slots__ = (
        "recv", "send", "kept_line", "replies", "special", "session", "used_s", "last_share_s",  # see `turn.Client`
        "fd", "socket", "state", "ending", "inbox", "outbox", "guard", "host", "turn", "pipeline_memory", "backlog",
        "receive_large", "waiter", "sent", "is_told", "failed_turn", "share_ends",
        "_reader", "_greenlet",
    )  # fmt: skip

    def __init__(
        self,
        host: Host,
        client_socket: socket.socket | TlsSocket,
        vocabulary: Vocabulary,
        guard: Guard | None = None,
    ) -> None:
        """To be made in the client's greenlet. `guard` stands before a client that has to say who it is, or may not do
        everything; None: it may."""
        reads_whole = vocabulary.dialect.receives_whole
        self.fd = client_socket.fileno()
        self.socket = client_socket
        self.guard = guard
        self.host = host
        self.turn = host.turn
        self.receive_large = vocabulary.protocol.receive_large
        self.pipeline_memory = host.pipeline_memory
        self._reader: Reader = vocabulary.new_reader() if guard is None else guard
        self._greenlet = gevent.getcurrent()
        self.inbox = Inbox(
            client_socket, self._reader, reads_whole, host.turn, host.stats,
            host.whole_memory if reads_whole else host.body_memory, host.pipeline_memory,
        )  # fmt: skip
        self.send: Callable[[bytes], int] = client_socket.send
        self.outbox = Outbox(self.send, self.fd, vocabulary.dialect, host.stats, host.pipeline_memory)

        # For the turn, which looks at these for each request.
        self.recv = self.inbox.recv
        self.kept_line: Callable[[bytes], Request | None] = vocabulary.kept_lines.get
        require = everything_allowed if guard is None else guard.require
        self.session: Session = vocabulary.protocol.new_session(host.journal, host.operations.comebacks, require)
        self.replies: list[bytes] = self.outbox.replies
        self.special = False
        self.used_s = self.last_share_s = 0.0

        self.state = State.BUSY
        self.ending: Ending | None = None
        self.backlog: Backlog = iter(())  # requests read and not yet served
        self.waiter: Waiter | None = None  # while IN_LINE
        self.sent: Any = None  # while SENDING: an Event, set when the client has taken its replies
        self.is_told = False  # the greenlet runs a task of a command, and is told of turns that fail
        self.failed_turn: ServerError | None = None  # why a turn failed in which the task had done something
        self.share_ends = 0.0  # when others are to be served; 0: not known yet in this turn

    def run(self) -> None:
        """Serve the client until one of the two hangs up. The body of its greenlet."""
        self.turn.enter(self.fd, self)
        try:
            ClientGreenlet(self).run()
        finally:
            self.state = State.GONE  # whatever still comes for it must not touch the next client's descriptor
            self.turn.forget(self.fd)
            self.socket.close()

    # -- states

    def move(self, state: State) -> None:
        if state not in MOVES[self.state]:
            raise RuntimeError(f"a connection cannot go from {self.state} to {state}")
        self.state = state

    def end_state(self) -> None:
        """A wait is over: from here on the greenlet reads, or nobody."""
        if self.state is State.READ:
            self.turn.ignore(self.fd)
        if self.state is not State.GONE:
            self.move(State.BUSY)

    def pause(self) -> None:
        """The loop reads no more for now. If it is not the loop that reads, nothing happens."""
        if self.state is State.READ:
            self.move(State.PAUSED)
            self.turn.ignore(self.fd)

    def resume(self) -> None:
        """Let a callback read, if it may."""
        if self.state not in UNOCCUPIED:
            return
        if self.outbox.unsent or self.outbox.held or self.ending is not None:
            return
        if self._reader.in_pieces or (self.guard is not None and self.guard.apart):
            self.turn.read_by(self.fd, self._on_readable)
        else:
            self.turn.read_plain(self.fd, self)
        if self.state is State.PAUSED:
            self.move(State.READ)
            if self.host.stopping:
                gevent.get_hub().loop.run_callback(self.stop)
                self.turn.stir()

    @careful
    def rejudge(self) -> None:
        """Rights have changed: perhaps the turn may read this client by itself from now on, or no longer."""
        if self.state is State.READ:
            self.resume()

    # -- reading and serving

    @careful
    def on_end(self) -> None:
        """The client will send nothing more. If it is owed replies of this turn, these are sent first, because it may
        still read them; then this is called again."""
        if self.outbox.held or not self.replies:
            self.hang_up()

    @careful
    def _on_readable(self) -> None:
        """There is more of a request that came in pieces, or the turn does not read this client by itself."""
        data = self.inbox.receive_requests()
        if data:
            self.serve(data)
            if self.state is State.READ and not self._reader.in_pieces:
                self.resume()
        elif data is not None:
            self.on_end()

    def serve(self, data: bytes) -> None:
        """Serve what has been received, up to a request that has to wait: that goes to the greenlet."""
        self.share_ends = 0.0
        task = self.serve_requests(self._reader.requests(data))
        if task is not None:
            self._greenlet.switch(task)
        elif self._reader.in_pieces and self.state is State.READ:
            self.resume()

    def serve_requests(self, backlog: Backlog) -> Task | None:
        """Serve these as far as they need not wait, within the client's share. What has to be done then, or None."""
        # A short pipeline that comes alone is served without a look at the clock.
        is_alone = not (self.turn.shares.crowded or self.inbox.reads_whole)
        return serving.serve_backlog(self, backlog) if is_alone else serving.serve_in_shares(self, backlog)

    def start_task(self, task: Task) -> None:
        self.backlog = iter(())
        self.be_special()  # the command may have done something before it has to wait
        self.share_ends = 0.0
        self._greenlet.switch(task)

    def failed(self, request: Request, error: Exception) -> None:
        serving.answer_failure(self, request, error)
        self.be_special()

    def serve_share(self) -> None:
        if self.state is State.IN_SHARES:  # else it has gone
            self._greenlet.switch()

    def refuse(self, error: RequestError) -> None:
        """Serve nothing: say why, and hang up."""
        serving.answer_error(self, error)
        self.close(Ending.LINGERS)
        self.be_special()

    def refuse_rest(self, error: RequestError) -> None:
        """As `refuse`, and wait no longer for the rest of a large item."""
        if self.state is State.IN_BODY:
            self._greenlet.throw(error)
        else:
            self.refuse(error)

    # -- incomplete items in the shared memory

    def spill(self) -> None:
        """Go on receiving the incomplete item as a large one: from here on it is in memory for a chunk at most."""
        self.inbox.forget_pieces()
        hub = gevent.get_hub()
        if self.inbox.is_accounting or gevent.getcurrent() is not hub:
            # This client is just being served, or another client's greenlet runs, which must not be left.
            hub.loop.run_callback(self._hand_over)
        else:
            self._hand_over()  # at once: a thousand others may be served in this turn

    @careful
    def _hand_over(self) -> None:
        if self.state not in UNOCCUPIED or self.ending is not None:
            return
        if self._reader.body_missing:
            self._reader.hand_over()
            self._greenlet.switch(serving.wait_large)
        elif self.inbox.reads_whole and self._reader.in_pieces:
            self.refuse(ServerError("too much memory is taken by requests that have come in part; try again"))

    # -- bytes sent ahead

    def read_ahead(self) -> None:
        """While the greenlet waits in line, keep what the client sends, and notice its end."""
        if self._room_ahead > 0:
            self.turn.read_by(self.fd, self._on_ahead)
        else:
            self.turn.await_end(self.fd, self.on_end)

    @careful
    def _on_ahead(self) -> None:
        data = self.inbox.receive(max(1, self._room_ahead))
        if data:
            self.inbox.keep_ahead(data)
            if self._room_ahead <= 0:
                self.turn.await_end(self.fd, self.on_end)
        elif data is not None:
            self.on_end()

    @property
    def _room_ahead(self) -> int:
        return self.inbox.room_ahead(is_stranger=self.guard is not None and not self.guard.user)

    # -- what is owed

    def be_special(self) -> None:
        """Have `end_turn` called."""
        if not self.special:
            self.special = True
            self.turn.special.append(self)

    def end_turn(self, sync: bool) -> None:
        """The turn's changes are written: send its replies, after an fsync if they need one. Called in the hub."""
        if sync:
            self.session.needs_sync = True
        self.outbox.end_turn()
        if not self.outbox.held:  # else the fsync that runs may have begun before this turn: `synced` sees to another
            self._send()

    def _send(self) -> None:
        outbox = self.outbox
        if self.session.needs_sync:
            self.session.needs_sync = False
            outbox.hold()
            self.pause()
            self.host.sync_group.join(self)
            self.turn.stir()
            return
        try:
            all_sent = outbox.send_replies(self._on_writable)
        except OSError:
            self.hang_up()
            return
        self._went_out() if all_sent else self.pause()

    @careful
    def synced(self, error: StorageError | None) -> None:
        """The fsync that the replies waited for has ended. Called in the hub."""
        self.outbox.release()
        if error is not None:
            if self.outbox.mid_reply:
                self._break_off()
            elif self.replies:
                self.outbox.fail_sync(error)
            else:  # it was the fsync of a request that takes several turns: that request is told
                self._tell_task(error)
        if not self.special:  # else more is being added: the end of this turn sends it all
            self._send()

    def fail_turn(self, error: StorageError) -> None:
        """Nothing of the turn has happened."""
        if not self.outbox.fail_turn(error):
            self._break_off()
        self._tell_task(error)

    def _tell_task(self, error: StorageError) -> None:
        """A turn has failed, in which the greenlet may have done something before it waited. A task is told once. It is
        not told while it sends a reply: if the turn added to that reply, the client has been hung up on."""
        if self.is_told and not self.outbox.mid_reply:
            self.is_told = False
            self.failed_turn = ServerError(str(error))
            if self.waiter is not None:
                self.waiter.cancel()

    def _break_off(self) -> None:
        """The rest of a reply cannot be sent."""
        self.replies.clear()
        self.close(Ending.AT_ONCE)
        self.turn.stir()

    def wait_to_write(self, unsent: bytes) -> None:
        self.outbox.wait_to_write(unsent, self._on_writable)
        self.pause()

    @careful
    def _on_writable(self) -> None:
        try:
            all_sent = self.outbox.send_more()
        except OSError:
            self.hang_up()
            return
        if all_sent:
            self._went_out()

    def _went_out(self) -> None:
        """All replies have been taken by the kernel."""
        if self.state is State.SENDING:
            self.sent.set()
            self.turn.stir()
        elif self.state in UNOCCUPIED:
            if self.ending is not None:
                self.turn.stir()
                self._greenlet.switch(None)
            else:
                self.resume()

    # -- the end

    def close(self, ending: Ending) -> None:
        """Hang up when all is sent. The items that the client holds go to others at once."""
        self.ending = ending
        self.backlog = iter(())
        self.pause()
        self.inbox.drop_pieces(self)
        self.session.end()

    def hang_up(self) -> None:
        """The client has gone: give back what it holds and end its greenlet, wherever that waits."""
        if self.state is State.GONE:
            return
        before = self.state
        self.move(State.GONE)
        self.turn.stir()
        if self.waiter is not None:
            self.waiter.cancel()  # first, or the client might be handed an item that it gives back
        try:
            self.drop()
        finally:
            if before is State.SENDING:
                self.sent.set()
            if before in WOKEN_AT_END:
                self._greenlet.switch(None)

    def broken(self) -> None:
        if self.state is not State.IN_SHARES:  # then it is read to the end soon: it may have sent what needs no reply
            self.hang_up()

    def drop(self) -> None:
        """Hold nothing more, and read nothing more."""
        self.turn.ignore(self.fd)
        self.outbox.drop()
        self.inbox.drop(self)
        self.backlog = iter(())
        self.session.end()

    @careful
    def end_wait(self) -> None:
        """A client that waits in line for an item leaves the line, as if its time were over."""
        if self.waiter is not None and (self.guard is None or self.guard.user):  # else it waits to log in
            self.waiter.cancel()

    def read_now(self, most_bytes: float = float("inf")) -> None:
        """Serve what has come by now, up to about `most_bytes`, if it is the loop that reads. Called in the hub."""
        stats = self.host.stats
        before, until = -1, stats.bytes_read + most_bytes
        while self.state is State.READ and before < stats.bytes_read < until:
            before = stats.bytes_read
            self._on_readable()

    @careful
    def stop(self) -> None:
        """The server stops: answer what has been received, end the wait, then hang up. Called in the hub."""
        if self.waiter is not None:
            self.waiter.cancel()
        if self.state is not State.READ:
            return  # `ClientGreenlet.run` or `resume` sees to it when what is being done is done
        # What has come by now, and no more: else a client that never stops sending would never let the server stop.
        self.read_now(unread_bytes(self.fd))
        if self.state in UNOCCUPIED and self.ending is None:
            self.close(Ending.AT_ONCE)
            self.be_special()
