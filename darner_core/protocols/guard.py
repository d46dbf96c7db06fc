"""A guard stands between a connection and its reader if the client may not do everything. First the client has to show
who it is; then each request is let through if that user may make it. To the connection the guard is the reader.

The protocol knows what a login looks like. It is a client's first request, and no byte behind it is looked at before it
has succeeded. Nothing else is kept of a client that has not logged in.

Each request is judged when its turn has come, by the rights of that moment. An operator's commands, which admin_from is
about, are also judged by where they come from: by `require_admin`, when they run.
"""

import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

from darner_core import NAME
from darner_core.access.access import Access
from darner_core.access.origins import Origin
from darner_core.access.rights import ADMIN, ADMIN_ALL, GET, PUT
from darner_core.errors import ClientError, RequestError
from darner_core.operations.client import Client
from darner_core.operations.session import Session
from darner_core.protocols.contract import BadLogin, Command, Login, NoLogin, NotYet, Request, Vocabulary, answered
from darner_core.showing import show

log = logging.getLogger(NAME)

_MAY_NOT = {PUT: "may not put into", GET: "may not get from", ADMIN: "may not administer"}


def require_admin(request: Request, session: Session, only_looks: bool = False) -> None:
    """Before an operator's command is carried out: raises ClientError if such commands are not taken from where the
    client is. The log says which client has changed what; `only_looks`: the command changes nothing."""
    if request.free:
        return
    session.origin.require_admin(request.verb)
    if not only_looks:
        what = show(b" ".join((request.verb, request.key, request.told)).strip())
        log.info("admin: %s: %s", session.origin, what)


def as_admin(command: Command, only_looks: bool = False) -> Command:
    """`command` as it stands in a table: if it is an operator's, `require_admin` comes before it."""
    if command.right not in (ADMIN, ADMIN_ALL):
        return command
    run = command.run

    def run_if_admin(request: Request, body: Any, session: Session) -> Any:
        require_admin(request, session, only_looks)
        return run(request, body, session)

    return command._replace(run=run_if_admin)


class Guard:
    """Judges the requests of one connection."""

    def __init__(self, access: Access, vocabulary: Vocabulary, origin: Origin) -> None:
        self.origin = origin
        self._access = access
        self._reader = vocabulary.new_reader()
        self._commands = vocabulary.table
        self._read_login = vocabulary.dialect.read_login or _no_login
        self._login = b""  # what has come of the request that logs in
        self._login_is_read = False
        self._refused: RequestError | None = None

    def let_in(self, user: str) -> None:
        log.debug("%s is user %s", self.origin, show(user))
        self.origin.user = user

    @property
    def user(self) -> str:
        """The client's user; "" until it has shown who it is."""
        return self.origin.user

    # -- what the connection asks

    @property
    def apart(self) -> bool:
        """Whether the turn must not read this client by itself, because each request has to be judged."""
        return not (self._is_user and self._access.rights_of(self.user).everything)

    @property
    def awaits_login(self) -> bool:
        """The client has not yet said who it is."""
        return not (self.user or self._login_is_read)

    def may_see(self, queue: bytes) -> bool:
        return self._is_user and self._access.rights_of(self.user).any_to(queue)

    def may(self, right: str, queue: bytes) -> bool:
        return self._is_user and self._access.rights_of(self.user).allow(right, queue)

    def require(self, right: str, queue: bytes) -> None:
        """Raises ClientError if the client does not have this right to `queue`. The log says so."""
        if not self.may(right, queue):
            log.warning("refused: %s may not %s queue %s", self.origin, right, show(queue))
            raise _may_not(self.user, right, queue)

    @property
    def _is_user(self) -> bool:
        return self._access.is_user(self.user)

    # -- as the connection's reader

    def single(self, data: bytes) -> Request | None:
        return None if self.apart else self._reader.single(data)

    def requests(self, data: bytes) -> Iterator[tuple[Request, bytes | None]]:
        if self.user:
            return self._judged(self._reader.requests(data))
        return self._log_in_first(data)

    @property
    def in_pieces(self) -> bool:
        return bool(self._login) or self._reader.in_pieces

    @property
    def large(self) -> Request | None:
        return self._reader.large

    @property
    def error(self) -> RequestError | None:
        """What is wrong behind the last request returned; a large set that this user may not do is wrong, too."""
        if self._refused is None:
            if self._reader.error is not None:
                return self._reader.error
            if self._reader.large is not None:
                self._refused = self._refusal(self._reader.large)
        return self._refused

    @property
    def body_bytes(self) -> int:
        return self._reader.body_bytes

    @property
    def body_missing(self) -> int:
        return self._reader.body_missing

    def hand_over(self) -> None:
        self._reader.hand_over()

    def drop(self) -> None:
        self._login = b""
        self._reader.drop()

    def take_body(self, most_bytes: int) -> bytes:
        return self._reader.take_body(most_bytes)

    def end_body(self) -> None:
        self._reader.end_body()

    # -- judging

    def _judged(self, requests: Iterator[tuple[Request, bytes | None]]) -> Iterator[tuple[Request, bytes | None]]:
        for request, body in requests:
            refusal = self._refusal(request)
            if refusal is not None:
                yield Request(partial(_raise, str(refusal))), None
                return
            yield request, body

    def _refusal(self, request: Request) -> ClientError | None:
        what = show(b" ".join((request.verb, request.key)).strip())
        if not self._is_user:  # no longer, since the users were read again
            return self._unauthenticated(what)
        right, rights = self._commands[request.verb].right, self._access.rights_of(self.user)
        named = request.targets or (request.queue,)
        queue = next((queue for queue in named if not rights.allow(right, queue)), None)
        if request.free or queue is None:
            return None
        log.warning("refused: %s: %s", self.origin, what)
        return _may_not(self.user, right, queue)

    def _unauthenticated(self, what: str) -> ClientError:
        why = "is no user any longer" if self.user else "has not logged in"
        log.warning("refused: %s, who %s: %s", self.origin, why, what)
        return ClientError("unauthenticated")

    # -- logging in

    def _log_in_first(self, data: bytes) -> Iterator[tuple[Request, bytes | None]]:
        self._login += data
        del data  # else it would be kept while the password is checked
        try:
            login = None
            while self._login:
                try:
                    login = self._read_login(self._login)
                    break
                except NotYet as early:
                    self._login = early.rest
                    yield answered(early.reply), None
        except NoLogin as came:
            self._login = b""
            self._refused = self._unauthenticated(str(came))
            return
        except BadLogin as why:
            self._login = b""
            self._refused = self._failure(str(why))
            return
        if login is None:
            return
        self._login = b""
        self._login_is_read = True
        yield Request(partial(self._run_login, login)), None
        if self.user:  # a wrong password has ended it before; asked all the same, because this is the door
            yield from self._judged(self._reader.requests(login.rest))

    def _run_login(self, login: Login, *_: Any) -> Any:
        return partial(self._wait_login, login)

    def _wait_login(self, login: Login, client: Client) -> bytes:
        """Runs in the client's greenlet. Raises ClientError if the password is wrong."""
        name = login.name.decode("utf-8", "surrogateescape")  # no user has a name that is not UTF-8
        if not self._access.wait_check(client, self.origin, name, login.password):
            raise self._failure(f"user {show(login.name)}")
        self.let_in(name)
        return login.reply(client.session) if callable(login.reply) else login.reply

    def _failure(self, what: str) -> ClientError:
        log.warning("authentication failure: %s: %s", self.origin, what)
        return ClientError("authentication failure")


def _may_not(user: str, right: str, queue: bytes) -> ClientError:
    if right == ADMIN_ALL:
        return ClientError(f"user {user} may not administer every queue")
    return ClientError(f"user {user} {_MAY_NOT[right]} queue {show(queue)}")


def _no_login(data: bytes) -> Login | None:
    """For protocols without a login."""
    raise NoLogin("a request")


def _raise(refusal: str, *_: Any) -> Any:
    raise ClientError(refusal)  # made here: one that is kept would keep the frames it has been raised through
