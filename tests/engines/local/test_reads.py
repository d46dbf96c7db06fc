"""An open read: what is counted of it."""

from collections.abc import Callable

from darner_core.storage.storage import Storage
from tests.support.bench import Bench


def test_what_a_client_has_is_counted_once_and_what_is_undone_is_not(open_storage: Callable[[], Storage]) -> None:
    bench = Bench(open_storage)
    bench.put(b"q", b"1", b"2")
    queue = bench.queue()
    first, second = queue.open(), queue.open()
    assert first is not None
    assert second is not None
    assert queue.transactions == 0  # perhaps they are only being handed over
    first.count()
    second.count()
    assert queue.transactions == 2
    second.uncount()
    second.uncount()
    assert queue.transactions == 1
    queue.give_back(first)
    queue.give_back(second)
    assert queue.canceled_transactions == 1
