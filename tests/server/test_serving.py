"""What a client has sent is served: errors among its requests, and shares of the turn."""

import socket
import time
from collections.abc import Callable
from itertools import pairwise

import gevent
from gevent.socket import wait_read

from darner_core.config.options import Config
from darner_core.config.queues import QueueRules
from darner_core.config.values import SYNC_ALWAYS
from darner_core.server.server import Server
from darner_core.server.serving import LOOK_EVERY
from darner_core.server.shares import SHARE_S
from darner_core.storage.storage import Storage
from tests.support.harness import Client, RunningServer, wait_until

Connect = Callable[[], Client]

# -- errors


def test_an_error_is_read_even_if_the_client_is_still_sending(connect: Connect) -> None:
    client = connect()
    client.send(b"set q 0 0 1\r\nx\r\nnonsense\r\n" + b"set q 0 0 1\r\nx\r\n" * 20_000)
    client.expect(b"STORED\r\n")
    assert client.line().startswith(b'ERROR unknown command "nonsense"')
    client.expect_hang_up()


def test_an_error_gives_back_what_the_client_held(connect: Connect) -> None:
    client, other = connect(), connect()
    other.set("q", b"x")
    assert client.get("q/open") == b"x"
    client.send(b"nonsense\r\n")
    assert client.line().startswith(b"ERROR")
    assert other.get("q/t=5000") == b"x"


def test_one_clients_error_does_not_touch_another(connect: Connect) -> None:
    good = connect()
    good.send(b"set q 0 0 10\r\nhalf ")
    for garbage in (b"\x00" * 100, b"\r\n", b"get\r\n", b"set q 0 0 99999999999999999999999\r\n", b"x" * 9000):
        bad = connect()
        bad.send(garbage + b"\r\n")
        assert bad.line().startswith((b"ERROR", b"CLIENT_ERROR"))
        bad.expect_hang_up()
    good.ask(b"done.\r\n", b"STORED\r\n")
    assert good.get("q") == b"half done."


# -- shares


def test_floods_are_answered_whole_and_in_order_also_of_clients_that_have_said_all_they_will(connect: Connect) -> None:
    """More than one share each, so that all of them wait for theirs again and again."""
    clients = [connect() for _ in range(4)]
    requests = b"".join(b"set q%d 0 0 4\r\n%04d\r\nget q%d\r\n" % (n % 7, n, n % 7) for n in range(4_000))
    for number, client in enumerate(clients):
        client.send(requests.replace(b" q", b" c%d-q" % number))
        client.socket.shutdown(socket.SHUT_WR)
    for number, client in enumerate(clients):
        client.expect(
            b"".join(b"STORED\r\nVALUE c%d-q%d 0 4\r\n%04d\r\nEND\r\n" % (number, n % 7, n) for n in range(4_000))
        )
        client.expect_hang_up()


def test_who_floods_and_is_gone_gives_back_what_it_held(connect: Connect) -> None:
    other = connect()
    other.set("held", b"x")
    gone, alive = connect(), connect()
    assert gone.get("held/open") == b"x"
    for client in (gone, alive):
        client.send(b"get none\r\n" * 20_000)
    gone.reset()
    assert other.get("held/t=9000") == b"x"
    alive.expect(b"END\r\n" * 20_000)
    wait_until(lambda: other.stats()["curr_connections"] == "2")


def test_the_server_stops_beside_floods_and_answers_what_has_come(server: RunningServer) -> None:
    clients = [server.client() for _ in range(3)]
    for client in clients:
        client.send(b"get none\r\n" * 10_000)
    assert clients[0].read(5) == b"END\r\n"
    assert server.stop() == 0
    for client in clients:
        replies = client.read(60_000)
        assert replies
        assert replies == (b"END\r\n" * 10_000)[: len(replies)]


def test_so_many_requests_are_served_between_two_looks_at_the_clock(open_storage: Callable[[], Storage]) -> None:
    """Each look is the end of a share here: the others come then."""
    server = Server(Config(port=0), open_storage(), Config)
    served = [0]

    def clock() -> float:
        served.append(server.stats.get_misses)
        return len(served) * SHARE_S

    server.turn.shares.clock = clock
    server.start()
    flooders = [socket.create_connection(("127.0.0.1", server.acceptor.listeners[0].port)) for _ in range(5)]
    for flooder in flooders:
        flooder.sendall(b"get none\r\n" * 1_000)
    deadline = time.monotonic() + 10
    while server.stats.get_misses < 5_000 and time.monotonic() < deadline:
        gevent.sleep(0.001)
    for flooder in flooders:
        flooder.close()
    server.request_stop()
    server.wait_stopped()
    assert server.stats.get_misses == 5_000
    assert max(after - before for before, after in pairwise(served)) == LOOK_EVERY


# -- an fsync


def test_a_set_that_comes_alone_waits_for_the_fsync_that_its_queue_wants(
    open_storage: Callable[[], Storage],
) -> None:
    storage = open_storage()
    syncs: list[None] = []
    storage.sync = lambda: syncs.append(None)
    server = Server(Config(port=0, rules=QueueRules(queues={b"q": {"sync": SYNC_ALWAYS}})), storage, Config)
    server.start()
    with socket.create_connection(("127.0.0.1", server.acceptor.listeners[0].port)) as client:
        client.setblocking(False)
        for asked in range(1, 4):
            client.sendall(b"set q 0 0 1\r\nx\r\n")
            wait_read(client.fileno(), timeout=10)
            assert client.recv(100) == b"STORED\r\n"
            assert len(syncs) == asked
    server.request_stop()
    server.wait_stopped()
