"""Putting items, as a client of the memcache protocol sees it, beyond the recorded conversations of tests/wire."""

from collections.abc import Callable
from typing import Any

import pytest

from darner_core.config.options import Config
from darner_core.config.queues import QueueRules
from darner_core.engines.local import large_items
from darner_core.errors import ServerError
from darner_core.protocols.memcache.commands import Memcache
from darner_core.protocols.memcache.dialects import DIALECTS
from darner_core.protocols.memcache.reader import LineRequest, RequestReader
from darner_core.storage.records import Blob
from darner_core.storage.storage import Storage
from tests.operations.test_session import House
from tests.support.feeding import feed
from tests.support.harness import Client
from tests.support.operations_on import items_on, operations_on

Connect = Callable[[], Client]


def test_flags_come_back_whatever_they_are(connect: Connect) -> None:
    client = connect()
    for flags in (0, 1, 65535, 2**32 - 1, 0):
        client.set("q", b"x", flags)
        client.ask(b"get q\r\n", b"VALUE q %d 1\r\nx\r\nEND\r\n" % flags)


def test_an_expiry_is_taken_in_every_form_memcached_has(connect: Connect) -> None:
    client = connect()
    for expiry in (b"0", b"60", b"999999", b"1893456000", b"99999999999"):
        client.ask(b"set q 0 " + expiry + b" 1\r\nx\r\n", b"STORED\r\n")
        assert client.get("q") == b"x"
    for expiry in (b"-1", b"-9223372036854775808", b"1000000", b"1600000000"):
        client.ask(b"set q 0 " + expiry + b" 1\r\nx\r\n", b"STORED\r\n")
        assert client.get("q") is None


@pytest.mark.parametrize(
    ("dialect", "name", "waits"),
    [
        ("darner", b"plain", False),
        ("darner", b"plain/sync", True),
        ("darner", b"safe", True),
        ("darner", b"everyone", True),
        ("kestrel", b"parent", True),
        ("kestrel", b"parent+other", False),
        ("siberite", b"plain+other", False),
        ("siberite", b"plain+safe", True),
    ],
)
def test_a_set_waits_for_the_disk_if_a_queue_that_it_goes_into_says_so(
    open_storage: Callable[[], Storage], dialect: str, name: bytes, waits: bool
) -> None:
    house = House(open_storage)
    list(house.registry.set_rules(QueueRules(queues={b"safe": {"sync": "always"}, b"parent+kept": {"sync": "always"}})))
    list(house.registry.make_named())
    operations = operations_on(house)
    house.engine.routing.set_aliases({b"everyone": (b"plain", b"safe")})
    memcache = Memcache(operations, Config(), DIALECTS[dialect])
    reader = RequestReader(memcache.table(), {}, 1000, 1000, DIALECTS[dialect])
    for _ in range(2):  # the first makes queues
        session = house.session()
        for request, body in feed(reader, b"set %b 0 0 1\r\nx\r\n" % name):
            assert request.run(request, body, session) == b"STORED\r\n"
        house.turn()
        assert session.needs_sync == waits


class Sending:
    """A client that sends a large item, and what its server's other clients see in the turns between."""

    def __init__(self, house: House, body: bytes, seen: Callable[[], None]) -> None:
        self.session = house.session()
        self.turns = 0
        self.gone_after = 1 << 30
        self._rest = body + b"\r\n"
        self._house = house
        self._seen = seen

    def wait_body(self, most_bytes: int) -> bytes:
        piece, self._rest = self._rest[:most_bytes], self._rest[most_bytes:]
        return piece

    def wait_turn(self) -> None:
        self._house.turn()
        self.turns += 1
        self._seen()
        if self.turns == self.gone_after:
            raise ConnectionResetError


@pytest.mark.parametrize("gone_after", [1 << 30, 1, 5, 8])
def test_a_large_item_reaches_many_queues_in_slices_and_all_at_once(
    open_storage: Callable[[], Storage], monkeypatch: pytest.MonkeyPatch, gone_after: int
) -> None:
    monkeypatch.setattr(large_items, "COPIES_A_TURN", 4)
    monkeypatch.setattr(large_items, "COPIED_BYTES", 3000)
    house = House(open_storage, Config(chunk_bytes=1000))
    items = items_on(house)
    children = [house.registry.create(b"p+%d" % number, is_child=True) for number in range(10)]
    house.turn()
    written: list[int] = []  # bytes of chunks in each turn
    put_chunk = house.storage.put_chunk

    def count(number: int, blob: int, index: int, chunk: bytes) -> None:
        written[-1] += len(chunk)
        put_chunk(number, blob, index, chunk)

    def see() -> None:
        written.append(0)
        assert not any(queue.waiting_items for queue in house.registry)  # no queue has it before all have

    written.append(0)
    house.storage.put_chunk = count  # type: ignore[method-assign]
    body = bytes(range(250)) * 10
    client: Any = Sending(house, body, see)
    client.gone_after = gone_after
    request = LineRequest(print, b"set", b"p", b"p", body_bytes=len(body))
    if gone_after < 1 << 30:
        with pytest.raises(ConnectionResetError):
            items.receive_large(request, client)
        house.turn()
        assert not any(queue.waiting_items for queue in house.registry)
        assert house.storage.first_chunk() is None
        assert house.storage.unfinished_uploads() == []
        return
    assert items.receive_large(request, client) == b"STORED\r\n"
    house.turn()
    assert [queue.waiting_items for queue in house.registry] == [1] * 11
    assert sum(written) == 11 * len(body)
    assert max(written) <= 2 * 3000  # the end of one piece, and the beginning of the next
    for queue in children:
        item = queue.peek()
        assert item is not None
        assert isinstance(item[0], Blob)
        download, found = queue.large_items.send(item[0]), b""
        while download.missing_bytes:
            found += download.next(1000)
        assert found == body


class Told:
    """A client that is told of a failed turn while the rest of its item is read."""

    def __init__(self, rest: bytes) -> None:
        self.rest = rest
        self.told = False

    def wait_body(self, most_bytes: int) -> bytes:
        if len(self.rest) < 1000 and not self.told:
            self.told = True
            raise ServerError("cannot write")
        data, self.rest = self.rest[:most_bytes], self.rest[most_bytes:]
        return data


def test_a_refused_item_is_skipped_to_its_end_though_a_turn_fails_meanwhile(
    open_storage: Callable[[], Storage],
) -> None:
    house = House(open_storage, Config(chunk_bytes=1024, max_item_bytes=1500))
    items = items_on(house)
    client: Any = Told(b"x" * 2000 + b"\r\nget q\r\n")
    with pytest.raises(ServerError, match="too large"):
        items.receive_large(LineRequest(print, b"set", queue=b"q", body_bytes=2000), client)
    assert client.told
    assert client.rest == b"get q\r\n"


def test_who_hangs_up_before_a_large_item_has_begun_to_come_leaves_no_queues_behind(
    open_storage: Callable[[], Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_items, "COPIES_A_TURN", 2)
    house = House(open_storage, Config(chunk_bytes=1000))
    items = items_on(house)
    client: Any = Sending(house, b"", lambda: None)
    client.gone_after = 1
    request = LineRequest(print, b"set", b"a+b+c", b"a", targets=(b"a", b"b", b"c"), body_bytes=2000)
    with pytest.raises(ConnectionResetError):
        items.receive_large(request, client)
    house.turn()
    assert not house.registry.queues
