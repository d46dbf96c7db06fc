"""Names of queues, first bytes of lines, and bad words, as all protocols see them."""

import pytest

from darner_core.config.values import MAX_NAME_BYTES
from darner_core.errors import ClientError, MalformedRequest
from darner_core.protocols.grammar import (
    SHOWN_BYTES,
    excerpt,
    require_name,
    require_no_http,
    wrong_beginning,
)


def test_a_name_is_any_bytes_but_controls_space_and_slash() -> None:
    for name in (b"q", b"a+b.c", "ä".encode(), b"\xff", b"n" * MAX_NAME_BYTES):
        require_name(name)
    for name in (b"", b"a b", b"a/b", b"a\n", b"\0", b"\x7f"):
        with pytest.raises(MalformedRequest, match="bad queue name"):
            require_name(name)
    with pytest.raises(ClientError, match="queue name of 251 bytes: at most 250"):
        require_name(b"n" * (MAX_NAME_BYTES + 1))


def test_a_bad_word_is_shown_short_and_on_one_line() -> None:
    assert excerpt(b"a\r\n\xff") == r"a\r\n\xff"
    assert excerpt(b"x" * 1000) == "x" * SHOWN_BYTES + "..."


def test_other_protocols_are_known_by_their_first_byte() -> None:
    assert all(wrong_beginning(byte) is None for byte in b"gG? \r\n")
    for byte, said in ((0x16, "TLS"), (0x80, "binary protocol"), (0x7B, 'not with "{"')):
        error = wrong_beginning(byte)
        assert error is not None
        assert said in str(error)


def test_http_is_known_by_the_end_of_its_first_line() -> None:
    require_no_http(b"get HTTP/1.1 q")
    for line in (b"get / HTTP/1.1", b"POST /x HTTP/1.0\r"):
        with pytest.raises(MalformedRequest, match="no web server"):
            require_no_http(line)
