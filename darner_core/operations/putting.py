"""Putting items: one, several, and large ones piece by piece, for all protocols.

The set of a plain queue does not come here: it is the hot path, and stands where the memcache protocol has it. See
`client` for the two forms of an operation.
"""

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from typing import Literal, Protocol, Self

from darner_core.config.options import Config
from darner_core.config.values import SYNC_ALWAYS
from darner_core.engines.contract import Engine, Queue
from darner_core.engines.large_items import Transfer
from darner_core.errors import ServerError, StorageError
from darner_core.operations.availability import Availability
from darner_core.operations.client import LATER, Client, Later
from darner_core.operations.session import Session
from darner_core.operations.stats import Stats

# How many items are put in one turn: two milliseconds with their write.
ITEMS_A_TURN = 2048

# The same for jobs, of which each may be three records: two milliseconds.
JOBS_A_TURN = 256


class PutOne(Protocol):
    """Puts items in a way of its own: `JobPut` is one."""

    def __call__(self, session: Session, body: bytes, expires_at_ms: int, large: "LargePut | None") -> bool:
        """Put this item, in this turn; `large`: it is large, and has been stored already. False: it is refused. Raises
        ServerError or StorageError."""

    def is_refused(self, session: Session) -> bool:
        """Whether it is known that a large item will be refused, before it is stored. Raises ServerError or
        StorageError."""


class Putting:
    """The operations that put items, bound to the queues."""

    def __init__(self, engine: Engine, stats: Stats, config: Config, availability: Availability) -> None:
        self._queues = engine.registry.queues
        self._routing = engine.routing
        self._time_ms = engine.journal.time_ms
        self._free_bytes = engine.free_bytes
        self._stats = stats
        self._max_item_bytes = config.max_item_bytes
        self._chunk_bytes = config.chunk_bytes
        self._min_free_bytes = config.min_free_bytes
        self._syncs = config.sync == SYNC_ALWAYS
        self._availability = availability

    def require_taken(self, size: int) -> None:
        """Raises ServerError if no item of this size is taken at present."""
        if size > self._max_item_bytes:
            raise ServerError("object too large for cache")
        if self._availability.no_room:
            raise ServerError(self._availability.no_room)

    def has_room(self, name: bytes, sizes: Sequence[int]) -> bool:
        """Whether this queue has room for items of all these sizes. Raises ServerError if one of them is not taken at
        present, or StorageError."""
        self.require_taken(max(sizes, default=0))
        queue = self._queues.get(name)
        return (queue is not None and not queue.governed) or self._routing.fit((name,), sizes)

    def put(
        self,
        session: Session,
        names: tuple[bytes, ...],
        body: bytes,
        flags: int = 0,
        expires_at_ms: int = 0,
        as_child: bool = False,
    ) -> bool:
        """Put an item that is not large into these queues, all of them or none. False: one of them has no room.
        `as_child`: the one name is a fanout child's. Raises ServerError or StorageError, with nothing changed."""
        return self.note_sync(session, self._routing.put(names, body, flags, expires_at_ms, as_child))

    @staticmethod
    def note_sync(session: Session, stored: Collection[Queue] | None) -> bool:
        if stored and any(queue.options.sync == SYNC_ALWAYS for queue in stored):
            session.require_sync()
        return stored is not None

    # -- several

    def put_several(
        self,
        session: Session,
        name: bytes,
        items: Sequence[bytes],
        expiry_ms: int | None,
        as_child: bool,
        put_one: PutOne | None = None,
    ) -> int | Literal[Later.LATER]:
        """Put items up to the first that is refused; how many were put. They expire `expiry_ms` from now; None: never.
        `put_one`: what puts each of them; None: they are no jobs. Raises ServerError if no item is taken at present."""
        if len(items) > _at_once(put_one) or any(map(self._is_large, items)):
            return LATER
        return self._put_several(session, name, items, expiry_ms, as_child, put_one)

    def wait_put_several(
        self,
        client: Client,
        name: bytes,
        items: Sequence[bytes],
        expiry_ms: int | None,
        as_child: bool,
        put_one: PutOne | None = None,
    ) -> int:
        """Go on where `put_several` has said LATER: there are many items, or large ones among them."""
        if any(map(self._is_large, items)):
            return self._wait_put_large(client, name, items, expiry_ms, as_child, put_one)
        return self._wait_put_many(client, name, items, expiry_ms, as_child, put_one)

    def _is_large(self, item: bytes) -> bool:
        """Whether it has to be stored in chunks. An item that is too large is not stored at all."""
        return self._chunk_bytes < len(item) <= self._max_item_bytes

    def _put_several(
        self,
        session: Session,
        name: bytes,
        items: Sequence[bytes],
        expiry_ms: int | None,
        as_child: bool,
        put_one: PutOne | None,
        large: "Sequence[LargePut | None]" = (),
    ) -> int:
        """Put them in this turn. `large`: for each item, its LargePut if it is large and has been stored already."""
        if self._availability.no_room:
            raise ServerError(self._availability.no_room)
        expires_at_ms = max(1, self._time_ms() + expiry_ms) if expiry_ms is not None else 0
        queue = self._queues.get(name)
        plain = None
        if put_one is None and queue is not None and not queue.governed and not expires_at_ms:
            plain = queue if queue.is_child or not as_child else None
        stored = 0
        for number, item in enumerate(items):
            self._stats.cmd_set += 1
            if len(item) > self._max_item_bytes:
                break
            upload = large[number] if large else None
            try:
                if plain is not None and upload is None:
                    plain.put(item, 0, 0)
                    is_stored = True
                elif put_one is not None:
                    is_stored = put_one(session, item, expires_at_ms, upload)
                elif upload is not None:
                    is_stored = upload.put(session, 0, expires_at_ms)
                else:
                    is_stored = self.put(session, (name,), item, 0, expires_at_ms, as_child)
            except (ServerError, StorageError):
                if not stored:
                    raise
                break  # those before it have been put, and that has to be told
            if not is_stored:
                break
            stored += 1
        return stored

    def _wait_put_many(
        self,
        client: Client,
        name: bytes,
        items: Sequence[bytes],
        expiry_ms: int | None,
        as_child: bool,
        put_one: PutOne | None,
    ) -> int:
        """Over several turns, so that other clients' items may come between. If a turn fails, what was stored in
        earlier ones is counted. Raises ServerError instead if replies wait for an fsync: the items of an earlier turn
        may be those that are not safe."""
        stored, syncs, at_once = 0, self._syncs, _at_once(put_one)
        for at in range(0, len(items), at_once):
            some = items[at : at + at_once]
            try:
                put = self._put_several(client.session, name, some, expiry_ms, as_child, put_one)
                syncs = syncs or client.session.needs_sync
                client.wait_turn()
            except (ServerError, StorageError):
                if not stored or syncs:
                    raise
                break
            stored += put
            if put < len(some):
                break
        return stored

    def _wait_put_large(
        self,
        client: Client,
        name: bytes,
        items: Sequence[bytes],
        expiry_ms: int | None,
        as_child: bool,
        put_one: PutOne | None,
    ) -> int:
        """The chunks of large items are written over several turns. Nothing is in a queue before all of them have been
        written; then all items are put in one turn."""
        large: list[LargePut | None] = []
        with ExitStack() as uploads:
            for item in items:
                if not self._is_large(item):
                    large.append(None)
                    continue
                self.require_taken(len(item))
                if put_one is not None and put_one.is_refused(client.session):
                    break
                upload = uploads.enter_context(self.large((name,), len(item), as_child))
                if not upload.wait_begin(client):
                    break  # there is no room for it: it is the first that is refused
                for at in range(0, len(item), self._chunk_bytes):
                    upload.wait_add(client, item[at : at + self._chunk_bytes])
                    client.wait_turn()
                upload.wait_store(client)
                large.append(upload)
            return self._put_several(client.session, name, items[: len(large)], expiry_ms, as_child, put_one, large)

    # -- large items

    def large(self, names: tuple[bytes, ...], size: int, as_child: bool) -> "LargePut":
        """A large item of this size, which is put piece by piece."""
        transfer = self._routing.transfer(names, size, as_child)
        return LargePut(self, transfer, size)

    def require_room(self, size: int) -> None:
        """Raises ServerError if `size` bytes more would leave less than min_free_bytes on the disk."""
        free = self._free_bytes()
        if free - size < self._min_free_bytes:
            raise ServerError(
                f"out of disk space: {free} bytes free, an item of {size} bytes has to leave {self._min_free_bytes}"
            )


def _at_once(put_one: PutOne | None) -> int:
    return ITEMS_A_TURN if put_one is None else JOBS_A_TURN


class LargePut:
    """A large item that is being put: begun, added to, stored, and put. A context: what has not been put when it ends
    is dropped."""

    def __init__(self, putting: Putting, transfer: Transfer, size: int) -> None:
        self._putting = putting
        self.transfer = self._transfer = transfer
        self._missing_bytes = size
        self._size = size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._transfer.__exit__()

    def wait_begin(self, client: Client) -> bool:
        """Find the queues that the item goes into. False: one of them has no room. Raises ServerError or
        StorageError."""
        self._putting.require_taken(self._size)
        queues = self._transfer.find_queues()
        if queues is None:
            return False
        self._putting.require_room(self._size * queues)
        self._transfer.wait_begin(client.wait_turn)
        if not queues:
            self._missing_bytes = 0  # a fanout without children: nobody has it
        return True

    @property
    def wanted_bytes(self) -> int:
        """How much may be added next; 0: all has come. Raises ServerError if items are refused by now."""
        if not self._missing_bytes:
            return 0
        self._putting.require_taken(self._size)  # others may have filled the disk meanwhile
        return min(self._missing_bytes, self._transfer.room_bytes)

    def wait_add(self, client: Client, data: bytes) -> None:
        """The next bytes of the item have come. Raises StorageError."""
        self._missing_bytes -= len(data)
        self._transfer.wait_add(data, client.wait_turn)

    def wait_store(self, client: Client) -> None:
        """Write what has come. Raises StorageError."""
        self._transfer.wait_store(client.wait_turn)

    def require_queues(self) -> None:
        """Raises ServerError if a queue was deleted that decides whether the item is stored."""
        self._transfer.require_queues()

    def put(self, session: Session, flags: int, expires_at_ms: int) -> bool:
        """All has come and is stored: put it, in this turn. False: there was no room. Raises StorageError."""
        return self._putting.note_sync(session, self._transfer.put(flags, expires_at_ms))
