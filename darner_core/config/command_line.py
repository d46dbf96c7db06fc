"""The command line, and the configuration that it and the file make together.

Every option of `Config` can be given as --option, and the command line wins over the file. Instead of serving, the
program can do a few other things, such as --check, which take the same options.
"""

import argparse
import getpass
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from textwrap import wrap
from typing import Any, NamedTuple

from darner_core import NAME, VERSION
from darner_core.access.users import check_name, hash_password
from darner_core.config.listeners import LISTENER_TABLE, http_listener
from darner_core.config.options import BY_NAME, OPTIONS, Config, check_listeners, read_options
from darner_core.config.queues import DEFAULT_TABLE, QUEUE_TABLES, QueueOptions
from darner_core.config.toml_file import TomlFile
from darner_core.config.values import BadOption, show_size
from darner_core.errors import ConfigError
from darner_core.nearest import did_you_mean
from darner_core.showing import show

COMMAND_LINE = "command line"

# What can be done instead of serving. These actions take all options, but only --data has a meaning for them.
CHECK, REPAIR = "check", "repair"
ACTIONS = {
    CHECK: "read the whole data directory, change nothing, and say what is damaged; exit status 0 whole, 1 damaged,"
    " 2 cannot be read",
    REPAIR: "save what can be read of a damaged data directory, and keep the damaged one beside it; exit status 0 all"
    " was saved, 1 something had to be dropped, 2 not repaired",
}


class Dump(NamedTuple):
    """The action --dump, with the options that only it has."""

    queue: bytes
    json: bool
    follow: bool
    user: str  # the name to log in with; "" if the server asks for none


# The groups of options in --help, each by its first option. conf/darner.toml has the same groups.
GROUPS = {
    "host": "Listening",
    "unix_mode": "Access",
    "reply_key": "What clients are told",
    "default_status": "Status",
    "data": "Data and safety",
    "max_item_bytes": "What one client may ask for",
    "max_connections": "Limits for all clients together",
    "expiration_timer_s": "Queues",
    "chunk_bytes": "Memory",
    "max_wal_bytes": "Files",
    "poller": "System",
    "debug": "Log",
}

_INDENTED: dict[str, Any] = {"initial_indent": " " * 24, "subsequent_indent": " " * 24}  # like argparse


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        _, unrecognized, words = message.partition("unrecognized arguments: ")
        word = words.split(" ")[0].partition("=")[0]
        if unrecognized and word.startswith("-"):
            near = did_you_mean(word, (option for option in self._option_string_actions if option.startswith("--")))
            message = f"{message}; {near}" if near else message
        raise ConfigError(f"{COMMAND_LINE}: {show(message)}; see {self.prog} --help")

    def format_help(self) -> str:
        """Adds the options of queues, which argparse does not know because they stand only in the file."""
        lines = [f"Options of queues (in the file, in [{DEFAULT_TABLE}] or [{QUEUE_TABLES}.NAME]):"]
        for option in fields(QueueOptions):
            default = option.default.decode() if isinstance(option.default, bytes) else option.default
            shown = str(default).lower() or "none"
            lines += [f"  {option.name}", *wrap(f"{option.metadata['about']} (default {shown})", 78, **_INDENTED)]
        return "\n".join([super().format_help(), *lines, ""])


class _HashPassword(argparse.Action):
    """The action --hash-password. Like --version, it prints something and ends the process."""

    def __call__(self, parser: argparse.ArgumentParser, _1: Any, name: Any, _2: Any = None) -> None:
        try:
            prefix = f"{check_name(name)}:" if name else ""
            print(prefix + hash_password(ask_password()))
        except (ValueError, EOFError) as error:
            parser.error(f"--hash-password: {error}")
        parser.exit()


def ask_password() -> bytes:
    if not sys.stdin.isatty():
        return sys.stdin.buffer.readline().rstrip(b"\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Password again: ") != password:
        raise ValueError("the two passwords differ")
    return password.encode()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=NAME,
        usage=f"{NAME} [options]",
        description=f"{NAME}: a durable message queue server; `{NAME} ctl --help` tells how to look after it",
        allow_abbrev=False,
    )
    parser.add_argument("-v", "--version", action="version", version=f"{NAME} {VERSION}")
    parser.add_argument(
        "-c", "--config", metavar="FILE", help="read options from this TOML file; the command line wins"
    )
    parser.add_argument(
        "--hash-password", nargs="?", metavar="NAME", const="", action=_HashPassword, help="ask for a password, or read"
        " it from standard input, print its hash, or the line for auth_file if NAME is given, and end"
    )  # fmt: skip
    actions = parser.add_mutually_exclusive_group()
    for name, about in ACTIONS.items():
        actions.add_argument(f"--{name}", dest="action", action="store_const", const=name, help=about)
    actions.add_argument(
        "--dump", metavar="QUEUE", help="show what is in a queue, one line an item, whether a server is running in the"
        " data directory or not; exit status 0, 1 not all can be read, 2 no such directory, queue or server"
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", default=None, help="with --dump: one JSON object a line")
    parser.add_argument(
        "--follow", action="store_true", default=None, help="with --dump: show puts and gets as they happen, until"
        " Ctrl-C; asks the server at --host and --port"
    )  # fmt: skip
    parser.add_argument("--user", metavar="NAME", help="with --follow: log in; the password is asked for, or read from"
        " standard input")  # fmt: skip
    group = parser.add_argument_group()
    for option in OPTIONS:
        if option.name in GROUPS:
            group = parser.add_argument_group(GROUPS[option.name])
        flags = [option.metadata["short"]] if option.metadata["short"] else []
        flags.append(f"--{option.name.replace('_', '-')}")
        about = option.metadata["about"].replace("%", "%%")
        if isinstance(option.default, bool):
            group.add_argument(*flags, dest=option.name, action=argparse.BooleanOptionalAction, help=about)
        else:
            default: Any = option.default
            if option.metadata["shown"] == "SIZE":
                default = show_size(default)
            several = isinstance(default, tuple)
            group.add_argument(
                *flags,
                dest=option.name,
                metavar=option.metadata["shown"],
                action="append" if several else "store",
                help=f"{about} (default {' '.join(default or ('none',)) if several else default or 'none'})",
            )
        if option.name == "port":
            group.add_argument(
                "--http", metavar="[ADDRESS:]PORT", action="append", help="serve the page, the HTTP API and the metrics"
                " there as well, as a [[listener]] with the dialect http does; may be given several times"
            )  # fmt: skip
    return parser


def _take_dump(given: dict[str, Any]) -> Dump | None:
    """Take --dump and its options out of `given`. None: --dump is not given. Raises ConfigError."""
    if "dump" not in given:
        for option in ("json", "follow", "user"):
            if option in given:
                raise ConfigError(f"{COMMAND_LINE}: --{option} goes with --dump QUEUE")
        return None
    if "user" in given and "follow" not in given:
        raise ConfigError(f"{COMMAND_LINE}: --user goes with --follow")
    queue = os.fsencode(given.pop("dump"))
    return Dump(queue, given.pop("json", False), given.pop("follow", False), given.pop("user", ""))


def parse(arguments: Sequence[str]) -> Config:
    """The configuration for these command-line arguments. Raises ConfigError; exits for --help and --version."""
    return parse_action(arguments)[1]


def parse_action(arguments: Sequence[str]) -> tuple[str | Dump, Config]:
    """What to do (one of ACTIONS, a Dump, or "" for serving), and the configuration. Raises and exits like `parse`."""
    given = {name: value for name, value in vars(_parser().parse_args(arguments)).items() if value is not None}
    action = _take_dump(given) or given.pop("action", "")
    path = given.pop("config", None)
    http = given.pop("http", ())
    values: dict[str, Any] = {}
    levels: dict[str, str] = {}
    file = TomlFile(path) if path is not None else None
    if file is not None:
        try:
            values = read_options(file.values)
        except BadOption as bad:
            raise file.complaint(bad) from None
        levels = {name: file.place((name,)) for name in file.values}
    for name in ("host", "admin_from"):
        if len(given.get(name, ())) == 1:
            given[name] = given[name][0]
    for name, value in given.items():
        try:
            values[name] = BY_NAME[name].metadata["check"](value)
        except ValueError as error:
            raise ConfigError(f"{COMMAND_LINE}: --{name.replace('_', '-')} = {value!r}: must be {error}") from None
        levels[name] = COMMAND_LINE
    in_file = values.get("listeners", ())
    try:
        values["listeners"] = (*in_file, *map(http_listener, http))
    except ValueError as error:
        raise ConfigError(f"{COMMAND_LINE}: --http {' '.join(map(show, http))}: must be {error}") from None
    config = Config(**values, levels=levels)
    try:
        check_listeners(config)
    except BadOption as bad:
        number = bad.keys[1] - len(in_file) if bad.keys[0] == LISTENER_TABLE and isinstance(bad.keys[1], int) else -1
        if number >= 0 or file is None:
            said = str(bad).partition(": ")[2]
            raise ConfigError(f"{COMMAND_LINE}: --http {show(http[number])}: {said}") from None
        raise file.complaint(bad) from None
    return action, config
