"""The options of a get: what they say of a job, or of several items, and which of them go together. Pure: words in,
values or a RequestError out.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from darner_core.errors import ClientError
from darner_core.protocols.options import Options, listed, value_of

PUT_OPTIONS = (b"sync", b"delay", b"pri", b"ttr", b"key")
READ_OPTIONS = (b"open", b"close", b"abort", b"reject", b"peek", b"t", b"ttr", b"n", b"id", b"delay", b"pri")

# What makes sense only beside one of these.
NEEDS = {
    b"ttr": (b"open",),
    b"n": (b"open", b"close"),
    b"id": (b"close", b"abort", b"reject"),
    b"delay": (b"abort",),
    b"pri": (b"abort",),
}


class ReadOptions(NamedTuple):
    """What a get says of a job, or of several items."""

    ttr_ms: int | None = None  # how long the item may stay open; 0: as long as the item says; None: no deadline
    most: int = 0  # how many items are opened or closed; 0: one
    item_id: int = 0  # which item is closed, aborted or rejected; 0: the oldest
    delay_ms: int | None = None  # when what is aborted comes again; None: as the queue says
    pri: int | None = None  # its priority then; None: as before
    rejects: bool = False


def read_options(options: Options) -> ReadOptions | None:
    """What a get says of a job, or of several items; None: nothing. Raises MalformedRequest."""
    if not any(option in options for option in (*NEEDS, b"reject")):
        return None
    ttr_ms, delay_ms, pri = (value_of(options, option) for option in (b"ttr", b"delay", b"pri"))
    most, item_id = value_of(options, b"n") or 0, value_of(options, b"id") or 0
    return ReadOptions(ttr_ms, most, item_id, delay_ms, pri, b"reject" in options)


def require_together(options: Mapping[bytes, bytes], exclusive: Iterable[tuple[bytes, bytes]]) -> None:
    """Raises ClientError for options of a get that contradict each other, or lack another."""
    for pair in exclusive:
        if all(option in options for option in pair):
            raise ClientError(f"cannot {pair[0].decode()} and {pair[1].decode()} in one get")
    for option, needed in NEEDS.items():
        if option in options and not any(one in options for one in needed):
            raise ClientError(f"/{option.decode()} without {listed(needed, 'or')}: it says something about that")
    if b"n" in options and b"id" in options:
        raise ClientError("cannot have /n and /id in one get: /id is one item")
    if b"n" in options and b"open" in options and b"close" in options:
        raise ClientError("cannot close and open with /n in one get: send two")
