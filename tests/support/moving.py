"""Moves between real servers, and sources that a test makes up."""

import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from darner_core.ctl.moving.addresses import open_source
from darner_core.ctl.moving.mover import Moved, Mover
from darner_core.ctl.moving.places import Item, Listed, Source
from darner_core.ctl.moving.server import Server
from darner_core.ctl.moving.wire import Wire
from tests.support.harness import RunningServer


def wire_to(port: int) -> Wire:
    return Wire(socket.create_connection(("127.0.0.1", port), 10), f"127.0.0.1:{port}")


def move_all(url: str, to: RunningServer, mover_options: dict[str, Any] | None = None, **options: Any) -> list[Moved]:
    """Move every queue of the server at `url`."""
    source, target = open_source(url, **options), Server(wire_to(to.port))
    mover = Mover(source, target, **(mover_options or {}))
    try:
        return [mover.move(listed.name) for listed in source.queues()]
    finally:
        source.close()
        target.close()


def drained(server: RunningServer, queue: str) -> list[bytes]:
    """All that can be got of a queue, in order."""
    client = server.client()
    found = []
    while (body := client.get(queue)) is not None:
        found.append(body)
    return found


class FromList:
    """A source of one queue. `confirmed` grows as the mover confirms."""

    def __init__(self, bodies: Sequence[bytes], queue: bytes = b"q") -> None:
        self.queue = queue
        self.waiting = list(bodies)
        self.confirmed: list[bytes] = []
        self.before_confirm: Callable[[], None] = lambda: None
        self._taken: list[bytes] = []
        self.asked: list[int] = []

    def queues(self) -> list[Listed]:
        return [Listed(self.queue, len(self.waiting))]

    def batch(self, queue: bytes, most: int) -> Iterator[Item]:
        self.asked.append(most)
        self._taken = self.waiting[:most]
        for place, body in enumerate(self._taken, 1 + len(self.confirmed)):
            yield Item(len(body), body, id=place)

    def confirm(self, queue: bytes) -> int:
        return self.confirm_some(queue, [True] * len(self._taken))

    def confirm_some(self, queue: bytes, stored: Sequence[bool]) -> int:
        self.before_confirm()
        for body, is_stored in zip(self._taken, stored, strict=True):
            if is_stored:
                self.waiting.remove(body)
                self.confirmed.append(body)
        return 0

    def left(self, queue: bytes) -> str:
        return f"{len(self.waiting)} waiting" if self.waiting else ""

    def told(self) -> list[str]:
        return []

    def close(self) -> None: ...


def is_source(source: FromList) -> Source:
    """For mypy: what the tests make up keeps the promises."""
    return source
