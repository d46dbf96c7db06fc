"""What one client's greenlet does: it waits for something to do, and runs what a command has to wait for.

To the functions that wait, a ClientGreenlet is the client, `client.Client`. It lives as long as its greenlet runs. The
Connection knows what the loop does for the client meanwhile.

All calls here are made in the client's greenlet. Names that begin with wait_ may switch greenlets, `run` does.
"""

import logging
import socket
from typing import TYPE_CHECKING

import gevent
from gevent.event import Event

from darner_core import NAME
from darner_core.errors import RequestError, StorageError
from darner_core.server import serving
from darner_core.server.serving import SHARES, Task
from darner_core.server.shares import RECV_BYTES
from darner_core.server.states import ClientGone, Ending, State
from darner_core.waiters import Waiter, wait_round

if TYPE_CHECKING:
    from darner_core.server.connection import Connection

log = logging.getLogger(NAME)

# After an error the connection is closed for writing, and what the client still sends is read and dropped for up to
# this time: closing at once would reset it, and the client might never see why.
LINGER_S = 1.0


class ClientGreenlet:
    __slots__ = ("session", "client", "_inbox", "_outbox", "_task_bytes")

    def __init__(self, client: "Connection") -> None:
        self.session = client.session
        self.client = client
        self._inbox = client.inbox
        self._outbox = client.outbox
        self._task_bytes = 0  # bytes of tasks' replies since the client last had none left to take

    # -- the life of the client

    def run(self) -> None:
        """Serve the client until one of the two hangs up."""
        client = self.client
        try:
            while client.state is not State.GONE and not (client.ending is not None and self._outbox.is_empty):
                # A client that has just had its share may have sent more: that is answered before the server stops.
                if client.host.stopping and client.ending is None and not client.share_ends:
                    client.close(Ending.AT_ONCE)
                    client.be_special()
                task = self._wait_task()
                while task is not None:
                    self._run_task(task)
                    self._require_client()  # not every task that waits sees its client go
                    serve = serving.serve_backlog if task in SHARES else serving.serve_in_shares
                    task = serve(client, client.backlog)
                    while task is None and self._inbox.ahead and client.ending is None:
                        task = serving.serve_in_shares(client, self._inbox.take_ahead())
        except ClientGone:
            pass
        except Exception:
            log.exception("a client could not be served")
        finally:
            client.drop()
            if client.ending is Ending.LINGERS and client.state is not State.GONE:
                self._wait_linger()

    def _wait_task(self) -> Task | None:
        """Let the loop serve the client until there is something to wait for; None: until the end."""
        client = self.client
        client.move(State.PAUSED)
        client.resume()
        try:
            task: Task | None = gevent.get_hub().switch()
            return task
        finally:
            client.end_state()

    def _run_task(self, task: Task) -> None:
        """Run what a command has to wait for, and add its reply."""
        client, outbox = self.client, self._outbox
        outbox.mid_reply = False
        client.failed_turn = None
        # Between two requests the client is owed replies alone. If a turn fails, these are replaced in any case.
        client.is_told = task not in (serving.wait_taken, *SHARES)
        try:
            reply = task(self)
            if client.failed_turn is not None:
                raise client.failed_turn
        except (RequestError, StorageError) as error:
            serving.answer_error(client, error)
        except ClientGone:
            raise
        except Exception as error:
            serving.answer_failure(client, None, error)
        else:
            if reply:
                client.replies.append(reply)
                self._task_bytes += len(reply)
                client.pipeline_memory.turn_bytes += len(reply)
            client.is_told = False
            if outbox.mid_reply or self._task_bytes > serving.reply_limit(client):
                del reply  # else it would be kept in memory until the client has taken it
                self._task_bytes = 0
                self.wait_sent()
                outbox.mid_reply = False
        client.is_told = False
        client.be_special()

    def _wait_linger(self) -> None:
        client = self.client
        client.move(State.LINGERING)
        try:
            client.socket.shutdown(socket.SHUT_WR)
            client.turn.read_by(client.fd, gevent.getcurrent().switch)
            with gevent.Timeout(LINGER_S, False):
                while True:
                    gevent.get_hub().switch()
                    try:
                        if not client.recv(RECV_BYTES):
                            break
                    except BlockingIOError:
                        pass  # part of a TLS record
        except OSError:
            pass

    # -- waiting

    def wait_in(self, state: State) -> None:
        """Wait in `state` until the greenlet is switched to. Raises ClientGone if the client has gone by then."""
        self._require_client()
        self.client.move(state)
        try:
            gevent.get_hub().switch()
        finally:
            self.client.end_state()
        self._require_client()

    def _require_client(self) -> None:
        if self.client.state is State.GONE:
            raise ClientGone

    def _go_on(self) -> None:
        """After each wait: what the greenlet does from here on belongs to the turn that goes on now. Raises ServerError
        if an earlier turn, in which it has done something, has failed."""
        client = self.client
        if client.failed_turn is not None:
            error, client.failed_turn = client.failed_turn, None
            raise error
        client.be_special()

    def wait_for(self, waiter: Waiter, wait_ms: int) -> object:
        self._require_client()
        client = self.client
        client.waiter = waiter
        client.share_ends = 0.0
        client.read_ahead()
        client.move(State.IN_LINE)
        try:
            handed = waiter.wait_for(wait_ms)
        finally:
            client.waiter = None
            client.turn.ignore(client.fd)
            client.end_state()
        self._require_client()
        self._go_on()
        return handed

    def wait_sent(self, data: bytes = b"") -> None:
        client = self.client
        says_more = bool(data)
        if says_more:
            client.replies.append(data)
            self._outbox.mid_reply = True
        del data  # else it would be kept in memory until the client has taken it
        client.be_special()
        client.share_ends = 0.0
        while not self._outbox.is_empty:
            self._require_client()
            if client.ending is not None and not client.replies:
                raise ClientGone
            client.sent = Event()
            client.move(State.SENDING)
            try:
                client.sent.wait()
            finally:
                client.end_state()
        self._require_client()
        if client.ending is not None and says_more:
            raise ClientGone
        self._go_on()

    def wait_body(self, most_bytes: int) -> bytes:
        client = self.client
        data = self._inbox.take_body(most_bytes)
        while not data:
            self._require_client()
            # Through the loop even if there is more to read already: the others are served in between.
            client.share_ends = 0.0
            client.turn.read_by(client.fd, gevent.getcurrent().switch)
            try:
                self.wait_in(State.IN_BODY)
            finally:
                client.turn.ignore(client.fd)
            self._go_on()  # before anything is taken: a task that is told of a failed turn skips the rest
            received = self._inbox.receive_body(most_bytes)
            if received == b"":
                client.on_end()
                self._require_client()
            data = received or b""
        return data

    def wait_turn(self) -> None:
        wait_round()
        self._require_client()
        self.client.share_ends = 0.0
        if serving.is_share_over(self.client):
            serving.wait_share(self)
        self._go_on()

    def may_see(self, queue: bytes) -> bool:
        guard = self.client.guard
        return guard is None or guard.may_see(queue)

    def may(self, right: str, queue: bytes) -> bool:
        guard = self.client.guard
        return guard is None or guard.may(right, queue)
