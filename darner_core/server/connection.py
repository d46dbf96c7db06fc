"""One client: its socket, its greenlet, what it has asked and what it is owed.

The greenlet owns the connection. Requests that need not wait are served by the Turn, in a callback, without switching
to the greenlet (1.1 to 1.4 times as many requests a second); what has to wait for something (an item, a large body, a
slow reader) is done in the greenlet, blocking-style. A client is read either by a callback or by its greenlet, never
by both at a time.

Replies are gathered, and sent with one call when the turn's changes have been written.

Names that begin with wait_ may switch greenlets; callbacks and what they call run in the hub and never do.
"""

import fcntl
import logging
import socket
import struct
import termios
from collections.abc import Callable, Iterator

import gevent
from gevent.event import Event

from darner_core import NAME
from darner_core.config.values import show_text
from darner_core.errors import ClientError, DamagedError, RequestError, ServerError, StorageError
from darner_core.operations.client import HangUp
from darner_core.protocols.contract import Reader, Request, Vocabulary
from darner_core.protocols.guard import Guard
from darner_core.repeated import BY_TEXT
from darner_core.server.outbox import Host, Outgoing, careful
from darner_core.server.tls import TlsSocket
from darner_core.server.turn import RECV_BYTES, SHARE_S
from darner_core.waiters import Waiter, wait_round

log = logging.getLogger(NAME)

# What a client may send ahead while it waits for an item. Beyond it nothing is read until the wait ends. A client that
# has sent more than the kernel takes as well, and hangs up without a reset, is noticed only when its own kernel has
# given up sending the rest, after some minutes.
MAX_AHEAD_BYTES = 64 << 10

# The same, and the portion of replies, while pipeline_memory_bytes are exceeded.
SCARCE_AHEAD_BYTES = 4 << 10
SCARCE_REPLY_BYTES = 4 << 10

# Replies up to this size are not counted towards max_reply_bytes: the shortest requests that one read can hold cause
# 340 KiB of them.
SMALL_REPLY_BYTES = 32

# Less than this of an incomplete item is not worth writing to disk early.
SMALL_PIECE_BYTES = 512

# So many requests are served between two looks at the clock, which costs a fortieth of a request. Where requests are
# received whole, a single one may be thousands of items.
LOOK_EVERY = 64
LOOK_EVERY_WHOLE = 1

# After an error the connection is closed for writing, and what the client still sends is read and dropped for so
# long: closing at once would reset it, and the client might never see why.
LINGER_S = 1.0


class ClientGone(Exception):
    """The client hung up while its greenlet was waiting for something."""


# What a request has to wait for, done in the client's greenlet; its reply.
Task = Callable[["Connection"], bytes]


class Connection(Outgoing):
    """One client: `turn.Client` for the turn, `client.Client` for the functions that wait."""

    __slots__ = (
        "recv", "kept_line", "_most_reply_bytes", "_socket", "_greenlet", "_reader", "_backlog", "_ahead", "_idle",
        "_paused", "_gone", "_closing", "_lingers", "_waiter", "_in_body", "_sent", "_guard", "_is_tls", "_body_memory",
        "_piece_bytes", "_task_bytes", "_accounts", "_pipeline_memory", "_pending_bytes", "_received", "_late",
        "_reads_whole", "_is_told", "_turn_failed", "used_s", "last_share_s",
        "_share_ends", "_look_every", "_receive_large", "_waits_for_share",
    )  # fmt: skip

    def __init__(
        self,
        server: Host,
        client_socket: socket.socket | TlsSocket,
        vocabulary: Vocabulary,
        guard: Guard | None = None,
    ) -> None:
        """`guard`: the client has to say who it is, and may perhaps not do everything."""
        super().__init__(server, client_socket, vocabulary.dialect)
        self.kept_line: Callable[[bytes], Request | None] = vocabulary.kept_lines.get
        self.recv: Callable[[int], bytes] = client_socket.recv
        self._most_reply_bytes = server.config.max_reply_bytes
        self._socket = client_socket
        self._greenlet = gevent.getcurrent()
        self._reader: Reader = vocabulary.new_reader() if guard is None else guard
        self._guard = guard
        self._receive_large = vocabulary.protocol.receive_large
        self._is_tls = isinstance(client_socket, TlsSocket)
        self._backlog: Iterator[tuple[Request, bytes | None]] = iter(())  # requests read and not yet served
        self._ahead = b""  # bytes that came while the greenlet was waiting for an item
        self._paused = True  # no callback reads
        self._idle = False  # the greenlet waits for something to do, and a callback reads
        self._gone = False  # the client has hung up
        self._closing = False  # hang up when all is sent
        self._lingers = False
        self._waiter: Waiter | None = None
        self._in_body = False  # the greenlet waits for more of a large item
        self._sent: Event | None = None  # set when all is sent
        self._reads_whole = vocabulary.dialect.receives_whole  # its requests cannot be received in pieces
        self._body_memory = server.whole_memory if self._reads_whole else server.body_memory
        self._piece_bytes = 0  # as it knows them
        self._accounts = False  # and is being told
        self._pipeline_memory = server.pipeline_memory
        self._pending_bytes = 0  # as it knows them
        self._task_bytes = 0  # replies of what had to wait, since they are known to have been taken
        self.used_s = self.last_share_s = 0.0  # for the turn, which counts them
        self._share_ends = 0.0  # when others are to be served; 0: it is another turn
        self._look_every = LOOK_EVERY_WHOLE if self._reads_whole else LOOK_EVERY
        self._waits_for_share = False
        self._received = 0  # bytes of requests in pieces
        self._late: ClientError | None = None  # the rest of a large item has not come in time
        self._is_told = False  # the greenlet does what a command has to wait for, and is told of turns that fail
        self._turn_failed: ServerError | None = None  # one of those in which it has done something

    # -- the greenlet

    def run(self) -> None:
        """Serve the client until one of the two hangs up. The body of its greenlet."""
        self._turn.enter(self._fd, self)
        try:
            while not self._gone and not (self._closing and self._all_sent):
                # Who has just had a share may have sent more: that is answered first, see `_resume`.
                if self._server.stopping and not self._closing and not self._share_ends:
                    self._close(lingers=False)
                    self._be_special()
                task = self._wait_task()
                while task is not None:
                    has_share = task in SHARES
                    self._run_task(task)
                    task = self._serve(self._backlog) if has_share else self._serve_share(self._backlog)
                    while task is None and self._ahead and not self._closing:
                        task = self._serve_share(self._reader.requests(self._take_ahead()))
        except ClientGone:
            pass
        except Exception:
            log.exception("a client could not be served")
        finally:
            try:
                self._end()
                if self._lingers and not self._gone:
                    self._wait_linger()
            finally:
                self._gone = True  # whatever still comes for this connection must not touch the next one's descriptor
                self._turn.forget(self._fd)
                self._socket.close()

    def _wait_task(self) -> Task | None:
        """Let the callback serve the client until there is something to wait for; None: until the end. Switches."""
        self._idle = True
        self._resume()
        try:
            task: Task | None = gevent.get_hub().switch()
            return task
        finally:
            self._idle = False
            self._pause()

    def _pause(self) -> None:
        if not self._paused:  # else it is the greenlet that reads, or nobody
            self._paused = True
            self._turn.ignore(self._fd)

    def _resume(self) -> None:
        """Let a callback read, if it may."""
        if not self._idle or self._unsent or self._held or self._closing:
            return
        if self._reader.in_pieces or (self._guard is not None and self._guard.apart):
            self._turn.read_by(self._fd, self._on_readable)
        else:
            self._turn.read_plain(self._fd, self)
        if self._paused:
            self._paused = False
            if self._server.stopping:
                gevent.get_hub().loop.run_callback(self.stop)
                self._server.stir()

    @careful
    def rejudge(self) -> None:
        """The rights are others now: the turn may read this client by itself no longer, or from now on."""
        if not self._paused:
            self._resume()

    # -- shares, see `Turn`

    def _serve_share(self, backlog: Iterator[tuple[Request, bytes | None]]) -> Task | None:
        """As `_serve`, if it is not the others' turn."""
        if self._is_share_over():
            self._backlog = backlog
            return Connection._wait_first_share
        return self._serve(backlog)

    def _is_share_over(self) -> bool:
        """Whether others are to be served first. Who has waited for something has waited for them, too."""
        if self._server.stopping:
            return False
        if not self._share_ends:
            self._share_ends = self._turn.share_ends()
        return self._turn.clock() >= self._share_ends

    def _wait_share(self, asks_anew: bool = False) -> bytes:
        """Let the others have their shares; then begin another."""
        self._turn.join(self, asks_anew)
        self._waits_for_share = True
        try:
            gevent.get_hub().switch()
        finally:
            self._waits_for_share = False
        if self._gone:
            raise ClientGone
        self._share_ends = self._turn.clock() + SHARE_S
        return b""

    def _wait_first_share(self) -> bytes:
        """The first ends with the first look at the clock: nobody knows yet whether the client has sent one request, or
        thousands."""
        self._wait_share(asks_anew=True)
        self._share_ends = self._turn.clock()
        return b""

    def serve_share(self) -> None:
        if self._waits_for_share:  # else it has hung up
            self._greenlet.switch()

    def broken(self) -> None:
        if not self._waits_for_share:  # else it is read to the end soon, and may have sent what needs no reply
            self.hang_up()

    def _run_task(self, task: Task) -> None:
        """Run what a command has to wait for, and add its reply."""
        self._mid_reply = False
        self._turn_failed = None
        # Between two requests nothing is owed but their replies, which a turn that fails replaces by itself.
        self._is_told = task not in (Connection._wait_taken, Connection._wait_share, Connection._wait_first_share)
        try:
            reply = task(self)
            if self._turn_failed is not None:
                raise self._turn_failed
        except (RequestError, StorageError) as error:
            self._refuse(error)
        except ClientGone:
            raise
        except HangUp:
            self._close(lingers=False)
        except Exception:
            log.exception("a request failed")
            self._close(lingers=True)
        else:
            if reply:
                self.replies.append(reply)
                self._task_bytes += len(reply)
                self._pipeline_memory.turn_bytes += len(reply)
            self._is_told = False
            most_bytes = SCARCE_REPLY_BYTES if self._pipeline_memory.scarce else self._most_reply_bytes
            if self._mid_reply or self._task_bytes > most_bytes:
                del reply  # else it would be kept in memory until the client has taken it
                self._task_bytes = 0
                self.wait_sent()
                self._mid_reply = False
        self._is_told = False
        self._be_special()

    def _tell_task(self, error: StorageError) -> None:
        """Of a turn that has failed, and in which the greenlet has done something and then waited. Once is enough; and
        who is being sent a reply already has been hung up on, if that turn added to it."""
        if self._is_told and not self._mid_reply:
            self._is_told = False
            self._turn_failed = ServerError(str(error))
            if self._waiter is not None:
                self._waiter.cancel()

    def _go_on(self) -> None:
        """After each wait: what the greenlet does from here on belongs to the turn that is going on. Raises ServerError
        if one in which it has done something has failed."""
        if self._turn_failed is not None:
            error, self._turn_failed = self._turn_failed, None
            raise error
        self._be_special()

    # -- reading and serving

    def _receive(self, most_bytes: int = RECV_BYTES) -> bytes | None:
        """What there is to read; None: nothing, or the client has hung up. Over TLS it may be more than asked for: the
        epoll does not know of what has been decrypted and not taken."""
        try:
            data = self.recv(RECV_BYTES if self._is_tls else most_bytes)
        except BlockingIOError:
            self._received += self._is_tls  # part of a record has come
            return None
        except OSError:
            data = b""
        if not data:
            if self._held or not self.replies:  # else they are sent first: the client may read them yet
                self.hang_up()
            return None
        self._stats.bytes_read += len(data)
        self._received += len(data)
        return data

    @careful
    def _on_readable(self) -> None:
        """There is more of a request that came in pieces, or a request of a client that the turn does not read."""
        most_bytes = RECV_BYTES
        if not self._reads_whole:
            most_bytes = max(self._turn.recv_bytes, min(self._reader.body_missing, RECV_BYTES))
        data = self._receive(most_bytes)
        if data is not None:
            self.serve(data)
            if not self._paused and not self._reader.in_pieces:
                self._resume()

    def serve(self, data: bytes) -> None:
        """Serve what has been received, up to a request that has to wait: that goes to the greenlet."""
        self._share_ends = 0.0
        backlog = self._reader.requests(data)
        # A short pipeline that comes alone is served without a look at the clock.
        is_alone = not (self._turn.crowded or self._reads_whole)
        task = self._serve(backlog) if is_alone else self._serve_share(backlog)
        if task is not None:
            self._greenlet.switch(task)
        elif self._reader.in_pieces and not self._paused:
            self._resume()

    def start_task(self, task: Task) -> None:
        self._backlog = iter(())
        self._be_special()  # the command may have done something before it has to wait
        self._share_ends = 0.0
        self._greenlet.switch(task)

    def _serve(self, backlog: Iterator[tuple[Request, bytes | None]]) -> Task | None:
        """Serve `backlog` up to a request that has to wait, or to the end of the client's share: what has to be done
        then, or None."""
        replies, session = self.replies, self.session
        task: Task | None = None
        reply_bytes = 0
        left = self._look_every
        most_reply_bytes = SCARCE_REPLY_BYTES if self._pipeline_memory.scarce else self._most_reply_bytes
        while not self._closing:
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
                                task = Connection._wait_taken
                                break
                    left -= 1
                    if not left:
                        if self._is_share_over():
                            task = Connection._wait_share
                            break
                        left = self._look_every
                else:
                    reader = self._reader
                    if reader.in_pieces or self._piece_bytes:
                        self._account_pieces(reader.body_bytes)
                    if reader.error is not None:
                        self._refuse(reader.error)
                    elif reader.large is not None:
                        task = Connection._wait_large
                break
            except Exception as error:
                self._failed(request, error)
        self._backlog = backlog
        if reply_bytes:
            self._pipeline_memory.turn_bytes += reply_bytes
        if task is not None and self._piece_bytes:
            self._account_pieces(self._reader.body_bytes)
        if task is not None or self._closing or self._held or self._unsent or self.session.needs_sync:
            self._be_special()
        elif replies:
            self._turn.served.append(self)
        return task

    def failed(self, request: Request, error: Exception) -> None:
        self._failed(request, error)
        self._be_special()

    def _failed(self, request: Request | None, error: Exception) -> None:
        if isinstance(error, (RequestError, StorageError)) and request is not None:
            if not request.noreply or (isinstance(error, RequestError) and error.hangs_up):
                self._refuse(error)
        elif isinstance(error, HangUp):
            self._close(lingers=False)
        else:
            log.error("a request failed", exc_info=error)
            self._close(lingers=True)

    def _refuse(self, error: RequestError | StorageError) -> None:
        """Answer with an error, and hang up if that is its way."""
        if isinstance(error, StorageError):
            if not isinstance(error, DamagedError):  # which its queue has told already
                log.error("%s", error, extra=BY_TEXT)
            error = ServerError(str(error))
        else:
            log.debug("refused: %s: %s", self.session.origin, show_text(str(error)))
        if self._mid_reply:
            self._close(lingers=False)
            return
        self.replies.append(self._error_reply(error))
        if error.hangs_up:
            self._close(lingers=True)

    def _close(self, lingers: bool) -> None:
        """Hang up when all is sent. What the client holds goes to the next at once."""
        self._closing = True
        self._lingers = lingers
        self._backlog = iter(())
        self._pause()
        self._drop_pieces()
        self.session.end()

    def refuse(self, error: RequestError) -> None:
        """Serve nothing: say why, and hang up. Before `run`."""
        self._refuse(error)
        self._close(lingers=True)
        self._be_special()

    # -- memory that all clients share

    def _account_pieces(self, held_bytes: int) -> None:
        self._piece_bytes = held_bytes if held_bytes > SMALL_PIECE_BYTES else 0
        self._accounts = True
        self._body_memory.account(self, self._piece_bytes)
        self._accounts = False

    def spill(self) -> None:
        """Go on receiving the incomplete item as a large one: from here on it is in memory for a chunk at most."""
        self._piece_bytes = 0
        hub = gevent.get_hub()
        if self._accounts or gevent.getcurrent() is not hub:
            # This client is just being served, or another one's greenlet runs, which must not be left.
            hub.loop.run_callback(self._hand_over)
        else:
            self._hand_over()  # at once: a thousand others may be served in this turn

    @careful
    def _hand_over(self) -> None:
        if not self._idle or self._closing or self._gone:
            return
        if self._reader.body_missing:
            self._reader.hand_over()
            self._greenlet.switch(Connection._wait_large)
        elif self._reads_whole and self._reader.in_pieces:
            self.refuse(ServerError("too much memory is taken by requests that have come in part; try again"))

    def _drop_pieces(self) -> None:
        held_bytes = self._reader.body_bytes
        self._reader.drop()
        if self._piece_bytes:
            self._account_pieces(0)
        if held_bytes:
            self._body_memory.freed(held_bytes)

    def _take_ahead(self) -> bytes:
        ahead, self._ahead = self._ahead, b""
        self._account_pending()
        return ahead

    def _account_pending(self) -> None:
        pending_bytes = len(self._ahead) + len(self._unsent)
        self._pipeline_memory.used_bytes += pending_bytes - self._pending_bytes
        self._pending_bytes = pending_bytes

    # -- what functions that wait call, in the greenlet

    def wait_for(self, waiter: Waiter, wait_ms: int) -> object:
        self._waiter = waiter
        self._share_ends = 0.0
        if len(self._ahead) < self._most_ahead_bytes:
            self._turn.read_by(self._fd, self._on_readable_while_waiting)
        else:
            self._turn.await_end(self._fd, self._on_end_while_waiting)
        try:
            handed = waiter.wait_for(wait_ms)
        finally:
            self._waiter = None
            self._turn.ignore(self._fd)
        if self._gone:
            raise ClientGone
        self._go_on()
        return handed

    @careful
    def _on_readable_while_waiting(self) -> None:
        data = self._receive(max(1, self._most_ahead_bytes - len(self._ahead)))
        if data is not None:
            self._ahead += data
            self._account_pending()
            if len(self._ahead) >= self._most_ahead_bytes:
                self._turn.await_end(self._fd, self._on_end_while_waiting)

    def _on_end_while_waiting(self) -> None:
        """As if it had been read up to its end."""
        if self._held or not self.replies:  # as in `_receive`
            self.hang_up()

    @property
    def _most_ahead_bytes(self) -> int:
        is_stranger = self._guard is not None and not self._guard.user
        return SCARCE_AHEAD_BYTES if is_stranger or self._pipeline_memory.scarce else MAX_AHEAD_BYTES

    def wait_sent(self, data: bytes = b"") -> None:
        says_more = bool(data)
        if says_more:
            self.replies.append(data)
            self._mid_reply = True
        del data  # else it would be kept in memory until the client has taken it
        self._be_special()
        self._share_ends = 0.0
        while self.replies or self._unsent or self._held:
            if self._gone:
                raise ClientGone
            if self._closing and not self.replies:
                raise ClientGone
            self._sent = Event()
            self._sent.wait()
        self._sent = None
        if self._gone or (self._closing and says_more):
            raise ClientGone
        self._go_on()

    def _wait_taken(self) -> bytes:
        """Let the client take the replies it has caused before it causes more."""
        self.wait_sent()
        return b""

    def wait_body(self, most_bytes: int) -> bytes:
        data = self._reader.take_body(most_bytes)
        if not data and self._ahead:
            data, self._ahead = self._ahead[:most_bytes], self._ahead[most_bytes:]
            self._account_pending()
        while not data:
            # Through the loop even if there is more to read already: the others are served in between.
            self._in_body = True
            self._share_ends = 0.0
            self._turn.read_by(self._fd, self._greenlet.switch)
            try:
                gevent.get_hub().switch()
            finally:
                self._in_body = False
                self._turn.ignore(self._fd)
            if self._late is not None:
                raise self._late
            if not self._gone:
                self._go_on()  # before anything is taken: who is told skips the rest
                data = self._receive(min(most_bytes, RECV_BYTES)) or b""
                if len(data) > most_bytes:
                    data, self._ahead = data[:most_bytes], data[most_bytes:]
                    self._account_pending()
            if self._gone:
                raise ClientGone
        return data

    def wait_turn(self) -> None:
        wait_round()
        if self._gone:
            raise ClientGone
        self._share_ends = 0.0
        if self._is_share_over():
            self._wait_share()
        self._go_on()

    def may_see(self, queue: bytes) -> bool:
        return self._guard is None or self._guard.may_see(queue)

    def may(self, right: str, queue: bytes) -> bool:
        return self._guard is None or self._guard.may(right, queue)

    def _wait_large(self) -> bytes:
        """Receive the large item that the reader has come upon, and go on behind it."""
        request = self._reader.large
        assert request is not None
        if self._reader.error is not None:  # one that was handed over has not been judged yet
            raise self._reader.error
        try:
            return self._receive_large(request, self)
        except (ServerError, StorageError) as error:
            if not request.noreply:
                raise
            if isinstance(error, StorageError):
                log.error("%s", error, extra=BY_TEXT)
            return b""
        finally:
            self._reader.end_body()
            if not self._gone and not self._closing:
                self._backlog = self._reader.requests(b"")

    # -- what is owed, see `Outgoing`

    def _be_special(self) -> None:
        """Have `end_turn` called."""
        if not self.special:
            self.special = True
            self._turn.special.append(self)

    def _went_out(self) -> None:
        """All replies have been taken by the kernel."""
        if self._sent is not None:
            self._sent.set()
            self._server.stir()
        elif self._idle:
            if self._closing:
                self._server.stir()
                self._greenlet.switch(None)
            else:
                self._resume()

    # -- the end

    def hang_up(self) -> None:
        """The client has gone: give back what it holds and end its greenlet, wherever that waits."""
        if self._gone:
            return
        self._gone = True
        self._server.stir()
        if self._waiter is not None:
            self._waiter.cancel()  # first, or it might be handed what it gives back
        try:
            self._end()
        finally:
            if self._sent is not None:
                self._sent.set()
            if self._idle or self._in_body:
                self._greenlet.switch(None)

    def _end(self) -> None:
        self._turn.ignore(self._fd)
        if self._write_watcher is not None:
            self._write_watcher.stop()
        self._unsent = self._ahead = b""
        self._account_pending()
        self._drop_pieces()
        self.replies.clear()
        self._backlog = iter(())
        self.session.end()

    def _wait_linger(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
            self._turn.read_by(self._fd, self._greenlet.switch)
            with gevent.Timeout(LINGER_S, False):
                while True:
                    gevent.get_hub().switch()
                    try:
                        if not self.recv(RECV_BYTES):
                            break
                    except BlockingIOError:
                        pass  # part of a TLS record
        except OSError:
            pass

    @careful
    def end_wait(self) -> None:
        """Who waits in line for an item leaves it, as if its time were over."""
        if self._waiter is not None and (self._guard is None or self._guard.user):  # else it waits to log in
            self._waiter.cancel()

    def read_now(self) -> None:
        """Serve what has come by now, if it is the loop that reads. Called in the hub."""
        before = -1
        while not (self._paused or self._closing or self._gone) and before < self._stats.bytes_read:
            before = self._stats.bytes_read
            self._on_readable()

    @careful
    def stop(self) -> None:
        """The server stops: answer what has been received, end the wait, then hang up. Called in the hub."""
        if self._waiter is not None:
            self._waiter.cancel()
        if self._paused or self._closing:
            return  # `run` or `_resume` comes to it when what is being done is done
        # What has come by now, and no more: else a client that never stops sending would never let the server stop.
        unread = struct.unpack("i", fcntl.ioctl(self._fd, termios.FIONREAD, bytes(4)))[0]
        before, until = -1, self._stats.bytes_read + unread
        while not (self._paused or self._closing or self._gone) and before < self._stats.bytes_read < until:
            before = self._stats.bytes_read
            self._on_readable()
        if self._idle and not self._closing:
            self._close(lingers=False)
            self._be_special()

    # -- timeouts, looked at by `timeouts`

    @property
    def fd(self) -> int:
        return self._fd

    @property
    def _unread_bytes(self) -> int:
        """What the kernel has of our replies: it asks for more only when a third of its buffer is free."""
        return int(struct.unpack("i", fcntl.ioctl(self._fd, termios.TIOCOUTQ, bytes(4)))[0])

    @property
    def progress(self) -> int | None:
        """Changes with every byte of the request that is being received, or of the last words that are being sent;
        None: nothing of the kind is going on."""
        if self._closing:
            return -1 - len(self._unsent) - self._unread_bytes
        if self._in_body or (self._idle and not self._paused and self._reader.in_pieces):
            return self._received
        return None

    @property
    def idle(self) -> bool:
        """Asks nothing, waits for nothing, holds nothing."""
        return self._idle and not self._paused and not self._reader.in_pieces and self.session.holds_nothing

    @property
    def silence(self) -> int | None:
        """Changes with what the client takes of what it is sent; None: it is the client that waits for the server. That
        it sends something the turn knows."""
        its_turn = self._idle or self._in_body or self._sent is not None or self._closing
        if not its_turn or self._held:
            return None
        return len(self._unsent) + self._unread_bytes if self._unsent else 0

    @careful
    def give_up(self, timeout_s: int) -> None:
        """The rest of what the client has begun to send does not come. Called in the hub."""
        if self._gone or self.progress is None:
            return
        if self._closing:
            self.hang_up()
        elif self._in_body or self._reader.body_missing:
            error = ClientError(f"the rest of the item did not come for {timeout_s} s")
            if self._in_body:
                self._late = error
                self._greenlet.switch()
            else:
                self.refuse(error)
        else:
            what = "request" if self._reads_whole else "line"
            self.refuse(ClientError(f"the rest of the {what} did not come for {timeout_s} s"))

    @careful
    def cut_idle(self) -> None:
        """The client has been silent for too long. Called in the hub."""
        if self.idle and not self._closing:
            self._close(lingers=False)
            self._be_special()

    @careful
    def cut_silent(self) -> None:
        """Nothing has come from the client for too long: what it holds goes to others. Called in the hub."""
        if self.silence is not None:
            self.hang_up()

    @careful
    def cut(self) -> None:
        """The server has waited long enough for this client. Called in the hub."""
        self.hang_up()


# The tasks that do nothing but wait for a share.
SHARES = (Connection._wait_share, Connection._wait_first_share)
