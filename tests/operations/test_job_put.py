"""Several jobs that are put with the same options, large ones among them."""

from collections.abc import Callable
from typing import Any

import pytest

from darner_core.config.options import Config
from darner_core.engines.jobs import JobOptions
from darner_core.operations.client import LATER
from darner_core.operations.job_put import JobPut
from darner_core.operations.operations import Operations
from darner_core.operations.putting import JOBS_A_TURN
from darner_core.storage.storage import Storage
from tests.operations.test_putting import LARGE, Client
from tests.operations.test_session import House
from tests.support.operations_on import operations_on


@pytest.fixture
def house(open_storage: Callable[[], Storage]) -> House:
    return House(open_storage, Config(chunk_bytes=1024, max_item_bytes=6000, min_free_bytes=0))


@pytest.fixture
def operations(house: House) -> Operations:
    return operations_on(house)


def figures(house: House) -> dict[bytes, int]:
    return {name: value for name, value in house.engine.jobs.figures(b"q") if value}


def test_all_have_the_options_and_many_take_several_turns(house: House, operations: Operations) -> None:
    client: Any = Client(house)
    put_one = JobPut(operations.jobs, b"q", JobOptions(delay_ms=60_000))
    asked = b"q", [b"a"] * (JOBS_A_TURN + 1), None, False, put_one
    assert operations.putting.put_several(house.session(), *asked) is LATER
    assert operations.putting.wait_put_several(client, *asked) == JOBS_A_TURN + 1
    assert client.turns == 2
    assert figures(house)[b"delayed"] == JOBS_A_TURN + 1


def test_it_tells_whether_the_key_was_taken(house: House, operations: Operations) -> None:
    client: Any = Client(house)
    for body, stored, taken in ((b"a", 1, False), (b"b", 0, True), (LARGE, 0, True)):
        put_one = JobPut(operations.jobs, b"q", JobOptions(key=b"k"))
        asked = b"q", [body], None, False, put_one
        done = operations.putting.put_several(house.session(), *asked)
        if done is LATER:
            done = operations.putting.wait_put_several(client, *asked)
        assert (done, put_one.key_taken) == (stored, taken)
        house.turn()
    assert house.waiting() == [b"a"]
