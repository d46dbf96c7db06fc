"""Cursors of scans."""

from typing import Any

import pytest

from darner_core.protocols.resp.replies import RespError
from darner_core.protocols.resp.scans import MOST_CURSORS, Cursors, Names


def test_a_cursor_stands_for_a_place() -> None:
    cursors = Cursors()
    first, second = cursors.give("a"), cursors.give("b")
    assert (cursors.find(first), cursors.find(second), cursors.find(first)) == ("a", "b", "a")


def test_unknown_ones_begin_anew() -> None:
    cursors = Cursors()
    given = [cursors.give(number) for number in range(MOST_CURSORS + 1)]
    assert cursors.find(b"0") is cursors.find(given[0]) is None
    assert cursors.find(given[1]) == 1
    with pytest.raises(RespError, match=r"^invalid cursor$"):
        cursors.find(b"x")


class _Statistics:
    deletes = 5

    def of_server(self, totals: Any) -> list[tuple[bytes, int]]:
        return [(b"queue_deletes", self.deletes)]


def test_as_many_names_are_looked_at_again_as_queues_were_deleted() -> None:
    statistics: Any = _Statistics()
    names = Names(statistics)
    place = names.place(10)
    assert (names.begin(None), names.begin(place)) == (0, 10)
    statistics.deletes += 4
    assert (names.begin(place), names.begin(names.place(10))) == (6, 10)
    statistics.deletes += 40
    assert names.begin(place) == 0
