"""The loop that takes items from a source and puts them into a target, until the source has no more.

Promise: an item is confirmed at the source only after the target has said that it is stored. Whatever ends the loop,
nothing is lost; a kill leaves at most one batch in both places.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from darner_core.ctl import names
from darner_core.ctl.errors import CtlError
from darner_core.ctl.moving.places import WHOLE_BYTES, Item, Refusal, Source, Target, our_name

BATCH: Final = 100  # items; a kill leaves so many in both places
BATCH_BYTES: Final = 8 << 20  # batches of larger items are shorter
FIRST_BATCH: Final = 10  # nothing is known of the sizes
RETRY_S: Final = 0.5


@dataclass
class Moved:
    """What has become of one queue. `twice`: items that are here and may also be at others."""

    name: bytes
    into: bytes
    items: int = 0
    bytes: int = 0
    twice: int = 0
    left: str = ""
    refused: str = ""


@dataclass
class Mover:
    """`stop` is asked before each batch. `told` hears of each batch: how many items it had. `patience_s`: how long a
    full queue is waited for. `key_of`: the unique key of an item, from its queue and id."""

    source: Source
    target: Target
    batch: int = BATCH
    patience_s: float = 10.0
    key_prefix: bytes = b""
    stop: Callable[[], bool] = lambda: False
    told: Callable[[int], None] = lambda items: None
    wait: Callable[[float], None] = time.sleep
    _most: int = field(default=FIRST_BATCH, init=False)

    def move(self, queue: bytes, into: bytes = b"") -> Moved:
        """Move a queue, into one of another name if that is given. Raises CtlError; what was not confirmed is still at
        the source."""
        moved = Moved(queue, into or our_name(queue))
        self._most = min(FIRST_BATCH, self.batch)
        while not self.stop():
            items = self._take(queue, moved.into)
            if not items:
                break
            refusals = self._again(moved.into, items, self.target.settle())
            size = sum(item.size for item in items)
            if refusals:
                stored = [True] * len(items)
                for refusal in refusals:
                    stored[refusal.place] = False
                moved.twice += self.source.confirm_some(queue, stored)
                moved.items += sum(stored)
                moved.refused = refusals[0].why
                break
            moved.twice += self.source.confirm(queue)
            moved.items += len(items)
            moved.bytes += size
            self.told(len(items))
            self._most = max(1, min(self.batch, BATCH_BYTES * len(items) // max(1, size)))
        moved.left = self.source.left(queue)
        return moved

    def _take(self, queue: bytes, into: bytes) -> list[Item]:
        items = []
        for item in self.source.batch(queue, self._most):
            if self.key_prefix:
                if not item.id:
                    raise CtlError(f"{names.write(queue)}: its server does not tell ids, so items can have no key")
                item.key = b"%b%d%b" % (self.key_prefix, item.id, _mark(item))
            self.target.put(into, item)
            items.append(item)
        return items

    def _again(self, into: bytes, items: Sequence[Item], refusals: list[Refusal]) -> list[Refusal]:
        """Put what was refused again, until the patience is over. What was read in pieces cannot be put again."""
        deadline = time.monotonic() + self.patience_s
        while refusals and time.monotonic() < deadline and not self.stop():
            if any(items[one.place].size > WHOLE_BYTES for one in refusals):
                break
            self.wait(RETRY_S)
            for one in refusals:
                self.target.put(into, items[one.place])
            refusals = [Refusal(refusals[one.place].place, one.why) for one in self.target.settle()]
        return refusals


def _mark(item: Item) -> bytes:
    """An old server that has lost its data may give an id to another item, which must not be taken for the first."""
    return b"-" + sha256(item.body).hexdigest()[:16].encode() if isinstance(item.body, bytes) else b""
