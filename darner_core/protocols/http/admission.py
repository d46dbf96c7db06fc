"""Who asks, and whether that is a page which may ask: names and passwords, rights, and what keeps foreign pages out.

A browser sends a user's name and password along with whatever page asks it to. So a request that changes something, and
comes from a browser, must carry a token that only our own pages can read. Without users nothing tells our page from
another whose name was made to lead here (DNS rebinding): then the host that is asked must be one of ours.

Names that begin with wait_ switch greenlets; nothing else here does.
"""

import hashlib
import hmac
import ipaddress
import logging
import os
import socket
from base64 import b64decode
from binascii import Error as BadBase64
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from darner_core import NAME
from darner_core.access.access import Access
from darner_core.access.rights import ADMIN, ADMIN_ALL, FREE, GET, PUT
from darner_core.access.users import MAX_PASSWORD_BYTES, MAX_USER_BYTES
from darner_core.errors import ClientError
from darner_core.protocols.http.contract import HttpClient, Problem
from darner_core.showing import show

log = logging.getLogger(NAME)

_CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="darner", charset="UTF-8"'}

# What a browser sends, and other clients do not.
_OF_BROWSERS: Final = ("HTTP_ORIGIN", "HTTP_COOKIE", "HTTP_SEC_FETCH_SITE")
_TOKEN: Final = "HTTP_X_DARNER_TOKEN"

_MAY_NOT: Final = {PUT: "may not put into", GET: "may not get from", ADMIN: "may not administer"}


class Admission:
    def __init__(self, access: Access) -> None:
        self._access = access
        self._secret = os.urandom(32)
        self._own_names = {"localhost", *_names_of_this_machine()}

    # -- who asks

    def wait_admit(self, client: HttpClient, env: Mapping[str, Any]) -> None:
        """Find out who makes this request. Raises Problem."""
        if not client.asks_for_names:
            client.asks_as = None
            self._require_own_host(client, env.get("HTTP_HOST", ""))
            return
        client.asks_as = client.session.origin.user = ""
        user = client.user or self._wait_user(client, env.get("HTTP_AUTHORIZATION", ""))
        if not self._access.is_user(user):
            raise _unauthorized(f"user {show(user)} is no user any longer")
        client.asks_as = client.session.origin.user = user

    def _wait_user(self, client: HttpClient, header: str) -> str:
        if self._access.users is None:
            raise Problem(HTTPStatus.FORBIDDEN, "here only a TLS certificate says who a client is")
        kind, _, coded = header.partition(" ")
        if kind.lower() != "basic":
            raise _unauthorized("a name and a password are needed: Authorization: Basic")
        try:
            name, colon, password = b64decode(coded.strip(), validate=True).partition(b":")
        except BadBase64:
            colon = b""
        if not colon or len(name) > MAX_USER_BYTES or len(password) > MAX_PASSWORD_BYTES:
            raise _unauthorized("Authorization: Basic must be name:password in base64")
        origin = client.session.origin
        user = name.decode("utf-8", "surrogateescape")
        try:
            is_right = self._access.wait_check(client, origin, user, password)
        except ClientError as error:
            raise Problem(HTTPStatus.TOO_MANY_REQUESTS, str(error), {"Retry-After": "1"}) from None
        if not is_right:
            log.warning("authentication failure: %s: user %s", origin, show(name))
            raise _unauthorized("the name or the password is wrong")
        return user

    # -- rights

    def may(self, client: HttpClient, right: str, queue: bytes = b"") -> bool:
        user = client.asks_as
        if user is None:
            return True
        return self._access.is_user(user) and self._access.rights_of(user).allow(right, queue)

    def require(self, client: HttpClient, right: str, queue: bytes = b"") -> None:
        """Raises Problem if whoever asks does not have this right. The log says so."""
        if client.asks_as is None or right == FREE or self.may(client, right, queue):
            return
        what = "may not administer every queue" if right == ADMIN_ALL else f"{_MAY_NOT[right]} queue {show(queue)}"
        log.warning("refused: %s %s", client.session.origin, what)
        raise Problem(HTTPStatus.FORBIDDEN, f"user {client.asks_as} {what}")

    def require_admin(
        self, client: HttpClient, verb: str, queue: bytes = b"", told: str = "", looks: bool = False
    ) -> None:
        """Before an operator's command: raises Problem if such commands are not taken from where the client is. The log
        says which client has changed what; `looks`: it changes nothing."""
        try:
            client.session.origin.require_admin(verb.encode())
        except ClientError as error:
            raise Problem(HTTPStatus.FORBIDDEN, str(error)) from None
        if looks:
            return
        log.info("admin: %s: %s", client.session.origin, " ".join(filter(None, (verb, show(queue), told))))

    # -- foreign pages

    def token(self, client: HttpClient) -> str:
        """What a page of ours sends along with what changes something."""
        return hmac.new(
            self._secret, (client.asks_as or "").encode("utf-8", "surrogateescape"), hashlib.sha256
        ).hexdigest()

    def require_own_page(self, client: HttpClient, env: Mapping[str, Any]) -> None:
        """Before something is changed: raises Problem if a browser asks, and not for a page of ours."""
        if not any(header in env for header in _OF_BROWSERS):
            return
        if not hmac.compare_digest(env.get(_TOKEN, "").encode(), self.token(client).encode()):
            raise Problem(
                HTTPStatus.FORBIDDEN,
                "a browser's request that changes something needs the header X-Darner-Token, which GET /api/v1/session"
                " tells",
            )

    def _require_own_host(self, client: HttpClient, host: str) -> None:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        name = name.removeprefix("[").removesuffix("]").lower().rstrip(".")
        if not name or name in self._own_names or name == client.listener_name.lower():
            return
        try:
            ipaddress.ip_address(name)
        except ValueError:
            raise Problem(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"Host: {host[:100]}: without users only an IP address, localhost, this machine's name and the address"
                " that the listener is configured with are answered, so that no page can lead a browser here by a name"
                " of its own",
            ) from None


def _unauthorized(detail: str) -> Problem:
    return Problem(HTTPStatus.UNAUTHORIZED, detail, _CHALLENGE)


def _names_of_this_machine() -> set[str]:
    name = socket.gethostname().lower()
    return {name, name.partition(".")[0]} - {""}
