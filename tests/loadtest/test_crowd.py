"""The waits of a bystander beside a flood: the program runs, and its figures are of what it asked."""

import json
import subprocess
import sys

import pytest

from tests.support.harness import ROOT


def crowd(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "loadtest.waits.crowd", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.long
def test_it_tells_how_long_the_bystander_waits() -> None:
    ended = crowd("nobody", "text", "--clients", "3", "--seconds", "0.3")
    assert ended.returncode == 0, ended.stderr
    alone, beside = map(json.loads, ended.stdout.splitlines())
    assert (alone["flood"], alone["flood_gets_and_sets_per_s"]) == ("nobody", 0)
    assert beside["flood"] == "text"
    assert beside["flood_gets_and_sets_per_s"] > 0
    assert all(0 < found["p50_ms"] <= found["p99_ms"] <= found["longest_ms"] for found in (alone, beside))


def test_an_unknown_flood_is_named() -> None:
    ended = crowd("puts")
    assert ended.returncode == 2
    assert "unknown kind 'puts'" in ended.stderr
