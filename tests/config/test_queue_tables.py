"""Tables about queues and aliases: what they mean, and what contradicts itself."""

import tomllib
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darner_core.config.queue_tables import Aliases, check_together, read_aliases, read_rules, walk
from darner_core.config.queues import BUILT_IN, CHECKS, QueueRules
from darner_core.config.values import BadOption

# Of each option: a value other than the built-in one as it is written, and as it is taken.
GOOD: dict[str, tuple[Any, Any]] = {
    "max_items": (5, 5),
    "max_bytes": ("1 GiB", 1 << 30),
    "max_item_bytes": ("10 KiB", 10 << 10),
    "max_age_s": (3600, 3600),
    "discard_old_when_full": (True, True),
    "sync": ("always", "always"),
    "expire_to_queue": ("late", b"late"),
    "max_expire_sweep": (100, 100),
    "fanout_only": (True, True),
    "max_queue_age_s": (60, 60),
    "open_transaction_timeout_s": (30, 30),
    "max_open_reads": (1, 1),
    "max_leases": (5, 5),
    "durable": (False, False),
    "max_deliveries": (5, 5),
    "dead_letter_queue": ("dead", b"dead"),
    "retry_delay_s": (10, 10),
    "retry_backoff": (2, 2),
    "max_retry_delay_s": (3600, 3600),
    "default_ttr_s": (60, 60),
    "max_hold_s": (43_200, 43_200),
    "unique_s": (300, 300),
    "trace": (True, True),
}


def read(text: str) -> tuple[QueueRules, Aliases]:
    written = tomllib.loads(text)
    rules, aliases = read_rules(written), read_aliases(written)
    check_together(rules, aliases)
    return rules, aliases


@pytest.mark.parametrize("option", CHECKS)
@pytest.mark.parametrize("table", ["default", "queues"])
def test_every_option_can_be_set_in_every_table(option: str, table: str) -> None:
    written, value = GOOD[option]
    rules = read_rules({"default": {option: written}} if table == "default" else {"queues": {"q": {option: written}}})
    assert getattr(rules.of(b"q"), option) == value != getattr(BUILT_IN, option)
    assert (rules.of(b"r") == BUILT_IN) == (table == "queues")


def test_queues_that_are_named_exactly_are_told() -> None:
    rules, _ = read('[queues.mail]\n[queues."mail.*"]\n[queues."mail+log"]\n[queues."*+x"]\n[queues."ä"]')
    assert rules.named == (b"mail", b"mail+log", "ä".encode())
    assert read("")[0] == QueueRules()
    assert read("[default]\n[queues]")[0] == QueueRules()


def test_an_alias_leads_to_queues_also_through_other_aliases() -> None:
    _, aliases = read('[aliases]\nall = ["c", "some", "b"]\nsome = ["a", "b"]\none = ["a+x"]\nevery = ["all", "one"]')
    assert aliases == {
        b"all": (b"c", b"a", b"b"),
        b"some": (b"a", b"b"),
        b"one": (b"a+x",),
        b"every": (b"c", b"a", b"b", b"a+x"),
    }


def test_a_long_way_from_alias_to_alias_is_no_trouble() -> None:
    lines = "".join(f'a{number} = ["a{number + 1}"]\n' for number in range(5000))
    _, aliases = read(f"[aliases]\n{lines}")
    assert aliases[b"a0"] == (b"a5000",)


def test_doubling_aliases_are_followed_once() -> None:
    lines = "".join(f'a{n} = ["b{n}", "c{n}"]\nb{n} = ["a{n + 1}"]\nc{n} = ["a{n + 1}"]\n' for n in range(200))
    _, aliases = read(f"[aliases]\n{lines}")
    assert aliases[b"a0"] == (b"a200",)


# -- what is wrong

ANY_OPTION = ", ".join(CHECKS)
A_NAME = "the name of a queue: 1 to 250 bytes other than control characters, space and /"

WRONG: list[tuple[str, tuple[str | int, ...], str]] = [
    # the file, the way to what is wrong, what is said
    ("default = 1", ("default",), "[default]: must be a table of options of queues"),
    ("queues = 1", ("queues",), "queues = 1: must be tables [queues.NAME]"),
    ("[[queues]]", ("queues",), "queues = [{}]: must be tables [queues.NAME]"),
    ("queues.q = 1", ("queues", "q"), "[queues.q]: must be a table of options of queues"),
    ("[default]\nmax = 1", ("default", "max"), f"[default]: unknown option max: one of {ANY_OPTION}"),
    (
        "[queues.mail.spam]",
        ("queues", "mail", "spam"),
        f"[queues.mail]: unknown option spam: one of {ANY_OPTION};"
        ' a queue with a dot in its name is written [queues."mail.spam"]',
    ),
    ('[queues."a b"]', ("queues", "a b"), f'[queues."a b"]: must have {A_NAME}'),
    ('[queues.""]', ("queues", ""), f'[queues.""]: must have {A_NAME}'),
    (
        '[queues."+x"]',
        ("queues", "+x"),
        '[queues."+x"]: a name with + is that of a fanout child, PARENT+CHILD: neither may be empty',
    ),
    (
        '[queues."x*+"]',
        ("queues", "x*+"),
        '[queues."x*+"]: a name with + is that of a fanout child, PARENT+CHILD: neither may be empty',
    ),
    (
        '[queues."x+y"]\nfanout_only = true',
        ("queues", "x+y", "fanout_only"),
        '[queues."x+y"]: fanout_only = true: must not be set for a fanout child, which has none',
    ),
    (
        '[queues.q]\nexpire_to_queue = "q"',
        ("queues", "q", "expire_to_queue"),
        "[queues.q]: expire_to_queue = 'q': must be another queue than itself",
    ),
    (
        '[queues.q]\ndead_letter_queue = "q"',
        ("queues", "q", "dead_letter_queue"),
        "[queues.q]: dead_letter_queue = 'q': must be another queue than itself",
    ),
    (
        '[queues."q+c"]\ndead_letter_queue = "q"',
        ("queues", "q+c", "dead_letter_queue"),
        "[queues.\"q+c\"]: dead_letter_queue = 'q': must be another queue than its own parent, from which it would come"
        " back",
    ),
    (
        '[queues.a]\ndead_letter_queue = "b"\n[queues.b]\ndead_letter_queue = "a"',
        ("queues", "a", "dead_letter_queue"),
        "[queues.a]: dead_letter_queue leads in a circle, a -> b -> a: dead letters must not come back to the queue"
        " that they failed in",
    ),
    (
        "[queues.q]\nretry_delay_s = 60\nmax_retry_delay_s = 30",
        ("queues", "q", "retry_delay_s"),
        "[queues.q]: retry_delay_s = 60: must be at most 30, because max_retry_delay_s = 30: that is how long the wait"
        " may get",
    ),
    (
        '[queues."*"]\nmax_hold_s = 10\n[queues.q]\ndefault_ttr_s = 30',
        ("queues", "q", "default_ttr_s"),
        '[queues.q]: default_ttr_s = 30: must be at most 10, because max_hold_s = 10 in [queues."*"]: that is how'
        " long a reader may keep an item",
    ),
    (
        '[queues."q+c"]\nexpire_to_queue = "q"',
        ("queues", "q+c", "expire_to_queue"),
        "[queues.\"q+c\"]: expire_to_queue = 'q': must be another queue than its own parent, from which it would come"
        " back",
    ),
    (
        '[queues."q+*"]\nexpire_to_queue = "q"',
        ("queues", "q+*", "expire_to_queue"),
        "[queues.\"q+*\"]: expire_to_queue = 'q': must be another queue than its own parent, from which it would come"
        " back",
    ),
    (
        '[queues.a]\nexpire_to_queue = "b"\n[queues.b]\nexpire_to_queue = "a"',
        ("queues", "a", "expire_to_queue"),
        "[queues.a]: expire_to_queue leads in a circle, a -> b -> a: items must not come back to the queue that they"
        " expired in",
    ),
    (
        '[default]\nexpire_to_queue = "dead"\n[queues.dead]\nexpire_to_queue = "deader"',
        ("queues", "dead", "expire_to_queue"),
        "[queues.dead]: expire_to_queue leads in a circle, dead -> deader -> dead: items must not come back to the"
        " queue that they expired in",
    ),
    (  # what is put into a comes to its child, too
        '[queues."a+c"]\nexpire_to_queue = "b"\n[queues.b]\nexpire_to_queue = "a"',
        ("queues", "a+c", "expire_to_queue"),
        '[queues."a+c"]: expire_to_queue leads in a circle, a -> b -> a: items must not come back to the queue that'
        " they expired in",
    ),
    (
        '[queues."*+c"]\nexpire_to_queue = "b"\n[queues.b]\nexpire_to_queue = "a"',
        ("queues", "*+c", "expire_to_queue"),
        '[queues."*+c"]: expire_to_queue leads in a circle, a -> b -> a: items must not come back to the queue that'
        " they expired in",
    ),
    (
        '[queues."m*"]\nexpire_to_queue = "all"\n[aliases]\nall = ["x", "mail"]',
        ("queues", "m*", "expire_to_queue"),
        '[queues."m*"]: expire_to_queue leads in a circle, all -> mail -> all: items must not come back to the queue'
        " that they expired in",
    ),
    (
        '[queues.q]\ndurable = false\nsync = "always"',
        ("queues", "q", "sync"),
        "[queues.q]: sync = 'always': must not be set for a queue in memory only, as durable = false in [queues.q]"
        " says",
    ),
    (
        "[default]\nsync = 5\ndurable = false",
        ("default", "sync"),
        "[default]: sync = 5: must not be set for a queue in memory only, as durable = false in [default] says",
    ),
    (
        '[queues.q]\ndurable = false\n[queues."q+c"]\nsync = 5',
        ("queues", "q+c", "sync"),
        '[queues."q+c"]: sync = 5: must not be set for a queue in memory only, as durable = false in [queues.q] says',
    ),
    (
        '[queues."t*"]\ndurable = false\n[queues.tmp]\nsync = 5',
        ("queues", "tmp", "sync"),
        '[queues.tmp]: sync = 5: must not be set for a queue in memory only, as durable = false in [queues."t*"] says',
    ),
    ("aliases = 1", ("aliases",), "aliases = 1: must be a table [aliases]"),
    ('[aliases]\n"a b" = ["q"]', ("aliases", "a b"), f"[aliases]: a b: an alias must have {A_NAME}"),
    (
        "[aliases]\na = []",
        ("aliases", "a"),
        '[aliases]: a = []: must be a list of queues, as in ["a", "b"], that is not empty',
    ),
    (
        '[aliases]\na = "q"',
        ("aliases", "a"),
        '[aliases]: a = \'q\': must be a list of queues, as in ["a", "b"], that is not empty',
    ),
    ("[aliases]\na = [5]", ("aliases", "a"), f"[aliases]: a = [5]: must be {A_NAME}"),
    ('[aliases]\na = ["q", "q"]', ("aliases", "a"), "[aliases]: a = ['q', 'q']: must be queues that differ"),
    (
        '[aliases]\na = ["a"]',
        ("aliases", "a"),
        "[aliases]: a leads in a circle, a -> a: an alias must not lead to itself",
    ),
    (
        '[aliases]\nx = ["a"]\na = ["q", "b"]\nb = ["c"]\nc = ["r", "a"]',
        ("aliases", "a"),
        "[aliases]: a leads in a circle, a -> b -> c -> a: an alias must not lead to itself",
    ),
    (
        '[queues.a]\n[aliases]\na = ["q"]',
        ("queues", "a"),
        "[queues.a]: is an alias, too: nobody could reach the queue behind it; remove one of the two",
    ),
]


@pytest.mark.parametrize(("text", "keys", "said"), WRONG)
def test_what_contradicts_itself_is_named(text: str, keys: tuple[str | int, ...], said: str) -> None:
    with pytest.raises(BadOption) as refused:
        read(text)
    assert str(refused.value) == said
    assert refused.value.keys == keys


BAD_VALUES: dict[str, list[Any]] = {
    "max_items": [-1, 10**12 + 1, 1.5, True, "5 KiB", []],
    "max_bytes": [-1, "5 KB", (1 << 50) + 1, False],
    "max_item_bytes": [-1, "x", None],
    "max_age_s": [-1, "1h", 3_153_600_001],
    "discard_old_when_full": [1, "true"],
    "sync": [0, "sometimes", 3_600_001, False],
    "expire_to_queue": [5, "a b", "a/b", "x" * 251],
    "max_expire_sweep": [-1, 0.5],
    "fanout_only": [0, "no"],
    "max_queue_age_s": [-1, "x"],
    "open_transaction_timeout_s": [-1, {}],
    "max_open_reads": [0, -1, 1_000_001],
    "max_leases": [-1, 10_000_001],
    "durable": [0, "false"],
    "max_deliveries": [-1, 65_536, "many"],
    "dead_letter_queue": [5, "a b", "x" * 251],
    "retry_delay_s": [-1, 0.5],
    "retry_backoff": [0, 1.5, 1001],
    "max_retry_delay_s": [-1, "1h"],
    "default_ttr_s": [-1, True],
    "max_hold_s": [-1, []],
    "unique_s": [-1, 3_153_600_001],
    "trace": [None, 2],
}


@pytest.mark.parametrize("option", CHECKS)
def test_a_bad_value_is_named_with_what_is_allowed(option: str) -> None:
    for value in BAD_VALUES[option]:
        with pytest.raises(BadOption) as refused:
            read_rules({"queues": {"q": {option: value}}})
        assert str(refused.value).startswith(f"[queues.q]: {option} = {value!r}: must be ")
        assert refused.value.keys == ("queues", "q", option)


FINE = [
    "[default]\nsync = 5\n[queues.q]\ndurable = false",  # what it inherits means nothing there
    '[default]\ndurable = false\n[queues.q]\ndurable = true\nsync = "always"',
    '[queues.q]\ndurable = false\nsync = ""',
    '[default]\nexpire_to_queue = "dead"\n[queues.dead]\nmax_age_s = 5',
    '[default]\nexpire_to_queue = "dead"\n[queues.dead]\nexpire_to_queue = "deader"\n'
    '[queues.deader]\nexpire_to_queue = ""',
    '[queues.a]\nexpire_to_queue = "b"\n[queues.b]\nexpire_to_queue = "c"',
    '[queues.a]\nexpire_to_queue = "a+late"',
    '[queues."a+b"]\nexpire_to_queue = "a+c"',
    "[queues.q]\ndiscard_old_when_full = true",
    '[queues."*"]\nfanout_only = true\n[queues."q+c"]\nfanout_only = false',
    '[queues.mail]\n[aliases]\n"mail*" = ["mail"]',
    '[queues."c++"]',
]


@pytest.mark.parametrize("text", FINE)
def test_what_only_looks_like_a_contradiction_is_allowed(text: str) -> None:
    read(text)


NAMES = st.sampled_from([b"a", b"b", b"c", b"d", b"e"])


@settings(deadline=None)
@given(st.dictionaries(NAMES, st.lists(NAMES, max_size=3)))
def test_a_circle_is_found_if_there_is_one(graph: dict[bytes, list[bytes]]) -> None:
    reached = {name: set(graph.get(name, ())) for name in (b"a", b"b", b"c", b"d", b"e")}
    for _ in reached:
        for name in reached:
            reached[name] = reached[name].union(*(reached[other] for other in reached[name]))
    order, loop = walk(graph, lambda name: graph.get(name, ()))
    assert bool(loop) == any(name in reached[name] for name in reached)
    if loop:
        assert loop[0] == loop[-1]
        assert all(after in graph[before] for before, after in pairwise(loop))
    else:
        assert all(order.index(after) < order.index(before) for before in graph for after in graph[before])


def test_default_may_name_the_queues_that_collect_and_these_keep_what_they_have() -> None:
    rules, _ = read('[default]\nexpire_to_queue = "late"\ndead_letter_queue = "dead"\n[queues.dead]')
    assert (rules.of(b"q").expire_to_queue, rules.of(b"q").dead_letter_queue) == (b"late", b"dead")
    assert (rules.of(b"late").expire_to_queue, rules.of(b"late").dead_letter_queue) == (b"", b"dead")
    assert (rules.of(b"dead").expire_to_queue, rules.of(b"dead").dead_letter_queue) == (b"late", b"")
    assert rules.of(b"dead+c", b"dead").dead_letter_queue == b""


def test_of_options_that_must_be_ordered_a_later_level_may_lift_one() -> None:
    rules, _ = read("[queues.q]\nretry_delay_s = 60\nmax_retry_delay_s = 0\n[queues.r]\nretry_delay_s = 60")
    assert rules.of(b"q").retry_delay_s == rules.of(b"r").retry_delay_s == 60
