"""Names of queues, written and read."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darner_core.ctl import names

ANY_NAME = st.binary(min_size=1, max_size=250).filter(lambda name: not any(byte in name for byte in b"/ \x7f")).filter(
    lambda name: min(name) > 32
)  # fmt: skip


@given(ANY_NAME)
def test_every_name_can_be_typed_in_as_it_was_printed(name: bytes) -> None:
    written = names.write(name)
    assert written.isprintable()
    assert names.read(written) == name


@pytest.mark.parametrize(
    ("name", "written"),
    [
        (b"mail", "mail"),
        ("wörk".encode(), "wörk"),
        (b"\xff", r"\xff"),
        (b"a\\b", r"a\\b"),
        ("\u200b".encode(), r"\xe2\x80\x8b"),
    ],
)
def test_what_is_printable_stands_for_itself(name: bytes, written: str) -> None:
    assert names.write(name) == written


def test_what_stands_in_the_log_is_read() -> None:
    assert names.read(r"a\u200b") == "a\u200b".encode()


def test_bytes_that_the_shell_passes_on_are_read() -> None:
    assert names.read(os.fsdecode(b"a\xff")) == b"a\xff"


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("", "at least one byte"),
        ("x" * 251, "at most 250 bytes, and this has 251"),
        ("a b", "no spaces"),
        ("a/open", 'this has "/"'),
        (r"a\n", "no spaces, controls"),
        (r"a\q", "a backslash is written"),
        (r"\ud800", "no letter"),
        (r"\Uffffffff", "no letter"),
    ],
)
def test_what_no_queue_can_be_called_is_refused_with_the_reason(written: str, why: str) -> None:
    with pytest.raises(ValueError, match=r"name|letter") as refused:
        names.read(written)
    assert why in str(refused.value)
