"""The lock of a directory that a tool looks at, and copies of it made of links."""

import subprocess
import sys
from pathlib import Path

import pytest

from darner_core.errors import DataDirError
from darner_core.tools import unchanged
from tests.support.damaged import body, make_directory, turn_over
from tests.support.harness import ROOT

LOCK = "import sys; from darner_core.tools.unchanged import lock; lock(sys.argv[1], bool(sys.argv[2])).__enter__()"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    make_directory(tmp_path / "data")
    return tmp_path / "data"


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("only_reads", ["", "yes"])
def test_nobody_else_gets_at_a_directory_that_is_locked(directory: Path, only_reads: str) -> None:
    command = [sys.executable, "-c", LOCK, str(directory), only_reads]
    with unchanged.lock(str(directory)):
        other = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "in use by a server; stop it first" in other.stderr
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def test_a_directory_that_is_not_there_cannot_be_locked(tmp_path: Path) -> None:
    with pytest.raises(DataDirError, match="there is none"), unchanged.lock(str(tmp_path / "none")):
        pass


def test_a_damaged_log_is_mended_beside_the_directory_which_stays_as_it_is(directory: Path, tmp_path: Path) -> None:
    (log,) = directory.glob("*.log")
    turn_over(log, log.read_bytes().index(body(b"a", 250)[:60]))
    before = contents(directory)
    mended, stops_by_itself = unchanged.mended(str(directory), str(tmp_path))
    assert not stops_by_itself
    assert contents(directory) == before
    links = contents(Path(mended))
    assert links.keys() == before.keys()
    assert [name for name in before if links[name] != before[name]] == [log.name]
