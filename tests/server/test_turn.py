"""The turn over all clients: who is served right there, who is not, and what happens when the turn ends."""

import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from darner_core.errors import RequestError, StorageError
from darner_core.operations.stats import Stats
from darner_core.protocols.contract import Command, Request
from darner_core.protocols.memcache.lines import parse_naming, parse_storing
from darner_core.protocols.memcache.reader import LineRequest, RequestReader
from darner_core.server import poller
from darner_core.server.poller import make_poller
from darner_core.server.shares import TURN_S
from darner_core.server.turn import Turn
from darner_core.shared_memory import PipelineMemory
from tests.support.feeding import feed

MOST_SPINS = 20

opened: list[socket.socket] = []  # closed after each test
kept: dict[bytes, LineRequest] = {}  # the lines that all clients share


class Peer:
    """A client: its end of the connection, and, as `turn.Client`, what the turn does with the server's end."""

    def __init__(self, turn: Turn) -> None:
        self.end, self.socket = socket.socketpair()
        opened.extend((self.end, self.socket))
        self.end.setblocking(False)
        self.socket.setblocking(False)
        self.fd = self.socket.fileno()
        self.recv: Callable[[int], bytes] = self.socket.recv
        self.send: Callable[[bytes], int] = self.socket.send
        self.kept_line: Callable[[bytes], Any] = kept.get
        self.replies: list[bytes] = []
        self.special = False
        self.session: Any = None
        self.happened: list[Any] = []
        self.turn = turn
        self.used_s = self.last_share_s = 0.0
        turn.enter(self.fd, self)
        turn.read_plain(self.fd, self)

    def says(self, data: bytes) -> None:
        """`data` arrives, and what is ready is served."""
        self.end.send(data)
        run_loop()

    def hears(self) -> bytes:
        try:
            return self.end.recv(4096)
        except BlockingIOError:
            return b""

    def be_special(self) -> None:
        self.special = True
        self.turn.special.append(self)

    # -- as the turn sees it

    def serve(self, data: bytes) -> None:
        self.happened.append(data)

    def failed(self, request: Request, error: Exception) -> None:
        self.happened.append(error)

    def start_task(self, task: Any) -> None:
        self.happened.append(task)

    def wait_to_write(self, unsent: bytes) -> None:
        self.happened.append(("unsent", unsent))

    def hang_up(self) -> None:
        self.happened.append("gone")
        self.replies.clear()
        self.turn.forget(self.fd)

    def broken(self) -> None:
        self.happened.append("broken")

    def serve_share(self) -> None:
        self.happened.append("share")

    def end_turn(self, sync: bool) -> None:
        assert not self.special
        self.happened.append(("end", sync, self.replies))

    def fail_turn(self, error: StorageError) -> None:
        self.happened.append(error)


class Journal:
    """Has nothing to write."""

    def __init__(self) -> None:
        self.slices: deque[Iterator[None]] = deque()
        self.error: Exception | None = None

    def commit(self) -> bool:
        if self.error is not None:
            raise self.error
        return False


class Disk:
    look_at_bytes = 1

    def __init__(self) -> None:
        self.looks = 0
        self.errors: list[StorageError] = []

    def look_for_room(self) -> None:
        self.looks += 1

    def write_failed(self, error: StorageError) -> None:
        self.errors.append(error)


def run_loop() -> None:
    """Several rounds: on a busy machine a timer may be due in the round in which it was set."""
    for _ in range(4):
        gevent.sleep(0.001)


def answer(request: LineRequest, body: bytes | None, session: object) -> Any:
    """The command of these tests: says what it was given, or does what the queue is called."""
    if request.queue == b"waits":
        return "a task"
    if request.queue == b"fails":
        raise RequestError("no")
    if request.queue == b"breaks":
        raise ZeroDivisionError
    return b"" if request.noreply else b"%b(%b)" % (request.queue, body or b"")


@pytest.fixture(params=["epoll", "gevent"])
def turn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Turn]:
    monkeypatch.setattr(poller, "LOOK_S", 0.01)
    kept.clear()
    reader = RequestReader(
        {b"set": Command(parse_storing, answer), b"flush": Command(parse_naming, answer)}, kept, 8192, chunk_bytes=100
    )
    for line in (b"set q 0 0 2", b"set q 0 0 0", b"set q 0 0 2 noreply", b"set q/sync 0 0 2"):
        feed(reader, line + b"\r\n\r\n" if line == b"set q 0 0 0" else line + b"\r\nxx\r\n")
    for name in (b"q", b"waits", b"fails", b"breaks"):
        feed(reader, b"flush %b\r\n" % name)
    feed(reader, b"flush bare\nset bare 0 0 0\n\r\n")
    feed(RequestReader({b"set": Command(parse_storing, answer)}, kept, 8192, chunk_bytes=100), b"set q 0 0 101\r\n")
    loop = gevent.get_hub().loop
    made = Turn(loop, make_poller(request.param, loop), Stats(), Journal(), Disk(), PipelineMemory(1 << 20))
    monkeypatch.setattr(made, "end", lambda: None)  # these tests end it themselves, by `send` or `fail`
    yield made
    made.close()
    while opened:
        opened.pop().close()


@pytest.fixture
def peer(turn: Turn) -> Peer:
    return Peer(turn)


@pytest.mark.parametrize(
    ("said", "reply"),
    [(b"flush q\r\n", b"q()"), (b"set q 0 0 2\r\n\r\n\r\n", b"q(\r\n)"), (b"set q 0 0 0\r\n\r\n", b"q()")],
)
def test_one_whole_request_is_served_and_answered_at_the_end_of_the_turn(
    turn: Turn, peer: Peer, said: bytes, reply: bytes
) -> None:
    peer.says(said)
    assert peer.hears() == b""
    turn.send(sync=False)
    assert peer.hears() == reply
    assert (peer.replies, turn.served, peer.happened) == ([], [], [])


@pytest.mark.parametrize(
    "said",
    [
        b"flush",
        b"flush q",
        b"flush q\r",
        b"flush bare",
        b"set bare 0 0 0",
        b"set q 0 0 2\r",
        b"flush other\r\n",
        b"flush q\r\nflush q\r\n",
        b"set q 0 0 2\r\n",
        b"set q 0 0 2\r\nab",
        b"set q 0 0 2\r\nab\r",
        b"set q 0 0 2\r\nabcd",
        b"set q 0 0 2\r\nabc\r\n",
        b"set q 0 0 0\r\nab",
        b"set q/sync 0 0 2\r\nab\r\n",
        b"set q 0 0 101\r\n",
        b"set q 0 0 101\r\n" + b"x" * 101 + b"\r\n",
        b"\n",
    ],
)
def test_all_else_is_left_to_the_connection(turn: Turn, peer: Peer, said: bytes) -> None:
    peer.says(said)
    assert peer.happened == [said]
    assert turn.served == []


def test_what_asks_for_no_reply_gets_none(turn: Turn, peer: Peer) -> None:
    peer.says(b"set q 0 0 2 noreply\r\nab\r\n")
    assert (turn.served, peer.happened) == ([], [])


def test_a_command_that_waits_or_fails_does_not_hold_up_the_next_client(turn: Turn) -> None:
    peers = [Peer(turn) for _ in range(4)]
    for peer, name in zip(peers, (b"waits", b"fails", b"breaks", b"q"), strict=True):
        peer.end.send(b"flush %b\r\n" % name)
    run_loop()
    assert peers[0].happened == ["a task"]
    assert [type(peer.happened[0]) for peer in peers[1:3]] == [RequestError, ZeroDivisionError]
    assert peers[3].replies == [b"q()"]


def test_what_goes_wrong_with_one_client_is_not_felt_by_the_others(turn: Turn) -> None:
    peers = [Peer(turn) for _ in range(4)]

    def breaks(*_: Any) -> None:
        raise ZeroDivisionError

    peers[0].serve = breaks  # type: ignore[method-assign,assignment]
    peers[1].failed = breaks  # type: ignore[method-assign,assignment]
    turn.read_by(peers[2].fd, breaks)
    for _ in range(2):
        for peer, said in zip(peers, (b"half", b"flush breaks\r\n", b"x", b"flush q\r\n"), strict=True):
            peer.end.send(said)
        run_loop()
    assert [peer.happened for peer in peers] == [["gone"], ["gone"], [], []]
    assert peers[3].replies == [b"q()"] * 2


def test_what_goes_wrong_at_the_end_of_one_clients_turn_is_not_felt_by_the_others(turn: Turn) -> None:
    peers = [Peer(turn) for _ in range(2)]

    def breaks(*_: Any) -> None:
        raise ZeroDivisionError

    peers[0].end_turn = breaks  # type: ignore[method-assign,assignment]
    for peer in peers:
        peer.be_special()
    turn.send(sync=False)
    assert [peer.happened for peer in peers] == [["gone"], [("end", False, [])]]


def test_who_is_served_twice_in_a_turn_is_answered_once_and_in_order(turn: Turn, peer: Peer) -> None:
    peer.says(b"flush q\r\n")
    peer.says(b"set q 0 0 2\r\nab\r\n")
    sent = []
    peer.send = lambda data: sent.append(data) or len(data)
    turn.send(sync=False)
    assert sent == [b"q()q(ab)"]


def test_a_hang_up_is_noticed(turn: Turn, peer: Peer) -> None:
    peer.end.close()
    run_loop()
    assert peer.happened == ["gone"]


def test_who_has_said_all_it_will_is_answered_before_its_hang_up_is_noticed(turn: Turn) -> None:
    peers = [Peer(turn) for _ in range(3)]
    for peer in peers:
        peer.end.send(b"flush q\r\n")
        peer.end.shutdown(socket.SHUT_WR)
    run_loop()
    turn.send(sync=False)
    assert [peer.hears() for peer in peers] == [b"q()"] * 3
    run_loop()
    assert [peer.happened for peer in peers] == [["gone"]] * 3


def test_nobody_reads_what_an_ignored_client_says_and_the_loop_does_not_spin(turn: Turn, peer: Peer) -> None:
    turn.ignore(peer.fd)
    peer.says(b"flush q\r\n")
    turns = []
    watcher = gevent.get_hub().loop.prepare()
    watcher.start(lambda: turns.append(1))
    gevent.sleep(0.05)
    watcher.stop()
    assert len(turns) < MOST_SPINS
    assert (turn.served, peer.happened) == ([], [])
    turn.read_plain(peer.fd, peer)
    run_loop()
    assert turn.served == [peer]


def turns_of_the_loop() -> int:
    turns = []
    watcher = gevent.get_hub().loop.prepare()
    watcher.start(lambda: turns.append(1))
    gevent.sleep(0.05)
    watcher.stop()
    return len(turns)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        return client, listening.accept()[0]


def reset(end: socket.socket) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()


@pytest.fixture
def tcp_peer(turn: Turn, monkeypatch: pytest.MonkeyPatch) -> Peer:
    monkeypatch.setattr(socket, "socketpair", tcp_pair)
    return Peer(turn)


@pytest.mark.parametrize("ahead", [b"", b"flush q\r\n"])
def test_a_reset_is_told_once_while_nobody_reads_and_the_loop_does_not_spin(
    turn: Turn, tcp_peer: Peer, ahead: bytes
) -> None:
    turn.ignore(tcp_peer.fd)
    if ahead:
        tcp_peer.says(ahead)
    reset(tcp_peer.end)
    assert turns_of_the_loop() < MOST_SPINS
    assert tcp_peer.happened == ["broken"]


def test_who_has_said_all_it_will_is_left_alone_while_nobody_reads(turn: Turn, tcp_peer: Peer) -> None:
    turn.ignore(tcp_peer.fd)
    tcp_peer.end.shutdown(socket.SHUT_WR)
    assert turns_of_the_loop() < MOST_SPINS
    assert tcp_peer.happened == []
    turn.read_plain(tcp_peer.fd, tcp_peer)
    run_loop()
    assert tcp_peer.happened == ["gone"]


def test_what_a_unix_client_has_sent_before_it_went_is_still_read(turn: Turn, peer: Peer) -> None:
    turn.ignore(peer.fd)
    peer.end.send(b"flush q\r\n")
    peer.end.close()
    assert turns_of_the_loop() < MOST_SPINS
    assert peer.happened == []
    turn.read_plain(peer.fd, peer)
    run_loop()
    assert peer.replies == [b"q()"]


@pytest.mark.parametrize("end", [lambda end: end.shutdown(socket.SHUT_WR), socket.socket.close, reset])
def test_the_end_of_a_client_that_is_not_read_can_be_awaited(
    turn: Turn, tcp_peer: Peer, end: Callable[[socket.socket], None]
) -> None:
    def note() -> None:
        tcp_peer.happened.append("end")
        turn.ignore(tcp_peer.fd)

    turn.await_end(tcp_peer.fd, note)
    tcp_peer.says(b"flush q\r\n")
    assert tcp_peer.happened == []
    end(tcp_peer.end)
    assert turns_of_the_loop() < MOST_SPINS
    assert tcp_peer.happened[0] == "end"


# -- shares


class Clock:
    """Moves only when somebody is served."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Flooder(Peer):
    """Always wants more, and takes `cost_s` each time."""

    def __init__(self, turn: Turn, clock: Clock, cost_s: float, served: list[Peer]) -> None:
        super().__init__(turn)
        self.clock, self.cost_s, self.order = clock, cost_s, served

    def serve_share(self) -> None:
        self.order.append(self)
        self.clock.now += self.cost_s
        self.turn.shares.join(self)


@pytest.fixture
def clock(turn: Turn) -> Clock:
    made = Clock()
    turn.shares.clock = made
    return made


def test_who_asks_once_is_answered_before_the_shares_of_a_turn_begin(turn: Turn, clock: Clock, peer: Peer) -> None:
    happened: list[Any] = []
    turn.end = lambda: happened.append(peer.replies)  # type: ignore[method-assign]
    order: list[Peer] = happened
    turn.shares.join(Flooder(turn, clock, TURN_S, order))
    peer.end.send(b"flush q\r\n")
    run_loop()
    assert happened[0] == [b"q()"]
    assert isinstance(happened[-1], Flooder)


def test_what_goes_wrong_in_one_share_does_not_stop_the_others(turn: Turn, clock: Clock, peer: Peer) -> None:
    def breaks() -> None:
        raise ZeroDivisionError

    other = Peer(turn)
    peer.serve_share = breaks  # type: ignore[method-assign]
    turn.shares.join(peer)
    turn.shares.join(other)
    run_loop()
    assert (peer.happened, other.happened) == (["gone"], ["share"])


def test_who_cannot_be_hung_up_on_in_its_share_does_not_stop_the_others(turn: Turn, clock: Clock) -> None:
    def breaks() -> None:
        raise ZeroDivisionError

    peer, other = Peer(turn), Peer(turn)
    peer.serve_share = peer.hang_up = breaks  # type: ignore[method-assign]
    turn.shares.join(peer)
    turn.shares.join(other)
    turn._on_ready()
    assert other.happened == ["share"]


def test_a_callback_reads_instead_until_the_client_is_plain_again(turn: Turn, peer: Peer) -> None:
    turn.read_by(peer.fd, lambda: peer.happened.append(peer.recv(100)))
    peer.says(b"flush q\r\n")
    assert peer.happened == [b"flush q\r\n"]
    turn.read_plain(peer.fd, peer)
    peer.says(b"flush q\r\n")
    assert turn.served == [peer]


def test_the_descriptor_of_a_forgotten_client_can_be_the_next_ones(turn: Turn, peer: Peer) -> None:
    turn.forget(peer.fd)
    peer.socket.close()
    after = Peer(turn)
    after.says(b"flush q\r\n")
    assert turn.served == [after]


def test_who_is_special_ends_the_turn_in_its_own_way(turn: Turn, peer: Peer) -> None:
    peer.says(b"flush q\r\n")
    peer.be_special()
    turn.send(sync=False)
    assert peer.happened == [("end", False, [b"q()"])]
    assert peer.hears() == b""


def test_an_fsync_for_all_is_asked_for_once_by_each(turn: Turn) -> None:
    peers = [Peer(turn) for _ in range(3)]
    for peer in peers:
        peer.says(b"flush q\r\n")
    peers[0].be_special()
    turn.served.append(peers[1])
    turn.send(sync=True)
    assert [peer.happened for peer in peers] == [[("end", True, [b"q()"])]] * 3
    assert [peer.hears() for peer in peers] == [b""] * 3


def test_what_a_client_does_not_take_is_left_to_the_connection(turn: Turn) -> None:
    slow, blocked, gone, quick = (Peer(turn) for _ in range(4))
    for peer in (slow, blocked, gone, quick):
        peer.says(b"flush q\r\n")

    def raises(error: OSError) -> Callable[[bytes], int]:
        def send(_: bytes) -> int:
            raise error

        return send

    slow.send = lambda data: 1
    blocked.send = raises(BlockingIOError())
    gone.send = raises(ConnectionResetError())
    turn.send(sync=False)
    assert slow.happened == [("unsent", b"()")]
    assert blocked.happened == [("unsent", b"q()")]
    assert gone.happened == ["gone"]
    assert quick.hears() == b"q()"
    assert slow.replies == blocked.replies == quick.replies == []


def test_a_failed_turn_is_told_to_each_once(turn: Turn) -> None:
    peers = [Peer(turn) for _ in range(2)]
    for peer in peers:
        peer.says(b"flush q\r\n")
    peers[0].be_special()
    error = StorageError("full")
    turn.fail(error)
    assert [peer.happened for peer in peers] == [[error], [error]]


def test_bytes_are_counted(turn: Turn, peer: Peer) -> None:
    stats = turn._stats
    peer.says(b"flush q\r\n")
    turn.send(sync=False)
    assert (stats.bytes_read, stats.bytes_written) == (9, 3)


def test_who_cannot_even_be_hung_up_on_stops_nobody(turn: Turn) -> None:
    peers = [Peer(turn) for _ in range(5)]

    def breaks(*_: Any) -> Any:
        raise ZeroDivisionError

    for peer in peers[:4]:
        peer.hang_up = breaks  # type: ignore[method-assign]
    peers[0].serve = breaks  # type: ignore[method-assign,assignment]
    peers[1].send = lambda data: 0
    peers[1].wait_to_write = breaks  # type: ignore[method-assign,assignment]
    peers[2].end_turn = breaks  # type: ignore[method-assign,assignment]
    peers[3].fail_turn = breaks  # type: ignore[method-assign,assignment]
    for peer, said in zip(peers, (b"half", *[b"flush q\r\n"] * 4), strict=True):
        peer.end.send(said)
    peers[2].be_special()
    run_loop()
    turn.fail(StorageError("no room"))
    turn.send(sync=False)
    assert peers[4].hears() == b"q()"
    assert isinstance(peers[4].happened[0], StorageError)
    peers[4].says(b"flush q\r\n")
    assert peers[4].replies == [b"q()"]


# -- the end of the turn


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> Iterator[Turn]:
    """A turn that ends by itself."""
    loop = gevent.get_hub().loop
    made = Turn(loop, make_poller("auto", loop), Stats(), Journal(), Disk(), PipelineMemory(1 << 20))
    made.start()
    yield made
    made.close()
    while opened:
        opened.pop().close()


def test_what_is_served_is_answered_before_the_loop_sleeps(turn: Turn, whole: Turn) -> None:
    peer = Peer(whole)
    peer.says(b"flush q\r\n")
    assert peer.hears() == b"q()"


def test_of_a_turn_that_cannot_be_written_everybody_is_told(turn: Turn, whole: Turn) -> None:
    peer, error = Peer(whole), StorageError("no space")
    whole._journal.error = error  # type: ignore[attr-defined]
    peer.says(b"flush q\r\n")
    assert error in peer.happened
    assert whole._disk.errors[0] is error  # type: ignore[attr-defined]


def test_what_is_too_much_for_a_turn_goes_on_by_one_step_in_each(turn: Turn, whole: Turn) -> None:
    steps: list[str] = []

    def work(name: str) -> Iterator[None]:
        for _ in range(3):
            steps.append(name)
            yield
        if name == "b":
            raise ZeroDivisionError

    whole._journal.slices.extend([work("a"), work("b")])
    run_loop()
    assert steps == ["a", "b"] * 3
    assert not whole._journal.slices


def test_room_is_looked_for_when_much_has_been_received(turn: Turn, whole: Turn) -> None:
    run_loop()
    disk: Any = whole._disk
    assert disk.looks == 0
    Peer(whole).says(b"flush q\r\n")
    assert disk.looks > 0
