"""Several items that a session holds: touched, given back and rejected, at once or in turns."""

from collections.abc import Callable
from typing import Any

import pytest

from darner_core.config.options import Config
from darner_core.errors import ServerError, StorageError
from darner_core.operations.holding import Holding
from darner_core.operations.operations import Operations
from darner_core.operations.session import ManyReads
from darner_core.storage.storage import Storage
from tests.operations.test_lending import Client
from tests.operations.test_session import House
from tests.support.operations_on import operations_on


@pytest.fixture
def house(open_storage: Callable[[], Storage]) -> House:
    return House(open_storage, Config(max_leases=2))


@pytest.fixture
def client(house: House) -> Any:
    return Client(house)


@pytest.fixture
def operations(house: House) -> Operations:
    return operations_on(house)


@pytest.fixture
def holding(operations: Operations) -> Holding:
    return operations.holding


@pytest.fixture
def session(house: House, operations: Operations) -> ManyReads:
    return ManyReads(house.journal, operations.comebacks)


def hold(house: House, session: ManyReads, count: int) -> None:
    house.put(*(b"%d" % number for number in range(count)))
    house.turn()
    for _ in range(count):
        house.open(session)
    house.turn()


def buried(house: House) -> int:
    return dict(house.engine.jobs.figures(b"q")).get(b"buried", 0)


def told(count: int | None) -> tuple[str, int | None]:
    return "told", count


def test_so_many_of_the_oldest_go_back_or_none(house: House, holding: Holding, session: ManyReads) -> None:
    hold(house, session, 4)
    assert holding.abort_oldest_then(session, b"q", 5, None, None, told) == ("told", None)
    assert holding.abort_oldest_then(session, b"q", 0, None, None, told) == ("told", 0)
    assert holding.abort_oldest_then(session, b"q", 2, None, None, told) == ("told", 2)
    assert holding.abort_oldest_then(session, b"q", 1, 0, 5, told) == ("told", 1)
    assert session.open_reads(b"q") == 1
    house.turn()
    assert house.waiting() == [b"2", b"0", b"1"]


def test_many_go_back_in_turns(house: House, holding: Holding, session: ManyReads, client: Any) -> None:
    hold(house, session, 250)
    assert holding.reject_oldest_then(session, b"q", 250, told)(client) == ("told", 250)
    house.turn()
    assert (client.turns, session.holds_nothing, buried(house)) == (2, True, 250)


def test_a_turn_that_fails_in_the_middle_is_told_and_what_it_did_is_open(
    house: House, holding: Holding, session: ManyReads, client: Any
) -> None:
    hold(house, session, 250)
    reject = holding.reject_oldest_then(session, b"q", 250, told)
    client.fails = iter([False, True])
    with pytest.raises(StorageError, match="only some of the items are given back"):
        reject(client)
    house.registry.recheck()
    assert (session.open_reads(b"q"), buried(house)) == (150, 100)


def test_what_cannot_be_given_back_is_the_end_and_those_before_it_are_counted(
    house: House, holding: Holding, session: ManyReads, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(house, session, 3)
    reject = house.engine.jobs.reject

    def fail_at_the_second(read: Any, name: bytes = b"") -> None:
        if read.id == 2:
            raise StorageError("cannot be read")
        reject(read, name)

    monkeypatch.setattr(house.engine.jobs, "reject", fail_at_the_second)
    assert holding.reject_oldest_then(session, b"q", 3, told) == ("told", 1)
    with pytest.raises(StorageError, match="cannot be read"):
        holding.reject_oldest_then(session, b"q", 2, told)
    house.turn()
    assert (session.open_reads(b"q"), buried(house)) == (2, 1)


def test_what_has_no_deadline_gets_none_and_counts_as_open(
    house: House, holding: Holding, session: ManyReads, client: Any
) -> None:
    hold(house, session, 2)
    assert holding.touch_all_then(session, b"q", 5, told) == ("told", 2)
    assert holding.touch_all_then(session, b"other", 5, told) == ("told", 0)
    hold(house, session, 1500)
    assert holding.touch_all_then(session, b"q", 5, told)(client) == ("told", 1502)
    assert client.turns == 1


def test_an_item_for_which_there_is_no_deadline_left_is_given_back(
    house: House, holding: Holding, session: ManyReads
) -> None:
    house.put(b"a", b"b", b"c")
    queue = house.registry.queues[b"q"]
    for _ in range(2):
        read = queue.open()
        assert read is not None
        holding.settle(session, 60_000, read)(read)
    read = queue.open()
    assert read is not None
    with pytest.raises(ServerError, match="too many items with a deadline are open"):
        holding.settle(session, 0, read)
    holding.settle(session, None, other := queue.open())(other)  # type: ignore[arg-type]
    assert (session.open_reads(b"q"), queue.waiting_items) == (3, 0)
    assert holding.touch_all_then(session, b"q", 0, told) == ("told", 3)
