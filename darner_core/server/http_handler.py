"""HTTP as gevent's pywsgi speaks it, with our limits, our log, and our way to end a connection.

What pywsgi answers itself, because no request could be read, is a problem in JSON like all others. Nothing is written
to stderr.

Calls here switch greenlets while they read and send.
"""

import logging
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from gevent import pywsgi

from darner_core import NAME
from darner_core.errors import ClientError, RequestError
from darner_core.operations.client import HangUp
from darner_core.server.http_connection import HttpConnection, TimeOver
from darner_core.server.http_head import BadHead, Head, read_first, read_lines
from darner_core.showing import show
from darner_core.waiters import wait_round

log = logging.getLogger(NAME)

# The first line of a request, with the path and the query.
MAX_FIRST_BYTES = pywsgi.MAX_REQUEST_LINE

# A body of which more than this is read at once is counted, as long as it has come in part.
HELD_BYTES = 4 << 10

# What is left of the body of a request that is answered already: less than this is read and dropped, before more the
# connection is closed.
DROPPED_BYTES = 64 << 10

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]

# (status, detail) -> the problem in JSON
Problem = Callable[[int, str], bytes]


class HttpServer:
    """What pywsgi's handler needs of a server: the application, and what all requests of a listener have in common."""

    secure_environ_class = pywsgi.WSGISecureEnviron

    def __init__(self, application: Application, problem: Problem, name: str, port: int, is_tls: bool) -> None:
        self._date_of, self._date = 0, b""
        self.application = application
        self.problem = problem
        self.environ: dict[str, Any] = {
            **pywsgi.WSGIServer.base_env,
            "SERVER_SOFTWARE": NAME,
            "SERVER_NAME": name,
            "SERVER_PORT": str(port),
            "wsgi.url_scheme": "https" if is_tls else "http",
            "wsgi.errors": _Log(),
        }

    def get_environ(self) -> dict[str, Any]:
        return dict(self.environ)

    def date(self) -> bytes:
        """Of a response. It is the same for a second."""
        now = int(time.time())
        if now != self._date_of:
            self._date_of, self._date = now, pywsgi.format_date_time(now)
        return self._date


class _Log:
    """What WSGI calls a file of errors."""

    def write(self, text: str) -> None:
        if text.strip():
            log.debug("http: %s", show(text.strip()))

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Each line is in the log at once."""


class Body(pywsgi.Input):
    """The body of a request."""

    __slots__ = ("unread", "_client")

    def __init__(self, client: HttpConnection, **more: Any) -> None:
        super().__init__(client.file, **more)
        self._client = client
        self.unread = False  # a part of it has not been read, and will not be: nothing can be read behind it

    def read(self, length: int | None = None) -> bytes:
        """Raises ClientError for chunks that are none, and OSError if the rest does not come."""
        return self._read(super().read, length)

    def readline(self, size: int | None = None) -> bytes:
        """As `read`."""
        return self._read(super().readline, size)

    def _read(self, read: Callable[[int | None], bytes], most_bytes: int | None) -> bytes:
        if most_bytes is not None and most_bytes > HELD_BYTES:
            self._client.hold(min(most_bytes, self.content_length or most_bytes))
        try:
            return read(most_bytes)
        except OSError as error:
            self.unread = True
            if self._chunked_input_error:
                raise ClientError(f"the body has a chunk that is none: {error}") from None
            raise
        except BaseException:
            self.unread = True
            raise
        finally:
            if most_bytes is not None and most_bytes > HELD_BYTES:
                self._client.hold(0)

    @property
    def ends_connection(self) -> bool:
        """Whether a part of it has not been read, and is too much to be read only to be dropped: nothing can be read
        behind it."""
        if self.unread or (self.chunked_input and self.chunk_length != 0):
            return True
        left = (self.content_length or 0) - self.position
        was_not_asked_for = self.socket is not None  # the client waits to be told to send it
        return bool(left > (0 if was_not_asked_for else DROPPED_BYTES))

    def _discard(self) -> None:
        """Read and drop the rest, if it is little."""
        self.unread = self.ends_connection
        if not self.unread and not self.chunked_input:
            super()._discard()


class Handler(pywsgi.WSGIHandler):
    """The requests of one client, one after the other."""

    def __init__(self, client: HttpConnection, server: HttpServer) -> None:
        super().__init__(client, None, server)
        self.client = client
        self.waits = 0  # how often the client had waited when its last request came
        self.lingers = False  # the client may still send what nobody reads

    # -- reading

    rfile: Any
    wsgi_input: Any
    head: Head
    request_env: dict[str, Any]

    def read_requestline(self) -> str:
        client = self.client
        if client.waits == self.waits and client.requests:
            wait_round()  # one who sends many requests ahead, which need not wait, would keep the others from theirs
        self.waits = client.waits
        client.between = True  # unless the request has come already, with the one before
        try:
            return str(self.rfile.readline(MAX_FIRST_BYTES).decode("latin-1"))
        finally:
            client.between = False

    def read_request(self, raw_requestline: str) -> bool:
        self.requestline = raw_requestline.rstrip()
        self.head = head = read_first(raw_requestline.encode("latin-1"))
        self.request_env = env = self.server.get_environ()
        read_lines(head, self.rfile.readline, env)
        self.command, self.path, self.request_version = head.method, head.target, head.version
        self.content_length, self.close_connection = head.content_length, head.closes
        return True

    def get_environ(self) -> dict[str, Any]:
        env, head = self.request_env, self.head
        expects = env.get("HTTP_EXPECT", "").lower() == "100-continue" and head.version != "HTTP/1.0"
        self.wsgi_input = Body(
            self.client,
            content_length=head.content_length,
            socket=self.socket if expects else None,
            chunked_input=head.chunked,
        )
        env["REQUEST_METHOD"] = head.method
        # As it was sent: %2F is part of a name, / is not.
        path, _, env["QUERY_STRING"] = head.target.partition("?")
        env["PATH_INFO"] = path if path.startswith("/") else _without_host(path)
        env["SERVER_PROTOCOL"] = head.version
        env["wsgi.input"] = self.wsgi_input
        env["wsgi.input_terminated"] = True
        env["darner.client"] = self.client
        return env

    def handle_one_request(self) -> Any:
        result = super().handle_one_request()
        self.lingers = self.lingers or isinstance(result, tuple)  # an error, behind which nothing is read
        return result

    # -- answering

    def handle_one_response(self) -> None:
        client = self.client
        client.begin()
        super().handle_one_response()
        if self.wsgi_input.unread or client.closing:
            self.close_connection = True
        self.lingers = bool(self.wsgi_input.unread)

    def run_application(self) -> None:
        super().run_application()
        self.client.undelivered = None  # all has been sent: what the answer handed over is the client's

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        if self.wsgi_input.ends_connection or (self.client.closing and not self.close_connection):
            headers = [*headers, ("Connection", "close")]
        write = super().start_response(status, headers, exc_info)
        self.response_headers.append((b"Date", self.server.date()))
        self.provided_date = "told"
        return write

    def _write_with_headers(self, data: bytes) -> None:
        self.client.cork()
        super()._write_with_headers(data)
        self.client.uncork()

    # -- what goes wrong

    def _handle_client_error(self, ex: BaseException) -> tuple[str, bytes] | None:
        """No request could be read: what is answered, before the connection is closed."""
        if isinstance(ex, (HangUp, EOFError)):
            return None
        status, detail = HTTPStatus.BAD_REQUEST, str(ex)
        if isinstance(ex, BadHead):
            status = ex.status
        elif isinstance(ex, TimeOver):
            status = HTTPStatus.REQUEST_TIMEOUT
        log.debug("refused: %s: %s", self.client.session.origin, show(detail))
        return str(status.value), self._refusal(status, detail)

    def _refusal(self, status: HTTPStatus, detail: str) -> bytes:
        return response(status, self.server.problem(status.value, detail))

    def handle_error(self, kind: Any, error: Any, trace: Any) -> None:
        """The application has raised something."""
        self.close_connection = True
        if isinstance(error, (HangUp, OSError)):
            self.client.give_back_undelivered()
            return
        if isinstance(error, RequestError):  # in the middle of a response
            log.debug("a response was broken off: %s", show(str(error)))
            return
        log.error("a request failed", exc_info=error)
        if not self.headers_sent:
            self.client.sendall(self._refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "the server has failed; see its log"))

    def log_error(self, msg: str, *args: Any) -> None:
        log.debug("http: %s", show(msg % args if args else msg))

    def log_request(self) -> None:
        if log.isEnabledFor(logging.DEBUG):
            log.debug("http: %s: %s %s", self.client.session.origin, show(self.requestline or ""), self._orig_status)


def _without_host(path: str) -> str:
    """The path of a whole URL, which clients of proxies send."""
    _, slashes, rest = path.partition("://")
    return f"/{rest.partition('/')[2]}" if slashes else path


def response(status: HTTPStatus, problem: bytes, *more: str) -> bytes:
    """A whole response with this problem, after which the connection ends."""
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(problem)}",
        "Connection: close",
        *more,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + problem
