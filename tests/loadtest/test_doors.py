"""A few rounds of kill -9 while clients of four protocols share queues; and a server that breaks its promises is found
out."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.harness import ROOT

pytestmark = pytest.mark.long

ROUNDS = 6
PATIENCE_S = 200.0  # it takes 8 s


def doors(*words: str, directory: Path) -> "subprocess.CompletedProcess[str]":
    """`python -m loadtest.crash.doors`; what it keeps, it keeps in `directory`."""
    return subprocess.run(
        [sys.executable, "-m", "loadtest.crash.doors", "--quiet", "--rounds", str(ROUNDS), *words],
        cwd=ROOT,
        env={"TMPDIR": str(directory), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_what_each_protocol_promises_is_kept_however_often_the_server_is_killed(tmp_path: Path) -> None:
    ended = doors("--seed", "4", directory=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(f"{ROUNDS} rounds, nothing lost: "), ended.stdout
    found = {name: number for number, name in re.findall(r"([\d,]+) ([a-z ]+)[,;]", ended.stdout.partition(": ")[2])}
    # It was tried: items came and were removed, jobs were given back and replaced, ids were asked for after the kills.
    for name in ("stored", "came", "removed", "given back", "replaced", "looked at by id", "kills"):
        assert found[name] != "0", ended.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("late_writer", "LOST|DOUBLED|in part"),
        ("numberless", "LOST: .* is not found by its id|REUSED|has another number now"),
        ("half_transactions", "in part"),
    ],
)
def test_a_server_that_breaks_its_promises_is_found_out(program: str, said: str, tmp_path: Path) -> None:
    ended = doors("--seed", "9", "--program", f"tests/servers/{program}.py", directory=tmp_path)
    assert ended.returncode == 1, ended.stdout
    found = re.fullmatch(r"doors: round \d+ of \d+, seed 9: (.*); kept: (.*)\n", ended.stderr, re.DOTALL)
    assert found, ended.stderr
    assert re.search(said, found[1], re.DOTALL), ended.stderr
    assert (Path(found[2]) / "data" / "FORMAT").exists()
