"""How a client of memcached says who it is: its first request is a set, of whatever key, whose body is `name password`.

Pure: bytes in, a login out. The limits are narrow, because all of it is kept of a client that may be anybody.

Source: memcached's doc/protocol.txt, "Authentication".
"""

from darner_core.protocols.contract import BadLogin, Login, NoLogin
from darner_core.protocols.grammar import wrong_beginning
from darner_core.protocols.memcache.replies import CRLF, NONE, STORED
from darner_core.showing import show

MAX_LINE_BYTES = 512  # a key of 250 bytes and three numbers
MAX_BODY_BYTES = 512  # name, space, password


def read_login(data: bytes) -> Login | None:
    """See `contract.Traits`."""
    line, newline, rest = data.partition(b"\n")
    begins_line = not line or wrong_beginning(line[0]) is None
    if begins_line and not newline and len(line) <= MAX_LINE_BYTES:
        return None
    size, noreply = _parse(line)
    if size < 0:
        raise NoLogin(show(line[:MAX_LINE_BYTES].partition(b" ")[0].strip()))
    if size > MAX_BODY_BYTES:
        raise BadLogin(f"a body of {size} bytes")
    if len(rest) < size + len(CRLF):
        return None
    if not rest.startswith(CRLF, size):
        raise BadLogin("a body that does not end")
    name, space, password = rest[:size].partition(b" ")
    if not space:  # what stands there may be the password: it is not for the log
        raise BadLogin("a body that is not name and password")
    return Login(name, password, NONE if noreply else STORED, rest[size + len(CRLF) :])


def _parse(line: bytes) -> tuple[int, bool]:
    """The bytes of `set <key> <flags> <exptime> <bytes> [noreply]`, and whether it says noreply; -1: it is no set."""
    if len(line) > MAX_LINE_BYTES:
        return -1, False
    words = [word for word in line.removesuffix(b"\r").split(b" ") if word]
    noreply = len(words) == 6 and words[5].lower() == b"noreply"
    if not (len(words) == 5 or noreply) or words[0].lower() != b"set" or not words[4].isdigit():
        return -1, False
    return int(words[4]), noreply
