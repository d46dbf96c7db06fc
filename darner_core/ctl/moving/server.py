"""A server of ours as a target: items are put over the memcache protocol, a batch with one call."""

from typing import Final

from darner_core.ctl.errors import CtlError
from darner_core.ctl.moving.places import Item, Refusal
from darner_core.ctl.moving.wire import Wire
from darner_core.showing import show

_SENT_BYTES: Final = 256 << 10  # gathered before they are sent


class Server:
    def __init__(self, wire: Wire, syncs: bool = False) -> None:
        """`syncs`: each item is answered after an fsync."""
        self._wire = wire
        self._sync = b"/sync" if syncs else b""
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._asked = 0

    def put(self, queue: bytes, item: Item) -> None:
        head = b"set %b%b%b %d %d %d\r\n" % (queue, _options(item), self._sync, item.flags, item.expires_at, item.size)
        self._asked += 1
        self._gather(head)
        for piece in item.pieces():
            self._gather(piece)
        self._gather(b"\r\n")

    def _gather(self, data: bytes) -> None:
        self._gathered.append(data)
        self._gathered_bytes += len(data)
        if self._gathered_bytes > _SENT_BYTES:
            self._send()

    def _send(self) -> None:
        self._wire.send(b"".join(self._gathered))
        self._gathered, self._gathered_bytes = [], 0

    def settle(self) -> list[Refusal]:
        self._send()
        refusals = []
        for place in range(self._asked):
            line = self._wire.line()
            if line == b"STORED":
                continue
            if line != b"NOT_STORED" and not line.startswith(b"SERVER_ERROR"):
                raise CtlError(f"{self._wire.server} refuses: {show(line)}")
            refusals.append(Refusal(place, _why(line)))
        self._asked = 0
        return refusals

    def close(self) -> None:
        self._wire.close()


def _options(item: Item) -> bytes:
    """Behind the name. What is not known is not said, so that the server's own default counts."""
    options = b""
    if item.delay_ms:
        options += b"/delay=%d" % item.delay_ms
    if item.pri is not None:
        options += b"/pri=%d" % item.pri
    if item.ttr_ms is not None:
        options += b"/ttr=%d" % item.ttr_ms
    return options + (b"/key=" + item.key if item.key else b"")


def _why(line: bytes) -> str:
    if line == b"NOT_STORED":
        return "the queue is full or paused, or takes no items of this size"
    return show(line.removeprefix(b"SERVER_ERROR "))
