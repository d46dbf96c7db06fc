"""One client, as the loop serves it: the state it is in, its requests, its replies, its end.

Its greenlet owns the connection, see `caller`. Requests that need not wait are served by the Turn, in a callback,
without switching to the greenlet (1.1 to 1.4 times as many requests a second). What has to wait for something, an item,
a large body or a slow reader, is done in the greenlet, blocking-style. A client is read either by a callback or by its
greenlet, never by both at a time: its State says by which.

The bytes that come are the Inbox's, those that go the Outbox's. Replies are gathered, and sent with one call when the
turn's changes have been written.

No call here switches greenlets, but for `run` and where the client's greenlet is handed what it waits for.
"""

import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import gevent

from darner_core import NAME
from darner_core.config.options import Config
from darner_core.config.values import show_text
from darner_core.engines.local.journal import Journal
from darner_core.errors import DamagedError, RequestError, ServerError, StorageError
from darner_core.operating_system import unread_bytes
from darner_core.operations.client import HangUp
from darner_core.operations.session import ManyReads, Session
from darner_core.operations.stats import Stats
from darner_core.protocols.contract import Reader, Request, Vocabulary
from darner_core.protocols.guard import Guard
from darner_core.protocols.vocabularies import Vocabularies
from darner_core.repeated import BY_TEXT
from darner_core.server.background import SyncGroup
from darner_core.server.caller import Caller, Task
from darner_core.server.careful import careful
from darner_core.server.inbox import Inbox
from darner_core.server.outbox import Outbox
from darner_core.server.states import MOVES, UNOCCUPIED, WOKEN_AT_END, Ending, State
from darner_core.server.tls import TlsSocket
from darner_core.server.turn import Turn
from darner_core.shared_memory import BodyMemory, PipelineMemory
from darner_core.waiters import Waiter

log = logging.getLogger(NAME)

# How many bytes of replies a client may cause before it has to take them, while pipeline_memory_bytes are exceeded.
SCARCE_REPLY_BYTES = 4 << 10

# Replies up to this size are not counted towards max_reply_bytes: the shortest requests that one read can hold cause
# 340 KiB of them.
SMALL_REPLY_BYTES = 32

# How many requests are served between two looks at the clock, each of which costs a fortieth of a request. Where
# requests are received whole, a single one may be thousands of items.
LOOK_EVERY = 64
LOOK_EVERY_WHOLE = 1

Backlog = Iterator[tuple[Request, bytes | None]]


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


class Connection:
    """One client: `turn.Client` for the turn, `shared_memory.Holder` for the memory that all share.

    What its Caller and `idle` use has no underscore."""

    __slots__ = (
        "recv", "send", "kept_line", "replies", "special", "session", "used_s", "last_share_s",  # see `turn.Client`
        "fd", "socket", "state", "ending", "inbox", "outbox", "guard", "host", "turn", "pipeline_memory", "backlog",
        "receive_large", "waiter", "sent", "is_told", "failed_turn", "share_ends",
        "_reader", "_stats", "_greenlet", "_look_every", "_most_reply_bytes",
    )  # fmt: skip

    def __init__(
        self,
        host: Host,
        client_socket: socket.socket | TlsSocket,
        vocabulary: Vocabulary,
        guard: Guard | None = None,
    ) -> None:
        """To be made in the client's greenlet. `guard`: the client has to say who it is, and may perhaps not do
        everything."""
        reads_whole = vocabulary.dialect.receives_whole
        self.fd = client_socket.fileno()
        self.socket = client_socket
        self.guard = guard
        self.host = host
        self.turn = host.turn
        self.receive_large = vocabulary.protocol.receive_large
        self.pipeline_memory = host.pipeline_memory
        self._stats = host.stats
        self._reader: Reader = vocabulary.new_reader() if guard is None else guard
        self._greenlet = gevent.getcurrent()
        self._look_every = LOOK_EVERY_WHOLE if reads_whole else LOOK_EVERY
        self._most_reply_bytes = host.config.max_reply_bytes
        self.inbox = Inbox(
            client_socket, self._reader, reads_whole, host.turn, host.stats,
            host.whole_memory if reads_whole else host.body_memory, host.pipeline_memory,
        )  # fmt: skip
        self.outbox = Outbox(client_socket.send, self.fd, vocabulary.dialect, host.stats, host.pipeline_memory)

        # For the turn, which looks at these for each request.
        self.recv: Callable[[int], bytes] = client_socket.recv
        self.send: Callable[[bytes], int] = client_socket.send
        self.kept_line: Callable[[bytes], Request | None] = vocabulary.kept_lines.get
        self.session: Session = (ManyReads if vocabulary.dialect.several_reads else Session)(host.journal)
        self.replies: list[bytes] = self.outbox.replies
        self.special = False
        self.used_s = self.last_share_s = 0.0

        self.state = State.BUSY
        self.ending: Ending | None = None
        self.backlog: Backlog = iter(())  # requests read and not yet served
        self.waiter: Waiter | None = None  # while IN_LINE
        self.sent: Any = None  # while SENDING: an Event, set when the client has taken its replies
        self.is_told = False  # the greenlet does what a command has to wait for, and is told of turns that fail
        self.failed_turn: ServerError | None = None  # one of those in which it has done something
        self.share_ends = 0.0  # when others are to be served; 0: it is another turn

    def run(self) -> None:
        """Serve the client until one of the two hangs up. The body of its greenlet."""
        self.turn.enter(self.fd, self)
        try:
            Caller(self).run()
        finally:
            self.state = State.GONE  # whatever still comes for it must not touch the next client's descriptor
            self.turn.forget(self.fd)
            self.socket.close()

    # -- states

    def move(self, state: State) -> None:
        if state not in MOVES[self.state]:
            raise RuntimeError(f"a connection cannot come from {self.state} to {state}")
        self.state = state

    def end_state(self) -> None:
        """A wait is over: from here on the greenlet reads, or nobody."""
        if self.state is State.READ:
            self.turn.ignore(self.fd)
        if self.state is not State.GONE:
            self.move(State.BUSY)

    def pause(self) -> None:
        """Read no more for now. The greenlet reads, or nobody, if it is not the loop."""
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
        """Rights have changed: from now on the turn may read this client by itself, or no longer."""
        if self.state is State.READ:
            self.resume()

    @property
    def reply_limit_bytes(self) -> int:
        """The client takes its replies before it causes more than this."""
        return SCARCE_REPLY_BYTES if self.pipeline_memory.scarce else self._most_reply_bytes

    # -- shares, see `Turn`

    def serve_share_of(self, backlog: Backlog) -> Task | None:
        """As `serve_backlog`, if it is not the others' turn."""
        if self.is_share_over():
            self.backlog = backlog
            return Caller.wait_first_share
        return self.serve_backlog(backlog)

    def is_share_over(self) -> bool:
        """Whether others are to be served first. A client that has waited for something has waited for them, too."""
        if self.host.stopping:
            return False
        if not self.share_ends:
            self.share_ends = self.turn.shares.ends()
        return self.turn.shares.clock() >= self.share_ends

    def serve_share(self) -> None:
        if self.state is State.IN_SHARES:  # else it has gone
            self._greenlet.switch()

    def broken(self) -> None:
        if self.state is not State.IN_SHARES:  # then it is read to the end soon: it may have sent what needs no reply
            self.hang_up()

    # -- reading and serving

    def look_for_end(self, data: bytes | None) -> bytes | None:
        """What the inbox has received; None: nothing, or the client has gone."""
        if data == b"":
            self._on_end()
            return None
        return data

    @careful
    def _on_end(self) -> None:
        """The client has said all. Replies of this turn are sent first, because it may still read them; then it is told
        again."""
        if self.outbox.held or not self.replies:
            self.hang_up()

    @careful
    def _on_readable(self) -> None:
        """There is more of a request that came in pieces, or a request of a client that the turn does not read."""
        data = self.look_for_end(self.inbox.receive_requests())
        if data is not None:
            self.serve(data)
            if self.state is State.READ and not self._reader.in_pieces:
                self.resume()

    def serve(self, data: bytes) -> None:
        """Serve what has been received, up to a request that has to wait: that goes to the greenlet."""
        self.share_ends = 0.0
        backlog = self._reader.requests(data)
        # A short pipeline that comes alone is served without a look at the clock.
        is_alone = not (self.turn.shares.crowded or self.inbox.reads_whole)
        task = self.serve_backlog(backlog) if is_alone else self.serve_share_of(backlog)
        if task is not None:
            self._greenlet.switch(task)
        elif self._reader.in_pieces and self.state is State.READ:
            self.resume()

    def start_task(self, task: Task) -> None:
        self.backlog = iter(())
        self.be_special()  # the command may have done something before it has to wait
        self.share_ends = 0.0
        self._greenlet.switch(task)

    def serve_backlog(self, backlog: Backlog) -> Task | None:
        """Serve `backlog` up to a request that has to wait, or to the end of the client's share: what has to be done
        then, or None."""
        replies, session = self.replies, self.session
        task: Task | None = None
        reply_bytes = 0
        left = self._look_every
        most_reply_bytes = self.reply_limit_bytes
        while self.ending is None:
            request = None
            try:
                for request, body in backlog:
                    reply = request.run(request, body, session)
                    if reply.__class__ is not bytes:
                        task = reply
                        break
                    if reply:
                        replies.append(reply)
                        if len(reply) > SMALL_REPLY_BYTES:
                            reply_bytes += len(reply)
                            if reply_bytes > most_reply_bytes:
                                task = Caller.wait_taken
                                break
                    left -= 1
                    if not left:
                        if self.is_share_over():
                            task = Caller.wait_share
                            break
                        left = self._look_every
                else:
                    if self._reader.in_pieces or self.inbox.piece_bytes:
                        self.inbox.account(self)
                    if self._reader.error is not None:
                        self.answer_error(self._reader.error)
                    elif self._reader.large is not None:
                        task = Caller.wait_large
                break
            except Exception as error:
                self._failed(request, error)
        self.backlog = backlog
        if reply_bytes:
            self.pipeline_memory.turn_bytes += reply_bytes
        if task is not None and self.inbox.piece_bytes:
            self.inbox.account(self)
        outbox = self.outbox
        if task is not None or self.ending is not None or outbox.held or outbox.unsent or session.needs_sync:
            self.be_special()
        elif replies:
            self.turn.served.append(self)
        return task

    def failed(self, request: Request, error: Exception) -> None:
        self._failed(request, error)
        self.be_special()

    def _failed(self, request: Request | None, error: Exception) -> None:
        if isinstance(error, (RequestError, StorageError)) and request is not None:
            if not request.noreply or (isinstance(error, RequestError) and error.hangs_up):
                self.answer_error(error)
        elif isinstance(error, HangUp):
            self.close(Ending.AT_ONCE)
        else:
            log.error("a request failed", exc_info=error)
            self.close(Ending.LINGERS)

    def answer_error(self, error: RequestError | StorageError) -> None:
        """Answer with an error, and hang up if that is its way."""
        if isinstance(error, StorageError):
            if not isinstance(error, DamagedError):  # which its queue has told already
                log.error("%s", error, extra=BY_TEXT)
            error = ServerError(str(error))
        else:
            log.debug("refused: %s: %s", self.session.origin, show_text(str(error)))
        if self.outbox.mid_reply:
            self.close(Ending.AT_ONCE)
            return
        self.outbox.refuse(error)
        if error.hangs_up:
            self.close(Ending.LINGERS)

    def refuse(self, error: RequestError) -> None:
        """Serve nothing: say why, and hang up."""
        self.answer_error(error)
        self.close(Ending.LINGERS)
        self.be_special()

    def refuse_rest(self, error: RequestError) -> None:
        """As `refuse`; the rest of a large item is waited for no longer."""
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
            # This client is just being served, or another one's greenlet runs, which must not be left.
            hub.loop.run_callback(self._hand_over)
        else:
            self._hand_over()  # at once: a thousand others may be served in this turn

    @careful
    def _hand_over(self) -> None:
        if self.state not in UNOCCUPIED or self.ending is not None:
            return
        if self._reader.body_missing:
            self._reader.hand_over()
            self._greenlet.switch(Caller.wait_large)
        elif self.inbox.reads_whole and self._reader.in_pieces:
            self.refuse(ServerError("too much memory is taken by requests that have come in part; try again"))

    # -- bytes sent ahead

    def read_ahead(self) -> None:
        """While the greenlet waits in line, keep what the client sends, and notice its end."""
        if self._room_ahead > 0:
            self.turn.read_by(self.fd, self._on_ahead)
        else:
            self.turn.await_end(self.fd, self._on_end)

    @careful
    def _on_ahead(self) -> None:
        data = self.look_for_end(self.inbox.receive(max(1, self._room_ahead)))
        if data is not None:
            self.inbox.keep_ahead(data)
            if self._room_ahead <= 0:
                self.turn.await_end(self.fd, self._on_end)

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
        """A turn has failed, in which the greenlet may have done something before it waited. It is told once; and not
        if it is sending a reply: then the client has been hung up on, if that turn added to the reply."""
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
        """Hang up when all is sent. What the client holds goes to the next at once."""
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
            self.waiter.cancel()  # first, or it might be handed what it gives back
        try:
            self.drop()
        finally:
            if before is State.SENDING:
                self.sent.set()
            if before in WOKEN_AT_END:
                self._greenlet.switch(None)

    def drop(self) -> None:
        self.turn.ignore(self.fd)
        self.outbox.drop()
        self.inbox.drop(self)
        self.backlog = iter(())
        self.session.end()

    @careful
    def end_wait(self) -> None:
        """A client that waits in line for an item leaves it, as if its time were over."""
        if self.waiter is not None and (self.guard is None or self.guard.user):  # else it waits to log in
            self.waiter.cancel()

    def read_now(self, most_bytes: float = float("inf")) -> None:
        """Serve what has come by now, if it is the loop that reads, up to about `most_bytes`. Called in the hub."""
        before, until = -1, self._stats.bytes_read + most_bytes
        while self.state is State.READ and before < self._stats.bytes_read < until:
            before = self._stats.bytes_read
            self._on_readable()

    @careful
    def stop(self) -> None:
        """The server stops: answer what has been received, end the wait, then hang up. Called in the hub."""
        if self.waiter is not None:
            self.waiter.cancel()
        if self.state is not State.READ:
            return  # `run` or `resume` comes to it when what is being done is done
        # What has come by now, and no more: else a client that never stops sending would never let the server stop.
        self.read_now(unread_bytes(self.fd))
        if self.state in UNOCCUPIED and self.ending is None:
            self.close(Ending.AT_ONCE)
            self.be_special()

    @careful
    def cut(self) -> None:
        """The server has waited long enough for this client. Called in the hub."""
        self.hang_up()
