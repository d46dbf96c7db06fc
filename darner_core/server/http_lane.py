"""HTTP requests that have come and wait to be served: behind all clients that ask briefly, and a few at a time.

A request over HTTP takes as long as ten of memcache's. If all that are there were served in the turn in which they
come, memcache's clients of that turn would wait for all of them. So those are answered first, and then there is HTTP
for LANE_S; what is left waits for another round of the loop.

Nothing here switches greenlets, except that a client is served in its greenlet.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from darner_core import NAME
from darner_core.server.careful import cut_off
from darner_core.server.turn import LOW_PRIORITY

log = logging.getLogger(NAME)

# How long requests are served before others are looked at: that is two or three.
LANE_S = 0.0002

# The same while nobody else asks.
ALONE_S = 0.005


class Waiting(Protocol):
    def serve_share(self) -> None:
        """The client's turn has come."""

    def hang_up(self) -> None: ...


class Lane:
    def __init__(self, turn: Any, loop: Any, clock: Callable[[], float]) -> None:
        """`turn` is a `turn.Turn`."""
        self._turn = turn
        self._loop = loop
        self._clock = clock
        self._waiting: deque[Waiting] = deque()
        self._is_called = False
        self._go_on = loop.timer(0, ref=False)
        self._go_on.priority = LOW_PRIORITY

    def close(self) -> None:
        self._go_on.close()

    def join(self, client: Waiting) -> None:
        """Have the client's `serve_share` called soon, in this turn or one of the next. Called while the loop tells of
        what has come."""
        self._waiting.append(client)
        if not self._is_called:
            self._is_called = True
            self._loop.run_callback(self._serve)

    def _serve(self) -> None:
        self._is_called = False
        lane_s = ALONE_S
        if self._turn.served:
            self._turn.end()  # they have their replies before this begins
            lane_s = LANE_S
        waiting, clock = self._waiting, self._clock
        until = clock() + lane_s
        while waiting:
            client = waiting.popleft()
            try:
                client.serve_share()
            except Exception:
                log.exception("a client could not be served")
                cut_off(client)
            if clock() >= until:
                break
        if waiting:
            self._is_called = True
            self._go_on.start(self._serve)
