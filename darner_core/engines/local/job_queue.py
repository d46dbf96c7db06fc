"""A queue of which something lies aside, or that is paused, or counts failures.

What is ready comes from the line or from the aside, whichever has the more urgent head, and of two that are equally
urgent that which arrived first. All items of the line have the same priority, that of the queue's terms.

As with `tracing`, a queue becomes a JobQueue by assigning its `__class__`, so that one that uses no jobs does not pay
for the question. What MessageQueue does stays the line's matter: it is called by its name here.

No call here switches greenlets.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from darner_core.engines.large_items import Large
from darner_core.engines.local import aside_leaving, expiry, reads
from darner_core.engines.local.aside import Aside
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.reads import OpenRead
from darner_core.errors import StorageError
from darner_core.storage.job_records import NO_GETS, NO_PUTS, AsideRecord, Job, Place
from darner_core.storage.records import Item

if TYPE_CHECKING:
    from darner_core.engines.local.asides import Asides

NOTHING, LINE = False, True
# What comes first: nothing, the head of the line, or what the aside has found.
_First: TypeAlias = bool | tuple[Place, Job, Item]

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
        head_id = self.returned[0] if self.returned else self.next_id
        return aside.record.pri, 2 * head_id + 1, head_id

    def has_head(self) -> bool:
        return bool(self._first())

    def take(self) -> Item | Large | None:
        return self._take_slowly()

    def _take_slowly(self) -> Item | Large | None:
        first = self._first()
        if isinstance(first, bool):
            return self._take_head() if first else None
        assert self.aside is not None
        return self.aside.take_found(*first)

    def open(self) -> OpenRead | None:
        return self._open_slowly()

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
            return self.returned[0] if self.returned else self.next_id
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
        kept = aside.reading(aside.log.blobs) if self.large_items.had_any else set()
        expiry.flush_line(self, kept)
        slices = aside_leaving.flush(aside, 2 * self.tail, self.outstanding)
        for _ in slices:
            self.log.journal.slices.append(slices)
            break

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
