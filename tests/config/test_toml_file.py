"""A file that can be read, and those that cannot; and where its keys stand."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from darner_core.config import toml_file
from darner_core.config.toml_file import TomlFile, lines_of
from darner_core.config.values import BadOption, Keys
from darner_core.errors import ConfigError


def test_what_is_wrong_is_said_with_the_file_and_the_line(tmp_path: Path) -> None:
    path = tmp_path / "file.toml"
    path.write_text("port = 1\n[default]\nsync = 5\n")
    file = TomlFile(str(path))
    assert file.values == {"port": 1, "default": {"sync": 5}}
    assert str(file.complaint(BadOption(("default",), "bad", "sync"))) == f"{path}: line 3: [default]: bad"
    assert str(file.complaint(BadOption((), "bad", "no"))) == f"{path}: bad"
    assert file.place(("port",)) == f"{path}: line 1"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (b"a = 1\nb = \xff", "line 2: must be UTF-8"),
        (b"a 1", "Expected '=' after a key in a key/value pair (at line 1, column 3)"),
        (b"a = " + b"[" * 100_000, "too many lists or tables inside each other"),
        (b"a = " + b"9" * 5000, "Exceeds the limit"),
        (b"a = 2026-02-31", "Invalid date or datetime (at line 1, column 5)"),
    ],
)
def test_a_file_that_is_no_toml_is_one_line(written: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "file.toml"
    path.write_bytes(written)
    with pytest.raises(ConfigError) as refused:
        TomlFile(str(path))
    assert str(refused.value).startswith(f"{path}: {said}")
    assert str(refused.value).isprintable()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{tmp_path}/no: No such file or directory$"):
        TomlFile(f"{tmp_path}/no")


# -- lines


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


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("port",), 1),
        (("host",), 2),
        (("host", 1), 2),
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
        (("aliases", "a", 1), 30),
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
def test_each_key_has_its_line(path: Keys, line: int, ends: str, tmp_path: Path) -> None:
    (tmp_path / "file.toml").write_bytes(FILE.replace("\n", ends).encode())
    place = TomlFile(str(tmp_path / "file.toml")).place(path)
    assert place == f"{tmp_path}/file.toml{f': line {line}' * bool(line)}"


def test_a_tables_own_header_is_its_line() -> None:
    lines = lines_of("[queues.a.b]\nx = 1\n\n[queues.a]\ny = 2\n")
    assert lines["queues", "a"] == 4
    assert lines["queues", "a", "b"] == 1


def test_a_list_that_is_too_long_to_look_behind_leaves_the_rest_without_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toml_file, "_MOST_IN_VAIN", 100)
    text = "a = 1\nb = [\n" + '  "]",\n' * 100 + "]\nc = 1\n"
    assert lines_of(text) == {("a",): 1}


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


def numbers(value: Any, path: Keys = ()) -> list[tuple[Keys, int]]:
    """Each number that stands in `value` but not in a list of values, and where."""
    if isinstance(value, dict):
        return [found for key, below in value.items() for found in numbers(below, (*path, key))]
    if isinstance(value, list) and all(isinstance(below, dict) for below in value):
        return [found for key, below in enumerate(value) for found in numbers(below, (*path, key))]
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
    assert [(path, lines[path]) for path, _ in found] == found
    assert {key for (key, *_) in lines} == values.keys()
