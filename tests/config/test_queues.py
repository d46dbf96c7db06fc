"""The options of queues, and where each is set."""

from dataclasses import replace
from typing import Any

import pytest

from darner_core.access.rights import is_for_children
from darner_core.config import queues
from darner_core.config.queues import BUILT_IN, CHECKS, QueueOptions, QueueRules, is_pattern, parent_of


def rules(default: dict[str, Any] | None = None, **queues: dict[str, Any]) -> QueueRules:
    return QueueRules(default, {name.encode(): settings for name, settings in queues.items()})


def test_a_queue_that_nobody_names_has_the_built_in_options() -> None:
    assert QueueRules().of(b"q") is BUILT_IN
    assert QueueRules().of(b"q+c", b"q") is BUILT_IN
    assert QueueRules().named == ()
    assert rules(q={"max_items": 5}).of(b"r") == BUILT_IN


def test_each_level_changes_only_what_it_names() -> None:
    inherited = QueueRules(
        {"max_items": 1, "max_age_s": 1, "trace": True},
        {b"q": {"max_items": 2, "max_bytes": 2}, b"q+c": {"max_bytes": 3}, b"q+": {}},
    )
    assert inherited.of(b"other") == replace(BUILT_IN, max_items=1, max_age_s=1, trace=True)
    assert inherited.of(b"q") == replace(BUILT_IN, max_items=2, max_bytes=2, max_age_s=1, trace=True)
    assert inherited.of(b"q+c", b"q") == replace(BUILT_IN, max_items=2, max_bytes=3, max_age_s=1, trace=True)
    assert inherited.of(b"q+d", b"q") == inherited.of(b"q")
    # Where + means nothing, it is a name like any other.
    assert inherited.of(b"q+c") == replace(BUILT_IN, max_items=1, max_bytes=3, max_age_s=1, trace=True)
    assert inherited.named == (b"q", b"q+c", b"q+")


def test_what_is_built_in_can_be_asked_for_again() -> None:
    again = QueueRules({"max_items": 5, "durable": False}, {b"q": {"max_items": 0, "durable": True}})
    assert again.of(b"q") == BUILT_IN


def test_a_longer_pattern_stands_above_a_shorter_and_the_name_above_all() -> None:
    patterns = QueueRules(
        {"max_items": 1},
        {
            b"mail.spam": {"max_items": 5},
            b"mail.*": {"max_items": 3, "trace": True},
            b"*": {"max_items": 2, "max_bytes": 2},
            b"mail.s*": {"max_items": 4},
            b"ma?l.??": {"max_age_s": 8},
            b"[!m]*zz": {"max_age_s": 9},
        },
    )
    assert patterns.of(b"news") == replace(BUILT_IN, max_items=2, max_bytes=2)
    assert patterns.of(b"mail.") == replace(BUILT_IN, max_items=3, max_bytes=2, trace=True)
    assert patterns.of(b"mail.so") == replace(BUILT_IN, max_items=4, max_bytes=2, trace=True, max_age_s=8)
    assert patterns.of(b"mail.spam") == replace(BUILT_IN, max_items=5, max_bytes=2, trace=True)
    assert patterns.of(b"mailxspam").max_items == 2
    assert patterns.of(b"jazz").max_age_s == 9
    assert patterns.of(b"mazz").max_age_s == 0
    assert patterns.named == (b"mail.spam",)


def test_of_two_patterns_as_long_the_later_one_wins() -> None:
    both = {b"a*": {"max_items": 1}, b"*a": {"max_items": 2}}
    assert QueueRules({}, both).of(b"aa").max_items == 2
    assert QueueRules({}, dict(reversed(both.items()))).of(b"aa").max_items == 1


def test_patterns_take_bytes_that_are_no_text() -> None:
    assert rules(**{"a*": {"max_items": 1}}).of(b"a\xff\xfe").max_items == 1
    assert rules(**{"ä*": {"max_items": 1}}).of("äx".encode()).max_items == 1


def test_a_child_has_what_its_parent_has_and_then_its_own_patterns() -> None:
    children = QueueRules(
        {},
        {
            b"*": {"max_items": 1, "max_bytes": 1},
            b"q": {"max_items": 2},
            b"*+log": {"max_items": 3},
            b"q+*": {"max_age_s": 4},
            b"[+]x": {"trace": True},
        },
    )
    assert children.of(b"q+log", b"q") == replace(BUILT_IN, max_items=3, max_bytes=1, max_age_s=4)
    assert children.of(b"q+x", b"q") == replace(BUILT_IN, max_items=2, max_bytes=1, max_age_s=4)
    assert children.of(b"r+x", b"r") == replace(BUILT_IN, max_items=1, max_bytes=1)
    assert children.of(b"r+log", b"r") == replace(BUILT_IN, max_items=3, max_bytes=1)


def test_a_child_stores_whatever_its_parent_does() -> None:
    fanout = rules(q={"fanout_only": True})
    assert fanout.of(b"q").fanout_only
    assert not fanout.of(b"q+c", b"q").fanout_only
    assert ("fanout_only", False, "built in") in fanout.describe(b"q+c", b"q")


def test_the_queue_that_collects_what_expires_does_not_send_it_to_itself() -> None:
    collected = QueueRules(
        {"expire_to_queue": b"dead"},
        {b"mail.*": {"expire_to_queue": b"mail.late"}, b"q": {"expire_to_queue": b"q+late", "max_items": 5}},
    )
    assert collected.of(b"any").expire_to_queue == b"dead"
    assert collected.of(b"dead").expire_to_queue == b""
    assert collected.of(b"dead+c", b"dead").expire_to_queue == b""  # its parent would give it back
    assert collected.of(b"mail.in").expire_to_queue == b"mail.late"
    # What stands below is what it inherits.
    assert collected.of(b"mail.late").expire_to_queue == b"dead"
    assert collected.of(b"q+late", b"q") == replace(BUILT_IN, expire_to_queue=b"dead", max_items=5)


def test_each_option_is_described_with_its_value_and_who_has_set_it() -> None:
    described = QueueRules(
        {"max_items": 1, "max_age_s": 1, "expire_to_queue": b"mail.late"},
        {b"mail.*": {"max_items": 2}, b"mail.late": {"max_bytes": 3}, b"mail.late+c": {"trace": True}},
    )
    levels = {option: (value, level) for option, value, level in described.describe(b"mail.late")}
    assert list(levels) == list(CHECKS) == list(vars(BUILT_IN))
    assert levels["max_items"] == (2, '[queues."mail.*"]')
    assert levels["max_bytes"] == (3, '[queues."mail.late"]')
    assert levels["max_age_s"] == (1, "[default]")
    assert levels["expire_to_queue"] == (b"", "built in")
    assert levels["trace"] == (False, "built in")
    child = {option: (value, level) for option, value, level in described.describe(b"mail.late+c", b"mail.late")}
    assert child["trace"] == (True, '[queues."mail.late+c"]')
    assert child["max_items"] == (2, '[queues."mail.*"]')
    assert list(QueueRules().describe(b"q")) == [
        (option, value, "built in") for option, value in vars(BUILT_IN).items()
    ]


def test_the_same_tables_give_the_same_options_and_are_kept_once() -> None:
    tables: dict[str, dict[str, Any]] = {"a*": {"max_items": 2}, "x": {"expire_to_queue": b"y"}}
    kept = rules({"max_items": 1}, **tables)
    assert kept.of(b"a1") is kept.of(b"a2")
    assert kept.of(b"b1") is kept.of(b"b2")
    assert kept.of(b"a1") != kept.of(b"b1")


def test_names_without_end_do_not_fill_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "MAX_KEPT", 8)
    overlapping = rules(**{f"*{letter}*": {"max_items": number} for number, letter in enumerate("abcdef")})
    for number in range(64):
        name = "".join(letter for place, letter in enumerate("abcdef") if number >> place & 1)
        assert overlapping.of(name.encode()).max_items == max(number.bit_length() - 1, 0)
        assert len(overlapping._kept) <= 8


def test_rules_can_be_compared() -> None:
    assert rules({"max_items": 1}) == rules({"max_items": 1}) != rules({"max_items": 2})
    assert rules(q={}) != rules() == QueueRules()
    a: dict[bytes, dict[str, Any]] = {b"a*": {"max_items": 1}, b"*a": {}}
    assert QueueRules({}, a) != QueueRules({}, dict(reversed(a.items())))  # which of them is above is another
    assert QueueRules() != BUILT_IN


def test_what_is_built_in_is_allowed() -> None:
    for option, value in vars(QueueOptions()).items():
        assert CHECKS[option]("" if value == b"" else value) == value


@pytest.mark.parametrize(
    ("name", "pattern", "child", "parent"),
    [
        (b"q", False, False, b""),
        (b"q*", True, False, b""),
        (b"[a+]b", True, False, b"[a"),
        (b"[!]+]+b", True, True, b"[!]"),
        (b"q+c", False, True, b"q"),
        (b"q+c+d", False, True, b"q"),
        (b"q+", False, True, b""),
        (b"+c", False, True, b""),
    ],
)
def test_names_patterns_and_children_are_told_apart(name: bytes, pattern: bool, child: bool, parent: bytes) -> None:
    assert is_pattern(name) == pattern
    assert is_for_children(name) == child
    assert parent_of(name) == parent
