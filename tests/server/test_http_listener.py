"""HTTP listeners: limits and timeouts of clients, TLS, Unix sockets, and the end of the server."""

import signal
import socket
import sys
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from darner_core.config.options import Config
from darner_core.errors import StartError
from darner_core.server.http_listener import application_of
from tests.support.harness import RunningServer, wait_until
from tests.support.http import HTTP, Connect, http_port, plainly
from tests.support.identities import Authority, write_users


def test_one_client_too_many_is_told_so(start_server: Callable[..., RunningServer], connect_http: Connect) -> None:
    server = start_server(*HTTP, "--max-connections", "1")
    first = connect_http(server)
    assert first.get("session").status == 200
    said = connect_http(server).get("session")
    assert (said.status, said.detail) == (503, "too many connections: max_connections allows no more")
    first.close()
    wait_until(lambda: connect_http(server).get("session").status == 200)


def test_after_kill_9_what_was_answered_is_there(
    start_server: Callable[..., RunningServer], connect_http: Connect
) -> None:
    server = start_server(*HTTP)
    http = connect_http(server)
    ids = [http.put("q", b"%d" % number) for number in range(20)]
    http.take("q")
    assert http.delete(f"queues/q/items/{ids[0]}").status == 204
    server.kill()
    server.start()
    items = connect_http(server).take("q", "?n=100").json["items"]
    assert [one["id"] for one in items] == ids[1:]


def test_a_unix_socket_serves_http(start_server: Callable[..., RunningServer], tmp_path: Path) -> None:
    path = tmp_path / "http.socket"
    start_server("--http", f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert client.makefile("rb").read().endswith(b'{"status": "live"}')


def test_a_body_that_stops_is_not_waited_for(start_server: Callable[..., RunningServer]) -> None:
    server = start_server(*HTTP, "--body-timeout-s", "1")
    head = b"POST /api/v1/queues/q/items HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf"
    answer = plainly(http_port(server), head)
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_an_idle_client_is_hung_up_on(start_server: Callable[..., RunningServer], connect_http: Connect) -> None:
    server = start_server(*HTTP, "--idle-timeout-s", "1")
    http = connect_http(server)
    http.get("session")
    assert http.connection.sock.recv(10) == b""


def test_what_an_idle_client_was_handed_stays_with_it(
    start_server: Callable[..., RunningServer], connect_http: Connect
) -> None:
    server = start_server(*HTTP, "--idle-timeout-s", "1")
    http = connect_http(server)
    http.put("q", b"job")
    assert http.take("q", "?ttr=60000").body == b"job"
    assert http.connection.sock.recv(10) == b""  # it is hung up on while it works
    assert server.client().get("q") is None


def test_a_server_that_stops_answers_those_that_wait(
    start_server: Callable[..., RunningServer], connect_http: Connect
) -> None:
    server = start_server(*HTTP)
    http, idle, other = connect_http(server), connect_http(server), server.client()
    idle.get("session")
    http.connection.request("POST", "/api/v1/queues/q/take?wait=60000")
    wait_until(lambda: other.stats().get("queues_awaited") == "1")
    server.process.send_signal(signal.SIGTERM)
    said = http.answer()
    assert (said.status, said.headers["connection"]) == (204, "close")
    assert idle.connection.sock.recv(10) == b""
    assert server.process.wait(10) == 0


def test_without_the_libraries_the_server_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "falcon", None)
    monkeypatch.delitem(sys.modules, "darner_core.protocols.http.app", raising=False)
    host: Any = None
    with pytest.raises(StartError, match=r'needs the packages falcon and prometheus-client: .*"darner\[http\]"'):
        application_of(host, Config())


# -- TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def test_tls_is_spoken_as_everywhere(
    start_server: Callable[..., RunningServer], connect_http: Connect, authority: Authority
) -> None:
    server = start_server(*HTTP, *authority.options())
    http = connect_http(server, tls=authority.context())
    body = bytes(range(256)) * 4096  # 1 MiB, in many records
    http.put("q", body)
    assert http.take("q").body == body
    assert http.get("session").json["user"] is None


def test_a_certificate_names_the_user(
    start_server: Callable[..., RunningServer], connect_http: Connect, authority: Authority, tmp_path: Path
) -> None:
    conf = tmp_path / "conf.toml"
    conf.write_text('[users.mailer]\nput = ["mail"]\n')
    server = start_server(*HTTP, "-c", str(conf), *authority.options(), "--tls-ca", str(authority.file))
    http = connect_http(server, tls=authority.context("mailer"))
    assert http.get("session").json["user"] == "mailer"
    http.put("mail", b"x")
    assert http.take("mail").detail == "user mailer may not get from queue mail"
    with pytest.raises((OSError, HTTPException)):
        connect_http(server, tls=authority.context()).get("session")


def test_with_a_list_of_users_a_certificate_or_a_password_will_do(
    start_server: Callable[..., RunningServer], connect_http: Connect, authority: Authority, tmp_path: Path
) -> None:
    users = write_users(tmp_path / "users", machine="*", bob="secret")
    server = start_server(*HTTP, *authority.options(), "--tls-ca", str(authority.file), "--auth-file", str(users))
    assert connect_http(server, tls=authority.context("machine")).get("session").json["user"] == "machine"
    assert connect_http(server, "bob", "secret", tls=authority.context("x")).get("session").json["user"] == "bob"
    assert connect_http(server, tls=authority.context("x")).get("session").status == 401
