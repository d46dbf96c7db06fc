"""Who may come in and what they may do, as one reading of the files says; another takes its place with `reload`.

Whether names are asked for at all, and whether TCP is TLS, stays as it was at the start: connections rely on it.

Names that begin with wait_ switch greenlets; nothing else here does.
"""

import ssl
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

import gevent

from darner_core.config import Config
from darner_core.errors import ClientError, ConfigError
from darner_core.listeners import Listener
from darner_core.rights import EVERYTHING, NOTHING, Rights
from darner_core.tls import make_context
from darner_core.users import Users, check_name, read_users
from darner_core.waiters import Waiter, WaitingLine

# So many passwords are checked at a time: each takes a processor and 32 MiB for a tenth of a second.
CHECKED_AT_ONCE = 2

# The longest that a client waits until its password is checked.
LONGEST_WAIT_MS = 60_000


class WaitingClient(Protocol):
    """The connection of who logs in."""

    def wait_for(self, waiter: Waiter, wait_ms: int) -> object:
        """Wait in line, watching for a hang-up. What was handed over, or None."""


class Access:
    """The users, their rights, and the TLS settings."""

    def __init__(self, config: Config) -> None:
        """Raises ConfigError."""
        self.users: Users | None
        self.tls: ssl.SSLContext | None
        self._rights: Mapping[str, Rights] | None
        self._load(config)
        self._shape = _shape(config)
        self.names_by_certificate = bool(config.tls_ca)
        self._line = WaitingLine()
        self._checked_now = 0

    def _load(self, config: Config) -> None:
        for option in ("tls_key", "tls_ca"):
            if getattr(config, option) and not config.tls_cert:
                raise config.complaint(option, f"{option} needs tls_cert")
        if config.users is not None and not (config.auth_file or config.tls_ca):
            raise config.complaint("users", "[users] needs auth_file or tls_ca: else nobody has a name")
        tls = make_context(config.tls_cert, config.tls_key, config.tls_ca) if config.tls_cert else None
        users = read_users(config.auth_file) if config.auth_file else None
        # All has been read: from here on nothing fails.
        self.tls, self.users, self._rights = tls, users, config.users

    def reload(self, config: Config) -> None:
        """Take what the files say now. Raises ConfigError; then all stays as it was."""
        if _shape(config) != self._shape:
            raise ConfigError("whether there is auth_file, tls_cert and tls_ca can only be changed by a restart")
        self._load(config)

    def is_user(self, name: str) -> bool:
        """Whether there is, or still is, a user of that name. Without auth_file the authorities decide."""
        return bool(name) and (self.users is None or name in self.users)

    def user_of_certificate(self, name: str) -> str:
        """Who comes in with a certificate of that name; "" if nobody does."""
        try:
            return check_name(name) if self.names_by_certificate and self.is_user(name) else ""
        except ValueError:
            return ""

    def rights_of(self, name: str) -> Rights:
        if self._rights is None:
            return EVERYTHING
        return self._rights.get(name, NOTHING)

    def wait_check(self, client: WaitingClient, name: str, password: bytes) -> bool:
        """Whether this is that user's password. Checked in a thread, a few at a time, first come first served."""
        if self._checked_now >= CHECKED_AT_ONCE:
            waiter = self._line.join()
            try:
                turn_came = client.wait_for(waiter, LONGEST_WAIT_MS)
            except BaseException:
                if waiter.got:
                    self._next()
                raise
            if not turn_came:
                raise ClientError("too many log in at once")
        else:
            self._checked_now += 1
        try:
            users = self.users
            return users is not None and gevent.get_hub().threadpool.apply(users.check, (name, password)) is True
        finally:
            self._next()

    def _next(self) -> None:
        """One check is over: its place goes to who has waited longest."""
        if self._line:
            self._line.next().hand(True)
        else:
            self._checked_now -= 1


def _shape(config: Config) -> tuple[bool, ...]:
    return bool(config.auth_file), bool(config.tls_cert), bool(config.tls_ca)


def warnings(config: Config, listeners: Iterable[Listener]) -> Iterator[str]:
    """What an operator should know of addresses that others than this machine reach."""
    for listener in listeners:
        if listener.is_local:
            continue
        if not (config.auth_file or config.tls_ca):
            yield f"{listener}: nobody is asked for a name; whoever reaches this address can take and delete everything"
        elif not config.tls_cert:
            yield f"{listener}: passwords and items cross the network in clear, because there is no tls_cert"
