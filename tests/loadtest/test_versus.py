"""Two checkouts against each other: it runs, and shows what it promises."""

import re
import subprocess
import sys

import pytest

from tests.support.harness import ROOT


@pytest.mark.long
def test_it_shows_what_a_request_costs_in_both_checkouts() -> None:
    words = [str(ROOT), "flood-10", "pipeline", "--rounds", "1", "--seconds", "0.3"]
    ended = subprocess.run(
        [sys.executable, "-m", "loadtest.compare.versus", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    figures = r" +before +[\d.]+ us +now +[\d.]+ us +now / before [\d.]+ \([\d.]+ to [\d.]+\)\n"
    assert re.fullmatch(f"flood-10{figures}pipeline{figures}", ended.stdout), ended
