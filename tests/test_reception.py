"""Who comes in and who is cut off: too many connections, too few file descriptors, clients that fall silent."""

import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.harness import Client, RunningServer
from tests.test_connection import LARGE, wait_until

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
    program = "tests/few_descriptors.py"


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
