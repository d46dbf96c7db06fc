"""Names on one line, whatever is in them."""

import ast
from pathlib import Path

import pytest

from darner_core.showing import show
from tests.support.harness import ROOT


def _is_log_call(node: ast.Call) -> bool:
    called = node.func
    return isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == "log"


def _decodes(node: ast.AST) -> bool:
    """Whether bytes that may be anything are decoded here."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr != "decode":
        return False
    return any(isinstance(word, ast.Constant) and word.value in ("backslashreplace", "replace") for word in node.args)


# What is no name for a line: files that are read, and what dump_config repeats as it stands in the file.
DECODE_OTHER_THINGS = {"showing.py", "status.py", "manifest.py", "snapshot.py", "directory.py", "operating.py"}


@pytest.mark.parametrize("path", sorted((ROOT / "darner_core").rglob("*.py")), ids=lambda path: path.name)
def test_names_are_shown_by_one_function(path: Path) -> None:
    tree = ast.parse(path.read_text())
    if path.name not in DECODE_OTHER_THINGS:
        assert [node.lineno for node in ast.walk(tree) if _decodes(node)] == []  # type: ignore[attr-defined]
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_log_call(node)):
        for argument in call.args[1:]:
            # A name by itself would be bytes, and shown as b'...'.
            is_name = isinstance(argument, ast.Attribute) and argument.attr in ("name", "queue", "key")
            assert not is_name, f"line {call.lineno}: show"


def test_a_name_is_shown_on_one_line_in_printable_letters() -> None:
    for name, shown in (
        (b"mail", "mail"),
        ("grün".encode(), "grün"),
        (b"\xff\xfe", r"\xff\xfe"),
        ("a\u009b31m\u0085ERROR\u202ex\n\x1b[0m".encode(), r"a\x9b31m\x85ERROR\u202ex\n\x1b[0m"),
    ):
        assert show(name) == shown
        assert show(shown) == shown, "twice does no harm"
