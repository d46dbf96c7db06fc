"""bench: it measures what it says, and leaves nothing behind."""

import json
from pathlib import Path

import pytest

from darner_core.ctl.bench import PARTS, result
from darner_core.ctl.errors import CtlError
from tests.ctl.conftest import Ctl


def test_figures_of_what_was_measured() -> None:
    assert result("put", [0.001] * 98 + [0.005, 0.009], 2.0)[1:] == (50.0, 1.0, 9.0)
    with pytest.raises(CtlError, match="nothing was answered"):
        result("put", [], 2.0)


def test_a_server_of_its_own_is_measured_and_removed(here: Ctl, tmp_path: Path) -> None:
    ran = here("bench", "--time", "1s", "--connections", "2", "--dir", str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert [one["part"] for one in told["results"]] == [part.name for part in PARTS]
    assert all(one["per_second"] > 0 and one["p99_ms"] >= one["median_ms"] for one in told["results"])
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_written_is_named(here: Ctl) -> None:
    ran = here("bench", "--time", "1s", "--dir", "/proc")
    assert ran.returncode == 1
    assert "cannot measure in /proc" in ran.stderr
    assert here("bench", "--time", "10ms").returncode == 2
