"""What a user may do: patterns of the names of queues to put into, to get from, and to administer.

    [users.alice]
    put = ["mail", "mail.*"]     set
    get = ["mail.*"]             get, gets, /peek included
    admin = []                   delete, flush, watch; flush_all needs "*"

A pattern is matched against the whole name; case counts. `*` is any number of bytes, `?` is one, `[abc]` one of these,
`[!abc]` any other. What is not given is not allowed.

Reading a fanout child gives a copy of all that is put into its parent, and naming a child creates it. So a pattern
without a + gives a right to `parent+child` only if some pattern gives that right to the parent. Only the name counts,
not how a listener's dialect reads it: the queue is the same for all dialects. No sockets and no users here.
"""

import fnmatch
import re
from collections.abc import Iterable
from typing import Any

PUT, GET, ADMIN = "put", "get", "admin"
ADMIN_ALL = "admin all"  # for what concerns all queues: "*" must be among the patterns of ADMIN
FREE = ""  # what every user may do

EVERY_QUEUE = "*"

_KINDS = (PUT, GET, ADMIN)

_BRACKETS = re.compile(rb"\[!?\]?[^\]]*\]")


def matcher(patterns: Iterable[str]) -> "re.Pattern[bytes]":
    """A regular expression for the names that match any of `patterns`."""
    # Names are bytes, and fnmatch translates text. As latin-1 each byte is one letter.
    parts = [fnmatch.translate(pattern.encode().decode("latin-1")) for pattern in patterns]
    return re.compile("|".join(parts or ["(?!)"]).encode("latin-1"))


def is_for_children(name: bytes) -> bool:
    """Whether this name, or pattern, is about fanout children."""
    return b"+" in _BRACKETS.sub(b"", name)


class Rights:
    """The rights of one user."""

    __slots__ = ("_patterns", "_matchers", "_of_children", "everything")

    def __init__(self, patterns: dict[str, tuple[str, ...]]) -> None:
        """`patterns` of names, by PUT, GET and ADMIN."""
        self._patterns = {kind: patterns.get(kind, ()) for kind in _KINDS}
        self._matchers = {kind: matcher(self._patterns[kind]).match for kind in _KINDS}
        self._of_children = {
            kind: matcher([one for one in self._patterns[kind] if is_for_children(one.encode())]).match
            for kind in _KINDS
        }
        self.everything = all(EVERY_QUEUE in self._patterns[kind] for kind in _KINDS)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rights) and other._patterns == self._patterns

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Rights({self._patterns})"

    def allow(self, kind: str, queue: bytes) -> bool:
        """Whether an action of this kind may be done to `queue`, which is b"" for ADMIN_ALL and FREE."""
        if self.everything or kind == FREE:
            return True
        if kind == ADMIN_ALL:
            return EVERY_QUEUE in self._patterns[ADMIN]
        return self._matches(kind, queue)

    def _matches(self, kind: str, queue: bytes) -> bool:
        parent, plus, child = queue.partition(b"+")
        is_child = parent and plus and child
        if is_child and self._matchers[kind](parent) is None:
            return self._of_children[kind](queue) is not None
        return self._matchers[kind](queue) is not None

    def any_to(self, queue: bytes) -> bool:
        """Whether any right to `queue` is given; if so, its name may be seen."""
        return any(self._matches(kind, queue) for kind in _KINDS)


EVERYTHING = Rights(dict.fromkeys(_KINDS, (EVERY_QUEUE,)))
NOTHING = Rights({})


def parse_rights(table: Any) -> Rights:
    """The rights in a user's table, as TOML has it. Raises ValueError saying which key is bad and what is allowed."""
    if not isinstance(table, dict):
        raise ValueError("must be a table with put, get and admin")
    for kind, patterns in table.items():
        if kind not in _KINDS:
            raise ValueError(f"must be a table with put, get and admin, and {kind!r} is none of them")
        if not isinstance(patterns, list) or not all(isinstance(pattern, str) and pattern for pattern in patterns):
            raise ValueError(f'must be a table whose {kind} is a list of patterns of queue names, as in ["mail.*"]')
    return Rights({kind: tuple(patterns) for kind, patterns in table.items()})
