"""Looks over the line and what lies aside of it, in one order. `tests/engines/test_items.py` has what is promised."""

from collections.abc import Callable

import pytest

from darner_core.engines.items import State
from darner_core.engines.local import item_pages
from darner_core.storage.storage import Storage
from tests.support.job_bench import JobBench


@pytest.fixture
def bench(open_storage: Callable[[], Storage]) -> JobBench:
    return JobBench(open_storage)


def look(bench: JobBench, **about: object) -> list[int]:
    return [seen.id for seen in bench.engine.items.look(b"q", **about)]  # type: ignore[arg-type]


@pytest.mark.parametrize("line_pri", [5, 1024, 2000])
def test_any_position_can_be_looked_from(bench: JobBench, line_pri: int) -> None:
    bench.put_job(b"q", b"0", pri=line_pri)
    for number in range(20):
        bench.put(b"q", b"%d" % number)
        bench.put_job(b"q", b"a%d" % number, pri=(5, 1024, 2000)[number % 3], key=b"%d" % number)
    bench.end_turn()
    everything = bench.engine.items.look(b"q")
    ids = [seen.id for seen in everything]
    assert len(ids) == len(set(ids)) == 41
    assert [seen.position for seen in everything] == sorted(seen.position for seen in everything)
    for at, seen in enumerate(everything):
        assert look(bench, after=seen.position) == ids[at + 1 :]
        assert look(bench, after=seen.position, backwards=True) == ids[:at][::-1]


def test_a_look_passes_over_a_bounded_number_of_expired_items(bench: JobBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_pages, "PASSED_OVER", 10)
    bench.put(b"q", *[b"x"] * 9, expires_in_s=1)
    bench.put(b"q", b"1")
    bench.now_s += 2
    bench.end_turn()
    assert look(bench) == [10]
    bench.put(b"q", *[b"x"] * 20, expires_in_s=0.001)
    bench.end_turn()
    bench.now_s += 1
    bench.end_turn()
    assert look(bench, after=(1024, 21, 10)) == []
    assert look(bench, backwards=True) == []


def test_what_is_being_flushed_is_gone_at_once(bench: JobBench) -> None:
    for number in range(500):
        bench.put_job(b"q", b"x", pri=number % 7, delay_ms=number % 2)
    buried = bench.opened()
    bench.engine.items.bury(buried)
    bench.end_turn()
    bench.registry.flush(b"q")
    bench.put_job(b"q", b"new", pri=3)
    assert len(look(bench)) == 1
    assert look(bench, state=State.DELAYED) == []
    assert look(bench, state=State.BURIED) == [buried.id]
    assert bench.engine.items.find(b"q", buried.id + 7) is None
    assert bench.engine.items.open(b"q", buried.id + 7) is None
