"""The open reads of one queue that a session holds, in order, and found by the ids of their items as well."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from darner_core.engines.contract import Read


class HeldById:
    """Stands in the place of a deque of reads: it has what sessions use of one.

    A client can hold two reads of one item: one whose time is over, and one with which it got the item again. The later
    is found first, because the other confirms nothing.
    """

    __slots__ = ("_in_order", "_latest", "_earlier")

    def __init__(self, reads: Iterable[Read] = ()) -> None:
        self._in_order: OrderedDict[Read, None] = OrderedDict()
        self._latest: dict[int, Read] = {}
        self._earlier: dict[int, list[Read]] = {}  # of the same items
        for read in reads:
            self.append(read)

    def __len__(self) -> int:
        return len(self._in_order)

    def __iter__(self) -> Iterator[Read]:
        return iter(self._in_order)

    def find(self, item_id: int) -> Read | None:
        return self._latest.get(item_id)

    def append(self, read: Read) -> None:
        self._in_order[read] = None
        before = self._latest.get(read.id)
        if before is not None:
            self._earlier.setdefault(read.id, []).append(before)
        self._latest[read.id] = read

    def appendleft(self, read: Read) -> None:
        self.append(read)
        self._in_order.move_to_end(read, last=False)

    def discard(self, read: Read) -> bool:
        """False: it was not there."""
        if read not in self._in_order:
            return False
        del self._in_order[read]
        earlier = self._earlier.get(read.id)
        if self._latest[read.id] is not read:
            assert earlier is not None
            earlier.remove(read)
        elif earlier:
            self._latest[read.id] = earlier.pop()
        else:
            del self._latest[read.id]
        if earlier is not None and not earlier:
            del self._earlier[read.id]
        return True
