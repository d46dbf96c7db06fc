"""SIGHUP: other users, rights and certificates for a server that runs on; and who is warned of what."""

import re
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import gevent
import gevent.lock
import pytest

from darner_core.access import access
from darner_core.access.access import MOST_IN_LANE, Access, AccessOptions, Check, Lanes, warnings
from darner_core.access.origins import AdminFrom, Origin
from darner_core.access.users import Users, hash_password
from darner_core.config.listeners import Endpoint
from darner_core.config.options import Config
from darner_core.errors import ClientError, ConfigError, ServerError
from darner_core.server.listeners import open_listeners
from darner_core.server.tls import make_context
from darner_core.waiters import Waiter
from tests.server.test_connection import LARGE, waiters
from tests.support.harness import Client, RunningServer, wait_until
from tests.support.identities import FAILURE, UNAUTHENTICATED, Authority, TlsClient, UnixClient, login, write_users
from tests.test_main import refusal

Start = Callable[..., RunningServer]

ALL = 'put = ["*"]\nget = ["*"]\nadmin = ["*"]\n'


class House:
    """A server with files that change."""

    def __init__(self, directory: Path, start_server: Start, *options: str) -> None:
        self.file, self.users = directory / "darner.toml", directory / "users"
        write_users(self.users, bob="secret", eve="secret")
        self.write(f"[users.bob]\n{ALL}[users.eve]\n{ALL}")
        self.server = start_server("-c", str(self.file), *options)

    def write(self, tables: str, more: str = "") -> None:
        self.file.write_text(f'auth_file = "{self.users}"\n{more}\n{tables}')

    def reload(self, answer: str = "INFO reloaded: users, rights, admin_from, certificates, log level") -> None:
        before = self.server.printed().count(answer)
        self.server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.server.printed().count(answer) > before)

    def as_user(self, name: str, password: str = "secret") -> Client:
        client = self.server.client()
        client.ask(login(name, password), b"STORED\r\n")
        return client


@pytest.fixture
def house(tmp_path: Path, start_server: Start) -> House:
    return House(tmp_path, start_server)


def test_rights_change_for_those_who_are_connected(house: House) -> None:
    bob, eve = house.as_user("bob"), house.as_user("eve")
    bob.set("q", b"a")
    assert eve.get("q/open") == b"a"
    house.write(f'[users.bob]\nput = ["mail"]\n[users.eve]\n{ALL}')
    house.reload()
    assert eve.get("q/close") is None  # what eve held is still hers
    bob.set("mail", b"x")
    bob.ask(b"set q 0 0 1\r\nb\r\n", b"CLIENT_ERROR user bob may not put into queue q\r\n")
    bob.expect_hang_up()
    # And the other way round, without a new connection.
    bob = house.as_user("bob")
    bob.set("mail", b"y")
    house.write(f"[users.bob]\n{ALL}")
    house.reload()
    assert [bob.get("mail"), bob.get("mail"), bob.get("mail")] == [b"x", b"y", None]
    bob.set("q", LARGE)
    eve.ask(b"get q\r\n", b"CLIENT_ERROR user eve may not get from queue q\r\n")


def test_who_waits_for_an_item_waits_on_and_is_judged_at_the_next_request(house: House) -> None:
    bob, eve = house.as_user("bob"), house.as_user("eve")
    bob.set("q", b"x")
    assert eve.get("q") == b"x"  # stats tell of a queue that exists
    eve.send(b"get q/t=60000\r\nget q\r\n")
    wait_until(lambda: waiters(bob, "q") == 1)
    house.write(f"[users.bob]\n{ALL}")
    house.reload()
    bob.set("q", b"a")
    bob.set("q", b"b")
    eve.expect(b"VALUE q 0 1\r\na\r\nEND\r\nCLIENT_ERROR user eve may not get from queue q\r\n")
    eve.expect_hang_up()
    assert bob.get("q") == b"b"


def test_a_large_item_on_its_way_arrives(house: House) -> None:
    bob, eve = house.as_user("bob"), house.as_user("eve")
    eve.send(b"set q 0 0 %d\r\n" % len(LARGE) + LARGE[:200_000])
    wait_until(lambda: int(bob.stats()["bytes_read"]) >= 200_000)
    house.write("[users.bob]\n" + ALL)
    house.reload()
    eve.send(LARGE[200_000:] + b"\r\n")
    eve.expect(b"STORED\r\n")
    eve.ask(b"get q\r\n", b"CLIENT_ERROR user eve may not get from queue q\r\n")
    assert bob.get("q") == LARGE


def test_a_user_who_was_removed_is_one_no_longer(house: House) -> None:
    bob, eve = house.as_user("bob"), house.as_user("eve")
    write_users(house.users, bob="other", al="new")
    house.write(f"[users.bob]\n{ALL}[users.eve]\n{ALL}[users.al]\n{ALL}")
    house.reload()
    eve.ask(b"get q\r\n", UNAUTHENTICATED)
    eve.expect_hang_up()
    assert re.search(r"refused: eve@127\.0\.0\.1:\d+, who is no user any longer: get q\n", house.server.printed())
    # A new password is asked of new connections only.
    bob.set("q", b"x")
    stranger = house.server.client()
    stranger.ask(login("bob", "secret"), FAILURE)
    assert house.as_user("bob", "other").get("q") == b"x"
    house.as_user("al", "new").set("q", b"y")


def test_a_mistake_in_the_files_changes_nothing(house: House) -> None:
    bob = house.as_user("bob")
    good = house.file.read_text()
    for bad, complaint in (
        ("port = x", "Invalid value (at line 1, column 8)"),
        ("prot = 5", 'unknown option prot: did you mean "port"?'),
        (good + "[users.al]\nputs = []", "[users.al]: must be a table with put, get and admin"),
        ('auth_file = "/no/where"', "auth_file /no/where: No such file or directory"),
        (good.replace("[", '\ntls_cert = "/no"\n[', 1), "whether there is auth_file, tls_cert and tls_ca can only be"),
        ("", "whether there is auth_file, tls_cert and tls_ca can only be changed by a restart"),
    ):
        house.file.write_text(bad)
        house.reload("ERROR not reloaded: ")
        assert complaint in house.server.printed().splitlines()[-1]
        bob.set("q", b"x")
        assert house.as_user("eve").get("q") == b"x"
    house.file.write_text(good)
    write_users(house.users, bob="secret").write_text("bob")
    house.reload("ERROR not reloaded: ")
    assert house.server.printed().endswith("line 1: a line is name:hash\n")
    house.as_user("eve").set("q", b"x")


def test_the_log_level_changes_and_what_cannot_change_is_named(house: House) -> None:
    house.as_user("bob")
    assert "DEBUG" not in house.server.printed()
    house.write(f"[users.bob]\n{ALL}", 'debug = true\nsync = "always"\nmax_item_bytes = "1 KiB"')
    house.reload()
    house.as_user("bob").set("q", bytes(2048))
    log = house.server.printed()
    assert "WARNING reload: sync has changed, and takes effect after a restart\n" in log
    assert "WARNING reload: max_item_bytes has changed, and takes effect after a restart\n" in log
    assert "reload: host" not in log
    assert "DEBUG connected: " in log
    assert " is user bob\n" in log


def test_a_server_without_a_file_goes_on_at_a_sighup(server: RunningServer) -> None:
    client = server.client()
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "INFO reloaded" in server.printed())
    client.set("q", b"x")
    assert server.client().get("q") == b"x"


def test_new_connections_see_the_new_certificate(start_server: Start, tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    cert, key = old.server()
    server = start_server("--tls-cert", str(cert), "--tls-key", str(key), "--tls-ca", str(old.file))

    def connect(authority: Authority) -> Client:
        return server.adopt(TlsClient(server.port, authority.context("bob")))

    before = connect(old)
    before.set("q", b"a")
    new_cert, new_key = new.server()
    cert.write_bytes(new_cert.read_bytes())  # half-way: certificate and key do not belong together
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: f"not reloaded: tls_key {key}: the key does not belong" in server.printed())
    assert connect(old).get("q") == b"a"
    key.write_bytes(new_key.read_bytes())
    old.file.write_bytes(new.file.read_bytes())
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "INFO reloaded" in server.printed())
    context = ssl.create_default_context(cafile=str(new.file))
    assert context.cert_store_stats()["x509_ca"] == 1
    after = connect(new)
    after.set("q", b"b")
    assert before.get("q") == b"b"


# -- passwords are checked one at a time, in turns


class Listeners:
    admin_from = AdminFrom()

    def name_client(self, address: object) -> str:
        return str(address)


def at(host: str) -> Origin:
    return Origin((host, 4711), Listeners(), Listeners())


def waiting(*lanes: tuple[str, str]) -> Lanes:
    found = Lanes()
    for number, lane in enumerate(lanes):
        found.add(Check(f"{'@'.join(lane)} {number}", b"", lane))
    return found


def turns_until(lanes: Lanes, lane: tuple[str, str]) -> int:
    """How many checks are made until one of this lane is."""
    turns = 1
    while (check := lanes.next()) is not None and check.lane != lane:
        turns += 1
    assert check is not None
    return turns


CROWD = 60
MANY_NAMES = [(f"user{number}", "10.0.0.1") for number in range(CROWD)]
MANY_ADDRESSES = [("bob", f"10.0.1.{number}") for number in range(CROWD)]


@pytest.mark.parametrize(
    ("crowd", "lane"),
    [
        ([("bob", "10.0.0.1")] * CROWD, ("alice", "10.0.0.1")),  # guesses at one name; from the same address
        ([("bob", "10.0.0.1")] * CROWD, ("bob", "10.0.0.2")),  # the same name from another
        ([("", "10.0.0.1")] * CROWD, ("alice", "10.0.0.1")),  # at names that there are not
        (MANY_NAMES, ("alice", "10.0.0.2")),
        (MANY_NAMES, ("user7", "10.0.0.2")),
        (MANY_ADDRESSES, ("alice", "10.0.0.2")),
        (MANY_ADDRESSES, ("alice", "10.0.1.7")),
        ([*MANY_NAMES, *MANY_ADDRESSES], ("alice", "10.0.0.2")),
    ],
)
def test_a_crowd_of_guesses_leaves_others_their_turn(crowd: list[tuple[str, str]], lane: tuple[str, str]) -> None:
    lanes = waiting(*crowd, lane)
    lanes_of_it = len({one[0] for one in crowd}), len({one[1] for one in crowd})
    assert turns_until(lanes, lane) <= 2 * (min(lanes_of_it) + 1)


def test_each_lane_is_in_order_and_what_waits_is_checked_once() -> None:
    crowd = [*[("bob", "a")] * 3, *[("", "a")] * 2, *[("bob", "b")] * 3]
    lanes = waiting(*crowd)
    taken = [check for _ in crowd if (check := lanes.next()) is not None]
    for lane in set(crowd):
        numbers = [int(check.name.split()[1]) for check in taken if check.lane == lane]
        assert numbers == [number for number, one in enumerate(crowd) if one == lane]
    assert lanes.next() is None
    assert not lanes.discard(taken[0])


def test_so_many_wait_in_a_lane_and_no_more() -> None:
    lanes = waiting(*[("bob", "a")] * MOST_IN_LANE)
    with pytest.raises(ClientError, match="too many log in at once: 64 passwords from your address wait"):
        lanes.add(Check("one more", b"", ("bob", "a")))
    lanes.add(Check("bob", b"", ("bob", "b")))
    lanes.next()
    lanes.add(Check("one more", b"", ("bob", "a")))


def test_who_finds_the_lane_full_is_told_after_a_while(logins: "Logins", monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int] = []
    monkeypatch.setattr(access, "MOST_IN_LANE", 1)
    under_way, _, full = (logins.begin("bob", password) for password in (b"1", b"2", b"3"))
    monkeypatch.setattr(Waiter, "wait_for", lambda _, wait_ms: waited.append(wait_ms))
    with pytest.raises(ClientError, match="too many log in at once"):
        logins.begin("bob", b"4").get(timeout=5)
    assert waited == [access.REFUSED_AFTER_MS]
    for one in (under_way, full):
        one.kill()


class Logins:
    """Clients that log in at an Access whose checks are made here, one by one."""

    def __init__(self, users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.access = Access(AccessOptions(auth_file=str(users)), make_context)
        self.checked: list[tuple[str, bytes]] = []
        self.go_on = gevent.lock.Semaphore(0)
        monkeypatch.setattr(gevent.get_hub(), "threadpool", self)
        monkeypatch.setattr(access, "LONGEST_WAIT_MS", 5000)

    def apply(self, check: Callable[..., object], arguments: tuple[object, str, bytes]) -> object:
        self.go_on.acquire()
        self.checked.append(arguments[1:])
        return check(*arguments)

    def wait_for(self, waiter: Waiter, wait_ms: int) -> object:
        return waiter.wait_for(wait_ms)

    def begin(self, name: str, password: bytes, host: str = "10.0.0.1") -> gevent.Greenlet:
        greenlet = gevent.spawn(self.access.wait_check, self, at(host), name, password)
        for _ in range(2):  # it begins to wait, and then the check begins
            gevent.sleep(0)
        return greenlet

    def let_check(self, count: int) -> None:
        for _ in range(count):
            self.go_on.release()


@pytest.fixture
def logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Logins]:
    logins = Logins(write_users(tmp_path / "users", bob="secret", eve="other"), monkeypatch)
    yield logins
    logins.let_check(1000)
    while logins.access._checked_now:
        gevent.sleep(0)


def test_the_same_login_is_checked_once_for_all_who_wait_and_is_known_from_then_on(logins: Logins) -> None:
    crowd = [logins.begin("bob", b"secret", f"10.0.0.{number}") for number in range(200)]
    guess = logins.begin("bob", b"guess")
    logins.let_check(2)
    assert [one.get(timeout=5) for one in crowd] == [True] * 200
    assert guess.get(timeout=5) is False
    assert logins.begin("bob", b"secret").get(timeout=5) is True
    assert logins.checked == [("bob", b"secret"), ("bob", b"guess")]
    again, right = logins.begin("bob", b"guess"), logins.begin("eve", b"other")
    logins.let_check(2)
    assert (again.get(timeout=5), right.get(timeout=5)) == (False, True)
    assert len(logins.checked) == 4, "what is wrong is checked each time"


def test_what_was_right_is_asked_again_when_the_files_have_been_read(logins: Logins, tmp_path: Path) -> None:
    before = logins.begin("bob", b"secret")
    logins.let_check(1)
    assert before.get(timeout=5) is True
    write_users(tmp_path / "users", bob="new")
    under_way = logins.begin("eve", b"other")
    logins.access.reload(AccessOptions(auth_file=str(tmp_path / "users")))
    late = logins.begin("eve", b"other"), logins.begin("bob", b"secret"), logins.begin("bob", b"new")
    logins.let_check(4)
    assert under_way.get(timeout=5) is True, "the file had it when it was asked"
    assert [one.get(timeout=5) for one in late] == [False, False, True]


def test_who_hangs_up_in_line_is_not_checked(logins: Logins) -> None:
    first, second, third = (logins.begin("bob", password) for password in (b"1", b"2", b"secret"))
    second.kill()
    logins.let_check(2)
    assert (first.get(timeout=5), third.get(timeout=5)) == (False, True)
    assert logins.checked == [("bob", b"1"), ("bob", b"secret")]
    assert not logins.access._under_way
    assert not logins.access._checked_now


def test_who_has_waited_too_long_is_told(logins: Logins, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "LONGEST_WAIT_MS", 1)
    with pytest.raises(ClientError, match="too many log in at once"):
        logins.begin("bob", b"secret").get(timeout=5)


def test_a_check_for_which_there_is_no_memory_is_said_to_be_that(
    logins: Logins, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> bool:
        raise MemoryError("malloc failed")

    monkeypatch.setattr(Users, "check", no_memory)
    waits = logins.begin("bob", b"secret")
    logins.let_check(1)
    with pytest.raises(ServerError, match="the password cannot be checked: malloc failed"):
        waits.get(timeout=5)


def test_hashes_that_cost_less_than_new_ones_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    users = write_users(tmp_path / "users", bob="secret", eve="other", machine="*")
    Access(AccessOptions(auth_file=str(users)), make_context)
    assert "2 passwords have hashes that cost a guesser less" in caplog.text


@pytest.mark.long
def test_three_hundred_who_guess_do_not_keep_users_out(start_server: Start, tmp_path: Path) -> None:
    """With hashes of the cost that new ones have. `turns_until` above counts what is only seen here."""
    users = tmp_path / "users"
    users.write_text("".join(f"{name}:{hash_password(name.encode())}\n" for name in ("alice", "bob", "eve")))
    server = start_server("--auth-file", str(users))
    known = server.client()
    known.ask(login("eve", "eve"), b"STORED\r\n")
    stop = threading.Event()

    def guess(number: int) -> None:
        while not stop.is_set():
            with suppress(OSError), closing(Client(server.port)) as client:
                name = ("bob", "nobody", f"nobody{number}")[number % 3]
                client.send(login(name, f"{number} {time.monotonic()}"))
                client.read(len(FAILURE))

    guessing = [threading.Thread(target=guess, args=(number,)) for number in range(300)]
    for thread in guessing:
        thread.start()
    try:
        wait_until(lambda: server.printed().count("authentication failure") > 3)
        for name in ("alice", "eve"):  # whose password has not been seen yet, and whose has
            server.client().ask(login(name, name), b"STORED\r\n")
    finally:
        stop.set()
        server.kill()
        for thread in guessing:
            thread.join()


# -- what does not go together, and what is warned of


def test_rights_need_names(tmp_path: Path) -> None:
    file = tmp_path / "darner.toml"
    file.write_text("[users.bob]\n")
    line = refusal("-c", str(file), "--port", "0", "--data", str(tmp_path / "data"))
    assert line == f"{file}: line 1: [users] needs auth_file or tls_ca: else nobody has a name"
    with pytest.raises(ConfigError, match="tls_key needs tls_cert"):
        Config(tls_key="key.pem").access_options()


def test_a_certificates_name_counts_only_where_certificates_are_asked_for(tmp_path: Path) -> None:
    users = write_users(tmp_path / "users", bob="secret")
    assert Access(AccessOptions(auth_file=str(users)), make_context).user_of_certificate("bob") == ""


def test_with_certificates_only_a_unix_socket_is_for_who_may_open_its_file(start_server: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    file = tmp_path / "darner.toml"
    file.write_text('[users.bob]\nput = ["q"]\n')
    server = start_server(
        "-c", str(file), *authority.options(), "--tls-ca", str(authority.file), "--host", f"unix:{tmp_path}/socket"
    )
    server.adopt(UnixClient(tmp_path / "socket")).ask(b"flush_all\r\n", b"Flushed all queues.\r\n")


@pytest.mark.parametrize(
    ("host", "options", "words"),
    [
        ("127.0.0.1", {}, ""),
        ("127.0.0.2", {}, ""),
        ("0.0.0.0", {}, "nobody is asked for a name"),
        ("0.0.0.0", {"auth_file": "users"}, "cross the network in clear"),
        ("0.0.0.0", {"auth_file": "users", "tls_cert": "cert"}, ""),
        ("0.0.0.0", {"tls_cert": "cert", "tls_ca": "ca"}, ""),
        ("0.0.0.0", {"tls_cert": "cert"}, "nobody is asked for a name"),
        ("unix:{}/socket", {}, ""),
    ],
)
def test_the_log_warns_of_what_others_can_reach(host: str, options: dict[str, str], words: str, tmp_path: Path) -> None:
    listeners = open_listeners([Endpoint(host.format(tmp_path), 0)], "0600")
    try:
        said = list(warnings(AccessOptions(**options), listeners))  # type: ignore[arg-type]
    finally:
        for listener in listeners:
            listener.close()
    assert len(said) == bool(words)
    assert words in "".join(said)
    assert all(line.startswith(f"{host} port ") for line in said)
