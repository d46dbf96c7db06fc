"""A file is replaced whole or not at all."""

import os
from pathlib import Path

import pytest

from darner_core.files import write_atomically


def test_a_file_is_made_and_replaced(tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        write_atomically(str(tmp_path / "file"), content)
        assert (tmp_path / "file").read_bytes() == content
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_what_fails_leaves_the_file_as_it_was_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no space left on device")

    write_atomically(str(tmp_path / "file"), b"one")
    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OSError, match="no space left"):
        write_atomically(str(tmp_path / "file"), b"two")
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"one"
