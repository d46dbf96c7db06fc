"""Some rounds of refused writes under mixed load: `make refused ROUNDS=300` for more."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.harness import ROOT

ROUNDS = 20
PATIENCE_S = 600.0  # it takes 60 s


@pytest.mark.long
def test_what_was_answered_is_there_and_what_was_refused_is_not(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "loadtest.crash.refused", "--rounds", str(ROUNDS)],
        cwd=ROOT,
        env={"TMPDIR": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found = re.match(rf"{ROUNDS} rounds, nothing lost: ([\d,]+) requests done, ([\d,]+) refused", ended.stdout)
    assert found, ended.stdout
    # It was tried: there was load, and the disk refused in the middle of it.
    assert all(int(number.replace(",", "")) > 50 * ROUNDS for number in found.groups()), ended.stdout
    assert list(tmp_path.iterdir()) == []
