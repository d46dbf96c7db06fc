"""`darner ctl check`, `repair` and `dump`."""

from pathlib import Path

from tests.support.ctl import run_ctl
from tests.support.harness import RunningServer


def test_a_whole_directory(server: RunningServer) -> None:
    server.client().set("q", b"hello")
    assert run_ctl("dump", "q", "--data", str(server.data)).json()["text"] == "hello"
    assert "hello" in run_ctl("--text", "dump", "q", "--data", str(server.data)).out
    missing = run_ctl("dump", "nix", "--data", str(server.data))
    assert (missing.status, "nix" in missing.complaint) == (4, True)
    server.stop()
    checked = run_ctl("check", "--data", str(server.data))
    assert checked.status == 0
    assert "whole" in checked.json()["said"]
    assert run_ctl("--text", "repair", "--data", str(server.data)).status == 0


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    for command in ("check", "repair"):
        ended = run_ctl(command, "--data", str(tmp_path / "nix"))
        assert (ended.status, ended.complaint.startswith("darner ctl: data directory")) == (2, True)


def test_the_options_file_says_where_it_is(server: RunningServer, tmp_path: Path) -> None:
    server.stop()
    file = tmp_path / "darner.toml"
    file.write_text(f'data = "{server.data}"\n')
    assert run_ctl("check", "-c", str(file)).status == 0
    file.write_text("data = 1\n")
    wrong = run_ctl("check", "-c", str(file))
    assert (wrong.status, "darner.toml: line 1" in wrong.complaint) == (1, True)
