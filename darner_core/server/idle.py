"""Who has been silent for too long: clients that stop in the middle of a request, and, if that is wanted, clients that
ask nothing any more and hold nothing, and clients from which nothing comes whatever they hold.

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

    @property
    def silence(self) -> int | None:
        """Changes with every byte that it takes; None: it waits for the server."""


C = TypeVar("C", bound=Client)


class Timeouts:
    def __init__(
        self, body_timeout_s: int, idle_timeout_s: int, client_timeout_s: int, clock: Callable[[], float]
    ) -> None:
        """0 is never."""
        self.body_timeout_s = body_timeout_s
        self.idle_timeout_s = idle_timeout_s
        self.client_timeout_s = client_timeout_s
        self._clock = clock
        self._stalled: dict[Client, tuple[int, float]] = {}  # the progress they show, and since when
        self._idle: dict[Client, float] = {}  # since when
        self._silent: dict[Client, tuple[int, float]] = {}  # as `_stalled`

    @property
    def needs_heard(self) -> bool:
        """Whether `look` has to be told who has sent something."""
        return bool(self.idle_timeout_s or self.client_timeout_s)

    def look(self, clients: Iterable[C], heard: Collection[int]) -> tuple[list[C], list[C], list[C]]:
        """Those of `clients` that have stopped half-way for too long, those that have been idle for too long, and those
        that have been silent for too long. `heard` are the descriptors of those that have sent something since they
        were last looked at."""
        now = self._clock()
        stalled: list[C] = []
        idle: list[C] = []
        silent: list[C] = []
        for client in clients:
            if self.body_timeout_s and self._is_still(self._stalled, client, client.progress, now, self.body_timeout_s):
                stalled.append(client)
                continue
            if self.client_timeout_s:
                sign = None if client.fd in heard else client.silence
                if self._is_still(self._silent, client, sign, now, self.client_timeout_s):
                    silent.append(client)
                    continue
            if self.idle_timeout_s:
                if not client.idle or client.fd in heard:
                    self._idle.pop(client, None)
                elif now - self._idle.setdefault(client, now) >= self.idle_timeout_s:
                    idle.append(client)
        return stalled, idle, silent

    def _is_still(
        self, seen: dict[Client, tuple[int, float]], client: Client, sign: int | None, now: float, timeout_s: int
    ) -> bool:
        """Whether `sign` has not changed for so long."""
        if sign is None:
            seen.pop(client, None)
            return False
        before, since = seen.get(client, (None, now))
        if sign != before:
            since = now
        seen[client] = (sign, since)
        return now - since >= timeout_s

    def forget(self, client: Client) -> None:
        """It is gone."""
        for seen in (self._stalled, self._idle, self._silent):
            seen.pop(client, None)
