"""How a connection ends: with replies, with an error, and when the client is gone, in each state."""

import os
import signal
import socket
from collections.abc import Callable

import pytest

from tests.support.harness import Client, RunningServer, wait_until

Connect = Callable[[], Client]
LARGE = bytes(range(256)) * 4 * 600  # 600 KiB: five chunks


def waiters(client: Client, queue: str) -> int:
    return int(client.stats().get(f"queue_{queue}_waiters", 0))


# -- the end of what a client says


def test_quit_hangs_up_after_the_replies_before_it(connect: Connect) -> None:
    client = connect()
    client.send(b"set q 0 0 1\r\nx\r\nquit\r\nget q\r\n")
    client.expect(b"STORED\r\n")
    client.expect_hang_up()
    assert connect().get("q") == b"x"


def test_who_has_said_all_it_will_is_answered_whatever_its_last_words_were(server: RunningServer) -> None:
    """Its hang-up comes with its requests, and is noticed when it has been answered."""
    others = [server.client() for _ in range(3)]
    for last in (b"", b"get", b"get none/t=300\r\n", b"set p 0 0 300000\r\nabc"):
        others[0].set("q", b"x")
        client = server.client()
        os.kill(server.process.pid, signal.SIGSTOP)  # so that all is there when it looks
        for other in others:
            other.send(b"version\r\n")
        client.send(b"get q\r\n" + last)
        client.socket.shutdown(socket.SHUT_WR)
        os.kill(server.process.pid, signal.SIGCONT)
        assert client.item() == b"x"
        for other in others:
            assert other.line().startswith(b"VERSION")


# -- clients that are gone, in each state

AHEAD = (
    b"version\r\n" * 15_500
)  # more than is read with a request and ahead of a wait, and not more than the kernel takes
GONE = [Client.close, Client.reset]


@pytest.fixture
def kestrel(shared_server: Callable[..., RunningServer]) -> RunningServer:
    """There a client can wait while it has items open."""
    return shared_server("--dialect", "kestrel")


def holder(server: RunningServer, other: Client, held: str) -> tuple[Client, str]:
    """A client that has an item open, and how many clients there were before it."""
    before = other.stats()["curr_connections"]
    other.set(held, b"x")
    client = Client(server.port)
    assert client.get(f"{held}/open") == b"x"
    return client, before


@pytest.mark.parametrize("hang_up", GONE)
@pytest.mark.parametrize("request_", [b"get wanted/t=60000", b"monitor wanted 60", b"watch wanted"])
@pytest.mark.parametrize("ahead", [b"", AHEAD])
def test_who_waits_or_watches_and_is_gone_holds_nothing(
    kestrel: RunningServer, queue: str, request_: bytes, ahead: bytes, hang_up: Callable[[Client], None]
) -> None:
    other = kestrel.client()
    gone, before = holder(kestrel, other, queue)
    gone.send(request_ + b"\r\n" + ahead)
    if request_.startswith(b"watch"):
        gone.line()
    else:
        gone.expect_nothing()
    hang_up(gone)
    assert other.get(f"{queue}/t=9000") == b"x"
    wait_until(lambda: other.stats()["curr_connections"] == before)
    other.close()


@pytest.mark.parametrize("hang_up", GONE)
@pytest.mark.parametrize("state", ["sends a large item", "does not read", "was told of an error"])
def test_who_is_gone_in_the_middle_of_something_holds_nothing(
    kestrel: RunningServer, queue: str, state: str, hang_up: Callable[[Client], None]
) -> None:
    other = kestrel.client()
    gone, before = holder(kestrel, other, queue)
    if state == "sends a large item":
        gone.send(b"set q 0 0 %d\r\n" % len(LARGE) + LARGE[:200_000])
    elif state == "does not read":
        other.set(f"big-{queue}", bytes(8 << 20))
        gone.send(b"get big-%b\r\n" % queue.encode())
        gone.read(1000)
    else:
        gone.send(b"nonsense\r\n")
    hang_up(gone)
    assert other.get(f"{queue}/t=9000") == b"x"
    wait_until(lambda: other.stats()["curr_connections"] == before)
    other.close()


def test_who_is_gone_while_its_replies_wait_for_an_fsync_holds_nothing(connect: Connect) -> None:
    other = connect()
    for hang_up in GONE:
        other.set("held", b"x")
        gone = connect()
        assert gone.get("held/open") == b"x"
        gone.send(b"set q/sync 0 0 1\r\nx\r\n" * 50)
        hang_up(gone)
        assert other.get("held/t=9000") == b"x"
    wait_until(lambda: other.stats()["curr_connections"] == "1")
