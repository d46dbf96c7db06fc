"""The hour's soak, for some seconds; its verdict and its plot."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from loadtest.crash import soak
from tests.support.harness import ROOT

PATIENCE_S = 100.0
MB = 1_000_000


def samples(resident_bytes: list[int]) -> dict[str, Any]:
    """What a run would have found, had only the memory changed."""
    return {
        "samples": [
            {"at_s": 5.0 * n, "resident_bytes": size, "open_files": 40, "disk_bytes": 20 * MB, "waiting_items": 100}
            for n, size in enumerate(resident_bytes)
        ],
        "restarts": [{"at_s": 50.0, "how": "kill -9"}, {"at_s": 70.0, "how": "SIGTERM"}],
    }


@pytest.mark.long
@pytest.mark.slow
def test_it_runs_restarts_the_server_and_reports(tmp_path: Path) -> None:
    json_path, plot = tmp_path / "soak.json", tmp_path / "soak.svg"
    words = ["--seconds", "2", "--restart-seconds", "0.7", "--every", "0.1"]
    ended = subprocess.run(
        [sys.executable, "-m", "loadtest.crash.soak", *words, "--json", str(json_path), "--plot", str(plot)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert "nothing lost" in ended.stdout, ended.stderr
    found = json.loads(json_path.read_text())
    assert found["restarts"][0]["how"] == "kill -9"
    assert all(sample["resident_bytes"] > MB and sample["disk_bytes"] for sample in found["samples"])
    assert found["items_confirmed"] > 0
    assert ElementTree.parse(plot).getroot().tag.endswith("svg")


def test_what_stays_where_it_is_has_levelled_off() -> None:
    good, lines = soak.verdict(samples([10 * MB] * 10 + [60 * MB, 64 * MB] * 10))
    assert good
    assert lines[0] == ("resident memory, MB: median 62, highest 64 in the middle third; 62 and 64 in the last: level")


def test_what_keeps_growing_has_not() -> None:
    good, lines = soak.verdict(samples([n * 3 * MB for n in range(30)]))
    assert not good
    assert [line.rpartition(": ")[2] for line in lines] == ["STILL GROWING", "level", "level"]
