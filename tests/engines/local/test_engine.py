"""The parts of the local engine know each other."""

from collections.abc import Callable

from darner_core.config.queues import QueueOptions
from darner_core.storage.storage import Storage
from tests.support.bench import Bench


def test_what_expires_goes_where_the_engine_puts_it(open_storage: Callable[[], Storage]) -> None:
    bench = Bench(open_storage, q=QueueOptions(expire_to_queue=b"dead"))
    bench.put(b"q", b"1", expires_in_s=1)
    bench.put_large(b"q", b"x" * 900, expires_in_s=1)
    bench.now_s += 2
    bench.sweep()
    assert (bench.drain(b"q"), bench.drain(b"dead")) == ([], [b"1", b"x" * 900])


def test_what_was_watched_is_watched_when_the_engine_is_built_again(open_storage: Callable[[], Storage]) -> None:
    bench = Bench(open_storage, q=QueueOptions(trace=True))
    bench.put(b"q", b"1")
    bench.end_turn()
    bench.crash()
    assert bench.queue().traced
    assert bench.engine.traces is bench.registry.traces
