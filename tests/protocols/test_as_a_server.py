"""What holds for the clients of every protocol, in the words of beanstalkd's and of RESP: sockets, TLS, limits,
timeouts, the status, `watch` and what is counted.
"""

import json
import re
import signal
from binascii import a2b_base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import Client, RunningServer, wait_until
from tests.support.identities import Authority, TlsClient, UnixClient, write_users
from tests.support.resp_clients import RespClient

BIG = 300_000  # more than a chunk


@dataclass(frozen=True)
class Door:
    """What a client says, and hears, of the queue `default`, in a server that is new."""

    dialect: str
    put: bytes
    put_reply: bytes
    peek: bytes
    peeked: bytes
    take: bytes
    taken: bytes
    nothing: bytes
    wait: bytes
    waited: bytes
    too_many: bytes
    read_only: bytes  # the answer to a put
    quiescent: bytes  # the answer to a take
    half: bytes  # the beginning of `put`
    stalled: bytes  # what is said when the rest of that does not come
    begin_big: bytes  # of a put of BIG bytes
    end_big: bytes

    def __str__(self) -> str:
        return self.dialect


DOORS = [
    Door(
        "beanstalkd",
        put=b"put 0 0 100 5\r\nhello\r\n",
        put_reply=b"INSERTED 1\r\n",
        peek=b"peek-ready\r\n",
        peeked=b"FOUND 1 5\r\nhello\r\n",
        take=b"reserve-with-timeout 0\r\n",
        taken=b"RESERVED 1 5\r\nhello\r\n",
        nothing=b"TIMED_OUT\r\n",
        wait=b"reserve\r\n",
        waited=b"RESERVED 1 5\r\nhello\r\n",
        too_many=b"INTERNAL_ERROR\r\n",
        read_only=b"DRAINING\r\n",
        quiescent=b"INTERNAL_ERROR\r\n",
        half=b"put 0 0 100 5\r\nhel",
        stalled=b"BAD_FORMAT\r\n",
        begin_big=b"put 0 0 100 %d\r\n" % BIG,
        end_big=b"\r\n",
    ),
    Door(
        "resp",
        put=b"*3\r\n$5\r\nLPUSH\r\n$7\r\ndefault\r\n$5\r\nhello\r\n",
        put_reply=b":1\r\n",
        peek=b"LINDEX default 0\r\n",
        peeked=b"$5\r\nhello\r\n",
        take=b"RPOP default\r\n",
        taken=b"$5\r\nhello\r\n",
        nothing=b"$-1\r\n",
        wait=b"BRPOP default 0\r\n",
        waited=b"*2\r\n$7\r\ndefault\r\n$5\r\nhello\r\n",
        too_many=b"-ERR max number of clients reached\r\n",
        read_only=b"-READONLY lpush is refused: the server is READONLY\r\n",
        quiescent=b"-READONLY rpop is refused: the server is QUIESCENT\r\n",
        half=b"*3\r\n$5\r\nLPUSH\r\n$7\r\ndefault\r\n$5\r\nhel",
        stalled=b"-ERR the rest of the request did not come for 1 s\r\n",
        begin_big=b"*3\r\n$5\r\nLPUSH\r\n$7\r\ndefault\r\n$%d\r\n" % BIG,
        end_big=b"\r\n",
    ),
]

each_door = pytest.mark.parametrize("door", DOORS, ids=str)


class Serving(RunningServer):
    """Memcache clients come by `port`, those of `dialect` by `door_port`, and by a Unix socket if there is a `path`."""

    def __init__(self, data: Path, dialect: str, *options: str, tables: str = "", path: Path | None = None) -> None:
        self.file = data.parent / f"{data.name}.toml"
        listeners = f'[[listener]]\ndialect = "{dialect}"\nport = 0\n'
        if path is not None:
            listeners += f'[[listener]]\ndialect = "{dialect}"\naddress = "unix:{path}"\n'
        self.file.write_text(f"max_job_bytes = 1_000_000\n{tables}{listeners}")
        super().__init__(data, "-c", str(self.file), *options)

    @property
    def door_port(self) -> int:
        return [int(port) for port in re.findall(r"listening on: \S+ port (\d+)", self.printed())][1]

    def guest(self) -> Client:
        return self.adopt(Client(self.door_port))


@pytest.fixture
def serve(tmp_path: Path) -> Any:
    servers: list[Serving] = []

    def serve(door: Door, *options: str, tables: str = "", path: Path | None = None) -> Serving:
        servers.append(Serving(tmp_path / f"data{len(servers)}", door.dialect, *options, tables=tables, path=path))
        return servers[-1]

    yield serve
    for server in servers:
        server.end()


Serve = Callable[..., Serving]


# -- sockets


@each_door
def test_a_unix_socket_serves_the_same_queues(serve: Serve, door: Door, tmp_path: Path) -> None:
    path = tmp_path / "door"
    server = serve(door, path=path)
    assert f"listening on: unix:{path}, {door.dialect}\n" in server.printed()
    near, far = server.adopt(UnixClient(path)), server.guest()
    near.ask(door.put, door.put_reply)
    far.ask(door.take, door.taken)
    near.ask(door.take, door.nothing)


@each_door
def test_everything_works_over_tls(serve: Serve, door: Door, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = serve(door, *authority.options())
    assert f"port {server.door_port}, TLS, {door.dialect}\n" in server.printed()
    client, waiting = (server.adopt(TlsClient(server.door_port, authority.context())) for _ in range(2))
    waiting.send(door.wait)
    waiting.expect_nothing()
    client.ask(door.put, door.put_reply)
    waiting.expect(door.waited)
    client.send(door.begin_big + bytes(BIG) + door.end_big)
    assert client.line() in (b"INSERTED 2\r\n", b":1\r\n")
    client.send(door.take)
    assert client.line() in (b"RESERVED 2 %d\r\n" % BIG, b"$%d\r\n" % BIG)
    client.expect(bytes(BIG) + b"\r\n")
    plain = server.guest()
    plain.send(door.put)
    plain.expect_hang_up()


@each_door
def test_a_certificate_says_who_a_client_is(serve: Serve, door: Door, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    users = write_users(tmp_path / "users", sender="*", worker="*")
    tables = '[users.sender]\nput = ["default"]\n[users.worker]\nget = ["default"]\n'
    options = (*authority.options(), "--tls-ca", str(authority.file), "--auth-file", str(users))
    server = serve(door, *options, tables=tables)
    sender, worker = (
        server.adopt(TlsClient(server.door_port, authority.context(name))) for name in ("sender", "worker")
    )
    sender.ask(door.put, door.put_reply)
    for client, request in ((sender, door.take), (worker, door.put)):
        client.send(request)
        assert client.line().startswith((b"UNKNOWN_COMMAND", b"-NOPERM "))
    worker.ask(door.take, door.taken)
    stranger = server.adopt(TlsClient(server.door_port, authority.context("nobody")))
    stranger.send(door.put)
    assert stranger.line() in (b"UNKNOWN_COMMAND\r\n", b"-NOAUTH Authentication required.\r\n")


@each_door
def test_who_has_lost_a_right_while_it_waited_gets_nothing_and_loses_nothing(
    serve: Serve, door: Door, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    users = write_users(tmp_path / "users", sender="*", worker="*", other="*")
    rights = '[users.sender]\nput = ["default"]\n[users.worker]\nget = ["default"]\n[users.other]\nget = ["default"]\n'
    options = (*authority.options(), "--tls-ca", str(authority.file), "--auth-file", str(users))
    server = serve(door, *options, tables=rights)
    sender, worker, other = (
        server.adopt(TlsClient(server.door_port, authority.context(name))) for name in ("sender", "worker", "other")
    )
    worker.send(door.wait)
    worker.expect_nothing()
    server.file.write_text(server.file.read_text().replace('worker]\nget = ["default"]', "worker]"))
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "reloaded: users" in server.printed())
    sender.ask(door.put, door.put_reply)
    assert worker.line().startswith((b"UNKNOWN_COMMAND", b"-NOPERM "))
    other.ask(door.take, door.taken)


# -- limits and timeouts


@each_door
def test_one_connection_too_many_is_told_so_and_the_others_go_on(serve: Serve, door: Door) -> None:
    server = serve(door, "--max-connections", "2")
    inside, memcache = server.guest(), server.client()
    inside.ask(door.put, door.put_reply)
    assert memcache.stats()["curr_connections"] == "2"
    one_more = server.guest()
    one_more.send(door.put)
    one_more.expect(door.too_many)
    one_more.expect_hang_up()
    inside.ask(door.take, door.taken)
    inside.ask(door.take, door.nothing)
    assert memcache.stats()["rejected_connections"] == "1"


@each_door
def test_who_comes_when_there_are_many_may_put_no_more(serve: Serve, door: Door) -> None:
    server = serve(door, "--connection-limit-refuse-writes", "1")
    first, second = server.guest(), server.guest()
    first.ask(door.put, door.put_reply)
    second.send(door.put)
    assert second.line().startswith((b"INTERNAL_ERROR", b"-"))
    third = server.guest()
    third.ask(door.take, door.taken)


@each_door
def test_who_says_nothing_or_stops_half_way_is_hung_up_on_but_not_who_waits(serve: Serve, door: Door) -> None:
    server = serve(door, "--idle-timeout-s", "1", "--body-timeout-s", "1")
    idle, waiting, stalled, large = (server.guest() for _ in range(4))
    waiting.send(door.wait)
    stalled.send(door.half)
    large.send(door.begin_big + bytes(1000))
    idle.expect_hang_up()
    for client in (stalled, large):
        client.expect(door.stalled)
        client.expect_hang_up()
    server.guest().ask(door.put, door.put_reply)
    waiting.expect(door.waited)


@pytest.mark.long
@each_door
def test_who_is_silent_is_hung_up_on_whatever_it_holds(serve: Serve, door: Door) -> None:
    server = serve(door, "--client-timeout-s", "1")
    silent = server.guest()
    silent.ask(door.put, door.put_reply)
    if door.dialect == "beanstalkd":
        silent.ask(door.take, door.taken)
    silent.expect_hang_up()
    server.guest().ask(door.take, door.taken)


# -- the status


@each_door
def test_the_status_is_obeyed(serve: Serve, door: Door) -> None:
    server = serve(door, "--status-change-grace-period-s", "0")
    client, waiting, memcache = server.guest(), server.guest(), server.client()
    client.ask(door.put, door.put_reply)
    memcache.ask(b"status readonly\r\n", b"END\r\n")
    client.ask(door.put, door.read_only)
    client.ask(door.take, door.taken)
    waiting.send(door.wait)
    waiting.expect_nothing()
    memcache.ask(b"status quiescent\r\n", b"END\r\n")
    assert waiting.line() in (b"TIMED_OUT\r\n", b"*-1\r\n")
    client.ask(door.take, door.quiescent)
    memcache.ask(b"status up\r\n", b"END\r\n")
    client.ask(door.take, door.nothing)


@each_door
def test_what_comes_in_part_while_the_status_changes(serve: Serve, door: Door) -> None:
    """Where a large item is stored as it comes, it may still be finished. A RESP request is none until it is whole."""
    server = serve(door, "--status-change-grace-period-s", "0")
    small, large, memcache = server.guest(), server.guest(), server.client()
    small.send(door.half)
    large.send(door.begin_big + bytes(BIG - 10))
    wait_until(lambda: int(memcache.stats()["bytes_read"]) > BIG)
    memcache.ask(b"status readonly\r\n", b"END\r\n")
    small.send(door.put.removeprefix(door.half))
    small.expect(door.read_only)
    large.send(bytes(10) + door.end_big)
    large.expect(door.read_only if door.dialect == "resp" else door.put_reply)


# -- watching and counting


@each_door
def test_who_watches_is_told_what_these_clients_do(serve: Serve, door: Door) -> None:
    server = serve(door)
    watcher, client = server.client(), server.guest()
    watcher.send(b"watch default\r\n")
    assert json.loads(watcher.line())["what"] == "watch"
    client.ask(door.put, door.put_reply)
    client.ask(door.take, door.taken)
    wanted = ["create", "put", "get"]
    if door.dialect == "beanstalkd":
        client.ask(b"release 1 0 0\r\n", b"RELEASED\r\n")
        client.ask(door.take, door.taken)
        client.ask(b"bury 1 0\r\n", b"BURIED\r\n")
        client.ask(b"kick 1\r\n", b"KICKED 1\r\n")
        client.ask(door.take, door.taken)
        client.ask(b"delete 1\r\n", b"DELETED\r\n")
        wanted = ["create", "put", "open", "abort", "open", "bury", "kick", "open", "close"]
    events = [json.loads(watcher.line()) for _ in wanted]
    assert [event["what"] for event in events] == wanted
    assert a2b_base64(events[1]["first_bytes"]) == b"hello"


@each_door
def test_what_these_clients_do_is_counted_as_what_others_do(serve: Serve, door: Door) -> None:
    server = serve(door)
    client, memcache = server.guest(), server.client()
    before = memcache.stats()

    def counted(*names: str) -> list[int]:
        now = memcache.stats()
        return [int(now[name]) - int(before[name]) for name in names]

    client.ask(door.put, door.put_reply)
    client.ask(door.peek, door.peeked)
    client.ask(door.take, door.taken)
    client.ask(door.take, door.nothing)
    assert counted("cmd_set", "cmd_peek", "cmd_get", "get_hits", "get_misses", "total_items") == [1, 1, 2, 1, 1, 1]
    assert int(memcache.stats()["curr_connections"]) == 2
    assert counted("bytes_read")[0] > len(door.put + 2 * door.take)
    client.send(door.wait)
    wait_until(lambda: memcache.stats()["queue_default_waiters"] == "1")
    client.close()
    wait_until(lambda: memcache.stats()["queue_default_waiters"] == "0")
    assert memcache.stats()["queue_default_open_transactions"] == "0"


def test_jobs_by_resp_are_watched_and_counted(serve: Serve) -> None:
    server = serve(DOORS[1], tables="[queues.default]\nmax_deliveries = 3\n")
    watcher, memcache, client = server.client(), server.client(), server.adopt(RespClient(server.door_port))
    assert isinstance(client, RespClient)
    watcher.send(b"watch default\r\n")
    assert json.loads(watcher.line())["what"] == "watch"
    job = client.do("ADDJOB", "default", "hello", 0)
    client.do("QPEEK", "default", 1)
    client.do("SHOW", job)
    client.do("GETJOB", "FROM", "default")
    client.do("NACK", job)
    client.do("GETJOB", "FROM", "default")
    client.do("REJECT", job)
    client.do("KICK", "default", 1)
    client.do("GETJOB", "FROM", "default")
    client.do("ACKJOB", job)
    client.do("GETJOB", "NOHANG", "FROM", "default")
    wanted = ["put", "open", "abort", "open", "bury", "kick", "open", "close"]
    assert [json.loads(watcher.line())["what"] for _ in wanted] == wanted
    told = memcache.stats()
    names = ("cmd_set", "cmd_peek", "get_hits", "get_misses", "total_items", "queue_default_failures")
    assert [told[name] for name in names] == ["1", "2", "3", "1", "1", "1"]
