"""One turn, one write: what is written, what is not, and how a turn that cannot be written is undone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from darner_core.engines.local import journal as journal_module
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.reads import OpenRead
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.window import WindowBudget
from darner_core.errors import StorageError
from darner_core.operations.session import Session
from darner_core.storage.records import Blob, item_key
from darner_core.storage.storage import Storage
from tests.support.bench import items_put
from tests.support.moved_clock import MovedClock

OpenStorage = Callable[[], Storage]


class Writes:
    """What goes to the disk of a storage, call by call: the number of records that each writes or removes."""

    def __init__(self, storage: Storage) -> None:
        self.calls: list[int] = []
        self.full = False  # every write is refused
        self._put, self._write = storage.put, storage.write
        storage.put, storage.write = self.put, self.write

    def put(self, family: int, key: bytes, value: bytes) -> None:
        self._refuse()
        self.calls.append(1)
        self._put(family, key, value)

    def write(self, batch: Any) -> None:
        self._refuse()
        self.calls.append(len(batch))
        self._write(batch)

    def _refuse(self) -> None:
        if self.full:
            raise StorageError("no space left on device")

    @property
    def last(self) -> list[int]:
        """The calls since this was asked last."""
        calls, self.calls = self.calls, []
        return calls


class Bench(MovedClock):
    """A data directory with the queue `q` and the session of one client."""

    queue: MessageQueue

    def __init__(self, open_storage: OpenStorage) -> None:
        self._open_storage = open_storage
        self.now_s = 1000.0
        self.start()
        self.queue = self.registry.create(b"q")
        self.end_turn()
        self.writes.calls = []

    def start(self) -> None:
        self.storage = self._open_storage()
        self.writes = Writes(self.storage)
        self.journal = Journal(self.storage, lambda: self.now_s)
        self.registry = Registry(self.journal, WindowBudget(1 << 20))
        self.session = Session(self.journal)

    def crash(self) -> None:
        """Forget all that is in memory, and start again from what is on disk."""
        self.storage.close()
        self.start()
        self.queue = self.registry.queues[b"q"]

    def end_turn(self) -> bool:
        return self.journal.commit()

    def put(self, *bodies: bytes) -> None:
        for body in bodies:
            self.queue.put(body, 0, 0)
        self.end_turn()

    def open(self) -> OpenRead:
        read = self.queue.open()
        assert read is not None
        return read

    def stored(self) -> list[int]:
        """The ids of the items that are on disk."""
        return [item_id for item_id, _ in self.storage.items(self.queue.log.record, 1, 1 << 40)]

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        self.writes.full = True
        try:
            yield
        finally:
            self.writes.full = False

    def fail_turn(self) -> None:
        with self.full_disk(), pytest.raises(StorageError, match="no space left on device"):
            self.end_turn()


@pytest.fixture
def bench(open_storage: OpenStorage) -> Bench:
    return Bench(open_storage)


# -- one write a turn


def test_a_turn_in_which_nothing_changes_writes_nothing(bench: Bench) -> None:
    assert bench.end_turn() is False
    assert bench.queue.take() is None
    assert bench.end_turn() is False
    assert bench.writes.last == []


def test_opening_peeking_and_giving_back_write_nothing(bench: Bench) -> None:
    bench.put(b"a")
    bench.writes.calls = []
    read = bench.open()
    bench.end_turn()
    bench.queue.give_back(read)
    bench.end_turn()
    bench.queue.peek()
    bench.end_turn()
    assert bench.writes.last == []


def test_a_turn_is_written_with_one_call_whatever_is_in_it(bench: Bench) -> None:
    queues = [bench.queue, bench.registry.create(b"r"), bench.registry.create(b"s")]
    for queue in queues:
        for body in (b"a", b"b", b"c"):
            queue.put(body, 0, 0)
    assert bench.end_turn() is True
    assert len(bench.writes.last) == 1
    queues[0].take()
    queues[1].flush()
    bench.registry.delete(b"s")
    bench.registry.create(b"t").put(b"d", 0, 0)
    assert bench.end_turn() is True
    assert len(bench.writes.last) == 1
    bench.crash()
    assert [queue.waiting_items for _, queue in sorted(bench.registry.queues.items())] == [2, 0, 1]


def test_an_item_is_one_record(bench: Bench) -> None:
    bench.put(b"a")
    assert bench.writes.last == [1]
    bench.put(b"b", b"c", b"d")
    assert bench.writes.last == [3]
    assert bench.stored() == [1, 2, 3, 4]


def test_what_was_put_in_a_turn_that_is_not_over_is_not_on_disk(bench: Bench) -> None:
    bench.queue.put(b"a", 0, 0)
    assert bench.stored() == []
    assert bench.journal.unsynced is True
    bench.journal.unsynced = False
    bench.end_turn()
    assert bench.stored() == [1]
    assert bench.journal.unsynced is True


def test_all_that_is_put_in_a_turn_has_the_time_at_which_it_began(bench: Bench) -> None:
    times = iter([3000.0, 4000.0])
    journal = Journal(bench.storage, lambda: next(times))
    queue = Registry(journal, WindowBudget(1 << 20)).queues[b"q"]
    for _ in range(2):
        for _ in range(3):
            queue.put(b"x", 0, 0)
        journal.commit()
    assert [item[3] for _, item in bench.storage.items(queue.log.record, 1, 9)] == [3_000_000] * 3 + [4_000_000] * 3


def test_rare_changes_are_written_behind_those_of_the_queues_and_in_their_order(bench: Bench) -> None:
    bench.queue.put(b"a", 0, 0)
    handle, number = bench.storage.handles[bench.queue.log.record.family], bench.queue.log.record.number
    bench.journal.also.append(lambda batch: batch.delete(item_key(number, 1), handle))
    bench.journal.also.append(lambda batch: batch.put(item_key(number, 2), bytes(21), handle))
    bench.journal.also.append(lambda batch: batch.delete(item_key(number, 2), handle))
    bench.end_turn()
    assert bench.stored() == []
    bench.put(b"b")
    assert bench.stored() == [2]


# -- a turn that cannot be written


def put_large(queue: MessageQueue) -> None:
    blob = queue.large_items.start()
    queue.log.journal.storage.put_chunk(queue.log.record.number, blob, 0, bytes(100))
    queue.large_items.finish(blob)
    queue.put(Blob(blob, 100), 0, 0)


class Situation(Bench):
    """Three queues and four clients, ready for whatever a turn may bring.

    `q` has items open (1 by `holder`, 3 by `other`), given back (2), waiting (5 and up) and gone (4); `large` has
    three large items, the first open by `large_holder`; `empty` has none. `idle` holds nothing.
    """

    large: MessageQueue
    empty: MessageQueue

    def __init__(self, open_storage: OpenStorage) -> None:
        super().__init__(open_storage)
        self.holder, self.other, self.large_holder, self.idle = (Session(self.journal) for _ in range(4))
        self.put(*(b"body %d" % number for number in range(1, 10)))
        self.holder.hold(self.open())
        second = self.open()
        self.other.hold(self.open())
        self.queue.take()
        self.queue.give_back(second)
        self.large, self.empty = self.registry.create(b"large"), self.registry.create(b"empty")
        for _ in range(3):
            put_large(self.large)
        read = self.large.open()
        assert read is not None
        self.large_holder.hold(read)
        self.end_turn()
        self.now_s += 1

    def sessions(self) -> list[Session]:
        return [self.holder, self.other, self.large_holder, self.idle]

    def seen(self) -> object:
        """All that clients and operators can see of it, without changing anything."""
        registry = self.registry
        return (
            [self.seen_of(queue) for _, queue in sorted(registry.queues.items())],
            [(session.open_read, session.open_read and holds(session.open_read)) for session in self.sessions()],  # type: ignore[arg-type]
            (registry.creates, registry.deletes, items_put(registry)),
        )

    def seen_of(self, queue: MessageQueue) -> object:
        figures = (
            queue.name, queue.log.record, queue.waiting_items, queue.waiting_bytes, queue.open_reads,
            queue.total_items, queue.total_flushes, queue.log_bytes, queue.head_added_at_ms(),
        )  # fmt: skip
        open_ids = [item_id for item_id, read in queue.outstanding.items() if not read.returned]
        return figures, open_ids, waiting(queue)


def holds(read: OpenRead) -> bool:
    return read.queue.holds(read)


def waiting(queue: MessageQueue) -> list[object]:
    """What waits, in the order in which it will be handed out."""
    returned = [(item_id, queue.log.read_one(item_id)) for item_id in sorted(queue.returned)]
    count = queue.tail - queue.next_id
    return [*returned, *zip(range(queue.next_id, queue.tail), queue.log.read(queue.next_id, count, 1 << 30)[1])]  # noqa: B905


def from_disk(situation: Situation) -> dict[bytes, list[object]]:
    """What a crash would leave of each queue."""
    registry = Registry(Journal(situation.storage), WindowBudget(1 << 20))
    return {name: waiting(queue) for name, queue in registry.queues.items()}


def in_memory(situation: Situation) -> dict[bytes, list[object]]:
    """The same as memory has it: what is open comes back."""
    found: dict[bytes, list[object]] = {}
    for name, queue in situation.registry.queues.items():
        opened = [(i, queue.log.read_one(i)) for i, read in queue.outstanding.items() if not read.returned]
        found[name] = sorted([*opened, *waiting(queue)], key=lambda entry: entry[0])  # type: ignore[index]
    return found


def open_for(session: Session, queue: MessageQueue) -> None:
    read = queue.open()
    assert read is not None
    session.hold(read)


def take(queue: MessageQueue, items: int) -> None:
    for _ in range(items):
        assert queue.take() is not None


def put_into(registry: Registry, name: bytes, *bodies: bytes) -> None:
    queue = registry.queues.get(name) or registry.create(name)
    for body in bodies:
        queue.put(body, 0, 0)


def start_again(registry: Registry, name: bytes) -> None:
    registry.delete(name)
    put_into(registry, name, b"new")
    assert registry.queues[name].take() is not None


TURNS: dict[str, list[Callable[[Situation], object]]] = {
    "nothing but a put": [lambda s: put_into(s.registry, b"q", b"a")],
    "puts into two queues": [lambda s: put_into(s.registry, b"q", b"a", b"b"), lambda s: s.empty.put(b"c", 0, 0)],
    "takes of returned and waiting items": [lambda s: take(s.queue, 3)],
    "a queue emptied": [lambda s: take(s.queue, 6)],
    "a put that is taken": [lambda s: put_into(s.registry, b"empty", b"a"), lambda s: take(s.empty, 1)],
    "an open with a put": [lambda s: open_for(s.idle, s.queue), lambda s: s.queue.put(b"a", 0, 0)],
    "an open of what is put": [lambda s: s.empty.put(b"a", 0, 0), lambda s: open_for(s.idle, s.empty)],
    "a close of the head": [lambda s: s.holder.close_read()],
    "a close out of order": [lambda s: s.other.close_read()],
    "all closed": [lambda s: s.other.close_read(), lambda s: s.holder.close_read()],
    "an open that is closed": [lambda s: open_for(s.idle, s.queue), lambda s: s.idle.close_read()],
    "a close and the next open": [lambda s: s.holder.close_read(), lambda s: open_for(s.holder, s.queue)],
    "an abort with a put": [lambda s: s.holder.abort_read(), lambda s: s.queue.put(b"a", 0, 0)],
    "an abort that another takes": [lambda s: s.other.abort_read(), lambda s: take(s.queue, 2)],
    "an abort that another opens": [
        lambda s: s.holder.abort_read(),
        lambda s: open_for(s.idle, s.queue),
        lambda s: s.queue.put(b"a", 0, 0),
    ],
    "an abort and a flush": [lambda s: s.holder.abort_read(), lambda s: s.queue.flush()],
    "a flush": [lambda s: s.queue.flush()],
    "a flush and a close": [lambda s: s.queue.flush(), lambda s: s.other.close_read()],
    "a close and a flush": [lambda s: s.other.close_read(), lambda s: s.queue.flush()],
    "a flush and an abort": [lambda s: s.queue.flush(), lambda s: s.other.abort_read()],
    "two flushes with puts between": [
        lambda s: s.queue.flush(),
        lambda s: s.queue.put(b"a", 0, 0),
        lambda s: open_for(s.idle, s.queue),
        lambda s: s.queue.flush(),
        lambda s: s.queue.put(b"b", 0, 0),
    ],
    "a large item put": [lambda s: put_large(s.large)],
    "a large item closed": [lambda s: s.large_holder.close_read()],
    "large items flushed": [lambda s: s.large.flush()],
    "a queue created": [lambda s: put_into(s.registry, b"new", b"a", b"b")],
    "a queue created and used": [
        lambda s: put_into(s.registry, b"new", b"a", b"b"),
        lambda s: take(s.registry.queues[b"new"], 1),
        lambda s: open_for(s.idle, s.registry.queues[b"new"]),
    ],
    "a queue deleted": [lambda s: s.registry.delete(b"q")],
    "a queue used and deleted": [
        lambda s: s.queue.put(b"a", 0, 0),
        lambda s: take(s.queue, 2),
        lambda s: s.holder.close_read(),
        lambda s: s.registry.delete(b"q"),
    ],
    "a queue deleted and its item closed": [lambda s: s.registry.delete(b"q"), lambda s: s.holder.close_read()],
    "a queue deleted and its item given back": [lambda s: s.registry.delete(b"q"), lambda s: s.holder.abort_read()],
    "a queue deleted and begun again": [lambda s: start_again(s.registry, b"q")],
    "a queue begun again twice": [lambda s: start_again(s.registry, b"q"), lambda s: start_again(s.registry, b"q")],
    "a queue created and deleted": [
        lambda s: put_into(s.registry, b"new", b"a"),
        lambda s: s.registry.delete(b"new"),
        lambda s: s.queue.put(b"a", 0, 0),
    ],
    "all queues deleted": [
        lambda s: s.registry.delete(b"q"),
        lambda s: s.registry.delete(b"large"),
        lambda s: s.registry.delete(b"empty"),
    ],
    "dead items reclaimed": [lambda s: s.holder.close_read(), lambda s: s.queue.log.reclaim()],
    "all states recorded": [lambda s: s.queue.put(b"a", 0, 0), lambda s: s.registry.record_all()],
}


@pytest.mark.parametrize("turn", TURNS)
def test_a_turn_that_cannot_be_written_has_not_happened(open_storage: OpenStorage, turn: str) -> None:
    situation = Situation(open_storage)
    before, on_disk = situation.seen(), from_disk(situation)
    for _ in range(2):
        for change in TURNS[turn]:
            change(situation)
        situation.fail_turn()
        assert situation.seen() == before
        assert from_disk(situation) == on_disk


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("turn", TURNS)
def test_afterwards_the_same_works_and_the_disk_agrees_with_memory(
    open_storage: OpenStorage, turn: str, again: bool
) -> None:
    situation = Situation(open_storage)
    for change in TURNS[turn]:
        change(situation)
    situation.fail_turn()
    if again:
        situation.storage.reopen()
        situation.registry.recheck()
    for change in TURNS[turn]:
        change(situation)
    situation.end_turn()
    assert from_disk(situation) == in_memory(situation)
    situation.queue = situation.registry.queues.get(b"q") or situation.registry.create(b"q")
    situation.put(b"more")
    assert from_disk(situation) == in_memory(situation)


@pytest.mark.parametrize("first", ["nothing", "a flush", "a delete"])
def test_what_a_client_held_that_hung_up_in_a_failed_turn_waits_for_the_next(
    open_storage: OpenStorage, first: str
) -> None:
    situation = Situation(open_storage)
    if first == "a flush":
        situation.queue.flush()
    elif first == "a delete":
        situation.registry.delete(b"q")
    situation.holder.end()
    situation.empty.put(b"a", 0, 0)
    situation.fail_turn()
    assert situation.queue.open_reads == 1  # the other client's
    assert situation.queue.take() == (b"body 1", 0, 0, 1_000_000)
    assert situation.queue.take() == (b"body 2", 0, 0, 1_000_000)


def test_a_client_that_closed_its_read_and_hung_up_in_a_failed_turn_holds_nothing(open_storage: OpenStorage) -> None:
    situation = Situation(open_storage)
    situation.holder.close_read()
    situation.holder.end()
    situation.fail_turn()
    assert situation.holder.open_read is None
    assert situation.queue.take() == (b"body 1", 0, 0, 1_000_000)


@pytest.mark.parametrize("opens", [True, False])
def test_an_item_handed_over_in_one_turn_and_accepted_in_the_next_waits_again_if_that_fails(
    bench: Bench, opens: bool
) -> None:
    """Its client is told of the error, and holds nothing: a large item takes many turns to be sent."""
    bench.put(b"a", b"b")
    read = bench.open()
    bench.end_turn()
    if opens:
        bench.session.hold(read)
    else:
        bench.queue.close(read)
    bench.queue.put(b"c", 0, 0)
    bench.fail_turn()
    assert bench.session.open_read is None
    assert (bench.queue.waiting_items, bench.queue.open_reads) == (2, 0)
    assert bench.queue.take() == (b"a", 0, 0, 1_000_000)


def test_nobody_in_line_is_handed_an_item_that_the_failed_turn_takes_back(bench: Bench) -> None:
    """A client that is served and hangs up in a turn gives back what has never been."""
    bench.queue.put(b"a", 0, 0)
    bench.session.hold(bench.open())
    bench.session.close_read()
    bench.session.end()
    waiter = bench.registry.join_line(b"q", b"", False)
    bench.fail_turn()
    assert waiter.got is None
    assert len(bench.queue.line or ()) == 1
    bench.put(b"b")
    assert bench.queue.waiting_items == 0


def test_a_queue_that_was_deleted_writes_no_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may be another queue's after the next start, which would find the state of this one."""
    monkeypatch.setattr(journal_module, "STATE_EVERY", 2)
    bench.put(b"a")
    bench.session.hold(bench.open())
    bench.put(b"b", b"c")
    bench.queue.put(b"d", 0, 0)
    bench.fail_turn()
    bench.registry.delete(b"q")
    other = bench.registry.create(b"other")
    bench.end_turn()
    bench.writes.calls = []
    bench.session.end()
    other.put(b"x", 0, 0)
    bench.end_turn()
    assert bench.writes.last == [1]  # the other queue's item


def test_a_turn_without_changes_cannot_fail(bench: Bench) -> None:
    bench.put(b"a")
    with bench.full_disk():
        read = bench.open()
        assert bench.queue.item_of(read)[0] == b"a"
        bench.end_turn()
        bench.queue.give_back(read)
        bench.end_turn()
        bench.open()
        bench.end_turn()
    assert bench.queue.open_reads == 1


def test_what_is_put_in_the_turn_in_which_the_storage_is_opened_again_stays(bench: Bench) -> None:
    bench.queue.put(b"a", 0, 0)
    bench.fail_turn()
    bench.storage.reopen()
    bench.queue.put(b"b", 0, 0)
    bench.registry.recheck()
    bench.queue.put(b"c", 0, 0)
    bench.end_turn()
    bench.crash()
    assert list(iter(bench.queue.take, None)) == [(b"b", 0, 0, 1_000_000), (b"c", 0, 0, 1_000_000)]
