"""Logging in, as memcached's text protocol has it; and that nothing gets past who has not."""

import random
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pymemcache
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darner_core.access.access import Access, AccessOptions
from darner_core.access.origins import Origin
from darner_core.access.rights import FREE, PUT
from darner_core.errors import ClientError
from darner_core.protocols.contract import Command, Vocabulary
from darner_core.protocols.guard import Guard
from darner_core.protocols.memcache.dialects import DIALECTS
from darner_core.protocols.memcache.lines import parse_bare, parse_storing
from darner_core.protocols.memcache.reader import RequestReader
from darner_core.server.tls import make_context
from tests.server.test_connection import LARGE
from tests.support.harness import Client, RunningServer, wait_until
from tests.support.identities import FAILURE, UNAUTHENTICATED, UnixClient, login, write_users

Start = Callable[..., RunningServer]


@pytest.fixture
def server(start_server: Start, tmp_path: Path) -> RunningServer:
    file = write_users(tmp_path / "users", bob="secret", eve="two words ", machine="*")
    return start_server("--auth-file", str(file))


@pytest.fixture
def bob(server: RunningServer) -> Client:
    client = server.client()
    client.ask(login("bob", "secret"), b"STORED\r\n")
    return client


def test_who_has_logged_in_may_do_everything(bob: Client) -> None:
    bob.set("q", b"a")
    bob.set("q", LARGE, flags=7)
    assert [bob.get("q"), bob.get("q/open"), bob.get("q/close")] == [b"a", LARGE, None]
    bob.ask(b"set q 0 0 1\r\nx\r\nget q\r\n", b"STORED\r\nVALUE q 0 1\r\nx\r\nEND\r\n")
    bob.ask(b"delete q\r\nflush_all\r\n", b"DELETED\r\nFlushed all queues.\r\n")


def test_the_login_is_no_item(bob: Client) -> None:
    stats = bob.stats()
    assert (stats["queue_creates"], stats["cmd_set"]) == ("0", "0")
    bob.set("auth", b"bob secret")  # the second one is
    assert bob.get("auth") == b"bob secret"


GOOD_LOGINS = [
    login("bob", "secret"),
    login("eve", "two words "),
    b"set a/b/c 7 9 10\r\nbob secret\r\n",
    b"SET  k  1 2  10 \nbob secret\r\n",
]


def test_every_way_to_write_the_login_is_understood(server: RunningServer) -> None:
    for request in GOOD_LOGINS:
        server.client().ask(request + b"get q\r\n", b"STORED\r\nEND\r\n")
    server.client().ask(b"set k 0 0 10 noreply\r\nbob secret\r\nget q\r\n", b"END\r\n")


BAD_LOGINS = [
    login("bob", "secre"),
    login("bob", "secret "),
    login("bob", ""),
    login("Bob", "secret"),
    login("nobody", "secret"),
    login("machine", "*"),
    login("machine", ""),
    b"set k 0 0 0\r\n\r\n",
    b"set k 0 0 6\r\nsecret\r\n",
    b"set k 0 0 10 noreply\r\nbob secreT\r\n",
    b"set k 0 0 9\r\nbob secret\r\n",
    b"set k 0 0 10\r\n\xff\xfe secret\r\n",
    b"set k 0 0 513\r\n" + b"x" * 513 + b"\r\n",
    b"set k 0 0 99999999999999999999999999\r\n",
]


def test_a_wrong_login_is_refused_and_ends_the_connection(server: RunningServer) -> None:
    for request in BAD_LOGINS:
        client = server.client()
        address = "{}:{}".format(*client.socket.getsockname())
        client.ask(request + b"version\r\nget q\r\n", FAILURE)
        client.expect_hang_up()
        assert f"WARNING authentication failure: {address}: " in server.printed()
    assert "secret" not in server.printed()


STRANGERS = [
    b"version\r\n",
    b"quit\r\n",
    b"stats\r\n",
    b"get q\r\n",
    b"get q/t=1000\r\n",
    b"flush_all\r\n",
    b"delete q\r\n",
    b"set q 0 0\r\n",
    b"set q 0 0 x\r\n",
    b"set q 0 0 -1\r\n",
    b"add q 0 0 10\r\nbob secret\r\n",
    b"set q 0 0 10 yes\r\nbob secret\r\n",
    b"\r\n",
    b"\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    bytes(range(256)) * 40,
    b"x" * 513,
    b"set " + b"x" * 600 + b" 0 0 10\r\nbob secret\r\n",
]


def test_a_stranger_is_told_nothing_and_does_nothing(server: RunningServer, bob: Client) -> None:
    bob.set("q", b"x")
    for request in STRANGERS:
        stranger = server.client()
        stranger.ask(request + login("bob", "secret") + b"get q\r\n", UNAUTHENTICATED)
        stranger.expect_hang_up()
    assert server.printed().count(", who has not logged in: ") == len(STRANGERS)
    assert bob.stats()["cmd_get"] == "0"
    assert bob.get("q") == b"x"


def test_a_single_request_of_a_stranger_is_refused_like_several(server: RunningServer, bob: Client) -> None:
    # The server keeps lines that it has parsed, for all clients.
    bob.ask(b"get q\r\ndelete q\r\nflush_all\r\n", b"END\r\nDELETED\r\nFlushed all queues.\r\n")
    for request in STRANGERS:
        server.client().ask(request, UNAUTHENTICATED)


def test_requests_behind_the_login_are_answered_in_order_once_it_has_succeeded(server: RunningServer) -> None:
    client = server.client()
    client.send(
        login("bob", "secret")
        + b"set q 0 0 1\r\na\r\nset q 0 0 %d\r\n%b\r\nget q\r\nget q/open\r\nget q/t=1\r\n" % (len(LARGE), LARGE)
    )
    client.expect(b"STORED\r\nSTORED\r\nSTORED\r\nVALUE q 0 1\r\na\r\nEND\r\n")
    assert client.item() == LARGE
    assert client.line().startswith(b"CLIENT_ERROR close current read first")


def test_requests_behind_a_login_that_fails_are_not_done(server: RunningServer, bob: Client) -> None:
    stranger = server.client()
    stranger.ask(login("bob", "x") + b"set q 0 0 1\r\na\r\n" * 100 + login("bob", "secret"), FAILURE)
    stranger.expect_hang_up()
    assert bob.stats()["queue_creates"] == "0"


def test_the_login_may_come_byte_by_byte(server: RunningServer) -> None:
    client = server.client()
    for byte in login("bob", "secret"):
        client.send(bytes([byte]))
    client.expect(b"STORED\r\n")
    client.set("q", b"x")


def test_a_stranger_cannot_have_the_server_keep_anything(server: RunningServer, bob: Client) -> None:
    before = server.resident_bytes()
    strangers = [server.client() for _ in range(50)]
    for stranger in strangers:
        stranger.send(b"set q 0 0 1073741824\r\n")
        try:
            stranger.send(bytes(1 << 20))
        except OSError:
            pass  # it has hung up meanwhile
    for stranger in strangers:
        stranger.expect(FAILURE)
    assert server.resident_bytes() - before < 20 << 20
    assert bob.stats()["cmd_set"] == "0"
    assert not list(server.data.glob("*.sst"))


def test_others_are_served_while_passwords_are_guessed(server: RunningServer, bob: Client) -> None:
    guessers = [server.client() for _ in range(200)]
    for guesser in guessers:
        guesser.send(login("bob", "guess"))
    for number in range(100):
        bob.set("q", b"%d" % number)
        assert bob.get("q") == b"%d" % number
    for guesser in guessers[::3]:
        guesser.close()  # who gives up leaves the line
    for number, guesser in enumerate(guessers):
        if number % 3:
            guesser.expect(FAILURE)
    server.client().ask(login("bob", "secret"), b"STORED\r\n")


def test_who_is_checking_or_waiting_does_not_hold_up_the_stop(server: RunningServer) -> None:
    clients = [server.client() for _ in range(20)]
    for client in clients[:10]:
        client.send(login("bob", "guess"))
    assert server.stop() == 0


def test_a_unix_socket_asks_for_the_password_too(start_server: Start, tmp_path: Path) -> None:
    file = write_users(tmp_path / "users", bob="secret")
    server = start_server("--auth-file", str(file), "--host", f"unix:{tmp_path}/socket")
    stranger, bob = (server.adopt(UnixClient(tmp_path / "socket")) for _ in range(2))
    stranger.ask(b"get q\r\n", UNAUTHENTICATED)
    bob.ask(login("bob", "secret") + b"get q\r\n", b"STORED\r\nEND\r\n")
    assert f"refused: unix:{tmp_path}/socket, who has not logged in: get\n" in server.printed()


def test_a_client_library_logs_in_with_a_set(server: RunningServer) -> None:
    client = pymemcache.Client(("127.0.0.1", server.port), timeout=10, connect_timeout=10)
    with pytest.raises(pymemcache.exceptions.MemcacheClientError, match="unauthenticated"):
        client.get("q")
    client.set("auth", "bob secret", noreply=False)
    client.set("q", "hello", noreply=False)
    assert client.get("q") == b"hello"
    client.close()


# -- any split of the same bytes means the same


class Here:
    def name_client(self, address: object) -> str:
        return "here"


class Plainly:
    """As much of a protocol as a guard needs."""

    traits = DIALECTS["darner"]

    def new_reader(self, table: dict[bytes, Command], kept_lines: dict[bytes, Any]) -> RequestReader:
        return RequestReader(table, kept_lines, 8192, 100)


class Answers:
    """A guard by itself: what it lets through, and how that ended."""

    def __init__(self, users: Path) -> None:
        self.let_through: list[bytes] = []
        table = {
            b"set": Command(parse_storing, lambda *_: b"", PUT),
            b"version": Command(parse_bare, lambda *_: b"", FREE),
        }
        access = Access(AccessOptions(auth_file=str(users)), make_context)
        access.wait_check = self._check  # type: ignore[method-assign]  # not in a thread
        self._guard = Guard(access, Vocabulary(cast(Any, Plainly()), table), Origin(None, Here(), access))
        self._users = access.users

    def _check(self, client: object, origin: object, name: str, password: bytes) -> bool:
        assert self._users is not None
        return self._users.check(name, password)

    def feed(self, data: bytes) -> None:
        """As the connection does it: nothing more behind an error."""
        if self.let_through[-1:] == [b"end"]:
            return
        try:
            for request, body in self._guard.requests(data):
                done = request.run(request, body, None)
                if callable(done):
                    done = done(None)
                self.let_through.append(request.verb + b" " + (body or b"") + done)
            if self._guard.error is not None:
                raise self._guard.error
        except ClientError as error:
            self.let_through += [error.reply, b"end"]


@pytest.fixture(scope="module")
def users_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_users(tmp_path_factory.mktemp("users") / "users", bob="secret")


@pytest.mark.parametrize(
    "data",
    [
        login("bob", "secret") + b"set q 0 0 3\r\nabc\r\nversion\r\n",
        login("bob", "wrong") + b"set q 0 0 3\r\nabc\r\nversion\r\n",
        b"version\r\n" + login("bob", "secret"),
        b"set k 0 0 10\r\nbob secretxversion\r\n",
        b"set k 0 0 600\r\n" + b"x" * 600,
    ],
)
def test_any_split_of_the_same_bytes_means_the_same(data: bytes, users_file: Path) -> None:
    whole = Answers(users_file)
    whole.feed(data)
    assert whole.let_through

    @given(st.lists(st.integers(0, len(data))))
    def split(cuts: list[int]) -> None:
        pieces = Answers(users_file)
        edges = [0, *sorted(cuts), len(data)]
        for begin, end in pairwise(edges):
            pieces.feed(data[begin:end])
        assert pieces.let_through == whole.let_through

    split()
    each_byte = Answers(users_file)
    for byte in data:
        each_byte.feed(bytes([byte]))
    assert each_byte.let_through == whole.let_through


def test_no_garbage_gets_through(users_file: Path) -> None:
    dice = random.Random(1)
    words = [b"set", b" ", b"k", b"0", b"10", b"\r\n", b"\n", b"bob", b"secreT", b"version", b"\0", b"noreply", b"\xff"]
    for _ in range(2000):
        answers = Answers(users_file)
        for _ in range(dice.randrange(1, 40)):
            answers.feed(dice.choice(words))
        assert answers.let_through in ([], [UNAUTHENTICATED, b"end"], [FAILURE, b"end"])


def test_a_stranger_is_cut_off_when_the_server_stops(server: RunningServer) -> None:
    stranger = server.client()
    stranger.send(b"set k 0 0 10\r\nbob")
    wait_until(lambda: "ready: listening" in server.printed())
    assert server.stop(signal.SIGTERM) == 0
    stranger.expect_hang_up()
