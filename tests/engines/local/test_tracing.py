"""What is told of a queue that is watched; that it is told only when it has happened, and costs nobody else."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import invariant, run_state_machine_as_test

from darner_core.config.queues import QueueOptions
from darner_core.engines.contract import Event
from darner_core.engines.local import window
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.tracing import ABORT, CLOSE, CREATE, DELETE, FLUSH, GET, OPEN, PUT
from darner_core.errors import StorageError
from darner_core.storage.storage import Storage
from tests.engines.local.test_message_queue import EXAMPLES, Bench, Queues, put_large, refusing_writes, small_steps
from tests.support.bench import Bench as LimitsBench
from tests.support.bench import Rules, items_put

__all__ = ["small_steps"]

ASIDE = b"aside"


class Listener:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def tell(self, event: Event) -> None:
        self.events.append(event)

    def told(self) -> list[tuple[str, int]]:
        """(what, id) of what has been told since this was last asked."""
        events, self.events = self.events, []
        return [(event.what.decode(), event.id) for event in events]


class Watched(Bench):
    """The queue `q`, which `listener` watches."""

    def _start(self) -> None:
        super()._start()
        self.traces = self.registry.traces
        self.listener = Listener()
        self.traces.watch(b"q", self.listener)


@pytest.fixture
def bench(open_storage: Callable[[], Storage]) -> Watched:
    watched = Watched(open_storage)
    assert watched.listener.told() == [("create", 0)]
    return watched


def test_puts_and_gets_are_told_with_all_that_is_known_of_the_item(bench: Watched) -> None:
    bench.now_s = 2000.5
    bench.queue.put(b"hello", 7, 0)
    bench.queue.put(b"x" * 1000, 0, 0)
    bench.end_turn()
    bench.queue.take()
    bench.end_turn()
    put, long, got = bench.listener.events
    assert put == Event(b"q", PUT, 2_000_500, 1, 5, 7, b"hello")
    assert (long.id, long.body_bytes, long.start) == (2, 1000, b"x" * 40)
    assert got == put._replace(what=GET)


def test_a_turn_that_fails_after_the_last_watcher_has_gone_is_undone(bench: Watched) -> None:
    bench.put(b"a")
    bench.queue.open()
    bench.traces.unwatch(b"q", bench.listener)
    bench.queue.put(b"b", 0, 0)  # so that there is something to write
    with refusing_writes(bench.storage), pytest.raises(StorageError):
        bench.end_turn()
    assert (bench.queue.open_reads, bench.queue.waiting_items) == (0, 1)


def test_open_reads_are_told_until_they_are_closed_or_given_back(bench: Watched) -> None:
    bench.put(b"a", b"b")
    read = bench.open()
    bench.queue.give_back(read)
    bench.queue.give_back(read)
    again, other = bench.open(), bench.open()
    bench.queue.close(other)
    bench.queue.close(other)
    bench.queue.close(again)
    bench.end_turn()
    assert bench.listener.told() == [
        ("put", 1), ("put", 2), ("open", 1), ("abort", 1), ("open", 1), ("open", 2), ("close", 2), ("close", 1),
    ]  # fmt: skip


def test_a_plain_get_is_one_wherever_the_item_comes_from(bench: Watched) -> None:
    bench.put(b"given back", b"on disk", b"in memory")
    bench.queue.give_back(bench.open())
    window.release(bench.queue)
    bench.end_turn()
    bench.listener.told()
    assert bench.take_all() == [b"given back", b"on disk", b"in memory"]
    events = bench.listener.events
    assert [(event.what, event.id, event.start) for event in events] == [
        (GET, 1, b"given back"),
        (GET, 2, b"on disk"),
        (GET, 3, b"in memory"),
    ]


def test_what_is_opened_again_tells_its_body_again(bench: Watched) -> None:
    bench.put(b"a")
    bench.queue.give_back(bench.open())
    bench.listener.told()
    bench.open()
    bench.end_turn()
    assert [(e.what, e.flags, e.start) for e in bench.listener.events][-1] == (OPEN, 0, b"a")


def test_a_large_item_tells_how_it_begins(bench: Watched) -> None:
    put_large(bench.queue, b"large" * 200)
    bench.end_turn()
    read = bench.open()
    bench.queue.close(read)
    bench.end_turn()
    assert [(event.what, event.id, event.body_bytes, event.start) for event in bench.listener.events] == [
        (PUT, 1, 1000, b"large" * 8),
        (OPEN, 1, 1000, b"large" * 8),
        (CLOSE, 1, 1000, None),
    ]


def test_a_put_is_told_before_the_open_of_who_waited_for_it(bench: Watched) -> None:
    waiter = bench.registry.join_line(b"q", b"", False)
    bench.put(b"a")
    bench.registry.join_line(b"q", b"", False)
    bench.queue.give_back(waiter.got)
    bench.end_turn()
    assert bench.listener.told() == [("put", 1), ("open", 1), ("abort", 1), ("open", 1)]


def test_flush_and_delete_are_told_and_the_next_of_the_name_too(bench: Watched) -> None:
    bench.put(b"a", b"b", b"c")
    bench.open()
    bench.queue.flush()
    bench.end_turn()
    assert bench.listener.events[-1][:2] == (b"q", FLUSH)
    assert bench.listener.events[-1].items == 2
    bench.listener.told()
    bench.registry.delete(b"q")
    bench.end_turn()
    bench.registry.create(b"q").put(b"new", 0, 0)
    bench.end_turn()
    assert bench.listener.told() == [("delete", 0), ("create", 0), ("put", 1)]


def test_nothing_is_told_before_it_is_written(bench: Watched) -> None:
    bench.queue.put(b"a", 0, 0)
    assert bench.listener.told() == []
    bench.end_turn()
    assert bench.listener.told() == [("put", 1)]


def test_a_turn_that_fails_is_never_told(bench: Watched) -> None:
    bench.put(b"a", b"b")
    read = bench.open()
    bench.end_turn()
    bench.listener.told()
    with refusing_writes(bench.storage):
        bench.queue.put(b"lost", 0, 0)
        bench.open()
        bench.queue.close(read)
        bench.registry.delete(b"q")
        bench.registry.create(b"q").put(b"lost, too", 0, 0)
        with pytest.raises(StorageError):
            bench.end_turn()
    bench.storage.reopen()
    bench.registry.recheck()
    bench.end_turn()
    assert bench.listener.told() == []
    bench.queue.put(b"c", 0, 0)
    bench.end_turn()
    assert bench.listener.told() == [("put", 3)]


def test_who_watches_nothing_pays_nothing(bench: Watched) -> None:
    """A queue is of the plain class before it is watched, after it was, and beside one that is."""
    aside = bench.registry.create(ASIDE)
    second = Listener()
    assert bench.traces.watch(b"q", second)
    assert type(aside) is MessageQueue
    bench.traces.unwatch(b"q", bench.listener)
    bench.put(b"a")
    assert (bench.listener.told(), second.told()) == ([], [("put", 1)])
    assert type(bench.queue) is not MessageQueue
    bench.traces.unwatch(b"q", second)
    assert type(bench.queue) is MessageQueue
    bench.put(b"b")
    assert second.told() == []
    assert bench.journal.after == []


def test_a_queue_can_be_watched_before_there_is_one(bench: Watched) -> None:
    listener = Listener()
    assert not bench.traces.watch(ASIDE, listener)
    bench.registry.join_line(ASIDE, b"", False)
    bench.registry.create(ASIDE).put(b"a", 0, 0)
    bench.end_turn()
    assert listener.told() == [("create", 0), ("put", 1), ("open", 1)]
    bench.traces.unwatch(ASIDE, listener)
    bench.registry.delete(ASIDE)
    bench.end_turn()
    assert listener.told() == []


def test_a_queue_that_is_watched_is_still_one_of_all(bench: Watched) -> None:
    bench.put(b"a")
    assert list(bench.registry) == [bench.queue]
    assert items_put(bench.registry) == 1


def test_who_watches_cannot_bring_the_server_down(bench: Watched, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def tell(self, event: Event) -> None:
            raise ZeroDivisionError

    bench.traces.watch(b"q", Broken())
    bench.put(b"a")
    assert "an event could not be told" in caplog.text


def test_the_option_trace_writes_events_to_the_log(bench: Watched, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    queue = bench.registry.create(b"aside\n")
    queue.put(b"silent", 0, 0)
    list(bench.registry.set_rules(Rules({b"aside\n": QueueOptions(trace=True)})))
    queue.put(b"told", 0, 0)
    queue.open()
    queue.flush()
    bench.end_turn()
    list(bench.registry.set_rules(Rules({})))
    queue.put(b"silent again", 0, 0)
    bench.end_turn()
    assert caplog.messages == [
        r"trace aside\n: put 2, 4 bytes",
        r"trace aside\n: open 1, 6 bytes",
        r"trace aside\n: flush of 1 items",
    ]


# -- whatever is done


class Mirror:
    """What is in each queue, as the events tell it."""

    def __init__(self, queues: "WatchedQueues") -> None:
        self._queues = queues
        self.wrong: Exception | None = None
        self.resync()

    def resync(self) -> None:
        self.waiting, self.open = self._queues.really()

    def tell(self, event: Event) -> None:
        try:
            self.follow(event)
        except Exception as error:  # who tells it would only write it in the log
            self.wrong = error

    def follow(self, event: Event) -> None:
        name, what = event.queue, event.what
        if what == CREATE:
            assert name not in self.waiting
            self.waiting[name], self.open[name] = set(), set()
        elif what == DELETE:
            del self.waiting[name], self.open[name]
        elif what == FLUSH:
            assert event.items == len(self.waiting[name])
            self.waiting[name].clear()
        elif what == PUT:
            assert event.id not in self.waiting[name] | self.open[name]
            self.waiting[name].add(event.id)
        elif what == GET:
            assert event.id == min(self.waiting[name])
            self.waiting[name].remove(event.id)
        elif what == OPEN:
            assert event.id == min(self.waiting[name])
            self.waiting[name].remove(event.id)
            self.open[name].add(event.id)
        elif what == CLOSE:
            self.open[name].remove(event.id)
        else:
            assert what == ABORT
            self.open[name].remove(event.id)
            self.waiting[name].add(event.id)


class WatchedQueues(Queues):
    """The same with queues that are watched: they do what the others do, and who follows the events knows at the end
    of each turn what is in them. Only what a failed turn gives back is not told."""

    def start(self, *arguments: Any) -> None:
        super().start(*arguments)
        self.traces = self.registry.traces
        self.mirror = Mirror(self)
        for name in (b"a", b"b", b"c"):
            self.traces.watch(name, self.mirror)
        undo = self.journal._undo

        def undo_and_look() -> None:
            undo()
            self.mirror.resync()

        self.journal._undo = undo_and_look  # type: ignore[method-assign]

    def really(self) -> tuple[dict[bytes, set[int]], dict[bytes, set[int]]]:
        waiting, opened = {}, {}
        for name, queue in self.registry.queues.items():
            waiting[name] = {*queue.returned, *range(queue.next_id, queue.tail)}
            opened[name] = {i for i, read in queue.outstanding.items() if not read.returned}
        return waiting, opened

    @invariant()
    def the_events_tell_all(self) -> None:
        assert self.mirror.wrong is None
        if not self.journal.touched and not self.journal.also:
            assert (self.mirror.waiting, self.mirror.open) == self.really()


@pytest.mark.usefixtures("small_steps")
def test_queues_that_are_watched_do_the_same_and_their_events_tell_all_of_it() -> None:
    run_state_machine_as_test(WatchedQueues, settings=settings(EXAMPLES, max_examples=15))


def test_what_happens_to_a_queue_in_memory_is_told_too(open_storage: Callable[[], Storage]) -> None:
    bench = LimitsBench(open_storage, q=QueueOptions(durable=False))
    listener = Listener()
    bench.registry.traces.watch(b"q", listener)
    for _ in range(2):
        bench.put(b"q", b"1")
        bench.end_turn()
    assert [event.what for event in listener.events] == [CREATE, PUT, PUT]


def test_what_is_discarded_to_make_room_and_what_expires_is_told(open_storage: Callable[[], Storage]) -> None:
    bench = LimitsBench(open_storage, q=QueueOptions(max_items=2, discard_old_when_full=True))
    listener = Listener()
    bench.engine.traces.watch(b"q", listener)
    assert bench.put(b"q", b"1", b"22", b"333")
    bench.end_turn()
    discarded = listener.events[3]
    assert listener.told() == [("create", 0), ("put", 1), ("put", 2), ("discard", 1), ("put", 3)]
    assert (discarded.body_bytes, discarded.start) == (1, None)
    bench.drain()
    listener.told()
    bench.put(b"q", b"brief", expires_in_s=1)
    bench.end_turn()
    bench.now_s += 2
    bench.sweep()
    expired = listener.events[-1]
    assert listener.told() == [("put", 4), ("expire", 4)]
    assert (expired.body_bytes, expired.start) == (5, b"brief")
