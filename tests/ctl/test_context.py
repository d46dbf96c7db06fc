"""What all commands share: values on the command line, passwords, questions."""

from collections.abc import Callable
from pathlib import Path

import click
import pytest

from darner_core.ctl.context import DURATION, QUEUE
from tests.support.ctl import Terminal, run_ctl
from tests.support.harness import RunningServer, run_darner


@pytest.mark.parametrize(
    ("written", "ms"), [("250ms", 250), ("90s", 90_000), ("1.5", 1500), ("5m", 300_000), ("2h", 7_200_000), ("0", 0)]
)
def test_times(written: str, ms: int) -> None:
    assert DURATION.convert(written, None, None) == ms


@pytest.mark.parametrize("written", ["", "s", "-1", "nan", "inf", "5 parsecs", "٣"])
def test_what_is_no_time(written: str) -> None:
    with pytest.raises(click.BadParameter, match="is no time"):
        DURATION.convert(written, None, None)


def test_a_bad_name_of_a_queue_is_a_wrong_command_line() -> None:
    with pytest.raises(click.BadParameter, match="has no spaces"):
        QUEUE.convert("a b", None, None)


@pytest.fixture
def guarded(start_server: Callable[..., RunningServer], tmp_path: Path) -> RunningServer:
    """A server with the user ann."""
    auth = tmp_path / "auth"
    auth.write_text(run_darner("--hash-password", "ann", typed="a secret\n").stdout)
    return start_server("--auth-file", str(auth))


def test_a_password_comes_from_a_file_or_the_environment(guarded: RunningServer, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("a secret\n")
    in_file = run_ctl("--user", "ann", "--password-file", str(file), "status", port=guarded.port)
    assert in_file.json()["status"] == "up"
    assert run_ctl("status", port=guarded.port, DARNER_USER="ann", DARNER_PASSWORD="a secret").status == 0
    wrong = run_ctl("status", port=guarded.port, DARNER_USER="ann", DARNER_PASSWORD="wrong")
    assert wrong.status == 1
    assert "authentication failure" in wrong.complaint
    none = run_ctl("--user", "ann", "status", port=guarded.port)
    assert none.complaint == "darner ctl: no password: --password-file FILE or DARNER_PASSWORD gives it\n"
    missing = run_ctl("--user", "ann", "--password-file", "/nowhere", "status", port=guarded.port)
    assert "cannot read the password from /nowhere: No such file" in missing.complaint


def test_a_terminal_is_asked_for_the_password_and_does_not_show_it(guarded: RunningServer) -> None:
    terminal = Terminal("--user", "ann", "status", port=guarded.port)
    terminal.wait_shows("Password of ann: ")
    terminal.type("a secret\n")
    assert terminal.wait_ended() == 0
    assert "a secret" not in terminal.shown
    assert "status" in terminal.shown
