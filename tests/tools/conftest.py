"""What tests of tools share: a data directory that is made once."""

from pathlib import Path

import pytest

from tests.support import damaged_asides


@pytest.fixture(scope="session")
def with_asides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as `damaged_asides` makes it. To be copied, not changed."""
    path = tmp_path_factory.mktemp("asides") / "base"
    damaged_asides.make_directory(path)
    return path
