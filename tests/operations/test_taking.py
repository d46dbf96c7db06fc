"""Taking items, as a client sees it, beyond the recorded conversations of tests/wire."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from darner_core.engines.jobs import JobOptions
from darner_core.errors import ServerError
from darner_core.operations.taking import Batch, give_back
from darner_core.protocols.memcache.dialects import DIALECTS
from darner_core.storage.storage import Storage
from tests.operations.test_session import House
from tests.server.test_connection import LARGE
from tests.support.harness import Client, RunningServer, wait_until
from tests.support.identities import login, write_users
from tests.support.operations_on import operations_on

Connect = Callable[[], Client]


def test_gets_answers_with_the_items_id_as_its_cas_unique(connect: Connect) -> None:
    client = connect()
    client.set("q", b"a", flags=5)
    client.set("q", b"b")
    client.ask(b"gets q\r\n", b"VALUE q 5 1 1\r\na\r\nEND\r\n")
    client.ask(b"gets q/peek\r\n", b"VALUE q 0 1 2\r\nb\r\nEND\r\n")
    client.ask(b"gets q/open\r\n", b"VALUE q 0 1 2\r\nb\r\nEND\r\n")
    client.ask(b"gets q/close/open\r\n", b"END\r\n")


def test_options_come_in_any_order_and_any_case(connect: Connect) -> None:
    client = connect()
    for body in (b"a", b"b", b"c", b"d"):
        client.set("q", body)
    assert client.get("q/t=10/open") == b"a"
    assert client.get("q/open/t=10/close") == b"b"
    assert client.get("q/OPEN/Close/T=10") == b"c"
    assert client.get("q/close/t=10") is None
    assert client.get("q/peek/t=10") == b"d"
    assert client.get("q/t=10/peek/close") is None
    assert client.get("q") == b"d"


def test_a_peek_makes_no_fanout_child(shared_server: Callable[..., RunningServer], queue: str) -> None:
    client = shared_server("--dialect", "kestrel").client()
    for options in ("peek", "peek/t=1"):
        assert client.get(f"{queue}+c/{options}") is None
    client.set(queue, b"x")
    assert not any(name.startswith(f"queue_{queue}+c") for name in client.stats())


@pytest.mark.parametrize("key", ["q/t=10000", "q/open/t=10000"])
def test_a_peek_that_comes_too_late_for_an_item_waits_for_the_next(connect: Connect, key: str) -> None:
    peeking, other, taking, putting = (connect() for _ in range(4))
    for client, request in ((peeking, "q/peek/t=10000"), (other, "q/peek/t=400"), (taking, key)):
        client.send(b"get %b\r\n" % request.encode())
        client.expect_nothing()
    putting.set("q", b"a")
    assert taking.item() == b"a"
    assert other.item() is None
    peeking.expect_nothing()
    putting.set("q", b"b")
    assert peeking.item() == b"b"
    assert putting.get("q") == b"b"


@pytest.mark.parametrize("options", ["open/peek", "abort/open", "abort/close", "abort/close/open", "peek/open/t=5"])
def test_options_that_exclude_each_other_are_refused(connect: Connect, options: str) -> None:
    client = connect()
    client.send(b"get q/%b\r\n" % options.encode())
    assert client.line().startswith(b"CLIENT_ERROR cannot ")
    client.expect_hang_up()


def test_close_and_abort_act_on_the_open_read_whichever_queue_is_named(connect: Connect) -> None:
    client = connect()
    client.set("q", b"a")
    assert client.get("q/open") == b"a"
    assert client.get("other/abort") is None
    assert client.get("q/open") == b"a"
    assert client.get("other/close") is None
    assert client.get("q") is None


def test_every_kind_of_get_is_refused_while_a_read_is_open(connect: Connect) -> None:
    for request in (b"get q", b"gets q", b"get q/open", b"get q/peek", b"get q/t=100", b"get other"):
        client = connect()
        client.set("q", b"a")
        assert client.get("q/open") == b"a"
        client.send(request + b"\r\n")
        assert client.line().startswith(b"CLIENT_ERROR close current read first")
        client.expect_hang_up()
        assert connect().get("q/t=1000") == b"a"


def test_replies_can_name_the_key_that_was_asked_for(start_server: Callable[..., RunningServer]) -> None:
    client = start_server("--reply-key", "request").client()
    client.set("q", b"a")
    client.set("q", bytes(100_000))
    client.ask(b"get q/t=10/open\r\n", b"VALUE q/t=10/open 0 1\r\na\r\nEND\r\n")
    client.ask(
        b"get q/abort\r\nget q/peek\r\nget q\r\n", b"END\r\nVALUE q/peek 0 1\r\na\r\nEND\r\nVALUE q 0 1\r\na\r\nEND\r\n"
    )
    client.send(b"get q/open\r\n")
    assert client.line() == b"VALUE q/open 0 100000\r\n"


def test_a_listener_can_name_the_key_that_was_asked_for_where_others_do_not(
    start_server: Callable[..., RunningServer], tmp_path: Path
) -> None:
    file = tmp_path / "darner.toml"
    file.write_text('[[listener]]\nport = 0\nreply_key = "request"\n')
    server = start_server("-c", str(file))
    plain, own = map(int, re.findall(r"listening on: 127.0.0.1 port (\d+)", server.printed()))
    plain_client, own_client = server.adopt(Client(plain)), server.adopt(Client(own))
    plain_client.set("q", b"a")
    plain_client.set("q", b"b")
    plain_client.ask(b"get q/t=10\r\n", b"VALUE q 0 1\r\na\r\nEND\r\n")
    own_client.ask(b"get q/t=10\r\n", b"VALUE q/t=10 0 1\r\nb\r\nEND\r\n")


# -- several open reads: the kestrel dialect


Shared = Callable[..., RunningServer]


@pytest.fixture
def kestrel(shared_server: Shared) -> Connect:
    """Connect clients to a server that these tests share: each has a queue of its own."""
    return shared_server("--dialect", "kestrel").client


def fill(client: Client, queue: str, *bodies: bytes) -> None:
    for body in bodies:
        client.set(queue, body)


def open_reads(client: Client, queue: str) -> int:
    return int(client.stats()[f"queue_{queue}_open_transactions"])


def test_kestrel_every_get_is_served_while_reads_are_open(kestrel: Connect, queue: str) -> None:
    client = kestrel()
    fill(client, queue, b"a", b"b", b"c", b"d", b"e")
    assert [client.get(f"{queue}/open"), client.get(f"{queue}/open")] == [b"a", b"b"]
    assert [client.get(f"{queue}/peek"), client.get(queue), client.get(f"{queue}/t=10")] == [b"c", b"c", b"d"]
    assert client.get(f"{queue}other") is None
    assert client.get(f"{queue}/close/open") == b"e"
    assert open_reads(client, queue) == 2
    client.reset()
    other = kestrel()
    assert [other.get(f"{queue}/t=10000"), other.get(f"{queue}/t=10000")] == [b"b", b"e"]


def test_kestrel_close_and_abort_act_on_the_oldest_read_of_the_queue(kestrel: Connect, queue: str) -> None:
    client, other = kestrel(), kestrel()
    fill(client, queue, b"a", b"b", b"c")
    assert [client.get(f"{queue}/open") for _ in range(3)] == [b"a", b"b", b"c"]
    assert [client.get("other/close"), client.get("other/abort")] == [None, None]
    assert client.get(f"{queue}/close") is None
    assert client.get(f"{queue}/abort") is None
    assert [other.get(queue), other.get(queue)] == [b"b", None]
    assert open_reads(other, queue) == 1


def test_kestrel_one_read_more_than_may_be_open_is_refused_and_gives_all_back(kestrel: Connect, queue: str) -> None:
    client = kestrel()
    bodies = [b"%d" % number for number in range(101)]
    fill(client, queue, *bodies)
    assert [client.get(f"{queue}/open") for _ in range(100)] == bodies[:100]
    assert client.get(f"{queue}/peek") == b"100"
    client.set(f"{queue}b", b"x")
    assert client.get(f"{queue}b/open") == b"x"
    client.send(b"get %b/open\r\n" % queue.encode())
    assert client.line().startswith(b"CLIENT_ERROR close a read first: 100 items of queue " + queue.encode())
    client.expect_hang_up()
    other = kestrel()
    assert [other.get(queue) for _ in range(102)] == [*bodies, None]
    assert other.get(f"{queue}b") == b"x"


def test_kestrel_who_waits_while_it_holds_items_does_not_get_them_itself(kestrel: Connect, queue: str) -> None:
    client, other = kestrel(), kestrel()
    fill(client, queue, b"a", b"b")
    assert [client.get(f"{queue}/open"), client.get(f"{queue}/open")] == [b"a", b"b"]
    client.send(b"get %b/open/t=60000\r\n" % queue.encode())
    wait_until(lambda: other.stats()[f"queue_{queue}_waiters"] == "1")
    other.send(b"get %b/t=60000\r\n" % queue.encode())
    client.reset()
    assert other.item() == b"a"
    assert [other.get(queue), other.get(queue)] == [b"b", None]


@pytest.mark.parametrize("options", ["close/peek", "peek/abort", "open/peek", "open/abort", "abort/close/open"])
def test_kestrel_options_that_exclude_each_other(kestrel: Connect, options: str) -> None:
    client = kestrel()
    client.send(b"get q/%b\r\n" % options.encode())
    assert client.line().startswith(b"CLIENT_ERROR cannot ")
    client.expect_hang_up()


# -- the kyototycoon dialect: every get waits and opens


@pytest.fixture
def kyoto(shared_server: Shared) -> Connect:
    return shared_server("--dialect", "kyototycoon", "--get-timeout-ms", "60000").client


def acknowledge(client: Client, queue: str, reply: bytes = b"DELETED\r\n") -> None:
    client.ask(b"delete %b\r\n" % queue.encode(), reply)


def test_kyoto_a_get_opens_and_a_delete_acknowledges_the_oldest(kyoto: Connect, queue: str) -> None:
    client = kyoto()
    client.set(queue, b"a", flags=7)
    fill(client, queue, b"b", b"c")
    client.ask(b"get %b\r\n" % queue.encode(), b"VALUE %b 7 1\r\na\r\nEND\r\n" % queue.encode())
    assert client.get(queue) == b"b"
    acknowledge(client, queue)
    client.ask(b"delete %b noreply\r\ndelete %b\r\n" % (queue.encode(), queue.encode()), b"NOT_FOUND\r\n")
    acknowledge(client, "other", b"NOT_FOUND\r\n")
    assert client.get(queue) == b"c"
    client.reset()
    assert kyoto().get(queue) == b"c"


def test_kyoto_a_get_waits_without_being_asked_to(kyoto: Connect, queue: str) -> None:
    consumer, producer = kyoto(), kyoto()
    consumer.send(b"get %b\r\n" % queue.encode())
    consumer.expect_nothing()
    producer.set(queue, b"a")
    assert consumer.item() == b"a"
    assert open_reads(producer, queue) == 1


def test_kyoto_a_get_can_say_for_how_long_it_waits(kyoto: Connect, queue: str) -> None:
    client = kyoto()
    for key in ("{}/t=0", "{}/t=10", "{}/t=10 {}b/t=0", "{}/t=0 {}b", "{}/open", "{}/peek", "{}/close", "{}/abort"):
        client.send(f"get {key}\r\n".format(queue, queue).encode())
        assert client.item() is None


def test_kyoto_how_long_a_get_waits_is_an_option(shared_server: Shared, queue: str) -> None:
    client = shared_server("--dialect", "kyototycoon", "--get-timeout-ms", "0").client()
    assert client.get(queue) is None
    client.ask(b"get %b x y\r\n" % queue.encode(), b"END\r\n")


def test_kyoto_a_lost_connection_gives_all_back_in_order(kyoto: Connect, queue: str) -> None:
    client, other = kyoto(), kyoto()
    fill(client, queue, b"a", b"b", b"c", b"d")
    fill(client, f"{queue}2", b"x", b"y")
    assert [client.get(queue) for _ in range(3)] == [b"a", b"b", b"c"]
    assert client.get(f"{queue}2") == b"x"
    acknowledge(client, queue)
    client.send(b"get %bempty\r\n" % queue.encode())
    client.reset()
    wait_until(lambda: open_reads(other, queue) == 0)
    assert [other.get(queue) for _ in range(3)] == [b"b", b"c", b"d"]
    assert [other.get(f"{queue}2") for _ in range(2)] == [b"x", b"y"]


def test_kyoto_a_get_of_several_queues_takes_from_the_first_that_has_something(kyoto: Connect, queue: str) -> None:
    client = kyoto()
    a, b, c = (f"{queue}{letter}".encode() for letter in "abc")
    client.set(c.decode(), b"1", flags=9)
    client.ask(b"get %b %b %b\r\n" % (a, b, c), b"VALUE %b 9 1\r\n1\r\nEND\r\n" % c)
    client.set(b.decode(), b"2")
    client.set(c.decode(), b"3")
    client.ask(b"get %b %b %b\r\n" % (a, b, c), b"VALUE %b 0 1\r\n2\r\nEND\r\n" % b)
    client.ask(b"gets %b %b\r\n" % (b, c), b"VALUE %b 0 1 2\r\n3\r\nEND\r\n" % c)
    acknowledge(client, b.decode())
    assert open_reads(client, c.decode()) == 2
    client.set(a.decode(), LARGE)
    client.send(b"get %b %b\r\n" % (b, a))
    assert client.item() == LARGE


def test_kyoto_who_waits_at_several_queues_gets_one_item_and_leaves_all_lines(kyoto: Connect, queue: str) -> None:
    consumer, other, producer = kyoto(), kyoto(), kyoto()
    a, b = f"{queue}a", f"{queue}b"
    for name in (a, b):  # so that there are figures of them
        producer.set(name, b"")
        assert producer.get(name) == b""
        acknowledge(producer, name)

    def waiting() -> list[str]:
        stats = producer.stats()
        return [stats[f"queue_{name}_waiters"] for name in (a, b)]

    consumer.send(f"get {a} {b}\r\n".encode())
    wait_until(lambda: waiting() == ["1", "1"])
    other.send(f"get {a}\r\n".encode())
    wait_until(lambda: waiting() == ["2", "1"])
    producer.send(f"set {b} 0 0 1\r\n1\r\nset {a} 0 0 1\r\n2\r\nset {b} 0 0 1\r\n3\r\n".encode())  # in one turn
    producer.expect(b"STORED\r\n" * 3)
    assert [consumer.item(), other.item()] == [b"1", b"2"]
    assert waiting() == ["0", "0"]
    assert producer.get(b) == b"3"
    consumer.send(f"get {a} {b}\r\n".encode())
    wait_until(lambda: waiting() == ["1", "1"])
    consumer.reset()
    wait_until(lambda: waiting() == ["0", "0"])
    assert producer.get(f"{b}/t=10000") == b"1"  # which it held


@pytest.mark.parametrize("then", [b"", b"set q 0 0 1\r\ny\r\n"], ids=["nothing", "put again"])
@pytest.mark.parametrize("options", [b"t=60000", b"open/t=60000"])
def test_who_was_handed_an_item_whose_queue_was_deleted_in_that_moment_waits_on(
    connect: Connect, then: bytes, options: bytes
) -> None:
    consumer, admin = connect(), connect()
    admin.set("q", b"")
    assert admin.get("q") == b""
    consumer.send(b"get q/%b\r\n" % options)
    wait_until(lambda: admin.stats()["queue_q_waiters"] == "1")
    admin.send(b"set q 0 0 1\r\nx\r\ndelete q\r\n" + then)  # in one turn
    if not then:
        consumer.expect_nothing()
        admin.ask(b"set q 0 0 1\r\ny\r\n", b"STORED\r\nDELETED\r\nSTORED\r\n")
    assert consumer.item() == b"y"


@pytest.mark.parametrize(
    ("request_line", "error"),
    [
        (b"get", b"ERROR a get is: get <queue>"),
        (b"get " + b" ".join(b"q%d" % number for number in range(65)), b"ERROR a get is: get <queue>"),
        (b"get a b/open", b"CLIENT_ERROR a get of several queues"),
        (b"get a/peek b", b"CLIENT_ERROR a get of several queues"),
        (b"get a a/close", b"CLIENT_ERROR a get of several queues"),
        (b"get a/open a", b"CLIENT_ERROR a get of several queues"),
        (b"get a b/x", b'ERROR unknown option "/x"'),
        (b"get a //", b'ERROR bad queue name ""'),
        (b"get a/t=x b", b'ERROR bad timeout "x"'),
    ],
)
def test_kyoto_a_get_that_is_none(kyoto: Connect, request_line: bytes, error: bytes) -> None:
    client = kyoto()
    client.send(request_line + b"\r\n")
    assert client.line().startswith(error)
    client.expect_hang_up()


def test_kyoto_the_most_queues_in_a_get(kyoto: Connect, queue: str) -> None:
    client = kyoto()
    client.set(f"{queue}63", b"x")
    names = [f"{queue}{number}" for number in range(64)]
    client.send(f"get {' '.join(names)}\r\n".encode())
    assert client.item() == b"x"
    client.send(f"get {' '.join(names)} {names[0]}\r\n".encode())
    assert client.line().startswith(b"ERROR ")


def test_kyoto_every_queue_of_a_get_has_to_be_allowed(start_server: Shared, tmp_path: Path) -> None:
    file = tmp_path / "darner.toml"
    users = write_users(tmp_path / "users", reader="pw")
    file.write_text(f'dialect = "kyototycoon"\nauth_file = "{users}"\n[users.reader]\nput = ["*"]\nget = ["mail*"]\n')
    server = start_server("-c", str(file))

    def connect() -> Client:
        client = server.client()
        client.ask(login("reader", "pw"), b"STORED\r\n")
        return client

    client = connect()
    client.set("mail2", b"a")
    client.send(b"get mail mail2\r\n")
    assert client.item() == b"a"
    acknowledge(client, "mail2")
    for request_line in (b"get mail secret mail2\r\n", b"delete secret\r\n"):
        client = connect()
        client.ask(request_line, b"CLIENT_ERROR user reader may not get from queue secret\r\n")
        client.expect_hang_up()


# -- the key in a reply


def perl_get(client: Client, *keys: str) -> bytes | None:
    """As Cache::Memcached and others do: a reply that names no key of the request is none."""
    client.send(f"get {' '.join(keys)}\r\n".encode())
    line = client.line()
    if line == b"END\r\n":
        return None
    _, key, _, size = line.split()
    body = client.read(int(size))
    client.expect(b"\r\nEND\r\n")
    return body if key.decode() in keys else None


@pytest.mark.parametrize("dialect", DIALECTS)
def test_clients_that_compare_keys_can_use_options_in_every_dialect(
    shared_server: Shared, dialect: str, queue: str
) -> None:
    client = shared_server("--dialect", dialect, "--reply-key", "request").client()
    for body in (b"a", LARGE, b"b"):
        client.set(queue, body)
        assert perl_get(client, f"{queue}/peek") == body
        assert perl_get(client, f"{queue}/open/t=100") == body
        assert perl_get(client, f"{queue}/abort") is None
        assert perl_get(client, f"{queue}/t=100") == body
        if dialect == "kyototycoon":
            acknowledge(client, queue)
            client.set(queue, body)
            assert perl_get(client, f"{queue}2/t=50", f"{queue}/t=100") == body
            acknowledge(client, queue)
        if dialect == "kestrel":
            child = f"{queue}b+child"
            client.set(child, body)
            assert perl_get(client, f"{child}/open") == body
            assert perl_get(client, f"{child}/close") is None
        assert perl_get(client, f"{queue}/t=1") is None


def test_kestrel_a_monitor_names_the_queue_whatever_key_replies_have(shared_server: Shared, queue: str) -> None:
    client = shared_server("--dialect", "kestrel", "--reply-key", "request").client()
    client.set(queue, b"a")
    name = queue.encode()
    client.ask(b"monitor %b 5 1\r\n" % name, b"VALUE %b 0 1\r\na\r\nEND\r\nEND\r\n" % name)


# -- expired items at the head, more than one turn removes; fanout children; aliases


def put_expired(client: Client, queue: str, count: int) -> None:
    one = b"set %b 0 -1 1 noreply\r\nx\r\n" % queue.encode()
    client.send(one * count)
    client.set(queue, b"live")


@pytest.mark.parametrize("request_line", ["get {0}", "get {0}none {0}", "get {0}/peek"])
def test_many_expired_items_make_way_for_one_that_lives(shared_server: Shared, queue: str, request_line: str) -> None:
    client = shared_server("--dialect", "kyototycoon", "--expiration-timer-s", "0").client()
    one = b"set %b 0 1 1 noreply\r\nx\r\n" % queue.encode()
    client.send(one * 3000)
    client.set(queue, b"live")
    time.sleep(1.1)
    client.send(request_line.format(queue).encode() + b"\r\n")
    assert client.item() == b"live"


def test_kestrel_a_monitor_passes_over_expired_items_and_makes_a_child(shared_server: Shared, queue: str) -> None:
    server = shared_server("--dialect", "kestrel", "--expiration-timer-s", "0")
    client, watcher = server.client(), server.client()
    put_expired(client, queue, 3000)
    watcher.send(f"monitor {queue} 60 1\r\nmonitor {queue}+child 60\r\n".encode())
    assert [watcher.item(), watcher.item()] == [b"live", None]
    wait_until(lambda: f"queue_{queue}+child_waiters" in client.stats())
    client.set(queue, b"both")
    assert watcher.item() == b"both"
    assert client.get(queue) == b"both"
    assert open_reads(client, f"{queue}+child") == 1


def test_nobody_waits_at_an_alias(start_server: Shared, tmp_path: Path) -> None:
    file = tmp_path / "darner.toml"
    file.write_text('[aliases]\nboth = ["a", "b"]\n')
    server = start_server("-c", str(file), "--dialect", "kestrel")
    client = server.client()
    client.ask(b"monitor both 60\r\nget both/t=60000\r\nget both/peek/t=60000\r\n", b"END\r\n" * 3)
    client.set("both", b"x")
    assert [client.get("a"), client.get("b")] == [b"x", b"x"]
    client = start_server("-c", str(file), "--dialect", "kyototycoon").client()
    client.ask(b"get both\r\n", b"END\r\n")
    client.ask(b"get both both2/t=0\r\n", b"END\r\n")


# -- several items for one reply: up to so many items or bytes, or one large item alone


@pytest.fixture
def house(open_storage: Callable[[], Storage]) -> House:
    return House(open_storage)


def take(house: House, most_bytes: int, most_items: int) -> Batch:
    batch = Batch(operations_on(house).taking, most_items, most_bytes, 16_382_976)
    batch.fill(b"q", 0)
    return batch


def test_as_much_as_there_is_and_no_more_than_fits(house: House) -> None:
    assert not take(house, 100, 5).reads  # there is no queue
    house.put(*[b"x" * 10] * 8)
    some = take(house, 100, 5)
    assert (len(some.reads), some.full) == (5, True)
    rest = take(house, 100, 5)
    assert (len(rest.reads), rest.full) == (3, False)
    house.put(*[b"x" * 30] * 8)
    few = take(house, 100, 50)
    assert (len(few.reads), few.full) == (3, True)
    assert house.registry.queues[b"q"].waiting_items == 5


def test_the_first_fits_whatever_its_size(house: House) -> None:
    house.put(b"x" * 1000, b"y")
    batch = take(house, 100, 5)
    assert ([read.body_bytes for read in batch.reads], batch.full) == ([1000], True)


def test_what_no_frame_can_hold_is_refused_and_stays(house: House) -> None:
    house.put(bytes(16_384_000))
    with pytest.raises(ServerError, match="the item at the head has 16384000 bytes"):
        take(house, 100, 5)
    assert house.registry.queues[b"q"].waiting_items == 1


def test_given_back_items_go_to_who_waits_in_their_order(house: House) -> None:
    house.put(b"a", b"b")
    queue = house.registry.queues[b"q"]
    reads = [queue.open(), queue.open()]
    waiter = house.registry.join_line(b"q", b"", peeks=False)
    give_back([read for read in reversed(reads) if read is not None])
    assert queue.item_of(waiter.got)[0] == b"a"


def test_a_batch_goes_on_in_the_line_when_its_first_item_lay_aside(house: House) -> None:
    house.put(b"line")
    for body, pri in ((b"first", 5), (b"last", 2000)):
        house.engine.jobs.put((b"q",), body, 0, 0, JobOptions(pri=pri))
    batch = take(house, 100, 3)
    assert [read.queue.item_of(read)[0] for read in batch.reads] == [b"first", b"line", b"last"]
