"""Fixtures of the configuration's tests."""

from pathlib import Path

import pytest

from tests.support.configured import File


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "darner.toml")
