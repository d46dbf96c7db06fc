"""Who has been silent for too long: clients that stop in the middle of a request, and, if that is wanted, clients that
ask nothing any more.

It is looked at about once a second, by what each client shows of itself; serving a request costs nothing for it. Times
are of the monotonic clock, which nobody can set. No call here switches greenlets.
"""

from collections.abc import Callable, Collection, Hashable, Iterable
from typing import Protocol, TypeVar


class Client(Hashable, Protocol):
    """The connection, as it is looked at."""

    @property
    def fd(self) -> int: ...

    @property
    def progress(self) -> int | None:
        """Changes with every byte that is received of a request, or sent of the last reply; None: neither goes on."""

    @property
    def idle(self) -> bool:
        """Asks nothing, waits for nothing, holds nothing."""


C = TypeVar("C", bound=Client)


class Timeouts:
    def __init__(self, body_timeout_s: int, idle_timeout_s: int, clock: Callable[[], float]) -> None:
        """0 is never."""
        self.body_timeout_s = body_timeout_s
        self.idle_timeout_s = idle_timeout_s
        self._clock = clock
        self._stalled: dict[Client, tuple[int, float]] = {}  # the progress they show, and since when
        self._idle: dict[Client, float] = {}  # since when

    def look(self, clients: Iterable[C], heard: Collection[int]) -> tuple[list[C], list[C]]:
        """Those of `clients` that have stopped half-way for too long, and those that have been idle for too long.
        `heard` are the descriptors of those that have sent something since they were last looked at."""
        now = self._clock()
        stalled: list[C] = []
        idle: list[C] = []
        for client in clients:
            if self.body_timeout_s and self._is_stalled(client, now):
                stalled.append(client)
            elif self.idle_timeout_s:
                if not client.idle or client.fd in heard:
                    self._idle.pop(client, None)
                elif now - self._idle.setdefault(client, now) >= self.idle_timeout_s:
                    idle.append(client)
        return stalled, idle

    def _is_stalled(self, client: Client, now: float) -> bool:
        progress = client.progress
        if progress is None:
            self._stalled.pop(client, None)
            return False
        before, since = self._stalled.get(client, (None, now))
        if progress != before:
            since = now
        self._stalled[client] = (progress, since)
        return now - since >= self.body_timeout_s

    def forget(self, client: Client) -> None:
        """It is gone."""
        self._stalled.pop(client, None)
        self._idle.pop(client, None)
