"""Blocks of public numbers: how they grow and go, and what is left of them after a failed turn and a crash."""

import random
from collections.abc import Callable

import pytest

from darner_core.config.queues import QueueOptions
from darner_core.engines.local import public_numbers
from darner_core.engines.local.public_numbers import HIGHEST, MOST
from darner_core.errors import ServerError
from darner_core.storage.number_records import Block
from darner_core.storage.storage import Storage
from tests.support.asides import refusing
from tests.support.job_bench import JobBench

OpenStorage = Callable[[], Storage]


@pytest.fixture
def bench(open_storage: OpenStorage) -> JobBench:
    return JobBench(open_storage, m=QueueOptions(durable=False))


def stored(bench: JobBench) -> list[Block]:
    assert bench.storage is not None
    mark, blocks = bench.storage.numbers.read()
    assert all(block.first + block.size <= mark for block in blocks)
    return blocks


def number(bench: JobBench, name: bytes, item_id: int) -> int:
    given = bench.engine.items.number(name, item_id)
    assert bench.engine.items.numbered(given) == (name, item_id)
    return given


def put_and_ask(bench: JobBench, count: int, name: bytes = b"q") -> list[int]:
    numbers = []
    for _ in range(count):
        placed = bench.placed(name, b"x")
        numbers.append(number(bench, name, placed.id))
    bench.end_turn()
    return numbers


def test_blocks_become_larger_up_to_a_limit(bench: JobBench) -> None:
    put_and_ask(bench, 5000)
    sizes = [block.size for block in stored(bench)]
    assert sizes == [1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, *[MOST] * 4]


def test_a_block_ends_where_another_begins(bench: JobBench) -> None:
    bench.put(b"q", *[b"x"] * 100)
    asked = [50, 51, 52, 53, 10, 48, 49, 47, 11]
    numbers = {item_id: number(bench, b"q", item_id) for item_id in asked}
    assert len(set(numbers.values())) == len(asked)
    assert {item_id: number(bench, b"q", item_id) for item_id in sorted(asked)} == numbers


def test_numbers_stay_over_a_crash(bench: JobBench) -> None:
    for _ in range(40):
        bench.put_job(b"q", b"x", pri=random.choice([1, 1024]))
    ids = [seen.id for seen in bench.engine.items.look(b"q")]
    numbers = {item_id: number(bench, b"q", item_id) for item_id in ids}
    bench.end_turn()
    bench.crash()
    bench.do_slices()
    assert {item_id: number(bench, b"q", item_id) for item_id in ids} == numbers
    bench.put(b"r", b"x")
    assert number(bench, b"r", 1) > max(numbers.values())


def test_numbers_of_queues_in_memory_are_not_used_again(bench: JobBench) -> None:
    last = put_and_ask(bench, 10, b"m")[-1]
    assert stored(bench) == []
    bench.crash()
    assert bench.engine.items.numbered(last) is None
    bench.put(b"q", b"x")
    assert number(bench, b"q", 1) > last


def test_blocks_go_when_their_last_item_has_gone(bench: JobBench) -> None:
    put_and_ask(bench, 5000)
    read = bench.engine.items.open(b"q", 700)
    assert read is not None
    for _ in range(4500):
        bench.take()
    bench.end_turn()
    last = put_and_ask(bench, MOST * public_numbers.LOOK_AFTER)[-1]
    bench.do_slices()
    ends = [block.first_id + block.size for block in stored(bench)]
    assert ends[0] == 1025  # where the open one is
    assert min(ends[1:]) > 4500
    read.queue.close(read)
    bench.drain()
    bench.crash()
    bench.do_slices()
    assert len(stored(bench)) == 1  # in which there is still room
    assert put_and_ask(bench, 1) == [last + 1]


def test_blocks_of_what_lies_aside_go_as_well(bench: JobBench) -> None:
    for name in (b"q", b"m"):
        for count in range(20):
            placed = bench.placed(name, b"x", pri=7, delay_ms=count % 2)
            number(bench, name, placed.id)
        bench.end_turn()
        bench.pass_time(1)
        assert len(bench.drain(name)) == 20
    for _ in range(public_numbers.LOOK_AFTER):
        put_and_ask(bench, 1, b"r")
        bench.registry.delete(b"r")
        bench.end_turn()
    bench.do_slices()
    assert [block.first_id for block in stored(bench)] == [9, 2**51 + 8]  # in which there is still room


def test_the_blocks_of_a_deleted_queue_go_in_slices(bench: JobBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public_numbers, "LOOKS_A_TURN", 2)
    put_and_ask(bench, 500)
    put_and_ask(bench, 1, b"r")
    bench.registry.delete(b"q")
    bench.fail_turn()
    assert not bench.journal.slices
    bench.registry.delete(b"q")
    bench.end_turn()
    turns = bench.turns
    bench.do_slices()
    assert len(stored(bench)) == 1
    assert bench.turns >= turns + 5


def test_a_queue_that_takes_over_nothing_of_a_deleted_one(bench: JobBench) -> None:
    before = put_and_ask(bench, 10)
    old = bench.engine.items.queue_number(b"q")
    bench.registry.delete(b"q")
    bench.end_turn()
    bench.crash()  # before the blocks have gone
    bench.put(b"r", *[b"x"] * 10)
    assert bench.engine.items.queue_number(b"r") != old
    assert [bench.engine.items.numbered(given) for given in before] == [None] * 10
    bench.do_slices()
    assert stored(bench) == []


@pytest.mark.parametrize("lands", [False, True])
def test_nothing_is_left_of_a_turn_that_failed(bench: JobBench, lands: bool) -> None:
    bench.put(b"q", *[b"x"] * 20)
    bench.put(b"r", *[b"x"] * 20)
    kept = number(bench, b"q", 1)
    bench.end_turn()
    assert bench.storage is not None
    for item_id in (2, 3, 5, 20, 19):
        number(bench, b"q", item_id)
    with refusing(bench.storage, lands), pytest.raises(Exception, match="no space"):
        bench.journal.commit()
    bench.journal.begin()
    if not lands:
        bench.registry.recheck()
    numbers = [number(bench, b"r", item_id) for item_id in (1, 2)]
    assert numbers == [kept + 1, kept + 2]
    bench.end_turn()
    assert [block.number for block in stored(bench)] == [
        bench.engine.items.queue_number(name) for name in (b"q", b"r", b"r")
    ]
    bench.crash()
    assert [bench.engine.items.number(b"r", item_id) for item_id in (1, 2)] == numbers
    assert bench.engine.items.number(b"q", 2) > max(numbers)


def test_what_goes_in_a_turn_that_fails_is_still_there(bench: JobBench) -> None:
    numbers = put_and_ask(bench, 10)
    bench.registry.delete(b"q")
    bench.end_turn()
    piece = bench.journal.slices.popleft()
    next(piece, None)
    bench.fail_turn()
    assert len(stored(bench)) == 5
    assert [bench.engine.items.numbered(given) for given in numbers] == [None] * 10


def test_there_is_an_end(bench: JobBench) -> None:
    bench.put(b"q", b"1", b"2")
    bench.registry.numbers._mark = HIGHEST - 1
    assert number(bench, b"q", 1) == HIGHEST - 1
    with pytest.raises(ServerError):
        bench.engine.items.number(b"q", 2)


@pytest.mark.parametrize("seed", range(4))
def test_no_number_ever_tells_of_another_item(bench: JobBench, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random puts, numbers, failed turns and crashes, against a dictionary."""
    monkeypatch.setattr(public_numbers, "LOOK_AFTER", 3)
    chance = random.Random(seed)
    known: dict[int, tuple[bytes, int]] = {}
    used: set[int] = set()
    for _ in range(150):
        before = dict(known)
        for _ in range(chance.randrange(6)):
            name = chance.choice([b"q", b"r", b"m"])
            placed = bench.placed(name, b"x", pri=chance.choice([3, 1024]))
            ids = [seen.id for seen in bench.engine.items.look(name)]
            item_id = chance.choice([placed.id, *ids])
            given = bench.engine.items.number(name, item_id)
            assert known.get(given, (name, item_id)) == (name, item_id)
            assert given in known or given not in used
            known[given] = name, item_id
            if chance.random() < 0.3:
                bench.engine.items.remove(name, chance.choice(ids))
        deed = chance.choice(["end", "end", "fail", "crash", "delete", "slices"])
        if deed == "delete":
            name = chance.choice([b"q", b"r", b"m"])
            bench.registry.delete(name)
            known = {given: item for given, item in known.items() if item[0] != name}
        if deed == "fail" and bench.fails():
            bench.registry.recheck()
            known = before
        used |= set(known)
        bench.end_turn()
        if deed == "crash":
            bench.crash()
            known = {given: item for given, item in known.items() if item[0] != b"m"}
        if deed == "slices":
            bench.do_slices()
        stored(bench)
        for given, (name, item_id) in known.items():
            if bench.engine.items.find(name, item_id) is not None:
                assert bench.engine.items.numbered(given) == (name, item_id)
                assert bench.engine.items.number(name, item_id) == given


def test_after_damage_many_are_left_out(bench: JobBench, monkeypatch: pytest.MonkeyPatch) -> None:
    put_and_ask(bench, 3)
    whole = Storage.__init__

    def damaged(storage: Storage, *about: object, **named: object) -> None:
        whole(storage, *about, **named)  # type: ignore[arg-type]
        storage.damage = ["a table is missing"]

    monkeypatch.setattr(Storage, "__init__", damaged)
    bench.crash()
    assert put_and_ask(bench, 2)[-1] > public_numbers.LEFT_OUT
