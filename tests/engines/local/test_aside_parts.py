"""What is handed to an aside, and the aside itself, are what those expect that use them."""

from collections.abc import Callable

from darner_core.engines.contract import Source
from darner_core.engines.local.aside import Aside
from darner_core.engines.local.aside_parts import Held, Parent, Watcher
from darner_core.engines.local.due import DueTimes
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.storage.storage import Storage
from tests.support.asides import Bench


def as_parent(queue: MessageQueue) -> Parent:
    return queue


def as_watcher(due: DueTimes) -> Watcher:
    return due


def test_an_aside_has_what_sessions_ask_of_where_a_read_came_from(open_storage: Callable[[], Storage]) -> None:
    bench = Bench(open_storage)
    # All of a source but a flush, which takes several turns here.
    asked = [name for name in dir(Source) if not name.startswith("_") and name != "flush"]
    assert [name for name in asked if not hasattr(bench.aside, name)] == []
    assert bench.aside.name == as_parent(bench.queue).name


def test_an_open_item_is_known_with_its_job(open_storage: Callable[[], Storage]) -> None:
    bench = Bench(open_storage)
    bench.put(b"x", pri=3)
    read = bench.opened()
    held = bench.aside.outstanding[read.id]
    assert isinstance(held, Held)
    assert (held.read, held.job.pri, bench.aside.job_of(read)) == (read, 3, held.job)
    assert isinstance(read.queue, Aside)
