"""The table of states: real clients come into each of them, go on from each, and are cut off in each."""

from collections.abc import Callable, Iterator

import gevent
import gevent.socket as socket
import pytest

from darner_core.config.options import Config
from darner_core.server.careful import cut_off
from darner_core.server.client_greenlet import ClientGreenlet
from darner_core.server.connection import Connection
from darner_core.server.server import Server
from darner_core.server.shares import SHARE_S
from darner_core.server.states import MOVES, UNOCCUPIED, WOKEN_AT_END, Ending, State
from darner_core.storage.storage import Storage
from darner_core.waiters import Waiter, WaitingLine

LARGE = 300_000  # bytes of an item that is received in chunks
Move = tuple[State, State]


class House:
    """A server in this process, and the moves of its clients."""

    def __init__(self, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.moves: set[Move] = set()
        move = Connection.move

        def record(connection: Connection, state: State) -> None:
            self.moves.add((connection.state, state))
            move(connection, state)
            assert connection.ending is None or state not in (State.READ, State.IN_BODY)

        monkeypatch.setattr(Connection, "move", record)
        self.server = Server(Config(port=0), storage, Config)
        self.server.start()
        self.sockets: list[socket.socket] = []

    def connect(self, says: bytes = b"") -> tuple[socket.socket, Connection]:
        before = set(self.server.acceptor.connections)
        end = socket.create_connection(("127.0.0.1", self.server.acceptor.listeners[0].port), 10)
        self.sockets.append(end)
        until(lambda: len(self.server.acceptor.connections) > len(before))
        (connection,) = self.server.acceptor.connections - before
        assert isinstance(connection, Connection)
        end.sendall(says)
        return end, connection

    def fill(self, queue: bytes, count: int) -> None:
        end, _ = self.connect(b"set %b 0 0 100000\r\n%b\r\n" % (queue, bytes(100_000)) * count)
        until(lambda: self.server.stats.cmd_set == count)
        end.close()
        until(lambda: not self.server.acceptor.connections)

    def come_into(self, state: State) -> tuple[socket.socket, Connection]:
        """A client in `state`, in which it stays."""
        if state is State.PAUSED:
            self.fill(b"slow", 80)
            end, connection = self.connect()
            while connection.state is not state:  # one get at a time: several at once would make it SENDING
                hits = self.server.stats.get_hits
                end.sendall(b"get slow\r\n")
                until(lambda hits=hits: self.server.stats.get_hits > hits)  # type: ignore[misc]
                gevent.sleep(0)
        elif state is State.SENDING:
            self.fill(b"slow", 80)
            end, connection = self.connect(b"get slow\r\n" * 80)
            gevent.sleep(0.3)
        elif state is State.IN_SHARES:
            shares = self.server.turn.shares
            shares.join = lambda client, asks_anew=False: None  # type: ignore[method-assign]
            shares.ends = lambda: shares.clock() - SHARE_S  # type: ignore[method-assign]
            shares.crowded = True
            end, connection = self.connect()
            gevent.get_hub().loop.run_callback(connection.serve, b"version\r\n" * 1000)
        else:
            end, connection = self.connect(
                {
                    State.READ: b"",
                    State.IN_LINE: b"get none/t=60000\r\n",
                    State.IN_BODY: b"set large 0 0 %d\r\n" % LARGE,
                    State.LINGERING: b"bogus\r\n",
                    State.BUSY: b"",
                }[state]
            )
        until(lambda: connection.state is state)
        return end, connection

    def close(self) -> None:
        for end in self.sockets:
            end.close()
        self.server.request_stop()
        self.server.wait_stopped()


def until(true: Callable[[], object]) -> None:
    with gevent.Timeout(10):
        while not true():
            gevent.sleep(0.001)


@pytest.fixture
def house(open_storage: Callable[[], Storage], monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    made = House(open_storage(), monkeypatch)
    yield made
    made.close()


STAYS = [state for state in State if state not in (State.BUSY, State.GONE)]


@pytest.mark.parametrize("state", STAYS)
def test_a_client_that_is_cut_off_in_any_state_is_gone(house: House, state: State) -> None:
    _, connection = house.come_into(state)
    gevent.get_hub().loop.run_callback(cut_off, connection)
    until(lambda: connection.state is State.GONE and connection not in house.server.acceptor.connections)
    assert (state, State.GONE) in house.moves
    assert connection.session.holds_nothing
    assert connection.outbox.is_empty
    assert not connection.inbox.ahead
    assert house.server.pipeline_memory.used_bytes == 0


@pytest.mark.parametrize("state", [state for state in STAYS if state is not State.LINGERING])
def test_a_client_goes_on_from_any_wait(house: House, state: State) -> None:
    end, connection = house.come_into(state)
    if state is State.IN_LINE:
        house.connect(b"set none 0 0 1\r\nx\r\n")
    elif state is State.IN_BODY:
        end.sendall(bytes(LARGE) + b"\r\n")
    elif state is State.IN_SHARES:
        del house.server.turn.shares.ends, house.server.turn.shares.join
        gevent.get_hub().loop.run_callback(connection.serve_share)
    end.setblocking(False)

    def is_read() -> bool:
        try:
            while end.recv(1 << 20):
                pass
        except BlockingIOError:
            pass
        return connection.state is State.READ

    until(is_read)
    end.sendall(b"get none/t=1\r\n")
    until(lambda: (State.READ, State.BUSY) in house.moves and connection.state is State.READ)
    assert (state, State.BUSY) in house.moves or (state, State.READ) in house.moves
    assert house.moves <= {(before, after) for before, several in MOVES.items() for after in several}


def test_a_move_that_is_not_in_the_table_is_an_error(house: House) -> None:
    _, connection = house.come_into(State.READ)
    with pytest.raises(RuntimeError, match=r"cannot go from .*READ to .*SENDING"):
        connection.move(State.SENDING)


def test_a_client_that_ends_is_not_read(house: House) -> None:
    _, connection = house.come_into(State.READ)
    connection.close(Ending.AT_ONCE)
    assert connection.state is State.PAUSED
    connection.resume()
    assert connection.state is State.PAUSED
    gevent.get_hub().loop.run_callback(cut_off, connection)


def test_the_table_is_whole() -> None:
    assert MOVES.keys() == set(State)
    assert all(State.GONE in after for before, after in MOVES.items() if before is not State.GONE)
    assert MOVES[State.GONE] == set()
    reached = set().union(*MOVES.values())
    assert reached == set(State)
    waits = {state for state in State if State.BUSY in MOVES[state]}
    assert UNOCCUPIED < WOKEN_AT_END < waits


@pytest.mark.parametrize("waits", ["share", "in_line", "in_body"])
def test_a_task_that_does_not_see_its_client_go_waits_for_nothing_afterwards(
    house: House, waits: str, caplog: pytest.LogCaptureFixture
) -> None:
    _, connection = house.come_into(State.READ)
    ended: list[BaseException | None] = []

    def task(client: ClientGreenlet) -> bytes:
        gevent.sleep(0.01)
        try:
            if waits == "share":
                return b""  # the shares come next, as after any task
            if waits == "in_line":
                client.wait_for(Waiter(WaitingLine(), peeks=False), 60_000)
            client.wait_body(10)
        except BaseException as error:
            ended.append(error)
            raise
        raise AssertionError("it waited")

    shares = house.server.turn.shares
    connection.backlog = iter(())
    gevent.get_hub().loop.run_callback(connection._greenlet.switch, task)
    gevent.sleep(0)
    gevent.get_hub().loop.run_callback(cut_off, connection)
    until(lambda: connection not in house.server.acceptor.connections)
    assert not caplog.records
    assert connection.waiter is None
    assert not shares.crowded
