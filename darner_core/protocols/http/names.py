"""Names of queues and numbers of items in paths and in JSON. Pure.

A name is any bytes: in a path they are percent-encoded, in JSON they are shown as text. See `protocols.escaping` for
names that hold bytes which the name of a queue cannot have.
"""

from http import HTTPStatus
from urllib.parse import quote, unquote_to_bytes

from darner_core.protocols.escaping import name_elsewhere, queue_name
from darner_core.protocols.grammar import excerpt
from darner_core.protocols.http.contract import Problem
from darner_core.showing import show


def queue_of(segment: str) -> bytes:
    """The queue that is called so in a path or a query. Raises Problem."""
    name = unquote_to_bytes(segment.encode("latin-1")) if "%" in segment else segment.encode("latin-1")
    queue = queue_name(name)
    if queue is None:
        raise Problem(
            HTTPStatus.BAD_REQUEST,
            f'queue name "{excerpt(name)}" of {len(name)} bytes: 1 to 250, those counted three times that a name cannot'
            " have (space, / and controls)",
        )
    return queue


def path_of(queue: bytes) -> str:
    """The name in a path."""
    return quote(name_elsewhere(queue), safe="")


def shown(queue: bytes) -> str:
    """The name in JSON, for people; bytes that are no text as \\xff."""
    return show(name_elsewhere(queue))


def number_of(word: str) -> int:
    """The number of an item; 0: no item has such a one."""
    return int(word) if word.isascii() and word.isdigit() and len(word) <= 16 else 0
