"""The addresses to listen on, from the options `host` and `port` and from the tables [[listener]].

    [[listener]]
    port = 22134
    dialect = "kestrel"          default: the server's dialect
    address = "unix:/run/d"      default: the addresses in `host` that are no Unix sockets
    reply_key = "request"        default: the server's reply_key; only for memcache's dialects

No sockets are touched here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from darner_core.config.values import UNIX, BadOption, Keys, bad_value, hosts, one_of, whole_number
from darner_core.nearest import did_you_mean
from darner_core.showing import show

LISTENER_TABLE = "listener"

DARNER, KESTREL, SIBERITE, KYOTO_TYCOON = "darner", "kestrel", "siberite", "kyototycoon"
DIALECT_NAMES = (DARNER, KESTREL, SIBERITE, KYOTO_TYCOON)
# Kestrel's other two protocols. Each needs a listener of its own.
TEXT, THRIFT = "text", "thrift"
# beanstalkd's protocol, and that of Redis and Disque.
BEANSTALKD, RESP = "beanstalkd", "resp"
# The page, the API and the metrics.
HTTP = "http"
# Dialects that cannot be the server's, each needs a listener of its own; their replies have no key.
OTHER_PROTOCOLS = (TEXT, THRIFT, BEANSTALKD, RESP, HTTP)
# Those of them in which a client cannot log in.
WITHOUT_LOGIN = (TEXT, THRIFT, BEANSTALKD)

# The key in the reply to a get: the queue's name, or the key that the client asked for.
KEY_OF_QUEUE, KEY_OF_REQUEST = "queue", "request"
REPLY_KEYS = (KEY_OF_QUEUE, KEY_OF_REQUEST)

_CHECKS = {
    "address": hosts,
    "port": whole_number(0, 65535),
    "dialect": one_of(*DIALECT_NAMES, *OTHER_PROTOCOLS),
    "reply_key": one_of(*REPLY_KEYS),
}


class Endpoint(NamedTuple):
    """One address to listen on. `port` means nothing for a Unix socket."""

    host: str
    port: int
    dialect: str = DARNER
    reply_key: str = KEY_OF_QUEUE


@dataclass(frozen=True)
class ListenerOptions:
    """One table [[listener]] of the file."""

    address: tuple[str, ...] = ()  # (): the addresses in `host`
    port: int | None = None
    dialect: str = ""  # "": the server's dialect
    reply_key: str = ""  # "": the server's reply_key


def read_listeners(tables: Mapping[str, Any]) -> tuple[ListenerOptions, ...]:
    """The listeners in these tables. Raises BadOption."""
    written = tables.get(LISTENER_TABLE, [])
    if not isinstance(written, list) or not all(isinstance(table, dict) for table in written):
        raise BadOption((), f"{LISTENER_TABLE} = {written!r}: must be tables [[{LISTENER_TABLE}]]", LISTENER_TABLE)
    listeners = []
    for number, table in enumerate(written):
        keys: Keys = (LISTENER_TABLE, number)
        values: dict[str, Any] = {}
        for option, value in table.items():
            if option not in _CHECKS:
                near = did_you_mean(option, _CHECKS, f"one of {', '.join(_CHECKS)}")
                raise BadOption(keys, f"unknown option {show(option)}: {near}", option)
            try:
                values[option] = _CHECKS[option](value)
            except ValueError as error:
                raise bad_value(keys, option, value, error) from None
        listeners.append(ListenerOptions(**values))
    return tuple(listeners)


def http_listener(word: str) -> ListenerOptions:
    """The listener that `[ADDRESS:]PORT` or `unix:/path` stands for. Raises ValueError saying what is allowed."""
    if word.startswith(UNIX):
        return ListenerOptions(hosts(word), None, HTTP)
    address, _, port = word.rpartition(":")
    address = address.removeprefix("[").removesuffix("]") if address.startswith("[") else address
    try:
        if ":" in address and not word.startswith("["):
            raise ValueError
        return ListenerOptions(hosts(address) if address else (), whole_number(0, 65535)(port), HTTP)
    except ValueError:
        raise ValueError(
            "a port from 0 to 65535, perhaps with an address before it (127.0.0.1:22180, [::1]:22180), or unix:/path"
        ) from None


def endpoints(
    host: Sequence[str],
    port: int,
    dialect: str,
    listeners: Sequence[ListenerOptions],
    reply_key: str = KEY_OF_QUEUE,
) -> tuple[Endpoint, ...]:
    """Every address, those of `host` first. Raises BadOption for a listener without an address, or with an address that
    is taken."""
    found = [Endpoint(one, 0 if one.startswith(UNIX) else port, dialect, reply_key) for one in host]
    for number, listener in enumerate(listeners):
        keys = (LISTENER_TABLE, number)
        addresses = listener.address or tuple(one for one in host if not one.startswith(UNIX))
        if not addresses:
            raise BadOption(keys, "must have an address: host has only Unix sockets")
        if listener.port is None and any(not one.startswith(UNIX) for one in addresses):
            raise BadOption(keys, "must have a port")
        if listener.reply_key and listener.dialect in OTHER_PROTOCOLS:
            said = f'must not be set for dialect = "{listener.dialect}", whose replies have no key'
            raise BadOption(keys, f'reply_key = "{listener.reply_key}": {said}', "reply_key")
        if listener.port is not None and all(one.startswith(UNIX) for one in addresses):
            raise BadOption(keys, f"port = {listener.port}: must not be set for a Unix socket", "port")
        for one in addresses:
            is_unix = one.startswith(UNIX)
            endpoint = Endpoint(
                one,
                0 if is_unix else listener.port or 0,
                listener.dialect or dialect,
                listener.reply_key or reply_key,
            )
            # Several listeners may have port 0, because each takes another free port.
            if (is_unix or endpoint.port) and endpoint[:2] in (other[:2] for other in found):
                shown = one if is_unix else f"{one} port {endpoint.port}"
                raise BadOption(keys, f"{shown}: must not be the address of another listener, or of host and port")
            found.append(endpoint)
    return tuple(found)
