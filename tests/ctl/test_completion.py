"""completion, as a shell asks for it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ctl.conftest import Ctl
from tests.support.harness import ROOT, RunningServer


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script_that_it_understands(here: Ctl, shell: str, tmp_path: Path) -> None:
    ran = here("completion", shell)
    assert ran.returncode == 0
    assert "_DARNER_CTL_COMPLETE" in ran.stdout
    if shutil.which(shell):
        file = tmp_path / "script"
        file.write_text(ran.stdout)
        subprocess.run([shell, "-n", str(file)], check=True)


def test_bash_completes_commands_and_names_of_queues(
    running: RunningServer, ctl: Ctl, here: Ctl, queue: str, tmp_path: Path
) -> None:
    ctl("put", queue, "x")
    script = tmp_path / "script"
    script.write_text(here("completion", "bash").stdout)
    program = tmp_path / "darner"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/darner.py "$@"\n')
    program.chmod(0o755)
    asked = f"""
        source {script}
        COMP_WORDS=({program} ctl queu); COMP_CWORD=2; _darner_ctl {program}; echo "${{COMPREPLY[@]}}"
        COMP_WORDS=({program} ctl show {queue[:6]}); COMP_CWORD=3; _darner_ctl {program}; echo "${{COMPREPLY[@]}}"
    """
    environment = {"DARNER_SERVER": f"127.0.0.1:{running.port}", "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, env=environment, timeout=60, check=True)
    commands, queues = ran.stdout.splitlines()
    assert commands == "queues"
    assert queue in queues.split()


def test_without_a_server_nothing_is_offered(here: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_DARNER_CTL_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "ctl --server unix:/nowhere show ")
    monkeypatch.setenv("COMP_CWORD", "4")
    ran = here()
    assert (ran.returncode, ran.stdout.strip()) == (0, "")
