"""The operations together, without a protocol: values in, values out."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from darner_core.operations.client import LATER
from darner_core.operations.operations import Operations
from darner_core.storage.storage import Storage
from tests.operations.test_session import House
from tests.support.operations_on import operations_on


class Client:
    """Is handed what comes while it waits."""

    def __init__(self, house: House, meanwhile: Callable[[], object]) -> None:
        self.session: Any = house.session()
        self.waits = 0
        self._meanwhile = meanwhile

    def wait_for(self, waiter: Any, wait_ms: int) -> object:
        self.waits += 1
        self._meanwhile()
        return waiter.got

    def wait_turn(self) -> None: ...


@pytest.fixture
def house(open_storage: Callable[[], Storage]) -> House:
    return House(open_storage)


@pytest.fixture
def operations(house: House) -> Operations:
    return operations_on(house)


def test_what_is_put_is_taken(house: House, operations: Operations) -> None:
    session: Any = house.session()
    assert operations.putting.put(session, (b"q",), b"a", 5)
    shown = operations.taking.peek(b"q")
    assert shown is not None
    assert shown is not LATER
    assert (shown.item[:2], shown.is_large) == ((b"a", 5), False)
    read = operations.taking.open((b"none", b"q"))
    assert read is not None
    assert read is not LATER
    assert operations.taking.accept(read, session.hold)[0] == b"a"
    assert operations.taking.open((b"q",)) is None
    session.close_read()
    house.turn()
    assert house.waiting() == []


def test_who_waits_is_answered_later(house: House, operations: Operations) -> None:
    taking = operations.taking
    client: Any = Client(house, lambda: house.put(b"a"))
    assert taking.open((b"q", b"r"), 1000) is LATER
    read = taking.wait_open(client, (b"q", b"r"), time.monotonic() + 1)
    assert read is not None
    assert read.queue.item_of(read)[0] == b"a"
    read.queue.give_back(read)
    assert taking.wait_open(client, (b"q",), 0) is not None  # what is there is taken without waiting
    assert client.waits == 1
    assert taking.wait_open(client, (b"q",), 0) is None


def test_nobody_waits_when_the_server_stops_or_nothing_may_be_read(operations: Operations) -> None:
    operations.availability.no_reads = "the server is QUIESCENT"
    assert operations.taking.open((b"q",), 1000) is None
    assert operations.taking.peek(b"q", 1000) is None
    operations.availability.no_reads = ""
    assert operations.taking.open((b"q",), 1000) is LATER
    operations.availability.stopping = True
    assert operations.taking.open((b"q",), 1000) is None
