"""What an engine promises about single items: looked at where they lie, and reached by their ids, whatever their state.

Protocols whose clients name an item, and whoever shows what is in a queue, need it. An engine may decline all of it; it
then raises ServerError, with nothing changed.

An item is known by the name of its queue and its id there, or by one number for all queues: its public number.
"""

from enum import Enum
from typing import Any, NamedTuple, Protocol

from darner_core.engines.contract import Item, Read


class State(Enum):
    """What an item is waiting for."""

    READY = "ready"  # to be handed out
    DELAYED = "delayed"  # its time
    BURIED = "buried"  # somebody who kicks it
    OPEN = "open"  # whoever has it


class Seen(NamedTuple):
    """An item, as it is at the moment."""

    id: int
    state: State
    pri: int
    ttr_ms: int  # 0: its queue's default_ttr_s
    due_ms: int  # when a delayed one is ready, in ms since 1970; 0: it is not delayed
    body_bytes: int
    flags: int
    added_at_ms: int
    expires_at_ms: int  # 0: never
    key: bytes = b""
    note: bytes = b""  # a dead letter's history
    nacks: int = 0
    timeouts: int = 0
    losses: int = 0
    buries: int = 0
    kicks: int = 0
    position: Any = None  # among those of its state, see `Items.look`


class Items(Protocol):
    """The items of all queues. A queue that does not exist has none. All calls belong to the turn, and raise
    StorageError with nothing changed. What has expired is as good as gone."""

    # -- looking

    def look(
        self, name: bytes, state: State = State.READY, after: Any = None, most: int = 100, backwards: bool = False
    ) -> list[Seen]:
        """Up to `most` items in this state, in the order in which they would leave it, from behind the position `after`
        on; None: from the first. `backwards`: the other way, from before `after`; None: from the last. Ready, delayed
        and buried ones are those that nobody has open. Open ones come by their ids. A look that meets
        a thousand expired ones may end there."""

    def find(self, name: bytes, item_id: int) -> Seen | None:
        """None: there is no such item."""

    def item(self, name: bytes, item_id: int) -> Item | None:
        """With its body. It stays where it is, also if it is open; None: there is no such item."""

    def rank(self, name: bytes) -> tuple[int, int] | None:
        """(priority, when it was put in ms since 1970) of what `open` would hand out; None: nothing, or later (see
        `Source.half_swept`)."""

    # -- changing

    def open(self, name: bytes, item_id: int) -> Read | None:
        """Hand out this item, ready, delayed or buried; None: it is not there, or open. A line's item that is not the
        head goes aside, and keeps its id and its place."""

    def remove(self, name: bytes, item_id: int) -> bool:
        """The item is gone, whatever its state, and also if somebody has it open, whose read then holds nothing; False:
        there is no such item."""

    def kick(self, name: bytes, item_id: int) -> bool:
        """Make a delayed or buried item ready; False: it is open, or neither."""

    def bury(self, read: Any, pri: int | None = None) -> None:
        """What is open, perhaps in the form that `Leases.bind` or `hold` has given it, is buried: no failure. Nothing
        happens if it is not open. `pri`: its priority from now on. If the turn fails, it is open as before."""

    def postpone(self, read: Any, due_ms: int) -> None:
        """As `bury`, for what is to be delayed until then."""

    def requeue(self, read: Any, body: bytes, first: bool) -> None:
        """What is open, and has this body, becomes the last of its queue, or the `first`, under another id. No limit
        refuses it, because the queue does not grow. Raises ServerError as a put does."""

    # -- queues as lists

    def head_at_left(self, name: bytes) -> bool | None:
        """Whether the head of the queue is the left end of what clients see as a list, or else the right one; None:
        nobody has said it, or there is no such queue."""

    def set_head_at_left(self, name: bytes, at_left: bool) -> None:
        """Say it. It is kept over restarts, and goes with the queue. Nothing happens if there is none."""

    # -- what clients hold without a connection

    def hold(self, read: Any, lasts_ms: int, client: bytes = b"", most_ms: int = 0, counted: bool = False) -> None:
        """What is open is from now on held by whoever knows its id, and comes back after `lasts_ms`, which is a
        failure. `most_ms`, `counted`: as for `Leases.bind`. It counts for max_leases: see `Leases.room`."""

    def held(self, name: bytes, item_id: int) -> Any:
        """What `hold` has made of this item, for `Leases.touch` and `Leases.fail`, or for `Leases.end`, whose answer
        `Jobs.fail` and a Source take; None: it is not held in this way. If the turn fails, it is held as before."""

    def left_ms(self, name: bytes, item_id: int) -> int:
        """How long until this open item comes back, whoever holds it; -1: it is not open, or has no deadline."""

    # -- numbers

    def number(self, name: bytes, item_id: int) -> int:
        """The public number of an item that is there. It is given when it is first asked for, and stays, also over a
        restart. Numbers begin with 1, are not used again, and leave few gaps. At most 2**53. Raises
        ServerError if there is no such queue."""

    def numbered(self, number: int) -> tuple[bytes, int] | None:
        """(queue, id) of the item that has this public number; None: none has. The item may be gone."""

    def queue_number(self, name: bytes) -> int:
        """Of a queue: below 2**32, and its own as long as it exists. 0: it does not exist."""

    def queue_numbered(self, number: int) -> bytes | None: ...

    @property
    def identity(self) -> tuple[bytes, bytes]:
        """(20 bytes, 16 bytes): what this data directory is called, and a secret. They stay over restarts, and both
        are random."""
