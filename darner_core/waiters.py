"""Clients that wait for an item, in order of arrival.

The promise of `WaitingLine`: an item that becomes available goes to the client that has waited longest. To each waiter
exactly one of three things happens, whichever comes first: it gets an item, it has waited long enough, or it is
cancelled. What has been decided stays decided even if the waiter's greenlet runs later.

A waiter may stand in several lines, and gets one item from one of them. Whatever is decided, it leaves all its lines in
that moment, so that no other line hands it anything or passes over another client for it.

Names that begin with wait_ switch greenlets; nothing else here does. A line knows nothing of queues or sockets.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import gevent
from gevent.event import Event

SHORTEST_S = 1e-6  # a timer, however short, goes through the loop


def wait_round(at_least_s: float = 0.0) -> None:
    """Let the loop go round once, so that all that can be read is served.

    sleep(0) would not do: gevent runs what is ready up to fifty times before it looks at the sockets again.
    """
    gevent.sleep(max(SHORTEST_S, at_least_s))


class Timer(Protocol):
    """A call that will be made later, unless it is cancelled by `close`."""

    def close(self) -> None: ...


class Waiter:
    """One client in one line or several. `got` is what it was handed, or None."""

    __slots__ = ("peeks", "got", "_lines", "_decided")

    def __init__(self, line: "WaitingLine", peeks: bool) -> None:
        self.peeks = peeks  # the client wants to see an item, not to have it
        self.got: Any = None
        self._lines = [line]
        self._decided: Event = Event()

    def wait_for(self, wait_ms: int) -> Any:
        """Wait until something is handed over, the waiter is cancelled, or `wait_ms` are over; what was handed over, or
        None."""
        if not self._decided.wait(wait_ms / 1000):
            self.cancel()
        return self.got

    def cancel(self) -> None:
        """Leave all lines. Nothing happens if the waiter has been handed something already."""
        if not self._decided.is_set():
            self._leave_all()
            self._decided.set()

    def hand(self, thing: Any) -> None:
        """Give the waiter what it has waited for. It stands in no line any more."""
        if len(self._lines) > 1:  # else `next` has taken the waiter out of its only line
            self._leave_all()
        self.got = thing
        self._decided.set()

    def _leave_all(self) -> None:
        for line in self._lines:
            line.leave(self)

    def joined(self, line: "WaitingLine") -> None:
        """Called by a line that the waiter stands in from now on as well."""
        self._lines.append(line)


class WaitingLine:
    """The waiters of one queue or cursor, including those that peek."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: OrderedDict[Waiter, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiters)

    def __iter__(self) -> Iterator[Waiter]:
        """Those that wait now, first the one that has waited longest."""
        return iter(list(self._waiters))

    def join(self, peeks: bool = False, waiter: Waiter | None = None) -> Waiter:
        """A new waiter at the end of the line; or `waiter`, which stands in other lines and has not been decided."""
        if waiter is None:
            waiter = Waiter(self, peeks)
        else:
            waiter.joined(self)
        self._waiters[waiter] = None
        return waiter

    def leave(self, waiter: Waiter) -> None:
        self._waiters.pop(waiter, None)

    def wake_peeks(self, thing: Any) -> None:
        """Hand `thing` to all that peek, and let the others wait on."""
        for waiter in [waiter for waiter in self._waiters if waiter.peeks]:
            self.leave(waiter)
            waiter.hand(thing)

    def next(self) -> Waiter:
        """Take the waiter that has waited longest out of the line, to be handed something. Raises KeyError if there is
        none."""
        return self._waiters.popitem(last=False)[0]

    def rejoin(self, waiter: Waiter) -> None:
        """Put the waiter that `next` took out back at the front, because there was nothing to hand it."""
        self._waiters[waiter] = None
        self._waiters.move_to_end(waiter, last=False)


def wait_in_thread(task: Callable[[], None]) -> None:
    """Run `task` in a thread, and raise here what it raises. If the thread raised it, gevent would print it as well."""
    error = gevent.get_hub().threadpool.apply(_error_of, (task,))
    if error is not None:
        raise error


def _error_of(task: Callable[[], None]) -> Exception | None:
    try:
        task()
    except Exception as error:
        return error
    return None
