"""Items that are lent by ids: how many may be, for how long, and how many are decided on in one turn."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from darner_core.config.options import Config
from darner_core.engines.jobs import JobOptions
from darner_core.errors import StorageError
from darner_core.operations.lending import Lending
from darner_core.operations.operations import Operations
from darner_core.operations.session import FAILURES_AT_ONCE
from darner_core.storage.storage import Storage
from tests.operations.test_session import House
from tests.support.operations_on import operations_on


class Client:
    """Its turns are those of the house."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.turns = 0
        self.fails: Iterator[bool] = iter(())

    def wait_turn(self) -> None:
        self.turns += 1
        if next(self.fails, False):
            self.house.failing_turn()
        else:
            self.house.turn()


@pytest.fixture
def house(open_storage: Callable[[], Storage]) -> House:
    return House(open_storage, Config(max_leases=5000))


@pytest.fixture
def client(house: House) -> Any:
    return Client(house)


@pytest.fixture
def operations(house: House) -> Operations:
    return operations_on(house)


@pytest.fixture
def lending(operations: Operations) -> Lending:
    return operations.lending


def lend(house: House, lending: Lending, count: int, lasts_ms: int = 60_000) -> list[int]:
    house.put(*(b"%d" % number for number in range(count)))
    house.turn()
    session = house.session()
    ids = list(lending.next_ids(count))
    for lease_id in ids:
        read = house.registry.queues[b"q"].open()
        assert read is not None
        lending.hold(session, lease_id, lasts_ms, read)
    house.turn()
    return ids


def test_few_are_decided_on_at_once_and_many_in_turns(house: House, lending: Lending, client: Any) -> None:
    ids = lend(house, lending, 2600)
    assert lending.confirm(b"q", ids[:2]) == 2
    confirm: Any = lending.confirm(b"q", ids[:1600])
    assert confirm(client) == 1598
    assert client.turns == 1
    touch: Any = lending.touch(b"q", ids, 5000)
    assert (touch(client), client.turns) == (1000, 3)
    assert lending.abort(b"q", ids[1600:]) == 1000
    house.turn()
    assert house.waiting() == [b"%d" % number for number in range(1600, 2600)]


def test_failures_take_more_turns_because_each_is_written(house: House, lending: Lending, client: Any) -> None:
    ids = lend(house, lending, 250)
    later: Any = lending.abort_later(b"q", ids, 60_000, None)
    assert (later(client), client.turns) == (250, 2)
    house.turn()
    assert dict(house.engine.jobs.figures(b"q"))[b"delayed"] == 250
    assert FAILURES_AT_ONCE == 100


def test_a_turn_that_fails_in_the_middle_is_told_and_what_it_decided_is_open(
    house: House, lending: Lending, client: Any
) -> None:
    ids = lend(house, lending, 250)
    reject: Any = lending.reject(b"q", ids)
    client.fails = iter([False, True])
    with pytest.raises(StorageError, match="only some of the items are decided on"):
        reject(client)
    house.registry.recheck()
    rest: Any = lending.reject(b"q", ids)
    assert rest(client) == 150
    house.turn()
    assert dict(house.engine.jobs.figures(b"q"))[b"buried"] == 250


def test_an_item_lasts_as_long_as_it_says_or_else_its_queue_or_else_the_caller(
    house: House, operations: Operations, lending: Lending
) -> None:
    operations.jobs.put(house.session(), (b"q",), b"a", 0, 0, JobOptions(ttr_ms=700))
    house.put(b"b", queue=b"plain")
    house.turn()
    for name, lasts_ms in ((b"q", 700), (b"plain", 9)):
        read = house.registry.queues[name].open()
        assert read is not None
        assert lending.lasts_ms(read, otherwise_ms=9) == lasts_ms


def test_the_room_is_what_a_client_and_all_may_have(house: House, lending: Lending) -> None:
    session = house.session()
    house.put(b"a")
    assert lending.room(session, b"q") == 100
    read = house.registry.queues[b"q"].open()
    assert read is not None
    lending.hold(session, lending.next_ids(1)[0], 1000, read)
    assert (lending.room(session, b"q"), lending.room(house.session(), b"q")) == (99, 100)
