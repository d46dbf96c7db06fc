"""Lines and bodies, and what is said when a server goes away."""

import socket
from collections.abc import Iterator

import pytest

from darner_core.ctl.errors import NoServer
from darner_core.ctl.moving.places import WHOLE_BYTES
from darner_core.ctl.moving.wire import Wire


@pytest.fixture
def ends() -> Iterator[tuple[Wire, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    wire = Wire(ours, "old:1")
    yield wire, theirs
    wire.close()
    theirs.close()


def test_lines_and_bodies(ends: tuple[Wire, socket.socket]) -> None:
    wire, server = ends
    server.sendall(b"VALUE\r\nbare\nab\r\nc\r\n")
    assert [wire.line(), wire.line(), wire.body(5)] == [b"VALUE", b"bare", b"ab\r\nc"]


def test_a_large_body_comes_in_pieces(ends: tuple[Wire, socket.socket]) -> None:
    import threading

    wire, server = ends
    body = bytes(WHOLE_BYTES + 1)
    sender = threading.Thread(target=server.sendall, args=(body + b"\r\nEND\r\n",))
    sender.start()
    pieces = wire.body(len(body))
    assert not isinstance(pieces, bytes)
    assert b"".join(pieces) == body
    assert wire.line() == b"END"
    sender.join()


def test_a_server_that_hangs_up_is_named(ends: tuple[Wire, socket.socket]) -> None:
    wire, server = ends
    server.sendall(b"VAL")
    server.close()
    with pytest.raises(NoServer, match="old:1 has hung up"):
        wire.line()


def test_a_body_that_is_cut_off_is_no_body(ends: tuple[Wire, socket.socket]) -> None:
    wire, server = ends
    server.sendall(b"abc")
    server.close()
    with pytest.raises(NoServer, match="hung up"):
        wire.body(3)


def test_silence_is_said(ends: tuple[Wire, socket.socket]) -> None:
    wire, _ = ends
    wire._socket.settimeout(0.01)
    with pytest.raises(NoServer, match="--timeout"):
        wire.line()
