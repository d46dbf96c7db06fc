"""Which clients have sent something: one question, asked in two ways.

`Epoll` has all sockets in one epoll, which is itself watched by the loop: one call of a callback serves all that are
ready, where a watcher for each costs a call from C each. `Watchers` has a watcher of gevent's for each socket, which
runs wherever gevent does.

A poller is told for which events to watch a socket. It also tells of connections that have failed, without being asked.
With epoll that happens at once. With watchers, the sockets that nobody reads are looked at once a second; where the
system has no poll(), a failure is noticed only when the client is read or written to again.

No call here switches greenlets.
"""

import select
from collections.abc import Callable
from typing import Any, Protocol

from darner_core.errors import StartError

READ, WRITE = 1, 2  # libev's names for them

# What a socket is watched for, and what is told of it, in the numbers of epoll and poll().
READABLE = 0x1
ENDED = 0x2000  # the client has said all, or has gone; where only Linux can tell
FAILED = 0x8
CLOSED = 0x10  # in both directions

# Between two looks at sockets that nobody reads.
LOOK_S = 1.0


class Poller(Protocol):
    @property
    def poll(self) -> Callable[[int, int], list[tuple[int, int]]]:
        """(0, how many at most) -> descriptors, and what there is to tell of each."""

    def start(self, on_ready: Callable[[], None]) -> None:
        """From now on call `on_ready` when `poll` has something to tell."""

    def watch(self, fd: int, events: int) -> None:
        """Tell of READABLE, or of ENDED, or of failures alone (0)."""

    def unwatch(self, fd: int) -> None:
        """Tell nothing any more. The descriptor must be open."""

    def close(self) -> None: ...


def make_poller(name: str, loop: Any) -> Poller:
    """The poller of that name, of which "auto" is the best there is. Raises StartError if there is none here."""
    has_epoll = hasattr(select, "epoll")
    if name == "epoll" and not has_epoll:
        raise StartError('poller = "epoll": this system has none; "auto" takes what there is')
    return Epoll(loop) if has_epoll and name != "gevent" else Watchers(loop)


def _nothing() -> None:
    pass


class Epoll:
    def __init__(self, loop: Any) -> None:
        self._epoll = select.epoll()
        self._watcher = loop.io(self._epoll.fileno(), READ)
        self._watched: set[int] = set()
        self.poll = self._epoll.poll

    def start(self, on_ready: Callable[[], None]) -> None:
        self._watcher.start(on_ready)

    def watch(self, fd: int, events: int) -> None:
        if fd in self._watched:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
            self._watched.add(fd)

    def unwatch(self, fd: int) -> None:
        self._watched.remove(fd)
        self._epoll.unregister(fd)

    def close(self) -> None:
        self._watcher.stop()
        self._epoll.close()


class Watchers:
    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._watchers: dict[int, Any] = {}
        self._ready: dict[int, int] = {}  # by descriptor: what there is to tell
        self._on_ready: Callable[[], None] = _nothing
        self._is_called = False  # `on_ready` is going to be called
        self._unread = select.poll() if hasattr(select, "poll") else None  # those that are not watched for READABLE
        self._look = loop.timer(LOOK_S, LOOK_S, ref=False)

    def start(self, on_ready: Callable[[], None]) -> None:
        self._on_ready = on_ready
        if self._unread is not None:
            self._look.start(self._look_at_unread)

    def poll(self, timeout_s: int, most: int) -> list[tuple[int, int]]:
        told = list(self._ready.items())[:most]
        for fd, _ in told:
            del self._ready[fd]
        if self._ready:
            self._call()
        return told

    def watch(self, fd: int, events: int) -> None:
        watcher = self._watchers.get(fd)
        if watcher is None:
            watcher = self._watchers[fd] = self._loop.io(fd, READ)
        if events == READABLE:
            watcher.start(self._tell, fd, READABLE)
        else:
            watcher.stop()
        if self._unread is not None:
            self._unread.register(fd, 0 if events == READABLE else events)

    def unwatch(self, fd: int) -> None:
        self._watchers.pop(fd).close()
        self._ready.pop(fd, None)
        if self._unread is not None:
            self._unread.unregister(fd)

    def close(self) -> None:
        self._look.close()
        for fd in list(self._watchers):
            self.unwatch(fd)

    def _look_at_unread(self) -> None:
        assert self._unread is not None
        for fd, events in self._unread.poll(0):
            self._tell(fd, events)

    def _tell(self, fd: int, events: int) -> None:
        self._ready[fd] = self._ready.get(fd, 0) | events
        self._call()

    def _call(self) -> None:
        """Call `on_ready`, but not before all watchers of this round have told."""
        if not self._is_called:
            self._is_called = True
            self._loop.run_callback(self._run)

    def _run(self) -> None:
        self._is_called = False
        self._on_ready()
