"""The measurement of what fanout, cursors and expiry cost: that it runs, and that its table says what was measured."""

import re
import subprocess
import sys

from loadtest.compare import features
from tests.support.harness import ROOT


def test_it_measures_and_shows_a_table() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.compare.features", "cursor", "--rounds", "2", "--items", "1000"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^\| cursor \| ([^|]+) \|", done.stdout, re.MULTILINE) == [
        "cursor gets/s",
        "plain gets/s",
        "ratio",
    ]


def test_the_table_has_the_median_and_both_ends() -> None:
    lines = list(features.rows({"fanout": [{"us": 3.0}, {"us": 1.0}, {"us": 200.0}]}))
    assert lines[2:] == ["| fanout | us | 3.00 | 1.00 | 200 |"]


def test_what_cannot_be_measured_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.compare.features", "speed"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "unknown: speed; there are fanout, cursor, expiry" in done.stderr
