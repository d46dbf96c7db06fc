"""SIGHUP: other users, rights and certificates for a server that runs on; and who is warned of what."""

import signal
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from darner_core.access import CHECKED_AT_ONCE, Access, warnings
from darner_core.config import Config
from darner_core.errors import ClientError, ConfigError
from darner_core.listener_options import Endpoint
from darner_core.listeners import open_listeners
from darner_core.waiters import Waiter
from tests.harness import Client, RunningServer
from tests.identities import FAILURE, UNAUTHENTICATED, Authority, TlsClient, UnixClient, login, write_users
from tests.test_connection import LARGE, wait_until, waiters
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

    def reload(self, answer: str = "INFO reloaded: users, rights, certificates, log level") -> None:
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
    assert "refused: user eve, who was removed, at 127.0.0.1:" in house.server.printed()
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
    assert "WARNING reload: sync is another one now, and needs a restart\n" in log
    assert "WARNING reload: max_item_bytes is another one now, and needs a restart\n" in log
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


# -- passwords are checked a few at a time


class InLine:
    """A client that logs in. When it has to wait, `happens` is called, and it gets what it was handed."""

    def __init__(self, happens: Callable[[], None]) -> None:
        self._happens = happens

    def wait_for(self, waiter: Waiter, wait_ms: int) -> object:
        try:
            self._happens()
        except Gone:
            waiter.cancel()  # as the connection does it
            raise
        return waiter.wait_for(0)


class Gone(Exception):
    pass


def must_not_wait() -> None:
    raise AssertionError("there was room for it")


@pytest.fixture
def busy(tmp_path: Path) -> Access:
    """All that may be checked at once is being checked."""
    access = Access(Config(auth_file=str(write_users(tmp_path / "users", bob="secret"))))
    access._checked_now = CHECKED_AT_ONCE
    return access


def test_who_comes_while_others_are_checked_waits_for_one_to_end(busy: Access) -> None:
    assert busy.wait_check(InLine(busy._next), "bob", b"secret")
    assert busy.wait_check(InLine(must_not_wait), "bob", b"guess") is False


def test_who_has_waited_too_long_is_told(busy: Access) -> None:
    with pytest.raises(ClientError, match="too many log in at once"):
        busy.wait_check(InLine(lambda: None), "bob", b"secret")


@pytest.mark.parametrize("its_turn_had_come", [True, False])
def test_who_hangs_up_in_line_takes_nobodys_place(its_turn_had_come: bool, busy: Access) -> None:
    def hang_up() -> None:
        if its_turn_had_come:
            busy._next()
        raise Gone

    with pytest.raises(Gone):
        busy.wait_check(InLine(hang_up), "bob", b"secret")
    if not its_turn_had_come:
        busy._next()
    assert busy.wait_check(InLine(must_not_wait), "bob", b"secret")
    assert busy.wait_check(InLine(must_not_wait), "bob", b"secret")


# -- what does not go together, and what is warned of


def test_rights_need_names(tmp_path: Path) -> None:
    file = tmp_path / "darner.toml"
    file.write_text("[users.bob]\n")
    line = refusal("-c", str(file), "--port", "0", "--data", str(tmp_path / "data"))
    assert line == f"{file}: line 1: [users] needs auth_file or tls_ca: else nobody has a name"
    with pytest.raises(ConfigError, match="tls_key needs tls_cert"):
        Access(Config(tls_key="key.pem"))


def test_a_certificates_name_counts_only_where_certificates_are_asked_for(tmp_path: Path) -> None:
    users = write_users(tmp_path / "users", bob="secret")
    assert Access(Config(auth_file=str(users))).user_of_certificate("bob") == ""


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
        said = list(warnings(Config(**options), listeners))  # type: ignore[arg-type]
    finally:
        for listener in listeners:
            listener.close()
    assert len(said) == bool(words)
    assert words in "".join(said)
    assert all(line.startswith(f"{host} port ") for line in said)
