"""What every queue engine promises to the operations, protocols and server above it: Engine, Registry, Queue, Read.

An engine owns queues and their items. It knows nothing of clients, sessions, protocols or rights. Code above names only
these types. The engine of this process is `engines.local`.

Three rules hold for all engines.

*Turns.* Calls are made within a turn of the event loop. What they change is applied in memory at once, and is durable
before the turn's replies leave. If that fails, the engine takes back everything that the turn has changed, and the
replies of the turn become errors.

*Waiting.* No call switches greenlets, except those that say so. An engine across a network often cannot answer at
once: `take`, `peek` and `open` then return None with `half_swept` set, which means "later". The caller goes on in a
greenlet of its own, where it calls `drop_expired` until that returns True, and asks again. A local queue gives the same
answer when more items at its head have expired than one turn can remove, so code above has one way for both.

*Declining.* A promise marked "may decline" is one that an engine may not be able to keep. It then raises ServerError,
with words for the client, and has changed nothing. Every other promise must be kept. If an engine has to do more for a
put than `Queue.put` promises, it sets `governed` on all of its queues.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from darner_core.config.queues import QueueOptions
from darner_core.engines.jobs import Failure, Jobs
from darner_core.engines.large_items import Download, Large, LargeBody, LargeItems, Transfer
from darner_core.waiters import Waiter, WaitingLine

if TYPE_CHECKING:
    from darner_core.engines.items import Items

# (body, the client's flags, when it expires in ms since 1970 or 0: never, when it was put in ms since 1970)
Item = tuple[bytes | LargeBody, int, int, int]


class Turn(Protocol):
    """The turn of the event loop, as the engine and its callers share it."""

    # (function, its arguments): called in reverse order if the turn cannot be written.
    undo: list[tuple[Any, ...]]
    # Work that is too much for one turn: each iterator advances by one step a turn.
    slices: deque[Iterator[None]]

    def time_ms(self) -> int:
        """Milliseconds since 1970, the same throughout a turn."""


# -- reads


class Read(Protocol):
    """An item that was handed out and is not confirmed. There is a new object each time an item is handed out."""

    id: int  # unique within its queue, in order of arrival
    body_bytes: int
    blob: int  # the number of the large item; 0: it is not large
    returned: bool  # it has been given back, and waits again
    counted: bool  # among its queue's `transactions`

    @property
    def queue(self) -> "Source": ...

    def count(self) -> None:
        """A client holds it from now on: it is one of the source's `transactions`."""

    def uncount(self) -> None:
        """Undo `count`."""


class Holder(Protocol):
    """What holds an open read for a client, and closes it."""

    def unclose(self, read: Any) -> None:
        """The turn in which it closed this Read could not be written: it is open again."""


# -- queues


class Source(Protocol):
    """What items are taken from: a queue, or a durable cursor on one.

    One reader at a time holds an item; an item that is given back comes first again. Where a call takes a read, it is
    one that this source has handed out.
    """

    name: bytes
    options: QueueOptions
    deleted: bool
    damage: str  # why the head cannot be read; "" if it can
    transactions: int  # reads that clients have opened
    total_flushes: int
    line: WaitingLine | None  # of the clients that wait; None: nobody does

    @property
    def counts_failures(self) -> bool:
        """Whether its reads go back by `Jobs.fail` when their clients have failed, and not by `give_back`."""

    @property
    def half_swept(self) -> bool:
        """Whether the last None meant "later", not "empty"."""

    @property
    def unreadable(self) -> bool:
        """Whether it can only be deleted: all other calls raise DamagedError."""

    @property
    def outstanding(self) -> Collection[int]:
        """The ids of items that are open, or were given back and wait."""

    @property
    def large_items(self) -> LargeItems:
        """Raises StorageError."""

    @property
    def opener(self) -> "Source":
        """What is to be asked for the next item by whoever has been handed one of this source: itself, unless this is
        a part of another."""

    # -- must be kept

    def open(self) -> Read | None:
        """Hand out the head until it is closed or given back; None: empty, or later. Raises StorageError."""

    def take(self) -> Item | Large | None:
        """Remove the head and return it; LARGE, with nothing removed, if it is large; None: empty, or later. Raises
        StorageError."""

    def item_of(self, read: Any) -> Item:
        """The item of an open read, once. Raises StorageError."""

    def holds(self, read: Any) -> bool:
        """Whether the read is still open: its queue may have been deleted, or its turn taken back."""

    def close(self, read: Any, holder: Holder | None = None) -> None:
        """Remove the item, which has been dealt with. Nothing happens if it is not open. If the turn fails, `holder`
        holds the read again; without a holder the item waits again. Raises StorageError, with nothing changed."""

    def give_back(self, read: Any, wake: bool = True) -> None:
        """The item waits again, ahead of all that was never handed out. Nothing happens if it is not open. Clients that
        wait are served, unless `wake` is False."""

    def drop_expired(self) -> bool:
        """Go on with what "later" means; False: call again in another turn. Raises StorageError. An engine across a
        network may wait here, so only code in a client's own greenlet calls it."""

    def cannot_be_read(self, error: Any) -> Exception:
        """What to raise for a StorageError that was met while an item was sent. The log says it once."""

    # -- may decline

    def peek(self) -> Item | None:
        """The head, which stays; None: empty, or later. Raises StorageError."""

    @property
    def head_id(self) -> int:
        """The id of what `peek` shows."""

    def take_back(self, read: Any) -> None:
        """Undo `give_back` in a turn that failed: the read is open again. An engine whose items go elsewhere at once
        leaves it given back; closing it later does nothing."""

    def flush(self) -> None:
        """Remove all that waits; open items stay open. A cursor goes back to the head of its queue. Raises
        StorageError, with nothing changed."""

    # -- figures: 0 where the engine does not know

    @property
    def waiting_items(self) -> int: ...

    @property
    def open_reads(self) -> int: ...

    @property
    def created_at_ms(self) -> int: ...


class Queue(Source, Protocol):
    """A FIFO of items."""

    @property
    def governed(self) -> bool:
        """Whether a put has to go through `Routing`."""

    @property
    def durable(self) -> bool:
        """Whether its items outlive the server."""

    @property
    def is_child(self) -> bool:
        """Whether it is a fanout child: it gets a copy of all that is put into its parent."""

    @property
    def cursors(self) -> Mapping[bytes, Source] | None:
        """By name. None: there are none."""

    def put(self, body: bytes, flags: int, expires_at_ms: int) -> None:
        """Append an item to a queue that is not `governed`. `expires_at_ms` must be 0. The item goes to the client that
        has waited longest, if any waits."""

    @property
    def waiting_bytes(self) -> int: ...

    @property
    def total_items(self) -> int:
        """Items put since the server started."""

    expired_items: int
    lost_expired: int  # expired items that could not go to the queue that takes them
    discarded: int  # items that had to make room for others
    canceled_transactions: int

    @property
    def log_bytes(self) -> int:
        """Bytes on disk, including those of items that are gone and still take room."""

    @property
    def window(self) -> Collection[tuple[Any, ...]]:
        """The items that are in memory."""

    def head_added_at_ms(self) -> int:
        """When the head was put; 0 if nothing waits. Raises StorageError."""


class Cursors(Protocol):
    """The durable cursors of all queues. An engine may decline them all."""

    def of(self, queue: Any, name: bytes, peeks: bool = False) -> Source:
        """The cursor of this name on this Queue, made if there is none. With `peeks` none is made: the queue itself
        is returned then. Raises ServerError."""

    def delete(self, queue_name: bytes, name: bytes) -> None:
        """Nothing happens if there is none."""

    def flush(self, queue_name: bytes, name: bytes) -> None:
        """Put the cursor back to the head of its queue. Nothing happens if there is none. Raises StorageError."""


class AliasCounts(Protocol):
    """What has been put by an alias's name since the server started."""

    put_items: int
    put_bytes: int


class Routing(Protocol):
    """Where an item goes: into its queue and the fanout children of that, or an alias's queues, as limits allow.

    `as_child` says that the one name is a fanout child's, which is made if need be.
    """

    def put(
        self, names: tuple[bytes, ...], body: bytes, flags: int, expires_at_ms: int, as_child: bool = False
    ) -> Collection[Queue] | None:
        """Put an item everywhere or nowhere, making queues that do not exist; the queues that have it now. None: there
        was no room. Raises ServerError or StorageError, with nothing changed."""

    def fit(self, names: tuple[bytes, ...], sizes: Sequence[int]) -> bool:
        """Whether items of these sizes, put one after the other, find room. Nothing is made. Raises StorageError."""

    def transfer(self, names: tuple[bytes, ...], size: int, as_child: bool = False) -> Transfer:
        """A large item of this size for these queues. May decline."""

    @property
    def aliases(self) -> Mapping[bytes, tuple[bytes, ...]]: ...

    @property
    def alias_counts(self) -> Mapping[bytes, AliasCounts]: ...


class Registry(Protocol):
    """The queues by name. A queue that does not exist is made by the first put; asking for one makes nothing."""

    @property
    def queues(self) -> Mapping[bytes, Queue]:
        """Those that can be reached. The hot path looks names up here; an engine that does not know which queues there
        are has a mapping that answers every name."""

    @property
    def aliases(self) -> Collection[bytes]:
        """Names that stand for other queues: puts go there, and there is nothing to take."""

    @property
    def cursors(self) -> Cursors: ...

    @property
    def hidden(self) -> Mapping[bytes, Queue]:
        """Queues that cannot be reached, because an alias has their name."""

    creates: int
    deletes: int
    expires: int  # deletes of queues that nobody had used for too long
    total_items_of_deleted: int

    @property
    def awaited_count(self) -> int:
        """Queues and cursors that do not exist and are waited for."""

    def options(self, name: bytes, is_child: bool = False) -> QueueOptions:
        """Of the queue with this name, which need not exist."""

    # -- must be kept

    def join_line(self, name: bytes, cursor: bytes, peeks: bool, waiter: Waiter | None = None) -> Waiter:
        """Stand in line for an item of queue `name`, or of a cursor on it if `cursor` is not b"", whether these exist
        or not. Returns a new waiter; or `waiter`, which stands in other lines as well and gets one item from all of
        them. A waiter is handed a Read; if it peeks, a Source to look at. Raises ServerError if no more may wait. See
        `leave_line`."""

    def leave_line(self, name: bytes, cursor: bytes) -> None:
        """Must be called, with the same name and cursor, once the waiter has been decided."""

    def waiters(self, name: bytes) -> int:
        """How many clients wait for an item of the queue `name`, which need not exist."""

    def children_of(self, parent: bytes) -> Collection[bytes]:
        """The names of the fanout children of a queue, which need not exist."""

    def flush(self, name: bytes) -> None:
        """As Queue.flush. Nothing happens if the queue does not exist."""

    # -- may decline

    def create(self, name: bytes) -> Queue:
        """Make the queue, which must not exist, nor be an alias. Raises ServerError if there may be no more."""

    def delete(self, name: bytes) -> None:
        """Remove the queue with all of its items. Nothing happens if it does not exist. Clients that wait go on waiting
        for the next queue of this name."""

    def child(self, name: bytes) -> Queue | None:
        """The fanout child `name`, made if there is none; None: it is an alias. Raises ServerError."""


# -- beside the queues


class Event(NamedTuple):
    """Something that has happened to a queue."""

    queue: bytes
    what: bytes
    time_ms: int
    id: int = 0  # of the item; 0: the event is about several items, or about the queue
    body_bytes: int = -1  # -1: not known here
    flags: int = -1  # -1: not known here
    start: bytes | None = None  # how the body begins
    items: int = -1  # how many items it is about; -1: one


class Observer(Protocol):
    def tell(self, event: Event) -> None:
        """This has happened, and has been written. Must not change a queue."""


class Traces(Protocol):
    """Which queues are watched, by name, and by whom."""

    def watch(self, name: bytes, observer: Observer) -> bool:
        """Tell `observer` from now on what happens to queue `name`; False: it does not exist yet. May decline."""

    def unwatch(self, name: bytes, observer: Observer) -> None: ...


class Sweeper(Protocol):
    def wait_sweep(self, only: Any = None) -> None:
        """Remove all expired items, or those of one Queue. Switches greenlets. Raises StorageError."""


class Leases(Protocol):
    """Open reads with a deadline of their own. Any client confirms or aborts one by an id; or a session holds it."""

    at_once: int  # how many leases may be confirmed in one turn
    aborted_at_once: int  # how many may be aborted, which may be a failure of each
    sending: dict[Any, Download]  # by Read: the large items that are on their way to clients

    def opened_by(self, owner: object, queue: bytes) -> int:
        """How many leases on items of `queue` the owner has."""

    def next_ids(self, count: int) -> range:
        """`count` new ids, for `hold`."""

    def room(self, queue: bytes) -> int:
        """How many leases more there may be on items of `queue`."""

    def hold(
        self, lease_id: int, read: Any, owner: object, lasts_ms: int, client: bytes = b"", most_ms: int = 0
    ) -> None:
        """This Read has been handed to a client that knows it by `lease_id`, and goes back after `lasts_ms`. `client`:
        who that is. `most_ms`: the longest that `touch_known` may keep it; 0: for ever."""

    def bind(self, read: Any, lasts_ms: int, most_ms: int = 0, client: bytes = b"", counted: bool = False) -> Any:
        """What a session is to hold in the place of this Read, which is open and then goes back after `lasts_ms`.
        `most_ms`: the longest that `touch` may keep it; 0: for ever. `counted`: that its time is over, or its client
        lost, is written as a failure also if the queue's options say nothing of failures."""

    def touch(self, read: Any, lasts_ms: int = 0) -> bool:
        """From now on the deadline of what a session holds is in `lasts_ms`; 0: in as long a time as it first had.
        False: it is open no more. What has no deadline gets none."""

    def end(self, read: Any) -> Read:
        """The Read that a session holds, perhaps in the form that `bind` has given it. If it has a lease, that ends in
        this turn."""

    def fail(self, read: Any, why: Failure, client: bytes) -> None:
        """This Read, perhaps in the form that `bind` has given it, goes back. Where failures count, this is one, unless
        that cannot be written. If it has a lease, that ends in this turn."""

    def confirm(self, queue: bytes, ids: Iterable[int]) -> int:
        """Remove the items of these leases; how many items that were. Raises StorageError, with nothing changed."""

    def abort(self, queue: bytes, ids: Iterable[int]) -> int:
        """Let the items of these leases wait again, in their order; how many items that were."""

    def hand_back(self, queue: bytes, ids: Iterable[int], give_back: Callable[[Any, bytes], object]) -> int:
        """Let `give_back(read, client)` take what is open of these, in the order of the items; how many items that
        were. `client`: who has had it. Raises StorageError or ServerError, with nothing changed; if that is met behind
        the first, it is the end, and those before it are counted."""

    def touch_known(self, queue: bytes, ids: Iterable[int], lasts_ms: int = 0) -> int:
        """From now on the deadline of these leases is in `lasts_ms`; 0: in as long a time as it first was. How many of
        them are open."""

    def require_decided(self, queue: bytes, ids: Iterable[int]) -> None:
        """Raises StorageError if one of these is open, although an earlier turn decided on it: that turn was undone."""


class Budget(Protocol):
    """What the queues may hold in memory together."""

    budget_bytes: int
    used_bytes: int


class Engine(Protocol):
    """An engine, as the packages above it see it: the parts that it has built."""

    @property
    def registry(self) -> Registry: ...

    @property
    def routing(self) -> Routing: ...

    @property
    def journal(self) -> Turn: ...

    @property
    def sweeper(self) -> Sweeper: ...

    @property
    def traces(self) -> Traces: ...

    @property
    def leases(self) -> Leases: ...

    @property
    def jobs(self) -> Jobs: ...

    @property
    def items(self) -> "Items": ...

    @property
    def budget(self) -> Budget: ...

    @property
    def free_bytes(self) -> Callable[[], int]:
        """How much may still be written. Raises StorageError."""
