"""Clients that have sent more than can be served at once, and wait for their shares.

A client that has sent many requests is served for SHARE_S, then its rest waits, and the client that has been served
least comes next. All shares of a turn together take TURN_S. So a hundred clients that send as fast as they can cost
another client that much time and no more.

No call here switches greenlets, except that a client's share may be had in its greenlet.
"""

import logging
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Protocol

from darner_core import NAME
from darner_core.server.careful import cut_off

log = logging.getLogger(NAME)

# How long one client is served before others are, and all of them before the turn ends and the loop goes round.
SHARE_S = 0.002
TURN_S = 0.01

# A client that was served more than the others some time ago does not wait for a thousand of them to catch up, unless
# what it asks takes longer than a share.
MOST_DEBT_S = 0.0002

# How much is read of a client at a time; and while clients wait for their shares: what has been read and not been
# served is memory.
RECV_BYTES = 64 << 10
CROWDED_RECV_BYTES = 4 << 10


class Sharing(Protocol):
    """A client that waits for its share."""

    used_s: float  # how long it has been served in shares
    last_share_s: float  # how long the last of them took

    def serve_share(self) -> None:
        """The client's share has come, see `Shares.join`."""

    def hang_up(self) -> None:
        """The client has gone."""


class Shares:
    def __init__(self, come_back: Callable[[], None], clock: Callable[[], float]) -> None:
        """`come_back` is called when clients wait, and sees to it that `serve` is called soon."""
        self.clock = clock
        self.waiting: list[tuple[float, int, Sharing]] = []  # a heap: the client that has used least comes first
        self.recv_bytes = RECV_BYTES  # how much to read of a client at a time
        self.crowded = False  # there is more to be served than everybody can have at once
        self.turn_ends = 0.0  # when the shares of this turn are used up; 0, with which a turn begins: not known yet
        self._come_back = come_back
        self._numbers = count()
        self._served: Sharing | None = None  # the client that has its share now
        self._begun = 0.0  # when that share began
        self._least_used_s = 0.0  # by those that wait

    def ends(self) -> float:
        """Until when a client that has not joined may be served. While others wait, that is now: it has to join."""
        now = self.clock()
        if self.waiting:
            return now
        if not self.turn_ends:
            self.turn_ends = now + TURN_S
        return min(now + SHARE_S, self.turn_ends)

    def join(self, client: Sharing, asks_anew: bool = False) -> None:
        """`client` has to wait for its share: have its `serve_share` called when that comes. `asks_anew`: it has had no
        share yet for what it asks."""
        if client is self._served:
            self._charge(self.clock())
        # A client that asks seldom comes before those that always do, but what it saves up is a turn at most.
        client.used_s = max(client.used_s, self._least_used_s - TURN_S)
        if asks_anew and client.last_share_s <= SHARE_S:
            client.used_s = min(client.used_s, self._least_used_s + MOST_DEBT_S)
        heappush(self.waiting, (client.used_s, next(self._numbers), client))
        self.recv_bytes = CROWDED_RECV_BYTES
        self.crowded = True
        self._come_back()

    def serve(self) -> None:
        waiting, clock = self.waiting, self.clock
        now = clock()
        until = now + TURN_S
        while waiting and now < until:
            self._least_used_s, _, client = heappop(waiting)
            self._served, self._begun = client, now
            try:
                client.serve_share()
            except Exception:
                log.exception("a client could not be served")
                cut_off(client)
            now = clock()
            if self._served is not None:  # else it waits for another share, and has been charged
                self._charge(now)
        if waiting:
            self._come_back()
        else:
            self.recv_bytes = RECV_BYTES

    def _charge(self, now: float) -> None:
        client, self._served = self._served, None
        if client is not None:
            client.last_share_s = now - self._begun
            client.used_s += client.last_share_s
