"""Real client libraries, as their users use them: pymemcache (plain and pooled), python-memcached and pylibmc.

What they send was not made for queues, and what they make of a reply they decide: that an item comes back with its
type is their work and the server's, which has to keep the flags. pymemcache looks the key of a reply up among those
it asked for, so its users who read with options run the server with `--reply-key request`; here its tests do, except
those in the last section.

What the libraries cannot do, whatever a queue server does:
  - python-memcached: wait for longer than its `socket_timeout` (3 s), or send more than its `server_max_value_length`
    (1 MiB); it answers None or 0 and, after a time-out, does not ask that server again for 30 s
  - pylibmc: wait for longer than its behavior `_poll_timeout` (5 s), after which the server counts as down; see the
    statistics of a queue, because it drops all names that memcached does not have; tell True from 1
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import memcache
import pylibmc
import pytest
from pymemcache.client.base import Client as Pymemcache
from pymemcache.client.base import PooledClient as PymemcachePool
from pymemcache.serde import compressed_serde, pickle_serde

from darner_core import VERSION
from tests.support.harness import Client, RunningServer

Connect = Callable[..., Any]

PATIENCE_S = 20  # how long the libraries wait for a reply; none takes so long

ALL_BYTES = bytes(range(256))
VALUES = {
    "text": "Grüße, 世界",
    "empty text": "",
    "number": 42,
    "negative number": -7,
    "long number": 2**70,
    "fraction": 2.5,
    "structure": {"id": 17, "tags": ["a", "b", None], "nested": {"true": [True, 1.5]}},
    "None in a list": [None],
    "bytes": ALL_BYTES,
    "empty bytes": b"",
    "looks like a reply": b"\r\nEND\r\nVALUE q 0 1\r\nx\r\nEND\r\n",
    "1 MB": ALL_BYTES * 4096,
}


def pymemcache(port: int, **options: Any) -> Any:
    return Pymemcache(("127.0.0.1", port), **{"serde": pickle_serde, "timeout": PATIENCE_S, **options})


def pymemcache_pool(port: int, **options: Any) -> Any:
    return PymemcachePool(("127.0.0.1", port), **{"serde": pickle_serde, "timeout": PATIENCE_S, **options})


def python_memcached(port: int, **options: Any) -> Any:
    return memcache.Client([f"127.0.0.1:{port}"], **{"socket_timeout": PATIENCE_S, **options})


def pylibmc_client(port: int, **behaviors: Any) -> Any:
    return pylibmc.Client([f"127.0.0.1:{port}"], behaviors={"_poll_timeout": PATIENCE_S * 1000, **behaviors})


LIBRARIES = {
    "pymemcache": pymemcache,
    "pymemcache-pool": pymemcache_pool,
    "python-memcached": python_memcached,
    "pylibmc": pylibmc_client,
}


def hang_up(client: Any) -> None:
    client.disconnect_all() if hasattr(client, "disconnect_all") else client.close()


@pytest.fixture(scope="module")
def default_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    server = RunningServer(tmp_path_factory.mktemp("clients") / "data")
    yield server
    server.end()


@pytest.fixture(scope="module")
def request_key_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    server = RunningServer(tmp_path_factory.mktemp("clients") / "data", "--reply-key", "request")
    yield server
    server.end()


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> str:
    """The name of each library in turn."""
    return str(request.param)


@pytest.fixture
def running(library: str, default_server: RunningServer, request_key_server: RunningServer) -> RunningServer:
    """The server that suits the library."""
    return request_key_server if library.startswith("pymemcache") else default_server


@pytest.fixture
def connect(library: str, running: RunningServer) -> Iterator[Connect]:
    """Make a client of the library; it is disconnected when the test ends."""
    clients = []

    def connect(**options: Any) -> Any:
        clients.append(LIBRARIES[library](running.port, **options))
        return clients[-1]

    yield connect
    for client in clients:
        hang_up(client)


@pytest.fixture
def queue() -> str:
    """The name of a queue that no other test uses."""
    return f"jobs.{time.time_ns()}"


def wait_for_waiters(observer: Client, queue: str, count: int) -> None:
    """Until so many clients wait at the queue, which must exist."""
    deadline = time.monotonic() + PATIENCE_S
    while observer.stats()[f"queue_{queue}_waiters"] != str(count):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def in_a_thread(library: str, port: int, key: str) -> Any:
    """Get `key` with a client of this thread's own, as the libraries want it."""
    client = LIBRARIES[library](port)
    try:
        return client.get(key)
    finally:
        hang_up(client)


# -- putting and getting


def test_items_come_out_once_and_in_order(connect: Connect, queue: str) -> None:
    producer, consumer = connect(), connect()
    for number in range(20):
        assert producer.set(queue, f"job {number}")
    assert producer.get(queue) == "job 0"  # so all that was put, with or without a reply, is there
    assert [consumer.get(queue) for _ in range(19)] == [f"job {number}" for number in range(1, 20)]
    assert consumer.get(queue) is None
    assert producer.get(queue) is None


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_value_comes_back_as_it_was_with_its_type(connect: Connect, queue: str, value: object) -> None:
    client = connect()
    assert client.set(queue, value)
    got = client.get(queue)
    assert got == value
    assert type(got) is type(value)
    assert client.get(queue) is None


def test_a_value_comes_back_in_a_reliable_read_too(connect: Connect, queue: str) -> None:
    client = connect()
    for value in VALUES.values():
        client.set(queue, value)
    for value in VALUES.values():
        got = client.get(f"{queue}/close/open")
        assert got == value
        assert type(got) is type(value)
    assert client.get(f"{queue}/close/open") is None


def test_compressed_values_come_back_whole(library: str, connect: Connect, running: RunningServer, queue: str) -> None:
    text = "the same again and " * 10_000
    if library.startswith("pymemcache"):
        client = connect(serde=compressed_serde)
        assert client.set(queue, text)
    else:
        client = connect()
        assert client.set(queue, text, min_compress_len=100)
    assert client.get(f"{queue}/peek") == text
    assert int(running.client().stats()[f"queue_{queue}_bytes"]) < len(text)
    assert client.get(queue) == text


def test_an_item_larger_than_memcached_would_take(library: str, connect: Connect, queue: str) -> None:
    body = ALL_BYTES * (3 << 12)
    client = connect(server_max_value_length=0) if library == "python-memcached" else connect()
    assert client.set(queue, body)
    assert client.get(queue) == body


def test_a_set_that_waits_for_the_disk(connect: Connect, queue: str) -> None:
    client = connect()
    assert client.set(f"{queue}/sync", "safe")
    assert client.get(queue) == "safe"


def test_an_expiry_is_accepted(connect: Connect, queue: str) -> None:
    client = connect()
    assert client.set(queue, "fresh", 3600)
    assert client.get(queue) == "fresh"


def test_one_call_sets_items_of_several_queues(library: str, connect: Connect, queue: str) -> None:
    client = connect()
    set_several = client.set_many if library.startswith("pymemcache") else client.set_multi
    assert set_several({queue: 1, f"{queue}.b": "two"}) == []  # those that failed
    assert client.get(queue) == 1
    assert client.get(f"{queue}.b") == "two"


def test_asking_for_several_queues_at_once_takes_one_item_and_loses_nothing(
    library: str, connect: Connect, queue: str
) -> None:
    producer, greedy, consumer = connect(), connect(), connect()
    producer.set(queue, 1)
    producer.set(f"{queue}.b", 2)
    assert producer.get(f"{queue}.b/peek") == 2
    get_several = greedy.get_many if library.startswith("pymemcache") else greedy.get_multi
    assert get_several([queue, f"{queue}.b"]) == {queue: 1}  # the first that has something
    assert consumer.get(queue) is None
    assert get_several([queue, f"{queue}.b"]) == {f"{queue}.b": 2}
    assert get_several([queue, f"{queue}.b"]) == {}


# -- without replies


def without_reply(library: str, connect: Connect) -> tuple[Any, dict[str, bool]]:
    """A client that asks for no reply, and what its calls need for that."""
    if library == "pylibmc":
        return connect(_noreply=True), {}
    return connect(), {"noreply": True}


def test_sets_without_reply_are_stored_in_order(library: str, connect: Connect, queue: str) -> None:
    client, noreply = without_reply(library, connect)
    for number in range(500):
        assert client.set(queue, number, **noreply)
    assert [client.get(queue) for _ in range(501)] == [*range(500), None]


def test_a_delete_without_reply_leaves_the_connection_usable(library: str, connect: Connect, queue: str) -> None:
    client, noreply = without_reply(library, connect)
    client.set(queue, "old", **noreply)
    assert client.delete(queue, **noreply)
    assert client.get(queue) is None
    client.set(queue, "new", **noreply)
    assert client.get(queue) == "new"


@pytest.mark.parametrize("library", ["pymemcache", "pymemcache-pool", "pylibmc"])
def test_a_flush_all_without_reply_leaves_the_connection_usable(connect: Connect, library: str, queue: str) -> None:
    client, _ = without_reply(library, connect)
    client.set(queue, "old")
    assert client.flush_all()
    assert client.get(queue) is None
    client.set(queue, "new")
    assert client.get(queue) == "new"


# -- reliable reads


def test_an_open_item_is_nobody_elses_until_it_is_closed(connect: Connect, queue: str) -> None:
    worker, other = connect(), connect()
    worker.set(queue, "first")
    worker.set(queue, "second")
    assert worker.get(f"{queue}/open") == "first"
    assert other.get(queue) == "second"
    assert other.get(queue) is None
    assert worker.get(f"{queue}/close") is None
    hang_up(worker)
    assert other.get(f"{queue}/t=100") is None


def test_an_aborted_item_is_the_next_one_again(connect: Connect, queue: str) -> None:
    worker, other = connect(), connect()
    worker.set(queue, "first")
    worker.set(queue, "second")
    assert worker.get(f"{queue}/open") == "first"
    assert worker.get(f"{queue}/abort") is None
    assert other.get(queue) == "first"
    assert other.get(queue) == "second"


def test_an_open_item_of_a_client_that_goes_away_goes_to_the_next(
    connect: Connect, running: RunningServer, queue: str
) -> None:
    worker, other = connect(), connect()
    worker.set(queue, {"work": 1})
    assert worker.get(f"{queue}/open") == {"work": 1}
    assert other.get(queue) is None
    hang_up(worker)
    assert other.get(f"{queue}/t=9000/open") == {"work": 1}
    assert other.get(f"{queue}/close") is None
    assert running.client().get(queue) is None


def test_closing_one_and_opening_the_next_walks_the_queue(connect: Connect, queue: str) -> None:
    client = connect()
    for number in range(5):
        client.set(queue, number)
    walked = [client.get(f"{queue}/close/open") for _ in range(6)]
    assert walked == [0, 1, 2, 3, 4, None]
    hang_up(client)
    assert client.get(queue) is None


def test_a_peek_takes_nothing(connect: Connect, queue: str) -> None:
    client = connect()
    client.set(queue, [1, 2])
    assert client.get(f"{queue}/peek") == [1, 2]
    assert client.get(f"{queue}/peek") == [1, 2]
    assert client.get(queue) == [1, 2]
    assert client.get(f"{queue}/peek") is None


# -- waiting


def test_a_wait_for_nothing_ends(connect: Connect, queue: str) -> None:
    client = connect()
    assert client.get(f"{queue}/t=50") is None
    client.set(queue, "later")
    assert client.get(f"{queue}/t=50") == "later"


@pytest.mark.parametrize(
    ("options", "left"),
    [("/t=15000", None), ("/t=15000/open", "x"), ("/t=15000/close/open", "x"), ("/peek/t=15000", "x")],
)
def test_a_wait_ends_with_the_item_that_another_thread_puts(
    library: str, connect: Connect, running: RunningServer, queue: str, options: str, left: str | None
) -> None:
    producer = connect()
    producer.set(queue, "makes the queue")
    assert producer.get(queue) == "makes the queue"
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(in_a_thread, library, running.port, queue + options)
        wait_for_waiters(running.client(), queue, 1)
        producer.set(queue, "x")
        assert waiting.result(PATIENCE_S) == "x"
    # Who had it open has hung up without a close.
    assert producer.get(f"{queue}/t=9000" if left else queue) == left


def test_many_threads_wait_and_each_gets_one(
    library: str, connect: Connect, running: RunningServer, queue: str
) -> None:
    producer = connect()
    producer.set(queue, "makes the queue")
    producer.get(queue)
    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(in_a_thread, library, running.port, f"{queue}/t=15000") for _ in range(8)]
        wait_for_waiters(running.client(), queue, 8)
        for number in range(8):
            producer.set(queue, number)
        assert sorted(each.result(PATIENCE_S) for each in waiting) == [*range(8)]
    assert producer.get(queue) is None


@pytest.mark.parametrize("options", ["/t=600000", "/t=600000/open"])
def test_a_client_that_gives_up_waiting_loses_nothing(
    library: str, connect: Connect, running: RunningServer, queue: str, options: str
) -> None:
    if library == "pylibmc":
        impatient = connect(_poll_timeout=100)
    elif library == "python-memcached":
        impatient = connect(socket_timeout=0.1)
    else:
        impatient = connect(timeout=0.1)
    consumer = connect()
    consumer.set(queue, "makes the queue")
    consumer.get(queue)
    with suppress(TimeoutError):  # pymemcache raises it, the others answer None
        assert impatient.get(queue + options) is None
    wait_for_waiters(running.client(), queue, 0)
    consumer.set(queue, "for who is there")
    assert consumer.get(queue) == "for who is there"


# -- the other commands


def test_delete_removes_a_queue_with_all_that_is_in_it(library: str, connect: Connect, queue: str) -> None:
    client = connect(default_noreply=False) if library.startswith("pymemcache") else connect()
    client.set(queue, "old")
    client.set(queue, "older")
    assert client.delete(queue)
    assert client.get(queue) is None
    assert client.delete(queue)  # of a queue that is not there
    client.set(queue, "new")
    assert client.get(queue) == "new"


def test_flush_all_empties_every_queue(library: str, connect: Connect, queue: str) -> None:
    producer = connect(default_noreply=False) if library.startswith("pymemcache") else connect()
    for name in (queue, f"{queue}.b"):
        producer.set(name, "old")
    with suppress(pylibmc.Error):  # it takes no answer but "OK"; the others ignore what the answer is
        producer.flush_all()
    consumer = connect()
    for name in (queue, f"{queue}.b"):
        assert consumer.get(name) is None
        consumer.set(name, "new")
        assert consumer.get(name) == "new"


def stats_of(library: str, client: Any) -> dict[str, str]:
    """The server's statistics as the library tells them, in text throughout."""
    stats = client.stats() if library.startswith("pymemcache") else client.get_stats()[0][1]

    def text(word: object) -> str:
        return word.decode() if isinstance(word, bytes) else str(word).strip()

    return {text(name): text(value) for name, value in stats.items()}


def test_the_statistics_count_what_the_client_does(library: str, connect: Connect, queue: str) -> None:
    client = connect()
    client.set(queue, "warm-up")
    client.get(queue)
    before = stats_of(library, client)
    for number in range(3):
        client.set(queue, number)
    client.get(queue)
    client.get(f"{queue}.none")
    after = stats_of(library, client)
    expected = {"cmd_set": 3, "total_items": 3, "curr_items": 2, "get_hits": 1, "get_misses": 1, "cmd_get": 2}
    assert {name: int(after[name]) - int(before[name]) for name in expected} == expected
    if library != "pylibmc":  # which keeps only the names that memcached has
        assert after[f"queue_{queue}_items"] == "2"
        assert after[f"queue_{queue}_total_items"] == "4"


def test_the_version(library: str, connect: Connect) -> None:
    client = connect()
    assert stats_of(library, client)["version"] == VERSION
    if library.startswith("pymemcache"):  # the others have no call for it
        assert client.version() == VERSION.encode()


def test_gets_takes_the_item_and_tells_its_number(library: str, connect: Connect, queue: str) -> None:
    options = {"pylibmc": {"cas": True}, "python-memcached": {"cache_cas": True}}
    client = connect(**options.get(library, {}))
    for value in ("first", "second"):
        client.set(queue, value)
    first, second, none = client.gets(queue), client.gets(queue), client.gets(queue)
    if library == "python-memcached":  # which keeps the number to itself
        assert [first, second, none] == ["first", "second", None]
        assert client.cas_ids[queue.encode()] > 0
    else:
        assert (first[0], second[0], none[0]) == ("first", "second", None)
        assert 0 < int(first[1]) < int(second[1])


def test_quit_hangs_up_and_the_next_call_connects_again(library: str, connect: Connect, queue: str) -> None:
    client = connect()
    client.set(queue, "kept")
    assert client.get(f"{queue}/peek") == "kept"
    quit_ = {"python-memcached": "quit_all", "pylibmc": "disconnect_all"}.get(library, "quit")
    getattr(client, quit_)()
    assert client.get(queue) == "kept"


# -- what only pymemcache has


def test_a_pool_shared_by_threads_loses_nothing_and_mixes_nothing_up(
    request_key_server: RunningServer, queue: str
) -> None:
    # Without no_delay, a get behind a set that is not answered is held back by Nagle's algorithm for 40 ms.
    pool = pymemcache_pool(request_key_server.port, max_pool_size=8, no_delay=True)

    def work(worker: int) -> list[tuple[int, int]]:
        for number in range(100):
            pool.set(queue, (worker, number), noreply=number % 2 == 0)
        return [pool.get(f"{queue}/t=15000") for _ in range(100)]

    with ThreadPoolExecutor(8) as threads:
        got = [item for items in threads.map(work, range(8)) for item in items]
    assert sorted(got) == [(worker, number) for worker in range(8) for number in range(100)]
    assert pool.get(queue) is None
    pool.close()


@pytest.fixture(params=["pymemcache", "pymemcache-pool"])
def default_pymemcache(request: pytest.FixtureRequest, default_server: RunningServer) -> Iterator[Any]:
    """A client with all of pymemcache's defaults, at a server with all of its own."""
    client = (Pymemcache if request.param == "pymemcache" else PymemcachePool)(("127.0.0.1", default_server.port))
    yield client
    client.close()


def test_a_default_server_does_for_keys_without_options(default_pymemcache: Any, queue: str) -> None:
    client = default_pymemcache
    for body in (b"first", b"", ALL_BYTES * 4096, b"last"):
        assert client.set(queue, body)
    assert client.get(queue) == b"first"
    assert client.gets(queue)[0] == b""
    assert client.get_many([queue]) == {queue: ALL_BYTES * 4096}
    assert client[queue] == b"last"
    assert client.get(queue, default="nothing") == "nothing"
    assert client.set(f"{queue}/sync", 5)
    assert client.delete(queue)
    assert client.get(queue) is None


def test_the_reply_names_the_queue_or_repeats_the_key(
    default_server: RunningServer, request_key_server: RunningServer
) -> None:
    for server, key in ((default_server, b"q"), (request_key_server, b"q/t=100/Open")):
        client = server.client()
        client.set("q", b"x", flags=3)
        client.ask(b"get q/t=100/Open\r\n", b"VALUE %b 3 1\r\nx\r\nEND\r\n" % key)
        client.ask(b"get q/abort\r\n", b"END\r\n")
        client.ask(b"get q\r\n", b"VALUE q 3 1\r\nx\r\nEND\r\n")


def test_a_key_prefix(request_key_server: RunningServer, queue: str) -> None:
    client = pymemcache(request_key_server.port, key_prefix=b"app.")
    client.set(queue, 1)
    assert client.get(f"{queue}/open") == 1
    assert client.get(f"{queue}/abort") is None
    client.close()
    unprefixed = pymemcache(request_key_server.port)
    assert unprefixed.get(f"app.{queue}/t=9000") == 1
    unprefixed.close()


# -- reliable reads without options: the kyototycoon dialect


@pytest.fixture(scope="module")
def kyoto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    options = ("--dialect", "kyototycoon", "--get-timeout-ms", "300")
    server = RunningServer(tmp_path_factory.mktemp("clients") / "data", *options)
    yield server
    server.end()


@pytest.fixture
def connect_kyoto(library: str, kyoto_server: RunningServer) -> Iterator[Connect]:
    clients = []

    def connect() -> Any:
        clients.append(LIBRARIES[library](kyoto_server.port))
        return clients[-1]

    yield connect
    for client in clients:
        hang_up(client)


def test_flush_all_empties_the_queues(connect_kyoto: Connect, queue: str) -> None:
    client = connect_kyoto()
    assert client.set(queue, "a")
    assert client.flush_all() in (True, None)  # None: python-memcached's in any case
    assert client.get(queue) is None


def test_what_the_server_does_not_have_leaves_the_client_its_server(
    library: str, connect_kyoto: Connect, queue: str
) -> None:
    client = connect_kyoto()
    assert client.set(queue, "a")
    with suppress(Exception):  # which one, or none, is the library's
        client.incr(queue, 1)
    with suppress(Exception):
        client.touch(queue, 1)
    if not library.startswith("pymemcache"):
        client.get_stats("items")
    elif library == "pymemcache":
        assert client.stats("items") == {}
        assert client.stats("settings")[b"maxconns"] == 16_000
    assert client.get(queue) == "a"
    assert client.delete(queue)


def test_a_worker_gets_and_deletes(connect_kyoto: Connect, queue: str) -> None:
    producer, worker = connect_kyoto(), connect_kyoto()
    for value in VALUES.values():
        assert producer.set(queue, value)
    done = []
    while (value := worker.get(queue)) is not None:
        done.append(value)
        assert worker.delete(queue)
    assert done == list(VALUES.values())
    assert producer.get(queue) is None


def test_what_a_worker_that_dies_had_not_deleted_goes_to_the_next(connect_kyoto: Connect, queue: str) -> None:
    first, second = connect_kyoto(), connect_kyoto()
    for number in range(4):
        first.set(queue, f"job {number}")
    assert [first.get(queue), first.get(queue), first.get(queue)] == ["job 0", "job 1", "job 2"]
    first.delete(queue)
    hang_up(first)
    got = []
    while (job := second.get(queue)) is not None:
        got.append(job)
        second.delete(queue)
    assert sorted(got) == ["job 1", "job 2", "job 3"]  # in order, if the server has noticed before the first get


def test_a_worker_of_several_queues_takes_from_the_first_that_has_something(
    library: str, connect_kyoto: Connect, queue: str
) -> None:
    client = connect_kyoto()
    get = client.get_many if library.startswith("pymemcache") else client.get_multi
    urgent, later = f"{queue}.urgent", f"{queue}.later"
    client.set(later, 1)
    assert get([urgent, later]) == {later: 1}
    client.set(urgent, 2)
    client.set(later, 3)
    assert get([urgent, later]) == {urgent: 2}
    assert client.delete(urgent)
    assert get([urgent, later]) == {later: 3}
    assert get([urgent, later]) == {}
