"""What waits in a line, from any id on, whatever of it is in memory."""

import random
from collections.abc import Callable, Iterator
from itertools import islice

import pytest

from darner_core.config.queues import QueueOptions
from darner_core.engines.local import expiry, line_pages
from darner_core.engines.local.line_pages import backward, forward
from darner_core.engines.local.queue_log import QueueLog
from darner_core.errors import StorageError
from darner_core.storage.records import Item
from darner_core.storage.storage import Storage
from tests.support.bench import Bench, opened


@pytest.fixture(params=[True, False], ids=["on disk", "in memory"])
def bench(request: pytest.FixtureRequest, open_storage: Callable[[], Storage]) -> Bench:
    return Bench(open_storage, q=QueueOptions(durable=request.param))


def bodies(items: Iterator[tuple[int, Item]]) -> dict[int, bytes]:
    return {item_id: item[0] for item_id, item in items}  # type: ignore[misc]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("few", [0, line_pages.FEW])
def test_all_that_waits_is_seen_from_any_id_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, seed: int, few: int
) -> None:
    monkeypatch.setattr(line_pages, "PAGE_ITEMS", 7)
    monkeypatch.setattr(line_pages, "FEW", few)
    chance = random.Random(seed)
    expected = {number: b"%d" % number for number in range(1, 301)}
    bench.put(b"q", *expected.values())
    if chance.random() < 0.7:
        bench.end_turn()
    queue = bench.queue()
    reads = [opened(queue) for _ in range(60)]
    for read in reads:
        if chance.random() < 0.5:
            queue.give_back(read)
        else:
            del expected[read.id]
    for item_id in [*chance.sample(range(62, 301), 20), *range(200, 250)]:
        if item_id in expected:
            expiry.remove_unopened(queue, item_id, (expected.pop(item_id), 0, 0, 0))
    if chance.random() < 0.5:
        bench.end_turn()
    bench.put(b"q", b"301", b"302")
    expected |= {301: b"301", 302: b"302"}
    if chance.random() < 0.5:
        expiry.remove_unopened(queue, 301, (expected.pop(301), 0, 0, 0))
    if chance.random() < 0.5:
        queue.drop_window()
    assert bodies(forward(queue)) == expected
    assert list(bodies(forward(queue))) == sorted(expected)
    assert list(bodies(backward(queue))) == sorted(expected, reverse=True)
    for item_id in (1, 30, 61, 62, 150, 230, 300, 301, 302, 303):
        assert bodies(forward(queue, item_id)) == {one: body for one, body in expected.items() if one >= item_id}
        assert bodies(backward(queue, item_id)) == {one: body for one, body in expected.items() if one < item_id}


def test_no_more_is_read_than_a_page_ahead(
    open_storage: Callable[[], Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(open_storage)
    bench.put(b"q", *(b"%d" % number for number in range(1, 2001)))
    bench.end_turn()
    bench.queue().drop_window()
    asked: list[tuple[int, int]] = []
    whole = bench.queue().log.read.__func__  # type: ignore[attr-defined]

    def read(log: object, from_id: int, most_items: int, *about: int) -> tuple[int, list[Item]]:
        asked.append((from_id, most_items))
        found: tuple[int, list[Item]] = whole(log, from_id, most_items, *about)
        return found

    monkeypatch.setattr("darner_core.engines.local.queue_log.QueueLog.read", read)
    assert [item_id for item_id, _ in islice(forward(bench.queue(), 1500), 10)] == [*range(1500, 1510)]
    assert [item_id for item_id, _ in islice(backward(bench.queue(), 1500), 10)] == [*range(1499, 1489, -1)]
    assert [item_id for item_id, _ in islice(forward(bench.queue(), 1500, 3), 4)] == [*range(1500, 1504)]
    assert asked == [(1500, line_pages.PAGE_ITEMS), (1500, 3), (1503, line_pages.PAGE_ITEMS)]


def test_damage_is_told(open_storage: Callable[[], Storage], monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(open_storage)
    bench.put(b"q", b"1", b"2")
    bench.end_turn()
    bench.queue().drop_window()

    def fail(*_: object) -> None:
        raise StorageError("damaged")

    monkeypatch.setattr(bench.storage, "items", fail)
    monkeypatch.setattr(bench.storage, "items_back", fail)
    with pytest.raises(StorageError):
        list(forward(bench.queue()))
    with pytest.raises(StorageError):
        list(backward(bench.queue()))


def test_a_line_that_is_removed_from_its_end_is_looked_at_without_passing_what_has_gone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.put(b"q", *(b"%d" % number for number in range(1, 201)))
    bench.end_turn()
    queue = bench.queue()
    queue.drop_window()
    passed: list[tuple[int, int]] = []
    stored_back = type(queue.log).stored_back

    def noted(log: QueueLog, begin: int, end: int) -> Iterator[tuple[int, Item]]:
        passed.append((begin, end))
        return stored_back(log, begin, end)

    monkeypatch.setattr(type(queue.log), "stored_back", noted)
    monkeypatch.setattr(line_pages, "BACK_IDS", 5)
    expected, steps = list(range(1, 201)), 0
    for count in (100, 90, 160):
        for _ in range(count):
            passed.clear()
            item_id, item = next(backward(queue))
            assert item_id == expected.pop()
            steps += sum(min(end, queue.tail) - max(begin, item_id) for begin, end in passed)
            expiry.remove_unopened(queue, item_id, item)
            if item_id % 7 == 0:
                bench.end_turn()
        bench.end_turn()
        expected += range(queue.tail, queue.tail + 80)
        bench.put(b"q", *(b"%d" % number for number in range(80)))
        bench.end_turn()
        assert [item_id for item_id, _ in backward(queue)] == expected[::-1]
        assert [item_id for item_id, _ in forward(queue)] == expected
        for middle in (50, 120, 200, 250):
            before = [item_id for item_id in expected[::-1] if item_id < middle]
            assert [item_id for item_id, _ in backward(queue, middle)] == before
    assert steps < 2000  # 400 items, of which some were passed twice


def test_what_a_failed_turn_has_removed_from_the_end_is_seen_again(open_storage: Callable[[], Storage]) -> None:
    bench = Bench(open_storage)
    bench.put(b"q", b"1", b"2", b"3")
    bench.end_turn()
    queue = bench.queue()
    for _ in range(2):
        item_id, item = next(backward(queue))
        expiry.remove_unopened(queue, item_id, item)
    assert list(bodies(backward(queue))) == [1]
    bench.fail_turn()
    assert list(bodies(backward(queue))) == [3, 2, 1]
