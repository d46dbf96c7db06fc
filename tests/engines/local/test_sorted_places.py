"""Places in memory, against a sorted list."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darner_core.engines.local import sorted_places as module
from darner_core.engines.local.sorted_places import SortedPlaces

places = st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 3))


@settings(deadline=None)
@given(st.lists(places, max_size=200), st.lists(places), places, st.integers(1, 20))
def test_they_lie_in_order_whatever_comes_and_goes(
    more: list[tuple[int, int, int]], less: list[tuple[int, int, int]], begin: tuple[int, int, int], most: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE", 3)
        found, expected = SortedPlaces(), set[tuple[int, int, int]]()
        for place in [*more, *less, *more]:
            if place in expected:
                found.remove(place)
                expected.discard(place)
            else:
                found.add(place)
                expected.add(place)
            assert found.some_from((0, 0, 0), 1000) == sorted(expected)
        assert found.some_from(begin, most) == [place for place in sorted(expected) if place >= begin][:most]
        before = [place for place in sorted(expected, reverse=True) if place < begin]
        assert found.some_before(begin, most) == before[:most]
