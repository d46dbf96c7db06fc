"""The options: their names, types, defaults, meanings and limits, in one place.

The command line and the TOML file (`-c`) both come from the fields of `Config`, and a test checks conf/darner.toml
against them. Sizes are bytes, or a number with KiB, MiB or GiB behind it; times have their unit in the option's name.

Besides options the file may hold tables, such as [users.NAME]. They are fields of `Config`, too. How they are read
stands in the modules about users, queues and listeners.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from darner_core.access.access import AccessOptions
from darner_core.access.rights import Rights, parse_rights
from darner_core.access.users import check_name
from darner_core.config.listeners import (
    DARNER,
    DIALECT_NAMES,
    LISTENER_TABLE,
    REPLY_KEYS,
    WITHOUT_LOGIN,
    Endpoint,
    ListenerOptions,
    endpoints,
    read_listeners,
)
from darner_core.config.queue_tables import ALIAS_TABLE, Aliases, check_together, read_aliases, read_rules
from darner_core.config.queues import BUILT_IN_LEVEL, CHECKS, DEFAULT_TABLE, QUEUE_TABLES, QueueRules
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
    size,
    sync,
    text,
    whole_number,
)
from darner_core.errors import ConfigError
from darner_core.nearest import did_you_mean
from darner_core.showing import show

_USER_TABLES = "users"

POLLERS = ("auto", "epoll", "gevent")
# What the log's lines are: text for people, or an object of JSON each.
LOG_TEXT, LOG_JSON = LOG_FORMATS = ("text", "json")


def _read_users(tables: Mapping[str, Any]) -> dict[str, Rights] | None:
    if _USER_TABLES not in tables:
        return None
    written = tables[_USER_TABLES]
    if not isinstance(written, dict):
        raise BadOption((), f"users = {written!r}: must be tables [users.NAME]", _USER_TABLES)
    users = {}
    for name, table in written.items():
        keys: Keys = (_USER_TABLES, name)
        try:
            check_name(name)
            for kind in table if isinstance(table, dict) else ():
                keys = (_USER_TABLES, name, kind)
                parse_rights({kind: table[kind]})
            users[name] = parse_rights(table)
        except ValueError as error:
            raise BadOption((_USER_TABLES, name), show(str(error)), *keys[2:]) from None
    return users


def _status(value: Any) -> str:
    return one_of("up", "writeavoid", "readonly", "quiescent")(value.lower() if isinstance(value, str) else value)


def _option(default: Any, check: Callable[[Any], Any], about: str, short: str = "", shown: str = "N") -> Any:
    return field(default=default, metadata={"check": check, "about": about, "short": short, "shown": shown})


def _read_by(read: Callable[[Mapping[str, Any]], Any], *tables: str) -> dict[str, Any]:
    """The metadata of a field that `read` makes from these tables."""
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
    unix_mode: str = _option("0600", mode, "permissions of the Unix sockets: a user who may write to one can connect",
        shown="MODE")
    tls_cert: str = _option("", optional_text, "file with the server's certificate chain (PEM): TCP is served with"
        " TLS only", shown="FILE")
    tls_key: str = _option("", optional_text, "file with the certificate's key, if it is not in tls_cert",
        shown="FILE")
    tls_ca: str = _option("", optional_text, "file with the authorities' certificates (PEM): TLS clients must show a"
        " certificate that one of them signed, and the name in it is the user", shown="FILE")
    auth_file: str = _option("", optional_text, "file with one name:hash a line (see --hash-password): clients must"
        " give a name and password", shown="FILE")
    admin_from: tuple[str, ...] = _option((), places, 'where commands that need the right "admin" are taken'
        " from: loopback, unix (Unix sockets), addresses or networks; may be given several times; without any, from"
        " everywhere, but shutdown only from loopback and Unix sockets", shown="PLACE")
    # -- What clients are told
    reply_key: str = _option("queue", one_of(*REPLY_KEYS), 'the key in the reply to a get: "queue" names the'
        ' queue, "request" repeats the key that was asked for, options and all, for clients that compare the two',
        shown="WHICH")
    dialect: str = _option(DARNER, one_of(*DIALECT_NAMES), "the kind of"
        " clients to serve: how names are read, how reads are counted, which verbs there are; see docs/protocol.md",
        shown="NAME")
    get_timeout_ms: int = _option(10_000, whole_number(0, 2**31 - 1), "how long a get in the kyototycoon"
        " dialect waits for an item if it has no /t=; 0: not at all")
    # -- Status
    default_status: str = _option("up", _status, "the status at the start, if status_file has none: up, writeavoid,"
        " readonly or quiescent", shown="STATUS")
    status_file: str = _option("", optional_text, "file that keeps the status over a restart", shown="FILE")
    status_change_grace_period_s: int = _option(0, whole_number(0, 86_400), "a stricter status is shown at once, and in"
        " force after this time")
    # -- Data and safety
    data: str = _option("./data", text, "directory that holds the queues, created if missing", "-d", "DIR")
    sync: str | int = _option(SYNC_NEVER, sync, "when what was written is made to survive the loss of power (fsync):"
        ' "never" leaves it to the operating system, a number is milliseconds between fsyncs, "always" answers only'
        " afterwards; kill -9 loses nothing in any case", shown="WHEN")
    backup_dir: str = _option("", optional_text, 'directory that "backup" saves all queues below; without it there are'
        " no backups of the running server", shown="DIR")
    min_free_bytes: int = _option(64 * MIB, size(0, 1 << 40), "sets are refused while the disk has less room than"
        " this; gets and closes need some of it", shown="SIZE")
    # -- What one client may ask for
    max_item_bytes: int = _option(GIB, size(1, 1 << 40), "largest item that is accepted", shown="SIZE")
    max_job_bytes: int = _option(65_535, size(1, 1 << 40), "largest job that a client of beanstalkd may put; what other"
        " clients put may be larger", shown="SIZE")
    max_line_bytes: int = _option(8 * KIB, size(512, MIB), "longest request line that is accepted", shown="SIZE")
    max_reply_bytes: int = _option(256 * KIB, size(4 * KIB, GIB), "a client that pipelines is answered in portions"
        " of about this size, each when the one before has been sent", shown="SIZE")
    # -- Limits for all clients together
    max_connections: int = _option(16_000, whole_number(1, 1_000_000), "clients at a time; one more is told so and"
        " hung up on")
    max_queues: int = _option(100_000, whole_number(1, 1 << 32), "queues that can exist; a set that would make one"
        " more is refused")
    metrics_max_queues: int = _option(1000, whole_number(0, 100_000), "queues that /metrics tells one by one; of"
        " others it tells how many they are")
    max_leases: int = _option(100_000, whole_number(1, 10_000_000), "items with a deadline of their own that all"
        " clients together can have open; a get that would open one more is refused")
    body_timeout_s: int = _option(60, whole_number(0, 86_400), "a client that stops in the middle of a request for"
        " this long is hung up on; 0: never")
    idle_timeout_s: int = _option(0, whole_number(0, 31_536_000), "a client that asks nothing for this long, waits"
        " for nothing and has no item open is hung up on; 0: never")
    client_timeout_s: int = _option(0, whole_number(0, 31_536_000), "a client that asks nothing for this long and"
        " waits for nothing is hung up on, and the items that it has open go to others; 0: never")
    keepalive_idle_s: int = _option(60, whole_number(0, 32_767), "after this long without a byte over TCP, the"
        " client's host is asked whether it is still there; if it does not answer, the client is hung up on;"
        " 0: never")
    keepalive_interval_s: int = _option(10, whole_number(1, 32_767), "between two such questions, if no answer comes")
    keepalive_count: int = _option(6, whole_number(1, 127), "the client is hung up on after this many questions"
        " without an answer")
    unread_timeout_s: int = _option(0, whole_number(0, 86_400), "a client that takes nothing of what it is sent over"
        " TCP for this long, or whose host does not acknowledge it, is hung up on; 0: the system decides, and gives"
        " up only hosts that are gone, after about 15 minutes")
    connection_limit_refuse_writes: int = _option(0, whole_number(0, 1_000_000), "a client that connects while"
        " there are more clients than this may not put; 0: no limit")
    connection_limit_refuse_reads: int = _option(0, whole_number(0, 1_000_000), "a client that connects while"
        " there are more clients than this may not get; 0: no limit")
    body_memory_bytes: int = _option(8 * MIB, size(MIB, 1 << 40), "memory for items of which all clients together"
        " have sent a part; above it, what has come of an item is written to disk before the rest is there",
        shown="SIZE")
    pipeline_memory_bytes: int = _option(16 * MIB, size(MIB, 1 << 40), "memory for what all clients send ahead while"
        " they wait, and for replies that they do not take; above it, each is answered in portions of 4 KiB",
        shown="SIZE")
    # -- Queues
    expiration_timer_s: int = _option(1, whole_number(0, 86_400), "time between two sweeps for expired items, unused"
        " queues and reads that have been open for too long; 0: never, then they are found when the queue is used")
    # -- Memory
    chunk_bytes: int = _option(128 * KIB, size(KIB, 4 * MIB), "larger items are received, stored and sent in chunks of"
        " this size, and are never in memory as a whole", shown="SIZE")
    window_bytes: int = _option(16 * MIB, size(MIB, 1 << 40), "memory for items at the heads of all queues",
        shown="SIZE")
    block_cache_bytes: int = _option(8 * MIB, size(MIB, 1 << 40), "memory for blocks read from disk", shown="SIZE")
    write_buffer_bytes: int = _option(32 * MIB, size(MIB, 1 << 40), "memory for what has been written to the"
        " write-ahead log only", shown="SIZE")
    # -- Files
    max_wal_bytes: int = _option(64 * MIB, size(MIB, 1 << 40), "disk for the write-ahead log; more of it means a"
        " longer start after a crash", shown="SIZE")
    max_open_files: int = _option(128, whole_number(16, 1_000_000), "table files that RocksDB keeps open")
    max_column_families: int = _option(64, whole_number(1, 1024), "this many queues get a column family of RocksDB"
         " of their own, later ones share; a data directory never has fewer than it once had")
    # -- System
    poller: str = _option("auto", one_of(*POLLERS), "how the server learns which clients have sent something: epoll is"
        " the fastest and Linux's, gevent runs everywhere and may notice late that a client has gone; auto: the best"
        " there is", shown="WHICH")
    # -- Log
    debug: bool = _option(False, flag, "log every connection, and tracebacks")
    log_format: str = _option("text", one_of(*LOG_FORMATS), "text: lines for people; json: an object a line",
        shown="WHICH")
    # fmt: on

    # Tables of the file, which are no options.
    # The rights of each user; None: every user may do everything.
    users: dict[str, Rights] | None = field(default=None, metadata=_read_by(_read_users, _USER_TABLES))
    rules: QueueRules = field(default_factory=QueueRules, metadata=_read_by(read_rules, DEFAULT_TABLE, QUEUE_TABLES))
    # The queues that each alias leads to in the end.
    aliases: Aliases = field(default_factory=dict, metadata=_read_by(read_aliases, ALIAS_TABLE))
    listeners: tuple[ListenerOptions, ...] = field(default=(), metadata=_read_by(read_listeners, LISTENER_TABLE))

    # Where options and tables were set: "FILE: line 12" or "command line". Those that are missing have their defaults.
    levels: Mapping[str, str] = field(default_factory=dict, compare=False)

    def level(self, option: str) -> str:
        """Where this option was set."""
        return self.levels.get(option, BUILT_IN_LEVEL)

    def complaint(self, option: str, said: str) -> ConfigError:
        """The error for an option or table that is wrong only together with others."""
        return ConfigError(f"{self.levels[option]}: {said}" if option in self.levels else said)

    def access_options(self) -> AccessOptions:
        """The options that `access` needs. Raises ConfigError for an option that needs another one."""
        for option in ("tls_key", "tls_ca"):
            if getattr(self, option) and not self.tls_cert:
                raise self.complaint(option, f"{option} needs tls_cert")
        if self.users is not None and not (self.auth_file or self.tls_ca):
            raise self.complaint("users", "[users] needs auth_file or tls_ca: else nobody has a name")
        return AccessOptions(self.auth_file, self.tls_cert, self.tls_key, self.tls_ca, self.users, self.admin_from)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Every address to listen on; those of `host` come first."""
        return endpoints(self.host, self.port, self.dialect, self.listeners, self.reply_key)


OPTIONS = tuple(option for option in fields(Config) if "check" in option.metadata)
TABLES = tuple(option for option in fields(Config) if "tables" in option.metadata)


BY_NAME = {option.name: option for option in OPTIONS}
_TABLE_HEADERS = ("[users.NAME]", f"[{DEFAULT_TABLE}]", f"[{QUEUE_TABLES}.NAME]", "[aliases]", "[[listener]]")
_TABLE_NAMES = frozenset(name for table in TABLES for name in table.metadata["tables"])


def differences(old: Config, new: Config) -> list[str]:
    """The options and tables in which these two differ, by the names of Config's fields."""
    return [one.name for one in (*OPTIONS, *TABLES) if getattr(old, one.name) != getattr(new, one.name)]


def read_options(written: Mapping[str, Any]) -> dict[str, Any]:
    """What a file sets, checked, by the names of Config's fields. `written`: all of the file. Raises BadOption."""
    values = {}
    for name, value in written.items():
        if name in _TABLE_NAMES:
            continue
        if name not in BY_NAME:
            raise BadOption((), f"unknown option {show(name)}: {_nearest(name)}", name)
        try:
            values[name] = BY_NAME[name].metadata["check"](value)
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
    """What an unknown key above the first table may have been meant to be."""
    if name in CHECKS:
        return f"it is an option of queues, which stands in [{DEFAULT_TABLE}] or [{QUEUE_TABLES}.NAME]"
    tables = ", ".join(_TABLE_HEADERS)
    return did_you_mean(name, (*BY_NAME, *_TABLE_NAMES), f"--help lists the options, and the tables are {tables}")


def _misplaced(bad: BadOption) -> BadOption:
    """`bad`, with a hint if an option of the server stands below a table's header by mistake."""
    if len(bad.keys) > 1 and bad.keys[-1] in BY_NAME and bad.keys[-1] not in CHECKS and "unknown option" in str(bad):
        bad.args = (f"{bad}; {bad.keys[-1]} is an option of the server, which stands above all tables",)
    return bad


def check_listeners(config: Config) -> None:
    """Raises BadOption for listeners that do not fit the other options, of the file and of the command line."""
    endpoints(config.host, config.port, config.dialect, config.listeners)
    for number, listener in enumerate(config.listeners):
        # These protocols have no login, so a user's name has to come from a certificate.
        if listener.dialect not in WITHOUT_LOGIN or not config.auth_file:
            continue
        has_unix = any(address.startswith(UNIX) for address in listener.address)
        if has_unix or not config.tls_ca:
            where = " at a Unix socket" if has_unix else ""
            said = f'dialect = "{listener.dialect}"{where}: must not stand beside auth_file, because it has no login'
            raise BadOption((LISTENER_TABLE, number), said, "dialect")
