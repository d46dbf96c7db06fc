"""A model of all queues, as a person would keep them on paper: lists of items, and which client has which open.

It has no turns, no disk, no ids, and no shortage of memory. A turn that cannot be written is undone by going back to a
copy that was made before it. A crash leaves what is durable of the last such copy. The model follows docs/operations.md
and docs/protocol.md, and must not know how the server works.
"""

import pickle
from dataclasses import dataclass, field

from darner_core.config.queues import QueueOptions, QueueRules, parent_of

WAITS, OPEN, MOVES = "waits", "is open", "is being moved to where expired items go"

DEAD = b"dead"  # where expired items go; what gets there in one step comes in any order


@dataclass(eq=False)
class Item:
    """One item in one queue."""

    order: int  # of arrival
    body: bytes  # unlike every other in the queue
    flags: int
    expires_ms: int
    added_ms: int
    large: bool
    state: str = WAITS

    def __repr__(self) -> str:
        return f"<{self.body[:8]!r} {self.state} expires {self.expires_ms} added {self.added_ms} large {self.large}>"


@dataclass(eq=False)
class Read:
    """A client has this item, of a queue or of a cursor."""

    place: "Queue | Cursor"
    item: Item
    number: int
    lives: bool = True


@dataclass(eq=False)
class Cursor:
    queue: "Queue"
    short: bytes
    next: int  # what arrived from here on it has not shown
    place: int  # behind all that was closed: here it goes on after a crash
    open: dict[int, Read] = field(default_factory=dict)
    returned: dict[int, Item] = field(default_factory=dict)
    marked: set[int] = field(default_factory=set)  # what was open when it was put back to the head

    @property
    def name(self) -> bytes:
        return self.queue.name + b"." + self.short

    @property
    def options(self) -> QueueOptions:
        return self.queue.options


@dataclass(eq=False)
class Queue:
    name: bytes
    options: QueueOptions
    is_child: bool
    in_memory: bool
    used_ms: int
    items: list[Item] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    cursors: dict[bytes, Cursor] = field(default_factory=dict)
    total: int = 0
    flushes: int = 0
    expired: int = 0
    discarded: int = 0
    transactions: int = 0
    canceled: int = 0
    deleted: bool = False

    @property
    def waiting(self) -> list[Item]:
        return [item for item in self.items if item.state == WAITS]

    @property
    def held(self) -> list[Item]:
        return [item for item in self.items if item.state != WAITS]

    def until_ms(self, item: Item) -> int:
        """When it expires; 0: never."""
        ends = [item.expires_ms] if item.expires_ms else []
        if self.options.max_age_s:
            ends.append(item.added_ms + self.options.max_age_s * 1000)
        return min(ends, default=0)


@dataclass(eq=False)
class Upload:
    """A large item that is on its way."""

    names: tuple[bytes, ...]
    targets: list[tuple[Queue, bool]]
    body: bytes
    flags: int
    made: list[Queue]


def size_of(items: list[Item]) -> int:
    return sum(len(item.body) for item in items)


class World:
    def __init__(self, at_once: int) -> None:
        """at_once: how many expired items a look at a queue's head removes at most."""
        self.at_once = at_once
        self.now_ms = 0
        self.queues: dict[bytes, Queue] = {}
        self.aliases: dict[bytes, tuple[bytes, ...]] = {}
        self.rules = QueueRules()
        self.limbo: list[Item] = []  # expired in this step, on their way to DEAD
        self.held: dict[int, list[Read]] = {}  # by client, the oldest first
        self.uploads: list[Upload] = []
        self.count = 0

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "rules": None}

    def copy(self) -> "World":
        other: World = pickle.loads(pickle.dumps(self, -1))
        other.rules = self.rules
        return other

    def number(self) -> int:
        self.count += 1
        return self.count

    # -- queues

    def find(self, name: bytes) -> Queue | None:
        """The queue that a get of this name reads. None: there is none, or the name is an alias."""
        return None if name in self.aliases else self.queues.get(name)

    def create(self, name: bytes, is_child: bool = False) -> Queue:
        options = self.rules.of(name, parent_of(name) if is_child else b"")
        queue = self.queues[name] = Queue(name, options, is_child, not options.durable, self.now_ms)
        return queue

    def child(self, name: bytes) -> None:
        queue = self.queues.get(name) or self.create(name, True)
        if not queue.is_child:
            queue.is_child = True
            self.set_options(queue)

    def set_options(self, queue: Queue) -> None:
        queue.options = self.rules.of(queue.name, parent_of(queue.name) if queue.is_child else b"")

    def set_rules(self, rules: QueueRules) -> None:
        self.rules = rules
        for queue in self.queues.values():
            self.set_options(queue)

    def create_named(self) -> None:
        for name in self.rules.named:
            if name not in self.queues:
                self.create(name, parent_of(name) != b"")

    def delete(self, name: bytes) -> None:
        queue = self.find(name)
        if queue is not None:
            for cursor in list(queue.cursors):
                self.delete_cursor(queue, cursor)
            for read in queue.reads:
                read.lives = False
            queue.deleted = True
            del self.queues[name]

    def delete_cursor(self, queue: Queue, short: bytes) -> None:
        for read in queue.cursors.pop(short).open.values():
            read.lives = False

    # -- putting

    def targets(self, names: tuple[bytes, ...], size: int = 0) -> list[tuple[Queue, bool]] | None:
        """The queues that it goes into, and whether each decides if it is refused; None: one refuses it."""
        found: dict[Queue, bool] = {}
        missing = []
        for target in dict.fromkeys(queue for name in names for queue in self.aliases.get(name, (name,))):
            for queue in self.queues.values():
                if queue.is_child and parent_of(queue.name) == target:
                    found.setdefault(queue, False)
            known = self.queues.get(target)
            if (known.options if known else self.rules.of(target)).fanout_only and not (known and known.is_child):
                continue
            if known:
                found[known] = True
            else:
                missing.append(target)
        self.make_room(list(found), size)
        deciding = [queue for queue, decides in found.items() if decides]
        deciding += [Queue(name, self.rules.of(name), False, False, 0) for name in missing]
        if not all(self.has_room(queue, size) for queue in deciding):
            return None
        return [*found.items(), *((self.create(name), True) for name in missing)]

    def put(self, names: tuple[bytes, ...], body: bytes, flags: int, expires_ms: int) -> bool:
        targets = self.targets(names, len(body))
        return targets is not None and self.put_into(targets, body, flags, expires_ms, False)

    def put_into(
        self, targets: list[tuple[Queue, bool]], body: bytes, flags: int, expires_ms: int, large: bool
    ) -> bool:
        """Into all that decide, or none of them."""
        there = [(queue, decides) for queue, decides in targets if not queue.deleted]
        if large:  # else that was in this very turn
            self.make_room([queue for queue, _ in there], len(body))
        if any(decides and (queue.deleted or not self.has_room(queue, len(body))) for queue, decides in targets):
            return False
        for queue, _ in there:
            if self.has_room(queue, len(body)):
                while self.is_full(queue, len(body)):
                    queue.items.remove(queue.waiting[0])
                    queue.discarded += 1
                queue.items.append(Item(self.number(), body, flags, expires_ms, self.now_ms, large))
                queue.total += 1
                queue.used_ms = self.now_ms
        return True

    def make_room(self, queues: list[Queue], size: int) -> None:
        """Remove what has expired at the heads of full queues."""
        for queue in queues:
            if self.is_full(queue, size):
                self.drop_expired(queue)

    def abandon(self, upload: Upload) -> None:
        """Nothing was put: remove the queues that were made for it, if nobody has used them."""
        for queue in upload.made:
            awaited = any(queue in (target for target, _ in other.targets) for other in self.uploads)
            named = queue.name in self.rules.named
            if self.find(queue.name) is queue and not (queue.total or queue.cursors or awaited or named):
                self.delete(queue.name)

    def is_full(self, queue: Queue, size: int) -> bool:
        options = queue.options
        if options.max_items and len(queue.items) >= options.max_items:
            return True
        return options.max_bytes > 0 and size_of(queue.items) + size > options.max_bytes

    def has_room(self, queue: Queue, size: int) -> bool:
        """Whether there is room, if need be after the oldest items have been dropped."""
        options = queue.options
        if any(most and size > most for most in (options.max_item_bytes, options.max_bytes)):
            return False
        if not options.discard_old_when_full:
            return not self.is_full(queue, size)
        if options.max_items and len(queue.held) >= options.max_items:
            return False
        return not (options.max_bytes and size_of(queue.held) + size > options.max_bytes)

    # -- expiring

    def has_expired(self, queue: Queue, item: Item) -> bool:
        return 0 < queue.until_ms(item) < self.now_ms

    def drop_expired(self, queue: Queue) -> bool:
        """Remove what has expired at the head. False: there is more."""
        until = queue.expired + self.at_once
        while True:
            head = next(iter(queue.waiting), None)
            if head is None or not self.has_expired(queue, head):
                return True
            if queue.expired >= until:
                return False
            if head.large and queue.options.expire_to_queue:
                head.state = MOVES
            else:
                self.expire(queue, head)

    def expire(self, queue: Queue, item: Item) -> None:
        queue.items.remove(item)
        queue.expired += 1
        if queue.options.expire_to_queue:
            self.limbo.append(item)

    # -- reading

    def to_come(self, place: Queue | Cursor) -> list[Item]:
        """What a reader is going to see, in order."""
        if isinstance(place, Queue):
            return [item for item in place.waiting if not self.has_expired(place, item)]
        outstanding = place.open.keys() | place.returned.keys()
        new = [item for item in place.queue.waiting if item.order >= place.next and item.order not in outstanding]
        both = [item for item in [*new, *place.returned.values()] if not self.has_expired(place.queue, item)]
        return sorted(both, key=lambda item: item.order)

    def look(self, place: Queue | Cursor) -> Item | None:
        """The head. None: there is none, or so much has expired that nobody knows it yet."""
        if isinstance(place, Cursor):
            while place.returned and self.has_expired(place.queue, place.returned[min(place.returned)]):
                place.marked.discard(min(place.returned))
                del place.returned[min(place.returned)]
        elif not self.drop_expired(place):
            return None
        return next(iter(self.to_come(place)), None)

    def hand_out(self, place: Queue | Cursor) -> Read | None:
        item = self.look(place)
        if item is None:
            return None
        read = Read(place, item, self.number())
        if isinstance(place, Queue):
            item.state = OPEN
            place.reads.append(read)
            place.used_ms = self.now_ms
        else:
            place.returned.pop(item.order, None)
            place.next = max(place.next, item.order + 1)
            place.open[item.order] = read
        return read

    def hold(self, client: int, read: Read) -> None:
        self.held.setdefault(client, []).append(read)
        if isinstance(read.place, Queue):
            read.place.transactions += 1

    def close(self, read: Read) -> None:
        if not read.lives:
            return
        read.lives = False
        place, item = read.place, read.item
        if isinstance(place, Queue):
            place.reads.remove(read)
            place.items.remove(item)
            return
        del place.open[item.order]
        place.marked.discard(item.order)
        if item.order < place.next:
            place.place = max(place.place, item.order + 1)

    def give_back(self, read: Read) -> None:
        if not read.lives:
            return
        read.lives = False
        place, item = read.place, read.item
        if isinstance(place, Queue):
            place.reads.remove(read)
            place.canceled += 1
            item.state = WAITS
        else:
            del place.open[item.order]
            place.returned[item.order] = item

    # -- flushing, and cursors

    def flush(self, place: Queue | Cursor) -> None:
        if isinstance(place, Queue):
            place.items = place.held
            place.flushes += 1
            return
        place.returned = {}
        place.marked = set(place.open)
        place.next = place.place = self.head_of(place.queue)

    def head_of(self, queue: Queue) -> int:
        return queue.waiting[0].order if queue.waiting else self.count + 1

    def cursor(self, queue: Queue, short: bytes) -> Cursor:
        if short not in queue.cursors:
            head = self.head_of(queue)
            queue.cursors[short] = Cursor(queue, short, head, head)
        return queue.cursors[short]

    # -- a restart

    def restart(self) -> None:
        """Open items wait again, and queues in memory are empty."""
        self.held, self.uploads = {}, []
        self.queues = {name: queue for name, queue in self.queues.items() if not queue.in_memory}
        for queue in self.queues.values():
            for item in queue.items:
                item.state = WAITS
            queue.reads = []
            queue.total = queue.flushes = queue.expired = queue.discarded = queue.transactions = queue.canceled = 0
            queue.used_ms = self.now_ms
            there = {item.order for item in queue.items}
            for cursor in queue.cursors.values():
                outstanding = {order: read.item for order, read in cursor.open.items()} | cursor.returned
                cursor.next = cursor.place
                cursor.open = {}
                cursor.returned = {
                    order: item
                    for order, item in outstanding.items()
                    if order < cursor.place or order not in there or order in cursor.marked
                }
        for queue in self.queues.values():
            self.set_options(queue)
