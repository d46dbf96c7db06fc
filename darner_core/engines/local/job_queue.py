"""A queue of which something lies aside, or that is paused, or counts failures.

What is ready comes from the line or from the aside, whichever has the more urgent head, and of two that are equally
urgent that which arrived first. All items of the line have the same priority and deadline, those of the queue's terms.
A put without options asks for the built-in terms: if the line has others, its item lies aside.

As with `tracing`, a queue becomes a JobQueue by assigning its `__class__`, so that one that uses no jobs does not pay
for the question. What MessageQueue does stays the line's matter: it is called by its name here.

No call here switches greenlets.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from darner_core.engines.large_items import Large
from darner_core.engines.local import aside_flushing, expiry, reads
from darner_core.engines.local.aside import Aside
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.reads import OpenRead
from darner_core.errors import StorageError
from darner_core.storage.job_records import NEUTRAL_PRI, NO_GETS, NO_PUTS, AsideRecord, Job, Place
from darner_core.storage.records import Blob, Item

if TYPE_CHECKING:
    from darner_core.engines.local.asides import Asides

NOTHING, LINE = False, True
# What comes first: nothing, the head of the line, or what the aside has found.
_First: TypeAlias = bool | tuple[Place, Job, Item]

_line_damage: Any = MessageQueue.__dict__["damage"]

# Of a queue that has no aside.
PLAIN = AsideRecord(0, 0)


class JobQueue(MessageQueue):
    """Used as a MessageQueue is."""

    __slots__ = ()

    counts_failures: ClassVar = True
    asides: ClassVar["Asides"]

    @property
    def aside(self) -> Aside | None:
        return self.asides.by_queue.get(self)

    @property
    def damage(self) -> str:
        """That of the line, or else of what lies aside."""
        return _line_damage.__get__(self) or self.asides.damage_of(self)

    @damage.setter
    def damage(self, damage: str) -> None:
        _line_damage.__set__(self, damage)

    # -- putting

    def put(self, body: bytes | Blob, flags: int, expires_at_ms: int) -> None:
        JobQueue.put_until(self, body, flags, expires_at_ms)

    def put_until(self, body: bytes | Blob, flags: int, expires_at_ms: int) -> None:
        if self._next_goes_aside():
            self.asides.enter(self)
            self.asides.put(self, body, flags, expires_at_ms)
            return
        if not self._has_plain_terms():
            self.asides.change_terms(self)
        MessageQueue.put_until(self, body, flags, expires_at_ms)

    @property
    def next_put_id(self) -> int:
        aside = self.aside
        return aside.new_id if aside is not None and self._next_goes_aside() else self.tail

    def _has_plain_terms(self) -> bool:
        aside = self.aside
        return aside is None or (aside.record.pri == NEUTRAL_PRI and not aside.record.ttr_ms)

    def _next_goes_aside(self) -> bool:
        """The next item without options. A line that has no item at all takes other terms."""
        return not self._has_plain_terms() and bool(reads.stored_items(self))

    # -- taking

    def _first(self) -> _First:
        """What comes first, after what has expired before it is removed. NOTHING with `half_swept`: it is not known
        yet. Raises StorageError."""
        aside = self.aside
        if aside is None:
            return MessageQueue.has_head(self)
        if aside.record.pause and aside.paused & NO_GETS:
            self.half_swept = False
            return NOTHING
        has_line = MessageQueue.has_head(self)
        if not has_line and self.half_swept:
            return NOTHING
        place = aside.head()
        if place is None or (has_line and self._line_place(aside) < place):
            return has_line
        found = aside.has_head()
        if found is None:
            self.half_swept = aside.half_swept
            return has_line and not self.half_swept
        if has_line and self._line_place(aside) < found[0]:
            return LINE
        return found

    def _line_place(self, aside: Aside) -> Place:
        head_id = self.line_head_id
        return aside.record.pri, 2 * head_id + 1, head_id

    def has_head(self) -> bool:
        return bool(self._first())

    def take(self) -> Item | Large | None:
        aside = self.aside
        return MessageQueue.take(self) if aside is None or aside.is_out_of_the_way else self._take_slowly()

    def _take_slowly(self) -> Item | Large | None:
        first = self._first()
        if isinstance(first, bool):
            return self._take_head() if first else None
        assert self.aside is not None
        return self.aside.take_found(*first)

    def open(self) -> OpenRead | None:
        aside = self.aside
        return MessageQueue.open(self) if aside is None or aside.is_out_of_the_way else self._open_slowly()

    def _open_slowly(self) -> OpenRead | None:
        first = self._first()
        if isinstance(first, bool):
            return self.hand_out(self.returned[0] if self.returned else 0) if first else None
        assert self.aside is not None
        return self.aside.open_found(*first)

    def peek(self) -> Item | None:
        first = self._first()
        if isinstance(first, bool):
            return self._head() if first else None
        return first[2]

    def rank(self) -> tuple[int, int] | None:
        """(priority, when it was put) of what comes first. Raises StorageError."""
        first = self._first()
        if isinstance(first, bool):
            aside = self.aside
            return (aside.record.pri if aside is not None else PLAIN.pri, self._head()[3]) if first else None
        return first[0][0], first[2][3]

    @property
    def head_id(self) -> int:
        first = self._first()
        if isinstance(first, bool):
            return self.line_head_id
        return first[0][2]

    def head_added_at_ms(self) -> int:
        first = self._first()
        if isinstance(first, bool):
            return self._head()[3] if first else 0
        return first[2][3]

    # -- leaving without being handed out

    def drop_expired(self, most: int = expiry.EXPIRED_AT_ONCE, least: int = 0) -> bool:
        done, aside = expiry.drop_expired(self, most, least), self.aside
        if aside is not None and not aside.drop_expired():
            done = False
        self.half_swept = not done
        return done

    def flush(self) -> None:
        """What is buried or open stays. Much that lies aside is removed over several turns, but gone at once for
        whoever asks."""
        aside = self.aside
        if aside is None or not aside.items:
            MessageQueue.flush(self)
            return
        has_large, line_bytes = self.large_items.had_any, self.bytes_in - self.bytes_out
        expiry.flush_line(self, leaves_chunks=has_large)
        aside_flushing.flush(aside, 2 * self.tail, self.outstanding, line_bytes if has_large else -1)

    @property
    def takes_nothing(self) -> bool:  # type: ignore[override]
        """Puts are paused."""
        aside = self.aside
        return aside is not None and bool(aside.paused & NO_PUTS)

    # -- what limits count, and figures

    @property
    def aside_items(self) -> int:  # type: ignore[override]
        aside = self.aside
        return aside.items if aside is not None else 0

    @property
    def delayed_items(self) -> int:  # type: ignore[override]
        """Those that nobody has open."""
        aside = self.aside
        return aside.delayed.waiting if aside is not None else 0

    @property
    def stored_items(self) -> int:
        return reads.stored_items(self) + self.aside_items

    def kept(self) -> tuple[int, int]:
        """Only what stands in the line makes room for others."""
        (items, size), aside = MessageQueue.kept(self), self.aside
        return (items + aside.items, size + aside.stored_bytes) if aside is not None else (items, size)

    def all_bytes(self) -> int:
        aside = self.aside
        return MessageQueue.all_bytes(self) + (aside.stored_bytes if aside is not None else 0)

    def keeps_aside(self, item_id: int) -> bool:
        aside = self.aside
        with suppress(StorageError):
            return aside is not None and aside.log.job(item_id) is not None
        return True  # it is not known

    @property
    def waiting_items(self) -> int:
        """Those that are ready."""
        aside = self.aside
        line_items = reads.stored_items(self) - reads.open_reads(self)
        return line_items + (aside.waiting_items if aside is not None else 0)

    @property
    def waiting_bytes(self) -> int:
        """Of all items that nobody has open."""
        aside = self.aside
        return self.bytes_in - self.bytes_out + (aside.waiting_bytes if aside is not None else 0)

    @property
    def open_reads(self) -> int:
        aside = self.aside
        return reads.open_reads(self) + (aside.open_reads if aside is not None else 0)
