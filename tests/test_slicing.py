"""Slices of what may change meanwhile."""

from darner_core.slicing import slices


def test_all_come_in_order_and_what_is_added_meanwhile_does_not() -> None:
    things = dict.fromkeys(range(5))
    found = []
    for some in slices(things, 2):
        found.append(some)
        things[9] = None
    assert found == [[0, 1], [2, 3], [4]]
    assert list(slices([], 2)) == []
