"""Where a server is."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from darner_core.ctl.address import Address, Tls, read_address
from darner_core.ctl.errors import CtlError, NoServer
from tests.support.ctl import run_ctl
from tests.support.harness import RunningServer
from tests.support.identities import Authority

StartServer = Callable[..., RunningServer]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("queue.example.org", Address("queue.example.org")),
        ("queue.example.org:1", Address("queue.example.org", 1)),
        (":22134", Address(port=22134)),
        ("[::1]:5", Address("::1", 5)),
        ("[::1]", Address("::1")),
        ("::1", Address("::1")),
        ("unix:/run/darner.sock", Address(path="/run/darner.sock")),
    ],
)
def test_forms_of_an_address(text: str, address: Address) -> None:
    assert read_address(text) == address
    assert read_address(str(address)) == address


@pytest.mark.parametrize("text", ["a:b", "a:0", "a:65536", "a:²", "[::1", "[::1]x", "unix:"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"port|address|unix"):
        read_address(text)


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(NoServer, match=f"no server answers at 127.0.0.1:{port}: Connection refused"):
        Address(port=port).connect(5)


def test_a_socket_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoServer, match=r"no server answers at unix:.*: No such file"):
        Address(path=str(tmp_path / "s")).connect(5)


def test_certificates_that_cannot_be_read_are_named() -> None:
    with pytest.raises(CtlError, match="cannot use the certificates in /nowhere"):
        Tls("/nowhere").context()


def test_over_a_unix_socket(start_server: StartServer, tmp_path: Path) -> None:
    path = tmp_path / "s"
    start_server("--host", f"unix:{path}")
    assert run_ctl("--server", f"unix:{path}", "put", "q", "x").json() == {"queue": "q", "put": 1}


def test_over_tls_the_certificate_is_looked_at(start_server: StartServer, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = start_server(*authority.options())
    assert run_ctl("--tls-ca", str(authority.file), "put", "q", "x", port=server.port).status == 0
    itself = str(authority.server()[0])
    other = run_ctl("--tls-ca", itself, "queues", port=server.port)  # of the same name, but another one
    assert (other.status, "shows a certificate that is not trusted" in other.complaint) == (3, True)
    unknown = run_ctl("--tls", "queues", port=server.port)
    assert (unknown.status, "--tls-ca FILE names who signed it" in unknown.complaint) == (3, True)


def test_a_plain_server_is_not_taken_for_one_with_tls(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server()
    ended = run_ctl("--tls", "queues", port=server.port)
    assert (ended.status, "does not speak TLS" in ended.complaint) == (3, True)


def test_a_certificate_says_who_asks(start_server: StartServer, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    file = tmp_path / "darner.toml"
    file.write_text('[users.mailer]\nput = ["mail"]\n')
    server = start_server("-c", str(file), *authority.options(), "--tls-ca", str(authority.file))
    shows = ("--tls-ca", str(authority.file), "--tls-cert", str(authority.client("mailer")))
    assert run_ctl(*shows, "put", "mail", "x", port=server.port).status == 0
    refused = run_ctl(*shows, "take", "mail", port=server.port)
    assert (refused.status, "user mailer may not get from queue mail" in refused.complaint) == (1, True)
