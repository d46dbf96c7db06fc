"""Servers that speak the memcache protocol, as sources: Darner, Siberite, Kestrel, and servers of ours in each dialect.

All reads are reliable ones: `get q/open`, and closed when the item is stored elsewhere. The order is kept:

- Kestrel holds several items for one connection: `monitor` opens a batch in order, `confirm` closes it.
- Darner and Siberite hold one item for a connection. If the server tells the ids of its items, as ours does, many
  connections take at a time, and what they got is put in the order of the ids. Else one connection takes one after the
  other, unless the caller asks for more connections: then items of one batch may change places.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from darner_core.ctl.errors import NoServer
from darner_core.ctl.moving.places import Item, Listed
from darner_core.ctl.moving.wire import Wire

CONNECTIONS: Final = 32  # that take at a time, where the order is kept all the same

_FIGURE: Final = re.compile(rb"STAT queue_(.+)_(items|open_transactions|delayed|buried) (\d+)")
# Whoever has both figures is a queue: `queue_a_expired_items` is no queue `a_expired`.
_OF_QUEUES: Final = (b"items", b"open_transactions")


class _Head(NamedTuple):
    flags: int
    size: int
    id: int


class MemcacheServer:
    """What both kinds share: the list of queues."""

    def __init__(self, connect: Callable[[], Wire], has_cursors: bool = False) -> None:
        """`connect` makes logged-in connections. `has_cursors`: a name with a dot is a cursor on another queue."""
        self._connect = connect
        self._has_cursors = has_cursors
        self._control = connect()

    def figures(self) -> dict[bytes, dict[bytes, int]]:
        self._control.send(b"stats\r\n")
        found: dict[bytes, dict[bytes, int]] = {}
        while (line := self._control.line()) != b"END":
            figure = _FIGURE.fullmatch(line)
            if figure is not None:
                found.setdefault(figure[1], {})[figure[2]] = int(figure[3])
            elif not line.startswith(b"STAT "):
                raise self._control.unexpected(line)
        return {name: figures for name, figures in found.items() if all(one in figures for one in _OF_QUEUES)}

    def queues(self) -> list[Listed]:
        """Queues before their fanout children: an item that is put into a queue goes to the children that there are."""
        listed = []
        for name, figures in sorted(self.figures().items()):
            is_cursor = self._has_cursors and b"." in name
            note = "a cursor has no items of its own" if is_cursor else ""
            listed.append(Listed(name, 0 if is_cursor else self._waiting(figures), note))
        return listed

    @staticmethod
    def _waiting(figures: dict[bytes, int]) -> int:
        return max(0, figures[b"items"] - figures.get(b"delayed", 0) - figures.get(b"buried", 0))

    def left(self, queue: bytes) -> str:
        figures = self.figures().get(queue, {})
        kinds = (
            (b"items", "waiting"), (b"open_transactions", "open at other clients"), (b"delayed", "delayed"),
            (b"buried", "buried"),
        )  # fmt: skip
        counts = {**figures, b"items": self._waiting(figures)} if figures else {}
        return ", ".join(f"{counts[kind]:,} {word}" for kind, word in kinds if counts.get(kind))

    def told(self) -> list[str]:
        return []

    def close(self) -> None:
        self._control.close()


def _head(wire: Wire, line: bytes) -> _Head:
    """`VALUE <queue> <flags> <bytes> [<id>]`"""
    words = line.split(b" ")
    if words[0] != b"VALUE" or not 4 <= len(words) <= 5 or not all(word.isdigit() for word in words[2:]):
        raise wire.unexpected(line)
    return _Head(int(words[2]), int(words[3]), int(words[4]) if len(words) == 5 else 0)


class Monitored(MemcacheServer):
    """A source with several open reads on a connection, by `monitor` and `confirm`."""

    def __init__(self, connect: Callable[[], Wire], has_cursors: bool = False) -> None:
        super().__init__(connect, has_cursors)
        self._wire = connect()
        self._known: dict[bytes, int] = {}  # how many wait, as far as is known
        self._taken = 0

    def queues(self) -> list[Listed]:
        listed = super().queues()
        self._known = {one.name: one.items for one in listed}
        return listed

    def batch(self, queue: bytes, most: int) -> Iterator[Item]:
        """A monitor waits for a second if there is less than it may open, so it is asked for what is known to be there;
        what is not known is looked for by a get."""
        self._taken = 0
        wire, known = self._wire, self._known.get(queue, 0)
        if known > 0:
            wire.send(b"monitor %b 1 %d\r\n" % (queue, min(known, most)))
            while (line := wire.line()) != b"END":
                yield self._item(line)
            self._known[queue] = known - self._taken if self._taken else 0
        if not self._taken:
            wire.send(b"get %b/open\r\n" % queue)
            if (line := wire.line()) != b"END":
                yield self._item(line)

    def _item(self, line: bytes) -> Item:
        head = _head(self._wire, line)
        self._taken += 1
        if not isinstance(body := self._wire.body(head.size), bytes):
            return Item(head.size, self._to_end(body), head.flags, head.id)
        self._end()
        return Item(head.size, body, head.flags, head.id)

    def _to_end(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        yield from pieces
        self._end()

    def _end(self) -> None:
        if (line := self._wire.line()) != b"END":
            raise self._wire.unexpected(line)

    def confirm(self, queue: bytes) -> int:
        return self._confirm(queue, self._taken)

    def _confirm(self, queue: bytes, count: int) -> int:
        self._wire.send(b"confirm %b %d\r\n" % (queue, count))
        line = self._wire.line()
        if line != b"END" and not line.startswith(b"ERROR"):
            raise self._wire.unexpected(line)
        self._taken = 0
        return 0 if line == b"END" else count  # the server has taken some back: their time was over

    def confirm_some(self, queue: bytes, stored: Sequence[bool]) -> int:
        """Only the oldest open ones can be confirmed."""
        prefix = stored.index(False) if False in stored else len(stored)
        gone = self._confirm(queue, prefix) if prefix else 0
        self._wire.close()  # gives back the others
        self._wire = self._connect()
        return gone + sum(stored[prefix:])

    def close(self) -> None:
        super().close()
        self._wire.close()


class Lanes(MemcacheServer):
    """A source with one open read on a connection."""

    def __init__(self, connect: Callable[[], Wire], has_cursors: bool = False, connections: int = 0) -> None:
        """`connections`: how many take at a time; 0: as many as keep the order."""
        super().__init__(connect, has_cursors)
        self._connections = connections
        self._lanes = [connect()]
        self._verb = b"gets"  # which tells the id, if the server knows it
        self._asked: bytes | None = None  # the queue of which each lane has been asked for the next item
        self._held: list[Wire] = []  # those with an open item, in the order of the batch

    def batch(self, queue: bytes, most: int) -> Iterator[Item]:
        if self._asked != queue:
            for lane in self._lanes:
                lane.send(b"%b %b/open\r\n" % (self._verb, queue))
        self._asked = None
        found: list[tuple[int, int, _Head]] = []
        for number, lane in enumerate(self._lanes):
            line = lane.line()
            if self._verb == b"gets" and line.startswith((b"ERROR", b"CLIENT_ERROR")) and len(self._lanes) == 1:
                self._verb = b"get"
                lane.close()
                self._lanes = [self._connect()]
                yield from self.batch(queue, most)
                return
            if line != b"END":
                head = _head(lane, line)
                found.append((head.id, number, head))
        found.sort(key=lambda one: one[:2])
        self._held = [self._lanes[number] for _, number, _ in found]
        for item_id, number, head in found:
            lane = self._lanes[number]
            body = lane.body(head.size)
            if isinstance(body, bytes):
                self._end(lane)
                yield Item(head.size, body, head.flags, item_id)
            else:
                yield Item(head.size, self._to_end(lane, body), head.flags, item_id)
        if found and len(self._lanes) < (wanted := self._connections or (CONNECTIONS if found[0][0] else 1)):
            self._lanes += [self._connect() for _ in range(wanted - len(self._lanes))]

    def _to_end(self, lane: Wire, pieces: Iterator[bytes]) -> Iterator[bytes]:
        yield from pieces
        self._end(lane)

    @staticmethod
    def _end(lane: Wire) -> None:
        if (line := lane.line()) != b"END":
            raise lane.unexpected(line)

    def confirm(self, queue: bytes) -> int:
        """Closing, every lane asks for its next item at once."""
        held = set(self._held)
        for lane in self._lanes:
            lane.send(b"%b %b%b/open\r\n" % (self._verb, queue, b"/close" if lane in held else b""))
        self._asked, self._held = queue, []
        return 0

    def confirm_some(self, queue: bytes, stored: Sequence[bool]) -> int:
        for lane, is_stored in zip(self._held, stored, strict=True):
            lane.send(b"get %b/%b\r\n" % (queue, b"close" if is_stored else b"abort"))
        for lane in self._held:
            self._end(lane)
        self._held = []
        return 0

    def close(self) -> None:
        """What is open goes back when its connection ends."""
        super().close()
        for lane in self._lanes:
            lane.close()


def log_in(wire: Wire, name: str, password: bytes) -> None:
    """Source: docs/protocol.md. Raises NoServer."""
    words = name.encode("utf-8", "surrogateescape") + b" " + password
    wire.send(b"set login 0 0 %d\r\n%b\r\n" % (len(words), words))
    if (line := wire.line()) != b"STORED":
        raise NoServer(wire.not_said(line))
