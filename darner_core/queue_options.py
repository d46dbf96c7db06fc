"""What a queue may be told to do: its options, and where each of them is set.

Inheritance is Kestrel's: built in, then [default], then [queues.NAME], then for a fanout child [queues."NAME+CHILD"]. A
later one changes only what it names.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class QueueOptions:
    """One queue's options, as they are in effect. 0 is no limit, never, or none, where a number is meant."""

    max_items: int = 0  # open ones are counted
    max_bytes: int = 0  # of their bodies
    max_item_bytes: int = 0
    max_age_s: int = 0  # the longest that an item lives, whatever its expiry says
    discard_old_when_full: bool = False
    sync: str | int = ""  # as the server's `sync`; "": what that says
    expire_to_queue: bytes = b""
    max_expire_sweep: int = 0
    fanout_only: bool = False
    max_queue_age_s: int = 0  # an empty queue that nobody has used for so long is deleted
    open_transaction_timeout_s: int = 0
    max_open_reads: int = (
        100  # of one connection, where a dialect has several; what Kestrel's shipped configurations have
    )
    durable: bool = True
    trace: bool = False


BUILT_IN = QueueOptions()
BUILT_IN_LEVEL = "built in"


class QueueRules:
    """Which options each queue has."""

    def of(self, name: bytes, parent: bytes = b"") -> QueueOptions:
        """The options of queue `name`; `parent`: whose fanout child it is."""
        return BUILT_IN

    def describe(self, name: bytes, parent: bytes = b"") -> Iterator[tuple[str, Any, str]]:
        """Each option of the queue: its name, the value in effect, and the level that has set it."""
        for option, value in vars(self.of(name, parent)).items():
            yield option, value, BUILT_IN_LEVEL

    @property
    def named(self) -> tuple[bytes, ...]:
        """The queues that are named exactly: they exist from the start."""
        return ()
