"""One kind's order: what is in memory of it, and where a scan begins."""

from collections.abc import Callable

import pytest

from darner_core.engines.local import aside_failures, aside_leaving
from darner_core.engines.local import order as order_module
from darner_core.engines.local.aside_log import AsideLog
from darner_core.engines.local.order import FILL_ENTRIES, MOST_ENTRIES, Order
from darner_core.engines.local.reads import OpenRead
from darner_core.storage.job_records import HIGHEST, LOWEST, Front, Place
from darner_core.storage.storage import Storage
from tests.support.asides import Bench, in_order

OpenStorage = Callable[[], Storage]


class Again:
    """A holder whose close is undone."""

    def unclose(self, read: OpenRead) -> None: ...


@pytest.fixture
def bench(open_storage: OpenStorage) -> Bench:
    return Bench(open_storage)


def fill(bench: Bench, count: int) -> list[int]:
    ids = [bench.put(b"%d" % number) for number in range(count)]
    bench.end_turn()
    return ids


def test_an_empty_order_has_nothing_before_any_place(bench: Bench) -> None:
    assert bench.aside.ready.first() is None
    assert bench.aside.ready.front() == Front(0, HIGHEST)


def test_the_window_is_bounded_and_the_rest_is_found_on_disk(bench: Bench) -> None:
    ids = fill(bench, 3 * MOST_ENTRIES)
    assert len(bench.aside.ready.window) <= MOST_ENTRIES
    assert in_order(bench.aside.ready) == ids
    seen = []
    while (place := bench.aside.ready.first()) is not None:
        seen.append(place[2])
        assert len(bench.aside.ready.window) <= MOST_ENTRIES
        aside_leaving.remove_id(bench.aside, place[2])
    assert seen == ids


def test_what_this_turn_has_added_behind_the_window_is_found(bench: Bench) -> None:
    ids = [bench.put(b"x") for _ in range(3 * MOST_ENTRIES)]  # and the turn has not ended
    assert in_order(bench.aside.ready) == ids
    bench.aside.drop_window()
    assert bench.aside.ready.first() == (1024, 2, ids[0])
    assert in_order(bench.aside.ready) == ids


def test_what_comes_before_the_window_is_first(bench: Bench) -> None:
    fill(bench, 2 * MOST_ENTRIES)
    bench.aside.drop_window()
    urgent = bench.put(b"urgent", pri=0)
    assert bench.aside.head_id == urgent
    bench.end_turn()
    bench.aside.drop_window()
    assert bench.aside.head_id == urgent


def test_what_is_open_is_passed_over_and_keeps_the_lowest_where_it_is(bench: Bench) -> None:
    ids = fill(bench, 5)
    reads = [bench.opened() for _ in range(3)]
    assert in_order(bench.aside.ready) == ids[3:]
    assert bench.aside.ready.lowest() == (1024, 2, ids[0])
    bench.aside.close(reads[0])
    assert bench.aside.ready.lowest() == (1024, 4, ids[1])
    bench.aside.drop_window()
    assert in_order(bench.aside.ready) == ids[3:]
    bench.aside.give_back(reads[1])
    assert in_order(bench.aside.ready) == [ids[1], *ids[3:]]


def test_the_next_scan_begins_behind_what_has_gone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = fill(bench, 4 * MOST_ENTRIES)
    for _ in range(3 * MOST_ENTRIES):
        bench.aside.take()
    bench.end_turn()
    bench.crash()
    begun: list[Place] = []
    whole = type(bench.storage.jobs).places

    def watched(jobs: object, number: int, kind: int, begin: Place, most: int) -> list[Place]:
        begun.append(begin)
        return whole(bench.storage.jobs, number, kind, begin, most)

    monkeypatch.setattr(type(bench.storage.jobs), "places", watched)
    first = bench.aside.head()
    assert first is not None
    assert first[2] == ids[3 * MOST_ENTRIES]
    assert [begin > (1024, first[1] - 2, 0) for begin in begun] == [True]


def test_very_many_that_are_open_are_passed_over_in_one_go(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_module, "MOST_STALE", 10)
    ids = fill(bench, 2 * FILL_ENTRIES)
    reads = [bench.opened() for _ in range(FILL_ENTRIES + 50)]
    for read in reads[1::2]:
        bench.aside.close(read)
    bench.fail_turn()  # all that was opened in this turn waits again
    assert in_order(bench.aside.ready) == ids
    reads = [bench.opened() for _ in range(FILL_ENTRIES + 50)]
    bench.end_turn()
    for read in reads[1:]:
        bench.aside.close(read)
    bench.fail_turn()
    assert in_order(bench.aside.ready) == ids[1 : FILL_ENTRIES + 50] + ids[FILL_ENTRIES + 50 :]
    assert bench.aside.ready.lowest()[2] == ids[0]


@pytest.mark.parametrize("what", ["a put", "a take", "given back", "closed", "closed by nobody", "moved"])
def test_after_a_turn_that_failed_they_are_not_passed_over_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(order_module, "FILL_ENTRIES", 8)
    front = bench.put(b"front", pri=5)
    ids = fill(bench, 60)
    bench.opened()
    reads = [bench.opened() for _ in range(50)]
    bench.aside.give_back(bench.aside.outstanding[front].read)
    bench.end_turn()
    bench.put(b"refused", pri=4)
    read, expected = reads[20], [front, *ids[50:]]
    if what == "a take":
        bench.aside.take()
        bench.aside.take()
        bench.aside.take()
    elif what == "given back":  # by a client that is gone
        bench.aside.give_back(read)
        expected.insert(1, read.id)
    elif what == "closed":
        bench.aside.close(read, Again())
    elif what == "closed by nobody":
        bench.aside.close(read)
        expected.insert(1, read.id)
    elif what == "moved":
        aside_failures.release(bench.aside, read, 0, 3)
        bench.journal.undo.append((bench.aside.take_back, read))
    bench.fail_turn()
    scans: list[int] = []
    whole = type(bench.aside.log).places

    def watched(log: AsideLog, kind: int, begin: Place, most: int) -> list[Place]:
        scans.append(kind)
        return whole(log, kind, begin, most)

    with monkeypatch.context() as patched:
        patched.setattr(type(bench.aside.log), "places", watched)
        assert [bench.opened().id for _ in expected[:4]] == expected[:4]
        assert scans.count(0) <= 1
    bench.fail_turn()
    assert in_order(bench.aside.ready) == expected
    bench.crash()
    assert in_order(bench.aside.ready) == [front, *ids]


def test_what_is_open_again_after_a_failed_turn_hides_nothing_else(bench: Bench) -> None:
    ids = fill(bench, 3)
    first = bench.opened()
    bench.opened()
    bench.end_turn()
    bench.aside.close(first, Again())
    bench.aside.drop_window()
    bench.fail_turn()
    assert in_order(bench.aside.ready) == ids[2:]


def test_so_does_the_first_after_a_drain(bench: Bench) -> None:
    fill(bench, 2 * MOST_ENTRIES)
    while bench.aside.take():
        bench.end_turn()
    assert bench.storage.jobs.state(bench.aside.record.number).fronts[0] == Front(0, HIGHEST)


def test_counts_and_bounds_are_those_of_the_state_record(bench: Bench) -> None:
    order = Order(bench.aside.log, 0, Front(0, LOWEST))
    assert (order.whole, order.waiting, order.first()) == (True, 0, None)
