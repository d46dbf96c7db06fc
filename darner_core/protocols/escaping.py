"""Names of queues in protocols whose names are others than ours, escaped the same way everywhere. Pure.

Some of their names hold bytes that the name of a queue cannot have: a slash, a space, controls. In the queue's name
each of these bytes stands as % and two hexadecimal digits: the tube `mail/out` is the queue `mail%2Fout`. All else
stands for itself, a % too.

Some queues have names that a protocol cannot say. There, each byte that it cannot say is written the same way, and %
itself as %25. So there is one name for each queue on both sides.
"""

import re
from re import Pattern
from typing import Final

from darner_core.config.values import MAX_NAME_BYTES

_NOT_OURS: Final = re.compile(rb"[\x00-\x20/\x7f]")
_ESCAPED: Final = re.compile(rb"%([01][0-9A-F]|2F|20|7F)")  # as `queue_name` writes what is not ours
_ANY_ESCAPED: Final = re.compile(rb"%([0-9A-Fa-f]{2})")


def queue_name(name: bytes) -> bytes | None:
    """The queue whose name this is elsewhere; None: it would be empty or too long for a queue's."""
    if _NOT_OURS.search(name):
        name = _NOT_OURS.sub(_escape, name)
    return name if 0 < len(name) <= MAX_NAME_BYTES else None


def name_elsewhere(queue: bytes) -> bytes:
    """The name that `queue_name` makes this queue of."""
    return _ESCAPED.sub(_unescape, queue) if b"%" in queue else queue


def said(name: bytes, cannot_say: Pattern[bytes]) -> bytes:
    """`name` in a protocol that cannot say the bytes that `cannot_say` matches, which must match %."""
    return cannot_say.sub(_escape, name)


def meant(said_name: bytes) -> bytes:
    """What `said` has made this of."""
    return _ANY_ESCAPED.sub(_unescape, said_name) if b"%" in said_name else said_name


def _escape(found: "re.Match[bytes]") -> bytes:
    return b"%%%02X" % found[0][0]


def _unescape(found: "re.Match[bytes]") -> bytes:
    return bytes((int(found[1], 16),))
