"""The options: where they come from, which of them wins, what is allowed, and what is said about what is not."""

import re
import tomllib
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from darner_core.access.rights import Rights
from darner_core.config.command_line import parse
from darner_core.config.listeners import ListenerOptions
from darner_core.config.options import OPTIONS, Config, differences
from darner_core.config.queues import QueueOptions, QueueRules
from darner_core.config.values import show_size
from tests.support.configured import File, as_typed, complaint_about

EXAMPLE = Path(__file__).resolve().parents[2] / "conf" / "darner.toml"

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40


class Good(NamedTuple):
    """Another value than the default: as typed at the command line, as it stands in the file, and what it means."""

    typed: str
    written: str
    value: Any


GOOD = {
    "host": Good("0.0.0.0", '"0.0.0.0"', ("0.0.0.0",)),
    "port": Good("0", "0", 0),
    "data": Good("/var/lib/darner", '"/var/lib/darner"', "/var/lib/darner"),
    "debug": Good("", "true", True),
    "log_format": Good("json", '"json"', "json"),
    "poller": Good("gevent", '"gevent"', "gevent"),
    "sync": Good("250", "250", 250),
    "reply_key": Good("request", '"request"', "request"),
    "max_item_bytes": Good("10 MiB", '"10 MiB"', 10 * MIB),
    "max_line_bytes": Good("2048", "2048", 2048),
    "max_job_bytes": Good("1 MiB", '"1 MiB"', MIB),
    "chunk_bytes": Good("96KiB", '"96KiB"', 96 * KIB),
    "max_reply_bytes": Good("1 MiB", '"1 MiB"', MIB),
    "max_column_families": Good("8", "8", 8),
    "window_bytes": Good("1 GiB", '"1 GiB"', GIB),
    "block_cache_bytes": Good("32 mib", '"32 mib"', 32 * MIB),
    "write_buffer_bytes": Good("64 MiB", '"64 MiB"', 64 * MIB),
    "max_wal_bytes": Good("1gib", '"1gib"', GIB),
    "max_open_files": Good("1000", "1000", 1000),
    "body_memory_bytes": Good("1MiB", '"1MiB"', MIB),
    "pipeline_memory_bytes": Good("1GiB", '"1GiB"', GIB),
    "body_timeout_s": Good("0", "0", 0),
    "idle_timeout_s": Good("3600", "3600", 3600),
    "max_connections": Good("100", "100", 100),
    "max_queues": Good("5", "5", 5),
    "max_leases": Good("7", "7", 7),
    "metrics_max_queues": Good("7", "7", 7),
    "min_free_bytes": Good("0", "0", 0),
    "unix_mode": Good("0660", '"0660"', "0660"),
    "tls_cert": Good("/etc/cert.pem", '"/etc/cert.pem"', "/etc/cert.pem"),
    "tls_key": Good("/etc/key.pem", '"/etc/key.pem"', "/etc/key.pem"),
    "tls_ca": Good("/etc/ca.pem", '"/etc/ca.pem"', "/etc/ca.pem"),
    "admin_from": Good("10.0.0.0/8", '["10.0.0.0/8"]', ("10.0.0.0/8",)),
    "auth_file": Good("/etc/users", '"/etc/users"', "/etc/users"),
    "dialect": Good("kestrel", '"kestrel"', "kestrel"),
    "get_timeout_ms": Good("0", "0", 0),
    "expiration_timer_s": Good("0", "0", 0),
    "default_status": Good("ReadOnly", '"READONLY"', "readonly"),
    "backup_dir": Good("/var/backups", '"/var/backups"', "/var/backups"),
    "status_file": Good("/run/status", '"/run/status"', "/run/status"),
    "status_change_grace_period_s": Good("30", "30", 30),
    "connection_limit_refuse_writes": Good("100", "100", 100),
    "connection_limit_refuse_reads": Good("200", "200", 200),
    "client_timeout_s": Good("30", "30", 30),
    "keepalive_idle_s": Good("0", "0", 0),
    "keepalive_interval_s": Good("5", "5", 5),
    "keepalive_count": Good("3", "3", 3),
    "unread_timeout_s": Good("120", "120", 120),
}

every_option = pytest.mark.parametrize("option", [option.name for option in OPTIONS])


# -- where a value comes from


def test_nothing_given_means_the_defaults() -> None:
    assert parse([]) == Config()


@every_option
def test_an_option_can_be_given_at_the_command_line(option: str) -> None:
    good = GOOD[option]
    options = parse(as_typed(option, good.typed))
    assert getattr(options, option) == good.value
    assert options == Config(**{option: good.value})
    assert options != Config()


@every_option
def test_an_option_can_be_given_in_the_file(option: str, file: File) -> None:
    good = GOOD[option]
    options = parse(file(f"{option} = {good.written}"))
    assert options == Config(**{option: good.value})
    assert options != Config()


def test_all_options_can_be_given_at_once(file: File) -> None:
    expected = Config(**{option: good.value for option, good in GOOD.items()})
    assert parse(file(*(f"{option} = {good.written}" for option, good in GOOD.items()))) == expected
    assert parse([word for option, good in GOOD.items() for word in as_typed(option, good.typed)]) == expected


@every_option
def test_the_command_line_wins_over_the_file(option: str, file: File) -> None:
    good = GOOD[option]
    default = getattr(Config(), option)
    if isinstance(default, tuple):
        default = list(default)
    in_file = f'{option} = "{default}"' if isinstance(default, str) else f"{option} = {default}".lower()
    for arguments in (file(in_file) + as_typed(option, good.typed), as_typed(option, good.typed) + file(in_file)):
        assert parse(arguments) == Config(**{option: good.value})


def test_what_the_command_line_leaves_open_the_file_says(file: File) -> None:
    options = parse([*file("port = 1", 'host = "::1"'), "--port", "2"])
    assert (options.port, options.host, options.data) == (2, ("::1",), Config().data)


def test_the_usual_options_have_short_names(file: File) -> None:
    options = parse(["-p", "5", "-d", "/x"])
    assert (options.port, options.data) == (5, "/x")
    file("port = 7")
    assert parse(["--config", str(file.path)]).port == 7


def test_an_empty_file_changes_nothing(file: File) -> None:
    assert parse(file("", "# port = 5")) == Config()


def test_what_was_configured_stays(file: File) -> None:
    options = parse([])
    with pytest.raises(FrozenInstanceError):
        options.port = 1  # type: ignore[misc]


def test_there_may_be_several_hosts(file: File) -> None:
    both = ("127.0.0.1", "unix:/run/darner")
    assert parse(["--host", both[0], "--host", both[1]]).host == both
    assert parse(file('host = ["127.0.0.1", "unix:/run/darner"]')).host == both
    # Those of the command line stand in the place of the file's.
    assert parse([*file('host = ["::1", "::2"]'), "--host", "::3"]).host == ("::3",)
    message = complaint_about(["--host", "::1", "--host", "::1"])
    assert message == "command line: --host = ['::1', '::1']: must be addresses that differ"


# -- the users' tables


def test_the_rights_of_users_stand_in_tables(file: File) -> None:
    assert parse(file("port = 1")).users is None
    users = parse(file('[users.bob]\nput = ["a*"]', "[users.eve]")).users
    assert users == {"bob": Rights({"put": ("a*",)}), "eve": Rights({})}
    assert parse(file("[users]")).users == {}


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("users = 5", "line 1: users = 5: must be tables [users.NAME]"),
        ("users.bob = 5", "line 1: [users.bob]: must be a table with put, get and admin"),
        (
            "[users.bob]\nputs = []",
            "line 2: [users.bob]: must be a table with put, get and admin, and 'puts' is none of them",
        ),
        (
            '[users.bob]\nput = "a"',
            'line 2: [users.bob]: must be a table whose put is a list of patterns of queue names, as in ["mail.*"]',
        ),
        (
            "[users.bob]\nput = []\nget = [1]",
            'line 3: [users.bob]: must be a table whose get is a list of patterns of queue names, as in ["mail.*"]',
        ),
        (
            '[users."a b"]',
            'line 1: [users."a b"]: a user\'s name is 1 to 250 printable bytes without space and colon,'
            " not with # first",
        ),
    ],
)
def test_a_bad_table_is_named_in_one_line(lines: str, complaint: str, file: File) -> None:
    assert complaint_about(file(lines)) == f"{file.path}: {complaint}"


# -- tables about queues, and what they say of the server


def test_queues_aliases_and_listeners_stand_in_tables(file: File) -> None:
    options = parse(
        file(
            "port = 5",
            "[default]",
            'max_bytes = "1 GiB"',
            "[queues.mail]",
            "max_items = 5",
            "[aliases]",
            'all = ["mail", "news"]',
            "[[listener]]",
            "port = 6",
            'dialect = "kestrel"',
        )
    )
    assert options.rules.of(b"mail") == QueueOptions(max_items=5, max_bytes=GIB)
    assert options.rules.of(b"news") == QueueOptions(max_bytes=GIB)
    assert options.rules.named == (b"mail",)
    assert options.aliases == {b"all": (b"mail", b"news")}
    assert options.listeners == (ListenerOptions(port=6, dialect="kestrel"),)
    assert [one[:3] for one in options.endpoints] == [("127.0.0.1", 5, "darner"), ("127.0.0.1", 6, "kestrel")]
    nothing = parse([])
    assert (nothing.rules, nothing.aliases, nothing.listeners) == (QueueRules(), {}, ())
    assert nothing.rules.of(b"mail") == QueueOptions()


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (
            "port = 1\n\n[queues.mail]\nmax_items = -1",
            "line 4: [queues.mail]: max_items = -1: must be a number from 0 to",
        ),
        ('[queues."a.b"]\n[queues.c]\ntrace = 1', "line 3: [queues.c]: trace = 1: must be true or false"),
        (
            "[queues.mail]\nmax_item = 1",
            'line 2: [queues.mail]: unknown option max_item: did you mean "max_items"?',
        ),
        (
            "[queues.mail]\nzzz = 1",
            "line 2: [queues.mail]: unknown option zzz: one of max_items, max_bytes, ",
        ),
        ("[default]\n\nfanout_only = 5", "line 3: [default]: fanout_only = 5: must be true or false"),
        ('[aliases]\na = ["b"]\nb = ["a"]', "line 2: [aliases]: a leads in a circle, a -> b -> a: "),
        ('[aliases]\na = ["q"]\n[queues.a]', "line 3: [queues.a]: is an alias, too: "),
        (
            "[[listener]]\nport = 1\n[[listener]]\nport = true",
            "line 4: [[listener]]: port = True: must be a number from",
        ),
        ("[[listener]]", "line 1: [[listener]]: must have a port"),
        ("\n[listener]\nport = 1", "line 2: listener = {'port': 1}: must be tables [[listener]]"),
    ],
)
def test_what_is_wrong_in_a_table_is_named_with_its_line(lines: str, complaint: str, file: File) -> None:
    assert complaint_about(file(lines)).startswith(f"{file.path}: {complaint}")


def test_an_option_of_the_server_below_a_table_is_told_where_it_belongs(file: File) -> None:
    message = complaint_about(file("[default]", "port = 1"))
    assert message.startswith(f"{file.path}: line 2: [default]: unknown option port: one of max_items, ")
    assert message.endswith("; port is an option of the server, which stands above all tables")
    assert "stands above" not in complaint_about(file("[default]", "no = 1"))


def test_a_listener_must_not_have_the_address_that_the_command_line_gives(file: File) -> None:
    listener = file("port = 1", "[[listener]]", "port = 2")
    assert len(parse(listener).endpoints) == 2
    said = "127.0.0.1 port 2: must not be the address of another listener, or of host and port"
    assert complaint_about([*listener, "--port", "2"]) == f"{file.path}: line 2: [[listener]]: {said}"


@pytest.mark.parametrize("dialect", ["text", "thrift"])
def test_a_protocol_without_login_does_not_stand_beside_passwords(dialect: str, file: File) -> None:
    lines = f'[[listener]]\nport = 1\ndialect = "{dialect}"'
    assert complaint_about([*file(lines), "--auth-file", "users"]) == (
        f'{file.path}: line 3: [[listener]]: dialect = "{dialect}": must not stand beside auth_file, because it has no'
        " login"
    )
    # Who has a certificate needs no login.
    parse([*file(lines), "--auth-file", "users", "--tls-ca", "ca", "--tls-cert", "cert"])
    parse([*file(lines.replace(dialect, "kestrel")), "--auth-file", "users"])
    # There are no certificates at a Unix socket, so nobody could come in.
    for address in ('"unix:/run/x"', '["127.0.0.1", "unix:/run/x"]'):
        port = "port = 1\n" if "127" in address else ""
        lines = f'[[listener]]\naddress = {address}\n{port}dialect = "{dialect}"'
        said = complaint_about([*file(lines), "--auth-file", "users", "--tls-ca", "ca", "--tls-cert", "cert"])
        assert said.endswith(
            f'dialect = "{dialect}" at a Unix socket: must not stand beside auth_file, because it has no login'
        )


def test_it_is_known_where_each_option_was_set(file: File) -> None:
    options = parse([*file("# options", "port = 1", "debug = true"), "--port", "2"])
    assert options.level("port") == "command line"
    assert options.level("debug") == f"{file.path}: line 3"
    assert options.level("host") == "built in"
    assert str(options.complaint("debug", "needs more")) == f"{file.path}: line 3: needs more"
    assert str(Config().complaint("debug", "needs more")) == "needs more"


def test_the_same_options_are_the_same_wherever_they_were_set(file: File) -> None:
    assert parse(file("port = 1")) == parse(["--port", "1"])


def test_differences_are_named(file: File) -> None:
    old = parse([])
    assert differences(old, parse(file("", "port = 22133"))) == []
    changed = parse(file("port = 1", "[default]", "trace = true", "[users.bob]", "[[listener]]", "port = 2"))
    assert differences(old, changed) == ["port", "users", "rules", "listeners"]
    aliases = parse(file("[aliases]", 'a = ["b"]'))
    assert differences(old, aliases) == ["aliases"]
    assert differences(aliases, aliases) == []


# -- what is allowed

NUMBERS = {
    "port": (0, 65535),
    "max_column_families": (1, 1024),
    "max_open_files": (16, 1_000_000),
    "body_timeout_s": (0, 86_400),
    "idle_timeout_s": (0, 31_536_000),
    "max_connections": (1, 1_000_000),
    "max_queues": (1, 1 << 32),
    "max_leases": (1, 10_000_000),
    "metrics_max_queues": (0, 100_000),
    "get_timeout_ms": (0, 2**31 - 1),
    "expiration_timer_s": (0, 86_400),
    "status_change_grace_period_s": (0, 86_400),
    "connection_limit_refuse_writes": (0, 1_000_000),
    "connection_limit_refuse_reads": (0, 1_000_000),
    "client_timeout_s": (0, 31_536_000),
    "keepalive_idle_s": (0, 32_767),
    "keepalive_interval_s": (1, 32_767),
    "keepalive_count": (1, 127),
    "unread_timeout_s": (0, 86_400),
}
SIZES = {
    "max_item_bytes": (1, TIB),
    "max_line_bytes": (512, MIB),
    "max_job_bytes": (1, TIB),
    "chunk_bytes": (KIB, 4 * MIB),
    "max_reply_bytes": (4 * KIB, GIB),
    "window_bytes": (MIB, TIB),
    "block_cache_bytes": (MIB, TIB),
    "write_buffer_bytes": (MIB, TIB),
    "max_wal_bytes": (MIB, TIB),
    "min_free_bytes": (0, TIB),
    "body_memory_bytes": (MIB, TIB),
    "pipeline_memory_bytes": (MIB, TIB),
}


@pytest.mark.parametrize("option", [*NUMBERS, *SIZES])
def test_the_limits_themselves_are_allowed_and_nothing_beyond(option: str, file: File) -> None:
    lowest, highest = (NUMBERS | SIZES)[option]
    for value in (lowest, highest):
        assert getattr(parse(as_typed(option, str(value))), option) == value
        assert getattr(parse(file(f"{option} = {value}")), option) == value
    for value in (lowest - 1, highest + 1):
        typed = complaint_about([f"--{option.replace('_', '-')}={value}"])
        written = complaint_about(file(f"{option} = {value}"))
        kind = "number" if option in NUMBERS else "size"
        allowed = (
            f"a {kind} from {lowest} to {highest}"
            if option in NUMBERS
            else f"a {kind} from {show_size(lowest)} to {show_size(highest)}, in bytes, KiB, MiB or GiB"
        )
        assert typed == f"command line: --{option.replace('_', '-')} = '{value}': must be {allowed}"
        assert written == f"{file.path}: line 1: {option} = {value}: must be {allowed}"


@pytest.mark.parametrize(
    ("text", "size"),
    [("1024", KIB), ("1KiB", KIB), ("1 KiB", KIB), ("2  MiB", 2 * MIB), (" 3 gib ", 3 * GIB), ("007 KIB", 7 * KIB)],
)
def test_sizes_are_bytes_or_have_a_unit(text: str, size: int, file: File) -> None:
    assert parse(["--max-item-bytes", text]).max_item_bytes == size
    assert parse(file(f'max_item_bytes = "{text}"')).max_item_bytes == size


@pytest.mark.parametrize(("size", "text"), [(0, "0"), (1, "1"), (1023, "1023"), (KIB, "1 KiB"), (1536, "1536")])
def test_sizes_are_shown_as_they_can_be_typed(size: int, text: str) -> None:
    assert show_size(size) == text
    for shown in (size * KIB, size * MIB, size * GIB):
        if 0 < shown <= TIB:
            assert parse(["--max-item-bytes", show_size(shown)]).max_item_bytes == shown


@pytest.mark.parametrize(
    ("given", "value"), [("never", "never"), ("always", "always"), ("1", 1), ("3600000", 3_600_000)]
)
def test_sync_is_a_word_or_milliseconds(given: str, value: str | int, file: File) -> None:
    assert parse(["--sync", given]).sync == value
    written = f'"{value}"' if isinstance(value, str) else value
    assert parse(file(f"sync = {written}")).sync == value


# -- what is said about the rest

BAD_SYNC = 'must be "never", "always", or milliseconds between fsyncs from 1 to 3600000'
BAD_HOST = "must be an address, or a list of them, none of them empty; unix:/path is a Unix socket"
BAD_PLACE = (
    'must be "loopback", "unix", an IP address, a network such as "10.1.0.0/16", or a list of these; [] is what is'
    " built in"
)
BAD_MODE = 'must be file permissions as an octal text, such as "0600"'
BAD_DIALECT = 'must be "darner" or "kestrel" or "siberite" or "kyototycoon"'
BAD_STATUS = 'must be "up" or "writeavoid" or "readonly" or "quiescent"'
BAD_VALUES: list[tuple[str, str | None, str | None, str]] = [
    # option, typed, written in the file, what is allowed; None where it cannot be given that way
    ("host", "", '""', BAD_HOST),
    ("host", "unix:", '"unix:"', BAD_HOST),
    ("host", None, "5", BAD_HOST),
    ("host", None, "[]", BAD_HOST),
    ("host", None, '["127.0.0.1", 5]', BAD_HOST),
    ("host", None, '"a\\u0000b"', BAD_HOST),
    ("host", None, '["::1", "::1"]', "must be addresses that differ"),
    ("unix_mode", "rw", '"rw"', BAD_MODE),
    ("unix_mode", "0888", '"0888"', BAD_MODE),
    ("unix_mode", "4755", '"4755"', BAD_MODE),
    ("unix_mode", None, "384", BAD_MODE),
    ("tls_cert", None, "5", 'must be a text; "" is none'),
    ("tls_key", None, '"a\\u0000b"', 'must be a text; "" is none'),
    ("tls_ca", None, "true", 'must be a text; "" is none'),
    ("admin_from", "lo", '"lo"', BAD_PLACE),
    ("admin_from", "", '""', BAD_PLACE),
    ("admin_from", None, "5", BAD_PLACE),
    ("admin_from", None, '["unix", "10.0.0.1/8"]', BAD_PLACE),
    ("auth_file", None, "[]", 'must be a text; "" is none'),
    ("data", "", '""', "must be a text that is not empty"),
    ("data", None, "true", "must be a text that is not empty"),
    ("debug", None, '"yes"', "must be true or false"),
    ("debug", None, "1", "must be true or false"),
    ("log_format", "xml", '"xml"', 'must be "text" or "json"'),
    ("poller", "kqueue", '"kqueue"', 'must be "auto" or "epoll" or "gevent"'),
    ("port", "x", '"x"', "must be a number from 0 to 65535"),
    ("port", "", '""', "must be a number from 0 to 65535"),
    ("port", "1.5", "1.5", "must be a whole number from 0 to 65535"),
    ("port", "9" * 30, "9" * 30, "must be a number from 0 to 65535"),
    ("port", None, "true", "must be a number from 0 to 65535"),
    ("port", None, "[22133]", "must be a number from 0 to 65535"),
    ("port", None, "{ number = 1 }", "must be a number from 0 to 65535"),
    ("port", None, "2026-01-01", "must be a number from 0 to 65535"),
    ("max_open_files", "1 KiB", '"1 KiB"', "must be a number from 16 to 1000000"),
    ("max_item_bytes", "5x", '"5x"', "must be a size from 1 to 1024 GiB, in bytes, KiB, MiB or GiB"),
    ("max_item_bytes", "5 KB", '"5 KB"', "must be a size from 1 to 1024 GiB, in bytes, KiB, MiB or GiB"),
    ("max_item_bytes", "KiB", '"KiB"', "must be a size from 1 to 1024 GiB, in bytes, KiB, MiB or GiB"),
    ("max_item_bytes", "1.5 GiB", '"1.5 GiB"', "must be a size from 1 to 1024 GiB, in bytes, KiB, MiB or GiB"),
    ("max_item_bytes", "", '""', "must be a size from 1 to 1024 GiB, in bytes, KiB, MiB or GiB"),
    ("max_item_bytes", None, "1.5", "must be a size from 1 to 1024 GiB, in bytes, KiB, MiB or GiB"),
    ("max_item_bytes", None, "false", "must be a size from 1 to 1024 GiB, in bytes, KiB, MiB or GiB"),
    ("max_item_bytes", "9" * 30, "9" * 30, "must be a size from 1 to 1024 GiB, in bytes, KiB, MiB or GiB"),
    ("max_item_bytes", "1\nKiB\n2", '"1\\nKiB\\n2"', "must be a size from 1 to 1024 GiB, in bytes, KiB, MiB or GiB"),
    ("sync", "sometimes", '"sometimes"', BAD_SYNC),
    ("sync", "Always", '"Always"', BAD_SYNC),
    ("sync", "0", "0", BAD_SYNC),
    ("sync", "3600001", "3600001", BAD_SYNC),
    ("sync", None, "true", BAD_SYNC),
    ("sync", None, "0.5", BAD_SYNC),
    ("reply_key", "both", '"both"', 'must be "queue" or "request"'),
    ("reply_key", None, "0", 'must be "queue" or "request"'),
    ("reply_key", None, "[]", 'must be "queue" or "request"'),
    ("dialect", "memcached", '"memcached"', BAD_DIALECT),
    ("dialect", "text", '"text"', BAD_DIALECT),  # of a listener only
    ("dialect", None, "[]", BAD_DIALECT),
    ("default_status", "down", '"down"', BAD_STATUS),
    ("default_status", None, "1", BAD_STATUS),
    ("backup_dir", None, "true", 'must be a text; "" is none'),
    ("status_file", None, "true", 'must be a text; "" is none'),
]


@pytest.mark.parametrize(("option", "typed", "written", "allowed"), BAD_VALUES)
def test_a_bad_value_is_one_line_that_names_place_option_value_and_what_is_allowed(
    option: str, typed: str | None, written: str | None, allowed: str, file: File
) -> None:
    if typed is not None:
        message = complaint_about([f"--{option.replace('_', '-')}={typed}"])
        assert message == f"command line: --{option.replace('_', '-')} = {typed!r}: {allowed}"
    if written is not None:
        message = complaint_about(file("# a comment", f"{option} = {written}"))
        value = tomllib.loads(f"value = {written}")["value"]
        assert message == f"{file.path}: line 2: {option} = {value!r}: {allowed}"


def test_every_option_has_a_value_that_is_not_allowed() -> None:
    assert {option for option, *_ in BAD_VALUES} | set(NUMBERS) | set(SIZES) == {option.name for option in OPTIONS}


def test_an_unknown_option_in_the_file_is_named_with_the_nearest_that_exists(file: File) -> None:
    message = complaint_about(file("port = 1", "prot = 2"))
    assert message == f'{file.path}: line 2: unknown option prot: did you mean "port"?'
    assert complaint_about(file("[listner]", "port = 1")).endswith(': did you mean "listener"?')
    assert complaint_about(file("[[listener]]", "prot = 1")).endswith(': did you mean "port"?')
    message = complaint_about(file("max_items = 5"))
    assert message.endswith("max_items: it is an option of queues, which stands in [default] or [queues.NAME]")
    message = complaint_about(file("zzz = 2"))
    assert ": unknown option zzz: --help lists the options, and the tables are [users.NAME], [default], " in message
    # The file's names are those of the file, not of the command line.
    assert re.search("unknown option '?max-item-bytes'?: ", complaint_about(file("max-item-bytes = 1")))
    assert re.search("unknown option '?limits'?: ", complaint_about(file("[limits]", "max_item_bytes = 1")))
    assert re.search("unknown option '?config'?: ", complaint_about(file('config = "other.toml"')))


def test_an_unknown_option_is_told_of_in_one_line_whatever_it_is_called(file: File) -> None:
    complaint_about(file('"a\\nb" = 1'))
    complaint_about(["--a\nb"])


def test_a_word_that_is_none_of_those_allowed_is_told_the_nearest() -> None:
    message = complaint_about(["--dialect", "kestral"])
    assert message.startswith("command line: --dialect = 'kestral': must be \"darner\" or ")
    assert message.endswith('; did you mean "kestrel"?')
    assert "did you mean" not in complaint_about(["--dialect", "redis"])


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path, file: File) -> None:
    missing = tmp_path / "missing.toml"
    assert complaint_about(["-c", str(missing)]) == f"{missing}: No such file or directory"
    assert complaint_about(["-c", str(tmp_path)]) == f"{tmp_path}: Is a directory"


def test_a_file_that_is_not_toml_is_named_with_the_line(file: File) -> None:
    message = complaint_about(file("port = 1", "port is 2"))
    assert message.startswith(f"{file.path}: ")
    assert "line 2" in message
    assert str(file.path) in complaint_about(file("port = 1", "port = 2"))
    file.path.write_bytes(b"# one line\nhost = '\xff'\n")
    assert complaint_about(["-c", str(file.path)]) == f"{file.path}: line 2: must be UTF-8"


# -- conf/darner.toml


def test_the_example_file_holds_every_option_with_its_default() -> None:
    with open(EXAMPLE, "rb") as opened:
        written = tomllib.load(opened)
    assert set(written) == {option.name for option in OPTIONS}
    assert parse(["-c", str(EXAMPLE)]) == Config()


def test_the_example_tables_can_be_used_as_they_stand(file: File) -> None:
    _, tables = EXAMPLE.read_text().split("# ---- Tables")
    lines = [line.removeprefix("#   ") for line in tables.splitlines() if line.startswith("#   ")]
    options = parse(file(*lines))
    # What [default] shows is what is built in.
    assert options.rules.of(b"any") == QueueOptions()
    assert list(tomllib.loads("\n".join(lines))["default"]) == list(vars(QueueOptions()))
    assert options.rules.named == (b"mail", b"mail+archive")
    assert options.rules.of(b"mail.in").expire_to_queue == b"mail.late"
    assert options.aliases == {b"everyone": (b"mail", b"news")}
    assert options.endpoints[1][:3] == ("127.0.0.1", 22134, "kestrel")


def test_the_examples_in_the_docs_can_be_used_as_they_stand(file: File) -> None:
    docs = EXAMPLE.parent.parent / "docs"
    examples = [
        found for doc in sorted(docs.glob("*.md")) for found in re.findall(r"```toml\n(.*?)```", doc.read_text(), re.S)
    ]
    assert len(examples) >= 3
    for example in examples:
        parse(file(example))


def test_the_docs_tell_of_every_option_of_a_queue_and_its_built_in_value() -> None:
    text = (EXAMPLE.parent.parent / "docs" / "operations.md").read_text().split("\n## Queues\n")[1]
    for option, value in vars(QueueOptions()).items():
        shown = "" if value == b"" else value
        row = re.search(rf"^\| `{option}` \| ([^:|]*)(:.*?)? \|", text, re.M)
        assert row, option
        assert row[1] == (str(shown).lower() or '""')


def test_the_example_file_writes_sizes_as_people_do() -> None:
    with open(EXAMPLE, "rb") as opened:
        written: dict[str, Any] = tomllib.load(opened)
    for option in SIZES:
        assert written[option] == show_size(getattr(Config(), option))


def test_the_example_file_says_of_every_option_what_it_does() -> None:
    above = ""
    for line in EXAMPLE.read_text().splitlines():
        assert len(line) <= 120
        if re.match(r"\w+ = ", line):
            assert re.match(r"# \w", above) or above.startswith("#   "), f"no comment above {line}"
        above = line
