"""What an item is on its way, and what the places it comes from and goes to promise."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from darner_core.config.values import MAX_NAME_BYTES
from darner_core.ctl import names
from darner_core.ctl.errors import CtlError

# A larger body is handed on in pieces and is never whole in memory.
WHOLE_BYTES: Final = 1 << 20
PIECE_BYTES: Final = 1 << 16

_NOT_OURS: Final = re.compile(rb"[\x00-\x20/\x7f]")


@dataclass(slots=True)
class Item:
    """`body` is the whole body, or, if `size` is over WHOLE_BYTES, its pieces, which can be read once. What is None, 0
    or empty is not known, or not said. `expires_at`: seconds since 1970."""

    size: int
    body: bytes | Iterator[bytes] = field(repr=False)
    flags: int = 0
    id: int = 0
    pri: int | None = None
    ttr_ms: int | None = None
    delay_ms: int = 0
    expires_at: int = 0
    key: bytes = b""
    is_buried: bool = False
    failures: int = 0

    def pieces(self) -> Iterator[bytes]:
        if isinstance(self.body, bytes):
            return iter((self.body,))
        return self.body


class Listed(NamedTuple):
    """A queue of a source. `note`: what of it cannot be taken, and why; "": all can."""

    name: bytes
    items: int
    note: str = ""


class Source(Protocol):
    """Items that are taken in batches. A batch is settled before the next is asked for. After an error, or when the
    process ends, what was taken and not confirmed is there again, in its place."""

    def queues(self) -> list[Listed]:
        """What there is. Raises CtlError."""

    def batch(self, queue: bytes, most: int) -> Iterator[Item]:
        """Take the next items, in order; none: there are no more. Each has to be read before the next is asked for.
        Raises CtlError."""

    def confirm(self, queue: bytes) -> int:
        """All of the last batch is stored elsewhere. Returns how many of it others may have got meanwhile. Raises
        CtlError."""

    def confirm_some(self, queue: bytes, stored: Sequence[bool]) -> int:
        """As `confirm`, when only some of the batch are stored. Returns how many are stored, and yet stay here."""

    def left(self, queue: bytes) -> str:
        """What is still there after the last batch, for a person; "": nothing."""

    def told(self) -> list[str]:
        """What could not be read, one line each."""

    def close(self) -> None: ...


class Refusal(NamedTuple):
    place: int  # of the item in the batch
    why: str


class Target(Protocol):
    def put(self, queue: bytes, item: Item) -> None:
        """Put an item at the tail. The answer may come with `settle`. Raises CtlError."""

    def settle(self) -> list[Refusal]:
        """Wait until all that was put since the last call is stored for good, or refused. Raises CtlError."""

    def close(self) -> None: ...


def our_name(name: bytes) -> bytes:
    """The queue for a name elsewhere: a byte that no queue's name can have stands as % and two digits, as the listeners
    of these protocols write it. Raises CtlError."""
    ours = _NOT_OURS.sub(lambda found: b"%%%02X" % found[0][0], name)
    if not ours or len(ours) > MAX_NAME_BYTES:
        shown = names.write(name[:100])
        raise CtlError(f"the name {shown} of {len(ours)} bytes: a queue's name has 1 to {MAX_NAME_BYTES}")
    return ours
