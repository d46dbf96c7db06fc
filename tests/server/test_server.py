"""The promises of the whole server: what survives a kill, fsyncs, stopping, a disk that fails, ten thousand queues."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.server.test_connection import LARGE
from tests.support.harness import RunningServer, wait_until

Start = Callable[..., RunningServer]


# -- kill -9


def test_what_was_stored_survives_a_kill_in_order(server: RunningServer) -> None:
    client = server.client()
    for number in range(1000):
        client.set("q", b"%d" % number, flags=number)
    client.set("large", LARGE, flags=3)
    client.set("empty", b"")
    for number in range(300):
        assert client.get("q") == b"%d" % number
    server.kill()
    server.start()
    client = server.client()
    client.send(b"get q\r\n" * 700)
    for number in range(300, 1000):
        assert client.line() == b"VALUE q %d 3\r\n" % number
        client.expect(b"%d\r\nEND\r\n" % number)
    assert client.get("q") is None
    assert client.get("large") == LARGE
    assert client.get("empty") == b""


def test_what_was_open_at_a_kill_comes_back_oldest_first(server: RunningServer) -> None:
    client = server.client()
    for number in range(8):
        client.set("q", b"%d" % number)
    holders = [server.client() for _ in range(5)]
    assert [holder.get("q/open") for holder in holders] == [b"0", b"1", b"2", b"3", b"4"]
    assert holders[3].get("q/close") is None
    assert holders[1].get("q/close") is None
    assert client.get("q") == b"5"
    server.kill()
    server.start()
    client = server.client()
    assert client.stats()["queue_q_items"] == "5"
    assert [client.get("q") for _ in range(6)] == [b"0", b"2", b"4", b"6", b"7", None]


def test_what_was_flushed_or_deleted_stays_so_after_a_kill(server: RunningServer) -> None:
    client, holder = server.client(), server.client()
    for queue in ("flushed", "deleted", "held"):
        for body in (b"a", b"b", LARGE):
            client.set(queue, body)
    assert holder.get("held/open") == b"a"
    client.ask(b"flush flushed\r\nflush held\r\n", b"END\r\nEND\r\n")
    client.ask(b"delete deleted\r\n", b"DELETED\r\n")
    client.set("held", b"later")
    server.kill()
    server.start()
    client = server.client()
    stats = client.stats()
    assert stats["queue_flushed_items"] == "0"
    assert "queue_deleted_items" not in stats
    assert client.get("deleted") is None
    assert [client.get("held") for _ in range(3)] == [b"a", b"later", None]


def test_half_an_upload_leaves_nothing_after_a_kill(server: RunningServer) -> None:
    client = server.client()
    client.set("q", LARGE)
    client.send(b"set q 0 0 9000000\r\n" + bytes(3_000_000))
    wait_until(lambda: int(server.client().stats()["bytes_read"]) >= 3_000_000)
    server.kill()
    server.start()
    client = server.client()
    assert client.get("q") == LARGE
    assert client.get("q") is None
    client.set("q", LARGE[::-1])
    assert client.get("q") == LARGE[::-1]


@pytest.mark.parametrize("poller", ["auto", "gevent"])
def test_nothing_that_was_answered_is_lost_when_killed_under_load(start_server: Start, poller: str) -> None:
    server = start_server("--poller", poller)
    stored: list[int] = []
    got: list[bytes] = []

    def put() -> None:
        client = server.client()
        try:
            for number in range(1_000_000):
                client.set("q", b"%d" % number)
                stored.append(number)
        except (OSError, AssertionError):
            pass  # killed

    def get() -> None:
        client = server.client()
        try:
            while True:
                client.send(b"get q/close/open/t=1000\r\n")
                body = client.item()
                if body is not None:
                    got.append(body)
        except (OSError, AssertionError, ValueError):
            pass

    threads = [threading.Thread(target=run) for run in (put, get, get)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(stored) > 2000)
    server.kill()
    for thread in threads:
        thread.join()
    server.start()
    client = server.client()
    left = []
    while (body := client.get("q")) is not None:
        left.append(int(body))
    assert left == sorted(left)
    seen = {int(body) for body in got}
    assert seen | set(left) >= set(stored)
    # Twice may come what two readers held open, or were about to be told was closed.
    assert len(seen & set(left)) <= 4
    assert max(seen | set(left)) <= max(stored) + 1


# -- fsync


@pytest.mark.parametrize("options", [(), ("--sync", "always"), ("--sync", "20")])
def test_every_way_of_syncing_answers_and_keeps(start_server: Start, options: tuple[str, ...]) -> None:
    server = start_server(*options)
    client, other = server.client(), server.client()
    client.send(b"".join(b"set q/sync 0 0 2\r\n%02d\r\n" % number for number in range(50)))
    client.expect(b"STORED\r\n" * 50)
    client.ask(b"set q/sync 0 0 2 noreply\r\n50\r\nset q 0 0 2\r\n51\r\n", b"STORED\r\n")
    other.send(b"get q/open\r\nget q/close\r\nget q\r\n")
    other.expect(b"VALUE q 0 2\r\n00\r\nEND\r\nEND\r\nVALUE q 0 2\r\n01\r\nEND\r\n")
    client.set("q/sync", LARGE)
    server.kill()
    server.start()
    client = server.client()
    assert [client.get("q") for _ in range(50)] == [b"%02d" % number for number in range(2, 52)]
    assert client.get("q") == LARGE


def test_what_is_put_while_an_fsync_runs_waits_for_the_next(failing: "FailingServer") -> None:
    client, other = failing.client(), failing.client()
    client.send(b"set a/sync 0 0 1\r\nx\r\nget nothing/t=50\r\nset b/sync 0 0 1\r\nx\r\nset c 0 0 1\r\nx\r\n")
    other.set("plain", b"x")
    client.expect(b"STORED\r\nEND\r\nSTORED\r\nSTORED\r\n")
    assert failing.printed().count("synced") == 2


def test_a_hang_up_while_an_fsync_runs_disturbs_nobody(start_server: Start) -> None:
    server = start_server("--sync", "always")
    for _ in range(20):
        client = server.client()
        client.send(b"set q 0 0 1\r\nx\r\n" * 10)
        client.reset()
    other = server.client()
    other.set("other", b"y")
    assert other.get("other") == b"y"


# -- stopping


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_answers_ends_waits_and_gives_back(server: RunningServer, signal_number: int) -> None:
    holder, waiter, idle = server.client(), server.client(), server.client()
    idle.set("q", b"held")
    assert holder.get("q/open") == b"held"
    waiter.send(b"get other/t=60000\r\nset q 0 0 6\r\nbehind\r\n")
    waiter.expect_nothing()
    began = time.monotonic()
    server.process.send_signal(signal_number)
    waiter.expect(b"END\r\nSTORED\r\n")
    for client in (holder, waiter, idle):
        client.expect_hang_up()
    assert server.process.wait(10) == 0
    assert time.monotonic() - began < 5
    server.start()
    client = server.client()
    assert [client.get("q"), client.get("q"), client.get("q")] == [b"held", b"behind", None]


def test_stopping_waits_for_no_one_longer_than_it_may(server: RunningServer) -> None:
    deaf, half = server.client(), server.client()
    deaf.set("q", bytes(30 << 20))
    deaf.send(b"get q\r\n")
    half.send(b"set q 0 0 9000000\r\n" + bytes(1_000_000))
    wait_until(lambda: int(server.client().stats()["bytes_read"]) >= (30 << 20) + 1_000_000)
    began = time.monotonic()
    server.process.terminate()
    assert server.process.wait(10) == 0
    assert time.monotonic() - began < 5
    server.start()
    client = server.client()
    assert client.get("q") == bytes(30 << 20)
    assert client.get("q") is None


def test_a_client_that_never_stops_sending_cannot_keep_it_from_stopping(server: RunningServer) -> None:
    client = server.client()
    flood = b"set q 0 0 1 noreply\r\nx\r\n" * 3000

    def send_on() -> None:
        with contextlib.suppress(OSError):
            while True:
                client.send(flood)

    sending = threading.Thread(target=send_on)
    sending.start()
    wait_until(lambda: int(server.client().stats().get("queue_q_items", 0)) > 10_000)
    assert server.stop() == 0
    sending.join(10)
    assert not sending.is_alive()


def test_who_has_said_all_it_will_is_answered_by_a_server_that_stops(server: RunningServer) -> None:
    client, other = server.client(), server.client()
    for body in (b"a", b"b"):
        client.set("q", body)
    os.kill(server.process.pid, signal.SIGSTOP)
    os.kill(server.process.pid, signal.SIGTERM)
    other.send(b"get q\r\nget q\r\n")
    other.socket.shutdown(socket.SHUT_WR)
    os.kill(server.process.pid, signal.SIGCONT)
    assert [other.item(), other.item()] == [b"a", b"b"]
    assert server.process.wait(10) == 0


def test_a_second_signal_ends_it_at_once_and_loses_nothing(server: RunningServer) -> None:
    deaf = server.client()
    deaf.set("q", bytes(30 << 20))
    deaf.send(b"get q\r\n")
    deaf.read(1000)
    server.process.terminate()
    wait_until(lambda: "stopping" in server.printed())
    server.process.terminate()
    assert server.process.wait(10) == 1
    server.start()
    assert server.client().get("q") == bytes(30 << 20)


# -- many queues


@pytest.mark.long
def test_ten_thousand_queues_do_not_make_stats_or_flush_all_hold_up_others(server: RunningServer) -> None:
    client, other = server.client(), server.client()
    client.send(b"".join(b"set q%d 0 0 1 noreply\r\nx\r\n" % number for number in range(10_000)))
    client.set("last", b"x")
    client.send(b"stats\r\n")
    served = 0
    client.socket.setblocking(False)
    reply = bytearray()
    while not reply.endswith(b"END\r\n"):
        other.set("other", b"x")  # is answered between the pieces of the reply
        served += 1
        try:
            reply += client.socket.recv(1 << 20)
        except BlockingIOError:
            pass
    client.socket.setblocking(True)
    assert served > 20
    assert reply.count(b"_items 1\r\n") >= 10_001
    client.ask(b"flush_all\r\n", b"Flushed all queues.\r\n")
    server.kill()
    server.start()
    client = server.client()
    assert client.stats()["curr_items"] == "0"
    assert client.get("q5000") is None
    client.set("q5000", b"again")
    assert client.get("q5000") == b"again"


# -- a disk that fails


@pytest.fixture
def failing(tmp_path: Path) -> Iterator["FailingServer"]:
    server = FailingServer(tmp_path)
    yield server
    server.end()


class FailingServer(RunningServer):
    """A server whose disk refuses every write while `fails` is set."""

    program = "tests/servers/failing_disk.py"

    def __init__(self, folder: Path, *options: str) -> None:
        self._switch = folder / "data.fails"
        super().__init__(folder / "data", *options)

    @property
    def fails(self) -> bool:
        return self._switch.exists()

    @fails.setter
    def fails(self, fails: bool) -> None:
        if fails:
            self._switch.touch()
        else:
            self._switch.unlink()


NO_ROOM = b"SERVER_ERROR no space left on device\r\n"


def test_what_was_written_and_waits_for_its_fsync_is_not_undone_by_a_later_turn(failing: FailingServer) -> None:
    client, other = failing.client(), failing.client()
    other.set("p", b"x")
    assert other.get("p") == b"x"
    client.send(b"set q/sync 0 0 1\r\nx\r\nget p/t=5000\r\n")  # waits in line while the fsync runs
    wait_until(lambda: other.stats().get("queue_p_waiters") == "1")
    failing.fails = True
    other.ask(b"set p 0 0 1\r\ny\r\n", NO_ROOM)  # handed to who waits, in a turn that fails
    failing.fails = False
    client.expect(b"STORED\r\n")
    client.expect_nothing()
    wait_until(lambda: "the disk takes writes again" in failing.printed())
    other.set("p", b"z")
    client.expect(b"VALUE p 0 1\r\nz\r\nEND\r\n")
    assert other.get("q") == b"x"


def test_a_turn_that_cannot_be_written_has_not_happened(failing: FailingServer) -> None:
    client, holder, other = failing.client(), failing.client(), failing.client()
    for body in (b"a", b"b", b"c", b"d"):
        client.set("q", body)
    assert holder.get("q/open") == b"a"
    assert other.get("q/open") == b"b"
    failing.fails = True
    client.send(b"get q\r\nset q 0 0 1\r\ne\r\nset new 0 0 1\r\nx\r\ndelete q\r\nflush q\r\nget q/open\r\n")
    client.expect(NO_ROOM * 6)
    holder.ask(b"get q/close/open\r\n", NO_ROOM)
    other.ask(b"get q/close\r\n", NO_ROOM)
    stats = client.stats()
    assert "queue_new_items" not in stats
    assert (stats["queue_q_items"], stats["queue_q_bytes"], stats["queue_q_open_transactions"]) == ("2", "2", "2")
    failing.fails = False
    wait_until(lambda: "the disk takes writes again" in failing.printed())
    assert holder.get("q/abort") is None
    assert other.get("q/close") is None
    client.set("q", b"e")
    assert [client.get("q") for _ in range(5)] == [b"a", b"c", b"d", b"e", None]
    failing.kill()
    failing.start()
    assert failing.client().get("q") is None


def test_what_was_answered_before_the_disk_failed_is_there_after_a_kill(failing: FailingServer) -> None:
    client = failing.client()
    for number in range(300):
        client.set("q", b"%d" % number)
    for number in range(100):
        assert client.get("q") == b"%d" % number
    failing.fails = True
    for _ in range(50):
        client.ask(b"get q\r\n", NO_ROOM)
    failing.kill()
    failing.fails = False
    failing.start()
    client = failing.client()
    assert [client.get("q") for _ in range(201)] == [*(b"%d" % number for number in range(100, 300)), None]


def test_sets_are_refused_while_the_disk_fails_and_large_ones_are_dropped(failing: FailingServer) -> None:
    client = failing.client()
    client.set("q", b"a")
    failing.fails = True
    client.ask(b"set q 0 0 1\r\nb\r\n", NO_ROOM)
    client.send(b"set q 0 0 1\r\nb\r\n")
    assert client.line().startswith(b"SERVER_ERROR ")
    client.send(b"set q 0 0 %d\r\n" % len(LARGE) + LARGE + b"\r\n")
    assert client.line().startswith(b"SERVER_ERROR ")
    client.send(b"set q 0 0 1 noreply\r\nb\r\nversion\r\n")
    assert client.line().startswith(b"VERSION")
    failing.fails = False
    wait_until(lambda: "the disk takes writes again" in failing.printed())
    client.set("q", LARGE)
    assert [client.get("q"), client.get("q"), client.get("q")] == [b"a", LARGE, None]


def test_a_large_item_whose_end_could_not_be_written_waits_again(failing: FailingServer) -> None:
    client, other = failing.client(), failing.client()
    body = bytes(20 << 20)
    client.set("q", body)
    client.send(b"get q\r\n")
    assert client.line().startswith(b"VALUE q 0")
    failing.fails = True
    client.read(len(body))
    client.expect_hang_up()
    failing.fails = False
    wait_until(lambda: "the disk takes writes again" in failing.printed())
    assert other.get("q/t=5000") == body
    assert other.stats()["queue_q_open_transactions"] == "0"


def test_a_waiter_of_a_failed_turn_is_told_and_the_item_is_not_lost(failing: FailingServer) -> None:
    holder, waiter = failing.client(), failing.client()
    holder.set("q", b"a")
    assert holder.get("q/open") == b"a"
    waiter.send(b"get q/t=9000\r\n")
    waiter.expect_nothing()
    failing.fails = True
    holder.close()
    waiter.expect(NO_ROOM)
    failing.fails = False
    wait_until(lambda: "the disk takes writes again" in failing.printed())
    assert waiter.get("q") == b"a"


def test_an_error_that_nobody_foresaw_at_the_end_of_a_turn_is_a_turn_that_has_not_happened(
    failing: FailingServer, tmp_path: Path
) -> None:
    client, waiter = failing.client(), failing.client()
    client.set("q", b"a")
    waiter.send(b"get other/t=9000\r\n")
    waiter.expect_nothing()
    (tmp_path / "data.fails").write_text("put write bug")
    client.ask(b"set q 0 0 1\r\nb\r\n", b"SERVER_ERROR an internal error; see the server's log\r\n")
    failing.fails = False
    wait_until(lambda: "the disk takes writes again" in failing.printed())
    client.set("other", b"c")
    waiter.expect(b"VALUE other 0 1\r\nc\r\nEND\r\n")
    failing.kill()
    assert failing.log.count("ZeroDivisionError: a bug") == 1
    failing.log = ""
    failing.start()
    client = failing.client()
    assert [client.get("q"), client.get("q")] == [b"a", None]


def test_sets_are_refused_when_the_disk_is_nearly_full_and_gets_go_on(start_server: Start) -> None:
    server = start_server()
    server.client().set("q", b"a")
    server.stop()
    server.options = ("--min-free-bytes", "1024 GiB")
    server.start()
    client = server.client()
    client.send(b"set q 0 0 1\r\nb\r\n")
    assert client.line().startswith(b"SERVER_ERROR out of disk space")
    client.send(b"set q 0 0 %d\r\n" % len(LARGE) + LARGE + b"\r\n")
    assert client.line().startswith(b"SERVER_ERROR out of disk space")
    assert [client.get("q"), client.get("q")] == [b"a", None]
