"""Items and events as a person reads them, and as a program does."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darner_core.tools.formatting import (
    EVENT_HEAD,
    TAKEN,
    WAITING,
    ShownItem,
    event_json,
    event_line,
    item_head,
    item_json,
    item_line,
    show_duration,
    show_expiry,
    show_start,
)

S, M, H, D = 1000, 60_000, 3_600_000, 86_400_000


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0s"),
        (99, "0s"),
        (100, "0.1s"),
        (9999, "9.9s"),
        (10 * S, "10s"),
        (59 * S + 999, "59s"),
        (60 * S, "1m"),
        (3 * M + 20 * S, "3m 20s"),
        (59 * M + 59 * S, "59m 59s"),
        (H + 59 * S, "1h"),
        (2 * H + 5 * M + 59 * S, "2h 5m"),
        (D, "1d"),
        (400 * D + 23 * H, "400d 23h"),
        (-5 * M, "-5m"),  # the clock was set back
    ],
)
def test_durations_have_the_two_largest_units(ms: int, text: str) -> None:
    assert show_duration(ms) == text


def test_an_expiry_is_seen_from_now() -> None:
    assert show_expiry(0, 1000) == "-"
    assert show_expiry(3 * M, M) == "in 2m"
    assert show_expiry(M, 3 * M) == "2m ago"


@pytest.mark.parametrize(
    ("start", "body_bytes", "text"),
    [
        (b"", 0, ""),
        (b"hello", 5, "hello"),
        (b"hello", 6, "hello..."),
        (b"a\r\nb\0\x1b[31m", 10, r"a\r\nb\x00\x1b[31m"),
        ("grün".encode(), 5, "grün"),
        ("grü".encode()[:3], 9, "gr..."),  # a letter cut in two
        (b"gr\xc3", 3, r"gr\xc3"),  # nothing is cut: it ends so
        (b"\xff\xfe", 2, r"\xff\xfe"),
        (rb"a\nb", 4, r"a\\nb"),  # is not a newline
    ],
)
def test_a_body_is_shown_on_one_line_and_cannot_be_taken_for_another(start: bytes, body_bytes: int, text: str) -> None:
    assert show_start(start, body_bytes) == text


@given(st.binary(max_size=60))
def test_whatever_is_in_a_body_is_printable(body: bytes) -> None:
    assert show_start(body, len(body)).isprintable()


def test_the_columns_of_an_item_stand_below_their_heads() -> None:
    now = 10 * D
    head = item_head(8)
    usual = item_line(8, ShownItem(12, 0, now + H, now - 3 * M, now, 5, WAITING, b"hello", False))
    widest = item_line(8, ShownItem(12345678, 2**32 - 1, 0, now - 400 * D - 23 * H, now, 2**30, TAKEN, b"x", False))
    assert usual == "      12  3m         in 1h                  0           5  waiting           hello"
    for name in ("AGE", "EXPIRES", "STATE", "BODY"):
        column = head.index(name)
        assert head[column - 1] == usual[column - 1] == widest[column - 1] == " "
        assert usual[column] != " "
        assert widest[column] != " "
    for name in ("ID", "FLAGS", "SIZE"):
        end = head.index(name) + len(name)
        assert usual[end] == widest[end] == " "
        assert usual[end - 1] != " "
        assert widest[end - 1] != " "


def test_an_item_as_json_has_all_in_units_of_the_wire() -> None:
    line = item_json(ShownItem(3, 7, 0, 1000, 4000, 100, WAITING, b"\xffa", True))
    assert json.loads(line) == {
        "id": 3, "number": None, "age_ms": 3000, "added_at_ms": 1000, "expires_at_ms": None, "flags": 7, "bytes": 100,
        "state": "waiting", "large": True, "first_bytes": "/2E=", "text": r"\xffa...",
    }  # fmt: skip
    assert "\n" not in line


def test_events_stand_below_their_heads() -> None:
    put = {"time_ms": 1_795_283_265_123, "what": "put", "id": 12, "bytes": 5, "flags": 0, "first_bytes": "aGVsbG8="}
    line = event_line(put)
    assert line[5:] == ":45.123  put           12           5           0  hello"  # whatever the time zone
    for name in ("ID", "SIZE", "FLAGS"):
        assert line[EVENT_HEAD.index(name) + len(name) - 1] in "250"
    assert EVENT_HEAD.index("BODY") == line.index("hello")
    assert json.loads(event_json(put)) == {**put, "text": "hello"}
    close = {"time_ms": 1_795_283_265_123, "what": "close", "id": 12, "bytes": 5}
    assert event_line(close)[14:] == "close         12           5"
    assert json.loads(event_json(close)) == close
    assert event_line({"time_ms": 0, "what": "flush", "items": 3}).split()[1:] == ["flush", "3", "items"]
    assert event_line({"what": "not shown", "events": 3}) == "... 3 events not shown"


def test_an_event_of_what_is_set_aside_keeps_its_id_whole() -> None:
    """Whatever it is called: a new word makes its line longer."""
    event = {"what": "kicked late", "time_ms": 0, "id": 2**51 + 7, "bytes": 5, "flags": 0}
    assert event_line(event).split()[1:] == ["kicked", "late", str(2**51 + 7), "5", "0"]
