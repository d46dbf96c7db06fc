"""A file that can be read, and those that cannot."""

from pathlib import Path

import pytest

from darner_core.config.toml_file import TomlFile
from darner_core.config.values import BadOption
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
