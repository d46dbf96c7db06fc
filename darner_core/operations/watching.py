"""Watching a queue: a client is told what happens to the queue, until the client hangs up.

A watcher costs little memory: up to MOST_EVENTS events are kept for it, further ones are only counted. Bodies are told
to clients that may get them. A client that loses the right to administer the queue is hung up on.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from darner_core.access.rights import ADMIN
from darner_core.access.rights import GET as MAY_GET
from darner_core.engines.contract import Event, Traces
from darner_core.operations.availability import Availability
from darner_core.operations.client import Client, HangUp
from darner_core.shared_memory import PipelineMemory
from darner_core.waiters import WaitingLine

# How many events are told at a time while pipeline_memory_bytes are exceeded: 4 KiB.
SCARCE_EVENTS = 12

# How often events are told: no client has to be woken up for each, and to a person this is still at once.
EVERY_MS = 100

MOST_EVENTS = 1000  # 300 KB; 10,000 a second, formatted in 2 ms each time


class Told(NamedTuple):
    """What a client is told at a time."""

    events: list[Event]
    missed: int  # how many more there were
    with_bodies: bool


class Watcher:
    """What has happened, and has not been told."""

    __slots__ = ("_events", "_missed")

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._missed = 0

    def tell(self, event: Event) -> None:
        if len(self._events) < MOST_EVENTS:
            self._events.append(event)
        else:
            self._missed += 1

    def take(self, most: int = MOST_EVENTS) -> tuple[list[Event], int]:
        """Up to `most` events, and how many were missed behind them, if they are the last."""
        events, self._events = self._events[:most], self._events[most:]
        missed = 0
        if not self._events:
            missed, self._missed = self._missed, 0
        return events, missed


class Watching:
    def __init__(self, traces: Traces, pipeline_memory: PipelineMemory, availability: Availability) -> None:
        self._traces = traces
        self._pipeline_memory = pipeline_memory
        self._availability = availability

    def wait_watch(self, client: Client, queue: bytes, write: Callable[[bool | Told], bytes]) -> None:
        """Send, as `write` writes it, first whether the queue exists, then what happens to it, until the server stops.
        Raises HangUp."""
        watcher = Watcher()
        exists = self._traces.watch(queue, watcher)
        try:
            client.wait_sent(write(exists))
            for told in self._wait_each(client, (queue,), watcher):
                if told.events or told.missed:
                    client.wait_sent(write(told))
        finally:
            self._traces.unwatch(queue, watcher)

    def wait_told(self, client: Client, queues: Sequence[bytes]) -> Iterator[Told]:
        """What happens to these queues, told every EVERY_MS, nothing included, until the server stops. Raises
        HangUp."""
        watcher = Watcher()
        watched: list[bytes] = []
        try:
            for queue in queues:
                self._traces.watch(queue, watcher)
                watched.append(queue)
            yield from self._wait_each(client, queues, watcher)
        finally:
            for queue in watched:
                self._traces.unwatch(queue, watcher)

    def _wait_each(self, client: Client, queues: Sequence[bytes], watcher: Watcher) -> Iterator[Told]:
        line = WaitingLine()
        while not self._availability.stopping:
            waiter = line.join()
            try:
                client.wait_for(waiter, EVERY_MS)
            finally:
                waiter.cancel()
            if not all(client.may(ADMIN, queue) for queue in queues):
                raise HangUp
            events, missed = watcher.take(SCARCE_EVENTS if self._pipeline_memory.scarce else MOST_EVENTS)
            yield Told(events, missed, all(client.may(MAY_GET, queue) for queue in queues))
