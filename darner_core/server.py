"""The server: a gevent StreamServer, one greenlet per client, and the turn of the event loop.

A turn: every client whose socket is readable is read once, its whole requests are applied in memory, and its replies
are gathered. Before the loop sleeps, the journal writes what the turn changed, once, and only then is each client
sent its replies, with one call. So no reply leaves before its change is in the write-ahead log.

A client's greenlet owns its connection. Requests that need not wait are served in the callback of its read watcher,
without switching to it (1.1 to 1.4 times as many requests a second); what has to wait for something (an item, a
large body, a slow reader) is done in the greenlet, blocking-style. A client is read either by its callback or by its
greenlet, never by both.

This module and `waiters` are the only ones that import gevent. Names that begin with wait_ may switch greenlets.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gevent
from gevent.event import Event
from gevent.server import StreamServer

from darner_core import NAME, VERSION
from darner_core.commands import Commands, HangUp, Reply
from darner_core.config import SYNC_ALWAYS, SYNC_NEVER, Config
from darner_core.errors import RequestError, ServerError, StartError, StorageError
from darner_core.journal import Journal
from darner_core.message_queue import WindowBudget
from darner_core.protocol import Request, RequestReader
from darner_core.registry import Registry
from darner_core.session import Session
from darner_core.stats import Stats
from darner_core.storage import Storage
from darner_core.upkeep import Upkeep
from darner_core.waiters import SyncGroup, Waiter

log = logging.getLogger(NAME)

RECV_BYTES = 64 << 10
BACKLOG = 1024  # connections the kernel holds until they are accepted; capped by net.core.somaxconn

# What a client may send ahead while it waits for an item. Beyond it a hang-up goes unnoticed until the wait ends.
MAX_AHEAD_BYTES = 64 << 10

# After an error the connection is closed for writing, and what the client still sends is read and dropped for so
# long: closing at once would reset it, and the client might never see why.
LINGER_S = 1.0

# Stopping takes at most 5 s: this long for clients to be answered, the rest for the last fsync.
STOP_S = 3.5
TICK_S = 1.0
# libev's lowest: the turn ends after gevent has run all that is ready.
LAST_PRIORITY = -2


class ClientGone(Exception):
    """The client hung up while its greenlet was waiting for something."""


class Connection:
    """One client. It is `commands.Client` for the functions that wait."""

    __slots__ = (
        "session", "_server", "_socket", "_recv", "_send", "_read_watcher", "_write_watcher", "_greenlet", "_reader",
        "_backlog", "_ahead", "_replies", "_reply_bytes", "_unsent", "_in_turn", "_held", "_idle", "_gone", "_closing",
        "_lingers", "_mid_reply", "_waiter", "_sent",
    )  # fmt: skip

    def __init__(self, server: "Server", client_socket: socket.socket) -> None:
        self.session = Session(server.journal)
        self._server = server
        self._socket = client_socket
        self._recv = client_socket.recv
        self._send = client_socket.send
        loop = gevent.get_hub().loop
        self._read_watcher = loop.io(client_socket.fileno(), 1)
        self._write_watcher: Any = None
        self._greenlet = gevent.getcurrent()
        self._reader = server.new_reader()
        self._backlog: Iterator[tuple[Request, bytes | None]] = iter(())  # requests read and not yet served
        self._ahead = b""  # bytes that came while the greenlet was waiting for an item
        self._replies: list[bytes] = []  # of this turn, one element a request
        self._reply_bytes = 0
        self._unsent = b""  # replies that the client has not taken
        self._in_turn = False
        self._held = False  # replies wait for an fsync
        self._idle = False  # the greenlet waits for something to do, and the callback reads
        self._gone = False  # the client has hung up
        self._closing = False  # hang up when all is sent
        self._lingers = False
        self._mid_reply = False  # part of a reply has been sent: an error can only be a hang-up
        self._waiter: Waiter | None = None
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
                    task = self._work()
        except ClientGone:
            pass
        finally:
            self._end()
            if self._lingers and not self._gone:
                self._wait_linger()
            self._socket.close()

    def _wait_task(self) -> Callable[[Any], bytes] | None:
        """Let the callback serve the client until there is something to wait for; None: until the end. Switches."""
        self._idle = True
        self._resume_reading()
        try:
            task: Callable[[Any], bytes] | None = gevent.get_hub().switch()
            return task
        finally:
            self._idle = False
            self._read_watcher.stop()

    def _resume_reading(self) -> None:
        if self._idle and not (self._unsent or self._held or self._closing):
            self._read_watcher.start(self._on_readable)

    def _run(self, task: Callable[[Any], bytes]) -> None:
        """Run what a command has to wait for, and add its reply."""
        self._mid_reply = False
        try:
            reply = task(self)
        except (RequestError, StorageError) as error:
            self._refuse(error)
        except ClientGone:
            raise
        except Exception:
            log.exception("a request failed")
            self._close(lingers=True)
        else:
            if reply:
                self._replies.append(reply)
                self._reply_bytes += len(reply)
            if self._mid_reply:
                self.wait_sent()
                self._mid_reply = False
        self._join_turn()
        if self._ahead and not self._closing:
            ahead, self._ahead = self._ahead, b""
            self._backlog = _chain(self._backlog, self._reader.feed(ahead))

    # -- reading and serving

    def _on_readable(self) -> None:
        try:
            data = self._recv(RECV_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._hang_up()
            return
        self._server.stats.bytes_read += len(data)
        self._backlog = iter(self._reader.feed(data))
        task = self._work()
        if task is not None:
            self._greenlet.switch(task)

    def _work(self) -> Callable[[Any], bytes] | None:
        """Serve what has been read, up to a request that has to wait: what it has to do, or None."""
        task = None
        if not self._closing:
            try:
                task = self._serve_backlog()
            except HangUp:
                self._close(lingers=False)
            except Exception:
                log.exception("a request failed")
                self._close(lingers=True)
        if not self._in_turn and (self._replies or self._closing):
            self._join_turn()
        return task

    def _serve_backlog(self) -> Callable[[Any], bytes] | None:
        reader, session, replies = self._reader, self.session, self._replies
        most_bytes = self._server.config.max_reply_bytes
        while True:
            request = None
            size = self._reply_bytes
            try:
                for request, body in self._backlog:
                    reply: Reply = request.run(request, body, session)
                    if reply.__class__ is not bytes:
                        return reply  # type: ignore[return-value]
                    if reply:
                        replies.append(reply)  # type: ignore[arg-type]
                        size += len(reply)  # type: ignore[arg-type]
                        if size > most_bytes:
                            return Connection._wait_taken
            except (RequestError, StorageError) as error:
                assert request is not None
                if not request.noreply or isinstance(error, RequestError) and error.hangs_up:
                    self._refuse(error)
                if self._closing:
                    return None
                continue
            finally:
                self._reply_bytes = size
            if reader.error is not None:
                self._refuse(reader.error)
            elif reader.large is not None:
                return self._wait_large
            return None

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
        self._read_watcher.start(self._on_readable_while_waiting)
        try:
            handed = waiter.wait(wait_ms)
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
        self._server.stats.bytes_read += len(data)
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
        while not data:
            # Through the loop even if there is more to read already: the others have their turn.
            gevent.get_hub().wait(self._read_watcher)
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
            self._server.stats.bytes_read += len(data)
        return data

    def wait_turn(self) -> None:
        gevent.sleep(0)
        if self._gone:
            raise ClientGone

    def _wait_large(self, client: Any) -> bytes:
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
        if self.session.needs_sync or sync:
            self.session.needs_sync = False
            if not self._held:
                self._held = True
                self._read_watcher.stop()
                self._server.sync_group.join(self)
            return
        if not self._held:
            self._send_replies()

    def synced(self, error: StorageError | None) -> None:
        """The fsync that the replies waited for has ended."""
        self._held = False
        if error is not None:
            self.fail_turn(error)
        if not self._in_turn:  # else more has been added meanwhile: the end of this turn sends it all
            self._send_replies()

    def fail_turn(self, error: StorageError) -> None:
        """Nothing of the turn has happened: say so instead of each reply."""
        if self._mid_reply:
            self._replies.clear()
            self._close(lingers=False)
            return
        self._replies[:] = [ServerError(str(error)).reply] * len(self._replies)

    def _send_replies(self) -> None:
        replies = self._replies
        data = replies[0] if len(replies) == 1 else b"".join(replies)
        replies.clear()
        self._reply_bytes = 0
        if self._unsent:
            self._unsent += data
            return
        if data and not self._gone:
            try:
                sent = self._send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._hang_up()
                return
            self._server.stats.bytes_written += sent
            if sent < len(data):
                self._unsent = data[sent:]
                self._read_watcher.stop()
                if self._write_watcher is None:
                    self._write_watcher = gevent.get_hub().loop.io(self._socket.fileno(), 2)
                self._write_watcher.start(self._on_writable)
                return
        self._went_out()

    def _on_writable(self) -> None:
        try:
            sent = self._send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self._hang_up()
            return
        self._server.stats.bytes_written += sent
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._write_watcher.stop()
            self._went_out()

    def _went_out(self) -> None:
        """All replies have been taken by the kernel."""
        if self._sent is not None:
            self._sent.set()
        elif self._idle:
            if self._closing:
                self._greenlet.switch(None)
            else:
                self._resume_reading()

    # -- the end

    def _hang_up(self) -> None:
        """The client has gone: give back what it holds and end its greenlet, wherever that waits."""
        if self._gone:
            return
        self._gone = True
        self._end()
        if self._waiter is not None:
            self._waiter.cancel()
        if self._sent is not None:
            self._sent.set()
        if self._idle:
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
        elif self._idle and not (self._held or self._unsent or self._closing):
            before = -1
            while self._idle and not self._closing and before != self._server.stats.bytes_read:
                before = self._server.stats.bytes_read
                self._on_readable()
        if self._idle and not self._closing:
            self._close(lingers=False)
            self._join_turn()

    def cut(self) -> None:
        """The server has waited long enough for this client. Called in the hub."""
        self._hang_up()


def _chain(first: Iterable[Any], second: Iterable[Any]) -> Iterator[Any]:
    yield from first
    yield from second


class _Listener(StreamServer):
    """Accepts. What gevent would print as a traceback (no file descriptors left) is one line in the log."""

    def do_read(self) -> Any:
        try:
            return super().do_read()
        except OSError as error:
            log.error("cannot accept a connection: %s", error.strerror)
            self.stop_accepting()
            gevent.spawn_later(TICK_S, self._accept_again)
            return None

    def _accept_again(self) -> None:
        if not self.closed:
            self.start_accepting()


class Server:
    """The server over an open data directory. `start`, then `wait_stopped`."""

    def __init__(self, config: Config, storage: Storage) -> None:
        """Raises StorageError if the queues cannot be read back, StartError if the address cannot be listened on."""
        self.config = config
        self.stats = Stats()
        self.journal = Journal(storage)
        self.registry = Registry(self.journal, WindowBudget(config.window_bytes))
        self.commands = Commands(self.registry, self.journal, self.stats, config)
        self.turn: list[Connection] = []  # who has replies to be sent at the end of this turn
        self.sync_group = SyncGroup(storage.sync, self._synced)
        self.stopping = False
        self._storage = storage
        self._upkeep = Upkeep(self.registry, self.journal, config.min_free_bytes)
        self._kept_lines: dict[bytes, Request] = {}
        self._connections: set[Connection] = set()
        self._disk_failed = False
        self._stopped = Event()
        self._hub = gevent.get_hub()
        self._listener = _Listener((config.host, config.port), self._serve, backlog=BACKLOG, spawn=gevent.spawn_raw)
        try:
            self._listener.init_socket()
        except (OSError, UnicodeError) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            raise StartError(f"cannot listen on {config.host} port {config.port}: {reason}") from error
        self._turn_end = self._hub.loop.prepare(ref=False)
        self._turn_end.priority = LAST_PRIORITY

    @property
    def port(self) -> int:
        return int(self._listener.address[1])

    def start(self) -> None:
        self._turn_end.start(self._end_turn)
        self._listener.start()
        self._background = [gevent.spawn(self._wait_upkeep)]
        if self.config.sync not in (SYNC_NEVER, SYNC_ALWAYS):
            self._background.append(gevent.spawn(self._wait_syncs, int(self.config.sync)))

    def new_reader(self) -> RequestReader:
        config = self.config
        return RequestReader(self.commands.table, self._kept_lines, config.max_line_bytes, config.chunk_bytes)

    def _serve(self, accepted: Any, address: object) -> None:
        client_socket = socket.socket(accepted.family, accepted.type, accepted.proto, accepted.detach())
        client_socket.setblocking(False)
        if client_socket.family != socket.AF_UNIX:
            client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(self, client_socket)
        self._connections.add(connection)
        self.stats.curr_connections += 1
        self.stats.total_connections += 1
        log.debug("connected: %s", address)
        try:
            connection.serve()
        finally:
            self._connections.discard(connection)
            self.stats.curr_connections -= 1
            log.debug("disconnected: %s", address)

    # -- the end of a turn

    def _end_turn(self) -> None:
        wrote = False
        try:
            wrote = self.journal.commit()
        except StorageError as error:
            self._turn_failed(error)
        if self.turn:
            turn, self.turn = self.turn, []
            sync = wrote and self.config.sync == SYNC_ALWAYS
            for connection in turn:
                connection.end_turn(sync)
            if self.turn or self.journal.touched:
                # A client was found to have gone while it was answered: another turn before the loop sleeps.
                self._hub.loop.run_callback(_nothing)

    def _turn_failed(self, error: StorageError) -> None:
        log.error("cannot write: %s", error)
        self._disk_failed = True
        self.commands.refuse_sets = f"cannot write: {error}"
        for connection in self.turn:
            connection.fail_turn(error)

    def _synced(self, connections: list[Connection], error: StorageError | None) -> None:
        if error is not None:
            log.error("cannot sync: %s", error)
        for connection in connections:
            connection.synced(error)

    # -- in the background

    def _wait_upkeep(self) -> None:
        pool = self._hub.threadpool
        while True:
            gevent.sleep(TICK_S)
            try:
                if self._disk_failed:
                    self._recover()
                self.commands.refuse_sets = self._upkeep.no_room()
                for job in self._upkeep.tick():
                    pool.apply(job)
            except (StorageError, OSError) as error:
                log.error("upkeep: %s", error)

    def _recover(self) -> None:
        """RocksDB writes nothing more after an error; opened again, it does. Raises StorageError."""
        self._storage.reopen()
        self.registry.recheck()
        self._disk_failed = False
        log.info("writing again")

    def _wait_syncs(self, every_ms: int) -> None:
        while True:
            gevent.sleep(every_ms / 1000)
            if self.journal.unsynced:
                self.journal.unsynced = False
                try:
                    self._hub.threadpool.apply(self._storage.sync)
                except StorageError as error:
                    self.journal.unsynced = True
                    log.error("cannot sync: %s", error)

    # -- stopping

    def request_stop(self) -> None:
        """Begin to stop. Nothing happens if that has begun already."""
        if not self.stopping:
            self.stopping = self.commands.stopping = True
            gevent.spawn(self._wait_stop)

    def _wait_stop(self) -> None:
        log.info("stopping")
        self._listener.close()
        for connection in list(self._connections):
            self._hub.loop.run_callback(connection.stop)
        with gevent.Timeout(STOP_S, False):
            while self._connections:
                gevent.sleep(0.01)
        for connection in list(self._connections):
            self._hub.loop.run_callback(connection.cut)
        gevent.sleep(0.01)
        self._stopped.set()

    def wait_stopped(self) -> None:
        """Serve until stopped; then sync and close the storage."""
        self._stopped.wait()
        gevent.killall(self._background)
        self._turn_end.stop()
        try:
            self.registry.record_all()
            self.journal.commit()
            self._storage.sync()
        except StorageError as error:
            log.error("stopping: %s", error)
        self._storage.close()


def _nothing() -> None:
    pass


def on_signals(signals: Iterable[int], first: Callable[[], None], again: Callable[[], None]) -> None:
    """Call `first` at the first of these signals, and `again` at any after it."""
    seen: list[int] = []

    def handle() -> None:
        seen.append(1)
        (first if len(seen) == 1 else again)()

    for number in signals:
        gevent.signal_handler(number, handle)


def describe(config: Config, port: int) -> Iterable[str]:
    """What the log says at the start."""
    yield f"{NAME}: queue server"
    yield f"version: {VERSION}"
    yield f"listening on: {config.host} port {port}"
    yield f"data dir: {config.data}"
    yield "starting up"
