"""The options behind a queue's name, as all protocols of lines read them."""

import pytest

from darner_core.engines.jobs import NEUTRAL, JobOptions
from darner_core.errors import RequestError
from darner_core.protocols.options import put_options, split, value_of


def test_an_option_is_read_in_any_case_and_its_value_as_it_stands() -> None:
    found = split([b"DELAY=5", b"Key=A=b", b"sync", b"ttr"], (b"delay", b"key", b"sync", b"ttr"), b"get", reads=True)
    assert found == {b"delay": b"5", b"key": b"A=b", b"sync": b"", b"ttr": b"0"}
    assert (value_of(found, b"delay"), value_of(found, b"ttr"), value_of(found, b"pri")) == (5, 0, None)


def test_a_put_says_what_its_job_needs_or_nothing() -> None:
    assert put_options({b"pri": b"0", b"key": b"k"}) == JobOptions(0, 0, 0, b"k")
    assert put_options({b"delay": b"3"}) == JobOptions(3, NEUTRAL)
    assert put_options({}) is None
    assert put_options({b"sync": b""}) is None


@pytest.mark.parametrize(
    ("words", "allowed", "why"),
    [
        ([b"dely=5"], (b"delay", b"pri"), 'unknown option "/dely=5" for get: did you mean "/delay"?'),
        ([b"x"], (b"delay", b"pri", b"key"), 'unknown option "/x" for get: /delay=<ms>, /pri=<n> and /key=<text>'),
        ([b"x"], (b"id",), 'unknown option "/x" for get: /id=<n>'),
        ([b""], (b"id",), 'unknown option "/" for get: /id=<n>'),
        ([b"sync=1"], (b"sync",), 'unknown option "/sync=1" for get: /sync'),
        ([b"close"], (b"delay", b"open"), 'unknown option "/close" for get: /delay=<ms> and /open'),
        ([b"ttr"], (b"ttr",), 'bad option "/ttr" for get: it is /ttr=<ms>'),
        ([b"pri"], (b"pri",), 'bad option "/pri" for get: it is /pri=<n>'),
        ([b"pri=1", b"PRI=2"], (b"pri",), '"/PRI=2" and another /pri in one get: one is allowed'),
    ],
)
def test_an_option_that_cannot_be_is_named(words: list[bytes], allowed: tuple[bytes, ...], why: str) -> None:
    with pytest.raises(RequestError) as raised:
        split(words, allowed, b"get")
    assert str(raised.value) == why


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({b"delay": b"1e3"}, 'bad /delay "1e3": a number from 0 to 281474976710656'),
        ({b"pri": b"4294967296"}, 'bad /pri "4294967296": a number from 0 to 4294967295'),
        ({b"ttr": b"-1"}, 'bad /ttr "-1": a number from 0 to 281474976710656'),
        ({b"key": b""}, 'bad /key "" of 0 bytes: 1 to 200'),
        ({b"key": b"k" * 201}, f'bad /key "{"k" * 60}..." of 201 bytes: 1 to 200'),
    ],
)
def test_a_value_that_cannot_be_is_named(options: dict[bytes, bytes], why: str) -> None:
    with pytest.raises(RequestError) as raised:
        put_options(options)
    assert str(raised.value) == why
