"""Every statistic is true, after each thing that changes it and after a restart."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from darner_core import VERSION
from tests.server.test_connection import LARGE
from tests.server.test_server import FailingServer
from tests.support.harness import Client, RunningServer, wait_until
from tests.support.identities import login, write_users

Start = Callable[..., RunningServer]

SERVER_STATS = [
    "uptime",
    "time",
    "version",
    "pid",
    "curr_items",
    "total_items",
    "bytes",
    "reserved_memory_ratio",
    "curr_connections",
    "total_connections",
    "rejected_connections",
    "cmd_get",
    "cmd_set",
    "cmd_peek",
    "get_hits",
    "get_misses",
    "bytes_read",
    "bytes_written",
    "queue_creates",
    "queue_deletes",
    "queue_expires",
    "queues_damaged",
    "queues_awaited",
]
QUEUE_STATS = [
    "items",
    "bytes",
    "total_items",
    "logsize",
    "expired_items",
    "mem_items",
    "mem_bytes",
    "age",
    "discarded",
    "waiters",
    "open_transactions",
    "transactions",
    "canceled_transactions",
    "total_flushes",
    "create_time",
]


def test_the_names_are_darners_and_kestrels(server: RunningServer) -> None:
    client = server.client()
    client.set("q", b"x")
    assert list(client.stats()) == SERVER_STATS + [f"queue_q_{name}" for name in QUEUE_STATS]


def test_the_server_says_who_it_is(server: RunningServer) -> None:
    stats = server.client().stats()
    assert stats["version"] == VERSION
    assert stats["pid"] == str(server.process.pid) != str(os.getpid())
    assert abs(int(stats["time"]) - time.time()) < 5
    assert 0 <= int(stats["uptime"]) < 60


def test_items_and_bytes_follow_puts_and_gets(server: RunningServer) -> None:
    client, holder = server.client(), server.client()

    def figures(*names: str) -> list[int]:
        stats = client.stats()
        return [int(stats[name]) for name in names]

    names = ("curr_items", "bytes", "total_items", "queue_q_items", "queue_q_bytes", "queue_q_total_items")
    for body in (b"12345", b"", b"123", LARGE):
        client.set("q", body)
    client.set("r", b"1")
    large = len(LARGE)
    assert figures(*names) == [5, 9 + large, 5, 4, 8 + large, 4]
    assert client.get("q") == b"12345"
    assert figures(*names) == [4, 4 + large, 5, 3, 3 + large, 4]
    assert holder.get("q/open") == b""
    assert holder.get("q/close/open") == b"123"
    assert figures(*names, "queue_q_open_transactions") == [2, 1 + large, 5, 1, large, 4, 1]
    assert holder.get("q/abort") is None
    assert figures(*names, "queue_q_open_transactions") == [3, 4 + large, 5, 2, 3 + large, 4, 0]
    assert holder.get("q/close/open") == b"123"
    assert holder.get("q/close/open") == LARGE
    assert figures(*names, "queue_q_open_transactions") == [1, 1, 5, 0, 0, 4, 1]
    client.ask(b"delete q\r\n", b"DELETED\r\n")
    assert figures("curr_items", "bytes", "total_items", "queue_creates", "queue_deletes") == [1, 1, 5, 2, 1]


def test_commands_hits_and_misses_are_counted_when_they_are_answered(server: RunningServer) -> None:
    client = server.client()
    client.set("q", b"a")
    client.set("q", LARGE)
    client.get("q/peek")
    client.get("none/peek")
    client.get("q")
    client.get("q/open")
    client.get("q/close/open")
    client.get("none/t=10")
    stats = client.stats()
    assert [stats[name] for name in ("cmd_set", "cmd_peek", "cmd_get", "get_hits", "get_misses")] == [
        "2", "2", "4", "2", "2",
    ]  # fmt: skip


def test_connections_and_bytes_are_counted(server: RunningServer) -> None:
    client = server.client()
    others = [server.client() for _ in range(3)]
    for other in others:
        other.ask(b"get q\r\n", b"END\r\n")
    stats = client.stats()
    assert (stats["curr_connections"], stats["total_connections"]) == ("4", "4")
    read, written = int(stats["bytes_read"]), int(stats["bytes_written"])
    for other in others:
        other.close()
    wait_until(lambda: client.stats()["curr_connections"] == "1")
    assert client.stats()["total_connections"] == "4"
    before = client.stats()
    client.set("q", bytes(1000))
    after = client.stats()
    assert int(after["bytes_read"]) - int(before["bytes_read"]) == len(b"set q 0 0 1000\r\n\r\nstats\r\n") + 1000
    assert int(after["bytes_written"]) > int(before["bytes_written"]) > written
    assert read == len(b"get q\r\n") * 3 + len(b"stats\r\n")


def test_waiters_and_open_transactions_are_counted(server: RunningServer) -> None:
    client = server.client()
    client.set("q", b"x")
    client.get("q")
    waiting = [server.client() for _ in range(3)]
    for waiter in waiting:
        waiter.send(b"get q/t=9000/open\r\n")
    wait_until(lambda: client.stats()["queue_q_waiters"] == "3")
    client.set("q", b"x")
    stats = client.stats()
    assert (stats["queue_q_waiters"], stats["queue_q_open_transactions"], stats["queue_q_items"]) == ("2", "1", "0")
    waiting[1].close()
    wait_until(lambda: client.stats()["queue_q_waiters"] == "1")


def test_flushes_creation_and_age_are_told(server: RunningServer) -> None:
    client = server.client()
    client.set("q", b"x")
    created = int(client.stats()["queue_q_create_time"])
    assert abs(created - time.time()) < 5
    wait_until(lambda: int(client.stats()["queue_q_age"]) >= 50)
    client.ask(b"flush q\r\nflush q\r\n", b"END\r\nEND\r\n")
    stats = client.stats()
    assert (stats["queue_q_total_flushes"], stats["queue_q_age"]) == ("2", "0")
    client.set("q", b"y")
    assert int(client.stats()["queue_q_age"]) < 5000


def test_logsize_is_what_the_records_take_until_their_space_is_given_back(server: RunningServer) -> None:
    client = server.client()
    size = 0
    for count in (10, 1000):
        client.send(b"set q 0 0 1000 noreply\r\n%b\r\n" % bytes(1000) * count)
        client.set("q", b"")
        now = int(client.stats()["queue_q_logsize"])
        assert now - size >= count * 1000
        size = now
    while client.get("q") is not None:
        pass
    wait_until(lambda: int(client.stats()["queue_q_logsize"]) < 1000)


def test_items_and_bytes_are_right_after_a_stop_and_after_a_kill(server: RunningServer) -> None:
    client, holder = server.client(), server.client()
    for number in range(1000):
        client.set("q", b"x" * number)
    for _ in range(10):
        client.get("q")
    assert holder.get("q/open") == b"x" * 10
    assert holder.get("q/close/open") == b"x" * 11
    created = client.stats()["queue_q_create_time"]
    for end in (server.kill, server.stop):
        end()
        server.start()
        stats = server.client().stats()
        assert stats["queue_q_items"] == stats["curr_items"] == "989"
        assert stats["queue_q_bytes"] == stats["bytes"] == str(sum(range(11, 1000)))
        assert stats["queue_q_create_time"] == created
        assert stats["queue_q_total_items"] == "0"


def of_queue(client: Client, *names: str) -> list[int]:
    stats = client.stats()
    return [int(stats[f"queue_q_{name}"]) for name in names]


TRANSACTIONS = ("transactions", "canceled_transactions", "open_transactions")


def test_transactions_are_the_reads_that_clients_open(server: RunningServer) -> None:
    client, holder = server.client(), server.client()
    for body in (b"a", b"b", b"c", b"d", LARGE, b"e"):
        client.set("q", body)
    assert client.get("q/peek") == b"a"
    assert client.get("q") == b"a"
    assert of_queue(client, *TRANSACTIONS) == [0, 0, 0]
    assert holder.get("q/open") == b"b"
    assert of_queue(client, *TRANSACTIONS) == [1, 0, 1]
    assert holder.get("q/close/open") == b"c"
    assert holder.get("q/abort") is None
    assert of_queue(client, *TRANSACTIONS) == [2, 1, 0]
    assert holder.get("q/open") == b"c"
    holder.close()
    wait_until(lambda: of_queue(client, *TRANSACTIONS) == [3, 2, 0])
    assert [client.get("q"), client.get("q"), client.get("q")] == [b"c", b"d", LARGE]  # one was given back
    assert of_queue(client, *TRANSACTIONS) == [3, 2, 0]
    client.set("q", LARGE)
    assert [client.get("q"), client.get("q/open"), client.get("q/close")] == [b"e", LARGE, None]
    assert of_queue(client, *TRANSACTIONS) == [4, 2, 0]
    assert client.get("q/open") is None
    assert of_queue(client, *TRANSACTIONS) == [4, 2, 0]


def test_a_get_that_waits_is_a_transaction_only_if_it_opens(server: RunningServer) -> None:
    client, waits, opens = server.client(), server.client(), server.client()
    client.set("q", b"a")
    client.get("q")
    waits.send(b"get q/t=60000\r\n")
    wait_until(lambda: of_queue(client, "waiters") == [1])
    client.set("q", b"b")
    assert waits.item() == b"b"
    assert of_queue(client, *TRANSACTIONS) == [0, 0, 0]
    opens.send(b"get q/open/t=60000\r\n")
    wait_until(lambda: of_queue(client, "waiters") == [1])
    client.set("q", b"c")
    assert opens.item() == b"c"
    assert of_queue(client, *TRANSACTIONS) == [1, 0, 1]


def test_what_could_not_be_written_is_no_transaction(tmp_path: Path) -> None:
    failing = FailingServer(tmp_path)
    try:
        client, holder = failing.client(), failing.client()
        for body in (b"a", b"b"):
            client.set("q", body)
        assert holder.get("q/open") == b"a"
        failing.fails = True
        holder.send(b"get q/close/open\r\n")
        assert holder.line().startswith(b"SERVER_ERROR ")
        assert of_queue(client, *TRANSACTIONS) == [1, 0, 1]
        holder.send(b"get q/abort\r\nget q\r\n")
        for _ in range(2):
            assert holder.line().startswith(b"SERVER_ERROR ")
        assert of_queue(client, *TRANSACTIONS) == [1, 0, 1]
    finally:
        failing.end()


def test_mem_items_and_mem_bytes_are_what_is_read_ahead(start_server: Start) -> None:
    server = start_server("--window-bytes", "1 MiB")
    client = server.client()
    for body in (b"12345", b"", b"123", LARGE):
        client.set("q", body)
    assert of_queue(client, "mem_items", "mem_bytes") == [3, 8]  # a large item is never in memory
    assert client.get("q") == b"12345"
    assert of_queue(client, "mem_items", "mem_bytes") == [2, 3]
    client.ask(b"flush q\r\n", b"END\r\n")
    assert of_queue(client, "mem_items", "mem_bytes") == [0, 0]
    assert client.stats()["reserved_memory_ratio"] == "0.000"
    client.send(b"set q 0 0 1000 noreply\r\n%b\r\n" % bytes(1000) * 2000)
    client.set("q", b"")
    mem_items, mem_bytes = of_queue(client, "mem_items", "mem_bytes")
    assert 0 < mem_items < 2000
    assert mem_bytes == mem_items * 1000
    ratio = float(client.stats()["reserved_memory_ratio"])
    assert ratio == pytest.approx(mem_items * 1160 / (1 << 20), abs=0.01)
    server.kill()
    server.start()
    client = server.client()
    assert of_queue(client, "items", "mem_items", "mem_bytes") == [2001, 0, 0]
    assert client.stats()["reserved_memory_ratio"] == "0.000"
    assert client.get("q") == bytes(1000)
    mem_items, mem_bytes = of_queue(client, "mem_items", "mem_bytes")
    assert 0 < mem_items < 1000
    assert mem_bytes == mem_items * 1000


def test_children_and_aliases_are_told_as_far_as_a_user_may_see_their_names(
    start_server: Start, tmp_path: Path
) -> None:
    file = tmp_path / "darner.toml"
    users = write_users(tmp_path / "users", boss="pw", reader="pw")
    file.write_text(
        f'auth_file = "{users}"\ndialect = "kestrel"\n'
        '[users.boss]\nput = ["*"]\nget = ["*"]\nadmin = ["*"]\n[users.reader]\nget = ["mail"]\nput = ["all"]\n'
        '[queues."mail+a"]\n[queues."mail+b"]\n[queues.mail]\n'
        '[aliases]\nall = ["news", "mail"]\n'
    )
    server = start_server("-c", str(file))
    boss, reader = server.client(), server.client()
    for client, name in ((boss, "boss"), (reader, "reader")):
        client.ask(login(name, "pw"), b"STORED\r\n")
    boss.ask(b"set all 0 0 3\r\nabc\r\n", b"STORED\r\n")
    alias = ("all_put_items", "all_put_bytes", "all_children")
    assert [boss.stats().get(f"queue_{name}") for name in ("mail_children", *alias)] == [
        "mail+a,mail+b", "1", "3", "mail,news",
    ]  # fmt: skip
    seen = reader.stats()
    assert [seen.get(f"queue_{name}") for name in ("mail_items", "mail_children", *alias)] == [
        "1", None, "1", "3", "mail",
    ]  # fmt: skip
    reader.send(b"dump_stats\r\n")
    told = b"".join(iter(reader.line, b"END\r\n"))
    assert b"queue 'all' {\r\n  put_items=1\r\n  put_bytes=3\r\n  children=mail\r\n}\r\n" in told
    assert b"mail+" not in told
    assert b"news" not in told


KESTRELS = (
    *("items", "bytes", "total_items", "logsize", "expired_items", "mem_items", "mem_bytes", "age", "discarded"),
    *("waiters", "open_transactions", "transactions", "canceled_transactions", "total_flushes", "children"),
    *("put_items", "put_bytes"),
)


def test_no_figure_of_ours_is_taken_for_one_of_a_queue_with_a_longer_name(start_server: Start, tmp_path: Path) -> None:
    """Tools cut a figure's name at the last suffix that they know from Kestrel."""
    file = tmp_path / "darner.toml"
    file.write_text(
        'dialect = "kestrel"\n[queues.q]\nexpire_to_queue = "dead"\n'
        '[queues.dead]\n[queues."q+c"]\n[aliases]\na = ["q"]\n'
    )
    client = start_server("-c", str(file)).client()
    client.ask(b"set q/pri=1 0 0 1\r\na\r\n", b"STORED\r\n")
    names = [name for name in client.stats() if name.startswith("queue_q_")]
    suffixes = {name.removeprefix("queue_q_") for name in names}
    ours = suffixes - set(KESTRELS)
    assert {"expired_lost", "set_aside"} <= ours
    for suffix in ours:
        assert not [known for known in KESTRELS if suffix.endswith(f"_{known}")], suffix
        assert not [known for known in suffixes if known.endswith(f"_{suffix}")], suffix


def test_expired_items_that_their_queue_did_not_take_are_counted(start_server: Start, tmp_path: Path) -> None:
    file = tmp_path / "darner.toml"
    file.write_text('[queues.q]\nexpire_to_queue = "dead"\n[queues.dead]\nmax_items = 1\n')
    client = start_server("-c", str(file)).client()
    client.ask(b"set q 0 -1 1\r\na\r\nset q 0 -1 1\r\nb\r\nget q\r\n", b"STORED\r\nSTORED\r\nEND\r\n")
    assert of_queue(client, "expired_items", "expired_lost") == [2, 1]
    assert "queue_dead_expired_lost" not in client.stats()


def test_a_queue_behind_an_alias_is_told_of_in_the_log(start_server: Start, tmp_path: Path) -> None:
    server = start_server()
    server.client().set("all", b"x")
    server.stop()
    file = tmp_path / "darner.toml"
    file.write_text('[aliases]\nall = ["mail"]\n')
    server.options = ("-c", str(file))
    server.start()
    assert "WARNING queue all is out of reach: there is an alias of that name" in server.printed()
    assert server.client().get("all") is None
