"""The parts of the local engine know each other."""

from collections.abc import Callable
from typing import Any, cast

from darner_core.storage.storage import Storage
from tests.operations.test_session import House
from tests.support.operations_on import operations_on


def test_what_expires_goes_where_the_engine_puts_it(open_storage: Callable[[], Storage]) -> None:
    house = House(open_storage)
    operations = operations_on(house)
    assert cast(Any, house.registry.move_expired).__self__ is operations.putting._delivery
    assert len(operations.pending) == 0
