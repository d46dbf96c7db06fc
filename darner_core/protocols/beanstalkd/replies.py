"""What a beanstalkd client is answered: the words of the protocol, and the word for each of our errors. Pure.

Source: beanstalkd's doc/protocol.txt.
"""

from collections.abc import Iterable
from typing import Final

from darner_core.errors import ClientError, DarnerError, Incomplete, RequestError, ServerError

BAD_FORMAT: Final = b"BAD_FORMAT\r\n"
UNKNOWN_COMMAND: Final = b"UNKNOWN_COMMAND\r\n"
EXPECTED_CRLF: Final = b"EXPECTED_CRLF\r\n"
JOB_TOO_BIG: Final = b"JOB_TOO_BIG\r\n"
DRAINING: Final = b"DRAINING\r\n"
OUT_OF_MEMORY: Final = b"OUT_OF_MEMORY\r\n"
INTERNAL_ERROR: Final = b"INTERNAL_ERROR\r\n"
NOT_FOUND: Final = b"NOT_FOUND\r\n"
NOT_IGNORED: Final = b"NOT_IGNORED\r\n"
DEADLINE_SOON: Final = b"DEADLINE_SOON\r\n"
TIMED_OUT: Final = b"TIMED_OUT\r\n"
DELETED: Final = b"DELETED\r\n"
RELEASED: Final = b"RELEASED\r\n"
BURIED: Final = b"BURIED\r\n"
TOUCHED: Final = b"TOUCHED\r\n"
KICKED: Final = b"KICKED\r\n"
PAUSED: Final = b"PAUSED\r\n"
CRLF: Final = b"\r\n"


class BadFormat(DarnerError):
    """A line that cannot be understood."""


class NoRoom(ServerError):
    """No more of this can be kept at present."""


class NotAllowed(ServerError):
    """This client has no right to do it; the connection goes on."""


def error_reply(error: RequestError) -> bytes:
    """The protocol's word for `error`. What exactly is wrong stands in the log."""
    if isinstance(error, NoRoom):
        return OUT_OF_MEMORY
    if isinstance(error, Incomplete):
        return BAD_FORMAT
    if isinstance(error, (NotAllowed, ClientError)):
        return UNKNOWN_COMMAND
    return INTERNAL_ERROR


def inserted(job: int) -> bytes:
    return b"INSERTED %d\r\n" % job


def job_head(word: bytes, job: int, body_bytes: int) -> bytes:
    """The line before a job's body, which CR LF follows."""
    return b"%b %d %d\r\n" % (word, job, body_bytes)


def yaml_map(pairs: Iterable[tuple[bytes, object]]) -> bytes:
    """A reply with a mapping."""
    return _ok(b"".join(b"%b: %b\n" % (key, _plain(value)) for key, value in pairs))


def yaml_list(values: Iterable[bytes]) -> bytes:
    """A reply with a list."""
    return _ok(b"".join(b"- %b\n" % value for value in values))


def _plain(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _ok(lines: bytes) -> bytes:
    return b"OK %d\r\n---\n%b\r\n" % (len(lines) + len(b"---\n"), lines)


def quoted(value: str) -> bytes:
    """A text in double quotes."""
    return b'"%b"' % value.replace("\\", "\\\\").replace('"', '\\"').encode("utf-8", "backslashreplace")
