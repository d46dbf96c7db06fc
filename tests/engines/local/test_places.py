# ruff: noqa: F811  (fixtures)
"""New queues have numbers that none has had, and share column families evenly."""

import pytest

from tests.engines.local.test_registry import Bench, bench  # noqa: F401

# -- column families


def test_queues_have_families_of_their_own_and_then_share_evenly(bench: Bench) -> None:
    bench.create(*(b"%d" % number for number in range(4)))
    assert sorted(bench.families().values()) == [0, 1, 2, 3]
    bench.create(*(b"%d" % number for number in range(4, 12)))
    assert sorted(bench.families().values()) == sorted([0, 1, 2, 3] * 3)


def test_queues_that_share_a_family_keep_apart(bench: Bench) -> None:
    names = [b"%02d" % number for number in range(12)]
    queues = bench.create(*names)
    for count, queue in enumerate(queues):
        for number in range(count):
            queue.put(b"%b %d" % (queue.name, number), 0, 0)
    bench.end_turn()
    bench.registry.delete(b"05")
    bench.registry.flush(b"07")
    bench.end_turn()
    bench.crash()
    for count, name in enumerate(names):
        if name != b"05":
            bodies = [item[0] for item in iter(bench.registry.queues[name].take, None) if isinstance(item, tuple)]
            assert bodies == [b"%b %d" % (name, number) for number in range(0 if name == b"07" else count)]


@pytest.mark.parametrize("restarted", [False, True])
def test_the_family_of_a_deleted_queue_is_used_again(bench: Bench, restarted: bool) -> None:
    bench.create(b"a", b"b", b"c", b"d")
    free = bench.families()[b"b"]
    bench.delete(b"b")
    if restarted:
        bench.crash()
    bench.create(b"e")
    assert bench.families()[b"e"] == free
    assert len(set(bench.families().values())) == 4


def test_a_failed_turn_takes_no_family(bench: Bench) -> None:
    bench.create(b"a", b"b", b"c")
    bench.registry.create(b"lost")
    bench.registry.delete(b"a")
    bench.fail_turn()
    bench.create(b"d")
    assert sorted(bench.families().values()) == [0, 1, 2, 3]


# -- numbers


def test_every_queue_has_a_number_of_its_own_whatever_came_before(bench: Bench) -> None:
    """Or the items of one would be found in another that shares its family."""
    bench.create(b"a", b"b", b"c")
    bench.delete(b"b")
    bench.crash()
    bench.create(b"d")
    bench.delete(b"c", b"d")
    bench.crash()
    bench.create(b"e", b"f")
    bench.registry.create(b"lost")
    bench.fail_turn()
    bench.create(b"g")
    bench.crash()
    bench.create(b"h")
    numbers = [queue.log.record.number for queue in bench.registry]
    assert sorted(bench.registry.queues) == [b"a", b"e", b"f", b"g", b"h"]
    assert len(set(numbers)) == 5


def test_a_queue_with_the_number_of_a_deleted_one_is_empty(bench: Bench) -> None:
    (queue,) = bench.create(b"q")
    number = queue.log.record.number
    blob = queue.large_items.start()
    bench.storage.put_chunk(number, blob, 0, b"chunk")
    for _ in range(5):
        queue.put(b"x", 0, 0)
    bench.end_turn()
    bench.delete(b"q")
    bench.storage.put_chunk(number, blob, 1, b"chunk")  # its upload goes on, and then the server is killed
    bench.crash()
    (between,) = bench.create(b"between")
    assert between.log.record.number != number  # the chunks of what was cut off are there until this turn ends
    bench.end_turn()
    bench.delete(b"between")
    bench.crash()
    (again,) = bench.create(b"other")
    assert again.log.record.number == number
    bench.crash()
    again = bench.registry.queues[b"other"]
    assert (again.waiting_items, again.waiting_bytes, again.take()) == (0, 0, None)
    assert bench.storage.last_blob(number) == 0
    again.put(b"x", 0, 0)
    bench.end_turn()
    assert again.take() == (b"x", 0, 0, 1_000_000)
