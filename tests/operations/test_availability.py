"""The status in force, as clients and operators see it."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.server.test_connection import LARGE, waiters
from tests.support.harness import Client, RunningServer, wait_until
from tests.support.identities import login, write_users
from tests.test_limits import SteppingClock

Start = Callable[..., RunningServer]

NO_SET = b"SERVER_ERROR set is refused: the server is READONLY\r\n"
QUIET = b"is refused: the server is QUIESCENT\r\n"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    server = RunningServer(tmp_path_factory.mktemp("status") / "data")
    yield server
    server.end()


@pytest.fixture
def server(shared: RunningServer) -> Iterator[RunningServer]:
    """A server that is up and holds nothing."""
    yield shared
    client = shared.client()
    change(client, "up")
    for name in {name.split("_")[1] for name in client.stats() if name.startswith("queue_") and "items" in name}:
        client.ask(b"delete %b\r\n" % name.encode(), b"DELETED\r\n")


def change(client: Client, word: str) -> None:
    client.ask(b"status %b\r\n" % word.encode(), b"END\r\n")


def refused(client: Client, request: bytes, reply: bytes) -> None:
    client.ask(request, reply)
    client.expect_hang_up()


@pytest.mark.parametrize("dialect", ["kestrel", "siberite", "kyototycoon"])
def test_every_dialect_has_it(start_server: Start, dialect: str) -> None:
    server = start_server("--dialect", dialect)
    operator = server.client()
    operator.ask(b"status\r\n", b"UP\r\n")
    for word in ("writeavoid", "ReadOnly", "QUIESCENT"):
        change(operator, word)
        operator.ask(b"STATUS\r\n", word.upper().encode() + b"\r\n")
    refused(server.client(), b"get q\r\n", b"SERVER_ERROR get " + QUIET)
    change(operator, "up")
    server.client().set("q", b"x")


def test_readonly_refuses_all_that_writes_and_nothing_else(server: RunningServer) -> None:
    operator = server.client()
    for body in (b"a", b"b", b"c", b"d"):
        operator.set("q", body)
    change(operator, "readonly")
    refused(server.client(), b"set q 0 0 1\r\nx\r\n", NO_SET)
    refused(server.client(), b"set q 0 0 1 noreply\r\nx\r\n", NO_SET)
    refused(server.client(), b"set q 0 0 %d\r\n" % len(LARGE) + LARGE + b"\r\n", NO_SET)
    for verb in (b"flush", b"delete"):
        refused(server.client(), verb + b" q\r\n", b"SERVER_ERROR %b is refused: the server is READONLY\r\n" % verb)
    refused(server.client(), b"flush_all\r\n", b"SERVER_ERROR flush_all is refused: the server is READONLY\r\n")
    reader = server.client()
    assert [reader.get("q/peek"), reader.get("q/open"), reader.get("q/close/open")] == [b"a", b"a", b"b"]
    assert reader.get("q/abort") is None
    assert [reader.get("q"), reader.get("q/t=10"), reader.get("q"), reader.get("q")] == [b"b", b"c", b"d", None]


def test_quiescent_refuses_reads_but_closes_and_gives_back(server: RunningServer) -> None:
    operator, closes, gives_back, goes_on = (server.client() for _ in range(4))
    for body in (b"a", b"b", b"c", b"d"):
        operator.set("q", body)
    for client in (closes, gives_back, goes_on):
        client.get("q/open")
    change(operator, "quiescent")
    assert closes.get("q/close") is None
    assert gives_back.get("q/abort") is None
    refused(goes_on, b"get q/close/open\r\n", b"SERVER_ERROR get " + QUIET)
    for options in (b"", b"/open", b"/peek", b"/t=1000"):
        refused(server.client(), b"get q%b\r\n" % options, b"SERVER_ERROR get " + QUIET)
    refused(server.client(), b"gets q\r\n", b"SERVER_ERROR gets " + QUIET)
    refused(server.client(), b"set q 0 0 1\r\nx\r\n", b"SERVER_ERROR set " + QUIET)
    assert closes.stats()["queue_q_items"] == "2"
    change(operator, "up")
    reader = server.client()
    assert [reader.get("q"), reader.get("q"), reader.get("q")] == [b"b", b"d", None]


def test_who_is_hung_up_on_loses_no_item_that_it_had_open(server: RunningServer) -> None:
    operator, holder = server.client(), server.client()
    operator.set("q", b"a")
    assert holder.get("q/open") == b"a"
    change(operator, "quiescent")
    refused(holder, b"set q 0 0 1\r\nb\r\n", b"SERVER_ERROR set " + QUIET)
    change(operator, "up")
    assert operator.get("q/t=5000") == b"a"


def test_lines_that_were_served_before_are_refused_and_served_again(server: RunningServer) -> None:
    operator = server.client()
    for _ in range(3):
        client = server.client()
        client.send(b"set q 0 0 1\r\nx\r\nget q\r\n" * 2)
        client.expect(b"STORED\r\nVALUE q 0 1\r\nx\r\nEND\r\n" * 2)
        change(operator, "quiescent")
        refused(client, b"get q\r\n", b"SERVER_ERROR get " + QUIET)
        change(operator, "up")


def test_who_changes_it_is_bound_by_it_from_the_next_request_on(server: RunningServer) -> None:
    client = server.client()
    request = b"set q 0 0 1\r\nx\r\n"
    client.send(request + b"status readonly\r\n" + request * 2)
    client.expect(b"STORED\r\nEND\r\n" + NO_SET)
    client.expect_hang_up()


def test_what_was_pipelined_behind_a_wait_is_refused(server: RunningServer) -> None:
    operator, client = server.client(), server.client()
    operator.set("q", b"a")
    operator.get("q")
    client.send(b"get q/t=60000\r\nset q 0 0 1\r\nx\r\n")
    wait_until(lambda: waiters(operator, "q") == 1)
    change(operator, "quiescent")
    client.expect(b"END\r\nSERVER_ERROR set " + QUIET)
    client.expect_hang_up()
    assert operator.stats()["queue_q_items"] == "0"


def test_who_waits_when_reads_are_refused_is_told_that_nothing_came(server: RunningServer) -> None:
    operator, clients = server.client(), [server.client() for _ in range(3)]
    operator.set("q", b"a")
    operator.get("q")
    for client, key in zip(clients, (b"q/t=60000", b"q/open/t=60000", b"q/peek/t=60000"), strict=True):
        client.send(b"get %b\r\n" % key)
    wait_until(lambda: operator.stats()["queue_q_waiters"] == "3")
    change(operator, "readonly")
    clients[0].expect_nothing()
    change(operator, "quiescent")
    for client in clients:
        client.expect(b"END\r\n")
    change(operator, "up")
    clients[0].set("q", b"b")
    assert clients[1].get("q") == b"b"


def test_a_small_item_on_its_way_is_refused_and_a_large_one_may_come_to_its_end(server: RunningServer) -> None:
    operator, small, large = server.client(), server.client(), server.client()
    half = len(LARGE) // 2
    before = int(operator.stats()["bytes_read"])
    small.send(b"set small 0 0 10\r\nhello")
    large.send(b"set large 0 0 %d\r\n" % len(LARGE) + LARGE[:half])
    wait_until(lambda: int(operator.stats()["bytes_read"]) > before + half)
    change(operator, "readonly")
    small.send(b"world\r\n")
    small.expect(NO_SET)
    small.expect_hang_up()
    large.ask(LARGE[half:] + b"\r\n", b"STORED\r\n")
    refused(large, b"set large 0 0 1\r\nx\r\n", NO_SET)
    assert operator.get("small") is None
    assert operator.get("large") == LARGE


def test_it_goes_together_with_a_full_disk(start_server: Start) -> None:
    server = start_server("--min-free-bytes", "1024 GiB")
    operator, client = server.client(), server.client()
    client.send(b"set q 0 0 1\r\nx\r\n")
    full = client.line()
    assert full.startswith(b"SERVER_ERROR out of disk space")
    change(operator, "readonly")
    refused(client, b"set q 0 0 1\r\nx\r\n", NO_SET)
    change(operator, "up")
    client = server.client()
    client.send(b"set q 0 0 1\r\nx\r\n")
    assert client.line().startswith(b"SERVER_ERROR out of disk space")
    client.ask(b"get q\r\n", b"END\r\n")


def test_a_word_that_is_none_is_refused_and_changes_nothing(server: RunningServer) -> None:
    for word in (b"down", b"sleepy", b"\xff"):
        client = server.client()
        client.send(b"status %b\r\n" % word)
        line = client.line()
        assert line.startswith(b"CLIENT_ERROR unknown status ")
        assert line.endswith(b": one of up, writeavoid, readonly, quiescent\r\n")
        client.expect_hang_up()
    client = server.client()
    client.ask(b"status\r\n", b"UP\r\n")
    client.send(b"status up up\r\n")
    assert client.line().startswith(b"ERROR ")


# -- the grace period


def test_what_it_forbids_goes_on_for_the_grace_period(start_server: Start) -> None:
    server = start_server("--status-change-grace-period-s", "2")
    operator, client = server.client(), server.client()
    began = time.monotonic()
    change(operator, "quiescent")
    operator.ask(b"status\r\n", b"QUIESCENT\r\n")
    change(operator, "quiescent")  # ignored
    client.set("q", b"x")
    assert client.get("q") == b"x"
    client.send(b"get q/t=60000\r\n")
    client.expect(b"END\r\n")  # nothing came until it was in force
    assert time.monotonic() - began > 1.9
    refused(client, b"get q\r\n", b"SERVER_ERROR get " + QUIET)
    change(operator, "readonly")  # looser: at once
    assert operator.get("q") is None


def test_a_looser_status_ends_the_grace_period(start_server: Start) -> None:
    server = start_server("--status-change-grace-period-s", "1")
    operator = server.client()
    change(operator, "readonly")
    change(operator, "up")
    time.sleep(1.3)
    operator.set("q", b"x")


def test_stepping_the_clock_neither_shortens_nor_lengthens_it(tmp_path: Path) -> None:
    server = SteppingClock(tmp_path / "data", "--status-change-grace-period-s", "1")
    try:
        for step_s in (86_400, -86_400):
            operator = server.client()
            change(operator, "readonly")
            server.step(step_s)
            operator.set("q", b"x")
            deadline = time.monotonic() + 5
            while True:
                operator.send(b"set q 0 0 1\r\nx\r\n")
                if operator.line() != b"STORED\r\n":
                    break
                assert time.monotonic() < deadline
            operator = server.client()
            change(operator, "up")
    finally:
        server.end()


# -- over a restart


def test_the_file_keeps_it_over_a_restart(start_server: Start, tmp_path: Path) -> None:
    path = tmp_path / "status"
    server = start_server("--status-file", str(path), "--status-change-grace-period-s", "3600")
    client = server.client()
    client.set("q", b"x")
    assert not path.exists()
    change(client, "readonly")
    assert path.read_text() == "ReadOnly\n"  # at once, while it is not in force yet
    client.set("q", b"y")
    server.kill()
    server.start()
    client = server.client()
    client.ask(b"status\r\n", b"READONLY\r\n")
    assert client.get("q") == b"x"
    refused(client, b"set q 0 0 1\r\nx\r\n", NO_SET)
    change(server.client(), "up")
    assert path.read_text() == "Up\n"


def test_without_a_file_the_default_holds_after_a_restart(start_server: Start) -> None:
    server = start_server("--default-status", "quiescent")
    client = server.client()
    client.ask(b"status\r\n", b"QUIESCENT\r\n")
    refused(server.client(), b"get q\r\n", b"SERVER_ERROR get " + QUIET)
    change(client, "up")
    server.stop()
    server.start()
    server.client().ask(b"status\r\n", b"QUIESCENT\r\n")


def test_a_file_that_says_nothing_of_use_is_warned_of(start_server: Start, tmp_path: Path) -> None:
    path = tmp_path / "status"
    path.write_text("Sleepy\n")
    server = start_server("--status-file", str(path), "--default-status", "readonly")
    assert (
        f"WARNING status_file {path} holds 'Sleepy', not one of up, writeavoid, readonly, quiescent; the status is"
        " READONLY" in server.printed()
    )
    client = server.client()
    client.ask(b"status\r\n", b"READONLY\r\n")
    change(client, "writeavoid")
    assert path.read_text() == "WriteAvoid\n"


def test_a_file_that_cannot_be_written_is_told_and_the_status_holds(start_server: Start, tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "status"
    server = start_server("--status-file", str(path))
    assert f"WARNING status_file {path}: there is no such directory" in server.printed()
    client = server.client()
    client.ask(
        b"status readonly\r\n",
        b"SERVER_ERROR the status is READONLY now, but %b cannot be written: No such file or directory; the next start"
        b" will not know of it\r\n" % str(path).encode(),
    )
    client.ask(b"status\r\n", b"READONLY\r\n")
    refused(client, b"set q 0 0 1\r\nx\r\n", NO_SET)


def test_the_file_has_what_is_shown_last_when_many_change_it(start_server: Start, tmp_path: Path) -> None:
    path = tmp_path / "status"
    server = start_server("--status-file", str(path))
    clients = [server.client() for _ in range(8)]

    def change_often(client: Client, words: list[str]) -> None:
        for word in words * 10:
            change(client, word)

    threads = [
        threading.Thread(target=change_often, args=(client, ["readonly", "up", "quiescent", "writeavoid"][at % 4 :]))
        for at, client in enumerate(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    clients[0].send(b"status\r\n")
    assert path.read_text().strip().upper() == clients[0].line().decode().strip()


# -- who may


def test_every_user_may_ask_for_it_and_few_may_change_it(start_server: Start, tmp_path: Path) -> None:
    write_users(tmp_path / "users", bob="secret", ops="secret")
    (tmp_path / "darner.toml").write_text(
        f'auth_file = "{tmp_path}/users"\n[users.bob]\nput = ["*"]\nget = ["*"]\n[users.ops]\nadmin = ["*"]\n'
    )
    server = start_server("-c", str(tmp_path / "darner.toml"))
    bob, ops = server.client(), server.client()
    bob.ask(login("bob", "secret"), b"STORED\r\n")
    ops.ask(login("ops", "secret"), b"STORED\r\n")
    bob.ask(b"status\r\n", b"UP\r\n")
    refused(bob, b"status readonly\r\n", b"CLIENT_ERROR user bob may not administer every queue\r\n")
    ops.ask(b"status\r\n", b"UP\r\n")
    change(ops, "quiescent")
    bob = server.client()  # who may log in still
    bob.ask(login("bob", "secret") + b"status\r\n", b"STORED\r\nQUIESCENT\r\n")
    refused(bob, b"get q\r\n", b"SERVER_ERROR get " + QUIET)
