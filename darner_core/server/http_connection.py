"""One client of an HTTP listener: its socket as WSGI sees it, and the client as operations see it.

Its requests are read and answered in one greenlet, blocking-style. What waits goes through the turn: the poller tells
when there is something to read or when the client has hung up, and a request that has changed something is answered
when the turn has written it.

Names that begin with wait_, and `sendall`, switch greenlets; nothing else here does. What is called in the hub never
switches, except to this client's greenlet.
"""

import io
import logging
import time
from collections.abc import Callable
from enum import Enum
from typing import Any

import gevent

from darner_core import NAME
from darner_core.access.origins import Origin
from darner_core.errors import RequestError, ServerError, StorageError
from darner_core.operating_system import unread_bytes, unsent_bytes
from darner_core.operations.client import HangUp
from darner_core.operations.session import Session
from darner_core.server.careful import careful
from darner_core.server.http_lane import Lane
from darner_core.server.poller import WRITE
from darner_core.waiters import Waiter, wait_round

log = logging.getLogger(NAME)

# How much is read of a client at a time, beside large bodies.
RECV_BYTES = 16 << 10

# Up to this size the head of a response and the beginning of its body go out in one piece.
CORKED_BYTES = 16 << 10

# What still comes of a request that was refused is read and dropped for up to this time: closing at once would reset
# the connection, and the client might never see why.
LINGER_S = 1.0


class Doing(Enum):
    """What the client's greenlet is doing."""

    RUNS = "it runs, or waits for a thread or a round of the loop"
    BETWEEN = "it waits for the next request"
    IN_REQUEST = "it waits for more of a request"
    IN_LANE = "its next request has come, and waits to be served"
    IN_LINE = "it waits for an item or for a password to be checked"
    IN_TURN = "it waits until the turn has been written"
    IN_SYNC = "it waits for an fsync"
    SENDING = "it waits until the client has taken more of a response"


class TimeOver(OSError):
    """The client has stopped in the middle of a request."""


class HttpConnection:
    """For the turn it is a `turn.Client`, for operations a `client.Client`, for WSGI a socket."""

    __slots__ = (
        "fd", "socket", "session", "stats", "turn", "doing", "gone", "closing", "stalled", "listener", "user",
        "no_writes", "no_reads", "connected_at", "requests", "special", "replies",
        "received_bytes", "_greenlet", "waiter", "_failed", "_corked", "_sync_group", "_watcher", "number",
        "waits_for", "between", "sent_bytes", "asks_as", "asks_for_names", "undelivered", "_ahead", "_access", "_lane",
        "_spilled", "_whole_memory", "file", "waits", "turns",
    )  # fmt: skip

    def __init__(self, host: Any, client_socket: Any, origin: Origin, listener: Any, lane: Lane, number: int) -> None:
        """To be made in the client's greenlet. `host` is the server, `listener` where the client has come to."""
        self.fd: int = client_socket.fileno()
        self.socket = client_socket
        self.stats = host.stats
        self.turn = host.turn
        self.session = Session(host.journal, host.operations.comebacks)
        self.session.origin = origin
        self.listener = listener
        self._lane = lane
        self.number = number  # its own as long as the server runs
        self.user = ""  # whom the client's certificate names
        self.no_writes = self.no_reads = ""  # why the client may not put, or get, as long as it is connected
        self.connected_at = time.time()
        self.requests = self.waits = self.turns = 0
        self.waits_for: tuple[bytes, ...] = ()  # the queues that it waits for an item of
        self.received_bytes = self.sent_bytes = 0
        self.doing = Doing.RUNS
        self.gone = False  # the client has hung up, or has been hung up on
        self.closing = False  # it is hung up on when its request has been answered
        self.stalled = self._spilled = False
        self._whole_memory = host.whole_memory
        self.between = False  # what is read next is the first of a request
        self._ahead = b""
        self.replies: list[bytes] = []  # none: the turn sends nothing here
        self.special = False
        self._greenlet = gevent.getcurrent()
        self.waiter: Waiter | None = None
        self._failed: ServerError | None = None
        self._corked: list[bytes] | None = None
        self._sync_group = host.sync_group
        self._watcher: Any = None
        self._access = access = host.access
        self.asks_for_names = access.users is not None or (access.names_by_certificate and not listener.is_unix)
        self.asks_as: str | None = None  # who makes the request; None: nobody is asked for a name
        self.undelivered: Callable[[], None] | None = None  # to be called if the answer cannot be sent

    # -- its life

    def run(self, handle: Callable[["HttpConnection"], None]) -> None:
        """Let `handle` serve the client until one of the two hangs up. The body of its greenlet."""
        self.turn.enter(self.fd, self)
        try:
            handle(self)
        except (HangUp, OSError):
            self.give_back_undelivered()
        except Exception:
            log.exception("a client could not be served")
        finally:
            self.gone = True
            self.turn.forget(self.fd)
            if self._watcher is not None:
                self._watcher.close()
            self.socket.close()
            self.session.end()

    def give_back_undelivered(self) -> None:
        """The client has not had its answer: what it would have got goes to others."""
        undelivered, self.undelivered = self.undelivered, None
        if undelivered is not None:
            self.be_special()
            try:
                undelivered()
            except (RequestError, StorageError) as error:  # it comes back when its time is over
                log.debug("what a client did not get could not be given back: %s", error)

    def let_in(self, user: str) -> None:
        """The client's certificate names this user."""
        self.user = self.session.origin.user = user

    def hang_up(self) -> None:
        """The client has gone, or has to go: end its greenlet, wherever that waits."""
        if self.gone:
            return
        self.gone = True
        if self.waiter is not None:
            self.waiter.cancel()  # or the client might be handed an item that it gives back
        self._wake_soon()

    def broken(self) -> None:
        self.hang_up()

    def end_stalled(self) -> None:
        """The rest of what the client has begun to send does not come."""
        self.stalled = True
        self._wake_soon()

    def hold(self, size: int) -> None:
        """So many bytes of a body are, or soon will be, in memory."""
        self._whole_memory.account(self, size)

    def spill(self) -> None:
        """Others need that memory, and this client has sent nothing for longest."""
        self._spilled = True
        self._wake_soon()

    @careful
    def stop(self) -> None:
        """The server stops: answer what has been received, end the wait, then hang up. Called in the hub."""
        self.closing = True
        if self.waiter is not None:
            self.waiter.cancel()
        if self.doing is Doing.BETWEEN and not unread_bytes(self.fd):
            self.hang_up()

    @careful
    def end_wait(self) -> None:
        """A client that waits in line for an item leaves the line, as if its time were over."""
        if self.waiter is not None and self.waits_for:
            self.waiter.cancel()

    def rejudge(self) -> None:
        """Rights have changed. Each request is judged when it comes."""

    def _wake_soon(self) -> None:
        """End a wait for the client, or for its share, because the client has gone."""
        if self.doing in (Doing.BETWEEN, Doing.IN_REQUEST, Doing.SENDING, Doing.IN_LANE):
            gevent.get_hub().loop.run_callback(self._wake, self.doing)
        self.turn.stir()

    @careful
    def _wake(self, doing: Doing) -> None:
        if self.doing is doing and (self.gone or self.stalled or self._spilled):
            self._greenlet.switch()

    # -- waiting

    def _wait(self, doing: Doing) -> None:
        """Wait until the greenlet is switched to. Raises HangUp if the client has gone by then."""
        if self.gone:
            raise HangUp
        self.doing = doing
        self.waits += 1
        try:
            gevent.get_hub().switch()
        finally:
            self.doing = Doing.RUNS
        if self.gone:
            raise HangUp
        if doing is not Doing.BETWEEN:
            self.be_special()

    def begin(self) -> None:
        """A request has come: what is done from here on belongs to the turn."""
        self._failed = self.undelivered = None
        self._spilled = False
        self.requests += 1
        self.be_special()

    def be_special(self) -> None:
        """Have `end_turn` called."""
        if not self.special:
            self.special = True
            self.turn.special.append(self)

    def go_on(self) -> None:
        """After each wait: what the greenlet does from here on belongs to the turn that goes on now. Raises ServerError
        if a turn has failed, in which the request has done something."""
        if self._failed is not None:
            error, self._failed = self._failed, None
            raise error
        self.be_special()

    def wait_written(self) -> None:
        """Wait until all that the request has changed is written, and synced if it has to be. Raises ServerError if it
        could not be: then nothing of its last turn has happened."""
        self.be_special()
        self._wait(Doing.IN_TURN)
        if self._failed is not None:
            error, self._failed = self._failed, None
            raise error

    @careful
    def end_turn(self, sync: bool) -> None:
        """The turn's changes are written. Called in the hub."""
        self.turns += 1
        if sync:
            self.session.needs_sync = True
        if self.doing is not Doing.IN_TURN:
            return
        if self.session.needs_sync and self._failed is None:
            self.session.needs_sync = False
            self.doing = Doing.IN_SYNC
            self._sync_group.join(self)
            self.turn.stir()
            return
        self._resume()

    def fail_turn(self, error: StorageError) -> None:
        """Nothing of the turn has happened. `end_turn` follows."""
        self._failed = ServerError(str(error))
        if self.waiter is not None:
            self.waiter.cancel()

    @careful
    def synced(self, error: StorageError | None) -> None:
        """The fsync that the answer waited for has ended. Called in the hub."""
        if self.doing is not Doing.IN_SYNC:
            return
        if error is not None:
            self._failed = ServerError(str(error))
        self._resume()

    def _resume(self) -> None:
        """Switch to the greenlet at the end of a turn. If it does something for the next one, that must come soon."""
        self._greenlet.switch()
        if self.turn.special:
            self.turn.stir()

    def wait_for(self, waiter: Waiter, wait_ms: int) -> object:
        if self.gone:
            raise HangUp
        self.waiter = waiter
        self.doing = Doing.IN_LINE
        self.turn.await_end(self.fd, self.hang_up)
        try:
            if self.closing:
                waiter.cancel()
            handed = waiter.wait_for(wait_ms)
        finally:
            self.waiter = None
            self.turn.ignore(self.fd)
            self.doing = Doing.RUNS
        if self.gone:
            raise HangUp
        self.go_on()
        return handed

    def wait_turn(self) -> None:
        wait_round()
        if self.gone:
            raise HangUp
        self.go_on()

    def wait_sent(self, data: bytes = b"") -> None:
        raise AssertionError("responses are sent by WSGI")

    def wait_body(self, most_bytes: int) -> bytes:
        raise AssertionError("bodies are read by WSGI")

    def may(self, right: str, queue: bytes) -> bool:
        user = self.asks_as
        return user is None or (self._access.is_user(user) and self._access.rights_of(user).allow(right, queue))

    def may_see(self, queue: bytes) -> bool:
        user = self.asks_as
        return user is None or (self._access.is_user(user) and self._access.rights_of(user).any_to(queue))

    @property
    def listener_name(self) -> str:
        return str(self.listener.host)

    # -- when it is served

    @careful
    def _on_readable(self) -> None:
        """There is something to read."""
        if self.doing is Doing.BETWEEN:
            self.doing = Doing.IN_LANE
            self._lane.join(self)
        elif self.doing is Doing.IN_REQUEST:
            self._greenlet.switch()

    def serve_share(self) -> None:
        if self.doing is Doing.IN_LANE and not self.gone:
            self._greenlet.switch()

    # -- as a socket

    def makefile(self, mode: str, size: int = -1) -> Any:
        self.file = io.BufferedReader(_Bytes(self), RECV_BYTES)
        return self.file

    def wait_receive(self, buffer: memoryview) -> int:
        """Fill `buffer` with what has come, or comes next; how much that is, 0: no more will come. Raises TimeOver."""
        data = self._ahead
        if not data and self.between:
            self.between = False
            if self.closing and not unread_bytes(self.fd):
                return 0
            self._wait_readable(Doing.BETWEEN)
        while not data:
            if self.gone:
                return 0
            try:
                data = self.socket.recv(len(buffer))
            except BlockingIOError:
                self._wait_readable(Doing.IN_REQUEST)
                if self.stalled:
                    raise TimeOver("the rest of the request did not come in time") from None
                if self._spilled:
                    raise ServerError(
                        "too much memory is taken by requests that have come in part; try again"
                    ) from None
                continue
            except OSError:
                return 0
            if not data:
                return 0
            self.received_bytes += len(data)
            self.stats.bytes_read += len(data)
        size = min(len(data), len(buffer))
        buffer[:size] = data[:size]
        self._ahead = data[size:]  # a TLS record may have more than was asked for
        return size

    def _wait_readable(self, doing: Doing) -> None:
        self.turn.read_by(self.fd, self._on_readable)
        try:
            self._wait(doing)
        finally:
            self.turn.ignore(self.fd)

    def cork(self) -> None:
        """Keep what is sent from here on, until `uncork`."""
        self._corked = []

    def uncork(self) -> None:
        corked, self._corked = self._corked, None
        if corked:
            self.sendall(b"".join(corked))

    def sendall(self, data: Any) -> None:
        """Raises HangUp if the client does not take it."""
        if self._corked is not None:
            self._corked.append(data)
            if sum(map(len, self._corked)) > CORKED_BYTES:
                corked, self._corked = self._corked, None
                for one in corked:
                    self.sendall(one)
            return
        rest = memoryview(data)
        while rest:
            if self.gone:
                raise HangUp
            try:
                sent = self.socket.send(rest)
            except BlockingIOError:
                self._wait_writable()
                continue
            except OSError:
                self.gone = True
                raise HangUp from None
            self.stats.bytes_written += sent
            self.sent_bytes += sent
            rest = rest[sent:]

    def _wait_writable(self) -> None:
        if self._watcher is None:
            self._watcher = gevent.get_hub().loop.io(self.fd, WRITE)
        self._watcher.start(self._on_writable)
        try:
            self._wait(Doing.SENDING)
        finally:
            self._watcher.stop()

    @careful
    def _on_writable(self) -> None:
        if self.doing is Doing.SENDING:
            self._greenlet.switch()
            self.turn.stir()

    def close(self) -> None:
        """WSGI serves the client no more. `run` closes the socket."""

    def wait_linger(self) -> None:
        """What the client still sends is read and dropped for a while, so that it can read why it was refused."""
        self.doing = Doing.RUNS
        until = time.monotonic() + LINGER_S
        try:
            self.socket.shutdown(1)
            with gevent.Timeout(LINGER_S, False):
                while time.monotonic() < until:
                    try:
                        if not self.socket.recv(RECV_BYTES):
                            break
                    except BlockingIOError:
                        self._wait_readable(Doing.IN_REQUEST)
        except OSError:
            pass

    # -- what shows how it is

    @property
    def progress(self) -> object:
        """Changes with every byte that is received of a request; None: none is being received."""
        return self.received_bytes if self.doing is Doing.IN_REQUEST else None

    @property
    def idle(self) -> object:
        """Changes with every request; None: one is being served."""
        return self.requests if self.doing is Doing.BETWEEN else None

    @property
    def silence(self) -> object:
        """Changes with every byte that the client sends, or takes of a response; None: it waits for the server."""
        if self.doing is Doing.SENDING:
            return self.sent_bytes - unsent_bytes(self.fd)
        return self.received_bytes if self.doing in (Doing.BETWEEN, Doing.IN_REQUEST) else None


class _Bytes(io.RawIOBase):
    """What the client sends, for WSGI to read."""

    def __init__(self, client: HttpConnection) -> None:
        self._client = client

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._client.wait_receive(buffer)
