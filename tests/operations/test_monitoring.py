"""Watching a queue as Kestrel's clients do, beyond the recorded conversations of tests/wire."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from darner_core.config.options import Config
from darner_core.errors import DamagedError, StorageError
from darner_core.operations.session import READS_AT_ONCE, ManyReads
from darner_core.protocols.memcache.reader import LineRequest
from darner_core.storage.records import Item, QueueRecord
from darner_core.storage.storage import Storage
from tests.operations.test_session import House
from tests.server.test_connection import LARGE
from tests.support.harness import Client, RunningServer, wait_until
from tests.support.identities import login, write_users
from tests.support.operations_on import items_on, operations_on

Shared = Callable[..., RunningServer]

RIGHTS = """
[users.boss]
put = ["*"]
get = ["*"]
admin = ["*"]
[users.reader]
get = ["open.*"]
"""


@pytest.fixture
def server(shared_server: Shared) -> RunningServer:
    """A server that all these tests share: each has a queue of its own."""
    return shared_server("--dialect", "kestrel")


@pytest.fixture
def client(server: RunningServer) -> Client:
    return server.client()


@pytest.fixture
def watcher(server: RunningServer) -> Client:
    return server.client()


def fill(client: Client, queue: str, *bodies: bytes) -> None:
    for body in bodies:
        client.set(queue, body)


def wait_for_waiters(client: Client, queue: str, count: int) -> None:
    wait_until(lambda: client.stats().get(f"queue_{queue}_waiters") == str(count))


def open_reads(client: Client, queue: str) -> int:
    return int(client.stats()[f"queue_{queue}_open_transactions"])


def monitor(client: Client, queue: str, words: str) -> None:
    client.send(f"monitor {queue} {words}\r\n".encode())


def items(client: Client, count: int) -> list[bytes | None]:
    return [client.item() for _ in range(count)]


def test_a_monitor_sends_what_is_there_and_then_what_comes(client: Client, watcher: Client, queue: str) -> None:
    name = queue.encode()
    fill(client, queue, b"a", b"b")
    watcher.ask(b"monitor %b 60\r\n" % name, b"VALUE %b 0 1\r\na\r\nEND\r\nVALUE %b 0 1\r\nb\r\nEND\r\n" % (name, name))
    wait_for_waiters(client, queue, 1)
    client.set(queue, b"c", flags=7)
    watcher.expect(b"VALUE %b 7 1\r\nc\r\nEND\r\n" % name)
    watcher.expect_nothing()
    assert open_reads(client, queue) == 3
    assert client.get(queue) is None


def test_it_ends_when_so_many_have_come_and_the_next_request_is_served(client: Client, queue: str) -> None:
    fill(client, queue, b"a", b"b", b"c")
    client.send(b"monitor %b 60 2\r\nget %b\r\nconfirm %b 2\r\nversion\r\n" % ((queue.encode(),) * 3))
    assert items(client, 4) == [b"a", b"b", None, b"c"]
    assert client.line() == b"END\r\n"
    assert client.line().startswith(b"VERSION ")


def test_it_ends_when_no_more_may_be_open(client: Client, queue: str) -> None:
    """A hundred is what is built in."""
    bodies = [b"%03d" % number for number in range(105)]
    fill(client, queue, *bodies)
    monitor(client, queue, "60")
    assert items(client, 101) == [*bodies[:100], None]
    monitor(client, queue, "60")
    assert client.item() is None
    client.ask(b"confirm %b 98\r\n" % queue.encode(), b"END\r\n")
    monitor(client, queue, "60")
    assert items(client, 5) == bodies[100:]
    client.expect_nothing()


def test_no_time_is_over_at_once_whatever_is_there(client: Client, queue: str) -> None:
    fill(client, queue, b"a")
    for words in ("0", "0 5"):
        monitor(client, queue, words)
        assert client.item() is None
    monitor(client, "empty", "1")
    assert client.item() is None
    assert client.get(queue) == b"a"


def test_confirm_closes_the_oldest_so_many_or_none(client: Client, watcher: Client, queue: str) -> None:
    name = queue.encode()
    fill(client, queue, b"a", b"b", b"c")
    monitor(watcher, queue, "60 3")
    assert items(watcher, 4) == [b"a", b"b", b"c", None]
    refused = b"ERROR not that many items of this queue are open on this connection\r\n"
    watcher.ask(b"confirm %b 4\r\nconfirm other 1\r\n" % name, refused + refused)
    watcher.ask(b"confirm %b 0\r\nconfirm %b 2\r\n" % (name, name), b"END\r\nEND\r\n")
    watcher.close()
    assert client.get(f"{queue}/t=10000") == b"c"
    assert client.get(queue) is None


def test_who_hangs_up_in_the_middle_gives_all_back_in_order(
    server: RunningServer, client: Client, watcher: Client, queue: str
) -> None:
    """And nothing to itself, though it has waited longest."""
    second = server.client()
    fill(client, queue, b"a", b"b")
    monitor(watcher, queue, "60")
    assert items(watcher, 2) == [b"a", b"b"]
    wait_for_waiters(client, queue, 1)
    monitor(second, queue, "60")
    wait_for_waiters(client, queue, 2)
    watcher.reset()
    assert items(second, 2) == [b"a", b"b"]
    client.set(queue, b"c")
    assert second.item() == b"c"


def test_who_hangs_up_without_reading_on_gives_all_back(client: Client, watcher: Client, queue: str) -> None:
    bodies = [b"%d" % number + bytes(100_000) for number in range(60)]
    fill(client, queue, *bodies)
    monitor(watcher, queue, "60")
    assert watcher.line().startswith(b"VALUE ")
    wait_until(lambda: open_reads(client, queue) > 1)
    watcher.reset()
    wait_until(lambda: open_reads(client, queue) == 0)
    assert [client.get(queue) for _ in bodies] == bodies


def test_large_items_are_monitored_too(client: Client, watcher: Client, queue: str) -> None:
    fill(client, queue, b"a", LARGE, b"b", LARGE)
    monitor(watcher, queue, "60 3")
    assert items(watcher, 4) == [b"a", LARGE, b"b", None]
    watcher.ask(b"confirm %b 2\r\n" % queue.encode(), b"END\r\n")
    monitor(watcher, queue, "60")
    assert watcher.line() == b"VALUE %b 0 %d\r\n" % (queue.encode(), len(LARGE))
    watcher.reset()  # in the middle of it
    assert [client.get(f"{queue}/t=10000"), client.get(f"{queue}/t=10000")] == [b"b", LARGE]
    assert client.get(queue) is None


def test_a_large_item_that_comes_while_a_monitor_waits(client: Client, watcher: Client, queue: str) -> None:
    client.set(queue, b"a")
    monitor(watcher, queue, "60")
    assert watcher.item() == b"a"
    wait_for_waiters(client, queue, 1)
    client.set(queue, LARGE)
    assert watcher.item() == LARGE
    wait_until(lambda: open_reads(client, queue) == 2)


def test_a_monitor_goes_on_when_its_queue_is_deleted(client: Client, watcher: Client, queue: str) -> None:
    client.set(queue, b"a")
    monitor(watcher, queue, "60")
    assert watcher.item() == b"a"
    wait_for_waiters(client, queue, 1)
    client.ask(b"delete %b\r\n" % queue.encode(), b"DELETED\r\n")
    client.set(queue, b"b")
    assert watcher.item() == b"b"


def test_an_item_that_cannot_be_read_ends_a_monitor_after_what_comes_before_it(
    open_storage: Callable[[], Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is hung up on, because it has items open of which it has been told."""
    house = House(open_storage)
    house.put(b"a", b"b")
    house.turn()
    queue, whole = house.registry.queues[b"q"], house.storage.items
    queue.drop_window()

    def damaged(record: QueueRecord, from_id: int, to_id: int) -> Iterator[tuple[int, Item]]:
        for item_id, item in whole(record, from_id, to_id):
            if item_id > 1:
                raise StorageError("a checksum is wrong")
            yield item_id, item

    monkeypatch.setattr(house.storage, "items", damaged)
    items = items_on(house)
    request = LineRequest(print, b"monitor", b"q", b"q", opens=True, wait_ms=60_000)
    client = FakeClient(house.many())
    with pytest.raises(DamagedError):
        items.monitor(request, None, client.session)(client)  # type: ignore[operator, arg-type]
    assert client.sent == [b"VALUE q 0 1\r\na\r\nEND\r\n"]
    assert client.session.open_reads(b"q") == 1


def test_a_large_item_goes_on_waiting_if_the_client_goes_before_its_turn(open_storage: Callable[[], Storage]) -> None:
    house = House(open_storage, Config(chunk_bytes=1000))
    client = FakeClient(house.many())
    operations_on(house).putting.wait_put_several(client, b"q", [b"a", bytes(3000)], None, False)  # type: ignore[arg-type]
    house.turn()
    request = LineRequest(print, b"monitor", b"q", b"q", opens=True, wait_ms=60_000)
    monitor = items_on(house).monitor(request, None, client.session)
    client.goes = True
    with pytest.raises(ConnectionResetError):
        monitor(client)  # type: ignore[operator, arg-type]
    client.session.end()
    house.turn()
    assert house.registry.queues[b"q"].open_reads == 0
    assert house.registry.queues[b"q"].waiting_items == 2


class FakeClient:
    def __init__(self, session: ManyReads) -> None:
        self.session = session
        self.sent: list[bytes] = []
        self.goes = False

    def wait_turn(self) -> None: ...

    def may(self, right: str, queue: bytes) -> bool:
        return True

    def wait_sent(self, data: bytes = b"") -> None:
        if self.goes:
            raise ConnectionResetError
        self.sent.append(data)


def test_monitors_and_gets_stand_in_one_line(server: RunningServer, client: Client, queue: str) -> None:
    first, second, third = (server.client() for _ in range(3))
    client.set(queue, b"")
    assert client.get(queue) == b""
    monitor(first, queue, "60 1")
    wait_for_waiters(client, queue, 1)
    second.send(b"get %b/t=60000\r\n" % queue.encode())
    wait_for_waiters(client, queue, 2)
    monitor(third, queue, "60")
    wait_for_waiters(client, queue, 3)
    fill(client, queue, b"a", b"b", b"c")
    assert [first.item(), second.item(), third.item()] == [b"a", b"b", b"c"]
    first.expect(b"END\r\n")


def test_a_monitor_ends_when_the_server_stops_and_what_it_had_is_there_again(start_server: Shared) -> None:
    server = start_server("--dialect", "kestrel")
    client, watcher = server.client(), server.client()
    client.set("q", b"a")
    monitor(watcher, "q", "60")
    assert watcher.item() == b"a"
    wait_for_waiters(client, "q", 1)
    assert server.stop() == 0
    watcher.expect(b"END\r\n")
    watcher.expect_hang_up()
    server.start()
    assert server.client().get("q") == b"a"


def test_to_monitor_and_to_confirm_is_a_right_to_get(start_server: Shared, tmp_path: Path) -> None:
    file = tmp_path / "darner.toml"
    users = write_users(tmp_path / "users", boss="pw", reader="pw")
    file.write_text(f'dialect = "kestrel"\nauth_file = "{users}"\n{RIGHTS}')
    server = start_server("-c", str(file))

    def connect(user: str) -> Client:
        client = server.client()
        client.ask(login(user, "pw"), b"STORED\r\n")
        return client

    boss = connect("boss")
    boss.set("open.q", b"a")
    reader = connect("reader")
    monitor(reader, "open.q", "60 1")
    assert items(reader, 2) == [b"a", None]
    reader.ask(b"confirm open.q 1\r\n", b"END\r\n")
    for request_line in (b"monitor q 1\r\n", b"confirm q 1\r\n"):
        reader = connect("reader")
        reader.ask(request_line, b"CLIENT_ERROR user reader may not get from queue q\r\n")
        reader.expect_hang_up()
    # Nothing more comes to who has lost the right meanwhile.
    reader = connect("reader")
    monitor(reader, "open.q", "600")
    wait_for_waiters(boss, "open.q", 1)
    file.write_text(file.read_text().replace("open.*", "other"))
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "reloaded" in server.printed())
    boss.set("open.q", b"b")
    reader.expect(b"CLIENT_ERROR you may not do this any longer: the rights of users have been read again\r\n")
    reader.expect_hang_up()
    assert boss.get("open.q") == b"b"


@pytest.mark.parametrize(
    "request_line",
    [
        b"monitor q",
        b"monitor",
        b"monitor q x",
        b"monitor q -1",
        b"monitor q 1 0",
        b"monitor q 1 2 3",
        b"monitor q/open 1",
        b"confirm q",
        b"confirm q x",
        b"confirm q -1",
        b"confirm q 1 2",
    ],
)
def test_a_request_that_is_none_says_what_it_should_be(client: Client, request_line: bytes) -> None:
    client.send(request_line + b"\r\n")
    line = client.line()
    assert line.startswith(b"ERROR ")
    assert b": " in line
    client.expect_hang_up()


@pytest.mark.parametrize("dialect", ["darner", "siberite", "kyototycoon"])
def test_other_dialects_do_not_have_it(shared_server: Shared, dialect: str) -> None:
    for request_line in (b"monitor q 1\r\n", b"confirm q 1\r\n"):
        client = shared_server("--dialect", dialect).client()
        client.send(request_line)
        assert client.line().lower().startswith(b"error unknown command")
        client.expect_hang_up()


def test_very_many_are_confirmed_in_slices(start_server: Shared, tmp_path: Path) -> None:
    (tmp_path / "many.toml").write_text("[default]\nmax_open_reads = 10000\n")
    server = start_server("--dialect", "kestrel", "-c", str(tmp_path / "many.toml"))
    client, watcher = server.client(), server.client()
    count = 2 * READS_AT_ONCE + 100
    client.send(b"".join(b"set q 0 0 4 noreply\r\n%04d\r\n" % number for number in range(count)))
    monitor(watcher, "q", f"60 {count}")
    assert items(watcher, count + 1) == [*(b"%04d" % number for number in range(count)), None]
    refused = b"ERROR not that many items of this queue are open on this connection\r\n"
    watcher.ask(b"confirm q %d\r\n" % (count + 1), refused)
    watcher.ask(b"confirm q %d\r\n" % (count - 100), b"END\r\n")
    assert open_reads(client, "q") == 100
    watcher.close()
    assert client.get("q/t=10000") == b"%04d" % (count - 100)
