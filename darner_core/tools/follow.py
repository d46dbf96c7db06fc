"""`--dump QUEUE --follow`: a client of a running server that shows what happens to a queue, until it is told to stop.

The options say where the server is: at a Unix socket if there is one, else at the first host and the port. With
`tls_cert`, the server must show that certificate. The request is `watch QUEUE`.
"""

import json
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import takewhile
from typing import Any, TextIO

from darner_core.config.options import Config
from darner_core.config.values import UNIX
from darner_core.errors import StartError
from darner_core.showing import show
from darner_core.tools.formatting import EVENT_HEAD, event_json, event_line

CONNECT_S = 10.0
ENDED = 2  # exit status

Say = Callable[[str], None]


def follow(options: Config, queue: bytes, user: str, password: bytes, as_json: bool, out: TextIO, say: Say) -> int:
    """Write to `out` what happens to a queue until the server ends. Returns the exit status. Raises StartError if no
    server answers, or if it refuses."""
    host = next((host for host in options.host if host.startswith(UNIX)), options.host[0])
    where = host if host.startswith(UNIX) else f"{host} port {options.port}"
    name = show(queue)
    with _connect(options, host, where) as connection:
        lines = _lines(connection)
        begun = _ask(connection, lines, queue, user, password, where)
        say(f"following queue {name} at {where}{'' if begun['exists'] else '; it does not exist yet'}")
        if not as_json:
            out.write(f"{EVENT_HEAD}\n")
            out.flush()
        for line in lines:
            if line.startswith(b"END"):
                break
            event = _event(line, where)
            out.write(f"{event_json(event) if as_json else event_line(event)}\n")
            out.flush()
    say(f"the server at {where} has ended, or has hung up")
    return ENDED


def _connect(options: Config, host: str, where: str) -> socket.socket:
    try:
        if host.startswith(UNIX):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.connect(host.removeprefix(UNIX))
            return connection
        connection = socket.create_connection((host, options.port), CONNECT_S)
        if options.tls_cert:
            connection = _tls(options.tls_cert).wrap_socket(connection)
        connection.settimeout(None)
        return connection
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StartError(f"cannot follow: no server answers at {where}: {reason}") from error


def _tls(certificate: str) -> ssl.SSLContext:
    """TLS settings for a server that shows exactly this certificate, whatever name is in it and whoever signed it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(certificate)
    return context


def _ask(
    connection: socket.socket, lines: Iterator[bytes], queue: bytes, user: str, password: bytes, where: str
) -> dict[str, Any]:
    """Log in and ask for the queue's events. Returns the first line of the answer. Raises StartError if the server
    refuses."""
    try:
        if user:
            login = user.encode("utf-8", "surrogateescape") + b" " + password
            connection.sendall(b"set login 0 0 %d\r\n%b\r\n" % (len(login), login))
            reply = next(lines, b"")
            if not reply.startswith(b"STORED"):
                raise _refused(reply, where)
        connection.sendall(b"watch %b\r\n" % queue)
    except OSError as error:
        raise _refused(b"", where) from error
    return _event(next(lines, b""), where)


def _refused(line: bytes, where: str) -> StartError:
    said = show(line.strip()) or "the server has hung up"
    return StartError(f"cannot follow: {where}: {said}")


def _lines(connection: socket.socket) -> Iterator[bytes]:
    """The lines that the server sends, until it hangs up. A line that it does not end is left out."""
    with suppress(OSError), connection.makefile("rb") as received:
        yield from takewhile(lambda line: line.endswith(b"\n"), received)


def _event(line: bytes, where: str) -> dict[str, Any]:
    """Raises StartError if the line is no event."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise _refused(line, where)
    return event
