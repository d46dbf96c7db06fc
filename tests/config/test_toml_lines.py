"""Where keys stand in a file."""

import tomllib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from darner_core.config.toml_lines import Lines, Path

FILE = '''\
port = 22133
host = [
  "127.0.0.1",  # ] no end
  "::1",
]
"data" = 'a"b'

[default]
sync = """
[queues.fake]
port = 1
quotes "" and \\""" ""\"""
max_age_s = 1 # [queues.other]

[ queues . "mail.*" ] # a comment
max_items=5
table.of.keys = 1
'quoted = key' = { a = [1, {b = 2}], "c" = 3 }

[queues.mail]
trace=true

[[listener]]
port = 1
[[listener]]
port = 2
  [listener.more]
  x = 2026-01-01 10:00:00
[aliases]
a = ["x",
     "y"]
"ä\\u0041" = """"""
literal = \'\'\'
b = 1
\\\'\'\'
last = 1'''


def lines_of(text: str) -> Lines:
    return Lines(text, tomllib.loads(text))


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("port",), 1),
        (("host",), 2),
        (("host", 1), 4),
        (("data",), 6),
        (("default",), 8),
        (("default", "sync"), 9),
        (("default", "max_age_s"), 13),
        (("queues", "mail.*"), 15),
        (("queues", "mail.*", "max_items"), 16),
        (("queues", "mail.*", "table", "of", "keys"), 17),
        (("queues", "mail.*", "quoted = key"), 18),
        (("queues", "mail.*", "quoted = key", "a", 1, "b"), 18),
        (("queues", "mail"), 20),
        (("queues", "mail", "trace"), 21),
        (("listener", 0), 23),
        (("listener", 0, "port"), 24),
        (("listener", 1), 25),
        (("listener", 1, "port"), 26),
        (("listener", 1, "more", "x"), 28),
        (("aliases", "a", 1), 31),
        (("aliases", "äA"), 32),
        (("aliases", "literal"), 33),
        (("aliases", "last"), 36),
        # The nearest that is there.
        (("queues", "mail", "no"), 20),
        (("listener", 0, "address", 3), 23),
        (("no",), 0),
        ((), 0),
    ],
)
def test_each_key_has_its_line(path: Path, line: int, ends: str) -> None:
    assert lines_of(FILE.replace("\n", ends)).of(path) == line


def test_a_tables_own_header_is_its_line() -> None:
    lines = lines_of("[queues.a.b]\nx = 1\n\n[queues.a]\ny = 2\n")
    assert lines.of(("queues", "a")) == 4
    assert lines.of(("queues", "a", "b")) == 1


def test_no_line_is_better_than_a_wrong_one() -> None:
    for text in ("port 1", "port = 1\n[", 'a = "b', "a = [1", "a = {b = 1", "= 1", "[a", "a = [,]", "a = {,}", "a ="):
        assert Lines(text, {"port": 1, "a": 1}).of(("port",)) == 0
    assert Lines("port = 1\nhost = 1", {"port": 1}).of(("port",)) == 0
    assert Lines("a = " + "[" * 5000 + "]" * 5000, {"a": []}).of(("a",)) == 0


# -- against tomllib: in a document in which each value is the line that its key stands in


KEYS = st.one_of(
    st.text("ab_-1", min_size=1, max_size=2), st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
)
NOISE = st.sampled_from(["", "# [a]\n", "\n", "\t\n", "# a = 1 '''\n", '#"""\n'])
STRINGS = st.sampled_from(
    ['"""\n[x]\n\\"""\n"""', "'''\n'\nk = 1\n'''", '""', "''", '"]"', "'}'", '"#"', '"\\""', "[\n[1, # ]\n], {a=1}\n,]"]
)


def written(key: str, data: st.DataObject) -> str:
    bare = key != "" and set(key) <= set("ab_-1")
    forms = ["bare"] * 2 * bare + ["basic"] + ["literal"] * (key.isprintable() and "'" not in key)
    form = data.draw(st.sampled_from(forms))
    if form == "bare":
        return key
    if form == "literal":
        return f"'{key}'"
    return '"' + "".join(f"\\U{ord(letter):08x}" for letter in key) + '"'


def numbers(value: Any, path: Path = ()) -> list[tuple[Path, int]]:
    """Each number that stands in `value`, and where."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [found for key, below in items for found in numbers(below, (*path, key))]
    return [(path, value)] if type(value) is int and value > 1 else []


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_the_line_that_is_found_for_a_key_holds_it(data: st.DataObject) -> None:
    text = "# the first line\n"
    for _ in range(data.draw(st.integers(1, 8))):
        text += data.draw(NOISE)
        key = ".".join(written(part, data) for part in data.draw(st.lists(KEYS, min_size=1, max_size=3)))
        here = text.count("\n") + 1
        kind = data.draw(st.sampled_from(["pair", "pair", "header", "many", "string", "array", "inline"]))
        addition = {
            "pair": f"{key} = {here} # = 1\n",
            "header": f"[{key}]\n",
            "many": f"[[ {key} ]]#\n",
            "string": f"{key}={data.draw(STRINGS)}\n",
            "array": f"{key} = [\n{here + 1}, # [\n{here + 2}\n, {{ {key} = {here + 3} }} ]\n",
            "inline": f" {key} = {{ a.{key} = {here}, b = [{here}, '}}'] }}\n",
        }[kind]
        try:
            tomllib.loads(text + addition)
        except tomllib.TOMLDecodeError:  # a key twice, or one that is no table
            continue
        text += addition
    values = tomllib.loads(text)
    lines = lines_of(text)
    found = numbers(values)
    assert [(path, lines.of(path)) for path, _ in found] == found
    assert not values or lines.of((next(iter(values)),)) > 0
