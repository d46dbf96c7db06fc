"""Items put several at a time, over a real journal: up to the first that is refused, and large ones not before all of
their chunks are there."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from darner_core.config.options import Config
from darner_core.config.values import SYNC_ALWAYS
from darner_core.errors import ServerError, StorageError
from darner_core.operations.client import LATER
from darner_core.operations.operations import Operations
from darner_core.operations.putting import Putting
from darner_core.operations.taking import Shown, wait_body
from darner_core.storage.records import Blob
from darner_core.storage.storage import Storage
from tests.operations.test_session import House
from tests.support.operations_on import operations_on

LARGE = bytes(range(256)) * 20


class Client:
    """Counts the turns that a function which waits gives to others, and ends each of them."""

    def __init__(self, house: House) -> None:
        self.turns = 0
        self.session = house.session()
        self.on_turn: Callable[[], None] = lambda: None
        self._house = house

    def wait_turn(self) -> None:
        self._house.turn()
        self.turns += 1
        self.on_turn()


@pytest.fixture
def house(open_storage: Callable[[], Storage]) -> House:
    return House(open_storage, CONFIG)


@pytest.fixture
def client(house: House) -> Any:
    return Client(house)


@pytest.fixture
def operations(house: House) -> Operations:
    return operations_on(house)


@pytest.fixture
def putting(operations: Operations) -> Putting:
    return operations.putting


CONFIG = Config(chunk_bytes=1024, max_item_bytes=6000, min_free_bytes=0)


def heads(house: House) -> list[bytes | Blob]:
    queue = house.registry.queues.get(b"q")
    return [item[0] for item in queue.window] if queue is not None else []


def test_items_are_put_up_to_the_first_that_is_refused(house: House, putting: Putting) -> None:
    assert putting.put_several(house.session(), b"q", [b"a", b"b", bytes(6001), b"c"], None, False) == 2
    house.turn()
    assert house.waiting() == [b"a", b"b"]


def test_an_expiry_counts_from_now(house: House, putting: Putting) -> None:
    assert putting.put_several(house.session(), b"q", [b"a"], 500, False) == 1
    assert putting.put_several(house.session(), b"q", [b"b"], None, False) == 1
    house.turn()
    (_, _, expires_at_ms, added_at_ms), (_, _, never, _) = house.registry.queues[b"q"].window
    assert 0 < expires_at_ms - added_at_ms <= 500
    assert never == 0


def test_a_queue_that_syncs_always_has_the_reply_wait_for_it(house: House, putting: Putting, client: Any) -> None:
    for items in ([b"a"], [LARGE]):
        queue = house.registry.queues.get(b"q") or house.registry.create(b"q")
        session = client.session = house.session()
        assert putting.put_several(session, b"q", [b"a"], 1000, False) == 1
        assert not session.needs_sync
        queue.options, queue.governed = replace(queue.options, sync=SYNC_ALWAYS), True
        stored = putting.put_several(session, b"q", items, None, False)
        if stored is LATER:
            stored = putting.wait_put_several(client, b"q", items, None, False)
        assert stored == 1
        assert session.needs_sync
        house.turn()
        house.registry.delete(b"q")


def test_nothing_is_put_while_sets_are_refused(
    house: House, operations: Operations, putting: Putting, client: Any
) -> None:
    operations.availability.no_room = "out of disk space"
    with pytest.raises(ServerError, match="out of disk space"):
        putting.put_several(house.session(), b"q", [b"a"], None, False)
    with pytest.raises(ServerError, match="out of disk space"):
        putting.wait_put_several(client, b"q", [LARGE], None, False)
    assert house.registry.queues == {}


def test_large_items_are_put_with_the_others_when_all_their_chunks_are_there(
    house: House, putting: Putting, client: Any
) -> None:
    items = [b"a", LARGE, b"b"]
    assert putting.put_several(client.session, b"q", items, None, False) is LATER
    seen: list[list[bytes | Blob]] = []
    client.on_turn = lambda: seen.append(heads(house))
    assert putting.wait_put_several(client, b"q", items, None, False) == 3
    assert seen == [[]] * 5  # a turn for each chunk
    house.turn()
    house.restart()
    queue = house.registry.queues[b"q"]
    found = []
    while (read := queue.open()) is not None:
        item = queue.item_of(read)
        found.append(item[0] if isinstance(item[0], bytes) else wait_body(client, Shown(queue, item, read.id)))
    assert found == items


def test_a_queue_deleted_meanwhile_refuses_the_item_and_has_no_chunks(
    house: House, putting: Putting, client: Any
) -> None:
    client.on_turn = lambda: house.registry.delete(b"q")
    assert putting.wait_put_several(client, b"q", [LARGE], None, False) == 0
    house.turn()
    assert house.registry.queues == {}
    assert list(house.storage.unfinished_uploads()) == []


def test_what_is_refused_behind_a_large_item_leaves_no_chunks(house: House, putting: Putting, client: Any) -> None:
    assert putting.wait_put_several(client, b"q", [bytes(6001), LARGE], None, False) == 0
    house.turn()
    assert list(house.storage.unfinished_uploads()) == []
    assert house.waiting() == []


def test_a_client_that_goes_leaves_no_chunks(house: House, putting: Putting, client: Any) -> None:
    class Gone(Exception):
        pass

    def go() -> None:
        raise Gone

    client.on_turn = go
    with pytest.raises(Gone):
        putting.wait_put_several(client, b"q", [b"a", LARGE], None, False)
    house.turn()
    assert house.waiting() == []
    assert list(house.storage.unfinished_uploads()) == []


@pytest.mark.parametrize("what", ["refused", "full", "error"])
def test_what_large_items_have_left_on_disk_goes_if_they_are_not_put(
    house: House, putting: Putting, operations: Operations, client: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def happen() -> None:
        if what == "refused":
            operations.availability.no_room = "no room"
        elif what == "full":
            monkeypatch.setattr(operations.putting._routing, "_all_fit", lambda *_: False)
        else:

            def refuse(*_: object) -> None:
                raise StorageError("a hiccup")

            monkeypatch.setattr(operations.putting._routing, "_takers", refuse)

    client.on_turn = happen
    with suppress(ServerError, StorageError):
        assert putting.wait_put_several(client, b"new", [LARGE], None, False) == 0
    house.turn()
    assert house.storage.first_chunk() is None
    assert house.storage.unfinished_uploads() == []
    assert b"new" not in house.registry.queues
