"""A queue in a data directory, as a source that is only looked at: what it has stays there."""

import time
from collections.abc import Iterator, Sequence
from itertools import islice

from darner_core.ctl.moving.places import WHOLE_BYTES, Item, Listed
from darner_core.tools.whole_items import NEUTRAL_PRI, WholeItem, whole_items


class Kept:
    def __init__(self, path: str, queue: bytes) -> None:
        """`path`: the data directory, whether a server is running in it or not."""
        self._queue = queue
        self._found: list[str] = []
        self._now_ms = int(time.time() * 1000)
        self._coming = whole_items(path, queue, self._found.append)

    def queues(self) -> list[Listed]:
        return [Listed(self._queue, 0)]

    def batch(self, queue: bytes, most: int) -> Iterator[Item]:
        """Raises DataDirError."""
        return (self._item(one) for one in islice(self._coming, most))

    def _item(self, one: WholeItem) -> Item:
        body = one.body
        if not isinstance(body, bytes) and one.size <= WHOLE_BYTES:
            body = b"".join(body)
        elif isinstance(body, bytes) and one.size > WHOLE_BYTES:
            body = iter((body,))
        delay_ms = max(0, one.due_ms - self._now_ms) if one.due_ms else 0
        pri = None if one.pri == NEUTRAL_PRI else one.pri
        return Item(
            one.size, body, one.flags, one.id, pri, one.ttr_ms or None, delay_ms, -(-one.expires_at_ms // 1000),
            one.key, one.is_buried, one.failures,
        )  # fmt: skip

    def confirm(self, queue: bytes) -> int:
        return 0

    def confirm_some(self, queue: bytes, stored: Sequence[bool]) -> int:
        return 0

    def left(self, queue: bytes) -> str:
        return ""

    def told(self) -> list[str]:
        return self._found

    def close(self) -> None:
        self._coming.close()
