"""Pages of what lies aside, against all that lies there."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from darner_core.engines.local import aside_leaving
from darner_core.engines.local.order import MOST_ENTRIES
from darner_core.engines.local.order_pages import some_before, some_behind
from darner_core.storage.job_records import Place
from darner_core.storage.storage import Storage
from tests.support.asides import Bench, in_order


@pytest.fixture(params=[True, False], ids=["on disk", "in memory"])
def bench(request: pytest.FixtureRequest, open_storage: Callable[[], Storage]) -> Bench:
    return Bench(open_storage, durable=request.param)


def all_pages(some: Any, order: Any, most: int) -> list[int]:
    found: list[int] = []
    place: Place | None = None
    while page := some(order, place, most):
        assert len(page) <= most
        found += [one[2] for one in page]
        place = page[-1]
    return found


@pytest.mark.parametrize("seed", range(4))
def test_every_entry_is_on_one_page_whatever_is_in_memory(bench: Bench, seed: int) -> None:
    chance = random.Random(seed)
    ids = [bench.put(b"x", pri=chance.choice([5, 1024])) for _ in range(2 * MOST_ENTRIES)]
    bench.end_turn()
    for item_id in chance.sample(ids, 300):
        if chance.random() < 0.5:
            aside_leaving.remove_id(bench.aside, item_id)
        else:
            bench.aside.open_id(item_id)
    for _ in range(2):  # in the middle of a turn, and behind it
        for number in range(30):
            bench.put(b"x", pri=chance.choice([1, 5, 2000]))
            if number % 3 == 0:
                aside_leaving.remove_id(bench.aside, chance.choice(ids))
        expected = in_order(bench.aside.ready)
        for most in (7, 100, 5000):
            if chance.random() < 0.5:
                bench.aside.ready.drop_window()
            assert all_pages(some_behind, bench.aside.ready, most) == expected
            assert all_pages(some_before, bench.aside.ready, most) == expected[::-1]
        bench.end_turn()


def test_a_page_from_behind_reads_nothing_of_what_is_before(
    open_storage: Callable[[], Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(open_storage)
    ids = [bench.put(b"x") for _ in range(2 * MOST_ENTRIES)]
    bench.end_turn()
    places = some_behind(bench.aside.ready, None, len(ids))
    read: list[Place] = []
    for name in ("places", "places_back"):
        whole = getattr(bench.storage.jobs, name)

        def noting(*about: Any, whole: Any = whole) -> list[Place]:
            found: list[Place] = whole(*about)
            read.extend(found)
            return found

        monkeypatch.setattr(bench.storage.jobs, name, noting)
    assert some_behind(bench.aside.ready, places[-20], 10) == places[-19:-9]
    assert some_before(bench.aside.ready, None, 10) == places[:-11:-1]
    assert some_before(bench.aside.ready, places[-20], 10) == places[-21:-31:-1]
    assert len(read) <= 31
