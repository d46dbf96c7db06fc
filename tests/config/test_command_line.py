"""The command line: help, what is refused, and what can be done instead of serving."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from darner_core import VERSION
from darner_core.config import command_line
from darner_core.config.command_line import Dump, parse
from darner_core.config.options import OPTIONS, Config
from darner_core.config.queues import QueueOptions
from darner_core.config.values import show_size
from darner_core.errors import ConfigError
from tests.support.configured import complaint_about
from tests.support.harness import ROOT


@pytest.mark.parametrize(
    ("word", "near"),
    [("--prot", "--port"), ("--por=2", "--port"), ("--max_item_bytes", "--max-item-bytes"), ("-x", ""), ("extra", "")],
)
def test_an_unknown_option_at_the_command_line_is_named_with_where_to_look(word: str, near: str) -> None:
    near = near and f'; did you mean "{near}"?'
    message = complaint_about(["--port", "1", word])
    assert message == f"command line: unrecognized arguments: {word}{near}; see darner --help"


def test_an_option_without_its_value_is_named() -> None:
    assert complaint_about(["--port"]).startswith("command line: argument -p/--port: expected one argument")
    assert "--debug" in complaint_about(["--debug=yes"])


# -- help and version


def test_help_names_every_option_and_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for option in OPTIONS:
        assert f"--{option.name.replace('_', '-')}" in text
        if not isinstance(option.default, bool):
            default: Any = option.default
            shown = show_size(default) if option.metadata["shown"] == "SIZE" else default
            if isinstance(default, tuple):
                shown = " ".join(default)
            assert f"(default {shown or 'none'})" in text
    assert "--config" in text


def test_version_is_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"darner {VERSION}\n"


# -- what can be done instead of serving


@pytest.mark.parametrize("action", ["check", "repair"])
def test_an_action_takes_the_options_that_the_server_takes(action: str, tmp_path: Path) -> None:
    file = tmp_path / "darner.toml"
    file.write_text('data = "/srv/queues"')
    assert command_line.parse_action([f"--{action}", "-c", str(file)]) == (action, Config(data="/srv/queues"))
    assert command_line.parse_action(["--data", "x"]) == ("", Config(data="x"))


def test_only_one_action_can_be_done() -> None:
    with pytest.raises(ConfigError, match="not allowed with"):
        command_line.parse_action(["--check", "--repair"])


def test_a_dump_takes_words_of_its_own() -> None:
    assert command_line.parse_action(["--dump", "q", "-d", "x"]) == (Dump(b"q", False, False, ""), Config(data="x"))
    words = ["--dump", "q", "--json", "--follow", "--user", "anna"]
    assert command_line.parse_action(words)[0] == Dump(b"q", True, True, "anna")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--json"], "--json goes with --dump QUEUE"),
        (["--follow", "--check"], "--follow goes with --dump QUEUE"),
        (["--dump", "q", "--user", "anna"], "--user goes with --follow"),
        (["--dump", "q", "--check"], "not allowed with"),
        (["--dump"], "expected one argument"),
    ],
)
def test_words_that_do_not_go_together_are_refused(arguments: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        command_line.parse_action(arguments)


def test_help_shows_the_options_in_the_groups_of_the_example_file() -> None:
    file = (ROOT / "conf" / "darner.toml").read_text()
    headings = [re.split(r"[(;]", heading)[0].strip() for heading in re.findall(r"^# ---- (.+)$", file, re.MULTILINE)]
    assert [*command_line.GROUPS.values()] == [heading for heading in headings if heading != "Tables"]
    assert [option.name for option in OPTIONS] == re.findall(r"^([a-z_]+) = ", file, re.MULTILINE)
    shown = command_line._parser().format_help()
    assert [shown.index(f"\n{heading}:\n") for heading in command_line.GROUPS.values()]


def test_help_says_of_every_option_of_a_queue_what_it_does() -> None:
    shown = " ".join(command_line._parser().format_help().split())
    for option in fields(QueueOptions):
        default = option.default.decode() if isinstance(option.default, bytes) else option.default
        about = f"{option.metadata['about']} (default {str(default).lower() or 'none'})"
        assert f" {option.name} {about}" in shown


def test_http_is_a_listener_more() -> None:
    listeners = parse(["--http", "22180", "--http", "[::1]:0", "--http", "unix:/tmp/darner"]).listeners
    assert [(one.address, one.port, one.dialect) for one in listeners] == [
        ((), 22180, "http"),
        (("::1",), 0, "http"),
        (("unix:/tmp/darner",), None, "http"),
    ]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--http", "x"], "--http x: must be a port from 0 to 65535, perhaps with an address before it"),
        (["--http", "::1:22180"], "must be a port"),
        (["--http", "70000"], "must be a port"),
        (["--http", ":80"], ""),
        (["--http", "22133"], "--http 22133: 127.0.0.1 port 22133: must not be the address of another listener"),
        (["--http", "1", "--http", "1"], "--http 1: 127.0.0.1 port 1: must not be"),
        (["--host", "unix:/x", "--http", "1"], "--http 1: must have an address"),
    ],
)
def test_an_address_of_http_that_cannot_be(words: list[str], why: str) -> None:
    if not why:
        assert parse(words).listeners[0].address == ()
        return
    with pytest.raises(ConfigError) as raised:
        parse(words)
    assert why in str(raised.value)


def test_http_stands_beside_the_listeners_of_the_file(tmp_path: Path) -> None:
    conf = tmp_path / "conf.toml"
    conf.write_text("[[listener]]\nport = 1\ndialect = 'resp'\n")
    config = parse(["-c", str(conf), "--http", "2"])
    assert [endpoint.dialect for endpoint in config.endpoints] == ["darner", "resp", "http"]
    with pytest.raises(ConfigError, match=r"--http 1: 127\.0\.0\.1 port 1"):
        parse(["-c", str(conf), "--http", "1"])
    conf.write_text("[[listener]]\ndialect = 'resp'\n")
    with pytest.raises(ConfigError, match=r"conf\.toml: line 1"):
        parse(["-c", str(conf), "--http", "1"])
