"""One client: its socket, its greenlet, what it has asked and what it is owed.

The greenlet owns the connection. Requests that need not wait are served in the callback of its read watcher, without
switching to it (1.1 to 1.4 times as many requests a second); what has to wait for something (an item, a large
body, a slow reader) is done in the greenlet, blocking-style. A client is read either by its callback or by its
greenlet, never by both at a time.

Replies are gathered, and sent with one call by `end_turn`, when the turn's changes have been written.

Names that begin with wait_ may switch greenlets; callbacks and what they call run in the hub and never do.
"""

import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import gevent
from gevent.event import Event

from darner_core import NAME
from darner_core.commands import Commands, HangUp
from darner_core.config import Config
from darner_core.errors import RequestError, ServerError, StorageError
from darner_core.journal import Journal
from darner_core.protocol import Request, RequestReader
from darner_core.session import Session
from darner_core.stats import Stats
from darner_core.waiters import SyncGroup, Waiter

log = logging.getLogger(NAME)

RECV_BYTES = 64 << 10

# What a client may send ahead while it waits for an item. Beyond it a hang-up goes unnoticed until the wait ends.
MAX_AHEAD_BYTES = 64 << 10

# After an error the connection is closed for writing, and what the client still sends is read and dropped for so
# long: closing at once would reset it, and the client might never see why.
LINGER_S = 1.0

READ, WRITE = 1, 2  # libev's names for what an io watcher watches


class Host(Protocol):
    """What a connection needs of its server."""

    config: Config
    stats: Stats
    journal: Journal
    commands: Commands
    turn: list["Connection"]  # who has replies to be sent at the end of this turn
    sync_group: SyncGroup
    stopping: bool

    def new_reader(self) -> RequestReader: ...

    def stir(self) -> None:
        """Something was woken up at the end of the turn: go round once more before the loop sleeps."""


class ClientGone(Exception):
    """The client hung up while its greenlet was waiting for something."""


# What a request has to wait for, done in the client's greenlet; its reply.
Task = Callable[["Connection"], bytes]


class Connection:
    """One client. It is `commands.Client` for the functions that wait."""

    __slots__ = (
        "session", "_server", "_stats", "_most_reply_bytes", "_socket", "_recv", "_send", "_read_watcher",
        "_write_watcher", "_greenlet", "_reader", "_backlog", "_ahead", "_replies", "_unsent", "_in_turn", "_held",
        "_held_replies", "_idle", "_paused", "_gone", "_closing", "_lingers", "_mid_reply", "_waiter", "_in_body",
        "_sent",
    )  # fmt: skip

    def __init__(self, server: Host, client_socket: socket.socket) -> None:
        self.session = Session(server.journal)
        self._server = server
        self._stats = server.stats
        self._most_reply_bytes = server.config.max_reply_bytes
        self._socket = client_socket
        self._recv = client_socket.recv
        self._send = client_socket.send
        loop = gevent.get_hub().loop
        self._read_watcher = loop.io(client_socket.fileno(), READ)
        self._write_watcher: Any = None
        self._greenlet = gevent.getcurrent()
        self._reader = server.new_reader()
        self._backlog: Iterator[tuple[Request, bytes | None]] = iter(())  # requests read and not yet served
        self._ahead = b""  # bytes that came while the greenlet was waiting for an item
        self._replies: list[bytes] = []  # of this turn, one element a request
        self._unsent = b""  # replies that the client has not taken
        self._in_turn = False
        self._held = False  # replies wait for an fsync
        self._paused = True  # the callback does not read
        self._idle = False  # the greenlet waits for something to do, and the callback reads
        self._gone = False  # the client has hung up
        self._closing = False  # hang up when all is sent
        self._lingers = False
        self._mid_reply = False  # part of a reply has been sent: an error can only be a hang-up
        self._waiter: Waiter | None = None
        self._in_body = False  # the greenlet waits for more of a large item
        self._held_replies = 0  # how many of the replies the running fsync is for
        self._sent: Event | None = None  # set when all is sent

    # -- the greenlet

    def serve(self) -> None:
        """Serve the client until one of the two hangs up. The body of its greenlet."""
        try:
            while not self._gone and not (self._closing and self._all_sent):
                if self._server.stopping and not self._closing:
                    self._close(lingers=False)
                    self._join_turn()
                task = self._wait_task()
                while task is not None:
                    self._run(task)
                    task = self._on_readable(self._backlog)
                    while task is None and self._ahead and not self._closing:
                        ahead, self._ahead = self._ahead, b""
                        task = self._on_readable(iter(self._reader.feed(ahead)))
        except ClientGone:
            pass
        finally:
            self._end()
            if self._lingers and not self._gone:
                self._wait_linger()
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
        if not self._paused:  # else the watcher is the greenlet's, which may be waiting for it
            self._paused = True
            self._read_watcher.stop()

    def _resume(self) -> None:
        if self._paused and self._idle and not (self._unsent or self._held or self._closing):
            self._paused = False
            self._read_watcher.start(self._on_readable)
            if self._server.stopping:
                gevent.get_hub().loop.run_callback(self.stop)

    def _run(self, task: Task) -> None:
        """Run what a command has to wait for, and add its reply."""
        self._mid_reply = False
        try:
            reply = task(self)
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
                self._replies.append(reply)
            if self._mid_reply:
                self.wait_sent()
                self._mid_reply = False
        self._join_turn()

    # -- reading and serving

    def _on_readable(self, backlog: Iterator[tuple[Request, bytes | None]] | None = None) -> Task | None:
        """Read once and serve what has come; or serve `backlog`, for the greenlet.

        What is read is served up to a request that has to wait. What that has to do is handed to the greenlet (when
        called by the watcher) or returned (to the greenlet). One long function because it is the hot path: as four,
        with what they share in attributes, it took 0.7 us more a request.
        """
        in_greenlet = backlog is not None
        if backlog is None:
            try:
                data = self._recv(RECV_BYTES)
            except BlockingIOError:
                return None
            except OSError:
                data = b""
            if not data:
                self._hang_up()
                return None
            self._stats.bytes_read += len(data)
            backlog = iter(self._reader.feed(data))
        replies, session = self._replies, self.session
        task: Task | None = None
        reply_bytes = 0
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
                        reply_bytes += len(reply)
                        if reply_bytes > self._most_reply_bytes:
                            task = Connection._wait_taken
                            break
                else:
                    reader = self._reader
                    if reader.error is not None:
                        self._refuse(reader.error)
                    elif reader.large is not None:
                        task = Connection._wait_large
                break
            except (RequestError, StorageError) as error:
                assert request is not None
                if not request.noreply or (isinstance(error, RequestError) and error.hangs_up):
                    self._refuse(error)
            except HangUp:
                self._close(lingers=False)
            except Exception:
                log.exception("a request failed")
                self._close(lingers=True)
        if not self._in_turn and (replies or self._closing):
            self._in_turn = True
            self._server.turn.append(self)
        if task is not None:
            self._backlog = backlog
            if not in_greenlet:
                self._greenlet.switch(task)
        return task

    def _refuse(self, error: RequestError | StorageError) -> None:
        """Answer with an error, and hang up if that is its way."""
        if isinstance(error, StorageError):
            log.error("%s", error)
            error = ServerError(str(error))
        if self._mid_reply:
            self._close(lingers=False)
            return
        self._replies.append(error.reply)
        if error.hangs_up:
            self._close(lingers=True)

    def _close(self, lingers: bool) -> None:
        """Hang up when all is sent. What the client holds goes to the next at once."""
        self._closing = True
        self._lingers = lingers
        self._backlog = iter(())
        self.session.end()

    # -- what functions that wait call, in the greenlet

    def wait_for(self, waiter: Waiter, wait_ms: int) -> object:
        self._waiter = waiter
        if len(self._ahead) < MAX_AHEAD_BYTES:
            self._read_watcher.start(self._on_readable_while_waiting)
        try:
            handed = waiter.wait_for(wait_ms)
        finally:
            self._waiter = None
            self._read_watcher.stop()
        if self._gone:
            raise ClientGone
        return handed

    def _on_readable_while_waiting(self) -> None:
        try:
            data = self._recv(RECV_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._hang_up()
            return
        self._stats.bytes_read += len(data)
        self._ahead += data
        if len(self._ahead) >= MAX_AHEAD_BYTES:
            self._read_watcher.stop()

    def wait_sent(self, data: bytes = b"") -> None:
        if data:
            self._replies.append(data)
            self._mid_reply = True
        self._join_turn()
        while self._replies or self._unsent or self._held:
            if self._gone:
                raise ClientGone
            if self._closing and not self._replies:
                raise ClientGone
            self._sent = Event()
            self._sent.wait()
        self._sent = None
        if self._gone or (self._closing and data):
            raise ClientGone

    def _wait_taken(self) -> bytes:
        """Let the client take the replies it has caused before it causes more."""
        self.wait_sent()
        return b""

    def wait_body(self, most_bytes: int) -> bytes:
        data = self._reader.take_body(most_bytes)
        if not data and self._ahead:
            data, self._ahead = self._ahead[:most_bytes], self._ahead[most_bytes:]
        while not data:
            # Through the loop even if there is more to read already: the others have their turn.
            self._in_body = True
            self._read_watcher.start(self._greenlet.switch)
            try:
                gevent.get_hub().switch()
            finally:
                self._in_body = False
                self._read_watcher.stop()
            if self._gone:
                raise ClientGone
            try:
                data = self._recv(min(most_bytes, RECV_BYTES))
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                self._hang_up()
                raise ClientGone
            self._stats.bytes_read += len(data)
        return data

    def wait_turn(self) -> None:
        gevent.sleep(0)
        if self._gone:
            raise ClientGone

    def _wait_large(self) -> bytes:
        """Receive the large item that the reader has come upon, and go on behind it."""
        request = self._reader.large
        assert request is not None
        try:
            return self._server.commands.receive_large(request, self)
        finally:
            self._reader.end_body()
            if not self._gone and not self._closing:
                self._backlog = iter(self._reader.feed(b""))

    # -- sending

    @property
    def _all_sent(self) -> bool:
        return not (self._replies or self._unsent or self._held)

    def _join_turn(self) -> None:
        if not self._in_turn:
            self._in_turn = True
            self._server.turn.append(self)

    def end_turn(self, sync: bool) -> None:
        """The turn's changes are written: send its replies, after an fsync if they need one. Called in the hub."""
        self._in_turn = False
        if self._paused or self._closing or sync or self.session.needs_sync:
            self._end_turn_specially(sync)
            return
        replies = self._replies
        data = replies.pop() if len(replies) == 1 else b"".join(replies)
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._hang_up()
            return
        replies.clear()
        self._stats.bytes_written += sent
        if sent != len(data):
            self._wait_to_write(data[sent:])

    def _end_turn_specially(self, sync: bool) -> None:
        if sync:
            self.session.needs_sync = True
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
        self._held_replies = len(self._replies)
        self._pause()
        self._server.sync_group.join(self)
        self._server.stir()

    def synced(self, error: StorageError | None) -> None:
        """The fsync that the replies waited for has ended. Called in the hub."""
        self._held = False
        if error is not None:
            self.fail_turn(error, self._held_replies)
        if self._in_turn:
            return  # more is being added: the end of this turn sends it all
        if self.session.needs_sync:
            self._hold()
        else:
            self._send_replies()

    def fail_turn(self, error: StorageError, count: int | None = None) -> None:
        """Nothing of the turn has happened: say so instead of each reply, or of the first `count`."""
        if self._mid_reply:
            self._replies.clear()
            self._close(lingers=False)
            self._server.stir()
            return
        count = len(self._replies) if count is None else count
        self._replies[:count] = [ServerError(str(error)).reply] * count

    def _send_replies(self) -> None:
        data = b"".join(self._replies)
        self._replies.clear()
        if self._unsent:
            self._unsent += data
            return
        if data:
            try:
                sent = self._send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._hang_up()
                return
            self._stats.bytes_written += sent
            if sent != len(data):
                self._wait_to_write(data[sent:])
                return
        self._went_out()

    def _wait_to_write(self, unsent: bytes) -> None:
        """The client does not take its replies as fast as it asks: read no more from it until it has."""
        self._unsent = unsent
        self._pause()
        if self._write_watcher is None:
            self._write_watcher = gevent.get_hub().loop.io(self._socket.fileno(), WRITE)
        self._write_watcher.start(self._on_writable)

    def _on_writable(self) -> None:
        try:
            sent = self._send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self._hang_up()
            return
        self._stats.bytes_written += sent
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._write_watcher.stop()
            self._went_out()

    def _went_out(self) -> None:
        """All replies have been taken by the kernel."""
        self._server.stir()
        if self._sent is not None:
            self._sent.set()
        elif self._idle:
            if self._closing:
                self._greenlet.switch(None)
            else:
                self._resume()

    # -- the end

    def _hang_up(self) -> None:
        """The client has gone: give back what it holds and end its greenlet, wherever that waits."""
        if self._gone:
            return
        self._gone = True
        self._server.stir()
        self._end()
        if self._waiter is not None:
            self._waiter.cancel()
        if self._sent is not None:
            self._sent.set()
        if self._idle or self._in_body:
            self._greenlet.switch(None)

    def _end(self) -> None:
        self._read_watcher.stop()
        if self._write_watcher is not None:
            self._write_watcher.stop()
        self._unsent = b""
        self._replies.clear()
        self.session.end()

    def _wait_linger(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
            with gevent.Timeout(LINGER_S, False):
                while True:
                    gevent.get_hub().wait(self._read_watcher)
                    if not self._recv(RECV_BYTES):
                        break
        except OSError:
            pass

    def stop(self) -> None:
        """The server stops: answer what has been received, end the wait, then hang up. Called in the hub."""
        if self._waiter is not None:
            self._waiter.cancel()
        if self._paused or self._closing:
            return  # `serve` or `_resume` comes to it when what is being done is done
        before = -1
        while not (self._paused or self._closing or self._gone) and before != self._stats.bytes_read:
            before = self._stats.bytes_read
            self._on_readable()
        if self._idle and not self._closing:
            self._close(lingers=False)
            self._join_turn()

    def cut(self) -> None:
        """The server has waited long enough for this client. Called in the hub."""
        self._hang_up()
