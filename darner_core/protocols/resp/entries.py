"""What one command of RESP is to the table: what runs it, and how many words it is told. Pure."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Entry(NamedTuple):
    """run    (request, body, session) -> reply, see `protocols.contract`
    least  how many words it is told at least, itself not counted
    most   and at most; None: any number
    kind   WRITES or READS, see `contract.Command`
    returns_items  whether its reply may have items in it, and so be long
    """

    run: Callable[..., Any]
    least: int = 0
    most: int | None = None
    kind: str = ""
    returns_items: bool = False
