"""What was most likely meant."""

import pytest

from darner_core import nearest
from darner_core.nearest import did_you_mean

KNOWN = ["set", "get", "flush_all", "--port"]


@pytest.mark.parametrize(
    ("word", "near"),
    [("sett", "set"), ("GTE", "get"), ("Flush-All", "flush_all"), ("flushall", "flush_all"), ("--prot", "--port")],
)
def test_the_nearest_is_named_whatever_its_case(word: str, near: str) -> None:
    assert did_you_mean(word, KNOWN) == f'did you mean "{near}"?'


def test_what_is_near_to_nothing_is_told_something_else() -> None:
    assert did_you_mean("frobnicate", KNOWN) == ""
    assert did_you_mean("", KNOWN, "look there") == "look there"
    assert did_you_mean("set", [], "look there") == "look there"


def test_a_word_without_end_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "get_close_matches", lambda *_: pytest.fail("compared"))
    assert did_you_mean("set" * 1000, KNOWN, "look there") == "look there"
