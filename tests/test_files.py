"""A file is replaced whole or not at all."""

import os
import resource
from pathlib import Path

import pytest

from darner_core.files import allow_open_files, write_atomically


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


@pytest.mark.parametrize(
    ("soft", "hard", "needed", "allowed", "raised"),
    [
        (100, 200, 50, 50, None),
        (100, 200, 150, 150, 150),
        (100, 200, 300, 200, 200),
        (100, resource.RLIM_INFINITY, 300, 300, 300),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 300, 300, None),
    ],
)
def test_the_limit_of_open_files_is_raised_as_far_as_it_is_needed_and_allowed(
    soft: int, hard: int, needed: int, allowed: int, raised: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: found.append(limits))
    assert allow_open_files(needed) == allowed
    assert found == ([] if raised is None else [(raised, hard)])
