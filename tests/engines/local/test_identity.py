"""What a data directory is called."""

from collections.abc import Callable

import pytest

from darner_core.errors import StorageError
from darner_core.storage.rocks import DEFAULT_FAMILY
from darner_core.storage.storage import Storage
from tests.support.bench import Bench


def test_it_stays_over_a_restart_and_is_no_others(open_storage: Callable[[], Storage]) -> None:
    bench = Bench(open_storage)
    found = bench.engine.items.identity
    bench.fail_turn()
    assert bench.engine.items.identity != found  # nobody was told
    found = bench.engine.items.identity
    bench.end_turn()
    bench.crash()
    assert bench.engine.items.identity == found
    assert bench.engine.items.identity == found


def test_one_that_cannot_be_read_is_not_replaced(open_storage: Callable[[], Storage]) -> None:
    bench = Bench(open_storage)
    bench.storage.put(DEFAULT_FAMILY, b"n", b"short")  # type: ignore[union-attr]
    with pytest.raises(StorageError):
        _ = bench.engine.items.identity
