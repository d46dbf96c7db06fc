"""Where a server is."""

import socket
from pathlib import Path

import pytest

from darner_core.ctl.address import Address, Tls, read_address
from darner_core.ctl.errors import CtlError, NoServer


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
