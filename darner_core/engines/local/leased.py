"""A read with a deadline of its own, as `leases` knows it, and as a session holds it.

No call here switches greenlets.
"""

from math import inf
from typing import TYPE_CHECKING

from darner_core.engines.contract import Holder, Item, Read
from darner_core.engines.large_items import LargeItems

if TYPE_CHECKING:
    from darner_core.engines.local.leases import Leases


class Lease:
    """A read with a deadline of its own. As a Holder it is told when a close has to be undone."""

    __slots__ = (
        "id", "read", "owner", "client", "due", "entered", "lasts_ms", "latest", "counted", "held", "_leases",
    )  # fmt: skip

    def __init__(
        self,
        leases: "Leases",
        lease_id: int,
        read: Read,
        owner: object,
        due: float,
        client: bytes = b"",
        lasts_ms: int = 0,
        latest: float = inf,
    ) -> None:
        self.id = lease_id
        self.read = read
        self.owner = owner
        self.client = client  # who has it, for the history of a dead letter
        self.due = due  # when the item goes back, by the clock
        self.counted = False  # that its time is over, or its client lost, is written also where failures do not count
        self.held: Leased | None = None  # what nobody's session holds, and is known by queue and id
        self.entered = due  # as it stands among all deadlines
        # Of one that is known by its id: how long it lasts if nobody touches it, and until when anybody may keep it.
        self.lasts_ms = lasts_ms
        self.latest = latest
        self._leases = leases

    def unclose(self, read: Read) -> None:
        self._leases.keep(self)


class Leased:
    """A read with a lease, as a session holds it. To the session it is the read, and the read's queue as well; that
    spares all sessions the question whether a read has a lease."""

    __slots__ = ("read", "lease", "since", "lasts_ms", "most_ms", "_leases")

    def __init__(self, leases: "Leases", lease: Lease, since: float, lasts_ms: int, most_ms: int) -> None:
        self.read: Read = lease.read
        self.lease = lease
        self.since = since  # when the client got it, by the clock
        self.lasts_ms = lasts_ms  # how long it may stay open if the client does not touch it
        self.most_ms = most_ms  # how long it may stay open however often the client does; 0: for ever
        self._leases = leases

    # -- as a Read

    @property
    def queue(self) -> "Leased":
        return self

    @property
    def id(self) -> int:
        return self.read.id

    @property
    def body_bytes(self) -> int:
        return self.read.body_bytes

    @property
    def blob(self) -> int:
        return self.read.blob

    @property
    def returned(self) -> bool:
        return self.read.returned

    @property
    def counted(self) -> bool:
        return self.read.counted

    @counted.setter
    def counted(self, counted: bool) -> None:
        self.read.counted = counted

    def count(self) -> None:
        self.read.count()

    def uncount(self) -> None:
        self.read.uncount()

    # -- as its Source, as far as sessions ask

    @property
    def name(self) -> bytes:
        return self.read.queue.name

    @property
    def transactions(self) -> int:
        return self.read.queue.transactions

    @transactions.setter
    def transactions(self, transactions: int) -> None:
        self.read.queue.transactions = transactions

    @property
    def counts_failures(self) -> bool:
        return self.lease.counted or self.read.queue.counts_failures

    @property
    def large_items(self) -> LargeItems:
        return self.read.queue.large_items

    def holds(self, read: "Leased") -> bool:
        return self.read.queue.holds(self.read)

    def item_of(self, read: "Leased") -> Item:
        return self.read.queue.item_of(self.read)

    def close(self, read: "Leased", holder: Holder | None = None) -> None:
        self.read.queue.close(self.read, _Closed(self, holder) if holder is not None else None)
        self._leases.forget(self.lease)

    def give_back(self, read: "Leased", wake: bool = True) -> None:
        self._leases.forget(self.lease)
        self.read.queue.give_back(self.read, wake)

    def take_back(self, read: "Leased") -> None:
        self._leases.keep(self.lease)
        self.read.queue.take_back(self.read)


class _Closed:
    """The holder of a leased read that was closed: the lease, and then the session, hold it again."""

    __slots__ = ("_leased", "_holder")

    def __init__(self, leased: Leased, holder: Holder) -> None:
        self._leased = leased
        self._holder = holder

    def unclose(self, read: Read) -> None:
        self._leased.lease.unclose(read)
        self._holder.unclose(self._leased)
