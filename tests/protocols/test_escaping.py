"""Names of queues in protocols whose names are others."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darner_core.config.values import QUEUE_NAME
from darner_core.protocols.escaping import meant, name_elsewhere, queue_name, said

NOT_LETTERS = re.compile(rb"[^a-z]")


@pytest.mark.parametrize(
    ("name", "queue"),
    [
        (b"mail", b"mail"),
        (b"mail/out", b"mail%2Fout"),
        (b"a b", b"a%20b"),
        (b"50%", b"50%"),
        (b"\xff\r\n", b"\xff%0D%0A"),
    ],
)
def test_what_a_queue_cannot_be_called_is_escaped_in_its_name(name: bytes, queue: bytes) -> None:
    assert queue_name(name) == queue
    assert name_elsewhere(queue) == name


@pytest.mark.parametrize("name", [b"", b"a" * 251, b"/" * 84])
def test_a_name_that_no_queue_can_have_is_none(name: bytes) -> None:
    assert queue_name(name) is None


def test_what_a_protocol_cannot_say_is_escaped_there() -> None:
    assert said(b"a:b%", NOT_LETTERS) == b"a%3Ab%25"
    assert meant(b"a%3Ab%25") == b"a:b%"


def test_every_queue_has_one_name_elsewhere_and_is_found_by_it() -> None:
    @given(st.from_regex(QUEUE_NAME, fullmatch=True))
    def there_and_back(queue: bytes) -> None:
        name = said(name_elsewhere(queue), NOT_LETTERS)
        assert name.isascii()
        assert queue_name(meant(name)) == queue

    there_and_back()
