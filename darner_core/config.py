"""The options: their names, types, defaults, meanings and limits, in one place.

The command line and the TOML file (`-c`) both come from the fields of `Config`; conf/darner.toml is checked against
them by a test. The command line wins over the file, the file over the default. Sizes are bytes, or a number
with KiB, MiB or GiB behind it; times have their unit in the option's name.
"""

import argparse
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from darner_core import NAME, VERSION
from darner_core.errors import ConfigError

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_UNITS = {"": 1, "KIB": KIB, "MIB": MIB, "GIB": GIB}

COMMAND_LINE = "command line"
SYNC_NEVER, SYNC_ALWAYS = "never", "always"

# What can be done instead of serving. They take the same options, but only --data means something to them.
CHECK, REPAIR = "check", "repair"
ACTIONS = {
    CHECK: "read the whole data directory, change nothing, and say what is damaged; exit status 0 whole, 1 damaged,"
    " 2 cannot be read",
    REPAIR: "save what can be read of a damaged data directory, and keep the damaged one beside it; exit status 0 all"
    " was saved, 1 something had to be dropped, 2 not repaired",
}


def _whole_number(lowest: int, highest: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise ValueError(f"a number from {lowest} to {highest}")
        return value

    return check


def _size(lowest: int, highest: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, str) and (match := re.fullmatch(r"(\d{1,18})\s*([KMG]iB|)", value.strip(), re.IGNORECASE)):
            value = int(match[1]) * _UNITS[match[2].upper()]
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise ValueError(f"a size from {show_size(lowest)} to {show_size(highest)}")
        return value

    return check


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("a text that is not empty")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _one_of(*choices: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError(" or ".join(f'"{choice}"' for choice in choices))
        return str(value)

    return check


def _sync(value: Any) -> str | int:
    if value in (SYNC_NEVER, SYNC_ALWAYS):
        return str(value)
    try:
        return _whole_number(1, 3_600_000)(value)
    except ValueError:
        raise ValueError('"never", "always", or milliseconds between fsyncs from 1 to 3600000') from None


def show_name(name: str) -> str:
    """`name` on one line, whatever is in it."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name)


def show_size(size: int) -> str:
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _UNITS[unit.upper()] == 0:
            return f"{size // _UNITS[unit.upper()]} {unit}"
    return str(size)


def _option(default: Any, check: Callable[[Any], Any], about: str, short: str = "", shown: str = "N") -> Any:
    return field(default=default, metadata={"check": check, "about": about, "short": short, "shown": shown})


@dataclass(frozen=True)
class Config:
    """Every option with its default. Values have been checked."""

    # fmt: off
    host: str = _option("127.0.0.1", _text, "address to listen on", shown="ADDRESS")
    port: int = _option(22133, _whole_number(0, 65535), "port to listen on; 0 takes a free one", "-p", "PORT")
    data: str = _option("./data", _text, "directory that holds the queues, created if missing", "-d", "DIR")
    debug: bool = _option(False, _flag, "log every connection, and tracebacks")
    sync: str | int = _option(SYNC_NEVER, _sync, "when what was written is made to survive the loss of power (fsync):"
        ' "never" leaves it to the operating system, a number is milliseconds between fsyncs, "always" answers only'
        " afterwards; kill -9 loses nothing in any case", shown="WHEN")
    reply_key: str = _option("queue", _one_of("queue", "request"), 'the key in the reply to a get: "queue" names the'
        ' queue, "request" repeats the key that was asked for, options and all, for clients that compare the two',
        shown="WHICH")
    max_item_bytes: int = _option(GIB, _size(1, 1 << 40), "largest item that is accepted", shown="SIZE")
    max_line_bytes: int = _option(8 * KIB, _size(512, MIB), "longest request line that is accepted", shown="SIZE")
    chunk_bytes: int = _option(128 * KIB, _size(KIB, 4 * MIB), "larger items are received, stored and sent in chunks of"
        " this size, and never stand in memory whole", shown="SIZE")
    max_reply_bytes: int = _option(256 * KIB, _size(4 * KIB, GIB), "a client that pipelines is answered in portions"
        " of about this size, each when the one before has been sent", shown="SIZE")
    max_column_families: int = _option(64, _whole_number(1, 1024), "so many queues get a column family of RocksDB of"
        " their own, later ones share; a data directory never has fewer than it once had")
    window_bytes: int = _option(16 * MIB, _size(MIB, 1 << 40), "memory for items at the heads of all queues",
        shown="SIZE")
    block_cache_bytes: int = _option(8 * MIB, _size(MIB, 1 << 40), "memory for blocks read from disk", shown="SIZE")
    write_buffer_bytes: int = _option(32 * MIB, _size(MIB, 1 << 40), "memory for what has been written to the"
        " write-ahead log only", shown="SIZE")
    max_wal_bytes: int = _option(64 * MIB, _size(MIB, 1 << 40), "disk for the write-ahead log; more of it means a"
        " longer start after a crash", shown="SIZE")
    max_open_files: int = _option(128, _whole_number(16, 1_000_000), "table files that RocksDB keeps open")
    min_free_bytes: int = _option(64 * MIB, _size(0, 1 << 40), "sets are refused while the disk has less room than"
        " this; gets and closes need some of it", shown="SIZE")
    # fmt: on

    @classmethod
    def checked(cls, values: dict[str, Any], where: str) -> dict[str, Any]:
        """`values` by option name, each checked. Raises ConfigError naming `where`, the option and what is allowed."""
        known = {option.name: option for option in fields(cls)}
        checked = {}
        for name, value in values.items():
            if name not in known:
                raise ConfigError(f"{where}: unknown option {show_name(name)}: one of {', '.join(known)}")
            try:
                checked[name] = known[name].metadata["check"](value)
            except ValueError as error:
                shown = name if where != COMMAND_LINE else f"--{name.replace('_', '-')}"
                raise ConfigError(f"{where}: {shown} = {value!r}: must be {error}") from None
        return checked


def read_file(path: str) -> dict[str, Any]:
    """The options in a TOML file, checked. Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return Config.checked(values, path)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise ConfigError(f"{COMMAND_LINE}: {show_name(message)}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=NAME, description=f"{NAME}: a durable message queue server", allow_abbrev=False)
    parser.add_argument("-v", "--version", action="version", version=f"{NAME} {VERSION}")
    parser.add_argument(
        "-c", "--config", metavar="FILE", help="read options from this TOML file; the command line wins"
    )
    actions = parser.add_mutually_exclusive_group()
    for name, about in ACTIONS.items():
        actions.add_argument(f"--{name}", dest="action", action="store_const", const=name, help=about)
    for option in fields(Config):
        flags = [option.metadata["short"]] if option.metadata["short"] else []
        flags.append(f"--{option.name.replace('_', '-')}")
        about = option.metadata["about"].replace("%", "%%")
        if isinstance(option.default, bool):
            parser.add_argument(*flags, dest=option.name, action=argparse.BooleanOptionalAction, help=about)
        else:
            default: Any = option.default
            if option.metadata["shown"] == "SIZE":
                default = show_size(default)
            parser.add_argument(
                *flags, dest=option.name, metavar=option.metadata["shown"], help=f"{about} (default {default})"
            )
    return parser


def parse(arguments: Sequence[str]) -> Config:
    """The configuration for these command-line arguments. Raises ConfigError; exits for --help and --version."""
    return parse_action(arguments)[1]


def parse_action(arguments: Sequence[str]) -> tuple[str, Config]:
    """What to do, one of ACTIONS or "" for serving, and the configuration. Raises and exits as `parse`."""
    given = {name: value for name, value in vars(_parser().parse_args(arguments)).items() if value is not None}
    action = given.pop("action", "")
    path = given.pop("config", None)
    values = read_file(path) if path is not None else {}
    values.update(Config.checked(given, COMMAND_LINE))
    return action, Config(**values)
