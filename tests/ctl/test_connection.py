"""One connection, with a server that does what real ones do seldom."""

import socket
import threading
from collections.abc import Iterator

import pytest

from darner_core.ctl.address import Address
from darner_core.ctl.connection import MAX_LINE_BYTES, Connection
from darner_core.ctl.errors import NoServer, Refused


class Pair:
    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.connection = Connection(Address(port=listening.getsockname()[1]), 0.2)
            self.server, _ = listening.accept()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.connection.close()
    made.server.close()


def test_lines_and_bodies_come_in_pieces(pair: Pair) -> None:
    pair.server.sendall(b"VALUE q 0 3\r\nabc\r\nEN")
    assert pair.connection.line() == b"VALUE q 0 3"
    assert pair.connection.exactly(3) == b"abc"
    assert pair.connection.line() == b""
    pair.server.sendall(b"D\n")
    assert pair.connection.reply() == b"END"


def test_a_refusal_is_told_in_the_servers_words(pair: Pair) -> None:
    pair.server.sendall(b"SERVER_ERROR out of disk space\r\n")
    with pytest.raises(Refused, match="refuses: out of disk space"):
        pair.connection.reply()


def test_a_server_that_hangs_up(pair: Pair) -> None:
    pair.server.close()
    with pytest.raises(NoServer, match="has hung up"):
        pair.connection.line()


def test_a_server_that_says_nothing(pair: Pair) -> None:
    with pytest.raises(NoServer, match=r"does not answer within 0\.2 s"):
        pair.connection.line()


def test_a_server_of_another_protocol(pair: Pair) -> None:
    sender = threading.Thread(target=pair.server.sendall, args=(b"x" * (MAX_LINE_BYTES + (1 << 17)),))
    sender.start()
    with pytest.raises(NoServer, match="a line does not end"):
        pair.connection.line()
    pair.connection.exactly(1 << 17)  # so that all can be sent
    sender.join()
