"""The turn of the event loop, for all clients at once: clients that have sent something are read and served, the turn's
changes are written, and then the replies are sent. So no reply leaves before its change is in the write-ahead log.

This is the hot path: two loops over plain locals, because with small requests the interpreter's time is all that a
server in Python can save (figures in docs/benchmarks.md). Whatever does not fit these loops is done by the Connection:
a request in pieces, a wait, an fsync, an error.

A Poller tells which sockets are ready. A socket stays with it while its client is not read, so that a reset is noticed
then, too. A client that has sent many requests at once is served in Shares.

No call here switches greenlets, except that what a client's greenlet waits for is handed to it, its end included.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from darner_core import NAME
from darner_core.errors import StorageError
from darner_core.operations.session import Session
from darner_core.operations.stats import Stats
from darner_core.protocols.contract import Request
from darner_core.server.careful import cut_off
from darner_core.server.poller import CLOSED, ENDED, FAILED, READABLE, Poller
from darner_core.server.shares import Shares, Sharing
from darner_core.shared_memory import PipelineMemory

log = logging.getLogger(NAME)

# How many clients are served in a turn; the others that are ready come in the next.
MOST_READY = 1024

# When fewer clients than this were ready, the poller is asked once more before the turn ends: the more requests share
# a write, the cheaper they are (a tenth more requests from 10 clients; with many it would only delay the replies).
FEW_READY = 8

# When only few were ready, the turn ends at once and the next begins, up to this many before the loop goes round: by
# the time all replies have been sent, the first clients have asked again, and a round of the loop costs as much as a
# request (a tenth more requests from 3 to 10 clients, nothing from one or a hundred).
MOST_TURNS = 8

# This many ready at once may together be too much for a turn, even if each has sent only a little.
MANY_READY = 256

# Priorities of libev: after the poller's watcher; and last of all, when gevent has run everything that is ready.
LOW_PRIORITY, LAST_PRIORITY = -1, -2


class Client(Sharing, Protocol):
    """The connection, as the turn sees it."""

    session: Session
    recv: Callable[[int], bytes]
    send: Callable[[bytes], int]
    kept_line: Callable[[bytes], Request | None]  # a line of this client's dialect that has been parsed before
    replies: list[bytes]  # of this turn, one element a request
    special: bool  # in `Turn.special`

    def serve(self, data: bytes) -> None:
        """Serve `data`, which is not one whole plain request."""

    def failed(self, request: Request, error: Exception) -> None:
        """Answer `request`, whose command has raised `error`."""

    def start_task(self, task: Any) -> None:
        """Run `task` in the client's greenlet: a command has to wait for something."""

    def wait_to_write(self, unsent: bytes) -> None:
        """Keep `unsent` until the client, which does not take its replies as fast as it asks, can take more."""

    def broken(self) -> None:
        """The connection has failed while nobody reads it."""

    def end_turn(self, sync: bool) -> None:
        """The turn's changes are written. Called for the clients in `Turn.special`."""

    def fail_turn(self, error: StorageError) -> None:
        """Nothing of the turn has happened. Called for clients that have replies or are in `Turn.special`."""


class Journal(Protocol):
    """What the turn needs of the journal."""

    @property
    def slices(self) -> deque[Iterator[None]]:
        """Work that is too much for one turn. At the end of each turn, one step of each iterator is done."""

    def commit(self) -> bool:
        """Write what has changed; False: nothing has. Raises StorageError; then all of it has been undone."""


class Disk(Protocol):
    look_at_bytes: int  # when this many bytes have been received in all, it is time to look for room

    def look_for_room(self) -> None:
        """Raises nothing."""

    def write_failed(self, error: StorageError) -> None: ...


class Turn:
    """The clients that can be read, and those that have replies to be sent at the end of the turn."""

    def __init__(
        self,
        loop: Any,
        poller: Poller,
        stats: Stats,
        journal: Journal,
        disk: Disk,
        pipeline_memory: PipelineMemory,
        syncs: bool = False,
        tells_heard: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`syncs`: replies to what has changed something wait for an fsync. `tells_heard`: see `take_heard`."""
        self.served: list[Client] = []  # have replies; some perhaps more than once
        self.special: list[Client] = []  # have more to do at the end of the turn than to send replies
        self._stats = stats
        self._journal = journal
        self._disk = disk
        self._pipeline_memory = pipeline_memory
        self._syncs = syncs
        self._plain: dict[int, Client] = {}  # by file descriptor: clients that `_serve` serves itself
        self._callbacks: dict[int, Callable[[], object]] = {}  # what the others do when there is something to read
        self._watched: dict[int, int] = {}  # by file descriptor: what the poller is asked to tell
        self._clients: dict[int, Client] = {}  # all of them, read or not
        self._heard: set[int] | None = set() if tells_heard else None
        self._poller = poller
        self._poll = poller.poll
        poller.start(self._on_ready)
        self.shares = Shares(self._come_back, clock)
        self._go_on = loop.timer(0, ref=False)
        self._go_on.priority = LOW_PRIORITY
        self._once_more = loop.timer(0, ref=False)
        self._before_sleep = loop.prepare(ref=False)
        self._before_sleep.priority = LAST_PRIORITY

    def start(self) -> None:
        """From now on the turn ends before the loop sleeps."""
        self._before_sleep.start(self.end)

    def close(self) -> None:
        self._before_sleep.stop()
        self._go_on.close()
        self._once_more.close()
        self._poller.close()

    def _come_back(self) -> None:
        """Clients wait for their shares."""
        if not self._go_on.active:
            self._go_on.start(self._on_ready)

    def stir(self) -> None:
        """Something was made ready at the end of the turn: have the loop go round once more before it sleeps. gevent
        looks for what is ready before the turn ends."""
        if not self._once_more.active:
            self._once_more.start(_nothing)

    # -- which clients are read

    def enter(self, fd: int, client: Client) -> None:
        """A new client, which nobody reads as yet."""
        self._clients[fd] = client

    def read_plain(self, fd: int, client: Client) -> None:
        """Serve `client`: it has sent nothing that is incomplete, and has no replies that it has not taken."""
        self.ignore(fd)
        self._plain[fd] = client
        self._watch(fd, READABLE)

    def read_by(self, fd: int, callback: Callable[[], object]) -> None:
        """Call `callback` while there is something to read."""
        self.ignore(fd)
        self._callbacks[fd] = callback
        self._watch(fd, READABLE)

    def await_end(self, fd: int, callback: Callable[[], object]) -> None:
        """Nobody reads; call `callback` when the client has said all that it is going to say, or has gone."""
        self.ignore(fd)
        self._callbacks[fd] = callback
        self._watch(fd, ENDED)

    def ignore(self, fd: int) -> None:
        """Nobody reads. The kernel is told only if the client does send something."""
        self._plain.pop(fd, None)
        self._callbacks.pop(fd, None)

    def forget(self, fd: int) -> None:
        """Before the socket is closed."""
        self.ignore(fd)
        self._clients.pop(fd, None)
        self._unwatch(fd)

    def _watch(self, fd: int, events: int) -> None:
        if self._watched.get(fd) != events:
            self._poller.watch(fd, events)
            self._watched[fd] = events

    def _unwatch(self, fd: int) -> None:
        if self._watched.pop(fd, None) is not None:
            self._poller.unwatch(fd)

    def take_heard(self) -> set[int]:
        """The descriptors that were ready since this was asked last, if the turn was told to keep them."""
        heard = self._heard or set()
        if heard:
            self._heard = set()
        return heard

    # -- reading and serving

    def _on_ready(self) -> None:
        poll = self._poll
        self.shares.turn_ends = 0.0
        for _ in range(MOST_TURNS):
            ready = poll(0, MOST_READY)
            if not ready:
                break
            self._serve(ready)
            if 1 < len(ready) < FEW_READY and (more := poll(0, MOST_READY)):
                self._serve(more)
            if len(ready) >= FEW_READY or self.special:
                break  # special clients may have something to do in the loop
            self.end()
        if self.shares.waiting:
            self.end()  # a client that has just been served has its reply before the shares begin
            self._go_on.stop()
            self.shares.serve()

    def _serve(self, ready: list[tuple[int, int]]) -> None:
        plain, served = self._plain.get, self.served.append
        bytes_read = 0
        shares = self.shares
        shares.crowded = len(ready) >= MANY_READY or bool(shares.waiting)
        recv_bytes = shares.recv_bytes
        if self._heard is not None:
            self._heard.update([fd for fd, _ in ready])
        for fd, events in ready:
            try:
                client = plain(fd)
                if client is None:
                    self._on_other(fd, events)
                    continue
                try:
                    data = client.recv(recv_bytes)
                except BlockingIOError:
                    continue
                except OSError:
                    data = b""
                if not data:
                    if not client.replies:  # else it is told again when they have been sent: it may read them yet
                        client.hang_up()
                    continue
                # One whole request, as clients send that do not pipeline, is served right here.
                bytes_read += len(data)
                line, newline, body = data.partition(b"\n")
                request = client.kept_line(line)
                if (
                    request is None
                    or not newline
                    or len(body) != request.plain_bytes
                    or (body and body[-2:] != b"\r\n")
                ):
                    self._stats.bytes_read += bytes_read  # before any command that tells it
                    bytes_read = 0
                    client.serve(data)
                    recv_bytes = shares.recv_bytes
                    continue
                if body:
                    body = body[:-2]
                try:
                    reply = request.run(request, body, client.session)
                except Exception as error:
                    client.failed(request, error)
                    continue
                if reply.__class__ is bytes:
                    if reply:
                        client.replies.append(reply)
                        served(client)
                else:
                    self._stats.bytes_read += bytes_read
                    bytes_read = 0
                    client.start_task(reply)
            except Exception:
                # gevent would stop the watcher, which is everybody's.
                log.exception("a client could not be served")
                self.ignore(fd)
                if client is not None:
                    cut_off(client)
        self._stats.bytes_read += bytes_read

    def _on_other(self, fd: int, events: int) -> None:
        callback = self._callbacks.get(fd)
        if callback is not None:
            callback()
        elif events & (FAILED | CLOSED):
            # The poller tells of these whether it was asked to or not, again and again.
            self._unwatch(fd)
            client = self._clients.get(fd)  # None: it was closed in this turn
            if client is not None and events & FAILED:  # else a Unix socket: what was sent may still be read
                client.broken()
        elif fd in self._watched:
            self._watch(fd, 0)

    # -- the end of the turn

    def end(self) -> None:
        """Write what the turn has changed, and only then send its replies."""
        wrote = False
        try:
            wrote = self._journal.commit()
        except StorageError as error:
            self._disk.write_failed(error)
            self.fail(error)
        except Exception:
            # Nobody knows what memory holds now, but the disk holds what was answered: as after kill -9.
            log.critical("a turn could not be ended; the server ends at once", exc_info=True)
            logging.shutdown()
            os._exit(1)
        # From here on nothing is raised: the turn belongs to all clients, and what fails is one client's.
        if self.served or self.special:
            self.send(sync=wrote and self._syncs)
            self._pipeline_memory.turn_bytes = 0
        if self._stats.bytes_read >= self._disk.look_at_bytes:
            self._disk.look_for_room()
        if self._journal.slices:
            self._do_slices()

    def _do_slices(self) -> None:
        """Do one step of each thing that is too much for one turn."""
        slices = self._journal.slices
        for _ in range(len(slices)):
            piece = slices.popleft()
            try:
                for _ in piece:
                    slices.append(piece)
                    break
            except Exception:
                log.exception("work in slices was ended by an error")
        self.stir()

    def send(self, sync: bool) -> None:
        """The turn's changes are written: send its replies; first comes an fsync for all of them if `sync`."""
        served, special = self.served, self.special
        self.served, self.special = [], []
        self.shares.turn_ends = 0.0
        if sync:
            special = list(dict.fromkeys(special + served))
            served = []
        join = b"".join
        bytes_written = 0
        for client in served:
            if client.special:
                continue
            replies = client.replies
            if not replies:
                continue
            data = join(replies)
            try:
                sent = client.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                cut_off(client)
                continue
            replies.clear()
            bytes_written += sent
            if sent != len(data):
                try:
                    client.wait_to_write(data[sent:])
                except Exception:
                    log.exception("a client could not be answered")
                    cut_off(client)
        self._stats.bytes_written += bytes_written
        for client in special:
            client.special = False
            try:
                client.end_turn(sync)
            except Exception:
                log.exception("a client could not be answered")
                cut_off(client)

    def fail(self, error: StorageError) -> None:
        """The turn's changes could not be written, and are undone."""
        for client in dict.fromkeys(self.served + self.special):
            try:
                client.fail_turn(error)
            except Exception:
                log.exception("a client could not be told that its turn has failed")
                cut_off(client)


def _nothing() -> None:
    pass
