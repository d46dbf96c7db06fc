"""Which cursors there are: as clients of a server make, use and lose them, and over kill -9."""

from collections.abc import Callable

import pytest

from darner_core.config.queues import QueueOptions
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.window import WindowBudget
from darner_core.errors import StorageError
from darner_core.storage.storage import Storage
from tests.engines.local.test_message_queue import refusing_writes
from tests.support.bench import Bench
from tests.support.harness import Client, RunningServer

SIBERITE = ("--dialect", "siberite")
SMALL_CHUNKS = ("--chunk-bytes", "1024")


@pytest.fixture
def server(start_server: Callable[..., RunningServer]) -> RunningServer:
    return start_server(*SIBERITE)


def restarted(server: RunningServer) -> Client:
    server.kill()
    server.start()
    return server.client()


# -- making


def test_a_cursor_of_a_queue_that_does_not_exist_makes_nothing(server: RunningServer) -> None:
    client = server.client()
    for key in ("q.c", "q.c/open", "q.c/peek", "q.c/close", "q.c/t=1"):
        assert client.get(key) is None
    for line in (b"flush q.c\r\n", b"delete q.c\r\n"):
        client.ask(line, b"END\r\n")
    assert not any(name.startswith("queue_q") for name in client.stats())
    client.set("q", b"a")
    client.ask(b"get q.c/close\r\nget q.c/peek\r\n", b"END\r\nVALUE q 0 1\r\na\r\nEND\r\n")
    assert not any(name.startswith("queue_q.c") for name in client.stats())


def test_a_cursor_stands_in_stats_beside_its_queue(server: RunningServer) -> None:
    client, other = server.client(), server.client()
    for body in (b"a", b"b", b"c"):
        client.set("q", body)
    assert client.get("q.c") == b"a"
    assert other.get("q.c/open") == b"b"
    stats = client.stats()
    assert (stats["queue_q_items"], stats["queue_q_open_transactions"]) == ("3", "0")
    assert (stats["queue_q.c_items"], stats["queue_q.c_open_transactions"]) == ("1", "1")
    assert stats["curr_items"] == "3"
    client.ask(b"delete q.c\r\n", b"END\r\n")
    assert "queue_q.c_items" not in client.stats()


def test_cursors_count_as_queues(start_server: Callable[..., RunningServer]) -> None:
    client = start_server(*SIBERITE, "--max-queues", "2").client()
    client.set("q", b"a")
    assert client.get("q.c") == b"a"
    for key in (b"q.d", b"q.d/open", b"q.d/t=10"):
        client.ask(b"get %b\r\n" % key, b"SERVER_ERROR too many queues: at most 2\r\n")
    client.ask(b"set r 0 0 1\r\na\r\n", b"SERVER_ERROR too many queues: at most 2\r\n")
    client.ask(b"delete q.c\r\n", b"END\r\n")
    assert client.get("q.d") == b"a"


def test_a_name_with_a_dot_of_another_dialect_is_no_cursor(server: RunningServer) -> None:
    client = server.client()
    client.set("q", b"a")
    assert client.get("q.c") == b"a"
    server.stop()
    server.options = ()
    server.start()
    client = server.client()
    client.set("q.c", b"of the queue q.c")
    assert client.get("q.c") == b"of the queue q.c"
    server.stop()
    server.options = SIBERITE
    server.start()
    assert server.client().get("q.c") is None


# -- waiting


def cursors_of(server: RunningServer) -> set[str]:
    return {name for name in server.client().stats() if name.startswith(("queue_q.", "queue_q_items"))}


def test_a_waiting_peek_makes_no_cursor_and_sees_what_one_would_show(server: RunningServer) -> None:
    peeking, client = server.client(), server.client()
    peeking.send(b"get q.c/peek/t=10000\r\n")
    peeking.expect_nothing()
    assert cursors_of(server) == set()
    client.set("q", b"a")
    assert peeking.item() == b"a"
    assert cursors_of(server) == {"queue_q_items"}
    assert client.get("q.c") == b"a"
    peeking.send(b"get q.c/peek/t=10000\r\n")
    peeking.expect_nothing()
    client.ask(b"delete q.c\r\n", b"END\r\n")
    assert peeking.item() == b"a"  # the next cursor of that name would show it again
    assert cursors_of(server) == {"queue_q_items"}


def test_a_peek_goes_on_waiting_at_the_cursor_that_is_made_meanwhile(server: RunningServer) -> None:
    peeking, client = server.client(), server.client()
    client.set("q", b"a")
    assert client.get("q") == b"a"
    peeking.send(b"get q.c/peek/t=10000\r\n")
    peeking.expect_nothing()
    assert client.get("q.c") is None
    client.ask(b"set q 0 0 1\r\nb\r\nget q.c\r\n", b"STORED\r\nVALUE q 0 1\r\nb\r\nEND\r\n")
    peeking.expect_nothing()
    client.ask(b"flush q.c\r\n", b"END\r\n")
    assert peeking.item() == b"b"


def test_who_waits_at_a_cursor_is_served_by_a_set_and_so_is_who_waits_at_the_queue(server: RunningServer) -> None:
    at_cursor, at_other, at_queue, putting = (server.client() for _ in range(4))
    putting.set("q", b"first")
    assert at_queue.get("q") == b"first"
    at_queue.send(b"get q/t=10000\r\n")
    at_other.send(b"get q.d/t=10000\r\n")
    at_queue.expect_nothing()
    at_cursor.send(b"get q.c/open/t=10000\r\n")
    at_cursor.expect_nothing()
    putting.set("q", b"a")
    assert [at_queue.item(), at_cursor.item(), at_other.item()] == [b"a", b"a", b"a"]
    at_cursor.ask(b"get q.c/abort\r\n", b"END\r\n")
    assert putting.get("q.c") == b"a"  # the queue's is gone
    at_other.send(b"get q.c/t=10000\r\n")
    at_other.expect_nothing()
    putting.set("q", b"b")
    assert at_other.item() == b"b"


def test_who_waits_is_served_whatever_happens_to_queue_and_cursor(server: RunningServer) -> None:
    waiting, client = server.client(), server.client()
    waiting.send(b"get q.c/t=10000\r\n")
    waiting.expect_nothing()
    client.set("q", b"a")
    assert waiting.item() == b"a"
    for line in (b"delete q.c\r\n", b"flush q.c\r\n", b"flush q\r\n", b"delete q\r\n"):
        client.get("q")
        waiting.send(b"get q.c/t=10000\r\n")
        waiting.expect_nothing()
        client.ask(line, b"END\r\n")
        waiting.expect_nothing()
        client.set("q", line[:-2])
        assert waiting.item() == line[:-2]
    assert client.stats()["queue_q.c_waiters"] == "0"


def test_what_a_lost_connection_held_goes_to_who_waits_at_the_cursor(server: RunningServer) -> None:
    holding, waiting, client = (server.client() for _ in range(3))
    client.set("q", b"a")
    assert holding.get("q.c/open") == b"a"
    waiting.send(b"get q.c/t=10000\r\n")
    waiting.expect_nothing()
    holding.close()
    assert waiting.item() == b"a"


def test_a_second_read_is_refused_with_the_cursors_name(server: RunningServer) -> None:
    client = server.client()
    client.set("q", b"a")
    assert client.get("q.c/open") == b"a"
    client.send(b"get q.c/open\r\n")
    assert b"an item of queue q.c is open" in client.line()
    client.expect_hang_up()
    assert server.client().get("q.c") == b"a"


@pytest.mark.parametrize("deleted", [False, True])
def test_who_waits_is_served_when_a_turn_that_failed_is_done_again(
    open_storage: Callable[[], Storage], deleted: bool
) -> None:
    storage = open_storage()
    journal = Journal(storage)
    registry = Registry(journal, WindowBudget(1 << 20))
    if deleted:
        registry.create(b"q")
    waiter = registry.join_line(b"q", b"c", False)
    journal.commit()
    if deleted:
        registry.delete(b"q")
    else:
        registry.create(b"q").put(b"never", 0, 0)
    with refusing_writes(storage), pytest.raises(StorageError):
        journal.commit()
    assert waiter.got is None or not waiter.got.queue.holds(waiter.got)
    assert list(registry.queues) == [b"q"] * deleted
    registry.recheck()
    if waiter.got is not None:  # it is told of the error, and waits again
        waiter = registry.join_line(b"q", b"c", False)
    (registry.queues.get(b"q") or registry.create(b"q")).put(b"a", 0, 0)
    journal.commit()
    assert waiter.got.queue.item_of(waiter.got)[0] == b"a"
    assert registry.cursors.count == 1


@pytest.mark.parametrize("key", ["q.c", "q.c/open", "q.c/peek"])
def test_however_many_items_have_expired_the_next_is_found(
    start_server: Callable[..., RunningServer], key: str
) -> None:
    client = start_server(*SIBERITE, "--expiration-timer-s", "0").client()
    client.set("q", b"first")
    assert client.get("q.c") == b"first"
    client.ask(b"set q 0 -1 1\r\nx\r\n" * 2500, b"STORED\r\n" * 2500)
    client.set("q", b"alive")
    assert client.get(key) == b"alive"


# -- kill -9


def test_a_place_survives(server: RunningServer) -> None:
    client = server.client()
    for number in range(10):
        client.set("q", b"%d" % number)
    for number in range(4):
        assert client.get("q.c") == b"%d" % number
    assert client.get("q.d") == b"0"
    client = restarted(server)
    assert [client.get("q.c"), client.get("q.d"), client.get("q.new")] == [b"4", b"1", b"0"]
    assert client.get("q") == b"0"
    client = restarted(server)
    assert [client.get("q.c"), client.get("q.d"), client.get("q.new")] == [b"5", b"2", b"1"]


def test_what_was_open_given_back_and_closed_out_of_order_survives(server: RunningServer) -> None:
    clients = [server.client() for _ in range(5)]
    for number in range(6):
        clients[0].set("q", b"%d" % number)
    for number, client in enumerate(clients):
        assert client.get("q.c/open") == b"%d" % number
    clients[3].ask(b"get q.c/close\r\n", b"END\r\n")
    clients[1].ask(b"get q.c/close\r\n", b"END\r\n")
    clients[2].ask(b"get q.c/abort\r\n", b"END\r\n")
    for number in range(6):  # the queue's own consumer takes all, before the kill and after it
        assert clients[1].get("q") == b"%d" % number
        if number == 0:
            client = clients[1] = restarted(server)
            assert client.get("q.c") == b"0"
    client = restarted(server)
    assert [client.get("q.c/close/open") for _ in range(2)] == [b"2", None]


def test_what_the_queue_loses_while_it_is_open_at_a_cursor_survives(server: RunningServer) -> None:
    clients = [server.client() for _ in range(3)]
    for number in range(4):
        clients[0].set("q", b"%d" % number)
    for number, client in enumerate(clients):
        assert client.get("q.c/open") == b"%d" % number
    other = server.client()
    assert [other.get("q"), other.get("q/open")] == [b"0", b"1"]
    other.ask(b"flush q\r\n", b"END\r\n")
    clients[2].ask(b"get q.c/close\r\n", b"END\r\n")
    other.ask(b"get q/close\r\n", b"END\r\n")
    client = restarted(server)
    assert client.get("q") is None
    assert [client.get("q.c/open"), client.get("q.c/close/open")] == [b"0", b"1"]
    client = restarted(server)
    assert [client.get("q.c"), client.get("q.c")] == [b"1", None]


def test_a_large_item_survives_at_the_cursor_that_has_it_open(start_server: Callable[..., RunningServer]) -> None:
    server = start_server(*SIBERITE, *SMALL_CHUNKS)
    large = [bytes([number]) * 20_000 for number in range(3)]
    client, other = server.client(), server.client()
    for body in large:
        client.set("q", body)
    assert client.get("q.c/open") == large[0]
    assert other.get("q.d/open") == large[0]
    for body in large[:2]:
        assert server.client().get("q") == body
    client, other = restarted(server), server.client()
    assert client.get("q.c/open") == large[0]
    other.ask(b"flush q\r\ndelete q.d\r\n", b"END\r\nEND\r\n")
    client = restarted(server)
    assert client.get("q.c/open") == large[0]
    client.ask(b"get q.c/close\r\n", b"END\r\n")
    assert client.get("q.c") is None
    server.kill()
    storage = Storage(
        str(server.data), max_column_families=1, block_cache_bytes=8 << 20, write_buffer_bytes=16 << 20,
        max_wal_bytes=64 << 20, max_open_files=64,
    )  # fmt: skip
    assert storage.first_chunk() is None
    storage.close()


def test_a_cursor_that_was_put_back_or_deleted_begins_at_the_head_after_a_kill(server: RunningServer) -> None:
    client = server.client()
    for number in range(5):
        client.set("q", b"%d" % number)
    for _ in range(3):
        client.get("q.c")
        client.get("q.d")
    assert client.get("q") == b"0"
    client.ask(b"flush q.c\r\ndelete q.d\r\n", b"END\r\nEND\r\n")
    client = restarted(server)
    assert "queue_q.d_items" not in client.stats()
    assert [client.get("q.c"), client.get("q.d")] == [b"1", b"1"]
    client.ask(b"delete q\r\n", b"END\r\n")
    client.set("q", b"anew")
    client = restarted(server)
    assert "queue_q.c_items" not in client.stats()
    assert client.get("q.c") == b"anew"


# -- the cost


def test_a_cursor_reads_ahead_and_writes_its_place_once_a_turn(
    open_storage: Callable[[], Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage()
    journal = Journal(storage)
    registry = Registry(journal, WindowBudget(1 << 20))
    queue = registry.create(b"q")
    for number in range(2000):
        queue.put(b"%d" % number, 0, 0)
    journal.commit()
    cursor = registry.cursors.of(queue, b"c")
    journal.commit()
    calls = []
    items = storage.items
    monkeypatch.setattr(storage, "items", lambda *span: calls.append("read") or items(*span))
    monkeypatch.setattr(storage, "item", lambda *_: pytest.fail("read one by one"))
    sizes, write = [], storage.write
    monkeypatch.setattr(storage, "write", lambda batch: sizes.append(len(batch)) or write(batch))
    for number in range(2000):
        item = cursor.take()
        assert isinstance(item, tuple)
        assert item[0] == b"%d" % number
        if number % 500 == 499:
            journal.commit()
    assert len(calls) <= 5
    assert sizes == [1] * 4


def test_a_queue_without_cursors_is_looked_at_no_further(open_storage: Callable[[], Storage]) -> None:
    journal = Journal(open_storage())
    registry = Registry(journal, WindowBudget(1 << 20))
    queue = registry.create(b"q")
    assert [queue.cursors, queue.log.hook] == [None, None]
    registry.cursors.of(queue, b"c")
    assert queue.log.hook is not None
    registry.cursors.delete(b"q", b"c")
    assert [queue.cursors, queue.log.hook] == [None, None]
    journal.commit()
    waiter = registry.join_line(b"q", b"c", False)
    assert queue.line is not None
    waiter.cancel()
    registry.leave_line(b"q", b"c")
    assert queue.line is None


def test_a_new_maximum_age_counts_for_what_a_cursor_was_given_back_too(
    open_storage: Callable[[], Storage],
) -> None:
    bench = Bench(open_storage)
    bench.put(b"q", b"1")
    cursor = bench.registry.cursors.of(bench.queue(), b"c")
    read = cursor.open()
    assert read is not None
    cursor.give_back(read)
    bench.drain()
    bench.rules.options[b"q"] = QueueOptions(max_age_s=10)
    list(bench.registry.set_rules(bench.rules))
    bench.now_s += 11
    assert cursor.open() is None


def test_a_cursors_figure_is_never_too_low_because_others_items_have_expired(
    open_storage: Callable[[], Storage],
) -> None:
    bench = Bench(open_storage)
    bench.put(b"q", b"first")
    bench.put(b"q", *[b"x"] * 5, expires_in_s=5)
    bench.put(b"q", b"1", b"2")
    cursor = bench.registry.cursors.of(bench.queue(), b"c")
    for _ in range(6):
        cursor.take()
    bench.end_turn()
    bench.now_s += 6
    bench.sweep()
    assert cursor.waiting_items == 2


def test_a_new_queue_looks_at_its_own_cursors_that_are_waited_for_alone(open_storage: Callable[[], Storage]) -> None:
    bench = Bench(open_storage)
    cursors = bench.registry.cursors
    waiters = [bench.registry.join_line(b"q%d" % number, b"c", False) for number in range(20)]
    asked: list[bytes] = []
    of = cursors.of
    cursors.of = lambda queue, *more: asked.append(queue.name) or of(queue, *more)  # type: ignore[method-assign]
    bench.registry.create(b"q7").put(b"x", 0, 0)
    bench.journal.commit()
    assert asked == [b"q7"]
    assert [waiter.got is not None for waiter in waiters] == [number == 7 for number in range(20)]
    assert bench.registry.awaited_count == 19


def test_a_cursor_that_there_was_no_room_for_is_made_when_there_is(open_storage: Callable[[], Storage]) -> None:
    bench = Bench(open_storage)
    registry = bench.registry
    waiter = registry.join_line(b"q", b"c", False)
    registry.max_queues = len(registry.queues) + 1
    registry.create(b"q").put(b"x", 0, 0)
    bench.journal.commit()
    assert waiter.got is None
    registry.max_queues += 2
    registry.create(b"other")
    assert waiter.got is not None
