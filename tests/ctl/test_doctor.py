"""doctor: what it finds, and what it says to do."""

import json
from pathlib import Path

import pytest

from darner_core.config.options import Config
from darner_core.ctl.doctor import ADVICE, BAD, GOOD, file_system, of_descriptors, of_fsync
from tests.ctl.conftest import Ctl

MOUNTS = "/dev/a / ext4 rw 0 0\ntmpfs /run tmpfs rw 0 0\nhost:/x /mnt/my\\040disk nfs4 rw 0 0\n"


@pytest.mark.parametrize(
    ("place", "kind"), [("/var/x", "ext4"), ("/run/darner", "tmpfs"), ("/running", "ext4"), ("/mnt/my disk/q", "nfs4")]
)
def test_the_file_system_is_that_of_the_nearest_mount(place: str, kind: str) -> None:
    assert file_system(place, MOUNTS) == kind


def test_too_few_descriptors_are_told_with_what_to_do() -> None:
    few = of_descriptors(Config(), 1024)
    assert few.level == ADVICE
    assert "LimitNOFILE=" in few.says
    assert of_descriptors(Config(), 1 << 20).level == GOOD


@pytest.mark.parametrize(("ms", "level"), [(0.001, ADVICE), (2, GOOD), (40, ADVICE)])
def test_an_fsync_can_be_too_slow_or_too_fast(ms: float, level: str) -> None:
    assert of_fsync(ms).level == level


def found(ran_stdout: str) -> dict[str, list[dict[str, str]]]:
    by: dict[str, list[dict[str, str]]] = {}
    for line in ran_stdout.splitlines():
        one = json.loads(line)
        by.setdefault(one["about"], []).append(one)
    return by


def test_a_server_that_runs_is_looked_at(ctl: Ctl, queue: str, tmp_path: Path) -> None:
    ctl("put", queue, "x")
    ctl("pause", queue, "in")
    ran = ctl("doctor", "--data", str(tmp_path / "data"))
    assert ran.returncode == 0
    by = found(ran.stdout)
    assert {"Python", "descriptors", "disk", "server", f"queue {queue}"} <= by.keys()
    assert f"darner ctl pause {queue} none" in by[f"queue {queue}"][0]["says"]
    assert by["server"][0]["level"] == GOOD


def test_options_that_cannot_be_read_are_wrong(here: Ctl, tmp_path: Path) -> None:
    file = tmp_path / "darner.toml"
    file.write_text("max_conections = 5\n")
    ran = here("--server", "unix:/nowhere/x", "doctor", "--config", str(file), "--data", str(tmp_path))
    assert ran.returncode == 1
    by = found(ran.stdout)
    assert by["options"][0]["level"] == BAD
    assert "max_connections" in by["options"][0]["says"]
    assert by["server"][0]["level"] == ADVICE
