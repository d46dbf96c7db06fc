"""Names in paths and in JSON."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darner_core.protocols.http.contract import Problem
from darner_core.protocols.http.names import number_of, path_of, queue_of, shown


@given(st.binary(min_size=1, max_size=83))
def test_each_name_has_one_path(name: bytes) -> None:
    segment = "".join(f"%{byte:02X}" for byte in name)
    queue = queue_of(segment)
    assert queue_of(path_of(queue)) == queue
    assert "/" not in path_of(queue)


def test_a_name_is_shown_as_text() -> None:
    assert shown(b"gr\xc3\xbc\xc3\x9fe") == "grüße"
    assert shown(b"\xff") == "\\xff"
    assert shown(b"a%2Fb") == "a/b"


def test_a_name_that_is_too_long() -> None:
    with pytest.raises(Problem, match="of 251 bytes"):
        queue_of("x" * 251)
    with pytest.raises(Problem, match="of 0 bytes"):
        queue_of("")


def test_numbers() -> None:
    assert number_of("12") == 12
    assert [number_of(word) for word in ("", "x", "-1", "1.0", "²", "9" * 17)] == [0] * 6
