"""Addresses: several at once, Unix sockets and their files, and what is said of those that cannot be had."""

import os
import re
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pylibmc
import pymemcache
import pytest

from darner_core.config.listeners import Endpoint
from darner_core.errors import StartError
from darner_core.server.listeners import open_listeners
from tests.support.harness import Client, RunningServer, wait_until
from tests.support.identities import UnixClient
from tests.test_main import refusal

Start = Callable[..., RunningServer]


def ports(server: RunningServer) -> list[int]:
    return [int(port) for port in re.findall(r"listening on: \S+ port (\d+)", server.printed())]


def connect(server: RunningServer, host: str, port: int) -> Client:
    client = Client.__new__(Client)
    client.socket = socket.create_connection((host, port), 10)
    client._received = bytearray()
    return server.adopt(client)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")


def test_all_addresses_serve_the_same_queues(start_server: Start, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = start_server("--host", "127.0.0.1", "--host", "127.0.0.2", "--host", f"unix:{path}")
    first, second = ports(server)
    assert first != second  # port 0: each gets one
    clients = [connect(server, "127.0.0.1", first), connect(server, "127.0.0.2", second)]
    clients.append(server.adopt(UnixClient(path)))
    assert f"listening on: unix:{path}\n" in server.printed()
    for client in clients:
        client.set("q", b"x")
    for client in reversed(clients):
        assert client.get("q") == b"x"
    assert clients[0].stats()["curr_connections"] == "3"
    assert server.stop() == 0
    for client in clients:
        client.expect_hang_up()


@needs_ipv6
def test_ipv6_serves_beside_ipv4(start_server: Start) -> None:
    server = start_server("--host", "::", "--host", "0.0.0.0")
    six, four = ports(server)
    connect(server, "::1", six).set("q", b"x")
    assert connect(server, "127.0.0.1", four).get("q") == b"x"
    log = server.printed()
    assert f"listening on: :: port {six}\n" in log
    # Nobody is asked for a name, and others may reach it.
    assert log.count("nobody is asked for a name; whoever reaches this address can take and delete everything") == 2


@needs_ipv6
def test_the_same_port_serves_at_both_kinds_of_address(start_server: Start) -> None:
    server = start_server("--host", "127.0.0.1")
    server.stop()
    server.options = ("--host", "127.0.0.1", "--host", "::1", "--port", str(server.port))
    server.start()
    assert ports(server) == [server.port] * 2
    connect(server, "::1", server.port).set("q", b"x")
    assert server.client().get("q") == b"x"


def test_what_is_kept_from_others_is_not_warned_of(server: RunningServer) -> None:
    assert "WARNING" not in server.printed()


# -- tables [[listener]]


def test_further_listeners_serve_the_same_queues_and_are_named_with_their_dialects(
    start_server: Start, tmp_path: Path
) -> None:
    file, path = tmp_path / "darner.toml", tmp_path / "socket"
    file.write_text(
        f"""[[listener]]
port = 0
[[listener]]
port = 0
address = "127.0.0.2"
[[listener]]
address = "unix:{path}"
"""
    )
    server = start_server("-c", str(file))
    main, further, other = ports(server)
    assert main == server.port
    assert f"listening on: 127.0.0.1 port {further}\n" in server.printed()
    clients = [connect(server, "127.0.0.1", main), connect(server, "127.0.0.1", further)]
    clients += [connect(server, "127.0.0.2", other), server.adopt(UnixClient(path))]
    for number, client in enumerate(clients):
        client.set("q", b"%d" % number)
    assert [client.get("q") for client in reversed(clients)] == [b"0", b"1", b"2", b"3"]
    assert server.stop() == 0
    assert not path.exists()


def test_the_log_names_a_dialect_that_is_not_the_default(start_server: Start, tmp_path: Path) -> None:
    file = tmp_path / "darner.toml"
    file.write_text(f'[[listener]]\nport = 0\ndialect = "kestrel"\n[[listener]]\naddress = "unix:{tmp_path}/socket"\n')
    log = start_server("-c", str(file)).printed()
    assert re.findall(r"listening on: (.*)\n", re.sub(r"port \d+", "port N", log)) == [
        "127.0.0.1 port N",
        "127.0.0.1 port N, kestrel",
        f"unix:{tmp_path}/socket",
    ]
    log = start_server("--dialect", "siberite").printed()
    assert re.search(r"listening on: 127.0.0.1 port \d+, siberite\n", log)


def test_each_listener_knows_its_dialect(tmp_path: Path) -> None:
    endpoints = [Endpoint("127.0.0.1", 0, "kestrel"), Endpoint(f"unix:{tmp_path}/s", 0, "thrift")]
    listeners = open_listeners(endpoints, "0600")
    assert [listener.dialect for listener in listeners] == ["kestrel", "thrift"]
    for listener in listeners:
        listener.close()


def test_other_listeners_need_a_restart(start_server: Start, tmp_path: Path) -> None:
    file = tmp_path / "darner.toml"
    file.write_text("")
    server = start_server("-c", str(file))
    file.write_text('[[listener]]\nport = 0\n[queues.q]\n[aliases]\na = ["q"]\n[default]\ntrace = true')
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "INFO reloaded" in server.printed())
    assert re.findall(r"WARNING (.*)", server.printed()) == [
        "reload: listeners has changed, and takes effect after a restart"
    ]
    file.write_text("[queues.q]\nmax_item = 5")
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "ERROR not reloaded" in server.printed())
    said = f'ERROR not reloaded: {file}: line 2: [queues.q]: unknown option max_item: did you mean "max_items"?'
    assert said in server.printed()


# -- Unix sockets


@pytest.mark.parametrize(("options", "mode"), [((), 0o600), (("--unix-mode", "0660"), 0o660)])
def test_a_unix_socket_has_the_permissions_that_are_asked_for(
    options: tuple[str, ...], mode: int, start_server: Start, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    server = start_server("--host", f"unix:{path}", *options)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    server.adopt(UnixClient(path)).set("q", b"x")
    assert server.stop() == 0
    assert not path.exists()


def test_the_socket_of_a_killed_server_is_removed(start_server: Start, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = start_server("--host", f"unix:{path}")
    server.adopt(UnixClient(path)).set("q", b"x")
    server.kill()
    assert path.exists()
    server.start()
    assert server.adopt(UnixClient(path)).get("q") == b"x"


def test_the_socket_of_a_running_server_is_left_alone(start_server: Start, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = start_server("--host", f"unix:{path}")
    line = refusal("--host", f"unix:{path}", "--data", str(tmp_path / "other"))
    assert line == f"cannot listen on unix:{path}: another server answers there"
    server.adopt(UnixClient(path)).set("q", b"x")


def test_a_socket_that_another_server_has_put_there_is_not_removed_at_the_end(
    start_server: Start, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    server = start_server("--host", f"unix:{path}")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        assert server.stop() == 0
        assert path.exists()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("precious")
    link.symlink_to(file)
    for path in (file, link):
        with pytest.raises(StartError) as refused:
            open_listeners([Endpoint(f"unix:{path}", 0)], "0600")
        assert str(refused.value) == f"cannot listen on unix:{path}: there is a file that is no socket"
    assert file.read_text() == "precious"


@pytest.mark.parametrize(
    ("path", "reason"), [("/no/where", "No such file or directory"), ("/" + "x" * 200, "AF_UNIX path too long")]
)
def test_a_path_that_cannot_be_had_is_named(path: str, reason: str) -> None:
    with pytest.raises(StartError) as refused:
        open_listeners([Endpoint(f"unix:{path}", 0)], "0600")
    assert str(refused.value) == f"cannot listen on unix:{path}: {reason}"


def test_one_bad_address_opens_none(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with pytest.raises(StartError, match=r"cannot listen on 192\.0\.2\.1 port 0: Cannot assign"):
        open_listeners([Endpoint(f"unix:{path}", 0), Endpoint("192.0.2.1", 0)], "0600")
    assert not path.exists()


def test_the_umask_does_not_matter_and_the_file_is_never_wider(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        narrow = open_listeners([Endpoint(f"unix:{tmp_path}/narrow", 0)], "0600")
        os.umask(0o777)
        wide = open_listeners([Endpoint(f"unix:{tmp_path}/wide", 0)], "0666")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "narrow").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "wide").stat().st_mode) == 0o666
    for listener in narrow + wide:
        listener.close()


def test_client_libraries_use_unix_sockets(start_server: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    start_server("--host", f"unix:{path}")
    client = pymemcache.Client(path, timeout=10)
    client.set("q", "hello", noreply=False)
    theirs = pylibmc.Client([path])
    assert theirs.get("q") == b"hello"
    assert theirs.set("q", {"id": 1})
    assert theirs.get("q/open") == {"id": 1}
    assert client.get("q") is None
    client.close()
    theirs.disconnect_all()
