"""RESP's requests, whole, in pieces, inline, and what is none."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darner_core.protocols.contract import Command
from darner_core.protocols.resp.reader import MAX_WORDS, RespReader, RespRequest, first_words, takes

MAX_WORD = 2000


def new_reader() -> RespReader:
    table = {
        b"ping": Command(takes(0, 1), lambda request, body, session: list(request.words)),
        b"set": Command(takes(2), lambda request, body, session: list(request.words)),
    }
    return RespReader(table, lambda error: lambda *_: str(error), MAX_WORD)


def heard(*pieces: bytes) -> list[Any]:
    """The words of each request; the text of an error."""
    reader = new_reader()
    found: list[Any] = []
    for piece in pieces:
        if reader.error is not None:
            break
        alone = reader.single(piece)
        requests = reader.requests(piece) if alone is None else [(alone, None)]
        found += [request.run(request, body, None) for request, body in requests]
    return [*found, str(reader.error)] if reader.error is not None else found


def array(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def test_an_array_of_words_is_a_request() -> None:
    assert heard(array(b"SET", b"k", b"a\r\nb")) == [[b"SET", b"k", b"a\r\nb"]]


def test_one_short_request_that_comes_alone_is_read_at_once() -> None:
    short = array(b"set", b"k", b"a" * 64)
    request = new_reader().single(short)
    assert request is not None
    assert request.run(request, None, None) == [b"set", b"k", b"a" * 64]
    others = (
        short * 2,
        short[:-1],
        short + b"*",
        b"ping\r\n",
        b"*0\r\n",
        array(b"set", b"k", b"a\r\nb"),
        b"*1\r\n$5\r\nping\r\n",
    )
    assert [new_reader().single(other) for other in others] == [None] * len(others)


def test_behind_a_part_of_a_request_comes_its_rest() -> None:
    reader = new_reader()
    assert not list(reader.requests(b"*3\r\n$3\r\nset\r\n$1\r\nk\r\n$%d\r\n" % len(array(b"ping"))))
    assert reader.single(array(b"ping")) is None


def test_requests_may_follow_one_another() -> None:
    assert heard(array(b"ping") + b"PING hello\r\n" + array(b"ping")) == [[b"ping"], [b"PING", b"hello"], [b"ping"]]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"ping", [b"ping"]),
        (b"  set  a   b ", [b"set", b"a", b"b"]),
        (b'set "a b" "c\\n\\x41\\""', [b"set", b"a b", b'c\nA"']),
        (b"set 'a b' 'it\\'s'", [b"set", b"a b", b"it's"]),
        (b'set "" x', [b"set", b"", b"x"]),
    ],
)
def test_a_line_is_a_request_as_people_type_it(line: bytes, words: list[bytes]) -> None:
    assert heard(line + b"\r\n") == heard(line + b"\n") == [words]


@pytest.mark.parametrize("nothing", [b"\r\n", b"\n", b"*0\r\n", b"*-1\r\n"])
def test_an_empty_request_is_passed_over(nothing: bytes) -> None:
    assert heard(nothing + array(b"ping")) == [[b"ping"]]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b'set "a\r\n', "Protocol error: unbalanced quotes in request"),
        (b'set "a"b c\r\n', "Protocol error: unbalanced quotes in request"),
        (b"*x\r\n", "Protocol error: invalid multibulk length"),
        (b"*%d\r\n" % (MAX_WORDS + 1), "Protocol error: invalid multibulk length"),
        (b"*1\r\nx4\r\nping\r\n", "Protocol error: expected '$', got 'x'"),
        (b"*1\r\n$x\r\n", "Protocol error: invalid bulk length"),
        (b"*1\r\n$-1\r\n", "Protocol error: invalid bulk length"),
        (b"*1\r\n$2001\r\n", "Protocol error: invalid bulk length"),
        (b"x" * 70_000, "Protocol error: too big inline request"),
        (b"*1\r\n$" + b"1" * 70_000, "Protocol error: too big bulk count string"),
        (b"*" + b"1" * 70_000, "Protocol error: too big mbulk count string"),
        (b"POST / HTTP/1.1\r\n", "this is an HTTP request, but no web server"),
        (b"\x16\x03\x01", "Protocol error: this is the beginning of a TLS handshake, but there is no TLS at this port"),
    ],
)
def test_behind_what_is_no_request_nothing_is_read(data: bytes, error: str) -> None:
    assert heard(data + b"\r\n" + array(b"ping")) == [error]


def test_an_unknown_command_or_too_many_words_are_told_and_the_next_is_read() -> None:
    assert heard(array(b"Nonsense") + array(b"ping", b"a", b"b") + array(b"set", b"k") + array(b"ping")) == [
        "unknown command 'Nonsense'",
        "wrong number of arguments for 'ping' command",
        "wrong number of arguments for 'set' command",
        [b"ping"],
    ]


def test_what_is_held_of_a_request_is_counted() -> None:
    reader = RespReader({}, lambda error: lambda *_: b"", MAX_WORD)
    assert list(reader.requests(b"*3\r\n$3\r\nset\r\n$5\r\nab")) == []
    assert reader.in_pieces
    assert reader.body_bytes > 9
    reader.drop()
    assert reader.body_bytes == 0
    assert not reader.in_pieces


SAID = array(b"set", b"k", b"v" * 90) + b'set "a b" c\r\n' + array(b"ping") + b"*0\r\n" + array(b"nonsense", b"x")


@given(st.lists(st.integers(0, len(SAID)), max_size=8))
def test_any_split_of_the_same_bytes_means_the_same(cuts: list[int]) -> None:
    pieces = [SAID[begin:end] for begin, end in pairwise([0, *sorted(cuts), len(SAID)])]
    assert heard(*pieces) == heard(SAID)


WORDS = st.lists(st.binary(max_size=20) | st.sampled_from([b"\r\n", b"$1\r\na", b"*1\r\n", b"x" * 1500]), min_size=1)


@given(st.lists(WORDS, max_size=8), st.integers(1, 40), st.binary(max_size=10))
def test_pipelined_requests_are_read_as_they_were_written(
    requests: list[list[bytes]], step: int, behind: bytes
) -> None:
    """Those that come whole are read in another way than those that come in pieces."""
    data = b"".join(array(b"set", b"k", *words) for words in requests)
    whole = heard(data + behind)
    assert whole[: len(requests)] == [[b"set", b"k", *words] for words in requests]
    data += behind
    assert heard(*(data[at : at + step] for at in range(0, len(data), step))) == whole


@given(st.lists(st.binary(max_size=200) | st.from_regex(rb"\*[0-9]{1,2}\r\n\$[0-9]{1,2}\r\n"), max_size=5))
def test_no_bytes_break_the_reader(pieces: list[bytes]) -> None:
    heard(*pieces)


def test_the_first_request_is_found_alone() -> None:
    assert first_words(array(b"AUTH", b"a", b"b") + b"rest") == ([b"AUTH", b"a", b"b"], b"rest")
    assert first_words(b"*2\r\n$4\r\nAU") is None
    assert first_words(b"") is None


def test_a_request_tells_its_arguments() -> None:
    assert RespRequest(lambda *_: b"", words=(b"set", b"a", b"b")).arguments == (b"a", b"b")
