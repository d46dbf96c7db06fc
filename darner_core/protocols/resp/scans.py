"""Cursors of scans: small numbers that stand for a place where a scan goes on, as clients of QSCAN, JSCAN and SCAN
expect them. An unknown one begins anew. Then elements may come twice, which a scan is allowed to do. Pure.
"""

from collections import OrderedDict
from typing import Any, Final

from darner_core.operations.stats import Statistics, Totals
from darner_core.protocols.resp.naming import integer_of

MOST_CURSORS: Final = 1000
NONE: Final = b"0"


class Cursors:
    """The places of all scans that go on, the newest last."""

    def __init__(self) -> None:
        self._places: OrderedDict[int, Any] = OrderedDict()
        self._last = 0

    def give(self, place: Any) -> bytes:
        """A new cursor for this place."""
        self._last += 1
        self._places[self._last] = place
        if len(self._places) > MOST_CURSORS:
            self._places.popitem(last=False)
        return b"%d" % self._last

    def find(self, cursor: bytes, error: str = "invalid cursor") -> Any:
        """The place that a cursor stands for; None: the beginning. Raises RespError."""
        return self._places.get(integer_of(cursor, error))


class Names:
    """Where scans of the names of queues go on. The names are in the order in which the queues were made. As many as
    have been deleted meanwhile are looked at once more, so none is missed that is there all the time."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics

    def place(self, at: int) -> tuple[int, int]:
        """Behind the first `at` names."""
        return at, self._deletes()

    def begin(self, place: tuple[int, int] | None) -> int:
        """How many names a scan passes over that goes on there; None: from the beginning."""
        if place is None:
            return 0
        at, deletes = place
        return max(0, at - (self._deletes() - deletes))

    def _deletes(self) -> int:
        figures = dict(self._statistics.of_server(Totals(0)))
        return int(figures[b"queue_deletes"])
