"""TLS for one connection: the settings, the handshake, and a socket that reads and writes like a plain one.

Promise: whatever a client does wrong ends that client only. It raises TlsError, or an OSError as of a plain socket.
TLS 1.2 at least; no renegotiation, no session tickets. Only `wait_handshake` switches greenlets.
"""

import socket
import ssl
from contextlib import suppress
from typing import Any

import gevent

from darner_core.errors import ConfigError, DarnerError
from darner_core.operating_system import acknowledge_at_once
from darner_core.server.poller import READ, WRITE

# How long a handshake may take.
HANDSHAKE_S = 10.0

RECORD_BYTES = 16 << 10  # the longest there are


class TlsError(DarnerError):
    """The handshake has failed."""


def make_context(cert: str, key: str, authorities: str) -> ssl.SSLContext:
    """The settings from these PEM files; "" is none. Raises ConfigError naming option, file and what is wrong."""
    certificate = _read("tls_cert", cert)
    if "-----BEGIN CERTIFICATE-----" not in certificate:
        raise ConfigError(f"tls_cert {cert}: no certificate in PEM form")
    key_option, key_file = ("tls_key", key) if key else ("tls_cert", cert)
    key_text = _read(key_option, key_file)
    if "PRIVATE KEY-----" not in key_text:
        raise ConfigError(f"{key_option} {key_file}: no private key in PEM form")
    if "ENCRYPTED" in key_text:
        raise ConfigError(f"{key_option} {key_file}: the key has a passphrase, which nobody could type; remove it")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Connections are few and long: resuming them is not worth a look at what old tickets still let in.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    try:
        context.load_cert_chain(cert, key or None)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                f"{key_option} {key_file}: the key does not belong to the certificate in tls_cert {cert}"
            ) from None
        raise ConfigError(f"tls_cert {cert}, {key_option} {key_file}: {_reason(error)}") from None
    if authorities:
        if "-----BEGIN CERTIFICATE-----" not in _read("tls_ca", authorities):
            raise ConfigError(f"tls_ca {authorities}: no certificate in PEM form")
        try:
            context.load_verify_locations(authorities)
        except ssl.SSLError as error:
            raise ConfigError(f"tls_ca {authorities}: {_reason(error)}") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _read(option: str, path: str) -> str:
    try:
        with open(path, encoding="latin-1") as file:
            return file.read()
    except OSError as error:
        raise ConfigError(f"{option} {path}: {error.strerror}") from error


def _reason(error: OSError) -> str:
    """What OpenSSL says, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return error.strerror or str(error)


class TlsSocket:
    """A socket that has been accepted and speaks TLS: what Connection needs of a socket, with BlockingIOError for "not
    now" and OSError for "no more".

    A read takes a whole TLS record, 16 KiB at most, even if less was asked for, and OpenSSL reads none ahead. So
    nothing stays behind that the poller does not know of.
    """

    def __init__(self, accepted: socket.socket, context: ssl.SSLContext) -> None:
        """Takes over `accepted`, which is non-blocking. Raises TlsError if the client has gone."""
        try:
            self._socket = context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
        except OSError as error:
            accepted.close()
            raise TlsError(_reason(error)) from None
        self._said_all = False

    def wait_handshake(self) -> None:
        """Raises TlsError if it fails, or takes longer than HANDSHAKE_S. Switches."""
        hub: Any = gevent.get_hub()
        with gevent.Timeout(HANDSHAKE_S, TlsError(f"no handshake within {HANDSHAKE_S:g} s")):
            while True:
                try:
                    self._socket.do_handshake()
                    # Acknowledge the end of the handshake at once: until then, 43 ms as measured, a client with
                    # Nagle's algorithm keeps back its first request.
                    acknowledge_at_once(self._socket)
                    return
                except ssl.SSLWantReadError:
                    events = READ
                except ssl.SSLWantWriteError:
                    events = WRITE
                except OSError as error:
                    raise TlsError(_reason(error)) from None
                watcher = hub.loop.io(self._socket.fileno(), events)
                try:
                    hub.wait(watcher)
                finally:
                    watcher.close()

    def cut_handshake(self) -> None:
        """End a handshake that is being waited for."""
        with suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def certificate_name(self) -> str:
        """The common name in the client's certificate; "" if it has none, or several."""
        certificate: Any = self._socket.getpeercert() or {}
        parts = [part for parts in certificate.get("subject", ()) for part in parts]
        names = [value for kind, value in parts if kind == "commonName"]
        return names[0] if len(names) == 1 else ""

    def recv(self, most_bytes: int) -> bytes:
        if self._said_all:
            # What still comes is dropped unread, but it has to be taken out of the kernel.
            return socket.socket.recv(self._socket, most_bytes)
        try:
            return self._socket.recv(max(most_bytes, RECORD_BYTES))
        except ssl.SSLWantReadError:
            raise BlockingIOError from None
        except ssl.SSLWantWriteError:
            # The client has asked for new keys and takes no bytes. To wait for it would need a second watcher, and no
            # honest client does that.
            raise ConnectionAbortedError from None

    def send(self, data: bytes) -> int:
        """After BlockingIOError the same bytes have to come first again: part of them may be on its way."""
        if self._said_all:  # the SSLSocket would send it in clear
            raise BrokenPipeError
        try:
            return self._socket.send(data)
        except ssl.SSLWantWriteError:
            raise BlockingIOError from None
        except ssl.SSLWantReadError:  # renegotiation, which is off
            raise ConnectionAbortedError from None

    def shutdown(self, how: int) -> None:
        """Only for writing (SHUT_WR): says to the client that this was all."""
        self._say_all()
        socket.socket.shutdown(self._socket, how)

    def _say_all(self) -> None:
        if not self._said_all:
            self._said_all = True
            with suppress(OSError, ValueError):
                self._socket.unwrap()  # sends close_notify; the client's is not waited for

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._say_all()
        self._socket.close()
