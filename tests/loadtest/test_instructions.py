"""The count of instructions: it runs, and two counts of one checkout agree."""

import re
import shutil
import subprocess
import sys

import pytest

from tests.support.harness import ROOT


@pytest.mark.long
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="needs valgrind")
def test_two_counts_of_one_checkout_agree() -> None:
    words = [sys.executable, "-m", "loadtest.compare.instructions", str(ROOT), str(ROOT)]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended
    one, other = (int(count.replace(",", "")) for count in re.findall(r"^([\d,]+) instructions", ended.stdout, re.M))
    assert one == pytest.approx(other, rel=0.01)
    assert one > 1000
