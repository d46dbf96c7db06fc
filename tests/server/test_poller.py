"""Who can be read, told by the epoll and by gevent's watchers alike."""

import select
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from darner_core.errors import StartError
from darner_core.server import poller as poller_module
from darner_core.server.poller import ENDED, FAILED, READABLE, Epoll, Poller, Watchers, make_poller


class Told:
    """What a poller has told."""

    def __init__(self, poller: Poller) -> None:
        self.poller = poller
        self.events: list[tuple[int, int]] = []
        self.first: list[tuple[int, int]] = []
        poller.start(self._on_ready)

    def _on_ready(self) -> None:
        told = self.poller.poll(0, 100)
        self.first = self.first or told
        self.events += told

    def until(self, true: Callable[[], object]) -> None:
        with gevent.Timeout(5):
            while not true():
                gevent.sleep(0.001)


@pytest.fixture(params=["epoll", "gevent"])
def told(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    monkeypatch.setattr(poller_module, "LOOK_S", 0.01)
    if request.param == "epoll" and not hasattr(select, "epoll"):
        pytest.skip("there is no epoll here")
    poller = make_poller(request.param, gevent.get_hub().loop)
    yield Told(poller)
    poller.close()


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        one = socket.create_connection(listening.getsockname())
        other = listening.accept()[0]
    with one, other:
        yield one, other


def test_a_socket_that_can_be_read_is_told_until_it_is_read(told: Told, ends: Any) -> None:
    one, other = ends
    told.poller.watch(other.fileno(), READABLE)
    gevent.sleep(0.02)
    assert told.events == []
    one.send(b"x")
    told.until(lambda: len(told.events) > 2)
    assert set(told.events) == {(other.fileno(), READABLE)}
    other.recv(10)
    gevent.sleep(0.02)
    told.events.clear()
    gevent.sleep(0.02)
    assert told.events == []


def test_a_socket_that_is_not_watched_is_not_told(told: Told, ends: Any) -> None:
    one, other = ends
    told.poller.watch(other.fileno(), READABLE)
    one.send(b"x")
    told.until(lambda: told.events)
    told.poller.watch(other.fileno(), 0)
    gevent.sleep(0.02)
    told.events.clear()
    gevent.sleep(0.05)
    assert told.events == []
    told.poller.watch(other.fileno(), READABLE)
    told.until(lambda: told.events)
    told.poller.unwatch(other.fileno())
    gevent.sleep(0.02)
    told.events.clear()
    gevent.sleep(0.05)
    assert told.events == []


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="only Linux can tell")
def test_an_end_is_told_though_there_is_something_to_read_before_it(told: Told, ends: Any) -> None:
    one, other = ends
    one.send(b"x")
    told.poller.watch(other.fileno(), ENDED)
    gevent.sleep(0.03)
    assert told.events == []
    one.shutdown(socket.SHUT_WR)
    told.until(lambda: told.events)
    assert told.events[0] == (other.fileno(), ENDED)


@pytest.mark.skipif(not hasattr(select, "poll"), reason="cannot be told")
def test_a_reset_is_told_though_nobody_reads(told: Told, ends: Any) -> None:
    one, other = ends
    told.poller.watch(other.fileno(), 0)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()
    told.until(lambda: told.events)
    fd, events = told.events[0]
    assert fd == other.fileno()
    assert events & FAILED


def test_all_that_are_ready_in_a_round_are_told_in_one_call(told: Told) -> None:
    pairs = [socket.socketpair() for _ in range(20)]
    for one, other in pairs:
        told.poller.watch(other.fileno(), READABLE)
        one.send(b"x")
    told.until(lambda: told.events)
    for one, other in pairs:
        told.poller.unwatch(other.fileno())
        one.close()
        other.close()
    assert len(told.first) == 20


def test_more_than_are_asked_for_are_told_the_next_time() -> None:
    poller = Watchers(gevent.get_hub().loop)
    pairs = [socket.socketpair() for _ in range(5)]
    told: list[list[tuple[int, int]]] = []
    poller.start(lambda: told.append(poller.poll(0, 3)))
    for one, other in pairs:
        poller.watch(other.fileno(), READABLE)
        one.send(b"x")
    gevent.sleep(0.02)
    poller.close()
    fds = {other.fileno() for _, other in pairs}
    for one, other in pairs:
        one.close()
        other.close()
    assert len(told[0]) == 3
    assert {fd for fd, _ in told[0] + told[1]} == fds


def test_the_best_there_is_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = gevent.get_hub().loop
    if hasattr(select, "epoll"):
        best = make_poller("auto", loop)
        assert isinstance(best, Epoll)
        best.close()
    monkeypatch.delattr(select, "epoll", raising=False)
    assert isinstance(make_poller("auto", loop), Watchers)
    with pytest.raises(StartError, match="this system has none"):
        make_poller("epoll", loop)


def test_where_there_is_no_poll_only_what_is_read_is_told(monkeypatch: pytest.MonkeyPatch, ends: Any) -> None:
    monkeypatch.delattr(select, "poll")
    one, other = ends
    told = Told(Watchers(gevent.get_hub().loop))
    told.poller.watch(other.fileno(), 0)
    one.close()
    gevent.sleep(0.05)
    assert told.events == []
    told.poller.watch(other.fileno(), READABLE)
    told.until(lambda: told.events)
    told.poller.close()
