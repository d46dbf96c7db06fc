"""The values of options: what each kind of value may be, and how errors about them are worded.

A check takes a value from the file or the command line and returns it as the server wants it, or raises ValueError
saying what is allowed. This module does not know which options there are.
"""

import ipaddress
import re
from collections.abc import Callable
from typing import Any

from darner_core.access.origins import LOOPBACK, UNIX_SOCKETS
from darner_core.nearest import did_you_mean
from darner_core.showing import show

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_UNITS = {"": 1, "KIB": KIB, "MIB": MIB, "GIB": GIB}

SYNC_NEVER, SYNC_ALWAYS = "never", "always"

UNIX = "unix:"  # an address that begins so is the path of a Unix socket

MAX_NAME_BYTES = 250  # memcached's limit for keys; client libraries refuse longer ones themselves
QUEUE_NAME = re.compile(rb"[^\x00-\x20\x7f/]{1,%d}" % MAX_NAME_BYTES)

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

Keys = tuple[str | int, ...]  # the keys that lead from the top of a file to a value; a number is an index of a list


class BadOption(ValueError):
    """Something in the file is wrong. `keys` lead to it; str() names table and option, and says what is allowed."""

    def __init__(self, table: Keys, said: str, *option: str | int) -> None:
        super().__init__(f"{show_table(table)}: {said}" if table else said)
        self.keys = (*table, *option)


def bad_value(table: Keys, option: str, value: Any, allowed: object) -> BadOption:
    return BadOption(table, f"{show(option)} = {value!r}: must be {allowed}", option)


# -- how things are shown


def show_table(keys: Keys) -> str:
    """The header of a table: [queues."mail.*"], [[listener]]."""
    words = [key if _BARE_KEY.fullmatch(key) else f'"{show(key)}"' for key in keys if isinstance(key, str)]
    header = f"[{'.'.join(words)}]"
    return f"[{header}]" if isinstance(keys[-1], int) else header


def show_size(size: int) -> str:
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _UNITS[unit.upper()] == 0:
            return f"{size // _UNITS[unit.upper()]} {unit}"
    return str(size)


# -- checks


def whole_number(lowest: int, highest: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            whole = "whole " if "." in str(value) else ""
            raise ValueError(f"a {whole}number from {lowest} to {highest}")
        return value

    return check


def size(lowest: int, highest: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, str) and (match := re.fullmatch(r"(\d{1,18})\s*([KMG]iB|)", value.strip(), re.IGNORECASE)):
            value = int(match[1]) * _UNITS[match[2].upper()]
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise ValueError(f"a size from {show_size(lowest)} to {show_size(highest)}, in bytes, KiB, MiB or GiB")
        return value

    return check


def text(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("a text that is not empty")
    return value


def optional_text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError('a text; "" is none')
    return value


def hosts(value: Any) -> tuple[str, ...]:
    listed = value if isinstance(value, list) else [value]
    if not listed or any(not isinstance(host, str) or host in ("", UNIX) or "\0" in host for host in listed):
        raise ValueError("an address, or a list of them, none of them empty; unix:/path is a Unix socket")
    if len(set(listed)) < len(listed):
        raise ValueError("addresses that differ")
    return tuple(listed)


def places(value: Any) -> tuple[str, ...]:
    """The places in admin_from."""
    listed = value if isinstance(value, list) else [value]
    try:
        for place in listed:
            if place not in (LOOPBACK, UNIX_SOCKETS):
                ipaddress.ip_network(place if isinstance(place, str) else "")
    except ValueError:
        raise ValueError(
            f'"{LOOPBACK}", "{UNIX_SOCKETS}", an IP address, a network such as "10.1.0.0/16", or a list of these; [] is'
            " what is built in"
        ) from None
    return tuple(listed)


def mode(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"0?[0-7]{3}", value):
        raise ValueError('file permissions as an octal text, such as "0600"')
    return value


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def one_of(*choices: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in choices:
            near = did_you_mean(value, choices) if isinstance(value, str) else ""
            raise ValueError(" or ".join(f'"{choice}"' for choice in choices) + (near and f"; {near}"))
        return str(value)

    return check


def sync(value: Any) -> str | int:
    if value in (SYNC_NEVER, SYNC_ALWAYS):
        return str(value)
    try:
        return whole_number(1, 3_600_000)(value)
    except ValueError:
        raise ValueError('"never", "always", or milliseconds between fsyncs from 1 to 3600000') from None


def queue_sync(value: Any) -> str | int:
    """The `sync` of a queue: a value like the server's, or "" for the server's own."""
    try:
        return "" if value == "" else sync(value)
    except ValueError as error:
        raise ValueError(f'{error}; "" is what the server\'s sync says') from None


def queue_name(value: Any) -> bytes:
    name = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else b""
    if not QUEUE_NAME.fullmatch(name):
        raise ValueError(f"the name of a queue: 1 to {MAX_NAME_BYTES} bytes other than control characters, space and /")
    return name


def optional_queue_name(value: Any) -> bytes:
    try:
        return b"" if value == "" else queue_name(value)
    except ValueError as error:
        raise ValueError(f'{error}; "" is none') from None
