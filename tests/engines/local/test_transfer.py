"""A large item on its way into several queues: into all of them, or none."""

from collections.abc import Callable

import pytest

from darner_core.config.options import Config
from darner_core.engines.local.transfer import Transfer
from darner_core.errors import ServerError
from darner_core.storage.storage import Storage
from tests.operations.test_session import House

CHUNK_BYTES = 1000
BODY = bytes(range(250)) * 10


@pytest.fixture
def house(open_storage: Callable[[], Storage]) -> House:
    return House(open_storage, Config(chunk_bytes=CHUNK_BYTES))


def transfer(house: House, *names: bytes) -> Transfer:
    return house.engine.routing.transfer(names, len(BODY))


def receive(item: Transfer, wait_turn: Callable[[], object]) -> None:
    item.wait_begin(wait_turn)
    at = 0
    while at < len(BODY):
        piece = BODY[at : at + item.room_bytes]
        item.wait_add(piece, wait_turn)
        at += len(piece)
    item.wait_store(wait_turn)


def test_all_queues_have_it_when_it_is_put_and_not_before(house: House) -> None:
    with transfer(house, b"a", b"b") as item:
        assert item.find_queues() == 2
        receive(item, house.turn)
        assert [queue.waiting_items for queue in house.registry] == [0, 0]
        item.require_queues()
        assert item.put(5, 0) is not None
    house.turn()
    house.restart()
    assert [(queue.name, queue.waiting_items, queue.waiting_bytes) for queue in house.registry] == [
        (b"a", 1, len(BODY)),
        (b"b", 1, len(BODY)),
    ]


def test_what_is_not_put_leaves_nothing(house: House) -> None:
    with transfer(house, b"a", b"b") as item:
        item.find_queues()
        receive(item, house.turn)
    house.turn()
    assert not list(house.registry)
    assert house.storage.first_chunk() is None
    assert house.storage.unfinished_uploads() == []


def test_a_queue_that_is_deleted_meanwhile_is_told(house: House) -> None:
    with transfer(house, b"a") as item:
        item.find_queues()
        receive(item, house.turn)
        house.registry.delete(b"a")
        with pytest.raises(ServerError, match="was deleted"):
            item.require_queues()
