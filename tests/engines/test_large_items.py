"""What every engine promises about large items. An engine may decline them."""

from darner_core.engines.contract import Queue
from darner_core.engines.large_items import LARGE, LargeBody
from tests.support.engines import Q, World, opened, take_all


def test_a_large_item_is_in_its_queue_when_all_of_it_has_come(world: World) -> None:
    body = bytes(range(200)) * 3
    with world.routing.transfer((Q,), len(body)) as transfer:
        assert transfer.find_queues() == 1
        transfer.wait_begin(world.end_turn)
        for at in range(0, len(body), 100):
            rest = body[at : at + 100]
            while rest:
                room = transfer.room_bytes
                transfer.wait_add(rest[:room], world.end_turn)
                rest = rest[room:]
        transfer.wait_store(world.end_turn)
        transfer.require_queues()
        queue = world.registry.queues[Q]
        assert queue.waiting_items == 0
        assert transfer.put(7, 0) == [queue]
    world.end_turn()
    assert queue.take() is LARGE
    read = opened(queue)
    blob, flags, _, _ = queue.item_of(read)
    assert not isinstance(blob, bytes)
    assert (len(blob), flags, read.body_bytes, read.blob) == (len(body), 7, len(body), blob.blob)
    assert received(queue, blob) == body
    queue.close(read)
    world.end_turn()
    assert take_all(world) == []


def received(queue: Queue, blob: LargeBody) -> bytes:
    download, body = queue.large_items.send(blob), b""
    while download.missing_bytes:
        body += download.next(100)
    return body


def test_a_large_item_that_does_not_come_leaves_nothing(world: World) -> None:
    with world.routing.transfer((Q,), 1000) as transfer:
        transfer.find_queues()
        transfer.wait_begin(world.end_turn)
        transfer.wait_add(bytes(200), world.end_turn)
    world.end_turn()
    assert Q not in world.registry.queues or world.registry.queues[Q].waiting_items == 0
