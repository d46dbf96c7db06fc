"""Putting items, as a client sees it, beyond the recorded conversations of tests/wire."""

from collections.abc import Callable

from tests.harness import Client

Connect = Callable[[], Client]


def test_flags_come_back_whatever_they_are(connect: Connect) -> None:
    client = connect()
    for flags in (0, 1, 65535, 2**32 - 1, 0):
        client.set("q", b"x", flags)
        client.ask(b"get q\r\n", b"VALUE q %d 1\r\nx\r\nEND\r\n" % flags)


def test_an_expiry_is_taken_in_every_form_memcached_has(connect: Connect) -> None:
    client = connect()
    for expiry in (b"0", b"60", b"999999", b"1893456000", b"99999999999"):
        client.ask(b"set q 0 " + expiry + b" 1\r\nx\r\n", b"STORED\r\n")
        assert client.get("q") == b"x"
    for expiry in (b"-1", b"-9223372036854775808", b"1000000", b"1600000000"):
        client.ask(b"set q 0 " + expiry + b" 1\r\nx\r\n", b"STORED\r\n")
        assert client.get("q") is None
