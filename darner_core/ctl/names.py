"""How the names of queues, which are any bytes, are written on a command line and in what is printed.

Printable UTF-8 stands for itself, as in the server's log. A backslash is written twice, and every other byte as
`\\xNN`. So each name is written in one way, and can be typed in as it was printed. `\\n`, `\\t`, `\\r` and `\\uNNNN`,
which stand in the log, are read, too.
"""

import os
import re
from typing import Final

from darner_core.config.values import MAX_NAME_BYTES

_ESCAPED: Final = re.compile(rb"\\(x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[\\ntr]|)")
_PLAIN: Final = {b"\\": b"\\", b"n": b"\n", b"t": b"\t", b"r": b"\r"}
_NOT_IN_NAMES: Final = re.compile(rb"[\x00-\x20/\x7f]")


def write(name: bytes) -> str:
    """`name` as it can be typed in."""
    text = name.decode("utf-8", "surrogateescape").replace("\\", "\\\\")
    return text if text.isprintable() else "".join(one if one.isprintable() else _escaped(one) for one in text)


def _escaped(letter: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", "surrogateescape"))


def read(written: str) -> bytes:
    """The name that is written so. Raises ValueError, which says what is wrong, if no queue can have it."""
    name = _ESCAPED.sub(_meant, os.fsencode(written))
    if not name:
        raise ValueError("a queue's name has at least one byte")
    if len(name) > MAX_NAME_BYTES:
        raise ValueError(f"a queue's name has at most {MAX_NAME_BYTES} bytes, and this has {len(name)}")
    wrong = _NOT_IN_NAMES.search(name)
    if wrong is not None:
        raise ValueError(f'a queue\'s name has no spaces, controls and "/", and this has "{write(wrong[0])}"')
    return name


def _meant(found: "re.Match[bytes]") -> bytes:
    what = found[1]
    if what in _PLAIN:
        return _PLAIN[what]
    if not what:
        raise ValueError(r"in a queue's name a backslash is written \\, and any other byte \xNN")
    number = int(what[1:], 16)
    if what[:1] == b"x":
        return bytes((number,))
    try:
        return chr(number).encode()
    except (ValueError, OverflowError):
        raise ValueError(f'"\\{what.decode()}" is no letter of Unicode') from None
