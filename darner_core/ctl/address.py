"""Where a server is, and how to connect to it: what --server and --tls say."""

import socket
import ssl
from dataclasses import dataclass
from typing import Final

from darner_core.config.values import UNIX
from darner_core.ctl.errors import CtlError, NoServer
from darner_core.showing import show

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 22133
DEFAULT: Final = f"{DEFAULT_HOST}:{DEFAULT_PORT}"


@dataclass(frozen=True)
class Tls:
    """`ca`: whose signature the server's certificate needs; "": one of the system's authorities. `cert`: what this
    client shows, its key in the same file or in `key`."""

    ca: str = ""
    cert: str = ""
    key: str = ""

    def context(self) -> ssl.SSLContext:
        """Raises CtlError."""
        context = ssl.create_default_context()
        try:
            if self.ca:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.load_verify_locations(self.ca)
                context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the server's own certificate will do
            if self.cert:
                context.load_cert_chain(self.cert, self.key or None)
        except (OSError, ssl.SSLError) as error:
            files = " and ".join(one for one in (self.ca, self.cert, self.key) if one)
            raise CtlError(f"cannot use the certificates in {files}: {error}") from error
        return context


@dataclass(frozen=True)
class Address:
    """`path` is that of a Unix socket; "": it is TCP."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"{UNIX}{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def connect(self, timeout_s: float, tls: Tls | None = None) -> socket.socket:
        """Raises NoServer or CtlError."""
        context = tls.context() if tls is not None and not self.path else None
        try:
            if self.path:
                return _connect_unix(self.path, timeout_s)
            connected = socket.create_connection((self.host, self.port), timeout_s)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connected if context is None else context.wrap_socket(connected, server_hostname=self.host)
        except ssl.SSLCertVerificationError as error:
            advice = "--tls-ca FILE names who signed it, or the certificate itself"
            raise NoServer(
                f"{self} shows a certificate that is not trusted: {error.verify_message}; {advice}"
            ) from error
        except ssl.SSLError as error:
            raise NoServer(f"{self} does not speak TLS, or not with this client: {error.reason}") from error
        except (OSError, UnicodeError) as error:
            raise NoServer(self._no_answer(error)) from error

    def _no_answer(self, error: Exception) -> str:
        reason = getattr(error, "strerror", None) or str(error)
        return f"no server answers at {self}: {show(reason)}; --server or DARNER_SERVER says where it is"


def _connect_unix(path: str, timeout_s: float) -> socket.socket:
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connected.settimeout(timeout_s)
        connected.connect(path)
    except BaseException:
        connected.close()
        raise
    return connected


def read_address(text: str) -> Address:
    """`host`, `host:port`, `[::1]:port`, `:port` or `unix:/path`. Raises ValueError."""
    if text.startswith(UNIX):
        path = text.removeprefix(UNIX)
        if not path:
            raise ValueError("unix: needs the path of a socket behind it")
        return Address(path=path)
    host, port = text, ""
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise ValueError(f'"{show(text)}" is no address: it is HOST:PORT, [IPv6]:PORT or unix:PATH')
        port = rest[1:]
    elif text.count(":") == 1:
        host, port = text.split(":")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) <= 65535):
        raise ValueError(f'"{show(port)}" is no port: a number from 1 to 65535')
    return Address(host or DEFAULT_HOST, int(port) if port else DEFAULT_PORT)
