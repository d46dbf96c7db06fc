"""The options: their names, types, defaults, meanings and limits, in one place.

The command line and the TOML file (`-c`) both come from the fields of `Config`; conf/darner.toml is checked against
them by a test. The command line wins over the file, the file over the default. Sizes are bytes, or a number
with KiB, MiB or GiB behind it; times have their unit in the option's name.

Besides options the file may hold tables, such as [users.NAME]; they, too, are fields of `Config`.
"""

import argparse
import getpass
import re
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from darner_core import NAME, VERSION
from darner_core.errors import ConfigError
from darner_core.rights import Rights, parse_rights
from darner_core.users import check_name, hash_password

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_UNITS = {"": 1, "KIB": KIB, "MIB": MIB, "GIB": GIB}

COMMAND_LINE = "command line"
SYNC_NEVER, SYNC_ALWAYS = "never", "always"

UNIX = "unix:"  # what a host begins with that is the path of a Unix socket
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


def _optional_text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError('a text; "" is none')
    return value


def _hosts(value: Any) -> tuple[str, ...]:
    hosts = value if isinstance(value, list) else [value]
    if not hosts or any(not isinstance(host, str) or host in ("", UNIX) or "\0" in host for host in hosts):
        raise ValueError("an address, or a list of them, none of them empty; unix:/path is a Unix socket")
    if len(set(hosts)) < len(hosts):
        raise ValueError("addresses that differ")
    return tuple(hosts)


def _mode(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"0?[0-7]{3}", value):
        raise ValueError('file permissions as an octal text, such as "0600"')
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


def _users(tables: Any, where: str) -> dict[str, Rights]:
    if not isinstance(tables, dict):
        raise ConfigError(f"{where}: users = {tables!r}: must be tables [users.NAME]")
    users = {}
    for name, table in tables.items():
        try:
            users[check_name(name)] = parse_rights(table)
        except ValueError as error:
            raise ConfigError(f"{where}: [users.{show_name(name)}]: {show_name(str(error))}") from None
    return users


def _option(default: Any, check: Callable[[Any], Any], about: str, short: str = "", shown: str = "N") -> Any:
    return field(default=default, metadata={"check": check, "about": about, "short": short, "shown": shown})


@dataclass(frozen=True)
class Config:
    """Every option with its default. Values have been checked."""

    # fmt: off
    host: tuple[str, ...] = _option(("127.0.0.1",), _hosts, "address to listen on; unix:/path is a Unix socket; may be"
        " given several times", shown="ADDRESS")
    port: int = _option(22133, _whole_number(0, 65535), "port to listen on; 0 takes a free one", "-p", "PORT")
    data: str = _option("./data", _text, "directory that holds the queues, created if missing", "-d", "DIR")
    debug: bool = _option(False, _flag, "log every connection, and tracebacks")
    sync: str | int = _option(SYNC_NEVER, _sync, "when what was written is made to survive the loss of power (fsync):"
        ' "never" leaves it to the operating system, a number is milliseconds between fsyncs, "always" answers only'
        " afterwards; kill -9 loses nothing in any case", shown="WHEN")
    dialect: str = _option("darner", _one_of("darner", "kestrel", "siberite", "kyototycoon"), "whose clients"
        " are served: how names are read, how reads are counted, which verbs there are; see docs/protocol.md",
        shown="NAME")
    get_timeout_ms: int = _option(10_000, _whole_number(0, 2**31 - 1), "how long a get waits for an item in the"
        " kyototycoon dialect, whose clients cannot say it themselves; 0: not at all")
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
    body_memory_bytes: int = _option(8 * MIB, _size(MIB, 1 << 40), "memory for what has come of all clients' items;"
        " over it, what has come of an item is written to disk before the rest is there", shown="SIZE")
    pipeline_memory_bytes: int = _option(16 * MIB, _size(MIB, 1 << 40), "memory for what all clients send ahead while"
        " they wait, and for replies that they do not take; over it, each is answered in portions of 4 KiB",
        shown="SIZE")
    body_timeout_s: int = _option(60, _whole_number(0, 86_400), "a client that stops in the middle of a request for so"
        " long is hung up on; 0: never")
    idle_timeout_s: int = _option(0, _whole_number(0, 31_536_000), "a client that asks nothing for so long, waits for"
        " nothing and has no item open is hung up on; 0: never")
    max_connections: int = _option(16_000, _whole_number(1, 1_000_000), "clients at a time; one more is told so and"
        " hung up on")
    max_queues: int = _option(100_000, _whole_number(1, 1 << 32), "queues that can exist; a set that would make one"
        " more is refused")
    min_free_bytes: int = _option(64 * MIB, _size(0, 1 << 40), "sets are refused while the disk has less room than"
        " this; gets and closes need some of it", shown="SIZE")
    unix_mode: str = _option("0600", _mode, "permissions of the Unix sockets: who may write to one can connect",
        shown="MODE")
    tls_cert: str = _option("", _optional_text, "file with the server's certificate chain (PEM): TCP is served with"
        " TLS only", shown="FILE")
    tls_key: str = _option("", _optional_text, "file with the certificate's key, if it is not in the same",
        shown="FILE")
    tls_ca: str = _option("", _optional_text, "file with the authorities' certificates (PEM): TLS clients must show a"
        " certificate that one of them signed, and the name in it is the user", shown="FILE")
    auth_file: str = _option("", _optional_text, "file with one name:hash a line (see --hash-password): clients must"
        " give a name and password", shown="FILE")
    # fmt: on

    # Tables of the file, which are no options: a function of what stands there and the file's name makes the value.
    users: dict[str, Rights] | None = field(default=None, metadata={"table": _users})  # None: they may do everything

    @classmethod
    def checked(cls, values: dict[str, Any], where: str) -> dict[str, Any]:
        """`values` by option name, each checked. Raises ConfigError naming `where`, the option and what is allowed."""
        known = {option.name: option for option in OPTIONS}
        checked = {}
        for name, value in values.items():
            if name in TABLES:
                checked[name] = TABLES[name](value, where)
                continue
            if name not in known:
                raise ConfigError(f"{where}: unknown option {show_name(name)}: one of {', '.join(known)}")
            try:
                checked[name] = known[name].metadata["check"](value)
            except ValueError as error:
                shown = name if where != COMMAND_LINE else f"--{name.replace('_', '-')}"
                raise ConfigError(f"{where}: {shown} = {value!r}: must be {error}") from None
        return checked


OPTIONS = tuple(option for option in fields(Config) if "check" in option.metadata)
TABLES = {table.name: table.metadata["table"] for table in fields(Config) if "table" in table.metadata}


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


class _HashPassword(argparse.Action):
    """Like --version: says something and ends."""

    def __call__(self, parser: argparse.ArgumentParser, _1: Any, name: Any, _2: Any = None) -> None:
        try:
            prefix = f"{check_name(name)}:" if name else ""
            print(prefix + hash_password(_ask_password()))
        except (ValueError, EOFError) as error:
            parser.error(f"--hash-password: {error}")
        parser.exit()


def _ask_password() -> bytes:
    if not sys.stdin.isatty():
        return sys.stdin.buffer.readline().rstrip(b"\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("The same again: ") != password:
        raise ValueError("these were not the same")
    return password.encode()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=NAME, description=f"{NAME}: a durable message queue server", allow_abbrev=False)
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
    for option in OPTIONS:
        flags = [option.metadata["short"]] if option.metadata["short"] else []
        flags.append(f"--{option.name.replace('_', '-')}")
        about = option.metadata["about"].replace("%", "%%")
        if isinstance(option.default, bool):
            parser.add_argument(*flags, dest=option.name, action=argparse.BooleanOptionalAction, help=about)
        else:
            default: Any = option.default
            if option.metadata["shown"] == "SIZE":
                default = show_size(default)
            several = isinstance(default, tuple)
            parser.add_argument(
                *flags,
                dest=option.name,
                metavar=option.metadata["shown"],
                action="append" if several else "store",
                help=f"{about} (default {' '.join(default) if several else default or 'none'})",
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
    if len(given.get("host", ())) == 1:
        given["host"] = given["host"][0]
    values.update(Config.checked(given, COMMAND_LINE))
    return action, Config(**values)
