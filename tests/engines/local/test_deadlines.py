"""Deadlines that come, go and change, in the order in which their time comes."""

import random

import pytest

from darner_core.engines.local import deadlines as module
from darner_core.engines.local.deadlines import Deadlines


@pytest.mark.parametrize("seed", range(20))
def test_the_first_is_always_the_earliest_and_what_has_gone_does_not_pile_up(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_STALE", 5)
    chance = random.Random(seed)
    known: dict[int, float] = {}
    deadlines = Deadlines(lambda entry: known.get(entry[1]) if known.get(entry[1]) == entry[0] else None)

    def first() -> int | None:
        while (entry := deadlines.first()) is not None:
            if known.get(entry[1]) == entry[0]:
                return entry[1]
            assert deadlines.pop() == entry
        return None

    for step in range(600):
        if known and chance.random() < 0.3:
            del known[chance.choice(sorted(known))]
        else:
            of = chance.choice(sorted(known)) if known and chance.random() < 0.3 else step
            known[of] = chance.random()
            deadlines.add(known[of], of, len(known))
        if chance.random() < 0.2:
            assert first() == (min(known, key=lambda of: known[of]) if known else None)
    assert len(deadlines) <= 3 * len(known) + 20
