"""TLS: the same server behind it, and clients that do it wrong hurt nobody but themselves."""

import contextlib
import ssl
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pymemcache
import pytest

from darner_core.config.options import Config
from darner_core.errors import ConfigError
from darner_core.server.tls import make_context
from tests.server.test_connection import LARGE
from tests.support.harness import REPLY_S, Client, RunningServer, wait_until
from tests.support.identities import FAILURE, UNAUTHENTICATED, Authority, TlsClient, UnixClient, login, write_users
from tests.test_main import refusal

Start = Callable[..., RunningServer]
Connect = Callable[..., TlsClient]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def server(start_server: Start, authority: Authority) -> RunningServer:
    return start_server(*authority.options())


def printed(server: RunningServer, complaint: str, times: int) -> bool:
    return server.printed().count(complaint) == times


@pytest.fixture
def connect(server: RunningServer, authority: Authority) -> Connect:
    def connect(context: ssl.SSLContext | None = None) -> TlsClient:
        client = TlsClient(server.port, context or authority.context())
        server.adopt(client)
        return client

    return connect


# -- the same server


def test_everything_works_as_without(connect: Connect, server: RunningServer) -> None:
    client, other = connect(), connect()
    assert f"listening on: 127.0.0.1 port {server.port}, TLS\n" in server.printed()
    client.set("q", b"a", flags=5)
    client.ask(b"get q/open\r\n", b"VALUE q 5 1\r\na\r\nEND\r\n")
    assert client.get("q/close") is None
    client.send(b"get q/t=10000\r\n")
    other.expect_nothing()
    other.set("q", b"b")
    assert client.item() == b"b"
    client.ask(
        b"set q 0 0 2\r\nxyz\r\n", b"CLIENT_ERROR bad data chunk: the 2 bytes of the item must be followed by CR LF\r\n"
    )
    client.expect_hang_up()


def test_large_items_go_both_ways(connect: Connect) -> None:
    client = connect()
    bodies = [bytes([number]) * (5_000_000 + number) for number in range(4)]
    for body in bodies:
        client.set("q", body)
    assert [client.get("q") for _ in bodies] == bodies
    client.set("q", LARGE)
    client.send(b"set q 0 0 %d\r\n%b\r\nget q\r\nget q\r\nversion\r\n" % (len(LARGE), LARGE))
    client.expect(b"STORED\r\n")
    assert [client.item(), client.item()] == [LARGE, LARGE]
    assert client.line().startswith(b"VERSION")


def test_no_byte_stays_behind_whatever_the_size(connect: Connect) -> None:
    """A record holds 16 KiB, a chunk of the server 128: what ends between the two must be noticed."""
    client = connect()
    for size in (1, 2, 16_383, 16_384, 16_385, 131_071, 131_072, 131_073, 147_456, 147_457, 200_000, 262_144):
        body = bytes(size)
        for extra in (b"", b"version\r\n"):
            client.send(b"set q 0 0 %d\r\n%b\r\n%b" % (size, body, extra))
            client.expect(b"STORED\r\n")
            if extra:
                assert client.line().startswith(b"VERSION")
            assert client.get("q") == body


def test_a_request_in_pieces_is_put_together(connect: Connect) -> None:
    client = connect()
    for byte in b"set q 0 0 3\r\nabc\r\nget q\r\n":
        client.send(bytes([byte]))
    client.expect(b"STORED\r\nVALUE q 0 3\r\nabc\r\nEND\r\n")


def test_thousands_of_requests_in_one_go_are_answered_in_order(connect: Connect) -> None:
    client = connect()
    client.send(b"".join(b"set q 0 0 4\r\n%04d\r\n" % number for number in range(5000)))
    client.expect(b"STORED\r\n" * 5000)
    client.send(b"get q\r\n" * 5000)
    for number in range(5000):
        assert client.item() == b"%04d" % number


def test_a_client_that_does_not_read_gets_all_in_the_end(connect: Connect, server: RunningServer) -> None:
    client, other = connect(), connect()
    for _ in range(100):
        client.set("q", bytes(100_000))
    client.send(b"get q\r\n" * 100)
    for _ in range(100):
        other.set("other", b"x")
    for _ in range(100):
        assert client.item() == bytes(100_000)


def test_what_was_open_goes_back_when_the_client_hangs_up(connect: Connect) -> None:
    for end in ("close", "say goodbye", "reset"):
        client, other = connect(), connect()
        client.set("q", end.encode())
        assert client.get("q/open") == end.encode()
        if end == "close":
            client.close()
        elif end == "reset":
            client.reset()
        else:
            client.socket.settimeout(REPLY_S)
            client.socket.unwrap()  # type: ignore[attr-defined]
        assert other.get("q/t=5000") == end.encode()


def test_it_stops_within_its_time_and_says_goodbye(connect: Connect, server: RunningServer) -> None:
    client, waiter = connect(), connect()
    client.set("q", b"x")
    assert client.get("q/open") == b"x"
    waiter.send(b"get other/t=60000\r\n")
    waiter.expect_nothing()
    assert server.stop() == 0
    waiter.expect(b"END\r\n")
    for one in (client, waiter):
        assert one.socket.recv(1) == b""  # and not an error, as an end without close_notify may be


def test_a_client_library_speaks_tls(server: RunningServer, authority: Authority) -> None:
    client = pymemcache.Client(
        ("127.0.0.1", server.port), tls_context=authority.context(), timeout=10, connect_timeout=10
    )
    client.set("q", b"x" * 1_000_000, noreply=False)
    assert client.get("q") == b"x" * 1_000_000
    client.set_many({"a": "1", "b": "2"}, noreply=False)
    assert [client.get("a"), client.get("b")] == [b"1", b"2"]
    client.quit()


def test_unix_sockets_do_not_speak_tls(start_server: Start, authority: Authority, tmp_path: Path) -> None:
    server = start_server(*authority.options(), "--host", "127.0.0.1", "--host", f"unix:{tmp_path}/socket")
    server.adopt(UnixClient(tmp_path / "socket")).set("q", b"x")
    assert server.adopt(TlsClient(server.port, authority.context())).get("q") == b"x"


# -- clients that do it wrong


def test_a_client_without_tls_is_an_error_in_the_log(connect: Connect, server: RunningServer) -> None:
    good = connect()
    for greeting in (b"version\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(100), bytes(1000)):
        plain = server.client()
        plain.send(greeting)
        host, port = plain.socket.getsockname()
        complaint = f"ERROR TLS with {host}:{port}: "
        wait_until(partial(printed, server, complaint, 1))
        with contextlib.suppress(ConnectionResetError):
            assert b"VERSION" not in plain.read(1000)
        good.set("q", b"x")


def test_a_client_that_comes_and_goes_is_forgotten(connect: Connect, server: RunningServer) -> None:
    good = connect()
    for number in range(20):
        client = server.client()
        if number % 2:
            client.send(b"\x16\x03")
        if number % 3:
            client.reset()
        else:
            client.close()
    wait_until(lambda: good.stats()["curr_connections"] == "1")


def test_old_versions_are_refused(connect: Connect, server: RunningServer, authority: Authority) -> None:
    context = authority.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert connect(context).get("q") is None
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        connect(context)
    wait_until(lambda: "unsupported protocol" in server.printed())


def test_a_stalled_handshake_costs_nobody_else_anything(connect: Connect, server: RunningServer) -> None:
    stalled = [server.client() for _ in range(20)]
    for client in stalled[::2]:
        client.send(b"\x16\x03\x01")
    good = connect()
    for _ in range(10):
        good.set("q", b"x")
    assert good.stats()["curr_connections"] == "21"
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 3  # they do not hold up the stop, either
    for client in stalled:
        client.expect_hang_up()


class Impatient(RunningServer):
    program = "tests/servers/impatient.py"


def test_a_handshake_and_a_login_have_a_time_limit(start_server: Start, authority: Authority, tmp_path: Path) -> None:
    users = write_users(tmp_path / "users", bob="secret")
    server = start_server(*authority.options(), "--auth-file", str(users), kind=Impatient)
    bob = server.adopt(TlsClient(server.port, authority.context()))
    bob.ask(login("bob", "secret"), b"STORED\r\n")
    stalled, silent, slow = (
        server.client(),
        *(server.adopt(TlsClient(server.port, authority.context())) for _ in range(2)),
    )
    stalled.send(b"\x16\x03")
    slow.send(b"set k 0 0 10\r\nbob s")
    for client in (stalled, silent, slow):
        client.expect_hang_up()
    log = server.printed()
    assert f"ERROR TLS with 127.0.0.1:{stalled.socket.getsockname()[1]}: no handshake within 0.3 s\n" in log
    for client in (silent, slow):
        assert f"ERROR 127.0.0.1:{client.socket.getsockname()[1]} has not logged in within 0.3 s\n" in log
    bob.set("q", b"x")


# -- client certificates


@pytest.fixture
def strict(start_server: Start, authority: Authority, tmp_path: Path) -> RunningServer:
    file = tmp_path / "darner.toml"
    file.write_text('[users.mailer]\nput = ["mail"]\n')
    return start_server("-c", str(file), *authority.options(), "--tls-ca", str(authority.file))


def test_the_name_in_the_certificate_is_the_user(strict: RunningServer, authority: Authority) -> None:
    mailer = strict.adopt(TlsClient(strict.port, authority.context("mailer")))
    mailer.set("mail", b"x")
    mailer.ask(b"get mail\r\n", b"CLIENT_ERROR user mailer may not get from queue mail\r\n")
    other = strict.adopt(TlsClient(strict.port, authority.context("other")))
    other.ask(b"get mail\r\n", b"CLIENT_ERROR user other may not get from queue mail\r\n")


def refused(server: RunningServer, context: ssl.SSLContext) -> None:
    """With TLS 1.3 the client hears of it only when it reads."""
    try:
        client = server.adopt(TlsClient(server.port, context))
        client.send(b"version\r\n")
        assert client.socket.recv(100) == b""
    except (ssl.SSLError, ConnectionError):
        pass


def test_who_has_no_certificate_or_another_authoritys_is_refused(
    strict: RunningServer, authority: Authority, tmp_path: Path
) -> None:
    refused(strict, authority.context())
    wait_until(lambda: "peer did not return a certificate" in strict.printed())
    refused(strict, authority.context("mailer", Authority(tmp_path, "other")))
    wait_until(lambda: "certificate refused: unable to get local issuer certificate" in strict.printed())
    strict.adopt(TlsClient(strict.port, authority.context("mailer"))).set("mail", b"x")


def test_a_name_that_is_no_users_is_refused(strict: RunningServer, authority: Authority) -> None:
    for count, name in enumerate(("two words", "a:b", "line\nfeed", ""), 1):
        refused(strict, authority.context(name))
        complaint = "the client's certificate has no common name that can be a user's"
        wait_until(partial(printed, strict, complaint, count))


def test_with_a_list_of_users_it_counts_who_stands_there(
    start_server: Start, authority: Authority, tmp_path: Path
) -> None:
    users = write_users(tmp_path / "users", machine="*", bob="secret")
    server = start_server(*authority.options(), "--tls-ca", str(authority.file), "--auth-file", str(users))

    def connect(name: str) -> Client:
        return server.adopt(TlsClient(server.port, authority.context(name)))

    connect("machine").set("q", b"x")
    assert connect("bob").get("q") == b"x"
    connect("stranger").ask(b"get q\r\n", UNAUTHENTICATED)
    connect("stranger").ask(login("machine", "*"), FAILURE)
    connect("stranger").ask(login("bob", "secret") + b"get q\r\n", b"STORED\r\nEND\r\n")


# -- files that cannot be used


def test_what_is_wrong_with_the_files_is_one_line_at_the_start(authority: Authority, tmp_path: Path) -> None:
    cert, key = map(str, authority.server())
    _, other_key = map(str, Authority(tmp_path, "other").server())
    text, locked = tmp_path / "text", tmp_path / "locked"
    text.write_text("hello")
    locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    torn = tmp_path / "torn"
    torn.write_text(Path(cert).read_text()[:200])
    for options, complaint in (
        ({"tls_cert": "/no"}, "tls_cert /no: No such file or directory"),
        ({"tls_cert": cert, "tls_key": "/no"}, "tls_key /no: No such file or directory"),
        ({"tls_cert": cert, "tls_key": key, "tls_ca": "/no"}, "tls_ca /no: No such file or directory"),
        ({"tls_cert": str(tmp_path)}, f"tls_cert {tmp_path}: Is a directory"),
        ({"tls_cert": str(text)}, f"tls_cert {text}: no certificate in PEM form"),
        ({"tls_cert": cert}, f"tls_cert {cert}: no private key in PEM form"),
        ({"tls_cert": cert, "tls_key": str(text)}, f"tls_key {text}: no private key in PEM form"),
        ({"tls_cert": cert, "tls_key": str(locked)}, f"tls_key {locked}: the key has a passphrase"),
        ({"tls_cert": str(torn), "tls_key": key}, f"tls_cert {torn}, tls_key {key}: "),
        ({"tls_cert": cert, "tls_key": key, "tls_ca": str(text)}, f"tls_ca {text}: no certificate in PEM form"),
        ({"tls_cert": cert, "tls_key": key, "tls_ca": str(torn)}, f"tls_ca {torn}: "),
        (
            {"tls_cert": cert, "tls_key": other_key},
            f"tls_key {other_key}: the key does not belong to the certificate in tls_cert {cert}",
        ),
    ):
        config = Config(**options)  # type: ignore[arg-type]
        with pytest.raises(ConfigError) as complained:
            make_context(config.tls_cert, config.tls_key, config.tls_ca)
        message = str(complained.value)
        assert message.startswith(complaint), message
        assert len(message.splitlines()) == 1
        assert not message.endswith(": ")


def test_the_server_does_not_start_with_them(authority: Authority, tmp_path: Path) -> None:
    cert, _ = map(str, authority.server())
    where = ["--port", "0", "--data", str(tmp_path / "data")]
    assert refusal(*where, "--tls-cert", cert) == f"tls_cert {cert}: no private key in PEM form"
    assert refusal(*where, "--tls-ca", cert) == "command line: tls_ca needs tls_cert"


def test_certificate_and_key_may_be_in_one_file(start_server: Start, authority: Authority, tmp_path: Path) -> None:
    cert, key = authority.server()
    both = tmp_path / "both.pem"
    both.write_text(key.read_text() + cert.read_text())
    server = start_server("--tls-cert", str(both))
    server.adopt(TlsClient(server.port, authority.context())).set("q", b"x")
