"""New clients: accepting at every address, one client too many, the TLS handshake, and the deadline for the login.

It owns the listening sockets and knows who is connected. The Connection knows what a client does once it is in, and
Access who may come in.

Names that begin with wait_ may switch greenlets.
"""

import logging
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import gevent
from gevent.server import StreamServer

from darner_core import NAME
from darner_core.access.access import Access
from darner_core.access.origins import Origin
from darner_core.config.listeners import HTTP
from darner_core.config.options import Config
from darner_core.errors import ClientError, ServerError
from darner_core.operating_system import watch_host
from darner_core.protocols.contract import Vocabulary
from darner_core.protocols.guard import Guard
from darner_core.server.careful import cut_off
from darner_core.server.connection import Connection, Host
from darner_core.server.descriptors import MAX_KNOCKING, MAX_TURNED_AWAY, room_for_clients
from darner_core.server.http_connection import HttpConnection
from darner_core.server.http_listener import HttpListeners
from darner_core.server.idle import Timeouts
from darner_core.server.listeners import Listener, open_listeners
from darner_core.server.shares import RECV_BYTES
from darner_core.server.tls import TlsError, TlsSocket

log = logging.getLogger(NAME)

# How long nobody is accepted after an accept has failed.
ACCEPT_AGAIN_S = 1.0

# How long a client may take to give its name and password, if it is asked for them.
LOGIN_S = 10.0


class _SocketServer(StreamServer):
    """Accepts. What gevent would print as a traceback (no file descriptors left) is one line in the log."""

    def __init__(self, acceptor: "Acceptor", listener: Listener) -> None:
        super().__init__(listener.socket, partial(acceptor.serve, listener), spawn=gevent.spawn_raw)
        self._acceptor = acceptor

    def do_read(self) -> Any:
        if self._acceptor.knocking >= MAX_KNOCKING:
            return None  # nobody has looked yet whether these are too many; the kernel keeps the next ones
        try:
            accepted = super().do_read()
            self._acceptor.knocking += accepted is not None
            return accepted
        except OSError as error:
            log.error("cannot accept a connection: %s", error.strerror)
            self.stop_accepting()
            gevent.spawn_later(ACCEPT_AGAIN_S, self._accept_again)
            return None

    def _accept_again(self) -> None:
        if not self.closed:
            self.start_accepting()


class Acceptor:
    """Listens from the beginning, accepts from `start` until `close`. `connections` are those that are in."""

    def __init__(self, host: Host, config: Config, access: Access) -> None:
        """`host` is what each connection will work with. Raises StartError if an address cannot be listened on, or
        there are too few file descriptors for a single client."""
        self.connections: set[Connection | HttpConnection] = set()
        self._plain: set[Connection] = set()  # those of them that do not speak HTTP
        self.listeners = open_listeners(config.endpoints, config.unix_mode)
        self._http = HttpListeners(host, config, self.listeners)
        self._host = host
        self._access = access
        self._max_connections = room_for_clients(config.max_connections, config.max_open_files)
        if self._max_connections < config.max_connections:
            log.warning(
                "at most %d connections, not the %d of max_connections: too few file descriptors (ulimit -n)",
                self._max_connections, config.max_connections,
            )  # fmt: skip
        self._timeouts = Timeouts(config.body_timeout_s, config.idle_timeout_s, config.client_timeout_s, time.monotonic)
        self._config = config
        self._handshakes: set[TlsSocket] = set()
        self._turned_away = 0  # clients that are being told that they are too many
        self.knocking = 0  # clients that have been accepted, and not looked at yet
        for listener in self.listeners:
            if not listener.is_unix:
                watch_host(
                    listener.socket, config.keepalive_idle_s, config.keepalive_interval_s, config.keepalive_count,
                    config.unread_timeout_s,
                )  # fmt: skip
        self._socket_servers = [_SocketServer(self, listener) for listener in self.listeners]
        self._loop = gevent.get_hub().loop

    def start(self) -> None:
        for socket_server in self._socket_servers:
            socket_server.start()

    def close(self) -> None:
        """Accept nobody any more, and end handshakes."""
        for socket_server, listener in zip(self._socket_servers, self.listeners, strict=True):
            socket_server.close()
            listener.close()
        for handshake in list(self._handshakes):
            handshake.cut_handshake()

    def serve(self, listener: Listener, accepted: Any, address: object) -> None:
        """The greenlet of one client."""
        self.knocking -= 1
        client_socket: socket.socket | TlsSocket
        client_socket = socket.socket(accepted.family, accepted.type, accepted.proto, accepted.detach())
        client_socket.setblocking(False)
        if client_socket.family != socket.AF_UNIX:
            client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tls = None if listener.is_unix else self._access.tls
        origin = Origin(address, listener, self._access, int(time.time() * 1000))
        if len(self.connections) >= self._max_connections:
            log.debug("refused: %s: too many connections", origin)
            self._turn_away(client_socket, listener, tls is not None)
            return
        if tls is not None:
            try:
                client_socket = TlsSocket(client_socket, tls)
            except TlsError as error:
                log.error("TLS with %s: %s", origin, error)
                return
        if listener.dialect == HTTP:
            self._serve_http(client_socket, listener, origin)
            return
        vocabulary = self._vocabulary(listener)
        guard = self._guard(listener, vocabulary, origin)
        stats = self._host.stats
        connection = Connection(self._host, client_socket, vocabulary, guard)
        connection.session.origin = origin
        self.connections.add(connection)
        self._plain.add(connection)
        stats.curr_connections += 1
        stats.total_connections += 1
        log.debug("connected: %s", origin)
        login_timer = None
        try:
            let_in = guard.let_in if guard is not None and self._access.names_by_certificate else None
            if isinstance(client_socket, TlsSocket) and not self._wait_handshake(client_socket, let_in, origin):
                return
            if guard is not None and guard.awaits_login:
                login_timer = self._loop.timer(LOGIN_S, ref=False)
                login_timer.start(self._end_login, guard, connection)
                if vocabulary.dialect.read_login is None:
                    log.warning("refused: %s, who has not logged in: %s has no login", origin, listener.dialect)
                    connection.refuse(ClientError("unauthenticated: here only a TLS certificate says who a client is"))
            connection.run()
        finally:
            if login_timer is not None:
                login_timer.close()  # else it would keep the connection, and all that it has been sent
            self.connections.discard(connection)
            self._plain.discard(connection)
            self._timeouts.forget(connection)
            stats.curr_connections -= 1
            log.debug("disconnected: %s", origin)

    def _serve_http(self, client_socket: socket.socket | TlsSocket, listener: Listener, origin: Origin) -> None:
        stats = self._host.stats
        connection = self._http.new_client(client_socket, origin, listener)
        connection.no_writes, connection.no_reads = self._refused()
        self.connections.add(connection)
        stats.curr_connections += 1
        stats.total_connections += 1
        log.debug("connected: %s", origin)
        try:
            let_in = connection.let_in if self._access.names_by_certificate else None
            if not isinstance(client_socket, TlsSocket) or self._wait_handshake(client_socket, let_in, origin):
                self._http.serve(connection)
        finally:
            self.connections.discard(connection)
            stats.curr_connections -= 1
            log.debug("disconnected: %s", origin)

    def _refused(self) -> tuple[str, str]:
        """Why a new client may not put, and not get, for as long as it is connected: there are many."""
        count = len(self.connections) + 1
        no_writes, no_reads = (
            f"more than {limit} clients were connected when this one came" if 0 < limit < count else ""
            for limit in (self._config.connection_limit_refuse_writes, self._config.connection_limit_refuse_reads)
        )
        return no_writes, no_reads

    def _vocabulary(self, listener: Listener) -> Vocabulary:
        """What a new client may ask, for as long as it is connected."""
        no_writes, no_reads = self._refused()
        return self._host.vocabularies.of(listener.dialect, no_writes, no_reads, listener.reply_key)

    def _turn_away(self, client_socket: socket.socket, listener: Listener, is_tls: bool) -> None:
        """Tell a client that it is one too many. Up to MAX_TURNED_AWAY clients are given time to read that: they take
        descriptors, too."""
        self._host.stats.rejected_connections += 1
        if is_tls:  # it could be told only after a handshake, which costs more than being served
            client_socket.close()
            return
        if listener.dialect == HTTP:
            self._say_and_close(client_socket, self._http.too_many(listener))
            return
        error = ServerError("too many connections")
        vocabulary = self._host.vocabularies.of(listener.dialect)
        if self._turned_away < MAX_TURNED_AWAY:
            self._turned_away += 1
            try:
                connection = Connection(self._host, client_socket, vocabulary)
                connection.refuse(error)
                connection.run()
            finally:
                self._turned_away -= 1
            return
        self._say_and_close(client_socket, vocabulary.dialect.error_reply(error))

    @staticmethod
    def _say_and_close(client_socket: socket.socket, reply: bytes) -> None:
        with suppress(OSError):
            client_socket.send(reply)
            client_socket.shutdown(socket.SHUT_WR)
            client_socket.recv(RECV_BYTES)  # closing with bytes unread would reset the connection
        client_socket.close()

    # -- handshake and login

    def _guard(self, listener: Listener, vocabulary: Vocabulary, origin: Origin) -> Guard | None:
        """The guard of a new client that has to say who it is; None: it does not have to."""
        access = self._access
        if access.users is None and (listener.is_unix or not access.names_by_certificate):
            return None
        return Guard(access, vocabulary, origin)

    def _wait_handshake(self, client: TlsSocket, let_in: Callable[[str], None] | None, origin: Origin) -> bool:
        """`let_in` is told the user whom the client's certificate names; None: that means nothing. False: the handshake
        has failed, and the socket is closed."""
        self._handshakes.add(client)
        try:
            client.wait_handshake()
            if let_in is not None:
                user = self._access.user_of_certificate(client.certificate_name())
                if user:
                    let_in(user)
                elif self._access.users is None:
                    raise TlsError("the client's certificate has no common name that can be a user's")
        except TlsError as error:
            if not self._host.stopping:
                log.error("TLS with %s: %s", origin, error)
            client.close()
            return False
        finally:
            self._handshakes.discard(client)
        return True

    def _end_login(self, guard: Guard, connection: Connection) -> None:
        if guard.awaits_login and connection in self.connections:
            connection.read_now()  # the login may have come while the server was stopped
        if guard.awaits_login and connection in self.connections:
            log.error("%s has not logged in within %g s", guard.origin, LOGIN_S)
            cut_off(connection)

    def rejudge(self) -> None:
        """Rights have changed."""
        for connection in self.connections:
            connection.rejudge()

    def end_waits(self) -> None:
        """Clients that wait for an item get none, as if their time were over."""
        for connection in self.connections:
            connection.end_wait()

    # -- clients that have been silent for too long

    def wait_look_for_silent(self) -> None:
        """To be called about once a second. Switches."""
        self._timeouts.wait_look(self._plain, self._host.turn.take_heard())
        self._http.wait_look_for_silent()
