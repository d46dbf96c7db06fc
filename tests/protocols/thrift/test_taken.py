"""What one reply can hold: up to so many items or bytes, or one large item alone."""

from collections.abc import Callable

import pytest

from darner_core.errors import ServerError
from darner_core.protocols.thrift.taken import Taken
from darner_core.storage.storage import Storage
from tests.operations.test_session import House


@pytest.fixture
def house(open_storage: Callable[[], Storage]) -> House:
    return House(open_storage)


def take(house: House, most_bytes: int, most_items: int) -> Taken:
    taken = Taken(most_bytes, most_items)
    taken.take(house.registry.queues.get(b"q"))
    return taken


def test_as_much_as_there_is_and_no_more_than_fits(house: House) -> None:
    assert not take(house, 100, 5).reads  # there is no queue
    house.put(*[b"x" * 10] * 8)
    some = take(house, 100, 5)
    assert (len(some.reads), some.full) == (5, True)
    rest = take(house, 100, 5)
    assert (len(rest.reads), rest.full) == (3, False)
    house.put(*[b"x" * 30] * 8)
    few = take(house, 100, 50)
    assert (len(few.reads), few.full) == (3, True)
    assert house.registry.queues[b"q"].waiting_items == 5


def test_the_first_fits_whatever_its_size(house: House) -> None:
    house.put(b"x" * 1000, b"y")
    taken = take(house, 100, 5)
    assert ([read.body_bytes for read in taken.reads], taken.full) == ([1000], True)


def test_what_no_frame_can_hold_is_refused_and_stays(house: House) -> None:
    house.put(bytes(16_384_000))
    with pytest.raises(ServerError, match="the item at the head has 16384000 bytes"):
        take(house, 100, 5)
    assert house.registry.queues[b"q"].waiting_items == 1
