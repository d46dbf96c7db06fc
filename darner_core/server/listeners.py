"""The addresses that the server listens on: TCP and Unix sockets, bound and ready to accept. Accepts nothing itself.

A Unix socket's file is made with its permissions, never wider for a moment. A file that a killed server has left is
removed; one that a running server answers on, and any other file, is not.

A service manager may have bound sockets already, and hands them over: each is used for the address that it has.
"""

import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from darner_core.config.listeners import Endpoint
from darner_core.config.values import UNIX
from darner_core.errors import StartError
from darner_core.server.service_manager import address_of

BACKLOG = 1024  # connections the kernel holds until they are accepted; capped by net.core.somaxconn


class Listener:
    """One bound socket, and its file if it is a Unix socket. `dialect` is what clients speak there, `reply_key` says
    which key replies to gets have there."""

    def __init__(
        self, host: str, bound: socket.socket, dialect: str, reply_key: str, is_handed_over: bool = False
    ) -> None:
        self.host = host
        self.dialect = dialect
        self.reply_key = reply_key
        self.socket = bound
        self.is_unix = bound.family == socket.AF_UNIX
        self.port = 0 if self.is_unix else int(bound.getsockname()[1])
        # The file of a socket that was handed over stays, for the next server.
        self._file = _identity(host.removeprefix(UNIX)) if self.is_unix and not is_handed_over else None

    def __str__(self) -> str:
        return self.host if self.is_unix else f"{self.host} port {self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return self.is_unix or ipaddress.ip_address(self.socket.getsockname()[0].partition("%")[0]).is_loopback

    def name_client(self, address: object) -> str:
        """A client's address, as accept() tells it, for the log."""
        if not isinstance(address, tuple):
            return self.host
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def close(self) -> None:
        self.socket.close()
        path = self.host.removeprefix(UNIX)
        if self._file is not None and _identity(path) == self._file:  # else another server has put its own there
            with suppress(OSError):
                os.unlink(path)


def open_listeners(
    endpoints: Iterable[Endpoint], unix_mode: str, handed_over: Iterable[socket.socket] = ()
) -> list[Listener]:
    """Bind and listen, where no socket was handed over that does. Raises StartError naming the address; then nothing
    is left open."""
    waiting = {bound.getsockname()[: 2 if bound.family != socket.AF_UNIX else None]: bound for bound in handed_over}
    opened: list[Listener] = []
    try:
        for host, port, dialect, reply_key in endpoints:
            given = waiting.pop(_name(host, port), None) if waiting else None
            if given is not None:
                bound = given
                _listen(bound)
            elif host.startswith(UNIX):
                bound = _bind_unix(host.removeprefix(UNIX), int(unix_mode, 8))
            else:
                bound = _bind_tcp(host, port)
            opened.append(Listener(host, bound, dialect, reply_key, given is not None))
        for bound in waiting.values():
            raise StartError(f"the service manager hands over {address_of(bound)}, where the server is not to listen")
    except BaseException:
        for listener in opened:
            listener.close()
        for bound in waiting.values():
            bound.close()
        raise
    return opened


def _name(host: str, port: int) -> Any:
    """What getsockname() says of a socket at this address, without what IPv6 adds."""
    if host.startswith(UNIX):
        return host.removeprefix(UNIX)
    try:
        return _find(host, port)[3][:2]
    except (OSError, UnicodeError):
        return None


def _find(host: str, port: int) -> tuple[int, int, int, Any]:
    """Family, kind, protocol and address. Raises OSError or UnicodeError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # A name such as localhost may have addresses of both kinds.
    family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    return family, kind, protocol, address


def _bind_tcp(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, address = _find(host, port)
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # "::" can stand beside "0.0.0.0"
            bound.bind(address)
            _listen(bound)
        except BaseException:
            bound.close()
            raise
    except (OSError, UnicodeError) as error:
        raise StartError(f"cannot listen on {host} port {port}: {_reason(error)}") from error
    return bound


def _bind_unix(path: str, mode: int) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        os.fchmod(bound.fileno(), mode)  # the file is made with it, less the umask
        bound.bind(path)
        os.chmod(path, mode)
        _listen(bound)
    except OSError as error:
        bound.close()
        raise StartError(f"cannot listen on {UNIX}{path}: {_reason(error)}") from error
    except BaseException:
        bound.close()
        raise
    return bound


def _listen(bound: socket.socket) -> None:
    bound.listen(BACKLOG)
    bound.setblocking(False)


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on. Raises StartError or OSError if something else stands there."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise StartError(f"cannot listen on {UNIX}{path}: there is a file that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(path)
    if code in (0, errno.EAGAIN):  # EAGAIN: its queue of connections to be accepted is full
        raise StartError(f"cannot listen on {UNIX}{path}: another server answers there")
    if code != errno.ECONNREFUSED:
        raise OSError(code, os.strerror(code))
    os.unlink(path)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _reason(error: OSError | UnicodeError) -> str:
    # strerror does not know the numbers of a gaierror.
    if isinstance(error, OSError) and error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return getattr(error, "strerror", None) or str(error)
