# ruff: noqa: F811  (fixtures)
"""What a queue's log makes of what is put and taken in a turn."""

from tests.engines.local.test_journal import Bench, bench  # noqa: F401

# -- popping


def test_an_item_put_and_popped_in_one_turn_is_not_written(bench: Bench) -> None:
    for body in (b"a", b"b", b"c"):
        bench.queue.put(body, 0, 0)
    bench.queue.take()
    bench.queue.close(bench.open())
    bench.end_turn()
    assert bench.writes.last == [2]  # the third item, and that the first two are gone
    assert bench.stored() == [3]
    bench.queue.put(b"d", 0, 0)
    bench.queue.take()
    bench.queue.take()
    bench.end_turn()
    assert bench.writes.last == [1]
    assert bench.stored() == [3]
    bench.crash()
    assert bench.queue.take() is None
    bench.put(b"e")
    assert bench.stored() == [3, 5]


def test_popping_in_order_writes_the_state_and_no_tombstones(bench: Bench) -> None:
    bench.put(*(b"%d" % number for number in range(100)))
    bench.writes.calls = []
    for _ in range(50):
        bench.queue.take()
    bench.end_turn()
    assert bench.writes.last == [1]
    for _ in range(10):
        bench.queue.close(bench.open())
        bench.end_turn()
    assert bench.writes.last == [1] * 10
    assert bench.stored() == list(range(1, 101))
    bench.crash()
    assert bench.queue.waiting_items == 40
    assert bench.queue.peek() == (b"60", 0, 0, 1_000_000)


def test_a_pop_out_of_order_deletes_its_one_key(bench: Bench) -> None:
    bench.put(b"a", b"b", b"c", b"d")
    reads = [bench.open(), bench.open()]
    bench.writes.calls = []
    bench.queue.take()
    bench.end_turn()
    assert bench.stored() == [1, 2, 4]
    bench.queue.close(reads[1])
    bench.end_turn()
    assert bench.stored() == [1, 4]
    bench.queue.close(reads[0])
    bench.end_turn()
    assert bench.stored() == [1, 4]
    assert bench.writes.last == [2, 2, 1]
    bench.crash()
    assert (bench.queue.waiting_items, bench.queue.waiting_bytes) == (1, 1)


def test_an_item_put_and_popped_out_of_order_in_one_turn_is_gone_after_a_crash(bench: Bench) -> None:
    bench.queue.put(b"a", 0, 0)
    bench.queue.put(b"b", 0, 0)
    bench.open()
    bench.queue.take()
    bench.end_turn()
    assert bench.stored() == [1]
    bench.crash()
    assert [bench.queue.waiting_items, bench.queue.peek()] == [1, (b"a", 0, 0, 1_000_000)]
