"""The parameters of a query."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darner_core.protocols.http import parameters
from darner_core.protocols.http.contract import Problem

KNOWN = {"delay": parameters.DELAY, "key": parameters.KEY, "q": parameters.QUEUES, "if": parameters.word("", "absent")}


def test_each_is_read_as_what_it_is() -> None:
    told = parameters.read("delay=7&key=a%20b+c&q=x&q=y%2Fz&if=absent&", KNOWN)
    assert told == {"delay": 7, "key": b"a b c", "q": (b"x", b"y%2Fz"), "if": "absent"}
    assert parameters.read("", KNOWN) == {}


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("dely=1", 'unknown parameter "dely": did you mean "delay"?'),
        ("%00=1", 'unknown parameter "\\x00": allowed: delay, key, q, if'),
        ("delay=x", 'parameter delay = "x": must be a whole number of ms from 0 to 281474976710656'),
        ("delay=1&delay=1", "parameter delay stands there twice: once is allowed"),
        ("key=", 'parameter key = "": must be 1 to 200 bytes'),
        ("if=absnt", 'parameter if = "absnt": must be one of absent; did you mean "absent"?'),
    ],
)
def test_what_is_wrong_says_what_is_allowed(query: str, detail: str) -> None:
    with pytest.raises(Problem) as raised:
        parameters.read(query, KNOWN)
    assert (raised.value.status, raised.value.detail) == (400, detail)


@given(st.text(st.characters(max_codepoint=255), max_size=50))
def test_any_query_is_read_or_refused(query: str) -> None:
    with suppress(Problem):
        assert parameters.read(query, KNOWN).keys() <= KNOWN.keys()
