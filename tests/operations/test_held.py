"""Reads by their ids, against a plain list."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from darner_core.operations.held import HeldById

STEPS = st.lists(st.tuples(st.sampled_from(["append", "appendleft", "discard"]), st.integers(1, 3), st.integers(0, 9)))


class Read:
    def __init__(self, item_id: int) -> None:
        self.id = item_id


@given(STEPS)
def test_it_agrees_with_a_list(steps: list[tuple[str, int, int]]) -> None:
    held = HeldById()
    plain: list[Any] = []
    latest: list[Any] = []  # in the order in which they came
    for step, item_id, at in steps:
        if step == "discard":
            read: Any = plain[at % len(plain)] if plain else Read(item_id)
            assert held.discard(read) == (read in plain)
            plain = [one for one in plain if one is not read]
            latest = [one for one in latest if one is not read]
        else:
            read = Read(item_id)
            getattr(held, step)(read)
            plain.insert(len(plain) if step == "append" else 0, read)
            latest.append(read)
        assert list(held) == plain
        assert len(held) == len(plain)
        for number in (1, 2, 3, 4):
            assert held.find(number) is next((one for one in reversed(latest) if one.id == number), None)


def test_it_begins_with_what_there_was() -> None:
    reads: Any = [Read(2), Read(1)]
    assert list(HeldById(reads)) == reads
