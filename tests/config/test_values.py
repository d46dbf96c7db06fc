"""Checks of single values; most of what they refuse is in test_config."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darner_core.config import values
from darner_core.config.values import BadOption, bad_value, queue_name, queue_sync, show_table
from darner_core.errors import RequestError
from darner_core.protocols.memcache import lines
from darner_core.protocols.memcache import reader as protocol


@pytest.mark.parametrize(
    ("keys", "header"),
    [
        (("default",), "[default]"),
        (("queues", "mail"), "[queues.mail]"),
        (("queues", "mail.*"), '[queues."mail.*"]'),
        (("queues", "a\nb"), '[queues."a\\nb"]'),
        (("queues", ""), '[queues.""]'),
        (("listener", 1), "[[listener]]"),
    ],
)
def test_a_table_is_shown_as_its_header(keys: values.Keys, header: str) -> None:
    assert show_table(keys) == header


def test_what_is_wrong_knows_where_it_stands() -> None:
    bad = bad_value(("queues", "q"), "max_items", -1, "more")
    assert str(bad) == "[queues.q]: max_items = -1: must be more"
    assert bad.keys == ("queues", "q", "max_items")
    assert str(BadOption((), "said", "port")) == "said"


@pytest.mark.parametrize(
    "name", ["", "a b", "a/b", "a\n", "\x7f", "\0", "x" * 251, "ä" * 126, "q", "x" * 250, "ä" * 125, "a+b", "*", "ä"]
)
def test_the_names_of_queues_are_those_of_the_protocol(name: str) -> None:
    def protocol_takes() -> bool:
        try:
            lines.parse_reading(protocol.LineRequest(lambda: None), [name.encode()])
        except RequestError:
            return False
        return True

    takes = not {" ", "/"} & set(name) and protocol_takes()  # there, they end the name
    if takes:
        assert queue_name(name) == name.encode()
    else:
        with pytest.raises(ValueError, match=r"^the name of a queue: 1 to 250 bytes other than control characters"):
            queue_name(name)


def refused(check: Callable[[Any], Any], value: object) -> str | None:
    try:
        check(value)
    except ValueError as error:
        return str(error)
    return None


@settings(deadline=None)
@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers())))
def test_whatever_stands_there_is_taken_or_refused_with_what_is_allowed(value: object) -> None:
    checks: list[Callable[[Any], object]] = [values.queue_name, values.optional_queue_name, queue_sync, values.sync]
    checks += [values.whole_number(0, 5), values.size(0, 5), values.flag, values.text]
    checks += [values.optional_text, values.hosts, values.mode, values.one_of("a")]
    for check in checks:
        said = refused(check, value)
        assert said is None or (said and said.isprintable())


def test_the_sync_of_a_queue_may_be_left_to_the_server() -> None:
    assert queue_sync("") == ""
    assert queue_sync("always") == "always"
    assert queue_sync(5) == 5
    with pytest.raises(ValueError, match=r'^"never", .*; "" is what the server\'s sync says$'):
        queue_sync("sometimes")


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        (6, "a number from 0 to 5"),
        ("x", "a number from 0 to 5"),
        (1.5, "a whole number from 0 to 5"),
        ("1.5", "a whole"),
    ],
)
def test_a_number_with_a_fraction_is_told_that_it_must_be_whole(value: object, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"^{allowed}"):
        values.whole_number(0, 5)(value)
