"""The waits of memcache's clients beside HTTP: the program runs, and its figures are of what it asked."""

import json
import subprocess
import sys

import pytest

from tests.support.harness import ROOT


@pytest.mark.long
def test_it_tells_how_much_longer_they_wait() -> None:
    words = ["--rounds-per-s", "40", "--clients", "3", "--seconds", "0.4", "--times", "1"]
    ended = subprocess.run(
        [sys.executable, "-m", "loadtest.waits.http_beside", *words],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["flood_p99_ms"] > 0
    assert found["flood_p99_beside_ms"] > 0
    assert 20 <= found["rounds_per_s"] <= 60
