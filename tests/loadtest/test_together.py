"""A few rounds of kill -9 while items go into many queues; and a server that breaks its promises is found out."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.harness import ROOT

ROUNDS = 5
PATIENCE_S = 120.0  # it takes 8 s


def together(*words: str, directory: Path) -> "subprocess.CompletedProcess[str]":
    """`python -m loadtest.crash.together`; what it keeps, it keeps in `directory`."""
    return subprocess.run(
        [sys.executable, "-m", "loadtest.crash.together", "--rounds", str(ROUNDS), *words],
        cwd=ROOT,
        env={"TMPDIR": str(directory), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.long
def test_what_belongs_together_stays_together_however_often_the_server_is_killed(tmp_path: Path) -> None:
    ended = together("--seed", "4", directory=tmp_path)  # with items that expire in one of the rounds
    assert ended.returncode == 0, ended.stderr
    found = re.match(
        rf"{ROUNDS} rounds, nothing lost: ([\d,]+) items where they belong, ([\d,]+) expired, ([\d,]+) sets in doubt",
        ended.stdout,
    )
    assert found, ended.stdout
    # It was tried: there was load, some of it expired, and the kills came into the middle of it.
    assert all(int(number.replace(",", "")) > 0 for number in found.groups()), ended.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_answers_before_it_writes_is_found_out(tmp_path: Path) -> None:
    ended = together("--seed", "9", "--program", "tests/servers/late_writer.py", directory=tmp_path)
    assert ended.returncode == 1, ended.stdout
    found = re.fullmatch(r"together: round \d+ of \d+, seed 9: (.*); kept: (.*)\n", ended.stderr, re.DOTALL)
    assert found, ended.stderr
    assert (Path(found[2]) / "data" / "FORMAT").exists()
