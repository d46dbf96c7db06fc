"""The server: a gevent StreamServer, one greenlet per client, and the turn of the event loop.

A turn: every client whose socket is readable is read, its whole requests are applied in memory, and its replies
are gathered. Before the loop sleeps, the journal writes what the turn changed, once, and only then is each client
sent its replies, with one call. So no reply leaves before its change is in the write-ahead log.

Names that begin with wait_ may switch greenlets; callbacks run in the hub and never do.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import gevent
from gevent.event import Event
from gevent.server import StreamServer

from darner_core import NAME, VERSION, access, records
from darner_core.access import Access
from darner_core.commands import Commands
from darner_core.config import OPTIONS, SYNC_ALWAYS, SYNC_NEVER, Config
from darner_core.connection import Connection
from darner_core.descriptors import MAX_TURNED_AWAY, room_for_clients
from darner_core.errors import ServerError, StorageError
from darner_core.guard import Guard
from darner_core.journal import Journal
from darner_core.listeners import Listener, open_listeners
from darner_core.protocol import Request, RequestReader
from darner_core.registry import Registry
from darner_core.stats import Stats
from darner_core.storage import Storage
from darner_core.timeouts import Timeouts
from darner_core.tls import TlsError, TlsSocket
from darner_core.turn import RECV_BYTES, Turn
from darner_core.upkeep import Upkeep
from darner_core.waiters import SyncGroup, wait_in_thread, wait_round
from darner_core.window import WindowBudget

log = logging.getLogger(NAME)

# Stopping takes at most 5 s: this long for clients to be answered, the rest for the last fsync.
STOP_S = 3.5
TICK_S = 1.0
# Clients that are looked at in one go for their timeouts, which takes 0.3 ms.
LOOKED_AT = 500
# Between two looks at the room on the disk, where less is kept free than eight times that.
LOOK_BYTES = 1 << 20
# libev's lowest: the turn ends after gevent has run all that is ready.
LAST_PRIORITY = -2

# A client that is asked for its name and password and has not given them by then is not going to.
LOGIN_S = 10.0

# What `reload` takes over, besides the tables.
RELOADED = {"debug", "auth_file", "tls_cert", "tls_key", "tls_ca"}


class _Acceptor(StreamServer):
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
        """Raises StorageError if the queues cannot be read back, StartError if an address cannot be listened on, or a
        file about who may come in cannot be used."""
        self.config = config
        self.access = Access(config)
        self.max_connections = room_for_clients(config.max_connections, config.max_open_files)
        self.stats = Stats()
        self.journal = Journal(storage)
        self.registry = Registry(self.journal, WindowBudget(config.window_bytes), config.max_queues)
        self.commands = Commands(self.registry, self.journal, self.stats, config)
        self.sync_group = SyncGroup(storage.sync, self._synced)
        self.stopping = False
        self._storage = storage
        if storage.met_damage:
            storage.reopen()  # or the first compaction that meets it would stop all writes
        self._upkeep = Upkeep(self.registry, self.journal, config.min_free_bytes)
        self._kept_lines: dict[bytes, Request] = {}
        self._connections: set[Connection] = set()
        self._turned_away = 0  # clients that are being told that they are too many
        self._timeouts = Timeouts(config.body_timeout_s, config.idle_timeout_s, time.monotonic)
        self._disk_failed = False
        self._look_again_at_bytes = 0
        self._stopped = Event()
        self._hub = gevent.get_hub()
        self.turn = Turn(self._hub.loop, self.stats, self._kept_lines, self._end_turn)
        self._handshakes: set[TlsSocket] = set()
        self.listeners = open_listeners(config.host, config.port, config.unix_mode)
        self._acceptors = [
            _Acceptor(listener.socket, partial(self._serve, listener), spawn=gevent.spawn_raw)
            for listener in self.listeners
        ]
        self._turn_end = self._hub.loop.prepare(ref=False)
        self._turn_end.priority = LAST_PRIORITY
        self._again = self._hub.loop.timer(0, ref=False)
        self._tell_damage()

    def start(self) -> None:
        self._look_for_room()
        self._turn_end.start(self._end_turn)
        if self.max_connections < self.config.max_connections:
            log.warning(
                "at most %d connections, not the %d of max_connections: too few file descriptors (ulimit -n)",
                self.max_connections,
                self.config.max_connections,
            )
        for acceptor in self._acceptors:
            acceptor.start()
        self._background = [gevent.spawn(self._wait_upkeep)]
        if self.config.idle_timeout_s:
            self.turn.heard = set()
        if self.config.body_timeout_s or self.config.idle_timeout_s:
            self._background.append(gevent.spawn(self._wait_timeouts))
        if self.config.sync not in (SYNC_NEVER, SYNC_ALWAYS):
            self._background.append(gevent.spawn(self._wait_syncs, int(self.config.sync)))

    def _tell_damage(self) -> None:
        for cut_off in self._storage.torn:
            log.warning("%s", cut_off)
        for damage in self._storage.damage:
            log.error("damaged: %s; %s", damage, records.REPAIR_ADVICE)
        for queue in self.registry.damaged:
            log.error("%s", queue.damage)

    def new_reader(self) -> RequestReader:
        config = self.config
        return RequestReader(self.commands.table, self._kept_lines, config.max_line_bytes, config.chunk_bytes)

    def _serve(self, listener: Listener, accepted: Any, address: object) -> None:
        client_socket: socket.socket | TlsSocket
        client_socket = socket.socket(accepted.family, accepted.type, accepted.proto, accepted.detach())
        client_socket.setblocking(False)
        if client_socket.family != socket.AF_UNIX:
            client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        is_tls = self.access.tls is not None and not listener.is_unix
        if len(self._connections) >= self.max_connections:
            self._turn_away(client_socket, is_tls)
            return
        name, guard = listener.name_client(address), self._guard(listener, address)
        if self.access.tls is not None and is_tls:
            try:
                client_socket = TlsSocket(client_socket, self.access.tls)
            except TlsError as error:
                log.error("TLS with %s: %s", name, error)
                return
        connection = Connection(self, client_socket, guard)
        self._connections.add(connection)
        self.stats.curr_connections += 1
        self.stats.total_connections += 1
        log.debug("connected: %s", address or listener)
        try:
            if isinstance(client_socket, TlsSocket) and not self._wait_handshake(client_socket, guard, name):
                return
            if guard is not None and guard.awaits_login:
                self._hub.loop.timer(LOGIN_S, ref=False).start(self._end_login, guard, connection)
            connection.run()
        finally:
            self._connections.discard(connection)
            self._timeouts.forget(connection)
            self.stats.curr_connections -= 1
            log.debug("disconnected: %s", address or listener)

    def _guard(self, listener: Listener, address: object) -> Guard | None:
        """What stands before a new client that has to say who it is."""
        if self.access.users is None and (listener.is_unix or not self.access.names_by_certificate):
            return None
        return Guard(self.access, self.new_reader(), self.commands.table, listener.name_client(address))

    def _wait_handshake(self, client: TlsSocket, guard: Guard | None, address: str) -> bool:
        """False: the handshake has failed, and the socket is closed."""
        self._handshakes.add(client)
        try:
            client.wait_handshake()
            if guard is not None and self.access.names_by_certificate:
                user = self.access.user_of_certificate(client.certificate_name())
                if user:
                    guard.let_in(user)
                elif self.access.users is None:
                    raise TlsError("the client's certificate has no common name that can be a user's")
        except TlsError as error:
            if not self.stopping:
                log.error("TLS with %s: %s", address, error)
            client.close()
            return False
        finally:
            self._handshakes.discard(client)
        return True

    def _end_login(self, guard: Guard, connection: Connection) -> None:
        if guard.awaits_login and connection in self._connections:
            log.error("%s has not logged in within %g s", guard.address, LOGIN_S)
            connection.hang_up()

    def reload(self, config: Config) -> None:
        """Take over who may come in and what they may do. Connections stay. Raises ConfigError; then nothing has
        changed."""
        self.access.reload(config)
        for connection in self._connections:
            connection.rejudge()
        for option in OPTIONS:
            if option.name not in RELOADED and getattr(config, option.name) != getattr(self.config, option.name):
                log.warning("reload: %s is another one now, and needs a restart", option.name)

    def _turn_away(self, client_socket: socket.socket, is_tls: bool) -> None:
        """One client too many. Only so many are given time to read that: they take descriptors, too."""
        self.stats.rejected_connections += 1
        if is_tls:  # it could be told only after a handshake, which costs more than being served
            client_socket.close()
            return
        error = ServerError("too many connections")
        if self._turned_away < MAX_TURNED_AWAY:
            self._turned_away += 1
            try:
                connection = Connection(self, client_socket)
                connection.refuse(error)
                connection.run()
            finally:
                self._turned_away -= 1
            return
        with suppress(OSError):
            client_socket.send(error.reply)
            client_socket.recv(RECV_BYTES)  # what is unread when it is closed would reset it
        client_socket.close()

    # -- the end of a turn

    def _end_turn(self) -> None:
        wrote = False
        try:
            wrote = self.journal.commit()
        except StorageError as error:
            self._turn_failed(error)
        except Exception:
            # Nobody knows what memory holds now, but the disk holds what was answered: as after kill -9.
            log.critical("the end of a turn went wrong; ending at once", exc_info=True)
            logging.shutdown()
            os._exit(1)
        if self.turn.served or self.turn.special:
            self.turn.send(sync=wrote and self.config.sync == SYNC_ALWAYS)
        if self.stats.bytes_read >= self._look_again_at_bytes:
            self._look_for_room()

    def _look_for_room(self) -> None:
        """See whether sets have to be refused: in the background once a second, and after so many bytes, because a
        second's sets may be more than all the room that is kept."""
        step = max(LOOK_BYTES, self.config.min_free_bytes // 8)
        self._look_again_at_bytes = self.stats.bytes_read + step
        if not self._disk_failed:
            self.commands.refuse_sets = self._upkeep.no_room()

    def stir(self) -> None:
        # gevent runs what was made ready before the loop sleeps, but it looks for that before the turn ends.
        if not self._again.active:
            self._again.start(_nothing)

    def _turn_failed(self, error: StorageError) -> None:
        log.error("cannot write: %s", error)
        self._disk_failed = True
        self.commands.refuse_sets = f"cannot write: {error}"
        self.turn.fail(error)

    def _synced(self, connections: list[Connection], error: StorageError | None) -> None:
        if error is not None:
            log.error("cannot sync: %s", error)
            self._disk_failed = True  # what the system could not write it may forget: write all of it again
        for connection in connections:
            connection.synced(error)

    # -- in the background

    def _wait_upkeep(self) -> None:
        while True:
            gevent.sleep(TICK_S)
            try:
                if self._disk_failed or (self._storage.met_damage and not self._storage.salvages):
                    self._recover()
                self._look_for_room()
                for job in self._upkeep.tick():
                    wait_in_thread(job)
            except (StorageError, OSError) as error:
                log.error("upkeep: %s", error)  # what was not done is there at the next tick

    def _recover(self) -> None:
        """RocksDB writes nothing more after an error; opened again, it does. Raises StorageError."""
        if self._storage.is_open and not self._upkeep.room_to_reopen():
            return  # it would fail half-way; until there is room, what only reads goes on
        self._storage.reopen()
        self.registry.recheck()
        if self._disk_failed:
            log.info("writing again")
        self._disk_failed = False

    def _wait_syncs(self, every_ms: int) -> None:
        while True:
            gevent.sleep(every_ms / 1000)
            if self.journal.unsynced:
                self.journal.unsynced = False
                try:
                    wait_in_thread(self._storage.sync)
                except StorageError as error:
                    self.journal.unsynced = self._disk_failed = True
                    log.error("cannot sync: %s", error)

    def _wait_timeouts(self) -> None:
        timeouts, run_callback = self._timeouts, self._hub.loop.run_callback
        while True:
            gevent.sleep(TICK_S)
            heard = self.turn.heard or set()
            if self.turn.heard is not None:
                self.turn.heard = set()
            connections = list(self._connections)
            for start in range(0, len(connections), LOOKED_AT):
                stalled, idle = timeouts.look(connections[start : start + LOOKED_AT], heard)
                for connection in stalled:
                    run_callback(connection.give_up, timeouts.body_timeout_s)
                for connection in idle:
                    run_callback(connection.cut_idle)
                wait_round()

    # -- stopping

    def request_stop(self) -> None:
        """Begin to stop. Nothing happens if that has begun already."""
        if not self.stopping:
            self.stopping = self.commands.stopping = True
            gevent.spawn(self._wait_stop)

    def _wait_stop(self) -> None:
        log.info("stopping")
        for acceptor, listener in zip(self._acceptors, self.listeners, strict=True):
            acceptor.close()
            listener.close()
        for handshake in list(self._handshakes):
            handshake.cut_handshake()
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
        self.turn.close()
        try:
            self.registry.record_all()
            self.journal.commit()
            self._storage.sync()
            self._storage.note_synced()
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


def describe(config: Config, listeners: Iterable[Listener]) -> Iterator[str]:
    """What the log says at the start."""
    yield f"{NAME}: queue server"
    yield f"version: {VERSION}"
    for listener in listeners:
        yield f"listening on: {listener}{', TLS' if config.tls_cert and not listener.is_unix else ''}"
    yield f"data dir: {config.data}"
    yield "starting up"


def warn(config: Config, listeners: Iterable[Listener]) -> None:
    for line in access.warnings(config, listeners):
        log.warning(line)
