"""Who may come in and what they may do, as the files said when they were last read. `reload` reads them again.

Whether clients are asked for a name at all, and whether TCP is TLS, stays as it was at the start: connections rely on
it.

Checking a password is expensive on purpose, so a crowd that guesses would keep users out. Checks therefore wait in
lanes, one for each pair of name and address, and names and addresses get their turns one after the other. Clients that
come with the same name and password share one check. A password that was right is remembered, as a digest in memory,
until the files are read again.

Calls whose names begin with wait_ may switch greenlets; nothing else here does. It knows no sockets: TLS settings are
made by a function that is handed in.
"""

import hashlib
import hmac
import logging
import os
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

import gevent

from darner_core import NAME
from darner_core.access.origins import AdminFrom, Origin
from darner_core.access.rights import EVERYTHING, NOTHING, Rights
from darner_core.access.users import Users, check_name, read_users
from darner_core.errors import ClientError, ConfigError, ServerError
from darner_core.waiters import Waiter, WaitingLine

log = logging.getLogger(NAME)

# Passwords that are checked at a time. Each takes a processor and 128 MiB for 0.4 s.
CHECKED_AT_ONCE = 1

# Checks that may wait in one lane. With a processor to themselves they take 27 s.
MOST_IN_LANE = 64

# A client that finds its lane full is refused after this time. If it were refused at once, a crowd that tries again and
# again would take the processor from the checks: with 300 such clients each check took three times as long.
REFUSED_AFTER_MS = 3000

# How long a client waits for its password to be checked.
LONGEST_WAIT_MS = 60_000

_T = TypeVar("_T")


class AccessOptions(NamedTuple):
    """The options and tables that say who may come in, named as in the configuration."""

    auth_file: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_ca: str = ""
    users: Mapping[str, Rights] | None = None
    admin_from: Sequence[str] = ()

    @property
    def asks_for_names(self) -> bool:
        return bool(self.auth_file or self.tls_ca)

    @property
    def shape(self) -> tuple[bool, ...]:
        """What must stay as it is while the server runs."""
        return bool(self.auth_file), bool(self.tls_cert), bool(self.tls_ca)


class Listener(Protocol):
    """An address that is listened on. As text it is what the log calls it."""

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""


class WaitingClient(Protocol):
    """The connection of a client that logs in."""

    def wait_for(self, waiter: Waiter, wait_ms: int) -> object:
        """Wait up to `wait_ms` with this waiter, watching for a hang-up; what it was handed, or None."""


class Check:
    """A name, a password, and the clients that wait to hear whether they belong together. The clients in `line` are
    handed the answer, or why it could not be found out."""

    __slots__ = ("name", "password", "lane", "line")

    def __init__(self, name: str, password: bytes, lane: tuple[str, str]) -> None:
        """`lane` is the pair of name and address whose share of the checks this one uses up."""
        self.name = name
        self.password = password
        self.lane = lane
        self.line = WaitingLine()


_Rounds = dict[str, dict[str, deque[Check]]]


class Lanes:
    """The checks that wait. `next` takes the next name's and the next address's turn alternately: a client that guesses
    at many names leaves other addresses their turns, and a crowd that guesses at one name from many addresses leaves
    other names theirs."""

    def __init__(self) -> None:
        # The same lanes twice, none of them empty. In all dicts the next in turn stands first.
        self._addresses: _Rounds = {}  # by name
        self._names: _Rounds = {}  # by address
        self._names_turn = False

    def add(self, check: Check) -> None:
        """Raises ClientError if too many wait in its lane."""
        name, address = check.lane
        lane = self._addresses.get(name, {}).get(address)
        if lane is None:
            lane = self._addresses.setdefault(name, {})[address] = deque()
            self._names.setdefault(address, {})[name] = lane
        elif len(lane) >= MOST_IN_LANE:
            raise ClientError(
                f"too many log in at once: {MOST_IN_LANE} passwords from your address wait to be checked; try again"
            )
        lane.append(check)

    def next(self) -> Check | None:
        """Take out the check whose turn it is; None: there is none."""
        if not self._names:
            return None
        self._names_turn = not self._names_turn
        lane = _next(_next(self._addresses if self._names_turn else self._names))
        check = lane[0]
        self.discard(check)
        return check

    def discard(self, check: Check) -> bool:
        """Take out a check that nobody waits for any more; False: it has been taken out before."""
        name, address = check.lane
        lane = self._addresses.get(name, {}).get(address)
        if lane is None or check not in lane:
            return False
        lane.remove(check)
        if not lane:
            for rounds, key, other in ((self._addresses, name, address), (self._names, address, name)):
                del rounds[key][other]
                if not rounds[key]:
                    del rounds[key]
        return True


def _next(turns: dict[str, _T]) -> _T:
    """The one whose turn it is, which goes to the end of the line."""
    key, found = next(iter(turns.items()))
    del turns[key]
    turns[key] = found
    return found


class Access:
    """The users, their rights, and the TLS settings."""

    def __init__(self, options: AccessOptions, make_context: Callable[[str, str, str], ssl.SSLContext]) -> None:
        """`make_context` makes the TLS settings of the files tls_cert, tls_key and tls_ca. Raises ConfigError."""
        self.users: Users | None
        self.tls: ssl.SSLContext | None
        self.admin_from: AdminFrom
        self._rights: Mapping[str, Rights] | None
        self._key = os.urandom(hashlib.blake2b.MAX_KEY_SIZE)
        self._lanes = Lanes()
        self._checked_now = 0
        self._make_context = make_context
        self._load(options)
        self._shape = options.shape
        self.names_by_certificate = bool(options.tls_ca)

    def _load(self, options: AccessOptions) -> None:
        tls = None
        if options.tls_cert:
            tls = self._make_context(options.tls_cert, options.tls_key, options.tls_ca)
        users = read_users(options.auth_file) if options.auth_file else None
        # All has been read: from here on nothing fails.
        self.tls, self.users, self._rights = tls, users, options.users
        self.admin_from = AdminFrom(options.admin_from)
        self._right: dict[str, bytes] = {}  # by name: digest of the password that was right
        self._under_way: dict[bytes, Check] = {}  # by digest: checks that wait or are being made
        if users is not None and users.cheap:
            log.warning(
                "auth_file %s: %d passwords have hashes that cost a guesser less than --hash-password's do now: make"
                " them again",
                options.auth_file,
                users.cheap,
            )

    def reload(self, options: AccessOptions) -> None:
        """Take what the files say now. Raises ConfigError; then all stays as it was."""
        if options.shape != self._shape:
            raise ConfigError("whether there is auth_file, tls_cert and tls_ca can only be changed by a restart")
        self._load(options)

    def is_user(self, name: str) -> bool:
        """Whether there is a user of that name. Without auth_file any name in a certificate is a user's."""
        return bool(name) and (self.users is None or name in self.users)

    def user_of_certificate(self, name: str) -> str:
        """The user that a certificate with this name stands for; "": none."""
        try:
            return check_name(name) if self.names_by_certificate and self.is_user(name) else ""
        except ValueError:
            return ""

    def rights_of(self, name: str) -> Rights:
        if self._rights is None:
            return EVERYTHING
        return self._rights.get(name, NOTHING)

    def wait_check(self, client: WaitingClient, origin: Origin, name: str, password: bytes) -> bool:
        """Whether this is that user's password. Raises RequestError if that cannot be found out now."""
        digest = self._digest(name, password)
        if hmac.compare_digest(self._right.get(name, b""), digest):
            return True
        check = self._under_way.get(digest)
        if check is None:
            try:
                check = self._begin(origin, name, password, digest)
            except ClientError:
                client.wait_for(WaitingLine().join(), REFUSED_AFTER_MS)
                raise
        waiter = check.line.join()
        try:
            found = client.wait_for(waiter, LONGEST_WAIT_MS)
        finally:
            waiter.cancel()
            if not check.line and self._lanes.discard(check):  # nobody wants to know any longer
                self._forget(digest, check)
        if isinstance(found, str):
            raise ServerError(found)
        if found is None:
            raise ClientError("too many log in at once: the password could not be checked in time; try again")
        return found is True

    def _digest(self, name: str, password: bytes) -> bytes:
        """A quick hash, too weak to stand on disk. It is only in memory, beside its key, and goes with the process."""
        return hashlib.blake2b(name.encode("utf-8", "surrogateescape") + b"\0" + password, key=self._key).digest()

    def _begin(self, origin: Origin, name: str, password: bytes, digest: bytes) -> Check:
        is_user = self.users is not None and name in self.users
        # Names that do not exist share one lane of their address: there is no end of such names.
        check = Check(name, password, (name if is_user else "", origin.neighbourhood))
        self._lanes.add(check)
        self._under_way[digest] = check
        if self._checked_now < CHECKED_AT_ONCE:
            self._checked_now += 1
            gevent.spawn(self._wait_checks)
        return check

    def _wait_checks(self) -> None:
        """Make the checks that wait, one after the other, in a thread."""
        try:
            while (check := self._lanes.next()) is not None:
                users, digest = self.users, self._digest(check.name, check.password)
                found = gevent.get_hub().threadpool.apply(_check, (users, check.name, check.password))
                self._forget(digest, check)
                if found is True and users is self.users:
                    self._right[check.name] = digest
                while check.line:
                    check.line.next().hand(found)
        finally:
            self._checked_now -= 1

    def _forget(self, digest: bytes, check: Check) -> None:
        if self._under_way.get(digest) is check:  # else the files have been read again meanwhile
            del self._under_way[digest]


def _check(users: Users | None, name: str, password: bytes) -> bool | str:
    """In a thread: whether the password is right, or why that cannot be told."""
    try:
        return users is not None and users.check(name, password)
    except Exception as error:  # without memory OpenSSL raises several; none may end the checks of the others
        return f"the password cannot be checked: {error}"


def warnings(options: AccessOptions, listeners: Iterable[Listener]) -> Iterator[str]:
    """What an operator should know about addresses that can be reached from other machines."""
    for listener in listeners:
        if listener.is_local:
            continue
        if not options.asks_for_names:
            yield f"{listener}: nobody is asked for a name; whoever reaches this address can take and delete everything"
        elif not options.tls_cert:
            yield f"{listener}: passwords and items cross the network in clear, because there is no tls_cert"
