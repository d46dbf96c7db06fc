"""Who comes in and who is cut off: too many connections, too few file descriptors, clients that fall silent."""

import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from darner_core.server.acceptor import LOGIN_S, Acceptor
from tests.server.test_connection import LARGE
from tests.support.harness import Client, RunningServer, wait_until
from tests.support.identities import Authority, TlsClient, login, write_users

Start = Callable[..., RunningServer]

TOO_MANY = b"SERVER_ERROR too many connections\r\n"


def open_descriptors(server: RunningServer) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def warmed(server: RunningServer) -> Client:
    """A client whose server has done everything once, so that what grows from here on is the others'."""
    client = server.client()
    client.set("warm", b"x")
    assert client.get("warm") == b"x"
    return client


# -- too many connections


def test_one_connection_too_many_is_told_so_and_the_others_go_on(start_server: Start) -> None:
    server = start_server("--max-connections", "3")
    clients = [server.client() for _ in range(3)]
    for client in clients:
        client.set("q", b"x")
    one_more = server.client()
    one_more.send(b"set q 0 0 1\r\ny\r\n")
    one_more.expect(TOO_MANY)
    one_more.expect_hang_up()
    assert [client.get("q") for client in clients] == [b"x"] * 3
    assert clients[0].get("q") is None
    clients[2].close()
    wait_until(lambda: clients[0].stats()["curr_connections"] == "2")
    server.client().set("q", b"z")
    assert clients[0].get("q") == b"z"
    assert clients[0].stats()["rejected_connections"] == "1"


def test_hundreds_that_knock_at_once_do_not_disturb_those_inside(start_server: Start) -> None:
    server = start_server("--max-connections", "2")
    inside, waiting = server.client(), server.client()
    waiting.send(b"get q/t=20000\r\n")
    inside.set("other", b"x")
    outside = []
    for number in range(300):
        outside.append(Client(server.port))
        if number % 50 == 0:
            inside.set("other", b"x")
    for client in outside:
        client.expect(TOO_MANY)
        client.expect_hang_up()
        client.close()
    inside.set("q", b"for who waits")
    assert waiting.item() == b"for who waits"
    waiting.close()
    wait_until(lambda: inside.stats()["curr_connections"] == "1")
    server.client().set("q", b"x")


# -- file descriptors


class FewDescriptors(RunningServer):
    program = "tests/servers/few_descriptors.py"


@pytest.fixture
def start_with_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., RunningServer]]:
    servers: list[RunningServer] = []

    def start(number: int, *options: str) -> RunningServer:
        monkeypatch.setenv("DESCRIPTORS", str(number))
        servers.append(FewDescriptors(tmp_path / "few", *options))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


def test_the_log_says_that_descriptors_do_not_suffice_for_max_connections(start_with_descriptors: Start) -> None:
    server = start_with_descriptors(300)
    wait_until(lambda: "at most 12 connections, not the 16000 of max_connections" in server.printed())


def test_a_server_that_could_serve_nobody_does_not_start(tmp_path: Path, start_with_descriptors: Start) -> None:
    with pytest.raises(AssertionError, match=r"too few file descriptors: 200, .* max_open_files"):
        start_with_descriptors(200)


def test_the_disk_has_its_files_however_many_clients_there_are(start_with_descriptors: Start) -> None:
    server = start_with_descriptors(300, "--write-buffer-bytes", "1MiB", "--max-wal-bytes", "1MiB")
    clients = [server.client() for _ in range(12)]
    for number, client in enumerate(clients):
        client.set(f"q{number}", LARGE)
    outside = [Client(server.port) for _ in range(60)]
    for number, client in enumerate(clients):  # tables are written and read while every descriptor is taken
        for _ in range(2):
            client.set(f"q{number}", LARGE)
            assert client.get(f"q{number}") == LARGE
    for refused in outside:
        refused.expect(TOO_MANY)
        refused.close()
    assert "ERROR" not in server.printed()


def test_a_flood_of_connections_does_not_take_the_disks_files(start_with_descriptors: Start) -> None:
    server = start_with_descriptors(400, "--max-connections", "10", "--write-buffer-bytes", "1MiB")
    inside = server.client()
    for number in range(10):
        crowd = []
        for _ in range(100):
            knocking = socket.socket()
            knocking.setblocking(False)
            with suppress(BlockingIOError):
                knocking.connect(("127.0.0.1", server.port))
            crowd.append(knocking)
        inside.set("q", LARGE)
        assert inside.get("q") == LARGE
        inside.set(f"q{number}", b"x")
        for knocking in crowd:
            knocking.close()
    assert "Too many open files" not in server.printed()


def test_without_descriptors_the_others_are_served_and_later_all(server: RunningServer) -> None:
    inside = warmed(server)
    limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (open_descriptors(server), limits[1]))
    outside = server.client()
    outside.send(b"set q 0 0 1\r\nx\r\n")
    wait_until(lambda: "cannot accept a connection: Too many open files" in server.printed())
    for number in range(100):
        inside.set("inside", b"%d" % number)
        assert inside.get("inside") == b"%d" % number
    outside.expect_nothing()
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, limits)
    outside.expect(b"STORED\r\n")
    assert inside.get("q") == b"x"


# -- silence


def test_a_client_that_stops_in_the_middle_of_a_request_is_told_and_hung_up_on(start_server: Start) -> None:
    server = start_server("--body-timeout-s", "1", "--max-item-bytes", "2 MiB")
    other = server.client()
    item = b"CLIENT_ERROR the rest of the item did not come for 1 s\r\n"
    stalled = []
    for begun in (
        b"set q 0 0 5\r\nhe",  # in the item, of which the turn has seen a part
        b"set q 0 0 5\r\nhello",  # before its CR LF
        b"set q 0 0 900000\r\n",  # in a large item, before and after its first byte
        b"set q 0 0 900000\r\n" + bytes(300_000),
        b"set q 0 0 9000000\r\n" + bytes(300_000),  # in one that is too large, and dropped as it comes
        b"get other\r\nset q 0 0 5\r\nhe",
    ):
        stalled.append((server.client(), begun, item))
    line = b"CLIENT_ERROR the rest of the line did not come for 1 s\r\n"
    stalled.append((server.client(), b"get q", line))
    for client, begun, _ in stalled:
        client.send(begun)
    for client, begun, error in stalled:
        if begun.startswith(b"get other"):
            client.expect(b"END\r\n")
        client.expect(error)
        client.expect_hang_up()
    assert other.get("q") is None
    other.set("q", LARGE)
    assert other.get("q") == LARGE


def test_who_waits_holds_or_trickles_is_not_taken_for_one_that_has_stopped(start_server: Start) -> None:
    server = start_server("--body-timeout-s", "1", "--idle-timeout-s", "1")
    waiter, holder, trickler, other = (server.client() for _ in range(4))
    holder.set("q", b"held")
    assert holder.get("q/open") == b"held"
    waiter.send(b"get nothing/t=60000\r\n")
    for byte in b"set q 0 0 5\r\nhello\r\n":
        trickler.send(bytes((byte,)))
        time.sleep(0.2)
        other.set("other", b"x")
        assert other.get("other") == b"x"
    trickler.expect(b"STORED\r\n")
    other.set("nothing", b"x")
    assert waiter.item() == b"x"
    assert holder.get("q/abort") is None
    assert [other.get("q"), other.get("q")] == [b"held", b"hello"]


def test_an_idle_client_is_hung_up_on_if_that_is_wanted(start_server: Start) -> None:
    server = start_server("--idle-timeout-s", "1")
    idle, never_asked = server.client(), server.client()
    idle.set("q", b"x")
    for client in (idle, never_asked):
        client.expect_hang_up()
    assert server.client().get("q") == b"x"


@pytest.mark.long
def test_a_silent_client_is_hung_up_on_if_that_is_wanted_and_what_it_holds_goes_to_others(start_server: Start) -> None:
    server = start_server("--client-timeout-s", "2", "--body-timeout-s", "0")
    holder, never_asked, half, half_large, busy, waiter = (server.client() for _ in range(6))
    began = time.monotonic()
    busy.set("q", b"x")
    assert holder.get("q/open") == b"x"
    half.send(b"set q 0 0 10\r\nhal")
    half_large.send(b"set q 0 0 %d\r\n" % len(LARGE) + LARGE[:200_000])
    waiter.send(b"get nothing/t=4500\r\n")
    while time.monotonic() - began < 4:
        assert busy.get("nothing") is None
        time.sleep(0.3)
    for client in (holder, never_asked, half, half_large):
        client.expect_hang_up()
    assert busy.get("q") == b"x"
    assert busy.get("q") is None
    waiter.expect(b"END\r\n")  # until its wait has ended it is not silent; from then on it is
    waiter.set("q", b"y")
    waiter.expect_hang_up()


@pytest.mark.long
def test_who_takes_its_replies_is_not_silent_and_who_does_not_is(start_server: Start) -> None:
    server = start_server("--client-timeout-s", "2")
    deaf, slow = server.client(), server.client()
    slow.set("q", bytes(30 << 20))
    for client in (deaf, slow):
        client.send(b"get q/peek\r\n")
    assert slow.line() == b"VALUE q 0 31457280\r\n"
    for _ in range(12):
        assert len(slow.read(2 << 20)) == 2 << 20
        time.sleep(0.4)
    assert len(slow.read(6 << 20)) == 6 << 20
    slow.expect(b"\r\nEND\r\n")
    wait_until(lambda: server.client().stats()["curr_connections"] != "3")
    received = deaf.read(40 << 20)
    assert len(received) < 30 << 20


# -- many connections


def test_who_comes_when_there_are_many_may_put_no_more_or_get_neither(start_server: Start) -> None:
    server = start_server("--connection-limit-refuse-writes", "2", "--connection-limit-refuse-reads", "3")
    first, second = server.client(), server.client()
    for client in (first, second):
        client.set("q", b"x")
    third, fourth = server.client(), server.client()
    assert third.get("q/open") == b"x"
    fourth.ask(b"version\r\nget q/close\r\nget q/abort\r\n", b"VERSION 1.0.0\r\nEND\r\nEND\r\n")
    fourth.ask(b"get q\r\n", b"SERVER_ERROR get is refused: more than 3 clients were connected when this one came\r\n")
    fourth.expect_hang_up()
    first.close()
    fourth.close()
    wait_until(lambda: second.stats()["curr_connections"] == "2")
    # For as long as it is connected, however few there are now.
    third.ask(
        b"set q 0 0 1\r\ny\r\n",
        b"SERVER_ERROR set is refused: more than 2 clients were connected when this one came\r\n",
    )
    third.expect_hang_up()
    second.set("q", b"z")  # who came before is not concerned
    assert second.get("q/t=5000") == b"x"
    wait_until(lambda: second.stats()["curr_connections"] == "1")
    server.client().set("q", b"last")


def test_a_change_of_the_status_does_not_set_free_who_came_when_there_were_many(start_server: Start) -> None:
    server = start_server("--connection-limit-refuse-writes", "1", "--dialect", "kestrel")
    first, second = server.client(), server.client()
    first.ask(b"status quiescent\r\nstatus up\r\n", b"END\r\nEND\r\n")
    first.set("q", b"x")
    assert second.get("q") == b"x"
    second.ask(
        b"set q 0 0 1\r\ny\r\n",
        b"SERVER_ERROR set is refused: more than 1 clients were connected when this one came\r\n",
    )


# -- a login that nobody has looked at


def test_a_login_that_has_come_is_looked_at_before_the_time_is_over() -> None:
    """As after SIGSTOP: the time is over, and nothing of what came meanwhile has been read."""

    class Late:
        def __init__(self, has_sent: bool) -> None:
            self.has_sent, self.awaits_login, self.said = has_sent, True, list[str]()
            self.origin = "here"

        def read_now(self) -> None:
            self.awaits_login = not self.has_sent

        def hang_up(self) -> None:
            self.said.append("hung up")

    for has_sent, said in ((True, []), (False, ["hung up"])):
        client: Any = Late(has_sent)
        house: Any = SimpleNamespace(connections={client})
        Acceptor._end_login(house, client, client)
        assert client.said == said


@pytest.mark.long
@pytest.mark.parametrize("tls", [False, True])
def test_a_login_that_came_while_the_server_was_stopped_succeeds(
    start_server: Start, tmp_path: Path, tls: bool
) -> None:
    authority = Authority(tmp_path)
    users = write_users(tmp_path / "users", bob="secret")
    server = start_server("--auth-file", str(users), *(authority.options() if tls else ()))

    def connect() -> Client:
        return server.adopt(TlsClient(server.port, authority.context())) if tls else server.client()

    known = connect()
    known.ask(login("bob", "secret"), b"STORED\r\n")
    late, silent = connect(), connect()
    wait_until(lambda: known.stats()["curr_connections"] == "3")
    server.process.send_signal(signal.SIGSTOP)
    late.send(login("bob", "secret"))
    time.sleep(LOGIN_S + 1)
    server.process.send_signal(signal.SIGCONT)
    late.expect(b"STORED\r\n")
    silent.expect_hang_up()


# -- hosts that are gone


@pytest.mark.parametrize(("options", "set_"), [((), True), (("--keepalive-idle-s", "0"), False)])
def test_the_kernel_asks_whether_a_clients_host_is_still_there(
    start_server: Start, options: tuple[str, ...], set_: bool
) -> None:
    server = start_server(*options)
    client = warmed(server)
    ports = [server.port, client.socket.getsockname()[1]]

    def timer() -> str:
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return next(line[5] for line in lines if [int(line[at].split(":")[1], 16) for at in (1, 2)] == ports)[:2]

    # As the kernel's proc_net_tcp.txt has it: 01 waits for an acknowledgement, 02 is keepalive's.
    wait_until(lambda: timer() == ("02" if set_ else "00"))
