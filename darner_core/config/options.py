"""The options: their names, types, defaults, meanings and limits, in one place.

The command line and the TOML file (`-c`) both come from the fields of `Config`; conf/darner.toml is checked against
them by a test. The command line wins over the file, the file over the default. Sizes are bytes, or a number
with KiB, MiB or GiB behind it; times have their unit in the option's name.

Besides options the file may hold tables, such as [users.NAME]; they, too, are fields of `Config`, and the modules
that they are about read them.
"""

import argparse
import getpass
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from darner_core import NAME, VERSION
from darner_core.access.rights import Rights, parse_rights
from darner_core.access.users import check_name, hash_password
from darner_core.config.listeners import (
    DARNER,
    DIALECTS,
    LISTENER_TABLE,
    REPLY_KEYS,
    TEXT,
    THRIFT,
    Endpoint,
    ListenerOptions,
    endpoints,
    read_listeners,
)
from darner_core.config.queue_tables import ALIAS_TABLE, Aliases, check_together, read_aliases, read_rules
from darner_core.config.queues import BUILT_IN_LEVEL, CHECKS, DEFAULT_TABLE, QUEUE_TABLES, QueueRules
from darner_core.config.toml_file import TomlFile
from darner_core.config.values import (
    GIB,
    KIB,
    MIB,
    SYNC_NEVER,
    UNIX,
    BadOption,
    Keys,
    bad_value,
    flag,
    hosts,
    mode,
    one_of,
    optional_text,
    places,
    show_size,
    show_text,
    size,
    sync,
    text,
    whole_number,
)
from darner_core.errors import ConfigError
from darner_core.nearest import did_you_mean

COMMAND_LINE = "command line"

# What can be done instead of serving. They take the same options, but only --data means something to them.
CHECK, REPAIR = "check", "repair"
ACTIONS = {
    CHECK: "read the whole data directory, change nothing, and say what is damaged; exit status 0 whole, 1 damaged,"
    " 2 cannot be read",
    REPAIR: "save what can be read of a damaged data directory, and keep the damaged one beside it; exit status 0 all"
    " was saved, 1 something had to be dropped, 2 not repaired",
}


USER_TABLES = "users"

POLLERS = ("auto", "epoll", "gevent")


class Dump(NamedTuple):
    """The action --dump, which has words of its own."""

    queue: bytes
    json: bool
    follow: bool
    user: str  # who follows; "": a server that asks for no name


def _read_users(tables: Mapping[str, Any]) -> dict[str, Rights] | None:
    if USER_TABLES not in tables:
        return None
    written = tables[USER_TABLES]
    if not isinstance(written, dict):
        raise BadOption((), f"users = {written!r}: must be tables [users.NAME]", USER_TABLES)
    users = {}
    for name, table in written.items():
        keys: Keys = (USER_TABLES, name)
        try:
            check_name(name)
            for kind in table if isinstance(table, dict) else ():
                keys = (USER_TABLES, name, kind)
                parse_rights({kind: table[kind]})
            users[name] = parse_rights(table)
        except ValueError as error:
            raise BadOption((USER_TABLES, name), show_text(str(error)), *keys[2:]) from None
    return users


def _status(value: Any) -> str:
    return one_of("up", "writeavoid", "readonly", "quiescent")(value.lower() if isinstance(value, str) else value)


def _option(default: Any, check: Callable[[Any], Any], about: str, short: str = "", shown: str = "N") -> Any:
    return field(default=default, metadata={"check": check, "about": about, "short": short, "shown": shown})


def _read_by(read: Callable[[Mapping[str, Any]], Any], *tables: str) -> dict[str, Any]:
    """The metadata of a field that `read` makes of what the file has under these names."""
    return {"read": read, "tables": tables}


@dataclass(frozen=True)
class Config:
    """Every option with its default. Values have been checked."""

    # fmt: off
    # -- Listening
    host: tuple[str, ...] = _option(("127.0.0.1",), hosts, "address to listen on; unix:/path is a Unix socket; may be"
        " given several times", shown="ADDRESS")
    port: int = _option(22133, whole_number(0, 65535), "port to listen on; 0 takes a free one", "-p", "PORT")
    # -- Access
    unix_mode: str = _option("0600", mode, "permissions of the Unix sockets: who may write to one can connect",
        shown="MODE")
    tls_cert: str = _option("", optional_text, "file with the server's certificate chain (PEM): TCP is served with"
        " TLS only", shown="FILE")
    tls_key: str = _option("", optional_text, "file with the certificate's key, if it is not in the same",
        shown="FILE")
    tls_ca: str = _option("", optional_text, "file with the authorities' certificates (PEM): TLS clients must show a"
        " certificate that one of them signed, and the name in it is the user", shown="FILE")
    auth_file: str = _option("", optional_text, "file with one name:hash a line (see --hash-password): clients must"
        " give a name and password", shown="FILE")
    admin_from: tuple[str, ...] = _option((), places, 'from where commands that need the right "admin" are taken:'
        " loopback, unix (Unix sockets), addresses or networks; may be given several times; without any from"
        " everywhere, but shutdown only from loopback and Unix sockets", shown="PLACE")
    # -- What clients are told
    reply_key: str = _option("queue", one_of(*REPLY_KEYS), 'the key in the reply to a get: "queue" names the'
        ' queue, "request" repeats the key that was asked for, options and all, for clients that compare the two',
        shown="WHICH")
    dialect: str = _option(DARNER, one_of(*DIALECTS), "whose clients"
        " are served: how names are read, how reads are counted, which verbs there are; see docs/protocol.md",
        shown="NAME")
    get_timeout_ms: int = _option(10_000, whole_number(0, 2**31 - 1), "how long a get waits for an item in the"
        " kyototycoon dialect, whose clients cannot say it themselves; 0: not at all")
    # -- Status
    default_status: str = _option("up", _status, "what the server takes at the start, if status_file says nothing: up,"
        " writeavoid, readonly or quiescent", shown="STATUS")
    status_file: str = _option("", optional_text, "file that keeps the status over a restart", shown="FILE")
    status_change_grace_period_s: int = _option(0, whole_number(0, 86_400), "a stricter status is shown at once, and in"
        " force after so long")
    # -- Data and safety
    data: str = _option("./data", text, "directory that holds the queues, created if missing", "-d", "DIR")
    sync: str | int = _option(SYNC_NEVER, sync, "when what was written is made to survive the loss of power (fsync):"
        ' "never" leaves it to the operating system, a number is milliseconds between fsyncs, "always" answers only'
        " afterwards; kill -9 loses nothing in any case", shown="WHEN")
    min_free_bytes: int = _option(64 * MIB, size(0, 1 << 40), "sets are refused while the disk has less room than"
        " this; gets and closes need some of it", shown="SIZE")
    # -- What one client may ask for
    max_item_bytes: int = _option(GIB, size(1, 1 << 40), "largest item that is accepted", shown="SIZE")
    max_line_bytes: int = _option(8 * KIB, size(512, MIB), "longest request line that is accepted", shown="SIZE")
    max_reply_bytes: int = _option(256 * KIB, size(4 * KIB, GIB), "a client that pipelines is answered in portions"
        " of about this size, each when the one before has been sent", shown="SIZE")
    # -- Limits for all clients together
    max_connections: int = _option(16_000, whole_number(1, 1_000_000), "clients at a time; one more is told so and"
        " hung up on")
    max_queues: int = _option(100_000, whole_number(1, 1 << 32), "queues that can exist; a set that would make one"
        " more is refused")
    body_timeout_s: int = _option(60, whole_number(0, 86_400), "a client that stops in the middle of a request for so"
        " long is hung up on; 0: never")
    idle_timeout_s: int = _option(0, whole_number(0, 31_536_000), "a client that asks nothing for so long, waits for"
        " nothing and has no item open is hung up on; 0: never")
    client_timeout_s: int = _option(0, whole_number(0, 31_536_000), "a client that asks nothing for so long and"
        " waits for nothing is hung up on, and the items that it has open go to others; 0: never")
    keepalive_idle_s: int = _option(60, whole_number(0, 32_767), "after so long without a byte over TCP, the client's"
        " host is asked whether it is still there; one that does not answer is hung up on; 0: never")
    keepalive_interval_s: int = _option(10, whole_number(1, 32_767), "between two such questions while no answer comes")
    keepalive_count: int = _option(6, whole_number(1, 127), "so many of them without an answer are enough")
    unread_timeout_s: int = _option(0, whole_number(0, 86_400), "a client that takes nothing of what it is sent over"
        " TCP for so long, or whose host does not acknowledge it, is hung up on; 0: the system decides, which gives up"
        " only hosts that are gone, after about 15 minutes")
    connection_limit_refuse_writes: int = _option(0, whole_number(0, 1_000_000), "who connects while there are"
        " more clients than this may not put; 0: no limit")
    connection_limit_refuse_reads: int = _option(0, whole_number(0, 1_000_000), "who connects while there are"
        " more clients than this may not get; 0: no limit")
    body_memory_bytes: int = _option(8 * MIB, size(MIB, 1 << 40), "memory for what has come of all clients' items;"
        " over it, what has come of an item is written to disk before the rest is there", shown="SIZE")
    pipeline_memory_bytes: int = _option(16 * MIB, size(MIB, 1 << 40), "memory for what all clients send ahead while"
        " they wait, and for replies that they do not take; over it, each is answered in portions of 4 KiB",
        shown="SIZE")
    # -- Queues
    expiration_timer_s: int = _option(1, whole_number(0, 86_400), "between two sweeps for expired items, unused"
        " queues and reads that have been open for too long; 0: never, and they are found when the queue is used")
    # -- Memory
    chunk_bytes: int = _option(128 * KIB, size(KIB, 4 * MIB), "larger items are received, stored and sent in chunks of"
        " this size, and never stand in memory whole", shown="SIZE")
    window_bytes: int = _option(16 * MIB, size(MIB, 1 << 40), "memory for items at the heads of all queues",
        shown="SIZE")
    block_cache_bytes: int = _option(8 * MIB, size(MIB, 1 << 40), "memory for blocks read from disk", shown="SIZE")
    write_buffer_bytes: int = _option(32 * MIB, size(MIB, 1 << 40), "memory for what has been written to the"
        " write-ahead log only", shown="SIZE")
    # -- Files
    max_wal_bytes: int = _option(64 * MIB, size(MIB, 1 << 40), "disk for the write-ahead log; more of it means a"
        " longer start after a crash", shown="SIZE")
    max_open_files: int = _option(128, whole_number(16, 1_000_000), "table files that RocksDB keeps open")
    max_column_families: int = _option(64, whole_number(1, 1024), "so many queues get a column family of RocksDB of"
        " their own, later ones share; a data directory never has fewer than it once had")
    # -- System
    poller: str = _option("auto", one_of(*POLLERS), "how the server learns which clients have sent something: epoll is"
        " the fastest and Linux's, gevent runs everywhere and may notice late that a client has gone; auto: the best"
        " there is", shown="WHICH")
    # -- Log
    debug: bool = _option(False, flag, "log every connection, and tracebacks")
    # fmt: on

    # Tables of the file, which are no options.
    # None: they may do everything.
    users: dict[str, Rights] | None = field(default=None, metadata=_read_by(_read_users, USER_TABLES))
    rules: QueueRules = field(default_factory=QueueRules, metadata=_read_by(read_rules, DEFAULT_TABLE, QUEUE_TABLES))
    # The queues that each leads to in the end.
    aliases: Aliases = field(default_factory=dict, metadata=_read_by(read_aliases, ALIAS_TABLE))
    listeners: tuple[ListenerOptions, ...] = field(default=(), metadata=_read_by(read_listeners, LISTENER_TABLE))

    # Where options and tables were set: "FILE: line 12" or "command line". What is missing is built in.
    levels: Mapping[str, str] = field(default_factory=dict, compare=False)

    def level(self, option: str) -> str:
        """Where this option was set."""
        return self.levels.get(option, BUILT_IN_LEVEL)

    def complaint(self, option: str, said: str) -> ConfigError:
        """What is wrong with this option or table, if it is not wrong by itself."""
        return ConfigError(f"{self.levels[option]}: {said}" if option in self.levels else said)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Every address to listen on; those of `host` come first."""
        return endpoints(self.host, self.port, self.dialect, self.listeners, self.reply_key)


OPTIONS = tuple(option for option in fields(Config) if "check" in option.metadata)
TABLES = tuple(option for option in fields(Config) if "tables" in option.metadata)

# The groups in which --help shows the options, by the first option of each. conf/darner.toml has the same.
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

_KNOWN = {option.name: option for option in OPTIONS}
_TABLE_HEADERS = ("[users.NAME]", f"[{DEFAULT_TABLE}]", f"[{QUEUE_TABLES}.NAME]", "[aliases]", "[[listener]]")
_TABLE_NAMES = frozenset(name for table in TABLES for name in table.metadata["tables"])


def differences(old: Config, new: Config) -> list[str]:
    """The options and tables that are not the same in these two, by the names of Config's fields."""
    return [one.name for one in (*OPTIONS, *TABLES) if getattr(old, one.name) != getattr(new, one.name)]


def _read(written: Mapping[str, Any]) -> dict[str, Any]:
    """What a file sets, by the names of Config's fields, all checked. Raises BadOption."""
    values = {}
    for name, value in written.items():
        if name in _TABLE_NAMES:
            continue
        if name not in _KNOWN:
            raise BadOption((), f"unknown option {show_text(name)}: {_nearest(name)}", name)
        try:
            values[name] = _KNOWN[name].metadata["check"](value)
        except ValueError as error:
            raise bad_value((), name, value, error) from None
    for table in TABLES:
        try:
            values[table.name] = table.metadata["read"](written)
        except BadOption as bad:
            raise _misplaced(bad) from None
    check_together(values["rules"], values["aliases"])
    return values


def _nearest(name: str) -> str:
    """What may have been meant by this key above the first table."""
    if name in CHECKS:
        return f"it is an option of queues, which stands in [{DEFAULT_TABLE}] or [{QUEUE_TABLES}.NAME]"
    tables = ", ".join(_TABLE_HEADERS)
    return did_you_mean(name, (*_KNOWN, *_TABLE_NAMES), f"--help lists the options, and the tables are {tables}")


def _misplaced(bad: BadOption) -> BadOption:
    """Most likely what belongs above the first table was written below it."""
    if len(bad.keys) > 1 and bad.keys[-1] in _KNOWN and bad.keys[-1] not in CHECKS and "unknown option" in str(bad):
        bad.args = (f"{bad}; {bad.keys[-1]} is an option of the server, which stands above all tables",)
    return bad


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        _, unrecognized, words = message.partition("unrecognized arguments: ")
        word = words.split(" ")[0].partition("=")[0]
        if unrecognized and word.startswith("-"):
            near = did_you_mean(word, (option for option in self._option_string_actions if option.startswith("--")))
            message = f"{message}; {near}" if near else message
        raise ConfigError(f"{COMMAND_LINE}: {show_text(message)}; see {self.prog} --help")


class _HashPassword(argparse.Action):
    """Like --version: says something and ends."""

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
    if getpass.getpass("The same again: ") != password:
        raise ValueError("these were not the same")
    return password.encode()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=NAME,
        usage=f"{NAME} [options]",
        description=f"{NAME}: a durable message queue server",
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
    return parser


def _take_dump(given: dict[str, Any]) -> Dump | None:
    """The action --dump, if it is `given`, and the options that go with it. Raises ConfigError."""
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
    """What to do, one of ACTIONS, a Dump or "" for serving, and the configuration. Raises and exits as `parse`."""
    given = {name: value for name, value in vars(_parser().parse_args(arguments)).items() if value is not None}
    action = _take_dump(given) or given.pop("action", "")
    path = given.pop("config", None)
    values: dict[str, Any] = {}
    levels: dict[str, str] = {}
    file = TomlFile(path) if path is not None else None
    if file is not None:
        try:
            values = _read(file.values)
        except BadOption as bad:
            raise file.complaint(bad) from None
        levels = {name: file.place((name,)) for name in file.values}
    for name in ("host", "admin_from"):
        if len(given.get(name, ())) == 1:
            given[name] = given[name][0]
    for name, value in given.items():
        try:
            values[name] = _KNOWN[name].metadata["check"](value)
        except ValueError as error:
            raise ConfigError(f"{COMMAND_LINE}: --{name.replace('_', '-')} = {value!r}: must be {error}") from None
        levels[name] = COMMAND_LINE
    config = Config(**values, levels=levels)
    if file is not None:
        try:
            _check_listeners(config)
        except BadOption as bad:
            raise file.complaint(bad) from None
    return action, config


def _check_listeners(config: Config) -> None:
    """Raises BadOption for what only the file and the command line together tell."""
    endpoints(config.host, config.port, config.dialect, config.listeners)
    for number, listener in enumerate(config.listeners):
        # A user's name would have to come from a certificate.
        if listener.dialect not in (TEXT, THRIFT) or not config.auth_file:
            continue
        has_unix = any(address.startswith(UNIX) for address in listener.address)
        if has_unix or not config.tls_ca:
            where = " at a Unix socket" if has_unix else ""
            said = f'dialect = "{listener.dialect}"{where}: must not stand beside auth_file, because it has no login'
            raise BadOption((LISTENER_TABLE, number), said, "dialect")
