"""What the API shows of the server itself: its clients, its listeners, the last lines of its log.

No call here switches greenlets.
"""

import logging
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from darner_core.server.http_connection import Doing, HttpConnection
from darner_core.server.states import State
from darner_core.showing import show

# How many of the last lines of the log are kept.
LINES = 500

_WAITS = {State.READ: "idle", State.IN_LINE: "waits", State.IN_BODY: "sends", State.SENDING: "receives"}
_WAITS_HTTP = {
    Doing.BETWEEN: "idle", Doing.IN_LINE: "waits", Doing.IN_REQUEST: "sends", Doing.SENDING: "receives",
}  # fmt: skip


class LastLines(logging.Handler):
    """The last lines of the log: (time in ms, level, text)."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[tuple[int, str, str]] = deque(maxlen=LINES)

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text = f"{text}: {record.exc_info[1]!r}"
        self.lines.append((int(record.created * 1000), record.levelname, show(text)))


class Overview:
    def __init__(self, connections: Collection[Any], listeners: Sequence[Any], reloaded: Collection[str]) -> None:
        """`connections` as they are at any time. `reloaded`: the options that a reload takes over."""
        self.reloaded = reloaded
        self.connections = connections
        self._listeners = listeners
        self._last_lines = LastLines()

    def start(self) -> None:
        """Keep the log's lines from now on."""
        logging.getLogger().addHandler(self._last_lines)

    def stop(self) -> None:
        logging.getLogger().removeHandler(self._last_lines)

    def last_lines(self, most: int) -> list[tuple[int, str, str]]:
        return list(self._last_lines.lines)[-most:]

    def listeners(self) -> list[dict[str, str]]:
        return [{"address": str(one), "dialect": one.dialect} for one in self._listeners]

    # -- clients

    @staticmethod
    def shown(connection: Any) -> dict[str, Any]:
        """A client, as JSON has it. `id`: no other client has it while this one is connected."""
        origin = connection.session.origin
        is_http = isinstance(connection, HttpConnection)
        place: Any = origin.place
        waits = _WAITS_HTTP.get(connection.doing) if is_http else _WAITS.get(connection.state)
        return {
            "id": str(connection.fd),
            "address": origin.address,
            "user": origin.user or None,
            "dialect": place.dialect,
            "listener": str(place),
            "connected_at_ms": origin.since_ms,
            "state": waits or "busy",
            "open_reads": connection.session.open_count,
            "waiting_for": list(connection.waits_for) if is_http else None,
        }

    def waiting(self, waiters: Collection[Any], most: int) -> Iterator[dict[str, Any]]:
        """The clients that wait with these, up to `most`."""
        wanted = set(waiters)
        for connection in self.connections if wanted else ():
            if connection.waiter in wanted:
                origin = connection.session.origin
                yield {"address": origin.address, "user": origin.user or None}
                most -= 1
                if not most:
                    return
