"""The command `watch QUEUE`: tells what happens to a queue, line by line, until the client hangs up.

    {"what": "watch", "exists": true}
    {"time_ms": 1795281482123, "what": "put", "id": 12, "bytes": 5, "flags": 0, "first_bytes": "aGVsbG8="}
    {"time_ms": 1795281482130, "what": "close", "id": 11, "bytes": 5}
    {"what": "not shown", "events": 123}

The first line says that it has begun, and END ends it when the server stops. What a watcher costs is bounded: events
beyond MOST_EVENTS that it has not been sent are counted and not kept. Bodies are shown to who may get them; who may
administer the queue no longer is hung up on.
"""

from binascii import b2a_base64
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from darner_core.access.rights import ADMIN
from darner_core.access.rights import GET as MAY_GET
from darner_core.engines.local.tracing import Event, Traces
from darner_core.operations.client import HangUp
from darner_core.operations.session import Session
from darner_core.protocols.memcache.reader import Request
from darner_core.protocols.memcache.replies import END
from darner_core.shared_memory import PipelineMemory
from darner_core.waiters import Waiter, WaitingLine

SCARCE_LINES = 12  # are sent at a time while pipeline_memory_bytes are exceeded: 4 KiB

# Events are sent so often: nobody has to be woken for each, and it still is at once for a person.
EVERY_MS = 100

MOST_EVENTS = 1000  # 300 KB; 10,000 a second, formatted in 2 ms each time


class Client(Protocol):
    """The connection, as a watcher sees it. Its calls that wait switch greenlets."""

    def wait_for(self, waiter: Waiter, wait_ms: int) -> object:
        """Wait in line, watching for a hang-up."""

    def wait_sent(self, data: bytes = b"") -> None:
        """Send `data`, and wait until the client has taken it."""

    def may(self, right: str, request: Request) -> bool:
        """Whether the client may do such things to the queue at this moment."""


class Watcher:
    """What has happened, and has not been sent."""

    __slots__ = ("_events", "_missed")

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._missed = 0

    def tell(self, event: Event) -> None:
        if len(self._events) < MOST_EVENTS:
            self._events.append(event)
        else:
            self._missed += 1

    def take_lines(self, with_bodies: bool = True, most: int = MOST_EVENTS) -> bytes:
        """The lines for it, so many at most; b"" if nothing has happened."""
        events, self._events = self._events[:most], self._events[most:]
        missed = 0
        if not self._events:
            missed, self._missed = self._missed, 0
        lines = [_line(event, with_bodies) for event in events]
        if missed:
            lines.append(b'{"what": "not shown", "events": %d}\r\n' % missed)
        return b"".join(lines)


def _line(event: Event, with_body: bool) -> bytes:
    # Put together by hand: json.dumps takes three times as long.
    line = b'{"time_ms": %d, "what": "%b"' % (event.time_ms, event.what)
    if event.id:
        line += b', "id": %d, "bytes": %d' % (event.id, event.body_bytes)
    if event.flags >= 0:
        line += b', "flags": %d' % event.flags
    if with_body and event.start is not None:
        line += b', "first_bytes": "%b"' % b2a_base64(event.start, newline=False)
    if event.items >= 0:
        line += b', "items": %d' % event.items
    return line + b"}\r\n"


class Watching:
    """The command, bound to what it works on."""

    def __init__(self, traces: Traces, stopping: Callable[[], bool], pipeline_memory: PipelineMemory) -> None:
        self._pipeline_memory = pipeline_memory
        self._traces = traces
        self._stopping = stopping

    def watch(self, request: Request, body: None, session: Session) -> Callable[[Any], bytes]:
        return partial(self._watch, request)

    def _watch(self, request: Request, client: Client) -> bytes:
        queue, watcher = request.queue, Watcher()
        exists = self._traces.watch(queue, watcher)
        line = WaitingLine()
        try:
            client.wait_sent(b'{"what": "watch", "exists": %b}\r\n' % (b"true" if exists else b"false"))
            while not self._stopping():
                waiter = line.join()
                try:
                    client.wait_for(waiter, EVERY_MS)
                finally:
                    waiter.cancel()
                if not client.may(ADMIN, request):
                    raise HangUp
                most = SCARCE_LINES if self._pipeline_memory.scarce else MOST_EVENTS
                lines = watcher.take_lines(client.may(MAY_GET, request), most)
                if lines:
                    client.wait_sent(lines)
        finally:
            self._traces.unwatch(queue, watcher)
        return END
