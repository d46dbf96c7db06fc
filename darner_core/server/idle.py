"""Clients that have been silent for too long: stalled in the middle of a request; idle, asking nothing and holding
nothing; or silent, sending nothing whatever they hold.

They are looked at about once a second, by what each connection shows; serving a request costs nothing for it. Times are
of the monotonic clock, which nobody can set. Only `wait_look` switches greenlets.
"""

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

import gevent

from darner_core.errors import Incomplete
from darner_core.operating_system import unsent_bytes
from darner_core.server.careful import careful
from darner_core.server.states import UNOCCUPIED, Ending, State
from darner_core.waiters import wait_round

if TYPE_CHECKING:
    from darner_core.server.connection import Connection

# How many clients are looked at in one go, which takes 0.3 ms.
LOOKED_AT = 500

# -- what a client shows


def progress(client: "Connection") -> int | None:
    """Changes with every byte that is received of a request, or sent of the last reply; None: neither goes on."""
    if client.ending is not None:
        return -1 - _untaken_bytes(client)
    if client.state is State.IN_BODY or (client.state is State.READ and client.inbox.reader.in_pieces):
        return client.inbox.received_bytes
    return None


def is_idle(client: "Connection") -> bool:
    """Asks nothing, waits for nothing, holds nothing."""
    return client.state is State.READ and not client.inbox.reader.in_pieces and client.session.holds_nothing


def silence(client: "Connection") -> int | None:
    """Changes with every byte that the client takes of what it is sent; None: the client waits for the server. Whether
    the client has sent something, the turn knows, see `Turn.take_heard`."""
    its_turn = client.state in ITS_TURN or client.ending is not None
    if not its_turn or client.outbox.held:
        return None
    return _untaken_bytes(client) if client.outbox.unsent else 0


ITS_TURN = UNOCCUPIED | {State.IN_BODY, State.SENDING}


def _untaken_bytes(client: "Connection") -> int:
    """How many bytes of its replies the client has not taken. Those in the kernel's buffer count, too: the kernel asks
    for more only when a third of that buffer is free."""
    return len(client.outbox.unsent) + unsent_bytes(client.fd)


# -- what is done about it, in the hub


@careful
def end_stalled(client: "Connection", timeout_s: int) -> None:
    """The rest of what the client has begun to send does not come."""
    if client.state is State.GONE or progress(client) is None:
        return
    if client.ending is not None:
        client.hang_up()
        return
    what = "request" if client.inbox.reads_whole else "line"
    if client.state is State.IN_BODY or client.inbox.reader.body_missing:
        what = "item"
    client.refuse_rest(Incomplete(f"the rest of the {what} did not come for {timeout_s} s"))


@careful
def end_idle(client: "Connection") -> None:
    if is_idle(client) and client.ending is None:
        client.close(Ending.AT_ONCE)
        client.be_special()


@careful
def end_silent(client: "Connection") -> None:
    """What the client holds goes to others."""
    if silence(client) is not None:
        client.hang_up()


class _Stillness:
    """Whether a client has shown the same sign for too long."""

    def __init__(self, timeout_s: int) -> None:
        """0 is never."""
        self.timeout_s = timeout_s
        self._seen: dict[Connection, tuple[int, float]] = {}  # the last sign, and since when

    def lasts(self, client: "Connection", sign: int | None, now: float) -> bool:
        """`sign` None: what is watched for does not go on."""
        if sign is None:
            self.forget(client)
            return False
        before, since = self._seen.get(client, (None, now))
        if sign != before:
            since = now
        self._seen[client] = (sign, since)
        return now - since >= self.timeout_s

    def forget(self, client: "Connection") -> None:
        self._seen.pop(client, None)


class Timeouts:
    def __init__(
        self, body_timeout_s: int, idle_timeout_s: int, client_timeout_s: int, clock: Callable[[], float]
    ) -> None:
        """A timeout of 0 is never."""
        self._clock = clock
        self._stalled = _Stillness(body_timeout_s)
        self._idle = _Stillness(idle_timeout_s)
        self._silent = _Stillness(client_timeout_s)
        self._all = (self._stalled, self._idle, self._silent)

    def wait_look(self, connections: Collection["Connection"], heard: Collection[int]) -> None:
        """Hang up on those of `connections` that have been silent for too long; to be called about once a second.
        `heard`: as in `look`. Switches."""
        if not any(one.timeout_s for one in self._all):
            return
        loop = gevent.get_hub().loop
        several = list(connections)
        for start in range(0, len(several), LOOKED_AT):
            here = [one for one in several[start : start + LOOKED_AT] if one in connections]
            stalled, idle, silent = self.look(here, heard)
            for client in stalled:
                loop.run_callback(end_stalled, client, self._stalled.timeout_s)
            for client in idle:
                loop.run_callback(end_idle, client)
            for client in silent:
                loop.run_callback(end_silent, client)
            wait_round()

    def look(
        self, clients: Iterable["Connection"], heard: Collection[int]
    ) -> tuple[list["Connection"], list["Connection"], list["Connection"]]:
        """Those of `clients` that have been stalled, idle and silent for too long: three lists. `heard` are the
        descriptors of the clients that have sent something since they were last looked at."""
        now = self._clock()
        stalled: list[Connection] = []
        idle: list[Connection] = []
        silent: list[Connection] = []
        for client in clients:
            if self._stalled.timeout_s and self._stalled.lasts(client, progress(client), now):
                stalled.append(client)
                continue
            has_sent = client.fd in heard
            if self._silent.timeout_s and self._silent.lasts(client, None if has_sent else silence(client), now):
                silent.append(client)
                continue
            if self._idle.timeout_s:
                sign = None if has_sent or not is_idle(client) else 0
                if self._idle.lasts(client, sign, now):
                    idle.append(client)
        return stalled, idle, silent

    def forget(self, client: "Connection") -> None:
        for one in self._all:
            one.forget(client)
