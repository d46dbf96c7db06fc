"""Where an item goes: limits, fanout children, aliases, several queues, and where expired items go."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from darner_core.config.queues import QueueOptions
from darner_core.engines.local import routing as delivery_module
from darner_core.engines.local import window
from darner_core.engines.local.damaged_queue import DamagedQueue
from darner_core.errors import ServerError, StorageError
from darner_core.operations.session import Session
from darner_core.shared_memory import BodyMemory
from darner_core.storage.records import QueueRecord
from darner_core.storage.storage import Storage
from tests.support.bench import CHUNK_BYTES, Bench, opened
from tests.support.operations_on import operations_on

OpenStorage = Callable[[], Storage]


# -- limits


def test_a_full_queue_refuses(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, q=QueueOptions(max_items=2), b=QueueOptions(max_bytes=10))
    assert bench.put(b"q", b"1", b"2")
    assert not bench.put(b"q", b"3")
    assert bench.put(b"b", b"12345", b"6789")
    assert not bench.put(b"b", b"ab")  # judged before the put: it never holds more than max_bytes
    assert bench.put(b"b", b"a")
    assert (bench.drain(b"q"), bench.drain(b"b")) == ([b"1", b"2"], [b"12345", b"6789", b"a"])


def test_open_items_count_and_expired_ones_do_not(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, q=QueueOptions(max_items=2))
    bench.put(b"q", b"1", b"2")
    read = opened(bench.queue())
    assert not bench.put(b"q", b"3")
    bench.queue().close(read)
    assert bench.put(b"q", b"3", expires_in_s=10)
    assert not bench.put(b"q", b"4")
    bench.take()
    bench.now_s += 11
    assert bench.put(b"q", b"4", b"5")
    assert bench.drain() == [b"4", b"5"]


def test_an_item_may_be_too_large_for_its_queue(open_storage: OpenStorage) -> None:
    bench = Bench(
        open_storage, q=QueueOptions(max_item_bytes=3), b=QueueOptions(max_bytes=3, discard_old_when_full=True)
    )
    assert [bench.put(b"q", b"123"), bench.put(b"q", b"1234")] == [True, False]
    assert [bench.put(b"b", b"123"), bench.put(b"b", b"1234")] == [True, False]
    assert bench.drain(b"b") == [b"123"]  # nothing was discarded for one that does not fit anyway


def test_the_oldest_go_when_the_queue_is_full(open_storage: OpenStorage) -> None:
    bench = Bench(
        open_storage,
        q=QueueOptions(max_items=3, discard_old_when_full=True),
        b=QueueOptions(max_bytes=10, discard_old_when_full=True),
    )
    assert bench.put(b"q", *(b"%d" % number for number in range(10)))
    assert bench.put(b"b", b"1111", b"222", b"33", b"4444444")
    assert (bench.queue(b"q").discarded, bench.queue(b"b").discarded) == (7, 2)
    bench.end_turn()
    bench.crash()
    assert (bench.drain(b"q"), bench.drain(b"b")) == ([b"7", b"8", b"9"], [b"33", b"4444444"])


def test_what_is_open_is_not_discarded_and_what_was_given_back_goes_first(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, q=QueueOptions(max_items=2, discard_old_when_full=True))
    bench.put(b"q", b"1", b"2")
    queue = bench.queue()
    first, second = opened(queue), opened(queue)
    assert not bench.put(b"q", b"3")  # all there is is open
    queue.give_back(first)
    assert bench.put(b"q", b"3")
    queue.give_back(second)
    assert bench.drain() == [b"2", b"3"]


def test_a_failed_turn_brings_back_what_was_discarded(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, q=QueueOptions(max_items=2, discard_old_when_full=True))
    bench.put(b"q", b"1", b"2")
    queue = bench.queue()
    queue.give_back(opened(queue))
    bench.end_turn()
    bench.put(b"q", b"3", b"4", b"5")
    bench.fail_turn()
    assert queue.discarded == 0
    assert bench.drain() == [b"1", b"2"]


# -- fanout


def test_children_get_what_is_put_into_their_parent_from_now_on(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage)
    bench.put(b"p", b"before")
    bench.registry.child(b"p+a")
    bench.registry.child(b"p+b+c")
    bench.registry.child(b"p+b+c")
    bench.put(b"p", b"x")
    bench.put(b"p+a", b"only a")
    bench.put(b"other", b"y")
    bench.end_turn()
    for _ in range(2):
        assert sorted(bench.registry.children[b"p"]) == [b"p+a", b"p+b+c"]
        bench.crash()
    assert bench.drain(b"p") == [b"before", b"x"]
    assert bench.drain(b"p+a") == [b"x", b"only a"]
    assert bench.drain(b"p+b+c") == [b"x"]


def test_a_child_needs_no_parent_and_outlives_it(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage)
    bench.registry.child(b"p+a")
    assert b"p" not in bench.registry.queues
    bench.put(b"p", b"1")
    bench.registry.delete(b"p")
    bench.put(b"p", b"2")
    assert (bench.drain(b"p"), bench.drain(b"p+a")) == ([b"2"], [b"1", b"2"])
    bench.registry.delete(b"p+a")
    bench.put(b"p", b"3")
    bench.end_turn()
    bench.crash()
    assert bench.registry.children == {}
    assert b"p+a" not in bench.registry.queues


def test_a_queue_with_a_plus_in_its_name_is_a_child_only_if_somebody_has_said_so(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage)
    bench.put(b"p+a", b"old")
    bench.put(b"p", b"1")
    bench.end_turn()
    bench.registry.child(b"p+a")
    bench.end_turn()
    bench.crash()
    bench.put(b"p", b"2")
    assert bench.drain(b"p+a") == [b"old", b"2"]


def test_a_failed_turn_makes_and_removes_no_children(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage)
    bench.put(b"p+was", b"")
    bench.registry.child(b"p+a")
    bench.end_turn()
    bench.registry.child(b"p+b")
    bench.registry.child(b"p+was")
    bench.registry.delete(b"p+a")
    bench.put(b"p", b"1")
    bench.fail_turn()
    assert list(bench.registry.children[b"p"]) == [b"p+a"]
    assert bench.drain(b"p+a") == []
    bench.put(b"p", b"2")
    assert (bench.drain(b"p+a"), bench.drain(b"p")) == ([b"2"], [b"2"])


def test_a_parent_that_is_fanout_only_keeps_nothing(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, p=QueueOptions(fanout_only=True))
    assert bench.put(b"p", b"lost")
    bench.registry.child(b"p+a")
    assert bench.put(b"p", b"1")
    assert b"p" not in bench.registry.queues
    assert bench.drain(b"p+a") == [b"1"]


def test_a_full_child_does_not_hold_up_its_parent(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, **{"p+a": QueueOptions(max_items=1)})
    bench.registry.child(b"p+a")
    assert bench.put(b"p", b"1", b"2")
    assert (bench.drain(b"p"), bench.drain(b"p+a")) == ([b"1", b"2"], [b"1"])


def test_a_large_item_goes_to_each_child(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage)
    body = bytes(range(256)) * 10
    bench.registry.child(b"p+a")
    bench.put_large(b"p", body)
    bench.crash()
    assert bench.drain(b"p+a") == [body]
    assert bench.drain(b"p") == [body]
    bench.end_turn()
    assert bench.storage is not None
    assert bench.storage.first_chunk() is None


# -- aliases, and several queues at once


def test_an_alias_puts_into_each_of_its_queues(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, b=QueueOptions(max_items=1))
    bench.registry.child(b"a+c")
    bench.routing.set_aliases({b"all": (b"a", b"b")})
    assert bench.put(b"all", b"1")
    assert not bench.put(b"all", b"2")
    assert b"all" not in bench.registry.queues
    counts = bench.routing.alias_counts[b"all"]
    assert (counts.put_items, counts.put_bytes) == (1, 1)
    assert (bench.drain(b"a"), bench.drain(b"b"), bench.drain(b"a+c")) == ([b"1"], [b"1"], [b"1"])


def test_an_alias_hides_the_queue_of_its_name_until_it_is_gone(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage)
    bench.put(b"all", b"hidden")
    bench.routing.set_aliases({b"all": (b"a",)})
    bench.put(b"all", b"1")
    assert (bench.take(b"all"), bench.take(b"a")) == (None, b"1")
    bench.routing.set_aliases({})
    assert bench.drain(b"all") == [b"hidden"]


def test_an_alias_with_the_name_of_a_child_loses_nothing_of_it(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage)
    bench.registry.child(b"p+c")
    bench.put(b"p+c", b"old")
    bench.end_turn()
    bench.routing.set_aliases({b"p+c": (b"x",)})
    assert bench.registry.child(b"p+c") is None  # as each use of its name does
    bench.put(b"p+c", b"new")
    bench.end_turn()
    bench.crash()
    assert (bench.drain(b"p+c"), bench.drain(b"x")) == ([b"old"], [b"new"])


def test_a_set_into_several_queues_is_done_in_all_of_them_or_in_none(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, b=QueueOptions(max_items=1))
    assert bench.put(b"a,b,c", b"1")
    assert not bench.put(b"a,b,c", b"2")
    bench.end_turn()
    bench.put(b"a,c", b"3")
    bench.fail_turn()
    bench.crash()
    assert [bench.drain(name) for name in (b"a", b"b", b"c")] == [[b"1"], [b"1"], [b"1"]]


def test_what_cannot_be_put_everywhere_is_put_nowhere(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage)
    bench.registry.max_queues = 2
    with pytest.raises(ServerError, match="too many queues"):
        bench.put(b"a,b,c", b"1")
    assert (bench.drain(b"a"), bench.drain(b"b")) == ([], [])


# -- all of a put or nothing

OPTIONS = {
    "full": QueueOptions(max_items=2),
    "short": QueueOptions(max_item_bytes=10),
    "small": QueueOptions(max_bytes=10),
    "rolling": QueueOptions(max_items=2, discard_old_when_full=True),
    "bad": QueueOptions(max_items=2, discard_old_when_full=True),
    "new": QueueOptions(max_item_bytes=10),
}


@pytest.fixture
def bench(open_storage: OpenStorage) -> Bench:
    """Queues of all kinds, with children; `bad` has a head that cannot be read once `spoil` is called."""
    bench = Bench(open_storage, **OPTIONS)
    bench.put(b"plain", b"1")
    for name in (b"full", b"rolling", b"bad"):
        bench.put(name, b"1", b"2")
    bench.put(b"short", b"1")
    bench.put(b"small", b"1")
    for name in (b"plain", b"full", b"rolling", b"short", b"small"):
        bench.registry.child(name + b"+child")
    bench.registry.child(b"rolling+child").put(b"1", 0, 0)  # type: ignore[union-attr]
    bench.put(b"broken", b"1")
    bench.end_turn()
    broken = bench.registry.queues[b"broken"]
    damaged = DamagedQueue(b"broken", broken.options, bench.journal, broken.log.record, "a test")
    bench.registry.queues[b"broken"] = damaged  # type: ignore[assignment]
    for queue in bench.registry:
        window.release(queue)  # what is discarded has to be read
    return bench


def spoil(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench.storage is not None
    number, items = bench.queue(b"bad").log.record.number, bench.storage.items

    def read(record: QueueRecord, from_id: int, to_id: int) -> Any:
        if record.number == number:
            raise StorageError("damaged")
        return items(record, from_id, to_id)

    monkeypatch.setattr(bench.storage, "items", read)


def everything(bench: Bench) -> Any:
    """What a client could see of all queues, and what is on disk. Ends the turn."""
    bench.end_turn()
    registry, storage = bench.registry, bench.storage
    assert storage is not None
    queues = {
        name: (queue.waiting_items, queue.head_id, queue.tail, queue.total_items, queue.discarded, queue.is_child)
        for name, queue in registry.queues.items()
        if not queue.unreadable
    }
    counts = {name: (counts.put_items, counts.put_bytes) for name, counts in bench.routing.alias_counts.items()}
    stored = [(name, record) for name, record in storage.queues()]
    return queues, counts, stored, registry.children, storage.first_chunk(), storage.unfinished_uploads()


# What is put, and which of it refuses.
REFUSED = [
    b"plain,full",
    b"made,rolling,full,plain",
    b"full",  # the child of a parent that is full
    b"short",
    b"small",
    b"rolling,short",
    b"rolling,made,new",
    b"made,more,most",
    b"rolling,broken",
    b"rolling,bad",
    b"made,bad,plain",
]


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("by_alias", [False, True])
@pytest.mark.parametrize("names", REFUSED)
def test_a_put_that_is_refused_or_fails_leaves_nothing_anywhere(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, names: bytes, by_alias: bool, large: bool
) -> None:
    spoil(bench, monkeypatch)
    bench.registry.max_queues = len(bench.registry.queues) + 2
    targets = tuple(names.split(b","))
    if by_alias:
        bench.routing.set_aliases({b"alias": targets})
        targets = (b"alias",)
    before = everything(bench)
    stored: object = None
    with suppress(ServerError, StorageError):
        if large:
            stored = put_large(bench, targets)
        else:
            stored = bench.routing.put(targets, b"x" * 1000, 0, 0)
    assert stored is None
    assert everything(bench) == before


def put_large(bench: Bench, names: tuple[bytes, ...], meanwhile: Callable[[], None] = lambda: None) -> object:
    found = bench.routing.targets(names, 1000)
    if found is None:
        return None
    uploads = []
    for target in found:
        uploads.append((target, target.queue.large_items.receive(CHUNK_BYTES, BodyMemory(1 << 20, lambda: None))))
        for size in (400, 400, 200):
            uploads[-1][1].add(b"x" * size)
    bench.end_turn()
    meanwhile()
    return bench.routing.put_large(names, uploads, 1000, 0, 0)


@pytest.mark.parametrize("what", ["full", "deleted", "chunk"])
@pytest.mark.parametrize("names", [b"made,rolling,free", b"made,free,plain"])
def test_a_large_item_that_cannot_be_put_in_the_end_leaves_nothing_anywhere(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, names: bytes, what: str
) -> None:
    bench.rules.options[b"free"] = QueueOptions(max_items=1)
    bench.put(b"free", b"1")
    assert bench.take(b"free") == b"1"
    before: list[Any] = [everything(bench)]

    def meanwhile() -> None:
        if what == "full":
            bench.put(b"free", b"1")
        elif what == "deleted":
            bench.registry.delete(b"free")
        else:

            def refuse(*_: object) -> None:
                raise StorageError("no space left on device")

            assert bench.storage is not None
            monkeypatch.setattr(bench.storage, "put_chunk", refuse)
        if what != "chunk":
            bench.end_turn()
            before[0] = everything(bench)
            before[0][0].pop(b"made", None)  # it goes
            before[0] = (*before[0][:2], [one for one in before[0][2] if one[0] != b"made"], *before[0][3:4], None, [])

    stored: object = None
    with suppress(StorageError):
        stored = put_large(bench, tuple(names.split(b",")), meanwhile)
    assert stored is None
    assert everything(bench) == before[0]


def test_a_large_item_keeps_the_queue_that_was_made_for_it_if_others_use_it(bench: Bench) -> None:
    def meanwhile() -> None:
        bench.put(b"made", b"1")
        bench.registry.delete(b"plain")

    stored = put_large(bench, (b"made", b"plain"), meanwhile)
    assert stored is None
    assert bench.drain(b"made") == [b"1"]


def test_chunks_that_a_failed_turn_has_made_nobodys_go_when_it_writes_again(bench: Bench) -> None:
    assert bench.storage is not None
    before = everything(bench)
    assert put_large(bench, (b"plain", b"plain+child")) is not None
    bench.fail_turn()
    found = bench.routing.targets((b"plain",), 1000)
    assert found is not None
    for target in found:
        upload = target.queue.large_items.receive(CHUNK_BYTES, BodyMemory(1 << 20, lambda: None))
        upload.add(b"x" * 400)
        upload.drop()
    bench.fail_turn()
    bench.registry.recheck()
    assert everything(bench) == before


def test_counts_of_a_put_that_fails_with_its_turn_are_undone(bench: Bench) -> None:
    bench.routing.set_aliases({b"alias": (b"plain",)})
    before = everything(bench)
    assert bench.put(b"alias", b"1")
    bench.fail_turn()
    assert everything(bench) == before


def test_a_child_is_made_by_a_put_only_if_that_is_not_refused(bench: Bench) -> None:
    bench.put(b"short+old", b"1")
    before = everything(bench)
    for name in (b"short+child2", b"short+old"):
        assert bench.routing.put((name,), b"x" * 11, 0, 0, as_child=True) is None
    assert everything(bench) == before
    for name in (b"short+child2", b"short+old"):
        assert bench.routing.put((name,), b"x", 0, 0, as_child=True) is not None
    assert sorted(bench.registry.children[b"short"]) == [b"short+child", b"short+child2", b"short+old"]


@pytest.mark.parametrize(
    "names", [b"plain,alias", b"alias,other", b"plain,plain+child", b"alias,plain+child,made,made"]
)
def test_nothing_is_put_twice_into_a_queue(bench: Bench, names: bytes) -> None:
    bench.routing.set_aliases({b"alias": (b"plain", b"plain+child"), b"other": (b"plain+child", b"plain")})
    assert bench.put(names, b"x")
    assert (bench.drain(b"plain"), bench.drain(b"plain+child")) == ([b"1", b"x"], [b"x"])
    assert bench.drain(b"made") == ([b"x"] if b"made" in names else [])


def test_a_child_that_is_named_beside_its_parent_decides_too(bench: Bench) -> None:
    bench.rules.options[b"plain+child"] = QueueOptions(max_items=1)
    list(bench.registry.set_rules(bench.rules))
    bench.put(b"plain", b"2")
    assert bench.put(b"plain", b"3")  # the child misses it
    assert not bench.put(b"plain,plain+child", b"4")
    assert (bench.drain(b"plain"), bench.drain(b"plain+child")) == ([b"1", b"2", b"3"], [b"2"])


def test_a_cursor_that_is_waited_for_does_not_take_the_room_of_a_queue(bench: Bench) -> None:
    bench.registry.join_line(b"made", b"c", False)
    bench.registry.max_queues = len(bench.registry.queues) + 2
    assert bench.put(b"made,more", b"x")
    assert (bench.drain(b"made"), bench.drain(b"more")) == ([b"x"], [b"x"])


# -- where expired items go


def test_an_expired_item_waits_while_the_queue_that_it_goes_to_cannot_be_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.rules.options[b"q"] = QueueOptions(expire_to_queue=b"dead")
    bench.rules.options[b"dead"] = QueueOptions(max_items=1, discard_old_when_full=True)
    bench.put_large(b"dead", b"x" * 1000)
    bench.put(b"q", b"x", expires_in_s=1)
    bench.end_turn()
    bench.now_s += 2
    bench.queue(b"dead")._large_items = None  # as after a restart

    def refuse(*_: object) -> None:
        raise StorageError("a hiccup")

    with monkeypatch.context() as patch:
        patch.setattr(bench.storage, "next_blob", refuse)
        for _ in range(2):
            with pytest.raises(StorageError, match="a hiccup"):
                bench.take()
        bench.end_turn()
    assert (bench.queue().expired_items, bench.queue().lost_expired, bench.queue().waiting_items) == (0, 0, 1)
    assert bench.take() is None
    assert bench.drain(b"dead") == [b"x"]


def test_what_was_lost_in_a_turn_that_fails_is_neither_counted_nor_told(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.rules.options[b"q"] = QueueOptions(expire_to_queue=b"full")
    bench.put(b"q", b"x", expires_in_s=1)
    bench.end_turn()
    bench.now_s += 2
    assert bench.take() is None
    bench.fail_turn()
    assert (bench.queue().lost_expired, caplog.text) == (0, "")
    assert bench.take() is None
    bench.end_turn()
    assert bench.queue().lost_expired == 1
    assert "it is full" in caplog.text


def test_a_large_item_is_not_in_both_queues_if_its_own_cannot_be_read_at_the_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.rules.options[b"q"] = QueueOptions(expire_to_queue=b"dead")
    bench.put(b"q", b"first")
    bench.put_large(b"q", b"1" * 1000, expires_in_s=1)
    bench.now_s += 2
    assert bench.storage is not None
    item, reads = bench.storage.item, iter([True] * 7)

    def read(record: QueueRecord, item_id: int) -> Any:
        if not next(reads, False):
            raise StorageError("a hiccup")
        return item(record, item_id)

    with monkeypatch.context() as patch:
        patch.setattr(bench.storage, "item", read)
        bench.sweep()
    assert bench.queue().waiting_items + bench.registry.queues[b"dead"].waiting_items == 2
    bench.sweep()
    assert (bench.drain(), bench.drain(b"dead")) == ([b"first"], [b"1" * 1000])


def test_expired_items_go_to_another_queue_and_its_children(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, q=QueueOptions(expire_to_queue=b"dead"))
    bench.registry.child(b"dead+a")
    bench.put(b"q", b"1", b"2", expires_in_s=1)
    bench.put(b"q", b"3")
    bench.end_turn()
    bench.now_s += 2
    bench.sweep()
    bench.crash()
    assert (bench.drain(b"dead"), bench.drain(b"dead+a"), bench.drain(b"q")) == ([b"1", b"2"], [b"1", b"2"], [b"3"])


def test_what_the_other_queue_refuses_is_counted(open_storage: OpenStorage, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(open_storage, q=QueueOptions(expire_to_queue=b"dead"), dead=QueueOptions(max_items=1))
    bench.put(b"q", b"1", b"2", expires_in_s=1)
    bench.now_s += 2
    assert bench.take() is None
    assert (bench.queue().expired_items, bench.queue().lost_expired) == (2, 1)
    assert dict(operations_on(bench).statistics.of_queue(b"q", lambda _: True) or ())[b"expired_lost"] == 1
    assert caplog.text == ""  # the turn may yet fail
    bench.end_turn()
    assert "an expired item of queue q was dropped: queue dead did not take it: it is full" in caplog.text
    assert bench.drain(b"dead") == [b"1"]


def test_where_they_go_can_be_changed(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, q=QueueOptions(expire_to_queue=b"dead"))
    bench.put(b"q", b"1", expires_in_s=1)
    bench.end_turn()
    bench.rules.options[b"q"] = QueueOptions(expire_to_queue=b"elsewhere")
    list(bench.registry.set_rules(bench.rules))
    bench.now_s += 2
    bench.sweep()
    assert bench.drain(b"elsewhere") == [b"1"]


@pytest.mark.parametrize("given_back", [False, True])
def test_a_large_expired_item_is_moved_with_its_chunks(open_storage: OpenStorage, given_back: bool) -> None:
    bench = Bench(open_storage, q=QueueOptions(expire_to_queue=b"dead"))
    body = bytes(range(256)) * 10
    bench.put_large(b"q", body, expires_in_s=1)
    if given_back:
        bench.queue().give_back(opened(bench.queue()))
        bench.end_turn()
    bench.put(b"q", b"next")
    bench.now_s += 2
    assert bench.take() == b"next"  # the large one is on its way
    bench.sweep()
    bench.sweep()
    assert bench.queue().expired_items == 1
    bench.crash()
    assert (bench.drain(b"dead"), bench.drain(b"q")) == ([body], [])
    bench.end_turn()
    assert bench.storage is not None
    assert bench.storage.first_chunk() is None


def test_a_large_item_that_expires_goes_to_each_child_whole(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, q=QueueOptions(expire_to_queue=b"dead"))
    bench.registry.child(b"dead+a")
    bench.registry.child(b"dead+b")
    body = bytes(range(256)) * 10
    bench.put_large(b"q", body, expires_in_s=1)
    bench.now_s += 2
    bench.sweep()
    assert [bench.drain(name) for name in (b"dead+a", b"dead+b", b"dead")] == [[body]] * 3


def test_a_large_expired_item_goes_from_wherever_it_waits_and_nobody_has_to_ask(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, q=QueueOptions(expire_to_queue=b"dead"))
    bench.put_large(b"q", b"1" * 1000, expires_in_s=1)
    bench.put(b"q", b"live")
    bench.put_large(b"q", b"2" * 1000, expires_in_s=1)
    bench.now_s += 2
    bench.sweep()
    assert (bench.queue().waiting_items, bench.queue().expired_items) == (1, 2)
    assert sorted(bench.drain(b"dead")) == [b"1" * 1000, b"2" * 1000]
    bench.crash()
    assert bench.drain() == [b"live"]


def test_a_large_item_that_was_given_back_goes_and_not_the_one_before_it(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, q=QueueOptions(expire_to_queue=b"dead"))
    bench.put(b"q", b"small")
    bench.put_large(b"q", b"1" * 1000, expires_in_s=1)
    queue = bench.queue()
    small, large = opened(queue), opened(queue)
    queue.give_back(large)
    queue.give_back(small)
    bench.end_turn()
    bench.now_s += 2
    bench.sweep()
    assert (bench.drain(), bench.drain(b"dead")) == ([b"small"], [b"1" * 1000])


def what_happens(bench: Bench, what: str) -> None:
    """To a large item that has expired and is about to go to another queue."""
    read = bench.registry.large_expired[0]
    if what == "undone":
        bench.put(b"aside", b"x")
        bench.fail_turn()
    elif what == "given back":
        bench.queue().give_back(read)
    elif what == "deleted":
        bench.registry.delete(b"q")
    bench.end_turn()


@pytest.mark.parametrize("what", ["undone", "given back", "deleted"])
@pytest.mark.parametrize("half_way", [False, True])
def test_a_large_item_goes_once_whatever_happens_meanwhile(
    open_storage: OpenStorage, what: str, half_way: bool
) -> None:
    bench = Bench(open_storage, q=QueueOptions(expire_to_queue=b"dead"))
    bench.put_large(b"q", b"1" * 1000, expires_in_s=1)
    bench.now_s += 2
    assert bench.take() is None
    if half_way:
        bench.end_turn()
        read = bench.registry.large_expired[0]
        waits = iter([1, 1, 1])

        def wait(_: float) -> None:
            bench.end_turn()
            if next(waits, None) and not bench.registry.large_expired:
                bench.registry.large_expired.append(read)
                what_happens(bench, what)
                del bench.registry.large_expired[:1]

        bench.wait = wait
    else:
        what_happens(bench, what)
    for _ in range(3):
        bench.sweep()
        bench.take()
    went = bench.drain(b"dead")
    assert went == ([] if what == "deleted" else [b"1" * 1000])
    bench.end_turn()
    assert bench.storage is not None
    assert bench.storage.first_chunk() is None
    assert bench.storage.unfinished_uploads() == []


def test_a_large_item_waits_while_the_disk_refuses_its_copy(
    open_storage: OpenStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(open_storage, q=QueueOptions(expire_to_queue=b"dead"))
    bench.put_large(b"q", b"1" * 1000, expires_in_s=1)
    bench.now_s += 2
    waiter = bench.registry.join_line(b"q", b"", False)

    def refuse(*_: object) -> None:
        raise StorageError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(bench.storage, "put_chunk", refuse)
        bench.sweep()
        assert bench.take() is None
        bench.sweep()
        assert bench.drain(b"dead") == []
    bench.sweep()
    assert (bench.drain(b"dead"), bench.queue().lost_expired, waiter.got) == ([b"1" * 1000], 0, None)


def test_what_has_expired_keeps_nobody_out_of_several_queues(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, a=QueueOptions(max_items=1))
    bench.put(b"a", b"1", expires_in_s=1)
    bench.now_s += 2
    assert bench.put(b"a,b", b"2")
    assert (bench.drain(b"a"), bench.drain(b"b")) == ([b"2"], [b"2"])


def test_a_queue_that_has_far_too_many_is_brought_down_put_by_put(
    open_storage: OpenStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "DISCARDED_AT_ONCE", 10)
    bench = Bench(open_storage, q=QueueOptions(discard_old_when_full=True))
    bench.put(b"q", *[b"%d" % number for number in range(25)])
    bench.rules.options[b"q"] = QueueOptions(max_items=3, discard_old_when_full=True)
    list(bench.registry.set_rules(bench.rules))
    left = []
    for number in range(25, 29):
        assert bench.put(b"q", b"%d" % number)
        left.append(bench.queue().waiting_items)
        bench.end_turn()
    assert (left, bench.drain()) == ([16, 7, 3, 3], [b"26", b"27", b"28"])


def test_of_those_that_go_to_another_queue_fewer_go_in_one_turn(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, q=QueueOptions(expire_to_queue=b"dead"))
    bench.put(b"q", *[b"x"] * 1000, expires_in_s=1)
    bench.end_turn()
    bench.now_s += 2
    before = bench.turns
    bench.sweep()
    assert bench.turns - before >= 10
    assert bench.queue(b"dead").waiting_items == 1000


def test_expired_items_are_in_nobodys_way_in_a_put_to_several_either(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, a=QueueOptions(max_items=1))
    bench.put(b"a", b"x", expires_in_s=5)
    bench.now_s += 6
    assert bench.put(b"a,b", b"1")
    assert (bench.drain(b"a"), bench.drain(b"b")) == ([b"1"], [b"1"])


def test_a_queue_that_becomes_a_child_has_its_parents_maximum_age_at_once(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, p=QueueOptions(max_age_s=10))
    bench.put(b"p+a", b"old")
    bench.end_turn()
    bench.registry.child(b"p+a")
    bench.now_s += 11
    assert bench.drain(b"p+a") == []


def test_an_alias_with_the_name_of_a_child_does_not_cost_the_queue_behind_it_its_items(
    open_storage: OpenStorage,
) -> None:
    bench = Bench(open_storage)
    bench.put(b"p+a", b"1")
    bench.routing.set_aliases({b"p+a": (b"other",)})
    assert bench.registry.child(b"p+a") is None
    bench.put(b"p", b"not for a child")
    bench.end_turn()
    bench.crash()
    assert bench.drain(b"p+a") == [b"1"]


def test_a_failed_turn_in_which_an_item_was_aborted_and_then_discarded_is_undone(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage, q=QueueOptions(max_items=2, discard_old_when_full=True))
    bench.put(b"q", b"1", b"2")
    session = Session(bench.journal)
    read = bench.queue().open()
    assert read is not None
    session.hold(read)
    bench.end_turn()
    session.abort_read()
    bench.put(b"q", b"3")
    bench.fail_turn()
    assert session.open_read is read
    assert bench.drain() == [b"2"]
    session.end()
    assert bench.drain() == [b"1"]


def test_the_same_if_a_cursor_was_put_back_after_the_abort(open_storage: OpenStorage) -> None:
    bench = Bench(open_storage)
    bench.put(b"q", b"1", b"2")
    session = Session(bench.journal)
    cursor = bench.registry.cursors.of(bench.queue(), b"c")
    read = cursor.open()
    assert read is not None
    session.hold(read)
    bench.end_turn()
    session.abort_read()
    cursor.flush()
    bench.fail_turn()
    assert session.open_read is read
    assert cursor.holds(read)  # type: ignore[arg-type]
    session.end()
    assert [item[0] for item in (cursor.take(), cursor.take()) if isinstance(item, tuple)] == [b"1", b"2"]


@pytest.mark.parametrize(
    ("options", "sizes", "fits"),
    [
        ({}, [1] * 9, True),
        ({"max_items": 4}, [1, 1], True),
        ({"max_items": 4}, [1, 1, 1], False),
        ({"max_bytes": 10}, [4, 4], True),
        ({"max_bytes": 10}, [4, 5], False),
        ({"max_item_bytes": 4}, [1, 5], False),
        ({"max_items": 4, "discard_old_when_full": True}, [1] * 9, True),
        ({"max_bytes": 10, "discard_old_when_full": True}, [4] * 9, True),
        ({"max_bytes": 10, "discard_old_when_full": True}, [11], False),
    ],
)
def test_whether_several_items_fit(
    open_storage: Callable[[], Storage], options: dict[str, Any], sizes: list[int], fits: bool
) -> None:
    bench = Bench(open_storage, q=QueueOptions(**options), new=QueueOptions(**options))
    bench.put(b"q", b"1", b"2")
    assert bench.routing.fit((b"q",), sizes) is fits
    assert bench.routing.fit((b"new",), [1, 1, *sizes]) is fits
    assert b"new" not in bench.registry.queues


def test_what_has_expired_makes_room_for_several(open_storage: Callable[[], Storage]) -> None:
    bench = Bench(open_storage, q=QueueOptions(max_items=2, max_age_s=5))
    bench.put(b"q", b"1")
    bench.end_turn()
    assert not bench.routing.fit((b"q",), [1, 1])
    bench.now_s += 6
    assert bench.routing.fit((b"q",), [1, 1])
