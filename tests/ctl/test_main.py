"""The command line: what all commands share, and how they end."""

import subprocess
import sys

import pytest

from tests.support.ctl import Terminal, environment, run_ctl
from tests.support.harness import ROOT, RunningServer


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["shw"], 'there is no command "shw": did you mean "show"?; see darner ctl --help'),
        (["show"], "Missing argument 'QUEUE'; see darner ctl show --help"),
        (["show", "a b"], "Invalid value for 'QUEUE': a queue's name has no spaces"),
        (["--server", "a:b", "queues"], '"b" is no port: a number from 1 to 65535'),
        (["--tls-key", "x", "queues"], "--tls-key needs --tls-cert"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_says_what_is_right(words: list[str], complaint: str) -> None:
    ended = run_ctl(*words)
    assert ended.status == 2
    assert ended.complaint.startswith("darner ctl: ")
    assert ended.complaint.count("\n") == 1
    assert complaint in ended.complaint


def test_without_a_server_the_status_is_3() -> None:
    ended = run_ctl("queues", port=1)
    assert (ended.status, ended.out) == (3, "")
    assert "no server answers at 127.0.0.1:1: Connection refused" in ended.complaint


def test_help_names_the_exit_statuses() -> None:
    assert "4 there is no such queue" in run_ctl("--help").out


def test_on_a_terminal_it_is_text_and_in_a_pipe_json(server: RunningServer) -> None:
    server.client().set("mail", b"a")
    assert run_ctl("queues", port=server.port).json()["name"] == "mail"
    assert run_ctl("--text", "queues", port=server.port).out.startswith("QUEUE")
    terminal = Terminal("queues", port=server.port)
    assert terminal.wait_ended() == 0
    assert "QUEUE" in terminal.shown
    as_json = Terminal("--json", "queues", port=server.port)
    assert as_json.wait_ended() == 0
    assert '{"name": "mail"' in as_json.shown


def test_without_its_packages_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['rich'] = None; from darner_core.main import main; sys.exit(main(['ctl']))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("darner ctl: the Python package rich is not installed: pip install 'darner[ctl]'")


def test_the_server_imports_none_of_it() -> None:
    program = (
        "import darner_core.main, sys; print([m for m in ('click', 'rich', 'darner_core.ctl') if m in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, env=environment(), check=False
    )
    assert ended.stdout == "[]\n"
