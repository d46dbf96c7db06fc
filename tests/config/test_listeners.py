"""Which addresses the options name."""

import tomllib

import pytest

from darner_core.config.listeners import DIALECT_NAMES, ListenerOptions, endpoints, read_listeners
from darner_core.config.values import BadOption, Keys
from darner_core.protocols.memcache import dialects


def of(text: str, host: tuple[str, ...] = ("127.0.0.1",), port: int = 1) -> list[tuple[str, int, str]]:
    return [(one[0], one[1], one[2]) for one in endpoints(host, port, "siberite", read_listeners(tomllib.loads(text)))]


def test_the_dialects_are_those_that_there_are() -> None:
    assert tuple(dialects.DIALECTS) == DIALECT_NAMES


def test_without_tables_there_is_what_host_and_port_say() -> None:
    assert of("") == [("127.0.0.1", 1, "siberite")]
    assert of("", ("::1", "unix:/run/d")) == [("::1", 1, "siberite"), ("unix:/run/d", 0, "siberite")]
    assert of("listener = []") == of("")


def test_a_listener_has_what_it_does_not_say_from_the_server() -> None:
    assert of("[[listener]]\nport = 2")[1:] == [("127.0.0.1", 2, "siberite")]
    both = of('[[listener]]\nport = 2\ndialect = "text"', ("127.0.0.1", "unix:/run/d", "::1"))
    assert both[3:] == [("127.0.0.1", 2, "text"), ("::1", 2, "text")]


def test_a_listener_has_addresses_of_its_own() -> None:
    assert of('[[listener]]\naddress = "unix:/a"\n[[listener]]\naddress = ["::1", "unix:/b"]\nport = 1')[1:] == [
        ("unix:/a", 0, "siberite"),
        ("::1", 1, "siberite"),
        ("unix:/b", 0, "siberite"),
    ]


def test_a_listener_has_a_reply_key_of_its_own_or_that_of_the_server() -> None:
    listeners = read_listeners(tomllib.loads('[[listener]]\nport = 2\nreply_key = "queue"\n[[listener]]\nport = 3'))
    found = endpoints(["::1"], 1, "darner", listeners, "request")
    assert [one.reply_key for one in found] == ["request", "queue", "request"]


def test_port_0_is_another_one_each_time() -> None:
    assert len(of("[[listener]]\nport = 0\n[[listener]]\nport = 0", port=0)) == 3


@pytest.mark.parametrize("dialect", ["darner", "kestrel", "siberite", "kyototycoon", "text", "thrift"])
def test_a_listener_may_have_any_dialect(dialect: str) -> None:
    assert read_listeners({"listener": [{"dialect": dialect}]}) == (ListenerOptions(dialect=dialect),)


TWICE = "must not be the address of another listener, or of host and port"


@pytest.mark.parametrize(
    ("text", "keys", "said"),
    [
        ("listener = 5", ("listener",), "listener = 5: must be tables [[listener]]"),
        ("listener = [5]", ("listener",), "listener = [5]: must be tables [[listener]]"),
        (
            "[[listener]]\nhost = 1",
            ("listener", 0, "host"),
            "[[listener]]: unknown option host: one of address, port, dialect, reply_key",
        ),
        ("[[listener]]\nport = 65536", ("listener", 0, "port"), "port = 65536: must be a number from 0 to 65535"),
        ("[[listener]]\naddress = []", ("listener", 0, "address"), "address = []: must be an address, or a list of"),
        (
            '[[listener]]\ndialect = "memcached"',
            ("listener", 0, "dialect"),
            'must be "darner" or "kestrel" or "siberite" or "kyototycoon" or "text" or "thrift"',
        ),
        (
            '[[listener]]\nreply_key = "both"',
            ("listener", 0, "reply_key"),
            'must be "queue" or "request"',
        ),
        (
            '[[listener]]\nport = 2\ndialect = "text"\nreply_key = "request"',
            ("listener", 0, "reply_key"),
            'must not be set for dialect = "text", whose replies have no key',
        ),
        ("[[listener]]\nport = 2\n[[listener]]", ("listener", 1), "[[listener]]: must have a port"),
        (
            '[[listener]]\naddress = "unix:/a"\nport = 2',
            ("listener", 0, "port"),
            "port = 2: must not be set for a Unix socket",
        ),
        ("[[listener]]\nport = 1", ("listener", 0), f"127.0.0.1 port 1: {TWICE}"),
        (
            '[[listener]]\nport = 2\n[[listener]]\nport = 2\naddress = ["::1", "127.0.0.1"]',
            ("listener", 1),
            f"127.0.0.1 port 2: {TWICE}",
        ),
        (
            '[[listener]]\naddress = "unix:/a"\n[[listener]]\naddress = "unix:/a"',
            ("listener", 1),
            f"unix:/a: {TWICE}",
        ),
    ],
)
def test_what_cannot_be_is_named(text: str, keys: Keys, said: str) -> None:
    with pytest.raises(BadOption) as refused:
        of(text)
    assert said in str(refused.value)
    assert refused.value.keys == keys


def test_an_address_is_needed_where_host_has_only_unix_sockets() -> None:
    with pytest.raises(BadOption, match="must have an address: host has only Unix sockets"):
        of("[[listener]]\nport = 2", ("unix:/a",))
    assert of('[[listener]]\nport = 2\naddress = "::1"', ("unix:/a",))[1:] == [("::1", 2, "siberite")]
