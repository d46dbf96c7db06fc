"""A dozen rounds of kill -9 under mixed load, and proof that the harness sees a server that breaks its promises."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.harness import ROOT

ROUNDS = 12
PATIENCE_S = 200.0  # it takes 16 s


def crash(*words: str, directory: Path) -> "subprocess.CompletedProcess[str]":
    """`python -m loadtest.crash.kill`; what it keeps, it keeps in `directory`."""
    return subprocess.run(
        [sys.executable, "-m", "loadtest.crash.kill", *words],
        cwd=ROOT,
        env={"TMPDIR": str(directory), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.long
@pytest.mark.slow
def test_every_promise_is_kept_however_often_the_server_is_killed(tmp_path: Path) -> None:
    ended = crash("--rounds", str(ROUNDS), "--json", str(tmp_path / "figures.json"), directory=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert re.match(rf"{ROUNDS} rounds, nothing lost: [\d,]+ items stored", ended.stdout)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["rounds"] == figures["starts"] == ROUNDS
    # It was tried: there was load, and the kills came into the middle of it.
    assert figures["kills"] >= ROUNDS // 2
    assert figures["items_confirmed"] > 50 * ROUNDS
    assert figures["in_doubt_at_kills"] > ROUNDS
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


def test_a_server_that_answers_before_it_writes_is_found_out(tmp_path: Path) -> None:
    ended = crash(
        "--rounds", str(ROUNDS), "--program", "tests/servers/late_writer.py", "--seed", "9", directory=tmp_path
    )
    assert ended.returncode == 1, ended.stdout
    found = re.fullmatch(r"crash: round \d+ of 12, seed 9: queue soak-\d: (.*); kept: (.*)\n", ended.stderr, re.DOTALL)
    assert found, ended.stderr
    kept = Path(found[2])
    assert (kept / "data" / "FORMAT").exists()
    assert " settled" in (kept / "events").read_text()
