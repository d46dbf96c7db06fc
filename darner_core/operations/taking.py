"""Taking items: open, peek, wait in line, and send large items, for all protocols.

An item that was opened belongs to the caller until it is settled: held by a session, or closed. A caller that cannot
answer with it gives it back, so that no item is lost on the way to a client. See `client` for the two forms of an
operation.
"""

import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

from darner_core.config.options import Config
from darner_core.engines.contract import Engine, Item, Read, Source
from darner_core.errors import ServerError, StorageError
from darner_core.operations.availability import Availability
from darner_core.operations.client import LATER, Client, HangUp, Later, now_or_later
from darner_core.operations.session import Session
from darner_core.operations.stats import Stats
from darner_core.shared_memory import PipelineMemory

# How much of a large item is sent at a time while pipeline_memory_bytes are exceeded.
SCARCE_SEND_BYTES = 16 << 10

# How much of a large item that is peeked at is read before other clients get a turn.
PIECE_BYTES = 256 << 10

# What becomes of an item that a client has got: its session holds it, or it is closed.
Settle = Callable[[Read], object]


class Shown(NamedTuple):
    """An item that a client peeks at. It stays at the head of its queue or cursor."""

    queue: Source
    item: Item
    id: int

    @property
    def is_large(self) -> bool:
        return self.item[0].__class__ is not bytes


class Taking:
    """The operations that take items, bound to the queues."""

    def __init__(
        self,
        engine: Engine,
        stats: Stats,
        config: Config,
        pipeline_memory: PipelineMemory,
        availability: Availability,
    ) -> None:
        self._registry = engine.registry
        self._queues = engine.registry.queues
        self._sending = engine.leases.sending
        self._stats = stats
        self._max_item_bytes = config.max_item_bytes
        self._pipeline_memory = pipeline_memory
        self._availability = availability
        # (queue's number, large item) -> its chunk that could not be read when it was last sent.
        self._unreadable: dict[tuple[int, int], int] = {}

    # -- where to take from

    def make_child(self, name: bytes) -> None:
        """Make this fanout child, as its first use does. Raises ServerError if there may be no more queues."""
        self._registry.child(name)

    def most_open(self, name: bytes) -> int:
        """How many items of this queue one client may have open."""
        queue = self._queues.get(name)
        return (queue.options if queue is not None else self._registry.options(name)).max_open_reads

    def require_room(self, session: Session, names: Iterable[bytes]) -> None:
        """Raises ClientError if the session may open no more items of one of these queues."""
        for name in names:
            queue = self._queues.get(name)
            if queue is not None:
                session.require_room(name, queue.options.max_open_reads)

    def _find(self, name: bytes, cursor: bytes, peeks: bool = False) -> Source | None:
        """The queue, or a cursor of it, made if there is none. Raises ServerError if there may be no more cursors."""
        queue = self._queues.get(name)
        if cursor and queue is not None:
            return self._registry.cursors.of(queue, cursor, peeks)
        return queue

    def _may_wait(self, names: Iterable[bytes]) -> bool:
        """Whether it is of use to wait: an alias never has an item."""
        return not self._availability.waits_end and any(name not in self._registry.aliases for name in names)

    # -- opening

    def open(self, names: Sequence[bytes], wait_ms: int = 0, cursor: bytes = b"") -> Read | Literal[Later.LATER] | None:
        """Open an item of the first of these queues that has one, or of this cursor of the one queue. None: there is
        none, and the client does not wait for one. Raises StorageError or ServerError."""
        for name in names:
            queue = self._find(name, cursor)
            if queue is None:
                continue
            read = queue.open()
            if read is not None:
                return read
            if queue.half_swept:
                return LATER
        return LATER if wait_ms > 0 and self._may_wait(names) else None

    def wait_open(self, client: Client, names: Sequence[bytes], until: float, cursor: bytes = b"") -> Read | None:
        """Go on where `open` has said LATER. None: no item has come before `until`, by time.monotonic(), or clients
        may wait no longer."""
        while True:
            rest_ms = _rest_ms(until)
            read = self.open(names, rest_ms, cursor)
            if read is not LATER:
                return read
            if self._wait_swept(client, names, cursor):
                continue
            handed: Any = self._wait_in_lines(client, names, rest_ms, cursor)
            if handed is None or handed.queue.holds(handed):
                return handed  # type: ignore[no-any-return]
            # Deleted before this greenlet came to run, or the turn in which it was handed over could not be written.

    def peek(self, name: bytes, wait_ms: int = 0, cursor: bytes = b"") -> Shown | Literal[Later.LATER] | None:
        """The item at the head of this queue, or of a cursor of it. None: there is none, and the client does not wait
        for one. Raises StorageError."""
        self._stats.cmd_peek += 1
        return self._peek(name, wait_ms, cursor)

    def _peek(self, name: bytes, wait_ms: int, cursor: bytes) -> Shown | Literal[Later.LATER] | None:
        queue = self._find(name, cursor, peeks=True)
        if queue is not None:
            item = queue.peek()
            if item is not None:
                return Shown(queue, item, queue.head_id)
            if queue.half_swept:
                return LATER
        return LATER if wait_ms > 0 and self._may_wait((name,)) else None

    def peek_then(self, name: bytes, wait_ms: int, answer: "Callable[[Shown | None], Any]", cursor: bytes = b"") -> Any:
        """What `answer` makes of the head of this queue, or of a cursor of it; a function of the Client if that has to
        wait. Raises StorageError."""
        until = time.monotonic() + wait_ms / 1000
        shown = self.peek(name, wait_ms, cursor)
        return now_or_later(shown, answer, lambda client: self.wait_peek(client, name, until, cursor))

    def wait_peek(self, client: Client, name: bytes, until: float, cursor: bytes = b"") -> Shown | None:
        """Go on where `peek` has said LATER, like `wait_open`."""
        while True:
            rest_ms = _rest_ms(until)
            shown = self._peek(name, rest_ms, cursor)
            if shown is not LATER:
                return shown
            if self._wait_swept(client, (name,), cursor, peeks=True):
                continue
            if self._wait_in_lines(client, (name,), rest_ms, cursor, peeks=True) is None:
                return None
            # There is something at the head, or there was: another client may have taken it meanwhile.

    def _wait_swept(self, client: Client, names: Iterable[bytes], cursor: bytes, peeks: bool = False) -> bool:
        """Expired items at the head may be too many to be removed in one turn: remove them in several. False: there are
        none. Raises StorageError."""
        swept = False
        for name in names:
            queue = self._find(name, cursor, peeks)
            while queue is not None and queue.half_swept and not queue.deleted:
                queue.drop_expired()
                client.wait_turn()
                swept = True
        return swept

    def _wait_in_lines(
        self, client: Client, names: Sequence[bytes], wait_ms: int, cursor: bytes, peeks: bool = False
    ) -> object:
        """Wait in line at these queues, or at a cursor of the one, until one of them hands over an item, which is
        then open; to peek, until one of them has an item. None: the time is over."""
        registry = self._registry
        waiter = None
        try:
            for name in names:
                if name not in registry.aliases:
                    waiter = registry.join_line(name, cursor, peeks, waiter)
            assert waiter is not None
            return client.wait_for(waiter, wait_ms)
        except BaseException:
            if waiter is not None and waiter.got is not None and not peeks:
                got: Any = waiter.got
                got.queue.give_back(got)
            raise
        finally:
            if waiter is not None:
                waiter.cancel()
            for name in names:
                registry.leave_line(name, cursor)

    # -- answering with what was opened

    def accept(self, read: Read, settle: Settle) -> Item:
        """The item of `read`, which is open and not large. The client gets it: `settle` holds it, or closes it. Raises
        StorageError; then the item has been given back."""
        try:
            item = read.queue.item_of(read)
        except BaseException:
            read.queue.give_back(read)
            raise
        self._stats.get_hits += 1
        settle(read)
        return item

    def wait_send(self, client: Client, read: Read, head: Callable[[Item], bytes], settle: Settle) -> None:
        """Send a large item chunk by chunk, behind its `head`, then `settle` it. It is open while it is sent, so that
        it goes to the next client if this one hangs up. Raises StorageError if nothing has been sent yet, else HangUp.
        """
        try:
            item = read.queue.item_of(read)
            self._wait_send_chunks(client, head(item), self._chunks(read.queue, item, read.id, read))
            settle(read)
        except BaseException:
            read.queue.give_back(read)
            raise
        self._stats.get_hits += 1

    def pieces(self, read: Read, settle: Settle) -> Generator[bytes, None, None]:
        """A large item, for a client that is sent one piece after the other; then `settle` it. It is open meanwhile,
        and given back if the rest is not asked for. Raises StorageError before the first piece, later HangUp."""
        try:
            yield from self._chunks(read.queue, read.queue.item_of(read), read.id, read)
            settle(read)
        except BaseException:
            read.queue.give_back(read)
            raise
        self._stats.get_hits += 1

    def pieces_shown(self, shown: Shown) -> Generator[bytes, None, None]:
        """A large item that is looked at, as `pieces`. If somebody takes it, the rest does not come: HangUp."""
        return self._chunks(shown.queue, shown.item, shown.id)

    def wait_show(self, client: Client, shown: Shown, head: bytes) -> None:
        """Send a large item that is peeked at, behind its `head`. It holds nobody up: if another client takes the item,
        this one is hung up on. Raises StorageError if nothing has been sent yet, else HangUp."""
        queue = shown.queue
        try:
            self._wait_send_chunks(client, head, self._chunks(queue, shown.item, shown.id))
        except StorageError:
            if queue.head_id != shown.id:
                raise HangUp from None
            raise

    @staticmethod
    def _wait_send_chunks(client: Client, head: bytes, chunks: Generator[bytes, None, None]) -> None:
        """The head goes with the first piece: before the reply has begun, the client can be told of an error, later it
        can only be hung up on. No piece gets a name: it would be kept while the client takes it."""
        try:
            client.wait_sent(head + next(chunks))
            with suppress(StopIteration):
                while True:
                    client.wait_sent(next(chunks))
        finally:
            chunks.close()

    def _chunks(
        self, queue: Source, item: Item, item_id: int, read: Read | None = None
    ) -> Generator[bytes, None, None]:
        """`read`: the item, opened; None: the client only peeks at it. Raises StorageError before the first piece,
        later HangUp."""
        blob: Any = item[0]
        key = queue.large_items.number, blob.blob
        bad = self._unreadable.get(key)
        body = queue.large_items.send(blob)
        if read is not None:
            self._sending[read] = body
        begun = False
        try:
            if bad is not None:
                body.require(bad)
                del self._unreadable[key]
            yield body.next(self._send_limit_bytes)
            begun = True
            while body.missing_bytes:
                if queue.deleted or (read is not None and read.returned):  # the client stood still for too long
                    raise HangUp
                yield body.next(self._send_limit_bytes)
            if read is not None and read.returned:
                raise HangUp
        except StorageError as error:
            if item_id not in queue.outstanding:  # only shown, and perhaps taken by another client meanwhile
                if begun:
                    raise HangUp from error
                raise
            if bad is None:
                self._unreadable[key] = body.index
            damage = queue.cannot_be_read(error)
            if begun:
                raise HangUp from damage
            raise damage from error
        finally:
            if read is not None:
                self._sending.pop(read, None)

    @property
    def _send_limit_bytes(self) -> int:
        """How much of a large item is sent at a time. `Download.next` gives out a chunk at most."""
        return SCARCE_SEND_BYTES if self._pipeline_memory.scarce else self._max_item_bytes


def _rest_ms(until: float) -> int:
    return max(0, int((until - time.monotonic()) * 1000))


def give_back(reads: Iterable[Read]) -> None:
    """Let these items wait again, in their order: the oldest goes to the client that has waited longest."""
    for read in sorted(reads, key=lambda read: read.id):
        read.queue.give_back(read)


def wait_body(client: Client, shown: Shown) -> bytes:
    """The whole body of a large item that is peeked at, read in as many turns as it takes. Raises StorageError, also if
    it has been taken meanwhile."""
    pieces = []
    blob: Any = shown.item[0]
    download = shown.queue.large_items.send(blob)
    while download.missing_bytes:
        pieces.append(download.next(PIECE_BYTES))
        client.wait_turn()
    return b"".join(pieces)


class Batch:
    """Items for one reply, opened until the reply is full. A large item goes alone."""

    def __init__(self, taking: Taking, most_items: int, most_bytes: int, most_item_bytes: int) -> None:
        """`most_bytes`: of all bodies together; the first may have more, up to `most_item_bytes`."""
        self.reads: list[Read] = []  # what is open
        self.full = most_items <= 0
        self._taking = taking
        self._bytes = 0
        self._most_items = most_items
        self._most_bytes = most_bytes
        self._most_item_bytes = most_item_bytes

    @property
    def is_large(self) -> bool:
        """Whether the batch is one large item."""
        return bool(self.reads) and bool(self.reads[0].blob)

    def fill(self, name: bytes, wait_ms: int) -> bool:
        """Take what there is; False: `wait_fill` may take more. Raises StorageError if the first item cannot be read,
        and ServerError if it is too large for the reply; then nothing is open."""
        return self._fill(lambda: self._taking.open((name,), wait_ms))

    def wait_fill(self, client: Client, name: bytes, until: float) -> None:
        """Take more, and wait for it until the reply is full or `until` has come. Raises as `fill` does."""
        self._fill(lambda: self._taking.wait_open(client, (name,), until))

    def wait_first(self, client: Client, name: bytes, until: float) -> None:
        """Wait until there is something, or `until` has come, and take what there is. Raises as `fill` does."""
        self._fill(lambda: LATER if self.reads else self._taking.wait_open(client, (name,), until))

    def _fill(self, open_first: Callable[[], Read | Literal[Later.LATER] | None]) -> bool:
        try:
            while not self.full:
                try:
                    read = open_first()
                    if read is LATER:
                        return False
                    if read is None:
                        return True
                    queue = read.queue.opener
                    self._add(read)
                    while not self.full and not queue.deleted and (read := queue.open()) is not None:
                        self._add(read)
                except StorageError:
                    if not self.reads:
                        raise
                    self.full = True  # what lies before the damage is served
        except BaseException:
            self.give_back()
            raise
        return True

    def _add(self, read: Read) -> None:
        if self.reads and (read.blob or self._bytes + read.body_bytes > self._most_bytes):
            self.full = True
            read.queue.give_back(read)
            return
        if read.body_bytes > self._most_item_bytes:
            read.queue.give_back(read)
            raise ServerError(
                f"the item at the head has {read.body_bytes} bytes, and a frame can hold {self._most_item_bytes}: take"
                " it by another protocol"
            )
        self.reads.append(read)
        self._bytes += read.body_bytes
        self.full = len(self.reads) >= self._most_items or bool(read.blob) or self._bytes >= self._most_bytes

    def readable(self) -> list[tuple[Read, Item]]:
        """What is still open and can be read, with its item; the rest is given back. Raises StorageError if the first
        item cannot be read."""
        reads, self.reads = self.reads, []
        found: list[tuple[Read, Item]] = []
        for read in reads:
            if not read.queue.holds(read):  # flushed, deleted or undone meanwhile
                continue
            try:
                found.append((read, read.queue.item_of(read)))
            except StorageError:
                if not found:
                    give_back(reads)
                    raise
                break  # what lies before the damage is served
        self.reads = [read for read, _ in found]
        kept = set(self.reads)
        give_back(read for read in reads if read not in kept and read.queue.holds(read))
        return found

    def keep(self, most: int) -> None:
        """Give back all but the first `most`."""
        self.reads, rest = self.reads[:most], self.reads[most:]
        give_back(rest)

    def give_back(self) -> None:
        reads, self.reads = self.reads, []
        give_back(reads)
