"""Where a client comes from and what it is called: for the log, and for commands that are taken from some places only.

Log lines name a client as user@address, or by its address alone while it has no name. No sockets here.
"""

import ipaddress
from collections.abc import Sequence
from typing import Protocol

from darner_core.errors import ClientError
from darner_core.showing import show

LOOPBACK, UNIX_SOCKETS = "loopback", "unix"  # in admin_from, beside addresses and networks

SHUTDOWN = b"shutdown"


class AdminFrom:
    """The option admin_from: from where commands that need the right `admin` are taken."""

    def __init__(self, places: Sequence[str] = ()) -> None:
        """`places` are those of the option, already checked. Without any, everything is taken from everywhere, but
        `shutdown` from this machine alone."""
        self._places = places
        self._networks = [ipaddress.ip_network(place) for place in places if place not in (LOOPBACK, UNIX_SOCKETS)]

    def require(self, verb: bytes, host: str) -> None:
        """Raises ClientError if this command is not taken from `host`, an IP address; "": a Unix socket."""
        if self._places:
            if not self._has(host):
                places = ", ".join(f'"{place}"' for place in self._places)
                raise _refusal(verb, host, f"admin_from = [{places}] does not name it")
        elif verb == SHUTDOWN and host and not _address(host).is_loopback:
            raise _refusal(verb, host, "without admin_from only loopback and Unix sockets may do that")

    def _has(self, host: str) -> bool:
        if not host:
            return UNIX_SOCKETS in self._places
        address = _address(host)
        return (LOOPBACK in self._places and address.is_loopback) or any(address in one for one in self._networks)


def _refusal(verb: bytes, host: str, why: str) -> ClientError:
    return ClientError(f"{verb.decode()} is not taken from {host or 'a Unix socket'}: {why}")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(host.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


class Place(Protocol):
    """The listener that a client has connected to."""

    def name_client(self, address: object) -> str:
        """The text for an address that accept() has returned."""


class Settings(Protocol):
    admin_from: AdminFrom


class Origin:
    """The origin of one client. `user` is "" until the client has logged in. Texts are made when they are needed."""

    __slots__ = ("user", "place", "since_ms", "_accepted", "_settings")

    def __init__(self, accepted: object, place: Place, settings: Settings, since_ms: int = 0) -> None:
        """`accepted` is the address that accept() has returned, `since_ms` when that was, in ms since 1970."""
        self.user = ""
        self._accepted = accepted
        self.place = place
        self.since_ms = since_ms
        self._settings = settings

    def __str__(self) -> str:
        return f"{self.user}@{self.address}" if self.user else self.address

    @property
    def address(self) -> str:
        return show(self.place.name_client(self._accepted))

    @property
    def host(self) -> str:
        """The client's IP address; "": it has come by a Unix socket."""
        return str(self._accepted[0]) if isinstance(self._accepted, tuple) else ""

    @property
    def neighbourhood(self) -> str:
        """What usually belongs to one client: an IPv4 address, or 64 bits of an IPv6 address; "" for Unix sockets."""
        if not self.host:
            return ""
        address = _address(self.host)
        return str(address) if address.version == 4 else address.exploded[:19]

    def require_admin(self, verb: bytes) -> None:
        """Raises ClientError if this command of operators is not taken from here."""
        self._settings.admin_from.require(verb, self.host)


class _Inside:
    """The place and settings of what the server does by itself, without a client."""

    admin_from = AdminFrom()

    def name_client(self, address: object) -> str:
        return "inside"


INSIDE = Origin(None, _Inside(), _Inside())
