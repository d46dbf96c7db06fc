"""What lies aside of a queue's line: items that are delayed, of another priority, with a unique key, or buried.

An aside is a queue of its own kind. Its items are in one of three states, and leave each in an order of its own:

    ready    by (priority, place, id): of equally urgent ones that which arrived first
    delayed  by (due_ms, place, id), and then they are ready
    buried   in the order of burying, when somebody kicks them

A place tells when an item arrived, in the numbers of its queue's line: 2 * tail for what is put aside, 2 * id + 1 for
what comes from the line. So the line and the aside can be merged, and a delay or a failure does not change the place.

Any item may be open, whatever its state. That stands in memory only: after a crash the item is what it was. All other
changes are written with the turn, through `aside_log`; `order` keeps a part of each order in memory. If a turn cannot
be written, numbers and windows go back to what they were.

An aside knows its queue as `Parent`. It knows neither the line, nor clients, nor timers.

No call here switches greenlets.
"""

from collections.abc import Callable
from typing import ClassVar, ParamSpec, TypeVar

from darner_core.config.queues import QueueOptions
from darner_core.engines.contract import Holder
from darner_core.engines.large_items import LARGE, Large
from darner_core.engines.local import aside_keys, aside_leaving, aside_moves, window
from darner_core.engines.local.aside_flushing import Flushing
from darner_core.engines.local.aside_log import AsideLog, MemoryAsideLog
from darner_core.engines.local.aside_parts import Held, OfItsQueue, Parent, Watcher
from darner_core.engines.local.damaged_queue import cannot_be_read
from darner_core.engines.local.job_rules import JobRules
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.large_items import LargeItems
from darner_core.engines.local.order import ENTRY_BYTES, Order
from darner_core.engines.local.reads import OpenRead
from darner_core.engines.local.window import WindowBudget
from darner_core.errors import StorageError
from darner_core.storage.job_records import (
    BURIED,
    DELAYED,
    DYING,
    KINDS,
    READY,
    AsideRecord,
    AsideState,
    Job,
    Place,
)
from darner_core.storage.records import Blob, Item
from darner_core.waiters import WaitingLine

# Expired items at the head that one call removes.
EXPIRED_AT_ONCE = 100

_Read = TypeVar("_Read")
_Arguments = ParamSpec("_Arguments")


class Aside(OfItsQueue):
    """What lies aside of one queue. `OpenRead.queue` of its items is the aside."""

    __slots__ = (
        "name", "parent", "record", "rules", "log", "window_bytes", "orders", "ready", "delayed", "buried",
        "key_windows", "outstanding", "new_id", "next_burying", "stored_bytes", "open_bytes", "deleted", "damage",
        "half_swept", "line", "watcher", "serve", "dead_letter", "expire_to", "settle", "flushing", "awaits_items",
        "failures", "dead_lettered", "move_dead", "_given_back", "_before",
    )  # fmt: skip

    unreadable: ClassVar = False
    counts_failures: ClassVar = True
    next_id: ClassVar = 0  # the journal asks: of no id it is known that its item is gone

    def __init__(
        self,
        parent: Parent,
        record: AsideRecord,
        state: AsideState | None,
        journal: Journal,
        watcher: Watcher,
        rules: JobRules | None = None,
        serve: Callable[[], None] = lambda: None,
        dead_letter: Callable[["Aside", Item, Job], bool] | None = None,
        expire_to: Callable[["Aside", Item], None] | None = None,
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        """`state`: what the disk says of it; None: its queue is in memory only. `serve` hands what is ready to clients
        that wait. `dead_letter` puts an item where dead letters go, in this turn; False: there is no room. `expire_to`
        is called with an item that expires. `settle` is called when the queue may have to work another way, because
        the aside is empty or is so no more."""
        self.name = parent.name
        self.parent = parent
        self.record = record
        self.rules = rules or JobRules()
        self.window_bytes = 0  # as the budget knows it
        self.log: AsideLog = (AsideLog if state is not None else MemoryAsideLog)(journal, self, record)
        state = state or AsideState()
        self.orders = tuple(Order(self.log, kind, state.fronts[kind]) for kind in KINDS)
        self.ready, self.delayed, self.buried, self.key_windows = self.orders
        self.ready.urgent = state.urgent
        self.outstanding: dict[int, Held] = {}  # what is open, by id
        self.new_id, self.next_burying, self.stored_bytes = state[:3]
        self.open_bytes = 0
        self.deleted = False
        self.damage = ""
        self.half_swept = False  # there may be more expired items at the head
        self.line: WaitingLine | None = None  # clients wait at the queue, never here
        self.watcher = watcher
        self.serve = serve
        self.dead_letter = dead_letter
        self.expire_to = expire_to
        self.settle = settle
        self.move_dead: Callable[[OpenRead], None] | None = None  # called with a large dead letter, as `move_large` is
        self.flushing: Flushing | None = None  # see `aside_flushing`
        self.awaits_items = False  # something is about to be put in this turn
        self.failures = 0  # since the start
        self.dead_lettered = 0
        self._given_back: dict[OpenRead, Held] = {}  # in this turn: what each was while it was open
        self._before = state
        # The lowest that may be there will do: nothing is read at the start.
        for order in (self.delayed, self.key_windows):
            if order.entries:
                watcher.note(self, order.scan_from[0])
        if record.pause_until_ms:
            watcher.note(self, record.pause_until_ms)

    # -- what the contract of a source asks

    @property
    def options(self) -> QueueOptions:
        return self.parent.options

    @property
    def budget(self) -> WindowBudget:
        return self.parent.budget

    @property
    def large_items(self) -> LargeItems:
        """Chunks lie under the queue's number."""
        return self.parent.large_items

    cannot_be_read = cannot_be_read

    # -- putting

    def put(
        self,
        body: bytes | Blob,
        flags: int,
        expires_at_ms: int,
        pri: int,
        place: int,
        delay_ms: int = 0,
        ttr_ms: int = 0,
        key: bytes = b"",
        note: bytes = b"",
    ) -> int:
        """Put an item, whose key, if it has one, must be free (`aside_keys.owner`); its id. `place`: twice the tail of
        the line. Raises StorageError, with nothing changed."""
        now_ms = self.log.journal.time_ms()
        state, at = (DELAYED, now_ms + delay_ms) if delay_ms > 0 else (READY, 0)
        if not self.log.touched:
            self.enter_turn()
        item_id = self.new_id
        if key:
            aside_keys.take(self, key, item_id)
        self.new_id += 1
        self._add(item_id, (body, flags, expires_at_ms, now_ms), Job(state, pri, place, at, ttr_ms, key=key, note=note))
        if state == READY:
            self.serve()
        return item_id

    def adopt(self, item_id: int, item: Item, job: Job) -> None:
        """Put an item that leaves the line in this turn. It keeps its id. The place of a burying is given here."""
        if not self.log.touched:
            self.enter_turn()
        if job.state == BURIED:
            job = job._replace(at=aside_moves.new_burying(self))
        self._add(item_id, item, job)
        if job.state == READY:
            self.serve()

    def adopt_open(self, read: OpenRead, item: Item, job: Job) -> OpenRead:
        """As `adopt`, for an item that is open and stays so; what it is open as from now on."""
        if not self.log.touched:
            self.enter_turn()
        self._add(read.id, item, job)
        return self.hold(*aside_moves.place_of(read.id, job), job, item)

    def _add(self, item_id: int, item: Item, job: Job) -> None:
        self.log.put_item(item_id, item, job)
        kind, place = aside_moves.place_of(item_id, job)
        self.orders[kind].add(place)
        self.stored_bytes += len(item[0])
        if kind == DELAYED:
            self.watcher.note(self, job.at)
        if item[2]:
            self.log.journal.expiring.append((self.log, item[2], item_id))

    # -- taking

    def head(self) -> Place | None:
        """(priority, place, id) of what is ready and comes first. Raises StorageError."""
        order = self.ready
        if order.window:
            return order.window[0]
        first = self.reading(order.first)
        self.account()
        return first

    @property
    def is_out_of_the_way(self) -> bool:
        """Nothing here is ready, and nothing is paused: what is handed out comes from the line."""
        ready = self.ready
        return ready.whole and not (ready.window or self.damage or self.record.pause)

    @property
    def head_id(self) -> int:
        """As `peek` would show it."""
        first = self.head()
        return first[2] if first is not None else 0

    def has_head(self) -> tuple[Place, Job, Item] | None:
        """What is ready and comes first, when what has expired before it is removed. None: there is nothing, or there
        is more than one call removes, and the aside is `half_swept`. Raises StorageError."""
        self.half_swept = False
        for _ in range(EXPIRED_AT_ONCE):
            place = self.head()
            if place is None:
                return None
            item, job = self.read(place[2])
            if self.flushing is not None and self.flushing.flush.takes(place):
                aside_leaving.remove(self, READY, place, job, item)
            elif job.state == DYING and self.move_dead is not None:
                self.move_dead(self.hold(READY, place, job, item))  # the server had ended, or the disk had failed
            elif not aside_leaving.has_expired(self, item):
                return place, job, item
            elif self.parent.move_large is not None and isinstance(item[0], Blob):
                self.parent.move_large(self.hold(READY, place, job, item))  # open while it is copied to where it goes
            else:
                aside_leaving.expire(self, READY, place, job, item)
        self.half_swept = True
        return None

    def peek(self) -> Item | None:
        found = self.has_head()
        return found[2] if found is not None else None

    def take(self) -> Item | Large | None:
        found = self.has_head()
        return self.take_found(*found) if found is not None else None

    def take_found(self, place: Place, job: Job, item: Item) -> Item | Large:
        """As `take`, of what `has_head` has found."""
        if isinstance(item[0], Blob):
            return LARGE
        if not self.log.touched:
            self.enter_turn()
        aside_leaving.remove(self, READY, place, job, item)
        return item

    def drop_expired(self, most: int = EXPIRED_AT_ONCE, least: int = 0) -> bool:
        """Remove what has expired at the head; False: there is more. Raises StorageError."""
        self.has_head()
        return not self.half_swept

    def open(self) -> OpenRead | None:
        found = self.has_head()
        return self.open_found(*found) if found is not None else None

    def open_found(self, place: Place, job: Job, item: Item) -> OpenRead:
        """As `open`, of what `has_head` has found."""
        return self.hold(READY, place, job, item)

    def open_id(self, item_id: int) -> OpenRead | None:
        """Open this item, in whatever state it is; None: it is not there, or open. Raises StorageError."""
        found = self.find(item_id)
        if found is None or item_id in self.outstanding or self.is_flushed(item_id, found[2]):
            return None
        if found[2].state == DYING:
            return None
        return self.hold(*found, self.read(item_id)[0])

    def is_flushed(self, item_id: int, job: Job) -> bool:
        """Whether a flush has taken this item, which is not removed yet."""
        return self.flushing is not None and self.flushing.flush.takes_job(item_id, job)

    def find(self, item_id: int) -> tuple[int, Place, Job] | None:
        """Where an item lies, and what is known of it; None: it is not there. Raises StorageError."""
        held = self.outstanding.get(item_id)
        if held is not None:
            return held.kind, held.place, held.job
        job = self.reading(self.log.job, item_id)
        if job is None:
            return None
        kind, place = aside_moves.place_of(item_id, job)
        if kind == DELAYED and self.log.at_place(kind, place) is None:
            kind, place = READY, (job.pri, job.place, item_id)  # it has become due
        return kind, place, job

    def hold(self, kind: int, place: Place, job: Job, item: Item) -> OpenRead:
        if not self.log.touched:
            self.enter_turn()
        item_id, body = place[2], item[0]
        read = OpenRead(self, item_id, item, len(body), body.blob if isinstance(body, Blob) else 0, item[2])  # type: ignore[arg-type]
        self.orders[kind].hide(place)
        self.outstanding[item_id] = Held(read, job, kind, place)
        self.open_bytes += read.body_bytes
        self.log.journal.undo.append((self._let_wait, read))
        return read

    # -- open items

    def holds(self, read: OpenRead) -> bool:
        """Whether `read` is open still."""
        held = self.outstanding.get(read.id)
        return held is not None and held.read is read and not self.deleted

    def job_of(self, read: OpenRead) -> Job:
        """Of an open item."""
        return self.outstanding[read.id].job

    def item_of(self, read: OpenRead) -> Item:
        """The item of an open read, once. Raises StorageError."""
        item, read.item = read.item, None
        return item if item is not None else self.reading(self.log.item, read.id)

    def close(self, read: OpenRead, holder: Holder | None = None, what: bytes = b"close") -> None:
        """The item has been dealt with: it is gone. See `MessageQueue.close`. `what`: what watchers are told."""
        held = self.outstanding.get(read.id)
        if held is None or held.read is not read or self.deleted:
            if read.returned and not self.deleted:
                self.late_closes += 1
            if holder is not None:
                self.log.journal.undo.append((holder.unclose, read))
            return
        large_items = self.large_items if read.blob else None  # may raise: before anything is changed
        if not self.log.touched:
            self.enter_turn()
        del self.outstanding[read.id]
        self.open_bytes -= read.body_bytes
        aside_leaving.forget(self, held.kind, held.place, held.job, read.body_bytes)
        if large_items is not None:
            large_items.remove(read.blob, read.blob + 1, read.body_bytes)
        self.log.journal.undo.append((self._unclose, read, held, holder))
        self.tell(what, read.id, read.body_bytes)

    def give_back(self, read: OpenRead, wake: bool = True) -> None:
        """The item is again what it was before it was opened. That is no failure."""
        held = self.let_go(read)
        if held is None:
            return
        if not self.deleted and held.kind == DELAYED and held.job.at <= self.log.journal.time_ms():
            aside_moves.move(self, held, held.job)
        else:
            self.orders[held.kind].unhide(held.place)
            if held.kind == DELAYED:
                self.watcher.note(self, held.job.at)
        if wake:
            self.serve()

    def take_back(self, read: OpenRead) -> None:
        """Undo `give_back`, or what `aside_failures` does, in a turn that failed: `read` is open again."""
        held = self._given_back.pop(read, None)
        if held is None or read.id in self.outstanding:
            return
        read.returned = False
        self.canceled_transactions -= read.counted
        self.outstanding[read.id] = held
        self.orders[held.kind].hide_again(held.place)
        self.open_bytes += read.body_bytes

    def let_go(self, read: OpenRead, what: bytes = b"abort") -> Held | None:
        """It is not open any more, which can be undone. None: it was not open. `what`: what watchers are told; b"":
        nothing."""
        held = self.outstanding.get(read.id)
        if held is None or held.read is not read:
            return None
        if not self.log.touched and not self.deleted:  # a deleted one must not write, but its delete may be undone
            self.enter_turn()
        del self.outstanding[read.id]
        self._given_back[read] = held
        read.returned = True
        read.item = None
        self.canceled_transactions += read.counted
        self.open_bytes -= read.body_bytes
        if what:
            self.tell(what, read.id, read.body_bytes)
        return held

    def _let_wait(self, read: OpenRead) -> None:
        """Undo that it was opened."""
        held = self.outstanding.get(read.id)
        if held is not None and held.read is read:
            del self.outstanding[read.id]
            self.orders[held.kind].unhide(held.place)
            self.open_bytes -= read.body_bytes
        read.returned = True

    def _unclose(self, read: OpenRead, held: Held, holder: Holder | None) -> None:
        if holder is None:
            read.returned = True
            return
        self.outstanding[read.id] = held
        self.orders[held.kind].hide_again(held.place)
        self.open_bytes += read.body_bytes
        holder.unclose(read)

    # -- the turn

    def enter_turn(self) -> None:
        """Before the first change of a turn."""
        self.log.enter_turn()
        self._before = self.state()

    def turn_written(self) -> None:
        self.log.turn_written()
        self._given_back.clear()
        self.account()
        self._look_whether_empty()

    def undo_turn(self) -> None:
        replaced = self.log.replaced_order
        self.log.undo_turn()
        state = self._before
        self.new_id, self.next_burying, self.stored_bytes = state[:3]
        for order, front, before in zip(self.orders, state.fronts, replaced, strict=True):
            order.undo(front.entries, before)
        self.ready.urgent = state.urgent
        self._given_back.clear()
        self.account()
        for order in (self.delayed, self.key_windows):
            if order.entries:
                self.watcher.note(self, order.lowest()[0])
        self._look_whether_empty()

    def _look_whether_empty(self) -> None:
        self.awaits_items = False
        if bool(self.items) != self.parent.counts_failures:
            self.settle()

    def state(self) -> AsideState:
        """What the state record says."""
        fronts = tuple(order.front() for order in self.orders)
        return AsideState(self.new_id, self.next_burying, self.stored_bytes, fronts, self.ready.urgent)

    def drop_window(self) -> None:
        """Keep nothing in memory."""
        for order in self.orders:
            order.drop_window()
        self.window_bytes = 0

    def account(self) -> None:
        held_bytes = ENTRY_BYTES * sum(len(order.window) for order in self.orders)
        if abs(held_bytes - self.window_bytes) >= window.ACCOUNT_STEP_BYTES or not held_bytes:
            window.account(self, held_bytes)

    # -- reading

    def read(self, item_id: int) -> tuple[Item, Job]:
        """Raises StorageError, also if one is missing."""
        return self.parent.aged(self.reading(self.log.item, item_id)), self.job(item_id)

    def job(self, item_id: int) -> Job:
        """Raises StorageError, also if it is missing."""
        job = self.reading(self.log.job, item_id)
        if job is None:
            raise self.cannot_be_read(StorageError(f"aside number {self.record.number}: job {item_id} is missing"))
        return job

    def reading(
        self, read: Callable[_Arguments, _Read], *arguments: _Arguments.args, **named: _Arguments.kwargs
    ) -> _Read:
        """What `read` returns. Raises StorageError, which the log tells once."""
        try:
            found = read(*arguments, **named)
        except StorageError as error:
            raise self.cannot_be_read(error) from error
        if self.damage:
            self.damage = ""
        return found

    # -- figures

    @property
    def paused(self) -> int:
        """The bits of what its queue does not do for the time being: NO_PUTS, NO_GETS."""
        record = self.record
        until_ms = record.pause_until_ms
        return record.pause if not until_ms or self.log.journal.time_ms() < until_ms else 0

    @property
    def waiting_items(self) -> int:
        """Those that are ready."""
        return self.ready.waiting

    @property
    def items(self) -> int:
        """All, open ones included."""
        return self.ready.entries + self.delayed.entries + self.buried.entries

    @property
    def is_empty(self) -> bool:
        """Whether there is no item and no key that is taken."""
        return not self.items and not self.key_windows.entries

    @property
    def waiting_bytes(self) -> int:
        """Of all items that nobody has open."""
        return self.stored_bytes - self.open_bytes

    @property
    def open_reads(self) -> int:
        return len(self.outstanding)
