"""Names of queues and ids of jobs as commands of RESP have them, and the numbers among their words."""

import re
from typing import Final, NamedTuple

from darner_core.engines.items import Items
from darner_core.protocols.escaping import queue_name
from darner_core.protocols.grammar import excerpt
from darner_core.protocols.resp.ids import JobIds
from darner_core.protocols.resp.replies import RespError
from darner_core.protocols.resp.session import RespSession

MAX_NUMBER: Final = 2**63 - 1

_INTEGER: Final = re.compile(rb"-?\d{1,19}")


def queue_of(name: bytes, session: RespSession, *rights: str) -> bytes:
    """The queue that a client calls `name`. Raises RespError if there can be none, or the client lacks a right."""
    queue = queue_name(name)
    if queue is None:
        raise RespError(f"queue name of {len(name)} bytes: 1 to 250, those counted three times that have to be escaped")
    for right in rights:
        session.require(right, queue)
    return queue


def integer_of(word: bytes, error: str = "value is not an integer or out of range") -> int:
    """Raises RespError."""
    if not _INTEGER.fullmatch(word) or not -MAX_NUMBER <= int(word) <= MAX_NUMBER:
        raise RespError(error)
    return int(word)


def unknown_option(word: bytes, allowed: str) -> RespError:
    return RespError(f"syntax error: '{excerpt(word)}' is none of {allowed}")


class Located(NamedTuple):
    """Where a job is that a client names by its id."""

    id: bytes
    queue: bytes  # b"": this server knows no such queue, or none any longer
    queue_number: int
    item_id: int


def locate(job: bytes, ids: JobIds, items: Items, session: RespSession, right: str) -> Located:
    """Raises RespError if it is no id, or the client lacks this right to its queue."""
    number, item_id = ids.read(job)
    queue = (items.queue_numbered(number) if number else None) or b""
    if queue:
        session.require(right, queue)
    return Located(job, queue, number, item_id)
