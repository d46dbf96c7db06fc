"""What an engine promises about jobs: items with a delay, a priority, a deadline, a unique key, or failures that count.

An item becomes a job by the options of its put or by what happens to it. A queue whose items use none of this works,
and costs, as if this module did not exist: its `counts_failures` is False, and its reads go back by `give_back`. An
engine may decline all of it.

Among equal priorities, what is ready goes out in the order of arrival. A delay or a failure does not change an item's
place in that order.
"""

from collections.abc import Iterator
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol

NEUTRAL: Final = 1024  # the priority of an item that was given none; 0 goes first
MAX_PRI: Final = 2**32 - 1
MAX_KEY_BYTES: Final = 200
MAX_DELAY_MS: Final = 2**48  # 8,900 years: what is due then can be written, whatever the clock says


class JobOptions(NamedTuple):
    """What a put asks for its item."""

    delay_ms: int = 0
    pri: int = NEUTRAL
    ttr_ms: int = 0  # how long a reader that asks for a deadline may keep it; 0: the queue's default_ttr_s
    key: bytes = b""  # unique in its queue while the item exists; b"": none
    first: bool = False  # before all that the queue holds, whatever `pri` says, and without a delay or a key


class Outcome(Enum):
    """What a put has come to."""

    STORED = "stored"
    KEY_TAKEN = "key taken"  # an item with this key is in the queue; nothing was put
    FULL = "full"  # a queue has no room, or takes nothing because it is paused


class Placed(NamedTuple):
    """What a put has come to, and where: in which queue, of several the first, and by which id it is known there. If
    the key is taken, that is the item that has it. 0: there is no such item."""

    outcome: Outcome
    queue: bytes
    id: int = 0


class Failure(Enum):
    """Why an item comes back without having been dealt with. Each counts."""

    ABORTED = "aborted"
    TIMED_OUT = "timed out"
    LOST = "connection lost"


class Pause(Enum):
    """What a paused queue does not do: `IN` takes no puts, `OUT` hands nothing out."""

    NONE = "none"
    IN = "in"
    OUT = "out"
    ALL = "all"


class Jobs(Protocol):
    """The jobs of all queues. All calls belong to the turn. They raise ServerError if the engine declines, or
    StorageError; then nothing has changed."""

    def put(
        self,
        names: tuple[bytes, ...],
        body: bytes,
        flags: int,
        expires_at_ms: int,
        options: JobOptions,
        as_child: bool = False,
    ) -> Placed:
        """Put an item everywhere or nowhere, making queues that do not exist. A key is looked up in the first queue;
        fanout children get copies without the key."""

    def answer_of_key(self, names: tuple[bytes, ...], key: bytes, as_child: bool = False) -> Placed | None:
        """What a put with this key comes to, whatever its item is and whether there is room; None: the key is free.
        Raises ServerError if the queue in which it is looked up keeps no items: it is fanout_only."""

    def put_large(self, transfer: Any, flags: int, expires_at_ms: int, options: JobOptions) -> Placed:
        """As `put`, for a large item of which all has come: in place of `Transfer.put`. Unless it is STORED, it is
        dropped when the Transfer ends."""

    def ttr_ms(self, read: Any) -> int:
        """How long a reader that asked for the item's own deadline may keep this Read; 0: without a deadline."""

    def most_hold_ms(self, read: Any) -> int:
        """The longest that the reader may keep it by touching it again and again (max_hold_s); 0: for ever."""

    def fail(
        self,
        read: Any,
        why: Failure,
        client: bytes = b"",
        delay_ms: int | None = None,
        pri: int | None = None,
        counted: bool = False,
    ) -> None:
        """This Read comes back, and that counts. It is ready again after `delay_ms`, or else after its queue's retry
        delay. The failure that makes it max_deliveries sends it to the dead letter queue in the same turn, or buries it
        where there is none. Nothing happens if it is not open. `client` is told in the dead letter's history. If the
        engine cannot read the item now, it comes back uncounted, because a connection that ends cannot be refused.
        `counted`: the failure is written also if the queue's options say nothing of failures."""

    def reject(self, read: Any, client: bytes = b"") -> None:
        """Send the item to the dead letter queue, or bury it, at once. Nothing happens if it is not open."""

    def history(self, read: Any) -> bytes:
        """What has become of this open item, if it came to its queue as a dead letter: from where, under which id, how
        often it failed, why last, which client, when it was first put. b"" for others."""

    def kick(self, name: bytes, most: int) -> int:
        """Make up to `most` buried items ready, or delayed ones if none is buried; how many. An engine may stop at some
        thousand: whoever wants more calls again in another turn."""

    def pause(self, name: bytes, pause: Pause, seconds: int = 0, make: bool = False) -> None:
        """From now on, for so many seconds, or until another pause: kept over a restart. The queue must exist, or is
        made with `make`."""

    def paused(self, name: bytes) -> Pause: ...

    def pause_left_ms(self, name: bytes) -> int:
        """How long it still lasts; 0: it has no end, or there is none."""

    def figures(self, name: bytes) -> Iterator[tuple[bytes, int]]:
        """ready, urgent (ready ones with a priority below NEUTRAL), delayed, buried, reserved, failures, dead_lettered,
        set_aside, paused (1: puts, 2: gets); empty if the queue uses none of it. Failures and dead letters are those
        since the start."""
